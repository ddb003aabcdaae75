//! Load for a server that already runs.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;

use crate::http::Client;
use crate::peer::Kind;
use crate::protocol::Protocol;
use crate::workload::Workload;

const INTERVAL_MS: i64 = 15_000;

/// `chronolith-bench load`.
#[derive(Args)]
pub(crate) struct Load {
    /// Address of the server's remote-write listener.
    #[arg(long, default_value = "127.0.0.1:9090")]
    address: std::net::SocketAddr,
    /// Path of the handler; by default where Chronolith takes the protocol.
    #[arg(long)]
    path: Option<String>,
    /// How the load is written.
    #[arg(long, value_enum, default_value_t)]
    protocol: Protocol,
    /// Series of the workload.
    #[arg(long, default_value_t = 10_000)]
    series: usize,
    /// Steps of 15 s, ending now.
    #[arg(long, default_value_t = 240)]
    steps: u64,
    /// Share of the hosts that is replaced every 240 steps, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    churn: f64,
    /// Seed of the workload.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Load {
    pub(crate) fn run(&self) -> Result<()> {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
        let start_ms = now_ms - self.steps as i64 * INTERVAL_MS;
        let mut workload = Workload::new(self.series, start_ms, INTERVAL_MS, self.seed);
        let mut client = Client::new(self.address);
        let default = self.protocol.path(Kind::Chronolith).expect("Chronolith knows all protocols");
        let path = self.path.as_deref().unwrap_or(default);
        for step in 0..self.steps {
            if self.churn > 0.0 && step > 0 && step.is_multiple_of(240) {
                workload.churn(self.churn);
            }
            let mut requests = Vec::new();
            self.protocol.encode_steps(&mut workload, step, 1, &mut requests);
            for body in &requests {
                let reply = client.write_by(self.protocol, path, body)?;
                anyhow::ensure!(
                    reply.status < 300,
                    "{} answered {}: {}",
                    self.address,
                    reply.status,
                    String::from_utf8_lossy(&reply.body)
                );
            }
        }
        println!("{} samples written and acknowledged", self.steps * self.series as u64);
        Ok(())
    }
}
