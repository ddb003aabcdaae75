//! One write request on its way to its receivers.
//!
//! ```text
//! shares ─ answers ─ tally ─┬─ every series has its quorum ─ answered; the rest goes on behind the answer ─ hints
//!                           ├─ it can no longer have it ─ refused
//!                           └─ unavailable receivers are all that is missing ─ hints take their place, or they are asked again
//! ```
//!
//! A request is answered as soon as every series has its quorum, or can no longer have it; what is still under way then is
//! awaited by a task, so that a receiver which fails late gets its hint. Those tasks are bounded by the peers' queues and timeouts.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chronolith_storeapi::{ErrorKind, PeerShare, StoreError, WriteError, WriteReport, WriteWay};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::peer::{Answer, Peer};
use super::sink::RingSink;
use super::tally::{Failure, Here, Tally, Units};

/// How long a request that lacks its quorum asks unavailable receivers again before it is refused: longer than a receiver that
/// came back is left alone at first, shorter than writers wait.
const PATIENCE: Duration = Duration::from_secs(2);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

type PendingAnswer = Pin<Box<dyn Future<Output = (usize, Result<WriteReport, WriteError>)> + Send>>;

/// A share that was sent.
struct Sent {
    units: Option<Vec<u32>>,
    /// Whom; `None` for this receiver.
    to: Option<(Arc<Peer>, PeerShare)>,
}

/// A request on its way to its receivers.
pub(super) struct Fanout {
    sink: Arc<RingSink>,
    shares: Vec<Sent>,
    tally: Tally,
    here: Here,
    pending: FuturesUnordered<PendingAnswer>,
    /// Shares whose receiver was unavailable.
    failed: Vec<usize>,
    /// What the first failure of each class said.
    said: Vec<(Failure, Result<WriteReport, WriteError>)>,
    /// What the answer says when all is stored.
    stored: WriteReport,
    /// Another receiver has taken care of the other replicas.
    replicated_already: bool,
    /// How long unavailable receivers are asked again.
    patience: Duration,
    /// A hint could not be kept; no more are tried for the quorum.
    hints_failed: bool,
}

impl Fanout {
    /// A request none of whose shares is on its way yet. `stored` is what the answer says when all is stored.
    pub(super) fn new(sink: Arc<RingSink>, tally: Tally, stored: WriteReport, way: WriteWay) -> Self {
        let patience = match way {
            // Whoever sends what has waited comes again by himself.
            WriteWay::Late => Duration::ZERO,
            WriteWay::Fresh | WriteWay::Replica(_) => PATIENCE.min(sink.options.timeout),
        };
        Fanout {
            sink,
            shares: Vec::new(),
            here: Here::none(tally.units()),
            tally,
            pending: FuturesUnordered::new(),
            failed: Vec::new(),
            said: Vec::new(),
            stored,
            replicated_already: matches!(way, WriteWay::Replica(_)),
            patience,
            hints_failed: false,
        }
    }

    /// Notes this receiver's own share and gives it a number, with which the caller hands in the answer.
    pub(super) fn keep_here(&mut self, units: Option<Vec<u32>>) -> usize {
        self.here.add_all(units.as_deref());
        self.shares.push(Sent { units, to: None });
        self.shares.len() - 1
    }

    /// Which units a share is.
    pub(super) fn units(&self, i: usize) -> Units<'_> {
        self.shares[i].units.as_deref()
    }

    /// Queues a peer's share.
    pub(super) fn send(&mut self, peer: Arc<Peer>, share: PeerShare, units: Option<Vec<u32>>) {
        let queued = peer.send(share.clone(), self.replicated_already);
        self.shares.push(Sent { units, to: Some((peer, share)) });
        self.await_queued(self.shares.len() - 1, queued);
    }

    fn await_queued(&mut self, i: usize, queued: Result<Answer, StoreError>) {
        let lost = || Err(StoreError::unavailable("the peer left the hashring"));
        self.await_answer(i, async move { queued?.await.unwrap_or_else(|_| lost()) });
    }

    /// The answer to a share will be this.
    pub(super) fn await_answer(
        &mut self,
        i: usize,
        answer: impl Future<Output = Result<WriteReport, WriteError>> + Send + 'static,
    ) {
        self.pending.push(Box::pin(async move { (i, answer.await) }));
    }

    /// Waits for the quorum or its impossibility.
    pub(super) async fn answer(mut self) -> Result<WriteReport, WriteError> {
        let patient_until = Instant::now() + self.patience;
        loop {
            while !self.tally.is_decided() {
                match self.pending.next().await {
                    Some((i, answer)) => self.count(i, answer),
                    None => break,
                }
            }
            self.hint_for_quorum().await;
            if self.tally.is_decided() || Instant::now() >= patient_until || !self.would_help_to_ask_again() {
                break;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            self.send_failed_again();
        }
        if let Some(failure) = self.tally.verdict() {
            return self.failure(failure);
        }
        let report = self.stored.clone();
        if !self.pending.is_empty() || !self.failed.is_empty() {
            let tracker = self.sink.unfinished.clone();
            self.sink.metrics.late_answers.inc();
            tracker.spawn(async move {
                while let Some((i, answer)) = self.pending.next().await {
                    self.count(i, answer);
                }
                for i in std::mem::take(&mut self.failed) {
                    // A failure is counted and the receiver misses the share: the quorum has it.
                    let _ = self.hint(i).await;
                }
                self.sink.metrics.late_answers.dec();
            });
        }
        Ok(report)
    }

    /// Asks the unavailable receivers once more, also those that are being left alone: in a rolling restart the one that has
    /// just come back is still left alone when the next one goes, and then there would be no quorum for a moment.
    fn send_failed_again(&mut self) {
        for i in std::mem::take(&mut self.failed) {
            let Some((peer, share)) = &self.shares[i].to else { continue };
            self.tally.take_back_unavailable(self.shares[i].units.as_deref());
            let queued = peer.send_anyway(share.clone(), self.replicated_already);
            self.await_queued(i, queued);
        }
    }

    /// Unavailable receivers are all that is missing.
    fn would_help_to_ask_again(&self) -> bool {
        let units: Vec<Units<'_>> = self.failed.iter().map(|i| self.units(*i)).collect();
        self.tally.would_be_stored_with(&units)
    }

    /// Where unavailable receivers are all that is missing, hints may take their place.
    async fn hint_for_quorum(&mut self) {
        let none = self.sink.handoff.is_none() || self.hints_failed || self.failed.is_empty();
        if none || self.tally.is_stored() {
            return;
        }
        let units: Vec<Units<'_>> = self.failed.iter().map(|i| self.units(*i)).collect();
        if !self.tally.would_be_stored_by_hints(&units, &self.here) {
            return;
        }
        let failed = std::mem::take(&mut self.failed);
        let kept = futures::future::join_all(failed.iter().map(|i| self.hint(*i))).await;
        for (i, kept) in failed.into_iter().zip(kept) {
            match kept {
                Ok(()) => self.tally.replace_by_hint(self.shares[i].units.as_deref(), &mut self.here),
                Err(error) => {
                    self.said.insert(0, (Failure::Unavailable, Err(error)));
                    self.failed.push(i);
                    self.hints_failed = true;
                }
            }
        }
    }

    /// Keeps a hint for the receiver of a share.
    fn hint(&self, i: usize) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let to = self.shares[i].to.clone();
        let handoff = self.sink.handoff.clone();
        async move {
            match (handoff, to) {
                (Some(handoff), Some((peer, share))) => {
                    handoff.keep(peer.address(), &share.tenant, &share.batch).await
                }
                _ => Ok(()),
            }
        }
    }

    fn count(&mut self, i: usize, answer: Result<WriteReport, WriteError>) {
        let share = &self.shares[i];
        let failure = Failure::of(&answer);
        self.tally.add(share.units.as_deref(), failure);
        let Some(failure) = failure else { return };
        if failure == Failure::Unavailable && share.to.is_some() {
            self.failed.push(i);
        }
        if self.said.iter().all(|(said, _)| *said != failure) {
            self.said.push((failure, answer));
        }
    }

    /// The answer for a request that failed: what was said first in the verdict's class.
    fn failure(self, verdict: Failure) -> Result<WriteReport, WriteError> {
        let at = self.said.iter().position(|(said, _)| *said == verdict).unwrap_or(0);
        let answer = self.said.into_iter().nth(at).map(|(_, answer)| answer);
        let text = match &answer {
            Some(Err(error)) => error.chain(),
            Some(Ok(report)) => report.rejections.first().map(|r| r.reason.clone()).unwrap_or_default(),
            None => String::new(),
        };
        let kind = match verdict {
            Failure::Unavailable => ErrorKind::Unavailable,
            Failure::Internal => ErrorKind::Internal,
            // A receiver's own words: which samples, and why.
            _ => return answer.unwrap_or_else(|| Err(StoreError::internal("a failure without an answer"))),
        };
        Err(StoreError::new(kind, format!("too few receivers took the request: {text}")))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chronolith_model::{TenantId, WriteBatchBuilder};
    use chronolith_service::metrics::Registry;
    use chronolith_storeapi::encode_batch;
    use chronolith_testkit::free_port;

    use crate::forward::{ForwardOptions, RingSink};
    use crate::hashring::parse;

    #[tokio::test]
    async fn what_has_waited_already_is_tried_once() {
        let mut registry = Registry::default();
        let options = ForwardOptions { timeout: std::time::Duration::from_secs(60), ..Default::default() };
        let sink = RingSink::new(options, None, None, &mut registry);
        sink.set_rings(parse(&format!("[{{\"endpoints\": [\"127.0.0.1:{}\"]}}]", free_port())).unwrap())
            .unwrap();
        let mut builder = WriteBatchBuilder::default();
        builder.start(0);
        builder.push_series_bytes(b"");
        let batch = encode_batch(&builder.finish(Bytes::new()), None);
        let share = super::PeerShare { tenant: TenantId::default(), batch, replicas: None, late: true };
        let results = sink.reroute(vec![share.clone(), share.clone(), share]).await;
        assert!(
            results.len() == 1 && results[0].is_err(),
            "what comes after it would wait in vain: {results:?}"
        );
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("thanos_receive_forward_requests_total{result=\"error\"} 1\n"), "{text}");
    }
}
