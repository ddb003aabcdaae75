//! Series of `thanos.WriteRequest` as bytes: a batch's label section is the beginning of a `TimeSeries` already, so labels are
//! copied as they lie, and never parsed.
//!
//! ```text
//! TimeSeries = label section  ( 0x12 len Sample )*  ( 0x1A len Exemplar )*  ( 0x22 len Histogram )*
//! Sample     = 0x09 value (8 bytes, little endian)  0x10 time
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use chronolith_model::histogram::{CounterReset, Span};
use chronolith_model::{
    Exemplar, FloatHistogram, Histogram, Labels, Sample, WriteBatch, WriteBatchBuilder, WriteHistogram,
    WriteSeries,
};
use prost::Message as _;

use crate::StoreError;
use crate::proto::{prometheus_copy as pb, thanos};
use crate::wire::{Value, next_field, put_header, put_int, varint_len};

const SAMPLES: u8 = 0x12;
const EXEMPLARS: u8 = 0x1A;
const HISTOGRAMS: u8 = 0x22;

/// Series of a batch, each the content of a `TimeSeries` message; all lie in one buffer.
pub(super) fn encode<'a>(series: impl Iterator<Item = WriteSeries<'a>>) -> Vec<Bytes> {
    let mut buffer = BytesMut::new();
    let mut ends = Vec::with_capacity(series.size_hint().0);
    for one in series {
        encode_one(&one, &mut buffer);
        ends.push(buffer.len());
    }
    let buffer = buffer.freeze();
    let mut start = 0;
    let slice = |end| buffer.slice(std::mem::replace(&mut start, end)..end);
    ends.into_iter().map(slice).collect()
}

fn encode_one(series: &WriteSeries<'_>, out: &mut BytesMut) {
    out.put_slice(series.labels);
    for sample in series.samples {
        let time = sample.t as u64;
        put_header(SAMPLES, 9 + if time == 0 { 0 } else { 1 + varint_len(time) }, out);
        out.put_u8(0x09);
        out.put_f64_le(sample.v);
        put_int(0x10, time, out);
    }
    for exemplar in series.exemplars {
        put_message(EXEMPLARS, &exemplar_to(exemplar), out);
    }
    for (t, histogram) in series.histograms {
        put_message(HISTOGRAMS, &histogram_to(*t, histogram), out);
    }
}

fn put_message(tag: u8, message: &impl prost::Message, out: &mut BytesMut) {
    put_header(tag, message.encoded_len(), out);
    message.encode(out).expect("a BytesMut grows");
}

/// A batch of `TimeSeries` messages.
pub(super) fn decode(series: &[Bytes]) -> Result<WriteBatch, StoreError> {
    let mut builder = WriteBatchBuilder::default();
    builder.start(0);
    let mut section = Vec::new();
    for one in series {
        section.clear();
        decode_one(one, &mut section, &mut builder)
            .map_err(|e| StoreError::invalid("series of a write request").with_source(e))?;
    }
    Ok(builder.finish(Bytes::new()))
}

fn decode_one(
    message: &Bytes,
    section: &mut Vec<u8>,
    builder: &mut WriteBatchBuilder,
) -> Result<(), StoreError> {
    let mut rest: &[u8] = message;
    builder.push_series_bytes(&[]);
    loop {
        let before = rest;
        let Some(field) = next_field(&mut rest)? else { break };
        match field {
            (1, Value::Bytes(_)) => section.extend_from_slice(&before[..before.len() - rest.len()]),
            (2, Value::Bytes(sample)) => {
                let sample = pb::Sample::decode(sample).map_err(invalid)?;
                builder.push_sample(Sample { t: sample.timestamp, v: sample.value });
            }
            (3, Value::Bytes(exemplar)) => {
                builder.push_exemplar(exemplar_from(&pb::Exemplar::decode(exemplar).map_err(invalid)?)?);
            }
            (4, Value::Bytes(histogram)) => {
                let histogram = pb::Histogram::decode(histogram).map_err(invalid)?;
                builder.push_histogram(histogram.timestamp, histogram_from(&histogram));
            }
            _ => {}
        }
    }
    builder.set_labels_bytes(section);
    Ok(())
}

fn invalid(error: prost::DecodeError) -> StoreError {
    StoreError::invalid("malformed protobuf").with_source(error)
}

pub(super) fn exemplar_from(exemplar: &pb::Exemplar) -> Result<Exemplar, StoreError> {
    let labels = Labels::from_pairs(exemplar.labels.iter().map(|l| (&l.name, &l.value)))
        .map_err(|e| StoreError::invalid("labels of an exemplar").with_source(e))?;
    Ok(Exemplar { labels, value: exemplar.value, t: exemplar.timestamp })
}

pub(super) fn exemplar_to(exemplar: &Exemplar) -> pb::Exemplar {
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

/// The message of a histogram of either kind, whose counts are of different fields.
macro_rules! histogram_message {
    ($t:expr, $h:expr, $($counts:tt)*) => {
        pb::Histogram {
            $($counts)*
            sum: $h.sum,
            schema: $h.schema,
            zero_threshold: $h.zero_threshold,
            negative_spans: spans_to(&$h.negative_spans),
            positive_spans: spans_to(&$h.positive_spans),
            reset_hint: reset_to($h.counter_reset),
            timestamp: $t,
            custom_values: $h.custom_values.clone(),
            ..Default::default()
        }
    };
}

pub(super) fn histogram_to(t: i64, histogram: &WriteHistogram) -> pb::Histogram {
    use pb::histogram::{Count, ZeroCount};
    match histogram {
        WriteHistogram::Integer(h) => histogram_message!(t, h,
            count: Some(Count::CountInt(h.count)),
            zero_count: Some(ZeroCount::ZeroCountInt(h.zero_count)),
            negative_deltas: h.negative_buckets.clone(),
            positive_deltas: h.positive_buckets.clone(),
        ),
        WriteHistogram::Float(h) => histogram_message!(t, h,
            count: Some(Count::CountFloat(h.count)),
            zero_count: Some(ZeroCount::ZeroCountFloat(h.zero_count)),
            negative_counts: h.negative_buckets.clone(),
            positive_counts: h.positive_buckets.clone(),
        ),
    }
}

/// A float histogram is one with a float count, as in Prometheus.
pub(super) fn histogram_from(h: &pb::Histogram) -> WriteHistogram {
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
    use crate::peer::tests::batch_of_everything;

    #[test]
    fn batches_survive_the_wire_form() {
        let batch = batch_of_everything();
        let encoded = encode(batch.iter());
        let read = pb::TimeSeries::decode(encoded[0].clone()).unwrap();
        assert_eq!(read.labels.len(), 2, "prost reads what we write");
        assert_eq!((read.samples.len(), read.histograms.len(), read.exemplars.len()), (2, 2, 1));
        let ours: Vec<Bytes> = [read].iter().map(|r| r.encode_to_vec().into()).collect();
        for back in [decode(&encoded[..1]).unwrap(), decode(&ours).unwrap()] {
            let (a, b) = (batch.series(0), back.series(0));
            let bits = |s: &[Sample]| s.iter().map(|s| (s.t, s.v.to_bits())).collect::<Vec<_>>();
            assert_eq!(bits(a.samples), bits(b.samples));
            assert_eq!((a.labels, a.histograms), (b.labels, b.histograms));
            assert_eq!(a.exemplars, b.exemplars);
        }
        for cut in 1..encoded[0].len() {
            let _ = decode(&[encoded[0].slice(..cut)]);
        }
    }
}
