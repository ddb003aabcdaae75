//! Which blocks a reader takes, in Thanos's order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chronolith_model::relabel::LabelEdit;
use chronolith_model::{BlockId, Relabeling, TimeRange};
use chronolith_tsdb::block::BlockMeta;

use crate::{DeletionMark, time};

/// Why a block is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Excluded {
    /// Outside of the reader's time.
    Time,
    /// The reader's relabel rules drop it.
    Labels,
    /// Uploaded too recently.
    TooFresh,
    /// Marked for deletion long enough ago.
    MarkedForDeletion,
    /// Another block has all of its sources.
    Duplicate,
}

impl Excluded {
    /// The word that Thanos's metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Excluded::Time => "time-excluded",
            Excluded::Labels => "label-excluded",
            Excluded::TooFresh => "too-fresh",
            Excluded::MarkedForDeletion => "marked-for-deletion",
            Excluded::Duplicate => "duplicate",
        }
    }
}

/// The rules of one reader. The default takes everything but duplicates.
#[derive(Clone, Debug)]
pub struct BlockFilter {
    /// Blocks that overlap this are taken.
    pub range: TimeRange,
    /// Blocks whose external labels these rules drop, or of which they leave no label, are not taken. `__block_id` is a label,
    /// too; replica labels are none, so that all replicas of a block go to the same reader.
    pub shard: Relabeling,
    /// Blocks younger than this are left alone, unless a compactor made them.
    pub consistency_delay_ms: i64,
    /// Blocks marked for longer than this are hidden; `None` takes marked blocks.
    pub hide_marked_after_ms: Option<i64>,
    /// Labels taken out of the external labels of what is left, so that replicas become one group. A block without any other
    /// keeps the first of them, with the value `deduped`.
    pub replica_labels: Vec<String>,
    /// Hide blocks whose sources are all in another one.
    pub hide_duplicates: bool,
}

impl Default for BlockFilter {
    fn default() -> Self {
        BlockFilter {
            range: TimeRange::ALL,
            shard: Relabeling::default(),
            consistency_delay_ms: 0,
            hide_marked_after_ms: None,
            replica_labels: Vec::new(),
            hide_duplicates: true,
        }
    }
}

/// Sources whose blocks are complete once visible and replace others, so they never wait.
const NEVER_TOO_FRESH: [&str; 3] = ["compactor", "compactor.repair", "bucket.repair"];

impl BlockFilter {
    /// Removes from `blocks` what this reader leaves out, and says why.
    pub fn apply(
        &self,
        blocks: &mut BTreeMap<BlockId, Arc<BlockMeta>>,
        marks: &HashMap<BlockId, DeletionMark>,
        now_ms: i64,
    ) -> BTreeMap<BlockId, Excluded> {
        let mut excluded = BTreeMap::new();
        let mut exclude = |blocks: &mut BTreeMap<BlockId, Arc<BlockMeta>>,
                           why: Excluded,
                           test: &mut dyn FnMut(&BlockMeta) -> bool| {
            blocks.retain(|id, meta| {
                let out = test(meta);
                if out {
                    excluded.insert(*id, why);
                }
                !out
            });
        };
        exclude(blocks, Excluded::Time, &mut |m| !self.range.overlaps(&m.time_range()));
        if !self.shard.is_empty() {
            let mut edit = LabelEdit::default();
            exclude(blocks, Excluded::Labels, &mut |m| !self.is_of_shard(m, &mut edit));
        }
        exclude(blocks, Excluded::TooFresh, &mut |m| {
            now_ms.saturating_sub(born_ms(m)) < self.consistency_delay_ms
                && !m.thanos.as_ref().is_some_and(|t| NEVER_TOO_FRESH.contains(&t.source.as_str()))
        });
        if let Some(delay_ms) = self.hide_marked_after_ms {
            exclude(blocks, Excluded::MarkedForDeletion, &mut |m| {
                let marked_ms = marks.get(&m.ulid).map(|mark| mark.deletion_time.saturating_mul(1000));
                marked_ms.is_some_and(|t| now_ms.saturating_sub(t) > delay_ms)
            });
        }
        if !self.replica_labels.is_empty() {
            for meta in blocks.values_mut() {
                self.remove_replica_labels(meta);
            }
        }
        if self.hide_duplicates {
            let covers = covers(blocks.values());
            exclude(blocks, Excluded::Duplicate, &mut |m| covers.contains_key(&m.ulid));
        }
        excluded
    }

    fn is_of_shard(&self, meta: &BlockMeta, edit: &mut LabelEdit) -> bool {
        edit.clear();
        let id = meta.ulid.to_string();
        let mut labels = vec![("__block_id", id.as_str())];
        if let Some(thanos) = &meta.thanos {
            let own = thanos.labels.iter().filter(|(name, _)| !self.replica_labels.contains(name));
            labels.extend(own.map(|(name, value)| (name.as_str(), value.as_str())));
        }
        labels.sort_unstable();
        edit.start(labels);
        self.shard.apply(edit) && !edit.is_empty()
    }

    fn remove_replica_labels(&self, meta: &mut Arc<BlockMeta>) {
        let labels = meta.thanos.as_ref().map(|t| &t.labels);
        if !labels.is_some_and(|l| self.replica_labels.iter().any(|r| l.contains_key(r))) {
            return;
        }
        if let Some(thanos) = &mut Arc::make_mut(meta).thanos {
            thanos.labels.retain(|name, _| !self.replica_labels.contains(name));
            if thanos.labels.is_empty() {
                thanos.labels.insert(self.replica_labels[0].clone(), "deduped".to_owned());
            }
        }
    }
}

/// When the block came into the bucket: its upload time, else its ULID's.
fn born_ms(meta: &BlockMeta) -> i64 {
    let uploaded = meta.thanos.as_ref().and_then(|t| t.upload_time.as_deref()).and_then(time::parse_rfc3339);
    uploaded.unwrap_or_else(|| i64::try_from(meta.ulid.0.timestamp_ms()).unwrap_or(i64::MAX))
}

/// The duplicates among blocks, each with the block that has all of its sources. Per resolution and external labels: most
/// sources first, then by ULID; a block whose sources are all in one that was kept earlier is a duplicate.
pub fn covers<'a>(blocks: impl IntoIterator<Item = &'a Arc<BlockMeta>>) -> BTreeMap<BlockId, BlockId> {
    type Labels = BTreeMap<String, String>;
    type Kept = (BlockId, Arc<BTreeSet<BlockId>>);
    let mut groups: BTreeMap<(i64, Labels), Vec<&Arc<BlockMeta>>> = BTreeMap::new();
    for meta in blocks {
        let thanos = meta.thanos.clone().unwrap_or_default();
        groups.entry((thanos.downsample.resolution, thanos.labels)).or_default().push(meta);
    }
    let sources = |m: &BlockMeta| -> BTreeSet<BlockId> {
        if m.compaction.sources.is_empty() {
            BTreeSet::from([m.ulid])
        } else {
            m.compaction.sources.iter().copied().collect()
        }
    };
    let mut out = BTreeMap::new();
    for mut group in groups.into_values() {
        group.sort_by_key(|m| (std::cmp::Reverse(m.compaction.sources.len()), m.ulid));
        // A cover must have each of the block's sources, so looking under one of them is enough.
        let mut kept_by_source: HashMap<BlockId, Vec<Kept>> = HashMap::new();
        for meta in group {
            let own = Arc::new(sources(meta));
            let candidates = own.first().and_then(|s| kept_by_source.get(s));
            if let Some((cover, _)) = candidates.and_then(|kept| kept.iter().find(|(_, k)| own.is_subset(k)))
            {
                out.insert(meta.ulid, *cover);
                continue;
            }
            for source in own.iter() {
                kept_by_source.entry(*source).or_default().push((meta.ulid, own.clone()));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronolith_tsdb::block::ThanosMeta;

    fn id(n: u128) -> BlockId {
        BlockId(n.into())
    }

    fn block(n: u128, sources: &[u128], cluster: &str) -> Arc<BlockMeta> {
        let mut meta = BlockMeta::new(id(n), 0, 100);
        meta.compaction.sources = sources.iter().map(|s| id(*s)).collect();
        let labels = BTreeMap::from([("cluster".to_owned(), cluster.to_owned())]);
        meta.thanos = Some(ThanosMeta { labels, ..ThanosMeta::default() });
        Arc::new(meta)
    }

    fn apply(filter: &BlockFilter, blocks: Vec<Arc<BlockMeta>>, now_ms: i64) -> BTreeMap<u128, &'static str> {
        let mut map = blocks.into_iter().map(|m| (m.ulid, m)).collect();
        let mark = |n: u128, at| {
            let json = format!("{{\"id\":\"{}\",\"version\":1,\"deletion_time\":{at}}}", id(n));
            (id(n), serde_json::from_str(&json).unwrap())
        };
        let marks = HashMap::from([mark(1, 10), mark(2, 90)]);
        let excluded = filter.apply(&mut map, &marks, now_ms);
        assert!(excluded.keys().all(|id| !map.contains_key(id)));
        excluded.into_iter().map(|(id, why)| (id.0.0, why.as_str())).collect()
    }

    #[test]
    fn covered_blocks_are_duplicates_inside_their_group() {
        let blocks = vec![
            block(1, &[1], "a"),
            block(2, &[2], "a"),
            block(3, &[3], "a"),
            block(9, &[1, 2], "a"),
            block(10, &[1, 2], "a"),
            block(4, &[1], "b"),
        ];
        let got = apply(&BlockFilter::default(), blocks, 0);
        let duplicate = "duplicate";
        assert_eq!(got, BTreeMap::from([(1, duplicate), (2, duplicate), (10, duplicate)]));
    }

    #[test]
    fn shards_and_replica_labels() {
        use chronolith_model::relabel::{RelabelAction, RuleSpec};
        let replica = |n: u128, cluster: &str, replica: &str| {
            let mut meta = BlockMeta::clone(&block(n, &[n], cluster));
            let labels = &mut meta.thanos.as_mut().unwrap().labels;
            labels.insert("replica".to_owned(), replica.to_owned());
            labels.retain(|_, value| !value.is_empty());
            Arc::new(meta)
        };
        let blocks =
            vec![replica(1, "a", "x"), replica(2, "a", "y"), replica(3, "b", "x"), replica(4, "", "x")];
        let keep = |label: &str, regex: &str| {
            let spec = RuleSpec {
                source_labels: vec![label.to_owned()],
                regex: Some(regex.to_owned()),
                action: RelabelAction::Keep,
                ..RuleSpec::default()
            };
            Relabeling::new(vec![spec]).unwrap()
        };
        let replica_labels = vec!["replica".to_owned()];
        let mut filter =
            BlockFilter { shard: keep("cluster", "a"), replica_labels, ..BlockFilter::default() };
        let out = "label-excluded";
        assert_eq!(apply(&filter, blocks.clone(), 0), BTreeMap::from([(3, out), (4, out)]));
        filter.shard = keep("__block_id", &id(3).to_string());
        assert_eq!(apply(&filter, blocks.clone(), 0).len(), 3);
        // Replica labels do not count for the choice.
        filter.shard = keep("replica", "x");
        assert_eq!(apply(&filter, blocks.clone(), 0).len(), 4);
        filter.shard = Relabeling::default();
        let mut map: BTreeMap<_, _> = blocks.into_iter().map(|m| (m.ulid, m)).collect();
        filter.apply(&mut map, &HashMap::new(), 0);
        let labels = |n: u128| map[&id(n)].thanos.clone().unwrap().labels;
        assert_eq!(labels(1), labels(2));
        assert_eq!(labels(1), BTreeMap::from([("cluster".to_owned(), "a".to_owned())]));
        assert_eq!(labels(4), BTreeMap::from([("replica".to_owned(), "deduped".to_owned())]));
    }

    #[test]
    fn time_delay_and_marks() {
        let filter = BlockFilter { range: TimeRange::new(100, 200), ..BlockFilter::default() };
        assert_eq!(apply(&filter, vec![block(5, &[5], "a")], 0), BTreeMap::from([(5, "time-excluded")]));
        let filter = BlockFilter { range: TimeRange::new(99, 200), ..BlockFilter::default() };
        assert!(apply(&filter, vec![block(5, &[5], "a")], 0).is_empty());

        let filter = BlockFilter { consistency_delay_ms: 1000, ..BlockFilter::default() };
        let mut compacted = BlockMeta::clone(&block(6, &[6], "a"));
        compacted.thanos.as_mut().unwrap().source = "compactor".to_owned();
        let blocks = vec![block(5, &[5], "a"), Arc::new(compacted)];
        assert_eq!(apply(&filter, blocks.clone(), 999), BTreeMap::from([(5, "too-fresh")]));
        assert!(apply(&filter, blocks, 1000).is_empty());

        let filter = BlockFilter { hide_marked_after_ms: Some(20_000), ..BlockFilter::default() };
        let blocks = vec![block(1, &[1], "a"), block(2, &[2], "a"), block(3, &[3], "a")];
        assert_eq!(apply(&filter, blocks, 100_000), BTreeMap::from([(1, "marked-for-deletion")]));
    }
}
