//! Printing: the text of an expression in upstream's form, from which parsing gets the same tree.
//!
//! Works with a list of its own rather than by recursion, since a chain of operators is a deep tree.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use chronolith_model::{METRIC_NAME, MatchOp, format_duration_ms, is_legacy_label_name, write_go_quoted};

use super::ast::{
    Aggregate, Ast, At, Binary, Cardinality, DurationId, DurationKind, ExprId, NodeKind, Subquery,
    VectorMatching, VectorSelector,
};
use super::ops::UnaryOp;
use super::token::TokenKind;

impl fmt::Display for Ast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text(self.root()))
    }
}

/// What is still to be printed; the last one first.
enum Piece<'a> {
    Expr(ExprId),
    Text(Cow<'a, str>),
    /// The expression is complete.
    Done(ExprId),
}

impl Ast {
    /// The text of the expression `id`.
    pub fn to_text(&self, id: ExprId) -> String {
        let mut out = String::new();
        self.write_expr(id, &mut out, |_, _| {});
        out
    }

    /// Appends the text of `root`; `done` hears of each expression when it is complete: at that time its text ends
    /// where `out` ends. Expressions complete children first.
    pub(super) fn write_expr(&self, root: ExprId, out: &mut String, mut done: impl FnMut(ExprId, &str)) {
        let mut pieces = vec![Piece::Expr(root)];
        while let Some(piece) = pieces.pop() {
            match piece {
                Piece::Text(text) => out.push_str(&text),
                Piece::Done(id) => done(id, out),
                Piece::Expr(id) => {
                    pieces.push(Piece::Done(id));
                    self.split(id, &mut pieces, out);
                }
            }
        }
    }

    /// Prints what comes before the first child, and puts the rest on the list.
    fn split<'a>(&'a self, id: ExprId, pieces: &mut Vec<Piece<'a>>, out: &mut String) {
        let text = |s: &'static str| Piece::Text(Cow::Borrowed(s));
        match self.kind(id) {
            NodeKind::Number { value, duration } => write_number(out, *value, *duration),
            NodeKind::String(bytes) => write_go_quoted(out, bytes),
            NodeKind::VectorSelector(selector) => {
                self.write_name_and_matchers(selector, out);
                write_at(out, selector.at);
                out.push_str(extended(selector));
                self.write_offset(selector.original_offset_ms, selector.original_offset_expr, out);
            }
            NodeKind::MatrixSelector(matrix) => {
                let Some(selector) = self.vector_selector(matrix.selector) else { return };
                self.write_name_and_matchers(selector, out);
                out.push('[');
                self.write_range(matrix.range_ms, matrix.range_expr, out);
                out.push(']');
                out.push_str(extended(selector));
                write_at(out, selector.at);
                self.write_offset(selector.original_offset_ms, selector.original_offset_expr, out);
            }
            NodeKind::Subquery(subquery) => {
                pieces.push(Piece::Text(self.subquery_suffix(subquery).into()));
                pieces.push(Piece::Expr(subquery.expr));
            }
            NodeKind::Paren(inner) => {
                out.push('(');
                pieces.extend([text(")"), Piece::Expr(*inner)]);
            }
            NodeKind::Unary { op, expr } => {
                out.push_str(op.as_str());
                pieces.push(Piece::Expr(*expr));
            }
            NodeKind::Binary(binary) => {
                pieces.push(Piece::Expr(binary.rhs));
                pieces.push(Piece::Text(format!(" {} ", operator_text(binary)).into()));
                pieces.push(Piece::Expr(binary.lhs));
            }
            NodeKind::Call(call) => {
                out.push_str(call.func.name);
                out.push('(');
                pieces.push(text(")"));
                for (i, arg) in call.args.iter().enumerate().rev() {
                    pieces.push(Piece::Expr(*arg));
                    if i > 0 {
                        pieces.push(text(", "));
                    }
                }
            }
            NodeKind::Aggregate(aggregate) => {
                out.push_str(&aggregate_text(aggregate));
                out.push('(');
                pieces.extend([text(")"), Piece::Expr(aggregate.expr)]);
                if let Some(param) = aggregate.param {
                    pieces.extend([text(", "), Piece::Expr(param)]);
                }
            }
        }
    }

    fn write_name_and_matchers(&self, selector: &VectorSelector, out: &mut String) {
        out.push_str(&selector.name);
        let mut matchers: Vec<String> = selector
            .matchers
            .iter()
            .filter(|m| {
                // The name before the braces says it already.
                let is_name = m.name == METRIC_NAME && m.op == MatchOp::Equal;
                !(is_name && m.value == selector.name && !m.value.is_empty())
            })
            .map(ToString::to_string)
            .collect();
        if matchers.is_empty() && !selector.name.is_empty() {
            return;
        }
        matchers.sort_unstable();
        out.push('{');
        out.push_str(&matchers.join(","));
        out.push('}');
    }

    fn write_range(&self, ms: i64, expr: Option<DurationId>, out: &mut String) {
        match expr {
            Some(expr) => self.write_duration(expr, out),
            None => out.push_str(&format_duration_ms(ms)),
        }
    }

    fn write_offset(&self, ms: i64, expr: Option<DurationId>, out: &mut String) {
        if expr.is_some() || ms != 0 {
            out.push_str(" offset ");
            self.write_range(ms, expr, out);
        }
    }

    /// `[5m:1m] @ 1.000 offset 5m`
    pub(crate) fn subquery_suffix(&self, subquery: &Subquery) -> String {
        let mut out = String::from("[");
        self.write_range(subquery.range_ms, subquery.range_expr, &mut out);
        out.push(':');
        if subquery.step_ms != 0 || subquery.step_expr.is_some() {
            self.write_range(subquery.step_ms, subquery.step_expr, &mut out);
        }
        out.push(']');
        write_at(&mut out, subquery.at);
        self.write_offset(subquery.original_offset_ms, subquery.original_offset_expr, &mut out);
        out
    }

    /// Duration expressions are shallow by construction, so recursion will do.
    fn write_duration(&self, id: DurationId, out: &mut String) {
        let node = self.duration(id);
        if node.wrapped {
            out.push('(');
        }
        match node.kind {
            DurationKind::Number { value, duration } => write_number(out, value, duration),
            DurationKind::Step => out.push_str("step()"),
            DurationKind::Range => out.push_str("range()"),
            DurationKind::Unary(op, x) => {
                if op == UnaryOp::Minus {
                    out.push('-');
                }
                self.write_duration(x, out);
            }
            DurationKind::Binary(op, x, y) => {
                self.write_duration(x, out);
                write!(out, " {op} ").expect("writing to a string");
                self.write_duration(y, out);
            }
            DurationKind::MinOf(x, y) | DurationKind::MaxOf(x, y) => {
                let min = matches!(node.kind, DurationKind::MinOf(..));
                out.push_str(if min { "min_of(" } else { "max_of(" });
                self.write_duration(x, out);
                out.push_str(", ");
                self.write_duration(y, out);
                out.push(')');
            }
        }
        if node.wrapped {
            out.push(')');
        }
    }

    /// The text of a duration expression.
    pub fn duration_text(&self, id: DurationId) -> String {
        let mut out = String::new();
        self.write_duration(id, &mut out);
        out
    }
}

/// `sum by (a, b) `, up to the parenthesis of the arguments.
pub(crate) fn aggregate_text(aggregate: &Aggregate) -> String {
    let mut out = aggregate.op.as_str().to_owned();
    if aggregate.without || !aggregate.grouping.is_empty() {
        out.push_str(if aggregate.without { " without (" } else { " by (" });
        write_labels(&mut out, &aggregate.grouping);
        out.push_str(") ");
    }
    out
}

/// `+ on (a) group_left (b)`: an operator and its modifiers.
pub(crate) fn operator_text(binary: &Binary) -> String {
    let mut out = binary.op.as_str().to_owned();
    if binary.return_bool {
        out.push_str(" bool");
    }
    if let Some(matching) = &binary.matching {
        write_matching(&mut out, matching);
    }
    out
}

fn write_matching(out: &mut String, matching: &VectorMatching) {
    let group = match matching.card {
        Cardinality::ManyToOne => Some(" group_left ("),
        Cardinality::OneToMany => Some(" group_right ("),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if !matching.labels.is_empty() || matching.on || group.is_some() {
        out.push_str(if matching.on { " on (" } else { " ignoring (" });
        write_labels(out, &matching.labels);
        out.push(')');
    }
    if let Some(group) = group {
        out.push_str(group);
        write_labels(out, &matching.include);
        out.push(')');
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left == right => {
            out.push_str(&format!(" fill ({})", shortest(left)));
        }
        (left, right) => {
            if let Some(left) = left {
                out.push_str(&format!(" fill_left ({})", shortest(left)));
            }
            if let Some(right) = right {
                out.push_str(&format!(" fill_right ({})", shortest(right)));
            }
        }
    }
}

fn write_labels(out: &mut String, labels: &[String]) {
    for (i, label) in labels.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        // `without`, `inf` and `nan` are the words that are no label where they stand without quotes.
        let bare = is_legacy_label_name(label)
            && TokenKind::keyword(label.as_bytes()).is_none_or(TokenKind::is_grouping_label);
        if bare {
            out.push_str(label);
        } else {
            write_go_quoted(out, label.as_bytes());
        }
    }
}

fn extended(selector: &VectorSelector) -> &'static str {
    match (selector.anchored, selector.smoothed) {
        (true, _) => " anchored",
        (false, true) => " smoothed",
        (false, false) => "",
    }
}

fn write_at(out: &mut String, at: Option<At>) {
    match at {
        None => {}
        Some(At::Start) => out.push_str(" @ start()"),
        Some(At::End) => out.push_str(" @ end()"),
        Some(At::Timestamp(ms)) => {
            out.push_str(" @ ");
            out.push_str(&fixed(ms as f64 / 1000.0, 3));
        }
    }
}

fn write_number(out: &mut String, value: f64, duration: bool) {
    if duration {
        out.push_str(&format_duration_ms((value * 1e9) as i64 / 1_000_000));
    } else {
        out.push_str(&number_text(value));
    }
}

/// A number without an exponent, as many digits as needed: Go's `'f', -1`.
pub(super) fn number_text(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { not_finite(value).to_owned() }
}

/// A number with this many digits after the point: Go's `%.3f`.
pub(super) fn fixed(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { not_finite(value).to_owned() }
}

/// A number in its shortest form, with an exponent where that is large: Go's `%v`.
fn shortest(value: f64) -> String {
    if !value.is_finite() {
        return not_finite(value).to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value == 0.0 || (-4..21).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

fn not_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "+Inf"
    } else {
        "-Inf"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (value, plain, short) in [
            (1.0, "1", "1"),
            (-0.5, "-0.5", "-0.5"),
            (1e21, "1000000000000000000000", "1e+21"),
            (1e20, "100000000000000000000", "100000000000000000000"),
            (0.00001, "0.00001", "1e-05"),
            (0.0001, "0.0001", "0.0001"),
            (f64::INFINITY, "+Inf", "+Inf"),
            (f64::NAN, "NaN", "NaN"),
            (-0.0, "-0", "-0"),
        ] {
            assert_eq!(number_text(value), plain);
            assert_eq!(shortest(value), short);
        }
    }
}
