//! Removing empty buckets, and lowering the resolution.

use super::layout::{Rebuild, Walk, absolute, reduce, to_deltas};
use super::{FloatHistogram, Histogram, HistogramError, Span, is_exponential_schema};

impl FloatHistogram {
    /// Removes empty buckets at the ends of spans, joins spans that are at most `empty_max` buckets apart (filling in
    /// empty ones), and splits spans with more than `empty_max` empty buckets in a row.
    pub fn compact(&mut self, empty_max: i32) -> &mut Self {
        compact_side(&mut self.positive_spans, &mut self.positive_buckets, None, empty_max);
        compact_side(&mut self.negative_spans, &mut self.negative_buckets, None, empty_max);
        self
    }

    /// A copy in the coarser schema `target`; a plain copy when it is the histogram's own. The counter reset hint of
    /// a coarser copy is unknown.
    pub fn copy_to_schema(&self, target: i32) -> Result<FloatHistogram, HistogramError> {
        if target == self.schema {
            return Ok(self.clone());
        }
        let mut h = FloatHistogram { counter_reset: super::CounterReset::Unknown, ..self.clone() };
        h.reduce_resolution(target)?;
        Ok(h)
    }

    /// Merges buckets into the coarser schema `target`.
    pub fn reduce_resolution(&mut self, target: i32) -> Result<(), HistogramError> {
        check_reduce(self.schema, target)?;
        (self.positive_spans, self.positive_buckets) =
            reduce(&self.positive_spans, &self.positive_buckets, self.schema, target);
        (self.negative_spans, self.negative_buckets) =
            reduce(&self.negative_spans, &self.negative_buckets, self.schema, target);
        self.schema = target;
        Ok(())
    }
}

impl Histogram {
    /// As [`FloatHistogram::compact`].
    pub fn compact(&mut self, empty_max: i32) -> &mut Self {
        for (spans, buckets) in [
            (&mut self.positive_spans, &mut self.positive_buckets),
            (&mut self.negative_spans, &mut self.negative_buckets),
        ] {
            let mut counts: Vec<i64> = absolute(buckets).collect();
            compact_side(spans, &mut counts, None, empty_max);
            to_deltas(&mut counts);
            *buckets = counts;
        }
        self
    }

    /// Merges buckets into the coarser schema `target`.
    pub fn reduce_resolution(&mut self, target: i32) -> Result<(), HistogramError> {
        check_reduce(self.schema, target)?;
        for (spans, buckets) in [
            (&mut self.positive_spans, &mut self.positive_buckets),
            (&mut self.negative_spans, &mut self.negative_buckets),
        ] {
            let counts: Vec<i64> = absolute(buckets).collect();
            let mut out = Rebuild::default();
            let mut merged: Vec<i64> = Vec::with_capacity(counts.len());
            let mut last = None;
            for (index, count) in Walk::new(spans, &counts) {
                let index = super::layout::index_in(index, self.schema, target);
                match merged.last_mut() {
                    Some(sum) if last == Some(index) => *sum = sum.wrapping_add(count),
                    _ => {
                        out.push(index);
                        merged.push(count);
                        last = Some(index);
                    }
                }
            }
            to_deltas(&mut merged);
            *spans = out.spans;
            *buckets = merged;
        }
        self.schema = target;
        Ok(())
    }
}

fn check_reduce(from: i32, to: i32) -> Result<(), HistogramError> {
    let reserved = super::EXPONENTIAL_SCHEMA_MIN_RESERVED..=super::EXPONENTIAL_SCHEMA_MAX_RESERVED;
    if to < from && is_exponential_schema(to) && reserved.contains(&from) {
        Ok(())
    } else {
        Err(HistogramError::CannotReduce { from, to })
    }
}

/// Compacts one side; a bucket with a compensation term counts as populated, and the terms move along.
pub(super) fn compact_side<T: Copy + Default + PartialEq>(
    spans: &mut Vec<Span>,
    buckets: &mut Vec<T>,
    compensation: Option<&mut Vec<f64>>,
    empty_max: i32,
) {
    let empty = T::default();
    let tidy = spans.iter().skip(1).all(|s| s.offset > empty_max) && spans.iter().all(|s| s.length > 0);
    if tidy && buckets.iter().all(|b| *b != empty) {
        return;
    }
    let terms = compensation.as_deref().map_or(&[][..], |c| &c[..]);
    let mut out = Rebuild::default();
    let mut counts = Vec::with_capacity(buckets.len());
    let mut new_terms = Vec::with_capacity(terms.len());
    let mut last: Option<i32> = None;
    let mut walk = Walk::new(spans, buckets);
    while let Some((at, index, count)) = walk.next_at() {
        let term = terms.get(at).copied().unwrap_or(0.0);
        if count == empty && term == 0.0 {
            continue;
        }
        if let Some(last) = last {
            let gap = i64::from(index) - i64::from(last) - 1;
            if 0 < gap && gap <= i64::from(empty_max) {
                for filler in last + 1..index {
                    out.push(filler);
                }
                counts.resize(counts.len() + gap as usize, empty);
                new_terms.resize(counts.len(), 0.0);
            }
        }
        out.push(index);
        counts.push(count);
        new_terms.push(term);
        last = Some(index);
    }
    *spans = out.spans;
    *buckets = counts;
    if let Some(compensation) = compensation {
        *compensation = new_terms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compaction() {
        type Case = (&'static [(i32, u32)], &'static [i64], i32, &'static [(i32, u32)], &'static [i64]);
        let table: [Case; 9] = [
            (&[(0, 3)], &[1, 2, 3], 0, &[(0, 3)], &[1, 2, 3]),
            (&[(0, 3)], &[0, 2, 0], 0, &[(1, 1)], &[2]),
            (&[(0, 4)], &[1, 0, 0, 2], 0, &[(0, 1), (2, 1)], &[1, 2]),
            (&[(0, 4)], &[1, 0, 0, 2], 1, &[(0, 1), (2, 1)], &[1, 2]),
            (&[(0, 4)], &[1, 0, 0, 2], 2, &[(0, 4)], &[1, 0, 0, 2]),
            (&[(-5, 1), (2, 2)], &[1, 3, 4], 2, &[(-5, 5)], &[1, 0, 0, 3, 4]),
            (&[(0, 1), (0, 0), (0, 1)], &[1, 2], 0, &[(0, 2)], &[1, 2]),
            (&[(0, 1), (1, 2)], &[1, 0, 2], 1, &[(0, 1), (2, 1)], &[1, 2]),
            (&[(3, 2)], &[0, 0], 0, &[], &[]),
        ];
        let to_spans =
            |s: &[(i32, u32)]| s.iter().map(|&(offset, length)| Span { offset, length }).collect::<Vec<_>>();
        for (spans, counts, empty_max, want_spans, want) in table {
            let (mut s, mut c) = (to_spans(spans), counts.to_vec());
            compact_side(&mut s, &mut c, None, empty_max);
            assert_eq!((s, &c[..]), (to_spans(want_spans), want), "{spans:?} {counts:?} {empty_max}");
        }
    }

    #[test]
    fn integer_and_float_reduction_agree() {
        let h = Histogram {
            schema: 2,
            positive_spans: vec![Span { offset: -3, length: 4 }, Span { offset: 3, length: 3 }],
            positive_buckets: vec![1, 2, -1, 0, 5, -6, 2],
            ..Histogram::default()
        };
        for target in [1, 0, -1, -4] {
            let mut reduced = h.clone();
            reduced.reduce_resolution(target).unwrap();
            assert_eq!(reduced.to_float(), h.to_float().copy_to_schema(target).unwrap());
            assert_eq!(reduced.to_float().positive_buckets.iter().sum::<f64>(), 19.0);
        }
        assert!(h.clone().reduce_resolution(2).is_err() && h.clone().reduce_resolution(-53).is_err());
    }
}
