//! All tenants' heads over one log, with their local blocks.

mod options;

pub use options::{Clock, DbOptions, Limits};
