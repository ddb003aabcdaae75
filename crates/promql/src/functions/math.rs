//! Functions of one number, and Go's ideas of minimum and maximum.

use crate::parser::FunctionId;

/// Go's `math.Max`: NaN wins, and +0 is greater than -0.
pub(crate) fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else if a > b {
        a
    } else {
        b
    }
}

/// Go's `math.Min`.
pub(crate) fn go_min(a: f64, b: f64) -> f64 {
    -go_max(-a, -b)
}

/// A function that maps floats one by one, `None` when `id` is not of this kind.
pub(crate) fn unary(id: FunctionId) -> Option<fn(f64) -> f64> {
    use FunctionId::*;
    Some(match id {
        Abs => f64::abs,
        Ceil => f64::ceil,
        Floor => f64::floor,
        Exp => f64::exp,
        Sqrt => f64::sqrt,
        Ln => f64::ln,
        Log2 => f64::log2,
        Log10 => f64::log10,
        Sin => f64::sin,
        Cos => f64::cos,
        Tan => f64::tan,
        Asin => f64::asin,
        Acos => f64::acos,
        Atan => f64::atan,
        Sinh => f64::sinh,
        Cosh => f64::cosh,
        Tanh => f64::tanh,
        Asinh => f64::asinh,
        Acosh => f64::acosh,
        Atanh => f64::atanh,
        Rad => |v| v * std::f64::consts::PI / 180.0,
        Deg => |v| v * 180.0 / std::f64::consts::PI,
        Sgn => |v| {
            if v < 0.0 {
                -1.0
            } else if v > 0.0 {
                1.0
            } else {
                v
            }
        },
        _ => return None,
    })
}

/// A function of a Unix time in seconds, `None` when `id` is not of this kind.
pub(crate) fn date(id: FunctionId) -> Option<fn(f64) -> f64> {
    use super::date::{Civil, go_float_to_i64};
    use FunctionId::*;
    macro_rules! part {
        ($c:ident => $e:expr) => {
            |v| {
                let $c = Civil::from_unix_seconds(go_float_to_i64(v));
                f64::from($e)
            }
        };
    }
    Some(match id {
        DayOfMonth => part!(c => c.day),
        DayOfWeek => part!(c => c.day_of_week()),
        DayOfYear => part!(c => c.day_of_year()),
        DaysInMonth => part!(c => c.days_in_month()),
        Hour => part!(c => c.hour),
        Minute => part!(c => c.minute),
        Month => part!(c => c.month),
        Year => |v| Civil::from_unix_seconds(go_float_to_i64(v)).year as f64,
        _ => return None,
    })
}

/// `round(v, to_nearest)`: ties go up.
pub(crate) fn round(v: f64, to_nearest: f64) -> f64 {
    let inverse = 1.0 / to_nearest;
    (v * inverse + 0.5).floor() / inverse
}
