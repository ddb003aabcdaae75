//! Seconds until a server is ready again.

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
            "ready s after SIGTERM",
            "ready s after kill",
            "replay peak KiB per series",
        ]);
        for peer in self.peers.list()? {
            let (mut term, mut kill, mut peak) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..self.repeat {
                let mut server = Running::start(&peer)?;
                self.ingest(&server)?;
                kill.push(server.restart(true)?);
                peak.push(server.memory_bytes().0 as f64 / 1024.0 / self.shape.series as f64);
                term.push(server.restart(false)?);
            }
            table.row(&[
                peer.title.clone(),
                figure(median(term)),
                figure(median(kill)),
                figure(median(peak)),
            ]);
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
