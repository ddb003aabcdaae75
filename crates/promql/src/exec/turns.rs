//! Turns at the cores: of the queries that were let in, as many compute at once as there are cores.
//!
//! More would only take time from one another, and all of them end late. Those that wait are served in the order in which
//! they came. A query that computes for long gives its turn to the next one now and then and queues up again, so that a
//! dashboard does not wait for a report; one that waits for a remote store gives its turn away meanwhile
//! ([`while_waiting`]).
//!
//! Whoever holds a turn is known by the thread: [`give_way`] is called from wherever a query looks at its deadline, and
//! does nothing on threads that only help.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::ordered::{Busy, cores};
use crate::queryable::{QueryContext, QueryableError};

/// How long a turn lasts while others wait: dashboards' queries end within it, and it is much longer than what a change of
/// threads costs.
const TURN: Duration = Duration::from_millis(50);
/// How often a query that waits looks whether it was cancelled.
const CANCEL_CHECK: Duration = Duration::from_millis(100);

/// Who computes and who waits.
struct Turns {
    places: usize,
    state: Mutex<State>,
    /// Length of the queue, to be looked at without the lock.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct State {
    taken: usize,
    queue: VecDeque<Arc<Waiter>>,
}

#[derive(Default)]
struct Waiter {
    called: AtomicBool,
    call: Condvar,
}

/// Where in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    First,
    Last,
}

impl Turns {
    const fn new(places: usize) -> Self {
        let state = State { taken: 0, queue: VecDeque::new() };
        Turns { places, state: Mutex::new(state), waiting: AtomicUsize::new(0) }
    }

    /// Waits for a place; `Err` when the query is not wanted any more.
    fn take(&self, at: Place, cx: &QueryContext) -> Result<(), QueryableError> {
        let mut state = self.state.lock();
        if state.taken < self.places {
            state.taken += 1;
            return Ok(());
        }
        self.queue_up(&mut state, at, cx)
    }

    fn queue_up(
        &self,
        state: &mut MutexGuard<'_, State>,
        at: Place,
        cx: &QueryContext,
    ) -> Result<(), QueryableError> {
        let waiter = Arc::new(Waiter::default());
        match at {
            Place::First => state.queue.push_front(Arc::clone(&waiter)),
            Place::Last => state.queue.push_back(Arc::clone(&waiter)),
        }
        self.waiting.store(state.queue.len(), Ordering::Relaxed);
        loop {
            waiter.call.wait_for(state, CANCEL_CHECK);
            if waiter.called.load(Ordering::Relaxed) {
                return Ok(());
            }
            if let Err(err) = cx.wanted() {
                state.queue.retain(|w| !Arc::ptr_eq(w, &waiter));
                self.waiting.store(state.queue.len(), Ordering::Relaxed);
                return Err(err);
            }
        }
    }

    /// Gives the place to the next one in the queue.
    fn give(&self, state: &mut State) {
        match state.queue.pop_front() {
            None => state.taken -= 1,
            Some(next) => {
                self.waiting.store(state.queue.len(), Ordering::Relaxed);
                next.called.store(true, Ordering::Relaxed);
                next.call.notify_one();
            }
        }
    }

    /// Goes to the end of the queue, if there is one.
    fn give_and_queue_up(&self, cx: &QueryContext) -> Result<(), QueryableError> {
        let mut state = self.state.lock();
        if state.queue.is_empty() {
            return Ok(());
        }
        self.give(&mut state);
        self.queue_up(&mut state, Place::Last, cx)
    }
}

/// The turns of this process.
fn turns() -> &'static Turns {
    static TURNS: std::sync::OnceLock<Turns> = std::sync::OnceLock::new();
    TURNS.get_or_init(|| Turns::new(cores()))
}

thread_local! {
    /// Since when this thread has had a turn.
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A query's right to compute, which may be given away for a while; until this is dropped.
pub(crate) struct Turn {
    /// `None` for a query that does not queue up.
    busy: Option<Busy>,
    queues: bool,
}

impl Turn {
    /// Waits for a turn where the query takes turns. Errors: it was cancelled or ran out of time meanwhile.
    pub(crate) fn take(cx: &QueryContext) -> Result<Self, QueryableError> {
        // A thread that has one already evaluates something on behalf of the same query.
        let queues = cx.takes_turns && SINCE.get().is_none();
        if queues {
            turns().take(Place::Last, cx)?;
            SINCE.set(Some(Instant::now()));
        }
        Ok(Turn { busy: Some(Busy::enter()), queues })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.busy = None;
        // It is gone already where the query was cancelled while it waited for another turn.
        if self.queues && SINCE.take().is_some() {
            let turns = turns();
            turns.give(&mut turns.state.lock());
        }
    }
}

/// Lets the next query go on, if this thread has computed for long and somebody waits. Errors: the query was cancelled, or
/// ran out of time, until it was its turn again.
#[inline]
pub(crate) fn give_way(cx: &QueryContext) -> Result<(), QueryableError> {
    match SINCE.get() {
        Some(since) if turns().waiting.load(Ordering::Relaxed) > 0 && since.elapsed() > TURN => {
            SINCE.set(None);
            turns().give_and_queue_up(cx)?;
            SINCE.set(Some(Instant::now()));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Does what needs no core, such as waiting for a store, while another query computes. Errors: the query was cancelled, or
/// ran out of time, until it was its turn again.
pub fn while_waiting<T>(cx: &QueryContext, wait: impl FnOnce() -> T) -> Result<T, QueryableError> {
    let Some(since) = SINCE.take() else { return Ok(wait()) };
    let used = since.elapsed();
    turns().give(&mut turns().state.lock());
    let done = wait();
    // A query that reads little by little would come last each time; so it does once its turn is used up.
    let (place, used) = if used < TURN { (Place::First, used) } else { (Place::Last, Duration::ZERO) };
    turns().take(place, cx)?;
    let now = Instant::now();
    SINCE.set(Some(now.checked_sub(used).unwrap_or(now)));
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, mpsc};

    use super::*;
    use crate::script::MemoryStorage;
    use crate::{Engine, EngineOptions};

    /// Of the tests that need every turn of the process, one at a time.
    static EVERY_TURN: Mutex<()> = Mutex::new(());

    /// Waits until so many are in the queue.
    fn until_waiting(turns: &Turns, n: usize) {
        while turns.waiting.load(Ordering::Relaxed) != n {
            std::thread::yield_now();
        }
    }

    #[test]
    fn turns_come_in_order_and_are_given_back() {
        let turns = Turns::new(1);
        let cx = QueryContext::new();
        turns.take(Place::Last, &cx).unwrap();
        let served = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for n in 0..3 {
                let (turns, served, cx) = (&turns, &served, &cx);
                scope.spawn(move || {
                    turns.take(Place::Last, cx).unwrap();
                    served.lock().push(n);
                    turns.give(&mut turns.state.lock());
                });
                until_waiting(turns, n + 1);
            }
            let (turns, served, cx) = (&turns, &served, &cx);
            scope.spawn(move || {
                turns.take(Place::First, cx).unwrap();
                served.lock().push(3);
                turns.give(&mut turns.state.lock());
            });
            until_waiting(turns, 4);
            // To the end of the queue.
            turns.give_and_queue_up(cx).unwrap();
            assert_eq!(*served.lock(), [3, 0, 1, 2]);
        });
        // Nobody waits: it stays.
        turns.give_and_queue_up(&cx).unwrap();
        assert_eq!(turns.state.lock().taken, 1);
        turns.give(&mut turns.state.lock());
        assert_eq!(turns.state.lock().taken, 0);
    }

    #[test]
    fn who_is_cancelled_leaves_the_queue() {
        let turns = Turns::new(1);
        turns.take(Place::Last, &QueryContext::new()).unwrap();
        let cx = QueryContext::new();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| turns.take(Place::Last, &cx));
            until_waiting(&turns, 1);
            cx.cancel();
            assert!(waiter.join().unwrap().is_err());
        });
        assert_eq!(turns.waiting.load(Ordering::Relaxed), 0);
        turns.give(&mut turns.state.lock());
        assert_eq!(turns.state.lock().taken, 0);
    }

    #[test]
    fn a_query_that_waits_lets_others_compute() {
        let _alone = EVERY_TURN.lock();
        let cx = QueryContext::new().taking_turns();
        let turn = Turn::take(&cx).unwrap();
        let at_once = Barrier::new(cores());
        let others = || {
            std::thread::scope(|scope| {
                for _ in 0..cores() {
                    scope.spawn(|| {
                        let _turn = Turn::take(&cx).unwrap();
                        at_once.wait();
                    });
                }
            });
        };
        while_waiting(&cx, others).unwrap();
        assert!(SINCE.get().is_some());
        drop(turn);
        assert!(SINCE.get().is_none());
    }

    #[test]
    fn the_time_a_query_has_includes_its_wait_for_a_turn() {
        let _alone = EVERY_TURN.lock();
        let storage = MemoryStorage::new();
        let timeout = Duration::from_millis(1);
        let engine = Engine::new(EngineOptions { timeout, ..EngineOptions::default() });
        let all_hold = Barrier::new(cores() + 1);
        let gate = Mutex::new(());
        let shut = gate.lock();
        let (done, answer) = mpsc::sync_channel(1);
        std::thread::scope(|scope| {
            for _ in 0..cores() {
                scope.spawn(|| {
                    let _turn = Turn::take(&QueryContext::new().taking_turns()).unwrap();
                    all_hold.wait();
                    drop(gate.lock());
                });
            }
            all_hold.wait();
            scope.spawn(|| {
                let cx = QueryContext::new().taking_turns();
                done.send(engine.instant(&storage, "vector(1)", 0, &cx).map(|r| r.stats)).unwrap();
            });
            let answer = answer.recv_timeout(Duration::from_secs(60));
            drop(shut);
            assert!(answer.expect("it does not wait for long").is_err());
        });
    }
}
