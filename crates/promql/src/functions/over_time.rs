//! Functions of the floats of a window.

use super::kahan::kahan_inc;
use super::quantile::quantile;
use crate::exec::samples::Window;

/// The value that wins all comparisons, and its time. NaN loses against any number.
#[inline(always)]
pub(crate) fn best(w: &Window<'_>, mut wins: impl FnMut(f64, f64) -> bool) -> (f64, i64) {
    let (mut best, mut t) = (w.fv[0], w.ft[0]);
    for (&v, &vt) in w.fv.iter().zip(w.ft) {
        if wins(v, best) || best.is_nan() {
            (best, t) = (v, vt);
        }
    }
    (best, t)
}

/// The population variance.
pub(crate) fn variance(values: &[f64]) -> f64 {
    let (mut mean, mut mean_c, mut aux, mut aux_c) = (0.0, 0.0, 0.0, 0.0);
    let mut count = 0.0;
    for &v in values {
        count += 1.0;
        let delta = v - (mean + mean_c);
        (mean, mean_c) = kahan_inc(delta / count, mean, mean_c);
        (aux, aux_c) = kahan_inc(delta * (v - (mean + mean_c)), aux, aux_c);
    }
    (aux + aux_c) / count
}

/// The median absolute deviation.
pub(crate) fn mad(values: &[f64], scratch: &mut Vec<f64>) -> f64 {
    if values.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    scratch.clear();
    scratch.extend_from_slice(values);
    let median = quantile(0.5, scratch);
    for v in scratch.iter_mut() {
        *v = (*v - median).abs();
    }
    quantile(0.5, scratch)
}

/// Holt's linear method; at least two values.
pub(crate) fn double_exponential_smoothing(values: &[f64], smoothing: f64, trend: f64) -> f64 {
    let (mut s0, mut s1) = (0.0, values[0]);
    let mut b = values[1] - values[0];
    for (i, &v) in values.iter().enumerate().skip(1) {
        let x = smoothing * v;
        if i > 1 {
            b = trend * (s1 - s0) + (1.0 - trend) * b;
        }
        let y = (1.0 - smoothing) * (s1 + b);
        (s0, s1) = (s1, x + y);
    }
    s1
}
