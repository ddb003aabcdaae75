//! The promise that a write is durable.

use std::sync::Arc;

use super::{Wal, WalError};

/// Stands for the durability of one write: resolves once the sync that covers the write's record has returned.
#[must_use = "a write is only durable when its commit has resolved"]
pub struct Commit {
    pub(super) state: CommitState,
}

pub(super) enum CommitState {
    /// Nothing had to be logged, or the log's mode asks for no wait.
    Done,
    /// The log had failed before the record was taken.
    Failed(WalError),
    /// Durable when the log is, up to this position.
    At(Arc<Wal>, u64),
}

impl Commit {
    pub(crate) fn done() -> Self {
        Commit { state: CommitState::Done }
    }

    pub(crate) fn failed(err: WalError) -> Self {
        Commit { state: CommitState::Failed(err) }
    }

    pub(crate) fn at(wal: Arc<Wal>, position: u64) -> Self {
        Commit { state: CommitState::At(wal, position) }
    }

    /// Blocks until the write is durable or cannot be.
    pub fn wait(self) -> Result<(), WalError> {
        match self.state {
            CommitState::Done => Ok(()),
            CommitState::Failed(err) => Err(err),
            CommitState::At(wal, position) => wal.wait(position),
        }
    }

    /// Calls `done` once the write is durable or cannot be: at once when that is known, else on the log's thread,
    /// so `done` must be short (send into a channel).
    pub fn notify(self, done: impl FnOnce(Result<(), WalError>) + Send + 'static) {
        match self.state {
            CommitState::Done => done(Ok(())),
            CommitState::Failed(err) => done(Err(err)),
            CommitState::At(wal, position) => wal.notify(position, Box::new(done)),
        }
    }
}

impl std::fmt::Debug for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.state {
            CommitState::Done => f.write_str("Commit(done)"),
            CommitState::Failed(err) => write!(f, "Commit({err})"),
            CommitState::At(_, position) => write!(f, "Commit(at {position})"),
        }
    }
}
