//! Group commit: writers append framed records to a shared buffer, one thread writes and syncs it, and one sync
//! serves every write that waits.
//!
//! A full disk stalls the log: everything that waits is told so, and [`Wal::stalled`] lets writes be refused before they
//! reach memory. Those that were already on their way still leave their records in the buffer, beyond its bound (there are
//! no more of them than requests in flight): memory must not hold what the log will never have, for a repetition of it
//! would be acknowledged without a record. Once there is room, all of it is written and the log goes on. Any other
//! failure is for good.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::tail::{Round, Tail};
use super::{SegmentStore, WalError};

/// When a write counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalSync {
    /// After the sync that covers it; one sync serves all writes that wait.
    Group,
    /// At once; a sync follows within this time.
    Interval(Duration),
    /// At once; synced when the operating system likes.
    Off,
}

/// Settings of the log.
#[derive(Clone, Copy, Debug)]
pub struct WalOptions {
    /// When a write counts as durable.
    pub sync: WalSync,
    /// Size at which the next segment is begun. 128 MiB is Prometheus's size: big enough that there are few files,
    /// small enough that dropping whole segments follows the snapshots closely.
    pub segment_bytes_max: u64,
    /// Bytes that may wait for the log's thread before writers block: about a hundred milliseconds of a busy disk.
    pub buffer_bytes_max: usize,
}

impl Default for WalOptions {
    fn default() -> Self {
        WalOptions { sync: WalSync::Group, segment_bytes_max: 128 << 20, buffer_bytes_max: 16 << 20 }
    }
}

/// How often a stalled log looks for room: soon enough for a person, seldom enough for a full disk. Tests have less time.
const ROOM_INTERVAL: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 500 });

/// A buffer that has grown beyond this is given back once it is written. At two million samples a second this is what gathers
/// in 70 ms, a slow sync.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

pub(super) type Notify = Box<dyn FnOnce(Result<(), WalError>) + Send>;

struct State {
    /// Framed records that no write call has taken yet.
    buf: Vec<u8>,
    /// Bytes ever appended; a position in the log is a value of this counter.
    appended: u64,
    /// Everything before this position is durable, as the mode understands it.
    durable: u64,
    failed: Option<WalError>,
    /// The disk is full; records gather in `buf` until there is room.
    stalled: Option<WalError>,
    closing: bool,
    /// Set by [`Wal::rotate`], taken by the thread.
    rotate: bool,
    segment: u64,
    rotations: u64,
    waiters: Vec<(u64, Notify)>,
    synced_at: Instant,
}

/// The open end of the log.
pub(crate) struct Wal {
    state: Mutex<State>,
    /// The thread waits here for work.
    work: Condvar,
    /// Writers wait here for room, and for durability.
    progress: Condvar,
    options: WalOptions,
    store: Arc<dyn SegmentStore>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Wal {
    /// Starts a new segment `segment` and the thread that writes it.
    pub(crate) fn start(
        store: Arc<dyn SegmentStore>,
        segment: u64,
        options: WalOptions,
    ) -> Result<Arc<Wal>, WalError> {
        let tail =
            Tail::begin(&*store, segment).map_err(|e| WalError::Failed { segment, source: Arc::new(e) })?;
        let wal = Arc::new(Wal {
            state: Mutex::new(State {
                buf: Vec::new(),
                appended: 0,
                durable: 0,
                failed: None,
                stalled: None,
                closing: false,
                rotate: false,
                segment,
                rotations: 0,
                waiters: Vec::new(),
                synced_at: Instant::now(),
            }),
            work: Condvar::new(),
            progress: Condvar::new(),
            options,
            store,
            thread: Mutex::new(None),
        });
        let worker = Arc::clone(&wal);
        let handle = std::thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || worker.run(tail))
            .map_err(|e| WalError::Failed { segment, source: Arc::new(e) })?;
        *wal.thread.lock() = Some(handle);
        Ok(wal)
    }

    /// Takes a framed record and tells the position behind it. Blocks while the buffer is full.
    pub(crate) fn append(&self, framed: &[u8]) -> Result<u64, WalError> {
        let mut state = self.state.lock();
        loop {
            if let Some(err) = &state.failed {
                return Err(err.clone());
            }
            if state.closing {
                return Err(WalError::Closed);
            }
            let fits =
                state.buf.is_empty() || state.buf.len() + framed.len() <= self.options.buffer_bytes_max;
            if fits || state.stalled.is_some() {
                break;
            }
            self.progress.wait(&mut state);
        }
        let idle = state.buf.is_empty();
        state.buf.extend_from_slice(framed);
        state.appended += framed.len() as u64;
        let position = state.appended;
        drop(state);
        if idle {
            self.work.notify_one();
        }
        Ok(position)
    }

    /// The position behind everything appended so far.
    pub(crate) fn position(&self) -> u64 {
        self.state.lock().appended
    }

    /// The disk is full: writes are better refused before they reach memory.
    pub(crate) fn stalled(&self) -> Option<WalError> {
        self.state.lock().stalled.clone()
    }

    /// True when a write must wait for the sync.
    pub(crate) fn waits(&self) -> bool {
        self.options.sync == WalSync::Group
    }

    pub(super) fn wait(&self, position: u64) -> Result<(), WalError> {
        let mut state = self.state.lock();
        loop {
            if state.durable >= position {
                return Ok(());
            }
            if let Some(err) = state.failed.as_ref().or(state.stalled.as_ref()) {
                return Err(err.clone());
            }
            self.progress.wait(&mut state);
        }
    }

    pub(super) fn notify(&self, position: u64, done: Notify) {
        let mut state = self.state.lock();
        let known = if state.durable >= position {
            Some(Ok(()))
        } else {
            state.failed.clone().or_else(|| state.stalled.clone()).map(Err)
        };
        match known {
            Some(result) => {
                drop(state);
                done(result);
            }
            None => state.waiters.push((position, done)),
        }
    }

    /// Begins a new segment and tells its number: every record appended before the call lies, durable, in a segment
    /// of a lower number.
    pub(crate) fn rotate(&self) -> Result<u64, WalError> {
        let mut state = self.state.lock();
        let before = state.rotations;
        state.rotate = true;
        self.work.notify_one();
        loop {
            if let Some(err) = state.failed.as_ref().or(state.stalled.as_ref()) {
                return Err(err.clone());
            }
            if state.rotations > before {
                return Ok(state.segment);
            }
            if state.closing {
                return Err(WalError::Closed);
            }
            self.progress.wait(&mut state);
        }
    }

    /// Makes everything durable, whatever the mode.
    pub(crate) fn flush(&self) -> Result<(), WalError> {
        self.rotate().map(drop)
    }

    /// Removes the segments below `segment`.
    pub(crate) fn remove_before(&self, segment: u64) -> std::io::Result<usize> {
        let mut removed = 0;
        for id in self.store.list()? {
            if id < segment {
                self.store.remove(id)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Writes what is left, syncs, and ends the thread.
    pub(crate) fn close(&self) -> Result<(), WalError> {
        self.state.lock().closing = true;
        self.work.notify_one();
        self.progress.notify_all();
        if let Some(handle) = self.thread.lock().take() {
            // A panic on the thread has already failed the log through its guard.
            let _ = handle.join();
        }
        let state = self.state.lock();
        match &state.failed {
            Some(err) => Err(err.clone()),
            None => Ok(()),
        }
    }

    fn run(&self, mut tail: Tail) {
        let mut spare = Vec::new();
        loop {
            let mut state = self.state.lock();
            self.wait_for_work(&mut state, tail.dirty);
            std::mem::swap(&mut state.buf, &mut spare);
            let position = state.appended;
            let rotate = std::mem::take(&mut state.rotate);
            let closing = state.closing;
            let interval_over = match self.options.sync {
                WalSync::Interval(interval) => state.synced_at.elapsed() >= interval,
                WalSync::Group | WalSync::Off => false,
            };
            drop(state);
            // Room in the buffer: let the writers go on while this thread writes.
            self.progress.notify_all();

            let round = Round { sync: rotate || closing || interval_over, rotate: rotate && !closing };
            let mut result = self.write(&mut tail, &mut spare, round);
            while let Err(error) = &result
                && tail.can_wait(error)
                && self.wait_for_room(&mut tail, error)
            {
                result = self.write(&mut tail, &mut spare, round);
            }
            // One burst must not keep its memory for ever; there are two of these buffers.
            if spare.capacity() > BUFFER_BYTES_KEPT {
                spare = Vec::new();
            }
            spare.clear();

            let mut state = self.state.lock();
            state.segment = tail.segment;
            if state.stalled.take().is_some() && result.is_ok() {
                tracing::info!(segment = tail.segment, "there is room again, the write-ahead log goes on");
            }
            let done: Vec<Notify> = match &result {
                Ok(()) => {
                    state.durable = position;
                    state.rotations += u64::from(rotate);
                    if !tail.dirty {
                        state.synced_at = Instant::now();
                    }
                    take_waiters(&mut state.waiters, position)
                }
                Err(e) => {
                    state.failed = Some(WalError::Failed { segment: tail.segment, source: copy(e) });
                    take_waiters(&mut state.waiters, u64::MAX)
                }
            };
            let outcome = match &state.failed {
                Some(err) => Err(err.clone()),
                None => Ok(()),
            };
            let ended = outcome.is_err() || (closing && state.buf.is_empty());
            if ended && state.failed.is_none() {
                // Late appends are refused by `closing`; nobody may wait for them.
                state.failed = Some(WalError::Closed).filter(|_| state.appended > position);
            }
            drop(state);
            self.progress.notify_all();
            for notify in done {
                notify(outcome.clone());
            }
            if ended {
                return;
            }
        }
    }

    fn write(&self, tail: &mut Tail, records: &mut Vec<u8>, round: Round) -> std::io::Result<()> {
        tail.write(&*self.store, self.options.sync, self.options.segment_bytes_max, records, round)
    }

    /// Tells everybody who waits that the disk is full, and waits a moment. False when the log ends instead.
    fn wait_for_room(&self, tail: &mut Tail, error: &std::io::Error) -> bool {
        if tail.cut_back(&*self.store).is_err() {
            return false;
        }
        let mut state = self.state.lock();
        let stalled = WalError::Stalled { segment: tail.segment, source: copy(error) };
        if state.stalled.is_none() {
            tracing::error!(
                segment = tail.segment,
                err = error as &dyn std::error::Error,
                "disk is full, writes are refused until there is room"
            );
        }
        state.stalled = Some(stalled.clone());
        let done = take_waiters(&mut state.waiters, u64::MAX);
        self.progress.notify_all();
        let until = Instant::now() + ROOM_INTERVAL;
        let go_on = loop {
            // What is left goes with the process: it was never acknowledged.
            if state.closing {
                break false;
            }
            if self.work.wait_until(&mut state, until).timed_out() {
                break true;
            }
        };
        drop(state);
        for notify in done {
            notify(Err(stalled.clone()));
        }
        go_on
    }

    fn wait_for_work(&self, state: &mut MutexGuard<'_, State>, dirty: bool) {
        while state.buf.is_empty() && !state.rotate && !state.closing {
            match self.options.sync {
                WalSync::Interval(interval) if dirty => {
                    let due = state.synced_at + interval;
                    if self.work.wait_until(state, due).timed_out() {
                        return;
                    }
                }
                _ => self.work.wait(state),
            }
        }
    }
}

/// An error that can be handed to many.
fn copy(error: &std::io::Error) -> Arc<std::io::Error> {
    Arc::new(std::io::Error::new(error.kind(), error.to_string()))
}

fn take_waiters(waiters: &mut Vec<(u64, Notify)>, position: u64) -> Vec<Notify> {
    if waiters.iter().all(|(at, _)| *at <= position) {
        return waiters.drain(..).map(|(_, n)| n).collect();
    }
    let mut done = Vec::new();
    let mut i = 0;
    while i < waiters.len() {
        if waiters[i].0 <= position {
            done.push(waiters.swap_remove(i).1);
        } else {
            i += 1;
        }
    }
    done
}
