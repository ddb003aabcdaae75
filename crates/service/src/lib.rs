//! What every process needs around its work: logging, metrics, listeners, probes, shutdown, configuration files.
//!
//! Nothing here knows a role or a storage format. A role is handed a [`metrics::Metrics`], a [`probes::Probe`] and a
//! `CancellationToken`, and hands back routers for the listeners to serve.

pub mod clock;
pub mod config;
pub mod exit;
pub mod families;
pub mod grpc;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod probes;
mod process;
pub mod relabel;
pub mod shutdown;
pub mod tls;
pub mod watched;

pub use clock::{Clock, ManualClock, SystemClock};
pub use metrics::Metrics;
pub use probes::{Probe, Probes};
