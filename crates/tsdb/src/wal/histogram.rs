//! Histogram samples in the log.
//!
//! ```text
//! payload:    count × sample
//! sample:     slot ‖ time           zigzag differences to the sample before, the first to 0
//!             ‖ flags: 1 float, 2 taken out of order, 4 has custom bounds, 8 is a stale marker; 16 × counter reset;
//!               64 has a start timestamp
//!             ‖ histogram           nothing for a stale marker
//!             ‖ time − start        zigzag, where it has one
//! histogram:  schema zigzag ‖ zero threshold 8 bytes ‖ sum 8 bytes ‖ count ‖ zero count
//!             ‖ positive spans ‖ positive buckets ‖ negative spans ‖ negative buckets ‖ custom bounds, where it has them
//! spans:      number ‖ number × (offset zigzag ‖ length)
//! ```
//!
//! Counts are LEB128 and buckets zigzag differences in an integer histogram; both are 8 bytes in a float one.

use chronolith_model::histogram::{CounterReset, Span};
use chronolith_model::{FloatHistogram, Histogram, STALE_NAN, WriteHistogram, is_stale_nan};

use super::record::{put_uvarint, take_uvarint, unzigzag, zigzag};

const FLOAT: u8 = 1;
const LATE: u8 = 2;
const CUSTOM: u8 = 4;
const STALE: u8 = 8;
const STARTED: u8 = 64;
const RESET_SHIFT: u8 = 4;

/// Histogram samples of one shard, encoded as they come.
#[derive(Default, Debug)]
pub(crate) struct HistogramGroup {
    count: usize,
    last: (i64, i64),
    payload: Vec<u8>,
}

impl HistogramGroup {
    /// A start timestamp of 0 is none.
    pub(crate) fn push(&mut self, slot: u32, t: i64, start_ts: i64, late: bool, h: &WriteHistogram) {
        let slot = i64::from(slot);
        put_uvarint(&mut self.payload, zigzag(slot - self.last.0));
        put_uvarint(&mut self.payload, zigzag(t.wrapping_sub(self.last.1)));
        self.last = (slot, t);
        self.count += 1;
        put_sample(&mut self.payload, (t, start_ts), if late { LATE } else { 0 }, h);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn clear(&mut self) {
        self.count = 0;
        self.last = (0, 0);
        self.payload.clear();
    }

    /// Appends the group to a record.
    pub(crate) fn encode(&self, shard: usize, out: &mut Vec<u8>) {
        put_uvarint(out, shard as u64);
        put_uvarint(out, self.count as u64);
        out.extend_from_slice(&(self.payload.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.payload);
    }
}

/// A histogram sample of the log.
#[derive(Debug, PartialEq)]
pub(crate) struct HistogramRow {
    pub(crate) slot: u32,
    pub(crate) t: i64,
    pub(crate) start_ts: i64,
    pub(crate) late: bool,
    pub(crate) histogram: WriteHistogram,
}

/// The samples of a group's payload. `None` when it is not one.
pub(crate) fn decode_histograms(count: usize, mut payload: &[u8]) -> Option<Vec<HistogramRow>> {
    let rest = &mut payload;
    // Each sample has at least a byte of its slot, its time and its flags.
    if count > rest.len() / 3 {
        return None;
    }
    let mut rows = Vec::with_capacity(count);
    let (mut slot, mut t) = (0i64, 0i64);
    for _ in 0..count {
        slot = slot.wrapping_add(unzigzag(take_uvarint(rest)?));
        t = t.wrapping_add(unzigzag(take_uvarint(rest)?));
        let (flags, start_ts, histogram) = take_sample(rest, t)?;
        let (slot, late) = (u32::try_from(slot).ok()?, flags & LATE != 0);
        rows.push(HistogramRow { slot, t, start_ts, late, histogram });
    }
    rest.is_empty().then_some(rows)
}

/// Appends a histogram with its flags, and the start timestamp of its time unless that is 0.
pub(crate) fn put_sample(out: &mut Vec<u8>, (t, start_ts): (i64, i64), flags: u8, h: &WriteHistogram) {
    let started = if start_ts == 0 { 0 } else { STARTED };
    put_histogram(out, flags | started, h);
    if start_ts != 0 {
        put_uvarint(out, zigzag(t.wrapping_sub(start_ts)));
    }
}

/// Takes a histogram of this time, its flags, and its start timestamp.
pub(crate) fn take_sample(rest: &mut &[u8], t: i64) -> Option<(u8, i64, WriteHistogram)> {
    let (flags, histogram) = take_histogram(rest)?;
    let start_ts = match flags & STARTED {
        0 => 0,
        _ => t.wrapping_sub(unzigzag(take_uvarint(rest)?)),
    };
    Some((flags, start_ts, histogram))
}

fn put_histogram(out: &mut Vec<u8>, mut flags: u8, h: &WriteHistogram) {
    let (reset, schema, zero_threshold, sum, custom, spans) = match h {
        WriteHistogram::Integer(h) => {
            let spans = [&h.positive_spans, &h.negative_spans];
            (h.counter_reset, h.schema, h.zero_threshold, h.sum, &h.custom_values, spans)
        }
        WriteHistogram::Float(h) => {
            flags |= FLOAT;
            let spans = [&h.positive_spans, &h.negative_spans];
            (h.counter_reset, h.schema, h.zero_threshold, h.sum, &h.custom_values, spans)
        }
    };
    flags |= if custom.is_empty() { 0 } else { CUSTOM };
    flags |= (reset as u8) << RESET_SHIFT;
    if is_stale_nan(sum) {
        // A stale marker is nothing but that.
        out.push(flags & !CUSTOM | STALE);
        return;
    }
    out.push(flags);
    put_uvarint(out, zigzag(i64::from(schema)));
    put_f64(out, zero_threshold);
    put_f64(out, sum);
    match h {
        WriteHistogram::Integer(h) => {
            put_uvarint(out, h.count);
            put_uvarint(out, h.zero_count);
        }
        WriteHistogram::Float(h) => {
            put_f64(out, h.count);
            put_f64(out, h.zero_count);
        }
    }
    for (side, spans) in spans.into_iter().enumerate() {
        put_uvarint(out, spans.len() as u64);
        for span in spans {
            put_uvarint(out, zigzag(i64::from(span.offset)));
            put_uvarint(out, u64::from(span.length));
        }
        match h {
            WriteHistogram::Integer(h) => {
                let buckets = [&h.positive_buckets, &h.negative_buckets][side];
                put_uvarint(out, buckets.len() as u64);
                buckets.iter().for_each(|b| put_uvarint(out, zigzag(*b)));
            }
            WriteHistogram::Float(h) => put_floats(out, [&h.positive_buckets, &h.negative_buckets][side]),
        }
    }
    if !custom.is_empty() {
        put_floats(out, custom);
    }
}

fn take_histogram(rest: &mut &[u8]) -> Option<(u8, WriteHistogram)> {
    let (&flags, tail) = rest.split_first()?;
    *rest = tail;
    let float = flags & FLOAT != 0;
    let counter_reset = match (flags & !STARTED) >> RESET_SHIFT {
        0 => CounterReset::Unknown,
        1 => CounterReset::Reset,
        2 => CounterReset::NotReset,
        3 => CounterReset::Gauge,
        _ => return None,
    };
    if flags & STALE != 0 {
        return Some((flags, stale(float, counter_reset)));
    }
    let schema = i32::try_from(unzigzag(take_uvarint(rest)?)).ok()?;
    let (zero_threshold, sum) = (take_f64(rest)?, take_f64(rest)?);
    let custom = |rest: &mut &[u8]| if flags & CUSTOM != 0 { take_floats(rest) } else { Some(Vec::new()) };
    let histogram = if float {
        let (count, zero_count) = (take_f64(rest)?, take_f64(rest)?);
        let (positive_spans, positive_buckets) = (take_spans(rest)?, take_floats(rest)?);
        let (negative_spans, negative_buckets) = (take_spans(rest)?, take_floats(rest)?);
        WriteHistogram::Float(Box::new(FloatHistogram {
            counter_reset,
            schema,
            zero_threshold,
            zero_count,
            count,
            sum,
            positive_spans,
            negative_spans,
            positive_buckets,
            negative_buckets,
            custom_values: custom(rest)?,
        }))
    } else {
        let (count, zero_count) = (take_uvarint(rest)?, take_uvarint(rest)?);
        let (positive_spans, positive_buckets) = (take_spans(rest)?, take_integers(rest)?);
        let (negative_spans, negative_buckets) = (take_spans(rest)?, take_integers(rest)?);
        WriteHistogram::Integer(Box::new(Histogram {
            counter_reset,
            schema,
            zero_threshold,
            zero_count,
            count,
            sum,
            positive_spans,
            negative_spans,
            positive_buckets,
            negative_buckets,
            custom_values: custom(rest)?,
        }))
    };
    Some((flags, histogram))
}

/// A stale marker as a histogram.
pub(crate) fn stale(float: bool, counter_reset: CounterReset) -> WriteHistogram {
    if float {
        WriteHistogram::Float(Box::new(FloatHistogram {
            counter_reset,
            sum: STALE_NAN,
            ..FloatHistogram::default()
        }))
    } else {
        WriteHistogram::Integer(Box::new(Histogram { counter_reset, sum: STALE_NAN, ..Histogram::default() }))
    }
}

fn put_f64(out: &mut Vec<u8>, v: f64) {
    out.extend_from_slice(&v.to_bits().to_le_bytes());
}

fn put_floats(out: &mut Vec<u8>, vs: &[f64]) {
    put_uvarint(out, vs.len() as u64);
    vs.iter().for_each(|v| put_f64(out, *v));
}

fn take_f64(rest: &mut &[u8]) -> Option<f64> {
    let (bytes, tail) = rest.split_first_chunk::<8>()?;
    *rest = tail;
    Some(f64::from_bits(u64::from_le_bytes(*bytes)))
}

/// A number of elements that have `bytes_min` bytes each.
fn take_len(rest: &mut &[u8], bytes_min: usize) -> Option<usize> {
    let n = usize::try_from(take_uvarint(rest)?).ok()?;
    (n <= rest.len() / bytes_min).then_some(n)
}

fn take_floats(rest: &mut &[u8]) -> Option<Vec<f64>> {
    let n = take_len(rest, 8)?;
    (0..n).map(|_| take_f64(rest)).collect()
}

fn take_integers(rest: &mut &[u8]) -> Option<Vec<i64>> {
    let n = take_len(rest, 1)?;
    (0..n).map(|_| take_uvarint(rest).map(unzigzag)).collect()
}

fn take_spans(rest: &mut &[u8]) -> Option<Vec<Span>> {
    let n = take_len(rest, 2)?;
    let span = |rest: &mut &[u8]| {
        let offset = i32::try_from(unzigzag(take_uvarint(rest)?)).ok()?;
        Some(Span { offset, length: u32::try_from(take_uvarint(rest)?).ok()? })
    };
    (0..n).map(|_| span(rest)).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::wal::record::{Record, RecordKind, put_groups};

    fn spans() -> impl Strategy<Value = Vec<Span>> {
        prop::collection::vec(
            (any::<i32>(), any::<u32>()).prop_map(|(offset, length)| Span { offset, length }),
            0..4,
        )
    }

    fn histogram() -> impl Strategy<Value = WriteHistogram> {
        let reset = prop_oneof![
            Just(CounterReset::Unknown),
            Just(CounterReset::Reset),
            Just(CounterReset::NotReset),
            Just(CounterReset::Gauge)
        ];
        let head = (any::<bool>(), reset, any::<i32>(), -1e9..1e9f64, any::<u64>(), any::<u64>());
        let buckets = || prop::collection::vec(any::<i32>(), 0..6);
        (head, spans(), spans(), buckets(), buckets(), prop::collection::vec(-1e9..1e9f64, 0..3)).prop_map(
            |((float, counter_reset, schema, sum, count, zero_count), ps, ns, pb, nb, custom_values)| {
                let floats = |b: &[i32]| b.iter().map(|v| f64::from(*v)).collect();
                let integers = |b: &[i32]| b.iter().map(|v| i64::from(*v)).collect();
                if float {
                    return WriteHistogram::Float(Box::new(FloatHistogram {
                        counter_reset,
                        schema,
                        zero_threshold: 0.5,
                        zero_count: zero_count as f64,
                        count: count as f64,
                        sum,
                        positive_spans: ps,
                        negative_spans: ns,
                        positive_buckets: floats(&pb),
                        negative_buckets: floats(&nb),
                        custom_values,
                    }));
                }
                WriteHistogram::Integer(Box::new(Histogram {
                    counter_reset,
                    schema,
                    zero_threshold: 0.5,
                    zero_count,
                    count,
                    sum,
                    positive_spans: ps,
                    negative_spans: ns,
                    positive_buckets: integers(&pb),
                    negative_buckets: integers(&nb),
                    custom_values,
                }))
            },
        )
    }

    proptest! {
        #[test]
        fn groups_round_trip(
            rows in prop::collection::vec(
                (any::<u32>(), any::<i64>(), prop_oneof![Just(0), any::<i64>()], any::<bool>(), histogram()),
                0..20,
            ),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut group = HistogramGroup::default();
            for (slot, t, start_ts, late, h) in &rows {
                group.push(*slot, *t, *start_ts, *late, h);
            }
            let mut body = Vec::new();
            put_groups(&mut body, RecordKind::Histograms, 7);
            group.encode(3, &mut body);
            let record = Record::parse(&Bytes::from(body)).unwrap();
            let Record::Groups { kind: RecordKind::Histograms, tenant: 7, groups } = record else { panic!() };
            let payload = &groups[0].payload;
            let back = decode_histograms(groups[0].count, payload).unwrap();
            let want: Vec<_> = rows
                .into_iter()
                .map(|(slot, t, start_ts, late, histogram)| HistogramRow { slot, t, start_ts, late, histogram })
                .collect();
            prop_assert_eq!(&back, &want);
            if !payload.is_empty() {
                let at = cut.index(payload.len());
                prop_assert!(decode_histograms(groups[0].count, &payload[..at]).is_none());
            }
        }

        #[test]
        fn noise_is_no_group(count in 0..100usize, payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_histograms(count, &payload);
        }
    }

    #[test]
    fn stale_markers_come_back() {
        for float in [false, true] {
            let mut out = Vec::new();
            put_histogram(&mut out, LATE, &stale(float, CounterReset::Gauge));
            assert_eq!(out.len(), 1);
            let (flags, back) = take_histogram(&mut &out[..]).unwrap();
            assert_eq!(flags & LATE, LATE);
            let (sum, reset, is_float) = match back {
                WriteHistogram::Integer(h) => (h.sum, h.counter_reset, false),
                WriteHistogram::Float(h) => (h.sum, h.counter_reset, true),
            };
            assert!(is_stale_nan(sum) && reset == CounterReset::Gauge && is_float == float);
        }
    }
}
