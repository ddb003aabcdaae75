//! Why a tool did not do its work.

use std::path::{Path, PathBuf};

/// Short for results of this crate.
pub type Result<T, E = ToolError> = std::result::Result<T, E>;

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The command line or a file it names is wrong.
    #[error("{0}")]
    Usage(String),
    /// The tool did its work, and what it found is bad.
    #[error("{0}")]
    Found(String),
    /// The bucket.
    #[error(transparent)]
    Bucket(#[from] chronolith_bucket::Error),
    /// A local block.
    #[error(transparent)]
    Tsdb(#[from] chronolith_tsdb::Error),
    /// Merging or rewriting.
    #[error(transparent)]
    Merge(#[from] chronolith_tsdb::merge::MergeError),
    /// A chunk.
    #[error("{place}")]
    Chunk {
        /// Block and series.
        place: String,
        /// What is wrong with it.
        source: chronolith_chunk::ChunkError,
    },
    /// A file or directory.
    #[error("{op} {}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The output was closed or is full.
    #[error("write output")]
    Output(#[source] std::io::Error),
}

impl From<chronolith_objstore::BucketError> for ToolError {
    fn from(e: chronolith_objstore::BucketError) -> Self {
        ToolError::Bucket(e.into())
    }
}

impl ToolError {
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ToolError {
        let path = path.to_owned();
        move |source| ToolError::Io { op, path, source }
    }

    /// True where another command line is needed.
    pub fn is_usage(&self) -> bool {
        matches!(self, ToolError::Usage(_))
    }

    /// True when whoever read the output went away, as `head` does.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, ToolError::Output(e) if e.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// Runs long work beside the runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(e) => Err(ToolError::Found(format!("stopped: {e}"))),
    }
}
