//! What is left to do, and for how long.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chronolith_model::BlockId;
use chronolith_tsdb::block::BlockMeta;
use chronolith_tsdb::merge::merged_compaction;
use parking_lot::Mutex;

use crate::group::{Groups, sort};
use crate::plan::Planner;

/// Compactions of one group that are looked ahead; the planner ends long before, unless it is wrong.
const STEPS_MAX: usize = 10_000;

/// What compactions are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Todo {
    /// Compactions, those of their results included.
    pub compactions: u64,
    /// Blocks that they read.
    pub blocks: u64,
    /// Samples that they read.
    pub samples: u64,
}

/// Plays the planner through to its end.
pub fn todo(planner: &Planner, groups: &Groups, no_compact: &BTreeSet<BlockId>) -> Todo {
    let mut todo = Todo::default();
    for blocks in groups.values() {
        let mut blocks = blocks.clone();
        for _ in 0..STEPS_MAX {
            let Some(plan) = planner.plan(&blocks, no_compact) else { break };
            todo.compactions += 1;
            todo.blocks += plan.blocks.len() as u64;
            todo.samples += plan.blocks.iter().map(|m| m.stats.num_samples).sum::<u64>();
            let inputs: BTreeSet<BlockId> = plan.blocks.iter().map(|m| m.ulid).collect();
            blocks.retain(|m| !inputs.contains(&m.ulid));
            blocks.push(result(&plan.blocks));
            sort(&mut blocks);
        }
    }
    todo
}

/// What a compaction would make, as far as planning goes.
fn result(inputs: &[Arc<BlockMeta>]) -> Arc<BlockMeta> {
    let metas: Vec<&BlockMeta> = inputs.iter().map(AsRef::as_ref).collect();
    let mut meta = BlockMeta::clone(metas[0]);
    meta.min_time = metas.iter().map(|m| m.min_time).min().unwrap_or_default();
    meta.max_time = metas.iter().map(|m| m.max_time).max().unwrap_or_default();
    meta.compaction = merged_compaction(&metas);
    meta.stats.num_samples = metas.iter().map(|m| m.stats.num_samples).sum();
    meta.stats.num_tombstones = 0;
    Arc::new(meta)
}

/// How fast it went so far.
#[derive(Debug, Default)]
pub struct Speed(Mutex<(u64, Duration)>);

impl Speed {
    /// A compaction of so many samples took so long.
    pub fn add(&self, samples: u64, took: Duration) {
        let mut sum = self.0.lock();
        sum.0 += samples;
        sum.1 += took;
    }

    /// How long `samples` would take with so many at a time; `None` before the first compaction.
    pub fn estimate(&self, samples: u64, concurrency: usize) -> Option<Duration> {
        let (done, took) = *self.0.lock();
        let seconds = took.as_secs_f64() / done as f64 * samples as f64 / concurrency.max(1) as f64;
        (done > 0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::RANGES_MS;

    #[test]
    fn results_are_counted_on() {
        let two_hours = RANGES_MS[1];
        let blocks: Vec<Arc<BlockMeta>> = (0..25)
            .map(|i| {
                let mut meta =
                    BlockMeta::new(BlockId((i as u128 + 1).into()), i * two_hours, (i + 1) * two_hours);
                meta.stats.num_samples = 10;
                Arc::new(meta)
            })
            .collect();
        let groups = crate::group::group(&blocks);
        // Six times four blocks to 8 h, then these to 2 d; the newest waits.
        let todo = todo(&Planner::default(), &groups, &BTreeSet::new());
        assert_eq!(todo, Todo { compactions: 7, blocks: 30, samples: 480 });
        let speed = Speed::default();
        assert_eq!(speed.estimate(100, 1), None);
        speed.add(10, Duration::from_secs(2));
        assert_eq!(speed.estimate(100, 2), Some(Duration::from_secs(10)));
    }
}
