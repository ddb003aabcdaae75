//! Shipping: local blocks into the bucket, and out of the local directory when their time has come.
//!
//! ```text
//! block on disk ─ verify ─ upload (chunks, index, meta.json) ─ seen in the bucket ─ shipper file ─ retention ─ drop
//! ```
//!
//! - A block is verified, every byte of it, before its first upload: the bucket's copy outlives the local one. One that
//!   fails is reported and stays where it is.
//! - An upload that failed is repeated at the next round under the same ULID, so nothing doubles, and a crash anywhere
//!   only costs a repetition.
//! - A block counts as shipped once the bucket was asked and showed all of it; then it is put into the shipper file. Only
//!   a shipped block is ever dropped, and only after the local retention. That the bucket may have lost the block later
//!   (compacted into a larger one, deleted by retention) is the bucket's business: it is not uploaded again.
//! - Without a bucket, blocks are dropped by retention alone.
//!
//! While the bucket fails, writes go on and blocks wait on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use chronolith_bucket::{UploadOptions, is_uploaded, upload_block};
use chronolith_model::{BlockId, TenantId};
use chronolith_objstore::Bucket;
use chronolith_service::Clock;
use chronolith_service::metrics::Registry;
use chronolith_tsdb::block::{Block, BlockMeta, ThanosMeta, verify};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Mutex;

use crate::error::ReceiveError;
use crate::shipper_file;
use crate::store::time_range;
use crate::tenants::Tenants;

/// A shipped block stays at least this long after it was made, even where its samples are older than the retention (a
/// backfill): until then every store gateway has seen it (they look every 15 min by default).
const STAY_AFTER_CUT_MS: i64 = 3_600_000;

/// How blocks are shipped and kept.
#[derive(Clone, Copy, Debug)]
pub struct ShipOptions {
    /// `--tsdb.retention`: how long blocks stay on this machine. 0 keeps them for ever.
    pub retention_ms: i64,
    /// `--hash-func=SHA256`: put sums of the files into meta.json.
    pub hash: bool,
}

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShipReport {
    /// Blocks uploaded.
    pub uploaded: usize,
    /// Blocks dropped from this machine.
    pub dropped: usize,
    /// Blocks that cannot be shipped because they are damaged.
    pub damaged: usize,
}

/// What is known of a tenant's blocks beyond the shipper file.
#[derive(Debug, Default)]
struct TenantState {
    shipped: BTreeSet<BlockId>,
    damaged: BTreeSet<BlockId>,
}

/// Ships all tenants' blocks. One round at a time.
#[derive(Debug)]
pub struct Shipper {
    tenants: Arc<Tenants>,
    bucket: Option<Bucket>,
    clock: Arc<dyn Clock>,
    options: ShipOptions,
    states: Mutex<BTreeMap<TenantId, TenantState>>,
    /// Blocks that this process has found sound, and so need not be read again.
    verified: parking_lot::Mutex<BTreeSet<BlockId>>,
    metrics: ShipMetrics,
}

/// Names and meanings as in Thanos's shipper, for all tenants together.
#[derive(Clone, Debug, Default)]
struct ShipMetrics {
    rounds: Counter,
    round_failures: Counter,
    uploads: Counter,
    upload_failures: Counter,
    dropped: Counter,
    waiting: Gauge,
    damaged: Gauge,
}

impl ShipMetrics {
    fn register(registry: &mut Registry) -> Self {
        let m = ShipMetrics::default();
        registry.register("thanos_shipper_dir_syncs", "Rounds over the local blocks", m.rounds.clone());
        registry.register("thanos_shipper_dir_sync_failures", "Rounds that failed", m.round_failures.clone());
        registry.register("thanos_shipper_uploads", "Blocks uploaded", m.uploads.clone());
        registry.register("thanos_shipper_upload_failures", "Uploads that failed", m.upload_failures.clone());
        registry.register("chronolith_receive_blocks_dropped", "Local blocks dropped", m.dropped.clone());
        registry.register(
            "chronolith_receive_blocks_waiting",
            "Blocks not in the bucket yet",
            m.waiting.clone(),
        );
        let help = "Local blocks that are damaged and cannot be shipped";
        registry.register("chronolith_receive_blocks_damaged", help, m.damaged.clone());
        m
    }
}

impl Shipper {
    /// A shipper into `bucket`; without one it only drops what is older than the retention.
    pub fn new(
        tenants: Arc<Tenants>,
        bucket: Option<Bucket>,
        clock: Arc<dyn Clock>,
        options: ShipOptions,
        registry: &mut Registry,
    ) -> Self {
        let metrics = ShipMetrics::register(registry);
        Shipper {
            tenants,
            bucket,
            clock,
            options,
            states: Mutex::default(),
            verified: Default::default(),
            metrics,
        }
    }

    /// The block was verified after it was cut.
    pub fn trust(&self, block: BlockId) {
        self.verified.lock().insert(block);
    }

    /// How long blocks stay on this machine; 0 is for ever.
    pub fn retention_ms(&self) -> i64 {
        self.options.retention_ms
    }

    /// The tenant has gone.
    pub(crate) async fn forget(&self, tenant: &TenantId) {
        self.states.lock().await.remove(tenant);
    }

    /// True when there is a bucket to ship to.
    pub fn has_bucket(&self) -> bool {
        self.bucket.is_some()
    }

    /// One round over all tenants. `Ok` means that every sound block that was there when it began is in the bucket.
    pub async fn ship(&self) -> Result<ShipReport, ReceiveError> {
        let mut states = self.states.lock().await;
        self.metrics.rounds.inc();
        let result = self.round(&mut states).await;
        if result.is_err() {
            self.metrics.round_failures.inc();
        }
        self.metrics.damaged.set(states.values().map(|s| s.damaged.len() as i64).sum());
        result
    }

    async fn round(&self, states: &mut BTreeMap<TenantId, TenantState>) -> Result<ShipReport, ReceiveError> {
        let db = Arc::clone(self.tenants.db()?);
        let mut report = ShipReport::default();
        let tenants = db.tenants();
        self.metrics.waiting.set(self.waiting(&tenants, states).await? as i64);
        for tenant in tenants {
            let state = match states.entry(tenant.clone()) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let dir = self.tenant_dir(&tenant)?;
                    let shipped = blocking(move || Ok(shipper_file::read(&dir))).await?;
                    entry.insert(TenantState { shipped, ..TenantState::default() })
                }
            };
            self.ship_tenant(&tenant, state, &mut report).await?;
            self.drop_expired(&tenant, state, &mut report).await?;
            report.damaged += state.damaged.len();
        }
        Ok(report)
    }

    async fn waiting(
        &self,
        tenants: &[TenantId],
        states: &BTreeMap<TenantId, TenantState>,
    ) -> Result<usize, ReceiveError> {
        if self.bucket.is_none() {
            return Ok(0);
        }
        let db = self.tenants.db()?;
        let waits = |t: &TenantId, b: &Block| states.get(t).is_none_or(|s| !s.shipped.contains(&b.id()));
        Ok(tenants.iter().map(|t| db.blocks(t).iter().filter(|b| waits(t, b)).count()).sum())
    }

    async fn ship_tenant(
        &self,
        tenant: &TenantId,
        state: &mut TenantState,
        report: &mut ShipReport,
    ) -> Result<(), ReceiveError> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        let mut blocks = self.tenants.db()?.blocks(tenant);
        blocks.sort_by_key(|b| (b.meta().min_time, b.id()));
        for block in blocks {
            let id = block.id();
            if state.shipped.contains(&id)
                || state.damaged.contains(&id)
                || block.meta().stats.num_samples == 0
            {
                continue;
            }
            let dir = block.dir().to_owned();
            if !self.verified.lock().contains(&id) {
                let checked = dir.clone();
                match blocking(move || Ok(verify(&checked))).await? {
                    Ok(_) => self.trust(id),
                    Err(error) => {
                        let tenant = tenant.as_str();
                        tracing::error!(tenant, block = %id, err = &error as &dyn std::error::Error, "block is damaged, not uploaded");
                        state.damaged.insert(id);
                        continue;
                    }
                }
            }
            let meta = self.meta_for_bucket(tenant, block.meta());
            self.upload(bucket, tenant, &dir, &meta).await.inspect_err(|_| {
                self.metrics.upload_failures.inc();
            })?;
            state.shipped.insert(id);
            self.verified.lock().remove(&id);
            self.metrics.uploads.inc();
            // What was cut since the round began is not among those that were counted.
            self.metrics.waiting.set((self.metrics.waiting.get() - 1).max(0));
            report.uploaded += 1;
            self.write_file(tenant, state).await;
            tracing::info!(
                tenant = tenant.as_str(),
                block = %id,
                min_time = meta.min_time,
                max_time = meta.max_time,
                samples = meta.stats.num_samples,
                "block uploaded"
            );
        }
        Ok(())
    }

    async fn upload(
        &self,
        bucket: &Bucket,
        tenant: &TenantId,
        dir: &std::path::Path,
        meta: &BlockMeta,
    ) -> Result<(), ReceiveError> {
        let fail = |source| ReceiveError::Ship {
            tenant: tenant.clone(),
            block: meta.ulid,
            source: Box::new(source),
        };
        let options = UploadOptions { hash: self.options.hash, ..UploadOptions::default() };
        upload_block(bucket, dir, meta, options, self.clock.now_ms()).await.map_err(fail)?;
        if is_uploaded(bucket, meta.ulid).await.map_err(fail)? {
            Ok(())
        } else {
            Err(ReceiveError::NotSeen { tenant: tenant.clone(), block: meta.ulid })
        }
    }

    fn meta_for_bucket(&self, tenant: &TenantId, meta: &BlockMeta) -> BlockMeta {
        let mut thanos = ThanosMeta::new(&self.tenants.external_of(tenant), "receive");
        if let Some(local) = &meta.thanos {
            thanos.index_stats = local.index_stats.clone();
            thanos.unknown = local.unknown.clone();
        }
        let mut meta = meta.clone();
        meta.thanos = Some(thanos);
        meta
    }

    /// Drops what was shipped (or, without a bucket, what is there) and is older than the retention.
    async fn drop_expired(
        &self,
        tenant: &TenantId,
        state: &mut TenantState,
        report: &mut ShipReport,
    ) -> Result<(), ReceiveError> {
        let own = self.tenants.limits().of(tenant).retention_ms;
        let retention_ms = own.unwrap_or(self.options.retention_ms);
        if retention_ms == 0 {
            return Ok(());
        }
        let db = Arc::clone(self.tenants.db()?);
        let now = self.clock.now_ms();
        // Without a bucket the samples would be gone: there the tenant's own newest sample is "now", as in Prometheus, so
        // that a backfill or a stopped sender loses nothing.
        let reference = match &self.bucket {
            Some(_) => now,
            None => time_range(&db, tenant).map_or(i64::MIN, |r| r.maxt),
        };
        let before = reference.saturating_sub(retention_ms);
        let mut dropped = false;
        for block in db.blocks(tenant) {
            let (id, meta) = (block.id(), block.meta());
            let empty = meta.stats.num_samples == 0;
            let may_go = self.bucket.is_none() || empty || state.shipped.contains(&id);
            let made_ms = i64::try_from(id.0.timestamp_ms()).unwrap_or(i64::MAX);
            let stayed =
                self.bucket.is_none() || now.saturating_sub(made_ms) >= STAY_AFTER_CUT_MS.min(retention_ms);
            if meta.max_time > before || !may_go || !stayed {
                continue;
            }
            let (db, owner) = (Arc::clone(&db), tenant.clone());
            blocking(move || db.drop_block(&owner, id).map_err(ReceiveError::from)).await?;
            tracing::info!(tenant = tenant.as_str(), block = %id, max_time = meta.max_time, "local block dropped");
            self.metrics.dropped.inc();
            report.dropped += 1;
            dropped |= state.shipped.remove(&id);
        }
        if dropped {
            self.write_file(tenant, state).await;
        }
        Ok(())
    }

    /// The file is a memory of the bucket's state, so failing to write it is not failing to ship.
    async fn write_file(&self, tenant: &TenantId, state: &TenantState) {
        let shipped = state.shipped.clone();
        let Ok(dir) = self.tenant_dir(tenant) else { return };
        let written = blocking(move || Ok(shipper_file::write(&dir, &shipped))).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(tenant = tenant.as_str(), err = %error, "writing the shipper file failed");
        }
    }

    fn tenant_dir(&self, tenant: &TenantId) -> Result<PathBuf, ReceiveError> {
        Ok(self.tenants.db()?.options().dir.join("tenants").join(tenant.as_str()))
    }
}

/// Runs file work on the blocking pool.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReceiveError> + Send + 'static,
) -> Result<T, ReceiveError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| ReceiveError::Panicked(e.to_string()))?
}
