//! `count_values`: how often each value occurs.

use hashbrown::HashMap;

use crate::engine::EngineError;
use crate::exec::aggregate::Groups;
use crate::exec::merge::merge_equal;
use crate::exec::{Batch, Exec, Grid, ROWS_BETWEEN_CHECKS, Result, Sink};
use crate::memory::MemoryUse;
use crate::parser::{Aggregate, NodeKind};

impl<'a> Exec<'a> {
    /// `count_values("label", v)`.
    pub(crate) fn count_values(&mut self, a: &Aggregate, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        let param = a.param.map(|p| self.plan.unwrapped(p).1);
        let Some(NodeKind::String(bytes)) = param else { unreachable!("the parser checks the parameter") };
        let label = match std::str::from_utf8(bytes) {
            Ok(label) if !label.is_empty() => label.to_owned(),
            _ => {
                let quoted = chronolith_model::go_quote(bytes);
                return Err(EngineError::Execution(format!("invalid label name {quoted}")));
            }
        };
        let mut grouped = a.clone();
        if !grouped.without {
            grouped.grouping.push(label.clone());
        }
        let mut groups = Groups::new(&grouped);
        let mut counts: Vec<Vec<f64>> = Vec::new();
        let input = self.plan.ast.unwrap_parens(a.expr);
        // A group may come with every point: each is paid for before it is made.
        let mut samples = 0;
        let mut held = self.held(MemoryUse::Groups);
        let counted = self.vector(input, grid, &mut |exec, batch| {
            for (r, row) in batch.rows().enumerate() {
                if r.is_multiple_of(ROWS_BETWEEN_CHECKS) {
                    exec.cx.check()?;
                }
                let mut known: HashMap<u64, usize> = HashMap::new();
                let mut refused = None;
                row.each(|i, v, h| {
                    if refused.is_some() {
                        return;
                    }
                    let mut group_of = |text: &str| {
                        let group = groups.of(&row.labels.with([(label.as_str(), text)]));
                        if group == counts.len() {
                            let bytes = groups.group_bytes(group) + grid.count * 8;
                            let paid = exec.budget.take(grid.count).and_then(|()| {
                                samples += grid.count;
                                held.more(bytes)
                            });
                            match paid {
                                Ok(()) => counts.push(vec![0.0; grid.count]),
                                Err(err) => refused = Some(err),
                            }
                        }
                        group
                    };
                    let group = match h {
                        Some(h) => group_of(&h.to_string()),
                        None => *known.entry(v.to_bits()).or_insert_with(|| group_of(&go_decimal(v))),
                    };
                    if let Some(counts) = counts.get_mut(group) {
                        counts[i] += 1.0;
                    }
                });
                if let Some(err) = refused {
                    return Err(err);
                }
            }
            Ok(())
        });
        self.budget.give_back(samples);
        counted?;
        let mut out = Batch::new(grid.count);
        for (g, (labels, counts)) in groups.labels.iter().zip(&counts).enumerate() {
            self.row_progress(g, &mut out)?;
            out.push(
                || labels.clone(),
                false,
                |row| {
                    counts.iter().enumerate().filter(|(_, n)| **n > 0.0).for_each(|(i, n)| row.set(i, *n));
                },
            );
        }
        drop((held, counts));
        self.emit(merge_equal(out)?, sink)
    }
}

/// Go's `FormatFloat(v, 'f', -1, 64)`.
fn go_decimal(v: f64) -> String {
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    format!("{v}")
}
