//! PromQL's `</` and `>/`: the observations below or above a value.
//!
//! A bucket that contains the value is split by interpolation: linear in custom buckets and the zero bucket,
//! logarithmic in exponential ones. Count and sum are estimated anew from the kept buckets' midpoints, but only when
//! something was cut.

use super::{Bucket, FloatHistogram};

/// Which observations stay.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Below,
    Above,
}

impl FloatHistogram {
    /// Keeps the observations below `limit` (`</`).
    pub fn trim_upper(&mut self, limit: f64) -> &mut Self {
        self.trim(limit, Keep::Below)
    }

    /// Keeps the observations above `limit` (`>/`).
    pub fn trim_lower(&mut self, limit: f64) -> &mut Self {
        self.trim(limit, Keep::Above)
    }

    fn trim(&mut self, limit: f64, keep: Keep) -> &mut Self {
        let custom = self.uses_custom_buckets();
        let (mut count, mut sum, mut cut) = (0.0, 0.0, false);
        let mut populated = [false, false];
        for (side, positive) in [true, false].into_iter().enumerate() {
            let shown: Vec<Bucket> = if positive {
                self.positive_buckets_iter().collect()
            } else {
                self.negative_buckets_iter().collect()
            };
            let buckets = if positive { &mut self.positive_buckets } else { &mut self.negative_buckets };
            for (kept, b) in buckets.iter_mut().zip(&shown).filter(|(_, b)| b.count != 0.0) {
                populated[side] = true;
                let (whole, part) = match keep {
                    Keep::Below => (b.upper <= limit, b.lower < limit),
                    Keep::Above => (b.lower >= limit, b.upper > limit),
                };
                if whole {
                    count += b.count;
                    sum += midpoint(b.lower, b.upper, positive, custom) * b.count;
                } else if part {
                    let (part, middle) = split(b, limit, keep, positive, custom);
                    count += part;
                    sum += middle * part;
                    cut |= *kept != part;
                    *kept = part;
                } else {
                    *kept = 0.0;
                    cut = true;
                }
            }
        }
        if self.zero_count > 0.0 {
            let (part, middle) = split_zero(&self.zero_bucket(), limit, keep, populated);
            cut |= self.zero_count != part;
            self.zero_count = part;
            sum += middle * part;
            count += part;
        }
        if cut {
            self.count = count;
            self.sum = sum;
            self.compact(0);
        }
        self
    }
}

/// What stays of a bucket that contains the limit, and the midpoint of that part.
fn split(b: &Bucket, limit: f64, keep: Keep, positive: bool, linear: bool) -> (f64, f64) {
    if b.lower == f64::NEG_INFINITY || b.upper == f64::INFINITY {
        return split_infinite(b, limit, keep);
    }
    let below = if limit <= b.lower {
        0.0
    } else if limit >= b.upper {
        b.count
    } else {
        b.count * b.fraction_below(limit, linear)
    };
    match keep {
        Keep::Below => (below, midpoint(b.lower, limit, positive, linear)),
        Keep::Above => (b.count - below, midpoint(limit, b.upper, positive, linear)),
    }
}

/// As [`split`] for a bucket without an end. How its observations are spread is not known, so that a part of it is
/// kept only where a finite positive end lets zero stand in for the other; else all of it or nothing.
fn split_infinite(b: &Bucket, limit: f64, keep: Keep) -> (f64, f64) {
    let or_zero = |v: f64| if v.is_infinite() { 0.0 } else { v };
    let upper_finite = b.upper != f64::INFINITY;
    if b.lower == f64::NEG_INFINITY {
        return match keep {
            Keep::Below if limit >= b.upper => (b.count, 0.0),
            Keep::Below if limit > 0.0 && b.upper > 0.0 && upper_finite => {
                (b.count * limit / b.upper, limit / 2.0)
            }
            Keep::Below if b.upper <= 0.0 => (b.count, limit),
            Keep::Above if limit <= b.lower => (b.count, 0.0),
            Keep::Above if limit >= 0.0 && b.upper > limit && upper_finite => {
                (b.count * (1.0 - limit / b.upper), (limit + b.upper) / 2.0)
            }
            _ => (0.0, or_zero(b.upper)),
        };
    }
    match keep {
        Keep::Above if limit >= b.lower => (b.count, limit),
        _ => (0.0, or_zero(b.lower)),
    }
}

/// As [`split`] for the zero bucket, which reaches to the side only where there are buckets (`[positive, negative]`),
/// or to both when there are none.
fn split_zero(zero: &Bucket, limit: f64, keep: Keep, populated: [bool; 2]) -> (f64, f64) {
    let (lower, upper) = match populated {
        [false, true] => (zero.lower, 0.0),
        [true, false] => (0.0, zero.upper),
        _ => (zero.lower, zero.upper),
    };
    let all = (zero.count, (lower + upper) / 2.0);
    match keep {
        Keep::Below if limit <= lower => (0.0, 0.0),
        Keep::Below if limit >= upper => all,
        Keep::Below => (zero.count * ((limit - lower) / (upper - lower)), (lower + limit) / 2.0),
        Keep::Above if limit <= lower => all,
        Keep::Above if limit >= upper => (0.0, 0.0),
        Keep::Above => (zero.count * ((upper - limit) / (upper - lower)), (limit + upper) / 2.0),
    }
}

/// Where the observations between two bounds are taken to lie.
fn midpoint(lower: f64, upper: f64, positive: bool, linear: bool) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) if upper > 0.0 => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        _ if linear => (lower + upper) / 2.0,
        _ => {
            let mean = (lower * upper).abs().sqrt();
            if positive { mean } else { -mean }
        }
    }
}
