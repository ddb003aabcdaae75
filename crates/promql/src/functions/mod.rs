//! What PromQL functions compute, on slices and numbers: no labels, no plan, no storage.

pub(crate) mod date;
pub(crate) mod kahan;
