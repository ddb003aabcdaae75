//! Carries matchers over from one side of a match to the other: in `a{x="1"} / b` no series of `b` with another `x` finds a
//! partner, so that `b{x="1"}` does.
//!
//! Only where nothing but the reading changes. A match complains of two series of the "one" side that match the same; a
//! series that is not read cannot be complained of. So matchers cross a match only where the "one" side cannot have two
//! such series: it is aggregated by labels that are matched on, or all labels are matched on and there is one metric name.
//! Set operators complain of nothing. Annotations about series that are not read are not made.

use chronolith_model::Matcher;

use crate::functions::math;
use crate::parser::{
    Aggregate, AggregateOp, Ast, Binary, BinaryOp, Cardinality, ExprId, FunctionId, NodeKind, ValueType,
    VectorMatching,
};
use crate::plan::drops_metric_name;

/// Most matchers that are carried along, so that a long chain of operators is planned in time that grows with it.
const CARRIED_MAX: usize = 16;

/// By node: matchers that a selector's series may be restricted to besides its own.
pub(super) fn find(ast: &Ast, one_name: &[bool]) -> Vec<Vec<Matcher>> {
    let nothing = || vec![Vec::new(); ast.len()];
    let matches =
        |id| matches!(ast.kind(id), NodeKind::Binary(b) if b.matching.is_some() && b.op != BinaryOp::Or);
    if !ast.ids().any(matches) {
        return nothing();
    }
    let tree = Tree { ast, one_name };
    // Upwards: what holds for all series of a node's value.
    let mut holds: Vec<Vec<Matcher>> = nothing();
    for id in ast.ids() {
        let mut own = match ast.kind(id) {
            NodeKind::VectorSelector(s) => {
                s.matchers.iter().filter(|m| !drops_metric_name(&m.name)).cloned().collect()
            }
            _ => Vec::new(),
        };
        own.truncate(CARRIED_MAX);
        ast.kind(id).for_each_child(|child| {
            let up = holds[child.index()].iter().filter(|m| tree.shows(id, child, &m.name));
            add(&mut own, up);
        });
        holds[id.index()] = own;
    }
    // Downwards: what the nodes above do not look beyond.
    let mut wanted: Vec<Vec<Matcher>> = nothing();
    for id in ast.ids().rev() {
        let own = std::mem::take(&mut wanted[id.index()]);
        ast.kind(id).for_each_child(|child| {
            let mut below: Vec<Matcher> = Vec::new();
            add(&mut below, own.iter().filter(|m| tree.narrows(id, child, &m.name)));
            if let NodeKind::Binary(b) = ast.kind(id)
                && tree.tells(b, child)
            {
                let other = if child == b.lhs { b.rhs } else { b.lhs };
                let told = holds[other.index()].iter();
                add(&mut below, told.filter(|m| tree.narrows(id, child, &m.name) && is_matched(b, &m.name)));
            }
            add(&mut wanted[child.index()], below.iter());
        });
        if let NodeKind::VectorSelector(s) = ast.kind(id) {
            wanted[id.index()] = own.into_iter().filter(|m| !s.matchers.contains(m)).collect();
        }
    }
    wanted
}

fn add<'m>(to: &mut Vec<Matcher>, more: impl Iterator<Item = &'m Matcher>) {
    for m in more {
        if to.len() < CARRIED_MAX && !to.contains(m) {
            to.push(m.clone());
        }
    }
}

/// True when two series that match have the same value of this label.
fn is_matched(b: &Binary, label: &str) -> bool {
    b.matching.as_ref().is_some_and(|m| matched(m, label))
}

fn matched(m: &VectorMatching, label: &str) -> bool {
    m.labels.iter().any(|l| l == label) == m.on
}

/// Aggregations that keep series of their input.
fn selects(op: AggregateOp) -> bool {
    matches!(op, AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio)
}

fn groups_by(a: &Aggregate, label: &str) -> bool {
    a.grouping.iter().any(|g| g == label) != a.without
}

struct Tree<'a> {
    ast: &'a Ast,
    one_name: &'a [bool],
}

impl Tree<'_> {
    /// True when a call's value has, series by series, the labels of its argument.
    fn keeps_labels(&self, id: FunctionId, argument: ExprId, label: &str) -> bool {
        use FunctionId::*;
        match self.ast.value_type(argument) {
            ValueType::Matrix => id != AbsentOverTime,
            ValueType::Vector => match id {
                HistogramQuantile | HistogramFraction => label != "le",
                HistogramCount | HistogramSum | HistogramAvg | HistogramStddev | HistogramStdvar => true,
                Round | Clamp | ClampMin | ClampMax | Timestamp => true,
                _ => math::unary(id).is_some() || math::date(id).is_some(),
            },
            _ => false,
        }
    }

    /// True when each series of a node's value has this label from a series of the child.
    fn shows(&self, id: ExprId, child: ExprId, label: &str) -> bool {
        match self.ast.kind(id) {
            NodeKind::Paren(_) | NodeKind::Unary { .. } => true,
            NodeKind::MatrixSelector(_) | NodeKind::Subquery(_) => true,
            NodeKind::Call(call) => self.keeps_labels(call.func.id, child, label),
            NodeKind::Aggregate(a) if child != a.expr || a.op == AggregateOp::CountValues => false,
            NodeKind::Aggregate(a) => selects(a.op) || groups_by(a, label),
            NodeKind::Binary(b) => self.binary_shows(b, child, label),
            NodeKind::Number { .. } | NodeKind::String(_) | NodeKind::VectorSelector(_) => false,
        }
    }

    fn binary_shows(&self, b: &Binary, child: ExprId, label: &str) -> bool {
        let Some(m) = &b.matching else { return self.ast.value_type(child) == ValueType::Vector };
        match b.op {
            BinaryOp::Or => false,
            BinaryOp::And => child == b.lhs || matched(m, label),
            BinaryOp::Unless => child == b.lhs,
            _ => fills_nothing(m) && matched(m, label) && !m.include.iter().any(|l| l == label),
        }
    }

    /// True when taking series with certain values of this label off a node's value is the same as taking them off the
    /// child's.
    fn narrows(&self, id: ExprId, child: ExprId, label: &str) -> bool {
        match self.ast.kind(id) {
            NodeKind::Paren(_) | NodeKind::MatrixSelector(_) | NodeKind::Subquery(_) => true,
            // Taking names off complains of series that become the same.
            NodeKind::Unary { .. } => self.one_name[child.index()],
            // Smoothing complains of factors that are wrong, once there is a series.
            NodeKind::Call(call) => {
                call.func.id != FunctionId::DoubleExponentialSmoothing
                    && self.one_name[child.index()]
                    && self.keeps_labels(call.func.id, child, label)
            }
            NodeKind::Aggregate(a) => {
                child == a.expr
                    && a.op != AggregateOp::CountValues
                    && (groups_by(a, label) || a.op == AggregateOp::LimitRatio)
            }
            NodeKind::Binary(b) => {
                let Some(m) = &b.matching else {
                    return self.ast.value_type(child) == ValueType::Vector && self.one_name[child.index()];
                };
                match b.op {
                    BinaryOp::Or => matched(m, label),
                    BinaryOp::And | BinaryOp::Unless => child == b.lhs || matched(m, label),
                    _ => {
                        fills_nothing(m)
                            && matched(m, label)
                            && !m.include.iter().any(|l| l == label)
                            && self.complains_never(b, m)
                    }
                }
            }
            NodeKind::Number { .. } | NodeKind::String(_) | NodeKind::VectorSelector(_) => false,
        }
    }

    /// True when what holds for the other side's series may restrict this side.
    fn tells(&self, b: &Binary, child: ExprId) -> bool {
        match (&b.matching, b.op) {
            (None, _) | (_, BinaryOp::Or) => false,
            (_, BinaryOp::And) => true,
            (_, BinaryOp::Unless) => child == b.rhs,
            (Some(m), _) => fills_nothing(m) && self.complains_never(b, m),
        }
    }

    /// True when the "one" side cannot have two series that match the same.
    fn complains_never(&self, b: &Binary, m: &VectorMatching) -> bool {
        let mut one = if m.card == Cardinality::OneToMany { b.lhs } else { b.rhs };
        if !m.on && m.labels.is_empty() {
            return self.one_name[one.index()];
        }
        loop {
            one = match self.ast.kind(one) {
                NodeKind::Paren(inner) => *inner,
                NodeKind::Unary { expr, .. } => *expr,
                NodeKind::Binary(b) if b.matching.is_none() => {
                    if self.ast.value_type(b.lhs) == ValueType::Vector { b.lhs } else { b.rhs }
                }
                NodeKind::Aggregate(a) if selects(a.op) => a.expr,
                NodeKind::Aggregate(a) if a.op == AggregateOp::CountValues => return false,
                NodeKind::Aggregate(a) if a.without => {
                    return !m.on && m.labels.iter().all(|l| a.grouping.contains(l));
                }
                NodeKind::Aggregate(a) => {
                    return a.grouping.iter().all(|g| matched(m, g) && !drops_metric_name(g));
                }
                _ => return false,
            };
        }
    }
}

/// True when a match can complain of two series that match the same.
pub(super) fn may_complain(ast: &Ast, one_name: &[bool], b: &Binary) -> bool {
    let Some(matching) = &b.matching else { return false };
    !b.op.is_set() && !Tree { ast, one_name }.complains_never(b, matching)
}

fn fills_nothing(m: &VectorMatching) -> bool {
    m.fill_left.is_none() && m.fill_right.is_none()
}

#[cfg(test)]
mod tests {
    use crate::plan::tests::plan;

    /// What each selector reads, in the order of the query.
    fn reads(query: &str) -> String {
        let plan = plan(query);
        let reads = plan.reads.iter().flatten().map(|read| {
            let mut all: Vec<String> =
                plan.sources[read.source].matchers.iter().map(|m| m.to_string()).collect();
            all.sort();
            all.join(",").replace("__name__=", "").replace('"', "")
        });
        reads.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn matchers_cross_matches_that_cannot_complain() {
        for (query, want) in [
            ("a{x='1'} / b", "a,x=1 b,x=1"),
            ("rate(a[5m]) / rate(b{x=~'1|2'}[5m])", "a,x=~1|2 b,x=~1|2"),
            ("a{x='1',y='2'} * on (x) group_left sum by (x) (b)", "a,x=1,y=2 b,x=1"),
            ("sum by (x, y) (a{x='1',z='3'}) > ignoring (y) group_left sum by (x) (b)", "a,x=1,z=3 b,x=1"),
            ("sum by (x) (b) * on (x) group_right a{x='1'}", "b,x=1 a,x=1"),
            ("a{x='1'} and on (x) b{y='2'}", "a,x=1 b,x=1,y=2"),
            ("a unless b{x='1'}", "a b,x=1"),
            ("a{x='1'} unless b", "a,x=1 b,x=1"),
            ("a{x='1'} and (b or c)", "a,x=1 b,x=1 c,x=1"),
            ("a{x='1'} + b + c", "a,x=1 b,x=1 c,x=1"),
            ("-a{x='1'} / (max_over_time(b[5m:1m]) * 2)", "a,x=1 b,x=1"),
            ("a{x='1'} and topk by (x) (1, b)", "a,x=1 b,x=1"),
            ("a{x!=''} / b", "a,x!= b,x!="),
            // It complains of its factors only where it has a series.
            ("a{x='1'} / double_exponential_smoothing(b[5m], 2, 0.5)", "a,x=1 b"),
        ] {
            assert_eq!(reads(query), want, "{query}");
        }
    }

    #[test]
    fn what_could_change_a_result_stays_where_it_is() {
        for query in [
            // Two series of `b` could match the same.
            "a{x='1'} * on (x) group_left b",
            "a{x='1'} / ignoring (y) b",
            "a{x='1'} / {n=~'b|c'}",
            "a{x='1'} * on (x) group_left sum by (x, y) (b)",
            // The label is not matched, or comes from elsewhere.
            "a{y='1'} * on (x) group_left sum by (x) (b)",
            "a{x='1'} / ignoring (x) sum without (x) (b)",
            "a{x='1'} or b",
            "a{x='1'} / label_replace(b, 'x', '1', 'y', '.*')",
            "a{x='1'} and absent(b)",
            "a{x='1'} and topk(1, b)",
            "a{x='1'} / sum(b)",
            "a{x='1'} and count_values('x', b)",
            "a{x='1'} * scalar(b)",
            "a{le='1'} / histogram_quantile(0.9, b)",
        ] {
            let plan = plan(query);
            let added: usize = plan.sources.iter().map(|s| s.matchers.len()).sum();
            let written: usize =
                plan.ast.ids().filter_map(|id| plan.ast.vector_selector(id)).map(|s| s.matchers.len()).sum();
            assert_eq!(added, written, "{query}: {}", reads(query));
        }
    }
}
