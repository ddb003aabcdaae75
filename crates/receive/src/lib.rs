//! The receive role: remote write in, blocks out.
//!
//! ```text
//! POST /api/v1/receive ─ remote_write ─ WriteSink (ingest) ─ heads and log (tsdb::Db)
//! heads ─ maintenance: cut ─ local blocks ─ ship ─ bucket
//! heads and local blocks ─ Store (store) ─ gRPC, queriers
//! ```

mod admin;
mod beside;
mod closable;
mod config;
mod error;
mod features;
mod forward;
mod handoff;
pub mod hashring;
mod ingest;
mod labels;
pub mod limits;
mod maintenance;
mod metrics;
pub mod otlp;
mod rejections;
mod relabel;
pub mod remote_write;
mod run;
mod ship;
pub mod shipper_file;
mod store;
mod tenant;
mod tenants;

pub use admin::head_stats;
pub use config::{Config, LimitsSource};
pub use error::ReceiveError;
pub use features::StorageFeatures;
pub use forward::ForwardOptions;
pub use handoff::HandoffOptions;
pub use ingest::LocalSink;
pub use maintenance::Maintenance;
pub use run::{Parts, Receive, build, run};
pub use ship::{ShipOptions, ShipReport, Shipper};
pub use store::TenantsStore;
pub use tenant::{
    CertificateField, OTHER_TENANTS, TENANT_HEADER, TenantIdentity, TenantNames, TenantRefusal,
};
pub use tenants::Tenants;
