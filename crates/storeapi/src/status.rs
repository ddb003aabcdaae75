//! Statistics of heads: the trait, and what many sources say together.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use chronolith_model::Matcher;

use crate::{PartialResponse, StoreError};

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusRequest {
    /// Entries of each list.
    pub limit: usize,
    /// On external labels; none means all heads.
    pub matchers: Vec<Matcher>,
    /// Whether a source that fails is a warning.
    pub partial_response: PartialResponse,
}

/// A name and how many there are of it, or how many bytes it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistic {
    /// Metric name, label name, or `name=value`.
    pub name: String,
    /// Count, or bytes.
    pub value: u64,
}

/// What heads hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TsdbStatistics {
    /// Series.
    pub series: u64,
    /// Distinct label pairs.
    pub label_pairs: u64,
    /// Chunks.
    pub chunks: u64,
    /// Oldest sample, milliseconds; `i64::MAX` where there is none.
    pub mint: i64,
    /// Newest sample; `i64::MIN` where there is none.
    pub maxt: i64,
    /// Series by metric name, largest first.
    pub series_by_metric: Vec<Statistic>,
    /// Values by label name, largest first.
    pub values_by_label: Vec<Statistic>,
    /// Bytes of values by label name, largest first.
    pub bytes_by_label: Vec<Statistic>,
    /// Series by label pair, largest first.
    pub series_by_pair: Vec<Statistic>,
}

impl Default for TsdbStatistics {
    /// Nothing.
    fn default() -> Self {
        TsdbStatistics {
            series: 0,
            label_pairs: 0,
            chunks: 0,
            mint: i64::MAX,
            maxt: i64::MIN,
            series_by_metric: Vec::new(),
            values_by_label: Vec::new(),
            bytes_by_label: Vec::new(),
            series_by_pair: Vec::new(),
        }
    }
}

impl TsdbStatistics {
    /// Adds what another head holds. A series that both hold counts twice, as in Thanos, and a name that is not among the largest
    /// of one of them counts there as nothing.
    pub fn add(&mut self, other: TsdbStatistics) {
        self.series += other.series;
        self.label_pairs += other.label_pairs;
        self.chunks += other.chunks;
        self.mint = self.mint.min(other.mint);
        self.maxt = self.maxt.max(other.maxt);
        add_list(&mut self.series_by_metric, other.series_by_metric);
        add_list(&mut self.values_by_label, other.values_by_label);
        add_list(&mut self.bytes_by_label, other.bytes_by_label);
        add_list(&mut self.series_by_pair, other.series_by_pair);
    }

    /// Keeps so many entries of each list.
    pub fn truncate(&mut self, limit: usize) {
        for list in [
            &mut self.series_by_metric,
            &mut self.values_by_label,
            &mut self.bytes_by_label,
            &mut self.series_by_pair,
        ] {
            list.truncate(limit);
        }
    }
}

fn add_list(list: &mut Vec<Statistic>, more: Vec<Statistic>) {
    if list.is_empty() {
        *list = more;
        return;
    }
    let mut sums: HashMap<String, u64> = list.drain(..).map(|s| (s.name, s.value)).collect();
    for Statistic { name, value } in more {
        *sums.entry(name).or_default() += value;
    }
    list.extend(sums.into_iter().map(|(name, value)| Statistic { name, value }));
    list.sort_unstable_by(|a, b| b.value.cmp(&a.value).then_with(|| a.name.cmp(&b.name)));
}

/// The answer to [`Status::tsdb_statistics`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusAnswer {
    /// By tenant; a source that knows no tenants has one without a name.
    pub tenants: BTreeMap<String, TsdbStatistics>,
    /// What is missing.
    pub warnings: Vec<String>,
}

impl StatusAnswer {
    /// Adds another source's answer.
    pub fn add(&mut self, other: StatusAnswer) {
        self.warnings.extend(other.warnings);
        for (tenant, statistics) in other.tenants {
            self.tenants.entry(tenant).or_default().add(statistics);
        }
    }

    /// All tenants together.
    pub fn total(self) -> TsdbStatistics {
        let mut total = TsdbStatistics::default();
        for statistics in self.tenants.into_values() {
            total.add(statistics);
        }
        total
    }
}

/// A source of statistics of heads.
#[async_trait]
pub trait Status: Send + Sync {
    /// What the heads hold whose external labels match, by tenant.
    async fn tsdb_statistics(&self, request: StatusRequest) -> Result<StatusAnswer, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_added_up() {
        let list = |entries: &[(&str, u64)]| -> Vec<Statistic> {
            entries
                .iter()
                .map(|(name, value)| Statistic { name: (*name).to_owned(), value: *value })
                .collect()
        };
        let one = |mint, maxt, metrics: &[(&str, u64)]| TsdbStatistics {
            series: 3,
            mint,
            maxt,
            series_by_metric: list(metrics),
            ..TsdbStatistics::default()
        };
        let answer = |tenant: &str, statistics| StatusAnswer {
            tenants: [(tenant.to_owned(), statistics)].into(),
            warnings: vec!["w".to_owned()],
        };
        let mut sum = StatusAnswer::default();
        sum.add(answer("a", one(10, 20, &[("up", 2), ("x", 1)])));
        sum.add(answer("a", one(5, 15, &[("x", 3)])));
        sum.add(answer("b", TsdbStatistics::default()));
        assert_eq!((sum.tenants["a"].series, sum.warnings.len()), (6, 3));
        let mut total = sum.total();
        assert_eq!((total.mint, total.maxt), (5, 20));
        assert_eq!(total.series_by_metric, list(&[("x", 4), ("up", 2)]));
        total.truncate(1);
        assert_eq!(total.series_by_metric, list(&[("x", 4)]));
    }
}
