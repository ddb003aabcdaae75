//! Debian's promtool judges our blocks, and we read its.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use chronolith_chunk::encode_floats;
use chronolith_model::{BlockId, Labels, Matcher, SampleValue, TimeRange};
use chronolith_tsdb::block::{
    Block, BlockParts, BlockWriter, BlockWriterOptions, META_FILE, ThanosMeta, list_blocks, verify,
};
use chronolith_tsdb::index::IndexReader;
use chronolith_tsdb::merge::{MergeOptions, merge_blocks};

/// Series by label text, each with `(time, bits of the value)`.
type Samples = BTreeMap<String, Vec<(i64, u64)>>;

const START_MS: i64 = 1_700_000_000_000;

fn promtool(args: &[&str]) -> String {
    let out = Command::new("/usr/bin/promtool")
        .args(args)
        .output()
        .expect("promtool of Debian's package `prometheus` is installed");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "promtool {args:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

fn dump(dir: &Path) -> Samples {
    // `dump` opens the directory as a whole database, and that has a log.
    std::fs::create_dir_all(dir.join("wal")).unwrap();
    let mut out = Samples::new();
    for line in promtool(&["tsdb", "dump", dir.to_str().unwrap()]).lines() {
        let (labels, rest) = line.rsplit_once("} ").unwrap();
        let (value, t) = rest.split_once(' ').unwrap();
        let sample = (t.parse().unwrap(), value.parse::<f64>().unwrap().to_bits());
        out.entry(format!("{labels}}}")).or_default().push(sample);
    }
    out
}

fn dirs(blocks: &[Arc<Block>]) -> Vec<PathBuf> {
    blocks.iter().map(|b| b.dir().to_owned()).collect()
}

fn read(block: &Block, matchers: &[Matcher], range: TimeRange) -> Samples {
    let mut out = Samples::new();
    let mut last: Option<Labels> = None;
    for series in block.select(matchers, range).unwrap() {
        let (labels, chunks) = series.unwrap();
        assert!(last.is_none_or(|l| l < labels), "sorted");
        let samples = out.entry(labels.to_string()).or_default();
        for chunk in &chunks {
            for sample in chunk.iter().unwrap() {
                match sample.unwrap() {
                    (t, SampleValue::Float(v)) => samples.push((t, v.to_bits())),
                    other => panic!("{other:?}"),
                }
            }
        }
        last = Some(labels);
    }
    out
}

/// Series with shared and unshared labels, awkward values and text, gaps, and more chunks than one.
fn series(count: usize, samples: usize) -> Vec<(Labels, Vec<i64>, Vec<f64>)> {
    let mut out = Vec::new();
    for i in 0..count {
        let instance = format!("host-{:03}", i % 50);
        let text = ["plain", "with \"quotes\"", "back\\slash", "línea", "日本"][i % 5];
        let number = format!("{i}");
        let mut pairs = vec![("__name__", "metric_total"), ("instance", &instance), ("text", text)];
        pairs.push(("n", &number));
        if i % 3 == 0 {
            pairs.push(("only_some", "x"));
        }
        let ts: Vec<i64> =
            (0..samples as i64).map(|s| START_MS + s * 15_000 + (i as i64 * 7) % 1000).collect();
        let odd = [0.0, -0.0, 1.5e300, -1e-300, f64::INFINITY, f64::NEG_INFINITY];
        let vs = (0..samples)
            .map(|s| if s % 17 == 3 { odd[(i + s) % odd.len()] } else { (i * s) as f64 / 3.0 })
            .collect();
        out.push((Labels::from_pairs(pairs).unwrap(), ts, vs));
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

fn id(n: u128) -> BlockId {
    BlockId(ulid::Ulid::from_parts(START_MS as u64, n))
}

fn write_block(parent: &Path, n: u128, series: &[(Labels, Vec<i64>, Vec<f64>)]) -> (PathBuf, Samples) {
    let mut writer = BlockWriter::create(parent, id(n), BlockWriterOptions::default()).unwrap();
    let mut want = Samples::new();
    for (labels, ts, vs) in series {
        writer.add_series(labels, &encode_floats(ts, vs)).unwrap();
        let samples = ts.iter().zip(vs).map(|(t, v)| (*t, v.to_bits())).collect();
        want.insert(labels.to_string(), samples);
    }
    writer.finish(BlockParts::default()).unwrap().unwrap();
    (parent.join(id(n).to_string()), want)
}

#[test]
fn promtool_reads_our_block() {
    let tmp = tempfile::tempdir().unwrap();
    let (dir, want) = write_block(tmp.path(), 1, &series(300, 300));
    let list = promtool(&["tsdb", "list", tmp.path().to_str().unwrap()]);
    assert!(list.contains(&id(1).to_string()) && list.contains("90000"), "{list}");
    let analysis = promtool(&["tsdb", "analyze", tmp.path().to_str().unwrap()]);
    assert!(analysis.contains("Series: 300\n"), "{analysis}");
    let got = dump(tmp.path());
    assert_eq!(got.len(), want.len());
    assert!(got == want, "dump differs");
    let block = Block::open(&dir).unwrap();
    assert!(read(&block, &[], TimeRange::ALL) == want, "our own reading differs");
    let report = verify(&dir).unwrap();
    assert_eq!((report.series, report.samples, report.chunks), (300, 90_000, 900));
}

/// OpenMetrics text of some series over five hours, so that several blocks come out.
fn openmetrics(path: &Path) -> Samples {
    let mut text = String::new();
    let mut want = Samples::new();
    for name in ["a_gauge", "b_gauge"] {
        writeln!(text, "# TYPE {name} gauge").unwrap();
        for i in 0..40 {
            let instance = format!("i-{i:02}");
            let labels =
                Labels::from_pairs([("__name__", name), ("instance", &instance), ("job", "x")]).unwrap();
            let samples = want.entry(labels.to_string()).or_default();
            for s in 0..600i64 {
                let t = START_MS / 1000 + s * 30;
                let v = ((s * 31 + i) % 1000) as f64 / 8.0;
                writeln!(text, "{name}{{instance=\"{instance}\",job=\"x\"}} {v} {t}").unwrap();
                samples.push((t * 1000, v.to_bits()));
            }
        }
    }
    text.push_str("# EOF\n");
    std::fs::write(path, text).unwrap();
    want
}

fn promtool_blocks(tmp: &Path) -> (PathBuf, Samples) {
    let input = tmp.join("in.txt");
    let want = openmetrics(&input);
    let out = tmp.join("data");
    promtool(&["tsdb", "create-blocks-from", "openmetrics", input.to_str().unwrap(), out.to_str().unwrap()]);
    (out, want)
}

/// Byte equality, but for what promtool 2.42 still writes and Prometheus 3 no longer does: label indices before and
/// the label offset table behind the postings lists, which also shift the offsets of what follows.
fn assert_same_index(theirs: &Path, ours: &Path) {
    let (a, b) = (std::fs::read(theirs).unwrap(), std::fs::read(ours).unwrap());
    let open = |path: &Path| IndexReader::open(path).unwrap();
    let (a_index, b_index) = (open(theirs), open(ours));
    let (a_toc, b_toc) = (*a_index.toc(), *b_index.toc());
    assert_eq!((a_toc.symbols, a_toc.series), (b_toc.symbols, b_toc.series));
    assert!(a[..a_toc.series_end() as usize] == b[..b_toc.series_end() as usize], "symbols or series differ");
    let lists = |bytes: &[u8], index: &IndexReader| {
        let first = index.postings_table().find("", "").unwrap().unwrap().start;
        (first, bytes[first as usize..index.toc().postings_end() as usize].to_vec())
    };
    let ((a_first, a_lists), (b_first, b_lists)) = (lists(&a, &a_index), lists(&b, &b_index));
    // The label offset table is not aligned, so no zeros stand between.
    assert!(a_lists == b_lists, "postings lists differ");
    for name in a_index.label_names() {
        for value in a_index.label_values(&name).unwrap() {
            let place = |index: &IndexReader, first| {
                index.postings_table().find(&name, &value).unwrap().unwrap().start - first
            };
            assert_eq!(place(&a_index, a_first), place(&b_index, b_first), "{name}={value}");
        }
    }
    assert_eq!(b_toc.label_offset_table, b_toc.postings_offset_table);
    assert_eq!(b_toc.label_indices, b_toc.postings);
}

#[test]
fn we_read_and_rewrite_promtools_blocks() {
    let tmp = tempfile::tempdir().unwrap();
    let (data, want) = promtool_blocks(tmp.path());
    let blocks = list_blocks(&data).unwrap();
    assert!(blocks.len() >= 2, "{blocks:?}");
    let rewritten = tmp.path().join("rewritten");
    let mut got = Samples::new();
    let mut opened = Vec::new();
    for (id, dir) in blocks {
        verify(&dir).unwrap();
        let block = Block::open(&dir).unwrap();
        for (labels, samples) in read(&block, &[], TimeRange::ALL) {
            got.entry(labels).or_default().extend(samples);
        }
        let mut writer = BlockWriter::create(&rewritten, id, BlockWriterOptions::default()).unwrap();
        for series in block.select(&[], TimeRange::ALL).unwrap() {
            let (labels, chunks) = series.unwrap();
            writer.add_series(&labels, &chunks).unwrap();
        }
        let meta = block.meta();
        let times = Some((meta.min_time, meta.max_time));
        writer.finish(BlockParts { times, ..BlockParts::default() }).unwrap().unwrap();
        let ours = rewritten.join(id.to_string());
        assert_same_index(&dir.join("index"), &ours.join("index"));
        for file in ["chunks/000001", "tombstones", META_FILE] {
            let (a, b) = (std::fs::read(dir.join(file)).unwrap(), std::fs::read(ours.join(file)).unwrap());
            if file == META_FILE {
                // promtool 2.42 does not count floats apart.
                let mut b: serde_json::Value = serde_json::from_slice(&b).unwrap();
                b["stats"].as_object_mut().unwrap().remove("numFloatSamples");
                assert_eq!(serde_json::from_slice::<serde_json::Value>(&a).unwrap(), b);
            } else {
                assert!(a == b, "{file} of {id} differs ({} and {} bytes)", a.len(), b.len());
            }
        }
        opened.push(Arc::new(block));
    }
    got.values_mut().for_each(|s| s.sort_unstable());
    assert!(got == want, "samples differ");

    let merged = tmp.path().join("merged");
    let meta =
        merge_blocks(&dirs(&opened), &merged, &mut || id(9), &MergeOptions::default()).unwrap().remove(0);
    assert_eq!((meta.compaction.level, meta.compaction.parents.len()), (2, opened.len()));
    verify(&merged.join(id(9).to_string())).unwrap();
    assert!(dump(&merged) == want, "promtool reads something else from the merged block");
}

#[test]
fn overlapping_replicas_merge_into_one() {
    let tmp = tempfile::tempdir().unwrap();
    let all = series(60, 240);
    // Replica 1 misses every fifth sample, replica 2 every seventh, and a third of the series each.
    let part = |every: usize, skip: usize| -> Vec<_> {
        let kept = all.iter().enumerate().filter(|(i, _)| i % 3 != skip);
        kept.map(|(_, (l, ts, vs))| {
            let keep = |i: &usize| i % every != 1;
            let ts = (0..ts.len()).filter(keep).map(|i| ts[i]).collect();
            (l.clone(), ts, (0..vs.len()).filter(keep).map(|i| vs[i]).collect())
        })
        .collect()
    };
    let (one, want_one) = write_block(tmp.path(), 1, &part(5, 0));
    let (two, want_two) = write_block(tmp.path(), 2, &part(7, 1));
    let blocks = [one, two].map(|d| Arc::new(Block::open(&d).unwrap()));
    let labels = Labels::from_pairs([("tenant_id", "a")]).unwrap();
    let options =
        MergeOptions { thanos: Some(ThanosMeta::new(&labels, "compactor")), ..MergeOptions::default() };
    let out = tmp.path().join("out");
    let meta = merge_blocks(&dirs(&blocks), &out, &mut || id(3), &options).unwrap().remove(0);
    let mut want = want_one;
    for (labels, samples) in want_two {
        let merged = want.entry(labels).or_default();
        merged.extend(samples);
        merged.sort_unstable();
        merged.dedup();
    }
    assert!(dump(&out) == want, "promtool reads something else");
    verify(&out.join(id(3).to_string())).unwrap();
    assert_eq!(meta.compaction.sources, [id(1), id(2)]);
    assert!(meta.thanos.unwrap().index_stats.chunk_max_size > 0);
}

#[test]
fn deletions_hide_samples_from_us_and_from_promtool() {
    let tmp = tempfile::tempdir().unwrap();
    let (dir, mut want) = write_block(tmp.path(), 1, &series(50, 300));
    let block = Block::open(&dir).unwrap();
    let gone = TimeRange::new(START_MS + 100 * 15_000, START_MS + 200 * 15_000);
    assert_eq!(block.delete(&[Matcher::equal("instance", "host-007")], gone).unwrap(), 1);
    assert_eq!(block.delete(&[Matcher::equal("instance", "host-008")], TimeRange::ALL).unwrap(), 1);
    for (labels, samples) in &mut want {
        if labels.contains("host-007") {
            samples.retain(|(t, _)| !gone.contains(*t));
        } else if labels.contains("host-008") {
            samples.clear();
        }
    }
    want.retain(|_, s| !s.is_empty());
    assert!(read(&block, &[], TimeRange::ALL) == want, "we read something else");
    assert!(read(&Block::open(&dir).unwrap(), &[], TimeRange::ALL) == want, "reopened");
    assert!(dump(tmp.path()) == want, "promtool reads something else");
    let out = tmp.path().join("out");
    merge_blocks(&dirs(&[Arc::new(block)]), &out, &mut || id(2), &MergeOptions::default()).unwrap();
    assert!(dump(&out) == want, "the merge reads something else");
}
