//! gRPC listeners: bind, then serve routes with `grpc.health.v1` until the token is cancelled.
//!
//! Health follows the process's [`Probes`]. Windows and keep-alive are set for bulk streams: the defaults (64 KiB) cap a
//! stream at one window per round trip.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::health_reporter;

use crate::http::{BindError, bind_tcp};
use crate::probes::Probes;
use crate::tls::ServerTls;

/// HTTP/2 window of a stream: throughput on a real network is at most a window per round trip.
pub const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// HTTP/2 window of a connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Streams a peer may have open on one connection.
const STREAMS_MAX: u32 = 1024;
/// TLS handshakes under way at a time.
const HANDSHAKES_MAX: usize = 64;

/// A bound gRPC listener that does not serve yet.
#[derive(Debug)]
pub struct GrpcListener {
    listener: TcpListener,
    address: SocketAddr,
    drain_timeout: Duration,
    tls: Option<Arc<ServerTls>>,
}

impl GrpcListener {
    /// Binds; port 0 is fine.
    pub async fn bind(address: &str) -> Result<Self, BindError> {
        let listener = bind_tcp(address).await?;
        let local =
            listener.local_addr().map_err(|source| BindError { address: address.to_owned(), source })?;
        Ok(GrpcListener { listener, address: local, drain_timeout: Duration::from_secs(20), tls: None })
    }

    /// Time for open calls after the token is cancelled (default 20 s).
    pub fn with_drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// With TLS, where there is one.
    pub fn with_tls(mut self, tls: Option<Arc<ServerTls>>) -> Self {
        self.tls = tls;
        self
    }

    /// The actual address.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves `routes` and the health service until `shutdown`, then finishes open calls up to the drain timeout.
    pub async fn serve(
        self,
        routes: Routes,
        probes: Probes,
        shutdown: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        let (reporter, health) = health_reporter();
        let mut ready = probes.watch();
        let follow = async move {
            loop {
                let now = *ready.borrow_and_update();
                let status = if now { ServingStatus::Serving } else { ServingStatus::NotServing };
                reporter.set_service_status("", status).await;
                if ready.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(STREAMS_MAX)
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .add_routes(routes.add_service(health));
        let stop = shutdown.clone().cancelled_owned();
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let tls = self.tls;
        let server = async move {
            match tls {
                None => server.serve_with_incoming_shutdown(incoming, stop).await,
                Some(tls) => server.serve_with_incoming_shutdown(secured(incoming, tls), stop).await,
            }
        };
        let deadline = async {
            shutdown.cancelled().await;
            tokio::time::sleep(self.drain_timeout).await;
        };
        tokio::select! {
            served = server => served,
            () = follow => unreachable!("health is followed for ever"),
            () = deadline => {
                tracing::warn!(deadline_seconds = self.drain_timeout.as_secs_f64(), "open gRPC calls were cut at shutdown");
                Ok(())
            }
        }
    }
}

/// Connections once their handshake is done; many are under way at a time, so that a slow client holds up nobody. The task
/// ends with the stream.
fn secured(
    mut incoming: TcpIncoming,
    tls: Arc<ServerTls>,
) -> ReceiverStream<std::io::Result<TlsStream<TcpStream>>> {
    let (done, ready) = mpsc::channel(HANDSHAKES_MAX);
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
            let accepted = tokio::select! {
                accepted = incoming.next() => accepted,
                () = done.closed() => return,
            };
            match accepted {
                None => return,
                Some(Err(error)) => {
                    if done.send(Err(error)).await.is_err() {
                        return;
                    }
                }
                Some(Ok(stream)) => {
                    let (done, tls) = (done.clone(), Arc::clone(&tls));
                    tokio::spawn(async move {
                        let _slot = slot;
                        match tls.accept(stream).await {
                            Ok(stream) => drop(done.send(Ok(stream)).await),
                            Err(error) => tracing::debug!(err = %error, "TLS handshake failed"),
                        }
                    });
                }
            }
        }
    });
    ReceiverStream::new(ready)
}

#[cfg(test)]
mod tests {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus as Wire;
    use tonic_health::pb::health_client::HealthClient;

    use super::*;

    #[tokio::test]
    async fn health_follows_the_probes() {
        let probes = Probes::new();
        let probe = probes.register("store");
        let listener = GrpcListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(listener.serve(Routes::default(), probes.clone(), shutdown.clone()));
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect()
            .await
            .unwrap();
        let mut client = HealthClient::new(channel);
        let mut wait_for = async |want: Wire| {
            let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
            loop {
                let reply = client.check(HealthCheckRequest { service: String::new() }).await;
                if reply.is_ok_and(|r| r.into_inner().status() == want) {
                    return;
                }
                assert!(tokio::time::Instant::now() < deadline, "health never became {want:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        wait_for(Wire::NotServing).await;
        probe.ready();
        wait_for(Wire::Serving).await;
        drop(client);
        shutdown.cancel();
        server.await.unwrap().unwrap();
    }
}
