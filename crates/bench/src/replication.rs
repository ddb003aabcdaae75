//! What replication costs: three receivers in one hashring over loopback, CPU of all processes together.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::encode::encode_steps;
use crate::http::Client;
use crate::report::{Table, figure, median, percentile};
use crate::running::{cpu_seconds, free_address};
use crate::shape::Shape;

const RECEIVERS: usize = 3;
/// A receiver that is not ready by then will not be.
const READY_MAX: Duration = Duration::from_secs(60);

/// `chronolith-bench replication`.
#[derive(Args)]
pub(crate) struct Replication {
    #[command(flatten)]
    shape: Shape,
    /// Replication factors, one after the other; 0 is one receiver without a hashring.
    #[arg(long, value_delimiter = ',', default_value = "0,1,3")]
    factors: Vec<usize>,
    /// Repeats; the figures are their medians.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// The chronolith binary; by default the one beside this program.
    #[arg(long)]
    chronolith: Option<PathBuf>,
}

/// What one run measured.
struct Figures {
    cpu_us_per_sample: f64,
    p50_s: f64,
    p99_s: f64,
}

impl Replication {
    pub(crate) fn run(&self) -> Result<()> {
        let binary = match &self.chronolith {
            Some(binary) => binary.clone(),
            None => std::env::current_exe()?.with_file_name("chronolith"),
        };
        let mut columns: Vec<Vec<Figures>> = self.factors.iter().map(|_| Vec::new()).collect();
        // In turns, so that what else the machine does falls on all.
        for _ in 0..self.repeat {
            for (factor, column) in self.factors.iter().zip(&mut columns) {
                column.push(self.measure(&binary, *factor)?);
            }
        }
        let mut table = Table::new(&["replication", "CPU µs per sample", "p50 ms", "p99 ms"]);
        for (factor, column) in self.factors.iter().zip(&columns) {
            let middle = |of: fn(&Figures) -> f64| figure(median(column.iter().map(of).collect()));
            let title = match factor {
                0 => "one receiver, no hashring".to_owned(),
                n => format!("{RECEIVERS} receivers, factor {n}"),
            };
            table.row(&[
                title,
                middle(|f| f.cpu_us_per_sample),
                middle(|f| f.p50_s * 1e3),
                middle(|f| f.p99_s * 1e3),
            ]);
        }
        println!("{}, medians of {}\n\n{}", self.shape.title(), self.repeat, table.into_text());
        Ok(())
    }

    fn measure(&self, binary: &Path, factor: usize) -> Result<Figures> {
        let count = if factor == 0 { 1 } else { RECEIVERS };
        let cluster = Cluster::start(binary, count, factor)?;
        let mut workload = self.shape.workload()?;
        let latencies = Mutex::new(Vec::new());
        let (mut step, mut samples) = (0, 0);
        while step < self.shape.steps() {
            let steps = self.shape.burst.min(self.shape.steps() - step);
            let mut requests = Vec::new();
            encode_steps(&mut workload, step, steps, &mut requests);
            cluster.send(&requests, self.shape.connections, &latencies)?;
            step += steps;
            samples += steps * self.shape.series as u64;
        }
        cluster.settle()?;
        let cpu_us_per_sample = cluster.cpu_s()? * 1e6 / samples as f64;
        let mut latencies = latencies.into_inner().expect("no sender panicked");
        latencies.sort_unstable_by(f64::total_cmp);
        Ok(Figures {
            cpu_us_per_sample,
            p50_s: percentile(&latencies, 0.5),
            p99_s: percentile(&latencies, 0.99),
        })
    }
}

/// Running receivers, killed when dropped.
struct Cluster {
    receivers: Vec<(Child, SocketAddr)>,
    cpu_at_start_s: f64,
    _dir: tempfile::TempDir,
}

impl Cluster {
    fn start(binary: &Path, count: usize, factor: usize) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("chronolith-bench-").tempdir()?;
        let grpc: Vec<SocketAddr> = (0..count).map(|_| free_address()).collect::<Result<_>>()?;
        let file = dir.path().join("hashrings.json");
        let endpoints: Vec<String> = grpc.iter().map(ToString::to_string).collect();
        std::fs::write(&file, serde_json::json!([{"endpoints": endpoints}]).to_string())?;
        let mut cluster = Cluster { receivers: Vec::new(), cpu_at_start_s: 0.0, _dir: dir };
        let mut probes = Vec::new();
        for (i, grpc) in grpc.iter().enumerate() {
            let (write, http) = (free_address()?, free_address()?);
            let data = file.with_file_name(format!("r{i}"));
            std::fs::create_dir_all(&data)?;
            let log = std::fs::File::create(data.join("log"))?;
            let mut command = Command::new(binary);
            command
                .arg("receive")
                .args(["--remote-write.address", &write.to_string()])
                .args(["--http-address", &http.to_string()])
                .args(["--grpc-address", &grpc.to_string()])
                .args(["--label", &format!("replica=\"r{i}\"")])
                .arg("--tsdb.path")
                .arg(&data);
            if factor > 0 {
                command
                    .arg("--receive.hashrings-file")
                    .arg(&file)
                    .args(["--receive.hashrings-algorithm", "ketama"])
                    .args(["--receive.local-endpoint", &grpc.to_string()])
                    .args(["--receive.replication-factor", &factor.to_string()]);
            }
            let child = command
                .stdout(Stdio::from(log.try_clone()?))
                .stderr(Stdio::from(log))
                .spawn()
                .with_context(|| format!("cannot start {}", binary.display()))?;
            cluster.receivers.push((child, write));
            probes.push(http);
        }
        for address in probes {
            let begin = Instant::now();
            while !Client::new(address).get("/-/ready").is_ok_and(|r| r.status == 200) {
                if begin.elapsed() > READY_MAX {
                    bail!("the receiver at {address} did not become ready");
                }
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
        cluster.cpu_at_start_s = cluster.cpu_s()?;
        Ok(cluster)
    }

    /// CPU seconds of all receivers since they were ready.
    fn cpu_s(&self) -> Result<f64> {
        let mut sum = -self.cpu_at_start_s;
        for (child, _) in &self.receivers {
            sum += cpu_seconds(child.id())?;
        }
        Ok(sum)
    }

    /// Waits until the receivers do nothing any more: the last replicas are written behind the answers.
    fn settle(&self) -> Result<()> {
        let mut before = self.cpu_s()?;
        loop {
            std::thread::park_timeout(Duration::from_millis(500));
            let now = self.cpu_s()?;
            if now - before < 0.03 {
                return Ok(());
            }
            before = now;
        }
    }

    /// Sends one step's requests. A part of the series goes to the same receiver every time, as from a Prometheus.
    fn send(&self, requests: &[Vec<u8>], connections: usize, latencies: &Mutex<Vec<f64>>) -> Result<()> {
        let queue: Mutex<VecDeque<(usize, &[u8])>> =
            Mutex::new(requests.iter().map(Vec::as_slice).enumerate().collect());
        std::thread::scope(|scope| {
            let senders: Vec<_> = (0..connections)
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        let mut clients: Vec<Client> =
                            self.receivers.iter().map(|(_, address)| Client::new(*address)).collect();
                        loop {
                            let next = queue.lock().expect("no sender panicked").pop_front();
                            let Some((i, body)) = next else { return Ok(()) };
                            let started = Instant::now();
                            let receiver = i % clients.len();
                            let reply = clients[receiver].write("/api/v1/receive", body)?;
                            if !(200..300).contains(&reply.status) {
                                let text = String::from_utf8_lossy(&reply.body).into_owned();
                                bail!("receiver {receiver} answered {}: {text}", reply.status);
                            }
                            let seconds = started.elapsed().as_secs_f64();
                            latencies.lock().expect("no sender panicked").push(seconds);
                        }
                    })
                })
                .collect();
            senders.into_iter().try_for_each(|s| s.join().expect("a sender returns its error"))
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (child, _) in &mut self.receivers {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
