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
use chronolith_tsdb::block::{Block, BlockParts, BlockWriter, BlockWriterOptions, ThanosMeta, verify};

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
    let fetcher = Fetcher::new(bucket.clone(), FetchOptions::default());
    let found = fetcher.fetch_with(&BlockFilter::default(), NOW_MS).await.unwrap();
    assert!(found.corrupt.is_empty() && found.failed.is_empty(), "{found:?}");
    let tmp = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    for meta in found.blocks.values().filter(|m| m.resolution().is_some_and(|r| r.ms() == 0)) {
        let dir = tmp.path().join(meta.ulid.to_string());
        // Without the syncs of a real download.
        std::fs::create_dir_all(dir.join("chunks")).unwrap();
        for file in meta.thanos.iter().flat_map(|t| &t.files) {
            let bytes = bucket.get(&format!("{}/{}", meta.ulid, file.rel_path)).await.unwrap();
            std::fs::write(dir.join(&file.rel_path), bytes).unwrap();
        }
        verify(&dir).unwrap();
        let external = meta.thanos.as_ref().unwrap().external_labels().unwrap().to_string();
        let block = Block::open(&dir).unwrap();
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
        out.push((external, content));
    }
    out
}

/// The ids of all blocks with meta.json.
pub(crate) async fn blocks(bucket: &Bucket) -> BTreeSet<BlockId> {
    let everything = BlockFilter { hide_duplicates: false, ..BlockFilter::default() };
    let fetcher = Fetcher::new(bucket.clone(), FetchOptions::default());
    fetcher.fetch_with(&everything, NOW_MS).await.unwrap().blocks.into_keys().collect()
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
