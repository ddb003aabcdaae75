//! A [`WriteBatch`] between receivers of ours, and in the hints that wait for one: columns of fixed width, labels as they lie.
//! Reading one copies no label; the batch keeps the message.
//!
//! ```text
//! version u8 ─ flags u8 ─ 0 u16 ─ series u32 ─ samples u32 ─ label bytes u32        all little endian
//! length of each series' label section, u32
//! samples of each series, u32                  not with FLAG_ONE_EACH
//! time of each sample, i64
//! value of each sample, f64 as its bits
//! start timestamp of each sample, i64          with FLAG_START_TS
//! label sections
//! BatchTail (protobuf): histograms, exemplars, metadata
//! ```
//!
//! [`FLAG_SNAPPY`] says that everything behind the first four bytes is a snappy block.

use bytes::Bytes;
use chronolith_model::{
    MetricKind, MetricMetadata, Sample, WriteBatch, WriteBatchBuilder, WriteMetadata, WriteSeries,
};
use prost::Message as _;

use super::series::{exemplar_from, exemplar_to, histogram_from, histogram_to};
use crate::StoreError;
use crate::proto::chronolith as pb;

/// The version written, and the newest that is read.
pub(crate) const VERSION: u8 = 1;
/// Every series has one float sample.
const FLAG_ONE_EACH: u8 = 1;
/// There is a column of start timestamps.
const FLAG_START_TS: u8 = 2;
/// Compressed.
const FLAG_SNAPPY: u8 = 4;
const PREFIX_BYTES: usize = 4;
const HEADER_BYTES: usize = 16;
/// The largest batch taken: what the largest request (32 MiB of protobuf) can become.
const BYTES_MAX: usize = 512 << 20;

/// Writes a batch's series with these numbers, or all of them.
pub fn encode_batch(batch: &WriteBatch, series: Option<&[u32]>) -> Bytes {
    match series {
        None => encode(batch, || batch.iter()),
        Some(numbers) => encode(batch, || numbers.iter().map(|i| batch.series(*i as usize))),
    }
}

fn encode<'a, I: Iterator<Item = WriteSeries<'a>>>(batch: &WriteBatch, all: impl Fn() -> I) -> Bytes {
    let (mut series, mut samples, mut label_bytes, mut one_each) = (0usize, 0usize, 0usize, true);
    let mut tail =
        pb::BatchTail { metadata: batch.metadata().iter().map(metadata_to).collect(), ..Default::default() };
    for one in all() {
        for (i, (t, h)) in one.histograms.iter().enumerate() {
            tail.histograms.push(pb::BatchHistogram {
                series: series as u32,
                histogram: Some(histogram_to(*t, h)),
                start_timestamp: one.start_ts_of_histogram(i),
            });
        }
        let exemplars = one.exemplars.iter();
        tail.exemplars.extend(
            exemplars.map(|e| pb::BatchExemplar { series: series as u32, exemplar: Some(exemplar_to(e)) }),
        );
        series += 1;
        samples += one.samples.len();
        label_bytes += one.labels.len();
        one_each &= one.samples.len() == 1;
    }
    let start_ts = all().any(|one| !one.sample_start_ts.is_empty());
    let columns = series * if one_each { 4 } else { 8 } + samples * if start_ts { 24 } else { 16 };
    let mut out = Vec::with_capacity(HEADER_BYTES + columns + label_bytes + tail.encoded_len());
    let flags = if one_each { FLAG_ONE_EACH } else { 0 } | if start_ts { FLAG_START_TS } else { 0 };
    out.extend_from_slice(&[VERSION, flags, 0, 0]);
    for number in [series, samples, label_bytes] {
        out.extend_from_slice(&(number as u32).to_le_bytes());
    }
    for one in all() {
        out.extend_from_slice(&(one.labels.len() as u32).to_le_bytes());
    }
    if !one_each {
        for one in all() {
            out.extend_from_slice(&(one.samples.len() as u32).to_le_bytes());
        }
    }
    for sample in all().flat_map(|one| one.samples) {
        out.extend_from_slice(&sample.t.to_le_bytes());
    }
    for sample in all().flat_map(|one| one.samples) {
        out.extend_from_slice(&sample.v.to_bits().to_le_bytes());
    }
    if start_ts {
        for one in all() {
            for i in 0..one.samples.len() {
                out.extend_from_slice(&one.start_ts_of_sample(i).to_le_bytes());
            }
        }
    }
    for one in all() {
        out.extend_from_slice(one.labels);
    }
    tail.encode(&mut out).expect("a Vec grows");
    Bytes::from(out)
}

/// The same batch compressed; as it is where that does not help.
pub fn compress_batch(batch: &Bytes) -> Bytes {
    if batch.len() <= PREFIX_BYTES || batch[1] & FLAG_SNAPPY != 0 {
        return batch.clone();
    }
    let (prefix, rest) = batch.split_at(PREFIX_BYTES);
    let mut out = vec![0; PREFIX_BYTES + snap::raw::max_compress_len(rest.len())];
    match snap::raw::Encoder::new().compress(rest, &mut out[PREFIX_BYTES..]) {
        Ok(len) if PREFIX_BYTES + len < batch.len() => {
            out.truncate(PREFIX_BYTES + len);
            out[..PREFIX_BYTES].copy_from_slice(prefix);
            out[1] |= FLAG_SNAPPY;
            Bytes::from(out)
        }
        _ => batch.clone(),
    }
}

/// Reads a batch, which then points into `message`. Nothing is allocated beyond what the message's length warrants, but for
/// compressed ones, which may grow as snappy does.
pub fn decode_batch(message: &Bytes) -> Result<WriteBatch, StoreError> {
    let bad = |what: &str| StoreError::invalid(format!("batch of a peer: {what}"));
    let [version, flags, ..] = message[..] else { return Err(bad("cut short")) };
    if version != VERSION {
        return Err(bad(&format!("version {version} is not known, want {VERSION}")));
    }
    if flags & FLAG_SNAPPY != 0 {
        let block = message.get(PREFIX_BYTES..).ok_or_else(|| bad("cut short"))?;
        let len = snap::raw::decompress_len(block).map_err(|e| bad(&e.to_string()))?;
        // Snappy's densest element makes 64 bytes of 3.
        if len > BYTES_MAX || len > block.len().saturating_mul(22) {
            return Err(bad("lies about its length"));
        }
        let mut plain = vec![0; PREFIX_BYTES + len];
        plain[..PREFIX_BYTES].copy_from_slice(&[version, flags & !FLAG_SNAPPY, 0, 0]);
        let read = snap::raw::Decoder::new()
            .decompress(block, &mut plain[PREFIX_BYTES..])
            .map_err(|e| bad(&e.to_string()))?;
        plain.truncate(PREFIX_BYTES + read);
        return read_plain(Bytes::from(plain), flags & !FLAG_SNAPPY);
    }
    read_plain(message.clone(), flags)
}

fn read_plain(message: Bytes, flags: u8) -> Result<WriteBatch, StoreError> {
    let bad = |what: &str| StoreError::invalid(format!("batch of a peer: {what}"));
    if u32::try_from(message.len()).is_err() {
        return Err(bad("too large"));
    }
    let mut rest: &[u8] = &message;
    let mut take = |bytes: usize| -> Result<&[u8], StoreError> {
        let (head, tail) = rest.split_at_checked(bytes).ok_or_else(|| bad("cut short"))?;
        rest = tail;
        Ok(head)
    };
    let header = take(HEADER_BYTES)?;
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes")) as usize;
    let (series, samples, label_bytes) = (number(4), number(8), number(12));
    let lens = take(series.saturating_mul(4))?;
    let counts = if flags & FLAG_ONE_EACH == 0 { take(series.saturating_mul(4))? } else { &[] };
    let times = take(samples.saturating_mul(8))?;
    let values = take(samples.saturating_mul(8))?;
    let start_ts = if flags & FLAG_START_TS != 0 { take(samples.saturating_mul(8))? } else { &[] };
    take(label_bytes)?;
    let tail_at = message.len() - rest.len();
    let tail = pb::BatchTail::decode(message.slice(tail_at..)).map_err(|e| bad(&e.to_string()))?;
    if flags & FLAG_ONE_EACH != 0 && samples != series {
        return Err(bad("samples are not one each"));
    }
    let mut builder = WriteBatchBuilder::default();
    builder.start(message.len() as u32);
    let (mut histograms, mut exemplars) =
        (tail.histograms.iter().peekable(), tail.exemplars.iter().peekable());
    let mut label_at = tail_at - label_bytes;
    let mut columns = times.as_chunks::<8>().0.iter().zip(values.as_chunks::<8>().0);
    let mut starts = start_ts.as_chunks::<8>().0.iter();
    let mut counts = counts.as_chunks::<4>().0.iter();
    for (i, len) in lens.as_chunks::<4>().0.iter().enumerate() {
        let end = label_at.saturating_add(u32::from_le_bytes(*len) as usize);
        if end > tail_at {
            return Err(bad("labels beyond their end"));
        }
        builder.push_series(label_at as u32..end as u32);
        label_at = end;
        let count = counts.next().map_or(u32::from(flags & FLAG_ONE_EACH != 0), |c| u32::from_le_bytes(*c));
        for _ in 0..count {
            let (t, v) = columns.next().ok_or_else(|| bad("more samples than times"))?;
            let sample = Sample { t: i64::from_le_bytes(*t), v: f64::from_bits(u64::from_le_bytes(*v)) };
            match starts.next() {
                None => builder.push_sample(sample),
                Some(start) => builder.push_sample_with_start_ts(sample, i64::from_le_bytes(*start)),
            }
        }
        while let Some(one) = histograms.next_if(|h| h.series as usize == i) {
            let histogram = one.histogram.as_ref().ok_or_else(|| bad("a histogram is missing"))?;
            let value = histogram_from(histogram);
            builder.push_histogram_with_start_ts(histogram.timestamp, value, one.start_timestamp);
        }
        while let Some(one) = exemplars.next_if(|e| e.series as usize == i) {
            let exemplar = one.exemplar.as_ref().ok_or_else(|| bad("an exemplar is missing"))?;
            builder.push_exemplar(exemplar_from(exemplar)?);
        }
    }
    if label_at != tail_at
        || columns.next().is_some()
        || histograms.next().is_some()
        || exemplars.next().is_some()
    {
        return Err(bad("more than its series have"));
    }
    for one in tail.metadata {
        let kind = MetricKind::from_number(u64::from(one.kind));
        let says = MetricMetadata { kind, help: one.help, unit: one.unit };
        builder.push_metadata(WriteMetadata { metric: one.metric, says });
    }
    Ok(builder.finish(message))
}

fn metadata_to(metadata: &WriteMetadata) -> pb::BatchMetadata {
    pb::BatchMetadata {
        metric: metadata.metric.clone(),
        kind: metadata.says.kind as u32,
        help: metadata.says.help.clone(),
        unit: metadata.says.unit.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::tests::{assert_same, batch_of_everything};

    #[test]
    fn batches_survive_with_everything() {
        let batch = batch_of_everything();
        let encoded = encode_batch(&batch, None);
        assert_same(&decode_batch(&encoded).unwrap(), &batch);
        let compressed = compress_batch(&encoded);
        assert!(compressed.len() < encoded.len());
        assert_same(&decode_batch(&compressed).unwrap(), &batch);
        let some = encode_batch(&batch, Some(&[2, 0]));
        assert_same(&decode_batch(&some).unwrap(), &batch.select(&[2, 0]));
        let none = encode_batch(&batch, Some(&[]));
        assert_eq!(decode_batch(&none).unwrap().series_count(), 0);
    }

    #[test]
    fn damaged_batches_are_errors() {
        let encoded = encode_batch(&batch_of_everything(), None);
        for cut in 0..encoded.len() {
            // A cut in the tail may leave a valid one.
            let _ = decode_batch(&encoded.slice(..cut));
        }
        for at in 0..encoded.len() {
            for flip in [1u8, 0x80, 0xFF] {
                let mut damaged = encoded.to_vec();
                damaged[at] ^= flip;
                let _ = decode_batch(&Bytes::from(damaged));
            }
        }
        let error = decode_batch(&Bytes::from_static(&[9, 0, 0, 0])).unwrap_err();
        assert_eq!(error.message(), "batch of a peer: version 9 is not known, want 1");
    }
}
