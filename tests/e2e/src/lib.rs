//! Helpers of the end-to-end tests: the outside judges. What starts our own binaries, writes to them and asks them is
//! testkit's, shared with `tests/promises`.
//!
//! Everything here speaks HTTP to real processes; nothing reaches into the product.

mod peers;
mod thanos;

pub use chronolith_testkit::{
    Answer, Chronolith, Points, TestSeries, assert_same, chronolith_binary, write_body, write_request,
};
pub use peers::{NodeExporter, Prometheus, clients_python, promtool};
pub use thanos::{Thanos, thanos_binary, write_to};
