//! The write-ahead log: one log for all tenants, made durable by group commit.
//!
//! Records are applied to the heads first and logged after, so that a record in the log is always one that memory
//! holds too; the acknowledgement of a write ([`Commit`]) waits for the sync that covers its record. Series records
//! are the exception: they are logged under the lock that makes the series visible, so no record can name a series
//! that a lost tail of the log introduced.
//!
//! Where segments lie is a parameter ([`SegmentStore`]); frames, records, group commit and replay only know that
//! segments are numbered, append-only, and readable from the start. The format is described in
//! `docs/format/wal.md`.

mod beside;
mod commit;
mod frame;
mod histogram;
mod record;
mod replay;
mod segment;
mod tail;
mod writer;

pub(crate) use beside::{
    ExemplarGroup, put_exemplar_value, put_labels, put_metadata, put_metadata_entry, take_exemplar_value,
    take_labels, take_metadata_entry,
};
pub use commit::Commit;
pub(crate) use frame::FRAME_HEADER_BYTES;
pub use frame::{FrameDamage, FrameReader, SEGMENT_HEADER_BYTES, frame_begin, frame_end, segment_header};
pub(crate) use histogram::{HistogramGroup, put_sample, stale, take_sample};
pub(crate) use record::{
    RecordKind, SampleGroup, put_cut, put_forget, put_groups, put_series, put_series_entry, put_tenant,
    put_uvarint, take_uvarint, unzigzag, zigzag,
};
pub use replay::{Dropped, ReplayReport};
pub(crate) use replay::{Heads, replay};
pub(crate) use segment::sync_dir;
pub use segment::{DirStore, SegmentStore, SegmentWriter};
pub(crate) use writer::Wal;
pub use writer::{WalOptions, WalSync};

use std::sync::Arc;

/// Why the log could not take or keep a record.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WalError {
    /// Writing or syncing failed. Nothing is acknowledged any more until the log is opened again, because after a
    /// failed sync the operating system does not say which bytes it has lost.
    #[error("write-ahead log failed in segment {segment}")]
    Failed {
        /// Number of the segment that was being written.
        segment: u64,
        /// What the store answered.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The disk is full. The write is not acknowledged; the log goes on by itself once there is room.
    #[error("disk is full, the write-ahead log waits for room in segment {segment}")]
    Stalled {
        /// Number of the segment that was being written.
        segment: u64,
        /// What the store answered.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The log has been closed.
    #[error("write-ahead log is closed")]
    Closed,
}
