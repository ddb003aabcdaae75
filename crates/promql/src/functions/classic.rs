//! Quantiles and fractions of classic histograms: cumulative buckets as floats.

/// Relative differences between neighbouring buckets below this are rounding, not data; upstream's value.
const SMALL_DELTA: f64 = 1e-12;

/// A bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bucket {
    /// Upper bound, included.
    pub(crate) upper: f64,
    /// Observations up to there.
    pub(crate) count: f64,
}

/// Where monotonicity had to be forced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Forced {
    pub(crate) bucket_min: f64,
    pub(crate) bucket_max: f64,
    pub(crate) diff_max: f64,
}

/// The φ-quantile of buckets sorted by upper bound.
pub(crate) fn quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, Option<Forced>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if buckets.last().is_none_or(|b| b.upper != f64::INFINITY) {
        return (f64::NAN, None);
    }
    coalesce(buckets);
    let forced = make_monotonic(buckets);
    if buckets.len() < 2 {
        return (f64::NAN, forced);
    }
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if observations == 0.0 {
        return (f64::NAN, forced);
    }
    let mut rank = q * observations;
    let b = buckets[..last].iter().position(|b| b.count >= rank).unwrap_or(last);
    if b == last {
        return (buckets[last - 1].upper, forced);
    }
    if b == 0 && buckets[0].upper <= 0.0 {
        return (buckets[0].upper, forced);
    }
    let (mut start, end, mut count) = (0.0, buckets[b].upper, buckets[b].count);
    if b > 0 {
        start = buckets[b - 1].upper;
        count -= buckets[b - 1].count;
        rank -= buckets[b - 1].count;
    }
    (start + (end - start) * (rank / count), forced)
}

/// The fraction of observations between two bounds, of buckets sorted by upper bound.
pub(crate) fn fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if buckets.last().is_none_or(|b| b.upper != f64::INFINITY) {
        return f64::NAN;
    }
    coalesce(buckets);
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let (mut rank, mut lower_rank, mut upper_rank) = (0.0, None, None);
    let mut bound = if buckets[0].upper <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
    for b in buckets.iter() {
        let inside = |v: f64| {
            if bound == f64::NEG_INFINITY {
                b.count
            } else {
                rank + (b.count - rank) * (v - bound) / (b.upper - bound)
            }
        };
        for (edge, found) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if found.is_none() && bound >= edge {
                *found = Some(rank);
            }
            if found.is_none() && bound < edge && b.upper > edge {
                *found = Some(inside(edge));
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank = b.count;
        bound = b.upper;
    }
    let cap = |r: Option<f64>| r.filter(|r| *r <= count).unwrap_or(count);
    (cap(upper_rank) - cap(lower_rank)) / count
}

/// Adds up buckets of the same bound.
fn coalesce(buckets: &mut Vec<Bucket>) {
    buckets.dedup_by(|next, kept| {
        let same = next.upper == kept.upper;
        if same {
            kept.count += next.count;
        }
        same
    });
}

/// Removes decreases from bucket to bucket; tiny differences are evened out silently.
fn make_monotonic(buckets: &mut [Bucket]) -> Option<Forced> {
    let mut forced: Option<Forced> = None;
    let mut previous = buckets[0].count;
    for b in &mut buckets[1..] {
        if b.count == previous {
            continue;
        }
        if super::almost::almost_equal(previous, b.count, SMALL_DELTA) {
            b.count = previous;
            continue;
        }
        if b.count < previous {
            let f = forced.get_or_insert(Forced {
                bucket_min: f64::INFINITY,
                bucket_max: f64::NEG_INFINITY,
                diff_max: 0.0,
            });
            f.bucket_min = f.bucket_min.min(b.upper);
            f.bucket_max = f.bucket_max.max(b.upper);
            f.diff_max = f.diff_max.max(previous - b.count);
            b.count = previous;
            continue;
        }
        previous = b.count;
    }
    forced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(b: &[(f64, f64)]) -> Vec<Bucket> {
        b.iter().map(|&(upper, count)| Bucket { upper, count }).collect()
    }

    #[test]
    fn interpolates_and_forces_monotonicity() {
        let inf = f64::INFINITY;
        assert_eq!(quantile(0.5, &mut buckets(&[(1.0, 2.0), (2.0, 4.0), (inf, 4.0)])), (1.0, None));
        assert_eq!(quantile(1.0, &mut buckets(&[(1.0, 2.0), (inf, 4.0)])).0, 1.0);
        assert!(quantile(0.5, &mut buckets(&[(1.0, 2.0)])).0.is_nan());
        let (_, forced) = quantile(0.5, &mut buckets(&[(1.0, 5.0), (2.0, 4.0), (inf, 6.0)]));
        assert_eq!(forced, Some(Forced { bucket_min: 2.0, bucket_max: 2.0, diff_max: 1.0 }));
        assert_eq!(fraction(0.0, 1.0, &mut buckets(&[(1.0, 2.0), (inf, 4.0)])), 0.5);
        assert_eq!(fraction(0.5, inf, &mut buckets(&[(1.0, 2.0), (inf, 4.0)])), 0.75);
    }
}
