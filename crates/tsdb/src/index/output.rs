//! The file that an index is written to: position, size bounds, sections with checksums.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::SERIES_ALIGN;
use crate::crc::Crc32c;
use crate::{Error, Result};

/// Largest index: a series reference is a 32-bit multiple of 16.
const INDEX_BYTES_MAX: u64 = SERIES_ALIGN * u32::MAX as u64;
/// Write buffer; large enough that a spinning disk would seek rarely, small beside everything else.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// `len ‖ payload ‖ CRC`, the payload coming in pieces.
pub(super) struct Section<'a> {
    out: &'a mut Output,
    buf: Vec<u8>,
    crc: Crc32c,
    end: u64,
}

impl<'a> Section<'a> {
    pub(super) fn start(out: &'a mut Output, len: u32) -> Result<Self> {
        out.write(&len.to_be_bytes())?;
        let end = out.pos + u64::from(len);
        Ok(Section { out, buf: Vec::new(), crc: Crc32c::new(), end })
    }

    pub(super) fn put(&mut self, append: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
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

    pub(super) fn end(mut self) -> Result<()> {
        self.drain()?;
        assert_eq!(self.out.pos, self.end, "a section is as long as it says");
        self.out.write(&self.crc.finish().to_be_bytes())
    }
}

/// The index file and the position in it.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) path: PathBuf,
    file: BufWriter<File>,
    pub(super) pos: u64,
}

impl Output {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).map_err(Error::io("create", path))?;
        Ok(Output { path: path.to_owned(), file: BufWriter::with_capacity(BUFFER_BYTES, file), pos: 0 })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.pos += bytes.len() as u64;
        if self.pos > INDEX_BYTES_MAX {
            return Err(self.too_large());
        }
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    pub(super) fn pad(&mut self, align: u64) -> Result<()> {
        const ZEROS: [u8; SERIES_ALIGN as usize] = [0; SERIES_ALIGN as usize];
        let pad = self.pos.next_multiple_of(align) - self.pos;
        self.write(&ZEROS[..pad as usize])
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io("write", &self.path))
    }

    pub(super) fn close(&mut self, sync: bool) -> Result<u64> {
        self.flush()?;
        if sync {
            self.file.get_ref().sync_all().map_err(Error::io("sync", &self.path))?;
        }
        Ok(self.pos)
    }

    pub(super) fn u32_of(&self, what: &'static str, bytes: u64) -> Result<u32> {
        u32::try_from(bytes).map_err(|_| Error::TooLarge {
            file: self.path.display().to_string(),
            what,
            bytes,
            bytes_max: u64::from(u32::MAX),
        })
    }

    #[cold]
    pub(super) fn too_large(&self) -> Error {
        Error::TooLarge {
            file: self.path.display().to_string(),
            what: "index",
            bytes: self.pos,
            bytes_max: INDEX_BYTES_MAX,
        }
    }
}

/// A file beside `path` whose name is already gone.
pub(super) fn unnamed_file(path: &Path, what: &str) -> Result<File> {
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
