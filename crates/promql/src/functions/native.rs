//! Computations on native histograms: means, quantiles, fractions, variance.

use chronolith_model::FloatHistogram;
use chronolith_model::histogram::{Bucket, HistogramError};

use super::kahan::kahan_inc;

/// The mean of histograms: a compensated sum, divided at the end; an incremental mean from where the sum would overflow.
#[derive(Clone, Debug)]
pub(crate) struct Mean {
    /// The sum, or the mean once `incremental`.
    value: FloatHistogram,
    compensation: Option<FloatHistogram>,
    count: f64,
    incremental: bool,
    /// Custom bounds differed.
    pub(crate) reconciled: bool,
}

impl Mean {
    pub(crate) fn new(first: &FloatHistogram) -> Self {
        Mean { value: first.clone(), compensation: None, count: 1.0, incremental: false, reconciled: false }
    }

    pub(crate) fn add(&mut self, h: &FloatHistogram) -> Result<(), HistogramError> {
        self.count += 1.0;
        if !self.incremental {
            let (mut sum, mut c) = (self.value.clone(), self.compensation.clone());
            let notes = sum.kahan_add(h, &mut c)?;
            self.reconciled |= notes.custom_bounds_reconciled;
            if !sum.has_overflow() {
                (self.value, self.compensation) = (sum, c);
                return Ok(());
            }
            self.incremental = true;
            self.value.div(self.count - 1.0);
            if let Some(c) = &mut self.compensation {
                c.div(self.count - 1.0);
            }
        }
        let q = (self.count - 1.0) / self.count;
        if let Some(c) = &mut self.compensation {
            c.mul(q);
        }
        let mut part = h.clone();
        part.div(self.count);
        self.value.mul(q);
        let notes = self.value.kahan_add(&part, &mut self.compensation)?;
        self.reconciled |= notes.custom_bounds_reconciled;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> FloatHistogram {
        if !self.incremental {
            self.value.div(self.count);
            if let Some(c) = &mut self.compensation {
                c.div(self.count);
            }
        }
        if let Some(c) = &self.compensation {
            // Both have the same kind of buckets, so this cannot fail.
            let _ = self.value.add(c);
        }
        self.value
    }
}

/// What a caller may have to say about a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NanNote {
    /// NaN observations made the result NaN.
    Result,
    /// NaN observations count as largest.
    Skew,
}

/// The φ-quantile.
pub(crate) fn quantile(q: f64, h: &FloatHistogram) -> (f64, Option<NanNote>) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if h.count == 0.0 || q.is_nan() {
        return (f64::NAN, None);
    }
    let forward = h.sum.is_nan() || q < 0.5;
    if forward {
        quantile_along(q * h.count, true, h, h.all_buckets())
    } else {
        quantile_along((1.0 - q) * h.count, false, h, h.all_buckets_rev())
    }
}

fn quantile_along(
    mut rank: f64,
    forward: bool,
    h: &FloatHistogram,
    mut buckets: impl Iterator<Item = Bucket>,
) -> (f64, Option<NanNote>) {
    let mut count = 0.0;
    let mut bucket = Bucket {
        lower: 0.0,
        upper: 0.0,
        lower_inclusive: false,
        upper_inclusive: false,
        count: 0.0,
        index: 0,
    };
    for b in buckets.by_ref() {
        bucket = b;
        if b.count == 0.0 {
            continue;
        }
        count += b.count;
        if count >= rank {
            break;
        }
    }
    let custom = h.uses_custom_buckets();
    if !custom && bucket.lower < 0.0 && bucket.upper > 0.0 {
        if h.negative_buckets.is_empty() && !h.positive_buckets.is_empty() {
            bucket.lower = 0.0;
        } else if h.positive_buckets.is_empty() && !h.negative_buckets.is_empty() {
            bucket.upper = 0.0;
        }
    } else if custom {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return (bucket.upper, None);
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return (bucket.lower, None);
        }
    }
    count = count.min(h.count);
    if count < rank {
        return if h.sum.is_nan() { (f64::NAN, Some(NanNote::Result)) } else { (bucket.upper, None) };
    }
    if forward {
        rank -= count - bucket.count;
    } else {
        rank = count - rank;
    }
    let mut note = None;
    if h.sum.is_nan() {
        for b in buckets {
            // As upstream, interpolation goes on with the last bucket that was looked at.
            bucket = b;
            count += b.count;
        }
        if count < h.count {
            note = Some(NanNote::Skew);
        }
    }
    let fraction = rank / bucket.count;
    if custom || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
        return (bucket.lower + (bucket.upper - bucket.lower) * fraction, note);
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    let v = if bucket.lower > 0.0 {
        (lower + (upper - lower) * fraction).exp2()
    } else {
        -(upper + (lower - upper) * (1.0 - fraction)).exp2()
    };
    (v, note)
}

/// The fraction of observations between two bounds; true when NaN observations were left out.
pub(crate) fn fraction(lower: f64, upper: f64, h: &FloatHistogram) -> (f64, bool) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, false);
    }
    if lower >= upper {
        return (0.0, false);
    }
    let custom = h.uses_custom_buckets();
    let (mut count, mut rank) = (0.0, 0.0);
    let (mut lower_rank, mut upper_rank) = (None, None);
    let mut buckets = h.all_buckets();
    for mut b in buckets.by_ref() {
        count += b.count;
        let mut zero = false;
        if b.lower <= 0.0 && b.upper >= 0.0 {
            zero = true;
            if h.negative_buckets.is_empty() && !h.positive_buckets.is_empty() {
                b.lower = 0.0;
            } else if h.positive_buckets.is_empty() && !h.negative_buckets.is_empty() {
                b.upper = 0.0;
            }
        }
        for (edge, found) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if found.is_none() && b.lower >= edge {
                *found = Some(rank);
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        for (edge, found) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if found.is_none() && b.lower < edge && b.upper > edge {
                let linear = custom || zero;
                *found = Some(if linear && b.lower == f64::NEG_INFINITY {
                    b.count
                } else {
                    rank + b.count * b.fraction_below(edge, linear)
                });
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank += b.count;
    }
    let mut nans = false;
    if h.sum.is_nan() {
        count += buckets.map(|b| b.count).sum::<f64>();
        nans = count < h.count;
    } else {
        count = h.count;
    }
    let cap = |r: Option<f64>| r.filter(|r| *r <= count).unwrap_or(count);
    ((cap(upper_rank) - cap(lower_rank)) / h.count, nans)
}

/// The population variance, estimated with each bucket's middle.
pub(crate) fn variance(h: &FloatHistogram) -> f64 {
    let mean = h.sum / h.count;
    let (mut sum, mut c) = (0.0, 0.0);
    for b in h.all_buckets().filter(|b| b.count != 0.0) {
        let middle = if h.uses_custom_buckets() {
            (b.upper + b.lower) / 2.0
        } else if b.lower <= 0.0 && b.upper >= 0.0 {
            0.0
        } else {
            (b.upper * b.lower).sqrt().copysign(b.upper)
        };
        let delta = middle - mean;
        (sum, c) = kahan_inc(b.count * delta * delta, sum, c);
    }
    (sum + c) / h.count
}
