//! A bucket of blocks with known samples, a store gateway and a querier over it, and compactors at work, each a real process.
//!
//! Blocks are made and uploaded by the tools that an operator has. What the querier says is compared sample by sample.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chronolith_testkit::{Chronolith, Launch, Process, S3Server, chronolith_binary, free_port, wait_until};
use parking_lot::RwLock;
use serde_json::Value;

use crate::cluster::wait_seen;
use crate::{ClockShift, Scratch};

mod content;
mod settled;

use content::Content;
pub use content::{Reading, Watch};

const PATIENCE: Duration = Duration::from_secs(120);
/// The metric of all blocks.
const METRIC: &str = "promises_block";
/// The label that tells replicas apart.
const REPLICA_LABEL: &str = "replica";
/// In 2023, where a window of 14 days begins.
const BASE_MS: i64 = 1_699_488_000_000;
const BLOCK_MS: i64 = 2 * 3_600_000;
const STEP_MS: i64 = 60_000;

/// Blocks of two hours, one behind the other.
#[derive(Clone, Debug)]
pub struct Group {
    /// Value of the external label `group`.
    pub name: String,
    /// Copies of everything, by the external label `replica`; 1 leaves that label out.
    pub replicas: usize,
    /// Blocks of a copy.
    pub blocks: i64,
    /// Series.
    pub series: usize,
    /// Milliseconds between two samples of a series.
    pub step_ms: i64,
    /// A name that every series has, as a label's value; none where it is empty.
    pub name_of_series: String,
}

impl Group {
    /// One copy of some blocks of two series.
    pub fn new(name: &str, blocks: i64) -> Self {
        Group {
            name: name.to_owned(),
            replicas: 1,
            blocks,
            series: 2,
            step_ms: STEP_MS,
            name_of_series: String::new(),
        }
    }

    /// Time of its last samples, in milliseconds.
    pub fn last_ms(&self) -> i64 {
        BASE_MS + self.blocks * BLOCK_MS - self.step_ms
    }
}

/// Blocks that lie on disk, to be uploaded under some labels.
#[derive(Debug)]
pub struct Made {
    /// A directory of blocks for each replica, and the flags of `upload-blocks` that name its labels.
    pub parts: Vec<(PathBuf, Vec<String>)>,
}

/// Where and how a compactor runs.
#[derive(Debug, Default)]
pub struct CompactorPlace {
    /// `host:port` of the bucket, where a proxy stands before it.
    pub endpoint: Option<String>,
    /// Its environment.
    pub envs: Vec<(String, String)>,
    /// Its data directory.
    pub data: Option<PathBuf>,
    /// Further flags.
    pub flags: Vec<String>,
}

/// A compactor.
#[derive(Debug)]
pub struct Compactor {
    /// Its process.
    pub process: Chronolith,
    data: PathBuf,
}

impl Compactor {
    /// The name under which it holds leases, once it has begun.
    pub fn worker(&self) -> Option<String> {
        let name = std::fs::read_to_string(self.data.join("compact/worker")).ok()?;
        Some(name.trim().to_owned())
    }
}

/// Everything. Dropped, it is killed; after a panic its directory is kept.
#[derive(Debug)]
pub struct Archive {
    /// The store gateway.
    pub store: Chronolith,
    /// The querier.
    pub querier: Chronolith,
    /// The bucket.
    pub s3: S3Server,
    content: Arc<Content>,
    store_grpc: String,
    clock: OnceLock<ClockShift>,
    /// After the processes: they write into it.
    dir: Scratch,
}

impl Archive {
    /// An empty one.
    pub fn start(name: &str) -> Self {
        Self::start_with(Scratch::new(name), None)
    }

    /// The same in a directory of one's choice, the store's data elsewhere.
    pub fn start_with(dir: Scratch, store_data: Option<&Path>) -> Self {
        let s3 = S3Server::start();
        let objstore = write_config(&dir, "objstore.yml", &s3.config_yaml());
        let grpc = format!("127.0.0.1:{}", free_port());
        let data = store_data.map_or_else(|| dir.join("store"), Path::to_owned);
        let store = launch(
            &dir,
            "store",
            "store",
            vec![
                format!("--data-dir={}", data.display()),
                format!("--grpc-address={grpc}"),
                "--sync-block-duration=1s".to_owned(),
                objstore,
            ],
        );
        let querier = launch(
            &dir,
            "query",
            "query",
            vec![
                "--grpc-address=127.0.0.1:0".to_owned(),
                // Strict: a store that is away is a warning, not a shorter answer.
                format!("--endpoint-strict={grpc}"),
                "--store.sd-dns-interval=1s".to_owned(),
                format!("--query.replica-label={REPLICA_LABEL}"),
            ],
        );
        let (mut store, mut querier) = (store.spawn(), querier.spawn());
        store.wait_ready();
        querier.wait_ready();
        let content = Content { url: querier.url("/api/v1/query"), series: RwLock::default() };
        let (content, clock) = (Arc::new(content), OnceLock::new());
        let archive = Archive { store, querier, s3, content, store_grpc: grpc, clock, dir };
        archive.wait_store_seen();
        archive
    }

    /// Where everything lies.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes the blocks of a group on disk.
    pub fn make(&self, group: &Group) -> Made {
        let mut text = format!("# TYPE {METRIC} gauge\n");
        let more = match group.name_of_series.as_str() {
            "" => String::new(),
            name => format!(",name=\"{name}\""),
        };
        for n in 0..group.series {
            for (t, value) in samples(group, n) {
                text += &format!("{METRIC}{{n=\"{n}\"{more}}} {value} {}\n", t / 1000);
            }
        }
        text += "# EOF\n";
        let input = self.dir.join(&format!("{}.om", group.name));
        std::fs::write(&input, text).expect("the scratch directory is writable");
        let parts = (0..group.replicas).map(|replica| {
            let blocks = self.dir.join(&format!("{}-{replica}", group.name));
            let args = ["tools", "tsdb", "create-blocks-from", "openmetrics", "-q"];
            run(Command::new(chronolith_binary()).args(args).args([&input, &blocks]));
            let mut labels = vec![format!("--label=group=\"{}\"", group.name)];
            if group.replicas > 1 {
                labels.push(format!("--label={REPLICA_LABEL}=\"{replica}\""));
            }
            (blocks, labels)
        });
        Made { parts: parts.collect() }
    }

    /// Waits until all of a group was seen; from then on it is never missed silently.
    pub fn expect(&self, group: &Group) {
        self.expect_or(group, false);
    }

    /// The same, also when the answers say that something is missing.
    pub fn expect_or_told(&self, group: &Group) {
        self.expect_or(group, true);
    }

    fn expect_or(&self, group: &Group, told: bool) {
        let key = |n: usize| (group.name.clone(), n.to_string());
        let own: BTreeMap<_, _> = (0..group.series).map(|n| (key(n), Arc::new(samples(group, n)))).collect();
        wait_until("the new blocks to be seen", PATIENCE, || {
            let found = self.content.ask(&own)?;
            (found.missing.is_empty() || told && found.warned).then_some(())
        });
        self.content.series.write().extend(own);
    }

    /// Uploads a part of what was made, and gives the process; uploading again finishes what was begun.
    pub fn uploader(&self, made: &Made, part: usize) -> Process {
        let (path, labels) = &made.parts[part];
        let path = format!("--path={}", path.display());
        let args = ["tools", "bucket", "upload-blocks", &self.objstore(), &path];
        Process::builder(chronolith_binary()).args(args).args(labels).spawn()
    }

    /// The flag that names the bucket.
    fn objstore(&self) -> String {
        format!("--objstore.config-file={}", self.dir.join("objstore.yml").display())
    }

    /// Runs `chronolith tools bucket ARGS…` and gives what it says.
    ///
    /// # Panics
    /// When it fails.
    pub fn tool(&self, args: &[&str]) -> String {
        run(Command::new(chronolith_binary()).args(["tools", "bucket", &self.objstore()]).args(args))
    }

    /// Uploads all of it, and waits until it is there to be read.
    pub fn add(&self, group: &Group) {
        let made = self.make(group);
        for part in 0..made.parts.len() {
            self.upload(&made, part);
        }
        self.expect(group);
        self.wait_complete();
    }

    /// Uploads a part of what was made.
    pub fn upload(&self, made: &Made, part: usize) {
        let mut uploader = self.uploader(made, part);
        let status = uploader.wait(PATIENCE);
        assert!(status.success(), "upload: {status}\n{}", uploader.log_text());
    }

    /// One answer over everything, judged: never a sample that is wrong or there twice, and none missing without a word.
    ///
    /// # Panics
    /// With what is wrong.
    pub fn read(&self) -> Reading {
        self.content.read()
    }

    /// Puts the blocks of a part into the bucket without looking at them, as a program with a bug might have done.
    pub fn put_unseen(&self, made: &Made, part: usize, group: &Group) {
        for entry in std::fs::read_dir(&made.parts[part].0).expect("it was made") {
            let dir = entry.expect("it is readable").path();
            let id = dir.file_name().expect("a name").to_string_lossy().into_owned();
            let read = |file: &str| std::fs::read(dir.join(file)).expect("blocks are whole");
            let mut meta: Value = serde_json::from_slice(&read("meta.json")).expect("JSON");
            meta["thanos"] = serde_json::json!({
                "labels": {"group": group.name}, "downsample": {"resolution": 0}, "source": "sidecar",
            });
            for file in ["chunks/000001", "index"] {
                self.s3.put_object(&format!("{id}/{file}"), read(file));
            }
            self.s3.put_object(&format!("{id}/meta.json"), meta.to_string());
        }
    }

    /// Waits for a complete answer.
    pub fn wait_complete(&self) {
        wait_until("a complete answer", PATIENCE, || (self.read() == Reading::Complete).then_some(()));
    }

    /// Waits until the querier has heard from the store since now: it asks every five seconds.
    pub fn wait_store_seen(&self) {
        wait_seen(&self.querier, &[self.store_grpc.as_str()]);
    }

    /// Asks on and on beside what the test does.
    pub fn watch(&self) -> Watch {
        Watch::start(&self.content)
    }

    /// Starts `chronolith compact --wait`, which looks at the bucket without pause.
    pub fn compactor(&self, name: &str, place: CompactorPlace) -> Compactor {
        let mut place = place;
        place.flags.splice(0..0, ["--wait", "--wait-interval=1s"].map(str::to_owned));
        let (launch, data) = self.launch_compactor(name, place);
        Compactor { process: launch.spawn(), data }
    }

    fn launch_compactor(&self, name: &str, place: CompactorPlace) -> (Launch, PathBuf) {
        let mut yaml = self.s3.config_yaml();
        if let Some(endpoint) = &place.endpoint {
            yaml = yaml.replace(&self.s3.endpoint(), endpoint);
        }
        let objstore = write_config(&self.dir, &format!("objstore-{name}.yml"), &yaml);
        let data = place.data.unwrap_or_else(|| self.dir.join(name));
        let mut args = vec![
            format!("--data-dir={}", data.display()),
            "--consistency-delay=0s".to_owned(),
            "--compact.cleanup-interval=1s".to_owned(),
            "--compact.lease-duration=1s".to_owned(),
            "--compact.concurrency=2".to_owned(),
            format!("--deduplication.replica-label={REPLICA_LABEL}"),
            objstore,
        ];
        args.extend(place.flags);
        let mut launch = launch(&self.dir, name, "compact", args);
        for (name, value) in &place.envs {
            launch = launch.env(name, value);
        }
        (launch, data)
    }

    /// A clock that is off by so much, as the environment of a process.
    pub fn clock_off(&self, seconds: i64) -> Vec<(String, String)> {
        self.clock.get_or_init(|| ClockShift::build(self.dir.path())).env(seconds).into()
    }

    /// The group whose lease a worker holds, and the lease's number.
    pub fn held_by(&self, worker: &str) -> Option<(String, u64)> {
        self.leases().into_iter().find_map(|(group, (token, record))| {
            let held = record["worker"] == worker && record["released"] == false;
            held.then_some((group, token))
        })
    }

    /// The number of a group's newest lease.
    pub fn token(&self, group: &str) -> u64 {
        self.leases().get(group).map_or(0, |(token, _)| *token)
    }

    fn leases(&self) -> BTreeMap<String, (u64, Value)> {
        let mut leases = BTreeMap::new();
        for key in self.s3.keys() {
            let parts = key.strip_prefix("chronolith/leases/compact/").and_then(|k| k.rsplit_once('/'));
            let Some((group, token)) = parts else { continue };
            let record = self.s3.object(&key).and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if let (Ok(token), Some(record)) = (token.parse(), record) {
                // Keys ascend, and so do tokens.
                leases.insert(group.to_owned(), (token, record));
            }
        }
        leases
    }

    /// Blocks whose meta.json is in the bucket, with it.
    pub fn blocks(&self) -> BTreeMap<String, Value> {
        let keys = self.s3.keys();
        let ids = keys.iter().filter_map(|k| k.strip_suffix("/meta.json"));
        let meta = |id: &str| serde_json::from_slice(&self.s3.object(&format!("{id}/meta.json"))?).ok();
        ids.filter_map(|id| Some((id.to_owned(), meta(id)?))).collect()
    }

    /// Stops the store and the querier; fails on an unexpected ERROR line of theirs.
    pub fn stop(mut self) {
        self.querier.stop();
        self.store.stop();
    }
}

/// The samples of a group's series.
fn samples(group: &Group, n: usize) -> Vec<(i64, f64)> {
    let count = group.blocks * BLOCK_MS / group.step_ms;
    (0..count).map(|i| (BASE_MS + i * group.step_ms, (i * 10) as f64 + n as f64)).collect()
}

fn write_config(dir: &Scratch, name: &str, yaml: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, yaml).expect("the scratch directory is writable");
    format!("--objstore.config-file={}", path.display())
}

fn launch(dir: &Scratch, name: &str, role: &str, args: Vec<String>) -> Launch {
    Launch::new(role, "127.0.0.1", &args).log_file(&dir.join(&format!("{name}.log")))
}

/// Runs a tool to its end and gives what it says.
fn run(command: &mut Command) -> String {
    let out = command.output().expect("the binary starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{stdout}{stderr}", out.status);
    stdout.into_owned()
}
