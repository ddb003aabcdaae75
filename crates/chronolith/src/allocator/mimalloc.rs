//! mimalloc, which under the write path's many short-lived buffers needs less memory and time than the system's.
//!
//! What is freed stays with the thread that had it until that allocates again: so threads that go to sleep give back what they
//! have, every few seconds.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Between two times that a thread gives back: giving back costs some hundred microseconds, and taking again a page fault
/// each 4 KiB.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(5);

/// To be called by a thread of the runtime that has nothing to do.
pub(crate) fn on_idle() {
    thread_local!(static LAST: Cell<Option<Instant>> = const { Cell::new(None) });
    let now = Instant::now();
    if LAST.get().is_some_and(|last| now.duration_since(last) < GIVE_BACK_EVERY) {
        return;
    }
    LAST.set(Some(now));
    unsafe extern "C" {
        /// Of mimalloc, which is linked as the allocator; its crate declares it only with a feature that needs another crate.
        fn mi_collect(force: bool);
    }
    // SAFETY: no precondition; it looks at this thread's heap and at what no thread uses, under the allocator's own locks.
    unsafe { mi_collect(true) };
}
