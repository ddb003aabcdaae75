//! The gRPC services over a [`Store`], [`Exemplars`], [`Metadata`], [`Rules`], [`Targets`], [`HeadStatus`] and a [`WriteSink`]:
//! StoreAPI, Info, Exemplars, Metadata, Rules, Targets, Status, WriteableStore, health.
//!
//! Requests from outside are bounded: message size, series, samples and bytes of an answer, Series calls at a time. A
//! limit that is hit ends the call with RESOURCE_EXHAUSTED and says which limit it was.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chronolith_model::BlockId;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::chunk_encodings::ChunkEncodings;
use crate::convert::{self, Offers, status_from_error};
use crate::convert_exemplars;
use crate::convert_hints::{self, Call};
use crate::convert_rules;
use crate::convert_status;
use crate::proto::thanos::{self, info, series_response::Result as Frame};
use crate::wire::{encode_series, encoded_len_max};
use crate::{
    AggrChunk, Exemplars, Fold, LabelNames, LabelValues, Metadata, Rules, SeriesEvent, SeriesHints,
    SeriesStream, Status as HeadStatus, Store, StoreError, StoreSeries, Targets, WriteSink, fold, peer,
};

/// Where frames are cut: the size at which Thanos's stores cut theirs.
const FRAME_BYTES: usize = 1 << 20;
/// The largest request: matchers and label lists.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// The largest answer, which only label calls come near to; gRPC's own bound.
const RESPONSE_BYTES_MAX: usize = (2 << 30) - 1;
/// Windows that keep a fast reader busy over a network with some latency; tonic's 64 KiB default does not.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// As [`STREAM_WINDOW_BYTES`], for all streams of a connection.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Bounds of one answer; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesLimits {
    /// Series of one Series call.
    pub series_max: usize,
    /// Samples of one Series call, counted as Thanos does: 120 a chunk.
    pub samples_max: usize,
    /// Bytes of chunks of one Series call.
    pub bytes_max: usize,
}

/// How the server runs.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Bounds of one answer.
    pub limits: SeriesLimits,
    /// Series calls that look for their series at a time; others wait. A call counts until its first answer: a stream
    /// that waits for its reader must not hold up another, since a query reads its selectors one after the other.
    pub series_concurrency_max: usize,
    /// Age at which a connection is closed, so that clients spread over new servers.
    pub connection_age_max: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            limits: SeriesLimits::default(),
            // Thanos's default for a store gateway.
            series_concurrency_max: 20,
            connection_age_max: Duration::from_secs(3600),
        }
    }
}

/// What a server offers.
#[derive(Clone, Default)]
pub struct Services {
    /// StoreAPI and Info.
    pub store: Option<Arc<dyn Store>>,
    /// Exemplars. Info names them only where StoreAPI is served too.
    pub exemplars: Option<Arc<dyn Exemplars>>,
    /// Metric metadata. Info names it only where StoreAPI is served too.
    pub metadata: Option<Arc<dyn Metadata>>,
    /// Rules. Info names them only where StoreAPI is served too.
    pub rules: Option<Arc<dyn Rules>>,
    /// Targets. Info names them only where StoreAPI is served too.
    pub targets: Option<Arc<dyn Targets>>,
    /// Statistics of heads. Info names them only where StoreAPI is served too.
    pub status: Option<Arc<dyn HeadStatus>>,
    /// Aggregations over the store's series. Left out where answers have limits, which it would not keep.
    pub fold: Option<Arc<dyn Fold>>,
    /// WriteableStore, for requests that no receiver has replicated yet.
    pub write: Option<Arc<dyn WriteSink>>,
    /// WriteableStore, for requests that another receiver replicated to this one (`replica` > 0); without it they go to
    /// `write`. Also chronolith.Peer, which Info names where StoreAPI is served too.
    pub write_local: Option<Arc<dyn WriteSink>>,
}

/// The services as routes, for a listener that adds health and whatever else the process offers.
pub fn routes(services: &Services, options: &ServerOptions) -> Routes {
    let mut routes = Routes::builder();
    let fold = services.fold.as_ref().filter(|_| options.limits == SeriesLimits::default());
    if let Some(store) = &services.store {
        let service = StoreService {
            store: Arc::clone(store),
            limits: options.limits,
            gate: Arc::new(Semaphore::new(options.series_concurrency_max.max(1))),
        };
        routes.add_service(
            thanos::store_server::StoreServer::new(service)
                .max_decoding_message_size(REQUEST_BYTES_MAX)
                .max_encoding_message_size(RESPONSE_BYTES_MAX),
        );
        let info = InfoService {
            store: Arc::clone(store),
            offers: Offers {
                exemplars: services.exemplars.is_some(),
                metadata: services.metadata.is_some(),
                rules: services.rules.is_some(),
                targets: services.targets.is_some(),
                peer: services.write_local.is_some(),
                status: services.status.is_some(),
                fold: fold.is_some(),
            },
        };
        routes.add_service(
            info::info_server::InfoServer::new(info).max_decoding_message_size(REQUEST_BYTES_MAX),
        );
    }
    if let Some(exemplars) = &services.exemplars {
        let service = ExemplarsService(Arc::clone(exemplars));
        routes.add_service(
            thanos::exemplars_server::ExemplarsServer::new(service)
                .max_decoding_message_size(REQUEST_BYTES_MAX)
                .max_encoding_message_size(RESPONSE_BYTES_MAX),
        );
    }
    if let Some(metadata) = &services.metadata {
        let service = MetadataService(Arc::clone(metadata));
        routes.add_service(
            thanos::metadata_server::MetadataServer::new(service)
                .max_decoding_message_size(REQUEST_BYTES_MAX)
                .max_encoding_message_size(RESPONSE_BYTES_MAX),
        );
    }
    if let Some(rules) = &services.rules {
        routes.add_service(
            thanos::rules_server::RulesServer::new(RulesService(Arc::clone(rules)))
                .max_decoding_message_size(REQUEST_BYTES_MAX)
                .max_encoding_message_size(RESPONSE_BYTES_MAX),
        );
    }
    if let Some(targets) = &services.targets {
        routes.add_service(
            thanos::targets_server::TargetsServer::new(TargetsService(Arc::clone(targets)))
                .max_decoding_message_size(REQUEST_BYTES_MAX)
                .max_encoding_message_size(RESPONSE_BYTES_MAX),
        );
    }
    if let Some(status) = &services.status {
        routes.add_service(
            thanos::status_server::StatusServer::new(StatusService(Arc::clone(status)))
                .max_decoding_message_size(REQUEST_BYTES_MAX)
                .max_encoding_message_size(RESPONSE_BYTES_MAX),
        );
    }
    if let Some(fold) = fold {
        routes.add_service(fold::service(Arc::clone(fold), options.series_concurrency_max));
    }
    if let Some(sink) = &services.write {
        let local = services.write_local.as_ref().unwrap_or(sink);
        routes.add_service(peer::write_service(Arc::clone(sink), Arc::clone(local)));
    }
    if let Some(local) = &services.write_local {
        routes.add_service(peer::peer_service(Arc::clone(local)));
    }
    routes.routes()
}

/// Serves the routes and health by themselves until `shutdown` is done, then finishes the calls under way.
pub async fn serve(
    listener: TcpListener,
    services: Services,
    options: ServerOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), StoreError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_connection_age(options.connection_age_max)
        .add_routes(routes(&services, &options).add_service(health))
        // Nagle's algorithm has to be turned off here: the builder's own setting is not for listeners it is given.
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), shutdown)
        .await
        .map_err(|e| StoreError::unavailable("grpc server").with_source(e))
}

struct StoreService {
    store: Arc<dyn Store>,
    limits: SeriesLimits,
    gate: Arc<Semaphore>,
}

#[tonic::async_trait]
impl thanos::store_server::Store for StoreService {
    type SeriesStream = BoxStream<'static, Result<thanos::SeriesResponse, Status>>;

    async fn series(
        &self,
        request: Request<thanos::SeriesRequest>,
    ) -> Result<Response<Self::SeriesStream>, Status> {
        let request = request.into_inner();
        let encodings = ChunkEncodings::from_wire(&request.chunk_encodings);
        let request = convert::series_request_from(request).map_err(|e| status_from_error(&e))?;
        let permit = Arc::clone(&self.gate).acquire_owned().await;
        let permit = permit.map_err(|_| Status::unavailable("shutting down"))?;
        let batch_size = request.batch_size;
        let mut stream = self.store.series(request).await.map_err(|e| status_from_error(&e))?;
        let first = stream.next().await;
        drop(permit);
        let stream = Box::pin(futures::stream::iter(first).chain(stream));
        Ok(Response::new(Box::pin(frames(stream, batch_size, encodings, self.limits))))
    }

    async fn label_names(
        &self,
        request: Request<thanos::LabelNamesRequest>,
    ) -> Result<Response<thanos::LabelNamesResponse>, Status> {
        let request = convert::names_request_from(request.into_inner()).map_err(|e| status_from_error(&e))?;
        let LabelNames { names, warnings, queried_blocks } =
            self.store.label_names(request).await.map_err(|e| status_from_error(&e))?;
        let hints = queried(Call::LabelNames, queried_blocks);
        Ok(Response::new(thanos::LabelNamesResponse { names, warnings, hints }))
    }

    async fn label_values(
        &self,
        request: Request<thanos::LabelValuesRequest>,
    ) -> Result<Response<thanos::LabelValuesResponse>, Status> {
        let request =
            convert::values_request_from(request.into_inner()).map_err(|e| status_from_error(&e))?;
        let LabelValues { values, warnings, queried_blocks } =
            self.store.label_values(request).await.map_err(|e| status_from_error(&e))?;
        let hints = queried(Call::LabelValues, queried_blocks);
        Ok(Response::new(thanos::LabelValuesResponse { values, warnings, hints }))
    }
}

/// The hints of a label call; stores without blocks give none.
fn queried(call: Call, queried_blocks: Vec<BlockId>) -> Option<prost_types::Any> {
    let hints = SeriesHints { queried_blocks, stats: None };
    (!hints.queried_blocks.is_empty()).then(|| convert_hints::answer_to(call, &hints))
}

/// A stream of events as messages: series one by one or in batches, cut at [`FRAME_BYTES`].
fn frames(
    mut stream: SeriesStream,
    batch_size: usize,
    encodings: ChunkEncodings,
    limits: SeriesLimits,
) -> impl futures::Stream<Item = Result<thanos::SeriesResponse, Status>> + Send {
    async_stream::stream! {
        let mut spent = Spent { limits, series: 0, chunks: 0, bytes: 0 };
        let mut framer = Framer { batch_size, encodings, out: Vec::new(), series: Vec::new(), bytes: 0 };
        while let Some(event) = stream.next().await {
            let event = event.and_then(|event| {
                if let SeriesEvent::Batch(batch) = &event {
                    spent.count(batch)?;
                }
                Ok(event)
            });
            match event {
                Ok(SeriesEvent::Batch(batch)) => {
                    for series in &batch {
                        framer.push(series);
                    }
                }
                Ok(SeriesEvent::Warning(text)) => framer.push_other(Frame::Warning(text)),
                Ok(SeriesEvent::Hints(hints)) => {
                    framer.push_other(Frame::Hints(convert_hints::answer_to(Call::Series, &hints)));
                }
                Err(error) => {
                    framer.flush();
                    for frame in framer.out.drain(..) {
                        yield Ok(frame);
                    }
                    yield Err(status_from_error(&error));
                    return;
                }
            }
            for frame in framer.out.drain(..) {
                yield Ok(frame);
            }
        }
        framer.flush();
        for frame in framer.out.drain(..) {
            yield Ok(frame);
        }
    }
}

struct Framer {
    batch_size: usize,
    encodings: ChunkEncodings,
    out: Vec<thanos::SeriesResponse>,
    series: Vec<Bytes>,
    bytes: usize,
}

impl Framer {
    fn push(&mut self, series: &StoreSeries) {
        let mut rest = series.chunks.as_slice();
        loop {
            let part = split_frame(&mut rest);
            let mut buf = BytesMut::with_capacity(encoded_len_max(&series.labels, part));
            encode_series(&series.labels, &self.encodings.readable(part), &mut buf);
            self.bytes += buf.len();
            self.series.push(buf.freeze());
            if self.batch_size <= 1 || self.series.len() >= self.batch_size || self.bytes >= FRAME_BYTES {
                self.flush();
            }
            if rest.is_empty() {
                return;
            }
        }
    }

    fn push_other(&mut self, frame: Frame) {
        self.flush();
        self.out.push(thanos::SeriesResponse { result: Some(frame) });
    }

    fn flush(&mut self) {
        self.bytes = 0;
        if self.batch_size <= 1 {
            let single = |s| thanos::SeriesResponse { result: Some(Frame::Series(s)) };
            self.out.extend(self.series.drain(..).map(single));
        } else if !self.series.is_empty() {
            let batch = thanos::SeriesBatch { series: std::mem::take(&mut self.series) };
            self.out.push(thanos::SeriesResponse { result: Some(Frame::Batch(batch)) });
        }
    }
}

/// Takes as many chunks as fit a frame, at least one where there is one.
fn split_frame<'a>(rest: &mut &'a [AggrChunk]) -> &'a [AggrChunk] {
    let mut bytes = 0;
    let n = rest.iter().take_while(|c| {
        let fits = bytes < FRAME_BYTES;
        bytes += c.bytes_len();
        fits
    });
    let (part, tail) = rest.split_at(n.count());
    *rest = tail;
    part
}

struct Spent {
    limits: SeriesLimits,
    series: usize,
    chunks: usize,
    bytes: usize,
}

impl Spent {
    /// Samples that Thanos counts for a chunk of unknown length.
    const SAMPLES_PER_CHUNK: usize = 120;

    fn count(&mut self, batch: &[StoreSeries]) -> Result<(), StoreError> {
        self.series += batch.len();
        for series in batch {
            self.chunks += series.chunks.len();
            self.bytes += series.chunks.iter().map(AggrChunk::bytes_len).sum::<usize>();
        }
        let samples = self.chunks.saturating_mul(Self::SAMPLES_PER_CHUNK);
        let SeriesLimits { series_max, samples_max, bytes_max } = self.limits;
        for (what, n, max) in [
            ("series", self.series, series_max),
            ("samples", samples, samples_max),
            ("bytes", self.bytes, bytes_max),
        ] {
            if max > 0 && n > max {
                return Err(StoreError::limit(format!(
                    "exceeded {what} limit: the answer has more than {max}"
                )));
            }
        }
        Ok(())
    }
}

struct InfoService {
    store: Arc<dyn Store>,
    offers: Offers,
}

#[tonic::async_trait]
impl info::info_server::Info for InfoService {
    async fn info(&self, _: Request<info::InfoRequest>) -> Result<Response<info::InfoResponse>, Status> {
        let info = self.store.info().await.map_err(|e| status_from_error(&e))?;
        Ok(Response::new(convert::info_to(&info, self.offers)))
    }
}

struct ExemplarsService(Arc<dyn Exemplars>);

#[tonic::async_trait]
impl thanos::exemplars_server::Exemplars for ExemplarsService {
    type ExemplarsStream = BoxStream<'static, Result<thanos::ExemplarsResponse, Status>>;

    async fn exemplars(
        &self,
        request: Request<thanos::ExemplarsRequest>,
    ) -> Result<Response<Self::ExemplarsStream>, Status> {
        let request =
            convert_exemplars::request_from(request.into_inner()).map_err(|e| status_from_error(&e))?;
        let answer = self.0.exemplars(request).await.map_err(|e| status_from_error(&e))?;
        Ok(Response::new(Box::pin(futures::stream::iter(convert_exemplars::frames(answer).map(Ok)))))
    }
}

struct MetadataService(Arc<dyn Metadata>);

#[tonic::async_trait]
impl thanos::metadata_server::Metadata for MetadataService {
    type MetricMetadataStream = BoxStream<'static, Result<thanos::MetricMetadataResponse, Status>>;

    async fn metric_metadata(
        &self,
        request: Request<thanos::MetricMetadataRequest>,
    ) -> Result<Response<Self::MetricMetadataStream>, Status> {
        let request = convert_exemplars::metadata_request_from(request.into_inner());
        let answer = self.0.metadata(request).await.map_err(|e| status_from_error(&e))?;
        Ok(Response::new(Box::pin(futures::stream::iter(convert_exemplars::metadata_frames(answer).map(Ok)))))
    }
}

struct RulesService(Arc<dyn Rules>);

#[tonic::async_trait]
impl thanos::rules_server::Rules for RulesService {
    type RulesStream = BoxStream<'static, Result<thanos::RulesResponse, Status>>;

    async fn rules(
        &self,
        request: Request<thanos::RulesRequest>,
    ) -> Result<Response<Self::RulesStream>, Status> {
        let request =
            convert_rules::rules_request_from(request.into_inner()).map_err(|e| status_from_error(&e))?;
        let answer = self.0.rules(request).await.map_err(|e| status_from_error(&e))?;
        Ok(Response::new(Box::pin(futures::stream::iter(convert_rules::rules_frames(answer).map(Ok)))))
    }
}

struct TargetsService(Arc<dyn Targets>);

#[tonic::async_trait]
impl thanos::targets_server::Targets for TargetsService {
    type TargetsStream = BoxStream<'static, Result<thanos::TargetsResponse, Status>>;

    async fn targets(
        &self,
        request: Request<thanos::TargetsRequest>,
    ) -> Result<Response<Self::TargetsStream>, Status> {
        let request = convert_rules::targets_request_from(request.into_inner());
        let answer = self.0.targets(request).await.map_err(|e| status_from_error(&e))?;
        Ok(Response::new(Box::pin(futures::stream::iter(convert_rules::targets_frames(answer).map(Ok)))))
    }
}

struct StatusService(Arc<dyn HeadStatus>);

#[tonic::async_trait]
impl thanos::status_server::Status for StatusService {
    type TSDBStatisticsStream = BoxStream<'static, Result<thanos::TsdbStatisticsResponse, Status>>;

    async fn tsdb_statistics(
        &self,
        request: Request<thanos::TsdbStatisticsRequest>,
    ) -> Result<Response<Self::TSDBStatisticsStream>, Status> {
        let request =
            convert_status::request_from(request.into_inner()).map_err(|e| status_from_error(&e))?;
        let answer = self.0.tsdb_statistics(request).await.map_err(|e| status_from_error(&e))?;
        Ok(Response::new(Box::pin(futures::stream::iter(convert_status::frames(answer).map(Ok)))))
    }
}

#[cfg(test)]
mod tests {
    use chronolith_model::Labels;

    use super::*;

    fn series(chunks: Vec<AggrChunk>) -> StoreSeries {
        StoreSeries { labels: Labels::from_pairs([("__name__", "m")]).unwrap(), chunks }
    }

    fn frames_of(batch_size: usize, all: &[StoreSeries]) -> Vec<Frame> {
        let encodings = ChunkEncodings::default();
        let mut framer = Framer { batch_size, encodings, out: Vec::new(), series: Vec::new(), bytes: 0 };
        for one in all {
            framer.push(one);
        }
        framer.push_other(Frame::Warning("w".into()));
        framer.out.into_iter().filter_map(|r| r.result).collect()
    }

    #[test]
    fn batches_are_flushed_before_anything_else() {
        let all = vec![series(vec![]); 5];
        let kinds = |frames: Vec<Frame>| -> Vec<usize> {
            let size = |f: &Frame| match f {
                Frame::Series(_) => 1,
                Frame::Batch(b) => b.series.len(),
                Frame::Warning(_) | Frame::Hints(_) => 0,
            };
            frames.iter().map(size).collect()
        };
        assert_eq!(kinds(frames_of(2, &all)), [2, 2, 1, 0]);
        assert_eq!(kinds(frames_of(1, &all)), [1, 1, 1, 1, 1, 0]);
        assert_eq!(kinds(frames_of(10, &all)), [5, 0]);
    }
}
