//! The head: a tenant's newest samples, in memory and writable.

mod outcome;

pub use outcome::{REJECTIONS_LISTED_MAX, RejectReason, Rejection, WriteOutcome};
