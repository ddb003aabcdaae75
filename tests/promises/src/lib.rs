//! The promises of the write path and of the bucket, tried with real processes: what was acknowledged or uploaded is there, once,
//! whatever happened to a process, a disk, a network or a clock meanwhile.
//!
//! ```text
//! Load (writers that retry as Prometheus does) ─► Cluster (receivers, store, querier, S3) ◄─ a test breaks it
//!   └─ Ledger (what was acknowledged) ──────────► check: read everything back: missing, doubled, wrong
//!
//! Group (blocks of known samples, uploaded by the tools) ─► Archive (store, querier, S3) and its compactors ◄─ a test breaks them
//!   └─ Archive::read: all of it there once, or said what is missing ─► Archive::assert_settled: no work is left
//! ```
//!
//! Nothing here reaches into the product. A test waits for conditions, never for a time; how much it does is
//! [`effort`]'s business: little in `make test`, much in `make soak`.

mod archive;
mod check;
mod clock;
mod cluster;
mod disk;
mod effort;
mod load;
mod network;
mod proxy;
mod scratch;

pub use archive::{Archive, Compactor, CompactorPlace, Group, Made, Reading, Watch};
pub use check::{Verdict, check, check_replicas, check_soon};
pub use clock::ClockShift;
pub use cluster::{Cluster, ClusterOptions, Place, Receiver};
pub use disk::SmallDisk;
pub use effort::Effort;
pub use load::{Ledger, Load, LoadOptions, Sample};
pub use network::Network;
pub use proxy::SlowProxy;
pub use scratch::Scratch;
