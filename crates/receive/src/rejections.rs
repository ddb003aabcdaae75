//! What the heads refuse, and what they take late: counted by tenant and reason, and told in a log line now and then.

use std::time::{Duration, Instant};

use chronolith_model::TenantId;
use chronolith_service::metrics::Registry;
use chronolith_tsdb::head::WriteOutcome;
use hashbrown::HashMap;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::tenant::TenantNames;

/// A tenant's rejections for one reason are told this often at the most.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Pairs of tenant and reason whose last line is remembered. Beyond, all are forgotten, and may be told anew.
const TOLD_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectionLabels {
    tenant: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabels {
    tenant: String,
}

/// Counters and log lines of rejected samples.
#[derive(Debug, Default)]
pub(crate) struct Rejections {
    by_reason: Family<RejectionLabels, Counter>,
    /// Prometheus's own counters, by the kind of the reason.
    upstream: [(&'static str, Family<TenantLabels, Counter>); 3],
    late: Family<TenantLabels, Counter>,
    told: Mutex<HashMap<(TenantId, &'static str), Told>>,
}

#[derive(Debug)]
struct Told {
    next: Instant,
    untold: usize,
}

impl Rejections {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let mut r = Rejections::default();
        let help = "Samples rejected by reason";
        registry.register("chronolith_receive_rejections", help, r.by_reason.clone());
        let names = [
            ("out_of_order", "prometheus_tsdb_out_of_order_samples", "Samples refused: out of order"),
            (
                "too_old",
                "prometheus_tsdb_too_old_samples",
                "Samples refused: older than the out-of-order window",
            ),
            ("out_of_bounds", "prometheus_tsdb_out_of_bound_samples", "Samples refused: out of bounds"),
        ];
        r.upstream = names.map(|(kind, name, help)| {
            let family = Family::default();
            registry.register(name, help, Family::clone(&family));
            (kind, family)
        });
        let help = "Samples taken out of order";
        registry.register("prometheus_tsdb_head_out_of_order_samples_appended", help, r.late.clone());
        r
    }

    /// Counts what became of a write, and tells of what was refused. `names` bounds the counters' series.
    pub(crate) fn note(&self, tenant: &TenantId, names: &TenantNames, outcome: &WriteOutcome) {
        if outcome.out_of_order_written == 0 && outcome.rejected_by_kind.is_empty() {
            return;
        }
        self.count(names.label(tenant), outcome.out_of_order_written, &outcome.rejected_by_kind);
        for (kind, count) in &outcome.rejected_by_kind {
            let example = outcome.rejected.iter().find(|r| r.reason.kind() == *kind);
            if let Some(rejected) = self.due(tenant, kind, *count, Instant::now())
                && let Some(example) = example
            {
                tracing::warn!(
                    tenant = tenant.as_str(),
                    reason = %example.reason,
                    rejected,
                    series = example.series,
                    time = example.t,
                    "samples rejected"
                );
            }
        }
    }

    fn count(&self, tenant: String, late: usize, rejected_by_kind: &[(&'static str, usize)]) {
        for (kind, count) in rejected_by_kind {
            let by_reason = RejectionLabels { tenant: tenant.clone(), reason: kind };
            self.by_reason.get_or_create(&by_reason).inc_by(*count as u64);
            if let Some((_, family)) = self.upstream.iter().find(|(k, _)| k == kind) {
                family.get_or_create(&TenantLabels { tenant: tenant.clone() }).inc_by(*count as u64);
            }
        }
        if late > 0 {
            self.late.get_or_create(&TenantLabels { tenant }).inc_by(late as u64);
        }
    }

    /// How many rejections to tell of now, if any.
    fn due(&self, tenant: &TenantId, kind: &'static str, count: usize, now: Instant) -> Option<usize> {
        let mut told = self.told.lock();
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        let next = now + TELL_EVERY;
        match told.get_mut(&(tenant.clone(), kind)) {
            Some(told) if now < told.next => {
                told.untold += count;
                None
            }
            Some(told) => {
                let all = told.untold + count;
                *told = Told { next, untold: 0 };
                Some(all)
            }
            None => {
                told.insert((tenant.clone(), kind), Told { next, untold: 0 });
                Some(count)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_beyond_the_names_share_their_counters() {
        let mut registry = Registry::default();
        let (r, names) = (Rejections::new(&mut registry), TenantNames::default());
        for i in 0..1010 {
            r.count(names.label(&TenantId::new(&format!("t{i}")).unwrap()), 1, &[("too_old", 2)]);
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for (name, more, value) in [
            ("chronolith_receive_rejections_total", ",reason=\"too_old\"", 20),
            ("prometheus_tsdb_too_old_samples_total", "", 20),
            ("prometheus_tsdb_head_out_of_order_samples_appended_total", "", 10),
        ] {
            let shared = format!("{name}{{tenant=\"other-tenants\"{more}}} {value}\n");
            assert!(text.contains(&shared), "{shared}");
            assert_eq!(text.matches(&format!("{name}{{")).count(), 1001);
        }
    }

    #[test]
    fn a_flood_is_told_once_in_a_while_for_each_tenant_and_reason() {
        let r = Rejections::default();
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let start = Instant::now();
        assert_eq!(r.due(&a, "too_old", 3, start), Some(3));
        assert_eq!(r.due(&a, "too_old", 4, start), None);
        assert_eq!(r.due(&a, "out_of_bounds", 1, start), Some(1));
        assert_eq!(r.due(&b, "too_old", 1, start), Some(1));
        assert_eq!(r.due(&a, "too_old", 2, start + TELL_EVERY), Some(6));
        assert_eq!(r.due(&a, "too_old", 2, start + TELL_EVERY), None);
        for i in 0..2 * TOLD_MAX {
            let tenant = TenantId::new(&format!("t{i}")).unwrap();
            r.due(&tenant, "too_old", 1, start);
        }
        assert!(r.told.lock().len() <= TOLD_MAX);
    }
}
