//! Evaluates duration expressions: `[5m * 2]`, `offset (step() + 1s)`.

use crate::engine::EngineError;
use crate::parser::{Ast, BinaryOp, DurationId, DurationKind, NodeKind, UnaryOp};
use crate::plan::PlanTimes;

/// Largest duration in seconds: what fits an `i64` of nanoseconds, which is upstream's bound.
const SECONDS_MAX: f64 = 9_223_372_036.854_776;

/// Puts the values of all duration expressions into their nodes.
pub(super) fn resolve(ast: &mut Ast, times: &PlanTimes) -> Result<(), EngineError> {
    // Upstream meets errors top-down; ids run bottom-up.
    for id in ast.ids().rev() {
        match ast.kind(id) {
            NodeKind::VectorSelector(s) => {
                let Some(expr) = s.original_offset_expr else { continue };
                let offset = milliseconds(ast, times, expr, true)?;
                if let NodeKind::VectorSelector(s) = &mut ast.node_mut(id).kind {
                    s.offset_ms = offset;
                }
            }
            NodeKind::MatrixSelector(m) => {
                let Some(expr) = m.range_expr else { continue };
                let range = milliseconds(ast, times, expr, false)?;
                if let NodeKind::MatrixSelector(m) = &mut ast.node_mut(id).kind {
                    m.range_ms = range;
                }
            }
            NodeKind::Subquery(s) => {
                let (offset, step, range) = (s.original_offset_expr, s.step_expr, s.range_expr);
                let offset = offset.map(|e| milliseconds(ast, times, e, true)).transpose()?;
                let step = step.map(|e| milliseconds(ast, times, e, false)).transpose()?;
                let range = range.map(|e| milliseconds(ast, times, e, false)).transpose()?;
                if let NodeKind::Subquery(s) = &mut ast.node_mut(id).kind {
                    s.offset_ms = offset.unwrap_or(s.offset_ms);
                    s.step_ms = step.unwrap_or(s.step_ms);
                    s.range_ms = range.unwrap_or(s.range_ms);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn milliseconds(ast: &Ast, times: &PlanTimes, id: DurationId, negative: bool) -> Result<i64, EngineError> {
    let seconds = evaluate(ast, times, id)?;
    if !seconds.is_finite() {
        return Err(fail(ast, id, "duration is NaN or infinite"));
    }
    if seconds <= 0.0 && !negative {
        return Err(fail(ast, id, "duration must be greater than 0"));
    }
    if seconds.abs() > SECONDS_MAX {
        return Err(fail(ast, id, "duration is out of range"));
    }
    Ok((seconds * 1000.0) as i64)
}

fn evaluate(ast: &Ast, times: &PlanTimes, id: DurationId) -> Result<f64, EngineError> {
    let value = |id| evaluate(ast, times, id);
    Ok(match ast.duration(id).kind {
        DurationKind::Number { value, .. } => value,
        DurationKind::Step => times.step_ms as f64 / 1000.0,
        DurationKind::Range => (times.end - times.start) as f64 / 1000.0,
        DurationKind::Unary(UnaryOp::Plus, x) => value(x)?,
        DurationKind::Unary(UnaryOp::Minus, x) => -value(x)?,
        DurationKind::MinOf(a, b) => crate::functions::math::go_min(value(a)?, value(b)?),
        DurationKind::MaxOf(a, b) => crate::functions::math::go_max(value(a)?, value(b)?),
        DurationKind::Binary(op, a, b) => {
            let (a, b) = (value(a)?, value(b)?);
            match op {
                BinaryOp::Div if b == 0.0 => return Err(fail(ast, id, "division by zero")),
                BinaryOp::Mod if b == 0.0 => return Err(fail(ast, id, "modulo by zero")),
                _ => crate::functions::binary::scalars(op, a, b),
            }
        }
    })
}

fn fail(ast: &Ast, id: DurationId, what: &str) -> EngineError {
    let span = ast.duration(id).span;
    EngineError::Invalid(format!("{}:{}: {what}", span.start, span.end))
}
