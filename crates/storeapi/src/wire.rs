//! Series as bytes on the wire, read and written without prost.
//!
//! ```text
//! Series     = ( 0x0A len Label )* ( 0x12 len AggrChunk )*
//! Label      = 0x0A len name  0x12 len value
//! AggrChunk  = 0x08 mint  0x10 maxt  then by field number: 3 raw, 4 count, 5 sum, 6 min, 7 max, 8 counter
//! Chunk      = 0x08 type (TSDB encoding − 1)  0x12 len data  0x18 hash
//! ```
//!
//! A label set is built with one allocation, and chunk data are slices of the received message. The messages that
//! prost generates from the same schema are the oracle in the tests.

use bytes::{BufMut, Bytes, BytesMut};
use chronolith_chunk::{Chunk, Encoding};
use chronolith_model::Labels;
use smallvec::SmallVec;

use crate::{AggrChunk, Aggregate, DownsampledChunk, StoreError, StoreSeries};

/// Writes a series as the content of a `Series` message.
pub(crate) fn encode_series(labels: &Labels, chunks: &[AggrChunk], out: &mut BytesMut) {
    for (name, value) in labels {
        let len = string_len(name.len()) + string_len(value.len());
        put_header(0x0A, len, out);
        put_bytes(0x0A, name.as_bytes(), out);
        put_bytes(0x12, value.as_bytes(), out);
    }
    for chunk in chunks {
        encode_aggr_chunk(chunk, out);
    }
}

/// Upper bound of the bytes that [`encode_series`] writes.
pub(crate) fn encoded_len_max(labels: &Labels, chunks: &[AggrChunk]) -> usize {
    // Six length bytes per label are in `encoded_len` already; a label here has three tags and three lengths.
    2 * labels.encoded_len() + chunks.iter().map(|c| c.bytes_len() + 160).sum::<usize>()
}

fn encode_aggr_chunk(chunk: &AggrChunk, out: &mut BytesMut) {
    let parts: SmallVec<[(u8, &Chunk); 5]> = match chunk {
        AggrChunk::Raw(chunk) => SmallVec::from_slice(&[(3, chunk)][..]),
        AggrChunk::Downsampled(d) => {
            Aggregate::ALL.into_iter().filter_map(|a| Some((3 + a as u8, d.part(a)?))).collect()
        }
    };
    let (mint, maxt) = (chunk.mint() as u64, chunk.maxt() as u64);
    let mut len = int_len(mint) + int_len(maxt);
    for (_, part) in &parts {
        len += string_len(chunk_len(part));
    }
    put_header(0x12, len, out);
    put_int(0x08, mint, out);
    put_int(0x10, maxt, out);
    for (field, part) in &parts {
        put_header(field << 3 | 2, chunk_len(part), out);
        put_int(0x08, wire_type(part.encoding), out);
        put_bytes(0x12, &part.data, out);
    }
}

fn wire_type(encoding: Encoding) -> u64 {
    u64::from(encoding.as_u8()) - 1
}

fn chunk_len(chunk: &Chunk) -> usize {
    int_len(wire_type(chunk.encoding)) + string_len(chunk.data.len())
}

// proto3 leaves out zeros; strings and bytes are written always, which is as valid.

fn int_len(v: u64) -> usize {
    if v == 0 { 0 } else { 1 + varint_len(v) }
}

fn string_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

pub(crate) fn varint_len(v: u64) -> usize {
    (u64::BITS - (v | 1).leading_zeros()).div_ceil(7) as usize
}

fn put_varint(mut v: u64, out: &mut BytesMut) {
    while v >= 0x80 {
        out.put_u8(v as u8 | 0x80);
        v >>= 7;
    }
    out.put_u8(v as u8);
}

pub(crate) fn put_header(tag: u8, len: usize, out: &mut BytesMut) {
    out.put_u8(tag);
    put_varint(len as u64, out);
}

pub(crate) fn put_int(tag: u8, v: u64, out: &mut BytesMut) {
    if v != 0 {
        out.put_u8(tag);
        put_varint(v, out);
    }
}

fn put_bytes(tag: u8, bytes: &[u8], out: &mut BytesMut) {
    put_header(tag, bytes.len(), out);
    out.put_slice(bytes);
}

/// Reads the content of a `Series` message. Labels may come in any order; empty values are dropped.
pub(crate) fn decode_series(message: &Bytes) -> Result<StoreSeries, StoreError> {
    let mut rest: &[u8] = message;
    let mut pairs: SmallVec<[(&str, &str); 24]> = SmallVec::new();
    let mut sorted = true;
    let mut chunks = Vec::new();
    while let Some(field) = next_field(&mut rest)? {
        match field {
            (1, Value::Bytes(label)) => {
                let (name, value) = decode_label(label)?;
                let short = name.len().max(value.len()) <= Labels::PART_BYTES_MAX;
                sorted &= short && !value.is_empty() && pairs.last().is_none_or(|(last, _)| *last < name);
                pairs.push((name, value));
            }
            (2, Value::Bytes(chunk)) => {
                if chunks.is_empty() {
                    // Most series of a request have a like number of chunks; the bytes left bound it.
                    chunks.reserve(1 + rest.len() / (chunk.len() + 2).max(8));
                }
                chunks.extend(decode_aggr_chunk(message, chunk)?);
            }
            _ => {}
        }
    }
    let labels = if sorted {
        Labels::from_sorted(pairs.iter().copied())
    } else {
        Labels::from_pairs(pairs.iter().copied())
            .map_err(|e| StoreError::corrupt("series in a response").with_source(e))?
    };
    Ok(StoreSeries { labels, chunks })
}

fn decode_label(mut label: &[u8]) -> Result<(&str, &str), StoreError> {
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    while let Some(field) = next_field(&mut label)? {
        match field {
            (1, Value::Bytes(bytes)) => name = bytes,
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    match (std::str::from_utf8(name), std::str::from_utf8(value)) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        _ => Err(StoreError::corrupt("a label in a response is not valid UTF-8")),
    }
}

/// `None` for a chunk without any data, which says nothing.
fn decode_aggr_chunk(message: &Bytes, mut chunk: &[u8]) -> Result<Option<AggrChunk>, StoreError> {
    let (mut mint, mut maxt) = (0i64, 0i64);
    let mut raw: Option<&[u8]> = None;
    let mut parts: [Option<&[u8]>; 5] = [None; 5];
    while let Some(field) = next_field(&mut chunk)? {
        match field {
            (1, Value::Int(v)) => mint = v as i64,
            (2, Value::Int(v)) => maxt = v as i64,
            (3, Value::Bytes(bytes)) => raw = Some(bytes),
            (field @ 4..=8, Value::Bytes(bytes)) => parts[field as usize - 4] = Some(bytes),
            _ => {}
        }
    }
    if maxt < mint {
        return Err(StoreError::corrupt(format!(
            "a chunk in a response ends at {maxt}, before its start {mint}"
        )));
    }
    if let Some(raw) = raw {
        return Ok(Some(AggrChunk::Raw(decode_chunk(message, raw, mint, maxt)?)));
    }
    if parts.iter().all(Option::is_none) {
        return Ok(None);
    }
    let mut out = DownsampledChunk { mint, maxt, parts: Default::default() };
    for (part, bytes) in out.parts.iter_mut().zip(parts) {
        *part = bytes.map(|b| decode_chunk(message, b, mint, maxt)).transpose()?;
    }
    Ok(Some(AggrChunk::Downsampled(Box::new(out))))
}

fn decode_chunk(message: &Bytes, mut chunk: &[u8], mint: i64, maxt: i64) -> Result<Chunk, StoreError> {
    let (mut number, mut data): (u64, &[u8]) = (0, &[]);
    while let Some(field) = next_field(&mut chunk)? {
        match field {
            (1, Value::Int(v)) => number = v,
            (2, Value::Bytes(bytes)) => data = bytes,
            _ => {}
        }
    }
    let encoding = u8::try_from(number).ok().and_then(|n| Encoding::try_from(n.checked_add(1)?).ok());
    let encoding = encoding
        .ok_or_else(|| StoreError::corrupt(format!("a chunk in a response has the unknown type {number}")))?;
    Ok(Chunk { mint, maxt, encoding, data: message.slice_ref(data) })
}

pub(crate) enum Value<'a> {
    Int(u64),
    Bytes(&'a [u8]),
    /// Fixed-width fields, which this schema has none of.
    Other,
}

pub(crate) fn next_field<'a>(buf: &mut &'a [u8]) -> Result<Option<(u64, Value<'a>)>, StoreError> {
    if buf.is_empty() {
        return Ok(None);
    }
    let field = (|| {
        let key = take_varint(buf)?;
        let value = match key & 7 {
            0 => Value::Int(take_varint(buf)?),
            1 => take(buf, 8).map(|_| Value::Other)?,
            2 => {
                let len = usize::try_from(take_varint(buf)?).ok()?;
                Value::Bytes(take(buf, len)?)
            }
            5 => take(buf, 4).map(|_| Value::Other)?,
            _ => return None,
        };
        Some((key >> 3, value))
    })();
    field.map(Some).ok_or_else(|| StoreError::corrupt("malformed protobuf in a series response"))
}

fn take<'a>(buf: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = buf.split_at_checked(len)?;
    *buf = tail;
    Some(head)
}

fn take_varint(buf: &mut &[u8]) -> Option<u64> {
    let mut out = 0u64;
    for (i, b) in buf.iter().take(10).enumerate() {
        out |= u64::from(b & 0x7F) << (7 * i);
        if b & 0x80 == 0 {
            *buf = &buf[i + 1..];
            return Some(out);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto::thanos;

    fn chunk(mint: i64, maxt: i64, encoding: Encoding, data: &'static [u8]) -> Chunk {
        Chunk { mint, maxt, encoding, data: Bytes::from_static(data) }
    }

    fn samples() -> Vec<StoreSeries> {
        let mut down = DownsampledChunk { mint: -5, maxt: 300, parts: Default::default() };
        down.set_part(Aggregate::Count, chunk(-5, 300, Encoding::Xor, b"count"));
        down.set_part(Aggregate::Counter, chunk(-5, 300, Encoding::FloatHistogram, b"counter"));
        vec![
            StoreSeries { labels: Labels::empty(), chunks: vec![] },
            StoreSeries {
                labels: Labels::from_pairs([("__name__", "up"), ("ü", &"é".repeat(200))]).unwrap(),
                chunks: vec![
                    chunk(0, 0, Encoding::Xor, b"").into(),
                    chunk(i64::MIN, i64::MAX, Encoding::Histogram, b"abc").into(),
                    AggrChunk::Downsampled(Box::new(down)),
                ],
            },
        ]
    }

    fn encode(series: &StoreSeries) -> Bytes {
        let mut out = BytesMut::new();
        encode_series(&series.labels, &series.chunks, &mut out);
        assert!(out.len() <= encoded_len_max(&series.labels, &series.chunks));
        out.freeze()
    }

    #[test]
    fn prost_reads_what_we_write_and_we_read_what_prost_writes() {
        for series in samples() {
            let ours = encode(&series);
            let theirs = thanos::Series::decode(ours.clone()).unwrap();
            assert_eq!(theirs.labels.len(), series.labels.len());
            for (label, (name, value)) in theirs.labels.iter().zip(&series.labels) {
                assert_eq!((label.name.as_str(), label.value.as_str()), (name, value));
            }
            assert_eq!(theirs.chunks.len(), series.chunks.len());
            for (theirs, ours) in theirs.chunks.iter().zip(&series.chunks) {
                assert_eq!((theirs.min_time, theirs.max_time), (ours.mint(), ours.maxt()));
                if let Some(raw) = ours.raw() {
                    let theirs = theirs.raw.as_ref().unwrap();
                    assert_eq!(theirs.r#type + 1, i32::from(raw.encoding.as_u8()));
                    assert_eq!(theirs.data, raw.data);
                }
            }
            assert_eq!(decode_series(&Bytes::from(theirs.encode_to_vec())).unwrap(), series);
            assert_eq!(decode_series(&ours).unwrap(), series);
        }
    }

    #[test]
    fn hostile_bytes_are_errors() {
        for series in samples() {
            let good = encode(&series);
            for cut in 0..good.len() {
                let _ = decode_series(&good.slice(..cut));
            }
            for i in 0..good.len() {
                for bit in 0..8 {
                    let mut bad = good.to_vec();
                    bad[i] ^= 1 << bit;
                    let _ = decode_series(&Bytes::from(bad));
                }
            }
        }
        let double = thanos::Series {
            labels: vec![thanos::Label { name: "a".into(), value: "1".into() }; 2],
            chunks: vec![],
        };
        assert!(decode_series(&Bytes::from(double.encode_to_vec())).is_err());
        let unknown = thanos::AggrChunk {
            raw: Some(thanos::Chunk { r#type: 77, data: Bytes::new(), hash: 1 }),
            ..Default::default()
        };
        let series = thanos::Series { labels: vec![], chunks: vec![unknown] };
        let error = decode_series(&Bytes::from(series.encode_to_vec())).unwrap_err();
        assert!(error.to_string().contains("unknown type 77"), "{error}");
    }

    #[test]
    fn foreign_label_order_is_put_right() {
        let label = |name: &str, value: &str| thanos::Label { name: name.into(), value: value.into() };
        let series =
            thanos::Series { labels: vec![label("b", "2"), label("a", "1"), label("c", "")], chunks: vec![] };
        let series = decode_series(&Bytes::from(series.encode_to_vec())).unwrap();
        assert_eq!(series.labels.to_string(), r#"{a="1", b="2"}"#);
    }
}
