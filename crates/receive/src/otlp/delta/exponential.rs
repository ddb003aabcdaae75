//! Exponential histograms, dense as OTLP has them, and their sums.
//!
//! Sums have the coarser of both scales. Where a side would become wider than [`BUCKETS_MAX`] buckets, both become coarser
//! until it does not: what a point asks for is bounded, whatever its offset says.

use std::hash::BuildHasher;

use super::super::native::SCALE_MIN;

/// Buckets of one side of a sum: twice what SDKs write at most by default (160), so that two points that differ fit.
const BUCKETS_MAX: i64 = 320;

/// Counts from bucket `offset` on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Side {
    pub(crate) offset: i32,
    pub(crate) counts: Vec<u64>,
}

/// A point, or a sum of points.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Exponential {
    pub(crate) count: u64,
    pub(crate) sum: Option<f64>,
    pub(crate) scale: i32,
    pub(crate) zero_count: u64,
    /// Positive and negative.
    pub(crate) sides: [Side; 2],
}

impl Side {
    /// First bucket and the one behind the last.
    fn range(&self) -> Option<(i64, i64)> {
        let first = i64::from(self.offset);
        (!self.counts.is_empty()).then(|| (first, first + self.counts.len() as i64))
    }

    /// Merges 2^`by` buckets into one.
    fn coarsen(&mut self, by: u32) {
        let by = by.min(32);
        let Some((first, end)) = self.range().filter(|_| by > 0) else { return };
        let (new_first, new_end) = (first >> by, ((end - 1) >> by) + 1);
        let mut counts = vec![0u64; (new_end - new_first) as usize];
        for (at, count) in (first..).zip(&self.counts) {
            let slot = &mut counts[((at >> by) - new_first) as usize];
            *slot = slot.wrapping_add(*count);
        }
        (self.offset, self.counts) = (new_first as i32, counts);
    }

    /// Adds buckets of the same scale.
    fn add(&mut self, other: &Side) {
        let Some((first, end)) = self.joined(other) else { return };
        let mut counts = vec![0u64; (end - first) as usize];
        for side in [&*self, other] {
            for (at, count) in (i64::from(side.offset)..).zip(&side.counts) {
                let slot = &mut counts[(at - first) as usize];
                *slot = slot.wrapping_add(*count);
            }
        }
        (self.offset, self.counts) = (first as i32, counts);
    }

    /// The range of both.
    fn joined(&self, other: &Side) -> Option<(i64, i64)> {
        match (self.range(), other.range()) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        }
    }
}

impl Exponential {
    /// Adds a point.
    ///
    /// # Errors
    /// When its buckets lie too far from those of the sum.
    pub(super) fn add(&mut self, point: &Exponential) -> Result<(), String> {
        let mut scale = self.scale.min(point.scale);
        while self.width(point, scale) > BUCKETS_MAX {
            if scale <= SCALE_MIN {
                return Err("buckets of delta points lie too far from each other".to_owned());
            }
            scale -= 1;
        }
        let (own, others) = (coarser_by(self.scale, scale), coarser_by(point.scale, scale));
        for (total, side) in self.sides.iter_mut().zip(&point.sides) {
            let mut side = side.clone();
            side.coarsen(others);
            total.coarsen(own);
            total.add(&side);
        }
        self.scale = scale;
        self.count = self.count.wrapping_add(point.count);
        self.zero_count = self.zero_count.wrapping_add(point.zero_count);
        self.sum = self.sum.zip(point.sum).map(|(a, b)| a + b);
        Ok(())
    }

    /// Buckets of the wider side of both together at this scale.
    fn width(&self, point: &Exponential, scale: i32) -> i64 {
        let at = |side: &Side, by: u32| side.range().map(|(first, end)| (first >> by, ((end - 1) >> by) + 1));
        let (own, others) = (coarser_by(self.scale, scale), coarser_by(point.scale, scale));
        let sides = self.sides.iter().zip(&point.sides);
        let widths = sides.map(|(a, b)| match (at(a, own), at(b, others)) {
            (Some(a), Some(b)) => a.1.max(b.1) - a.0.min(b.0),
            (a, b) => a.or(b).map_or(0, |(first, end)| end - first),
        });
        widths.max().unwrap_or(0)
    }

    /// Tells points apart.
    pub(super) fn content_hash(&self, hasher: &impl BuildHasher) -> u64 {
        let Exponential { count, sum, scale, zero_count, sides } = self;
        hasher.hash_one((count, sum.map(f64::to_bits), scale, zero_count, sides))
    }
}

/// By how many powers of two buckets of scale `of` are merged at scale `to`. Beyond 32 all of a sign are one.
fn coarser_by(of: i32, to: i32) -> u32 {
    (i64::from(of) - i64::from(to)).clamp(0, 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(scale: i32, offset: i32, counts: &[u64]) -> Exponential {
        let side = Side { offset, counts: counts.to_vec() };
        let count = counts.iter().fold(0u64, |a, b| a.wrapping_add(*b));
        Exponential { count, sum: Some(1.0), scale, zero_count: 1, sides: [side, Side::default()] }
    }

    #[test]
    fn sums_have_the_coarser_scale() {
        let mut total = point(1, -3, &[1, 2, 3, 4, 5]);
        total.add(&point(0, 1, &[10, 20])).unwrap();
        // Indices -3..2 of scale 1 are -2, -1, -1, 0, 0 of scale 0.
        let want = Side { offset: -2, counts: vec![1, 5, 9, 10, 20] };
        assert_eq!((total.scale, total.count, total.zero_count, total.sum), (0, 45, 2, Some(2.0)));
        assert_eq!(total.sides[0], want);
        total.add(&point(5, 0, &[])).unwrap();
        assert_eq!((total.scale, &total.sides[0]), (0, &want));
        let mut empty = point(3, 0, &[]);
        empty.add(&point(3, 7, &[1])).unwrap();
        assert_eq!(empty.sides[0], Side { offset: 7, counts: vec![1] });
    }

    #[test]
    fn width_is_bounded_whatever_offsets_say() {
        let mut total = point(3, 0, &[1]);
        total.add(&point(3, 10_000, &[1])).unwrap();
        assert_eq!((total.scale, total.sides[0].counts.len()), (-2, 313));
        let before = total.clone();
        let far = point(3, i32::MAX - 1, &[1]);
        assert!(total.add(&far).unwrap_err().contains("too far"));
        assert_eq!(total, before, "what is refused changes nothing");
        let mut least = point(3, i32::MIN, &[1]);
        assert!(least.add(&point(3, i32::MAX, &[1])).is_err());
        least.add(&point(i32::MAX, i32::MIN, &[1])).unwrap_err();
    }
}
