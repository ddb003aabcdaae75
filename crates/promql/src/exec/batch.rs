//! Columns of values: rows of series over the steps of a grid.
//!
//! ```text
//! values   [s0t0 s0t1 … | s1t0 s1t1 … | …]   rows × steps
//! present  [bits of s0  | bits of s1  | …]   rows × words, a set bit is a point
//! hists    per row: none, or per step an optional histogram that stands instead of the float
//! ```
//!
//! A batch knows what it is charged for in the query's [`Budget`] and gives it back when it is dropped.

mod budget;
mod grid;
mod row;

use std::sync::Arc;

use chronolith_model::{FloatHistogram, Labels};

use crate::engine::EngineError;
use budget::Charge;
pub(crate) use budget::{Budget, Held};
pub(crate) use grid::Grid;
pub(crate) use row::{Row, RowMut, each_bit, each_run};

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

/// What a histogram counts for in the budget: its size in floats, roughly.
pub(crate) fn histogram_weight(h: &FloatHistogram) -> usize {
    let spans = h.positive_spans.len() + h.negative_spans.len();
    let buckets = h.positive_buckets.len() + h.negative_buckets.len() + h.custom_values.len();
    // As upstream: the struct's own 160 bytes and the slices, over a float point's 16 bytes.
    (168 + 8 * spans + 8 * buckets) / 16
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
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::memory::QueryMemory;

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
