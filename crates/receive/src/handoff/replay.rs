//! Sends hints when their receiver is back.
//!
//! One task a receiver goes through its segments, the oldest first, and removes each once all of it was answered. When the receiver
//! fails in between, it goes on later with the call that failed, whose hints are then repeated, which does no harm; after a restart
//! it is the whole segment. So a receiver that answers in time only now and then gets further each time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chronolith_service::shutdown::CancellationToken;
use chronolith_storeapi::{ErrorKind, PeerShare, StoreError, WriteError, WriteReport};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::Handoff;
use super::log::SegmentReader;
use super::record::Hint;
use crate::forward::RingSink;

/// How often a receiver that was away is looked for: shorter than a person waits, longer than a connection takes.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Hints of one call.
const CALL_BYTES: usize = 4 << 20;
const CALL_HINTS: usize = 256;

/// Delivers hints.
#[derive(Debug)]
pub(crate) struct Replay {
    handoff: Arc<Handoff>,
    ring: Arc<RingSink>,
    /// For each receiver the segment it is at, and how many of its hints are done with.
    done: Mutex<HashMap<String, (u64, usize)>>,
}

impl Replay {
    /// Delivers the hints of `handoff` to the peers of `ring`.
    pub(crate) fn new(handoff: Arc<Handoff>, ring: Arc<RingSink>) -> Arc<Self> {
        Arc::new(Replay { handoff, ring, done: Mutex::default() })
    }

    /// Runs until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut tasks: HashMap<String, JoinHandle<()>> = HashMap::new();
        loop {
            tasks.retain(|_, task| !task.is_finished());
            for peer in self.handoff.log.peers() {
                if !tasks.contains_key(&peer) && self.ring.may_ask(&peer) {
                    let (replay, name) = (Arc::clone(&self), peer.clone());
                    tasks.insert(peer, tokio::spawn(async move { replay.drain(&name).await }));
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
        // What was not answered stays in the log.
        tasks.into_values().for_each(|task| task.abort());
    }

    /// Returns when nothing waits any more, delivered by [`Replay::run`]; after `patience` with whom something waits for.
    pub(crate) async fn delivered(&self, patience: Duration) -> Result<(), Vec<String>> {
        let deadline = Instant::now() + patience;
        loop {
            let peers = self.handoff.waiting();
            if peers.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(peers);
            }
            tokio::time::sleep(LOOK_INTERVAL / 5).await;
        }
    }

    /// Sends what waits for a peer, until nothing does or the peer fails.
    async fn drain(&self, peer: &str) {
        let before = self.handoff.stats(peer).bytes;
        while let Some(segment) = self.handoff.log.oldest(peer).await {
            if let Err(error) = self.deliver(peer, segment).await {
                tracing::debug!(peer, err = %error.chain(), "hints could not be delivered yet");
                return;
            }
            let (log, name) = (Arc::clone(&self.handoff.log), peer.to_owned());
            let removed = tokio::task::spawn_blocking(move || log.remove(&name, segment)).await;
            if let Ok(Err(error)) = removed {
                tracing::error!(peer, segment, err = %error, "delivered hints could not be removed");
                return;
            }
            self.done.lock().remove(peer);
        }
        tracing::info!(peer, bytes = before, "hints delivered");
    }

    async fn deliver(&self, peer: &str, segment: u64) -> Result<(), StoreError> {
        let failed = |e: String| StoreError::internal(format!("reading hints of {peer}: {e}"));
        let (log, name) = (Arc::clone(&self.handoff.log), peer.to_owned());
        let mut done = match self.done.lock().get(peer) {
            Some((of, done)) if *of == segment => *done,
            _ => 0,
        };
        let open = move || {
            let mut opened = log.read(&name, segment)?;
            if let Some(reader) = &mut opened {
                for _ in 0..done {
                    reader.next_body()?;
                }
            }
            Ok::<_, std::io::Error>(opened)
        };
        let opened = tokio::task::spawn_blocking(open).await;
        let opened = opened.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
        let Some(mut reader) = opened else {
            tracing::warn!(peer, segment, "segment of hints is damaged or gone");
            self.handoff.metrics.replayed("damaged");
            return Ok(());
        };
        loop {
            let read = tokio::task::spawn_blocking(move || next_hints(reader)).await;
            let (hints, rest) =
                read.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
            if hints.is_empty() {
                return Ok(());
            }
            reader = rest;
            done += hints.len();
            self.send(peer, hints).await?;
            self.done.lock().insert(peer.to_owned(), (segment, done));
        }
    }

    async fn send(&self, peer: &str, hints: Vec<Option<Hint>>) -> Result<(), StoreError> {
        let metrics = &self.handoff.metrics;
        let oldest = self.handoff.clock.now_ms().saturating_sub(self.handoff.age_max_ms);
        let mut shares = Vec::with_capacity(hints.len());
        for hint in hints {
            match hint {
                None => metrics.replayed("damaged"),
                Some(hint) if hint.now_ms < oldest => metrics.replayed("aged"),
                Some(Hint { tenant, batch, .. }) => {
                    shares.push(PeerShare { tenant, batch, replicas: None, late: true });
                }
            }
        }
        if shares.is_empty() {
            return Ok(());
        }
        let (results, done) = match self.ring.peer(peer) {
            Some(peer) => (peer.send_now(&shares).await, "delivered"),
            None => (self.ring.reroute(shares).await, "rerouted"),
        };
        for result in results {
            self.count(peer, result, done)?;
        }
        Ok(())
    }

    /// `Err` when the hint must be sent again.
    fn count(
        &self,
        peer: &str,
        result: Result<WriteReport, WriteError>,
        done: &'static str,
    ) -> Result<(), StoreError> {
        match result {
            Ok(report) => {
                self.handoff.metrics.replayed(done);
                self.handoff.metrics.rejected_samples.inc_by(report.rejected as u64);
                Ok(())
            }
            Err(error) => match error.kind() {
                ErrorKind::Conflict | ErrorKind::Invalid | ErrorKind::LimitExceeded => {
                    tracing::warn!(peer, err = %error.chain(), "hint refused");
                    self.handoff.metrics.replayed("refused");
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }
}

/// The next hints of a call; `None` stands for one that cannot be read. Empty at the end.
fn next_hints(mut reader: SegmentReader) -> std::io::Result<(Vec<Option<Hint>>, SegmentReader)> {
    let (mut hints, mut bytes) = (Vec::new(), 0);
    while bytes < CALL_BYTES && hints.len() < CALL_HINTS {
        let Some(body) = reader.next_body()? else { break };
        bytes += body.len();
        hints.push(Hint::from_body(body));
    }
    Ok((hints, reader))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use chronolith_model::{TenantId, WriteBatch, WriteBatchBuilder};
    use chronolith_service::ManualClock;
    use chronolith_service::metrics::Registry;
    use chronolith_storeapi::{WriteSink, WriteWay, encode_batch};

    use super::*;
    use crate::forward::ForwardOptions;
    use crate::handoff::HandoffOptions;
    use crate::hashring::parse;

    /// Fails at one write.
    struct FailsAt(usize, AtomicUsize);

    #[async_trait::async_trait]
    impl WriteSink for FailsAt {
        fn knows_keys(&self) -> bool {
            false
        }

        async fn write_by(
            &self,
            _: &TenantId,
            _: WriteBatch,
            _: WriteWay,
        ) -> Result<WriteReport, WriteError> {
            match self.1.fetch_add(1, Ordering::Relaxed) {
                n if n == self.0 => Err(StoreError::unavailable("for a moment")),
                _ => Ok(WriteReport::default()),
            }
        }
    }

    #[tokio::test]
    async fn what_was_answered_is_not_sent_again_after_a_failure() {
        let (dir, mut registry) = (tempfile::tempdir().unwrap(), Registry::default());
        let options = HandoffOptions { dir: dir.path().to_owned(), ..HandoffOptions::default() };
        let handoff = Handoff::open(&options, Arc::new(ManualClock::new(0)), &mut registry).unwrap();
        let mut builder = WriteBatchBuilder::default();
        builder.start(0);
        builder.push_series_bytes(b"");
        let (tenant, batch) = (TenantId::default(), encode_batch(&builder.finish(Bytes::new()), None));
        let keep = (0..CALL_HINTS + 20).map(|_| handoff.keep("gone:1", &tenant, &batch));
        assert!(futures::future::join_all(keep).await.iter().all(Result::is_ok));
        let local = Arc::new(FailsAt(CALL_HINTS + 10, AtomicUsize::new(0)));
        let options = ForwardOptions { local_endpoint: Some("here:1".to_owned()), ..Default::default() };
        let ring = RingSink::new(options, Some(local.clone()), None, &mut registry);
        ring.set_rings(parse("[{\"endpoints\": [\"here:1\"]}]").unwrap()).unwrap();
        let replay = Replay::new(handoff, ring);
        replay.drain("gone:1").await;
        assert_eq!(local.1.load(Ordering::Relaxed), CALL_HINTS + 11);
        assert_eq!(replay.handoff.log.peers(), ["gone:1"]);
        replay.drain("gone:1").await;
        assert_eq!(local.1.load(Ordering::Relaxed), CALL_HINTS + 11 + 20);
        assert!(replay.handoff.log.peers().is_empty() && replay.done.lock().is_empty());
    }
}
