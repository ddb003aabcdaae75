//! The comparisons of `docs/performance.md`, one after the other.

use anyhow::Result;
use clap::Args;

use crate::compare::{Plan, compare};
use crate::peer::Peers;
use crate::sets::Set;
use crate::shape::Shape;

/// `chronolith-bench suite`.
#[derive(Args)]
pub(crate) struct Suite {
    #[command(flatten)]
    peers: Peers,
    /// Repeats of each comparison. The figures of queries are medians of three even within one.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// A part of all series, for a quick look: 0.1 is a tenth.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
}

impl Suite {
    pub(crate) fn run(&self) -> Result<()> {
        let peers = self.peers.list()?;
        for (shape, plan) in self.parts() {
            println!("{}", compare(&shape, &peers, &plan)?);
        }
        Ok(())
    }

    fn parts(&self) -> [(Shape, Plan); 4] {
        let shape = |series: usize, hours, interval, burst| Shape {
            series: ((series as f64 * self.scale) as usize).max(2000),
            hours,
            interval,
            steps: None,
            burst,
            connections: 4,
            seed: 1,
        };
        let plan = |set, dashboards, disk| Plan {
            repeat: self.repeat,
            queries: vec![set],
            query_runs: 2,
            only: String::new(),
            dashboards,
            disk,
        };
        [
            // As scrapes come: this one is about ingest, too.
            (shape(50_000, 1.0, 15, 1), plan(Set::Fixed, 0, true)),
            // A day and a week are written in bursts, as only the queries over them are of interest.
            (shape(2000, 24.0, 15, 20), plan(Set::Fixed, 0, false)),
            (shape(100_000, 1.0, 15, 10), plan(Set::Language, 30, false)),
            (shape(2000, 168.0, 60, 20), plan(Set::Language, 0, false)),
        ]
    }
}
