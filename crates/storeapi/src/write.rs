//! The trait behind the remote-write handler: local heads, one remote peer, or a hashring over many of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use chronolith_model::{TenantId, WriteBatch};

use crate::StoreError;

/// Takes samples. `Ok` means durable: what the report does not list as rejected survives a crash.
#[async_trait]
pub trait WriteSink: Send + Sync {
    /// Writes a batch for a tenant. The good part of a batch is stored even where a part of it is rejected.
    ///
    /// Errors: nothing can be said about any sample of the batch; the caller may retry all of it where the kind is
    /// `Unavailable` or `Timeout`.
    async fn write_by(
        &self,
        tenant: &TenantId,
        batch: WriteBatch,
        way: WriteWay,
    ) -> Result<WriteReport, WriteError>;

    /// As [`WriteSink::write_by`], of what a sender wrote.
    async fn write(&self, tenant: &TenantId, batch: WriteBatch) -> Result<WriteReport, WriteError> {
        self.write_by(tenant, batch, WriteWay::Fresh).await
    }

    /// True when label sections need not be rendered: the sink knows series by [`WriteBatch::keys`]. Others are only given
    /// batches that have been rendered. Without a default: a wrapper that forgot to ask would have every batch rendered.
    fn knows_keys(&self) -> bool;
}

/// How a batch comes to a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteWay {
    /// From a sender: it is to be distributed.
    Fresh,
    /// As this replica, counted from 0: whoever sent it takes care of the others.
    Replica(usize),
    /// From another receiver, where it waited for this one: samples are taken out of order as far as that is possible,
    /// whatever the tenant's window.
    Late,
}

/// A write that a worker thread has begun: the sink's future was polled there once, which is where a local sink appends.
/// The rest, waiting for the log, is awaited elsewhere.
pub struct WriteInFlight(Begun);

enum Begun {
    Ready(Option<Result<WriteReport, WriteError>>),
    Waiting(Pin<Box<dyn Future<Output = Result<WriteReport, WriteError>> + Send>>),
}

impl WriteInFlight {
    /// Begins to write on this thread.
    pub fn begin(sink: Arc<dyn WriteSink>, tenant: TenantId, batch: WriteBatch, way: WriteWay) -> Self {
        Self::of(async move { sink.write_by(&tenant, batch, way).await })
    }

    /// As [`WriteInFlight::begin`], of a write that consists of several.
    pub fn of(write: impl Future<Output = Result<WriteReport, WriteError>> + Send + 'static) -> Self {
        let mut write: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(write);
        WriteInFlight(match write.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Begun::Ready(Some(result)),
            Poll::Pending => Begun::Waiting(write),
        })
    }
}

impl Future for WriteInFlight {
    type Output = Result<WriteReport, WriteError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Begun::Ready(result) => Poll::Ready(result.take().expect("polled once after it was ready")),
            // Its first poll left no waker; this one leaves ours.
            Begun::Waiting(write) => write.as_mut().poll(cx),
        }
    }
}

impl std::fmt::Debug for WriteInFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteInFlight").finish_non_exhaustive()
    }
}

/// What can go wrong with a whole batch; the kinds are those of [`StoreError`].
pub type WriteError = StoreError;

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteReport {
    /// Float and histogram samples stored.
    pub written: usize,
    /// Histogram samples among them.
    pub histograms_written: usize,
    /// Exemplars stored.
    pub exemplars_written: usize,
    /// Exemplars older than their series' newest. Remote write 1.0 does not speak of them.
    pub exemplars_out_of_order: usize,
    /// Samples rejected, including those that `rejections` has no room for.
    pub rejected: usize,
    /// The first few rejections, for the answer's text.
    pub rejections: Vec<WriteRejection>,
}

impl WriteReport {
    /// Rejections that a report spells out: enough to find the culprit, bounded against a bad client.
    pub const REJECTIONS_MAX: usize = 10;

    /// Counts a rejection of `samples` samples, and keeps its text while there is room.
    pub fn reject(&mut self, samples: usize, rejection: impl FnOnce() -> WriteRejection) {
        self.rejected += samples;
        if self.rejections.len() < Self::REJECTIONS_MAX {
            self.rejections.push(rejection());
        }
    }

    /// Adds what became of another part of the same request.
    pub fn merge(&mut self, other: WriteReport) {
        self.written += other.written;
        self.histograms_written += other.histograms_written;
        self.exemplars_written += other.exemplars_written;
        self.exemplars_out_of_order += other.exemplars_out_of_order;
        self.rejected += other.rejected;
        let room = Self::REJECTIONS_MAX.saturating_sub(self.rejections.len());
        self.rejections.extend(other.rejections.into_iter().take(room));
    }
}

/// Why samples of one series were not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteRejection {
    /// What class of fault it is.
    pub kind: RejectKind,
    /// The series as text.
    pub series: String,
    /// The first offending sample's time, where one sample is at fault.
    pub t: Option<i64>,
    /// The reason in words ("out of order sample").
    pub reason: String,
}

/// Classes of rejections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectKind {
    /// Out of order, too old, or another value at the same time: what is stored already stands.
    Conflict,
    /// The series or sample itself is malformed.
    Invalid,
    /// A limit of the tenant.
    LimitExceeded,
}
