//! gRPC requests whose messages are compressed with snappy, which Thanos's receivers send by default and tonic does not know:
//! they are decompressed in front of the service. Unary calls only.

use std::convert::Infallible;
use std::future::Future;
use std::io::Read as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

const ENCODING: &str = "grpc-encoding";

/// A service behind the decompression.
#[derive(Clone, Debug)]
pub(crate) struct SnappyRequests<S> {
    inner: S,
    bytes_max: usize,
}

impl<S> SnappyRequests<S> {
    /// `bytes_max` bounds a message, compressed as well as decompressed.
    pub(super) fn new(inner: S, bytes_max: usize) -> Self {
        SnappyRequests { inner, bytes_max }
    }
}

impl<S: NamedService> NamedService for SnappyRequests<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Body>> for SnappyRequests<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer {
        if request.headers().get(ENCODING).is_none_or(|v| v != "snappy") {
            return Box::pin(self.inner.call(request));
        }
        request.headers_mut().insert(ENCODING, HeaderValue::from_static("identity"));
        let bytes_max = self.bytes_max;
        let spare = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, spare);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            match plain(body, bytes_max).await {
                Ok(message) => inner.call(Request::from_parts(parts, Body::new(Full::new(message)))).await,
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// The body with its messages decompressed.
async fn plain(body: Body, bytes_max: usize) -> Result<Bytes, Status> {
    let body = Limited::new(body, bytes_max).collect().await;
    let body = body.map_err(|e| Status::new(Code::ResourceExhausted, e.to_string()))?.to_bytes();
    let mut out = BytesMut::new();
    let mut rest: &[u8] = &body;
    while !rest.is_empty() {
        let (head, tail) =
            rest.split_at_checked(5).ok_or_else(|| Status::internal("a message is cut short"))?;
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (message, tail) =
            tail.split_at_checked(len).ok_or_else(|| Status::internal("a message is cut short"))?;
        rest = tail;
        let mut decompressed = Vec::new();
        if head[0] == 1 {
            let mut reader = snap::read::FrameDecoder::new(message).take(bytes_max as u64 + 1);
            reader
                .read_to_end(&mut decompressed)
                .map_err(|e| Status::internal(format!("snappy decompression failed: {e}")))?;
            if decompressed.len() > bytes_max {
                return Err(Status::resource_exhausted("a message decompresses to more than the limit"));
            }
        } else {
            decompressed.extend_from_slice(message);
        }
        out.put_u8(0);
        out.put_u32(decompressed.len() as u32);
        out.put_slice(&decompressed);
    }
    Ok(out.freeze())
}
