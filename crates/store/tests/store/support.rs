//! Blocks in buckets and stores over them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chronolith_bucket::{UploadOptions, upload_block};
use chronolith_chunk::Chunk;
use chronolith_model::{BlockId, Labels, Matcher, TimeRange};
use chronolith_objstore::Bucket;
use chronolith_service::{ManualClock, Metrics};
use chronolith_store::{BucketStore, Config};
use chronolith_storeapi::contract;
use chronolith_storeapi::{SeriesEvent, SeriesRequest, Store, StoreError, StoreSeries};
use chronolith_tsdb::block::{BlockParts, BlockWriter, BlockWriterOptions, ThanosMeta};
use futures::StreamExt;

pub(crate) const T0: i64 = contract::T0;
pub(crate) const NOW_MS: i64 = T0 + 30 * 86_400_000;

pub(crate) fn next_id() -> BlockId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    BlockId(((T0 as u128) << 80 | u128::from(NEXT.fetch_add(1, Ordering::SeqCst))).into())
}

/// Writes and uploads a block.
pub(crate) async fn put_block(
    bucket: &Bucket,
    external: &Labels,
    resolution: i64,
    series: impl IntoIterator<Item = (Labels, Vec<Chunk>)>,
) -> BlockId {
    put_block_as(next_id(), bucket, external, resolution, series).await
}

/// The same with a name of one's choice.
pub(crate) async fn put_block_as(
    id: BlockId,
    bucket: &Bucket,
    external: &Labels,
    resolution: i64,
    series: impl IntoIterator<Item = (Labels, Vec<Chunk>)>,
) -> BlockId {
    let dir = tempfile::tempdir().unwrap();
    let options = BlockWriterOptions { sync: false, ..BlockWriterOptions::default() };
    let mut writer = BlockWriter::create(dir.path(), id, options).unwrap();
    for (labels, chunks) in series {
        writer.add_series(&labels, &chunks).unwrap();
    }
    let mut thanos = ThanosMeta::new(external, "test");
    thanos.downsample.resolution = resolution;
    let parts = BlockParts { thanos: Some(thanos), ..BlockParts::default() };
    let meta = writer.finish(parts).unwrap().unwrap();
    let options = UploadOptions { allow_no_labels: true, ..UploadOptions::default() };
    upload_block(bucket, &dir.path().join(id.to_string()), &meta, options, T0).await.unwrap();
    id
}

pub(crate) struct Opened {
    pub(crate) store: Arc<BucketStore>,
    pub(crate) clock: ManualClock,
    _dir: tempfile::TempDir,
}

pub(crate) fn open_with(bucket: &Bucket, change: impl FnOnce(&mut Config)) -> Opened {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
    change(&mut config);
    let clock = ManualClock::new(NOW_MS);
    let store = BucketStore::new(bucket.clone(), config, Arc::new(clock.clone()), &Metrics::new()).unwrap();
    Opened { store: Arc::new(store), clock, _dir: dir }
}

pub(crate) async fn open(bucket: &Bucket) -> Opened {
    let opened = open_with(bucket, |_| {});
    opened.store.sync().await.unwrap();
    opened.store.prepare_headers().await;
    opened
}

/// A store that reads chunks again that it has read.
pub(crate) async fn open_without_chunks(bucket: &Bucket) -> Opened {
    let opened = open_with(bucket, |config| config.run_cache_bytes_max = 0);
    opened.store.sync().await.unwrap();
    opened.store.prepare_headers().await;
    opened
}

pub(crate) async fn collect(
    store: &dyn Store,
    request: SeriesRequest,
) -> Result<(Vec<StoreSeries>, Vec<String>), StoreError> {
    let (mut series, mut warnings) = (Vec::new(), Vec::new());
    let mut stream = store.series(request).await?;
    while let Some(event) = stream.next().await {
        match event? {
            SeriesEvent::Batch(batch) => series.extend(batch),
            SeriesEvent::Warning(text) => warnings.push(text),
            SeriesEvent::Hints(_) => {}
        }
    }
    Ok((series, warnings))
}

pub(crate) fn by_name(name: &str) -> SeriesRequest {
    SeriesRequest::new(TimeRange::ALL, vec![Matcher::equal("__name__", name)])
}
