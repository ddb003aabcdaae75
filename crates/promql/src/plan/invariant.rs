//! Finds the largest parts of a query whose value is the same at every step, so that they are evaluated once.

use crate::parser::{Ast, ExprId, FunctionId, NodeKind};

/// Whether a node is step-invariant, and whether evaluating it once is worth the while (or allowed at all: a range
/// selector's value is not a row of steps).
#[derive(Clone, Copy, Default)]
struct Invariance {
    invariant: bool,
    wrap: bool,
}

const BOTH: Invariance = Invariance { invariant: true, wrap: true };

/// By node: evaluate it once.
pub(super) fn find(ast: &Ast) -> Vec<bool> {
    let mut states = vec![Invariance::default(); ast.len()];
    let mut once = vec![false; ast.len()];
    for id in ast.ids() {
        states[id.index()] = match ast.kind(id) {
            NodeKind::Number { .. } | NodeKind::String(_) => Invariance { invariant: true, wrap: false },
            NodeKind::VectorSelector(s) => {
                let fixed = s.timestamp_ms.is_some();
                Invariance { invariant: fixed, wrap: fixed }
            }
            NodeKind::MatrixSelector(m) => {
                Invariance { invariant: states[m.selector.index()].invariant, wrap: false }
            }
            NodeKind::Subquery(s) => {
                if states[s.expr.index()].invariant {
                    once[s.expr.index()] = true;
                }
                Invariance { invariant: s.timestamp_ms.is_some(), wrap: false }
            }
            NodeKind::Paren(inner) => states[inner.index()],
            NodeKind::Unary { expr, .. } => states[expr.index()],
            // As upstream, the parameter is not looked at.
            NodeKind::Aggregate(a) => states[a.expr.index()],
            NodeKind::Binary(b) => combine(&states, &mut once, &[b.lhs, b.rhs], true),
            NodeKind::Call(call) => {
                let on_fixed_selector = call.func.id == FunctionId::Timestamp
                    && call.args.iter().all(|a| {
                        states[a.index()].invariant
                            && matches!(ast.kind(ast.unwrap_parens(*a)), NodeKind::VectorSelector(_))
                    });
                if on_fixed_selector {
                    BOTH
                } else {
                    combine(&states, &mut once, &call.args, !depends_on_time(call.func.id))
                }
            }
        };
    }
    let root = ast.root().index();
    once[root] |= states[root].wrap;
    once
}

/// The state of a node of these children: all of them invariant, or those that are become evaluated once.
fn combine(states: &[Invariance], once: &mut [bool], children: &[ExprId], safe: bool) -> Invariance {
    if safe && children.iter().all(|c| states[c.index()].invariant) {
        return BOTH;
    }
    for child in children {
        once[child.index()] |= states[child.index()].wrap;
    }
    Invariance::default()
}

/// Functions whose value changes with the evaluation time though their arguments do not.
pub(crate) fn depends_on_time(id: FunctionId) -> bool {
    use FunctionId::*;
    matches!(
        id,
        DaysInMonth
            | DayOfMonth
            | DayOfWeek
            | DayOfYear
            | End
            | Hour
            | Minute
            | Month
            | Year
            | PredictLinear
            | Range
            | Start
            | Step
            | Time
            | Timestamp
    )
}
