//! The clients against Debian's memcached and redis-server. Skipped, with a message, where these are not installed.

mod memcached;
mod redis;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chronolith_cache::{Backend, CacheError, CacheMetrics, GuardOptions, GuardedCache};

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

/// A bound against hanging, not an expectation.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until `done` likes what it is told.
async fn until(backend: &dyn Backend, done: impl Fn(&Result<Vec<Option<Bytes>>, CacheError>) -> bool) {
    let began = Instant::now();
    loop {
        let answer = backend.get(&["none".to_owned()]).await;
        if done(&answer) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain, at last for {answer:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until_it_answers(backend: &dyn Backend) {
    until(backend, Result::is_ok).await;
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

#[tokio::test]
async fn a_server_that_never_answers_costs_a_bounded_wait() {
    // Connections are taken by the kernel and nobody reads from them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let options = GuardOptions { get_timeout: Duration::from_millis(20), ..GuardOptions::default() };
    for backend in [
        Arc::new(memcached::client(&[port])) as Arc<dyn Backend>,
        Arc::new(redis::client(port)) as Arc<dyn Backend>,
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
