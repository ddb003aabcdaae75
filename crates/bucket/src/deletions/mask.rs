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

    /// Matchers on series' own labels, none meaning all series, and what they delete. What no rule selects loses nothing.
    pub fn rules(&self) -> impl Iterator<Item = (&[Matcher], TimeRange)> {
        self.rules.iter().map(|r| (r.matchers.as_slice(), r.range))
    }

    /// True when all of `range` is deleted of all series.
    pub fn hides_all(&self, range: TimeRange) -> bool {
        let of_all = self.rules.iter().filter(|r| r.matchers.is_empty()).map(|r| r.range);
        joined(of_all.collect()).iter().any(|d| covers(d, &range))
    }

    /// True when a series, given by the times of its chunks, has lost all that it had in `range`.
    pub fn hides(
        &self,
        labels: &Labels,
        chunks: impl IntoIterator<Item = TimeRange>,
        range: TimeRange,
    ) -> bool {
        let lost = self.lost(labels);
        !lost.is_empty() && chunks.into_iter().all(|chunk| hides_chunk(&lost, chunk, range))
    }

    /// The ranges deleted of a series, ascending, without overlaps.
    pub(crate) fn lost(&self, labels: &Labels) -> Vec<TimeRange> {
        joined(self.deleted(labels))
    }

    /// Takes out of a series' chunks what is deleted. False when nothing is left of a series that had something.
    pub fn apply(
        &self,
        labels: &Labels,
        chunks: &mut Vec<Chunk>,
        range: TimeRange,
    ) -> Result<bool, ChunkError> {
        let deleted = self.lost(labels);
        if deleted.is_empty() {
            return Ok(true);
        }
        let mut kept = Vec::with_capacity(chunks.len());
        for chunk in chunks.drain(..) {
            let own = chunk.time_range();
            if deleted.iter().any(|d| covers(d, &own)) {
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

/// True when nothing is left of a chunk in `range`, `lost` being [`Mask::lost`].
pub(crate) fn hides_chunk(lost: &[TimeRange], chunk: TimeRange, range: TimeRange) -> bool {
    let asked = TimeRange::new(chunk.mint.max(range.mint), chunk.maxt.min(range.maxt));
    asked.is_empty() || lost.iter().any(|d| covers(d, &asked))
}

fn covers(outer: &TimeRange, inner: &TimeRange) -> bool {
    outer.mint <= inner.mint && inner.maxt <= outer.maxt
}

/// The same times in ranges that neither overlap nor touch each other, ascending.
fn joined(mut ranges: Vec<TimeRange>) -> Vec<TimeRange> {
    ranges.sort_unstable_by_key(|r| r.mint);
    let mut out: Vec<TimeRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.mint <= last.maxt.saturating_add(1) => last.maxt = last.maxt.max(range.maxt),
            _ => out.push(range),
        }
    }
    out
}
