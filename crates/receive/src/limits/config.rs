//! Limits as the program needs them: checked, and complete for each tenant.

use std::collections::HashMap;
use std::sync::Arc;

use chronolith_model::{Relabeling, TenantId};
use chronolith_tsdb::db::TenantOptions;

use super::refusal::LimitRefusal;

/// Bounds on one request; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestLimits {
    /// Bytes of a body, compressed as well as decompressed.
    pub size_bytes: u64,
    /// Series.
    pub series: u64,
    /// Samples, histograms included.
    pub samples: u64,
}

impl RequestLimits {
    /// Holds a body's size against the limit.
    pub fn check_size(&self, bytes: u64) -> Result<(), LimitRefusal> {
        within("write request size in bytes", bytes, self.size_bytes)
    }

    /// Holds what was decoded against the limits.
    pub fn check_batch(&self, series: usize, samples: usize) -> Result<(), LimitRefusal> {
        within("timeseries", series as u64, self.series)?;
        within("samples", samples as u64, self.samples)
    }
}

fn within(what: &'static str, found: u64, limit: u64) -> Result<(), LimitRefusal> {
    if limit > 0 && found > limit { Err(LimitRefusal::Request { what, found, limit }) } else { Ok(()) }
}

/// Bounds on one label set; `None` is the process's own bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LabelLimits {
    /// Labels.
    pub count: Option<usize>,
    /// Bytes of a name.
    pub name_bytes: Option<usize>,
    /// Bytes of a value.
    pub value_bytes: Option<usize>,
}

/// A bound on samples over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Samples a second that go on for ever.
    pub samples_per_second: f64,
    /// Samples that may come at once after a pause.
    pub burst_samples: f64,
}

/// What holds for one tenant.
#[derive(Clone, Debug, Default)]
pub struct TenantLimits {
    /// Bounds on a request.
    pub request: RequestLimits,
    /// Active series of this receiver; 0 is none.
    pub head_series: u64,
    /// Bounds on label sets.
    pub labels: LabelLimits,
    /// Bound on samples a second.
    pub rate: Option<RateLimit>,
    /// Requests at a time; 0 is none.
    pub concurrent_requests: usize,
    /// How long its blocks stay on this machine; `None` is `--tsdb.retention`.
    pub retention_ms: Option<i64>,
    /// `None` is `--tsdb.out-of-order.time-window`.
    pub out_of_order_window_ms: Option<i64>,
    /// Rules that come after those of `--receive.relabel-config`.
    pub relabeling: Relabeling,
    /// External labels beside the `--label`s, sorted; they win over these.
    pub external_labels: Vec<(String, String)>,
}

impl TenantLimits {
    /// The database's options for this tenant, where `own` are the process's.
    pub fn tenant_options(&self, own: TenantOptions) -> TenantOptions {
        let mut options = own;
        if self.head_series > 0 {
            options.limits.series_max = usize::try_from(self.head_series).unwrap_or(usize::MAX);
        }
        let labels = &self.labels;
        options.limits.labels_max = labels.count.unwrap_or(options.limits.labels_max);
        options.limits.label_name_bytes_max =
            labels.name_bytes.unwrap_or(options.limits.label_name_bytes_max);
        options.limits.label_value_bytes_max =
            labels.value_bytes.unwrap_or(options.limits.label_value_bytes_max);
        options.out_of_order_window_ms =
            self.out_of_order_window_ms.unwrap_or(options.out_of_order_window_ms);
        options
    }
}

/// The whole file.
#[derive(Clone, Debug, Default)]
pub struct LimitsConfig {
    /// Requests decoded at a time, over all tenants; 0 leaves it to the number of cores.
    pub max_concurrency: usize,
    /// What holds for tenants that are not named.
    pub default: Arc<TenantLimits>,
    /// The named ones.
    pub tenants: HashMap<TenantId, Arc<TenantLimits>>,
}

impl LimitsConfig {
    /// What holds for a tenant.
    pub fn of(&self, tenant: &TenantId) -> &Arc<TenantLimits> {
        self.tenants.get(tenant).unwrap_or(&self.default)
    }
}
