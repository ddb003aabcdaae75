//! Settings of a [`super::Db`].

use std::path::PathBuf;
use std::sync::Arc;

use chronolith_model::TenantId;

use super::DbError;
use crate::block::ThanosMeta;
use crate::wal::WalSync;

/// Milliseconds since the epoch, from whoever knows. Tests choose it.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Thanos's section of a tenant's blocks.
pub type BlockThanos = Arc<dyn Fn(&TenantId) -> ThanosMeta + Send + Sync>;

/// What a label set may look like at most, and how many of them a tenant may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a label name. 1,024 is Mimir's default.
    pub label_name_bytes_max: usize,
    /// Bytes of a label value. 2,048 is Mimir's default; Prometheus has no bound, so ours is looser.
    pub label_value_bytes_max: usize,
    /// Labels of one series.
    pub labels_max: usize,
    /// Active series of one tenant; 0 is no limit.
    pub series_max: usize,
    /// Buckets, and custom bounds, of one histogram sample. Exponential histograms keep to 160 as a rule; a sample of so many
    /// takes a megabyte of memory at the most.
    pub histogram_buckets_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            label_name_bytes_max: 1024,
            label_value_bytes_max: 64 << 10,
            labels_max: 128,
            series_max: 0,
            histogram_buckets_max: 16 << 10,
        }
    }
}

/// What may differ between tenants, and change while the database is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantOptions {
    /// Bounds on label sets, series and histograms.
    pub limits: Limits,
    /// As [`DbOptions::out_of_order_window_ms`].
    pub out_of_order_window_ms: i64,
}

/// A tenant's own options.
pub type TenantOptionsOf = Arc<dyn Fn(&TenantId) -> TenantOptions + Send + Sync>;

/// Settings of a [`super::Db`]; plain values but for the clock.
#[derive(Clone)]
pub struct DbOptions {
    /// Everything lies below this directory: `wal/`, `snapshot/`, `tenants/<tenant>/<block>/`.
    pub dir: PathBuf,
    /// Length of a block, and the grid that blocks lie on. 2 h by default, 24 d at most.
    pub block_range_ms: i64,
    /// How far behind a head's newest sample a sample may lie and still be taken out of order; 0 takes none.
    pub out_of_order_window_ms: i64,
    /// The window for [`super::Db::write_late`], where it is the larger one.
    pub late_window_ms: i64,
    /// How far ahead of the clock a sample may lie. 10 min is Prometheus's bound.
    pub future_max_ms: i64,
    /// When a write counts as durable.
    pub wal_sync: WalSync,
    /// Size of a log segment.
    pub wal_segment_bytes_max: u64,
    /// Bytes that may wait for the log before writers block.
    pub wal_buffer_bytes_max: usize,
    /// Parts that a head is divided into, each with a lock of its own. A power of two; kept with the data, so a
    /// change takes effect for a new directory only.
    pub shards: usize,
    /// Threads that replay and load snapshots; 0 is one for each core.
    pub replay_threads: usize,
    /// Bounds on label sets, series and histograms.
    pub limits: Limits,
    /// Exemplars that a tenant keeps; the oldest goes for the next. 0 keeps none. 100,000 is Prometheus's default; they
    /// take some 15 MB.
    pub exemplars_max: usize,
    /// Keep start timestamps: Prometheus's feature flag `st-storage`. Off, they are dropped as they come. Series that have some
    /// are stored in the chunk encodings 4 to 6, which Thanos and older Prometheus do not read.
    pub start_timestamps: bool,
    /// A tenant's own bounds and window, instead of those above. Asked when a head is made and by
    /// [`super::Db::refresh_tenant_options`].
    pub tenant_options: Option<TenantOptionsOf>,
    /// Thanos's section of the blocks that are cut: the external labels. Without it blocks have none.
    pub block_thanos: Option<BlockThanos>,
    /// The time of day, for samples that lie too far ahead.
    pub clock: Clock,
}

impl DbOptions {
    /// The defaults, for data in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        DbOptions {
            dir: dir.into(),
            block_range_ms: 2 * 3600 * 1000,
            out_of_order_window_ms: 0,
            late_window_ms: 6 * 3_600_000,
            future_max_ms: 10 * 60 * 1000,
            wal_sync: WalSync::Group,
            wal_segment_bytes_max: 128 << 20,
            wal_buffer_bytes_max: 16 << 20,
            shards: 8,
            replay_threads: 0,
            limits: Limits::default(),
            exemplars_max: 100_000,
            start_timestamps: false,
            tenant_options: None,
            block_thanos: None,
            clock: Arc::new(system_time_ms),
        }
    }
}

impl DbOptions {
    /// What holds for a tenant.
    pub(crate) fn tenant(&self, tenant: &TenantId) -> TenantOptions {
        match &self.tenant_options {
            Some(own) => own(tenant),
            None => {
                TenantOptions { limits: self.limits, out_of_order_window_ms: self.out_of_order_window_ms }
            }
        }
    }

    pub(super) fn check(&self) -> Result<(), DbError> {
        /// A chunk's duration is kept in 32 bits of milliseconds, and around 1970 a range is twice as long.
        const BLOCK_RANGE_MS_MAX: i64 = 24 * 24 * 3600 * 1000;
        let invalid = |what: &str| Err(DbError::InvalidOption(what.to_owned()));
        if !(1..=BLOCK_RANGE_MS_MAX).contains(&self.block_range_ms) {
            return invalid("the block range must be between 1 ms and 24 d");
        }
        if self.out_of_order_window_ms < 0 || self.future_max_ms < 0 {
            return invalid("time windows cannot be negative");
        }
        if !self.shards.is_power_of_two() || self.shards > 256 {
            return invalid("the number of shards must be a power of two, 256 at most");
        }
        Ok(())
    }
}

impl std::fmt::Debug for DbOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DbOptions")
            .field("dir", &self.dir)
            .field("block_range_ms", &self.block_range_ms)
            .field("out_of_order_window_ms", &self.out_of_order_window_ms)
            .field("wal_sync", &self.wal_sync)
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

fn system_time_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
