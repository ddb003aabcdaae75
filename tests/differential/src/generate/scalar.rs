//! Scalars.

use super::Generator;
use crate::expr::{Expr, expr};

impl Generator<'_> {
    /// A number as text.
    pub(super) fn number(&mut self) -> String {
        const COMMON: [&str; 14] =
            ["0", "1", "2", "-1", "0.5", "3", "10", "100", "-2.5", "1e3", "0.1", "7", "1e-3", "60"];
        const RARE: [&str; 6] = ["Inf", "-Inf", "NaN", "0x1F", "1e300", "017"];
        const CURRENT: [&str; 3] = ["5m", "1_000", "1h30m"];
        let from: &[&str] = match self.random.below(20) {
            0 => &RARE,
            1 if self.dialect.version >= (3, 0) => &CURRENT,
            _ => &COMMON,
        };
        self.random.pick(from).to_owned()
    }

    /// A scalar.
    pub(super) fn scalar(&mut self, depth: usize) -> Expr {
        if depth == 0 || self.random.chance(50) {
            return expr!(Scalar; self.number());
        }
        match self.random.below(12) {
            0..=1 => expr!(Scalar; "scalar(", self.vector(depth - 1), ")"),
            2 => expr!(Scalar; "time()"),
            3 => expr!(Scalar; "pi()"),
            4..=6 => {
                let op = self.random.pick(&["+", "-", "*", "/", "%", "^", "atan2"]);
                expr!(Scalar; self.scalar(depth - 1), format!(" {op} "), self.scalar(depth - 1))
            }
            7 => {
                let op = self.random.pick(&["==", "!=", "<", "<=", ">", ">="]);
                expr!(Scalar; "(", self.scalar(depth - 1), format!(" {op} bool "), self.scalar(depth - 1), ")")
            }
            8 => expr!(Scalar; "-", self.scalar(depth - 1)),
            9 if self.dialect.experimental() => {
                expr!(Scalar; self.random.pick(&["start()", "end()", "step()", "range()"]))
            }
            10 if self.dialect.experimental() => {
                let f = self.random.pick(&["min_of(", "max_of("]);
                expr!(Scalar; f, self.scalar(depth - 1), ", ", self.scalar(depth - 1), ")")
            }
            _ => expr!(Scalar; "(", self.scalar(depth - 1), ")"),
        }
    }

    /// A parameter of a function or aggregator: constant for peers that evaluate it once for all steps.
    pub(super) fn parameter(&mut self, constants: &[&str], depth: usize) -> Expr {
        if depth > 0 && self.dialect.is_current() && self.random.chance(8) {
            return self.scalar(depth);
        }
        expr!(Scalar; self.random.pick(constants))
    }

    /// `vector(...)`.
    pub(super) fn vector_of_scalar(&mut self, depth: usize) -> Expr {
        expr!(Vector; "vector(", self.scalar(depth), ")")
    }
}
