//! Cardinality of a head, for `/api/v1/status/tsdb`.

use super::Head;

/// A name and a count or a number of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameValue {
    /// Metric name, label name, or `name=value`.
    pub name: String,
    /// Count or bytes.
    pub value: u64,
}

/// What a head holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadStats {
    /// Series.
    pub series_count: u64,
    /// Distinct label pairs.
    pub label_pair_count: u64,
    /// Chunks, those that grow included.
    pub chunk_count: u64,
    /// Oldest sample; `i64::MAX` when there is none, as in Prometheus.
    pub min_time: i64,
    /// Newest sample; `i64::MIN` when there is none.
    pub max_time: i64,
    /// Bytes that the head holds, roughly.
    pub bytes: u64,
    /// Metric names with the most series.
    pub series_count_by_metric_name: Vec<NameValue>,
    /// Label names with the most values.
    pub label_value_count_by_label_name: Vec<NameValue>,
    /// Label names whose values take the most bytes, counted for each series.
    pub memory_in_bytes_by_label_name: Vec<NameValue>,
    /// Label pairs with the most series.
    pub series_count_by_label_value_pair: Vec<NameValue>,
}

/// Keeps the largest `limit` entries.
struct Top {
    limit: usize,
    entries: Vec<NameValue>,
}

impl Top {
    fn new(limit: usize) -> Self {
        Top { limit, entries: Vec::new() }
    }

    fn offer(&mut self, value: u64, name: impl FnOnce() -> String) {
        let full = self.entries.len() >= self.limit;
        if self.limit == 0 || (full && self.entries.last().is_some_and(|e| e.value >= value)) {
            return;
        }
        let at = self.entries.partition_point(|e| e.value >= value);
        self.entries.insert(at, NameValue { name: name(), value });
        self.entries.truncate(self.limit);
    }
}

impl Head {
    /// Cardinality, with the `limit` largest of each kind.
    pub fn stats(&self, limit: usize) -> HeadStats {
        let mut stats = HeadStats {
            min_time: self.min_t.load(std::sync::atomic::Ordering::Relaxed),
            max_time: self.max_t.load(std::sync::atomic::Ordering::Relaxed),
            ..HeadStats::default()
        };
        for shard in &self.shards {
            let shard = shard.lock();
            stats.series_count += shard.live as u64;
            stats.bytes += shard.bytes() as u64;
            for (slot, series) in shard.live_slots() {
                stats.chunk_count += shard.chunk_count(slot, series) as u64;
            }
        }
        let (mut metrics, mut values_of, mut bytes_of, mut pairs) =
            (Top::new(limit), Top::new(limit), Top::new(limit), Top::new(limit));
        let index = self.index.read();
        stats.label_pair_count = index.pair_count() as u64;
        index.for_each_name(|name, values| {
            let (mut count, mut bytes) = (0, 0);
            for (value, list) in values {
                let series = list.len() as u64;
                count += 1;
                bytes += value.len() as u64 * series;
                pairs.offer(series, || format!("{name}={value}"));
                if name == chronolith_model::METRIC_NAME {
                    metrics.offer(series, || value.to_owned());
                }
            }
            values_of.offer(count, || name.to_owned());
            bytes_of.offer(bytes, || name.to_owned());
        });
        stats.series_count_by_metric_name = metrics.entries;
        stats.label_value_count_by_label_name = values_of.entries;
        stats.memory_in_bytes_by_label_name = bytes_of.entries;
        stats.series_count_by_label_value_pair = pairs.entries;
        stats
    }

    /// Bytes that the head holds, roughly.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|s| s.lock().bytes()).sum()
    }
}
