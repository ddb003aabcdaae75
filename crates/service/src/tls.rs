//! The TLS provider.

/// Makes `ring` the process's TLS provider. Binaries and test harnesses call it before the first client is built:
/// a client without a provider panics. Later calls change nothing.
pub fn install_crypto_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
