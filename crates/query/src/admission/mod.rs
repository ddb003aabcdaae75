//! Who may evaluate a query when, with how much memory, and what is written down about it.
//!
//! ```text
//! request ─ queue (turns by client) ─ active-query file ─ budgets ─ engine ─ metrics, query log, slow queries
//! ```

mod active;
mod log;
mod memory;
mod metrics;
mod queue;
mod summary;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Request};
use chronolith_promql::{MemoryPool, QueryMemory};
use chronolith_service::Metrics;
use chronolith_service::config::ConfigError;

use active::{ActiveEntry, ActiveQueries};
use log::QueryLog;
pub use log::QueryRecord;
use metrics::QueryMetrics;
pub(crate) use metrics::Running;
pub use queue::QueueFull;
use queue::{FairQueue, Permit};

/// Settings of [`Admission`]. Every field names its flag.
#[derive(Clone, Debug)]
pub struct AdmissionConfig {
    /// `--query.max-concurrent`.
    pub concurrency_max: usize,
    /// `--query.max-queue`.
    pub queue_max: usize,
    /// `--query.max-memory`; 0 is no bound.
    pub memory_max_bytes: u64,
    /// `--query.max-memory-total`; 0 is half of the memory that the process may use.
    pub memory_total_max_bytes: u64,
    /// `--query.active-query-path`: the directory of the active-query file.
    pub active_query_path: Option<PathBuf>,
    /// `--query.log-file`.
    pub log_file: Option<PathBuf>,
    /// `--query.log-queries-longer-than`; zero logs none.
    pub slow: Duration,
    /// `--query.tenant-header`: whose value tells clients apart before their address does.
    pub tenant_header: String,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        AdmissionConfig {
            concurrency_max: 20,
            queue_max: 1000,
            memory_max_bytes: 2 << 30,
            memory_total_max_bytes: 0,
            active_query_path: None,
            log_file: None,
            slow: Duration::ZERO,
            tenant_header: "THANOS-TENANT".to_owned(),
        }
    }
}

/// Who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The address of the connection's other end.
    pub address: String,
    /// The tenant, where the request names one.
    pub tenant: Option<String>,
    /// The request's method.
    pub method: String,
    /// The request's path.
    pub path: String,
}

impl Origin {
    /// Whose turn in the queue it is.
    fn client(&self) -> &str {
        self.tenant.as_deref().unwrap_or(&self.address)
    }
}

/// The query role's admission desk.
#[derive(Debug)]
pub struct Admission {
    queue: Arc<FairQueue>,
    active: Option<Arc<ActiveQueries>>,
    log: Option<QueryLog>,
    slow: Duration,
    memory_max: usize,
    pool: Arc<MemoryPool>,
    tenant_header: String,
    pub(crate) metrics: QueryMetrics,
}

/// Why a query was not let in.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Too many wait.
    #[error(transparent)]
    Full(#[from] QueueFull),
    /// The time was up before it was its turn.
    #[error("query timed out in query queue")]
    TimedOut,
}

/// A query that was let in. Dropping it lets the next one in.
#[derive(Debug)]
pub struct Admitted {
    /// How long it waited, seconds.
    pub queued_s: f64,
    /// Its memory budget.
    pub memory: Arc<QueryMemory>,
    _entry: Option<ActiveEntry>,
    _permit: Permit,
    _active: Running,
}

impl Admission {
    /// Opens what the settings name. Logs which queries the last run left unfinished.
    pub fn new(config: &AdmissionConfig) -> Result<Self, ConfigError> {
        let queue = FairQueue::new(config.concurrency_max, config.queue_max);
        let total = match config.memory_total_max_bytes {
            0 => memory::available_bytes().map_or(usize::MAX, |bytes| bytes / 2),
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        };
        let active = match &config.active_query_path {
            None => None,
            Some(directory) => {
                let opened = ActiveQueries::open(directory, queue.running_max());
                let (active, unfinished) =
                    opened.map_err(|e| ConfigError::invalid(directory.display(), e))?;
                if let Some(queries) = unfinished {
                    tracing::warn!(queries, "these queries were in flight when the last run ended");
                }
                Some(active)
            }
        };
        let open = |path: &PathBuf| QueryLog::open(path).map_err(|e| ConfigError::invalid(path.display(), e));
        Ok(Admission {
            active,
            log: config.log_file.as_ref().map(open).transpose()?,
            slow: config.slow,
            memory_max: usize::try_from(config.memory_max_bytes).unwrap_or(usize::MAX),
            pool: MemoryPool::new(total),
            tenant_header: config.tenant_header.clone(),
            metrics: QueryMetrics::new(),
            queue,
        })
    }

    /// Shows what is counted.
    pub fn register(&self, metrics: &Metrics) {
        metrics.register(|r| self.metrics.register(r, &self.queue, &self.pool, self.log.is_some()));
    }

    /// Bytes that all queries hold now.
    pub fn memory_held(&self) -> usize {
        self.pool.held()
    }

    /// Who sent a request.
    pub fn origin(&self, request: &Request) -> Origin {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let tenant = request.headers().get(&self.tenant_header).and_then(|v| v.to_str().ok());
        Origin {
            address: peer.map(|ConnectInfo(peer)| peer.ip().to_string()).unwrap_or_default(),
            tenant: tenant.filter(|t| !t.is_empty()).map(str::to_owned),
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
        }
    }

    /// A memory budget for what reads series outside the engine and without a turn of its own: it counts as a query's does.
    pub fn budget(&self) -> Arc<QueryMemory> {
        QueryMemory::new(self.memory_max, Some(Arc::clone(&self.pool)))
    }

    /// Waits for the query's turn, until `deadline`. Dropping the future leaves the queue.
    pub async fn enter(&self, origin: &Origin, query: &str, deadline: Instant) -> Result<Admitted, Refusal> {
        let started = Instant::now();
        self.metrics.gate_total.inc();
        let active = Running::new(&self.metrics.active, 1);
        let entered = tokio::time::timeout_at(deadline.into(), self.queue.enter(origin.client())).await;
        let queued_s = started.elapsed().as_secs_f64();
        self.metrics.gate_seconds.observe(queued_s);
        self.metrics.took("queue_time", queued_s);
        let permit = match entered {
            Ok(Ok(permit)) => permit,
            Ok(Err(full)) => {
                self.metrics.refused.inc();
                self.metrics.ended("refused");
                return Err(full.into());
            }
            Err(_elapsed) => {
                self.metrics.ended("timeout");
                return Err(Refusal::TimedOut);
            }
        };
        let now_s = jiff::Timestamp::now().as_second();
        let entry = self.active.as_ref().and_then(|active| active.enter(query, now_s));
        Ok(Admitted { queued_s, memory: self.budget(), _entry: entry, _permit: permit, _active: active })
    }

    /// Writes down what became of a query that was let in.
    pub fn ended(&self, record: &QueryRecord<'_>) {
        let m = &self.metrics;
        m.ended(record.error.map_or("success", |(_, kind)| kind));
        m.samples.inc_by(record.stats.samples_total);
        m.samples_read.inc_by(record.stats.samples_read);
        if record.error.is_none() {
            m.took("prepare_time", record.timings.prepare_s);
            m.took("inner_eval", record.timings.eval_s);
            m.took("result_sort", record.timings.sort_s);
        }
        if let Some(log) = &self.log
            && let Err(err) = log.write(record, jiff::Timestamp::now().as_millisecond())
        {
            m.log_failures.inc();
            tracing::warn!(err = %err, "the query log could not be written");
        }
        if !self.slow.is_zero() && record.total_s >= self.slow.as_secs_f64() {
            m.slow.inc();
            log::warn_slow(record);
        }
    }
}
