//! Requests that say which replica they are: a sender that replicates by itself, or an older receiver in front.

use axum::http::{HeaderMap, HeaderName};
use chronolith_storeapi::WriteWay;

use super::reply::Refusal;

/// Thanos's name for the header.
pub const REPLICA_HEADER: HeaderName = HeaderName::from_static("thanos-replica");

/// What the header may say. A receiver that only forwards, or only keeps, does not read it.
#[derive(Clone, Debug)]
pub struct ReplicaHeader {
    /// `--receive.replica-header`.
    pub name: HeaderName,
    /// The largest number.
    pub replication_factor: usize,
}

impl ReplicaHeader {
    /// Which way a request goes. The header counts from 1; 0 and nothing mean that it is not replicated yet.
    pub(super) fn way(&self, headers: &HeaderMap) -> Result<WriteWay, Refusal> {
        let Some(value) = headers.get(&self.name).filter(|v| !v.is_empty()) else {
            return Ok(WriteWay::Fresh);
        };
        let text = String::from_utf8_lossy(value.as_bytes());
        let Ok(number) = text.parse::<u64>() else {
            return Err(Refusal::Replica(format!("could not parse replica header {text:?}")));
        };
        match usize::try_from(number) {
            Ok(0) => Ok(WriteWay::Fresh),
            Ok(n) if n <= self.replication_factor => Ok(WriteWay::Replica(n - 1)),
            _ => Err(Refusal::Replica(format!(
                "request replica {number} exceeds receiver replication factor {}",
                self.replication_factor
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_counted_from_one() {
        let header = ReplicaHeader { name: REPLICA_HEADER, replication_factor: 3 };
        let way = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REPLICA_HEADER, text.parse().unwrap());
            header.way(&headers).map_err(|e| e.to_string())
        };
        assert_eq!(header.way(&HeaderMap::new()).unwrap(), WriteWay::Fresh);
        assert_eq!((way(""), way("0")), (Ok(WriteWay::Fresh), Ok(WriteWay::Fresh)));
        assert_eq!((way("1"), way("3")), (Ok(WriteWay::Replica(0)), Ok(WriteWay::Replica(2))));
        assert_eq!(way("4"), Err("request replica 4 exceeds receiver replication factor 3".into()));
        assert_eq!(way("-1"), Err("could not parse replica header \"-1\"".into()));
    }
}
