//! Where a shard keeps complete chunks: each is copied behind the last one into the shard's current segment. Segments fill
//! up in the order of time, so a block cut frees whole segments:
//!
//! ```text
//! chunk in a segment:  previous chunk of the series (segment u32, offset u32) ‖ mint i64 ‖ maxt − mint u32
//!                      ‖ length u16 ‖ encoding u8 ‖ length u32, where the other is 65,535 ‖ data
//! ```
//!
//! The chain of a series ends at a segment that is gone.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use chronolith_chunk::{Chunk, Encoding};

/// The place of a complete chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkAt {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
}

impl ChunkAt {
    /// No chunk.
    pub(crate) const NONE: ChunkAt = ChunkAt { segment: u32::MAX, offset: 0 };
}

const HEADER_BYTES: usize = 8 + 8 + 4 + 2 + 1;
/// Chunks of large histograms only are as long, or longer; their length follows the header.
const LONG: u16 = u16::MAX;
/// Size at which a segment is closed: large against a chunk, small against a shard.
pub(crate) const SEGMENT_BYTES: usize = 256 << 10;

/// A segment that takes no more chunks.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) bytes: Bytes,
    /// Newest sample in it.
    pub(crate) maxt: i64,
    place: Place,
}

/// Where a segment's bytes lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Memory,
    /// In memory, and somebody is writing them to a file.
    Writing,
    File,
}

impl Segment {
    pub(crate) fn in_memory(bytes: Bytes, maxt: i64) -> Self {
        Segment { bytes, maxt, place: Place::Memory }
    }

    /// Its bytes are a mapped file's.
    pub(crate) fn in_file(bytes: Bytes, maxt: i64) -> Self {
        Segment { bytes, maxt, place: Place::File }
    }
}

/// The complete chunks of a shard.
pub(crate) struct Segments {
    /// Number of `closed[0]`.
    first: u32,
    /// Closed segments in the order of their numbers; `None` where one has been freed.
    closed: VecDeque<Option<Segment>>,
    open: Vec<u8>,
    open_maxt: i64,
    /// A segment has become full since [`Segments::take_full`].
    full: bool,
}

impl Default for Segments {
    fn default() -> Self {
        Segments { first: 0, closed: VecDeque::new(), open: Vec::new(), open_maxt: i64::MIN, full: false }
    }
}

/// A chunk's header in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredChunk {
    pub(crate) previous: ChunkAt,
    pub(crate) mint: i64,
    pub(crate) maxt: i64,
    pub(crate) encoding: u8,
    start: usize,
    len: usize,
}

impl Segments {
    /// Appends a chunk whose bytes `write` puts behind what is in its buffer.
    pub(crate) fn push(
        &mut self,
        previous: ChunkAt,
        (mint, maxt): (i64, i64),
        encoding: Encoding,
        bytes_max: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> ChunkAt {
        let need = HEADER_BYTES + 4 + bytes_max;
        if !self.open.is_empty() && self.open.len() + need > SEGMENT_BYTES {
            self.close_open();
            self.full = true;
        }
        if self.open.capacity() - self.open.len() < need {
            // Doubling, but not beyond what a segment may have.
            let to = (self.open.capacity() * 2).clamp(1024, SEGMENT_BYTES).max(self.open.len() + need);
            self.open.reserve_exact(to - self.open.len());
        }
        let at = ChunkAt { segment: self.first + self.closed.len() as u32, offset: self.open.len() as u32 };
        let out = &mut self.open;
        out.extend_from_slice(&previous.segment.to_le_bytes());
        out.extend_from_slice(&previous.offset.to_le_bytes());
        out.extend_from_slice(&mint.to_le_bytes());
        let duration = u32::try_from(maxt - mint).expect("a chunk lies inside one block range");
        out.extend_from_slice(&duration.to_le_bytes());
        let len_at = out.len();
        out.extend_from_slice(&[0, 0, encoding.as_u8()]);
        let is_long = bytes_max >= usize::from(LONG);
        out.extend_from_slice(if is_long { &[0; 4] } else { &[] });
        let start = out.len();
        write(out);
        let len = out.len() - start;
        assert!(is_long || len < usize::from(LONG), "the caller knows how long a chunk can be");
        let short = if is_long { LONG } else { len as u16 };
        out[len_at..len_at + 2].copy_from_slice(&short.to_le_bytes());
        if is_long {
            let len = u32::try_from(len).expect("histograms and samples of a chunk are bounded");
            out[start - 4..start].copy_from_slice(&len.to_le_bytes());
        }
        self.open_maxt = self.open_maxt.max(maxt);
        at
    }

    fn close_open(&mut self) {
        let mut bytes = std::mem::take(&mut self.open);
        if bytes.len() + 1024 < bytes.capacity() {
            bytes.shrink_to_fit();
        }
        self.closed.push_back(Some(Segment::in_memory(Bytes::from(bytes), self.open_maxt)));
        self.open_maxt = i64::MIN;
    }

    /// True when a segment has become full since the last call.
    pub(crate) fn take_full(&mut self) -> bool {
        std::mem::take(&mut self.full)
    }

    /// Up to `max` closed segments that lie in memory, the oldest first, with their numbers. Whoever takes them says with
    /// [`Segments::put_written`] what became of each.
    pub(crate) fn take_unwritten(&mut self, max: usize) -> Vec<(u32, Bytes)> {
        let first = self.first;
        let in_memory = (first..).zip(&mut self.closed).filter_map(|(number, segment)| {
            let segment = segment.as_mut().filter(|s| s.place == Place::Memory)?;
            segment.place = Place::Writing;
            Some((number, segment.bytes.clone()))
        });
        in_memory.take(max).collect()
    }

    /// The bytes of a segment taken now lie in a file, or could not be written. The answer is what is not needed any more,
    /// to be dropped where no lock is held.
    pub(crate) fn put_written(
        &mut self,
        number: u32,
        bytes: &Bytes,
        written: Option<Bytes>,
    ) -> Option<Bytes> {
        let at = number.checked_sub(self.first)? as usize;
        // It may be gone, and another may have its number: numbers begin anew in a shard without series.
        let segment = self.closed.get_mut(at)?.as_mut()?;
        if segment.place != Place::Writing || segment.bytes.as_ptr() != bytes.as_ptr() {
            return written;
        }
        match written {
            None => {
                segment.place = Place::Memory;
                None
            }
            Some(mapped) => {
                segment.place = Place::File;
                Some(std::mem::replace(&mut segment.bytes, mapped))
            }
        }
    }

    fn segment(&self, id: u32) -> Option<&[u8]> {
        let i = id.checked_sub(self.first)? as usize;
        match self.closed.get(i) {
            Some(segment) => segment.as_ref().map(|s| &s.bytes[..]),
            None if i == self.closed.len() => Some(&self.open),
            None => None,
        }
    }

    /// The header of the chunk at `at`; `None` where the chain ends. A segment that came out of a damaged snapshot
    /// ends it too.
    pub(crate) fn stored(&self, at: ChunkAt) -> Option<StoredChunk> {
        if at == ChunkAt::NONE {
            return None;
        }
        let bytes = self.segment(at.segment)?;
        let head: &[u8; HEADER_BYTES] = bytes.get(at.offset as usize..)?.first_chunk()?;
        let u32_at = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let mint = i64::from_le_bytes(head[8..16].try_into().ok()?);
        let mut start = at.offset as usize + HEADER_BYTES;
        let mut len = usize::from(u16::from_le_bytes([head[20], head[21]]));
        if len == usize::from(LONG) {
            len = u32::from_le_bytes(*bytes.get(start..)?.first_chunk()?) as usize;
            start += 4;
        }
        (len <= bytes.len() - start).then_some(StoredChunk {
            previous: ChunkAt { segment: u32_at(0), offset: u32_at(4) },
            mint,
            maxt: mint.saturating_add(i64::from(u32_at(16))),
            encoding: head[22],
            start,
            len,
        })
    }

    /// The chunk itself; without a copy where its segment is closed.
    pub(crate) fn chunk(&self, at: ChunkAt, stored: &StoredChunk, copies: &mut Copies) -> Option<Chunk> {
        let i = at.segment.checked_sub(self.first)? as usize;
        let range = stored.start..stored.start + stored.len;
        let data = match self.closed.get(i) {
            Some(segment) => segment.as_ref()?.bytes.slice(range),
            None => copies.copy(&self.open[range]),
        };
        let encoding = Encoding::try_from(stored.encoding).ok()?;
        Some(Chunk { mint: stored.mint, maxt: stored.maxt, encoding, data })
    }

    /// Frees the segments that hold nothing at or after `mint`.
    pub(crate) fn truncate(&mut self, mint: i64) {
        for slot in &mut self.closed {
            if slot.as_ref().is_some_and(|s| s.maxt < mint) {
                *slot = None;
            }
        }
        while matches!(self.closed.front(), Some(None)) {
            self.closed.pop_front();
            self.first += 1;
        }
        if !self.open.is_empty() && self.open_maxt < mint {
            // Its number is spent: chains that point into it must end.
            self.open = Vec::new();
            self.open_maxt = i64::MIN;
            self.closed.push_back(None);
            if self.closed.len() == 1 {
                self.closed.clear();
                self.first += 1;
            }
        }
    }

    /// Closes the open segment: what is there now lies below the answer, what comes next does not.
    pub(crate) fn close(&mut self) -> u32 {
        if !self.open.is_empty() {
            self.close_open();
        }
        self.first + self.closed.len() as u32
    }

    /// Frees the closed segments below `limit`.
    pub(crate) fn free_below(&mut self, limit: u32) {
        let first = self.first;
        for (i, slot) in self.closed.iter_mut().enumerate() {
            if first + (i as u32) < limit {
                *slot = None;
            }
        }
        while matches!(self.closed.front(), Some(None)) {
            self.closed.pop_front();
            self.first += 1;
        }
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let closed = self.closed.iter().flatten().filter(|s| s.place != Place::File);
        self.open.capacity() + closed.map(|s| s.bytes.len()).sum::<usize>()
    }

    /// Everything, for a snapshot: number of the first segment, and the segments, the open one last.
    pub(crate) fn export(&self) -> (u32, Vec<Option<Segment>>) {
        let mut all: Vec<_> = self.closed.iter().cloned().collect();
        if !self.open.is_empty() {
            all.push(Some(Segment::in_memory(Bytes::copy_from_slice(&self.open), self.open_maxt)));
        }
        (self.first, all)
    }

    /// From a snapshot.
    pub(crate) fn import(first: u32, closed: Vec<Option<Segment>>) -> Self {
        Segments { first, closed: closed.into(), open: Vec::new(), open_maxt: i64::MIN, full: false }
    }
}

/// Where the bytes of chunks are copied to that readers take along.
#[derive(Default)]
pub(crate) struct Copies {
    page: BytesMut,
    page_bytes: usize,
    /// For whoever puts a chunk together.
    scratch: Vec<u8>,
}

impl Copies {
    /// Many copies share an allocation, which lives as long as one of them does.
    pub(crate) fn in_pages() -> Self {
        Copies { page_bytes: 64 << 10, ..Copies::default() }
    }

    fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.len() * 4 > self.page_bytes {
            return Bytes::copy_from_slice(bytes);
        }
        if self.page.capacity() < bytes.len() {
            self.page = BytesMut::with_capacity(self.page_bytes);
        }
        self.page.extend_from_slice(bytes);
        self.page.split().freeze()
    }

    /// Keeps what `write` puts into an empty buffer.
    pub(crate) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        write(&mut scratch);
        let bytes = self.copy(&scratch);
        self.scratch = scratch;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_end_where_segments_are_gone() {
        let mut s = Segments::default();
        let mut at = ChunkAt::NONE;
        for i in 0..2000i64 {
            at = s.push(at, (i * 10, i * 10 + 9), Encoding::Xor, 300, |out| {
                out.extend_from_slice(&[i as u8; 300])
            });
        }
        let walk = |s: &Segments| {
            let (mut at, mut mints) = (at, Vec::new());
            while let Some(stored) = s.stored(at) {
                assert_eq!(
                    s.chunk(at, &stored, &mut Copies::default()).unwrap().data,
                    vec![(stored.mint / 10) as u8; 300]
                );
                mints.push(stored.mint);
                at = stored.previous;
            }
            mints
        };
        assert_eq!(walk(&s).len(), 2000);
        s.truncate(10_000);
        let mints = walk(&s);
        assert!(
            mints.len() < 2000 && mints.len() >= 1000 && *mints.last().unwrap() <= 10_000,
            "{}",
            mints.len()
        );
        s.truncate(i64::MAX);
        assert_eq!((walk(&s).len(), s.bytes()), (0, 0));
    }
}
