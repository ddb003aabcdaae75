//! The hints' files: for each peer a directory of numbered segments, in the write-ahead log's frames.
//!
//! ```text
//! <dir>/10.0.0.7%3A10901/00000003 00000004 …      the peer's address, segments of up to SEGMENT_BYTES_MAX
//! ```
//!
//! One thread writes for all peers and syncs once for all hints that wait (group commit). A segment is sealed when it is full, when
//! the reader asks for it, and by every start; only sealed segments are read. A failed write seals the segment too, and nothing is
//! appended behind it: what may be damaged lies at its end, where reading stops.

mod names;
mod writer;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use bytes::Bytes;
use chronolith_tsdb::wal::{DirStore, FrameDamage, FrameReader, SegmentStore as _};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use names::address_of;
use writer::write_loop;

/// Small enough to be sent again as a whole after a failure, large enough that there are few.
const SEGMENT_BYTES_MAX: u64 = 16 << 20;
/// Hints that wait for the writer.
const QUEUE_MAX: usize = 1024;
/// Their bytes.
const QUEUE_BYTES_MAX: u64 = 64 << 20;

/// Why a hint was not kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum HintError {
    /// The limit of bytes is reached.
    #[error("hints reach their limit of {0} bytes")]
    Full(u64),
    /// The disk does not keep up.
    #[error("too many hints wait for the disk")]
    Busy,
    /// The disk failed.
    #[error("writing a hint failed: {0}")]
    Io(Arc<io::Error>),
}

/// What waits for a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogStats {
    pub(crate) bytes: u64,
    pub(crate) segments: usize,
}

/// Hints of all peers.
#[derive(Debug)]
pub(super) struct HintLog {
    dir: PathBuf,
    bytes_max: u64,
    state: Mutex<State>,
    commands: SyncSender<Command>,
    /// Told when there is something new to send.
    pub(super) appended: Notify,
}

#[derive(Debug, Default)]
struct State {
    peers: BTreeMap<String, PeerLog>,
    /// All segments' bytes, and those of hints under way.
    bytes: u64,
    queued_bytes: u64,
}

#[derive(Debug)]
struct PeerLog {
    store: DirStore,
    next_id: u64,
    sealed: BTreeMap<u64, u64>,
    active: Option<(u64, u64)>,
}

#[derive(Debug)]
enum Command {
    Append { peer: String, frame: Vec<u8>, done: oneshot::Sender<Result<(), HintError>> },
    Seal { peer: String, done: oneshot::Sender<()> },
}

impl HintLog {
    /// The log in `dir`, with what lies there.
    pub(super) fn open(dir: &Path, bytes_max: u64) -> io::Result<Arc<Self>> {
        std::fs::create_dir_all(dir)?;
        let mut state = State::default();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(peer) = name.to_str().and_then(address_of).filter(|_| entry.path().is_dir()) else {
                continue;
            };
            let store = DirStore::open(&entry.path())?;
            let mut sealed = BTreeMap::new();
            for id in store.list()? {
                let bytes = entry.path().join(format!("{id:08}")).metadata()?.len();
                state.bytes += bytes;
                sealed.insert(id, bytes);
            }
            let next_id = sealed.keys().next_back().map_or(1, |id| id + 1);
            state.peers.insert(peer, PeerLog { store, next_id, sealed, active: None });
        }
        let (commands, queue) = sync_channel(QUEUE_MAX);
        let log = Arc::new(HintLog {
            dir: dir.to_owned(),
            bytes_max,
            state: Mutex::new(state),
            commands,
            appended: Notify::new(),
        });
        let weak = Arc::downgrade(&log);
        std::thread::Builder::new().name("hints".to_owned()).spawn(move || write_loop(&weak, &queue))?;
        Ok(log)
    }

    /// Appends a framed hint; `Ok` means that it is on disk.
    pub(super) async fn append(&self, peer: &str, frame: Vec<u8>) -> Result<(), HintError> {
        let len = frame.len() as u64;
        {
            let mut state = self.state.lock();
            if state.bytes + len > self.bytes_max {
                return Err(HintError::Full(self.bytes_max));
            }
            if state.queued_bytes > 0 && state.queued_bytes + len > QUEUE_BYTES_MAX {
                return Err(HintError::Busy);
            }
            state.bytes += len;
            state.queued_bytes += len;
        }
        let (done, answer) = oneshot::channel();
        let sent = self.commands.try_send(Command::Append { peer: peer.to_owned(), frame, done });
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = sent {
            let mut state = self.state.lock();
            state.bytes -= len;
            state.queued_bytes -= len;
            return Err(HintError::Busy);
        }
        // The writer counts what becomes of it, also when nobody waits any more.
        let kept = answer.await.unwrap_or(Err(HintError::Busy));
        if kept.is_ok() {
            self.appended.notify_one();
        }
        kept
    }

    /// Peers for which something waits.
    pub(super) fn peers(&self) -> Vec<String> {
        let state = self.state.lock();
        let waiting = state.peers.iter().filter(|(_, p)| !p.sealed.is_empty() || p.active.is_some());
        waiting.map(|(peer, _)| peer.clone()).collect()
    }

    pub(super) fn stats(&self, peer: &str) -> LogStats {
        let state = self.state.lock();
        let Some(log) = state.peers.get(peer) else { return LogStats::default() };
        LogStats {
            bytes: log.sealed.values().sum::<u64>() + log.active.map_or(0, |a| a.1),
            segments: log.sealed.len() + usize::from(log.active.is_some()),
        }
    }

    /// Bytes of all hints, and the limit.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.state.lock().bytes, self.bytes_max)
    }

    /// Makes what was appended so far readable, and names the peer's oldest segment.
    pub(super) async fn oldest(&self, peer: &str) -> Option<u64> {
        let has_active = {
            let state = self.state.lock();
            let log = state.peers.get(peer)?;
            if let Some((id, _)) = log.sealed.first_key_value() {
                return Some(*id);
            }
            log.active.is_some()
        };
        if has_active {
            let (done, sealed) = oneshot::channel();
            if self.commands.try_send(Command::Seal { peer: peer.to_owned(), done }).is_ok() {
                let _ = sealed.await;
            }
        }
        self.state.lock().peers.get(peer)?.sealed.first_key_value().map(|(id, _)| *id)
    }

    /// Reads a sealed segment; `None` for one in which there is nothing to find: a crash left it without its header (nothing in it
    /// was acknowledged), or somebody deleted the file. Blocks.
    pub(super) fn read(&self, peer: &str, id: u64) -> io::Result<Option<SegmentReader>> {
        let store = self.state.lock().peers.get(peer).map(|p| p.store.clone());
        let Some(source) = store.map(|store| unless_gone(store.open(id))).transpose()?.flatten() else {
            return Ok(None);
        };
        match FrameReader::open(source, id) {
            Ok(reader) => Ok(Some(SegmentReader(reader))),
            Err(FrameDamage::Io(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Removes a segment whose hints have been delivered. Blocks.
    pub(super) fn remove(&self, peer: &str, id: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let Some(log) = state.peers.get_mut(peer) else { return Ok(()) };
        unless_gone(log.store.remove(id))?;
        let bytes = log.sealed.remove(&id).unwrap_or(0);
        state.bytes -= bytes;
        Ok(())
    }
}

/// `None` where the file is not there any more.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Bodies of the frames of a segment.
pub(super) struct SegmentReader(FrameReader);

impl SegmentReader {
    /// The next one; `None` at the end, which may be a damaged one: nothing behind it was acknowledged.
    pub(super) fn next_body(&mut self) -> io::Result<Option<Bytes>> {
        match self.0.next_body() {
            Ok(body) => Ok(body),
            Err(FrameDamage::Io(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
