//! A run: samples that can share a chunk, added up by windows.
//!
//! Histograms are kept as flat numbers (count, zero count, sum, buckets) beside the layout that says what they are.

use chronolith_chunk::{HistogramLayout, HistogramReader};
use chronolith_model::FloatHistogram;
use chronolith_model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterReset, bucket_bound};

use crate::downsample::window::{self, RAW_INTERVAL_MS};

/// Numbers that stay reserved between runs; what a large series needed beyond is given back.
const KEPT_MAX: usize = 1 << 20;

/// A histogram in [`Run`]: its layout and where its numbers are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    layout: usize,
    at: usize,
}

/// A window of time, or its part in one batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    pub(super) end: i64,
    /// Time of the last number.
    pub(super) last_t: i64,
    /// Samples, NaN included.
    samples: usize,
    /// There is a number among them; else what follows means nothing.
    pub(super) has_numbers: bool,
    /// Raw samples.
    pub(super) count: f64,
    /// The sum; where layouts were mixed, of the samples before that, and from here on [`Run::parts`] are to be added.
    pub(super) sum: Place,
    parts: Option<usize>,
    /// The counter's last value.
    pub(super) last: Place,
    schema_min: i32,
}

/// A reset of the counter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reset {
    /// The window of the first sample behind it.
    pub(super) window: usize,
    /// That sample is the first of its window.
    pub(super) between_windows: bool,
    /// The value before it.
    pub(super) before: Place,
}

/// Windows that become chunks of one schema.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Batch {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Time of its last number.
    pub(super) last_t: i64,
    pub(super) schema: i32,
}

/// A histogram that changes.
#[derive(Debug, Default)]
struct Flat {
    layout: usize,
    numbers: [f64; 3],
    buckets: Vec<f64>,
}

impl Flat {
    #[inline]
    fn read(&mut self, reader: &HistogramReader<'_>, layout: usize) {
        self.numbers = reader.numbers();
        reader.buckets_into(&mut self.buckets);
        self.layout = layout;
    }
}

#[derive(Debug)]
struct Known {
    layout: HistogramLayout,
    buckets: usize,
    /// Histograms of it can be added and compared number by number: no bucket lies inside the zero bucket.
    plain: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Run {
    resolution_ms: i64,
    layouts: Vec<Known>,
    values: Vec<f64>,
    pub(super) windows: Vec<Window>,
    pub(super) resets: Vec<Reset>,
    /// Where [`Run::cut`] was called.
    cuts: Vec<usize>,
    cut: bool,
    /// Of counters, and of gauges; known with the first number.
    pub(super) gauge: Option<bool>,
    samples: usize,
    mint: i64,
    maxt: i64,
    /// The counter's last value, and its next one.
    last: Flat,
    next: Flat,
    /// What the open window comes to.
    sum: Flat,
    /// Samples that can be added only when the schema of their batch is known.
    parts: Vec<Place>,
}

impl Run {
    /// Begins another run.
    pub(super) fn begin(&mut self, resolution_ms: i64) {
        self.resolution_ms = resolution_ms;
        self.layouts.clear();
        self.values.clear();
        self.values.shrink_to(KEPT_MAX);
        self.windows.clear();
        self.resets.clear();
        self.cuts.clear();
        self.cut = false;
        self.gauge = None;
        self.samples = 0;
        self.parts.clear();
    }

    /// True when the sample at which `reader` stands cannot share a chunk with those before.
    pub(super) fn starts_anew(&self, reader: &HistogramReader<'_>) -> bool {
        let Some(gauge) = self.gauge else { return false };
        let (layout, before) = (reader.layout(), &self.layouts[self.last.layout].layout);
        gauge != (reader.counter_reset() == CounterReset::Gauge)
            || is_custom(layout) != is_custom(before)
            || layout.custom_values != before.custom_values
    }

    /// The number of a layout in this run.
    pub(super) fn place(&mut self, layout: &HistogramLayout) -> usize {
        // That of the chunk before, mostly; sums and counters take turns.
        let recent = self.layouts.iter().enumerate().rev().take(2);
        if let Some((i, _)) = recent.into_iter().find(|(_, known)| known.layout == *layout) {
            return i;
        }
        let outside_zero = |side: usize| {
            let first = layout.spans[side].first();
            first.is_none_or(|s| {
                bucket_bound(s.offset, layout.schema, &layout.custom_values) > layout.zero_threshold
            })
        };
        let plain = is_custom(layout) || outside_zero(0) && outside_zero(1);
        let buckets = (layout.bucket_count(0) + layout.bucket_count(1)) as usize;
        self.layouts.push(Known { layout: layout.clone(), buckets, plain });
        self.layouts.len() - 1
    }

    /// A sample that counts only when it comes to how long chunks become.
    pub(super) fn add_nan(&mut self, t: i64) {
        self.enter(t);
    }

    /// The window of `t`.
    #[inline]
    fn enter(&mut self, t: i64) -> usize {
        if self.samples == 0 {
            self.mint = t;
        }
        self.maxt = t;
        self.samples += 1;
        if self.cut || self.windows.last().is_none_or(|w| t > w.end) {
            self.close();
            self.cut = false;
            self.windows.push(Window { end: window::end(t, self.resolution_ms), ..Window::default() });
        }
        let i = self.windows.len() - 1;
        self.windows[i].samples += 1;
        i
    }

    /// Adds the sample at which the readers stand, each with the number of its layout: `count` raw samples, of which `counter` is
    /// the last and `sum` the sum; without one, the counter is the sum.
    #[inline]
    pub(super) fn add(
        &mut self,
        t: i64,
        count: f64,
        (counter, layout): (&HistogramReader<'_>, usize),
        sum: Option<(&HistogramReader<'_>, usize)>,
    ) {
        let i = self.enter(t);
        self.next.buckets.resize(self.layouts[layout].buckets, 0.0);
        self.next.read(counter, layout);
        let between_windows = !self.windows[i].has_numbers;
        match self.gauge {
            None => self.gauge = Some(counter.counter_reset() == CounterReset::Gauge),
            Some(false) if counter.counter_reset() != CounterReset::NotReset && self.is_reset() => {
                let before = self.put(Which::Last);
                self.resets.push(Reset { window: i, between_windows, before });
            }
            Some(_) => {}
        }
        std::mem::swap(&mut self.last, &mut self.next);
        if let Some((sum, layout)) = sum {
            self.next.buckets.resize(self.layouts[layout].buckets, 0.0);
            self.next.read(sum, layout);
        }
        let schema = self.layouts[layout].layout.schema;
        let part = if sum.is_some() { &self.next } else { &self.last };
        let w = &mut self.windows[i];
        w.last_t = t;
        if between_windows {
            (w.has_numbers, w.count, w.schema_min) = (true, count, schema);
            self.sum.layout = part.layout;
            self.sum.numbers = part.numbers;
            self.sum.buckets.clear();
            self.sum.buckets.extend_from_slice(&part.buckets);
            return;
        }
        w.count += count;
        w.schema_min = w.schema_min.min(schema);
        let known = &self.layouts[part.layout];
        if w.parts.is_none() && self.sum.layout == part.layout && known.plain {
            for (a, b) in self.sum.buckets.iter_mut().zip(&part.buckets) {
                *a += b;
            }
            self.sum.numbers[0] += part.numbers[0];
            if !is_custom(&known.layout) {
                self.sum.numbers[1] += part.numbers[1];
            }
            self.sum.numbers[2] += part.numbers[2];
            return;
        }
        if w.parts.is_none() {
            w.parts = Some(self.parts.len());
            self.windows[i].sum = self.put(Which::Sum);
        }
        let part = self.put(if sum.is_some() { Which::Next } else { Which::Last });
        self.parts.push(part);
    }

    /// True when the counter was reset between its last value and its next one.
    fn is_reset(&self) -> bool {
        let (last, next) = (&self.last, &self.next);
        if last.layout == next.layout && self.layouts[last.layout].plain {
            let shrank = |i: usize| next.numbers[i] < last.numbers[i];
            return shrank(0) || shrank(1) || next.buckets.iter().zip(&last.buckets).any(|(n, l)| n < l);
        }
        self.histogram(next).detect_reset(&self.histogram(last))
    }

    /// What follows is another batch.
    pub(super) fn cut(&mut self) {
        self.close();
        self.cut = true;
        self.cuts.push(self.windows.len());
    }

    /// Completes the last window.
    pub(super) fn end(&mut self) {
        self.close();
        self.cut = true;
    }

    fn close(&mut self) {
        let Some(w) = self.windows.last().filter(|w| w.has_numbers && !self.cut) else { return };
        let (last_t, end) = (w.last_t, w.end);
        debug_assert!(last_t <= end);
        let sum = if w.parts.is_some() { w.sum } else { self.put(Which::Sum) };
        let last = self.put(Which::Last);
        let w = self.windows.last_mut().expect("it was there");
        (w.sum, w.last) = (sum, last);
    }

    fn put(&mut self, which: Which) -> Place {
        let at = self.values.len();
        let flat = match which {
            Which::Last => &self.last,
            Which::Next => &self.next,
            Which::Sum => &self.sum,
        };
        self.values.extend_from_slice(&flat.numbers);
        self.values.extend_from_slice(&flat.buckets);
        Place { layout: flat.layout, at }
    }

    fn histogram(&self, flat: &Flat) -> FloatHistogram {
        let mut h = FloatHistogram::default();
        set_layout(&mut h, &self.layouts[flat.layout].layout);
        set_numbers(&mut h, &flat.numbers, &flat.buckets, &self.layouts[flat.layout].layout);
        h
    }

    /// Batches for chunks of about the length that Thanos gives them, each ending with a window.
    pub(super) fn batches_by_size(&self) -> Vec<Batch> {
        if self.samples == 0 {
            return Vec::new();
        }
        let chunks =
            window::chunk_count(self.mint, self.maxt, RAW_INTERVAL_MS, self.resolution_ms, self.samples);
        let size = self.samples / chunks + 1;
        let (mut out, mut from, mut samples) = (Vec::new(), 0, 0);
        for (i, w) in self.windows.iter().enumerate() {
            samples += w.samples;
            if samples >= size || i + 1 == self.windows.len() {
                out.push(self.batch(from, i + 1));
                (from, samples) = (i + 1, 0);
            }
        }
        out
    }

    /// Batches as [`Run::cut`] made them.
    pub(super) fn batches_by_cut(&self) -> Vec<Batch> {
        let mut from = 0;
        let ends = self.cuts.iter().copied().chain([self.windows.len()]);
        ends.map(|to| {
            let batch = self.batch(from, to);
            from = to;
            batch
        })
        .collect()
    }

    fn batch(&self, from: usize, to: usize) -> Batch {
        let numbers = || self.windows[from..to].iter().filter(|w| w.has_numbers);
        Batch {
            from,
            to,
            last_t: numbers().next_back().map_or(i64::MIN, |w| w.last_t),
            schema: numbers().map(|w| w.schema_min).min().unwrap_or_default(),
        }
    }

    /// What is to be added to the sum of window `i`, one after the other.
    pub(super) fn parts(&self, i: usize) -> &[Place] {
        let Some(from) = self.windows[i].parts else { return &[] };
        let next = self.windows[i + 1..].iter().find_map(|w| w.parts);
        &self.parts[from..next.unwrap_or(self.parts.len())]
    }

    /// Copies a histogram to `h`, which has the layout `known` already.
    pub(super) fn load(&self, place: Place, h: &mut FloatHistogram, known: &mut Option<usize>) {
        let layout = &self.layouts[place.layout];
        if *known != Some(place.layout) {
            set_layout(h, &layout.layout);
            *known = Some(place.layout);
        }
        let (numbers, rest) = self.values[place.at..].split_at(3);
        set_numbers(h, numbers, &rest[..layout.buckets], &layout.layout);
    }
}

#[derive(Clone, Copy)]
enum Which {
    Last,
    Next,
    Sum,
}

fn is_custom(layout: &HistogramLayout) -> bool {
    layout.schema == CUSTOM_BUCKETS_SCHEMA
}

fn set_layout(h: &mut FloatHistogram, layout: &HistogramLayout) {
    h.counter_reset = CounterReset::Unknown;
    (h.schema, h.zero_threshold) = (layout.schema, layout.zero_threshold);
    h.positive_spans.clone_from(&layout.spans[0]);
    h.negative_spans.clone_from(&layout.spans[1]);
    h.custom_values.clone_from(&layout.custom_values);
}

fn set_numbers(h: &mut FloatHistogram, numbers: &[f64], buckets: &[f64], layout: &HistogramLayout) {
    (h.count, h.zero_count, h.sum) = (numbers[0], numbers[1], numbers[2]);
    let (positive, negative) = buckets.split_at(layout.bucket_count(0) as usize);
    h.positive_buckets.clear();
    h.positive_buckets.extend_from_slice(positive);
    h.negative_buckets.clear();
    h.negative_buckets.extend_from_slice(negative);
}
