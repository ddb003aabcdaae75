//! Postings offset table: where the list of each label pair lies.
//!
//! ```text
//! ┌─────────┬───────────┬────────────────────────────────────────────────────────────────┬───┬─────────┐
//! │ len u32 │ count u32 │ 0x02 ‖ uvarint len, name ‖ uvarint len, value ‖ uvarint offset │ … │ CRC u32 │
//! └─────────┴───────────┴────────────────────────────────────────────────────────────────┴───┴─────────┘
//! ```
//!
//! Sorted by name, then value, from version 2 on; the pair of two empty strings names all series. Memory: the
//! position of every 32nd value of a name. A version 1 table has no order, there every position is
//! kept, sorted here.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::symbols::{checked_section, utf8};
use crate::cursor::Cursor;
use crate::{Error, Result, crc32c};

/// Every so many values of a name the position is kept. Prometheus's and Thanos's choice.
const SAMPLE_EVERY: usize = 32;

/// Bytes of the index that hold one postings list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostingsRange {
    /// Where the list's length field stands.
    pub start: u64,
    /// An upper bound of the list's end: where the next list, or whatever follows the lists, begins.
    pub end: u64,
}

/// A checked postings offset table over its section's bytes.
#[derive(Clone, Debug)]
pub struct PostingsTable {
    file: Arc<str>,
    offset: u64,
    /// `len ‖ count ‖ entries`, without the checksum.
    section: Bytes,
    lists_end: u64,
    names: Vec<NameSpan>,
    /// Positions in `section`: of every 32nd entry of each name, or of every entry for version 1.
    samples: Vec<u32>,
    /// Version 1 only: end of each list, beside `samples`.
    ends: Option<Vec<u64>>,
}

/// The entries of one label name.
#[derive(Clone, Copy, Debug)]
struct NameSpan {
    sample_first: u32,
    sample_count: u32,
    value_count: u32,
}

struct Entry<'a> {
    name: &'a [u8],
    value: &'a [u8],
    offset: u64,
    /// Position behind it.
    next: usize,
}

impl PostingsTable {
    /// Reads the table in `section`, which starts with the length field and may be longer than the table.
    /// `offset` is where it stands in the index, `version` that index's version, `lists_end` where its postings
    /// lists end.
    pub fn parse(
        file: Arc<str>,
        version: u8,
        offset: u64,
        section: Bytes,
        lists_end: u64,
    ) -> Result<PostingsTable> {
        let section = checked_section(&file, offset, section)?;
        let mut table = PostingsTable {
            file,
            offset,
            section,
            lists_end,
            names: Vec::new(),
            samples: Vec::new(),
            ends: (version == 1).then(Vec::new),
        };
        let mut c = table.cursor(4);
        let count = c.u32()?;
        // The shortest entry has four bytes.
        if count as usize > c.remaining() / 4 {
            return Err(c.corrupt(format!("{count} postings cannot fit {} bytes", c.remaining())));
        }
        if version == 1 {
            table.load_unsorted(count)?
        } else {
            table.load_sorted(count)?
        }
        table.samples.shrink_to_fit();
        Ok(table)
    }

    fn load_sorted(&mut self, count: u32) -> Result<()> {
        let section = self.section.clone();
        let file = self.file.clone();
        let mut pos = 8;
        let mut last: Option<Entry<'_>> = None;
        for _ in 0..count {
            let entry = read_entry(Cursor::new(&file, self.offset, &section).at(pos))?;
            let here = || Cursor::new(&file, self.offset, &section).at(pos);
            utf8(&file, self.offset + pos as u64, entry.name)?;
            utf8(&file, self.offset + pos as u64, entry.value)?;
            if entry.offset >= self.lists_end {
                return Err(here().corrupt("postings list lies behind the lists"));
            }
            let same_name = match &last {
                None => false,
                Some(last) if last.offset >= entry.offset => {
                    return Err(here().corrupt("postings lists are not in the order of their table"));
                }
                Some(last) if (last.name, last.value) >= (entry.name, entry.value) => {
                    return Err(here().corrupt("postings offset table is not sorted"));
                }
                Some(last) => last.name == entry.name,
            };
            if !same_name {
                self.names.push(NameSpan {
                    sample_first: self.samples.len() as u32,
                    sample_count: 0,
                    value_count: 0,
                });
            }
            let span = self.names.last_mut().expect("pushed at the first entry");
            if (span.value_count as usize).is_multiple_of(SAMPLE_EVERY) {
                self.samples.push(pos as u32);
                span.sample_count += 1;
            }
            span.value_count += 1;
            pos = entry.next;
            last = Some(entry);
        }
        Ok(())
    }

    fn load_unsorted(&mut self, count: u32) -> Result<()> {
        let section = self.section.clone();
        let file = self.file.clone();
        let mut pos = 8;
        let mut entries = Vec::new();
        for _ in 0..count {
            let entry = read_entry(Cursor::new(&file, self.offset, &section).at(pos))?;
            utf8(&file, self.offset + pos as u64, entry.name)?;
            utf8(&file, self.offset + pos as u64, entry.value)?;
            let next = entry.next;
            entries.push((entry, pos as u32));
            pos = next;
        }
        let mut starts: Vec<u64> = entries.iter().map(|(e, _)| e.offset).collect();
        starts.sort_unstable();
        entries.sort_by(|(a, _), (b, _)| (a.name, a.value).cmp(&(b.name, b.value)));
        let mut ends = Vec::with_capacity(entries.len());
        for (i, (entry, pos)) in entries.iter().enumerate() {
            if entry.offset >= self.lists_end {
                return Err(self.cursor(*pos as usize).corrupt("postings list lies behind the lists"));
            }
            let same_name = i > 0 && entries[i - 1].0.name == entry.name;
            if !same_name {
                self.names.push(NameSpan { sample_first: i as u32, sample_count: 0, value_count: 0 });
            }
            let span = self.names.last_mut().expect("pushed at the first entry");
            span.sample_count += 1;
            span.value_count += 1;
            self.samples.push(*pos);
            let next = starts.partition_point(|s| *s <= entry.offset);
            ends.push(starts.get(next).copied().unwrap_or(self.lists_end));
        }
        self.ends = Some(ends);
        Ok(())
    }

    /// Number of label pairs, the all-postings key included.
    pub fn pair_count(&self) -> usize {
        self.names.iter().map(|s| s.value_count as usize).sum()
    }

    /// Bytes of memory beside the section itself.
    pub fn memory_bytes(&self) -> usize {
        self.samples.capacity() * 4
            + self.names.capacity() * size_of::<NameSpan>()
            + self.ends.as_ref().map_or(0, |e| e.capacity() * 8)
    }

    /// The label names in order, without the empty one of the all-postings key.
    pub fn names(&self) -> impl Iterator<Item = &str> + '_ {
        self.names.iter().map(|span| self.name_of(span)).filter(|name| !name.is_empty())
    }

    /// Number of values that `name` has.
    pub fn value_count(&self, name: &str) -> usize {
        self.span(name).map_or(0, |span| span.value_count as usize)
    }

    /// Where the list of a label pair lies, if the pair occurs. `("", "")` is the list of all series.
    pub fn find(&self, name: &str, value: &str) -> Result<Option<PostingsRange>> {
        let mut found = None;
        self.visit(name, value, &mut |v, range| {
            if v == value {
                found = Some(range);
            }
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Calls `visit` for the values of `name` in order, beginning with the first that is not below `from`, until
    /// it breaks.
    pub fn visit(
        &self,
        name: &str,
        from: &str,
        visit: &mut dyn FnMut(&str, PostingsRange) -> ControlFlow<()>,
    ) -> Result<()> {
        let Some(span) = self.span(name) else { return Ok(()) };
        let first = span.sample_first as usize;
        let samples = &self.samples[first..first + span.sample_count as usize];
        let sample = self.sample_below(samples, from.as_bytes())?;
        if let Some(ends) = &self.ends {
            for i in sample..samples.len() {
                let entry = self.entry(samples[i] as usize)?;
                if entry.value >= from.as_bytes() {
                    let range = PostingsRange { start: entry.offset, end: ends[first + i] };
                    if visit(self.checked_str(entry.value), range).is_break() {
                        return Ok(());
                    }
                }
            }
            return Ok(());
        }
        let mut index = sample * SAMPLE_EVERY;
        let mut entry = self.entry(samples[sample] as usize)?;
        loop {
            let next = (entry.next < self.section.len()).then(|| self.entry(entry.next)).transpose()?;
            if entry.value >= from.as_bytes() {
                let end = next.as_ref().map_or(self.lists_end, |n| n.offset);
                let range = PostingsRange { start: entry.offset, end };
                if visit(self.checked_str(entry.value), range).is_break() {
                    return Ok(());
                }
            }
            index += 1;
            match next {
                Some(next) if index < span.value_count as usize => entry = next,
                _ => return Ok(()),
            }
        }
    }

    /// The last sample whose value is not above `from`, or the first.
    fn sample_below(&self, samples: &[u32], from: &[u8]) -> Result<usize> {
        let (mut low, mut high) = (0, samples.len());
        while low < high {
            let mid = (low + high) / 2;
            if self.entry(samples[mid] as usize)?.value <= from {
                low = mid + 1;
            } else {
                high = mid;
            }
        }
        Ok(low.saturating_sub(1))
    }

    fn span(&self, name: &str) -> Option<&NameSpan> {
        let i = self.names.binary_search_by(|span| self.name_of(span).cmp(name)).ok()?;
        Some(&self.names[i])
    }

    fn name_of(&self, span: &NameSpan) -> &str {
        let entry = self
            .entry(self.samples[span.sample_first as usize] as usize)
            .expect("every entry was read when the table was opened");
        self.checked_str(entry.name)
    }

    fn entry(&self, pos: usize) -> Result<Entry<'_>> {
        read_entry(self.cursor(pos))
    }

    fn checked_str<'a>(&self, bytes: &'a [u8]) -> &'a str {
        std::str::from_utf8(bytes).expect("every string was checked when the table was opened")
    }

    fn cursor(&self, pos: usize) -> Cursor<'_> {
        Cursor::new(&self.file, self.offset, &self.section).at(pos)
    }
}

fn read_entry(mut c: Cursor<'_>) -> Result<Entry<'_>> {
    if c.u8()? != 2 {
        return Err(c.corrupt("postings offset entry does not have two strings"));
    }
    let name = c.uvarint_bytes()?;
    let value = c.uvarint_bytes()?;
    let offset = c.uvarint()?;
    Ok(Entry { name, value, offset, next: c.pos() })
}

/// Decodes the postings list at the start of `bytes` (length field, count, references, checksum), which stands at
/// `offset` in the index. Bytes behind it are ignored.
pub fn parse_postings(file: &str, offset: u64, bytes: &[u8]) -> Result<Vec<u32>> {
    let mut c = Cursor::new(file, offset, bytes);
    let len = c.u32()? as usize;
    let payload = c.take(len)?;
    if crc32c(payload) != c.u32()? {
        return Err(Error::corrupt(file, offset, "postings list checksum mismatch"));
    }
    let mut c = Cursor::new(file, offset + 4, payload);
    let count = c.u32()? as usize;
    if c.remaining() != count.saturating_mul(4) {
        return Err(c.corrupt(format!("{count} postings in {} bytes", c.remaining())));
    }
    let refs = c.take(count * 4)?;
    let (quads, _) = refs.as_chunks::<4>();
    Ok(quads.iter().map(|q| u32::from_be_bytes(*q)).collect())
}
