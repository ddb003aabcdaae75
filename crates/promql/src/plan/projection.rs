//! Finds selectors of whose labels an aggregation looks at some only: a remote store need not send the others.
//!
//! Between the aggregation and the selector each series must go its own way, whatever it is called: functions and operators with
//! a scalar do, matches and functions of labels do not. There must be one metric name, because taking names off complains of
//! series that become the same, which could not be told any more. The name and what goes with it stay: annotations speak of them.
//!
//! Series, and so groups, come in the order of the labels that are left. Nothing above the aggregation may show it: the choice of
//! `topk` and its kin among equals, `sort`, the duplicates that an error names.
//!
//! A sum is compensated, and the order in which series are added is that of the projected labels. It is the same for the same
//! data; where the exact sum lies between two floats, its last bit may be another than that of whole labels. Prometheus reads in
//! the order of its index, so that there is no order to agree with.

use chronolith_model::METRIC_NAME;

use crate::functions::math;
use crate::parser::{AggregateOp, Ast, ExprId, FunctionId, NodeKind, ValueType};
use crate::plan::propagate::may_complain;

/// By node: the labels of a selector that are looked at, sorted; `None` for all.
pub(super) fn find(ast: &Ast, one_name: &[bool]) -> Vec<Option<Vec<String>>> {
    let mut kept: Vec<Option<Vec<String>>> = vec![None; ast.len()];
    let mut ordered = vec![false; ast.len()];
    for id in ast.ids().rev() {
        let own = kept[id.index()].take();
        let order_shows = ordered[id.index()];
        let shows_below = order_shows || shows_order(ast, one_name, ast.kind(id));
        ast.kind(id).for_each_child(|child| ordered[child.index()] = shows_below);
        match ast.kind(id) {
            NodeKind::VectorSelector(_) => kept[id.index()] = own.filter(|_| one_name[id.index()]),
            NodeKind::Aggregate(a) if folds(a.op) && !a.without && !order_shows => {
                let name = [METRIC_NAME, "__type__", "__unit__"].map(str::to_owned);
                let mut keep: Vec<String> = a.grouping.iter().cloned().chain(name).collect();
                keep.sort_unstable();
                keep.dedup();
                kept[a.expr.index()] = Some(keep);
            }
            kind => {
                if let Some(keep) = own
                    && let Some(child) = one_by_one(ast, kind)
                {
                    kept[child.index()] = Some(keep);
                }
            }
        }
    }
    kept
}

/// Aggregations whose result has grouping labels only.
fn folds(op: AggregateOp) -> bool {
    !matches!(op, AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio)
}

/// True when a node's value, or its errors, tell in which order the series below came.
fn shows_order(ast: &Ast, one_name: &[bool], kind: &NodeKind) -> bool {
    use FunctionId::{Info, Sort, SortByLabel, SortByLabelDesc, SortDesc};
    match kind {
        NodeKind::Aggregate(a) => {
            matches!(a.op, AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk)
        }
        NodeKind::Call(call) => {
            matches!(call.func.id, Info | Sort | SortDesc | SortByLabel | SortByLabelDesc)
        }
        NodeKind::Binary(b) => may_complain(ast, one_name, b),
        _ => false,
    }
}

/// The child of which a node changes the series one by one, without looking at their labels.
pub(super) fn one_by_one(ast: &Ast, kind: &NodeKind) -> Option<ExprId> {
    match kind {
        NodeKind::Paren(e) | NodeKind::Unary { expr: e, .. } => Some(*e),
        NodeKind::MatrixSelector(m) => Some(m.selector),
        NodeKind::Subquery(s) => Some(s.expr),
        NodeKind::Binary(b) if b.matching.is_none() => {
            [b.lhs, b.rhs].into_iter().find(|e| ast.value_type(*e) == ValueType::Vector)
        }
        NodeKind::Call(call) => {
            let series = |e: &&ExprId| matches!(ast.value_type(**e), ValueType::Vector | ValueType::Matrix);
            let mut of_series = call.args.iter().filter(series);
            let only = of_series.next().copied().filter(|_| of_series.next().is_none())?;
            use FunctionId::*;
            let fits = match ast.value_type(only) {
                ValueType::Matrix => call.func.id != AbsentOverTime,
                _ => {
                    matches!(call.func.id, Round | Clamp | ClampMin | ClampMax | Timestamp)
                        || math::unary(call.func.id).is_some()
                        || math::date(call.func.id).is_some()
                }
            };
            fits.then_some(only)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::tests::plan;

    /// The labels kept of each read, `*` for all.
    fn kept(query: &str) -> String {
        let sources = plan(query).sources;
        let one = |keep: &Option<Vec<String>>| match keep {
            None => "*".to_owned(),
            Some(keep) => keep.iter().filter(|l| !l.starts_with("__")).cloned().collect::<Vec<_>>().join(","),
        };
        sources.iter().map(|s| one(&s.hints.keep_labels)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_an_aggregation_looks_at_is_kept() {
        for (query, want) in [
            ("sum by (x, y) (rate(a[5m]))", "x,y"),
            ("count(a)", ""),
            ("max by (x) (-abs(a) * 2 > bool 3)", "x"),
            ("quantile by (x) (0.9, max_over_time(rate(a[5m])[1h:]))", "x"),
            ("histogram_quantile(0.9, sum by (le) (rate(a[5m])))", "le"),
            ("sum by (x) (sum by (x, y) (a))", "x,y"),
            ("sum by (x) (a) / on (x) group_right sum by (x, y) (b)", "x,y x"),
            ("topk(3, sum by (x) (a))", "*"),
            ("sort(sum by (x) (a)) + 1", "*"),
            ("sum by (x, y) (a) * on (x) sum by (x, z) (b)", "* *"),
            ("sum by (x) (a) / sum by (x) (b)", "x x"),
            // One read for both, of which one looks at more.
            ("sum by (x) (a) / sum by (y) (a)", "*"),
            ("sum by (x) (a) + a", "*"),
            ("sum without (x) (a)", "*"),
            ("topk by (x) (3, a)", "*"),
            ("sum by (x) (a * on (y) b)", "* *"),
            ("sum by (x) (label_replace(a, 'x', '$1', 'y', '(.*)'))", "*"),
            ("sum by (x) (absent_over_time(a[5m]))", "*"),
            ("sum by (x) (rate({n=~'a|b'}[5m]))", "*"),
            ("sum by (x) (histogram_quantile(0.9, a))", "*"),
            ("sum by (x) (a + scalar(b))", "* x"),
        ] {
            assert_eq!(kept(query), want, "{query}");
        }
    }
}
