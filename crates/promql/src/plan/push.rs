//! Finds aggregations that may be folded where the series are: parts that are folded apart and combined are, bit for bit, the whole.
//!
//! That holds for `count`, `group`, `min` and `max`. A sum is compensated, and the compensation depends on where the parts were cut;
//! `quantile` and its kin need all values. Between the aggregation and its only selector each series must go its own way (as for
//! [`projection`](super::projection)), and no two of them may become the same, of which an error would tell.
//!
//! Reads that several selectors share are left alone: pushing would read what is read anyway.

use crate::parser::{AggregateOp, Ast, ExprId, NodeKind};
use crate::plan::projection::one_by_one;
use crate::plan::reads::{SelectorRead, Source};

/// By node: the selector of an aggregation that stores may fold.
pub(super) fn find(
    ast: &Ast,
    one_name: &[bool],
    reads: &[Option<SelectorRead>],
    sources: &[Source],
) -> Vec<Option<ExprId>> {
    let mut selectors = vec![0_usize; ast.len()];
    let mut pushed = vec![None; ast.len()];
    for id in ast.ids() {
        let mut below = usize::from(matches!(ast.kind(id), NodeKind::VectorSelector(_)));
        ast.kind(id).for_each_child(|child| below += selectors[child.index()]);
        selectors[id.index()] = below;
        let NodeKind::Aggregate(a) = ast.kind(id) else { continue };
        if below == 1 && is_exact(a.op) {
            pushed[id.index()] = selector_below(ast, one_name, a.expr).filter(|selector| {
                let read = reads[selector.index()].as_ref();
                read.is_some_and(|read| sources[read.source].uses == 1)
            });
        }
    }
    pushed
}

/// Whether parts of it combine to what the whole is. `min` and `max` leave one thing to their order, which of two zeros or of two
/// NaNs is kept; whoever combines parts looks at that.
pub(crate) fn is_exact(op: AggregateOp) -> bool {
    matches!(op, AggregateOp::Count | AggregateOp::Group | AggregateOp::Min | AggregateOp::Max)
}

fn selector_below(ast: &Ast, one_name: &[bool], mut id: ExprId) -> Option<ExprId> {
    let mut plain = true;
    loop {
        match ast.kind(id) {
            NodeKind::VectorSelector(_) => return (plain || one_name[id.index()]).then_some(id),
            kind => {
                plain &= matches!(kind, NodeKind::Paren(_));
                id = one_by_one(ast, kind)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::tests::plan;

    /// The aggregations that are pushed, as text.
    fn pushed(query: &str) -> String {
        let plan = plan(query);
        let found = plan.ast.ids().filter(|id| plan.pushed[id.index()].is_some());
        found.map(|id| plan.ast.to_text(id)).collect::<Vec<_>>().join(" ; ")
    }

    #[test]
    fn what_combines_exactly_is_pushed() {
        for (query, want) in [
            ("count(a)", "count(a)"),
            ("count by (__name__) ({x=\"1\"})", "count by (__name__) ({x=\"1\"})"),
            ("max by (x) (rate(a[5m]))", "max by (x) (rate(a[5m]))"),
            (
                "min without (x) (max_over_time(a[5m] offset 1h))",
                "min without (x) (max_over_time(a[5m] offset 1h))",
            ),
            ("group(-abs(a) * 2 > 3)", "group(-abs(a) * 2 > 3)"),
            ("max(max_over_time(rate(a[5m])[1h:]))", "max(max_over_time(rate(a[5m])[1h:]))"),
            ("sum(count by (x) (a)) / count(b == 0)", "count by (x) (a) ; count(b == 0)"),
            ("topk(3, max by (x) (a))", "max by (x) (a)"),
            ("max_over_time(count(a)[1h:1m])", "count(a)"),
            // Compensated, or all values are needed.
            ("sum(a) + avg(b) + stddev(c)", ""),
            ("quantile(0.5, a) + topk(1, b)", ""),
            ("count_values('x', a)", ""),
            // Series that meet, or are looked at together.
            ("count(a * on (x) b)", ""),
            ("count(a > scalar(b))", ""),
            ("count(sum by (x) (a))", ""),
            ("count(label_replace(a, 'x', '$1', 'y', '(.*)'))", ""),
            ("count(absent_over_time(a[5m]))", ""),
            ("count(histogram_quantile(0.9, a))", ""),
            ("count(rate({n=~'a|b'}[5m]))", ""),
            // Read once for both.
            ("count(a) / max(a)", ""),
        ] {
            assert_eq!(pushed(query), want, "{query}");
        }
    }
}
