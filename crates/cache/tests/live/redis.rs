//! Redis: alone, behind TLS, found by a sentinel.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chronolith_cache::{Backend, RedisCache, RedisOptions};
use chronolith_testkit::{Process, free_port};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};

use crate::{is_installed, items, keeps_values, until, until_it_answers};

fn server(port: u16, dir: &Path) -> Process {
    server_with(port, dir, &[])
}

fn server_with(port: u16, dir: &Path, more: &[&str]) -> Process {
    let port = port.to_string();
    let args = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let password = ["--requirepass", "secret"];
    Process::builder("redis-server").args(args).args(password).args(more.iter().copied()).dir(dir).spawn()
}

fn options(port: u16) -> RedisOptions {
    RedisOptions {
        addresses: vec![format!("127.0.0.1:{port}")],
        prefix: "test:".to_owned(),
        password: "secret".to_owned(),
        dial_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(5),
        get_batch: 100,
        get_concurrency: 4,
        ttl: Duration::from_secs(3600),
        ..RedisOptions::default()
    }
}

pub(super) fn client(port: u16) -> RedisCache {
    RedisCache::new(options(port)).unwrap()
}

#[tokio::test]
async fn values_are_kept_and_the_server_may_go_and_come() {
    if !is_installed("redis-server") {
        return;
    }
    let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
    let mut first = server(port, dir.path());
    // In a database of its own.
    let client = RedisCache::new(RedisOptions { db: 3, ..options(port) }).unwrap();
    keeps_values(&client).await;
    first.kill();
    assert!(client.get(&["ch1:S:block:5".to_owned()]).await.is_err());
    let mut second = server(port, dir.path());
    until_it_answers(&client).await;
    assert_eq!(client.get(&["ch1:S:block:5".to_owned()]).await.unwrap(), [None], "it kept nothing");
    second.kill();
}

/// Who is called as its authority counts as signed by itself, so each has its own name.
fn named(mut params: CertificateParams, name: &str) -> CertificateParams {
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// An authority, and certificates that it issues.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(dir: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = named(CertificateParams::default(), name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let file = dir.join(format!("{name}.crt"));
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { issuer: Issuer::new(params, key), file }
    }

    /// Certificate and key of a name.
    fn issue(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = named(CertificateParams::new(vec![name.to_owned()]).unwrap(), name);
        let files = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        std::fs::write(&files.0, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }
}

#[tokio::test]
async fn tls_checks_both_sides() {
    if !is_installed("redis-server") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (ours, others) = (Authority::new(dir.path(), "ours"), Authority::new(dir.path(), "others"));
    let shown = ours.issue(dir.path(), "redis.example");
    let client = ours.issue(dir.path(), "client.example");
    let stranger = others.issue(dir.path(), "stranger.example");
    let port = free_port();
    let flag = |name: &str, file: &Path| [name.to_owned(), file.display().to_string()];
    let args: Vec<String> = [
        ["--port".to_owned(), "0".to_owned()],
        ["--tls-port".to_owned(), port.to_string()],
        ["--bind".to_owned(), "127.0.0.1".to_owned()],
        ["--save".to_owned(), String::new()],
        ["--requirepass".to_owned(), "secret".to_owned()],
        flag("--tls-cert-file", &shown.0),
        flag("--tls-key-file", &shown.1),
        flag("--tls-ca-cert-file", &ours.file),
    ]
    .concat();
    let mut server = Process::builder("redis-server").args(args).dir(dir.path()).spawn();

    let good = RedisOptions {
        tls: true,
        tls_ca_file: Some(ours.file.clone()),
        tls_client: Some(client),
        tls_server_name: Some("redis.example".to_owned()),
        ..options(port)
    };
    keeps_values(&RedisCache::new(good.clone()).unwrap()).await;
    let insecure =
        RedisOptions { tls_insecure: true, tls_ca_file: None, tls_server_name: None, ..good.clone() };
    let refused: [(&str, RedisOptions); 5] = [
        ("another name", RedisOptions { tls_server_name: None, ..good.clone() }),
        ("another authority", RedisOptions { tls_ca_file: Some(others.file.clone()), ..good.clone() }),
        ("no certificate shown", RedisOptions { tls_client: None, ..good.clone() }),
        ("a stranger's certificate", RedisOptions { tls_client: Some(stranger), ..good.clone() }),
        ("no TLS", RedisOptions { tls: false, ..good.clone() }),
    ];
    for (what, options) in refused {
        let client = RedisCache::new(options).unwrap();
        assert!(client.get(&["a".to_owned()]).await.is_err(), "{what}");
    }
    let answer = RedisCache::new(insecure).unwrap().get(&["test".to_owned()]).await;
    assert_eq!(answer.unwrap(), [None], "nobody checks the server");

    // What is wrong with the files is said at once.
    let missing = dir.path().join("missing.crt");
    for (options, want) in [
        (RedisOptions { tls_ca_file: Some(missing.clone()), ..good.clone() }, "missing.crt"),
        (RedisOptions { tls_client: Some((missing.clone(), missing)), ..good.clone() }, "missing.crt"),
        (RedisOptions { tls_client: Some((shown.1, shown.0)), ..good }, "key"),
    ] {
        let err = RedisCache::new(options).unwrap_err().to_string();
        assert!(err.contains(want), "{err}");
    }
    server.kill();
}

#[tokio::test]
async fn a_sentinel_names_the_master_and_its_successor() {
    if !is_installed("redis-server") {
        return;
    }
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let ports = [free_port(), free_port()];
    let sentinel_port = free_port();
    let master = server(ports[0], dirs[0].path());
    until_it_answers(&client(ports[0])).await;
    let replica_args = ["--replicaof", "127.0.0.1", &ports[0].to_string(), "--masterauth", "secret"];
    let mut replica = server_with(ports[1], dirs[1].path(), &replica_args);
    let config = dirs[2].path().join("sentinel.conf");
    let text = format!(
        "port {sentinel_port}\nbind 127.0.0.1\nsentinel monitor cache 127.0.0.1 {} 1\nsentinel auth-pass cache secret\n\
         sentinel down-after-milliseconds cache 300\nsentinel failover-timeout cache 2000\n",
        ports[0]
    );
    std::fs::write(&config, text).unwrap();
    let args = [config.display().to_string(), "--sentinel".to_owned()];
    let mut sentinel = Process::builder("redis-server").args(args).dir(dirs[2].path()).spawn();

    let nobody = format!("127.0.0.1:{}", free_port());
    let addresses = vec![nobody, format!("127.0.0.1:{sentinel_port}")];
    let found = |name: &str| {
        let master_name = Some(name.to_owned());
        RedisCache::new(RedisOptions { addresses: addresses.clone(), master_name, ..options(0) }).unwrap()
    };
    let cache = found("cache");
    keeps_values(&cache).await;
    let (key, value) = items().swap_remove(5);
    let on = async |port: u16| client(port).get(std::slice::from_ref(&key)).await.unwrap();
    assert_eq!(on(ports[0]).await, [Some(value.clone())]);
    let err = found("another").get(std::slice::from_ref(&key)).await.unwrap_err().to_string();
    assert!(err.contains("knows no master"), "{err}");

    // The replica has what the master has, then the master goes.
    let began = std::time::Instant::now();
    while client(ports[1]).get(std::slice::from_ref(&key)).await.ok() != Some(vec![Some(value.clone())]) {
        assert!(began.elapsed() < crate::PATIENCE, "no replication");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(master);
    until(&cache, Result::is_ok).await;
    assert_eq!(cache.get(&[key]).await.unwrap(), [Some(value)], "from the replica, master by now");
    while cache.put(items()).await.is_err() {
        assert!(began.elapsed() < crate::PATIENCE, "no master to write to");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sentinel.kill();
    replica.kill();
}
