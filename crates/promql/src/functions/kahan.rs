//! Neumaier's variant of Kahan's compensated summation, as Prometheus has it.

/// Adds `inc` to a running sum with its compensation; the sum itself is `sum + c`.
#[inline(always)]
pub(crate) fn kahan_inc(inc: f64, sum: f64, c: f64) -> (f64, f64) {
    let t = sum + inc;
    let c = if t.abs() > f64::MAX {
        0.0
    } else if sum.abs() >= inc.abs() {
        c + ((sum - t) + inc)
    } else {
        c + ((inc - t) + sum)
    };
    (t, c)
}

/// The compensated sum of a slice.
#[inline]
pub(crate) fn kahan_sum(values: &[f64]) -> f64 {
    let (mut sum, mut c) = (0.0, 0.0);
    for &v in values {
        (sum, c) = kahan_inc(v, sum, c);
    }
    if sum.is_infinite() { sum } else { sum + c }
}

/// The compensated mean of a non-empty slice: a plain mean, an incremental one from where the sum would overflow.
#[inline]
pub(crate) fn kahan_mean(values: &[f64]) -> f64 {
    let (mut sum, mut c) = (values[0], 0.0);
    let mut i = 1;
    while i < values.len() {
        let (next_sum, next_c) = kahan_inc(values[i], sum, c);
        if next_sum.is_infinite() {
            return incremental_mean(values, i, sum, c);
        }
        (sum, c) = (next_sum, next_c);
        i += 1;
    }
    let count = values.len() as f64;
    sum / count + c / count
}

#[cold]
fn incremental_mean(values: &[f64], from: usize, sum: f64, c: f64) -> f64 {
    let (mut mean, mut c) = (sum / from as f64, c / from as f64);
    for (i, &v) in values.iter().enumerate().skip(from) {
        let count = (i + 1) as f64;
        let q = (count - 1.0) / count;
        (mean, c) = kahan_inc(v / count, q * mean, q * c);
    }
    mean + c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_survive_cancellation_and_means_survive_overflow() {
        assert_eq!(kahan_sum(&[1.0, 1e100, 1.0, -1e100]), 2.0);
        assert_eq!(kahan_sum(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert_eq!(kahan_mean(&[1.5, 2.5]), 2.0);
        let mean = kahan_mean(&[1e308, 1e308, 1e308]);
        assert!((mean / 1e308 - 1.0).abs() < 1e-9, "{mean}");
    }
}
