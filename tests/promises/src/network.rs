//! A network namespace of a test's own, on a wire that can be cut.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A namespace with one address, reachable from this one. Removed when it is dropped.
#[derive(Debug)]
pub struct Network {
    name: String,
    outer: String,
    inner: String,
}

impl Network {
    /// Makes one; `None`, and a line on stderr, where this is not permitted.
    pub fn make() -> Option<Self> {
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        // Addresses that are set aside for tests of networks (RFC 2544), by process so that two test runs get along.
        let net = (std::process::id() % 8000) * 4 + number % 4;
        let (high, low) = (18 + net / 16384 % 2, net % 16384 * 4);
        let address = |host: u32| format!("198.{high}.{}.{}", low / 256, low % 256 + host);
        let name = format!("chronolith-{}-{number}", std::process::id());
        let network = Network { name, outer: address(1), inner: address(2) };
        match network.set_up() {
            Ok(()) => Some(network),
            Err(why) => {
                eprintln!("LEFT OUT: cutting a node off needs root and iproute2: {why}");
                None
            }
        }
    }

    fn set_up(&self) -> Result<(), String> {
        let (name, host) = (self.name.as_str(), self.host_end());
        ip(&["netns", "add", name])?;
        ip(&["link", "add", &host, "type", "veth", "peer", "name", "eth0", "netns", name])?;
        ip(&["address", "add", &format!("{}/30", self.outer), "dev", &host])?;
        ip(&["link", "set", &host, "up"])?;
        ip(&["-n", name, "address", "add", &format!("{}/30", self.inner), "dev", "eth0"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "link", "set", "eth0", "up"])
    }

    /// Names of interfaces have 15 letters at most.
    fn host_end(&self) -> String {
        format!("cl{}", self.name.trim_start_matches("chronolith-"))
    }

    /// The address on this side.
    pub fn outer(&self) -> &str {
        &self.outer
    }

    /// The address inside.
    pub fn inner(&self) -> &str {
        &self.inner
    }

    /// What to put before a command that shall run inside.
    pub fn wrapper(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    /// Cuts the wire, or mends it. Nobody is told: packets get lost.
    ///
    /// # Panics
    /// When that fails.
    pub fn cut(&self, cut: bool) {
        let state = if cut { "down" } else { "up" };
        ip(&["-n", &self.name, "link", "set", "eth0", state]).expect("the namespace is there");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The wire goes with it.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let done = Command::new("ip").args(args).output().map_err(|e| format!("ip: {e}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr).trim()))
}
