//! Seconds until a server is ready again, and the anonymous memory that this takes at its peak beside what the head had before.

use anyhow::Result;
use clap::Args;

use crate::encode::encode_steps;
use crate::ingest;
use crate::peer::Peers;
use crate::report::{Table, figure, median};
use crate::running::Running;
use crate::shape::Shape;

/// `chronolith-bench restart`.
#[derive(Args)]
pub(crate) struct Restart {
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    peers: Peers,
    /// Repeats; the figures are their medians.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
}

impl Restart {
    pub(crate) fn run(&self) -> Result<()> {
        let mut table = Table::new(&[
            "restart",
            "head KiB per series",
            "replay's peak",
            "snapshot's peak",
            "ready s after kill",
            "ready s after SIGTERM",
        ]);
        let per_series = |bytes: u64| bytes as f64 / 1024.0 / self.shape.series as f64;
        for peer in self.peers.list()? {
            let mut columns: [Vec<f64>; 5] = Default::default();
            for _ in 0..self.repeat {
                let mut server = Running::start(&peer)?;
                self.ingest(&server)?;
                columns[0].push(per_series(server.memory_bytes().1));
                columns[3].push(server.restart(true)?);
                columns[1].push(per_series(server.memory_bytes().0));
                columns[4].push(server.restart(false)?);
                columns[2].push(per_series(server.memory_bytes().0));
            }
            let mut cells = vec![peer.title.clone()];
            cells.extend(columns.into_iter().map(|c| figure(median(c))));
            table.row(&cells);
        }
        println!("{}, medians of {}\n\n{}", self.shape.title(), self.repeat, table.into_text());
        Ok(())
    }

    fn ingest(&self, server: &Running) -> Result<()> {
        let mut workload = self.shape.workload()?;
        let mut step = 0;
        while step < self.shape.steps() {
            let steps = self.shape.burst.min(self.shape.steps() - step);
            let mut requests = Vec::new();
            encode_steps(&mut workload, step, steps, &mut requests);
            ingest::send(server, &requests, self.shape.connections)?;
            step += steps;
        }
        Ok(())
    }
}
