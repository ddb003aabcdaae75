//! Blocks in a bucket, one for each `load`, served over gRPC by the store gateway.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chronolith_bucket::{UploadOptions, upload_block};
use chronolith_chunk::{
    Chunk, ChunkError, FloatHistogramEncoder, SampleColumns, Xor2Encoder, encode_columns,
};
use chronolith_model::{BlockId, Labels};
use chronolith_objstore::{Bucket, BucketConfig, BucketMetrics, open};
use chronolith_promql::Queryable;
use chronolith_promql::script::{LoadedSample, LoadedSeries, LoadedValue, ScriptStorage};
use chronolith_query::StoreQueryable;
use chronolith_service::grpc::GrpcListener;
use chronolith_service::shutdown::CancellationToken;
use chronolith_service::{Metrics, Probes, SystemClock};
use chronolith_store::{BucketStore, Config};
use chronolith_storeapi::{ClientOptions, ServerOptions, Services, Store, StoreClient, routes};
use chronolith_tsdb::block::{BlockParts, BlockWriter, BlockWriterOptions, ThanosMeta};
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::select::queryable;

/// How the querier reaches the store gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over a socket, as the role `query` does.
    Grpc,
    /// By function calls, as in `server`.
    Local,
}

/// A bucket in a directory, a store gateway over it, and what the querier calls.
pub struct BlockStorage {
    runtime: Handle,
    bucket: Bucket,
    store: Arc<BucketStore>,
    served: Arc<dyn Store>,
    way: Way,
    queryable: StoreQueryable,
    shutdown: CancellationToken,
    dir: TempDir,
}

impl BlockStorage {
    /// An empty bucket.
    ///
    /// # Panics
    /// When it cannot be made or served.
    pub fn open(runtime: &Handle, way: Way) -> Self {
        runtime.block_on(Self::start(way))
    }

    async fn start(way: Way) -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let metrics = Metrics::new();
        let config = BucketConfig::filesystem(&dir.path().join("bucket").to_string_lossy());
        let bucket = open(&config, metrics.register(BucketMetrics::register)).expect("a bucket");
        let config = Config { data_dir: dir.path().join("store"), ..Config::default() };
        let store = Arc::new(
            BucketStore::new(bucket.clone(), config, Arc::new(SystemClock), &metrics)
                .expect("caches in memory open"),
        );
        // Before it has looked, a store says that it knows nothing yet.
        store.sync().await.expect("an empty bucket is listed");
        let shutdown = CancellationToken::new();
        let served = match way {
            Way::Grpc => serve(store.clone(), shutdown.clone()).await,
            Way::Local => store.clone(),
        };
        let queryable =
            queryable(Arc::clone(&served), way == Way::Local).await.expect("the store describes itself");
        BlockStorage { runtime: Handle::current(), bucket, store, served, way, queryable, shutdown, dir }
    }

    async fn add_block(&mut self, series: &[LoadedSeries]) -> Result<(), String> {
        let text = |e: &dyn std::error::Error| e.to_string();
        let id = next_id();
        let options = BlockWriterOptions { sync: false, ..BlockWriterOptions::default() };
        let mut writer = BlockWriter::create(self.dir.path(), id, options).map_err(|e| text(&e))?;
        // A script may name a series twice in one `load`: as a histogram of its own, and made from classic buckets.
        let mut by_labels: BTreeMap<&Labels, Vec<Chunk>> = BTreeMap::new();
        for s in series {
            by_labels.entry(&s.labels).or_default().extend(chunks(s).map_err(|e| text(&e))?);
        }
        for (labels, chunks) in by_labels {
            writer.add_series(labels, &chunks).map_err(|e| text(&e))?;
        }
        let thanos = Some(ThanosMeta::new(&Labels::default(), "script"));
        let parts = BlockParts { thanos, ..BlockParts::default() };
        let Some(meta) = writer.finish(parts).map_err(|e| text(&e))? else { return Ok(()) };
        let options = UploadOptions { allow_no_labels: true, ..UploadOptions::default() };
        let dir = self.dir.path().join(id.to_string());
        upload_block(&self.bucket, &dir, &meta, options, 0).await.map_err(|e| text(&e))?;
        self.store.sync().await.map_err(|e| text(&e))?;
        self.queryable = queryable(Arc::clone(&self.served), self.way == Way::Local).await?;
        Ok(())
    }
}

/// Serves a store until `shutdown`, and connects to it.
async fn serve(store: Arc<dyn Store>, shutdown: CancellationToken) -> Arc<dyn Store> {
    let listener = GrpcListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().to_string();
    let services = Services { store: Some(store), ..Services::default() };
    let app = routes(&services, &ServerOptions::default());
    tokio::spawn(listener.serve(app, Probes::new(), shutdown));
    Arc::new(StoreClient::new(&address, &ClientOptions::default()).expect("a client"))
}

impl Drop for BlockStorage {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl ScriptStorage for BlockStorage {
    fn load(&mut self, series: &[LoadedSeries]) -> Result<(), String> {
        let runtime = self.runtime.clone();
        runtime.block_on(self.add_block(series))
    }

    fn queryable(&self) -> &dyn Queryable {
        &self.queryable
    }
}

fn next_id() -> BlockId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    BlockId(u128::from(NEXT.fetch_add(1, Ordering::Relaxed)).into())
}

/// A series' samples as a writer of blocks encodes them: in the encodings with start timestamps where there are some.
fn chunks(series: &LoadedSeries) -> Result<Vec<Chunk>, ChunkError> {
    let mut out = Vec::new();
    for run in series.samples.chunk_by(|a, b| is_float(&a.value) == is_float(&b.value)) {
        if run.iter().any(|s| s.start_t != 0) {
            with_start_timestamps(run, &mut out)?;
            continue;
        }
        let mut columns = SampleColumns::default();
        for sample in run {
            match &sample.value {
                LoadedValue::Float(v) => columns.push_float(sample.t, *v),
                LoadedValue::Histogram(h) => columns.push_histogram(sample.t, Arc::clone(h)),
            }
        }
        out.extend(encode_columns(&columns)?);
    }
    Ok(out)
}

fn with_start_timestamps(run: &[LoadedSample], out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
    let mut floats = Xor2Encoder::new();
    let mut open: Option<(i64, FloatHistogramEncoder)> = None;
    for sample in run {
        let (st, t) = (sample.start_t, sample.t);
        match (&sample.value, &mut open) {
            (LoadedValue::Float(v), _) => floats.append(st, t, *v)?,
            (LoadedValue::Histogram(h), None) => {
                open = Some((t, FloatHistogramEncoder::first_with_start_ts(None, st, t, h)?));
            }
            (LoadedValue::Histogram(h), Some((mint, encoder))) => {
                if let Some(next) = encoder.append_with_start_ts(st, t, h)? {
                    let maxt = encoder.last_t();
                    out.push(std::mem::replace(encoder, next).finish_chunk(*mint, maxt));
                    *mint = t;
                }
            }
        }
    }
    let last = run[run.len() - 1].t;
    out.push(match open {
        Some((mint, encoder)) => encoder.finish_chunk(mint, last),
        None => floats.finish_chunk(run[0].t, last),
    });
    Ok(())
}

fn is_float(value: &LoadedValue) -> bool {
    matches!(value, LoadedValue::Float(_))
}
