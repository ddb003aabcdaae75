//! TLS of the role: tenants by certificate on the remote-write listener, the StoreAPI for those who show one.

use std::path::{Path, PathBuf};

use chronolith_model::write::encode_labels;
use chronolith_receive::{CertificateField, Config, Parts, build, run};
use chronolith_service::shutdown::CancellationToken;
use chronolith_service::tls::{ClientTlsConfig, ServerTlsConfig, client_config};
use chronolith_storeapi::{ClientOptions, ClientTls, StoreClient};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca: PathBuf,
}

impl Authority {
    fn new(dir: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = dir.join("ca.crt");
        std::fs::write(&ca, params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { issuer: Issuer::new(params, key), ca }
    }

    /// Certificate and key of a unit.
    fn issue(&self, dir: &Path, unit: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["receiver.example".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        if !unit.is_empty() {
            params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
        }
        let name = |end: &str| dir.join(format!("{}.{end}", unit.replace('/', "_")));
        let (cert_path, key_path) = (name("crt"), name("key"));
        std::fs::write(&cert_path, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(&key_path, key.serialize_pem()).unwrap();
        (cert_path, key_path)
    }
}

fn body() -> Vec<u8> {
    let mut series = Vec::new();
    encode_labels([("__name__", "up")], &mut series);
    series.extend([0x12, 11, 0x09, 0, 0, 0, 0, 0, 0, 0xF0, 0x3F, 0x10, 1]);
    let mut request = vec![0x0A, series.len() as u8];
    request.extend(series);
    snap::raw::Encoder::new().compress_vec(&request).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_name_tenants_and_open_the_store() {
    chronolith_service::tls::install_crypto_provider();
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let (cert, key) = authority.issue(dir.path(), "server");
    let tls = ServerTlsConfig {
        cert_file: Some(cert),
        key_file: Some(key),
        client_ca_file: Some(authority.ca.clone()),
        ..ServerTlsConfig::default()
    };
    let local = || Some("127.0.0.1:0".to_owned());
    let config = Config {
        remote_write_address: local(),
        http_address: local(),
        grpc_address: local(),
        labels: vec![("replica".to_owned(), "r1".to_owned())],
        tsdb_path: dir.path().join("data"),
        remote_write_tls: tls.clone(),
        grpc_tls: tls,
        tenant_certificate_field: Some(CertificateField::OrganizationalUnit),
        ..Config::default()
    };
    let parts = Parts::default();
    let mut ready = parts.probes.watch();
    let receive = build(config, parts).await.unwrap();
    let (write, grpc) = (receive.remote_write_addr().unwrap(), receive.grpc_addr().unwrap());
    let tenants = receive.tenants();
    let stop = CancellationToken::new();
    let role = tokio::spawn(run(receive, stop.clone()));
    ready.wait_for(|ready| *ready).await.unwrap();

    let send = async |unit: Option<&str>| {
        let ca = std::fs::read(&authority.ca).unwrap();
        let mut client = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
            .resolve("receiver.example", write);
        if let Some(unit) = unit {
            let (cert, key) = authority.issue(dir.path(), unit);
            let pem = [std::fs::read(cert).unwrap(), std::fs::read(key).unwrap()].concat();
            client = client.identity(reqwest::Identity::from_pem(&pem).unwrap());
        }
        let url = format!("https://receiver.example:{}/api/v1/receive", write.port());
        let request = client.build().unwrap().post(url).header("THANOS-TENANT", "forged").body(body());
        let response = request.send().await.map_err(|e| e.to_string())?;
        Ok::<_, String>((response.status().as_u16(), response.text().await.unwrap()))
    };
    assert_eq!(send(Some("team-a")).await.unwrap().0, 200);
    let (status, text) = send(Some("")).await.unwrap();
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("could not get the organizationalUnit field"), "{text}");
    assert_eq!(send(Some("a/b")).await.unwrap().0, 400);
    assert!(send(None).await.is_err(), "no certificate, no connection");
    let names: Vec<String> = tenants.db().unwrap().tenants().iter().map(|t| t.to_string()).collect();
    assert_eq!(names, ["team-a"]);

    let info = async |client: Option<ClientTlsConfig>, name: Option<&str>| {
        let tls = client
            .map(|c| ClientTls { config: client_config(&c).unwrap(), server_name: name.map(str::to_owned) });
        let options = ClientOptions { tls, ..ClientOptions::default() };
        StoreClient::new(&grpc.to_string(), &options).unwrap().endpoint_info().await
    };
    let (cert, key) = authority.issue(dir.path(), "querier");
    let known = ClientTlsConfig {
        ca_file: Some(authority.ca.clone()),
        cert_file: Some(cert),
        key_file: Some(key),
        ..ClientTlsConfig::default()
    };
    let answer = info(Some(known.clone()), Some("receiver.example")).await.unwrap();
    assert_eq!(answer.component, "receive");
    assert!(info(Some(known.clone()), None).await.is_err(), "the certificate is not of 127.0.0.1");
    assert!(info(None, None).await.is_err(), "plain");
    let nameless = ClientTlsConfig { cert_file: None, key_file: None, ..known };
    assert!(info(Some(nameless), Some("receiver.example")).await.is_err(), "no certificate");
    stop.cancel();
    role.await.unwrap().unwrap();
}
