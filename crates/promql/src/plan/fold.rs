//! Folds what is a number before any data is read: `start()` and its kin, arithmetic on numbers.

use crate::functions::binary;
use crate::parser::{Ast, ExprId, FunctionId, NodeKind, UnaryOp, ValueType};
use crate::plan::PlanTimes;

/// Replaces `start()`, `end()`, `range()` and `step()` by their values.
pub(super) fn query_context_functions(ast: &mut Ast, times: &PlanTimes) {
    for id in ast.ids() {
        let NodeKind::Call(call) = ast.kind(id) else { continue };
        let milliseconds = match call.func.id {
            FunctionId::Start => times.start,
            FunctionId::End => times.end,
            FunctionId::Range => times.end - times.start,
            FunctionId::Step if times.start == times.end => 0,
            FunctionId::Step => times.step_ms,
            _ => continue,
        };
        set_number(ast, id, milliseconds as f64 / 1000.0);
    }
}

/// Replaces arithmetic on numbers by its result.
pub(super) fn constants(ast: &mut Ast) {
    for id in ast.ids() {
        if ast.value_type(id) != ValueType::Scalar {
            continue;
        }
        let folded = match ast.kind(id) {
            // What no numbers have fails when it is evaluated.
            NodeKind::Binary(b) if b.op.is_trim() => None,
            NodeKind::Binary(b) => match (number(ast, b.lhs), number(ast, b.rhs)) {
                (Some(lhs), Some(rhs)) => Some(binary::scalars(b.op, lhs, rhs)),
                _ => None,
            },
            NodeKind::Unary { op: UnaryOp::Minus, expr } => number(ast, *expr).map(|v| -v),
            NodeKind::Unary { op: UnaryOp::Plus, expr } => number(ast, *expr),
            NodeKind::Call(call) if call.func.id == FunctionId::Pi => Some(std::f64::consts::PI),
            _ => None,
        };
        if let Some(value) = folded {
            set_number(ast, id, value);
        }
    }
}

fn number(ast: &Ast, id: ExprId) -> Option<f64> {
    match ast.kind(ast.unwrap_parens(id)) {
        NodeKind::Number { value, .. } => Some(*value),
        _ => None,
    }
}

fn set_number(ast: &mut Ast, id: ExprId, value: f64) {
    ast.node_mut(id).kind = NodeKind::Number { value, duration: false };
}
