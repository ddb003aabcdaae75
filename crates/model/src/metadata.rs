//! What a writer says of a metric: its kind, help and unit.

/// The kind of a metric, as exposition formats know them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum MetricKind {
    /// Nothing is known.
    #[default]
    Unknown = 0,
    /// Only grows, or starts anew.
    Counter = 1,
    /// Goes up and down.
    Gauge = 2,
    /// Buckets that only grow.
    Histogram = 3,
    /// Buckets that go up and down.
    GaugeHistogram = 4,
    /// Quantiles.
    Summary = 5,
    /// Labels for others to join.
    Info = 6,
    /// One of several states.
    StateSet = 7,
}

impl MetricKind {
    /// All kinds in the order of their numbers, which are those of remote write.
    pub const ALL: [MetricKind; 8] = [
        MetricKind::Unknown,
        MetricKind::Counter,
        MetricKind::Gauge,
        MetricKind::Histogram,
        MetricKind::GaugeHistogram,
        MetricKind::Summary,
        MetricKind::Info,
        MetricKind::StateSet,
    ];

    /// The name that Prometheus's API shows.
    pub const fn as_str(self) -> &'static str {
        match self {
            MetricKind::Unknown => "unknown",
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
            MetricKind::GaugeHistogram => "gaugehistogram",
            MetricKind::Summary => "summary",
            MetricKind::Info => "info",
            MetricKind::StateSet => "stateset",
        }
    }

    /// The kind of this number in remote write; those that came later are unknown.
    pub fn from_number(number: u64) -> Self {
        usize::try_from(number).ok().and_then(|n| Self::ALL.get(n)).copied().unwrap_or_default()
    }

    /// The kind of this name; names that came later are unknown.
    pub fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|k| k.as_str() == name).unwrap_or_default()
    }
}

/// What a writer says of a metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MetricMetadata {
    /// Its kind.
    pub kind: MetricKind,
    /// What it means.
    pub help: String,
    /// What it is measured in.
    pub unit: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_names_and_numbers() {
        for (i, kind) in MetricKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, i);
            assert_eq!(MetricKind::from_number(i as u64), kind);
            assert_eq!(MetricKind::from_name(kind.as_str()), kind);
        }
        assert_eq!(MetricKind::from_number(8), MetricKind::Unknown);
        assert_eq!(MetricKind::from_name("new"), MetricKind::Unknown);
    }
}
