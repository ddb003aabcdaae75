//! Limits at work: what holds now, and what each tenant has used of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use chronolith_model::TenantId;
use chronolith_service::metrics::Registry;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::config::{LimitsConfig, TenantLimits};
use super::metrics::{LimitLabels, LimitsMetrics, TenantLabel};
use super::rate::TokenBucket;
use super::refusal::LimitRefusal;
use crate::tenant::TenantNames;

/// Counts of tenants that do nothing now are swept when there are twice as many as after the last sweep, but not for less
/// than this.
const STATES_SWEPT_MIN: usize = 1024;

/// The limits of all tenants. By itself there is none.
#[derive(Debug, Default)]
pub struct Limits {
    config: Arc<ArcSwap<LimitsConfig>>,
    /// Tenants that have a limit which needs counting.
    states: Mutex<States>,
    names: Arc<TenantNames>,
    metrics: LimitsMetrics,
}

#[derive(Debug, Default)]
struct States {
    by_tenant: HashMap<TenantId, Arc<TenantState>>,
    sweep_at: usize,
}

#[derive(Debug, Default)]
struct TenantState {
    running: AtomicUsize,
    bucket: Mutex<Option<TokenBucket>>,
}

/// A request that may go on; it counts as one of its tenant's until this is dropped.
#[derive(Debug)]
pub struct Admitted {
    limits: Arc<TenantLimits>,
    counted: Option<Arc<TenantState>>,
}

impl Limits {
    /// These limits.
    pub fn new(config: LimitsConfig, names: Arc<TenantNames>, registry: &mut Registry) -> Self {
        let config = Arc::new(ArcSwap::from_pointee(config));
        let metrics = LimitsMetrics::register(registry, Arc::clone(&config));
        Limits { config, states: Mutex::default(), names, metrics }
    }

    /// Tenants as label values.
    pub fn names(&self) -> &TenantNames {
        &self.names
    }

    /// From now on these.
    pub(super) fn set(&self, config: LimitsConfig) {
        self.config.store(Arc::new(config));
        self.metrics.reloads.inc();
    }

    /// A file was refused.
    pub(super) fn set_failed(&self) {
        self.metrics.reloads.inc();
        self.metrics.reload_failures.inc();
    }

    /// What holds for a tenant now.
    pub fn of(&self, tenant: &TenantId) -> Arc<TenantLimits> {
        Arc::clone(self.config.load().of(tenant))
    }

    /// `write.global.max_concurrency`; 0 when there is none.
    pub fn max_concurrency(&self) -> usize {
        self.config.load().max_concurrency
    }

    /// Begins a request.
    pub fn admit(&self, tenant: &TenantId) -> Result<Admitted, LimitRefusal> {
        let limits = self.of(tenant);
        let max = limits.concurrent_requests;
        if max == 0 {
            return Ok(Admitted { limits, counted: None });
        }
        let state = self.state(tenant);
        let admitted = Admitted { limits, counted: Some(Arc::clone(&state)) };
        if state.running.fetch_add(1, Ordering::Relaxed) >= max {
            return Err(self.refused(tenant, LimitRefusal::Concurrency(max)));
        }
        Ok(admitted)
    }

    /// Takes samples of the tenant's rate.
    pub fn take_rate(&self, tenant: &TenantId, samples: usize) -> Result<(), LimitRefusal> {
        let Some(limit) = self.config.load().of(tenant).rate else { return Ok(()) };
        let now = Instant::now();
        let state = self.state(tenant);
        let taken =
            state.bucket.lock().get_or_insert_with(|| TokenBucket::new(limit, now)).take(limit, samples, now);
        taken.map_err(|retry| {
            let samples_per_second = limit.samples_per_second as u64;
            self.refused(tenant, LimitRefusal::Rate { samples_per_second, retry })
        })
    }

    /// Counts a refusal, and hands it back.
    pub fn refused(&self, tenant: &TenantId, refusal: LimitRefusal) -> LimitRefusal {
        let labels = LimitLabels { tenant: self.names.label(tenant), limit: refusal.reason() };
        self.metrics.limited.get_or_create(&labels).inc();
        refusal
    }

    /// Counts a request that had series beyond the limit of active series.
    pub fn head_series_limited(&self, tenant: &TenantId) {
        let labels = TenantLabel { tenant: self.names.label(tenant) };
        self.metrics.head_series_limited.get_or_create(&labels).inc();
    }

    fn state(&self, tenant: &TenantId) -> Arc<TenantState> {
        let mut states = self.states.lock();
        if let Some(state) = states.by_tenant.get(tenant) {
            return Arc::clone(state);
        }
        if states.by_tenant.len() >= states.sweep_at.max(STATES_SWEPT_MIN) {
            let (config, now) = (self.config.load(), Instant::now());
            states.by_tenant.retain(|tenant, state| {
                let full = |bucket: &TokenBucket| {
                    config.of(tenant).rate.is_none_or(|limit| bucket.is_full(limit, now))
                };
                Arc::strong_count(state) > 1 || !state.bucket.lock().as_ref().is_none_or(full)
            });
            states.sweep_at = 2 * states.by_tenant.len();
        }
        Arc::clone(states.by_tenant.entry(tenant.clone()).or_default())
    }
}

impl Admitted {
    /// What holds for the request's tenant.
    pub fn limits(&self) -> &TenantLimits {
        &self.limits
    }

    /// The largest body, where the process allows `bytes_max`.
    pub fn body_bytes_max(&self, bytes_max: u64) -> u64 {
        match self.limits.request.size_bytes {
            0 => bytes_max,
            own => own.min(bytes_max),
        }
    }

    /// Holds a body's size against the limit.
    pub fn check_size(&self, bytes: u64) -> Result<(), LimitRefusal> {
        self.limits.request.check_size(bytes)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(state) = &self.counted {
            state.running.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> Limits {
        let config = LimitsConfig::parse("f", text, "tenant_id").unwrap();
        Limits::new(config, Arc::default(), &mut Registry::default())
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    #[test]
    fn requests_at_a_time_are_counted_for_each_tenant() {
        let limits = limits(
            "write: {default: {concurrent_requests_limit: 2}, tenants: {free: {concurrent_requests_limit: 0}}}",
        );
        let (a, b, free) = (tenant("a"), tenant("b"), tenant("free"));
        let (first, _second) = (limits.admit(&a).unwrap(), limits.admit(&a).unwrap());
        assert_eq!(limits.admit(&a).unwrap_err(), LimitRefusal::Concurrency(2));
        let _others: Vec<_> = (0..9).map(|_| limits.admit(&free).unwrap()).collect();
        let _b = limits.admit(&b).unwrap();
        drop(first);
        assert!(limits.admit(&a).is_ok(), "a refused request does not count");
    }

    #[test]
    fn requests_are_held_to_their_size() {
        let limits =
            limits("write: {default: {request: {size_bytes_limit: 10, series_limit: 2, samples_limit: 3}}}");
        let admitted = limits.admit(&tenant("a")).unwrap();
        assert_eq!((admitted.body_bytes_max(5), admitted.body_bytes_max(50)), (5, 10));
        let request = admitted.limits().request;
        assert!(admitted.check_size(10).is_ok() && request.check_batch(2, 3).is_ok());
        let text = admitted.check_size(11).unwrap_err().to_string();
        assert_eq!(text, "write request size in bytes of 11 is above the tenant's limit of 10 per request");
        assert_eq!(request.check_batch(3, 3).unwrap_err().reason(), "series_limit");
        assert_eq!(request.check_batch(2, 4).unwrap_err().reason(), "samples_limit");
    }

    #[test]
    fn names_that_clients_invent_are_forgotten() {
        let limits = limits("write: {default: {ingestion: {samples_per_second: 1e9}}}");
        for i in 0..5 * STATES_SWEPT_MIN {
            limits.take_rate(&tenant(&format!("t{i}")), 1).unwrap();
        }
        assert!(limits.states.lock().by_tenant.len() <= 2 * STATES_SWEPT_MIN);
    }
}
