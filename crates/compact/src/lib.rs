//! The compact role: the blocks of a bucket become fewer and bigger, without duplicates.
//!
//! ```text
//! sync ─ groups ─ plan ─ lease ─ download ─ merge ─ verify ─ upload ─ verified in the bucket ─ mark the sources
//! clean: marked blocks after a delay, uploads that stopped, blocks that others cover
//! ```

pub mod downsample;
pub mod group;
pub mod plan;
pub mod retention;
pub mod rewrite;
