//! The servers under measurement: how each is started, and what it costs as the kernel counts it.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::http::Client;

/// A server that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// This project's `chronolith server`.
    Chronolith,
    /// Debian's `prometheus` as a remote-write receiver.
    Prometheus,
    /// Debian's `victoria-metrics`.
    VictoriaMetrics,
}

impl Peer {
    /// The column head in reports.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Peer::Chronolith => "Chronolith",
            Peer::Prometheus => "Prometheus",
            Peer::VictoriaMetrics => "VictoriaMetrics",
        }
    }

    /// Where remote write goes.
    pub(crate) fn write_path(self) -> &'static str {
        match self {
            Peer::Chronolith => "/api/v1/receive",
            Peer::Prometheus | Peer::VictoriaMetrics => "/api/v1/write",
        }
    }

    fn ready_path(self) -> &'static str {
        match self {
            Peer::Chronolith | Peer::Prometheus => "/-/ready",
            Peer::VictoriaMetrics => "/health",
        }
    }

    fn command(self, options: &Options, dir: &Path, address: SocketAddr) -> Command {
        let data = dir.join("data");
        match self {
            Peer::Chronolith => {
                let mut c = Command::new(&options.chronolith);
                c.arg("server")
                    .arg(format!("--data-dir={}", data.display()))
                    .arg(format!("--http-address={address}"))
                    .arg("--grpc-address=127.0.0.1:0")
                    .arg("--self-monitoring=false")
                    .arg("--web.enable-admin-api")
                    .arg("--log.level=warn")
                    .args(&options.chronolith_args);
                c
            }
            Peer::Prometheus => {
                let config = dir.join("prometheus.yml");
                fs::write(&config, "global: {}\n").expect("the scratch directory is writable");
                let mut c = Command::new("prometheus");
                c.arg(format!("--config.file={}", config.display()))
                    .arg(format!("--storage.tsdb.path={}", data.display()))
                    .arg(format!("--web.listen-address={address}"))
                    .args([
                        "--web.enable-remote-write-receiver",
                        "--web.enable-admin-api",
                        "--log.level=warn",
                    ])
                    .args(["--storage.tsdb.retention.time=10y", "--query.lookback-delta=5m"]);
                c
            }
            Peer::VictoriaMetrics => {
                let mut c = Command::new("victoria-metrics");
                c.arg(format!("-storageDataPath={}", data.display()))
                    .arg(format!("-httpListenAddr={address}"))
                    .args(["-retentionPeriod=10y", "-loggerLevel=WARN", "-search.latencyOffset=0s"])
                    .args(["-search.maxUniqueTimeseries=3000000", "-search.maxSeries=3000000"])
                    .args(["-search.disableCache", "-search.maxQueryDuration=120s"]);
                c
            }
        }
    }
}

/// What the peers' command lines need to know.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Path of the `chronolith` binary.
    pub(crate) chronolith: PathBuf,
    /// Further flags of `chronolith server`.
    pub(crate) chronolith_args: Vec<String>,
}

/// A running server in a directory of its own; killed when dropped.
pub(crate) struct Running {
    /// Which one it is.
    pub(crate) peer: Peer,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    child: Child,
    dir: tempfile::TempDir,
    options: Options,
    memory: MemoryWatch,
    cpu_at_start_s: f64,
}

impl Running {
    /// Starts a server and waits until it is ready.
    pub(crate) fn start(peer: Peer, options: &Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("chronolith-bench-").tempdir()?;
        let address = free_address()?;
        let (child, _) = spawn(peer, options, dir.path(), address)?;
        let memory = MemoryWatch::start(child.id());
        let cpu_at_start_s = cpu_seconds(child.id())?;
        Ok(Running { peer, address, child, dir, options: options.clone(), memory, cpu_at_start_s })
    }

    /// CPU seconds (user and system) since the server was ready.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        Ok(cpu_seconds(self.child.id())? - self.cpu_at_start_s)
    }

    /// Peak and present anonymous memory in bytes above what the idle process had.
    pub(crate) fn memory_bytes(&self) -> (u64, u64) {
        let now = anonymous_bytes(self.child.id()).unwrap_or(0);
        // The watch may not have looked yet at a process that has just become ready.
        let peak = self.memory.peak().max(now);
        (peak.saturating_sub(self.memory.idle), now.saturating_sub(self.memory.idle))
    }

    /// Forgets the peak so far.
    pub(crate) fn reset_memory_peak(&self) {
        self.memory.peak.store(0, Ordering::Relaxed);
    }

    /// Bytes of all files in the server's data directory, by path filter.
    pub(crate) fn disk_bytes(&self, keep: impl Fn(&Path) -> bool) -> u64 {
        fn walk(dir: &Path, keep: &dyn Fn(&Path) -> bool) -> u64 {
            let Ok(entries) = fs::read_dir(dir) else { return 0 };
            entries
                .flatten()
                .map(|e| match e.metadata() {
                    Ok(m) if m.is_dir() => walk(&e.path(), keep),
                    Ok(m) if keep(&e.path()) => m.len(),
                    _ => 0,
                })
                .sum()
        }
        walk(&self.dir.path().join("data"), &keep)
    }

    /// A client of the server.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Stops the server with SIGTERM (or kills it) and starts it again on the same data; gives the seconds until it
    /// was ready.
    pub(crate) fn restart(&mut self, kill: bool) -> Result<f64> {
        if kill {
            self.child.kill()?;
        } else {
            terminate(&self.child)?;
        }
        self.child.wait()?;
        let (child, ready_s) = spawn(self.peer, &self.options, self.dir.path(), self.address)?;
        self.child = child;
        self.memory = MemoryWatch::start(self.child.id());
        self.memory.idle = 0;
        self.cpu_at_start_s = 0.0;
        Ok(ready_s)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn terminate(child: &Child) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(child.id() as i32).context("pid of a child")?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
}

fn spawn(peer: Peer, options: &Options, dir: &Path, address: SocketAddr) -> Result<(Child, f64)> {
    let log = fs::File::create(dir.join("log"))?;
    let started = Instant::now();
    let mut child = peer
        .command(options, dir, address)
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log))
        .spawn()
        .with_context(|| format!("cannot start {}; is it installed?", peer.title()))?;
    let mut client = Client::new(address);
    loop {
        if client.get(peer.ready_path()).is_ok_and(|r| r.status == 200) {
            return Ok((child, started.elapsed().as_secs_f64()));
        }
        let ended = child.try_wait()?;
        if ended.is_some() || started.elapsed() > Duration::from_secs(300) {
            let _ = child.kill();
            let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(5).collect();
            bail!("{} did not become ready ({ended:?}): {tail:?}", peer.title());
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// CPU seconds of a process, user and system, all its threads.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("/proc/PID/stat has no name")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    // utime and stime are fields 14 and 15 of the line, 12 and 13 behind the name (man 5 proc).
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

fn anonymous_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|l| l.starts_with("RssAnon:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Samples a process's anonymous memory every 20 ms: the kernel keeps a peak of all resident memory only, which
/// counts page cache of mapped files.
struct MemoryWatch {
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    idle: u64,
}

impl MemoryWatch {
    fn start(pid: u32) -> Self {
        let peak = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (p, s) = (Arc::clone(&peak), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !s.load(Ordering::Relaxed) {
                let Some(bytes) = anonymous_bytes(pid) else { return };
                p.fetch_max(bytes, Ordering::Relaxed);
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        MemoryWatch { peak, stop, idle: anonymous_bytes(pid).unwrap_or(0) }
    }

    fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
