//! What a bucket's blocks cost that nobody asks for.

use std::net::SocketAddr;
use std::process::Child;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use chronolith_testkit::{S3Operation, S3Server};
use clap::Args;

use crate::blocks::Blocks;
use crate::http::Client;
use crate::memory::{MemoryWatch, anonymous_bytes};
use crate::peer::{Kind, Peer, Peers};
use crate::report::{Table, figure};
use crate::running::{cpu_seconds, free_address, spawn_command, terminate};

/// `chronolith-bench idle`: a store and a compactor over an S3 server in this process, which counts their requests. The
/// blocks are as far compacted as they can be, so there is nothing to do. What is done every so often is made to happen every
/// second, counted, and multiplied by what it is a day at the defaults.
#[derive(Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    peers: Peers,
    /// Blocks: raw, 5 m and 1 h of stretches of 14 days, a year of each tenant.
    #[arg(long, default_value_t = 10_000)]
    blocks: usize,
    /// Series of each block.
    #[arg(long, default_value_t = 20)]
    series: usize,
    /// Blocks that each meta.json names as its block's sources: 168 of 2 h make 14 days.
    #[arg(long, default_value_t = 168)]
    sources: usize,
    /// Make index headers at the first query only.
    #[arg(long)]
    lazy: bool,
}

/// Looks of a store a day (`--sync-block-duration`, 15 m).
const SYNCS: f64 = 96.0;
/// Iterations of a compactor a day (`--wait-interval`, 5 m), and full looks among them.
const ITERATIONS: f64 = 288.0;
const FULL_LOOKS: f64 = 24.0;
/// Times that an unchanged bucket index is written a day.
const INDEX_WRITES: f64 = 72.0;
/// Looks that are counted.
const COUNTED: u64 = 10;
/// Nobody waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(900);

/// A role's process.
struct Role {
    child: Child,
    address: SocketAddr,
    _memory: MemoryWatch,
    ready_s: f64,
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Role {
    fn metric(&self, name: &str) -> Result<f64> {
        let reply = Client::new(self.address).get("/metrics")?;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        let line = text.lines().find(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        let value = line.and_then(|l| l.rsplit(' ').next()).with_context(|| format!("no metric {name}"))?;
        Ok(value.parse()?)
    }

    fn wait_for(&self, metric: &str, at_least: f64) -> Result<()> {
        let began = Instant::now();
        while self.metric(metric)? < at_least {
            ensure!(began.elapsed() < PATIENCE, "{metric} does not come to {at_least}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Seconds until it did nothing for two seconds.
    fn settle(&self) -> Result<f64> {
        let began = Instant::now();
        let (mut before, mut active) = (self.cpu_seconds()?, Instant::now());
        while active.elapsed() < Duration::from_secs(2) && began.elapsed() < PATIENCE {
            std::thread::park_timeout(Duration::from_millis(200));
            let now = self.cpu_seconds()?;
            if now - before > 0.02 {
                active = Instant::now();
            }
            before = now;
        }
        Ok((active - began).as_secs_f64())
    }

    fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.child.id())
    }

    fn mib(&self) -> f64 {
        anonymous_bytes(self.child.id()).unwrap_or(0) as f64 / 1_048_576.0
    }

    fn stop(mut self) -> Result<()> {
        terminate(&self.child)?;
        self.child.wait()?;
        Ok(())
    }
}

/// The bucket, and the roles that are started over it.
struct Bench<'a> {
    peer: &'a Peer,
    server: S3Server,
    dir: tempfile::TempDir,
    lazy: bool,
}

impl Bench<'_> {
    fn start(&self, role: &str, data: &str, args: &[&str]) -> Result<Role> {
        self.server.clear_requests();
        let address = free_address()?;
        let mut command = self.peer.role(role, &self.dir.path().join(data), address);
        command.arg(format!("--objstore.config={}", self.server.config_yaml())).args(args);
        let log = self.dir.path().join(format!("{data}.log"));
        let (child, memory, ready_s) = spawn_command(self.peer, command, &log, address)?;
        Ok(Role { child, address, _memory: memory, ready_s })
    }

    fn store(&self, data: &str, args: &[&str]) -> Result<Role> {
        let headers = if self.lazy { "lazy" } else { "eager" };
        let headers = format!("--store.index-header-lazy-download-strategy={headers}");
        self.start("store", data, &[&["--grpc-address=127.0.0.1:0", &headers][..], args].concat())
    }

    /// How soon a store is ready, and what it holds when it has come to rest.
    fn begin(&self, title: &str, data: &str, args: &[&str], table: &mut Table) -> Result<()> {
        let store = self.store(data, args)?;
        let requests = self.server.requests().len();
        let more_s = store.settle()?;
        let all = self.server.requests().len();
        table.row(&[
            title.to_owned(),
            figure(store.ready_s),
            requests.to_string(),
            figure(store.ready_s + more_s),
            all.to_string(),
            figure(store.cpu_seconds()?),
            figure(store.mib()),
        ]);
        store.stop()
    }
}

impl Idle {
    pub(crate) fn run(&self) -> Result<()> {
        let peers = self.peers.list()?;
        let peer =
            peers.iter().find(|p| p.kind == Kind::Chronolith).context("only Chronolith has these roles")?;
        let blocks = Blocks { count: self.blocks, series: self.series, sources: self.sources };
        let server = S3Server::start();
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
        blocks.put(&server, now_ms)?;
        let dir = tempfile::Builder::new().prefix("chronolith-bench-").tempdir()?;
        let bench = Bench { peer, server, dir, lazy: self.lazy };
        println!("{} blocks of {} series, {} sources each\n", self.blocks, self.series, self.sources);
        self.starts(&bench)?;
        self.day(&bench)
    }

    fn starts(&self, bench: &Bench<'_>) -> Result<()> {
        let mut table = Table::new(&[
            "store finds blocks by, data directory",
            "ready s",
            "requests",
            "at rest s",
            "requests",
            "CPU s",
            "idle MiB",
        ]);
        let listing = ["--store.bucket-index.max-stale-period=0s"];
        bench.begin("listing, empty", "listing", &listing, &mut table)?;
        bench.begin("listing, as left", "listing", &listing, &mut table)?;
        let compactor = bench.start("compact", "compact", &["--wait"])?;
        compactor.wait_for("thanos_compact_iterations_total", 1.0)?;
        compactor.stop()?;
        let index = bench.server.object("chronolith/bucket-index.json.gz").context("it wrote no index")?;
        bench.begin("index, empty", "indexed", &[], &mut table)?;
        bench.begin("index, as left", "indexed", &[], &mut table)?;
        println!("{}\nbucket index: {} bytes\n", table.into_text(), index.len());
        Ok(())
    }

    fn day(&self, bench: &Bench<'_>) -> Result<()> {
        let mut table = Table::new(&["idle", "requests a day", "per 1,000 blocks", "CPU s a day", "MiB"]);
        let mut row = |title: &str, requests: f64, cpu_s: f64, mib: f64| {
            let thousands = self.blocks as f64 / 1000.0;
            table.row(&[
                title.to_owned(),
                figure(requests),
                figure(requests / thousands),
                figure(cpu_s),
                figure(mib),
            ]);
        };
        for (title, data, args) in [
            ("store by index", "indexed", &["--sync-block-duration=1s"][..]),
            (
                "store by listing",
                "listing",
                &["--sync-block-duration=1s", "--store.bucket-index.max-stale-period=0s"],
            ),
        ] {
            let store = bench.store(data, args)?;
            let (requests, cpu_s) = each(bench, &store, "thanos_blocks_meta_syncs_total")?;
            row(title, requests * SYNCS, cpu_s * SYNCS, store.mib());
            store.stop()?;
        }
        // Beside its iterations it looks for what is to be deleted as often.
        let often = ["--wait", "--wait-interval=1s", "--compact.cleanup-interval=1s"];
        let compactor = bench.start("compact", "compact", &often)?;
        compactor.wait_for("thanos_compact_iterations_total", 1.0)?;
        let full = bench.server.counts().get(&S3Operation::ListObjects).copied().unwrap_or(0) as f64;
        let full_cpu_s = compactor.cpu_seconds()?;
        let (requests, cpu_s) = each(bench, &compactor, "thanos_compact_iterations_total")?;
        let cpu_s = cpu_s * ITERATIONS + full_cpu_s * FULL_LOOKS;
        row("compactor", requests * ITERATIONS + full * FULL_LOOKS + INDEX_WRITES, cpu_s, compactor.mib());
        compactor.stop()?;
        println!("{}", table.into_text());
        Ok(())
    }
}

/// Requests and CPU seconds of one look, over some.
fn each(bench: &Bench<'_>, role: &Role, counter: &str) -> Result<(f64, f64)> {
    role.wait_for(counter, role.metric(counter)? + 2.0)?;
    bench.server.clear_requests();
    let (cpu_s, count) = (role.cpu_seconds()?, role.metric(counter)?);
    role.wait_for(counter, count + COUNTED as f64)?;
    let looks = role.metric(counter)? - count;
    Ok((bench.server.requests().len() as f64 / looks, (role.cpu_seconds()? - cpu_s) / looks))
}
