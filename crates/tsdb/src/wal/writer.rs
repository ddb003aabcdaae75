//! Group commit: writers append framed records to a shared buffer, one thread writes and syncs it, and one sync
//! serves every write that waits.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::frame::segment_header;
use super::{SegmentStore, SegmentWriter, WalError};

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
        let writer =
            open_segment(&*store, segment).map_err(|e| WalError::Failed { segment, source: Arc::new(e) })?;
        let wal = Arc::new(Wal {
            state: Mutex::new(State {
                buf: Vec::new(),
                appended: 0,
                durable: 0,
                failed: None,
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
            .spawn(move || worker.run(writer))
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
            if state.buf.is_empty() || state.buf.len() + framed.len() <= self.options.buffer_bytes_max {
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
            if let Some(err) = &state.failed {
                return Err(err.clone());
            }
            self.progress.wait(&mut state);
        }
    }

    pub(super) fn notify(&self, position: u64, done: Notify) {
        let mut state = self.state.lock();
        let known = if state.durable >= position { Some(Ok(())) } else { state.failed.clone().map(Err) };
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
            if let Some(err) = &state.failed {
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

    fn run(&self, mut writer: Box<dyn SegmentWriter>) {
        let mut spare = Vec::new();
        let mut size = super::SEGMENT_HEADER_BYTES as u64;
        let mut dirty = false;
        loop {
            let mut state = self.state.lock();
            self.wait_for_work(&mut state, dirty);
            std::mem::swap(&mut state.buf, &mut spare);
            let position = state.appended;
            let rotate = std::mem::take(&mut state.rotate);
            let closing = state.closing;
            let mut segment = state.segment;
            let interval_over = match self.options.sync {
                WalSync::Interval(interval) => state.synced_at.elapsed() >= interval,
                WalSync::Group | WalSync::Off => false,
            };
            drop(state);
            // Room in the buffer: let the writers go on while this thread writes.
            self.progress.notify_all();

            let result = (|| -> std::io::Result<()> {
                let full = size > super::SEGMENT_HEADER_BYTES as u64
                    && size + spare.len() as u64 > self.options.segment_bytes_max;
                if full {
                    writer.sync()?;
                    writer = open_segment(&*self.store, segment + 1)?;
                    segment += 1;
                    size = super::SEGMENT_HEADER_BYTES as u64;
                }
                if !spare.is_empty() {
                    writer.append(&spare)?;
                    size += spare.len() as u64;
                    dirty = true;
                }
                let sync_now = self.options.sync == WalSync::Group || rotate || closing || interval_over;
                if dirty && sync_now {
                    writer.sync()?;
                    dirty = false;
                }
                if rotate && !closing {
                    writer = open_segment(&*self.store, segment + 1)?;
                    segment += 1;
                    size = super::SEGMENT_HEADER_BYTES as u64;
                }
                Ok(())
            })();
            // One burst must not keep its memory for ever; there are two of these buffers.
            if spare.capacity() > BUFFER_BYTES_KEPT {
                spare = Vec::new();
            }
            spare.clear();

            let mut state = self.state.lock();
            state.segment = segment;
            let done: Vec<Notify> = match &result {
                Ok(()) => {
                    state.durable = position;
                    state.rotations += u64::from(rotate);
                    if !dirty {
                        state.synced_at = Instant::now();
                    }
                    take_waiters(&mut state.waiters, position)
                }
                Err(e) => {
                    state.failed = Some(WalError::Failed {
                        segment,
                        source: Arc::new(std::io::Error::new(e.kind(), e.to_string())),
                    });
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

fn open_segment(store: &dyn SegmentStore, id: u64) -> std::io::Result<Box<dyn SegmentWriter>> {
    let mut writer = store.create(id)?;
    writer.append(&segment_header(id))?;
    Ok(writer)
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
