//! Writing an index in bounded memory.
//!
//! Symbols stand before the series that refer to them, but are only known when the last series has come. So:
//!
//! 1. [`IndexWriter::add_series`] interns strings under provisional numbers and spills the series to a temporary
//!    file beside the index (its name is removed at once, so a crash leaves nothing).
//! 2. [`IndexWriter::finish`] sorts the symbols, streams the spilled series into the index with final numbers,
//! 3. and then reads the series section back, once for each batch of label names whose postings fit
//!    [`IndexWriterOptions::postings_bytes_max`], to write their lists.
//!
//! Memory: every distinct string once, 4 bytes a series, and one batch (at least one label name: 8 bytes a series
//! that has it).

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use chronolith_model::Labels;

use super::interner::Interner;
use super::{ChunkMeta, HEADER_BYTES, MAGIC, SERIES_ALIGN, SeriesRecord, Toc, VERSION_WRITTEN};
use crate::crc::Crc32c;
use crate::cursor::{Cursor, put_uvarint, put_uvarint_bytes};
use crate::{Error, Result, crc32c, map_file};

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

/// Largest index: a series reference is a 32-bit multiple of 16.
const INDEX_BYTES_MAX: u64 = SERIES_ALIGN * u32::MAX as u64;
/// Write buffer; large enough that a spinning disk would seek rarely, small beside everything else.
const BUFFER_BYTES: usize = 256 << 10;

/// How many series have each label name: symbol and count, ascending.
type NameUses = Vec<(u32, u64)>;

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

        toc.label_indices = self.out.pos;
        toc.postings = self.out.pos;
        let mut table = TableSpill::create(&self.path)?;
        self.write_postings(&toc, &order, &all, uses, &mut table)?;

        toc.label_offset_table = self.out.pos;
        toc.postings_offset_table = self.out.pos;
        table.copy_into(&mut self.out)?;
        self.out.write(&toc.encode())?;
        let bytes = self.out.close(self.options.sync)?;
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

    fn write_postings(
        &mut self,
        toc: &Toc,
        order: &[u32],
        all: &[u32],
        uses: NameUses,
        table: &mut TableSpill,
    ) -> Result<()> {
        self.out.flush()?;
        let map = map_file(&self.path)?;
        let file = self.path.display().to_string();
        let series = Cursor::new(&file, 0, &map[..toc.label_indices as usize]).at(toc.series as usize);
        self.write_list("", "", all.iter().copied(), all.len(), table)?;
        let batch_max = (self.options.postings_bytes_max / size_of::<u64>()) as u64;
        let mut names = &uses[..];
        while !names.is_empty() {
            let mut postings = 0;
            let fit = names.iter().take_while(|(_, n)| {
                postings += n;
                postings <= batch_max
            });
            let (batch, rest) = names.split_at(fit.count().max(1));
            names = rest;
            for (name, keys) in collect_batch(series, all.len(), batch)? {
                for of_value in keys.chunk_by(|a, b| a >> 32 == b >> 32) {
                    let value = (of_value[0] >> 32) as usize;
                    let (name, value) = (order[name as usize], order[value]);
                    let refs = of_value.iter().map(|key| *key as u32);
                    // The interner is borrowed by the strings while the output grows, so both are split off here.
                    let interner = std::mem::take(&mut self.interner);
                    let written =
                        self.write_list(interner.get(name), interner.get(value), refs, of_value.len(), table);
                    self.interner = interner;
                    written?;
                }
            }
        }
        Ok(())
    }

    fn write_list(
        &mut self,
        name: &str,
        value: &str,
        refs: impl Iterator<Item = u32>,
        count: usize,
        table: &mut TableSpill,
    ) -> Result<()> {
        self.out.pad(4)?;
        table.add(name, value, self.out.pos)?;
        let len = self.out.u32_of("postings list", 4 + 4 * count as u64)?;
        self.entry.clear();
        self.entry.extend_from_slice(&len.to_be_bytes());
        self.entry.extend_from_slice(&(count as u32).to_be_bytes());
        self.entry.extend(refs.flat_map(u32::to_be_bytes));
        let crc = crc32c(&self.entry[4..]);
        self.entry.extend_from_slice(&crc.to_be_bytes());
        self.out.write(&self.entry)
    }
}

fn check_chunk_order(labels: &Labels, chunks: &[ChunkMeta], last_ref: u64) -> Result<()> {
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

/// For each name of a batch, `value symbol << 32 | series reference` of its postings, sorted.
fn collect_batch(
    mut series: Cursor<'_>,
    series_count: usize,
    batch: &[(u32, u64)],
) -> Result<Vec<(u32, Vec<u64>)>> {
    let slots: rustc_hash::FxHashMap<u32, usize> =
        batch.iter().enumerate().map(|(slot, (name, _))| (*name, slot)).collect();
    let mut lists: Vec<(u32, Vec<u64>)> =
        batch.iter().map(|(name, n)| (*name, Vec::with_capacity(*n as usize))).collect();
    for _ in 0..series_count {
        let start = series.pos().next_multiple_of(SERIES_ALIGN as usize);
        series = series.at(start);
        let len = series.uvarint()? as usize;
        let body = series.pos();
        for _ in 0..series.uvarint()? {
            let name = series.uvarint32()?;
            let value = series.uvarint32()?;
            if let Some(slot) = slots.get(&name) {
                lists[*slot].1.push((u64::from(value) << 32) | (start as u64 / SERIES_ALIGN));
            }
        }
        series = series.at(body + len + 4);
    }
    for (_, keys) in &mut lists {
        keys.sort_unstable();
    }
    Ok(lists)
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

fn uvarint_bytes(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// A file beside `path` whose name is already gone.
fn unnamed_file(path: &Path, what: &str) -> Result<File> {
    let path = path.with_extension(format!("{what}.tmp"));
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .map_err(Error::io("create", &path))?;
    std::fs::remove_file(&path).map_err(Error::io("unlink", &path))?;
    Ok(file)
}

/// The entries of the postings offset table while the lists are being written.
struct TableSpill {
    file: BufWriter<File>,
    path: PathBuf,
    buf: Vec<u8>,
    count: u32,
    bytes: u64,
}

impl TableSpill {
    fn create(path: &Path) -> Result<Self> {
        let file = BufWriter::with_capacity(BUFFER_BYTES, unnamed_file(path, "postings")?);
        Ok(TableSpill { file, path: path.to_owned(), buf: Vec::new(), count: 0, bytes: 0 })
    }

    fn add(&mut self, name: &str, value: &str, offset: u64) -> Result<()> {
        self.buf.clear();
        self.buf.push(2);
        put_uvarint_bytes(&mut self.buf, name.as_bytes());
        put_uvarint_bytes(&mut self.buf, value.as_bytes());
        put_uvarint(&mut self.buf, offset);
        self.count += 1;
        self.bytes += self.buf.len() as u64;
        self.file.write_all(&self.buf).map_err(Error::io("write postings offsets of", &self.path))
    }

    fn copy_into(self, out: &mut Output) -> Result<()> {
        let fail = || Error::io("read postings offsets of", &self.path);
        let mut file = self.file.into_inner().map_err(|e| fail()(e.into_error()))?;
        file.seek(SeekFrom::Start(0)).map_err(fail())?;
        let len = out.u32_of("postings offset table", self.bytes + 4)?;
        let mut section = Section::start(out, len)?;
        section.put(|buf| buf.extend_from_slice(&self.count.to_be_bytes()))?;
        let mut block = vec![0; BUFFER_BYTES];
        loop {
            let n = file.read(&mut block).map_err(fail())?;
            if n == 0 {
                return section.end();
            }
            section.put(|buf| buf.extend_from_slice(&block[..n]))?;
        }
    }
}

/// `len ‖ payload ‖ CRC`, the payload coming in pieces.
struct Section<'a> {
    out: &'a mut Output,
    buf: Vec<u8>,
    crc: Crc32c,
    end: u64,
}

impl<'a> Section<'a> {
    fn start(out: &'a mut Output, len: u32) -> Result<Self> {
        out.write(&len.to_be_bytes())?;
        let end = out.pos + u64::from(len);
        Ok(Section { out, buf: Vec::new(), crc: Crc32c::new(), end })
    }

    fn put(&mut self, append: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        append(&mut self.buf);
        // Checksums over a few KiB at a time cost a tenth of those over single strings.
        if self.buf.len() >= 8 << 10 { self.drain() } else { Ok(()) }
    }

    fn drain(&mut self) -> Result<()> {
        self.crc.update(&self.buf);
        self.out.write(&self.buf)?;
        self.buf.clear();
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        self.drain()?;
        assert_eq!(self.out.pos, self.end, "a section is as long as it says");
        self.out.write(&self.crc.finish().to_be_bytes())
    }
}

/// The index file and the position in it.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    file: BufWriter<File>,
    pos: u64,
}

impl Output {
    fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).map_err(Error::io("create", path))?;
        Ok(Output { path: path.to_owned(), file: BufWriter::with_capacity(BUFFER_BYTES, file), pos: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.pos += bytes.len() as u64;
        if self.pos > INDEX_BYTES_MAX {
            return Err(self.too_large());
        }
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    fn pad(&mut self, align: u64) -> Result<()> {
        const ZEROS: [u8; SERIES_ALIGN as usize] = [0; SERIES_ALIGN as usize];
        let pad = self.pos.next_multiple_of(align) - self.pos;
        self.write(&ZEROS[..pad as usize])
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io("write", &self.path))
    }

    fn close(&mut self, sync: bool) -> Result<u64> {
        self.flush()?;
        if sync {
            self.file.get_ref().sync_all().map_err(Error::io("sync", &self.path))?;
        }
        Ok(self.pos)
    }

    fn u32_of(&self, what: &'static str, bytes: u64) -> Result<u32> {
        u32::try_from(bytes).map_err(|_| Error::TooLarge {
            file: self.path.display().to_string(),
            what,
            bytes,
            bytes_max: u64::from(u32::MAX),
        })
    }

    #[cold]
    fn too_large(&self) -> Error {
        Error::TooLarge {
            file: self.path.display().to_string(),
            what: "index",
            bytes: self.pos,
            bytes_max: INDEX_BYTES_MAX,
        }
    }
}

const _: () = assert!(HEADER_BYTES == 5, "magic and version");
