//! A batch of written samples, as it travels from a protocol's decoder to the heads or to a peer.
//!
//! The label set of a series is kept as the bytes of remote write 1.0's `repeated Label labels = 1` fields
//! (`0x0A len (0x0A len name 0x12 len value)` …). A remote-write 1.0 request is thus used as it lies: the batch
//! owns the decompressed body and points into it, and the head hashes the bytes without parsing a label. The
//! other protocols render their labels into the same form, or leave them in a table of symbols ([`LabelDictionary`]).

mod dictionary;
mod edit;

use std::ops::Range;

use bytes::Bytes;

pub use dictionary::LabelDictionary;
pub use edit::LabelsEdit;

use crate::{Exemplar, FloatHistogram, Histogram, MetricMetadata, Sample};

/// A histogram sample of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum WriteHistogram {
    /// Integer counts.
    Integer(Box<Histogram>),
    /// Float counts.
    Float(Box<FloatHistogram>),
}

#[derive(Clone, Debug)]
struct Entry {
    /// In the body: a section, or references to the dictionary's symbols.
    labels: Range<u32>,
    samples: Range<u32>,
    histograms: Range<u32>,
    exemplars: Range<u32>,
}

/// Series with their samples: one buffer of label bytes, one column of samples.
///
/// Start timestamps lie in columns of their own, which stay empty where the request has none: a protocol without them
/// pays nothing.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    body: Bytes,
    series: Vec<Entry>,
    samples: Vec<Sample>,
    /// Empty, or as long as `samples` once the batch is finished.
    sample_start_ts: Vec<i64>,
    histograms: Vec<(i64, WriteHistogram)>,
    /// As `sample_start_ts`, beside `histograms`.
    histogram_start_ts: Vec<i64>,
    exemplars: Vec<Exemplar>,
    metadata: Vec<WriteMetadata>,
    /// Empty unless the labels of all series are references.
    dictionary: LabelDictionary,
}

/// What a writer says of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteMetadata {
    /// The metric's (family's) name.
    pub metric: String,
    /// Its kind, help and unit.
    pub says: MetricMetadata,
}

/// One series of a [`WriteBatch`].
#[derive(Clone, Copy, Debug)]
pub struct WriteSeries<'a> {
    /// The label section's bytes, see the module's page. Not yet validated. Empty in a batch that has a dictionary.
    pub labels: &'a [u8],
    /// Float samples in the order of the request.
    pub samples: &'a [Sample],
    /// Since when each float sample counts, milliseconds, 0 where unknown. Empty when the request says it of no float
    /// sample, else as long as `samples`.
    pub sample_start_ts: &'a [i64],
    /// Histogram samples: milliseconds and histogram.
    pub histograms: &'a [(i64, WriteHistogram)],
    /// As `sample_start_ts`, of the histogram samples.
    pub histogram_start_ts: &'a [i64],
    /// Exemplars.
    pub exemplars: &'a [Exemplar],
}

impl WriteBatch {
    /// Number of series entries.
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// Number of float and histogram samples of the series.
    pub fn sample_count(&self) -> usize {
        // Not the columns' lengths: these have gaps where series were dropped.
        self.series.iter().map(|e| e.samples.len() + e.histograms.len()).sum()
    }

    /// The `i`-th series.
    pub fn series(&self, i: usize) -> WriteSeries<'_> {
        let e = &self.series[i];
        WriteSeries {
            labels: if self.keys().is_some() { &[] } else { &self.body[range(&e.labels)] },
            samples: &self.samples[range(&e.samples)],
            sample_start_ts: column(&self.sample_start_ts, &e.samples),
            histograms: &self.histograms[range(&e.histograms)],
            histogram_start_ts: column(&self.histogram_start_ts, &e.histograms),
            exemplars: &self.exemplars[range(&e.exemplars)],
        }
    }

    /// The float samples of the `i`-th series.
    #[inline]
    pub fn samples(&self, i: usize) -> &[Sample] {
        &self.samples[range(&self.series[i].samples)]
    }

    /// True when the `i`-th series has no histogram and no exemplar.
    #[inline]
    pub fn has_only_floats(&self, i: usize) -> bool {
        let entry = &self.series[i];
        entry.histograms.is_empty() && entry.exemplars.is_empty()
    }

    /// True when a sample says since when it counts.
    pub fn has_start_ts(&self) -> bool {
        !self.sample_start_ts.is_empty() || !self.histogram_start_ts.is_empty()
    }

    /// Number of exemplars of the series.
    pub fn exemplar_count(&self) -> usize {
        self.series.iter().map(|e| e.exemplars.len()).sum()
    }

    /// What the request says of metrics.
    pub fn metadata(&self) -> &[WriteMetadata] {
        &self.metadata
    }

    /// The series with these numbers as a batch of their own, which shares the label bytes. What is said of metrics goes along.
    pub fn select(&self, series: &[u32]) -> WriteBatch {
        WriteBatch { metadata: self.metadata.clone(), ..self.select_series(series) }
    }

    /// As [`WriteBatch::select`], saying nothing of metrics.
    pub fn select_series(&self, series: &[u32]) -> WriteBatch {
        if self.keys().is_some() {
            let mut rendered = self.clone();
            rendered.render();
            return rendered.select_series(series);
        }
        let mut out = WriteBatch { body: self.body.clone(), ..WriteBatch::default() };
        out.series.reserve(series.len());
        for i in series {
            let e = &self.series[*i as usize];
            let (s, h, x) =
                (out.samples.len() as u32, out.histograms.len() as u32, out.exemplars.len() as u32);
            out.samples.extend_from_slice(&self.samples[range(&e.samples)]);
            out.sample_start_ts.extend_from_slice(column(&self.sample_start_ts, &e.samples));
            out.histograms.extend_from_slice(&self.histograms[range(&e.histograms)]);
            out.histogram_start_ts.extend_from_slice(column(&self.histogram_start_ts, &e.histograms));
            out.exemplars.extend_from_slice(&self.exemplars[range(&e.exemplars)]);
            out.series.push(Entry {
                labels: e.labels.clone(),
                samples: s..out.samples.len() as u32,
                histograms: h..out.histograms.len() as u32,
                exemplars: x..out.exemplars.len() as u32,
            });
        }
        out
    }

    /// All series in the order of the request.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = WriteSeries<'_>> {
        (0..self.series.len()).map(|i| self.series(i))
    }
}

fn range(r: &Range<u32>) -> Range<usize> {
    r.start as usize..r.end as usize
}

/// The part of an optional column.
fn column<'a>(column: &'a [i64], r: &Range<u32>) -> &'a [i64] {
    if column.is_empty() { column } else { &column[range(r)] }
}

impl WriteSeries<'_> {
    /// Since when float sample `i` counts, 0 when unknown.
    pub fn start_ts_of_sample(&self, i: usize) -> i64 {
        self.sample_start_ts.get(i).copied().unwrap_or(0)
    }

    /// Since when histogram sample `i` counts, 0 when unknown.
    pub fn start_ts_of_histogram(&self, i: usize) -> i64 {
        self.histogram_start_ts.get(i).copied().unwrap_or(0)
    }
}

/// Fills a [`WriteBatch`]; its vectors can be taken back with [`WriteBatchBuilder::recycle`] so that a decoder
/// allocates nothing per request.
#[derive(Debug, Default)]
pub struct WriteBatchBuilder {
    batch: WriteBatch,
    /// Label bytes that do not lie contiguously in the body; appended behind it at the end.
    spill: Vec<u8>,
    body_len: u32,
}

impl WriteBatchBuilder {
    /// Starts over for a body of `body_len` bytes, keeping the vectors' capacity.
    pub fn start(&mut self, body_len: u32) {
        self.body_len = body_len;
        self.spill.clear();
        self.batch.body = Bytes::new();
        self.batch.series.clear();
        self.batch.samples.clear();
        self.batch.sample_start_ts.clear();
        self.batch.histograms.clear();
        self.batch.histogram_start_ts.clear();
        self.batch.exemplars.clear();
        self.batch.metadata.clear();
        self.batch.dictionary.clear();
    }

    /// Opens a series whose label section lies at `labels` in the body. The samples pushed next belong to it.
    pub fn push_series(&mut self, labels: Range<u32>) {
        let (s, h, e) = self.ends();
        self.batch.series.push(Entry { labels, samples: s..s, histograms: h..h, exemplars: e..e });
    }

    /// Opens a series whose label section is not part of the body; the bytes are copied.
    pub fn push_series_bytes(&mut self, labels: &[u8]) {
        let start = self.body_len + self.spill.len() as u32;
        self.spill.extend_from_slice(labels);
        self.push_series(start..start + labels.len() as u32);
    }

    /// Replaces the open series' label section (labels that came after the samples, or in pieces).
    pub fn set_labels(&mut self, labels: Range<u32>) {
        self.open().labels = labels;
    }

    /// As [`WriteBatchBuilder::set_labels`] with bytes that are copied.
    pub fn set_labels_bytes(&mut self, labels: &[u8]) {
        let start = self.body_len + self.spill.len() as u32;
        self.spill.extend_from_slice(labels);
        self.open().labels = start..start + labels.len() as u32;
    }

    /// Adds a float sample to the open series.
    pub fn push_sample(&mut self, sample: Sample) {
        self.batch.samples.push(sample);
        self.open().samples.end += 1;
    }

    /// Adds a float sample that counts since `start_ts` (milliseconds, 0 when unknown) to the open series.
    pub fn push_sample_with_start_ts(&mut self, sample: Sample, start_ts: i64) {
        self.push_sample(sample);
        set_last(&mut self.batch.sample_start_ts, self.batch.samples.len(), start_ts);
    }

    /// Adds a histogram sample to the open series.
    pub fn push_histogram(&mut self, t: i64, histogram: WriteHistogram) {
        self.batch.histograms.push((t, histogram));
        self.open().histograms.end += 1;
    }

    /// Adds a histogram sample that counts since `start_ts` (milliseconds, 0 when unknown) to the open series.
    pub fn push_histogram_with_start_ts(&mut self, t: i64, histogram: WriteHistogram, start_ts: i64) {
        self.push_histogram(t, histogram);
        set_last(&mut self.batch.histogram_start_ts, self.batch.histograms.len(), start_ts);
    }

    /// Adds an exemplar to the open series.
    pub fn push_exemplar(&mut self, exemplar: Exemplar) {
        self.batch.exemplars.push(exemplar);
        self.open().exemplars.end += 1;
    }

    /// Adds what the request says of a metric; it belongs to no series.
    pub fn push_metadata(&mut self, metadata: WriteMetadata) {
        self.batch.metadata.push(metadata);
    }

    /// Takes the open series back, with all that was pushed into it.
    pub fn drop_series(&mut self) {
        let Some(entry) = self.batch.series.pop() else { return };
        let (s, h) = (entry.samples.start as usize, entry.histograms.start as usize);
        self.batch.samples.truncate(s);
        self.batch.sample_start_ts.truncate(s);
        self.batch.histograms.truncate(h);
        self.batch.histogram_start_ts.truncate(h);
        self.batch.exemplars.truncate(entry.exemplars.start as usize);
    }

    /// What the open series has so far: float samples, histograms.
    pub fn open_counts(&self) -> (usize, usize) {
        self.batch.series.last().map_or((0, 0), |e| (e.samples.len(), e.histograms.len()))
    }

    fn open(&mut self) -> &mut Entry {
        self.batch.series.last_mut().expect("push_series comes first")
    }

    fn ends(&self) -> (u32, u32, u32) {
        (
            self.batch.samples.len() as u32,
            self.batch.histograms.len() as u32,
            self.batch.exemplars.len() as u32,
        )
    }

    /// The batch over `body`, which is the buffer that the label ranges point into.
    ///
    /// # Panics
    /// When `body` has not the length that [`WriteBatchBuilder::start`] was told.
    pub fn finish(&mut self, body: Bytes) -> WriteBatch {
        assert_eq!(body.len(), self.body_len as usize, "label ranges point into this body");
        let mut batch = std::mem::take(&mut self.batch);
        fill(&mut batch.sample_start_ts, batch.samples.len());
        fill(&mut batch.histogram_start_ts, batch.histograms.len());
        batch.body = if self.spill.is_empty() {
            body
        } else {
            let mut joined = Vec::with_capacity(body.len() + self.spill.len());
            joined.extend_from_slice(&body);
            joined.extend_from_slice(&self.spill);
            Bytes::from(joined)
        };
        batch
    }

    /// The batch over `body`, into which the decoder has rendered all label sections itself after it told
    /// [`WriteBatchBuilder::start`] a length of 0.
    ///
    /// # Panics
    /// When it has not.
    pub fn finish_rendered(&mut self, body: Bytes) -> WriteBatch {
        assert!(self.body_len == 0 && self.spill.is_empty(), "all sections lie in this body");
        self.body_len = u32::try_from(body.len()).expect("a batch's labels are below 4 GiB");
        self.finish(body)
    }

    /// Takes the vectors of a batch that is done with, and hands back its body for the same purpose.
    pub fn recycle(&mut self, batch: WriteBatch) -> Bytes {
        self.batch = batch;
        let body = std::mem::take(&mut self.batch.body);
        self.start(0);
        body
    }
}

/// Notes the start timestamp of the last of `len` samples. The column begins with the first one known, and stays behind
/// where later samples have none.
fn set_last(column: &mut Vec<i64>, len: usize, start_ts: i64) {
    if start_ts != 0 {
        column.resize(len - 1, 0);
        column.push(start_ts);
    }
}

/// Brings a column that has begun to its full length.
fn fill(column: &mut Vec<i64>, len: usize) {
    if !column.is_empty() {
        column.resize(len, 0);
    }
}

/// Renders labels into the wire form that [`WriteSeries::labels`] has. The canonical form has names sorted and
/// unique, values non-empty, and minimal varints.
pub fn encode_labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>, out: &mut Vec<u8>) {
    for (name, value) in pairs {
        put_label(name.as_bytes(), value.as_bytes(), out);
    }
}

/// One label of a section.
fn put_label(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let inner = 2 + varint_len(name.len()) + varint_len(value.len()) + name.len() + value.len();
    out.push(0x0A);
    put_varint(inner, out);
    out.push(0x0A);
    put_varint(name.len(), out);
    out.extend_from_slice(name);
    out.push(0x12);
    put_varint(value.len(), out);
    out.extend_from_slice(value);
}

fn varint_len(v: usize) -> usize {
    (usize::BITS - (v | 1).leading_zeros()).div_ceil(7) as usize
}

fn put_varint(mut v: usize, out: &mut Vec<u8>) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Why a label section could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LabelSectionError {
    /// The protobuf is damaged or cut short.
    #[error("malformed label section")]
    Malformed,
    /// A name or value is not UTF-8.
    #[error("label name or value is not valid UTF-8")]
    NotUtf8,
}

/// Reads a label section's pairs in the order in which they lie; unknown fields are skipped.
pub fn decode_labels(mut section: &[u8]) -> impl Iterator<Item = Result<(&str, &str), LabelSectionError>> {
    std::iter::from_fn(move || {
        if section.is_empty() {
            return None;
        }
        let one = next_label(&mut section);
        if one.is_err() {
            section = &[];
        }
        Some(one)
    })
}

fn next_label<'a>(section: &mut &'a [u8]) -> Result<(&'a str, &'a str), LabelSectionError> {
    if take_varint(section)? != 0x0A {
        return Err(LabelSectionError::Malformed);
    }
    let mut label = take_bytes(section)?;
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    while !label.is_empty() {
        match take_varint(&mut label)? {
            0x0A => name = take_bytes(&mut label)?,
            0x12 => value = take_bytes(&mut label)?,
            other => skip_field(other & 7, &mut label)?,
        }
    }
    let text = |b: &'a [u8]| std::str::from_utf8(b).map_err(|_| LabelSectionError::NotUtf8);
    Ok((text(name)?, text(value)?))
}

fn skip_field(wire_type: u64, buf: &mut &[u8]) -> Result<(), LabelSectionError> {
    let n = match wire_type {
        0 => return take_varint(buf).map(|_| ()),
        1 => 8,
        2 => return take_bytes(buf).map(|_| ()),
        5 => 4,
        _ => return Err(LabelSectionError::Malformed),
    };
    *buf = buf.get(n..).ok_or(LabelSectionError::Malformed)?;
    Ok(())
}

fn take_varint(buf: &mut &[u8]) -> Result<u64, LabelSectionError> {
    let mut out = 0u64;
    for (i, b) in buf.iter().take(10).enumerate() {
        out |= u64::from(b & 0x7F) << (7 * i);
        if b & 0x80 == 0 {
            *buf = &buf[i + 1..];
            return Ok(out);
        }
    }
    Err(LabelSectionError::Malformed)
}

fn take_bytes<'a>(buf: &mut &'a [u8]) -> Result<&'a [u8], LabelSectionError> {
    let len = usize::try_from(take_varint(buf)?).map_err(|_| LabelSectionError::Malformed)?;
    if len > buf.len() {
        return Err(LabelSectionError::Malformed);
    }
    let (head, tail) = buf.split_at(len);
    *buf = tail;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_sections_round_trip() {
        let long = "v".repeat(300);
        let pairs = [("__name__", "up"), ("a", long.as_str()), ("ü", "é")];
        let mut section = Vec::new();
        encode_labels(pairs, &mut section);
        let back: Result<Vec<_>, _> = decode_labels(&section).collect();
        assert_eq!(back.unwrap(), pairs);
        for cut in 1..section.len() {
            // A cut at a label's end is a shorter section; anywhere else it is an error, never a panic.
            let _ = decode_labels(&section[..cut]).collect::<Result<Vec<_>, _>>();
        }
        assert_eq!(decode_labels(&[0x0A, 0x7F]).next(), Some(Err(LabelSectionError::Malformed)));
        assert_eq!(decode_labels(&[0x0A, 3, 0x0A, 1, 0xFF]).next(), Some(Err(LabelSectionError::NotUtf8)));
    }

    #[test]
    fn batches_point_into_the_body_or_behind_it() {
        let mut section = Vec::new();
        encode_labels([("a", "b")], &mut section);
        let body = Bytes::from(section.clone());
        let mut builder = WriteBatchBuilder::default();
        builder.start(body.len() as u32);
        builder.push_series(0..section.len() as u32);
        builder.push_sample(Sample { t: 1, v: 2.0 });
        builder.push_series_bytes(b"elsewhere");
        builder.push_sample(Sample { t: 3, v: 4.0 });
        builder.push_sample(Sample { t: 5, v: 6.0 });
        let batch = builder.finish(body);
        assert_eq!((batch.series_count(), batch.sample_count()), (2, 3));
        assert_eq!(batch.series(0).labels, section);
        assert_eq!(batch.series(1).labels, b"elsewhere");
        assert_eq!(batch.series(1).samples.len(), 2);
    }

    #[test]
    fn a_selection_is_a_batch_over_the_same_bytes() {
        let mut builder = WriteBatchBuilder::default();
        builder.start(0);
        for i in 0..4i64 {
            builder.push_series_bytes(format!("series {i}").as_bytes());
            for k in 0..=i {
                builder.push_sample_with_start_ts(Sample { t: k, v: i as f64 }, i);
            }
            builder.push_histogram(i, WriteHistogram::Integer(Box::default()));
            builder.push_exemplar(Exemplar { labels: crate::Labels::empty(), value: 0.0, t: i });
        }
        let batch = builder.finish(Bytes::new());
        let some = batch.select(&[3, 1]);
        assert_eq!((some.series_count(), some.sample_count(), some.exemplar_count()), (2, 8, 2));
        for (got, want) in some.iter().zip([3, 1]) {
            let want = batch.series(want);
            assert_eq!(
                (got.labels, got.samples, got.histograms),
                (want.labels, want.samples, want.histograms)
            );
            assert_eq!(
                (got.sample_start_ts, got.histogram_start_ts),
                (want.sample_start_ts, want.histogram_start_ts)
            );
            assert_eq!(got.exemplars, want.exemplars);
        }
        assert_eq!(batch.select(&[]).series_count(), 0);
    }

    #[test]
    fn rendered_sections_and_series_taken_back() {
        let mut builder = WriteBatchBuilder::default();
        builder.start(0);
        builder.push_series(0..1);
        builder.push_sample(Sample { t: 1, v: 2.0 });
        builder.push_series(1..3);
        builder.push_sample_with_start_ts(Sample { t: 3, v: 4.0 }, 1);
        builder.push_histogram_with_start_ts(3, WriteHistogram::Integer(Box::default()), 1);
        assert_eq!(builder.open_counts(), (1, 1));
        builder.drop_series();
        builder.push_series(3..5);
        builder.push_sample(Sample { t: 5, v: 6.0 });
        let batch = builder.finish_rendered(Bytes::from_static(b"abbcc-spare"));
        let series: Vec<_> = batch
            .iter()
            .map(|s| (s.labels, s.samples[0].t, s.start_ts_of_sample(0), s.histograms.len()))
            .collect();
        assert_eq!(series, [(&b"a"[..], 1, 0, 0), (b"cc", 5, 0, 0)]);
    }

    #[test]
    fn start_timestamps_lie_beside_the_samples_that_have_them() {
        let mut builder = WriteBatchBuilder::default();
        let histogram = || WriteHistogram::Integer(Box::default());
        builder.start(0);
        builder.push_series_bytes(b"plain");
        builder.push_sample(Sample { t: 1, v: 0.0 });
        let plain = builder.finish(Bytes::new());
        assert!(!plain.has_start_ts());
        assert!(plain.series(0).sample_start_ts.is_empty());
        assert_eq!(plain.series(0).start_ts_of_sample(0), 0);

        builder.recycle(plain);
        builder.push_series_bytes(b"a");
        builder.push_sample(Sample { t: 1, v: 0.0 });
        builder.push_sample_with_start_ts(Sample { t: 2, v: 0.0 }, 0);
        builder.push_series_bytes(b"b");
        builder.push_sample_with_start_ts(Sample { t: 3, v: 0.0 }, 2);
        builder.push_histogram(4, histogram());
        builder.push_histogram_with_start_ts(5, histogram(), 3);
        builder.push_series_bytes(b"c");
        builder.push_sample(Sample { t: 6, v: 0.0 });
        builder.push_histogram(7, histogram());
        let batch = builder.finish(Bytes::new());
        assert!(batch.has_start_ts());
        let columns: Vec<_> = batch.iter().map(|s| (s.sample_start_ts, s.histogram_start_ts)).collect();
        assert_eq!(columns, [(&[0, 0][..], &[][..]), (&[2], &[0, 3]), (&[0], &[0])]);

        builder.recycle(batch);
        builder.push_series_bytes(b"again");
        builder.push_sample(Sample { t: 8, v: 0.0 });
        assert!(!builder.finish(Bytes::new()).has_start_ts());
    }
}
