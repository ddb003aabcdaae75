//! A write between the append, on a worker thread, and the commit, which is awaited elsewhere.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use chronolith_model::{TenantId, WriteBatch};
use chronolith_storeapi::{WriteError, WriteReport, WriteSink};

/// A write that a worker thread has begun: the sink's future was polled there once, which is where a local sink appends.
/// The rest, waiting for the log, is awaited elsewhere.
pub(super) enum WriteInFlight {
    Ready(Option<Result<WriteReport, WriteError>>),
    Waiting(Pin<Box<dyn Future<Output = Result<WriteReport, WriteError>> + Send>>),
}

impl WriteInFlight {
    pub(super) fn start(sink: Arc<dyn WriteSink>, tenant: TenantId, batch: WriteBatch) -> Self {
        let mut write = Box::pin(async move { sink.write(&tenant, batch).await });
        match write.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => WriteInFlight::Ready(Some(result)),
            Poll::Pending => WriteInFlight::Waiting(write),
        }
    }
}

impl Future for WriteInFlight {
    type Output = Result<WriteReport, WriteError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            WriteInFlight::Ready(result) => {
                Poll::Ready(result.take().expect("polled once after it was ready"))
            }
            // Its first poll left no waker; this one leaves ours.
            WriteInFlight::Waiting(write) => write.as_mut().poll(cx),
        }
    }
}
