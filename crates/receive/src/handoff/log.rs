//! The hints' files: for each peer a directory of numbered segments, in the write-ahead log's frames.
//!
//! ```text
//! <dir>/10.0.0.7%3A10901/00000003 00000004 …      the peer's address, segments of up to SEGMENT_BYTES_MAX
//! ```
//!
//! One thread writes for all peers and syncs once for all hints that wait (group commit). A segment is sealed when it is full, when
//! the reader asks for it, and by every start; only sealed segments are read. A failed write seals the segment too, and nothing is
//! appended behind it: what may be damaged lies at its end, where reading stops.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use bytes::Bytes;
use chronolith_tsdb::wal::{
    DirStore, FrameDamage, FrameReader, SEGMENT_HEADER_BYTES, SegmentStore as _, SegmentWriter,
    segment_header,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

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

type Writers = HashMap<String, Box<dyn SegmentWriter>>;
/// Peers whose segment may be damaged at its end, and why.
type Broken = HashMap<String, Arc<io::Error>>;
type Waiting = (String, u64, oneshot::Sender<Result<(), HintError>>, Result<(), HintError>);

/// Until the log is dropped.
fn write_loop(log: &std::sync::Weak<HintLog>, queue: &Receiver<Command>) {
    let mut writers = Writers::new();
    while let Ok(first) = queue.recv() {
        let Some(log) = log.upgrade() else { return };
        log.commit(std::iter::once(first).chain(queue.try_iter()), &mut writers);
    }
}

impl HintLog {
    /// Does all that waits, with one sync for each peer.
    fn commit(&self, commands: impl Iterator<Item = Command>, writers: &mut Writers) {
        let mut broken = Broken::new();
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut seals = Vec::new();
        for command in commands {
            match command {
                Command::Append { peer, frame, done } => {
                    let result = self.append_here(&peer, &frame, writers, &mut broken);
                    waiting.push((peer, frame.len() as u64, done, result));
                }
                Command::Seal { peer, done } => seals.push((peer, done)),
            }
        }
        self.sync_and_answer(waiting, writers, broken);
        for (peer, done) in seals {
            self.seal(&peer, writers);
            let _ = done.send(());
        }
    }

    fn append_here(
        &self,
        peer: &str,
        frame: &[u8],
        writers: &mut Writers,
        broken: &mut Broken,
    ) -> Result<(), HintError> {
        if let Some(error) = broken.get(peer) {
            // Behind half a frame nothing would be found again.
            return Err(HintError::Io(Arc::clone(error)));
        }
        self.write_frame(peer, frame, writers).map_err(|error| {
            let error = Arc::new(error);
            broken.insert(peer.to_owned(), Arc::clone(&error));
            HintError::Io(error)
        })
    }

    fn write_frame(&self, peer: &str, frame: &[u8], writers: &mut Writers) -> io::Result<()> {
        if !writers.contains_key(peer) {
            let writer = self.begin(peer)?;
            writers.insert(peer.to_owned(), writer);
        }
        writers.get_mut(peer).expect("just entered").append(frame)
    }

    /// Starts a peer's next segment.
    fn begin(&self, peer: &str) -> io::Result<Box<dyn SegmentWriter>> {
        let (store, id) = {
            let mut state = self.state.lock();
            if !state.peers.contains_key(peer) {
                let store = DirStore::open(&self.dir.join(name_of(peer)))?;
                let log = PeerLog { store, next_id: 1, sealed: BTreeMap::new(), active: None };
                state.peers.insert(peer.to_owned(), log);
            }
            let log = state.peers.get_mut(peer).expect("just entered");
            log.next_id += 1;
            (log.store.clone(), log.next_id - 1)
        };
        let mut writer = store.create(id)?;
        writer.append(&segment_header(id))?;
        let mut state = self.state.lock();
        state.bytes += SEGMENT_HEADER_BYTES as u64;
        if let Some(log) = state.peers.get_mut(peer) {
            log.active = Some((id, SEGMENT_HEADER_BYTES as u64));
        }
        Ok(writer)
    }

    fn sync_and_answer(&self, waiting: Vec<Waiting>, writers: &mut Writers, mut broken: Broken) {
        let mut synced: HashMap<String, Result<(), Arc<io::Error>>> = HashMap::new();
        for (peer, ..) in &waiting {
            if !synced.contains_key(peer) {
                let result = writers.get_mut(peer).map_or(Ok(()), |w| w.sync().map_err(Arc::new));
                if let Err(error) = &result {
                    broken.insert(peer.clone(), Arc::clone(error));
                }
                synced.insert(peer.clone(), result);
            }
        }
        for (peer, len, done, written) in waiting {
            let result = written.and_then(|()| synced[&peer].clone().map_err(HintError::Io));
            let mut state = self.state.lock();
            state.queued_bytes -= len;
            match (&result, state.peers.get_mut(&peer)) {
                (Ok(()), Some(log)) => {
                    if let Some((_, bytes)) = &mut log.active {
                        *bytes += len;
                    }
                }
                _ => state.bytes -= len,
            }
            drop(state);
            let _ = done.send(result);
        }
        let full = {
            let state = self.state.lock();
            let full = |log: &PeerLog| log.active.is_some_and(|(_, bytes)| bytes >= SEGMENT_BYTES_MAX);
            state.peers.iter().filter(|(_, log)| full(log)).map(|(p, _)| p.clone()).collect::<Vec<_>>()
        };
        for peer in broken.into_keys().chain(full) {
            self.seal(&peer, writers);
        }
    }

    fn seal(&self, peer: &str, writers: &mut Writers) {
        writers.remove(peer);
        let mut state = self.state.lock();
        if let Some(log) = state.peers.get_mut(peer)
            && let Some((id, bytes)) = log.active.take()
        {
            log.sealed.insert(id, bytes);
        }
    }
}

/// A directory's name for an address: letters, digits, dots and dashes as they are, the rest as `%XX`.
fn name_of(address: &str) -> String {
    let mut name = String::new();
    for byte in address.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => name.push(char::from(byte)),
            // Not at the beginning: "." and ".." are no names.
            b'.' if !name.is_empty() => name.push('.'),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

fn address_of(name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let hex = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use chronolith_model::TenantId;

    use super::super::record::Hint;
    use super::*;

    fn frame(i: i64) -> Vec<u8> {
        Hint { now_ms: i, tenant: TenantId::default(), batch: Bytes::from(vec![7; 100]) }.to_frame()
    }

    fn all(log: &HintLog, peer: &str, id: u64) -> Vec<i64> {
        let mut reader = log.read(peer, id).unwrap().unwrap();
        let mut out = Vec::new();
        while let Some(body) = reader.next_body().unwrap() {
            out.push(Hint::from_body(body).unwrap().now_ms);
        }
        out
    }

    #[test]
    fn addresses_are_names() {
        for address in ["10.0.0.1:10901", "[::1]:1", "..", "ü/x", "a%b"] {
            let name = name_of(address);
            assert!(!name.contains('/') && name != ".." && name != ".", "{name}");
            assert_eq!(address_of(&name).unwrap(), address);
        }
    }

    #[tokio::test]
    async fn hints_outlive_the_process_and_go_when_delivered() {
        let dir = tempfile::tempdir().unwrap();
        let log = HintLog::open(dir.path(), 1 << 20).unwrap();
        for i in 0..3 {
            log.append("a:1", frame(i)).await.unwrap();
        }
        log.append("b:1", frame(9)).await.unwrap();
        assert_eq!(log.peers(), ["a:1", "b:1"]);
        let first = log.oldest("a:1").await.unwrap();
        assert_eq!(all(&log, "a:1", first), [0, 1, 2]);
        log.append("a:1", frame(3)).await.unwrap();
        drop(log);
        // A crash may leave half a frame at the end.
        let path = dir.path().join(name_of("a:1")).join("00000002");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(&frame(4)[..50]);
        std::fs::write(&path, bytes).unwrap();
        let log = HintLog::open(dir.path(), 1 << 20).unwrap();
        let before = log.bytes().0;
        assert_eq!(log.stats("a:1").segments, 2);
        assert_eq!(log.oldest("a:1").await, Some(1));
        assert_eq!(all(&log, "a:1", 1), [0, 1, 2]);
        log.remove("a:1", 1).unwrap();
        assert_eq!(all(&log, "a:1", log.oldest("a:1").await.unwrap()), [3]);
        log.append("a:1", frame(5)).await.unwrap();
        assert_eq!(log.stats("a:1").segments, 2, "a segment of an earlier run is not appended to");
        log.remove("a:1", 2).unwrap();
        assert_eq!(log.oldest("a:1").await, Some(3));
        log.remove("a:1", 3).unwrap();
        assert_eq!((log.oldest("a:1").await, log.peers()), (None, vec!["b:1".to_owned()]));
        assert!(log.bytes().0 < before && log.bytes().0 == log.stats("b:1").bytes);
    }

    #[tokio::test]
    async fn only_segments_without_hints_count_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        let log = HintLog::open(dir.path(), 1 << 20).unwrap();
        log.append("a:1", frame(0)).await.unwrap();
        let id = log.oldest("a:1").await.unwrap();
        let path = dir.path().join(name_of("a:1")).join(format!("{id:08}"));
        // It cannot be read now, which says nothing of what is in it.
        let aside = dir.path().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(log.read("a:1", id).is_err());
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(&aside, &path).unwrap();
        assert_eq!(all(&log, "a:1", id), [0]);
        std::fs::write(&path, "half").unwrap();
        assert!(log.read("a:1", id).unwrap().is_none());
        // Who deletes it stops nothing.
        std::fs::remove_file(&path).unwrap();
        assert!(log.read("a:1", id).unwrap().is_none());
        log.remove("a:1", id).unwrap();
        assert_eq!((log.oldest("a:1").await, log.bytes().0), (None, 0));
    }

    /// Half of the first frame is written, as on a disk that is full for a moment.
    struct FullOnce(Box<dyn SegmentWriter>, bool);

    impl SegmentWriter for FullOnce {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            if std::mem::replace(&mut self.1, true) {
                return self.0.append(bytes);
            }
            self.0.append(&bytes[..bytes.len() / 2])?;
            Err(io::ErrorKind::StorageFull.into())
        }

        fn sync(&mut self) -> io::Result<()> {
            self.0.sync()
        }
    }

    #[tokio::test]
    async fn no_hint_that_was_kept_lies_behind_a_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        let log = HintLog::open(dir.path(), 1 << 20).unwrap();
        let mut writers = Writers::new();
        writers.insert("a:1".to_owned(), Box::new(FullOnce(log.begin("a:1").unwrap(), false)));
        let mut kept = Vec::new();
        for round in [0..2, 2..4] {
            let mut answers = Vec::new();
            let commands: Vec<Command> = round
                .map(|i| {
                    let (done, answer) = oneshot::channel();
                    answers.push((i, answer));
                    Command::Append { peer: "a:1".to_owned(), frame: frame(i), done }
                })
                .collect();
            let bytes = 2 * frame(0).len() as u64;
            log.state.lock().bytes += bytes;
            log.state.lock().queued_bytes += bytes;
            log.commit(commands.into_iter(), &mut writers);
            for (i, answer) in answers {
                kept.extend(answer.await.unwrap().is_ok().then_some(i));
            }
        }
        assert_eq!(kept, [2, 3]);
        log.seal("a:1", &mut writers);
        let ids: Vec<u64> = log.state.lock().peers["a:1"].sealed.keys().copied().collect();
        assert_eq!(ids.into_iter().flat_map(|id| all(&log, "a:1", id)).collect::<Vec<_>>(), kept);
    }

    #[tokio::test]
    async fn the_limit_holds_and_a_failing_disk_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let log = HintLog::open(dir.path(), 250).unwrap();
        log.append("a:1", frame(0)).await.unwrap();
        assert!(matches!(log.append("a:1", frame(1)).await, Err(HintError::Full(250))));
        let id = log.oldest("a:1").await.unwrap();
        log.remove("a:1", id).unwrap();
        assert_eq!(log.bytes().0, 0);
        log.append("a:1", frame(1)).await.unwrap();
        // A file where the peer's directory would be.
        std::fs::write(dir.path().join(name_of("b:1")), "").unwrap();
        let log = HintLog::open(dir.path(), 1 << 20).unwrap();
        let before = log.bytes().0;
        assert!(matches!(log.append("b:1", frame(1)).await, Err(HintError::Io(_))));
        assert_eq!(log.bytes().0, before);
        log.append("a:1", frame(2)).await.unwrap();
    }
}
