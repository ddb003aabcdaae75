//! Helpers for tests: an S3 server in this process, a bucket with faults on a knob, damaged indexes, a clock that stands still,
//! series builders, real processes (ours by name: [`Chronolith`]), remote-write bodies, and a small HTTP client.
//!
//! For tests and for `bench`, never below a role. Helpers panic where a test would unwrap.

mod answer;
mod chronolith;
mod clock;
pub mod damage;
mod faulty;
pub mod http;
mod process;
mod remote_write;
pub mod s3;
pub mod series;

pub use answer::{Answer, Points, assert_same};
pub use chronolith::{Chronolith, Launch, chronolith_binary};
pub use clock::FakeClock;
pub use faulty::{FaultControl, FaultyStore, StoreFaults};
pub use process::{Process, ProcessBuilder, free_port, wait_until};
pub use remote_write::{TestSeries, write_body, write_request};
pub use s3::{S3Faults, S3Operation, S3Request, S3Server};
