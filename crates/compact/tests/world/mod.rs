//! A bucket full of blocks, compactors over it, and a reader that says what it holds.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chronolith_bucket::{BlockFilter, FetchOptions, Fetcher, UploadOptions, upload_block};
use chronolith_chunk::encode_floats;
use chronolith_compact::work::WorkDir;
use chronolith_compact::{CompactMetrics, Compactor, Config};
use chronolith_model::{BlockId, Labels, TimeRange};
use chronolith_objstore::Bucket;
use chronolith_service::shutdown::CancellationToken;
use chronolith_service::{ManualClock, Metrics};
use chronolith_tsdb::block::{
    Block, BlockMeta, BlockParts, BlockWriter, BlockWriterOptions, ThanosMeta, verify,
};

pub(crate) const HOUR_MS: i64 = 3_600_000;
/// 2020-03-24 08:00, a multiple of 8 h.
pub(crate) const NOW_MS: i64 = 1_585_036_800_000;

/// Samples by external and own labels, then time.
pub(crate) type Content = BTreeMap<(String, String), BTreeMap<i64, u64>>;

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

/// One series of a block.
pub(crate) type Series = (Labels, Vec<(i64, f64)>);

/// Writes a block and uploads it as a sidecar would have, an hour before `NOW_MS`.
pub(crate) async fn put_block(
    bucket: &Bucket,
    n: u128,
    external: &Labels,
    times: (i64, i64),
    mut series: Vec<Series>,
) -> BlockId {
    let tmp = tempfile::tempdir().unwrap();
    let id = BlockId(ulid::Ulid::from_parts((NOW_MS - HOUR_MS) as u64, n));
    let options = BlockWriterOptions { sync: false, ..BlockWriterOptions::default() };
    let mut writer = BlockWriter::create(tmp.path(), id, options).unwrap();
    series.sort_by(|a, b| a.0.cmp(&b.0));
    for (labels, samples) in series {
        let (ts, values): (Vec<i64>, Vec<f64>) = samples.into_iter().unzip();
        writer.add_series(&labels, &encode_floats(&ts, &values)).unwrap();
    }
    let thanos = Some(ThanosMeta::new(external, "sidecar"));
    let parts = BlockParts { times: Some(times), thanos, ..BlockParts::default() };
    let meta = writer.finish(parts).unwrap().unwrap();
    let dir = tmp.path().join(id.to_string());
    upload_block(bucket, &dir, &meta, UploadOptions::default(), NOW_MS - HOUR_MS).await.unwrap();
    id
}

/// A compactor with a directory and a clock of its own.
pub(crate) struct Worker {
    pub(crate) compactor: Compactor,
    pub(crate) metrics: Metrics,
    pub(crate) own: CompactMetrics,
    pub(crate) clock: ManualClock,
    pub(crate) stop: CancellationToken,
}

pub(crate) fn config() -> Config {
    Config { http_address: None, lease_duration: Duration::from_millis(150), ..Config::default() }
}

pub(crate) fn worker(bucket: &Bucket, dir: &Path, config: Config) -> Worker {
    let config = Config { data_dir: dir.to_owned(), ..config };
    let metrics = Metrics::new();
    let own = metrics.register(|r| CompactMetrics::register(r, config.delete_delay.as_secs_f64(), true));
    let (clock, stop) = (ManualClock::new(NOW_MS), CancellationToken::new());
    let work = WorkDir::claim(dir, 0).unwrap();
    let compactor =
        Compactor::new(config, bucket.clone(), Arc::new(clock.clone()), own.clone(), work, stop.clone());
    Worker { compactor, metrics, own, clock, stop }
}

impl Worker {
    /// The sum of a counter or gauge over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.metrics.openmetrics();
        let lines = text.lines().filter(|l| {
            let rest = l.strip_prefix(name).unwrap_or("-");
            rest.starts_with(' ') || rest.starts_with('{')
        });
        lines.filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}

/// What a reader of the bucket sees: visible blocks without duplicates; marked ones as well, since they are hidden much later
/// than their replacement is there. Panics when a sample is there twice, or a block is not sound.
pub(crate) async fn read(bucket: &Bucket) -> Content {
    let mut content = Content::new();
    for (external, block) in visible(bucket).await {
        for (labels, samples) in block {
            let seen = content.entry((external.clone(), labels.clone())).or_default();
            for (t, value) in samples {
                assert!(seen.insert(t, value).is_none(), "{external} {labels} at {t} twice");
            }
        }
    }
    content
}

/// The same where copies of samples are to be expected and taken once.
pub(crate) async fn read_copies(bucket: &Bucket) -> Content {
    let mut content = Content::new();
    for (external, block) in visible(bucket).await {
        for (labels, samples) in block {
            content.entry((external.clone(), labels)).or_default().extend(samples);
        }
    }
    content
}

type BlockContent = BTreeMap<String, BTreeMap<i64, u64>>;

async fn visible(bucket: &Bucket) -> Vec<(String, BlockContent)> {
    let tmp = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    for (meta, block) in open_visible(bucket, tmp.path()).await {
        if meta.resolution().is_none_or(|r| r.ms() != 0) {
            continue;
        }
        let mut content = BlockContent::new();
        for series in block.select(&[], TimeRange::ALL).unwrap() {
            let (labels, chunks) = series.unwrap();
            let samples = content.entry(labels.to_string()).or_default();
            for chunk in chunks {
                for sample in chunk.iter().unwrap() {
                    let (t, value) = sample.unwrap();
                    let chronolith_model::SampleValue::Float(v) = value else { panic!("{value:?}") };
                    assert!(
                        samples.insert(t, v.to_bits()).is_none(),
                        "{labels} at {t} twice in {}",
                        meta.ulid
                    );
                }
            }
        }
        out.push((external(&meta), content));
    }
    out
}

fn external(meta: &BlockMeta) -> String {
    meta.thanos.as_ref().unwrap().external_labels().unwrap().to_string()
}

/// Downloads and opens what a reader sees of the bucket.
async fn open_visible(bucket: &Bucket, tmp: &Path) -> Vec<(Arc<BlockMeta>, Block)> {
    let fetcher = Fetcher::new(bucket.clone(), FetchOptions::default());
    // Late enough for blocks of compactors whose clocks were advanced.
    let found = fetcher.fetch_with(&BlockFilter::default(), NOW_MS + 2400 * HOUR_MS).await.unwrap();
    assert!(found.corrupt.is_empty() && found.failed.is_empty(), "{found:?}");
    let mut out = Vec::new();
    for meta in found.blocks.into_values() {
        let dir = tmp.join(meta.ulid.to_string());
        // Without the syncs of a real download.
        std::fs::create_dir_all(dir.join("chunks")).unwrap();
        for file in meta.thanos.iter().flat_map(|t| &t.files).filter(|f| f.rel_path != "meta.json") {
            let bytes = bucket.get(&format!("{}/{}", meta.ulid, file.rel_path)).await.unwrap();
            std::fs::write(dir.join(&file.rel_path), bytes).unwrap();
        }
        meta.write(&dir).unwrap();
        verify(&dir).unwrap();
        out.push((meta, Block::open(&dir).unwrap()));
    }
    out
}

/// Downsampled chunks by external labels, resolution, own labels and time.
pub(crate) type Coarse = BTreeMap<(String, i64, String), BTreeMap<i64, Vec<u8>>>;

/// What a reader sees at coarser resolutions. Panics when a chunk is there twice.
pub(crate) async fn read_coarse(bucket: &Bucket) -> Coarse {
    let tmp = tempfile::tempdir().unwrap();
    let mut out = Coarse::new();
    for (meta, block) in open_visible(bucket, tmp.path()).await {
        let resolution = meta.resolution().unwrap().ms();
        if resolution == 0 {
            continue;
        }
        for series in block.select(&[], TimeRange::ALL).unwrap() {
            let (labels, chunks) = series.unwrap();
            let chunks_seen = out.entry((external(&meta), resolution, labels.to_string())).or_default();
            for chunk in chunks {
                let twice = chunks_seen.insert(chunk.mint, chunk.data.to_vec());
                assert!(twice.is_none(), "{labels} at {} twice", chunk.mint);
            }
        }
    }
    out
}

/// The ids of all blocks with meta.json.
pub(crate) async fn blocks(bucket: &Bucket) -> BTreeSet<BlockId> {
    let everything = BlockFilter { hide_duplicates: false, ..BlockFilter::default() };
    let fetcher = Fetcher::new(bucket.clone(), FetchOptions::default());
    fetcher.fetch_with(&everything, NOW_MS + 2400 * HOUR_MS).await.unwrap().blocks.into_keys().collect()
}

/// Samples every ten minutes; their values depend on series and time only, so that copies are equal.
pub(crate) fn series(n: usize, from: i64, to: i64) -> Series {
    let samples = (from * 6..to * 6).map(|i| (NOW_MS + i * HOUR_MS / 6, (i * 10 + n as i64) as f64));
    (labels(&[("__name__", "up"), ("n", &n.to_string())]), samples.collect())
}

/// A group that is ready, one with copies that overlap, and one that has nothing to do.
pub(crate) async fn fill(bucket: &Bucket) {
    let (a, b, c) = (labels(&[("g", "a")]), labels(&[("g", "b")]), labels(&[("g", "c")]));
    for i in 0..5 {
        let all = (i as usize..i as usize + 3).map(|n| series(n, 2 * i, 2 * i + 2)).collect();
        put_block(bucket, i as u128 + 1, &a, times(2 * i, 2 * i + 2), all).await;
    }
    put_block(bucket, 11, &b, times(0, 2), vec![series(1, 0, 2)]).await;
    put_block(bucket, 12, &b, times(2, 4), vec![series(1, 2, 4), series(2, 2, 4)]).await;
    put_block(bucket, 13, &b, times(3, 5), vec![series(3, 3, 5)]).await;
    put_block(bucket, 21, &c, times(0, 2), vec![series(1, 0, 2)]).await;
}

pub(crate) fn times(from: i64, to: i64) -> (i64, i64) {
    (NOW_MS + from * HOUR_MS, NOW_MS + to * HOUR_MS)
}

/// What is left to do, if anything.
pub(crate) async fn finished(bucket: &Bucket, before: &Content) {
    let dir = tempfile::tempdir().unwrap();
    let w = worker(bucket, dir.path(), config());
    let report = w.compactor.iterate().await.unwrap();
    assert_eq!((report.compactions, report.failed, report.busy), (0, 0, 0), "{report:?}");
    assert!(read(bucket).await == *before);
    // Five and three blocks became two and two, whatever it took.
    let later =
        worker(bucket, &dir.path().join("later"), Config { delete_delay: Duration::ZERO, ..config() });
    // Marks of a worker whose clock is ahead are due when that time has come.
    later.clock.advance(6 * HOUR_MS);
    later.compactor.iterate().await.unwrap();
    assert_eq!(blocks(bucket).await.len(), 2 + 2 + 1);
    assert!(read(bucket).await == *before);
}

/// Iterates until nothing is left, in a fresh process.
pub(crate) async fn finish(bucket: &Bucket, dir: &Path) {
    let w = worker(bucket, dir, config());
    for _ in 0..500 {
        let report = w.compactor.iterate().await.unwrap();
        assert_eq!(report.failed, 0, "{report:?}");
        if report.compactions + report.busy == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    panic!("work is left");
}

/// Tries deaths at each of so many calls: in turn before the call has its effect, or after; with `CHRONOLITH_SOAK` set both at each.
pub(crate) async fn deaths<F: Future<Output = ()> + Send + 'static>(
    calls: u64,
    mut die: impl FnMut(u64, bool) -> F,
) {
    use futures::StreamExt;
    let both = std::env::var_os("CHRONOLITH_SOAK").is_some();
    let all = (0..calls).flat_map(|n| [(n, n % 2 == 0), (n, n % 2 != 0)]);
    let tries = all.filter(|(n, applied)| both || *applied == (n % 2 == 0));
    let tries: Vec<F> = tries.map(|(n, applied)| die(n, applied)).collect();
    // Several at a time: they wait for the disk.
    let done: Vec<_> =
        futures::stream::iter(tries.into_iter().map(tokio::spawn)).buffer_unordered(8).collect().await;
    done.into_iter().for_each(|result| result.unwrap());
}

/// A copy of all objects.
pub(crate) async fn copy(bucket: &Bucket) -> Bucket {
    use futures::TryStreamExt;
    let to = Bucket::in_memory();
    let objects: Vec<_> = bucket.list("").try_collect().await.unwrap();
    for object in objects {
        to.put(&object.key, bucket.get(&object.key).await.unwrap()).await.unwrap();
    }
    to
}
