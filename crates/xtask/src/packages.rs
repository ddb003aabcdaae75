//! The Debian packages that the tests are judged by.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::run;

/// Program that must be there, and the package that brings it.
const NEEDED: [(&str, &str); 8] = [
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("prometheus-node-exporter", "prometheus-node-exporter"),
    ("victoria-metrics", "victoria-metrics"),
    ("python3", "python3-venv"),
    // Caches of the store.
    ("memcached", "memcached"),
    ("redis-server", "redis-server"),
    // Network namespaces of tests/promises.
    ("ip", "iproute2"),
];

/// Installs what is missing (as root on Debian), or says what to install.
pub(crate) fn ensure() -> Result<()> {
    let mut missing: Vec<&str> =
        NEEDED.iter().filter(|(p, _)| !on_path(p)).map(|(_, package)| *package).collect();
    // Debian's python3 alone cannot make virtual environments.
    if on_path("python3") && !has_venv() {
        missing.push("python3-venv");
    }
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    if !on_path("apt-get") {
        bail!("these Debian packages (or their programs on the PATH) are needed: {}", missing.join(" "));
    }
    run(Command::new("apt-get").args(["update", "-qq"]))?;
    run(Command::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(&missing))
}

fn has_venv() -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", "import venv, ensurepip"]).stderr(Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| Path::new(&dir).join(program).is_file())
}
