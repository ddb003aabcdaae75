//! Memcached by its text protocol.
//!
//! A key lives on one server, chosen by jump hash over the sorted addresses ([`Servers`]), so that a server more or less moves few
//! keys.
//! Connections are kept between calls; one on which anything went wrong, or whose caller stopped waiting, is closed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use xxhash_rust::xxh64::xxh64;

use crate::servers::{Addresses, Servers};
use crate::{Backend, CacheError};

/// Protocol's bound on a key.
const KEY_BYTES_MAX: usize = 250;
/// Keys of one request where the settings give no bound.
const KEYS_MAX: usize = 1000;
/// A value larger than this is none of ours.
const VALUE_BYTES_MAX: usize = 64 << 20;

/// Settings of a [`Memcached`].
#[derive(Clone, Debug, Default)]
pub struct MemcachedOptions {
    /// `host:port` of each server; `dns+host:port` for every address that the name has.
    pub addresses: Vec<String>,
    /// The addresses are of nodes that tell of all others, as Amazon ElastiCache's.
    pub auto_discovery: bool,
    /// Between looks for the addresses of names and the nodes of clusters.
    pub lookup_interval: Duration,
    /// Connections kept open, of all servers together.
    pub idle_connections_max: usize,
    /// Requests of one call at a time.
    pub concurrency: usize,
    /// Keys of one request; 0 for our own bound.
    pub batch_keys_max: usize,
    /// How long values live.
    pub ttl: Duration,
}

type Connection = BufStream<TcpStream>;

/// Values on memcached servers.
#[derive(Debug)]
pub struct Memcached {
    options: MemcachedOptions,
    servers: Arc<Servers>,
    idle: Mutex<Vec<(Arc<str>, Connection)>>,
}

impl Memcached {
    /// A client that has not connected yet. Errors: no address, or one of a kind that is not supported.
    pub fn new(options: MemcachedOptions) -> Result<Self, CacheError> {
        let servers = Servers::new(&options.addresses, options.auto_discovery, options.lookup_interval)?;
        Ok(Memcached { options, servers: Arc::new(servers), idle: Mutex::default() })
    }

    async fn connection(&self, server: &Arc<str>) -> Result<Connection, CacheError> {
        let idle = {
            let mut idle = self.idle.lock();
            let at = idle.iter().rposition(|(s, _)| s == server);
            at.map(|at| idle.remove(at).1)
        };
        match idle {
            Some(connection) => Ok(connection),
            None => {
                let stream = TcpStream::connect(&**server).await?;
                stream.set_nodelay(true)?;
                Ok(BufStream::new(stream))
            }
        }
    }

    fn keep(&self, server: Arc<str>, connection: Connection) {
        let mut idle = self.idle.lock();
        if self.options.idle_connections_max > 0 {
            // The one that was not used for longest makes room: its server may be none any more.
            if idle.len() >= self.options.idle_connections_max {
                idle.remove(0);
            }
            idle.push((server, connection));
        }
    }

    async fn get_from(
        &self,
        server: Arc<str>,
        keys: Vec<String>,
    ) -> Result<HashMap<String, Bytes>, CacheError> {
        let mut c = self.connection(&server).await?;
        c.write_all(format!("get {}\r\n", keys.join(" ")).as_bytes()).await?;
        c.flush().await?;
        let mut found = HashMap::new();
        loop {
            let line = read_line(&mut c).await?;
            if line == "END" {
                break;
            }
            let mut words = line.split(' ');
            let (Some("VALUE"), Some(key), Some(_flags), Some(len)) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                return Err(CacheError::Protocol(format!("memcached answers {line:?} to a get")));
            };
            let len: usize = len.parse().unwrap_or(usize::MAX);
            if len > VALUE_BYTES_MAX {
                return Err(CacheError::Protocol(format!("memcached answers with {len} bytes for {key}")));
            }
            let mut value = vec![0; len + 2];
            c.read_exact(&mut value).await?;
            value.truncate(len);
            found.insert(key.to_owned(), value.into());
        }
        self.keep(server, c);
        Ok(found)
    }

    async fn put_to(&self, server: Arc<str>, items: Vec<(String, Bytes)>) -> Result<(), CacheError> {
        let mut c = self.connection(&server).await?;
        // Longer than a month would be read as a date.
        let ttl = self.options.ttl.as_secs().min(30 * 86_400);
        for (key, value) in &items {
            c.write_all(format!("set {key} 0 {ttl} {}\r\n", value.len()).as_bytes()).await?;
            c.write_all(value).await?;
            c.write_all(b"\r\n").await?;
        }
        c.flush().await?;
        let mut refused = None;
        for _ in &items {
            let line = read_line(&mut c).await?;
            match line.as_str() {
                "STORED" | "NOT_STORED" => {}
                // The value was read and thrown away: the next answer belongs to the next item.
                text if text.starts_with("SERVER_ERROR") => refused = Some(line),
                _ => return Err(CacheError::Protocol(format!("memcached answers {line:?} to a set"))),
            }
        }
        self.keep(server, c);
        match refused {
            Some(line) => Err(CacheError::Protocol(format!("memcached answers {line:?} to a set"))),
            None => Ok(()),
        }
    }
}

/// The items of each server.
fn by_server<T>(
    servers: &Addresses,
    items: impl IntoIterator<Item = T>,
    key: impl Fn(&T) -> &str,
) -> Vec<(Arc<str>, Vec<T>)> {
    let mut groups: HashMap<usize, Vec<T>> = HashMap::new();
    for item in items {
        let server = jump_hash(xxh64(key(&item).as_bytes(), 0), servers.len());
        groups.entry(server).or_default().push(item);
    }
    groups.into_iter().map(|(server, items)| (servers[server].clone(), items)).collect()
}

async fn read_line(c: &mut Connection) -> Result<String, CacheError> {
    const LINE_BYTES_MAX: u64 = 4096;
    let mut line = Vec::new();
    c.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
    match line.strip_suffix(b"\r\n") {
        Some(text) => Ok(String::from_utf8_lossy(text).into_owned()),
        None => Err(CacheError::Protocol("memcached's answer ends early".to_owned())),
    }
}

fn is_key(key: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic())
}

/// Lamping and Veach's jump consistent hash.
fn jump_hash(mut key: u64, buckets: usize) -> usize {
    let (mut b, mut j) = (0i64, 0i64);
    while j < buckets as i64 {
        b = j;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        j = ((b + 1) as f64 * ((1i64 << 31) as f64 / ((key >> 33) + 1) as f64)) as i64;
    }
    b as usize
}

#[async_trait]
impl Backend for Memcached {
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, CacheError> {
        let batch = if self.options.batch_keys_max > 0 { self.options.batch_keys_max } else { KEYS_MAX };
        let servers = self.servers.current().await?;
        let groups = by_server(&servers, keys.iter().filter(|k| is_key(k)), |k| k.as_str());
        let mut batches: Vec<(Arc<str>, Vec<String>)> = Vec::new();
        for (server, keys) in groups {
            let of_batch = |k: &[&String]| (server.clone(), k.iter().map(|k| (*k).clone()).collect());
            batches.extend(keys.chunks(batch).map(of_batch));
        }
        let reads = futures::stream::iter(batches)
            .map(|(server, keys)| self.get_from(server, keys))
            .buffer_unordered(self.options.concurrency.max(1));
        let found: Vec<HashMap<String, Bytes>> = reads.try_collect().await?;
        Ok(keys.iter().map(|key| found.iter().find_map(|f| f.get(key)).cloned()).collect())
    }

    async fn put(&self, items: Vec<(String, Bytes)>) -> Result<(), CacheError> {
        let items = items.into_iter().filter(|(key, _)| is_key(key));
        let servers = self.servers.current().await?;
        for (server, items) in by_server(&servers, items, |(key, _)| key.as_str()) {
            self.put_to(server, items).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_keys_move_when_a_server_is_added() {
        let at = |n: usize| (0..10_000u64).map(move |k| jump_hash(xxh64(&k.to_be_bytes(), 0), n));
        let moved = at(4).zip(at(5)).filter(|(a, b)| a != b).count();
        assert!((1500..2500).contains(&moved), "{moved} of 10,000 keys moved, a fifth should");
        for server in 0..5 {
            let keys = at(5).filter(|s| *s == server).count();
            assert!((1700..2300).contains(&keys), "{keys} keys on server {server}");
        }
        assert!(at(1).all(|s| s == 0));
    }

    #[test]
    fn keys_that_would_break_the_protocol_are_none() {
        assert!(is_key("ch1:S:01ARZ3NDEKTSV4RRFFQ69G5FAV:77"));
        for key in ["", "a b", "a\r\nset x", "ä", &"x".repeat(251)] {
            assert!(!is_key(key), "{key:?}");
        }
    }
}
