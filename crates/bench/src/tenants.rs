//! What tenants cost that send nothing any more.

use anyhow::{Result, ensure};
use clap::Args;

use crate::encode::encode_steps;
use crate::peer::{Kind, Peers};
use crate::report::{Table, figure};
use crate::running::Running;
use crate::shape::Shape;

/// `chronolith-bench tenants`: each tenant writes the load once, then everything is flushed and the tenants are idle. Only
/// Chronolith among the peers has tenants.
#[derive(Args)]
pub(crate) struct Tenants {
    #[command(flatten)]
    peers: Peers,
    /// Tenants.
    #[arg(long, default_value_t = 10_000)]
    tenants: usize,
    /// Series of each.
    #[arg(long, default_value_t = 10)]
    series: usize,
}

impl Tenants {
    pub(crate) fn run(&self) -> Result<()> {
        let title = format!("{} tenants of {} series: MiB above the idle process", self.tenants, self.series);
        let mut table = Table::new(&[&title, "with their samples", "idle", "idle, after a restart"]);
        for peer in self.peers.list()?.into_iter().filter(|p| p.kind == Kind::Chronolith) {
            let max = format!("--receive.tenants-max={}", self.tenants + 1);
            let mut server = Running::start(&peer.with_args(&[&max]))?;
            let mut client = server.client();
            let shape = Shape {
                series: self.series,
                hours: 1.0,
                interval: 15,
                steps: Some(1),
                burst: 1,
                connections: 1,
                seed: 1,
            };
            let mut requests = Vec::new();
            encode_steps(&mut shape.workload()?, 0, 1, &mut requests);
            for tenant in 0..self.tenants {
                for body in &requests {
                    let reply =
                        client.write_as(server.peer.write_path(), body, &format!("tenant-{tenant:05}"))?;
                    ensure!(reply.status < 300, "{}", String::from_utf8_lossy(&reply.body));
                }
            }
            let mib = |server: &Running| figure(server.memory_bytes().1 as f64 / 1_048_576.0);
            let mut cells = vec![server.peer.title.clone(), mib(&server)];
            let reply = client.post_form("/api/v1/admin/tsdb/flush", &[])?;
            ensure!(reply.status < 300, "flush: {}", String::from_utf8_lossy(&reply.body));
            server.settle()?;
            cells.push(mib(&server));
            server.restart(false)?;
            server.settle()?;
            cells.push(mib(&server));
            table.row(&cells);
        }
        println!("{}", table.into_text());
        Ok(())
    }
}
