//! The HTTP front: log, faults, then s3s.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::RngExt;
use s3s::auth::SimpleAuth;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::task::JoinSet;

use super::backend::Memory;
use super::{ACCESS_KEY, SECRET_KEY, Shared};

/// Requests kept in the log.
const LOG_MAX: usize = 100_000;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are S3's")]
pub enum S3Operation {
    GetObject,
    HeadObject,
    PutObject,
    DeleteObject,
    DeleteObjects,
    ListObjects,
    CreateMultipartUpload,
    UploadPart,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    Other,
}

impl S3Operation {
    fn of(request: &Request<Incoming>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let has = |name: &str| query.split('&').any(|p| p.split('=').next() == Some(name));
        let on_object = request.uri().path().trim_matches('/').contains('/');
        match (request.method(), on_object) {
            (&Method::GET, true) => S3Operation::GetObject,
            (&Method::GET, false) => S3Operation::ListObjects,
            (&Method::HEAD, true) => S3Operation::HeadObject,
            (&Method::PUT, true) if has("uploadId") => S3Operation::UploadPart,
            (&Method::PUT, true) => S3Operation::PutObject,
            (&Method::POST, true) if has("uploads") => S3Operation::CreateMultipartUpload,
            (&Method::POST, true) if has("uploadId") => S3Operation::CompleteMultipartUpload,
            (&Method::POST, false) if has("delete") => S3Operation::DeleteObjects,
            (&Method::DELETE, true) if has("uploadId") => S3Operation::AbortMultipartUpload,
            (&Method::DELETE, true) => S3Operation::DeleteObject,
            _ => S3Operation::Other,
        }
    }

    fn writes(self) -> bool {
        !matches!(self, S3Operation::GetObject | S3Operation::HeadObject | S3Operation::ListObjects)
    }
}

/// A line of the request log.
#[derive(Clone, Debug)]
pub struct S3Request {
    /// What it does.
    pub operation: S3Operation,
    /// Path and query.
    pub target: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// Status of the answer; 0 when the connection was cut.
    pub status: u16,
    /// Bytes of the answer's body, as its head tells.
    pub body_bytes: u64,
}

pub(super) async fn serve(listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    let mut builder = S3ServiceBuilder::new(Memory(shared.clone()));
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    // S3 turns away whose clock is off by a quarter of an hour; other stores do not, and tests are about the clients.
    let mut config = S3Config::default();
    config.presigned_url_max_skew_time_secs = u32::MAX;
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    let s3 = builder.build();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let (s3, shared) = (s3.clone(), shared.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(request, s3.clone(), shared.clone()));
                    let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // An error is a connection cut by either side, which is what some tests are about.
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

type Answer = Result<Response<s3s::Body>, Box<dyn std::error::Error + Send + Sync>>;

async fn answer(request: Request<Incoming>, s3: S3Service, shared: Arc<Shared>) -> Answer {
    let operation = S3Operation::of(&request);
    let target = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let range = request.headers().get("range").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let result = faulty_answer(request, operation, s3, &shared).await;
    let status = result.as_ref().map_or(0, |r| r.status().as_u16());
    let length =
        result.as_ref().ok().and_then(|r| r.headers().get("content-length")?.to_str().ok()?.parse().ok());
    let body_bytes = length.filter(|_| operation != S3Operation::HeadObject).unwrap_or(0);
    let mut log = shared.log.lock();
    if log.len() < LOG_MAX {
        log.push(S3Request { operation, target, range, status, body_bytes });
    }
    result
}

fn hit(share: f64) -> bool {
    share > 0.0 && rand::rng().random_bool(share.min(1.0))
}

async fn faulty_answer(
    request: Request<Incoming>,
    operation: S3Operation,
    s3: S3Service,
    shared: &Shared,
) -> Answer {
    let mut faults = shared.faults.lock().clone();
    if !request.uri().path().contains(&faults.only_paths) {
        faults = super::S3Faults::default();
    }
    if !faults.latency.is_zero() {
        tokio::time::sleep(faults.latency).await;
    }
    if operation == S3Operation::GetObject && faults.slow_every > 0 {
        let n = shared.reads.fetch_add(1, Ordering::Relaxed) + 1;
        if n.is_multiple_of(faults.slow_every) {
            tokio::time::sleep(faults.slow).await;
        }
    }
    if faults.refuse || hit(faults.fail) {
        return Ok(failure(faults.fail_status));
    }
    let response = s3.call(request.map(s3s::Body::from)).await.map_err(|e| format!("{e:?}"))?;
    if operation.writes() && hit(faults.drop_after_write) {
        return Err("connection cut after the write".into());
    }
    if operation == S3Operation::GetObject && response.status().is_success() && hit(faults.truncate) {
        return cut_short(response).await;
    }
    Ok(response)
}

fn failure(status: u16) -> Response<s3s::Body> {
    let (status, code) = if status == 500 { (500, "InternalError") } else { (503, "SlowDown") };
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>injected</Message></Error>");
    let response = Response::builder().status(status).header("content-type", "application/xml");
    response.body(s3s::Body::from(body)).expect("a fixed answer")
}

/// The same headers, content length included, and half of the body; then the connection ends.
async fn cut_short(response: Response<s3s::Body>) -> Answer {
    use futures::TryStreamExt;
    let (mut head, body) = response.into_parts();
    let bytes: Vec<Bytes> = s3s::dto::StreamingBlob::from(body).try_collect().await?;
    let bytes = bytes.concat();
    head.headers.insert(http::header::CONTENT_LENGTH, bytes.len().into());
    let half = Bytes::from(bytes[..bytes.len() / 2].to_vec());
    let stream = futures::stream::iter([Ok(half), Err(std::io::Error::other("body cut short"))]);
    let body = s3s::Body::from(s3s::dto::StreamingBlob::wrap(stream));
    Ok(Response::from_parts(head, body))
}
