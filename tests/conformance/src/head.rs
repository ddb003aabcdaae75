//! The head of one tenant, written through the receiver's [`WriteSink`] and read through its store.

use std::sync::Arc;

use bytes::Bytes;
use chronolith_model::write::encode_labels;
use chronolith_model::{Labels, Sample, TenantId, WriteBatch, WriteBatchBuilder, WriteHistogram};
use chronolith_promql::Queryable;
use chronolith_promql::script::{LoadedSeries, LoadedValue, ScriptStorage};
use chronolith_query::StoreQueryable;
use chronolith_receive::remote_write::BatchPool;
use chronolith_receive::{LocalSink, Tenants, TenantsStore};
use chronolith_service::Metrics;
use chronolith_storeapi::{Store, WriteSink};
use chronolith_tsdb::db::{Db, DbOptions, WalSync};
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::select::queryable;

/// A head with its log in a directory of its own.
pub struct HeadStorage {
    runtime: Handle,
    tenant: TenantId,
    sink: LocalSink,
    store: Arc<dyn Store>,
    queryable: StoreQueryable,
    _dir: TempDir,
}

impl HeadStorage {
    /// An empty head.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub fn open(runtime: &Handle) -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let mut options = DbOptions::new(dir.path());
        options.wal_sync = WalSync::Off;
        // As the script of start timestamps asks for it; it changes nothing for samples without one.
        options.start_timestamps = true;
        let (db, _) = Db::open(options).expect("an empty database");
        // One tenant without a label of its own: scripts compare whole label sets.
        let tenants = Arc::new(Tenants::new(Labels::default(), ""));
        tenants.set_db(db);
        let pool = Arc::new(BatchPool::default());
        let sink =
            Metrics::new().register(|registry| LocalSink::new(Arc::clone(&tenants), pool, 1, None, registry));
        let store: Arc<dyn Store> = Arc::new(TenantsStore::new(tenants));
        let queryable = runtime.block_on(queryable(Arc::clone(&store), true)).expect("a head's description");
        HeadStorage {
            runtime: runtime.clone(),
            tenant: TenantId::new("script").expect("a valid name"),
            sink,
            store,
            queryable,
            _dir: dir,
        }
    }
}

impl ScriptStorage for HeadStorage {
    fn load(&mut self, series: &[LoadedSeries]) -> Result<(), String> {
        let batch = batch(series);
        let count = batch.sample_count();
        let report =
            self.runtime.block_on(self.sink.write(&self.tenant, batch)).map_err(|e| e.to_string())?;
        if let Some(first) = report.rejections.first() {
            return Err(format!("{}: {} ({} rejected)", first.series, first.reason, report.rejected));
        }
        if report.written != count {
            return Err(format!("{} of {count} samples were written", report.written));
        }
        self.queryable = self.runtime.block_on(queryable(Arc::clone(&self.store), true))?;
        Ok(())
    }

    fn queryable(&self) -> &dyn Queryable {
        &self.queryable
    }
}

fn batch(series: &[LoadedSeries]) -> WriteBatch {
    let mut builder = WriteBatchBuilder::default();
    builder.start(0);
    let mut section = Vec::new();
    for s in series {
        section.clear();
        encode_labels(s.labels.iter(), &mut section);
        // A write request lists floats and histograms apart; where kinds alternate, a sender that keeps the order of time
        // names the series once for each run.
        let is_float = |v: &LoadedValue| matches!(v, LoadedValue::Float(_));
        for run in s.samples.chunk_by(|a, b| is_float(&a.value) == is_float(&b.value)) {
            builder.push_series_bytes(&section);
            for sample in run {
                match &sample.value {
                    LoadedValue::Float(v) => {
                        let float = Sample { t: sample.t, v: *v };
                        builder.push_sample_with_start_ts(float, sample.start_t);
                    }
                    LoadedValue::Histogram(h) => {
                        let histogram = WriteHistogram::Float(Box::new((**h).clone()));
                        builder.push_histogram_with_start_ts(sample.t, histogram, sample.start_t);
                    }
                }
            }
        }
    }
    builder.finish(Bytes::new())
}
