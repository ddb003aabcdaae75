//! A wire in front of a process that can be slow.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Hands on bytes in both directions; what comes back waits as long as it is told to.
#[derive(Debug)]
pub struct SlowProxy {
    address: String,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    delay_ms: AtomicU64,
    stop: AtomicBool,
}

impl SlowProxy {
    /// A proxy on a free port of 127.0.0.1, in front of `to`.
    pub fn start(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a bound socket has an address").to_string();
        let shared = Arc::new(Shared::default());
        let (state, to) = (Arc::clone(&shared), to.to_owned());
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if state.stop.load(Ordering::SeqCst) {
                    return;
                }
                // Who is not there refuses: so does the proxy, by hanging up.
                if let (Ok(near), Ok(far)) = (connection, TcpStream::connect(&to)) {
                    let _ = (near.set_nodelay(true), far.set_nodelay(true));
                    hand_on(&near, &far, false, &state);
                    hand_on(&far, &near, true, &state);
                }
            }
        });
        SlowProxy { address, shared }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on every piece of an answer waits so long.
    pub fn delay(&self, delay: Duration) {
        let ms = u64::try_from(delay.as_millis()).expect("a test's delay is short");
        self.shared.delay_ms.store(ms, Ordering::SeqCst);
    }
}

impl Drop for SlowProxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // The listener's thread looks at the flag once somebody comes.
        let _ = TcpStream::connect(&self.address);
    }
}

fn hand_on(from: &TcpStream, to: &TcpStream, slow: bool, shared: &Arc<Shared>) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n) = from.read(&mut buffer) {
            if n == 0 || shared.stop.load(Ordering::SeqCst) {
                break;
            }
            if slow {
                // The fault itself, not a wait for something.
                let until = Instant::now() + Duration::from_millis(shared.delay_ms.load(Ordering::SeqCst));
                while let Some(left) = until.checked_duration_since(Instant::now()) {
                    std::thread::park_timeout(left);
                }
            }
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}
