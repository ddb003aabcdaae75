//! The full check of a block before it is uploaded, after which the local copy may go.

use std::ops::ControlFlow;
use std::path::Path;

use chronolith_chunk::{AggrChunk, Aggregate, Encoding};
use chronolith_model::{Labels, TimeRange};
use rustc_hash::FxHashMap;

use super::{Block, BlockMeta};
use crate::index::{SeriesRecord, SymbolCache};
use crate::{Error, Result};

/// What was found in a sound block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Series.
    pub series: u64,
    /// Chunks.
    pub chunks: u64,
    /// Samples.
    pub samples: u64,
    /// Label pairs.
    pub postings: u64,
}

/// Reads every byte of a block that means something: all checksums, the order of symbols, series, chunks and
/// postings, that each postings list holds exactly the series with its label pair, that each chunk decodes to
/// ascending samples within its own and the block's times, and that the statistics in meta.json are right.
pub fn verify(dir: &Path) -> Result<VerifyReport> {
    verify_with(dir, true)
}

/// As [`verify`], but samples are counted by the headers of their chunks, not decoded: for what was made of chunks that were
/// sound by their checksums.
pub fn verify_structure(dir: &Path) -> Result<VerifyReport> {
    verify_with(dir, false)
}

fn verify_with(dir: &Path, decode: bool) -> Result<VerifyReport> {
    let block = Block::open(dir)?;
    check_symbols(&block)?;
    let mut pairs = FxHashMap::default();
    let mut report = check_series(&block, &mut pairs, decode)?;
    report.postings = check_postings(&block, pairs)?;
    check_stats(block.meta(), &report, &dir.join(super::META_FILE))?;
    Ok(report)
}

/// Number of series of a label pair, and the sum of the hashes of their references: equal for two lists only if
/// they hold the same references, in any order, except by a chance of 2^-64.
type Fingerprint = (u64, u64);

fn add(fingerprint: &mut Fingerprint, series: u32) {
    fingerprint.0 += 1;
    fingerprint.1 = fingerprint.1.wrapping_add(xxhash_rust::xxh3::xxh3_64(&series.to_le_bytes()));
}

fn check_symbols(block: &Block) -> Result<()> {
    let index = block.index();
    let mut last: Option<&str> = None;
    for symbol in index.symbols().iter() {
        let symbol = symbol?;
        if last.is_some_and(|last| last >= symbol) {
            let what = format!("symbol {symbol:?} is not above the one before it");
            return Err(Error::corrupt(index.file(), index.toc().symbols, what));
        }
        last = Some(symbol);
    }
    Ok(())
}

fn check_series(
    block: &Block,
    pairs: &mut FxHashMap<(u32, u32), Fingerprint>,
    decode: bool,
) -> Result<VerifyReport> {
    let index = block.index();
    let mut report = VerifyReport::default();
    let mut record = SeriesRecord::default();
    let mut cache = SymbolCache::default();
    let mut last: Option<Labels> = None;
    let mut last_ref = None;
    for series in index.all_postings()? {
        let corrupt = |what: String| Error::corrupt(index.file(), index.series_offset(series), what);
        if last_ref.is_some_and(|last| last >= series) {
            return Err(corrupt("series references are not ascending".to_owned()));
        }
        last_ref = Some(series);
        index.series(series, TimeRange::ALL, &mut record)?;
        let labels = index.labels(&record, &mut cache)?;
        if last.is_some_and(|last| last >= labels) {
            return Err(corrupt(format!("series {labels} is not above the one before it")));
        }
        for pair in &record.labels {
            add(pairs.entry(*pair).or_default(), series);
        }
        let overlap = record.chunks.windows(2).find(|w| w[1].mint <= w[0].maxt);
        if let Some(w) = overlap {
            return Err(corrupt(format!("series {labels}: chunk at {} overlaps the one before", w[1].mint)));
        }
        for meta in &record.chunks {
            if meta.mint < block.meta().min_time || meta.maxt > block.time_range().maxt {
                let range = meta.range();
                return Err(corrupt(format!("series {labels}: chunk {range} is outside the block's times")));
            }
            report.samples += check_chunk(block, meta, decode)?;
        }
        report.series += 1;
        report.chunks += record.chunks.len() as u64;
        last = Some(labels);
    }
    Ok(report)
}

fn check_chunk(block: &Block, meta: &crate::index::ChunkMeta, decode: bool) -> Result<u64> {
    let chunk = block.chunk(meta)?;
    let fail = |e| block.chunk_error(meta, e);
    if !decode && chunk.encoding != Encoding::Aggregate {
        return chunk.sample_count().map(|n| n as u64).map_err(fail);
    }
    if chunk.encoding == Encoding::Aggregate {
        // How the times of the parts relate is for their own readers; each must be one that can be read.
        let parts = AggrChunk::parse(&chunk.data).map_err(fail)?;
        for part in Aggregate::ALL.into_iter().filter_map(|which| parts.get(which, meta.mint, meta.maxt)) {
            part.iter().map_err(fail)?.try_for_each(|sample| sample.map(|_| ())).map_err(fail)?;
        }
        return Ok(parts.sample_count().map_err(fail)? as u64);
    }
    let (segment, offset) = meta.place();
    let corrupt = |what: String| {
        let file = format!("{}/chunks/{}", block.dir().display(), super::segment_name(segment as u64 + 1));
        Error::corrupt(&file, offset as u64, what)
    };
    let mut first = None;
    let mut last = None;
    let mut count = 0;
    for sample in chunk.iter().map_err(fail)? {
        let (t, _) = sample.map_err(fail)?;
        if last.is_some_and(|last| last >= t) {
            return Err(corrupt(format!("sample at {t} is not above the one before it")));
        }
        first.get_or_insert(t);
        last = Some(t);
        count += 1;
    }
    if first != Some(meta.mint) || last != Some(meta.maxt) {
        let what = format!("chunk holds {first:?} to {last:?}, its series says {}", meta.range());
        return Err(corrupt(what));
    }
    Ok(count)
}

fn check_postings(block: &Block, mut pairs: FxHashMap<(u32, u32), Fingerprint>) -> Result<u64> {
    let index = block.index();
    let table = index.postings_table();
    let corrupt = |what: String| Error::corrupt(index.file(), index.toc().postings_offset_table, what);
    let mut count = 0;
    for name in table.names() {
        let mut lists = Vec::new();
        table.visit(name, "", &mut |value, range| {
            lists.push((value.to_owned(), range));
            ControlFlow::Continue(())
        })?;
        let name_symbol = index.symbols().find(name)?;
        for (value, range) in lists {
            let list = index.list(range)?;
            let mut found = Fingerprint::default();
            list.iter().for_each(|series| add(&mut found, *series));
            let pair = name_symbol.zip(index.symbols().find(&value)?);
            let want = pair.and_then(|pair| pairs.remove(&pair)).unwrap_or_default();
            if found != want || list.windows(2).any(|w| w[0] >= w[1]) {
                return Err(corrupt(format!(
                    "list of {name}={value:?} does not hold the series that have it"
                )));
            }
            count += 1;
        }
    }
    if !pairs.is_empty() {
        return Err(corrupt(format!("{} label pairs have no postings list", pairs.len())));
    }
    Ok(count)
}

fn check_stats(meta: &BlockMeta, report: &VerifyReport, path: &Path) -> Result<()> {
    let stats = &meta.stats;
    // Blocks with aggregates have sample counts of their own meaning.
    let samples_differ =
        meta.resolution().is_some_and(|r| r.ms() == 0) && stats.num_samples != report.samples;
    if stats.num_series != report.series || stats.num_chunks != report.chunks || samples_differ {
        let what = format!("statistics {stats:?} do not agree with what is there, {report:?}");
        return Err(Error::corrupt(&path.display().to_string(), 0, what));
    }
    Ok(())
}
