//! Series that come and go: hours of data in which a share of the hosts is replaced every hour. Does the memory stay as it is?

use anyhow::{Result, ensure};
use clap::Args;

use crate::encode::encode_steps;
use crate::ingest;
use crate::peer::Peers;
use crate::report::{Table, figure};
use crate::running::Running;
use crate::shape::Shape;

/// `chronolith-bench churn`. Time is simulated: an hour of samples is written as fast as the server takes it, and then the
/// server gets the time to come to rest; a Chronolith is told to look for work every second (`--shipper.interval`).
#[derive(Args)]
pub(crate) struct Churn {
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    peers: Peers,
    /// Share of the hosts that is replaced every hour, 0 to 1.
    #[arg(long, default_value_t = 0.1)]
    share: f64,
}

/// What was held in an hour, in bytes.
struct Hour {
    peak: u64,
    after: u64,
}

/// Hours until the first blocks have been cut and the heads are what they go on to be.
const WARM_UP_HOURS: usize = 6;

impl Churn {
    pub(crate) fn run(&self) -> Result<()> {
        let hours = self.shape.hours as usize;
        ensure!(hours > 2 * WARM_UP_HOURS, "the first {WARM_UP_HOURS} hours are compared with what follows");
        for peer in self.peers.list()? {
            let peer = peer.with_args(&["--shipper.interval=1s"]);
            let mut server = Running::start(&peer)?;
            let held = self.hours(&server, hours)?;
            println!(
                "{}: {}, {} % replaced every hour\n",
                peer.title,
                self.shape.title(),
                self.share * 100.0
            );
            let mut table = Table::new(&["hour", "peak MiB", "MiB at its end"]);
            let mib = |bytes: u64| figure(bytes as f64 / 1_048_576.0);
            for (i, hour) in held.iter().enumerate() {
                table.row(&[(i + 1).to_string(), mib(hour.peak), mib(hour.after)]);
            }
            println!("{}", table.into_text());
            let growth = |of: fn(&Hour) -> u64| {
                let max = |hours: &[Hour]| hours.iter().map(of).max().unwrap_or(0) as f64;
                let early = max(&held[WARM_UP_HOURS / 2..WARM_UP_HOURS + WARM_UP_HOURS / 2]);
                (max(&held[hours - WARM_UP_HOURS..]) / early - 1.0) * 100.0
            };
            println!(
                "the last {WARM_UP_HOURS} hours against hours {} to {}: peak {:+.1} %, at rest {:+.1} %",
                WARM_UP_HOURS / 2 + 1,
                WARM_UP_HOURS + WARM_UP_HOURS / 2,
                growth(|h| h.peak),
                growth(|h| h.after)
            );
            // What is held for the heads and blocks there are, without what the allocator kept meanwhile.
            server.restart(false)?;
            server.settle()?;
            println!("after a restart: {} MiB", mib(server.memory_bytes().1));
        }
        Ok(())
    }

    fn hours(&self, server: &Running, hours: usize) -> Result<Vec<Hour>> {
        let mut workload = self.shape.workload()?;
        let steps_per_hour = self.shape.steps() / hours as u64;
        let mut held = Vec::new();
        for hour in 0..hours as u64 {
            server.reset_memory_peak();
            if hour > 0 {
                workload.churn(self.share);
            }
            let (mut step, end) = (hour * steps_per_hour, (hour + 1) * steps_per_hour);
            while step < end {
                let steps = self.shape.burst.min(end - step);
                let mut requests = Vec::new();
                encode_steps(&mut workload, step, steps, &mut requests);
                ingest::send(server, &requests, self.shape.connections)?;
                step += steps;
            }
            server.settle()?;
            let (peak, after) = server.memory_bytes();
            held.push(Hour { peak, after });
        }
        Ok(held)
    }
}
