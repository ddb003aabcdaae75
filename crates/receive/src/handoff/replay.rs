//! Sends hints when their receiver is back.
//!
//! One task a receiver goes through its segments, the oldest first, and removes each once all of it was answered. When the receiver
//! fails in between, the segment is begun again later: hints are repeated then, which does no harm.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chronolith_service::shutdown::CancellationToken;
use chronolith_storeapi::{ErrorKind, PeerShare, StoreError, WriteError, WriteReport};
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
}

impl Replay {
    /// Delivers the hints of `handoff` to the peers of `ring`.
    pub(crate) fn new(handoff: Arc<Handoff>, ring: Arc<RingSink>) -> Arc<Self> {
        Arc::new(Replay { handoff, ring })
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
        }
        tracing::info!(peer, bytes = before, "hints delivered");
    }

    async fn deliver(&self, peer: &str, segment: u64) -> Result<(), StoreError> {
        let failed = |e: String| StoreError::internal(format!("reading hints of {peer}: {e}"));
        let (log, name) = (Arc::clone(&self.handoff.log), peer.to_owned());
        let opened = tokio::task::spawn_blocking(move || log.read(&name, segment)).await;
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
            self.send(peer, hints).await?;
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
