//! What writers said of a tenant's metrics.
//!
//! Writers repeat themselves every minute, so an entry carries when it was last heard, and of several entries of one metric
//! only those show that were heard about as late as the latest: a help text that was changed replaces the old one, and
//! what two writers say differently stands side by side. Only what is new goes to the log.

use chronolith_model::{METRIC_NAME, MetricMetadata, WriteMetadata};
use hashbrown::HashMap;

use super::Head;
use crate::wal::{frame_begin, frame_end, put_metadata, put_metadata_entry};

/// Bytes of one tenant's metadata; an entry has 150 as a rule, and large installations have ten thousand metrics.
const BYTES_MAX: usize = 16 << 20;
/// Bytes of one entry. Help texts are a line.
const ENTRY_BYTES_MAX: usize = 16 << 10;
/// Entries of one metric; more writers that disagree are not all heard.
const ENTRIES_MAX: usize = 8;
/// What is not repeated for this long while another entry is, was said of an older version. Prometheus repeats itself
/// every minute.
const HEARD_MS: i64 = 10 * 60_000;
/// What an entry takes beside its texts.
const ENTRY_BYTES: usize = 96;

struct Heard {
    says: MetricMetadata,
    at_ms: i64,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetadataTaken {
    New,
    Known,
    /// There is no room.
    Refused,
}

/// Metadata by metric.
#[derive(Default)]
pub(crate) struct MetadataTable {
    metrics: HashMap<String, Vec<Heard>>,
    bytes: usize,
}

fn bytes_of(metric: &str, says: &MetricMetadata) -> usize {
    ENTRY_BYTES + metric.len() + says.help.len() + says.unit.len()
}

impl MetadataTable {
    /// Hears what is said of a metric at the time `now_ms`.
    pub(crate) fn add(&mut self, metric: &str, says: &MetricMetadata, now_ms: i64) -> MetadataTaken {
        let known = self.metrics.get_mut(metric);
        if let Some(heard) = known
            && let Some(same) = heard.iter_mut().find(|h| h.says == *says)
        {
            same.at_ms = same.at_ms.max(now_ms);
            return MetadataTaken::Known;
        }
        let bytes = bytes_of(metric, says);
        if bytes > ENTRY_BYTES_MAX || self.bytes + bytes > BYTES_MAX {
            return MetadataTaken::Refused;
        }
        let heard = self.metrics.entry_ref(metric).or_default();
        heard.retain(|h| {
            let keep = h.at_ms >= now_ms.saturating_sub(HEARD_MS);
            self.bytes -= if keep { 0 } else { bytes_of(metric, &h.says) };
            keep
        });
        if heard.len() >= ENTRIES_MAX {
            return MetadataTaken::Refused;
        }
        heard.push(Heard { says: says.clone(), at_ms: now_ms });
        self.bytes += bytes;
        MetadataTaken::New
    }

    /// True when metrics that are gone should be forgotten to make room for these.
    pub(crate) fn is_short_of(&self, new: &[WriteMetadata]) -> bool {
        self.bytes + new.iter().map(|m| bytes_of(&m.metric, &m.says)).sum::<usize>() > BYTES_MAX
    }

    /// Forgets the metrics that are not `alive`.
    pub(crate) fn sweep(&mut self, alive: impl Fn(&str) -> bool) {
        let bytes = &mut self.bytes;
        self.metrics.retain(|metric, heard| {
            let keep = alive(metric);
            if !keep {
                *bytes -= heard.iter().map(|h| bytes_of(metric, &h.says)).sum::<usize>();
            }
            keep
        });
    }

    /// What is said of a metric, or of all, in no order.
    pub(crate) fn get(&self, metric: Option<&str>) -> Vec<(String, Vec<MetricMetadata>)> {
        let current = |heard: &[Heard]| {
            let latest = heard.iter().map(|h| h.at_ms).max().unwrap_or(i64::MIN);
            let now = heard.iter().filter(|h| h.at_ms >= latest.saturating_sub(HEARD_MS));
            now.map(|h| h.says.clone()).collect()
        };
        match metric {
            Some(metric) => {
                self.metrics.get(metric).map(|h| (metric.to_owned(), current(h))).into_iter().collect()
            }
            None => self.metrics.iter().map(|(m, h)| (m.clone(), current(h))).collect(),
        }
    }

    /// Everything, for a snapshot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &MetricMetadata)> {
        self.metrics.iter().flat_map(|(m, heard)| heard.iter().map(move |h| (m.as_str(), &h.says)))
    }

    /// Number of metrics.
    pub(crate) fn len(&self) -> usize {
        self.metrics.len()
    }
}

impl Head {
    /// Hears what writers say of metrics. What is new is framed in `record`, to be logged by the caller; the answer is how
    /// many entries there was no room for.
    pub(crate) fn append_metadata(&self, entries: &[WriteMetadata], record: &mut Vec<u8>) -> usize {
        record.clear();
        let now_ms = (self.options.clock)();
        let mut table = self.metadata.lock();
        if table.is_short_of(entries) {
            table.sweep(|metric| self.has_metric(metric));
        }
        let mut refused = 0;
        for WriteMetadata { metric, says } in entries {
            match table.add(metric, says, now_ms) {
                MetadataTaken::Known => {}
                MetadataTaken::Refused => refused += 1,
                MetadataTaken::New => {
                    if record.is_empty() {
                        frame_begin(record);
                        put_metadata(record, self.number);
                    }
                    put_metadata_entry(record, metric, says);
                }
            }
        }
        if !record.is_empty() {
            frame_end(record, 0);
        }
        refused
    }

    /// Takes up what the log or a snapshot holds.
    pub(crate) fn replay_metadata(&self, metric: &str, says: &MetricMetadata) {
        self.metadata.lock().add(metric, says, (self.options.clock)());
    }

    /// True when a series belongs to this metric (family).
    fn has_metric(&self, metric: &str) -> bool {
        const SUFFIXES: [&str; 8] = ["", "_total", "_bucket", "_sum", "_count", "_info", "_created", "_gsum"];
        let index = self.index.read();
        SUFFIXES.iter().any(|suffix| index.has_pair(METRIC_NAME, &format!("{metric}{suffix}")))
    }
}

#[cfg(test)]
mod tests {
    use chronolith_model::MetricKind;

    use super::*;

    fn says(help: &str) -> MetricMetadata {
        MetricMetadata { kind: MetricKind::Gauge, help: help.to_owned(), unit: String::new() }
    }

    #[test]
    fn a_changed_text_replaces_the_old_one_and_writers_stand_side_by_side() {
        let mut table = MetadataTable::default();
        let minute = 60_000;
        assert_eq!(table.add("m", &says("a"), 0), MetadataTaken::New);
        assert_eq!(table.add("m", &says("b"), minute), MetadataTaken::New);
        assert_eq!(table.add("m", &says("a"), minute), MetadataTaken::Known);
        assert_eq!(table.get(Some("m"))[0].1, [says("a"), says("b")]);
        table.add("m", &says("b"), 20 * minute);
        assert_eq!(table.get(None)[0].1, [says("b")]);
        assert_eq!(table.add("m", &says("c"), 20 * minute), MetadataTaken::New);
        assert_eq!(table.iter().count(), 2, "what nobody says any more is gone");
        assert!(table.get(Some("other")).is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let mut table = MetadataTable::default();
        assert_eq!(table.add("m", &says(&"x".repeat(ENTRY_BYTES_MAX)), 0), MetadataTaken::Refused);
        let long = "x".repeat(ENTRY_BYTES_MAX / 2);
        let mut taken = 0;
        while table.add(&taken.to_string(), &says(&long), 0) == MetadataTaken::New {
            taken += 1;
        }
        assert!(taken * long.len() <= BYTES_MAX && taken > 1000, "{taken}");
        let new = [WriteMetadata { metric: "new".to_owned(), says: says(&long) }];
        assert!(table.is_short_of(&new));
        table.sweep(|metric| metric == "7");
        assert_eq!((table.len(), table.bytes), (1, bytes_of("7", &says(&long))));
        for i in 0..2 * ENTRIES_MAX {
            table.add("7", &says(&i.to_string()), 0);
        }
        assert_eq!(table.iter().count(), ENTRIES_MAX);
    }
}
