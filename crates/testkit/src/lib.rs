//! Helpers for tests: an S3 server in this process, a bucket with faults on a knob, a clock that stands still,
//! series builders, real processes, and a small HTTP client.
//!
//! Only ever a dev-dependency. Helpers panic where a test would unwrap.

mod clock;
mod faulty;
pub mod http;
mod process;
pub mod s3;
pub mod series;

pub use clock::FakeClock;
pub use faulty::{FaultControl, FaultyStore, StoreFaults};
pub use process::{Process, ProcessBuilder, free_port, wait_until};
pub use s3::{S3Faults, S3Operation, S3Request, S3Server};
