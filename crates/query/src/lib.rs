//! The query role: PromQL over any number of StoreAPI endpoints.
//!
//! ```text
//! discovery (flags, file, DNS) ─ endpoints (who answers) ─ Fanout ─ select ─ PromQL engine ─ http
//! ```

mod aggregate;
mod config;
mod discovery;
mod endpoints;
mod select;

pub use config::Config;
pub use endpoints::{EndpointPool, EndpointState, LocalStore};
pub use select::{SelectOptions, StoreQueryable};
