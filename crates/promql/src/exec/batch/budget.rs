//! What a query may hold, and what holds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::engine::EngineError;
use crate::exec::profile::Profile;
use crate::memory::{MemoryUse, QueryMemory};

/// Samples and memory that the query holds, and may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    max: usize,
    pub(super) held: AtomicUsize,
    peak: AtomicUsize,
    pub(crate) memory: Arc<QueryMemory>,
    pub(crate) profile: Option<Arc<Profile>>,
}

impl Budget {
    pub(crate) fn new(max: usize, memory: Arc<QueryMemory>, profile: Option<Arc<Profile>>) -> Arc<Self> {
        Arc::new(Budget { max, held: AtomicUsize::new(0), peak: AtomicUsize::new(0), memory, profile })
    }

    /// Takes bytes on behalf of a node.
    pub(crate) fn take_bytes(&self, what: MemoryUse, node: u32, bytes: usize) -> Result<(), EngineError> {
        self.memory.take(what, bytes)?;
        if let Some(profile) = &self.profile {
            profile.hold(node, bytes);
        }
        Ok(())
    }

    pub(crate) fn give_bytes(&self, what: MemoryUse, node: u32, bytes: usize) {
        self.memory.give_back(what, bytes);
        if let Some(profile) = &self.profile {
            profile.let_go(node, bytes);
        }
    }

    /// Takes `n`; on refusal nothing is taken.
    pub(crate) fn take(&self, n: usize) -> Result<(), EngineError> {
        let held = self.held.fetch_add(n, Ordering::Relaxed) + n;
        if held > self.max {
            self.give_back(n);
            return Err(EngineError::TooManySamples);
        }
        self.peak.fetch_max(held, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn give_back(&self, n: usize) {
        self.held.fetch_sub(n, Ordering::Relaxed);
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

/// Memory that an operator holds until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    what: MemoryUse,
    node: u32,
    bytes: usize,
}

impl Held {
    pub(crate) fn new(budget: &Arc<Budget>, what: MemoryUse, node: u32) -> Self {
        Held { budget: Arc::clone(budget), what, node, bytes: 0 }
    }

    /// Holds at least so many bytes.
    pub(crate) fn at_least(&mut self, bytes: usize) -> Result<(), EngineError> {
        if bytes > self.bytes { self.more(bytes - self.bytes) } else { Ok(()) }
    }

    /// Holds so many bytes more.
    pub(crate) fn more(&mut self, bytes: usize) -> Result<(), EngineError> {
        self.budget.take_bytes(self.what, self.node, bytes)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.give_bytes(self.what, self.node, self.bytes);
    }
}

/// What a batch is charged for, given back when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Charge {
    samples: usize,
    bytes: usize,
    pub(super) node: u32,
    pub(super) budget: Option<Arc<Budget>>,
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.give_back(self.samples);
            budget.give_bytes(MemoryUse::Vectors, self.node, self.bytes);
            if let Some(profile) = &budget.profile {
                profile.let_go_samples(self.node, self.samples);
            }
        }
    }
}

impl Charge {
    /// Charges for this now, instead of what was charged before.
    pub(super) fn set(
        &mut self,
        budget: &Arc<Budget>,
        node: u32,
        samples: usize,
        bytes: usize,
    ) -> Result<(), EngineError> {
        // Who has a batch pays for it: an operator that changes batches in place takes them over.
        if self.node != node || self.budget.is_none() {
            *self = Charge { node, budget: Some(Arc::clone(budget)), ..Charge::default() };
        }
        let profile = budget.profile.as_ref();
        if samples > self.samples {
            let more = samples - self.samples;
            budget.take(more)?;
            if let Some(profile) = profile {
                profile.hold_samples(node, more);
            }
        } else {
            budget.give_back(self.samples - samples);
            if let Some(profile) = profile {
                profile.let_go_samples(node, self.samples - samples);
            }
        }
        self.samples = samples;
        if bytes > self.bytes {
            budget.take_bytes(MemoryUse::Vectors, node, bytes - self.bytes)?;
        } else {
            budget.give_bytes(MemoryUse::Vectors, node, self.bytes - bytes);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Adds another one, so that each is given back with its node's: the smaller one changes hands.
    pub(super) fn append(&mut self, mut other: Charge) {
        let Some(budget) = other.budget.take() else { return };
        if self.budget.is_none() {
            self.node = other.node;
        } else if self.node != other.node
            && let Some(profile) = &budget.profile
        {
            profile.let_go(other.node, other.bytes);
            profile.let_go_samples(other.node, other.samples);
            profile.hold(self.node, other.bytes);
            profile.hold_samples(self.node, other.samples);
        }
        self.budget.get_or_insert(budget);
        self.samples += std::mem::take(&mut other.samples);
        self.bytes += std::mem::take(&mut other.bytes);
    }
}
