//! The client's side.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{TlsError, TlsVersion, certificates, private_key, roots};

/// What a client trusts and shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientTlsConfig {
    /// Authorities to trust; without it those of the system.
    pub ca_file: Option<PathBuf>,
    /// Certificate to show.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// The name that a server's certificate must carry, instead of the one it was called by.
    pub server_name: Option<String>,
    /// Believe any certificate.
    pub skip_verify: bool,
    /// The oldest protocol.
    pub min_version: TlsVersion,
}

/// Reads the files.
pub fn client_config(config: &ClientTlsConfig) -> Result<Arc<ClientConfig>, TlsError> {
    super::install_crypto_provider();
    if let Some(name) = &config.server_name {
        ServerName::try_from(name.as_str()).map_err(|e| TlsError::rustls("server name", e))?;
    }
    let builder = ClientConfig::builder_with_protocol_versions(config.min_version.and_later());
    let builder = match &config.ca_file {
        _ if config.skip_verify => {
            let provider = CryptoProvider::get_default().expect("installed above");
            let nobody = Arc::new(BelieveAnybody(Arc::clone(provider)));
            builder.dangerous().with_custom_certificate_verifier(nobody)
        }
        Some(path) => builder.with_root_certificates(roots(path)?),
        None => builder.with_root_certificates(system_roots()),
    };
    let mut tls = match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|e| TlsError::rustls("client certificate and key", e))?,
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(TlsError::Incomplete("a client certificate and its key belong together")),
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(tls))
}

/// Whom the system trusts. What cannot be read is left out, as everywhere: a connection then says that it trusts nobody.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// `--grpc-client-tls-skip-verify`: the channel is encrypted, but nobody knows to whom.
#[derive(Debug)]
struct BelieveAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
