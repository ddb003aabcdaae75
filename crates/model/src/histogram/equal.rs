//! Equality of data: floats by their bits, layouts by what they mean.

use super::layout::Walk;
use super::{FloatHistogram, Histogram, Span};

impl FloatHistogram {
    /// True when both hold the same data: same buckets (empty ones included), floats equal bit by bit. The counter
    /// reset hint is not data.
    pub fn equals(&self, other: &FloatHistogram) -> bool {
        let same_bits = |a: &[f64], b: &[f64]| {
            a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
        };
        self.schema == other.schema
            && self.count.to_bits() == other.count.to_bits()
            && self.sum.to_bits() == other.sum.to_bits()
            && (!self.uses_custom_buckets() || self.custom_values == other.custom_values)
            && self.zero_threshold == other.zero_threshold
            && self.zero_count.to_bits() == other.zero_count.to_bits()
            && same_bits(&self.negative_buckets, &other.negative_buckets)
            && same_bits(&self.positive_buckets, &other.positive_buckets)
            && same_layout(&self.negative_spans, &other.negative_spans)
            && same_layout(&self.positive_spans, &other.positive_spans)
    }
}

impl Histogram {
    /// As [`FloatHistogram::equals`].
    pub fn equals(&self, other: &Histogram) -> bool {
        self.schema == other.schema
            && self.count == other.count
            && self.sum.to_bits() == other.sum.to_bits()
            && (!self.uses_custom_buckets() || self.custom_values == other.custom_values)
            && self.zero_threshold == other.zero_threshold
            && self.zero_count == other.zero_count
            && self.negative_buckets == other.negative_buckets
            && self.positive_buckets == other.positive_buckets
            && same_layout(&self.negative_spans, &other.negative_spans)
            && same_layout(&self.positive_spans, &other.positive_spans)
    }
}

/// True when both spans name the same buckets, cut into spans however.
fn same_layout(a: &[Span], b: &[Span]) -> bool {
    if a == b {
        return true;
    }
    runs(a).eq(runs(b))
}

/// Runs of neighbouring buckets: first index and length.
fn runs(spans: &[Span]) -> impl Iterator<Item = (i64, u64)> + '_ {
    let mut end = 0i64;
    let mut starts = spans
        .iter()
        .map(move |s| {
            let start = end + i64::from(s.offset);
            end = start + i64::from(s.length);
            (start, u64::from(s.length))
        })
        .filter(|(_, length)| *length > 0)
        .peekable();
    std::iter::from_fn(move || {
        let (start, mut length) = starts.next()?;
        while let Some((_, more)) = starts.next_if(|(s, _)| *s == start + length as i64) {
            length += more;
        }
        Some((start, length))
    })
}

impl FloatHistogram {
    /// Buckets of the positive side as `(index, count)`, ascending.
    pub fn positive_counts(&self) -> impl Iterator<Item = (i32, f64)> + '_ {
        Walk::new(&self.positive_spans, &self.positive_buckets)
    }

    /// Buckets of the negative side as `(index, count)`, from the zero bucket downwards.
    pub fn negative_counts(&self) -> impl Iterator<Item = (i32, f64)> + '_ {
        Walk::new(&self.negative_spans, &self.negative_buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        let s =
            |l: &[(i32, u32)]| l.iter().map(|&(offset, length)| Span { offset, length }).collect::<Vec<_>>();
        assert!(same_layout(&s(&[(1, 0), (2, 1)]), &s(&[(3, 1), (5, 0)])));
        assert!(same_layout(&s(&[(1, 2), (0, 1)]), &s(&[(1, 3)])));
        assert!(!same_layout(&s(&[(1, 2), (1, 1)]), &s(&[(1, 3)])));
        assert!(same_layout(&[], &s(&[(9, 0)])));
    }
}
