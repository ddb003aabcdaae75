//! Binary operators between vectors. Signatures are computed once per series; values are computed row against row.

use std::sync::Arc;

use chronolith_model::{FloatHistogram, Labels, METRIC_NAME};
use hashbrown::HashMap;

use crate::annotations::HistogramOperation;
use crate::engine::EngineError;
use crate::exec::batch::{Row, each_bit, label_bytes};
use crate::exec::labels::{group_key, match_labels};
use crate::exec::merge::merge_equal;
use crate::exec::{Batch, Exec, Grid, Held, Result, Sink};
use crate::functions::binary;
use crate::memory::MemoryUse;
use crate::parser::{Binary, BinaryOp, Cardinality, ExprId, Span, VectorMatching};
use crate::plan::drops_metric_name;

/// Numbers for the label sets that series are matched on.
pub(crate) struct Signatures {
    names: Vec<String>,
    on: bool,
    index: HashMap<Box<[u8]>, usize>,
    key: Vec<u8>,
}

impl Signatures {
    pub(crate) fn new(matching: &VectorMatching) -> Self {
        let mut names = matching.labels.clone();
        names.sort_unstable();
        names.dedup();
        Signatures { names, on: matching.on, index: HashMap::new(), key: Vec::new() }
    }

    fn of(&mut self, labels: &Labels) -> usize {
        group_key(labels, &self.names, !self.on, &mut self.key);
        if let Some(&n) = self.index.get(self.key.as_slice()) {
            return n;
        }
        let n = self.index.len();
        self.index.insert(self.key.clone().into_boxed_slice(), n);
        n
    }
}

/// One side of a match: its rows by signature.
pub(crate) struct Side {
    signatures: Vec<usize>,
    rows: Vec<Vec<usize>>,
    /// By signature: steps at which some row has a point.
    present: Vec<Vec<u64>>,
}

impl Side {
    pub(crate) fn new(batch: &Batch, signatures: &mut Signatures) -> Self {
        let mut side =
            Side { signatures: Vec::with_capacity(batch.len()), rows: Vec::new(), present: Vec::new() };
        let words = batch.steps().div_ceil(64);
        for (r, row) in batch.rows().enumerate() {
            let s = signatures.of(row.labels);
            side.signatures.push(s);
            if s >= side.rows.len() {
                side.rows.resize_with(s + 1, Vec::new);
                side.present.resize_with(s + 1, Vec::new);
            }
            side.rows[s].push(r);
            let present = &mut side.present[s];
            present.resize(words, 0);
            for (to, from) in present.iter_mut().zip(row.present) {
                *to |= from;
            }
        }
        side
    }

    pub(crate) fn signature_of(&self, row: usize) -> usize {
        self.signatures[row]
    }

    /// Steps at which some row of the signature has a point.
    pub(crate) fn present(&self, signature: usize) -> Option<&[u64]> {
        self.present.get(signature).filter(|p| !p.is_empty()).map(Vec::as_slice)
    }

    fn rows(&self, signature: usize) -> &[usize] {
        self.rows.get(signature).map_or(&[], Vec::as_slice)
    }

    /// Steps at which any row has a point.
    fn any(&self, words: usize) -> Vec<u64> {
        let mut any = vec![0; words];
        for present in &self.present {
            for (to, from) in any.iter_mut().zip(present) {
                *to |= from;
            }
        }
        any
    }
}

/// What an operator makes of two elements.
pub(crate) struct Element {
    pub(crate) float: f64,
    pub(crate) histogram: Option<Arc<FloatHistogram>>,
    pub(crate) keep: bool,
}

/// One side's value at a step.
pub(crate) type Operand<'h> = (f64, Option<&'h Arc<FloatHistogram>>);

/// The matching of one query node.
struct Join<'j> {
    op: BinaryOp,
    return_bool: bool,
    matching: &'j VectorMatching,
    /// The right side is the "many" side, so that sides are swapped.
    swapped: bool,
    strip: bool,
    span: Span,
    /// Series of the "many" side differ in more than their names.
    one_name: bool,
}

impl<'a> Exec<'a> {
    /// A binary operator between vectors that is not a set operator.
    pub(crate) fn join(&mut self, id: ExprId, b: &Binary, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        let Some(matching) = &b.matching else { unreachable!("both sides are vectors") };
        let swapped = matching.card == Cardinality::OneToMany;
        // An empty left side settles the result, but not what the right side has to say: errors and annotations.
        let (mut many, mut one) = (self.collect(b.lhs, grid)?, self.collect(b.rhs, grid)?);
        if swapped {
            std::mem::swap(&mut many, &mut one);
        }
        let join = Join {
            op: b.op,
            return_bool: b.return_bool,
            matching,
            swapped,
            strip: !self.options.delayed_name_removal && b.return_bool,
            span: self.plan.ast.span(id),
            one_name: self.plan.one_name[if swapped { b.rhs } else { b.lhs }.index()],
        };
        let (mut out, distinct) = self.joined(&join, &many, &one, grid)?;
        drop((many, one));
        out.charge(&self.budget, self.node)?;
        self.emit(if distinct { out } else { merge_equal(out)? }, sink)
    }

    /// The joined rows, and whether their labels are known to be distinct.
    fn joined(&mut self, join: &Join<'_>, many: &Batch, one: &Batch, grid: &Grid) -> Result<(Batch, bool)> {
        // Rows by signature on both sides, and by signature and labels of the result: bits of steps, keys and lists.
        let words = grid.count.div_ceil(64);
        let mut tables = self.held(MemoryUse::Joins);
        tables.more((many.len() + one.len()) * (TABLE_ROW_BYTES + words * 8))?;
        let mut signatures = Signatures::new(join.matching);
        let many_side = Side::new(many, &mut signatures);
        let one_side = Side::new(one, &mut signatures);
        // Of several faults the one at the earliest step is told, as upstream does, which goes step by step.
        let doubled = join.first_duplicate(many_side.any(words), one, &one_side);
        let told: Option<Vec<u64>> = doubled.as_ref().map(|(step, _)| bits_before(*step, words));
        if let Some((0, error)) = doubled {
            return Err(error);
        }
        let told = |w: usize| told.as_ref().map_or(u64::MAX, |told| told[w]);
        // As upstream, `fill_right` stands for the "one" side and `fill_left` for the "many" side, whichever is which.
        let (fill_one, fill_many) = (join.matching.fill_right, join.matching.fill_left);
        let mut out = Batch::new(grid.count);
        let mut results = self.held(MemoryUse::Joins);
        results.more(signatures.index.len() * (words * 8 + TABLE_ROW_BYTES))?;
        let distinct = join.results_are_distinct(many, &many_side, &one_side);
        let mut matched = Matched::new(signatures.index.len(), words, distinct);
        for (r, row) in many.rows().enumerate() {
            self.join_progress(r, &mut out, &mut results, &matched)?;
            let s = many_side.signature_of(r);
            let ones = one_side.rows(s);
            for &o in ones {
                let other = one.row(o);
                let mask: Vec<u64> =
                    (0..words).map(|w| row.present[w] & other.present[w] & told(w)).collect();
                self.join_rows(join, &row, Operands::Row(&other), s, mask, &mut matched, &mut out)?;
            }
            if let Some(fill) = fill_one {
                let present = one_side.present(s);
                let mask: Vec<u64> =
                    (0..words).map(|w| row.present[w] & !present.map_or(0, |p| p[w]) & told(w)).collect();
                self.join_rows(join, &row, Operands::Fill(fill), s, mask, &mut matched, &mut out)?;
            }
        }
        if let Some(fill) = fill_many {
            for (o, row) in one.rows().enumerate() {
                self.join_progress(o, &mut out, &mut results, &matched)?;
                let s = one_side.signature_of(o);
                let mask: Vec<u64> =
                    (0..words).map(|w| row.present[w] & !matched.any(s, w) & told(w)).collect();
                self.fill_rows(join, &row, fill, s, mask, &mut matched, &mut out)?;
            }
        }
        match matched.fault.or(doubled) {
            Some((_, error)) => Err(error),
            None => Ok((out, distinct)),
        }
    }

    /// Now and then between rows: is the query still wanted, and may it hold what it has by now?
    fn join_progress(
        &self,
        row: usize,
        out: &mut Batch,
        results: &mut Held,
        matched: &Matched,
    ) -> Result<()> {
        self.row_progress(row, out)?;
        if row.is_multiple_of(crate::exec::ROWS_BETWEEN_CHECKS) {
            results.at_least(matched.bytes)?;
        }
        Ok(())
    }

    /// Joins a row of the "many" side with one of the "one" side, or a fill value, where `mask` has bits.
    #[allow(clippy::too_many_arguments)]
    fn join_rows(
        &mut self,
        join: &Join<'_>,
        row: &Row<'_>,
        other: Operands<'_>,
        signature: usize,
        mask: Vec<u64>,
        matched: &mut Matched,
        out: &mut Batch,
    ) -> Result<()> {
        if mask.iter().all(|w| *w == 0) {
            return Ok(());
        }
        let other_labels = match other {
            Operands::Row(other) => other.labels.clone(),
            Operands::Fill(_) => match_labels(row.labels, join.matching.on, &join.matching.labels),
        };
        let labels = join.result_labels(row.labels, &other_labels);
        let steps = self.join_values(join, labels.clone(), mask, out, |i| {
            let theirs = match other {
                Operands::Row(other) => (other.values[i], other.histogram(i)),
                Operands::Fill(fill) => (fill, None),
            };
            ((row.values[i], row.histogram(i)), theirs)
        });
        matched.add(join, signature, labels, &steps);
        Ok(())
    }

    /// A row of the "one" side without a match, with the fill value of the "many" side.
    #[allow(clippy::too_many_arguments)]
    fn fill_rows(
        &mut self,
        join: &Join<'_>,
        row: &Row<'_>,
        fill: f64,
        signature: usize,
        mask: Vec<u64>,
        matched: &mut Matched,
        out: &mut Batch,
    ) -> Result<()> {
        if mask.iter().all(|w| *w == 0) {
            return Ok(());
        }
        let filled = match_labels(row.labels, join.matching.on, &join.matching.labels);
        let labels = join.result_labels(&filled, row.labels);
        let steps = self.join_values(join, labels.clone(), mask, out, |i| {
            ((fill, None), (row.values[i], row.histogram(i)))
        });
        matched.add(join, signature, labels, &steps);
        Ok(())
    }

    /// Computes where `mask` has bits and appends the row; returns the steps that count as matched.
    fn join_values<'h>(
        &mut self,
        join: &Join<'_>,
        labels: Labels,
        mut mask: Vec<u64>,
        out: &mut Batch,
        operands: impl Fn(usize) -> (Operand<'h>, Operand<'h>),
    ) -> Vec<u64> {
        let mut failed: Vec<usize> = Vec::new();
        out.push(
            || labels,
            join.return_bool,
            |to| {
                each_bit(&mask, |i| {
                    let (mut l, mut r) = operands(i);
                    if join.swapped {
                        std::mem::swap(&mut l, &mut r);
                    }
                    if l.1.is_none() && r.1.is_none() && !join.op.is_trim() {
                        if !join.op.is_comparison() {
                            to.set(i, binary::arithmetic(join.op, l.0, r.0));
                            return;
                        }
                        let keep = binary::comparison(join.op, l.0, r.0);
                        if join.return_bool {
                            to.set(i, f64::from(u8::from(keep)));
                        } else if keep {
                            to.set(i, l.0);
                        }
                        return;
                    }
                    let Some(element) = self.elements(join.op, l, r, join.span) else {
                        failed.push(i);
                        return;
                    };
                    match element.histogram {
                        _ if join.return_bool => to.set(i, f64::from(u8::from(element.keep))),
                        _ if !element.keep => {}
                        Some(h) => to.set_histogram(i, h),
                        None => to.set(i, element.float),
                    }
                });
            },
        );
        for i in failed {
            mask[i / 64] &= !(1 << (i % 64));
        }
        mask
    }

    /// An operator on two elements of which at least one is a histogram (or a trim operator); `None` when they do not
    /// go together, which is noted.
    pub(crate) fn elements(
        &mut self,
        op: BinaryOp,
        (l, lh): Operand<'_>,
        (r, rh): Operand<'_>,
        span: Span,
    ) -> Option<Element> {
        let histogram = |mut h: FloatHistogram, compact: bool| {
            if compact {
                h.compact(0);
            }
            Some(Element { float: 0.0, histogram: Some(Arc::new(h)), keep: true })
        };
        match (lh, rh, op) {
            (None, None, op) if !op.is_trim() => {
                if op.is_comparison() {
                    return Some(Element { float: l, histogram: None, keep: binary::comparison(op, l, r) });
                }
                Some(Element { float: binary::arithmetic(op, l, r), histogram: None, keep: true })
            }
            (None, Some(h), BinaryOp::Mul) => {
                let mut h = (**h).clone();
                h.mul(l);
                histogram(h, true)
            }
            (Some(h), None, BinaryOp::Mul) => {
                let mut h = (**h).clone();
                h.mul(r);
                histogram(h, true)
            }
            (Some(h), None, BinaryOp::Div) => {
                let mut h = (**h).clone();
                h.div(r);
                histogram(h, true)
            }
            (Some(h), None, BinaryOp::TrimUpper) => {
                let mut h = (**h).clone();
                h.trim_upper(r);
                histogram(h, false)
            }
            (Some(h), None, BinaryOp::TrimLower) => {
                let mut h = (**h).clone();
                h.trim_lower(r);
                histogram(h, false)
            }
            (Some(a), Some(b), BinaryOp::Add | BinaryOp::Sub) => {
                let mut sum = (**a).clone();
                let add = op == BinaryOp::Add;
                let operation = if add { HistogramOperation::Add } else { HistogramOperation::Sub };
                match if add { sum.add(b) } else { sum.sub(b) } {
                    Ok(notes) => {
                        // As upstream, a collision is an error that hides the element's result.
                        if notes.custom_bounds_reconciled && !notes.counter_reset_collision {
                            self.annotations.mismatched_custom_buckets(operation, span);
                        }
                        if notes.counter_reset_collision {
                            self.annotations.counter_reset_collision(operation, span);
                            return None;
                        }
                    }
                    Err(_) => {
                        self.annotations.incompatible_bucket_layout(op.as_str(), span);
                        return None;
                    }
                }
                if !add {
                    sum.counter_reset = chronolith_model::histogram::CounterReset::Gauge;
                }
                histogram(sum, true)
            }
            (Some(a), Some(b), BinaryOp::Eq | BinaryOp::Ne) => {
                let keep = a.equals(b) == (op == BinaryOp::Eq);
                Some(Element { float: 0.0, histogram: Some(Arc::clone(a)), keep })
            }
            _ => {
                let kind = |h: Option<&Arc<FloatHistogram>>| if h.is_some() { "histogram" } else { "float" };
                self.annotations.incompatible_types(kind(lh), op.as_str(), kind(rh), span);
                None
            }
        }
    }
}

/// The other side of a joined row.
#[derive(Clone, Copy)]
enum Operands<'r> {
    Row(&'r Row<'r>),
    Fill(f64),
}

/// What a row takes in the tables of a join, besides its bits of steps: a key of usual length, a list, their entries.
pub(crate) const TABLE_ROW_BYTES: usize = 160;

/// Which results exist at which steps, to refuse doubles.
struct Matched {
    /// There are no doubles.
    distinct: bool,
    /// Bytes of all of it.
    bytes: usize,
    /// By signature: steps with any result.
    any: Vec<Vec<u64>>,
    /// By signature and labels, where one signature may have several results.
    results: HashMap<(usize, Labels), Vec<u64>>,
    /// The first step with a double, and what is said of it.
    fault: Option<(usize, EngineError)>,
}

impl Matched {
    fn new(signatures: usize, words: usize, distinct: bool) -> Self {
        let bytes = signatures * (words * 8 + TABLE_ROW_BYTES);
        let any = vec![vec![0; words]; signatures];
        Matched { distinct, bytes, any, results: HashMap::new(), fault: None }
    }

    fn any(&self, signature: usize, word: usize) -> u64 {
        self.any[signature][word]
    }

    fn add(&mut self, join: &Join<'_>, signature: usize, labels: Labels, steps: &[u64]) {
        if self.distinct {
            return;
        }
        let twice = add_steps(&mut self.any[signature], steps);
        let (twice, what) = if join.matching.card == Cardinality::OneToOne {
            (twice, "many-to-one matching must be explicit (group_left/group_right)")
        } else {
            self.bytes += label_bytes(&labels) + steps.len() * 8 + TABLE_ROW_BYTES;
            let seen = self.results.entry((signature, labels)).or_insert_with(|| vec![0; steps.len()]);
            (add_steps(seen, steps), "grouping labels must ensure unique matches")
        };
        if let Some(step) = twice
            && self.fault.as_ref().is_none_or(|(first, _)| step < *first)
        {
            self.fault = Some((step, multiple_matches(what)));
        }
    }
}

/// Adds steps to those seen; the first one that was there already.
fn add_steps(seen: &mut [u64], steps: &[u64]) -> Option<usize> {
    let mut twice = None;
    for (w, (seen, new)) in seen.iter_mut().zip(steps).enumerate() {
        let both = *seen & new;
        if both != 0 && twice.is_none() {
            twice = Some(w * 64 + both.trailing_zeros() as usize);
        }
        *seen |= new;
    }
    twice
}

/// Bits of the steps before one.
fn bits_before(step: usize, words: usize) -> Vec<u64> {
    (0..words)
        .map(|w| match step.saturating_sub(w * 64) {
            64.. => u64::MAX,
            bits => (1 << bits) - 1,
        })
        .collect()
}

fn multiple_matches(what: &str) -> EngineError {
    EngineError::Execution(format!("multiple matches for labels: {what}"))
}

/// True when no series differs in the labels that go with the name besides it.
fn has_no_types(batch: &Batch) -> bool {
    let named = |name: &str| name != METRIC_NAME && drops_metric_name(name);
    (0..batch.len()).all(|r| !batch.labels(r).iter().any(|(name, _)| named(name)))
}

impl Join<'_> {
    /// True when no two results can have the same labels, so that nobody need look for doubles.
    fn results_are_distinct(&self, rows: &Batch, many: &Side, one: &Side) -> bool {
        let m = self.matching;
        let single = |side: &Side| side.rows.iter().all(|rows| rows.len() <= 1);
        if m.fill_left.is_some() || m.fill_right.is_some() || !single(one) {
            return false;
        }
        // Labels of results are those that are matched on, or those of the "many" side, less what goes with the name.
        match m.card {
            Cardinality::OneToOne if m.on => {
                single(many) && !m.labels.iter().any(|name| drops_metric_name(name))
            }
            Cardinality::OneToOne => single(many) && has_no_types(rows),
            _ => m.include.is_empty() && self.one_name && has_no_types(rows),
        }
    }

    /// The "one" side must have one series per signature and step: the first step at which it has not, and what is said of it.
    fn first_duplicate(&self, many_any: Vec<u64>, one: &Batch, side: &Side) -> Option<(usize, EngineError)> {
        let fills = self.matching.fill_left.is_some() || self.matching.fill_right.is_some();
        let mut first: Option<(usize, usize, usize)> = None;
        for rows in side.rows.iter().filter(|r| r.len() > 1) {
            let mut seen: Vec<u64> = vec![0; many_any.len()];
            for (n, &r) in rows.iter().enumerate() {
                let row = one.row(r);
                for w in 0..seen.len() {
                    let clash = row.present[w] & seen[w] & if fills { u64::MAX } else { many_any[w] };
                    if clash != 0 {
                        let step = w * 64 + clash.trailing_zeros() as usize;
                        // The first step that fails, and on it the first series that is there already.
                        if first.is_none_or(|(s, _, second)| (step, r) < (s, second)) {
                            let earlier = rows[..n].iter().copied().find(|e| one.row(*e).has(step));
                            first = Some((step, earlier.unwrap_or(r), r));
                        }
                    }
                    seen[w] |= row.present[w];
                }
            }
        }
        let (step, a, b) = first?;
        let group = match_labels(one.labels(b), self.matching.on, &self.matching.labels);
        let mut names = [one.labels(a).to_string(), one.labels(b).to_string()];
        names.sort();
        let hand = if self.swapped { "left" } else { "right" };
        let error = EngineError::Execution(format!(
            "found duplicate series for the match group {group} on the {hand} hand-side of the operation: \
             [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
            names[0], names[1]
        ));
        Some((step, error))
    }

    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let changes = !self.op.is_comparison() && !self.op.is_trim();
        let strip = self.strip || changes;
        let m = self.matching;
        let named = |name: &str| m.labels.iter().any(|l| l == name);
        let labels = many.filter(|name, _| {
            if strip && drops_metric_name(name) {
                return false;
            }
            m.card != Cardinality::OneToOne || named(name) == m.on
        });
        if m.include.is_empty() {
            return labels;
        }
        let from_one = m.include.iter().map(|name| (name.as_str(), one.get(name).unwrap_or_default()));
        labels.with(from_one)
    }
}
