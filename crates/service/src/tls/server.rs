//! The server's side.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{TlsError, TlsVersion, certificates, private_key, roots};

/// How often the files are looked at, at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A client that does not finish its handshake in this time is cut off.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Files of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTlsConfig {
    /// Certificate chain, the server's own first.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// Authorities whose certificates clients must show; without it clients need none.
    pub client_ca_file: Option<PathBuf>,
    /// The oldest protocol.
    pub min_version: TlsVersion,
}

/// TLS of one listener.
pub struct ServerTls {
    files: Files,
    current: Mutex<Current>,
}

struct Files {
    config: ServerTlsConfig,
    cert: PathBuf,
    key: PathBuf,
    alpn: &'static [&'static [u8]],
}

struct Current {
    tls: Arc<ServerConfig>,
    changed: Vec<Option<SystemTime>>,
    looked: Instant,
}

impl ServerTls {
    /// For HTTP/1.1 and HTTP/2. `None` when neither certificate nor key is given: no TLS.
    pub fn http(config: &ServerTlsConfig) -> Result<Option<Arc<Self>>, TlsError> {
        Self::load(config, &[b"h2", b"http/1.1"])
    }

    /// For gRPC.
    pub fn grpc(config: &ServerTlsConfig) -> Result<Option<Arc<Self>>, TlsError> {
        Self::load(config, &[b"h2"])
    }

    fn load(config: &ServerTlsConfig, alpn: &'static [&'static [u8]]) -> Result<Option<Arc<Self>>, TlsError> {
        let (cert, key) = match (&config.cert_file, &config.key_file) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            (None, None) if config.client_ca_file.is_none() => return Ok(None),
            (None, None) => {
                return Err(TlsError::Incomplete("a client CA needs a server certificate and its key"));
            }
            _ => return Err(TlsError::Incomplete("a server certificate and its key belong together")),
        };
        let files = Files { config: config.clone(), cert, key, alpn };
        let changed = files.changed();
        let current = Current { tls: files.read()?, changed, looked: Instant::now() };
        Ok(Some(Arc::new(ServerTls { files, current: Mutex::new(current) })))
    }

    /// The configuration for a new connection.
    fn current(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock();
        if current.looked.elapsed() >= LOOK_INTERVAL {
            current.looked = Instant::now();
            let changed = self.files.changed();
            if changed != current.changed {
                current.changed = changed;
                match self.files.read() {
                    Ok(tls) => {
                        current.tls = tls;
                        tracing::info!(cert = %self.files.cert.display(), "TLS certificate read again");
                    }
                    Err(error) => {
                        tracing::error!(err = %error, "reading the TLS certificate again failed, the old one stays");
                    }
                }
            }
        }
        Arc::clone(&current.tls)
    }

    /// Makes a connection of a stream.
    pub(crate) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let handshake = TlsAcceptor::from(self.current()).accept(stream);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(done) => done,
            Err(_) => Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "TLS handshake took too long")),
        }
    }
}

impl Files {
    fn changed(&self) -> Vec<Option<SystemTime>> {
        let files = [Some(&self.cert), Some(&self.key), self.config.client_ca_file.as_ref()];
        let time = |path: &PathBuf| std::fs::metadata(path).and_then(|m| m.modified()).ok();
        files.into_iter().flatten().map(time).collect()
    }

    fn read(&self) -> Result<Arc<ServerConfig>, TlsError> {
        super::install_crypto_provider();
        let builder = ServerConfig::builder_with_protocol_versions(self.config.min_version.and_later());
        let builder = match &self.config.client_ca_file {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots(path)?)).build();
                builder.with_client_cert_verifier(verifier.map_err(|e| TlsError::rustls("client CA", e))?)
            }
        };
        let mut tls = builder
            .with_single_cert(certificates(&self.cert)?, private_key(&self.key)?)
            .map_err(|e| TlsError::rustls("server certificate and key", e))?;
        tls.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(tls))
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").field("config", &self.files.config).finish_non_exhaustive()
    }
}
