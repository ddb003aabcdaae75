//! Helpers of the end-to-end tests: start the real binaries, write to them, ask them, compare answers.
//!
//! Everything here speaks HTTP to real processes; nothing reaches into the product.

mod answer;
mod peers;
mod server;
mod writer;

pub use answer::{Answer, Points, assert_same};
pub use peers::{NodeExporter, Prometheus, clients_python, promtool};
pub use server::{Chronolith, chronolith_binary};
pub use writer::{TestSeries, write_body, write_request};
