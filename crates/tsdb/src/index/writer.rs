//! Writing an index in bounded memory.
//!
//! Symbols stand before the series that refer to them, but are only known when the last series has come. So:
//!
//! 1. [`IndexWriter::add_series`] interns strings under provisional numbers and spills the series to a temporary
//!    file beside the index (its name is removed at once, so a crash leaves nothing).
//! 2. [`IndexWriter::finish`] sorts the symbols, streams the spilled series into the index with final numbers,
//! 3. and then has the postings written from the series section ([`super::postings_writer`]).
//!
//! Memory: every distinct string once, 4 bytes a series, and one batch (at least one label name: 8 bytes a series
//! that has it).

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use chronolith_model::Labels;

use super::interner::Interner;
use super::output::{BUFFER_BYTES, Output, Section, unnamed_file};
use super::postings_writer::{Lists, NameUses, finish_index};
use super::{ChunkMeta, HEADER_BYTES, MAGIC, SERIES_ALIGN, SeriesRecord, Toc, VERSION_WRITTEN};
use crate::cursor::put_uvarint_bytes;
use crate::{Error, Result};

/// How an index is written.
#[derive(Clone, Copy, Debug)]
pub struct IndexWriterOptions {
    /// Put the empty string into the symbol table, as Prometheus does for blocks cut from its head. On by default;
    /// readers rely on it neither way.
    pub empty_symbol: bool,
    /// Memory for one batch of postings.
    pub postings_bytes_max: usize,
    /// Sync the file before it counts as finished.
    pub sync: bool,
}

impl Default for IndexWriterOptions {
    fn default() -> Self {
        // 32 MiB hold 4M postings: a block of 100k series with a dozen labels takes one pass, one of a million four.
        IndexWriterOptions { empty_symbol: true, postings_bytes_max: 32 << 20, sync: true }
    }
}

/// Writes one index file. Series come in label order, their chunk references ascending.
#[derive(Debug)]
pub struct IndexWriter {
    path: PathBuf,
    options: IndexWriterOptions,
    out: Output,
    spill: BufWriter<File>,
    interner: Interner,
    series_count: u64,
    series_bytes_max: u64,
    last: LastSeries,
    record: SeriesRecord,
    body: Vec<u8>,
    entry: Vec<u8>,
}

/// Sizes of a finished index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexWritten {
    /// Length of the file.
    pub bytes: u64,
    /// Longest series entry.
    pub series_bytes_max: u64,
}

/// The series before, to check the order and to reuse its symbol numbers: neighbours share most labels.
#[derive(Debug, Default)]
struct LastSeries {
    labels: Option<Labels>,
    symbols: Vec<(u32, u32)>,
    chunk_ref: u64,
}

impl IndexWriter {
    /// Creates the file, which must not exist.
    pub fn create(path: &Path, options: IndexWriterOptions) -> Result<Self> {
        let mut out = Output::create(path)?;
        out.write(&MAGIC.to_be_bytes())?;
        out.write(&[VERSION_WRITTEN])?;
        let spill = unnamed_file(path, "series")?;
        let mut interner = Interner::default();
        if options.empty_symbol {
            interner.intern("");
        }
        Ok(IndexWriter {
            path: path.to_owned(),
            options,
            out,
            spill: BufWriter::with_capacity(BUFFER_BYTES, spill),
            interner,
            series_count: 0,
            series_bytes_max: 0,
            last: LastSeries::default(),
            record: SeriesRecord::default(),
            body: Vec::new(),
            entry: Vec::new(),
        })
    }

    /// Adds a series. Errors without effect: labels not above the last series', chunks not in order.
    pub fn add_series(&mut self, labels: &Labels, chunks: &[ChunkMeta]) -> Result<()> {
        if let Some(last) = self.last.labels.as_ref().filter(|last| *last >= labels) {
            return Err(Error::Invalid(format!("series {labels} is not above the one before it, {last}")));
        }
        check_chunk_order(labels, chunks, self.last.chunk_ref)?;
        self.record.labels.clear();
        let mut before = self.last.labels.iter().flatten().zip(&self.last.symbols);
        let mut same = before.next();
        for (name, value) in labels {
            while same.is_some_and(|((n, _), _)| n < name) {
                same = before.next();
            }
            let known = same.filter(|((n, _), _)| *n == name);
            let symbols = match known {
                Some(((_, v), symbols)) if v == value => *symbols,
                Some((_, symbols)) => (symbols.0, self.interner.intern(value)),
                None => (self.interner.intern(name), self.interner.intern(value)),
            };
            self.record.labels.push(symbols);
        }
        self.record.chunks.clear();
        self.record.chunks.extend_from_slice(chunks);
        self.entry.clear();
        self.record.encode(&mut self.body, &mut self.entry);
        self.spill.write_all(&self.entry).map_err(Error::io("write series of", &self.path))?;
        self.series_count += 1;
        self.last.labels = Some(labels.clone());
        std::mem::swap(&mut self.last.symbols, &mut self.record.labels);
        if let Some(chunk) = chunks.last() {
            self.last.chunk_ref = chunk.chunk_ref;
        }
        Ok(())
    }

    /// Number of series so far.
    pub fn series_count(&self) -> u64 {
        self.series_count
    }

    /// Writes everything that depends on all series and closes the file.
    pub fn finish(mut self) -> Result<IndexWritten> {
        let mut toc = Toc { symbols: self.out.pos, ..Toc::default() };
        let order = self.interner.sorted();
        self.write_symbols(&order)?;
        let mut ranks = vec![0u32; order.len()];
        for (rank, symbol) in order.iter().enumerate() {
            ranks[*symbol as usize] = rank as u32;
        }

        toc.series = self.out.pos;
        let (all, uses) = self.write_series(&ranks)?;
        drop(ranks);

        let (sync, bytes_max) = (self.options.sync, self.options.postings_bytes_max);
        let interner = &self.interner;
        let mut text = |rank: u32| Ok(interner.get(order[rank as usize]).to_owned());
        let bytes = finish_index(self.out, toc, Lists { all: &all, uses, bytes_max }, &mut text, sync)?;
        Ok(IndexWritten { bytes, series_bytes_max: self.series_bytes_max })
    }

    fn write_symbols(&mut self, order: &[u32]) -> Result<()> {
        let text_bytes: u64 = order
            .iter()
            .map(|s| {
                let len = self.interner.get(*s).len();
                (len + uvarint_bytes(len)) as u64
            })
            .sum();
        let len = self.out.u32_of("symbol table", text_bytes + 4)?;
        let mut section = Section::start(&mut self.out, len)?;
        section.put(|buf| buf.extend_from_slice(&(order.len() as u32).to_be_bytes()))?;
        for symbol in order {
            section.put(|buf| put_uvarint_bytes(buf, self.interner.get(*symbol).as_bytes()))?;
        }
        section.end()
    }

    /// Copies the spilled series with final symbols. Gives the references of all series.
    fn write_series(&mut self, ranks: &[u32]) -> Result<(Vec<u32>, NameUses)> {
        self.spill.flush().map_err(Error::io("write series of", &self.path))?;
        let file = self.spill.get_mut();
        file.seek(SeekFrom::Start(0)).map_err(Error::io("read series of", &self.path))?;
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
        let name = self.path.display().to_string();
        let mut refs = Vec::with_capacity(self.series_count as usize);
        let mut uses = rustc_hash::FxHashMap::<u32, u64>::default();
        for _ in 0..self.series_count {
            read_entry(&mut reader, &mut self.entry).map_err(Error::io("read series of", &self.path))?;
            self.record.decode(&name, 0, &self.entry, chronolith_model::TimeRange::ALL)?;
            for (name, value) in &mut self.record.labels {
                *name = ranks[*name as usize];
                *value = ranks[*value as usize];
                *uses.entry(*name).or_default() += 1;
            }
            self.out.pad(SERIES_ALIGN)?;
            let series = self.out.pos / SERIES_ALIGN;
            refs.push(u32::try_from(series).map_err(|_| self.out.too_large())?);
            self.entry.clear();
            self.record.encode(&mut self.body, &mut self.entry);
            self.out.write(&self.entry)?;
            self.series_bytes_max = self.series_bytes_max.max(self.entry.len() as u64);
        }
        let mut uses: Vec<_> = uses.into_iter().collect();
        uses.sort_unstable();
        Ok((refs, uses))
    }
}

pub(super) fn check_chunk_order(
    labels: &dyn std::fmt::Display,
    chunks: &[ChunkMeta],
    last_ref: u64,
) -> Result<()> {
    let refuse = |c: &ChunkMeta, what| {
        Err(Error::Invalid(format!("series {labels}: chunk {} to {} {what}", c.mint, c.maxt)))
    };
    let mut last_ref = last_ref;
    for (i, c) in chunks.iter().enumerate() {
        if c.maxt < c.mint {
            return refuse(c, "ends before it begins");
        }
        if i > 0 && c.mint <= chunks[i - 1].maxt {
            return refuse(c, "begins before the one in front of it ends");
        }
        if c.chunk_ref < last_ref {
            return refuse(c, "lies before an earlier chunk");
        }
        last_ref = c.chunk_ref;
    }
    Ok(())
}

/// Reads one `uvarint len ‖ body ‖ CRC` that this process has written.
fn read_entry(reader: &mut impl Read, entry: &mut Vec<u8>) -> std::io::Result<()> {
    entry.clear();
    let mut len = 0usize;
    loop {
        let mut byte = [0];
        reader.read_exact(&mut byte)?;
        len |= usize::from(byte[0] & 0x7F) << (7 * entry.len());
        entry.push(byte[0]);
        if byte[0] < 0x80 {
            break;
        }
    }
    let head = entry.len();
    entry.resize(head + len + 4, 0);
    reader.read_exact(&mut entry[head..])
}

pub(super) fn uvarint_bytes(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

const _: () = assert!(HEADER_BYTES == 5, "magic and version");
