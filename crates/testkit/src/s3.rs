//! An S3 server in this process.
//!
//! The protocol and its signatures are s3s's, the objects lie in memory behind one lock, under which conditions are
//! checked. It listens on 127.0.0.1 on a thread and a runtime of its own, so that blocking tests and child processes
//! can use it. A directory of files that do not change can be served, too: they are mapped, so that memory stays small
//! whatever their size. In front of everything sits `front`: it logs, counts, and injects what [`S3Faults`] asks for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use chronolith_objstore::{Bucket, BucketConfig, BucketMetrics};
use parking_lot::Mutex;
use tokio::sync::oneshot;

mod backend;
mod front;

use backend::Backend;
pub use front::{S3Operation, S3Request};

/// What the server does wrong. All off by default.
#[derive(Clone, Debug, Default)]
pub struct S3Faults {
    /// Added before every answer.
    pub latency: Duration,
    /// Every so manieth read of an object is slow, as one of several replicas is that is overloaded; 0 for none.
    pub slow_every: u64,
    /// How slow.
    pub slow: Duration,
    /// Share of requests answered with `fail_status` and no effect, 0 to 1.
    pub fail: f64,
    /// 500, or 503 (`SlowDown`), which is what 0 means too.
    pub fail_status: u16,
    /// Share of writes that take effect, after which the connection is cut.
    pub drop_after_write: f64,
    /// Share of object reads whose body ends in the middle.
    pub truncate: f64,
    /// Everything is answered with 503.
    pub refuse: bool,
    /// Conditions on writes are accepted and ignored, as some stores do.
    pub ignore_conditions: bool,
    /// Only requests whose path contains this are touched; empty for all.
    pub only_paths: String,
}

/// Credentials and names that the server takes.
const ACCESS_KEY: &str = "test-access-key";
const SECRET_KEY: &str = "test-secret-key";
const BUCKET: &str = "test-bucket";

/// A running server with one bucket. Dropping it stops it.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    backend: Backend,
    faults: Mutex<S3Faults>,
    log: Mutex<Vec<S3Request>>,
    /// Reads of objects that faults were looked at for.
    reads: AtomicU64,
}

impl S3Server {
    /// Starts a server on a free port of 127.0.0.1.
    pub fn start() -> Self {
        Self::start_on("127.0.0.1:0")
    }

    /// Starts a server on an address of one's choice.
    pub fn start_on(address: &str) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap_or_else(|e| panic!("bind {address}: {e}"));
        listener.set_nonblocking(true).expect("a fresh socket can be set up");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = oneshot::channel();
        let state = shared.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime for the S3 server");
            runtime.block_on(async {
                let listener =
                    tokio::net::TcpListener::from_std(listener).expect("a listener for the S3 server");
                tokio::select! {
                    () = front::serve(listener, state) => {}
                    _ = stopped => {}
                }
            });
        });
        S3Server { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// `host:port`.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// An `objstore.yml` for this server.
    pub fn config_yaml(&self) -> String {
        format!(
            "type: S3\nconfig:\n  bucket: {BUCKET}\n  endpoint: {}\n  access_key: {ACCESS_KEY}\n  \
             secret_key: {SECRET_KEY}\n  insecure: true\n",
            self.address
        )
    }

    /// The same as a parsed configuration.
    pub fn config(&self) -> BucketConfig {
        chronolith_objstore::config::parse(&self.config_yaml()).expect("our own configuration is valid")
    }

    /// A client.
    pub fn bucket(&self) -> Bucket {
        chronolith_objstore::open(&self.config(), BucketMetrics::default())
            .expect("a client for our own server")
    }

    /// Replaces the faults, effective at once.
    pub fn set_faults(&self, faults: S3Faults) {
        *self.shared.faults.lock() = faults;
    }

    /// The requests since the start or the last [`S3Server::clear_requests`], at most 100,000.
    pub fn requests(&self) -> Vec<S3Request> {
        self.shared.log.lock().clone()
    }

    /// Forgets the requests.
    pub fn clear_requests(&self) {
        self.shared.log.lock().clear();
    }

    /// Requests by operation.
    pub fn counts(&self) -> BTreeMap<S3Operation, usize> {
        let mut counts = BTreeMap::new();
        for request in self.shared.log.lock().iter() {
            *counts.entry(request.operation).or_default() += 1;
        }
        counts
    }

    /// The keys of all objects, sorted.
    pub fn keys(&self) -> Vec<String> {
        self.shared.backend.keys()
    }

    /// An object, read behind the protocol's back.
    pub fn object(&self, key: &str) -> Option<Bytes> {
        self.shared.backend.object(key)
    }

    /// Writes an object behind the protocol's back.
    pub fn put_object(&self, key: &str, bytes: impl Into<Bytes>) {
        self.shared.backend.put_object(key, bytes.into());
    }

    /// Serves the files below `dir`, by their paths from there, as they are now: they are mapped and must not be changed. What is
    /// written later lies in memory and does not touch them. Gives the number of files.
    pub fn serve_directory(&self, dir: &Path) -> std::io::Result<usize> {
        let (mut pending, mut count) = (vec![dir.to_owned()], 0);
        while let Some(next) = pending.pop() {
            for entry in std::fs::read_dir(&next)? {
                let path = entry?.path();
                if path.is_dir() {
                    pending.push(path);
                    continue;
                }
                let key = path.strip_prefix(dir).expect("a path below the directory").to_string_lossy();
                let bytes = chronolith_tsdb::map_file(&path).map_err(std::io::Error::other)?;
                self.put_object(&key, bytes);
                count += 1;
            }
        }
        Ok(count)
    }

    /// Removes an object behind the protocol's back.
    pub fn remove_object(&self, key: &str) {
        self.shared.backend.remove_object(key);
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
