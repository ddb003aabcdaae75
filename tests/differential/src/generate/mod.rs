//! Random queries that mean something: typed, over the names that the data has, every part of the language that the peer's
//! dialect has.

mod aggregate;
mod binary;
mod calls;
mod scalar;
mod select;

use crate::data::{Data, Metric, SPAN_MS, START_MS, Shape};
use crate::dialect::Dialect;
use crate::expr::{Expr, expr};
use crate::random::Random;

/// When a query is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// `/api/v1/query`.
    Instant {
        /// Milliseconds.
        t: i64,
    },
    /// `/api/v1/query_range`.
    Range {
        /// Milliseconds.
        start: i64,
        /// Milliseconds.
        end: i64,
        /// Milliseconds.
        step: i64,
    },
}

/// A query with its parameters.
#[derive(Clone, Debug)]
pub struct Case {
    /// The query.
    pub expr: Expr,
    /// When.
    pub window: Window,
    /// `lookback_delta` in seconds.
    pub lookback_s: Option<u32>,
}

impl Case {
    /// The API call: path and form, the query not included.
    pub fn call(&self) -> (&'static str, String) {
        let s = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
        let (path, mut form) = match self.window {
            Window::Instant { t } => ("query", format!("time={}", s(t))),
            Window::Range { start, end, step } => {
                ("query_range", format!("start={}&end={}&step={}", s(start), s(end), s(step)))
            }
        };
        if let Some(lookback) = self.lookback_s {
            form.push_str(&format!("&lookback_delta={lookback}s"));
        }
        (path, form)
    }
}

/// Writes queries over some data in a dialect.
pub struct Generator<'a> {
    dialect: &'a Dialect,
    metrics: &'a [Metric],
    random: Random,
    /// Subqueries around the place where we are.
    subqueries: usize,
    range_query: bool,
}

/// Labels that queries group and join by; one of them is no label of any series.
const LABELS: [&str; 10] =
    ["job", "instance", "method", "code", "room", "version", "region", "le", "__name__", "nowhere"];

/// The query of a number.
pub fn case(dialect: &Dialect, data: &Data, seed: u64, number: u64) -> Case {
    let random = Random::of_query(seed, number);
    let mut g = Generator { dialect, metrics: &data.metrics, random, subqueries: 0, range_query: false };
    let window = g.window();
    g.range_query = matches!(window, Window::Range { .. });
    let lookback_s = (dialect.is_current() && g.random.chance(5)).then(|| 1 + g.random.below(900) as u32);
    Case { expr: g.query(), window, lookback_s }
}

impl Generator<'_> {
    fn window(&mut self) -> Window {
        // Half a second past: no window of whole seconds ends on a sample, so that closed and left-open ones hold the same.
        let t = START_MS - 120_000 + self.random.below((SPAN_MS / 1000 + 400) as usize) as i64 * 1000;
        let t = match () {
            () if self.dialect.closed_windows() => t + 500,
            () if self.random.chance(40) => t,
            () => t - t.rem_euclid(60_000),
        };
        if self.random.chance(50) {
            return Window::Instant { t };
        }
        let step =
            1000 * self.random.weighted(&[(1, 1), (1, 7), (3, 15), (3, 30), (5, 60), (1, 61), (1, 300)]);
        let points = self.random.weighted(&[(1, 0), (1, 1), (4, 8), (4, 20), (1, 60)]);
        let early = START_MS + (t - START_MS).rem_euclid(SPAN_MS - 600_000);
        Window::Range { start: early, end: early + points * step + step / 3, step }
    }

    fn query(&mut self) -> Expr {
        let depth = self.random.weighted(&[(2, 1), (5, 2), (4, 3), (2, 4)]);
        match self.random.below(100) {
            0..=2 => self.broken(),
            3 => expr!(String; "\"just a string\""),
            4..=6 => self.scalar(depth),
            7..=9 if !self.range_query => self.matrix(1),
            10..=14 => self.sorted(depth),
            _ => self.vector(depth),
        }
    }

    /// An instant vector.
    fn vector(&mut self, depth: usize) -> Expr {
        if depth == 0 {
            return if self.random.chance(92) { self.selector(None) } else { self.vector_of_scalar(0) };
        }
        match self.random.below(100) {
            0..=13 => self.selector(None),
            14..=29 => self.call(depth),
            30..=47 => self.range_call(depth),
            48..=65 => self.aggregation(depth),
            66..=81 => self.binary(depth),
            82..=86 => self.set_operation(depth),
            87..=88 => expr!(Vector; "-", self.vector(depth - 1)),
            89 => expr!(Vector; "(", self.vector(depth - 1), ")"),
            90..=92 => self.classic_quantile(depth),
            93..=95 if self.dialect.native => self.native_call(depth),
            96 => self.vector_of_scalar(depth),
            97..=98 if self.dialect.experimental() => self.info_call(depth),
            _ => self.label_call(depth),
        }
    }

    /// Text that is refused, or should be.
    fn broken(&mut self) -> Expr {
        let v = self.vector(1);
        match self.random.below(12) {
            0 => expr!(Vector; "rate(", v, ")"),
            1 => expr!(Vector; "sum(", self.scalar(0), ")"),
            2 => expr!(Vector; "nosuch(", v, ")"),
            3 => expr!(Vector; "abs(", v),
            4 => expr!(Vector; v, " + on(job) group_left"),
            5 => expr!(Vector; "topk(", v, ")"),
            6 => expr!(Vector; self.scalar(0), " > ", self.scalar(0)),
            7 => expr!(Vector; "up and ", self.scalar(0)),
            8 => expr!(Vector; "up{job=\"a\"", " or ", v),
            9 => expr!(Vector; "clamp(", v, ", 1)"),
            10 => expr!(Vector; "{job=~\".*\"}"),
            _ => expr!(Vector; "(", v, ")[5m]"),
        }
    }

    /// One of the metrics, of a shape if one is asked for.
    fn metric(&mut self, shape: Option<Shape>) -> &Metric {
        let metrics = self.metrics;
        let fit: Vec<&Metric> = metrics.iter().filter(|m| shape.is_none_or(|s| m.shape == s)).collect();
        if fit.is_empty() {
            &metrics[self.random.below(metrics.len())]
        } else {
            fit[self.random.below(fit.len())]
        }
    }

    /// Labels for a clause, quoted where they must be.
    fn label_list(&mut self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for _ in 0..self.random.below(4) {
            let name = self.random.weighted(&[(4, 0), (4, 1), (6, 2)]);
            let name = if name < 2 { LABELS[name] } else { self.random.pick(&LABELS) };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if !self.dialect.closed_windows() && self.random.chance(4) {
            names.push("\"service.name\"");
        }
        names.join(", ")
    }
}
