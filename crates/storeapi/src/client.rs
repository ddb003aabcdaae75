//! A [`Store`] at the other end of a gRPC connection: ours or Thanos's.
//!
//! The connection is made at the first call and made again when it broke; keep-alive pings find a dead peer within
//! seconds. Whole answers have no deadline here, since a long stream is no fault: the fan-out watches the pauses.

mod fold;
mod rules;
mod status;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::convert::{self, EndpointInfo, error_from_status};
use crate::convert_exemplars;
use crate::convert_hints::{self, Call};
use crate::exemplars::ExemplarsUnion;
use crate::proto::chronolith;
use crate::proto::thanos::{self, info, series_response::Result as Frame};
use crate::server::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use crate::wire::decode_series;
use crate::{
    ErrorKind, Exemplars, ExemplarsAnswer, ExemplarsRequest, LabelNames, LabelNamesRequest, LabelValues,
    LabelValuesRequest, Metadata, MetadataAnswer, MetadataRequest, SeriesEvent, SeriesRequest, SeriesStream,
    Store, StoreError, StoreInfo,
};

/// The largest message taken from a store. gRPC would allow 2 GiB; frames of series are about 1 MiB, and 256 MiB of
/// label values are millions.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Exemplars of one answer: many times what a tenant keeps by default, and still within a gigabyte.
const EXEMPLARS_MAX: usize = 4_000_000;
/// Metrics of one metadata answer; the largest installations have some ten thousand.
const METADATA_METRICS_MAX: usize = 1_000_000;

/// How a client connects.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// For making a connection.
    pub connect_timeout: Duration,
    /// Interval of keep-alive pings; servers allow one in 10 s.
    pub keepalive_interval: Duration,
    /// How long a ping may stay unanswered.
    pub keepalive_timeout: Duration,
    /// For an Info call.
    pub info_timeout: Duration,
    /// Series asked for per message. Servers that do not know the field send one.
    pub batch_size: usize,
    /// TLS; without it connections are plain.
    pub tls: Option<ClientTls>,
}

/// TLS of a client's connections.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// Whom to trust and what to show.
    pub config: Arc<rustls::ClientConfig>,
    /// The name that the server's certificate must carry, instead of the one it is called by.
    pub server_name: Option<String>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            connect_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            info_timeout: Duration::from_secs(5),
            batch_size: 256,
            tls: None,
        }
    }
}

/// Makes a channel to `host:port` (or a `http://` URL) that connects when it is first used. Must be called inside a
/// tokio runtime.
pub fn connect_lazy(address: &str, options: &ClientOptions) -> Result<Channel, StoreError> {
    let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(url.clone())
        .map_err(|e| StoreError::invalid(format!("address {address:?}")).with_source(e))?
        .connect_timeout(options.connect_timeout)
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .tcp_nodelay(true);
    let Some(tls) = &options.tls else { return Ok(endpoint.connect_lazy()) };
    // The connection is made here, not by tonic, whose TLS knows neither a least version nor a server name that is not
    // called. Requests still say that they came by https.
    let origin = url.replacen("http://", "https://", 1);
    let origin =
        origin.parse().map_err(|e| StoreError::invalid(format!("address {address:?}")).with_source(e))?;
    let tls = tls.clone();
    let connector = tower::service_fn(move |uri: http::Uri| connect_tls(uri, tls.clone()));
    Ok(endpoint.origin(origin).connect_with_connector_lazy(connector))
}

async fn connect_tls(uri: http::Uri, tls: ClientTls) -> std::io::Result<TokioIo<TlsStream<TcpStream>>> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
    stream.set_nodelay(true)?;
    let name = tls.server_name.as_deref().unwrap_or(host).to_owned();
    let name =
        ServerName::try_from(name).map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidInput, e))?;
    Ok(TokioIo::new(TlsConnector::from(tls.config).connect(name, stream).await?))
}

/// A remote store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StoreClient {
    address: String,
    store: thanos::store_client::StoreClient<Channel>,
    info: info::info_client::InfoClient<Channel>,
    exemplars: thanos::exemplars_client::ExemplarsClient<Channel>,
    metadata: thanos::metadata_client::MetadataClient<Channel>,
    rules: thanos::rules_client::RulesClient<Channel>,
    targets: thanos::targets_client::TargetsClient<Channel>,
    status: thanos::status_client::StatusClient<Channel>,
    fold: chronolith::fold_client::FoldClient<Channel>,
    info_timeout: Duration,
    batch_size: usize,
}

impl StoreClient {
    /// A client of `host:port`. Must be called inside a tokio runtime.
    pub fn new(address: &str, options: &ClientOptions) -> Result<Self, StoreError> {
        let channel = connect_lazy(address, options)?;
        Ok(StoreClient {
            address: address.to_owned(),
            store: thanos::store_client::StoreClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            info: info::info_client::InfoClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            exemplars: thanos::exemplars_client::ExemplarsClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            metadata: thanos::metadata_client::MetadataClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            rules: thanos::rules_client::RulesClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            targets: thanos::targets_client::TargetsClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            status: thanos::status_client::StatusClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            fold: chronolith::fold_client::FoldClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            info_timeout: options.info_timeout,
            batch_size: options.batch_size,
        })
    }

    /// The address as given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What the endpoint says of itself, whether or not it offers the StoreAPI.
    pub async fn endpoint_info(&self) -> Result<EndpointInfo, StoreError> {
        let mut client = self.info.clone();
        let call = client.info(info::InfoRequest {});
        match tokio::time::timeout(self.info_timeout, call).await {
            Ok(response) => convert::info_from(response.map_err(error_from_status)?.into_inner()),
            Err(_) => Err(StoreError::timeout(format!("no answer to Info within {:?}", self.info_timeout))),
        }
    }
}

#[async_trait]
impl Store for StoreClient {
    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        let mut request = request;
        if request.batch_size == 0 {
            request.batch_size = self.batch_size;
        }
        let mut client = self.store.clone();
        let response =
            client.series(convert::series_request_to(&request)).await.map_err(error_from_status)?;
        let frames = response.into_inner();
        Ok(Box::pin(
            frames.filter_map(async |frame| frame.map_err(error_from_status).and_then(event).transpose()),
        ))
    }

    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelNames, StoreError> {
        let mut client = self.store.clone();
        let response =
            client.label_names(convert::names_request_to(&request)).await.map_err(error_from_status)?;
        let thanos::LabelNamesResponse { names, warnings, hints } = response.into_inner();
        let hints = hints.and_then(|any| convert_hints::answer_from(Call::LabelNames, &any));
        Ok(LabelNames { names, warnings, queried_blocks: hints.unwrap_or_default().queried_blocks })
    }

    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelValues, StoreError> {
        let mut client = self.store.clone();
        let response =
            client.label_values(convert::values_request_to(&request)).await.map_err(error_from_status)?;
        let thanos::LabelValuesResponse { values, warnings, hints } = response.into_inner();
        let hints = hints.and_then(|any| convert_hints::answer_from(Call::LabelValues, &any));
        Ok(LabelValues { values, warnings, queried_blocks: hints.unwrap_or_default().queried_blocks })
    }

    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let info = self.endpoint_info().await?;
        info.store.ok_or_else(|| {
            let text = format!("{} ({}) offers no StoreAPI", self.address, info.component);
            StoreError::new(ErrorKind::NotFound, text)
        })
    }
}

#[async_trait]
impl Exemplars for StoreClient {
    async fn exemplars(&self, request: ExemplarsRequest) -> Result<ExemplarsAnswer, StoreError> {
        let mut client = self.exemplars.clone();
        let response = client.exemplars(convert_exemplars::request_to(&request)).await;
        let mut frames = response.map_err(error_from_status)?.into_inner();
        let mut union = ExemplarsUnion::default();
        let mut warnings = Vec::new();
        let mut exemplars = 0;
        while let Some(frame) = frames.message().await.map_err(error_from_status)? {
            match frame.result {
                Some(thanos::exemplars_response::Result::Data(data)) => {
                    exemplars += data.exemplars.len();
                    if exemplars > EXEMPLARS_MAX {
                        let text = format!("{}: more than {EXEMPLARS_MAX} exemplars", self.address);
                        return Err(StoreError::limit(text));
                    }
                    union.add(convert_exemplars::series_from(data)?, &[]);
                }
                Some(thanos::exemplars_response::Result::Warning(text)) => warnings.push(text),
                None => {}
            }
        }
        Ok(ExemplarsAnswer { series: union.finish(), warnings })
    }
}

#[async_trait]
impl Metadata for StoreClient {
    async fn metadata(&self, request: MetadataRequest) -> Result<MetadataAnswer, StoreError> {
        let mut client = self.metadata.clone();
        let response = client.metric_metadata(convert_exemplars::metadata_request_to(&request)).await;
        let mut frames = response.map_err(error_from_status)?.into_inner();
        let mut answer = MetadataAnswer::default();
        while let Some(frame) = frames.message().await.map_err(error_from_status)? {
            match frame.result {
                Some(thanos::metric_metadata_response::Result::Metadata(metadata)) => {
                    for (metric, entry) in metadata.metadata {
                        answer.add(
                            &request,
                            metric,
                            entry.metas.into_iter().map(convert_exemplars::meta_from),
                        );
                        if answer.metrics.len() > METADATA_METRICS_MAX {
                            let text = format!("{}: metadata of too many metrics", self.address);
                            return Err(StoreError::limit(text));
                        }
                    }
                }
                Some(thanos::metric_metadata_response::Result::Warning(text)) => answer.warnings.push(text),
                None => {}
            }
        }
        Ok(answer)
    }
}

/// A message as an event; `None` for kinds that came after this client.
fn event(response: thanos::SeriesResponse) -> Result<Option<SeriesEvent>, StoreError> {
    Ok(match response.result {
        Some(Frame::Series(series)) => Some(SeriesEvent::Batch(vec![decode_series(&series)?])),
        Some(Frame::Batch(batch)) => {
            let series: Result<Vec<_>, _> = batch.series.iter().map(decode_series).collect();
            Some(SeriesEvent::Batch(series?))
        }
        Some(Frame::Warning(text)) => Some(SeriesEvent::Warning(text)),
        Some(Frame::Hints(any)) => convert_hints::answer_from(Call::Series, &any).map(SeriesEvent::Hints),
        None => None,
    })
}
