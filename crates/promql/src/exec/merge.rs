//! Makes the label sets of a vector unique: series that became equal are joined where they have no step in common.

use chronolith_model::Labels;
use hashbrown::HashMap;

use crate::engine::EngineError;
use crate::exec::{Batch, Held, Result};
use crate::memory::MemoryUse;

/// Upstream's text for two samples of one label set at one time.
pub(crate) fn same_labels() -> EngineError {
    EngineError::Execution("vector cannot contain metrics with the same labelset".to_owned())
}

/// Joins rows of equal labels. Errors: two of them have a point at the same step.
pub(crate) fn merge_equal(batch: Batch) -> Result<Batch> {
    let mut first: HashMap<Labels, usize> = HashMap::with_capacity(batch.len());
    let mut groups: Vec<Vec<usize>> = Vec::with_capacity(batch.len());
    for r in 0..batch.len() {
        match first.entry(batch.labels(r).clone()) {
            hashbrown::hash_map::Entry::Occupied(e) => groups[*e.get()].push(r),
            hashbrown::hash_map::Entry::Vacant(e) => {
                e.insert(groups.len());
                groups.push(vec![r]);
            }
        }
    }
    if groups.len() == batch.len() {
        return Ok(batch);
    }
    // Both are there until this is done.
    let _held = match batch.charged() {
        Some((budget, node)) => {
            let mut held = Held::new(budget, MemoryUse::Vectors, node);
            held.more(batch.bytes())?;
            Some(held)
        }
        None => None,
    };
    let mut out = Batch::new(batch.steps());
    for group in groups {
        let mut clash = false;
        let head = batch.row(group[0]);
        out.push(
            || head.labels.clone(),
            head.drop_name,
            |row| {
                row.copy_masked(&head, |_| u64::MAX);
                for &r in &group[1..] {
                    let other = batch.row(r);
                    other.each(|i, _, _| {
                        clash |= row.has(i);
                        row.copy(i, &other);
                    });
                }
            },
        );
        if clash {
            return Err(same_labels());
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_what_does_not_overlap() {
        let mut batch = Batch::new(4);
        for i in 0..2 {
            batch.push(Labels::empty, false, |row| row.set(i, i as f64));
        }
        let merged = merge_equal(batch).unwrap();
        assert_eq!((merged.len(), merged.row(0).point_count()), (1, 2));
        let mut batch = Batch::new(4);
        for _ in 0..2 {
            batch.push(Labels::empty, false, |row| row.set(0, 0.0));
        }
        assert!(merge_equal(batch).is_err());
    }
}
