//! Work on several threads with results in order.
//!
//! One thread owns the input and the output: it produces pieces, hands them out, works on them itself when it has nothing
//! else to do, and consumes the results in the order of the pieces. What is consumed, and in which order, does therefore
//! not depend on the number of threads.
//!
//! All queries of the process share one pool of helping threads and one count of busy threads: a query always goes on on
//! its own thread, and gets help only while fewer threads are busy than the machine has cores. Many queries at a time
//! thus run on a thread each, without the cost of handing work around.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rayon::{Scope, ThreadPool, ThreadPoolBuilder};

/// Pieces that are handed out or wait for those before them, per thread: enough that nobody waits for a slow piece.
const PIECES_PER_THREAD: usize = 3;

/// Threads that evaluate queries, helping ones included.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// A thread that evaluates a query; until this is dropped.
#[derive(Debug)]
pub(crate) struct Busy(());

impl Busy {
    /// Counts the calling thread, however many there are.
    pub(crate) fn enter() -> Self {
        BUSY.fetch_add(1, Ordering::Relaxed);
        Busy(())
    }

    /// Counts a thread that may help, while there is a core for it.
    fn help() -> Option<Self> {
        let free = |busy| (busy < cores()).then_some(busy + 1);
        BUSY.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok().map(|_| Busy(()))
    }

    /// True when there are more busy threads than cores.
    fn is_too_many(&self) -> bool {
        BUSY.load(Ordering::Relaxed) > cores()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// The helping threads; none when they could not be started.
fn pool() -> Option<&'static ThreadPool> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let start = || {
        let pool = ThreadPoolBuilder::new().num_threads(cores()).thread_name(|i| format!("promql-{i}"));
        pool.build().inspect_err(|err| tracing::warn!(%err, "queries run on one thread each")).ok()
    };
    POOL.get_or_init(start).as_ref()
}

/// What the threads share.
struct Pieces<I, O> {
    state: Mutex<State<I, O>>,
    done: Condvar,
}

struct State<I, O> {
    /// Pieces that nobody works on yet, with their numbers.
    queue: VecDeque<(usize, I)>,
    /// Results that were not consumed yet; `None` while somebody works on them.
    results: VecDeque<Option<O>>,
    /// Number of the first of `results`.
    first: usize,
    helpers: usize,
    /// A helper panicked.
    broken: bool,
}

impl<I, O> Pieces<I, O> {
    fn finish(&self, number: usize, result: O) -> MutexGuard<'_, State<I, O>> {
        let mut state = self.state.lock();
        let at = number - state.first;
        state.results[at] = Some(result);
        state
    }
}

/// Takes a helper off the count, also when it panics.
struct Helper<'p, I, O>(&'p Pieces<I, O>);

impl<I, O> Drop for Helper<'_, I, O> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.helpers -= 1;
        state.broken |= std::thread::panicking();
        self.0.done.notify_one();
    }
}

/// Calls `consume` with what `work` makes of each piece that `produce` hands out, in their order. `produce` and `consume`
/// are called on this thread; `work` on up to `threads`, this one among them.
pub(crate) fn map<I: Send, O: Send, E>(
    threads: usize,
    mut produce: impl FnMut() -> Result<Option<I>, E>,
    work: impl Fn(I) -> O + Sync,
    mut consume: impl FnMut(O) -> Result<(), E>,
) -> Result<(), E> {
    let pool = if threads > 1 { pool() } else { None };
    let Some(pool) = pool else {
        while let Some(piece) = produce()? {
            consume(work(piece))?;
        }
        return Ok(());
    };
    let pieces = Pieces {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            results: VecDeque::new(),
            first: 0,
            helpers: 0,
            broken: false,
        }),
        done: Condvar::new(),
    };
    pool.in_place_scope(|scope| {
        let result = drive(scope, threads, &pieces, &mut produce, &work, &mut consume);
        // Helpers end with the piece at hand.
        pieces.state.lock().queue.clear();
        result
    })
}

fn drive<'s, I: Send + 's, O: Send + 's, E>(
    scope: &Scope<'s>,
    threads: usize,
    pieces: &'s Pieces<I, O>,
    produce: &mut impl FnMut() -> Result<Option<I>, E>,
    work: &'s (impl Fn(I) -> O + Sync),
    consume: &mut impl FnMut(O) -> Result<(), E>,
) -> Result<(), E> {
    let mut number = 0;
    let mut exhausted = false;
    loop {
        let mut state = pieces.state.lock();
        if state.broken {
            // The scope passes the panic on.
            return Ok(());
        }
        if matches!(state.results.front(), Some(Some(_))) {
            let result = state.results.pop_front().flatten();
            state.first += 1;
            drop(state);
            if let Some(result) = result {
                consume(result)?;
            }
            continue;
        }
        // One piece is left to this thread, so that a small query does not wake others.
        if state.queue.len() > 1
            && state.helpers + 1 < threads
            && let Some(busy) = Busy::help()
        {
            state.helpers += 1;
            scope.spawn(move |_| help(pieces, work, &busy));
        }
        let ahead = if state.helpers == 0 { 2 } else { (state.helpers + 1) * PIECES_PER_THREAD };
        if !exhausted && state.results.len() < ahead {
            drop(state);
            match produce()? {
                Some(piece) => {
                    let mut state = pieces.state.lock();
                    state.queue.push_back((number, piece));
                    state.results.push_back(None);
                    number += 1;
                }
                None => exhausted = true,
            }
            continue;
        }
        if let Some((number, piece)) = state.queue.pop_front() {
            drop(state);
            let result = work(piece);
            drop(pieces.finish(number, result));
        } else if state.results.is_empty() {
            return Ok(());
        } else {
            pieces.done.wait(&mut state);
        }
    }
}

fn help<I, O>(pieces: &Pieces<I, O>, work: &impl Fn(I) -> O, busy: &Busy) {
    let _helper = Helper(pieces);
    loop {
        let next = pieces.state.lock().queue.pop_front();
        let Some((number, piece)) = next else { return };
        let result = work(piece);
        drop(pieces.finish(number, result));
        pieces.done.notify_one();
        if busy.is_too_many() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn numbers(to: u64) -> impl FnMut() -> Result<Option<u64>, String> {
        let mut next = 0;
        move || {
            next += 1;
            Ok((next <= to).then_some(next))
        }
    }

    #[test]
    fn results_come_in_order_whoever_worked() {
        for threads in [1, 2, 8] {
            let mut seen = Vec::new();
            let work = |n: u64| {
                // Pieces of different length overtake one another.
                let spin = if n.is_multiple_of(3) { 20_000 } else { 10 };
                (n, (0..spin).fold(n, |a, b| a ^ std::hint::black_box(b)))
            };
            let consume = |(n, _): (u64, u64)| {
                seen.push(n);
                Ok(())
            };
            map(threads, numbers(500), work, consume).unwrap();
            assert_eq!(seen, (1..=500).collect::<Vec<_>>(), "{threads} threads");
        }
    }

    #[test]
    fn the_first_failure_in_order_ends_it() {
        let consumed = AtomicUsize::new(0);
        let fail = |n: u64| if n >= 40 { Err(format!("piece {n}")) } else { Ok(n) };
        let result = map(4, numbers(1000), fail, |r| {
            consumed.fetch_add(1, Ordering::Relaxed);
            r.map(drop)
        });
        assert_eq!((result, consumed.load(Ordering::Relaxed)), (Err("piece 40".to_owned()), 40));
    }

    #[test]
    fn a_panic_of_a_piece_reaches_the_caller() {
        let alive = AtomicBool::new(true);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let work = |n: u64| assert!(n != 17, "seventeen");
            let _ = map(3, numbers(100), work, |()| Ok(()));
            alive.store(false, Ordering::Relaxed);
        }));
        assert!(caught.is_err() && alive.load(Ordering::Relaxed));
        // The threads and the count of busy ones survive.
        let mut sum = 0;
        let consume = |n: u64| {
            sum += n;
            Ok(())
        };
        map(3, numbers(100), |n| n, consume).unwrap();
        assert_eq!(sum, 5050);
    }
}
