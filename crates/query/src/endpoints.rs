//! The endpoints that a querier asks: found, asked for their Info every few seconds, dropped when they stop
//! answering.
//!
//! [`EndpointPool`] is the fan-out's [`EndpointSet`]. One task keeps it up to date; readers take a snapshot without a
//! lock. Stores of this process are in it from the start and for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use chronolith_service::config::ConfigError;
use chronolith_service::tls::{ClientTlsConfig, TlsError, client_config};
use chronolith_service::{Clock as _, SystemClock};
use chronolith_storeapi::{
    Apis, ClientOptions, ClientTls, Endpoint, EndpointInfo, EndpointSet, Endpoints, Store, StoreClient,
    StoreError, StoreInfo,
};
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::discovery::{self, Spec};

/// How long an endpoint that does not answer is still shown (Thanos's `--store.unhealthy-timeout`).
const UNHEALTHY_SHOWN: Duration = Duration::from_secs(300);

/// The state of one endpoint, for `/api/v1/stores`.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointState {
    /// Its address, or the name of a store of this process.
    pub name: String,
    /// When it was last asked, in milliseconds since the epoch.
    pub last_check_ms: i64,
    /// Why it did not answer then.
    pub last_error: Option<String>,
    /// What it said when it last answered.
    pub info: Option<EndpointInfo>,
}

/// A store of this process.
#[derive(Clone)]
pub struct LocalStore {
    /// Its name in warnings and lists.
    pub name: String,
    /// The store.
    pub store: Arc<dyn Store>,
    /// What it answers beside series.
    pub apis: Apis,
}

/// The endpoints of a querier.
pub struct EndpointPool {
    config: Config,
    flags: Vec<Spec>,
    local: Vec<LocalStore>,
    current: ArcSwap<Endpoints>,
    states: ArcSwap<Vec<EndpointState>>,
}

impl EndpointPool {
    /// Reads flags and file; asks nobody yet. Stores of this process are there at once.
    pub fn new(config: &Config, local: Vec<LocalStore>) -> Result<Arc<Self>, ConfigError> {
        let flags = discovery::from_flags(config)?;
        discovery::from_file(config)?;
        let strict = flags.iter().filter(|s| s.strict).map(|s| s.address.clone()).collect();
        let current = Endpoints { up: local.iter().map(local_endpoint).collect(), down: strict };
        Ok(Arc::new(EndpointPool {
            config: config.clone(),
            flags,
            local,
            current: ArcSwap::from_pointee(current),
            states: ArcSwap::default(),
        }))
    }

    /// All endpoints and how they were found.
    pub fn states(&self) -> Arc<Vec<EndpointState>> {
        self.states.load_full()
    }

    /// Keeps the pool up to date until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut keeper = Keeper::default();
        let mut ticks = interval(self.config.info_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = keeper.round(self) => {}
            }
        }
    }

    /// Finds and asks all endpoints once.
    pub async fn refresh(&self) {
        Keeper::default().round(self).await;
    }
}

impl EndpointSet for EndpointPool {
    fn endpoints(&self) -> Arc<Endpoints> {
        self.current.load_full()
    }
}

/// A host name that was looked up is what the certificate must carry, not one of its addresses.
fn client_tls(config: &ClientTlsConfig, spec: &Spec) -> Result<ClientTls, TlsError> {
    let host = spec.dns.then(|| spec.address.rsplit_once(':').map(|(host, _)| host.to_owned())).flatten();
    let server_name = config.server_name.clone().or(host);
    Ok(ClientTls { config: client_config(config)?, server_name })
}

fn local_endpoint(local: &LocalStore) -> Arc<Endpoint> {
    let info = StoreInfo::new("local");
    let (name, store, apis) = (local.name.clone(), Arc::clone(&local.store), local.apis.clone());
    Arc::new(Endpoint { name, store, info, local: true, apis })
}

/// What the pool's task remembers from round to round.
#[derive(Default)]
struct Keeper {
    file: Vec<Spec>,
    file_read: Option<Instant>,
    /// Addresses by spec, as last looked up.
    resolved: BTreeMap<Spec, Vec<String>>,
    resolved_at: Option<Instant>,
    members: BTreeMap<String, Member>,
    round: usize,
}

struct Member {
    client: Arc<StoreClient>,
    last_answer: Option<Instant>,
    state: EndpointState,
}

impl Keeper {
    async fn round(&mut self, pool: &EndpointPool) {
        self.read_file(pool);
        self.resolve(pool).await;
        let mut addresses: BTreeMap<String, Spec> = BTreeMap::new();
        for (spec, found) in &self.resolved {
            for address in found {
                addresses.entry(address.clone()).or_insert_with(|| spec.clone());
            }
        }
        self.members.retain(|address, _| addresses.contains_key(address));
        let options = ClientOptions {
            info_timeout: pool.config.info_timeout,
            connect_timeout: pool.config.info_timeout,
            ..ClientOptions::default()
        };
        for (address, spec) in &addresses {
            if !self.members.contains_key(address) {
                let tls = match spec.tls.as_ref().map(|tls| client_tls(tls, spec)).transpose() {
                    Ok(tls) => tls,
                    Err(error) => {
                        let err = &error as &dyn std::error::Error;
                        tracing::warn!(address, err, "TLS files of an endpoint are not usable");
                        continue;
                    }
                };
                match StoreClient::new(address, &ClientOptions { tls, ..options.clone() }) {
                    Ok(client) => drop(self.members.insert(address.clone(), Member::new(client))),
                    Err(error) => {
                        tracing::warn!(address, err = error.chain(), "endpoint address is not usable")
                    }
                }
            }
        }
        let mut answers: FuturesUnordered<_> = self.members.values().map(Member::ask).collect();
        while let Some((address, answer)) = answers.next().await {
            if let Some(member) = self.members.get_mut(&address) {
                // One that keeps silent must not keep those that answered from the queries.
                if member.take(answer) {
                    self.publish(pool, &addresses);
                }
            }
        }
        let local = join_all(pool.local.iter().map(local_state)).await;
        let members = self.members.values().filter(|m| addresses[&m.state.name].strict || !m.is_forgotten());
        let states = local.into_iter().chain(members.map(|m| m.state.clone())).collect();
        pool.states.store(Arc::new(states));
        self.round = self.round.wrapping_add(1);
        self.publish(pool, &addresses);
    }

    fn publish(&self, pool: &EndpointPool, addresses: &BTreeMap<String, Spec>) {
        pool.current.store(Arc::new(self.chosen(pool, addresses)));
    }

    /// What queries see: all that answer, one of each group, and the strict ones that do not answer.
    fn chosen(&self, pool: &EndpointPool, addresses: &BTreeMap<String, Spec>) -> Endpoints {
        let mut chosen = Endpoints { up: pool.local.iter().map(local_endpoint).collect(), down: Vec::new() };
        let mut groups: BTreeMap<&Spec, Vec<Arc<Endpoint>>> = BTreeMap::new();
        for (address, spec) in addresses {
            match self.members.get(address).and_then(Member::endpoint) {
                Some(endpoint) if spec.group => groups.entry(spec).or_default().push(endpoint),
                Some(endpoint) => chosen.up.push(endpoint),
                None if spec.strict => chosen.down.push(address.clone()),
                None => {}
            }
        }
        chosen.up.extend(groups.into_values().map(|g| Arc::clone(&g[self.round % g.len()])));
        chosen
    }

    /// A file that cannot be read leaves the endpoints as they were.
    fn read_file(&mut self, pool: &EndpointPool) {
        if self.file_read.is_some_and(|t| t.elapsed() < pool.config.sd_reload_interval) {
            return;
        }
        self.file_read = Some(Instant::now());
        match discovery::from_file(&pool.config) {
            Ok(specs) => {
                if specs != self.file {
                    self.resolved_at = None;
                    self.file = specs;
                }
            }
            Err(error) => {
                tracing::warn!(err = %error, "endpoint file is not usable, keeping what it said before")
            }
        }
    }

    /// A look-up that fails leaves its addresses as they were.
    async fn resolve(&mut self, pool: &EndpointPool) {
        if self.resolved_at.is_some_and(|t| t.elapsed() < pool.config.dns_interval) {
            return;
        }
        self.resolved_at = Some(Instant::now());
        let specs: BTreeSet<Spec> = pool.flags.iter().chain(&self.file).cloned().collect();
        self.resolved.retain(|spec, _| specs.contains(spec));
        let lookups = specs.into_iter().map(async |spec| {
            let found = tokio::time::timeout(pool.config.info_timeout, discovery::resolve(&spec)).await;
            (spec, found.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())))
        });
        for (spec, found) in join_all(lookups).await {
            match found {
                Ok(addresses) => drop(self.resolved.insert(spec, addresses)),
                Err(error) => {
                    tracing::warn!(address = spec.address, err = %error, "endpoint name cannot be resolved");
                }
            }
        }
    }
}

impl Member {
    fn new(client: StoreClient) -> Self {
        let name = client.address().to_owned();
        let state = EndpointState { name, last_check_ms: 0, last_error: None, info: None };
        Member { client: Arc::new(client), last_answer: None, state }
    }

    /// Answered once, but not for long.
    fn is_forgotten(&self) -> bool {
        self.state.last_error.is_some() && self.last_answer.is_some_and(|t| t.elapsed() > UNHEALTHY_SHOWN)
    }

    /// Asks for the Info, detached from `self`.
    fn ask(&self) -> impl Future<Output = (String, Result<EndpointInfo, StoreError>)> + use<> {
        let client = Arc::clone(&self.client);
        async move { (client.address().to_owned(), client.endpoint_info().await) }
    }

    /// Takes an answer; true when queries should know.
    fn take(&mut self, answer: Result<EndpointInfo, StoreError>) -> bool {
        self.state.last_check_ms = SystemClock.now_ms();
        let was_up = self.state.last_error.is_none() && self.state.info.is_some();
        match answer {
            Ok(info) => {
                if !was_up {
                    tracing::info!(address = self.state.name, component = info.component, "endpoint answers");
                }
                self.last_answer = Some(Instant::now());
                self.state.last_error = None;
                let changed = !was_up || self.state.info.as_ref() != Some(&info);
                self.state.info = Some(info);
                changed
            }
            Err(error) => {
                let text = error.chain();
                if self.state.last_error.is_none() {
                    tracing::warn!(address = self.state.name, err = text, "endpoint does not answer");
                }
                self.state.last_error = Some(text);
                was_up
            }
        }
    }

    /// The endpoint for queries, while it answers and offers the StoreAPI or what is beside it.
    fn endpoint(&self) -> Option<Arc<Endpoint>> {
        let says = self.state.info.as_ref().filter(|_| self.state.last_error.is_none())?;
        // A ruler that keeps no series is asked for its rules; with an empty time it is never asked for series.
        let beside = says.exemplars || says.metadata || says.rules || says.targets || says.status;
        let info = match &says.store {
            Some(info) => info.clone(),
            None if beside => StoreInfo::new(&says.component),
            None => return None,
        };
        let store: Arc<dyn Store> = Arc::clone(&self.client) as _;
        let apis = Apis {
            exemplars: says.exemplars.then(|| Arc::clone(&self.client) as _),
            metadata: says.metadata.then(|| Arc::clone(&self.client) as _),
            rules: says.rules.then(|| Arc::clone(&self.client) as _),
            targets: says.targets.then(|| Arc::clone(&self.client) as _),
            status: says.status.then(|| Arc::clone(&self.client) as _),
            fold: says.fold.then(|| Arc::clone(&self.client) as _),
        };
        Some(Arc::new(Endpoint { name: self.state.name.clone(), store, info, local: false, apis }))
    }
}

async fn local_state(local: &LocalStore) -> EndpointState {
    let info: Result<StoreInfo, StoreError> = local.store.info().await;
    let (info, last_error) = match info {
        Ok(info) => {
            let (exemplars, metadata) = (local.apis.exemplars.is_some(), local.apis.metadata.is_some());
            let component = info.component.clone();
            let (rules, targets) = (local.apis.rules.is_some(), local.apis.targets.is_some());
            let status = local.apis.status.is_some();
            let store = Some(info);
            let fold = false;
            let says = EndpointInfo { component, store, exemplars, metadata, rules, targets, status, fold };
            (Some(says), None)
        }
        Err(error) => (None, Some(error.chain())),
    };
    EndpointState { name: local.name.clone(), last_check_ms: SystemClock.now_ms(), last_error, info }
}

#[cfg(test)]
#[path = "endpoints_tests.rs"]
mod tests;
