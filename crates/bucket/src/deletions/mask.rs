//! What is deleted of one producer's series and not rewritten yet.

use std::collections::BTreeSet;

use chronolith_chunk::{Chunk, ChunkError};
use chronolith_model::{BlockId, Labels, Matcher, TimeRange};
use chronolith_tsdb::block::without_ranges;

/// Ranges deleted of the series that satisfy matchers on their own labels.
#[derive(Clone, Debug, Default)]
pub struct Mask {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    id: BlockId,
    /// None mean all series.
    matchers: Vec<Matcher>,
    range: TimeRange,
}

impl Mask {
    pub(super) fn add(&mut self, id: BlockId, matchers: Vec<Matcher>, range: TimeRange) {
        self.rules.push(Rule { id, matchers, range });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The requests it stands for.
    pub fn requests(&self) -> BTreeSet<BlockId> {
        self.rules.iter().map(|r| r.id).collect()
    }

    /// What is deleted of a series, given without external labels.
    pub fn deleted(&self, labels: &Labels) -> Vec<TimeRange> {
        let holds = |m: &Matcher| m.matches(labels.get(&m.name).unwrap_or_default());
        self.rules.iter().filter(|r| r.matchers.iter().all(holds)).map(|r| r.range).collect()
    }

    /// Takes out of a series' chunks what is deleted. False when nothing is left of a series that had something, or, where no
    /// chunks were read, when all of `range` is deleted.
    pub fn apply(
        &self,
        labels: &Labels,
        chunks: &mut Vec<Chunk>,
        range: TimeRange,
    ) -> Result<bool, ChunkError> {
        let deleted = self.deleted(labels);
        if deleted.is_empty() {
            return Ok(true);
        }
        if chunks.is_empty() {
            return Ok(!deleted.iter().any(|d| d.mint <= range.mint && range.maxt <= d.maxt));
        }
        let mut kept = Vec::with_capacity(chunks.len());
        for chunk in chunks.drain(..) {
            let own = chunk.time_range();
            if deleted.iter().any(|d| d.mint <= own.mint && own.maxt <= d.maxt) {
                continue;
            }
            if deleted.iter().any(|d| d.overlaps(&own)) {
                // What stays may lie outside of what was asked.
                let left = without_ranges(&chunk, &deleted)?;
                kept.extend(left.into_iter().filter(|c| c.time_range().overlaps(&range)));
            } else {
                kept.push(chunk);
            }
        }
        *chunks = kept;
        Ok(!chunks.is_empty())
    }
}
