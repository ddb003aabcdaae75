//! Chunk segments: the files `chunks/000001`, `000002`, …
//!
//! ```text
//! magic 85BD40DD ‖ version 1 ‖ 3 zero bytes │ uvarint len(data) ‖ encoding u8 ‖ data ‖ CRC(encoding ‖ data) │ …
//! ```

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use chronolith_chunk::{Chunk, Encoding};

use super::sync_dir;
use crate::cursor::{Cursor, put_uvarint};
use crate::index::ChunkMeta;
use crate::{Error, Result, crc32c, map_file};

/// First four bytes of a segment.
const MAGIC: u32 = 0x85BD_40DD;
const VERSION: u8 = 1;
/// Magic, version, padding.
pub(super) const HEADER_BYTES: usize = 8;
/// Target size of a segment, Prometheus's default.
pub const SEGMENT_BYTES_MAX: u64 = 512 << 20;
/// What a chunk costs beside its data when Prometheus decides on a cut: length field at its longest, encoding, CRC.
const CHUNK_OVERHEAD_BYTES: u64 = 5 + 1 + 4;
/// A length of 5 uvarint bytes at most; more cannot come from any writer of this format.
const CHUNK_DATA_BYTES_MAX: u64 = u32::MAX as u64;
const BUFFER_BYTES: usize = 256 << 10;

/// Writes the segments of one block.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    dir: PathBuf,
    bytes_max: u64,
    sync: bool,
    file: Option<BufWriter<File>>,
    path: PathBuf,
    /// Number of the current segment, from 1; 0 before the first.
    number: u64,
    pos: u64,
    /// Where the series' chunks begin in the current segment, and what they take.
    batch_start: u64,
    batch_bytes: u64,
    buf: Vec<u8>,
    /// Largest chunk so far with everything around it.
    pub(super) chunk_bytes_max: u64,
}

impl SegmentWriter {
    pub(super) fn new(dir: &Path, bytes_max: u64, sync: bool) -> Self {
        SegmentWriter {
            dir: dir.to_owned(),
            bytes_max,
            sync,
            file: None,
            path: dir.to_owned(),
            number: 0,
            pos: 0,
            batch_start: 0,
            batch_bytes: 0,
            buf: Vec::new(),
            chunk_bytes_max: 0,
        }
    }

    /// Writes a series' chunks and appends their metas to `metas`.
    pub(super) fn write(&mut self, chunks: &[Chunk], metas: &mut Vec<ChunkMeta>) -> Result<()> {
        self.begin_series();
        for chunk in chunks {
            let chunk_ref = self.put_chunk(chunk)?;
            metas.push(ChunkMeta { mint: chunk.mint, maxt: chunk.maxt, chunk_ref });
        }
        Ok(())
    }

    /// Writes a chunk of the current series and gives its reference.
    pub(crate) fn put_chunk(&mut self, chunk: &Chunk) -> Result<u64> {
        let mut entry = std::mem::take(&mut self.buf);
        entry.clear();
        put_uvarint(&mut entry, chunk.data.len() as u64);
        let checked = entry.len();
        entry.push(chunk.encoding.as_u8());
        entry.extend_from_slice(&chunk.data);
        let crc = crc32c(&entry[checked..]);
        entry.extend_from_slice(&crc.to_be_bytes());
        let chunk_ref = self.put_entry(&entry, chunk.data.len() as u64);
        self.buf = entry;
        chunk_ref
    }

    /// Says that the chunks to come belong to another series: those of one are weighed together.
    pub(crate) fn begin_series(&mut self) {
        self.batch_start = self.pos;
        self.batch_bytes = 0;
    }

    /// Writes a chunk as it stands in a segment, `data_bytes` of it data, and gives its reference. A new segment begins
    /// where Prometheus begins one: when the chunks of this series so far, their overhead at its largest, would not fit the
    /// current one.
    pub(crate) fn put_entry(&mut self, entry: &[u8], data_bytes: u64) -> Result<u64> {
        if self.file.is_none() {
            self.cut()?;
            self.begin_series();
        }
        let bytes = data_bytes + CHUNK_OVERHEAD_BYTES;
        self.batch_bytes += bytes;
        let first_of_segment = self.batch_start == HEADER_BYTES as u64 && self.batch_bytes == bytes;
        if self.batch_start + self.batch_bytes > self.bytes_max && !first_of_segment {
            self.cut()?;
            self.batch_start = self.pos;
            self.batch_bytes = bytes;
        }
        if data_bytes > CHUNK_DATA_BYTES_MAX || self.pos > u64::from(u32::MAX) {
            return Err(Error::TooLarge {
                file: self.path.display().to_string(),
                what: "chunk segment",
                bytes: self.pos + entry.len() as u64,
                bytes_max: u64::from(u32::MAX),
            });
        }
        let chunk_ref = ((self.number - 1) << 32) | self.pos;
        let file = self.file.as_mut().expect("a segment was cut before the first chunk");
        file.write_all(entry).map_err(Error::io("write", &self.path))?;
        self.pos += entry.len() as u64;
        self.chunk_bytes_max = self.chunk_bytes_max.max(entry.len() as u64);
        Ok(chunk_ref)
    }

    fn cut(&mut self) -> Result<()> {
        self.close()?;
        self.number += 1;
        self.path = self.dir.join(segment_name(self.number));
        let file = File::create_new(&self.path).map_err(Error::io("create", &self.path))?;
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&MAGIC.to_be_bytes());
        header[4] = VERSION;
        file.write_all(&header).map_err(Error::io("write", &self.path))?;
        self.file = Some(file);
        self.pos = HEADER_BYTES as u64;
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        if let Some(file) = self.file.take() {
            let file = file.into_inner().map_err(|e| Error::io("write", &self.path)(e.into_error()))?;
            if self.sync {
                file.sync_all().map_err(Error::io("sync", &self.path))?;
            }
        }
        Ok(())
    }

    /// Makes everything durable.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.close()?;
        if self.sync { sync_dir(&self.dir) } else { Ok(()) }
    }
}

/// File name of a segment, from 1.
pub fn segment_name(number: u64) -> String {
    format!("{number:06}")
}

/// The mapped segments of one block.
#[derive(Debug)]
pub(super) struct Segments(Vec<(Arc<str>, Bytes)>);

impl Segments {
    /// Maps all segments of a `chunks` directory and checks their headers.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
            let name = entry.map_err(Error::io("list", dir))?.file_name();
            match name.to_str().filter(|n| n.len() >= 6).and_then(|n| n.parse::<u64>().ok()) {
                Some(number) => names.push((number, name)),
                None => tracing::debug!(dir = %dir.display(), ?name, "not a chunk segment, skipped"),
            }
        }
        names.sort();
        let mut segments = Vec::with_capacity(names.len());
        for (i, (number, name)) in names.into_iter().enumerate() {
            let path = dir.join(name);
            let file: Arc<str> = path.display().to_string().into();
            if number != i as u64 + 1 {
                let what = format!("segment {} is missing", segment_name(i as u64 + 1));
                return Err(Error::corrupt(&file, 0, what));
            }
            let data = map_file(&path)?;
            check_header(&file, &data)?;
            segments.push((file, data));
        }
        Ok(Segments(segments))
    }

    /// The chunk of a meta; its bytes are a slice of the mapping.
    pub(super) fn chunk(&self, file: &str, meta: &ChunkMeta) -> Result<Chunk> {
        let (segment, offset) = meta.place();
        let (name, data) = self.0.get(segment).ok_or_else(|| {
            let what = format!("chunk refers to segment {} of {}", segment + 1, self.0.len());
            Error::corrupt(file, 0, what)
        })?;
        if offset < HEADER_BYTES || offset >= data.len() {
            return Err(Error::corrupt(name, offset as u64, "no chunk there, but the index refers to one"));
        }
        let (encoding, data) = parse_chunk(name, offset as u64, &data.slice(offset..))?;
        Ok(Chunk { mint: meta.mint, maxt: meta.maxt, encoding, data })
    }

    /// Bytes of all segments.
    pub(super) fn bytes_len(&self) -> u64 {
        self.0.iter().map(|(_, data)| data.len() as u64).sum()
    }
}

pub(super) fn check_header(file: &str, data: &[u8]) -> Result<()> {
    let mut c = Cursor::new(file, 0, data);
    if c.u32()? != MAGIC {
        return Err(Error::corrupt(file, 0, "not a chunk segment: wrong magic number"));
    }
    let version = c.u8()?;
    if version != VERSION {
        let what = format!("chunk segment version {version} is unknown, only 1 is read");
        return Err(Error::Unsupported { file: file.to_owned(), what });
    }
    c.take(3).map(|_| ())
}

/// Reads the chunk at the start of `bytes`, which stand at `offset` of a segment, and checks its CRC. The data is a
/// slice of `bytes`, without copying.
pub fn parse_chunk(file: &str, offset: u64, bytes: &Bytes) -> Result<(Encoding, Bytes)> {
    let mut c = Cursor::new(file, offset, bytes);
    let data_bytes = c.uvarint()?;
    let start = c.pos();
    let len = usize::try_from(data_bytes).ok().and_then(|n| n.checked_add(1));
    let checked = match len {
        Some(len) if len.saturating_add(4) <= c.remaining() => c.take(len)?,
        _ => return Err(c.corrupt(format!("chunk of {data_bytes} bytes in {} left", c.remaining()))),
    };
    if crc32c(checked) != c.u32()? {
        return Err(Error::corrupt(file, offset, "chunk checksum mismatch"));
    }
    let encoding = Encoding::try_from(checked[0]).map_err(|source| Error::Chunk {
        file: file.to_owned(),
        offset,
        source,
    })?;
    Ok((encoding, bytes.slice(start + 1..start + checked.len())))
}

/// Bytes of the whole chunk entry whose first bytes are given (10 are enough): length, encoding, data, checksum.
pub fn chunk_entry_bytes(file: &str, offset: u64, head: &[u8]) -> Result<u64> {
    let mut c = Cursor::new(file, offset, head);
    let data = c.uvarint()?;
    data.checked_add(c.pos() as u64 + 5).ok_or_else(|| c.corrupt("chunk length overflows"))
}
