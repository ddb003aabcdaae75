//! A store gateway and a querier over it, each a process, of Chronolith or of Thanos: they take the same flags.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::http::Client;
use crate::memory::MemoryWatch;
use crate::running::{cpu_seconds, free_address};

/// A bound against hanging.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between looks whether something is ready.
const LOOK: Duration = Duration::from_millis(5);

/// What is measured.
#[derive(Clone, Debug)]
pub(super) struct System {
    /// The column head in reports.
    pub(super) title: String,
    pub(super) program: PathBuf,
    /// Further flags of its store.
    pub(super) store_args: Vec<String>,
}

/// When index headers are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Headers {
    /// By the query that needs them.
    Lazy,
    /// After the first look at the bucket.
    Eager,
}

/// One running role; killed when dropped.
pub(super) struct Role {
    name: &'static str,
    child: Child,
    http: SocketAddr,
    log: PathBuf,
    pub(super) memory: MemoryWatch,
}

/// Both roles.
pub(super) struct Cluster {
    pub(super) store: Role,
    pub(super) query: Role,
    /// From the start of the store until it was ready.
    pub(super) store_ready_s: f64,
}

impl Cluster {
    /// Starts a store over the bucket that `objstore` names, with its files in `dir`, and a querier over it; both are ready
    /// and the querier knows the store.
    pub(super) fn start(system: &System, objstore: &Path, dir: &Path, headers: Headers) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let grpc = free_address()?;
        let strategy = if headers == Headers::Lazy { "lazy" } else { "eager" };
        let mut store_args = vec![
            format!("--data-dir={}", store_dir(dir).display()),
            format!("--objstore.config-file={}", objstore.display()),
            format!("--store.index-header-lazy-download-strategy={strategy}"),
        ];
        store_args.extend_from_slice(&system.store_args);
        let begun = Instant::now();
        let mut store = Role::spawn(system, "store", dir, grpc, &store_args)?;
        store.wait_ready()?;
        let store_ready_s = begun.elapsed().as_secs_f64();
        let query_args = [format!("--endpoint={grpc}")];
        let mut query = Role::spawn(system, "query", dir, free_address()?, &query_args)?;
        query.wait_ready()?;
        query.wait_for_store()?;
        Ok(Cluster { store, query, store_ready_s })
    }

    /// CPU seconds of both processes so far.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        Ok(cpu_seconds(self.store.pid())? + cpu_seconds(self.query.pid())?)
    }

    /// A client of the querier.
    pub(super) fn client(&self) -> Client {
        Client::new(self.query.http)
    }

    /// Waits until the store has made an index header for so many blocks.
    pub(super) fn wait_for_headers(&mut self, dir: &Path, blocks: usize) -> Result<()> {
        self.store.wait("all index headers", |_| Ok(header_count(&store_dir(dir)) >= blocks))
    }
}

fn store_dir(dir: &Path) -> PathBuf {
    dir.join("store")
}

fn header_count(store_dir: &Path) -> usize {
    let Ok(blocks) = fs::read_dir(store_dir) else { return 0 };
    blocks.flatten().filter(|b| b.path().join("index-header").is_file()).count()
}

impl Role {
    fn spawn(
        system: &System,
        name: &'static str,
        dir: &Path,
        grpc: SocketAddr,
        args: &[String],
    ) -> Result<Self> {
        let http = free_address()?;
        let log = dir.join(format!("{name}.log"));
        let file = fs::File::create(&log)?;
        let child = Command::new(&system.program)
            .arg(name)
            .arg(format!("--http-address={http}"))
            .arg(format!("--grpc-address={grpc}"))
            .arg("--log.level=warn")
            .args(args)
            .stdout(Stdio::from(file.try_clone()?))
            .stderr(Stdio::from(file))
            .spawn()
            .with_context(|| format!("cannot start {}", system.program.display()))?;
        let memory = MemoryWatch::start(child.id());
        Ok(Role { name, child, http, log, memory })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let mut client = Client::new(self.http);
        self.wait("ready", |_| Ok(client.get("/-/ready").is_ok_and(|r| r.status == 200)))
    }

    /// Waits until a querier has an endpoint in good health.
    fn wait_for_store(&mut self) -> Result<()> {
        let mut client = Client::new(self.http);
        self.wait("its store", |_| {
            let reply: Value = serde_json::from_slice(&client.get("/api/v1/stores")?.body)?;
            let of_kinds = reply["data"].as_object().into_iter().flat_map(|data| data.values());
            let mut stores = of_kinds.filter_map(Value::as_array).flatten();
            Ok(stores.any(|store| store["lastError"].is_null()))
        })
    }

    fn wait(&mut self, what: &str, mut there: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        while !there(self)? {
            let ended = self.child.try_wait()?;
            if ended.is_some() || begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(5).collect();
                bail!("{} waits for {what} ({ended:?}): {tail:?}", self.name);
            }
            std::thread::park_timeout(LOOK);
        }
        Ok(())
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
