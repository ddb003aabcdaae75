//! The threads that decode and append: as many as there are requests at a time, which admission bounds, and of the idle ones
//! always the one that worked last.
//!
//! Not the runtime's pool for blocking work, because of memory: whatever a head keeps is allocated by the thread that
//! appends, and an allocator keeps a heap for each thread. That pool makes a new thread whenever no idle one has woken up
//! yet, and takes them in turns, so under load a dozen heaps each grow to what one needs: a server of 20,000 series
//! held 60 to 80 MiB after a day in which series came and went, with 20 MiB in use.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A thread that had nothing to do for so long ends.
const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// Threads, made when they are needed.
#[derive(Default)]
pub(super) struct WorkThreads {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Threads without work; the one that worked last is the last.
    idle: Mutex<Vec<Arc<Seat>>>,
}

/// Where a thread waits.
#[derive(Default)]
struct Seat {
    job: Mutex<Option<Job>>,
    come: Condvar,
}

impl WorkThreads {
    /// Runs `work` on a thread, to its end also when nobody waits for it any more. The error says that it panicked, or that
    /// there is no thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let (done, wait) = oneshot::channel();
        let runtime = Handle::current();
        let job = Box::new(move || {
            let _runtime = runtime.enter();
            // Nobody may wait any more.
            let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
        });
        self.start(job).map_err(|e| format!("no thread: {e}"))?;
        match wait.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) | Err(_) => Err("a worker panicked".to_owned()),
        }
    }

    fn start(&self, job: Job) -> std::io::Result<()> {
        let idle = self.shared.idle.lock().pop();
        if let Some(seat) = idle {
            *seat.job.lock() = Some(job);
            seat.come.notify_one();
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new().name("receive-write".to_owned()).spawn(move || shared.work(job))?;
        Ok(())
    }
}

impl Shared {
    fn work(&self, mut job: Job) {
        let seat = Arc::new(Seat::default());
        loop {
            job();
            self.idle.lock().push(Arc::clone(&seat));
            match self.next(&seat) {
                Some(next) => job = next,
                None => return,
            }
        }
    }

    /// The next job; `None` when it is time to end.
    fn next(&self, seat: &Arc<Seat>) -> Option<Job> {
        loop {
            let mut job = seat.job.lock();
            if job.is_none() {
                seat.come.wait_for(&mut job, IDLE);
            }
            if let Some(job) = job.take() {
                return Some(job);
            }
            drop(job);
            let mut idle = self.idle.lock();
            // Whoever has taken the seat from the list is about to put a job there.
            if let Some(at) = idle.iter().position(|other| Arc::ptr_eq(other, seat)) {
                idle.remove(at);
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[tokio::test]
    async fn one_thread_does_what_comes_one_after_the_other() {
        let threads = WorkThreads::default();
        let first = threads.run(|| std::thread::current().id()).await.unwrap();
        let is_idle = || threads.shared.idle.lock().len() == 1;
        for _ in 0..20 {
            // The answer comes a moment before the thread is idle.
            while !is_idle() {
                tokio::task::yield_now().await;
            }
            assert_eq!(threads.run(|| std::thread::current().id()).await.unwrap(), first);
        }
    }

    #[tokio::test]
    async fn work_at_the_same_time_has_a_thread_each_and_a_panic_ends_none() {
        let threads = WorkThreads::default();
        let both = Arc::new(Barrier::new(2));
        let meet = |both: Arc<Barrier>| move || both.wait().is_leader();
        let (a, b) = tokio::join!(threads.run(meet(Arc::clone(&both))), threads.run(meet(Arc::clone(&both))));
        assert_ne!(a.unwrap(), b.unwrap());
        let failed: Result<(), String> = threads.run(|| panic!("a test's own")).await;
        assert_eq!(failed, Err("a worker panicked".to_owned()));
        assert_eq!(threads.run(|| 7).await, Ok(7));
        // Work may use the runtime, as it may on the runtime's own threads.
        threads.run(|| drop(tokio::spawn(async {}))).await.unwrap();
    }
}
