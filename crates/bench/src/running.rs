//! A server under measurement: its process, and what it costs as the kernel counts it.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::http::Client;
use crate::memory::{MemoryWatch, anonymous_bytes};
use crate::peer::Peer;

/// A server that did nothing for so many seconds has come to rest.
const QUIET_LOOKS: u32 = 2;
/// Longer than that nobody waits for it.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// A running server in a directory of its own; killed when dropped.
pub(crate) struct Running {
    /// Which one it is.
    pub(crate) peer: Peer,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    child: Child,
    dir: tempfile::TempDir,
    memory: MemoryWatch,
    cpu_at_start_s: f64,
}

impl Running {
    /// Starts a server and waits until it is ready.
    pub(crate) fn start(peer: &Peer) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("chronolith-bench-").tempdir()?;
        let address = free_address()?;
        let (child, mut memory, _) = spawn(peer, dir.path(), address)?;
        memory.idle = anonymous_bytes(child.id()).unwrap_or(0);
        let cpu_at_start_s = cpu_seconds(child.id())?;
        Ok(Running { peer: peer.clone(), address, child, dir, memory, cpu_at_start_s })
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

    /// Forgets the memory's peak so far, and gives what is held now.
    pub(crate) fn reset_memory_peak(&self) -> u64 {
        self.memory.forget();
        self.memory_bytes().1
    }

    /// Waits until the server does nothing any more (blocks are cut, parts are merged), at most a minute.
    pub(crate) fn settle(&self) -> Result<()> {
        let begin = Instant::now();
        let mut before = self.cpu_seconds()?;
        let mut quiet = 0;
        while quiet < QUIET_LOOKS && begin.elapsed() < SETTLE_MAX {
            std::thread::park_timeout(Duration::from_secs(1));
            let now = self.cpu_seconds()?;
            quiet = if now - before < 0.03 { quiet + 1 } else { 0 };
            before = now;
        }
        Ok(())
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
    /// was ready. The memory's peak is then that since the start, above what the process had idle and empty.
    pub(crate) fn restart(&mut self, kill: bool) -> Result<f64> {
        if kill {
            self.child.kill()?;
        } else {
            terminate(&self.child)?;
        }
        self.child.wait()?;
        let idle = self.memory.idle;
        let (child, memory, ready_s) = spawn(&self.peer, self.dir.path(), self.address)?;
        self.child = child;
        self.memory = memory;
        self.memory.idle = idle;
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

pub(crate) fn terminate(child: &Child) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(child.id() as i32).context("pid of a child")?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
}

fn spawn(peer: &Peer, dir: &Path, address: SocketAddr) -> Result<(Child, MemoryWatch, f64)> {
    spawn_command(peer, peer.command(dir, address)?, &dir.join("log"), address)
}

/// Starts what listens at `address`, and waits until it is ready: how many seconds it took.
pub(crate) fn spawn_command(
    peer: &Peer,
    mut command: Command,
    log_file: &Path,
    address: SocketAddr,
) -> Result<(Child, MemoryWatch, f64)> {
    let log = fs::File::create(log_file)?;
    let started = Instant::now();
    let mut child = command
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log))
        .spawn()
        .with_context(|| format!("cannot start {}; is it installed?", peer.title))?;
    let memory = MemoryWatch::start(child.id());
    let mut client = Client::new(address);
    loop {
        if client.get(peer.ready_path()).is_ok_and(|r| r.status == 200) {
            return Ok((child, memory, started.elapsed().as_secs_f64()));
        }
        let ended = child.try_wait()?;
        if ended.is_some() || started.elapsed() > Duration::from_secs(300) {
            let _ = child.kill();
            let log = fs::read_to_string(log_file).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(5).collect();
            bail!("{} did not become ready ({ended:?}): {tail:?}", peer.title);
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// CPU seconds of a process, user and system, all its threads.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("/proc/PID/stat has no name")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    // utime and stime are fields 14 and 15 of the line, 12 and 13 behind the name (man 5 proc).
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}
