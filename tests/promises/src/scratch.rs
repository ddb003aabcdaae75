//! A directory for a test, kept when the test fails: the logs of all processes lie in it.

use std::path::{Path, PathBuf};

/// Removed when it is dropped, but for a panic.
#[derive(Debug)]
pub struct Scratch(Option<tempfile::TempDir>);

impl Scratch {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix(&format!("promises-{name}-")).tempdir();
        Scratch(Some(dir.expect("the temporary directory is writable")))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.as_ref().expect("it is taken only by drop").path()
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.0.take()
        {
            eprintln!("--- logs and data are kept in {} ---", dir.keep().display());
        }
    }
}
