//! Memcached: servers by address, by name, and as a cluster tells of them.

use std::time::Duration;

use chronolith_cache::{Backend, Memcached, MemcachedOptions};
use chronolith_testkit::{Process, free_port};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};

use crate::{is_installed, items, keeps_values, until};

fn server(port: u16) -> Process {
    let args = ["-l", "127.0.0.1", "-p", &port.to_string(), "-U", "0", "-u", "nobody", "-m", "16"];
    Process::builder("memcached").args(args).spawn()
}

pub(super) fn client(ports: &[u16]) -> Memcached {
    let options = MemcachedOptions {
        addresses: ports.iter().map(|port| format!("127.0.0.1:{port}")).collect(),
        idle_connections_max: 10,
        concurrency: 4,
        batch_keys_max: 32,
        ttl: Duration::from_secs(3600),
        ..MemcachedOptions::default()
    };
    Memcached::new(options).unwrap()
}

#[tokio::test]
async fn memcached_keeps_values() {
    if !is_installed("memcached") {
        return;
    }
    let ports = [free_port(), free_port()];
    let mut servers = ports.map(server);
    keeps_values(&client(&ports)).await;
    // Both have some, and each key is on one of them only.
    let keys: Vec<String> = items().into_iter().map(|(key, _)| key).collect();
    let mut counts = Vec::new();
    for port in ports {
        let got = client(&[port]).get(&keys).await.unwrap();
        counts.push(got.iter().flatten().count());
    }
    assert!(counts[0] > 80 && counts[1] > 80 && counts[0] + counts[1] == keys.len(), "{counts:?}");
    for server in &mut servers {
        server.kill();
    }
}

#[tokio::test]
async fn a_name_stands_for_its_servers() {
    if !is_installed("memcached") {
        return;
    }
    let port = free_port();
    let mut server = server(port);
    let options = MemcachedOptions {
        addresses: vec![format!("dns+localhost:{port}")],
        // Of the name's addresses only one may have a server: the others' keys are errors.
        lookup_interval: Duration::from_secs(60),
        idle_connections_max: 2,
        concurrency: 1,
        ttl: Duration::from_secs(60),
        ..MemcachedOptions::default()
    };
    let client = Memcached::new(options).unwrap();
    let plain = super::memcached::client(&[port]);
    crate::until_it_answers(&plain).await;
    let mut stored = 0;
    for (key, value) in items().into_iter().take(20) {
        if client.put(vec![(key.clone(), value.clone())]).await.is_ok() {
            assert_eq!(plain.get(&[key]).await.unwrap(), [Some(value)]);
            stored += 1;
        }
    }
    assert!(stored > 0);
    server.kill();
}

/// Amazon's answer to who is in a cluster.
async fn node(listener: tokio::net::TcpListener, nodes: std::sync::Arc<parking_lot::Mutex<String>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut stream = BufStream::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).await.is_ok_and(|n| n > 0) {
            let answer = match line.trim_end() {
                "config get cluster" => {
                    let text = format!("1\n{}\n", nodes.lock());
                    format!("CONFIG cluster 0 {}\r\n{text}\r\nEND\r\n", text.len())
                }
                _ => "ERROR\r\n".to_owned(),
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            line.clear();
        }
    }
}

#[tokio::test]
async fn a_cluster_tells_of_its_servers_and_of_new_ones() {
    if !is_installed("memcached") {
        return;
    }
    let ports = [free_port(), free_port()];
    let mut servers = ports.map(server);
    for port in ports {
        crate::until_it_answers(&client(&[port])).await;
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let told = std::sync::Arc::new(parking_lot::Mutex::new(format!("127.0.0.1||{}", ports[0])));
    let node = tokio::spawn(node(listener, told.clone()));
    let options = MemcachedOptions {
        addresses: vec![address],
        auto_discovery: true,
        lookup_interval: Duration::from_millis(20),
        idle_connections_max: 10,
        concurrency: 4,
        batch_keys_max: 32,
        ttl: Duration::from_secs(60),
    };
    let discovered = Memcached::new(options).unwrap();
    keeps_values(&discovered).await;
    let keys: Vec<String> = items().into_iter().map(|(key, _)| key).collect();
    let on = async |port: u16| client(&[port]).get(&keys).await.unwrap().iter().flatten().count();
    assert_eq!((on(ports[0]).await, on(ports[1]).await), (keys.len(), 0));

    *told.lock() = format!("127.0.0.1||{} |127.0.0.1|{}", ports[0], ports[1]);
    let began = std::time::Instant::now();
    while on(ports[1]).await < 80 {
        assert!(began.elapsed() < crate::PATIENCE, "the new server gets nothing");
        discovered.put(items()).await.unwrap();
    }
    // What is asked for is found on both.
    until(&discovered, |answer| answer.is_ok()).await;
    assert_eq!(discovered.get(&keys).await.unwrap().iter().flatten().count(), keys.len());
    node.abort();
    for server in &mut servers {
        server.kill();
    }
}
