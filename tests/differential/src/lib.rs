//! The random differential check: the same data is written to Chronolith and to a real Prometheus, both are asked the same
//! random queries, and every difference is a bug or one of the named differences between versions ([`differences`]).
//!
//! ```text
//! data ─ protobuf ─┬─ Chronolith ─┐
//!                  └─ Prometheus ─┴─ compare ─ differences (named) ─ shrink ─ report
//! seed ─ generate ─── the query ──┘
//! ```
//!
//! A query is made from the seed and its own number alone, so one number is enough to ask it again (`--only`).

pub mod compare;
pub mod data;
pub mod dialect;
pub mod differences;
pub mod expr;
pub mod generate;
mod otlp;
pub mod protobuf;
pub mod random;
pub mod run;
pub mod servers;
mod starts;
