//! `server` writes its own metrics into itself, so that the first query has an answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use chronolith_model::write::encode_labels;
use chronolith_model::{METRIC_NAME, Sample, TenantId, WriteBatch, WriteBatchBuilder};
use chronolith_service::families::families;
use chronolith_service::{Metrics, Probes};
use chronolith_storeapi::WriteSink;
use tokio_util::sync::CancellationToken;

/// Where own metrics go and what they are labelled with.
pub(crate) struct SelfMonitoring {
    pub(crate) metrics: Metrics,
    pub(crate) sink: Arc<dyn WriteSink>,
    pub(crate) tenant: TenantId,
    /// The `instance` label: the HTTP address.
    pub(crate) instance: String,
    pub(crate) interval: Duration,
}

impl SelfMonitoring {
    /// Writes a scrape every interval, from when the process is ready, until `shutdown`.
    pub(crate) async fn run(self, probes: Probes, shutdown: CancellationToken) {
        let mut ready = probes.watch();
        tokio::select! {
            () = shutdown.cancelled() => return,
            waited = ready.wait_for(|ready| *ready) => {
                if waited.is_err() {
                    return;
                }
            }
        }
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
            let batch = scrape(&self.metrics.text(), &self.instance, now);
            if let Err(err) = self.sink.write(&self.tenant, batch).await {
                tracing::warn!(err = %err.chain(), "own metrics could not be written");
            }
        }
    }
}

/// Turns a text exposition into a batch with `job` and `instance`, plus `up`.
fn scrape(text: &str, instance: &str, t: i64) -> WriteBatch {
    let target = [("instance", instance), ("job", "chronolith")];
    let mut builder = WriteBatchBuilder::default();
    builder.start(0);
    let mut section = Vec::new();
    let families = families(text);
    let mut push = |mut labels: Vec<(_, _)>, v: f64| {
        labels.extend(target);
        labels.sort_unstable();
        labels.dedup_by(|a, b| a.0 == b.0);
        section.clear();
        encode_labels(labels.into_iter().filter(|(_, v)| !v.is_empty()), &mut section);
        builder.push_series_bytes(&section);
        builder.push_sample(Sample { t, v });
    };
    for sample in families.iter().flat_map(|f| &f.samples) {
        let own = sample.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        push([(METRIC_NAME, sample.name.as_str())].into_iter().chain(own).collect(), sample.value);
    }
    push(vec![(METRIC_NAME, "up")], 1.0);
    builder.finish(Bytes::new())
}

#[cfg(test)]
mod tests {
    use chronolith_model::write::decode_labels;

    use super::*;

    #[test]
    fn an_exposition_becomes_series() {
        let text = "# HELP a b\n# TYPE a counter\na_total{code=\"200\",path=\"/\\\"x\\\\\"} 3\n# TYPE plain gauge\n\
                    plain 1.5\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} +Inf\n";
        let batch = scrape(text, "127.0.0.1:9090", 42);
        let series: Vec<(String, f64)> = batch
            .iter()
            .map(|s| {
                let labels: Result<Vec<_>, _> = decode_labels(s.labels).collect();
                let text: Vec<String> = labels.unwrap().iter().map(|(n, v)| format!("{n}={v}")).collect();
                assert_eq!(s.samples[0].t, 42);
                (text.join(" "), s.samples[0].v)
            })
            .collect();
        let target = "instance=127.0.0.1:9090 job=chronolith";
        assert_eq!(
            series,
            [
                (format!("__name__=a_total code=200 {target} path=/\"x\\"), 3.0),
                (format!("__name__=plain {target}"), 1.5),
                (format!("__name__=h_bucket {target} le=+Inf"), f64::INFINITY),
                (format!("__name__=up {target}"), 1.0),
            ]
        );
    }
}
