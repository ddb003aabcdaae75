//! The query role: PromQL over any number of StoreAPI endpoints.
//!
//! ```text
//! discovery (flags, file, DNS) ─ endpoints (who answers) ─ Fanout ─ select ─ PromQL engine ─ http
//! ```
//!
//! `fold` is the way below the merge: aggregations that stores fold themselves, and an engine over a store for other queriers.

mod admission;
mod aggregate;
mod config;
mod discovery;
mod endpoints;
mod features;
mod fold;
pub mod http;
mod run;
mod select;

pub use admission::{Admission, AdmissionConfig, Admitted, Origin, QueryRecord, QueueFull, Refusal};
pub use config::Config;
pub use endpoints::{EndpointPool, EndpointState, LocalStore};
pub use features::Features;
pub use fold::evaluate_over;
pub use run::{BuildError, Built, Process, RunError, build, run};
pub use select::{SelectOptions, StoreQueryable};
