//! Finds selectors of whose histograms only count and sum are looked at: their buckets are dropped when they are read,
//! after each histogram was compared with the one before to tell counter resets.

use crate::parser::{Ast, BinaryOp, FunctionId, NodeKind};

/// By node: only statistics are needed.
pub(super) fn find(ast: &Ast) -> Vec<bool> {
    let mut out = vec![false; ast.len()];
    ast.walk(ast.root(), |id, path| {
        if matches!(ast.kind(id), NodeKind::VectorSelector(_)) {
            for above in path.iter().rev() {
                match ast.kind(*above) {
                    // The buckets are needed to tell resets between the steps.
                    NodeKind::Subquery(_) => {
                        out[id.index()] = false;
                        break;
                    }
                    NodeKind::Binary(b) if matches!(b.op, BinaryOp::TrimLower | BinaryOp::TrimUpper) => {
                        out[id.index()] = false;
                        break;
                    }
                    NodeKind::Call(call) => match call.func.id {
                        FunctionId::HistogramCount | FunctionId::HistogramSum | FunctionId::HistogramAvg => {
                            out[id.index()] = true
                        }
                        FunctionId::HistogramQuantile
                        | FunctionId::HistogramQuantiles
                        | FunctionId::HistogramFraction => {
                            out[id.index()] = false;
                            break;
                        }
                        _ => {}
                    },
                    _ => {}
                }
            }
        }
        true
    });
    out
}
