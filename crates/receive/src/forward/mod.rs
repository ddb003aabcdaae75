//! Replication: write requests are distributed over the receivers of a hashring and answered by quorum.
//!
//! ```text
//! sink (RingSink) ─ place: which receiver keeps what ─ peer: queue, workers, backoff ─ gRPC
//!                 └ fanout: one request ─ tally: quorum per series, Thanos's table of failures
//! watch: the hashring file ─ sink
//! ```

mod fanout;
mod metrics;
mod peer;
mod place;
mod sink;
mod status;
mod tally;
mod watch;

pub use sink::ForwardOptions;
pub(crate) use sink::{RingSink, RingWrites};
pub(crate) use status::router as status_router;
pub(crate) use watch::HashringWatch;
