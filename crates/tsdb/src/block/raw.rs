//! The chunks of a block as they lie in its segments, read front to back.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use chronolith_chunk::{Chunk, Encoding};

use super::segment::{HEADER_BYTES, check_header};
use super::{CHUNKS_DIR, segment_name};
use crate::cursor::Cursor;
use crate::index::ChunkMeta;
use crate::window::FileWindow;
use crate::{Error, Result, crc32c};

/// Read ahead in a segment: some hundred chunks.
const WINDOW_BYTES: usize = 512 << 10;
/// Longest length field.
const LENGTH_BYTES_MAX: usize = 10;

/// Reads chunks by reference, cheaply where references ascend.
#[derive(Debug)]
pub(crate) struct RawChunks {
    dir: PathBuf,
    open: Option<(usize, FileWindow)>,
}

/// One chunk, its checksum checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawChunk<'a> {
    /// Length, encoding, data, checksum.
    pub(crate) entry: &'a [u8],
    /// How the data is laid out.
    pub(crate) encoding: Encoding,
    /// The data.
    pub(crate) data: &'a [u8],
}

impl RawChunk<'_> {
    /// A copy that stands by itself.
    pub(crate) fn to_chunk(self, meta: &ChunkMeta) -> Chunk {
        let data = Bytes::copy_from_slice(self.data);
        Chunk { mint: meta.mint, maxt: meta.maxt, encoding: self.encoding, data }
    }
}

impl RawChunks {
    /// The segments of the block in `dir`; none is opened yet.
    pub(crate) fn new(dir: &Path) -> Self {
        RawChunks { dir: dir.join(CHUNKS_DIR), open: None }
    }

    /// Reads the chunk of a meta.
    pub(crate) fn read(&mut self, meta: &ChunkMeta) -> Result<RawChunk<'_>> {
        let (segment, offset) = meta.place();
        if self.open.as_ref().is_none_or(|(open, _)| *open != segment) {
            let path = self.dir.join(segment_name(segment as u64 + 1));
            let mut file = FileWindow::open(&path, WINDOW_BYTES)?;
            let name = file.name();
            check_header(&name, file.up_to(0, HEADER_BYTES)?)?;
            self.open = Some((segment, file));
        }
        let (_, file) = self.open.as_mut().expect("opened above");
        let offset = offset as u64;
        let corrupt = |file: &FileWindow, what: String| Err(Error::corrupt(&file.name(), offset, what));
        if offset < HEADER_BYTES as u64 || offset >= file.len() {
            return corrupt(file, "no chunk there, but the index refers to one".to_owned());
        }
        let left = file.len() - offset;
        let (data_bytes, head) = {
            let bytes = file.up_to(offset, LENGTH_BYTES_MAX)?;
            let mut c = Cursor::new("", offset, bytes);
            match c.uvarint() {
                Ok(len) => (len, c.pos()),
                Err(_) => return corrupt(file, "chunk length cut short".to_owned()),
            }
        };
        if data_bytes.saturating_add(head as u64 + 5) > left {
            return corrupt(file, format!("chunk of {data_bytes} bytes in {left} left"));
        }
        let entry_bytes = head + 1 + data_bytes as usize + 4;
        let entry = file.get(offset, entry_bytes)?;
        let (checked, crc) = entry[head..].split_at(entry_bytes - head - 4);
        if crc32c(checked).to_be_bytes() != crc {
            return corrupt(file, "chunk checksum mismatch".to_owned());
        }
        let encoding = Encoding::try_from(checked[0]);
        let encoding = match encoding {
            Ok(encoding) => encoding,
            Err(source) => return Err(Error::Chunk { file: file.name().to_string(), offset, source }),
        };
        let entry = file.get(offset, entry_bytes)?;
        Ok(RawChunk { entry, encoding, data: &entry[head + 1..entry_bytes - 4] })
    }
}
