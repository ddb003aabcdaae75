//! What PromQL functions compute, on slices and numbers: no labels, no plan, no storage.

pub(crate) mod almost;
pub(crate) mod binary;
pub(crate) mod blocks;
pub(crate) mod classic;
pub(crate) mod date;
pub(crate) mod kahan;
pub(crate) mod math;
pub(crate) mod native;
pub(crate) mod natural;
pub(crate) mod over_time;
pub(crate) mod quantile;
pub(crate) mod rate;
pub(crate) mod sorted;
