//! Certificates are made here; what is judged is what a client meets.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;
use crate::http::HttpListener;
use crate::shutdown::CancellationToken;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// `NAME.crt` and `NAME.key` in `dir`.
    fn issue(&self, dir: &Path, name: &str, subject: &[(DnType, &str)]) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (cert_path, key_path) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        std::fs::write(&cert_path, certificate.pem()).unwrap();
        std::fs::write(&key_path, key.serialize_pem()).unwrap();
        (cert_path, key_path)
    }
}

async fn who(axum::extract::Extension(subject): axum::extract::Extension<Arc<PeerSubject>>) -> String {
    format!("{subject:?}")
}

async fn ask(port: u16, tls: Arc<rustls::ClientConfig>) -> std::io::Result<String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut tls = (*tls).clone();
    tls.alpn_protocols.clear();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut out = String::new();
    // Whoever is cut off may miss the goodbye.
    match stream.read_to_string(&mut out).await {
        Ok(_) => Ok(out),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof && !out.is_empty() => Ok(out),
        Err(e) => Err(e),
    }
}

#[tokio::test]
async fn clients_are_known_by_their_certificates_and_new_files_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let ca = dir.path().join("ca.crt");
    std::fs::write(&ca, &ours.pem).unwrap();
    let (cert, key) = ours.issue(dir.path(), "server", &[]);
    let files = ServerTlsConfig {
        cert_file: Some(cert.clone()),
        key_file: Some(key.clone()),
        client_ca_file: Some(ca.clone()),
        ..ServerTlsConfig::default()
    };
    let tls = ServerTls::http(&files).unwrap();
    let listener = HttpListener::bind("127.0.0.1:0").await.unwrap().with_tls(tls);
    let port = listener.local_addr().port();
    let stop = CancellationToken::new();
    let server = tokio::spawn(listener.serve(Router::new().route("/", get(who)), stop.clone()));

    let subject = [
        (DnType::OrganizationName, "team-ä"),
        (DnType::OrganizationalUnitName, "unit"),
        (DnType::CommonName, "agent"),
    ];
    let (client_cert, client_key) = ours.issue(dir.path(), "client", &subject);
    let client = ClientTlsConfig {
        ca_file: Some(ca.clone()),
        cert_file: Some(client_cert),
        key_file: Some(client_key),
        ..ClientTlsConfig::default()
    };
    let known = ask(port, client_config(&client).unwrap()).await.unwrap();
    let want = PeerSubject {
        common_name: Some("agent".into()),
        organization: Some("team-ä".into()),
        organizational_unit: Some("unit".into()),
    };
    assert!(known.ends_with(&format!("{want:?}")), "{known}");

    let nameless = ClientTlsConfig { cert_file: None, key_file: None, ..client.clone() };
    assert!(ask(port, client_config(&nameless).unwrap()).await.is_err(), "no certificate");
    let (cert2, key2) = theirs.issue(dir.path(), "stranger", &subject);
    let stranger = ClientTlsConfig { cert_file: Some(cert2), key_file: Some(key2), ..client.clone() };
    assert!(ask(port, client_config(&stranger).unwrap()).await.is_err(), "another authority's certificate");
    let old = ClientTlsConfig { skip_verify: true, ca_file: None, ..client.clone() };
    assert!(
        ask(port, client_config(&old).unwrap()).await.is_ok(),
        "whoever asks for no verification gets none"
    );

    // The server's certificate is replaced by one of another authority: this client does not trust it.
    theirs.issue(dir.path(), "server", &[]);
    let tls = client_config(&client).unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while ask(port, tls.clone()).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "the new certificate was never taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    server.await.unwrap();
}

#[test]
fn wrong_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = Authority::new().issue(dir.path(), "a", &[]);
    let (_, other_key) = Authority::new().issue(dir.path(), "b", &[]);
    let check = |cert: Option<&PathBuf>, key: Option<&PathBuf>, ca: Option<&str>, want: &str| {
        let files = ServerTlsConfig {
            cert_file: cert.cloned(),
            key_file: key.cloned(),
            client_ca_file: ca.map(PathBuf::from),
            ..ServerTlsConfig::default()
        };
        let text = ServerTls::grpc(&files).unwrap_err().to_string();
        assert!(text.contains(want), "{text:?} should contain {want:?}");
    };
    check(Some(&cert), None, None, "belong together");
    check(None, None, Some("/nowhere"), "needs a server certificate");
    check(Some(&dir.path().join("none")), Some(&key), None, "none");
    check(Some(&key), Some(&key), None, "no certificate in it");
    check(Some(&cert), Some(&cert), None, "a.crt");
    check(Some(&cert), Some(&other_key), None, "server certificate and key");
    check(Some(&cert), Some(&key), Some("/nowhere"), "/nowhere");
    assert!(ServerTls::http(&ServerTlsConfig::default()).unwrap().is_none());
    assert!("1.1".parse::<TlsVersion>().unwrap_err().contains("want 1.2 or 1.3"));
}

#[test]
fn garbage_has_no_subject() {
    assert_eq!(PeerSubject::of(b""), PeerSubject::default());
    assert_eq!(PeerSubject::of(&[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF]), PeerSubject::default());
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["x".to_owned()]).unwrap().self_signed(&key).unwrap();
    for cut in 0..certificate.der().len() {
        let _ = PeerSubject::of(&certificate.der()[..cut]);
    }
}
