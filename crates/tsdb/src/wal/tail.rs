//! The end of the log: the segment that is being written, and how much of it is whole.
//!
//! When the disk is full, a round's records do not fit. They are kept, the segment is cut back to what was whole before the
//! round ([`Tail::cut_back`]), and the same records go into the next segment once there is room ([`Tail::write`] again). So
//! nothing is written twice, and nothing that memory holds is missing in the log afterwards.

use std::io;

use super::frame::segment_header;
use super::{SEGMENT_HEADER_BYTES, SegmentStore, SegmentWriter, WalSync};

/// What a round asks for beside writing its records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// Sync even where the mode does not.
    pub(super) sync: bool,
    /// Begin a new segment afterwards.
    pub(super) rotate: bool,
}

pub(super) struct Tail {
    /// `None` after [`Tail::cut_back`]: the next write begins a new segment.
    writer: Option<Box<dyn SegmentWriter>>,
    /// Number of the segment.
    pub(super) segment: u64,
    /// Bytes of the segment that are whole records, of rounds that succeeded.
    size: u64,
    /// Something was written and not synced.
    pub(super) dirty: bool,
    /// A sync has failed that more than this round's records wait for.
    sync_failed: bool,
}

impl Tail {
    /// Begins segment `segment`.
    pub(super) fn begin(store: &dyn SegmentStore, segment: u64) -> io::Result<Self> {
        let writer = Some(open_segment(store, segment)?);
        Ok(Tail { writer, segment, size: SEGMENT_HEADER_BYTES as u64, dirty: false, sync_failed: false })
    }

    /// Writes a round's records, and clears them as soon as nothing needs them any more.
    pub(super) fn write(
        &mut self,
        store: &dyn SegmentStore,
        mode: WalSync,
        segment_bytes_max: u64,
        records: &mut Vec<u8>,
        round: Round,
    ) -> io::Result<()> {
        let header = SEGMENT_HEADER_BYTES as u64;
        if self.writer.is_none() {
            self.next_segment(store)?;
        } else if self.size > header && self.size + records.len() as u64 > segment_bytes_max {
            self.sync(mode)?;
            self.next_segment(store)?;
        }
        if !records.is_empty() {
            self.writer()?.append(records)?;
            self.dirty = true;
        }
        if self.dirty && (mode == WalSync::Group || round.sync) {
            self.sync(mode)?;
        }
        self.size += records.len() as u64;
        records.clear();
        if round.rotate {
            self.next_segment(store)?;
        }
        Ok(())
    }

    fn sync(&mut self, mode: WalSync) -> io::Result<()> {
        // After a failed sync nobody knows which of the unsynced bytes are lost. With group commit they are those of this
        // round, which are still here.
        let synced = self.writer()?.sync();
        self.sync_failed = synced.is_err() && mode != WalSync::Group;
        self.dirty &= synced.is_err();
        synced
    }

    fn writer(&mut self) -> io::Result<&mut Box<dyn SegmentWriter>> {
        self.writer.as_mut().ok_or_else(|| io::Error::other("no segment is open"))
    }

    fn next_segment(&mut self, store: &dyn SegmentStore) -> io::Result<()> {
        let next = self.segment + 1;
        // An attempt that failed may have left its name and half a header.
        if self.writer.take().is_none() && store.list()?.last() == Some(&next) {
            store.remove(next)?;
        }
        self.writer = Some(open_segment(store, next)?);
        (self.segment, self.size, self.dirty) = (next, SEGMENT_HEADER_BYTES as u64, false);
        Ok(())
    }

    /// True when a round that failed with `error` can be written again later.
    pub(super) fn can_wait(&self, error: &io::Error) -> bool {
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) && !self.sync_failed
    }

    /// Cuts the segment back to what was whole before the round that failed, durably.
    pub(super) fn cut_back(&mut self, store: &dyn SegmentStore) -> io::Result<()> {
        self.writer = None;
        store.truncate(self.segment, self.size)?;
        self.dirty = false;
        Ok(())
    }
}

fn open_segment(store: &dyn SegmentStore, id: u64) -> io::Result<Box<dyn SegmentWriter>> {
    let mut writer = store.create(id)?;
    writer.append(&segment_header(id))?;
    Ok(writer)
}
