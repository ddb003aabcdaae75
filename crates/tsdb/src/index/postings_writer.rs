//! The second half of an index: postings lists, their offset table, table of contents.
//!
//! The series section is read back, once for each batch of label names whose postings fit the memory allowed, so no more than a
//! batch of lists is held (at least one label name: 8 bytes a series that has it).

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::output::{BUFFER_BYTES, Output, Section, unnamed_file};
use super::{SERIES_ALIGN, Toc};
use crate::cursor::{Cursor, put_uvarint, put_uvarint_bytes};
use crate::window::FileWindow;
use crate::{Error, Result, crc32c};

/// How many series have each label name: symbol and count, ascending.
pub(super) type NameUses = Vec<(u32, u64)>;

/// What the lists are made of.
pub(super) struct Lists<'a> {
    /// References of all series, ascending.
    pub(super) all: &'a [u32],
    /// Symbols are numbers in the order of their strings.
    pub(super) uses: NameUses,
    /// Memory for one batch of lists.
    pub(super) bytes_max: usize,
}

/// Writes what follows the series and closes the file. `toc` has symbols and series; the latter end where `out` stands.
/// Gives the length of the file.
pub(super) fn finish_index(
    mut out: Output,
    mut toc: Toc,
    lists: Lists<'_>,
    text: &mut dyn FnMut(u32) -> Result<String>,
    sync: bool,
) -> Result<u64> {
    toc.label_indices = out.pos;
    toc.postings = out.pos;
    let mut table = TableSpill::create(&out.path)?;
    write_lists(&mut out, &toc, lists, text, &mut table)?;
    toc.label_offset_table = out.pos;
    toc.postings_offset_table = out.pos;
    table.copy_into(&mut out)?;
    out.write(&toc.encode())?;
    out.close(sync)
}

fn write_lists(
    out: &mut Output,
    toc: &Toc,
    lists: Lists<'_>,
    text: &mut dyn FnMut(u32) -> Result<String>,
    table: &mut TableSpill,
) -> Result<()> {
    out.flush()?;
    let mut series = FileWindow::open(&out.path, BUFFER_BYTES)?;
    let mut buf = Vec::new();
    write_list(out, &mut buf, "", "", lists.all.iter().copied(), lists.all.len(), table)?;
    let batch_max = (lists.bytes_max / size_of::<u64>()) as u64;
    let mut names = &lists.uses[..];
    while !names.is_empty() {
        let mut postings = 0;
        let fit = names.iter().take_while(|(_, n)| {
            postings += n;
            postings <= batch_max
        });
        let (batch, rest) = names.split_at(fit.count().max(1));
        names = rest;
        for (name, keys) in collect_batch(&mut series, toc.series, lists.all.len(), batch)? {
            let name = text(name)?;
            for of_value in keys.chunk_by(|a, b| a >> 32 == b >> 32) {
                let value = text((of_value[0] >> 32) as u32)?;
                let refs = of_value.iter().map(|key| *key as u32);
                write_list(out, &mut buf, &name, &value, refs, of_value.len(), table)?;
            }
        }
    }
    Ok(())
}

fn write_list(
    out: &mut Output,
    buf: &mut Vec<u8>,
    name: &str,
    value: &str,
    refs: impl Iterator<Item = u32>,
    count: usize,
    table: &mut TableSpill,
) -> Result<()> {
    out.pad(4)?;
    table.add(name, value, out.pos)?;
    let len = out.u32_of("postings list", 4 + 4 * count as u64)?;
    buf.clear();
    buf.extend_from_slice(&len.to_be_bytes());
    buf.extend_from_slice(&(count as u32).to_be_bytes());
    buf.extend(refs.flat_map(u32::to_be_bytes));
    let crc = crc32c(&buf[4..]);
    buf.extend_from_slice(&crc.to_be_bytes());
    out.write(buf)
}

/// For each name of a batch, `value symbol << 32 | series reference` of its postings, sorted.
fn collect_batch(
    series: &mut FileWindow,
    first: u64,
    series_count: usize,
    batch: &[(u32, u64)],
) -> Result<Vec<(u32, Vec<u64>)>> {
    let slots: rustc_hash::FxHashMap<u32, usize> =
        batch.iter().enumerate().map(|(slot, (name, _))| (*name, slot)).collect();
    let mut lists: Vec<(u32, Vec<u64>)> =
        batch.iter().map(|(name, n)| (*name, Vec::with_capacity(*n as usize))).collect();
    let mut pos = first;
    let file = series.name();
    for _ in 0..series_count {
        let start = pos.next_multiple_of(SERIES_ALIGN);
        let mut head = Cursor::new(&file, start, series.up_to(start, 10)?);
        let body_bytes = head.uvarint()? as usize;
        let body = start + head.pos() as u64;
        let mut labels = Cursor::new(&file, body, series.get(body, body_bytes)?);
        for _ in 0..labels.uvarint()? {
            let name = labels.uvarint32()?;
            let value = labels.uvarint32()?;
            if let Some(slot) = slots.get(&name) {
                lists[*slot].1.push((u64::from(value) << 32) | (start / SERIES_ALIGN));
            }
        }
        pos = body + body_bytes as u64 + 4;
    }
    for (_, keys) in &mut lists {
        keys.sort_unstable();
    }
    Ok(lists)
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
