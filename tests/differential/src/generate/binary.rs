//! Binary and set operators with matching.

use super::Generator;
use crate::expr::{Expr, Piece, expr, optional};

const ARITHMETIC: [&str; 7] = ["+", "-", "*", "/", "%", "^", "atan2"];
const COMPARISON: [&str; 6] = ["==", "!=", "<", "<=", ">", ">="];

impl Generator<'_> {
    /// An operator, with `bool` now and then.
    fn operator(&mut self) -> String {
        match self.random.below(20) {
            // The last one, atan2, kept the metric name in old versions.
            0..=10 if self.dialect.closed_windows() => self.random.pick(&ARITHMETIC[..6]).to_owned(),
            0..=10 => self.random.pick(&ARITHMETIC).to_owned(),
            11..=18 => {
                let op = self.random.pick(&COMPARISON);
                format!("{op}{}", if self.random.chance(40) { " bool" } else { "" })
            }
            _ if self.dialect.native => self.random.pick(&["</", ">/"]).to_owned(),
            _ => "+".to_owned(),
        }
    }

    /// A vector as an operand: in parentheses, mostly.
    fn operand(&mut self, e: Expr) -> Expr {
        if self.random.chance(85) { expr!(Vector; "(", e, ")") } else { e }
    }

    /// Arithmetic or a comparison.
    pub(super) fn binary(&mut self, depth: usize) -> Expr {
        let op = self.operator();
        if self.random.chance(40) {
            let (v, s) = (self.vector(depth - 1), self.scalar(depth - 1));
            let (v, s) = (self.operand(v), expr!(Scalar; "(", s, ")"));
            return match self.random.chance(65) {
                true => expr!(Vector; v, format!(" {op} "), s),
                false => expr!(Vector; s, format!(" {op} "), v),
            };
        }
        let (left, matching, right) = self.pair(depth);
        let fill = self.fill();
        let (left, right) = (self.operand(left), self.operand(right));
        expr!(Vector; left, format!(" {op} "), matching, fill, right)
    }

    fn fill(&mut self) -> Piece {
        if !self.dialect.has("promql-binop-fill-modifiers") || self.random.chance(60) {
            return Piece::Text(String::new());
        }
        let n = self.number();
        optional(match self.random.below(4) {
            0 => format!("fill_left({n}) "),
            1 => format!("fill_right({n}) "),
            2 => format!("fill_left({n}) fill_right(1) "),
            _ => format!("fill({n}) "),
        })
    }

    /// Two sides that fit, mostly, and how to match them.
    fn pair(&mut self, depth: usize) -> (Expr, Piece, Expr) {
        match self.random.below(10) {
            // The same labels on both sides.
            0..=2 => {
                let left = self.vector(depth - 1);
                let right = left.clone();
                let right = match self.random.below(3) {
                    0 => right,
                    1 => expr!(Vector; "abs(", right, ")"),
                    _ => expr!(Vector; right, " * 2"),
                };
                (left, Piece::Text(String::new()), right)
            }
            // Many to one, against a sum by the labels that are matched.
            3..=5 => {
                let labels = self.random.pick(&["job", "instance", "job, instance", "job, method"]);
                let one = expr!(Vector; self.random.pick(&["sum", "max", "count", "avg"]), format!(" by ({labels}) ("), self.vector(depth - 1), ")");
                let many = self.vector(depth - 1);
                match self.random.chance(70) {
                    true => (many, format!("on({labels}) group_left ").into(), one),
                    false => (one, format!("on({labels}) group_right() ").into(), many),
                }
            }
            // Against an info metric, taking a label over.
            6 => {
                let many = self.vector(depth - 1);
                let (info, label) = *self.random.pick_one(&[
                    ("build_info", "version"),
                    ("target_info", "region"),
                    ("build_info", "version, nowhere"),
                ]);
                (many, format!("on(job, instance) group_left({label}) ").into(), expr!(Vector; info))
            }
            // Anything.
            _ => {
                let (left, right) = (self.vector(depth - 1), self.vector(depth - 1));
                let list = self.label_list();
                let matching = match self.random.below(6) {
                    0 => String::new(),
                    1 => format!("on({list}) "),
                    2 => format!("ignoring({list}) "),
                    3 => format!("on({list}) group_left "),
                    4 => format!("ignoring({list}) group_right "),
                    _ => format!("ignoring({list}) group_left(version) "),
                };
                (left, optional(matching), right)
            }
        }
    }

    /// `and`, `or`, `unless`.
    pub(super) fn set_operation(&mut self, depth: usize) -> Expr {
        let op = self.random.pick(&["and", "or", "unless"]);
        let (left, right) = (self.vector(depth - 1), self.vector(depth - 1));
        let list = self.label_list();
        let matching = match self.random.below(3) {
            0 => String::new(),
            1 => format!("on({list}) "),
            _ => format!("ignoring({list}) "),
        };
        let (left, right) = (self.operand(left), self.operand(right));
        expr!(Vector; left, format!(" {op} "), optional(matching), right)
    }
}
