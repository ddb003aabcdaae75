//! What to compact next in a group: Thanos's rules, as pure functions of the blocks.
//!
//! 1. Blocks that overlap in time (replicas, late samples, imports) are merged first: the first run of them.
//! 2. Else, for each range but the smallest: aligned windows of that length; the first window with two blocks or more that is
//!    full, or that ends before the newest block begins. The newest block itself waits, so that what follows it can join.
//! 3. Else a single large block of which more than a twentieth is deleted.
//!
//! Blocks with a no-compact mark take no part, and what lies on both sides of one is not put together.

use std::collections::BTreeSet;
use std::sync::Arc;

use chronolith_model::BlockId;
use chronolith_tsdb::block::BlockMeta;

/// Lengths of compacted blocks, Thanos's: 1 h, 2 h, 8 h, 2 d, 14 d.
pub const RANGES_MS: [i64; 5] = [HOUR_MS, 2 * HOUR_MS, 8 * HOUR_MS, 48 * HOUR_MS, 14 * 24 * HOUR_MS];
const HOUR_MS: i64 = 3_600_000;

/// Share of deleted ranges at which a block is rewritten by itself.
const TOMBSTONES_SHARE: f64 = 0.05;

/// Blocks that become one.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The inputs, by beginning.
    pub blocks: Vec<Arc<BlockMeta>>,
    /// Some of them overlap.
    pub vertical: bool,
}

/// The rules with their ranges.
#[derive(Clone, Debug)]
pub struct Planner {
    ranges_ms: Vec<i64>,
}

impl Default for Planner {
    fn default() -> Self {
        Planner { ranges_ms: RANGES_MS.to_vec() }
    }
}

impl Planner {
    /// A planner that goes no further than `level`: 0 is 1 h, 4 is 14 d.
    pub fn up_to_level(level: usize) -> Self {
        Planner { ranges_ms: RANGES_MS[..=level.min(RANGES_MS.len() - 1)].to_vec() }
    }

    /// What is to be merged next in a group, whose blocks come in the order of [`crate::group::sort`]. `excluded` have a no-compact
    /// mark.
    pub fn plan(&self, blocks: &[Arc<BlockMeta>], excluded: &BTreeSet<BlockId>) -> Option<Plan> {
        let allowed: Vec<&Arc<BlockMeta>> = blocks.iter().filter(|m| !excluded.contains(&m.ulid)).collect();
        let overlapping = first_overlapping(&allowed);
        if !overlapping.is_empty() {
            return Some(Plan { blocks: overlapping, vertical: true });
        }
        let (newest, older) = blocks.split_last()?;
        let chosen = self.choose(older, excluded);
        if !chosen.is_empty() {
            return Some(Plan { blocks: chosen, vertical: false });
        }
        // The newest of those that are not excluded waits as well.
        let waiting = usize::from(!excluded.contains(&newest.ulid));
        let candidates = &allowed[..allowed.len() - waiting];
        let large = self.ranges_ms.get(self.ranges_ms.len() / 2)?;
        let large = candidates.iter().rev().take_while(|m| m.max_time - m.min_time >= *large);
        let mut deleted = large
            .filter(|m| m.stats.num_tombstones as f64 / (m.stats.num_series + 1) as f64 > TOMBSTONES_SHARE);
        deleted.next().map(|m| Plan { blocks: vec![Arc::clone(m)], vertical: false })
    }

    fn choose(&self, blocks: &[Arc<BlockMeta>], excluded: &BTreeSet<BlockId>) -> Vec<Arc<BlockMeta>> {
        let Some(newest_begins) = blocks.last().map(|m| m.min_time) else { return Vec::new() };
        for range_ms in self.ranges_ms.iter().skip(1) {
            for window in windows(blocks, *range_ms) {
                let (Some(first), Some(last)) = (window.first(), window.last()) else { continue };
                let full = last.max_time - first.min_time == *range_ms;
                if window.iter().any(|m| m.compaction.failed) || !full && last.max_time > newest_begins {
                    continue;
                }
                let mut runs = window.split(|m| excluded.contains(&m.ulid));
                if let Some(run) = runs.find(|run| run.len() > 1) {
                    return run.to_vec();
                }
            }
        }
        Vec::new()
    }
}

/// The first run of blocks of which each overlaps one before it.
fn first_overlapping(blocks: &[&Arc<BlockMeta>]) -> Vec<Arc<BlockMeta>> {
    let mut found: Vec<Arc<BlockMeta>> = Vec::new();
    let Some(mut end) = blocks.first().map(|m| m.max_time) else { return found };
    for pair in blocks.windows(2) {
        let (before, meta) = (pair[0], pair[1]);
        if meta.min_time < end {
            if found.is_empty() {
                found.push(before.clone());
            }
            found.push(meta.clone());
        } else if !found.is_empty() {
            break;
        }
        end = end.max(meta.max_time);
    }
    found
}

/// The blocks of each aligned window of `range_ms`. Blocks that cross the edge of a window, or are longer, are in none.
fn windows(blocks: &[Arc<BlockMeta>], range_ms: i64) -> Vec<&[Arc<BlockMeta>]> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < blocks.len() {
        let end = blocks[at].min_time.div_euclid(range_ms).saturating_mul(range_ms).saturating_add(range_ms);
        let inside = blocks[at..].iter().take_while(|m| m.max_time <= end).count();
        if inside > 0 {
            found.push(&blocks[at..at + inside]);
        }
        at += inside.max(1);
    }
    found
}

#[cfg(test)]
mod tests;
