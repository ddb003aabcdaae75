//! The loaded blocks, and which of them answer for a stretch of time.

use std::collections::BTreeMap;
use std::sync::Arc;

use chronolith_bucket::BucketBlock;
use chronolith_model::{BlockId, Labels, Resolution, TimeRange};
use chronolith_storeapi::TsdbInfo;

/// What is loaded at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) by_id: BTreeMap<BlockId, Arc<BucketBlock>>,
    pub(crate) sets: Vec<BlockSet>,
}

/// The blocks of one producer.
#[derive(Debug)]
pub(crate) struct BlockSet {
    pub(crate) external: Labels,
    /// One-hour, five-minute, raw: coarse first; each by start.
    levels: [Vec<Arc<BucketBlock>>; 3],
}

const LEVELS: [Resolution; 3] = [Resolution::OneHour, Resolution::FiveMinutes, Resolution::Raw];

impl Snapshot {
    pub(crate) fn new(by_id: BTreeMap<BlockId, Arc<BucketBlock>>) -> Self {
        let mut sets: BTreeMap<Labels, BlockSet> = BTreeMap::new();
        for block in by_id.values() {
            let external = block.external_labels();
            let set = sets
                .entry(external.clone())
                .or_insert_with(|| BlockSet { external: external.clone(), levels: Default::default() });
            let resolution = block.meta().resolution().unwrap_or_default();
            let level = LEVELS.iter().position(|l| *l == resolution).expect("every resolution has a level");
            set.levels[level].push(block.clone());
        }
        let mut sets: Vec<BlockSet> = sets.into_values().collect();
        for level in sets.iter_mut().flat_map(|s| &mut s.levels) {
            level.sort_by_key(|b| (b.meta().min_time, b.id()));
        }
        Snapshot { by_id, sets }
    }

    /// The time of all blocks; empty without any.
    pub(crate) fn range(&self) -> TimeRange {
        let ranges = self.by_id.values().map(|b| b.meta().time_range());
        ranges.fold(TimeRange::new(i64::MAX, i64::MIN), |all, r| {
            TimeRange::new(all.mint.min(r.mint), all.maxt.max(r.maxt))
        })
    }

    /// One entry a producer and stretch of time without holes.
    pub(crate) fn tsdbs(&self) -> Vec<TsdbInfo> {
        let mut out: Vec<TsdbInfo> = Vec::new();
        for set in &self.sets {
            let mut ranges: Vec<TimeRange> =
                set.levels.iter().flatten().map(|b| b.meta().time_range()).collect();
            ranges.sort_by_key(|r| (r.mint, r.maxt));
            for range in ranges {
                match out.last_mut() {
                    Some(last)
                        if last.labels == set.external && range.mint <= last.range.maxt.saturating_add(1) =>
                    {
                        last.range.maxt = last.range.maxt.max(range.maxt);
                    }
                    _ => out.push(TsdbInfo { labels: set.external.clone(), range }),
                }
            }
        }
        out
    }
}

impl BlockSet {
    /// The blocks that answer for `range`: of the coarsest resolution that is allowed where there are some, of the next
    /// finer one in their holes, and so on.
    pub(crate) fn choose(&self, range: TimeRange, resolution_max_ms: i64) -> Vec<Arc<BucketBlock>> {
        let first = LEVELS.iter().position(|l| l.ms() <= resolution_max_ms.max(0)).unwrap_or(2);
        let mut out = Vec::new();
        self.fill(range, first, &mut out);
        out.sort_by_key(|b| (b.meta().min_time, b.id()));
        // A finer block that reaches into two holes is found twice.
        out.dedup_by_key(|b| b.id());
        out
    }

    fn fill(&self, range: TimeRange, level: usize, out: &mut Vec<Arc<BucketBlock>>) {
        if range.is_empty() || level == LEVELS.len() {
            return;
        }
        let mut start = range.mint;
        for block in self.levels[level].iter().filter(|b| b.meta().time_range().overlaps(&range)) {
            let own = block.meta().time_range();
            if own.mint > start {
                self.fill(TimeRange::new(start, own.mint - 1), level + 1, out);
            }
            out.push(block.clone());
            if own.maxt >= range.maxt {
                // Nothing is left to fill, but further blocks may overlap.
                start = i64::MAX;
            } else {
                start = start.max(own.maxt + 1);
            }
        }
        if start <= range.maxt {
            self.fill(TimeRange::new(start, range.maxt), level + 1, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use chronolith_objstore::Bucket;
    use chronolith_tsdb::block::{BlockMeta, ThanosMeta};

    /// Blocks given as (number, start, end, resolution in ms).
    fn set(blocks: &[(u128, i64, i64, i64)]) -> Snapshot {
        let mut by_id = BTreeMap::new();
        for &(n, mint, maxt, resolution) in blocks {
            let mut meta = BlockMeta::new(BlockId(n.into()), mint, maxt);
            let mut thanos = ThanosMeta::new(&Labels::from_pairs([("a", "b")]).unwrap(), "test");
            thanos.downsample.resolution = resolution;
            meta.thanos = Some(thanos);
            let block = BucketBlock::new(Bucket::in_memory(), Arc::new(meta), Path::new("/nowhere")).unwrap();
            by_id.insert(block.id(), Arc::new(block));
        }
        Snapshot::new(by_id)
    }

    fn chosen(s: &Snapshot, mint: i64, maxt: i64, resolution: i64) -> Vec<u128> {
        s.sets[0].choose(TimeRange::new(mint, maxt), resolution).iter().map(|b| b.id().0.0).collect()
    }

    const M5: i64 = 300_000;
    const H1: i64 = 3_600_000;

    #[test]
    fn coarse_first_holes_filled_with_finer() {
        let s = set(&[
            (1, 0, 100, 0),
            (2, 100, 200, 0),
            (3, 200, 300, 0),
            (4, 300, 400, 0),
            (11, 0, 200, M5),
            (12, 200, 300, M5),
            (21, 100, 200, H1),
        ]);
        assert_eq!(chosen(&s, 0, 399, 0), [1, 2, 3, 4]);
        assert_eq!(chosen(&s, 100, 199, 0), [2]);
        assert_eq!(chosen(&s, 0, 399, M5), [11, 12, 4]);
        assert_eq!(chosen(&s, 0, 399, H1 - 1), [11, 12, 4]);
        assert_eq!(chosen(&s, 0, 399, H1), [11, 21, 12, 4]);
        assert_eq!(chosen(&s, 120, 150, H1), [21]);
        assert_eq!(chosen(&s, 400, 500, H1), [0u128; 0]);
        assert_eq!(chosen(&s, i64::MIN, i64::MAX, i64::MAX), [11, 21, 12, 4]);
        assert_eq!(chosen(&s, 10, 5, 0), [0u128; 0]);
    }

    #[test]
    fn overlapping_blocks_are_all_read_once() {
        let s = set(&[
            (1, 0, 300, 0),
            (2, 100, 200, 0),
            (3, 250, 400, 0),
            (11, 150, 160, M5),
            (12, 170, 180, M5),
        ]);
        assert_eq!(chosen(&s, 0, 399, 0), [1, 2, 3]);
        assert_eq!(chosen(&s, 0, 399, M5), [1, 2, 11, 12, 3]);
        assert_eq!(s.range(), TimeRange::new(0, 399));
        assert_eq!(s.tsdbs().len(), 1);
        let holes = set(&[(1, 0, 100, 0), (2, 100, 200, 0), (3, 300, 400, 0)]);
        let ranges: Vec<_> = holes.tsdbs().iter().map(|t| t.range).collect();
        assert_eq!(ranges, [TimeRange::new(0, 199), TimeRange::new(300, 399)]);
    }
}
