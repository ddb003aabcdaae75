//! Metrics of a bucket, named and meant as Thanos's.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OperationLabels {
    bucket: Arc<str>,
    operation: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BucketLabels {
    bucket: Arc<str>,
}

/// Bounds of the duration histogram, in seconds: from a cached read to a slow upload of a segment.
const DURATION_BUCKETS: [f64; 10] = [0.001, 0.005, 0.02, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0];

fn duration_histogram() -> Histogram {
    Histogram::new(DURATION_BUCKETS)
}

/// Operations, failures, durations and bytes of the buckets of one process. Register once, hand to every
/// [`crate::Bucket`]; the bucket's name is a label.
#[derive(Clone)]
pub struct BucketMetrics {
    operations: Family<OperationLabels, Counter>,
    failures: Family<OperationLabels, Counter>,
    fetched_bytes: Family<OperationLabels, Counter>,
    sent_bytes: Family<OperationLabels, Counter>,
    duration: Family<OperationLabels, Histogram, fn() -> Histogram>,
    repeated: Family<BucketLabels, Counter>,
}

impl Default for BucketMetrics {
    fn default() -> Self {
        BucketMetrics {
            operations: Family::default(),
            failures: Family::default(),
            fetched_bytes: Family::default(),
            sent_bytes: Family::default(),
            duration: Family::new_with_constructor(duration_histogram),
            repeated: Family::default(),
        }
    }
}

impl BucketMetrics {
    /// Makes the metrics and puts them on `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let m = BucketMetrics::default();
        let prefix = "thanos_objstore_bucket";
        registry.register(
            format!("{prefix}_operations"),
            "Attempted operations against the bucket",
            m.operations.clone(),
        );
        registry.register(
            format!("{prefix}_operation_failures"),
            "Operations against the bucket that failed; a missing object is not a failure",
            m.failures.clone(),
        );
        registry.register(
            format!("{prefix}_operation_fetched_bytes"),
            "Bytes fetched from the bucket",
            m.fetched_bytes.clone(),
        );
        registry.register(
            format!("{prefix}_operation_sent_bytes"),
            "Bytes sent to the bucket",
            m.sent_bytes.clone(),
        );
        registry.register(
            format!("{prefix}_operation_duration_seconds"),
            "Duration of successful operations against the bucket",
            m.duration.clone(),
        );
        registry.register(
            "chronolith_objstore_hedged_requests",
            "Reads of ranges asked for again because they took long (hedging_config)",
            m.repeated.clone(),
        );
        m
    }

    pub(crate) fn repeated(&self, bucket: &Arc<str>) {
        self.repeated.get_or_create(&BucketLabels { bucket: bucket.clone() }).inc();
    }

    pub(crate) fn started(&self, bucket: &Arc<str>, operation: &'static str) {
        self.operations.get_or_create(&OperationLabels { bucket: bucket.clone(), operation }).inc();
    }

    pub(crate) fn failed(&self, bucket: &Arc<str>, operation: &'static str) {
        self.failures.get_or_create(&OperationLabels { bucket: bucket.clone(), operation }).inc();
    }

    pub(crate) fn done(&self, bucket: &Arc<str>, operation: &'static str, took: Duration) {
        let labels = OperationLabels { bucket: bucket.clone(), operation };
        self.duration.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn fetched(&self, bucket: &Arc<str>, operation: &'static str, bytes: u64) {
        self.fetched_bytes
            .get_or_create(&OperationLabels { bucket: bucket.clone(), operation })
            .inc_by(bytes);
    }

    pub(crate) fn sent(&self, bucket: &Arc<str>, operation: &'static str, bytes: u64) {
        self.sent_bytes.get_or_create(&OperationLabels { bucket: bucket.clone(), operation }).inc_by(bytes);
    }
}
