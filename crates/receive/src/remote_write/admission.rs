//! What a request waits for before work is done for it: memory for its body, memory for what is decoded, a worker. Tenants
//! take turns in each ([`FairQueue`]), and each has limits of its own ([`Limits`]).
//!
//! Memory is taken from two budgets, one after the other, before it is allocated: who waits for decode memory does not take
//! read memory meanwhile from anybody who could give him decode memory, so there is no deadlock. Workers come last, and
//! nobody waits for memory while he holds one. Who waits longer than his patience is told to come back (503): that is
//! the back-pressure on senders.

use std::sync::Arc;
use std::time::Duration;

use chronolith_model::TenantId;

use super::budget::{ByteBudget, ByteShare};
use super::http::RemoteWriteOptions;
use super::reply::Refusal;
use crate::limits::{FairQueue, FairShare, LimitRefusal, Limits, QueueRefusal};

/// Requests of one tenant that wait for the same thing: more than any sender has connections, and what they hold meanwhile
/// (a body at most) is bounded by the budgets.
const WAITING_MAX: usize = 1024;
/// Workers for each core: enough that one of them is busy while another one waits for the log's buffer.
const WORKERS_PER_CORE: u64 = 2;

/// What all requests share.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    pub(super) limits: Arc<Limits>,
    pub(super) read: ByteBudget,
    pub(super) decode: ByteBudget,
    pub(super) workers: FairQueue,
    patience: Duration,
}

impl Admission {
    pub(super) fn new(options: &RemoteWriteOptions) -> Self {
        let admission = Admission {
            limits: Arc::clone(&options.limits),
            read: ByteBudget::new(options.read_bytes_max, WAITING_MAX),
            decode: ByteBudget::new(options.decode_bytes_max, WAITING_MAX),
            workers: FairQueue::new(1, 1, WAITING_MAX),
            patience: options.patience,
        };
        admission.resize_workers();
        admission
    }

    /// Takes the number of workers from the limits again.
    pub(super) fn resize_workers(&self) {
        let workers = match self.limits.max_concurrency() {
            0 => {
                let cores = std::thread::available_parallelism().map_or(2, |n| n.get() as u64);
                WORKERS_PER_CORE * cores.max(2)
            }
            n => n as u64,
        };
        self.workers.resize(workers, workers);
    }

    pub(super) async fn bytes(
        &self,
        budget: &ByteBudget,
        tenant: &TenantId,
        bytes: u64,
    ) -> Result<ByteShare, Refusal> {
        let given = budget.acquire(tenant, bytes, self.patience).await;
        given.map_err(|refusal| self.refused(tenant, refusal, "memory"))
    }

    pub(super) async fn worker(&self, tenant: &TenantId) -> Result<FairShare, Refusal> {
        let given = self.workers.acquire(tenant, 1, self.patience).await;
        given.map_err(|refusal| self.refused(tenant, refusal, "a worker"))
    }

    fn refused(&self, tenant: &TenantId, refusal: QueueRefusal, what: &'static str) -> Refusal {
        match refusal {
            QueueRefusal::Full(waiting) => self.limits.refused(tenant, LimitRefusal::Queue(waiting)).into(),
            QueueRefusal::TimedOut => Refusal::Overload { waited_ms: self.patience.as_millis(), what },
        }
    }
}
