//! Decoded samples as columns.

use std::sync::Arc;

use chronolith_model::{FloatHistogram, SampleValue, TimeRange};

/// Samples of one series as a structure of arrays, ascending in time.
///
/// `values[i]` of a histogram sample is the histogram's sum, so that a stale marker is found in `values` for every kind
/// of sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampleColumns {
    /// Milliseconds since the Unix epoch.
    pub ts: Vec<i64>,
    /// Float values; for histogram samples their sum.
    pub values: Vec<f64>,
    /// Empty while all samples are floats; else as long as `ts`, `None` for a float sample.
    pub histograms: Vec<Option<Arc<FloatHistogram>>>,
    /// Start timestamps; empty unless one is known; else as long as `ts`, 0 where unknown.
    pub start_ts: Vec<i64>,
    /// Of sums of downsampled data: how many raw samples each is of. Empty where every sample stands for itself; else as long as
    /// `ts`. Chunks must not be decoded into columns with counts.
    pub counts: Vec<f64>,
}

impl SampleColumns {
    /// Columns of floats.
    pub fn from_floats(samples: impl IntoIterator<Item = (i64, f64)>) -> Self {
        let (ts, values) = samples.into_iter().unzip();
        SampleColumns { ts, values, ..SampleColumns::default() }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.ts.len()
    }

    /// True when there is no sample.
    pub fn is_empty(&self) -> bool {
        self.ts.is_empty()
    }

    /// True when a sample is a histogram.
    pub fn has_histograms(&self) -> bool {
        !self.histograms.is_empty()
    }

    /// The histogram at `i`, if that sample is one.
    #[inline]
    pub fn histogram(&self, i: usize) -> Option<&Arc<FloatHistogram>> {
        self.histograms.get(i).and_then(Option::as_ref)
    }

    /// The sample at `i`.
    pub fn value(&self, i: usize) -> SampleValue {
        match self.histogram(i) {
            Some(h) => SampleValue::FloatHistogram(Arc::clone(h)),
            None => SampleValue::Float(self.values[i]),
        }
    }

    /// Appends a float sample.
    #[inline]
    pub fn push_float(&mut self, t: i64, v: f64) {
        self.ts.push(t);
        self.values.push(v);
        if !self.histograms.is_empty() {
            self.histograms.push(None);
        }
        if !self.start_ts.is_empty() {
            self.start_ts.push(0);
        }
        if !self.counts.is_empty() {
            self.counts.push(1.0);
        }
    }

    /// Appends a histogram sample.
    pub fn push_histogram(&mut self, t: i64, h: Arc<FloatHistogram>) {
        if self.histograms.is_empty() {
            self.histograms.resize(self.ts.len(), None);
        }
        self.ts.push(t);
        self.values.push(h.sum);
        self.histograms.push(Some(h));
        if !self.start_ts.is_empty() {
            self.start_ts.push(0);
        }
        if !self.counts.is_empty() {
            self.counts.push(1.0);
        }
    }

    /// Sets the start timestamp of the last sample; 0 means unknown.
    pub fn set_last_start_ts(&mut self, st: i64) {
        if self.ts.is_empty() || (st == 0 && self.start_ts.is_empty()) {
            return;
        }
        self.start_ts.resize(self.ts.len(), 0);
        if let Some(last) = self.start_ts.last_mut() {
            *last = st;
        }
    }

    /// Makes the last sample the sum of so many.
    pub fn set_last_count(&mut self, count: f64) {
        self.counts.resize(self.ts.len(), 1.0);
        if let Some(last) = self.counts.last_mut() {
            *last = count;
        }
    }

    /// Appends sample `i` of `other`.
    #[inline]
    pub fn push_from(&mut self, other: &SampleColumns, i: usize) {
        match other.histogram(i) {
            Some(h) => self.push_histogram(other.ts[i], Arc::clone(h)),
            None => self.push_float(other.ts[i], other.values[i]),
        }
        if let Some(&st) = other.start_ts.get(i) {
            self.set_last_start_ts(st);
        }
        if let Some(&count) = other.counts.get(i) {
            self.set_last_count(count);
        }
    }

    /// Appends samples `from..to` of `other`.
    pub fn extend_from(&mut self, other: &SampleColumns, from: usize, to: usize) {
        let before = self.ts.len();
        self.ts.extend_from_slice(&other.ts[from..to]);
        self.values.extend_from_slice(&other.values[from..to]);
        if other.has_histograms() && from < to {
            self.histograms.resize(before, None);
            self.histograms.extend_from_slice(&other.histograms[from..to]);
        } else if !self.histograms.is_empty() {
            self.histograms.resize(self.ts.len(), None);
        }
        if !other.start_ts.is_empty() && from < to {
            self.start_ts.resize(before, 0);
            self.start_ts.extend_from_slice(&other.start_ts[from..to]);
        } else if !self.start_ts.is_empty() {
            self.start_ts.resize(self.ts.len(), 0);
        }
        if !other.counts.is_empty() && from < to {
            self.counts.resize(before, 1.0);
            self.counts.extend_from_slice(&other.counts[from..to]);
        } else if !self.counts.is_empty() {
            self.counts.resize(self.ts.len(), 1.0);
        }
    }

    /// Keeps the first `len` samples.
    pub fn truncate(&mut self, len: usize) {
        self.ts.truncate(len);
        self.values.truncate(len);
        self.histograms.truncate(len);
        self.start_ts.truncate(len);
        self.counts.truncate(len);
    }

    /// Removes all samples, keeps the memory.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Room for `n` more float samples.
    pub fn reserve(&mut self, n: usize) {
        self.ts.reserve(n);
        self.values.reserve(n);
    }

    /// First and last timestamp, both included.
    pub fn time_range(&self) -> Option<TimeRange> {
        Some(TimeRange::new(*self.ts.first()?, *self.ts.last()?))
    }
}
