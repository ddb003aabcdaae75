//! One block again with other labels.
//!
//! Rules may drop series, and may make several series one: then their chunks are put together, each timestamp once. The order of
//! series is that of their new labels, so all of these are held in memory, with a reference each; chunks are read when their series is written.

use std::path::Path;

use chronolith_model::relabel::LabelEdit;
use chronolith_model::{BlockId, Labels, Relabeling, TimeRange};
use chronolith_tsdb::block::{Block, BlockMeta, BlockParts, BlockWriter, BlockWriterOptions, ThanosMeta};
use chronolith_tsdb::index::{SeriesRecord, SymbolCache};
use chronolith_tsdb::merge::{MergeError, merge_chunks};

/// What became of a block.
#[derive(Clone, Debug, PartialEq)]
pub enum Relabeled {
    /// The rules change no label of it.
    Unchanged,
    /// They drop all of it.
    Nothing,
    /// The new block.
    Block(Box<BlockMeta>),
}

/// What the rules make of a series' labels; `None` where they drop it, or leave it without labels.
pub fn relabel(rules: &Relabeling, labels: &Labels) -> Result<Option<Labels>, String> {
    let mut edit = LabelEdit::default();
    edit.start(labels.iter());
    if !rules.apply(&mut edit) || edit.is_empty() {
        return Ok(None);
    }
    if !edit.changed() {
        return Ok(Some(labels.clone()));
    }
    Labels::from_pairs(edit.sorted()).map(Some).map_err(|e| format!("{labels} relabeled: {e}"))
}

/// Writes the block in `dir` below `parent` with the labels that the rules make, without what its tombstones delete. With `always`
/// also where no label changes.
pub(crate) fn relabel_block(
    dir: &Path,
    parent: &Path,
    id: BlockId,
    rules: &Relabeling,
    always: bool,
) -> Result<Relabeled, MergeError> {
    let block = Block::open(dir)?;
    let meta = block.meta();
    let of_block = |source| MergeError { block: Some(meta.ulid), source };
    let (mut series, changed) = new_labels(&block, rules).map_err(of_block)?;
    if !changed && !always {
        return Ok(Relabeled::Unchanged);
    }
    series.sort_unstable();
    let mut writer = BlockWriter::create(parent, id, BlockWriterOptions::default())?;
    for same in series.chunk_by(|a, b| a.0 == b.0) {
        let (labels, mut chunks) = (&same[0].0, Vec::new());
        for found in block.select_refs(same.iter().map(|(_, series)| *series).collect()) {
            chunks.extend(found.map_err(of_block)?.1);
        }
        if same.len() > 1 {
            let failed = |e: chronolith_chunk::ChunkError| {
                of_block(chronolith_tsdb::Error::Invalid(format!("series that become {labels}: {e}")))
            };
            let resolution_ms = meta.thanos.as_ref().map_or(0, |t| t.downsample.resolution);
            chunks = merge_chunks(chunks, resolution_ms).map_err(failed)?;
        }
        if !chunks.is_empty() {
            writer.add_series(labels, &chunks)?;
        }
    }
    let thanos = meta.thanos.clone().map(|t| ThanosMeta { files: Vec::new(), ..t });
    let times = Some((meta.min_time, meta.max_time));
    let made = writer.finish(BlockParts { times, compaction: meta.compaction.clone(), thanos })?;
    Ok(made.map_or(Relabeled::Nothing, |meta| Relabeled::Block(Box::new(meta))))
}

type Series = Vec<(Labels, u32)>;

/// The new labels of the series that stay, with their references, and whether the rules change anything.
fn new_labels(block: &Block, rules: &Relabeling) -> chronolith_tsdb::Result<(Series, bool)> {
    let index = block.index();
    let (mut record, mut cache) = (SeriesRecord::default(), SymbolCache::default());
    let (mut out, mut changed) = (Series::new(), false);
    for series in index.all_postings()? {
        index.series(series, TimeRange::ALL, &mut record)?;
        let labels = index.labels(&record, &mut cache)?;
        let new = relabel(rules, &labels).map_err(chronolith_tsdb::Error::Invalid)?;
        changed |= new.as_ref() != Some(&labels);
        out.extend(new.map(|labels| (labels, series)));
    }
    Ok((out, changed))
}
