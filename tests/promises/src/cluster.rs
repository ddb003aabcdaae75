//! Receivers with a ring, a store gateway and a querier over an S3 server, each a real process.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chronolith_testkit::{Answer, Chronolith, Launch, S3Server, free_port, wait_until};
use jiff::Timestamp;

use crate::Scratch;
use crate::check::{Verdict, check, check_replicas, check_soon};
use crate::load::{Ledger, Load, LoadOptions, now_ms};

/// The label that tells replicas apart.
const REPLICA_LABEL: &str = "receive_replica";
const PATIENCE: Duration = Duration::from_secs(60);

/// The shape of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Receivers.
    pub receivers: usize,
    /// `--receive.replication-factor`; 0 for receivers without a ring.
    pub replication: usize,
    /// Where everything listens.
    pub host: String,
    /// Further flags of every receiver.
    pub receive: Vec<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        ClusterOptions { receivers: 1, replication: 0, host: "127.0.0.1".to_owned(), receive: Vec::new() }
    }
}

/// What a test may want otherwise for one receiver.
#[derive(Debug, Default)]
pub struct Place {
    /// Where it listens; the cluster's host otherwise.
    pub host: Option<String>,
    /// What it is started under.
    pub wrapper: Vec<String>,
    /// Its environment.
    pub envs: Vec<(String, String)>,
    /// Where its data lies.
    pub data: Option<PathBuf>,
    /// Address under which the ring knows it, where that is not its own.
    pub ring_address: Option<String>,
    /// Its gRPC port, where somebody has to know it before.
    pub grpc_port: Option<u16>,
}

/// One receiver.
#[derive(Debug)]
pub struct Receiver {
    /// Its process.
    pub process: Chronolith,
    /// `host:port` of its gRPC.
    pub grpc: String,
    /// Address under which the ring knows it.
    pub ring_address: String,
    /// URL of its remote write.
    pub write_url: String,
    /// Where its data lies.
    pub data: PathBuf,
}

/// A receiver before it is started: where everything will be.
#[derive(Debug)]
struct Planned {
    launch: Launch,
    grpc: String,
    ring_address: String,
    write_url: String,
    data: PathBuf,
}

impl Planned {
    fn start(self) -> Receiver {
        let Planned { launch, grpc, ring_address, write_url, data } = self;
        Receiver { process: launch.spawn(), grpc, ring_address, write_url, data }
    }
}

/// Everything. Dropped, it is killed; after a panic its directory is kept.
#[derive(Debug)]
pub struct Cluster {
    /// All receivers that were ever added.
    pub receivers: Vec<Receiver>,
    /// The store gateway.
    pub store: Chronolith,
    /// The querier.
    pub querier: Chronolith,
    /// The bucket.
    pub s3: S3Server,
    options: ClusterOptions,
    store_grpc: String,
    /// After the processes: they write into it.
    dir: Scratch,
}

impl Cluster {
    /// Starts one and waits until all are ready.
    pub fn start(name: &str, options: ClusterOptions) -> Self {
        let places = (0..options.receivers).map(|_| Place::default()).collect();
        Self::start_with(Scratch::new(name), options, places)
    }

    /// Starts one whose receivers are in certain places.
    pub fn start_with(dir: Scratch, options: ClusterOptions, places: Vec<Place>) -> Self {
        let s3 = S3Server::start_on(&format!("{}:0", options.host));
        fs::write(dir.join("objstore.yml"), s3.config_yaml()).expect("the scratch directory is writable");
        let host = options.host.clone();
        let store_grpc = format!("{host}:{}", free_port());
        let store = launch(
            &dir,
            "store",
            "store",
            &host,
            vec![
                format!("--data-dir={}", dir.join("store").display()),
                format!("--grpc-address={store_grpc}"),
                "--sync-block-duration=1s".to_owned(),
                objstore(&dir),
            ],
        )
        .spawn();
        let querier = launch(
            &dir,
            "query",
            "query",
            &host,
            vec![
                format!("--grpc-address={host}:0"),
                format!("--endpoint.sd-config-file={}", dir.join("endpoints.yml").display()),
                "--endpoint.sd-config-reload-interval=1s".to_owned(),
                "--store.sd-dns-interval=1s".to_owned(),
                format!("--query.replica-label={REPLICA_LABEL}"),
            ],
        );
        fs::write(dir.join("endpoints.yml"), "endpoints: []\n").expect("the scratch directory is writable");
        let mut cluster =
            Cluster { receivers: Vec::new(), store, querier: querier.spawn(), s3, options, store_grpc, dir };
        let planned: Vec<Planned> =
            places.into_iter().enumerate().map(|(i, place)| cluster.plan(i, place)).collect();
        cluster.set_ring(&planned.iter().map(|p| p.ring_address.clone()).collect::<Vec<_>>());
        cluster.receivers = planned.into_iter().map(Planned::start).collect();
        cluster.write_endpoints();
        cluster.wait_ready();
        cluster
    }

    /// Where everything lies.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts one more receiver and waits until it is ready. The ring does not name it yet.
    pub fn add_receiver(&mut self) -> usize {
        let number = self.receivers.len();
        let mut receiver = self.plan(number, Place::default()).start();
        receiver.process.wait_ready();
        self.receivers.push(receiver);
        self.write_endpoints();
        number
    }

    fn plan(&self, number: usize, place: Place) -> Planned {
        let name = format!("receive-{number}");
        let host = place.host.unwrap_or_else(|| self.options.host.clone());
        let grpc = format!("{host}:{}", place.grpc_port.unwrap_or_else(free_port));
        let write = format!("{host}:{}", free_port());
        let ring_address = place.ring_address.unwrap_or_else(|| grpc.clone());
        let data = place.data.unwrap_or_else(|| self.dir.join(&name));
        let mut args = vec![
            format!("--tsdb.path={}", data.display()),
            format!("--grpc-address={grpc}"),
            format!("--remote-write.address={write}"),
            format!("--label={REPLICA_LABEL}=\"r{number}\""),
            "--shipper.interval=1s".to_owned(),
            "--web.enable-admin-api".to_owned(),
            objstore(&self.dir),
        ];
        if self.options.replication > 0 {
            args.push(format!("--receive.hashrings-file={}", self.dir.join("ring.json").display()));
            args.push("--receive.hashrings-file-refresh-interval=1s".to_owned());
            args.push(format!("--receive.local-endpoint={ring_address}"));
            args.push(format!("--receive.replication-factor={}", self.options.replication));
        }
        args.extend(self.options.receive.iter().cloned());
        let mut launch = launch(&self.dir, &name, "receive", &host, args);
        if !place.wrapper.is_empty() {
            launch = launch.under(&place.wrapper.iter().map(String::as_str).collect::<Vec<_>>());
        }
        for (name, value) in &place.envs {
            launch = launch.env(name, value);
        }
        Planned { launch, grpc, ring_address, write_url: format!("http://{write}/api/v1/receive"), data }
    }

    /// Writes the hashring file: these addresses, by one edit.
    pub fn set_ring(&self, addresses: &[String]) {
        let quoted: Vec<String> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
        let text = format!(
            "[{{\"hashring\": \"default\", \"algorithm\": \"ketama\", \"endpoints\": [{}]}}]\n",
            quoted.join(", ")
        );
        // As editors and config maps do: a new file under the old name.
        let next = self.dir.join("ring.json.next");
        fs::write(&next, text).expect("the scratch directory is writable");
        fs::rename(&next, self.dir.join("ring.json")).expect("one directory");
    }

    /// Lets the ring name these receivers.
    pub fn set_members(&self, members: &[usize]) {
        let addresses: Vec<String> =
            members.iter().map(|i| self.receivers[*i].ring_address.clone()).collect();
        self.set_ring(&addresses);
    }

    fn write_endpoints(&self) {
        let all = self.receivers.iter().map(|r| &r.grpc).chain([&self.store_grpc]);
        let lines: Vec<String> = all.map(|a| format!("  - address: {a}\n")).collect();
        let next = self.dir.join("endpoints.yml.next");
        fs::write(&next, format!("endpoints:\n{}", lines.concat())).expect("the directory is writable");
        fs::rename(&next, self.dir.join("endpoints.yml")).expect("one directory");
    }

    fn wait_ready(&mut self) {
        for receiver in &mut self.receivers {
            receiver.process.wait_ready();
        }
        self.store.wait_ready();
        self.querier.wait_ready();
        self.wait_seen(&[]);
    }

    /// Waits until the querier knows that the store and all receivers answer, but for `without`: it asks every five seconds,
    /// and until then answers without those that were away.
    pub fn wait_seen(&self, without: &[usize]) {
        let receivers = self.receivers.iter().enumerate().filter(|(i, _)| !without.contains(i));
        let mut wanted: Vec<&str> = receivers.map(|(_, r)| r.grpc.as_str()).collect();
        wanted.push(&self.store_grpc);
        wait_seen(&self.querier, &wanted);
    }

    /// URLs of remote write of the receivers that a load balancer would send to: all but `without`.
    pub fn targets(&self, without: &[usize]) -> Vec<String> {
        let all = self.receivers.iter().enumerate();
        all.filter(|(i, _)| !without.contains(i)).map(|(_, r)| r.write_url.clone()).collect()
    }

    /// Starts writers at all receivers.
    pub fn load(&self, options: LoadOptions) -> Load {
        Load::start(self.targets(&[]), options)
    }

    /// Reads everything, replicas merged by time: at once, nothing acknowledged may be missing.
    ///
    /// # Panics
    /// With what is missing, doubled or wrong.
    pub fn assert_kept(&self, ledger: &Ledger) {
        let found = check_replicas(ledger, &self.querier);
        assert_eq!(found, Verdict::default(), "replicas, read one by one: {found:#?}");
    }

    /// Reads everything, deduplicated: soon nothing is missing, and nothing is ever doubled.
    ///
    /// # Panics
    /// With what is missing, doubled or wrong.
    pub fn assert_kept_soon(&self, ledger: &Ledger) {
        check_soon(ledger, &self.querier);
    }

    /// One deduplicated reading.
    pub fn check(&self, ledger: &Ledger) -> Verdict {
        check(ledger, &self.querier)
    }

    /// Stops everything that runs; fails on an unexpected ERROR line of anybody.
    pub fn stop(mut self) {
        self.querier.stop();
        self.store.stop();
        for receiver in &mut self.receivers {
            receiver.process.stop();
        }
    }
}

/// Waits until a querier has found that these answer, since now: what was seen before a restart does not count.
pub(crate) fn wait_seen(querier: &Chronolith, wanted: &[&str]) {
    let since = now_ms();
    wait_until("the querier to see everybody", PATIENCE, || {
        let body = Answer::of(&querier.get("/api/v1/stores")).body;
        let all = body["data"].as_object()?.values().filter_map(|list| list.as_array()).flatten();
        let up = all.filter(|e| {
            e["lastError"].is_null()
                && e["lastCheck"]
                    .as_str()
                    .and_then(|t| t.parse::<Timestamp>().ok())
                    .is_some_and(|t| t.as_millisecond() >= since)
        });
        let names: BTreeSet<&str> = up.filter_map(|e| e["name"].as_str()).collect();
        wanted.iter().all(|name| names.contains(name)).then_some(())
    });
}

fn objstore(dir: &Scratch) -> String {
    format!("--objstore.config-file={}", dir.join("objstore.yml").display())
}

fn launch(dir: &Scratch, name: &str, role: &str, host: &str, args: Vec<String>) -> Launch {
    Launch::new(role, host, &args).log_file(&dir.join(&format!("{name}.log")))
}
