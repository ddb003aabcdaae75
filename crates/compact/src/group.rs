//! Groups: the blocks of one producer at one resolution. Only these are compacted with each other.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use chronolith_model::{BlockId, Labels};
use chronolith_tsdb::block::BlockMeta;

/// What the blocks of a group have in common. Replica labels are gone from the labels already.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// Milliseconds between samples; 0 for raw blocks.
    pub resolution_ms: i64,
    /// External labels.
    pub labels: BTreeMap<String, String>,
}

impl GroupKey {
    /// The key of a block.
    pub fn of(meta: &BlockMeta) -> Self {
        match &meta.thanos {
            Some(thanos) => {
                GroupKey { resolution_ms: thanos.downsample.resolution, labels: thanos.labels.clone() }
            }
            None => GroupKey { resolution_ms: 0, labels: BTreeMap::new() },
        }
    }

    /// Resolution and hash of the labels, as Thanos names groups: for directories, leases, logs and metrics. Two groups with
    /// one hash would only wait for each other.
    pub fn name(&self) -> String {
        let hash = Labels::from_pairs(&self.labels).map_or(0, |labels| labels.stable_hash());
        format!("{}@{hash}", self.resolution_ms)
    }
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.labels.iter().enumerate() {
            write!(f, "{}{name}={value:?}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str("}")
    }
}

/// A group's blocks by beginning, then age.
pub type Groups = BTreeMap<GroupKey, Vec<Arc<BlockMeta>>>;

/// Sorts blocks into groups.
pub fn group<'a>(blocks: impl IntoIterator<Item = &'a Arc<BlockMeta>>) -> Groups {
    let mut groups = Groups::new();
    for meta in blocks {
        groups.entry(GroupKey::of(meta)).or_default().push(meta.clone());
    }
    for blocks in groups.values_mut() {
        sort(blocks);
    }
    groups
}

/// The order in which a planner wants blocks.
pub fn sort(blocks: &mut [Arc<BlockMeta>]) {
    blocks.sort_by_key(|m| (m.min_time, m.ulid));
}

/// Ids of blocks, for logs.
pub fn ids(blocks: &[Arc<BlockMeta>]) -> Vec<BlockId> {
    blocks.iter().map(|m| m.ulid).collect()
}

#[cfg(test)]
mod tests {
    use chronolith_tsdb::block::ThanosMeta;

    use super::*;

    #[test]
    fn blocks_are_grouped_by_labels_and_resolution() {
        let block = |n: u128, min_time, cluster: &str, resolution| {
            let mut meta = BlockMeta::new(BlockId(n.into()), min_time, min_time + 10);
            let labels = BTreeMap::from([("cluster".to_owned(), cluster.to_owned())]);
            let mut thanos = ThanosMeta { labels, ..ThanosMeta::default() };
            thanos.downsample.resolution = resolution;
            meta.thanos = Some(thanos);
            Arc::new(meta)
        };
        let blocks =
            [block(1, 20, "a", 0), block(2, 0, "a", 0), block(3, 0, "b", 0), block(4, 0, "a", 300_000)];
        let groups = group(&blocks);
        assert_eq!(groups.len(), 3);
        let key = GroupKey::of(&blocks[0]);
        assert_eq!(ids(&groups[&key]), [BlockId(2.into()), BlockId(1.into())]);
        assert_eq!(key.to_string(), "{cluster=\"a\"}");
        // xxhash64 of `cluster 0xFF a 0xFF`, as Thanos has it.
        assert_eq!(
            key.name(),
            format!("0@{}", Labels::from_pairs([("cluster", "a")]).unwrap().stable_hash())
        );
        assert_ne!(key.name(), GroupKey::of(&blocks[3]).name());
    }
}
