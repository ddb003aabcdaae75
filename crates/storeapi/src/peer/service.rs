//! Being written to by another receiver: `thanos.WriteableStore` and `chronolith.Peer` over sinks of this process.
//!
//! What another receiver replicated already (`replica` above 0, and everything on `chronolith.Peer`) is stored here and goes no
//! further: that is what ends loops.

use std::sync::Arc;

use chronolith_model::TenantId;
use tonic::{Code, Request, Response, Status};

use super::snappy::SnappyRequests;
use super::{decode_batch, series};
use crate::convert::status_from_error;
use crate::proto::{chronolith as own, thanos};
use crate::write::WriteInFlight;
use crate::{RejectKind, StoreError, WriteError, WriteReport, WriteSink, WriteWay};

/// The largest message of a peer; Thanos sends a request that it received as one message.
const WRITE_BYTES_MAX: usize = 512 << 20;

/// `thanos.WriteableStore`: what was not replicated goes to `sink`, the rest to `local`.
pub(crate) fn write_service(
    sink: Arc<dyn WriteSink>,
    local: Arc<dyn WriteSink>,
) -> SnappyRequests<thanos::writeable_store_server::WriteableStoreServer<WriteService>> {
    let service = thanos::writeable_store_server::WriteableStoreServer::new(WriteService { sink, local });
    SnappyRequests::new(service.max_decoding_message_size(WRITE_BYTES_MAX), WRITE_BYTES_MAX)
}

/// `chronolith.Peer` over a sink of this process's own data.
pub(crate) fn peer_service(local: Arc<dyn WriteSink>) -> own::peer_server::PeerServer<PeerService> {
    own::peer_server::PeerServer::new(PeerService(local)).max_decoding_message_size(WRITE_BYTES_MAX)
}

pub(crate) struct WriteService {
    sink: Arc<dyn WriteSink>,
    local: Arc<dyn WriteSink>,
}

#[tonic::async_trait]
impl thanos::writeable_store_server::WriteableStore for WriteService {
    async fn remote_write(
        &self,
        request: Request<thanos::WriteRequest>,
    ) -> Result<Response<thanos::WriteResponse>, Status> {
        let thanos::WriteRequest { timeseries, tenant, replica, timeseries_tenant_data } =
            request.into_inner();
        if replica < 0 {
            return Err(Status::invalid_argument(format!("replica is negative: {replica}")));
        }
        let sink = if replica > 0 { &self.local } else { &self.sink };
        // Older releases send fields 1 and 2, newer ones field 4; a request may carry either.
        let mut parts: Vec<_> =
            timeseries_tenant_data.into_iter().map(|d| (d.tenant, d.timeseries)).collect();
        if !timeseries.is_empty() || parts.is_empty() {
            parts.push((tenant, timeseries));
        }
        let (sink, parts) = (Arc::clone(sink), parts.into_iter());
        let begun = begin_all(move || {
            parts.map(move |(tenant, series)| {
                let tenant = tenant_of(&tenant)?;
                Ok(WriteInFlight::begin(Arc::clone(&sink), tenant, series::decode(&series)?, WriteWay::Fresh))
            })
        });
        // Every tenant's part is stored, whatever becomes of the others. Where one must be sent again, all are.
        let mut refused: Option<Status> = None;
        for result in finish_all(begun.await?).await {
            let status = result.map_err(|e| status_from_error(&e)).and_then(|r| status_from_report(&r));
            if let Err(status) = status
                && refused.as_ref().is_none_or(|r| is_permanent(r) && !is_permanent(&status))
            {
                refused = Some(status);
            }
        }
        if let Some(status) = refused {
            return Err(status);
        }
        Ok(Response::new(thanos::WriteResponse {}))
    }
}

/// What a caller of Thanos's protocol is told: an error as soon as anything was rejected.
fn status_from_report(report: &WriteReport) -> Result<(), Status> {
    let Some(first) = report.rejections.first() else { return Ok(()) };
    let text = format!("{}: {} ({} samples rejected)", first.series, first.reason, report.rejected);
    Err(match first.kind {
        RejectKind::Conflict => Status::already_exists(text),
        RejectKind::Invalid => Status::invalid_argument(text),
        RejectKind::LimitExceeded => Status::resource_exhausted(text),
    })
}

/// Sending the same once more would change nothing.
fn is_permanent(status: &Status) -> bool {
    matches!(status.code(), Code::AlreadyExists | Code::InvalidArgument | Code::ResourceExhausted)
}

pub(crate) struct PeerService(Arc<dyn WriteSink>);

#[tonic::async_trait]
impl own::peer_server::Peer for PeerService {
    async fn write(
        &self,
        request: Request<own::PeerWriteRequest>,
    ) -> Result<Response<own::PeerWriteResponse>, Status> {
        let sink = Arc::clone(&self.0);
        let begun = begin_all(move || {
            request.into_inner().parts.into_iter().map(move |part| {
                let tenant = tenant_of(&part.tenant)?;
                let way = if part.late { WriteWay::Late } else { WriteWay::Fresh };
                Ok(WriteInFlight::begin(Arc::clone(&sink), tenant, decode_batch(&part.batch)?, way))
            })
        });
        let results = finish_all(begun.await?).await.into_iter().map(result_to).collect();
        Ok(Response::new(own::PeerWriteResponse { results }))
    }
}

type Begun = Result<WriteInFlight, StoreError>;

/// All parts are decoded and appended by one worker thread, as a large request takes tens of milliseconds.
async fn begin_all<I: Iterator<Item = Begun>>(
    parts: impl FnOnce() -> I + Send + 'static,
) -> Result<Vec<Begun>, Status> {
    let begun = tokio::task::spawn_blocking(move || parts().collect());
    begun.await.map_err(|e| Status::internal(e.to_string()))
}

/// Awaits the commits together: they may share one.
async fn finish_all(begun: Vec<Begun>) -> Vec<Result<WriteReport, WriteError>> {
    let mut results = Vec::with_capacity(begun.len());
    for write in begun {
        results.push(match write {
            Ok(write) => write.await,
            Err(error) => Err(error),
        });
    }
    results
}

fn tenant_of(name: &str) -> Result<TenantId, StoreError> {
    if name.is_empty() {
        return Ok(TenantId::default());
    }
    TenantId::new(name).map_err(|e| StoreError::invalid(e.to_string()))
}

fn result_to(result: Result<WriteReport, WriteError>) -> own::PeerResult {
    use own::peer_rejection::Kind;
    match result {
        Err(error) => {
            let status = status_from_error(&error);
            own::PeerResult {
                code: status.code() as u32,
                message: status.message().to_owned(),
                ..Default::default()
            }
        }
        Ok(report) => own::PeerResult {
            written: report.written as u64,
            rejected: report.rejected as u64,
            rejections: report
                .rejections
                .into_iter()
                .map(|r| own::PeerRejection {
                    kind: match r.kind {
                        RejectKind::Conflict => Kind::Conflict,
                        RejectKind::Invalid => Kind::Invalid,
                        RejectKind::LimitExceeded => Kind::Limit,
                    }
                    .into(),
                    series: r.series,
                    t: r.t,
                    reason: r.reason,
                })
                .collect(),
            ..Default::default()
        },
    }
}
