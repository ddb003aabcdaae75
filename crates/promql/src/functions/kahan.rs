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

/// Windows that are added up beside each other: an addition waits for the one before it in its own window only.
pub(crate) const LANES: usize = 4;

/// The compensated sums of `len` values each from `firsts` on, not yet put together with their compensations. The first value
/// of each is where its sum begins.
#[inline]
fn lanes(values: &[f64], firsts: [usize; LANES], len: usize) -> [(f64, f64); LANES] {
    let windows = firsts.map(|first| &values[first..first + len]);
    let mut sums = windows.map(|w| (w[0], 0.0));
    for i in 1..len {
        for (sum, w) in sums.iter_mut().zip(windows) {
            *sum = kahan_inc(w[i], sum.0, sum.1);
        }
    }
    sums
}

/// [`kahan_sum`] of windows of `len` values each, one at least.
pub(crate) fn kahan_sums(values: &[f64], firsts: [usize; LANES], len: usize) -> [f64; LANES] {
    // A sum that begins with nothing has the same bits: of negative zeros, the compensation makes a positive one.
    lanes(values, firsts, len).map(|(sum, c)| if sum.is_infinite() { sum } else { sum + c })
}

/// [`kahan_mean`] of windows of `len` values each, one at least.
pub(crate) fn kahan_means(values: &[f64], firsts: [usize; LANES], len: usize) -> [f64; LANES] {
    let sums = lanes(values, firsts, len);
    // An infinite sum stays infinite or becomes NaN.
    if sums.iter().any(|(sum, _)| !sum.is_finite()) {
        return firsts.map(|first| kahan_mean(&values[first..first + len]));
    }
    let count = len as f64;
    sums.map(|(sum, c)| sum / count + c / count)
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
    fn windows_beside_each_other_are_what_they_are_alone() {
        let mut r = 3_u64;
        for odd in 0..40 {
            let values: Vec<f64> = (0..200)
                .map(|i| {
                    r = r.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    match (odd % 8, (r >> 33) % 30) {
                        (1, 0) => f64::NAN,
                        (2, 1) => f64::INFINITY,
                        (2 | 3, 2) => f64::NEG_INFINITY,
                        (4, _) if i % 3 > 0 => 1.7e308,
                        (5, _) => -0.0,
                        (6, 4) => 0.0,
                        (_, n) => (r >> 20) as f64 * if n % 2 == 0 { 1e-9 } else { -1e7 },
                    }
                })
                .collect();
            for len in [1, 2, 3, 40, 150] {
                let firsts = [0, 1, 7, 50];
                let alone = |f: fn(&[f64]) -> f64| firsts.map(|i| f(&values[i..i + len]).to_bits());
                assert_eq!(
                    kahan_sums(&values, firsts, len).map(f64::to_bits),
                    alone(kahan_sum),
                    "{odd} {len}"
                );
                assert_eq!(
                    kahan_means(&values, firsts, len).map(f64::to_bits),
                    alone(kahan_mean),
                    "{odd} {len}"
                );
            }
        }
    }

    #[test]
    fn sums_survive_cancellation_and_means_survive_overflow() {
        assert_eq!(kahan_sum(&[1.0, 1e100, 1.0, -1e100]), 2.0);
        assert_eq!(kahan_sum(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert_eq!(kahan_mean(&[1.5, 2.5]), 2.0);
        let mean = kahan_mean(&[1e308, 1e308, 1e308]);
        assert!((mean / 1e308 - 1.0).abs() < 1e-9, "{mean}");
    }
}
