//! A large file that is written to be durable: its bytes go to the disk in steps, while it is written, instead of all at the
//! end. A sync of hundreds of megabytes at once would keep the log's thread waiting, and with it every writer: its small
//! syncs stand behind them in the disk's queue and in the file system's journal.

use std::fs::File;
use std::io::{self, Write};

/// Bytes between two syncs: milliseconds of a disk.
const STEP_BYTES: usize = 8 << 20;

/// A file on its way to the disk.
#[derive(Debug)]
pub(crate) struct PacedFile {
    file: File,
    unsynced: usize,
    /// Off where nobody needs it durable.
    sync: bool,
}

impl PacedFile {
    /// Over a file; without `sync` it is written as any other.
    pub(crate) fn new(file: File, sync: bool) -> Self {
        PacedFile { file, unsynced: 0, sync }
    }

    /// Makes what is left durable, if that was asked for.
    pub(crate) fn finish(&self) -> io::Result<()> {
        if self.sync { self.file.sync_all() } else { Ok(()) }
    }
}

impl Write for PacedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written;
        if self.sync && self.unsynced >= STEP_BYTES {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
