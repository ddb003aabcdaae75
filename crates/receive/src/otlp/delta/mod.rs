//! `--enable-feature=otlp-deltatocumulative`: points of delta temporality become cumulative ones, series by series.
//!
//! ```text
//! delta point ─ labels ─ key ─┬─ known ── later than the last: added ─┬─ cumulative point, since the series' first start
//!                             └─ new ──── taken as it is ─────────────┘
//! ```
//!
//! What has been added up lives in memory only and belongs to the tenant that the request names. It is lost with the
//! process: counters then start over, which queries see as a reset. All deltas of a series must come to the same
//! process, as upstream.
//!
//! Per series the rules of OpenTelemetry's processor hold: a point that is not later than the last one is refused, and so is
//! one that began before the first; other bounds of an explicit histogram start it over. Beyond them, the last point
//! once more, as a sender repeats it that got no answer, is answered with the same total and not added again.
//!
//! A series that got no point for [`STALE_AFTER`] is forgotten; a tenant has at most [`SERIES_MAX`] of them.

mod exponential;
mod totals;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chronolith_model::TenantId;
use chronolith_service::metrics::Registry;
use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};
use prometheus_client::metrics::gauge::Gauge;

pub(super) use exponential::{Exponential, Side};
pub(super) use totals::Explicit;
pub(crate) use totals::Totals;

use super::labels::Text;
use super::translate::{Fault, Translator};
use crate::remote_write::LabelKey;

/// The processor's `max_stale`.
const STALE_AFTER: Duration = Duration::from_secs(300);
/// How often the forgotten are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Series with totals of one tenant: some 100 MB of numbers. Upstream has no bound.
pub(super) const SERIES_MAX: usize = 1 << 20;

/// The totals of all tenants.
#[derive(Debug)]
pub struct DeltaTotals {
    tenants: Mutex<Tenants>,
    series: Gauge,
}

#[derive(Debug)]
struct Tenants {
    by_name: HashMap<TenantId, Arc<Mutex<Totals>>>,
    swept: Instant,
}

impl DeltaTotals {
    /// No totals; their number is shown in `registry`.
    pub fn new(registry: &mut Registry) -> Self {
        let series = Gauge::default();
        let help = "Series of delta temporality that are added up, of all tenants";
        registry.register("chronolith_receive_otlp_delta_series", help, series.clone());
        let tenants = Tenants { by_name: HashMap::new(), swept: Instant::now() };
        DeltaTotals { tenants: Mutex::new(tenants), series }
    }

    /// A tenant's totals, for one request at a time.
    pub(crate) fn of(&self, tenant: &TenantId, now: Instant) -> Arc<Mutex<Totals>> {
        let mut tenants = self.tenants.lock();
        if now.saturating_duration_since(tenants.swept) >= SWEEP_EVERY {
            tenants.swept = now;
            self.sweep(&mut tenants, now);
        }
        let entry = tenants.by_name.entry_ref(tenant);
        Arc::clone(entry.or_insert_with(|| Arc::new(Mutex::new(Totals::default()))))
    }

    fn sweep(&self, tenants: &mut Tenants, now: Instant) {
        let mut series = 0;
        tenants.by_name.retain(|_, totals| {
            // Who is busy is not idle, and is looked at the next time.
            let Some(mut held) = totals.try_lock() else { return true };
            held.sweep(now);
            series += held.len();
            held.len() > 0
        });
        self.series.set(series as i64);
    }
}

/// The totals that a request's points are added to. They are locked from the first of these points on: requests without any
/// do not wait for each other.
#[derive(Debug)]
pub struct Deltas<'a> {
    totals: &'a Mutex<Totals>,
    held: Option<MutexGuard<'a, Totals>>,
    /// Hashes the series' labels.
    key: &'a LabelKey,
    now: Instant,
    labels: Vec<u8>,
}

impl<'a> Deltas<'a> {
    pub(crate) fn new(totals: &'a Mutex<Totals>, key: &'a LabelKey, now: Instant) -> Self {
        Deltas { totals, held: None, key, now, labels: Vec::new() }
    }
}

impl Translator<'_> {
    /// Adds a point of the series with the labels made, under this name. `None` when the series ends with it.
    pub(super) fn added_up<T>(
        &mut self,
        name: Text,
        is_stale: bool,
        add: impl FnOnce(&mut Totals, u128, Instant) -> Result<T, String>,
    ) -> Result<Option<T>, Fault> {
        self.labels.set(&self.texts, self.words.name, name);
        let Some(deltas) = &mut self.totals else { return Ok(None) };
        deltas.labels.clear();
        self.labels.write_key(&self.texts, &mut deltas.labels);
        let key = deltas.key.hash(&deltas.labels);
        let totals = deltas.held.get_or_insert_with(|| deltas.totals.lock());
        if is_stale {
            totals.forget(key);
            return Ok(None);
        }
        add(totals, key, deltas.now).map(Some).map_err(Fault::Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_that_stop_are_forgotten() {
        let totals = chronolith_service::Metrics::new().register(DeltaTotals::new);
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let start = Instant::now();
        let add = |tenant, t, now| totals.of(tenant, now).lock().number(1, (0, t), 2.0, now).map(|(_, v)| v);
        assert_eq!(add(&a, 10, start), Ok(2.0));
        assert_eq!(add(&a, 20, start), Ok(4.0));
        assert_eq!(add(&b, 20, start + SWEEP_EVERY), Ok(2.0), "tenants do not see each other");
        assert_eq!(totals.tenants.lock().by_name.len(), 2);
        let later = start + STALE_AFTER + SWEEP_EVERY / 2;
        assert_eq!(add(&b, 30, later), Ok(4.0));
        assert_eq!((totals.tenants.lock().by_name.len(), totals.series.get()), (1, 1));
        assert_eq!(add(&a, 30, later), Ok(2.0), "from the beginning");
    }
}
