//! HTTP listeners: bind first (so that port 0 has an address before anything is served), then serve a router until the
//! token is cancelled, then let open requests finish up to a deadline.
//!
//! Bounds: connections at a time (the next ones wait in the kernel's backlog), time to send a request's head, size of a
//! head. Bodies are bounded by the handlers, which know what they read. A panic in a handler is a 500 and a metric.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate as _};

use crate::tls::{PeerSubject, ServerTls};

/// Why an address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address as it was given.
    pub address: String,
    /// Why.
    pub source: std::io::Error,
}

/// Binds a TCP listener. `host:port`, `:port` (all interfaces, as in Go) and port 0 are fine.
pub async fn bind_tcp(address: &str) -> Result<TcpListener, BindError> {
    let fail = |source| BindError { address: address.to_owned(), source };
    match address.strip_prefix(':') {
        Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
            Ok(listener) => Ok(listener),
            // A machine without IPv6.
            Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await.map_err(fail),
        },
        None => TcpListener::bind(address).await.map_err(fail),
    }
}

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Open connections; more wait.
    pub connections_max: usize,
    /// Time to send a request's head.
    pub header_timeout: Duration,
    /// Time for open requests after the token is cancelled.
    pub drain_timeout: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        HttpLimits {
            // A Prometheus keeps up to 50 connections (shards) open: room for some eighty of them, and a file
            // descriptor each stays far below the usual 65,536.
            connections_max: 4096,
            header_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// A bound listener that does not serve yet.
#[derive(Debug)]
pub struct HttpListener {
    listener: TcpListener,
    address: SocketAddr,
    limits: HttpLimits,
    tls: Option<Arc<ServerTls>>,
}

impl HttpListener {
    /// Binds with the default limits.
    pub async fn bind(address: &str) -> Result<Self, BindError> {
        let listener = bind_tcp(address).await?;
        let local =
            listener.local_addr().map_err(|source| BindError { address: address.to_owned(), source })?;
        Ok(HttpListener { listener, address: local, limits: HttpLimits::default(), tls: None })
    }

    /// With other limits.
    pub fn with_limits(mut self, limits: HttpLimits) -> Self {
        self.limits = limits;
        self
    }

    /// With TLS, where there is one. Requests of clients that showed a certificate carry a [`PeerSubject`] (as
    /// `Arc`) among their extensions.
    pub fn with_tls(mut self, tls: Option<Arc<ServerTls>>) -> Self {
        self.tls = tls;
        self
    }

    /// The actual address.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves `app` over HTTP/1.1 and HTTP/2 until `shutdown`, then finishes open requests up to the drain timeout.
    pub async fn serve(self, app: Router, shutdown: CancellationToken) {
        let HttpListener { listener, limits, tls, .. } = self;
        let graceful = GracefulShutdown::new();
        let connections = Arc::new(Semaphore::new(limits.connections_max));
        let server = Arc::new(connection_builder(limits));
        loop {
            let Some((stream, peer, permit)) = accept(&listener, &connections, &shutdown).await else {
                break;
            };
            let _ = stream.set_nodelay(true);
            let (app, server, watcher) = (app.clone(), server.clone(), graceful.watcher());
            let tls = tls.clone();
            // Owned by `graceful`, which waits for every connection it watches.
            tokio::spawn(async move {
                let _permit = permit;
                let ended = match tls {
                    None => {
                        let service = connection_service(app, peer, None);
                        let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
                        watcher.watch(connection).await
                    }
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => {
                            let shown = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
                            let subject = shown.map(|certificate| Arc::new(PeerSubject::of(certificate)));
                            let service = connection_service(app, peer, subject);
                            let connection =
                                server.serve_connection_with_upgrades(TokioIo::new(stream), service);
                            watcher.watch(connection).await
                        }
                        Err(error) => Err(error.into()),
                    },
                };
                if let Err(error) = ended {
                    tracing::debug!(err = %error, peer = %peer, "connection ended");
                }
            });
        }
        drop(listener);
        crate::shutdown::within("http requests", limits.drain_timeout, graceful.shutdown()).await;
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    loop {
        let permit = tokio::select! {
            permit = connections.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
            () = shutdown.cancelled() => return None,
        };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => return Some((stream, peer, permit)),
                Err(error) => {
                    // Out of file descriptors, or a connection that was gone at once: do not spin.
                    tracing::warn!(err = %error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            () = shutdown.cancelled() => return None,
        }
    }
}

fn connection_builder(limits: HttpLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(1 << 20);
    // Whole remote-write bodies fit the windows; the defaults (64 KiB) make a sender wait for every piece.
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .keep_alive_interval(Duration::from_secs(30))
        .max_concurrent_streams(256);
    builder
}

type ConnectionError = Infallible;

fn connection_service(
    app: Router,
    peer: SocketAddr,
    subject: Option<Arc<PeerSubject>>,
) -> impl hyper::service::Service<
    hyper::Request<Incoming>,
    Response = Response,
    Error = ConnectionError,
    Future = impl Future<Output = Result<Response, ConnectionError>> + Send,
> + Clone {
    hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        if let Some(subject) = &subject {
            request.extensions_mut().insert(Arc::clone(subject));
        }
        app.clone().oneshot(request)
    })
}

/// Labels of a request, names as in Thanos.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    code: u16,
    /// The route's pattern, never the path that was asked for: a bounded set.
    handler: String,
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandlerLabels {
    handler: String,
}

/// `http_requests_total`, `http_request_duration_seconds`, `http_inflight_requests`, `http_panics_total`.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<HandlerLabels, Histogram, fn() -> Histogram>,
    inflight: Gauge,
    panics: Counter,
}

impl HttpMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        // Thanos's buckets for HTTP requests.
        let buckets =
            || Histogram::new([0.001, 0.01, 0.1, 0.3, 0.6, 1.0, 2.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0]);
        let metrics = HttpMetrics {
            requests: Family::default(),
            seconds: Family::new_with_constructor(buckets as fn() -> Histogram),
            inflight: Gauge::default(),
            panics: Counter::default(),
        };
        registry.register("http_requests", "HTTP requests answered", metrics.requests.clone());
        registry.register("http_request_duration_seconds", "Time to answer", metrics.seconds.clone());
        registry.register("http_inflight_requests", "HTTP requests being answered", metrics.inflight.clone());
        registry.register("http_panics", "HTTP handlers that panicked", metrics.panics.clone());
        metrics
    }

    /// Puts counting and panic catching around a router. Call it last, on the router that is served.
    pub fn instrument(&self, router: Router) -> Router {
        let panics = self.panics.clone();
        let catch = tower_http::catch_panic::CatchPanicLayer::custom(move |cause| on_panic(&panics, cause));
        router.layer(catch).layer(axum::middleware::from_fn_with_state(self.clone(), observe))
    }
}

fn on_panic(panics: &Counter, cause: Box<dyn std::any::Any + Send>) -> Response<Body> {
    panics.inc();
    let text = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("unknown cause");
    tracing::error!(cause = text, "a request handler panicked");
    (StatusCode::INTERNAL_SERVER_ERROR, "internal error\n").into_response()
}

async fn observe(State(metrics): State<HttpMetrics>, request: Request, next: Next) -> Response {
    struct InFlight(Gauge);
    impl Drop for InFlight {
        fn drop(&mut self) {
            self.0.dec();
        }
    }
    let started = Instant::now();
    let handler = request.extensions().get::<MatchedPath>().map_or("other", |m| m.as_str()).to_owned();
    let method = method_name(request.method());
    metrics.inflight.inc();
    let in_flight = InFlight(metrics.inflight.clone());
    let response = next.run(request).await;
    drop(in_flight);
    let labels = RequestLabels { code: response.status().as_u16(), handler: handler.clone(), method };
    metrics.requests.get_or_create(&labels).inc();
    let seconds = started.elapsed().as_secs_f64();
    metrics.seconds.get_or_create(&HandlerLabels { handler }).observe(seconds);
    response
}

/// A bounded set: a client may send any method it invents.
fn method_name(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "POST" => "post",
        "PUT" => "put",
        "HEAD" => "head",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "other",
    }
}

/// Compresses answers (JSON, text) for clients that accept gzip or deflate. Not for answers that are compressed already, nor
/// for streams of chunks, which are.
pub fn compress(router: Router) -> Router {
    let worth_it =
        DefaultPredicate::new().and(NotForContentType::const_new("application/x-streamed-protobuf"));
    router.layer(CompressionLayer::new().compress_when(worth_it))
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{Metrics, Probes};

    async fn ask(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut out = String::new();
        stream.read_to_string(&mut out).await.unwrap();
        out
    }

    #[tokio::test]
    async fn serves_counts_survives_panics_and_drains() {
        let metrics = Metrics::new();
        let probes = Probes::new();
        let slow_started = Arc::new(tokio::sync::Notify::new());
        let notify = slow_started.clone();
        let app = Router::new()
            .route(
                "/panic",
                get(|| async {
                    if true {
                        panic!("boom")
                    }
                }),
            )
            .route("/echo/{x}", post(|| async { "ok" }))
            .route(
                "/slow",
                get(move || async move {
                    notify.notify_one();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    "done"
                }),
            )
            .merge(metrics.router())
            .merge(probes.router());
        let app = metrics.http().instrument(app);
        let listener = HttpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(listener.serve(app, shutdown.clone()));

        assert!(ask(address, "POST /echo/1 HTTP/1.1").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "GET /panic HTTP/1.1").await.starts_with("HTTP/1.1 500"));
        assert!(ask(address, "GET /nothing HTTP/1.1").await.starts_with("HTTP/1.1 404"));
        assert!(ask(address, "GET /-/ready HTTP/1.1").await.contains("chronolith is ready"));
        let probe = probes.register("receive");
        assert!(ask(address, "GET /-/ready HTTP/1.1").await.starts_with("HTTP/1.1 503"));
        assert!(ask(address, "GET /-/healthy HTTP/1.1").await.starts_with("HTTP/1.1 200"));
        probe.ready();

        let text = ask(address, "GET /metrics HTTP/1.1").await;
        assert!(text.contains("content-type: text/plain; version=0.0.4"), "{text}");
        assert!(
            text.contains(r#"http_requests_total{code="200",handler="/echo/{x}",method="post"} 1"#),
            "{text}"
        );
        assert!(text.contains(r#"http_requests_total{code="404",handler="other",method="get"} 1"#), "{text}");
        assert!(text.contains("http_panics_total 1"), "{text}");

        let slow = tokio::spawn(async move { ask(address, "GET /slow HTTP/1.1").await });
        slow_started.notified().await;
        shutdown.cancel();
        assert!(slow.await.unwrap().ends_with("done"), "an open request is finished");
        server.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
    }

    #[tokio::test]
    async fn a_taken_address_is_named() {
        let first = HttpListener::bind("127.0.0.1:0").await.unwrap();
        let address = first.local_addr().to_string();
        let error = HttpListener::bind(&address).await.unwrap_err().to_string();
        assert!(error.contains(&address), "{error}");
        assert!(HttpListener::bind(":0").await.is_ok());
    }
}
