//! Aggregations of which stores fold their parts, and the folding in such a store.
//!
//! The parts are combined with what is read from the other stores as ever. Groups come in the order of their first series, as they
//! would without it: what is above may show the order. Where parts do not say what the whole would be (zeros of two signs, NaNs of
//! two kinds, of which the order of the series chooses one), everything is read as ever after all.

use std::sync::Arc;

use chronolith_model::Labels;

use crate::engine::EngineError;
use crate::exec::aggregate::Groups;
use crate::exec::counts::Counts;
use crate::exec::fold::{FLOAT, Fold};
use crate::exec::{Batch, Exec, Grid, Held, ROWS_BETWEEN_CHECKS, Result};
use crate::memory::MemoryUse;
use crate::parser::{Aggregate, ExprId};
use crate::push::{FoldRequest, FoldSteps, Folded, FoldedGroup, Pushed};
use crate::queryable::Queryable;

/// An aggregation under way.
pub(super) struct Folding {
    pub(super) groups: Groups,
    pub(super) fold: Fold,
    /// The labels of each group's first series, where that is asked for.
    pub(super) first: Option<Vec<Labels>>,
    /// Values that count towards the budget.
    pub(super) kept: usize,
    pub(super) held: Held,
}

impl Folding {
    pub(super) fn new(exec: &Exec<'_>, a: &Aggregate, grid: &Grid) -> Self {
        Folding {
            groups: Groups::new(a),
            fold: Fold::new(a.op, grid.count),
            first: None,
            kept: 0,
            held: exec.held(MemoryUse::Groups),
        }
    }

    /// The group of a row of these labels, with room for it.
    pub(super) fn group(&mut self, exec: &Exec<'_>, labels: &Labels, grid: &Grid) -> Result<usize> {
        let group = self.groups.of(labels);
        if group >= self.fold.drop_name.len() {
            exec.budget.take(grid.count)?;
            self.kept += grid.count;
            self.held.more(self.groups.group_bytes(group) + grid.count * self.fold.cell_bytes())?;
            self.fold.grow(self.groups.labels.len());
            if let Some(first) = &mut self.first {
                first.push(labels.clone());
            }
        }
        Ok(group)
    }
}

/// What stores of this query folded, and who is left to be read.
struct Parts {
    parts: Vec<Folded>,
    rest: Option<Arc<dyn Queryable>>,
    warnings: Vec<String>,
}

impl<'a> Exec<'a> {
    /// The value of an aggregation of which stores fold parts; `None` where it is to be evaluated as ever.
    pub(super) fn aggregate_pushed(
        &mut self,
        id: ExprId,
        a: &Aggregate,
        grid: &Grid,
    ) -> Result<Option<Batch>> {
        let Some(mut folding) = self.fold_pushed(id, a, grid)? else { return Ok(None) };
        let first = folding.first.take().unwrap_or_default();
        let mut order: Vec<usize> = (0..first.len()).collect();
        order.sort_by(|a, b| first[*a].cmp(&first[*b]));
        let span = self.plan.ast.span(self.plan.ast.unwrap_parens(a.expr));
        self.finish(folding.fold, &folding.groups, &order, &[], grid, span).map(Some)
    }

    /// Folds what stores have not folded, and adds what they have.
    fn fold_pushed(&mut self, id: ExprId, a: &Aggregate, grid: &Grid) -> Result<Option<Folding>> {
        let Some(Parts { parts, rest, warnings }) = self.push(id, grid)? else { return Ok(None) };
        let before = (self.counts.clone(), self.stats, self.annotations.clone());
        let mut folding = Folding::new(self, a, grid);
        folding.first = Some(Vec::new());
        let mut done = Ok(true);
        if let Some(rest) = rest {
            let outer = self.rest.replace(rest);
            done = self.fold_input(a, grid, &mut folding).map(|()| true);
            self.rest = outer;
        }
        for warning in warnings {
            self.annotations.add_storage_warning(warning);
        }
        let stores = parts.len();
        for part in parts {
            if matches!(done, Ok(true)) {
                done = self.combine(&mut folding, part, grid);
            }
        }
        self.budget.give_back(std::mem::take(&mut folding.kept));
        if !done? {
            (self.counts, self.stats, self.annotations) = before;
            return Ok(None);
        }
        if let Some(profile) = &self.budget.profile {
            profile.folded_by(id, stores);
        }
        Ok(Some(folding))
    }

    /// Asks for an aggregation to be folded by stores.
    fn push(&mut self, id: ExprId, grid: &Grid) -> Result<Option<Parts>> {
        let Some(selector) = self.plan.pushed[id.index()].filter(|_| self.options.push_aggregations) else {
            return Ok(None);
        };
        let Some(read) = &self.plan.reads[selector.index()] else { return Ok(None) };
        let source = &self.plan.sources[read.source];
        let times = self.plan.times;
        let request = FoldRequest {
            query: self.query.to_owned(),
            node: self.plan.ast.span(id),
            start: times.start,
            end: times.end,
            step_ms: times.step_ms,
            steps: FoldSteps { start: grid.start, end: grid.end, step_ms: grid.step, count: grid.count },
            step_stats: self.counts.steps.is_some(),
            options: crate::engine::EngineOptions {
                lookback_ms: times.lookback_ms,
                subquery_step_ms: times.subquery_step_ms,
                ..self.options.clone()
            },
        };
        let queryable = self.rest.clone();
        let queryable = queryable.as_deref().unwrap_or(self.queryable);
        let pushed = queryable.push(&request, &source.matchers, source.range, self.cx)?;
        Ok(pushed.map(|Pushed { parts, rest, warnings }| Parts {
            parts,
            rest: rest.map(Arc::from),
            warnings,
        }))
    }

    /// Adds what a store folded; false where that cannot be done exactly.
    fn combine(&mut self, folding: &mut Folding, part: Folded, grid: &Grid) -> Result<bool> {
        for (row, group) in part.groups.iter().enumerate() {
            if row.is_multiple_of(ROWS_BETWEEN_CHECKS) {
                self.cx.check()?;
            }
            if group.values.len() != grid.count || group.present.len() != grid.count.div_ceil(64) {
                return Err(EngineError::Execution(
                    "a store folded other steps than it was asked for".to_owned(),
                ));
            }
            let at = folding.group(self, &group.labels, grid)?;
            if let Some(first) = folding.first.as_mut().map(|all| &mut all[at])
                && *first > group.first
            {
                *first = group.first.clone();
            }
            folding.fold.drop_name[at] |= group.drop_name;
            for step in 0..grid.count {
                if group.present[step / 64] >> (step % 64) & 1 == 1
                    && !folding.fold.combine(at * grid.count + step, group.values[step])
                {
                    return Ok(false);
                }
            }
        }
        for note in part.notes {
            self.annotations.add_note(note);
        }
        self.stats.series_read += part.series_read;
        let steps = part.by_step.map(Box::new);
        self.counts.append(&Counts { total: part.samples_total, read: part.samples_read, steps });
        Ok(true)
    }

    /// Folds an aggregation of the plan for who combines the parts.
    pub(crate) fn fold_part(&mut self, id: ExprId, a: &Aggregate, grid: &Grid) -> Result<Vec<FoldedGroup>> {
        self.check_grid(grid)?;
        let mut folding = match self.fold_pushed(id, a, grid)? {
            Some(folding) => folding,
            None => {
                let mut folding = Folding::new(self, a, grid);
                folding.first = Some(Vec::new());
                self.fold_input(a, grid, &mut folding)?;
                folding
            }
        };
        let first = folding.first.take().unwrap_or_default();
        let mut groups = Vec::with_capacity(first.len());
        for (group, first) in first.into_iter().enumerate() {
            let mut out = FoldedGroup {
                labels: folding.groups.labels[group].clone(),
                first,
                drop_name: folding.fold.drop_name[group],
                present: vec![0; grid.count.div_ceil(64)],
                values: vec![0.0; grid.count],
            };
            for step in 0..grid.count {
                let cell = group * grid.count + step;
                if folding.fold.flags[cell] & FLOAT != 0 {
                    out.present[step / 64] |= 1 << (step % 64);
                    out.values[step] = folding.fold.float(cell, 0.0);
                }
            }
            folding.held.more(out.bytes())?;
            groups.push(out);
        }
        Ok(groups)
    }
}
