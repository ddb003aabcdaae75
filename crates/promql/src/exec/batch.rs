//! Columns of values: rows of series over the steps of a grid.
//!
//! ```text
//! values   [s0t0 s0t1 … | s1t0 s1t1 … | …]   rows × steps
//! present  [bits of s0  | bits of s1  | …]   rows × words, a set bit is a point
//! hists    per row: none, or per step an optional histogram that stands instead of the float
//! ```
//!
//! A batch knows what it is charged for in the query's [`Budget`] and gives it back when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chronolith_model::{FloatHistogram, Labels};

use crate::engine::EngineError;
use crate::exec::profile::Profile;
use crate::memory::{MemoryUse, QueryMemory};

/// Evaluation times: `count` of them, `step` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) start: i64,
    pub(crate) step: i64,
    pub(crate) count: usize,
    /// Where the range ends, on a step or after the last one.
    pub(crate) end: i64,
}

impl Grid {
    /// The times from `start` to at most `end`.
    pub(crate) fn new(start: i64, end: i64, step: i64) -> Self {
        let step = step.max(1);
        let count = if end < start { 0 } else { (end.saturating_sub(start) / step) as usize + 1 };
        Grid { start, step, count, end }
    }

    #[inline(always)]
    pub(crate) fn t(&self, i: usize) -> i64 {
        self.start + self.step * i as i64
    }

    pub(crate) fn last(&self) -> i64 {
        self.t(self.count.saturating_sub(1))
    }

    /// The first time alone.
    pub(crate) fn first(&self) -> Grid {
        Grid { count: self.count.min(1), end: self.start, ..*self }
    }

    /// The evaluation of a range rather than at one time, even if the range has room for one step only.
    pub(crate) fn is_range(&self) -> bool {
        self.start != self.end
    }
}

/// Samples and memory that the query holds, and may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    max: usize,
    held: AtomicUsize,
    peak: AtomicUsize,
    pub(crate) memory: Arc<QueryMemory>,
    pub(crate) profile: Option<Arc<Profile>>,
}

impl Budget {
    pub(crate) fn new(max: usize, memory: Arc<QueryMemory>, profile: Option<Arc<Profile>>) -> Arc<Self> {
        Arc::new(Budget { max, held: AtomicUsize::new(0), peak: AtomicUsize::new(0), memory, profile })
    }

    /// Takes bytes on behalf of a node.
    pub(crate) fn take_bytes(&self, what: MemoryUse, node: u32, bytes: usize) -> Result<(), EngineError> {
        self.memory.take(what, bytes)?;
        if let Some(profile) = &self.profile {
            profile.hold(node, bytes);
        }
        Ok(())
    }

    pub(crate) fn give_bytes(&self, what: MemoryUse, node: u32, bytes: usize) {
        self.memory.give_back(what, bytes);
        if let Some(profile) = &self.profile {
            profile.let_go(node, bytes);
        }
    }

    /// Takes `n`; on refusal nothing is taken.
    pub(crate) fn take(&self, n: usize) -> Result<(), EngineError> {
        let held = self.held.fetch_add(n, Ordering::Relaxed) + n;
        if held > self.max {
            self.give_back(n);
            return Err(EngineError::TooManySamples);
        }
        self.peak.fetch_max(held, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn give_back(&self, n: usize) {
        self.held.fetch_sub(n, Ordering::Relaxed);
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

/// Memory that an operator holds until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    what: MemoryUse,
    node: u32,
    bytes: usize,
}

impl Held {
    pub(crate) fn new(budget: &Arc<Budget>, what: MemoryUse, node: u32) -> Self {
        Held { budget: Arc::clone(budget), what, node, bytes: 0 }
    }

    /// Holds at least so many bytes.
    pub(crate) fn at_least(&mut self, bytes: usize) -> Result<(), EngineError> {
        if bytes > self.bytes { self.more(bytes - self.bytes) } else { Ok(()) }
    }

    /// Holds so many bytes more.
    pub(crate) fn more(&mut self, bytes: usize) -> Result<(), EngineError> {
        self.budget.take_bytes(self.what, self.node, bytes)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.give_bytes(self.what, self.node, self.bytes);
    }
}

/// What a histogram counts for in the budget: its size in floats, roughly.
pub(crate) fn histogram_weight(h: &FloatHistogram) -> usize {
    let spans = h.positive_spans.len() + h.negative_spans.len();
    let buckets = h.positive_buckets.len() + h.negative_buckets.len() + h.custom_values.len();
    // As upstream: the struct's own 160 bytes and the slices, over a float point's 16 bytes.
    (168 + 8 * spans + 8 * buckets) / 16
}

/// The histograms of a row, by step.
pub(crate) type HistogramRow = Vec<Option<Arc<FloatHistogram>>>;

/// What the labels of a row take.
pub(crate) fn label_bytes(labels: &Labels) -> usize {
    labels.encoded_len() + LABELS_BYTES
}

/// The handle and the counts of a label set.
const LABELS_BYTES: usize = 32;
/// Values that a row's labels weigh like, when growth is watched.
const LABEL_VALUES: usize = 16;
/// Values by which a batch may grow before it is charged.
const CHARGE_VALUES: usize = 64 * 1024;

/// Rows of series over the steps of a grid.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    steps: usize,
    words: usize,
    labels: Vec<Labels>,
    drop_name: Vec<bool>,
    values: Vec<f64>,
    present: Vec<u64>,
    /// Empty when no row has histograms.
    hists: Vec<Option<HistogramRow>>,
    charge: Charge,
    /// Values from which on [`Batch::charge_grown`] looks again.
    charge_at: usize,
}

/// What a batch is charged for, given back when it is dropped.
#[derive(Debug, Default)]
struct Charge {
    samples: usize,
    bytes: usize,
    node: u32,
    budget: Option<Arc<Budget>>,
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.give_back(self.samples);
            budget.give_bytes(MemoryUse::Vectors, self.node, self.bytes);
            if let Some(profile) = &budget.profile {
                profile.let_go_samples(self.node, self.samples);
            }
        }
    }
}

impl Charge {
    /// Charges for this now, instead of what was charged before.
    fn set(
        &mut self,
        budget: &Arc<Budget>,
        node: u32,
        samples: usize,
        bytes: usize,
    ) -> Result<(), EngineError> {
        // Who has a batch pays for it: an operator that changes batches in place takes them over.
        if self.node != node || self.budget.is_none() {
            *self = Charge { node, budget: Some(Arc::clone(budget)), ..Charge::default() };
        }
        let profile = budget.profile.as_ref();
        if samples > self.samples {
            let more = samples - self.samples;
            budget.take(more)?;
            if let Some(profile) = profile {
                profile.hold_samples(node, more);
            }
        } else {
            budget.give_back(self.samples - samples);
            if let Some(profile) = profile {
                profile.let_go_samples(node, self.samples - samples);
            }
        }
        self.samples = samples;
        if bytes > self.bytes {
            budget.take_bytes(MemoryUse::Vectors, node, bytes - self.bytes)?;
        } else {
            budget.give_bytes(MemoryUse::Vectors, node, self.bytes - bytes);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Adds another one, so that each is given back with its node's: the smaller one changes hands.
    fn append(&mut self, mut other: Charge) {
        let Some(budget) = other.budget.take() else { return };
        if self.budget.is_none() {
            self.node = other.node;
        } else if self.node != other.node
            && let Some(profile) = &budget.profile
        {
            profile.let_go(other.node, other.bytes);
            profile.let_go_samples(other.node, other.samples);
            profile.hold(self.node, other.bytes);
            profile.hold_samples(self.node, other.samples);
        }
        self.budget.get_or_insert(budget);
        self.samples += std::mem::take(&mut other.samples);
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

/// A row of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) drop_name: bool,
    pub(crate) values: &'a [f64],
    pub(crate) present: &'a [u64],
    pub(crate) hists: Option<&'a HistogramRow>,
}

impl<'a> Row<'a> {
    #[inline(always)]
    pub(crate) fn has(&self, i: usize) -> bool {
        bit(self.present, i)
    }

    #[inline(always)]
    pub(crate) fn histogram(&self, i: usize) -> Option<&'a Arc<FloatHistogram>> {
        self.hists.and_then(|h| h[i].as_ref())
    }

    /// Calls `f` for each step with a point.
    #[inline(always)]
    pub(crate) fn each(&self, mut f: impl FnMut(usize, f64, Option<&'a Arc<FloatHistogram>>)) {
        each_bit(self.present, |i| f(i, self.values[i], self.histogram(i)));
    }

    pub(crate) fn point_count(&self) -> usize {
        self.present.iter().map(|w| w.count_ones() as usize).sum()
    }
}

/// A row that is being written.
#[derive(Debug)]
pub(crate) struct RowMut<'a> {
    values: &'a mut [f64],
    present: &'a mut [u64],
    hists: &'a mut Option<HistogramRow>,
}

impl RowMut<'_> {
    #[inline(always)]
    pub(crate) fn set(&mut self, i: usize, v: f64) {
        self.values[i] = v;
        self.present[i / 64] |= 1 << (i % 64);
    }

    /// Makes the floats of the set bits points, and gives all values to be written.
    pub(crate) fn fill(&mut self, present: &[u64]) -> &mut [f64] {
        self.present.copy_from_slice(present);
        self.values
    }

    pub(crate) fn set_histogram(&mut self, i: usize, h: Arc<FloatHistogram>) {
        let steps = self.values.len();
        self.hists.get_or_insert_with(|| vec![None; steps])[i] = Some(h);
        self.present[i / 64] |= 1 << (i % 64);
    }

    /// Copies the point of another row, if it has one.
    pub(crate) fn copy(&mut self, i: usize, from: &Row<'_>) {
        if from.has(i) {
            match from.histogram(i) {
                Some(h) => self.set_histogram(i, Arc::clone(h)),
                None => self.set(i, from.values[i]),
            }
        }
    }

    /// Copies the points of another row where `mask` has a bit.
    pub(crate) fn copy_masked(&mut self, from: &Row<'_>, mask: impl Fn(usize) -> u64) {
        for w in 0..self.present.len() {
            self.present[w] = from.present[w] & mask(w);
        }
        self.values.copy_from_slice(from.values);
        if let Some(hists) = from.hists {
            *self.hists = Some(hists.clone());
        }
    }

    pub(crate) fn has(&self, i: usize) -> bool {
        bit(self.present, i)
    }
}

#[inline(always)]
pub(crate) fn bit(words: &[u64], i: usize) -> bool {
    words[i / 64] >> (i % 64) & 1 == 1
}

#[inline(always)]
pub(crate) fn each_bit(words: &[u64], mut f: impl FnMut(usize)) {
    for (w, &word) in words.iter().enumerate() {
        if word == u64::MAX {
            for i in w * 64..w * 64 + 64 {
                f(i);
            }
            continue;
        }
        let mut rest = word;
        while rest != 0 {
            f(w * 64 + rest.trailing_zeros() as usize);
            rest &= rest - 1;
        }
    }
}

/// Calls `f` with each run of set bits, from the first to behind the last.
#[inline(always)]
pub(crate) fn each_run(words: &[u64], mut f: impl FnMut(usize, usize)) {
    let (mut from, mut to) = (0, 0);
    for (w, &word) in words.iter().enumerate() {
        let mut rest = word;
        let mut at = w * 64;
        while rest != 0 {
            let skip = rest.trailing_zeros();
            rest >>= skip;
            at += skip as usize;
            let ones = rest.trailing_ones();
            if at > to {
                if from < to {
                    f(from, to);
                }
                from = at;
            }
            at += ones as usize;
            to = at;
            rest = rest.checked_shr(ones).unwrap_or(0);
        }
    }
    if from < to {
        f(from, to);
    }
}

impl Batch {
    pub(crate) fn new(steps: usize) -> Self {
        Batch { steps, words: steps.div_ceil(64), ..Batch::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    pub(crate) fn row(&self, i: usize) -> Row<'_> {
        Row {
            labels: &self.labels[i],
            drop_name: self.drop_name[i],
            values: &self.values[i * self.steps..(i + 1) * self.steps],
            present: &self.present[i * self.words..(i + 1) * self.words],
            hists: self.hists.get(i).and_then(Option::as_ref),
        }
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.len()).map(|i| self.row(i))
    }

    /// Appends a row that `write` fills; a row without a point is left out. Returns whether it was kept.
    pub(crate) fn push(
        &mut self,
        labels: impl FnOnce() -> Labels,
        drop_name: bool,
        write: impl FnOnce(&mut RowMut<'_>),
    ) -> bool {
        let (v, p) = (self.values.len(), self.present.len());
        self.values.resize(v + self.steps, 0.0);
        self.present.resize(p + self.words, 0);
        let mut hists = None;
        write(&mut RowMut {
            values: &mut self.values[v..],
            present: &mut self.present[p..],
            hists: &mut hists,
        });
        if self.present[p..].iter().all(|w| *w == 0) {
            self.values.truncate(v);
            self.present.truncate(p);
            return false;
        }
        if hists.is_some() && self.hists.is_empty() {
            self.hists.resize_with(self.labels.len(), || None);
        }
        if hists.is_some() || !self.hists.is_empty() {
            self.hists.push(hists);
        }
        self.labels.push(labels());
        self.drop_name.push(drop_name);
        true
    }

    pub(crate) fn set_labels(&mut self, i: usize, labels: Labels) {
        self.labels[i] = labels;
    }

    pub(crate) fn labels(&self, i: usize) -> &Labels {
        &self.labels[i]
    }

    pub(crate) fn drop_name(&self, i: usize) -> bool {
        self.drop_name[i]
    }

    pub(crate) fn set_drop_name(&mut self, i: usize, drop: bool) {
        self.drop_name[i] = drop;
    }

    /// Maps the float points in place; histogram points go. Rows may become empty, see [`Batch::compact`].
    pub(crate) fn map_floats(&mut self, mut f: impl FnMut(usize, f64) -> f64) {
        self.remove_histograms();
        let steps = self.steps;
        for row in self.values.chunks_mut(steps.max(1)) {
            for (i, v) in row.iter_mut().enumerate() {
                // Values of absent points are computed along: a branch would cost more.
                *v = f(i, *v);
            }
        }
    }

    /// Makes histogram points absent.
    pub(crate) fn remove_histograms(&mut self) {
        for (r, hists) in std::mem::take(&mut self.hists).into_iter().enumerate() {
            for (i, h) in hists.iter().flatten().enumerate() {
                if h.is_some() {
                    self.present[r * self.words + i / 64] &= !(1 << (i % 64));
                }
            }
        }
        self.compact();
    }

    /// True when some row may have histograms.
    pub(crate) fn has_histograms(&self) -> bool {
        !self.hists.is_empty()
    }

    /// Replaces histogram points by floats.
    pub(crate) fn histograms_to_floats(&mut self, f: impl Fn(usize, &FloatHistogram) -> f64) {
        for (r, hists) in std::mem::take(&mut self.hists).into_iter().enumerate() {
            for (i, h) in hists.iter().flatten().enumerate() {
                if let Some(h) = h {
                    self.values[r * self.steps + i] = f(i, h);
                }
            }
        }
    }

    /// Replaces histogram points by a number of each; float points go.
    pub(crate) fn keep_histograms_as(&mut self, f: impl Fn(&FloatHistogram) -> f64) {
        for r in 0..self.len() {
            for i in 0..self.steps {
                if self.hists.get(r).is_none_or(|h| h.as_ref().is_none_or(|h| h[i].is_none())) {
                    self.present[r * self.words + i / 64] &= !(1 << (i % 64));
                }
            }
        }
        self.histograms_to_floats(|_, h| f(h));
        self.compact();
    }

    /// Makes points absent at steps for which `keep` says no.
    pub(crate) fn retain_steps(&mut self, keep: impl Fn(usize) -> bool) {
        let gone: Vec<usize> = (0..self.steps).filter(|i| !keep(*i)).collect();
        if gone.is_empty() {
            return;
        }
        for r in 0..self.len() {
            for i in &gone {
                self.present[r * self.words + i / 64] &= !(1 << (i % 64));
            }
        }
        self.compact();
    }

    /// Removes rows without points.
    pub(crate) fn compact(&mut self) {
        let words = self.words;
        let kept: Vec<usize> = (0..self.len())
            .filter(|r| self.present[r * words..(r + 1) * words].iter().any(|w| *w != 0))
            .collect();
        if kept.len() < self.len() {
            self.select(&kept);
        }
    }

    /// Keeps these rows, in this order.
    pub(crate) fn select(&mut self, rows: &[usize]) {
        let mut out = Batch::new(self.steps);
        for &r in rows {
            out.values.extend_from_slice(&self.values[r * self.steps..(r + 1) * self.steps]);
            out.present.extend_from_slice(&self.present[r * self.words..(r + 1) * self.words]);
            out.labels.push(self.labels[r].clone());
            out.drop_name.push(self.drop_name[r]);
            if !self.hists.is_empty() {
                out.hists.push(self.hists[r].take());
            }
        }
        out.charge = std::mem::take(&mut self.charge);
        *self = out;
    }

    /// Histograms of a row, to change in place.
    pub(crate) fn histograms_mut(&mut self, i: usize) -> Option<&mut HistogramRow> {
        self.hists.get_mut(i).and_then(Option::as_mut)
    }

    pub(crate) fn values_mut(&mut self, i: usize) -> &mut [f64] {
        &mut self.values[i * self.steps..(i + 1) * self.steps]
    }

    /// Moves all rows of `other` to the end.
    pub(crate) fn append(&mut self, mut other: Batch) {
        debug_assert_eq!(self.steps, other.steps, "batches of one grid");
        if self.is_empty() && self.charge.budget.is_none() {
            *self = other;
            return;
        }
        if !other.hists.is_empty() || !self.hists.is_empty() {
            self.hists.resize_with(self.labels.len(), || None);
            other.hists.resize_with(other.labels.len(), || None);
            self.hists.append(&mut other.hists);
        }
        self.labels.append(&mut other.labels);
        self.drop_name.append(&mut other.drop_name);
        self.values.append(&mut other.values);
        self.present.append(&mut other.present);
        self.charge.append(std::mem::take(&mut other.charge));
    }

    /// What the batch counts for in the budget: its points, histograms by their weight.
    pub(crate) fn weight(&self) -> usize {
        self.weigh().0
    }

    /// The weight, and bytes. Labels count in full, though clones of them may be around.
    fn weigh(&self) -> (usize, usize) {
        let mut points: usize = self.present.iter().map(|w| w.count_ones() as usize).sum();
        let mut bytes = (self.values.len() + self.present.len()) * 8;
        for row in self.hists.iter().flatten() {
            bytes += row.len() * 8;
            for h in row.iter().flatten() {
                let weight = histogram_weight(h);
                points += weight - 1;
                bytes += weight * 16;
            }
        }
        bytes += self.labels.iter().map(|l| label_bytes(l) + 1).sum::<usize>();
        (points, bytes)
    }

    /// Bytes that the batch holds.
    pub(crate) fn bytes(&self) -> usize {
        self.weigh().1
    }

    /// Charges the budget, on behalf of a node, for what the batch holds now.
    pub(crate) fn charge(&mut self, budget: &Arc<Budget>, node: u32) -> Result<(), EngineError> {
        let (samples, bytes) = self.weigh();
        self.charge.set(budget, node, samples, bytes)
    }

    /// [`Batch::charge`] for a batch that grows without being handed on: charges when there is a quarter more in it.
    pub(crate) fn charge_grown(&mut self, budget: &Arc<Budget>, node: u32) -> Result<(), EngineError> {
        let size = self.values.len() + self.labels.len() * LABEL_VALUES;
        if size < self.charge_at {
            return Ok(());
        }
        self.charge_at = size + size / 4 + CHARGE_VALUES;
        self.charge(budget, node)
    }

    /// Bytes of the charge and the budget, to charge for a copy.
    pub(crate) fn charged(&self) -> Option<(&Arc<Budget>, u32)> {
        self.charge.budget.as_ref().map(|budget| (budget, self.charge.node))
    }

    /// Repeats a batch of one step over `steps`.
    pub(crate) fn broadcast(&self, steps: usize) -> Batch {
        let mut out = Batch::new(steps);
        for row in self.rows() {
            out.push(
                || row.labels.clone(),
                row.drop_name,
                |to| {
                    for i in 0..steps {
                        match row.histogram(0) {
                            Some(h) => to.set_histogram(i, Arc::clone(h)),
                            None => to.set(i, row.values[0]),
                        }
                    }
                },
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_what_bits_are() {
        for words in [
            vec![],
            vec![0],
            vec![u64::MAX, u64::MAX, 0xfff],
            vec![1, 1 << 63, 1, 0, 0b1011 << 60],
            vec![0x8000_0000_0000_0001, 0x8000_0000_0000_0001],
            vec![0x1234_5678_9abc_def0, 0xf0f0_ffff_0001_8001],
        ] {
            let (mut bits, mut runs, mut ends) = (Vec::new(), Vec::new(), Vec::new());
            each_bit(&words, |i| bits.push(i));
            each_run(&words, |from, to| {
                runs.extend(from..to);
                ends.push((from, to));
            });
            assert_eq!(bits, runs);
            assert!(ends.windows(2).all(|w| w[0].1 < w[1].0), "{ends:?}");
        }
    }

    #[test]
    fn rows_without_points_are_left_out_and_budgets_balance() {
        let budget = Budget::new(3, QueryMemory::unlimited(), None);
        let mut batch = Batch::new(70);
        assert!(!batch.push(Labels::empty, false, |_| {}));
        assert!(batch.push(Labels::empty, false, |row| {
            row.set(0, 1.0);
            row.set(69, 2.0);
        }));
        batch.charge(&budget, 0).unwrap();
        assert!(batch.push(Labels::empty, false, |row| (0..2).for_each(|i| row.set(i, 0.0))));
        assert!(matches!(batch.charge(&budget, 0), Err(EngineError::TooManySamples)));
        let mut seen = Vec::new();
        batch.row(0).each(|i, v, _| seen.push((i, v)));
        assert_eq!(seen, [(0, 1.0), (69, 2.0)]);
        drop(batch);
        assert_eq!((budget.held.load(Ordering::Relaxed), budget.peak()), (0, 2));
        assert_eq!(budget.memory.held(), 0);
        assert!(budget.memory.peak() > 70 * 8);
    }
}
