//! Real processes: start, wait until they answer, read their logs, stop them.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::RngExt;
use rustix::process::{Pid, Signal, kill_process};

use crate::http;

/// Lines of log kept per process.
const LOG_LINES_MAX: usize = 20_000;

/// A port that was free a moment ago, on 127.0.0.1, and that no outgoing connection takes before its user comes (or comes
/// back, after a restart): it lies below Linux's ephemeral range. A process gets none twice.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock();
    loop {
        let port = rand::rng().random_range(10_240..32_000);
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
}

/// Asks `condition` again and again until it gives something.
///
/// # Panics
/// With `what` after `timeout`.
pub fn wait_until<T>(what: &str, timeout: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {timeout:?} in vain for {what}");
        std::thread::park_timeout(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// How to start a process.
#[derive(Debug)]
pub struct ProcessBuilder {
    binary: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    log_file: Option<PathBuf>,
}

impl ProcessBuilder {
    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory.
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Appends what it writes to a file, too; what is dropped then says where, instead of printing all of it.
    pub fn log_file(mut self, path: impl AsRef<Path>) -> Self {
        self.log_file = Some(path.as_ref().to_owned());
        self
    }

    /// Starts it.
    pub fn spawn(self) -> Process {
        let mut command = Command::new(&self.binary);
        command.args(&self.args).envs(self.envs).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(dir) = self.dir {
            command.current_dir(dir);
        }
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {:?}: {e}", self.binary));
        let file = self.log_file.as_ref().map(|path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.unwrap_or_else(|e| panic!("cannot open {}: {e}", path.display()))
        });
        let log = Arc::new(Mutex::new(Log { lines: VecDeque::new(), file }));
        let readers = vec![
            follow(child.stdout.take().expect("stdout is piped"), log.clone()),
            follow(child.stderr.take().expect("stderr is piped"), log.clone()),
        ];
        let name = self.binary.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        Process { name, child, log, log_file: self.log_file, readers }
    }
}

#[derive(Debug)]
struct Log {
    lines: VecDeque<String>,
    file: Option<File>,
}

fn follow(source: impl Read + Send + 'static, log: Arc<Mutex<Log>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        while source.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let mut log = log.lock();
            if let Some(file) = &mut log.file {
                let _ = writeln!(file, "{text}");
            }
            if log.lines.len() == LOG_LINES_MAX {
                log.lines.pop_front();
            }
            log.lines.push_back(text);
            line.clear();
        }
    })
}

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Mutex<Log>>,
    log_file: Option<PathBuf>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Prepares to start `binary`.
    pub fn builder(binary: impl AsRef<Path>) -> ProcessBuilder {
        let binary = binary.as_ref().to_owned();
        ProcessBuilder { binary, args: Vec::new(), envs: Vec::new(), dir: None, log_file: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a GET of `url` answers 200.
    ///
    /// # Panics
    /// With the log when the process ends first or the time runs out.
    pub fn wait_ready(&mut self, url: &str, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        loop {
            if http::get(url).is_ok_and(|r| r.status == 200) {
                return;
            }
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                panic!("{} ended with {status} before it was ready:\n{}", self.name, self.log_text());
            }
            if Instant::now() > deadline {
                panic!("{} not ready at {url} after {timeout:?}:\n{}", self.name, self.log_text());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// What it has written so far, both streams, a line an entry.
    pub fn log_lines(&self) -> Vec<String> {
        self.log.lock().lines.iter().cloned().collect()
    }

    /// What it has written so far.
    pub fn log_text(&self) -> String {
        self.log_lines().join("\n")
    }

    /// Lines at level ERROR, logfmt or JSON, that contain none of `allowed`.
    pub fn unexpected_errors(&self, allowed: &[&str]) -> Vec<String> {
        let is_error = |l: &String| {
            let lower = l.to_ascii_lowercase();
            lower.contains("level=error")
                || lower.contains("\"level\":\"error\"")
                || l.contains("panicked at")
        };
        self.log_lines()
            .into_iter()
            .filter(|l| is_error(l) && !allowed.iter().any(|a| l.contains(a)))
            .collect()
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.join();
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Panics
    /// With the log when it is still there after `timeout`.
    pub fn terminate(&mut self, timeout: Duration) -> ExitStatus {
        self.signal_stop();
        self.wait(timeout)
    }

    /// Sends SIGTERM, where it still runs.
    pub fn signal_stop(&mut self) {
        if self.child.try_wait().expect("a child can be asked").is_none() {
            self.signal(Signal::TERM);
        }
    }

    /// Stops all its threads where they are (SIGSTOP), or lets them go on.
    pub fn pause(&self, paused: bool) {
        self.signal(if paused { Signal::STOP } else { Signal::CONT });
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a child has a positive pid"), signal).expect("our own child");
    }

    /// True when it has ended.
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_some()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// With the log when it is still there after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                self.join();
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} still runs after {timeout:?}:\n{}",
                self.name,
                self.log_text()
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn join(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            match &self.log_file {
                Some(path) => eprintln!("--- log of {}: {} ---", self.name, path.display()),
                None => eprintln!("--- log of {} ---\n{}", self.name, self.log_text()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_logged_and_stopped() {
        let mut p = Process::builder("/bin/sh")
            .args(["-c", "echo level=error a; echo b >&2; exec cat /dev/zero >/dev/null"])
            .spawn();
        wait_until("both lines", Duration::from_secs(10), || (p.log_lines().len() == 2).then_some(()));
        assert_eq!(p.unexpected_errors(&[]), ["level=error a"]);
        assert!(p.unexpected_errors(&["a"]).is_empty());
        assert!(!p.terminate(Duration::from_secs(10)).success());
    }
}
