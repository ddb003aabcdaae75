//! Aggregations, and what sorts.

use super::Generator;
use crate::expr::{Expr, expr, optional};

impl Generator<'_> {
    /// An aggregation.
    pub(super) fn aggregation(&mut self, depth: usize) -> Expr {
        const PLAIN: [&str; 8] = ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"];
        let inner = self.vector(depth - 1);
        let clause = match self.random.below(10) {
            0..=2 => String::new(),
            3..=7 => format!(" by ({})", self.label_list()),
            _ => format!(" without ({})", self.label_list()),
        };
        let clause = optional(clause);
        let op = match self.random.below(20) {
            0..=13 => {
                let op = self.random.pick(&PLAIN);
                return match self.random.chance(80) {
                    true => expr!(Vector; op, clause, " (", inner, ")"),
                    false => expr!(Vector; op, "(", inner, ")", clause),
                };
            }
            14..=15 => return self.k_aggregation(inner, clause, &["topk", "bottomk"], depth),
            16 if self.dialect.experimental() => {
                return self.k_aggregation(inner, clause, &["limitk", "limit_ratio"], depth);
            }
            16 | 17 => {
                let phi = self.parameter(&["0.5", "0.9", "0", "1", "0.25", "-1", "2", "NaN"], depth - 1);
                return expr!(Vector; "quantile", clause, "(", phi, ", ", inner, ")");
            }
            _ => "count_values",
        };
        let labels: &[&str] =
            if self.dialect.closed_windows() { &["value", "job"] } else { &["value", "job", "__name__"] };
        let label = self.random.pick(labels);
        expr!(Vector; op, clause, "(\"", label, "\", ", inner, ")")
    }

    fn k_aggregation(&mut self, inner: Expr, clause: crate::expr::Piece, ops: &[&str], depth: usize) -> Expr {
        let op = self.random.pick(ops);
        let constants: &[&str] = match op {
            "limit_ratio" => &["0.5", "-0.5", "0.1", "1", "0", "-0.9", "1.5"],
            _ => &["1", "2", "3", "10", "0", "-1", "2.7"],
        };
        let k = self.parameter(constants, depth - 1);
        expr!(Vector; op, clause, "(", k, ", ", inner, ")")
    }

    /// What puts a result in order.
    pub(super) fn sorted(&mut self, depth: usize) -> Expr {
        let inner = self.vector(depth);
        if self.dialect.experimental() && self.random.chance(50) {
            let f = self.random.pick(&["sort_by_label(", "sort_by_label_desc("]);
            let label = self.random.pick(&["job", "instance", "room", "nowhere"]);
            return expr!(Vector; f, inner, ", \"", label, "\")");
        }
        let f = self.random.pick(&["sort(", "sort_desc("]);
        expr!(Vector; f, inner, ")")
    }
}
