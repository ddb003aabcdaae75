//! `and`, `or`, `unless`: series by the presence of a match, step by step.

use crate::exec::join::{Side, Signatures, TABLE_ROW_BYTES};
use crate::exec::merge::merge_equal;
use crate::exec::{Batch, Exec, Grid, Result, Sink};
use crate::memory::MemoryUse;
use crate::parser::{Binary, BinaryOp};

impl<'a> Exec<'a> {
    /// A set operator between vectors.
    pub(crate) fn set_operation(&mut self, b: &Binary, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        let Some(matching) = &b.matching else { unreachable!("both sides are vectors") };
        let lhs = self.collect(b.lhs, grid)?;
        // An empty left side settles the result, but not what the right side has to say: errors and annotations.
        let rhs = self.collect(b.rhs, grid)?;
        let mut tables = self.held(MemoryUse::Joins);
        tables.more((lhs.len() + rhs.len()) * (TABLE_ROW_BYTES + grid.count.div_ceil(64) * 8))?;
        let mut signatures = Signatures::new(matching);
        let left = Side::new(&lhs, &mut signatures);
        let right = Side::new(&rhs, &mut signatures);
        let mut out = Batch::new(grid.count);
        let other = |side: &Side, signature: usize, w: usize| side.present(signature).map_or(0, |p| p[w]);
        for (r, row) in lhs.rows().enumerate() {
            self.row_progress(r, &mut out)?;
            let signature = left.signature_of(r);
            out.push(
                || row.labels.clone(),
                row.drop_name,
                |to| {
                    to.copy_masked(&row, |w| match b.op {
                        BinaryOp::And => other(&right, signature, w),
                        BinaryOp::Unless => !other(&right, signature, w),
                        _ => u64::MAX,
                    });
                },
            );
        }
        if b.op == BinaryOp::Or {
            for (r, row) in rhs.rows().enumerate() {
                self.row_progress(r, &mut out)?;
                let signature = right.signature_of(r);
                out.push(
                    || row.labels.clone(),
                    row.drop_name,
                    |to| to.copy_masked(&row, |w| !other(&left, signature, w)),
                );
            }
            drop((lhs, rhs));
            return self.emit(merge_equal(out)?, sink);
        }
        drop((lhs, rhs));
        self.emit(out, sink)
    }
}
