//! Knows where metric names matter: where all series carry the same one, removing it cannot make two series equal;
//! where an aggregation ignores it, it need not be removed.

use chronolith_model::{METRIC_NAME, MatchOp};

use crate::functions::math;
use crate::parser::{AggregateOp, Ast, BinaryOp, ExprId, FunctionId, NodeKind, ValueType, VectorMatching};

/// By node: all series have the same metric name (or none); the parent ignores the metric name.
pub(super) fn find(ast: &Ast) -> (Vec<bool>, Vec<bool>) {
    let mut one = vec![false; ast.len()];
    let mut unused = vec![false; ast.len()];
    for id in ast.ids() {
        one[id.index()] = match ast.kind(id) {
            NodeKind::Number { .. } | NodeKind::String(_) => true,
            NodeKind::VectorSelector(s) => {
                s.matchers.iter().any(|m| m.op == MatchOp::Equal && m.name == METRIC_NAME)
            }
            NodeKind::MatrixSelector(m) => one[m.selector.index()],
            NodeKind::Subquery(s) => one[s.expr.index()],
            NodeKind::Paren(e) | NodeKind::Unary { expr: e, .. } => one[e.index()],
            NodeKind::Aggregate(a) => {
                let keeps_input = matches!(
                    a.op,
                    AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio
                );
                if keeps_input {
                    one[a.expr.index()]
                } else {
                    let names = a.op == AggregateOp::CountValues
                        || (!a.without && a.grouping.iter().any(|g| is_metadata(g)));
                    if !names && !a.without {
                        let child_id = ast.unwrap_parens(a.expr);
                        let child = child_id.index();
                        unused[child] = one[child] && takes_one_name(ast, child_id, &one);
                    }
                    !names
                }
            }
            NodeKind::Binary(b) => match b.op {
                BinaryOp::And | BinaryOp::Unless => one[b.lhs.index()],
                BinaryOp::Or => false,
                op if op.is_comparison() => {
                    let vector = if ast.value_type(b.lhs) == ValueType::Vector { b.lhs } else { b.rhs };
                    // group_right and include may take names from the other side, and what is filled in stands under
                    // the labels of the side that is there.
                    let of_one_side = |m: &VectorMatching| {
                        m.include.is_empty() && m.fill_left.is_none() && m.fill_right.is_none()
                    };
                    b.matching.as_ref().is_none_or(of_one_side) && one[vector.index()] && one[b.rhs.index()]
                }
                _ => b.matching.as_ref().is_none_or(|m| m.include.is_empty()),
            },
            NodeKind::Call(call) => match call.func.id {
                FunctionId::LabelJoin | FunctionId::LabelReplace | FunctionId::Info => false,
                _ => call.args.iter().all(|a| one[a.index()]),
            },
        };
    }
    for id in ast.ids().rev().filter(|id| unused[id.index()]).collect::<Vec<_>>() {
        let mut below = id;
        while let Some(child) =
            mapped(ast, below).filter(|child| one[child.index()] && takes_one_name(ast, *child, &one))
        {
            unused[child.index()] = true;
            below = child;
        }
    }
    (one, unused)
}

/// The vector of which a node changes the values one by one.
fn mapped(ast: &Ast, id: ExprId) -> Option<ExprId> {
    use FunctionId::{Clamp, ClampMax, ClampMin, Round};
    match ast.kind(id) {
        NodeKind::Paren(e) | NodeKind::Unary { expr: e, .. } => Some(*e),
        NodeKind::Binary(b) if b.matching.is_none() => {
            [b.lhs, b.rhs].into_iter().find(|e| ast.value_type(*e) == ValueType::Vector)
        }
        NodeKind::Call(call) => {
            let map = matches!(call.func.id, Clamp | ClampMax | ClampMin | Round)
                || math::unary(call.func.id).is_some();
            call.args.first().copied().filter(|e| map && ast.value_type(*e) == ValueType::Vector)
        }
        _ => None,
    }
}

/// What a node works on has one name, so that taking it off makes no two series equal. Where it would, that is an error
/// which has to be found even if nobody looks at the names afterwards.
fn takes_one_name(ast: &Ast, id: ExprId, one: &[bool]) -> bool {
    match ast.kind(id) {
        NodeKind::Unary { expr, .. } => one[expr.index()],
        NodeKind::Binary(b) => one[b.lhs.index()] && one[b.rhs.index()],
        NodeKind::Call(call) => call.args.iter().all(|a| one[a.index()]),
        _ => true,
    }
}

fn is_metadata(name: &str) -> bool {
    matches!(name, METRIC_NAME | "__type__" | "__unit__")
}

/// True for labels that go with the metric name when it is dropped.
pub(crate) fn drops_metric_name(name: &str) -> bool {
    is_metadata(name)
}
