//! Function calls.

use super::Generator;
use crate::data::Shape;
use crate::expr::{Expr, expr, optional};

/// Functions of one instant vector.
const OF_VECTOR: [&str; 35] = [
    "abs",
    "absent",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "ceil",
    "cos",
    "cosh",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "deg",
    "exp",
    "floor",
    "hour",
    "ln",
    "log10",
    "log2",
    "minute",
    "month",
    "rad",
    "round",
    "sgn",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "timestamp",
    "year",
    "abs",
];
/// Functions of the calendar, which also take no argument.
const OF_TIME: [&str; 8] =
    ["day_of_month", "day_of_week", "day_of_year", "days_in_month", "hour", "minute", "month", "year"];
/// Functions of a range of any numbers.
const OVER_TIME: [&str; 12] = [
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "sum_over_time",
    "count_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "last_over_time",
    "present_over_time",
    "absent_over_time",
    "changes",
    "resets",
];
/// The same, newer than 2.42.
const OVER_TIME_CURRENT: [&str; 1] = ["first_over_time"];
/// The same, experimental.
const OVER_TIME_EXPERIMENTAL: [&str; 5] = [
    "mad_over_time",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
];
/// Functions of native histograms.
const OF_NATIVE: [&str; 5] =
    ["histogram_avg", "histogram_count", "histogram_sum", "histogram_stddev", "histogram_stdvar"];

impl Generator<'_> {
    /// A function of instant vectors.
    pub(super) fn call(&mut self, depth: usize) -> Expr {
        let inner = self.vector(depth - 1);
        match self.random.below(30) {
            0..=1 => {
                let (low, high) = (self.scalar(depth - 1), self.scalar(depth - 1));
                expr!(Vector; "clamp(", inner, ", ", low, ", ", high, ")")
            }
            2 => {
                let f = self.random.pick(&["clamp_max(", "clamp_min("]);
                expr!(Vector; f, inner, ", ", self.scalar(depth - 1), ")")
            }
            3 => {
                let to = self.parameter(&["5", "0.1", "10", "0.3", "-2", "0", "1e3"], depth - 1);
                expr!(Vector; "round(", inner, ", ", to, ")")
            }
            4 => expr!(Vector; self.random.pick(&OF_TIME), "()"),
            5 if self.dialect.experimental() => expr!(Vector; "start_timestamp(", inner, ")"),
            6..=7 => {
                let f = self.random.pick(&OF_TIME);
                expr!(Vector; f, "(birthday_seconds)")
            }
            8 if self.random.chance(30) => {
                let f = self.random.pick(&["sort(", "sort_desc("]);
                expr!(Vector; f, inner, ")")
            }
            _ => {
                let mut f = self.random.pick(&OF_VECTOR);
                while self.dialect.closed_windows() && OF_TIME.contains(&f) {
                    f = self.random.pick(&OF_VECTOR);
                }
                expr!(Vector; f, "(", inner, ")")
            }
        }
    }

    /// A function of a range vector.
    pub(super) fn range_call(&mut self, depth: usize) -> Expr {
        let counter = match self.random.below(10) {
            0..=5 => Some(Shape::Counter),
            6 => Some(Shape::Bucket),
            7 if self.dialect.native => Some(Shape::Native),
            8 if self.dialect.native => Some(Shape::Mixed),
            _ => None,
        };
        match self.random.below(30) {
            0..=8 => {
                let f = self.random.pick(&["rate", "increase", "rate"]);
                let m = self.matrix_of(counter, depth, &["anchored", "smoothed"]);
                expr!(Vector; f, "(", m, ")")
            }
            9..=10 => {
                let f = self.random.pick(&["irate", "idelta"]);
                let m = self.matrix_of(counter, depth, &[]);
                expr!(Vector; f, "(", m, ")")
            }
            11 => {
                let m = self.matrix_of(None, depth, &["anchored", "smoothed"]);
                expr!(Vector; "delta(", m, ")")
            }
            12 => {
                let f = self.random.pick(&["changes", "resets"]);
                let m = self.matrix_of(None, depth, &["anchored"]);
                expr!(Vector; f, "(", m, ")")
            }
            13 => expr!(Vector; "deriv(", self.matrix(depth), ")"),
            14 => {
                let by = self.scalar(depth - 1);
                expr!(Vector; "predict_linear(", self.matrix(depth), ", ", by, ")")
            }
            15..=16 => {
                let phi = self.parameter(&["0.5", "0.9", "0", "1", "0.25", "-1", "2"], depth - 1);
                expr!(Vector; "quantile_over_time(", phi, ", ", self.matrix(depth), ")")
            }
            17 if self.dialect.experimental() => {
                let smooth = self.random.pick(&["0.5, 0.5", "0.1, 0.9", "0.3, 0.2", "2, 0.5"]);
                expr!(Vector; "double_exponential_smoothing(", self.matrix(depth), ", ", smooth, ")")
            }
            18..=19 if self.dialect.experimental() => {
                let f = self.random.pick(&OVER_TIME_EXPERIMENTAL);
                expr!(Vector; f, "(", self.matrix(depth), ")")
            }
            20 if self.dialect.is_current() => {
                let f = self.random.pick(&OVER_TIME_CURRENT);
                expr!(Vector; f, "(", self.matrix(depth), ")")
            }
            _ => {
                let f = self.random.pick(&OVER_TIME);
                let shape = if self.random.chance(20) { counter } else { None };
                expr!(Vector; f, "(", self.matrix_of(shape, depth, &[]), ")")
            }
        }
    }

    /// A quantile or a fraction of a classic histogram.
    pub(super) fn classic_quantile(&mut self, depth: usize) -> Expr {
        let range = self.random.pick(&["1m", "5m", "10m"]);
        let buckets = match self.random.below(5) {
            0 => expr!(Vector; "latency_seconds_bucket"),
            1 => expr!(Vector; "rate(latency_seconds_bucket[", range, "])"),
            2 => expr!(Vector; "sum by (le) (rate(latency_seconds_bucket[", range, "]))"),
            3 => expr!(Vector; "sum by (job, le) (rate(latency_seconds_bucket{le!=\"1\"}[", range, "]))"),
            _ => self.vector(depth - 1),
        };
        if self.dialect.is_current() && self.random.chance(25) {
            let bounds = self.random.pick(&["0, 0.5", "0.2, 3", "-Inf, 1", "1, Inf", "2, 1", "NaN, 1"]);
            return expr!(Vector; "histogram_fraction(", bounds, ", ", buckets, ")");
        }
        if self.dialect.experimental() && self.random.chance(25) {
            return expr!(Vector; "histogram_quantiles(", buckets, ", \"q\", 0.5, 0.9, 0.99)");
        }
        let phi = self.parameter(&["0.5", "0.9", "0", "1", "0.25", "-1", "2", "NaN", "0.01"], depth - 1);
        expr!(Vector; "histogram_quantile(", phi, ", ", buckets, ")")
    }

    /// Something that yields native histograms, mostly.
    fn native_vector(&mut self, depth: usize) -> Expr {
        let selector = self.selector(Some(Shape::Native));
        match self.random.below(8) {
            0..=1 => selector,
            2..=3 => {
                let f = self.random.pick(&[
                    "rate",
                    "increase",
                    "delta",
                    "sum_over_time",
                    "avg_over_time",
                    "irate",
                    "idelta",
                ]);
                let m = self.matrix_of(Some(Shape::Native), 1, &[]);
                expr!(Vector; f, "(", m, ")")
            }
            4..=5 => {
                let op = self.random.pick(&["sum", "avg"]);
                let by = self.label_list();
                expr!(Vector; op, optional(format!(" by ({by}) ")), "(", self.native_vector(depth), ")")
            }
            6 if depth > 1 => {
                let op = self.random.pick(&["+", "-", "*", "/", "==", "!=", "</", ">/"]);
                let right = match self.random.chance(50) {
                    true => expr!(Vector; "(", self.scalar(0), ")"),
                    false => expr!(Vector; "(", self.native_vector(depth - 1), ")"),
                };
                expr!(Vector; "(", self.native_vector(depth - 1), ") ", op, " ", right)
            }
            _ => {
                let f = self.random.pick(&["last_over_time", "first_over_time"]);
                let m = self.matrix_of(Some(Shape::Native), 1, &[]);
                expr!(Vector; f, "(", m, ")")
            }
        }
    }

    /// Native histograms, and what is asked of them.
    pub(super) fn native_call(&mut self, depth: usize) -> Expr {
        let inner = self.native_vector(depth);
        match self.random.below(10) {
            0..=2 => inner,
            3..=5 => {
                let phi =
                    self.parameter(&["0.5", "0.9", "0", "1", "0.25", "-1", "2", "NaN", "0.01"], depth - 1);
                expr!(Vector; "histogram_quantile(", phi, ", ", inner, ")")
            }
            6 => {
                let bounds = self.random.pick(&["0, 0.5", "0.2, 3", "-Inf, 1", "1, Inf", "-1, 1", "NaN, 1"]);
                expr!(Vector; "histogram_fraction(", bounds, ", ", inner, ")")
            }
            _ => {
                let f = self.random.pick(&OF_NATIVE);
                expr!(Vector; f, "(", inner, ")")
            }
        }
    }

    /// `label_replace` and `label_join`.
    pub(super) fn label_call(&mut self, depth: usize) -> Expr {
        let inner = self.vector(depth - 1);
        let to = self.random.pick(&["copy", "job", "instance", "__name__", "room"]);
        if self.random.chance(30) {
            let from = self.random.pick(&["\"job\", \"instance\"", "\"job\"", "\"nowhere\", \"code\""]);
            return expr!(Vector; "label_join(", inner, ", \"", to, "\", \"-\", ", from, ")");
        }
        let from = self.random.pick(&["job", "instance", "room", "__name__", "nowhere"]);
        let (by, pattern) = *self.random.pick_one(&[
            ("$1", "(.*)"),
            ("x$1", "(.).*"),
            ("${1}y", "([a-z]).*"),
            ("$name", "(?P<name>.+)"),
            ("", ".*"),
            ("fixed", "nothing"),
            ("fixed", ""),
        ]);
        expr!(Vector; "label_replace(", inner, ", \"", to, format!("\", \"{by}\", \""), from, format!("\", \"{pattern}\")"))
    }

    /// `info`.
    pub(super) fn info_call(&mut self, depth: usize) -> Expr {
        let inner = self.vector(depth - 1);
        let selector = self.random.pick(&[
            "",
            ", {region=~\".+\"}",
            ", {region=\"eu\"}",
            ", {__name__=\"build_info\"}",
            ", {__name__=~\".+_info\", version!=\"\"}",
        ]);
        expr!(Vector; "info(", inner, optional(selector), ")")
    }
}
