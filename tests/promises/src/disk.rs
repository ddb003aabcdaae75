//! A disk that can be filled: a small tmpfs of the test's own.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Mounted while it lives.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one of `megabytes` at `path`; `None`, and a line on stderr, where this is not permitted.
    pub fn mount(path: &Path, megabytes: usize) -> Option<Self> {
        fs::create_dir_all(path).expect("the scratch directory is writable");
        let size = format!("size={megabytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "chronolith-promises"]).arg(path);
        match mount.output() {
            Ok(done) if done.status.success() => Some(SmallDisk { path: path.to_owned() }),
            Ok(done) => {
                let why = String::from_utf8_lossy(&done.stderr).into_owned();
                eprintln!("LEFT OUT: a full disk needs root and mount(8): {}", why.trim());
                None
            }
            Err(why) => {
                eprintln!("LEFT OUT: a full disk needs root and mount(8): {why}");
                None
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file until nothing is left.
    pub fn fill(&self) {
        let mut file = File::create(self.path.join("ballast")).expect("a name takes no space");
        // Down to single bytes: whatever is left, somebody would fit in.
        for size in [1 << 20, 1 << 12, 1] {
            let bytes = vec![0; size];
            while file.write_all(&bytes).is_ok() {}
        }
    }

    /// Gives the space back.
    pub fn relieve(&self) {
        fs::remove_file(self.path.join("ballast")).expect("it was filled before");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process may still be on its way out.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
