//! How far long work is, on standard error: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between lines where nobody watches a bar.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Between redrawings of a bar.
const BAR_EVERY: Duration = Duration::from_millis(200);
const BAR_CHARS: u64 = 30;

/// Work of a known number of steps.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    terminal: bool,
    shown: Instant,
}

impl Progress {
    pub(crate) fn new(what: &'static str, total: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Progress { what, total: total as u64, done: 0, terminal, shown: Instant::now() }
    }

    /// One step is done.
    pub(crate) fn step(&mut self, item: &dyn std::fmt::Display) {
        self.done += 1;
        let every = if self.terminal { BAR_EVERY } else { LINE_EVERY };
        if self.shown.elapsed() >= every {
            self.shown = Instant::now();
            self.show(&item.to_string());
        }
    }

    // Nobody can be told that standard error does not work.
    fn show(&self, item: &str) {
        let mut err = std::io::stderr();
        let (done, total) = (self.done, self.total.max(1));
        let percent = done * 100 / total;
        let _ = if self.terminal {
            let full = (done * BAR_CHARS / total).min(BAR_CHARS) as usize;
            let bar = format!("{}{}", "#".repeat(full), ".".repeat(BAR_CHARS as usize - full));
            write!(err, "\r{} [{bar}] {done}/{total} {percent}% {item}\x1b[K", self.what)
        } else {
            writeln!(err, "{}: {done} of {total} ({percent}%), last {item}", self.what)
        };
        let _ = err.flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
