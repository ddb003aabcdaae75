//! The receive role: remote write in, blocks out.

pub mod remote_write;
