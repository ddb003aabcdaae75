//! TLS of listeners and clients: certificates from PEM files, read again when they change.
//!
//! - [`ServerTls`]: one for each listener. A new connection takes the files as they are now (looked at once a second at
//!   most), so a renewed certificate needs no restart; files that are wrong leave the old ones in use, and a log line.
//! - [`client_config`]: what a client trusts and shows.
//! - [`PeerSubject`]: who a client said it is, from the certificate that was verified.

mod client;
mod server;
mod subject;

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, SupportedProtocolVersion};

pub use client::{ClientTlsConfig, client_config};
pub use server::{ServerTls, ServerTlsConfig};
pub use subject::PeerSubject;

/// Makes `ring` the process's TLS provider. Binaries and test harnesses call it before the first client is built:
/// a client without a provider panics. Later calls change nothing.
pub fn install_crypto_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The oldest protocol that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.2.
    V12,
    /// 1.3, Thanos's default.
    #[default]
    V13,
}

impl std::str::FromStr for TlsVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1.2" => Ok(TlsVersion::V12),
            "1.3" | "" => Ok(TlsVersion::V13),
            "1.0" | "1.1" => Err("TLS 1.0 and 1.1 are broken and not spoken, want 1.2 or 1.3".to_owned()),
            _ => Err("want 1.2 or 1.3".to_owned()),
        }
    }
}

impl std::fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TlsVersion::V12 => "1.2",
            TlsVersion::V13 => "1.3",
        })
    }
}

impl TlsVersion {
    fn and_later(self) -> &'static [&'static SupportedProtocolVersion] {
        static FROM_12: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
        match self {
            TlsVersion::V12 => &FROM_12,
            TlsVersion::V13 => &FROM_12[..1],
        }
    }
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not what it should be.
    #[error("{path}: {text}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// A certificate without a key, or the other way round.
    #[error("{0}")]
    Incomplete(&'static str),
    /// Certificate and key do not fit, or there is nobody to trust.
    #[error("{context}: {source}")]
    Rustls {
        /// What was being set up.
        context: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl TlsError {
    fn file(path: &Path, text: impl std::fmt::Display) -> Self {
        TlsError::File { path: path.to_owned(), text: text.to_string() }
    }

    fn rustls(context: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        TlsError::Rustls { context, source: Box::new(source) }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = std::fs::read(path).map_err(|e| TlsError::file(path, e))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|e| TlsError::file(path, e))?;
    if certificates.is_empty() {
        return Err(TlsError::file(path, "no certificate in it"));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = std::fs::read(path).map_err(|e| TlsError::file(path, e))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|e| TlsError::file(path, e))
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|e| TlsError::file(path, e))?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests;
