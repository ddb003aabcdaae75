//! Which memcached servers there are: those of the settings, those that a name stands for, those that a cluster tells of.
//!
//! Names and clusters are looked up when somebody asks for the servers and what is known is older than the interval; nobody
//! waits for that but the first. A source that does not answer keeps the servers that it had.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::Instant;

use crate::CacheError;

/// For one source.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// A cluster of thousands of nodes tells less.
const CLUSTER_BYTES_MAX: usize = 1 << 20;

/// The addresses of all servers, sorted, each once.
pub(crate) type Addresses = Arc<[Arc<str>]>;

#[derive(Debug)]
pub(crate) struct Servers {
    sources: Vec<Source>,
    /// Age at which what is known is looked up again.
    interval: Duration,
    known: RwLock<Known>,
    /// One caller looks.
    looking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Debug)]
enum Source {
    /// `host:port` of one server.
    Address(String),
    /// `host:port`, each of whose addresses is a server.
    Name(String),
    /// `host:port` of a node that tells of the others.
    Cluster(String),
}

#[derive(Debug, Default)]
struct Known {
    /// In the order of the sources.
    by_source: Vec<Vec<String>>,
    all: Addresses,
    /// `None` before the first look.
    until: Option<Instant>,
}

impl Servers {
    /// Of addresses as in the settings. Errors: none, or a kind of address that is not supported.
    pub(crate) fn new(
        addresses: &[String],
        auto_discovery: bool,
        interval: Duration,
    ) -> Result<Self, CacheError> {
        let source = |address: &String| match address.split_once('+') {
            _ if auto_discovery => Ok(Source::Cluster(address.clone())),
            None => Ok(Source::Address(address.clone())),
            Some(("dns" | "dnsdualstack", name)) => Ok(Source::Name(name.to_owned())),
            Some((kind, _)) => {
                let text = format!("memcached: {address}: {kind}+ is not supported, use dns+host:port");
                Err(CacheError::Settings(text))
            }
        };
        let sources = addresses.iter().map(source).collect::<Result<Vec<_>, _>>()?;
        if sources.is_empty() {
            return Err(CacheError::Settings("memcached: no addresses".to_owned()));
        }
        let by_source = sources.iter().map(|source| match source {
            Source::Address(address) => vec![address.clone()],
            Source::Name(_) | Source::Cluster(_) => Vec::new(),
        });
        let by_source: Vec<Vec<String>> = by_source.collect();
        let known = RwLock::new(Known { all: all(&by_source), by_source, until: None });
        Ok(Servers { sources, interval, known, looking: Arc::default() })
    }

    /// The servers there are now. Errors: none is known.
    pub(crate) async fn current(self: &Arc<Self>) -> Result<Addresses, CacheError> {
        if self.sources.iter().all(|s| matches!(s, Source::Address(_))) {
            return Ok(self.known.read().all.clone());
        }
        let (known, fresh) = self.known();
        if !fresh {
            let looking = if known.is_none() {
                Some(self.looking.clone().lock_owned().await)
            } else {
                self.looking.clone().try_lock_owned().ok()
            };
            if let Some(looking) = looking
                && !self.known().1
            {
                let this = self.clone();
                // A task, as callers may stop waiting.
                let look = tokio::spawn(async move {
                    let _looking = looking;
                    this.look().await;
                });
                if known.is_none() {
                    let _ = look.await;
                }
            }
        }
        let none = || CacheError::Settings("memcached: no server was found".to_owned());
        self.known().0.ok_or_else(none)
    }

    /// The servers, `None` without any, and whether they were looked up lately.
    fn known(&self) -> (Option<Addresses>, bool) {
        let known = self.known.read();
        let all = (!known.all.is_empty()).then(|| known.all.clone());
        (all, known.until.is_some_and(|until| Instant::now() < until))
    }

    async fn look(&self) {
        let looks = self.sources.iter().map(async |source| {
            let look = async {
                match source {
                    Source::Address(address) => Ok(vec![address.clone()]),
                    Source::Name(name) => Ok(lookup_host(name).await?.map(|a| a.to_string()).collect()),
                    Source::Cluster(address) => nodes(address).await,
                }
            };
            match tokio::time::timeout(LOOK_MAX, look).await {
                Ok(found) => found,
                Err(_) => Err(CacheError::Io(std::io::ErrorKind::TimedOut.into())),
            }
        });
        let found = futures::future::join_all(looks).await;
        let mut known = self.known.write();
        for (source, (before, found)) in self.sources.iter().zip(known.by_source.iter_mut().zip(found)) {
            match found {
                Ok(found) => *before = found,
                Err(err) => {
                    tracing::warn!(?source, %err, "memcached servers not looked up, those known stay")
                }
            }
        }
        known.all = all(&known.by_source);
        known.until = Some(Instant::now() + self.interval);
    }
}

fn all(by_source: &[Vec<String>]) -> Addresses {
    let mut all: Vec<Arc<str>> = by_source.iter().flatten().map(|a| Arc::from(a.as_str())).collect();
    all.sort_unstable();
    all.dedup();
    all.into()
}

/// Asks a node for its cluster, as Amazon ElastiCache and its like answer: a version, and `name|ip|port` of each node.
async fn nodes(address: &str) -> Result<Vec<String>, CacheError> {
    let mut c = BufStream::new(TcpStream::connect(address).await?);
    c.write_all(b"config get cluster\r\n").await?;
    c.flush().await?;
    let mut head = Vec::new();
    (&mut c).take(4096).read_until(b'\n', &mut head).await?;
    let head = String::from_utf8_lossy(&head).trim_end().to_owned();
    let len = head.strip_prefix("CONFIG cluster ").and_then(|rest| rest.rsplit(' ').next()?.parse().ok());
    let Some(len) = len.filter(|len: &usize| *len <= CLUSTER_BYTES_MAX) else {
        return Err(CacheError::Protocol(format!("{address} answers {head:?} when asked for its cluster")));
    };
    let mut text = vec![0; len];
    c.read_exact(&mut text).await?;
    parse_nodes(&String::from_utf8_lossy(&text))
        .ok_or_else(|| CacheError::Protocol(format!("{address} tells of its cluster in an unknown form")))
}

fn parse_nodes(text: &str) -> Option<Vec<String>> {
    let mut lines = text.lines();
    lines.next()?.trim().parse::<u64>().ok()?;
    let node = |node: &str| {
        let mut parts = node.split('|');
        let (name, ip, port) = (parts.next()?, parts.next()?, parts.next()?.parse::<u16>().ok()?);
        let host = if name.is_empty() { ip } else { name };
        (parts.next().is_none() && !host.is_empty()).then(|| format!("{host}:{port}"))
    };
    lines.next()?.split_whitespace().map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_s_text_is_read() {
        let text = "12\nn1.example|10.0.0.1|11211 |10.0.0.2|11212\n";
        assert_eq!(parse_nodes(text).unwrap(), ["n1.example:11211", "10.0.0.2:11212"]);
        for bad in ["", "12", "x\na|b|1\n", "1\na|b\n", "1\na|b|port\n", "1\n||1\n", "1\na|b|1|c\n"] {
            assert_eq!(parse_nodes(bad), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn names_become_their_addresses_and_stay_when_a_look_fails() {
        let list = ["dns+localhost:1".to_owned(), "b:2".to_owned(), "b:2".to_owned()];
        let servers = Arc::new(Servers::new(&list, false, Duration::ZERO).unwrap());
        // Before a name is known the others serve.
        let first = servers.current().await.unwrap();
        assert!(first.iter().any(|a| &**a == "b:2"));
        servers.look().await;
        let found = servers.current().await.unwrap();
        assert!(found.iter().any(|a| &**a == "127.0.0.1:1" || &**a == "[::1]:1"), "{found:?}");
        assert_eq!(found.iter().filter(|a| &***a == "b:2").count(), 1, "{found:?}");

        // Nobody listens there any more.
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let servers = Arc::new(Servers::new(&[gone], true, Duration::ZERO).unwrap());
        assert!(servers.current().await.is_err());
        servers.known.write().by_source[0] = vec!["c:3".to_owned()];
        servers.look().await;
        assert_eq!(servers.current().await.unwrap().iter().map(|a| &**a).collect::<Vec<_>>(), ["c:3"]);
    }

    #[test]
    fn other_kinds_of_addresses_are_named() {
        let err = Servers::new(&["dnssrv+a".to_owned()], false, Duration::ZERO).unwrap_err().to_string();
        assert!(err.contains("dnssrv+"), "{err}");
        assert!(Servers::new(&[], false, Duration::ZERO).is_err());
    }
}
