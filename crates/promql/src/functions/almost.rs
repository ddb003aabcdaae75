//! Equality of floats up to rounding.

use chronolith_model::is_stale_nan;

/// True when the two differ by less than `epsilon`, relatively; NaNs are equal, a stale marker only to itself.
pub(crate) fn almost_equal(a: f64, b: f64, epsilon: f64) -> bool {
    if is_stale_nan(a) || is_stale_nan(b) {
        return is_stale_nan(a) && is_stale_nan(b);
    }
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    let (sum, diff) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return diff < epsilon * f64::MIN_POSITIVE;
    }
    diff / sum.min(f64::MAX) < epsilon
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronolith_model::STALE_NAN;

    #[test]
    fn relative_except_at_zero() {
        assert!(almost_equal(1.0, 1.0 + 1e-7, 1e-6) && !almost_equal(1.0, 1.0 + 1e-5, 1e-6));
        assert!(!almost_equal(0.0, 1e-300, 1e-6) && almost_equal(0.0, -0.0, 1e-6));
        assert!(almost_equal(f64::NAN, f64::NAN, 1e-6) && !almost_equal(f64::NAN, STALE_NAN, 1e-6));
        assert!(!almost_equal(f64::INFINITY, f64::MAX, 1e-6));
    }
}
