//! Expressions of type scalar: one value a step, no labels.

use crate::engine::EngineError;
use crate::exec::{Exec, Grid, Result, STEPS_PLAIN};
use crate::functions::{binary, math};
use crate::memory::MemoryUse;
use crate::parser::{ExprId, FunctionId, NodeKind, UnaryOp};

impl<'a> Exec<'a> {
    /// Evaluates a scalar at all steps.
    pub(crate) fn scalar(&mut self, id: ExprId, grid: &Grid) -> Result<Vec<f64>> {
        self.check_grid(grid)?;
        match self.budget.profile.clone() {
            None => self.scalar_unmeasured(id, grid),
            Some(profile) => self.measured_scalar(profile, id, grid),
        }
    }

    #[inline(always)]
    pub(super) fn scalar_unmeasured(&mut self, id: ExprId, grid: &Grid) -> Result<Vec<f64>> {
        let plan = self.plan;
        // For the operand that a caller holds while it evaluates the other one.
        let mut held = self.held(MemoryUse::Vectors);
        if grid.count > STEPS_PLAIN {
            held.more(grid.count * 8)?;
        }
        if plan.once[id.index()] && grid.count > 1 {
            let around = std::mem::take(&mut self.counts);
            let first = self.scalar_node(id, &grid.first());
            let part = std::mem::replace(&mut self.counts, around);
            self.counts.append_once(&part, grid.count);
            let first = first?;
            return Ok(vec![first[0]; grid.count]);
        }
        self.scalar_node(id, grid)
    }

    fn scalar_node(&mut self, id: ExprId, grid: &Grid) -> Result<Vec<f64>> {
        let plan = self.plan;
        Ok(match plan.ast.kind(id) {
            NodeKind::Number { value, .. } => vec![*value; grid.count],
            NodeKind::String(_) => Vec::new(),
            NodeKind::Paren(inner) | NodeKind::Unary { op: UnaryOp::Plus, expr: inner } => {
                self.scalar(*inner, grid)?
            }
            NodeKind::Unary { op: UnaryOp::Minus, expr } => {
                let mut values = self.scalar(*expr, grid)?;
                values.iter_mut().for_each(|v| *v = -*v);
                values
            }
            NodeKind::Binary(b) => {
                let mut lhs = self.scalar(b.lhs, grid)?;
                let rhs = self.scalar(b.rhs, grid)?;
                if b.op.is_trim() {
                    let text = format!("operator \"{}\" not allowed for Scalar operations", b.op.as_str());
                    return Err(EngineError::Execution(text));
                }
                for (l, r) in lhs.iter_mut().zip(rhs) {
                    *l = binary::scalars(b.op, *l, r);
                }
                lhs
            }
            NodeKind::Call(call) => match call.func.id {
                FunctionId::Time => (0..grid.count).map(|i| grid.t(i) as f64 / 1000.0).collect(),
                FunctionId::Scalar => self.scalar_of(call.args[0], grid)?,
                FunctionId::MinOf | FunctionId::MaxOf => {
                    let mut a = self.scalar(call.args[0], grid)?;
                    let b = self.scalar(call.args[1], grid)?;
                    let pick = if call.func.id == FunctionId::MinOf { math::go_min } else { math::go_max };
                    for (a, b) in a.iter_mut().zip(b) {
                        *a = pick(*a, b);
                    }
                    a
                }
                _ => unreachable!("other functions of type scalar were folded into numbers"),
            },
            _ => unreachable!("not of type scalar"),
        })
    }

    /// `scalar(v)`: the value of the only float, NaN when there are none or several.
    fn scalar_of(&mut self, vector: ExprId, grid: &Grid) -> Result<Vec<f64>> {
        let mut values = vec![f64::NAN; grid.count];
        let mut counts = vec![0_u32; grid.count];
        self.vector(vector, grid, &mut |_, batch| {
            for row in batch.rows() {
                row.each(|i, v, h| {
                    if h.is_none() {
                        counts[i] = counts[i].saturating_add(1);
                        values[i] = if counts[i] == 1 { v } else { f64::NAN };
                    }
                });
            }
            Ok(())
        })?;
        Ok(values)
    }
}
