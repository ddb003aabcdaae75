//! One tenant's totals: by series, what has come so far.

use std::hash::{BuildHasher, Hash};
use std::time::Instant;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::exponential::Exponential;
use super::{SERIES_MAX, STALE_AFTER};

/// What is added up.
#[derive(Clone, Debug, PartialEq)]
enum Sum {
    Number(f64),
    Explicit(Box<Explicit>),
    Exponential(Box<Exponential>),
}

/// Counts of an explicit-bucket histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Explicit {
    pub(crate) count: u64,
    pub(crate) sum: Option<f64>,
    pub(crate) counts: Vec<u64>,
    pub(crate) bounds: Vec<f64>,
}

/// A series' total. Times are nanoseconds.
#[derive(Clone, Debug)]
struct Total {
    sum: Sum,
    start: u64,
    last: u64,
    /// Hash of the last point.
    point: u64,
    seen: Instant,
}

/// Totals by the key of the series' labels.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    // Keys are keyed hashes already.
    by_key: HashMap<u128, Total, FxBuildHasher>,
}

/// Start and time of a point, in nanoseconds.
pub(crate) type Span = (u64, u64);

impl Totals {
    /// Series that are added up.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Forgets what got no point for long.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.by_key.retain(|_, total| now.saturating_duration_since(total.seen) < STALE_AFTER);
        if self.by_key.len() * 4 < self.by_key.capacity() {
            self.by_key.shrink_to_fit();
        }
    }

    /// Forgets a series: its sender says that there is no value.
    pub(crate) fn forget(&mut self, key: u128) {
        self.by_key.remove(&key);
    }

    /// Adds a number; the answer is since when the total counts, and the total.
    ///
    /// # Errors
    /// Why the point is refused, in the sender's words.
    pub(crate) fn number(&mut self, key: u128, at: Span, v: f64, now: Instant) -> Result<(u64, f64), String> {
        let add = |sum: &mut Sum| match sum {
            Sum::Number(total) => {
                *total += v;
                Ok(())
            }
            other => {
                *other = Sum::Number(v);
                Ok(())
            }
        };
        let total = self.add(key, at, hash(v.to_bits()), now, || Sum::Number(v), add)?;
        Ok((total.start, if let Sum::Number(v) = total.sum { v } else { v }))
    }

    /// As [`Totals::number`], of an explicit-bucket histogram.
    ///
    /// # Errors
    /// Why the point is refused.
    pub(crate) fn explicit(
        &mut self,
        key: u128,
        at: Span,
        point: &Explicit,
        now: Instant,
    ) -> Result<(u64, Explicit), String> {
        let bits = |v: &[f64]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let content = (point.count, point.sum.map(f64::to_bits), &point.counts, bits(&point.bounds));
        let add = |sum: &mut Sum| {
            match sum {
                Sum::Explicit(total)
                    if total.bounds == point.bounds && total.counts.len() == point.counts.len() =>
                {
                    total.count = total.count.wrapping_add(point.count);
                    // A total without one of the sums would be none.
                    total.sum = total.sum.zip(point.sum).map(|(a, b)| a + b);
                    for (total, count) in total.counts.iter_mut().zip(&point.counts) {
                        *total = total.wrapping_add(*count);
                    }
                }
                other => *other = Sum::Explicit(Box::new(point.clone())),
            }
            Ok(())
        };
        let total = self.add(key, at, hash(content), now, || Sum::Explicit(Box::new(point.clone())), add)?;
        let Sum::Explicit(sum) = &total.sum else { return Err("not a histogram".to_owned()) };
        Ok((total.start, (**sum).clone()))
    }

    /// As [`Totals::number`], of an exponential histogram.
    ///
    /// # Errors
    /// Why the point is refused.
    pub(crate) fn exponential(
        &mut self,
        key: u128,
        at: Span,
        point: &Exponential,
        now: Instant,
    ) -> Result<(u64, Exponential), String> {
        let content = point.content_hash(&FxBuildHasher);
        let add = |sum: &mut Sum| match sum {
            Sum::Exponential(total) => total.add(point),
            other => {
                *other = Sum::Exponential(Box::new(point.clone()));
                Ok(())
            }
        };
        let total = self.add(key, at, content, now, || Sum::Exponential(Box::new(point.clone())), add)?;
        let Sum::Exponential(sum) = &total.sum else { return Err("not a histogram".to_owned()) };
        Ok((total.start, (**sum).clone()))
    }

    fn add(
        &mut self,
        key: u128,
        (start, t): Span,
        point: u64,
        now: Instant,
        first: impl FnOnce() -> Sum,
        add: impl FnOnce(&mut Sum) -> Result<(), String>,
    ) -> Result<&Total, String> {
        let point = hash((point, start));
        if !self.by_key.contains_key(&key) {
            if self.by_key.len() >= SERIES_MAX {
                return Err(format!("more than {SERIES_MAX} series of delta temporality"));
            }
            return Ok(self.by_key.entry(key).or_insert(Total {
                sum: first(),
                start,
                last: t,
                point,
                seen: now,
            }));
        }
        let total = self.by_key.get_mut(&key).expect("just seen");
        if t == total.last && point == total.point {
            total.seen = now;
            return Ok(total);
        }
        if start != 0 && start < total.start {
            return Err("delta point began before the series did".to_owned());
        }
        if t <= total.last {
            return Err("delta point is not later than the last one".to_owned());
        }
        add(&mut total.sum)?;
        (total.last, total.point, total.seen) = (t, point, now);
        Ok(total)
    }
}

fn hash(content: impl Hash) -> u64 {
    FxBuildHasher.hash_one(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_add_up_from_the_first_start() {
        let (mut totals, now) = (Totals::default(), Instant::now());
        let mut add = |at, v| totals.number(7, at, v, now);
        assert_eq!(add((5, 10), 1.5), Ok((5, 1.5)));
        assert_eq!(add((10, 20), 2.0), Ok((5, 3.5)));
        assert_eq!(add((10, 20), 2.0), Ok((5, 3.5)), "the same point again");
        assert!(add((10, 20), 3.0).unwrap_err().contains("not later"));
        assert!(add((10, 15), 1.0).unwrap_err().contains("not later"));
        assert!(add((1, 30), 1.0).unwrap_err().contains("began before"));
        assert_eq!(add((40, 50), -1.0), Ok((5, 2.5)), "a gap is nothing special");
        assert_eq!(add((0, 60), 1.0), Ok((5, 3.5)), "an unknown start neither");
        totals.forget(7);
        assert_eq!(totals.number(7, (60, 70), 1.0, now), Ok((60, 1.0)));
    }

    #[test]
    fn other_bounds_start_a_histogram_over() {
        let (mut totals, now) = (Totals::default(), Instant::now());
        let point = |counts: &[u64], bounds: &[f64], sum| Explicit {
            count: counts.iter().sum(),
            sum,
            counts: counts.to_vec(),
            bounds: bounds.to_vec(),
        };
        let one = point(&[1, 2], &[5.0], Some(8.0));
        assert_eq!(totals.explicit(1, (1, 2), &one, now), Ok((1, one.clone())));
        let got = totals.explicit(1, (2, 3), &one, now).unwrap();
        assert_eq!(got, (1, point(&[2, 4], &[5.0], Some(16.0))));
        let without_sum = point(&[1, 0], &[5.0], None);
        let got = totals.explicit(1, (3, 4), &without_sum, now).unwrap();
        assert_eq!(got.1, point(&[3, 4], &[5.0], None));
        let other = point(&[1, 1, 1], &[1.0, 5.0], Some(3.0));
        assert_eq!(totals.explicit(1, (4, 5), &other, now), Ok((1, other)));
    }
}
