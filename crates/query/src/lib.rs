//! The query role: PromQL over any number of StoreAPI endpoints.
//!
//! ```text
//! discovery (flags, file, DNS) ─ endpoints (who answers) ─ Fanout ─ select ─ PromQL engine ─ http
//! ```

mod aggregate;
mod config;
mod discovery;
mod endpoints;
pub mod http;
mod run;
mod select;

pub use config::Config;
pub use endpoints::{EndpointPool, EndpointState, LocalStore};
pub use run::{BuildError, Built, Process, RunError, build, run};
pub use select::{SelectOptions, StoreQueryable};
