//! Which operator evaluates which kind of node.

use std::sync::Arc;

use chronolith_model::Labels;

use crate::exec::current::Current;
use crate::exec::labels::{without_metadata, without_name};
use crate::exec::merge::merge_equal;
use crate::exec::{Batch, Exec, Grid, Result, Sink};
use crate::functions::binary;
use crate::parser::{AggregateOp, Binary, BinaryOp, ExprId, NodeKind, UnaryOp, ValueType};

impl<'a> Exec<'a> {
    /// Evaluates a node of type instant vector; the caller has dealt with step-invariance.
    pub(crate) fn vector_node(&mut self, id: ExprId, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        let plan = self.plan;
        match plan.ast.kind(id) {
            NodeKind::Paren(inner) => self.vector(*inner, grid, sink),
            NodeKind::VectorSelector(_) => self.select(id, Current::Value, false, grid, sink),
            NodeKind::Unary { op: UnaryOp::Plus, expr } => self.vector(*expr, grid, sink),
            NodeKind::Unary { op: UnaryOp::Minus, expr } => self.negate(id, *expr, grid, sink),
            NodeKind::Call(call) => self.call(id, call, grid, sink),
            NodeKind::Aggregate(a) => match a.op {
                AggregateOp::CountValues => self.count_values(a, grid, sink),
                AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio => {
                    self.aggregate_k(id, a, grid, sink)
                }
                _ => self.aggregate(id, a, grid, sink),
            },
            NodeKind::Binary(b) => match (plan.value_type(b.lhs), plan.value_type(b.rhs)) {
                (ValueType::Vector, ValueType::Vector) if b.op.is_set() => self.set_operation(b, grid, sink),
                (ValueType::Vector, ValueType::Vector) => self.join(id, b, grid, sink),
                _ => self.with_scalar(id, b, grid, sink),
            },
            NodeKind::Number { .. }
            | NodeKind::String(_)
            | NodeKind::MatrixSelector(_)
            | NodeKind::Subquery(_) => unreachable!("not of type instant vector"),
        }
    }

    fn negate(&mut self, id: ExprId, expr: ExprId, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        self.rename(id, expr, grid, sink, &mut |_, batch| {
            for r in 0..batch.len() {
                batch.values_mut(r).iter_mut().for_each(|v| *v = -*v);
                for h in batch.histograms_mut(r).into_iter().flatten().flatten() {
                    Arc::make_mut(h).mul(-1.0);
                }
            }
            Ok(())
        })
    }

    /// Evaluates `input`, lets `change` work on its batches and takes the metric names off.
    pub(crate) fn rename(
        &mut self,
        id: ExprId,
        input: ExprId,
        grid: &Grid,
        sink: Sink<'_, 'a>,
        change: &mut dyn FnMut(&mut Exec<'a>, &mut Batch) -> Result<()>,
    ) -> Result<()> {
        let strip = self.drops_names_now(id);
        let without: fn(&Labels) -> Labels = match self.plan.ast.kind(id) {
            NodeKind::Call(call) if call.func.id.is_histogram_statistic() => without_name,
            _ => without_metadata,
        };
        let mut collected = (strip && self.may_collide(input)).then(|| Batch::new(grid.count));
        self.vector(input, grid, &mut |exec, mut batch| {
            change(exec, &mut batch)?;
            for r in 0..batch.len() {
                batch.set_drop_name(r, true);
                if strip {
                    let labels = without(batch.labels(r));
                    batch.set_labels(r, labels);
                }
            }
            match &mut collected {
                Some(all) => {
                    all.append(batch);
                    Ok(())
                }
                None => exec.emit(batch, sink),
            }
        })?;
        match collected {
            Some(all) => self.emit(merge_equal(all)?, sink),
            None => Ok(()),
        }
    }

    /// A vector and a scalar.
    fn with_scalar(&mut self, id: ExprId, b: &Binary, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        let vector_left = self.plan.value_type(b.lhs) == ValueType::Vector;
        let (vector, scalar) = if vector_left { (b.lhs, b.rhs) } else { (b.rhs, b.lhs) };
        let scalar = self.scalar(scalar, grid)?;
        let (op, return_bool) = (b.op, b.return_bool);
        let span = self.plan.ast.span(id);
        if op.is_comparison() && !return_bool {
            return self.vector(vector, grid, &mut |exec, batch| {
                let out = exec.filter_with_scalar(&batch, op, &scalar, vector_left, span);
                exec.emit(out, sink)
            });
        }
        let trim = op.is_trim();
        let mut change = |exec: &mut Exec<'a>, batch: &mut Batch| {
            if batch.has_histograms() || trim {
                *batch = exec.histograms_with_scalar(batch, op, &scalar, vector_left, return_bool, span);
                return Ok(());
            }
            let compute = |i: usize, v: f64| {
                let (l, r) = if vector_left { (v, scalar[i]) } else { (scalar[i], v) };
                binary::scalars(op, l, r)
            };
            batch.map_floats(compute);
            Ok(())
        };
        if trim {
            return self.vector(vector, grid, &mut |exec, mut batch| {
                change(exec, &mut batch)?;
                exec.emit(batch, sink)
            });
        }
        self.rename(id, vector, grid, sink, &mut change)
    }

    fn filter_with_scalar(
        &mut self,
        batch: &Batch,
        op: BinaryOp,
        scalar: &[f64],
        vector_left: bool,
        span: crate::parser::Span,
    ) -> Batch {
        let mut out = Batch::new(batch.steps());
        for row in batch.rows() {
            out.push(
                || row.labels.clone(),
                row.drop_name,
                |to| {
                    row.each(|i, v, h| {
                        if h.is_some() {
                            self.incompatible_with_scalar(op, vector_left, span);
                            return;
                        }
                        let (l, r) = if vector_left { (v, scalar[i]) } else { (scalar[i], v) };
                        if binary::comparison(op, l, r) {
                            to.set(i, v);
                        }
                    });
                },
            );
        }
        out
    }

    pub(crate) fn incompatible_with_scalar(
        &mut self,
        op: BinaryOp,
        vector_left: bool,
        span: crate::parser::Span,
    ) {
        let (l, r) = if vector_left { ("histogram", "float") } else { ("float", "histogram") };
        self.annotations.incompatible_types(l, op.as_str(), r, span);
    }

    /// A vector with histograms, or any vector with a trim operator, and a scalar.
    fn histograms_with_scalar(
        &mut self,
        batch: &Batch,
        op: BinaryOp,
        scalar: &[f64],
        vector_left: bool,
        return_bool: bool,
        span: crate::parser::Span,
    ) -> Batch {
        let mut out = Batch::new(batch.steps());
        for row in batch.rows() {
            out.push(
                || row.labels.clone(),
                row.drop_name,
                |to| {
                    row.each(|i, v, h| {
                        let (l, r) = if vector_left { (v, scalar[i]) } else { (scalar[i], v) };
                        let (lh, rh) = if vector_left { (h, None) } else { (None, h) };
                        let Some(result) = self.elements(op, (l, lh), (r, rh), span) else { return };
                        match (return_bool, result.histogram) {
                            (true, _) => to.set(i, f64::from(u8::from(result.keep))),
                            (false, Some(h)) if result.keep => to.set_histogram(i, h),
                            (false, None) if result.keep => to.set(i, result.float),
                            _ => {}
                        }
                    });
                },
            );
        }
        out
    }
}
