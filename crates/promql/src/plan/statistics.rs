//! Finds selectors of whose histograms only count and sum are looked at: their buckets are dropped when they are read,
//! after each histogram was compared with the one before to tell counter resets.

use crate::parser::{Ast, FunctionId, NodeKind};

/// What the nodes above say.
#[derive(Clone, Copy, PartialEq)]
enum Need {
    /// Nothing: whole histograms.
    Unknown,
    /// Some node takes statistics only, none needs buckets.
    Statistics,
    /// Some node needs buckets.
    Buckets,
}

/// By node: only statistics are needed.
pub(super) fn find(ast: &Ast) -> Vec<bool> {
    let mut needs = vec![Need::Unknown; ast.len()];
    for id in ast.ids().rev() {
        let need = needs[id.index()];
        let below = match ast.kind(id) {
            _ if need == Need::Buckets => need,
            // Resets between the steps of a subquery are told by the buckets.
            NodeKind::Subquery(_) => Need::Buckets,
            NodeKind::Binary(b) if b.op.is_trim() => Need::Buckets,
            NodeKind::Call(call) => match call.func.id {
                FunctionId::HistogramCount | FunctionId::HistogramSum | FunctionId::HistogramAvg => {
                    Need::Statistics
                }
                FunctionId::HistogramQuantile
                | FunctionId::HistogramQuantiles
                | FunctionId::HistogramFraction => Need::Buckets,
                _ => need,
            },
            _ => need,
        };
        ast.kind(id).for_each_child(|child| needs[child.index()] = below);
    }
    needs.into_iter().map(|n| n == Need::Statistics).collect()
}
