//! Calls of functions on instant vectors.

use chronolith_model::{GoRegex, Labels, MatchOp};

use crate::engine::EngineError;
use crate::exec::current::Current;
use crate::exec::merge::merge_equal;
use crate::exec::{Batch, Exec, Grid, ROWS_BETWEEN_CHECKS, Result, Sink};
use crate::functions::{math, natural};
use crate::memory::MemoryUse;
use crate::parser::{Call, ExprId, FunctionId, NodeKind, ValueType};

impl<'a> Exec<'a> {
    /// A call of type instant vector.
    pub(crate) fn call(&mut self, id: ExprId, call: &Call, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        use FunctionId::*;
        let plan = self.plan;
        if call.func.id == AbsentOverTime {
            return self.absent_over_time(id, call, grid, sink);
        }
        if call.args.iter().any(|a| plan.value_type(*a) == ValueType::Matrix) {
            return self.range_call(id, call, grid, sink);
        }
        if let Some(f) = math::unary(call.func.id) {
            return self.map_floats(id, call.args[0], grid, sink, |_, v| f(v));
        }
        if let Some(f) = math::date(call.func.id) {
            if let Some(&arg) = call.args.first() {
                return self.map_floats(id, arg, grid, sink, |_, v| f(v));
            }
            let values = (0..grid.count).map(|i| f((grid.t(i) / 1000) as f64)).collect();
            return self.unlabelled(values, grid, sink);
        }
        match call.func.id {
            Vector => {
                let values = self.scalar(call.args[0], grid)?;
                self.unlabelled(values, grid, sink)
            }
            Round => {
                let nearest = match call.args.get(1) {
                    Some(&arg) => self.scalar(arg, grid)?,
                    None => vec![1.0; grid.count],
                };
                self.map_floats(id, call.args[0], grid, sink, |i, v| math::round(v, nearest[i]))
            }
            Clamp | ClampMin | ClampMax => self.clamp(id, call, grid, sink),
            Timestamp | StartTimestamp => self.timestamp(id, call, grid, sink),
            Absent => self.absent(call, grid, sink),
            Sort | SortDesc | SortByLabel | SortByLabelDesc => self.sort(id, call, grid, sink),
            LabelReplace => self.label_replace(call, grid, sink),
            LabelJoin => self.label_join(call, grid, sink),
            HistogramQuantile | HistogramQuantiles | HistogramFraction => {
                self.histogram_estimate(id, call, grid, sink)
            }
            f if f.is_histogram_statistic() => self.histogram_statistic(id, call, grid, sink),
            Info => self.info(call, grid, sink),
            _ => unreachable!("{} is of another type or was handled before", call.func.name),
        }
    }

    /// Maps the floats of a vector; histograms go, and so does the metric name.
    fn map_floats(
        &mut self,
        id: ExprId,
        input: ExprId,
        grid: &Grid,
        sink: Sink<'_, 'a>,
        mut f: impl FnMut(usize, f64) -> f64,
    ) -> Result<()> {
        self.rename(id, input, grid, sink, &mut |_, batch| {
            batch.map_floats(&mut f);
            Ok(())
        })
    }

    /// A vector of one series without labels.
    fn unlabelled(&mut self, values: Vec<f64>, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        let mut out = Batch::new(grid.count);
        out.push(Labels::empty, false, |row| {
            values.iter().enumerate().for_each(|(i, v)| row.set(i, *v));
        });
        self.emit(out, sink)
    }

    fn clamp(&mut self, id: ExprId, call: &Call, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        let first = self.scalar(call.args[1], grid)?;
        let (low, high) = match call.func.id {
            FunctionId::ClampMin => (first, vec![f64::INFINITY; grid.count]),
            FunctionId::ClampMax => (vec![f64::NEG_INFINITY; grid.count], first),
            _ => (first, self.scalar(call.args[2], grid)?),
        };
        self.rename(id, call.args[0], grid, sink, &mut |_, batch| {
            batch.map_floats(|i, v| math::go_max(low[i], math::go_min(high[i], v)));
            batch.retain_steps(|i| high[i] >= low[i] || high[i].is_nan() || low[i].is_nan());
            Ok(())
        })
    }

    /// `timestamp(v)`: of a selector the samples' own times, else the evaluation time.
    fn timestamp(&mut self, id: ExprId, call: &Call, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        let (arg, kind) = self.plan.unwrapped(call.args[0]);
        let start = call.func.id == FunctionId::StartTimestamp;
        let selector = matches!(kind, NodeKind::VectorSelector(_));
        if start && selector && !self.options.start_timestamps {
            return Ok(());
        }
        if start && !selector {
            // Nothing has a start time, but what the argument has to say stands: errors and annotations.
            return self.vector(arg, grid, &mut |_, _| Ok(()));
        }
        if selector {
            let what = if start { Current::StartTimestamp } else { Current::Timestamp };
            if !self.may_collide(arg) {
                return self.select(arg, what, true, grid, sink);
            }
            let mut all = Batch::new(grid.count);
            self.select(arg, what, true, grid, &mut |_, batch| {
                all.append(batch);
                Ok(())
            })?;
            return self.emit(merge_equal(all)?, sink);
        }
        self.rename(id, call.args[0], grid, sink, &mut |_, batch| {
            batch.histograms_to_floats(|_, _| 0.0);
            batch.map_floats(|i, _| grid.t(i) as f64 / 1000.0);
            Ok(())
        })
    }

    fn absent(&mut self, call: &Call, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        let mut present = vec![false; grid.count];
        self.vector(call.args[0], grid, &mut |_, batch| {
            for row in batch.rows() {
                row.each(|i, _, _| present[i] = true);
            }
            Ok(())
        })?;
        self.absence(call, &present, false, grid, sink)
    }

    fn absent_over_time(&mut self, id: ExprId, call: &Call, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        let mut present = vec![false; grid.count];
        self.range_call(id, call, grid, &mut |_, batch| {
            for row in batch.rows() {
                row.each(|i, _, _| present[i] = true);
            }
            Ok(())
        })?;
        self.absence(call, &present, true, grid, sink)
    }

    fn absence(
        &mut self,
        call: &Call,
        present: &[bool],
        drop_name: bool,
        grid: &Grid,
        sink: Sink<'_, 'a>,
    ) -> Result<()> {
        let labels = self.absent_labels(call.args[0]);
        let mut out = Batch::new(grid.count);
        out.push(
            || labels,
            drop_name,
            |row| (0..grid.count).filter(|i| !present[*i]).for_each(|i| row.set(i, 1.0)),
        );
        self.emit(out, sink)
    }

    /// The labels that a selector's matchers determine.
    fn absent_labels(&self, arg: ExprId) -> Labels {
        let (arg, _) = self.plan.unwrapped(arg);
        let Some(selector) = self.plan.ast.vector_selector(arg) else { return Labels::empty() };
        let mut seen: Vec<&str> = Vec::new();
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for m in selector.matchers.iter().filter(|m| m.name != chronolith_model::METRIC_NAME) {
            if m.op == MatchOp::Equal && !seen.contains(&m.name.as_str()) {
                seen.push(&m.name);
                pairs.push((&m.name, &m.value));
            } else {
                pairs.retain(|(name, _)| *name != m.name);
            }
        }
        Labels::from_pairs(pairs).unwrap_or_default()
    }

    fn sort(&mut self, id: ExprId, call: &Call, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        use FunctionId::{Sort, SortByLabel, SortByLabelDesc, SortDesc};
        let by_value = matches!(call.func.id, Sort | SortDesc);
        let mut all = self.collect(call.args[0], grid)?;
        if grid.is_range() {
            self.annotations.sort_in_range_query(self.plan.ast.span(id));
        }
        if by_value {
            all.remove_histograms();
        }
        if grid.count == 1 {
            let mut order: Vec<usize> = (0..all.len()).collect();
            let descending = matches!(call.func.id, SortDesc | SortByLabelDesc);
            if by_value {
                let value = |r: usize| all.row(r).values[0];
                order.sort_by(|&a, &b| {
                    let (a, b) = (value(a), value(b));
                    // NaN is last either way.
                    let by = if descending { b.partial_cmp(&a) } else { a.partial_cmp(&b) };
                    by.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
                });
            } else {
                debug_assert!(matches!(call.func.id, SortByLabel | SortByLabelDesc));
                let names: Vec<String> = call.args[1..].iter().map(|a| self.string(*a)).collect();
                order.sort_by(|&a, &b| {
                    let by = compare_by_labels(all.labels(a), all.labels(b), &names);
                    if descending { by.reverse() } else { by }
                });
            }
            all.select(&order);
        }
        self.emit(all, sink)
    }

    /// The value of a string argument, read as UTF-8.
    pub(crate) fn string(&self, arg: ExprId) -> String {
        match self.plan.unwrapped(arg).1 {
            NodeKind::String(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        }
    }

    /// A label name among a function's arguments.
    fn label_name(&self, arg: ExprId, what: &str) -> Result<String> {
        if let NodeKind::String(bytes) = self.plan.unwrapped(arg).1
            && let Ok(name) = std::str::from_utf8(bytes)
            && !name.is_empty()
        {
            return Ok(name.to_owned());
        }
        Err(EngineError::Execution(format!("invalid {what}: {}", self.string(arg))))
    }

    fn label_replace(&mut self, call: &Call, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        let pattern = self.string(call.args[4]);
        let regex = GoRegex::new(&pattern).map_err(|_| {
            EngineError::Execution(format!("invalid regular expression in label_replace(): {pattern}"))
        })?;
        let target = self.label_name(call.args[1], "destination label name in label_replace()")?;
        let (template, source) = (self.string(call.args[2]), self.string(call.args[3]));
        let memory = std::sync::Arc::clone(&self.budget.memory);
        let references = template.matches('$').count();
        self.relabel(call.args[0], &target, grid, sink, &mut |labels| {
            let value = labels.get(&source).unwrap_or_default();
            check_label(&memory, template.len() + references * value.len())?;
            Ok(regex.expand(value, &template))
        })
    }

    fn label_join(&mut self, call: &Call, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        let separator = self.string(call.args[2]);
        let mut sources = Vec::new();
        for &arg in &call.args[3..] {
            sources.push(self.label_name(arg, "source label name in label_join()")?);
        }
        let target = self.label_name(call.args[1], "destination label name in label_join()")?;
        let memory = std::sync::Arc::clone(&self.budget.memory);
        self.relabel(call.args[0], &target, grid, sink, &mut |labels| {
            let values: Vec<&str> = sources.iter().map(|s| labels.get(s).unwrap_or_default()).collect();
            check_label(&memory, values.iter().map(|v| v.len() + separator.len()).sum())?;
            Ok(Some(values.join(&separator)))
        })
    }

    /// Sets a label of each series to what `value` says, where it says something.
    fn relabel(
        &mut self,
        input: ExprId,
        target: &str,
        grid: &Grid,
        sink: Sink<'_, 'a>,
        value: &mut dyn FnMut(&Labels) -> Result<Option<String>>,
    ) -> Result<()> {
        let mut all = self.collect(input, grid)?;
        // Labels may grow far beyond what the vector was charged for.
        let mut grown = self.held(MemoryUse::Vectors);
        for r in 0..all.len() {
            if r.is_multiple_of(ROWS_BETWEEN_CHECKS) {
                self.cx.check()?;
            }
            if let Some(new) = value(all.labels(r))? {
                grown.more(new.len())?;
                let labels = all.labels(r).with([(target, new.as_str())]);
                all.set_labels(r, labels);
                if target == chronolith_model::METRIC_NAME {
                    all.set_drop_name(r, false);
                }
            }
        }
        drop(grown);
        all.charge(&self.budget, self.node)?;
        self.emit(merge_equal(all)?, sink)
    }
}

/// Asks for a label value that is long enough to matter before it is made.
fn check_label(memory: &crate::memory::QueryMemory, bytes: usize) -> Result<()> {
    const LONG: usize = 64 << 10;
    if bytes > LONG { Ok(memory.check(MemoryUse::Vectors, bytes)?) } else { Ok(()) }
}

fn compare_by_labels(a: &Labels, b: &Labels, names: &[String]) -> std::cmp::Ordering {
    for name in names {
        let (x, y) = (a.get(name).unwrap_or_default(), b.get(name).unwrap_or_default());
        if x != y {
            let less = natural::natural_less(x, y);
            return if less { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater };
        }
    }
    a.cmp(b)
}
