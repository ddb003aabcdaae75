//! The clients against Debian's memcached and redis-server. Skipped, with a message, where these are not installed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chronolith_cache::{
    Backend, CacheMetrics, GuardOptions, GuardedCache, Memcached, MemcachedOptions, RedisCache, RedisOptions,
};
use chronolith_testkit::{Process, free_port};

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| Path::new(&dir).join(program).is_file());
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Keys and values of several sizes, more than one batch.
fn items() -> Vec<(String, Bytes)> {
    (0..300usize).map(|i| (format!("ch1:S:block:{i}"), Bytes::from(vec![i as u8; i * i % 5000]))).collect()
}

async fn until_it_answers(backend: &dyn Backend) {
    while backend.get(&["none".to_owned()]).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn keeps_values(backend: &dyn Backend) {
    until_it_answers(backend).await;
    backend.put(items()).await.unwrap();
    let mut keys: Vec<String> = items().into_iter().map(|(key, _)| key).collect();
    keys.insert(7, "not there".to_owned());
    keys.push("nor this".to_owned());
    let got = backend.get(&keys).await.unwrap();
    assert_eq!(got.len(), keys.len());
    assert!(got[7].is_none() && got.last().unwrap().is_none());
    let there: Vec<Bytes> = got.into_iter().flatten().collect();
    let want: Vec<Bytes> = items().into_iter().map(|(_, value)| value).collect();
    assert!(there == want, "values or their order differ");
    // What a caller that stopped waiting left of a request must not be the next one's answer.
    for _ in 0..20 {
        let all = keys.clone();
        let _ = tokio::time::timeout(Duration::from_micros(300), backend.get(&all)).await;
        let one = backend.get(&[keys[100].clone()]).await.unwrap();
        assert!(one == [Some(want[99].clone())]);
    }
}

fn memcached(port: u16) -> Process {
    let args = ["-l", "127.0.0.1", "-p", &port.to_string(), "-U", "0", "-u", "nobody", "-m", "16"];
    Process::builder("memcached").args(args).spawn()
}

fn memcached_client(ports: &[u16]) -> Memcached {
    let options = MemcachedOptions {
        addresses: ports.iter().map(|port| format!("127.0.0.1:{port}")).collect(),
        idle_connections_max: 10,
        concurrency: 4,
        batch_keys_max: 32,
        ttl: Duration::from_secs(3600),
    };
    Memcached::new(options).unwrap()
}

#[tokio::test]
async fn memcached_keeps_values() {
    if !is_installed("memcached") {
        return;
    }
    let ports = [free_port(), free_port()];
    let mut servers = ports.map(memcached);
    keeps_values(&memcached_client(&ports)).await;
    // Both have some, and each key is on one of them only.
    let keys: Vec<String> = items().into_iter().map(|(key, _)| key).collect();
    let mut counts = Vec::new();
    for port in ports {
        let got = memcached_client(&[port]).get(&keys).await.unwrap();
        counts.push(got.iter().flatten().count());
    }
    assert!(counts[0] > 80 && counts[1] > 80 && counts[0] + counts[1] == keys.len(), "{counts:?}");
    for server in &mut servers {
        server.kill();
    }
}

fn redis(port: u16, dir: &Path) -> Process {
    let port = port.to_string();
    let args = [
        "--port",
        &port,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--requirepass",
        "secret",
    ];
    Process::builder("redis-server").args(args).dir(dir).spawn()
}

fn redis_client(port: u16) -> RedisCache {
    let options = RedisOptions {
        addresses: vec![format!("127.0.0.1:{port}")],
        prefix: "test:".to_owned(),
        password: "secret".to_owned(),
        db: 3,
        dial_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(5),
        get_batch: 100,
        get_concurrency: 4,
        ttl: Duration::from_secs(3600),
        ..RedisOptions::default()
    };
    RedisCache::new(options).unwrap()
}

#[tokio::test]
async fn redis_keeps_values_and_comes_back() {
    if !is_installed("redis-server") {
        return;
    }
    let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
    let mut server = redis(port, dir.path());
    let client = redis_client(port);
    keeps_values(&client).await;
    server.kill();
    assert!(client.get(&["ch1:S:block:5".to_owned()]).await.is_err());
    let mut server = redis(port, dir.path());
    until_it_answers(&client).await;
    assert_eq!(client.get(&["ch1:S:block:5".to_owned()]).await.unwrap(), [None], "it kept nothing");
    server.kill();
}

#[tokio::test]
async fn a_server_that_never_answers_costs_a_bounded_wait() {
    // Connections are taken by the kernel and nobody reads from them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let options = GuardOptions { get_timeout: Duration::from_millis(20), ..GuardOptions::default() };
    for backend in [
        Arc::new(memcached_client(&[port])) as Arc<dyn Backend>,
        Arc::new(redis_client(port)) as Arc<dyn Backend>,
    ] {
        let cache = GuardedCache::start("test", backend, options.clone(), CacheMetrics::default());
        let keys = ["a".to_owned(), "b".to_owned()];
        let start = std::time::Instant::now();
        for _ in 0..1000 {
            assert_eq!(cache.get(&keys).await, [None, None]);
            cache.put("a".to_owned(), b"x");
        }
        // Five waits of 20 ms, and then none for 5 s.
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    }
}
