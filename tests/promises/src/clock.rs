//! A clock that is wrong, from outside the process.
//!
//! Linux's time namespaces shift the monotonic clocks only, so this is a library in front of libc: the real-time clock of
//! the process that is started with it is off, for everything in it. Nothing in the product knows of it.

use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static time_t shift(void) {
    static time_t seconds, known;
    if (!known) { const char *s = getenv("CLOCK_SHIFT_SECONDS"); seconds = s ? atol(s) : 0; known = 1; }
    return seconds;
}
int clock_gettime(clockid_t clock, struct timespec *t) {
    int result = syscall(SYS_clock_gettime, clock, t);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) t->tv_sec += shift();
    return result;
}
time_t time(time_t *out) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (out) *out = t.tv_sec;
    return t.tv_sec;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (out) { out->tv_sec = t.tv_sec; out->tv_usec = t.tv_nsec / 1000; }
    return 0;
}
"#;

/// A library that shifts the clock of whoever is started with it.
#[derive(Debug)]
pub struct ClockShift {
    library: PathBuf,
}

impl ClockShift {
    /// Compiles it into `dir`, with the C compiler that Rust links with.
    ///
    /// # Panics
    /// When there is none.
    pub fn build(dir: &Path) -> Self {
        let (source, library) = (dir.join("clock_shift.c"), dir.join("clock_shift.so"));
        std::fs::write(&source, SOURCE).expect("the scratch directory is writable");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source);
        assert!(cc.status().expect("cc is there: Rust links with it").success(), "{cc:?} failed");
        ClockShift { library }
    }

    /// The environment of a process whose clock is off by so much.
    pub fn env(&self, seconds: i64) -> [(String, String); 2] {
        [
            ("LD_PRELOAD".to_owned(), self.library.display().to_string()),
            ("CLOCK_SHIFT_SECONDS".to_owned(), seconds.to_string()),
        ]
    }
}
