//! The thread that writes for all peers, and syncs once for all hints that wait.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use chronolith_tsdb::wal::{
    DirStore, SEGMENT_HEADER_BYTES, SegmentStore as _, SegmentWriter, segment_header,
};
use tokio::sync::oneshot;

use super::names::name_of;
use super::{Command, HintError, HintLog, PeerLog, SEGMENT_BYTES_MAX};

pub(super) type Writers = HashMap<String, Box<dyn SegmentWriter>>;
/// Peers whose segment may be damaged at its end, and why.
type Broken = HashMap<String, Arc<io::Error>>;
type Waiting = (String, u64, oneshot::Sender<Result<(), HintError>>, Result<(), HintError>);

/// Until the log is dropped.
pub(super) fn write_loop(log: &std::sync::Weak<HintLog>, queue: &Receiver<Command>) {
    let mut writers = Writers::new();
    while let Ok(first) = queue.recv() {
        let Some(log) = log.upgrade() else { return };
        log.commit(std::iter::once(first).chain(queue.try_iter()), &mut writers);
    }
}

impl HintLog {
    /// Does all that waits, with one sync for each peer.
    pub(super) fn commit(&self, commands: impl Iterator<Item = Command>, writers: &mut Writers) {
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
    pub(super) fn begin(&self, peer: &str) -> io::Result<Box<dyn SegmentWriter>> {
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

    pub(super) fn seal(&self, peer: &str, writers: &mut Writers) {
        writers.remove(peer);
        let mut state = self.state.lock();
        if let Some(log) = state.peers.get_mut(peer)
            && let Some((id, bytes)) = log.active.take()
        {
            log.sealed.insert(id, bytes);
        }
    }
}
