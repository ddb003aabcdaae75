//! `count_values`: how often each value occurs.

use hashbrown::HashMap;

use crate::engine::EngineError;
use crate::exec::aggregate::Groups;
use crate::exec::merge::merge_equal;
use crate::exec::{Batch, Exec, Grid, Result, Sink};
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
        let mut held = 0;
        let counted = self.vector(input, grid, &mut |exec, batch| {
            for row in batch.rows() {
                let mut known: HashMap<u64, usize> = HashMap::new();
                row.each(|i, v, h| {
                    let mut group_of = |text: &str| {
                        let group = groups.of(&row.labels.with([(label.as_str(), text)]));
                        counts.resize_with(groups.labels.len(), || vec![0.0; grid.count]);
                        group
                    };
                    let group = match h {
                        Some(h) => group_of(&h.to_string()),
                        None => *known.entry(v.to_bits()).or_insert_with(|| group_of(&go_decimal(v))),
                    };
                    counts[group][i] += 1.0;
                });
                let cells = counts.len() * grid.count;
                exec.budget.take(cells - held)?;
                held = cells;
            }
            Ok(())
        });
        self.budget.give_back(held);
        counted?;
        let mut out = Batch::new(grid.count);
        for (labels, counts) in groups.labels.iter().zip(&counts) {
            out.push(
                || labels.clone(),
                false,
                |row| {
                    counts.iter().enumerate().filter(|(_, n)| **n > 0.0).for_each(|(i, n)| row.set(i, *n));
                },
            );
        }
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
