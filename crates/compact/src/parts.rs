//! Results that had to be split, since one index could not hold them.
//!
//! Parts of one result have the same times and no source but themselves, so no reader takes one for the other's duplicate, and
//! they have a no-compact mark, so that nobody puts them together again. What belongs together stands in meta.json:
//!
//! ```text
//! thanos.extensions.chronolith_split: {"first": ULID of part 1, "part": 2, "parts": 3}
//! ```
//!
//! Their inputs are marked when all parts were seen in the bucket. A crash before that leaves parts beside the inputs, which readers put
//! together sample by sample; the next one to work on the group marks the inputs if the parts are complete, else the parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use chronolith_model::BlockId;
use chronolith_tsdb::block::BlockMeta;
use serde::{Deserialize, Serialize};

/// Key in `thanos.extensions`.
const KEY: &str = "chronolith_split";
const EXTENSIONS: &str = "extensions";

/// Which part of what a block is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPart {
    /// ULID of the first part.
    pub first: String,
    /// Number of this one, from 1.
    pub part: usize,
    /// How many there are.
    pub parts: usize,
}

impl SplitPart {
    /// What a block's meta says.
    pub fn of(meta: &BlockMeta) -> Option<Self> {
        let extensions = meta.thanos.as_ref()?.unknown.get(EXTENSIONS)?;
        serde_json::from_value(extensions.get(KEY)?.clone()).ok()
    }

    /// Says it in a block's meta.
    pub fn put(&self, meta: &mut BlockMeta) {
        let thanos = meta.thanos.get_or_insert_default();
        let extensions = thanos.unknown.entry(EXTENSIONS).or_insert_with(|| serde_json::json!({}));
        if let Some(map) = extensions.as_object_mut() {
            map.insert(KEY.to_owned(), serde_json::to_value(self).expect("plain data"));
        }
    }
}

/// Parts that a crash left beside their inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// Inputs of complete results, and the parts of these.
    pub inputs: Vec<(BlockId, Vec<BlockId>)>,
    /// Parts of incomplete ones.
    pub parts: Vec<BlockId>,
}

/// Looks for them among the blocks of a group.
pub fn unfinished(blocks: &[Arc<BlockMeta>]) -> Unfinished {
    let mut sets: BTreeMap<String, Vec<(SplitPart, &Arc<BlockMeta>)>> = BTreeMap::new();
    for meta in blocks {
        if let Some(part) = SplitPart::of(meta) {
            sets.entry(part.first.clone()).or_default().push((part, meta));
        }
    }
    let mut out = Unfinished::default();
    for set in sets.into_values() {
        let parents = |meta: &BlockMeta| meta.compaction.parents.iter().map(|p| p.ulid).collect::<Vec<_>>();
        let left: Vec<BlockId> =
            blocks.iter().map(|m| m.ulid).filter(|id| parents(set[0].1).contains(id)).collect();
        if left.is_empty() {
            // Where the inputs are gone, what is there is all there is.
            continue;
        }
        let ids: Vec<BlockId> = set.iter().map(|(_, meta)| meta.ulid).collect();
        let numbers: std::collections::BTreeSet<usize> = set.iter().map(|(part, _)| part.part).collect();
        if numbers.len() == set[0].0.parts {
            out.inputs.extend(left.into_iter().map(|input| (input, ids.clone())));
        } else {
            out.parts.extend(ids);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use chronolith_tsdb::block::ThanosMeta;

    use super::*;

    fn block(n: u128, parents: &[u128], part: Option<(u128, usize, usize)>) -> Arc<BlockMeta> {
        let id = |n: u128| BlockId(n.into());
        let mut meta = BlockMeta::new(id(n), 0, 10);
        meta.thanos = Some(ThanosMeta::default());
        for parent in parents {
            meta.compaction.parents.push(BlockMeta::new(id(*parent), 0, 10).as_parent());
        }
        if let Some((first, part, parts)) = part {
            SplitPart { first: id(first).to_string(), part, parts }.put(&mut meta);
        }
        let json = meta.to_json();
        Arc::new(BlockMeta::parse("m", &json).unwrap())
    }

    #[test]
    fn complete_parts_replace_their_inputs_and_incomplete_ones_go() {
        let ids = |ns: &[u128]| ns.iter().map(|n| BlockId((*n).into())).collect::<Vec<_>>();
        let inputs = [block(1, &[], None), block(2, &[], None), block(3, &[], None)];
        let part = |n, number| block(n, &[1, 2], Some((10, number, 2)));
        let mut all = inputs.to_vec();
        all.push(part(10, 1));
        assert_eq!(unfinished(&all), Unfinished { inputs: vec![], parts: ids(&[10]) });
        all.push(part(11, 2));
        let want = vec![(ids(&[1])[0], ids(&[10, 11])), (ids(&[2])[0], ids(&[10, 11]))];
        assert_eq!(unfinished(&all), Unfinished { inputs: want, parts: vec![] });
        // A second attempt beside the first one.
        all.push(block(20, &[1, 2], Some((20, 1, 2))));
        assert_eq!(unfinished(&all).parts, ids(&[20]));
        let finished = [inputs[2].clone(), part(10, 1), part(11, 2)];
        assert_eq!(unfinished(&finished), Unfinished::default());
        assert_eq!(unfinished(&[part(10, 1)]), Unfinished::default());
    }
}
