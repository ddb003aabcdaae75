//! The compact role: the blocks of a bucket become fewer and bigger, without duplicates, and coarser ones beside them.
//!
//! ```text
//! sync ─ groups ─ plan ─ lease ─ download ─ merge ─ verify ─ upload ─ seen whole in the bucket ─ mark the sources
//! clean: marked blocks after a delay, uploads that stopped, blocks that others cover
//! ```
//!
//! Any number of processes works on one bucket; they meet in leases only. Invariants: a block is marked for deletion only when
//! what replaces it was seen whole in the bucket; a job done twice, or stopped anywhere, leaves nothing that the next iteration
//! does not put right; a bad block or group never stops the others.

pub mod clean;
mod compactor;
mod config;
mod deletion;
pub mod downsample;
mod downsampling;
pub mod group;
mod job;
pub mod lease;
mod metrics;
pub mod parts;
pub mod plan;
pub mod progress;
pub mod relabel;
mod replace;
pub mod retention;
mod retire;
pub mod rewrite;
mod run;
pub mod sync;
pub mod work;

pub use compactor::{Compactor, Report};
pub use config::Config;
pub use job::JobError;
pub use metrics::CompactMetrics;
pub use run::{BuildError, Built, Parts, RunError, build, run};
