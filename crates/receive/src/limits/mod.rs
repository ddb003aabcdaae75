//! What a tenant may do: the limits file, and what holds requests to it.
//!
//! ```text
//! file ── LimitsConfig ── Limits ──┬─ admit (before decoding): concurrent requests, bytes      429, 413
//!        (as a whole or not at all)├─ check_batch (after):     series, samples, rate           413, 429
//!                                  ├─ relabeling, external labels, retention                   asked by who does it
//!                                  └─ Db (TenantOptions):      active series, labels, window   429, 400
//! ```
//!
//! Shape and names are Thanos's limits file; ours beyond it are listed in `docs/operating/tenants.md`. A file that is wrong
//! is refused as a whole: at the start the process ends, later the old limits stay and a metric rises.

mod config;
mod fair;
mod file;
mod metrics;
mod rate;
mod refusal;
mod reload;
mod tenant_state;

pub use config::{LabelLimits, LimitsConfig, RateLimit, RequestLimits, TenantLimits};
pub use fair::{FairQueue, FairShare, QueueRefusal};
pub(crate) use file::LABELS_MAX;
pub use refusal::LimitRefusal;
pub use reload::watch;
pub use tenant_state::{Admitted, Limits};

#[cfg(test)]
mod file_tests;
