//! Downsampling: a block of raw samples becomes one of five-minute aggregates, and that one of one-hour aggregates.
//!
//! ```text
//! series ─ chunks ─ runs of one kind ─ batches ─ windows ─ count, sum, min, max, counter ─ aggregate chunk
//! ```
//!
//! What comes out is what Thanos makes of the same block, to the byte for floats; counters of histograms keep their totals from
//! chunk to chunk besides (see [`histograms`]). One series is in memory at a time: its decoded floats, or one histogram of it.
//! A block is written under a temporary name and appears whole, so that a run that stopped is simply done again.

mod floats;
mod histograms;
mod series;
mod window;

#[cfg(test)]
mod tests;

use std::path::Path;

use chronolith_model::{BlockId, Resolution, TimeRange};
use chronolith_tsdb::block::{Block, BlockMeta, BlockParts, BlockWriter, BlockWriterOptions};
use chronolith_tsdb::{Error, Result};

pub use series::SeriesDownsampler;

/// What the meta of a block that the compactor made says of its origin.
const SOURCE: &str = "compactor";

/// Writes `block` in the next resolution as a new block `id` below `parent`, and gives its meta: the times, the history and
/// the external labels of its origin. `None` when no series is left. `wanted` is asked now and then whether to go on.
///
/// Errors: a block of the coarsest resolution; damaged chunks, overlapping aggregates; a full disk; not wanted any more.
pub fn downsample(
    block: &Block,
    parent: &Path,
    id: BlockId,
    options: BlockWriterOptions,
    mut wanted: impl FnMut() -> bool,
) -> Result<Option<BlockMeta>> {
    let from =
        block.meta().resolution().ok_or_else(|| invalid(block, "its resolution is none that exists"))?;
    let to = next_resolution(from)
        .ok_or_else(|| invalid(block, "there is no coarser resolution than one hour"))?;
    let mut writer = BlockWriter::create(parent, id, options)?;
    let mut downsampler = SeriesDownsampler::new(from, to);
    let mut out = Vec::new();
    for (i, series) in block.select(&[], TimeRange::ALL)?.enumerate() {
        if i.is_multiple_of(SERIES_BETWEEN_CHECKS) && !wanted() {
            return Err(invalid(block, "downsampling was interrupted"));
        }
        let (labels, chunks) = series?;
        out.clear();
        downsampler.downsample(chunks, &mut out).map_err(|source| Error::Chunk {
            file: format!("{} (series {labels})", block.dir().display()),
            offset: 0,
            source,
        })?;
        writer.add_series(&labels, &out)?;
    }
    let origin = block.meta();
    let mut thanos = origin.thanos.clone().unwrap_or_default();
    thanos.downsample.resolution = to.ms();
    thanos.source = SOURCE.to_owned();
    thanos.files.clear();
    thanos.segment_files.clear();
    thanos.upload_time = None;
    writer.finish(BlockParts {
        times: Some((origin.min_time, origin.max_time)),
        compaction: origin.compaction.clone(),
        thanos: Some(thanos),
    })
}

/// The resolution that data of this one is downsampled to.
pub fn next_resolution(from: Resolution) -> Option<Resolution> {
    match from {
        Resolution::Raw => Some(Resolution::FiveMinutes),
        Resolution::FiveMinutes => Some(Resolution::OneHour),
        Resolution::OneHour => None,
    }
}

/// Series between two looks at whether the work is still wanted: some milliseconds.
const SERIES_BETWEEN_CHECKS: usize = 64;

fn invalid(block: &Block, what: &str) -> Error {
    Error::Invalid(format!("block {}: {what}", block.id()))
}
