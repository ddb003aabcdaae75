//! A [`WriteSink`] at the other end of a gRPC connection, and its messages.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chronolith_model::histogram::{CounterReset, Span};
use chronolith_model::write::{decode_labels, encode_labels};
use chronolith_model::{
    Exemplar, FloatHistogram, Histogram, Labels, Sample, TenantId, WriteBatch, WriteBatchBuilder,
    WriteHistogram,
};
use tonic::Status;
use tonic::transport::Channel;

use crate::convert::error_from_status;
use crate::proto::{prometheus_copy as pb, thanos};
use crate::{ClientOptions, RejectKind, StoreError, WriteError, WriteReport, WriteSink, connect_lazy};

/// A remote receiver's WriteableStore. Cheap to clone; [`PeerSink::for_replica`] makes a handle for one replica.
#[derive(Clone, Debug)]
pub struct PeerSink {
    address: String,
    client: thanos::writeable_store_client::WriteableStoreClient<Channel>,
    replica: u32,
    timeout: Duration,
}

impl PeerSink {
    /// A sink at `host:port` whose calls may take `timeout`. Must be called inside a tokio runtime.
    pub fn new(address: &str, options: &ClientOptions, timeout: Duration) -> Result<Self, StoreError> {
        let channel = connect_lazy(address, options)?;
        let client = thanos::writeable_store_client::WriteableStoreClient::new(channel);
        Ok(PeerSink { address: address.to_owned(), client, replica: 0, timeout })
    }

    /// A handle whose writes are replica number `replica`, counted from 1: the peer stores them itself. 0 leaves it to the
    /// peer to distribute them.
    pub fn for_replica(&self, replica: u32) -> Self {
        PeerSink { replica, ..self.clone() }
    }
}

#[async_trait]
impl WriteSink for PeerSink {
    /// A peer that rejects a part answers with an error for the whole, so that is what comes back; the good part is stored
    /// there nevertheless.
    async fn write(&self, tenant: &TenantId, batch: WriteBatch) -> Result<WriteReport, WriteError> {
        let written = batch.sample_count();
        // Fields 1 and 2: releases up to 0.42 know nothing else, later ones read them when field 4 is empty.
        let request = thanos::WriteRequest {
            timeseries: series_to(&batch)?,
            tenant: tenant.as_str().to_owned(),
            replica: i64::from(self.replica),
            timeseries_tenant_data: Vec::new(),
        };
        let mut client = self.client.clone();
        match tokio::time::timeout(self.timeout, client.remote_write(request)).await {
            Ok(Ok(_)) => Ok(WriteReport { written, ..WriteReport::default() }),
            Ok(Err(status)) => Err(error_from_status(status).within(&self.address)),
            Err(_) => {
                let text = format!("{}: no answer to a write within {:?}", self.address, self.timeout);
                Err(StoreError::timeout(text))
            }
        }
    }
}

/// What a caller of the older protocol is told: an error as soon as anything was rejected.
pub(crate) fn status_from_report(report: &WriteReport) -> Result<(), Status> {
    let Some(first) = report.rejections.first() else { return Ok(()) };
    let text = format!("{}: {} ({} samples rejected)", first.series, first.reason, report.rejected);
    Err(match first.kind {
        RejectKind::Conflict => Status::already_exists(text),
        RejectKind::Invalid => Status::invalid_argument(text),
        RejectKind::LimitExceeded => Status::resource_exhausted(text),
    })
}

fn series_to(batch: &WriteBatch) -> Result<Vec<pb::TimeSeries>, StoreError> {
    batch
        .iter()
        .map(|series| {
            let labels = decode_labels(series.labels)
                .map(|pair| pair.map(|(n, v)| thanos::Label { name: n.to_owned(), value: v.to_owned() }))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| StoreError::invalid("labels of a series to write").with_source(e))?;
            Ok(pb::TimeSeries {
                labels,
                samples: series.samples.iter().map(|s| pb::Sample { value: s.v, timestamp: s.t }).collect(),
                exemplars: series.exemplars.iter().map(exemplar_to).collect(),
                histograms: series.histograms.iter().map(|(t, h)| histogram_to(*t, h)).collect(),
            })
        })
        .collect()
}

pub(crate) fn batch_from(timeseries: &[pb::TimeSeries]) -> Result<WriteBatch, StoreError> {
    let mut builder = WriteBatchBuilder::default();
    builder.start(0);
    let mut section = Vec::new();
    for series in timeseries {
        section.clear();
        encode_labels(series.labels.iter().map(|l| (l.name.as_str(), l.value.as_str())), &mut section);
        builder.push_series_bytes(&section);
        for sample in &series.samples {
            builder.push_sample(Sample { t: sample.timestamp, v: sample.value });
        }
        for histogram in &series.histograms {
            builder.push_histogram(histogram.timestamp, histogram_from(histogram));
        }
        for exemplar in &series.exemplars {
            let labels = Labels::from_pairs(exemplar.labels.iter().map(|l| (&l.name, &l.value)))
                .map_err(|e| StoreError::invalid("labels of an exemplar").with_source(e))?;
            builder.push_exemplar(Exemplar { labels, value: exemplar.value, t: exemplar.timestamp });
        }
    }
    Ok(builder.finish(Bytes::new()))
}

fn exemplar_to(exemplar: &Exemplar) -> pb::Exemplar {
    let label = |(n, v): (&str, &str)| thanos::Label { name: n.to_owned(), value: v.to_owned() };
    pb::Exemplar {
        labels: exemplar.labels.iter().map(label).collect(),
        value: exemplar.value,
        timestamp: exemplar.t,
    }
}

fn spans_to(spans: &[Span]) -> Vec<pb::BucketSpan> {
    spans.iter().map(|s| pb::BucketSpan { offset: s.offset, length: s.length }).collect()
}

fn spans_from(spans: &[pb::BucketSpan]) -> Vec<Span> {
    spans.iter().map(|s| Span { offset: s.offset, length: s.length }).collect()
}

fn reset_to(reset: CounterReset) -> i32 {
    use pb::histogram::ResetHint;
    match reset {
        CounterReset::Unknown => ResetHint::Unknown,
        CounterReset::Reset => ResetHint::Yes,
        CounterReset::NotReset => ResetHint::No,
        CounterReset::Gauge => ResetHint::Gauge,
    }
    .into()
}

fn reset_from(hint: i32) -> CounterReset {
    use pb::histogram::ResetHint;
    match ResetHint::try_from(hint) {
        Ok(ResetHint::Yes) => CounterReset::Reset,
        Ok(ResetHint::No) => CounterReset::NotReset,
        Ok(ResetHint::Gauge) => CounterReset::Gauge,
        Ok(ResetHint::Unknown) | Err(_) => CounterReset::Unknown,
    }
}

fn histogram_to(t: i64, histogram: &WriteHistogram) -> pb::Histogram {
    use pb::histogram::{Count, ZeroCount};
    match histogram {
        WriteHistogram::Integer(h) => pb::Histogram {
            count: Some(Count::CountInt(h.count)),
            sum: h.sum,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: Some(ZeroCount::ZeroCountInt(h.zero_count)),
            negative_spans: spans_to(&h.negative_spans),
            negative_deltas: h.negative_buckets.clone(),
            positive_spans: spans_to(&h.positive_spans),
            positive_deltas: h.positive_buckets.clone(),
            reset_hint: reset_to(h.counter_reset),
            timestamp: t,
            custom_values: h.custom_values.clone(),
            ..Default::default()
        },
        WriteHistogram::Float(h) => pb::Histogram {
            count: Some(Count::CountFloat(h.count)),
            sum: h.sum,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: Some(ZeroCount::ZeroCountFloat(h.zero_count)),
            negative_spans: spans_to(&h.negative_spans),
            negative_counts: h.negative_buckets.clone(),
            positive_spans: spans_to(&h.positive_spans),
            positive_counts: h.positive_buckets.clone(),
            reset_hint: reset_to(h.counter_reset),
            timestamp: t,
            custom_values: h.custom_values.clone(),
            ..Default::default()
        },
    }
}

/// A float histogram is one with a float count, as in Prometheus.
fn histogram_from(h: &pb::Histogram) -> WriteHistogram {
    use pb::histogram::{Count, ZeroCount};
    if let Some(Count::CountFloat(count)) = h.count {
        let zero_count = match h.zero_count {
            Some(ZeroCount::ZeroCountFloat(n)) => n,
            Some(ZeroCount::ZeroCountInt(n)) => n as f64,
            None => 0.0,
        };
        return WriteHistogram::Float(Box::new(FloatHistogram {
            counter_reset: reset_from(h.reset_hint),
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count,
            count,
            sum: h.sum,
            positive_spans: spans_from(&h.positive_spans),
            negative_spans: spans_from(&h.negative_spans),
            positive_buckets: h.positive_counts.clone(),
            negative_buckets: h.negative_counts.clone(),
            custom_values: h.custom_values.clone(),
        }));
    }
    let count = match h.count {
        Some(Count::CountInt(n)) => n,
        _ => 0,
    };
    let zero_count = match h.zero_count {
        Some(ZeroCount::ZeroCountInt(n)) => n,
        _ => 0,
    };
    WriteHistogram::Integer(Box::new(Histogram {
        counter_reset: reset_from(h.reset_hint),
        schema: h.schema,
        zero_threshold: h.zero_threshold,
        zero_count,
        count,
        sum: h.sum,
        positive_spans: spans_from(&h.positive_spans),
        negative_spans: spans_from(&h.negative_spans),
        positive_buckets: h.positive_deltas.clone(),
        negative_buckets: h.negative_deltas.clone(),
        custom_values: h.custom_values.clone(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_survive_the_wire_form() {
        let mut builder = WriteBatchBuilder::default();
        builder.start(0);
        let mut section = Vec::new();
        encode_labels([("__name__", "x"), ("a", "b")], &mut section);
        builder.push_series_bytes(&section);
        builder.push_sample(Sample { t: 1, v: 2.5 });
        let float = FloatHistogram { count: 1.0, positive_buckets: vec![1.0], ..Default::default() };
        let integer = Histogram { count: 3, negative_buckets: vec![3, -1], ..Default::default() };
        builder.push_histogram(2, WriteHistogram::Float(Box::new(float)));
        builder.push_histogram(3, WriteHistogram::Integer(Box::new(integer)));
        let labels = Labels::from_pairs([("trace_id", "1")]).unwrap();
        builder.push_exemplar(Exemplar { labels, value: 7.0, t: 1 });
        let batch = builder.finish(Bytes::new());
        let back = batch_from(&series_to(&batch).unwrap()).unwrap();
        assert_eq!(back.series_count(), 1);
        let (a, b) = (batch.series(0), back.series(0));
        assert_eq!((a.labels, a.samples, a.histograms), (b.labels, b.samples, b.histograms));
        assert_eq!(a.exemplars, b.exemplars);
    }
}
