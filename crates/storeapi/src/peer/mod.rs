//! Writing to another receiver, ours or Thanos's, and being written to by one.
//!
//! ```text
//! shares ─ PeerClient ─┬─ chronolith.Peer: many shares a call, columns (batch), an answer for each     told by Info
//!                      └─ thanos.WriteableStore: one call a share and replica, fields 1 to 3 (series)  everybody else
//! service: both, over a WriteSink of this process
//! ```
//!
//! Which form a peer understands is asked once a connection. A Thanos release up to 0.42 answers success to a form that it does
//! not know and stores nothing, so nothing is guessed: only what Info announces is sent another form than fields 1 to 3.

mod batch;
mod series;
mod service;
mod snappy;

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chronolith_model::TenantId;
use tonic::transport::Channel;

pub(crate) use batch::VERSION as BATCH_VERSION;
pub use batch::{compress_batch, decode_batch, encode_batch};
pub(crate) use service::{peer_service, write_service};

use crate::convert::error_from_status;
use crate::proto::{chronolith as own, thanos, thanos::info};
use crate::{
    ClientOptions, ErrorKind, RejectKind, StoreError, WriteError, WriteRejection, WriteReport, connect_lazy,
};

/// The largest answer of a peer: ten rejections a share, each with a label set.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What one peer is to store of a request.
#[derive(Clone, Debug)]
pub struct PeerShare {
    /// Whose it is.
    pub tenant: TenantId,
    /// A batch as [`encode_batch`] writes it.
    pub batch: Bytes,
    /// Which replica each series is, counted from 0; `None` when all are the first. A Thanos peer places by it.
    pub replicas: Option<Bytes>,
    /// The samples waited for the peer ([`crate::WriteWay::Late`]).
    pub late: bool,
}

/// Which messages a peer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PeerForm {
    /// It was not asked yet.
    Unknown = 0,
    /// `thanos.WriteableStore`.
    Thanos = 1,
    /// `chronolith.Peer`.
    Own = 2,
}

/// A remote receiver.
#[derive(Debug)]
pub struct PeerClient {
    address: String,
    info: info::info_client::InfoClient<Channel>,
    thanos: thanos::writeable_store_client::WriteableStoreClient<Channel>,
    own: own::peer_client::PeerClient<Channel>,
    form: AtomicU8,
    compress: bool,
    info_timeout: Duration,
    timeout: Duration,
}

impl PeerClient {
    /// A client of `host:port` whose calls may take `timeout`. `compress` is for peers over a network; Thanos's form is sent as
    /// it is. Must be called inside a tokio runtime.
    pub fn new(
        address: &str,
        options: &ClientOptions,
        compress: bool,
        timeout: Duration,
    ) -> Result<Self, StoreError> {
        let channel = connect_lazy(address, options)?;
        Ok(PeerClient {
            address: address.to_owned(),
            info: info::info_client::InfoClient::new(channel.clone()),
            thanos: thanos::writeable_store_client::WriteableStoreClient::new(channel.clone()),
            own: own::peer_client::PeerClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX),
            form: AtomicU8::new(PeerForm::Unknown as u8),
            compress,
            info_timeout: options.info_timeout.min(timeout),
            timeout,
        })
    }

    /// Where it is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What is known of the messages that it reads.
    pub fn form(&self) -> PeerForm {
        match self.form.load(Ordering::Relaxed) {
            1 => PeerForm::Thanos,
            2 => PeerForm::Own,
            _ => PeerForm::Unknown,
        }
    }

    /// Asks the peer what it reads, unless that is known since the connection was made.
    pub async fn ask(&self) -> Result<PeerForm, StoreError> {
        match self.form() {
            PeerForm::Unknown => {}
            known => return Ok(known),
        }
        let mut client = self.info.clone();
        let form = match self.within(self.info_timeout, client.info(info::InfoRequest {})).await {
            Ok(answer) => match answer.chronolith_peer {
                Some(peer) if peer.batch_version >= u32::from(BATCH_VERSION) => PeerForm::Own,
                _ => PeerForm::Thanos,
            },
            // A router has no Info.
            Err(error) if error.kind() == ErrorKind::NotFound => PeerForm::Thanos,
            Err(error) => return Err(error),
        };
        self.form.store(form as u8, Ordering::Relaxed);
        Ok(form)
    }

    /// Sends shares and says of each what became of it, in their order. A peer of Thanos's that rejects a part answers with an
    /// error for the whole share; the good part is stored there nevertheless.
    pub async fn write(&self, shares: &[PeerShare]) -> Vec<Result<WriteReport, WriteError>> {
        let results = match self.ask().await {
            Ok(PeerForm::Own) => match self.write_own(shares).await {
                // It was replaced by another program at the same address.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.form.store(PeerForm::Thanos as u8, Ordering::Relaxed);
                    Ok(self.write_thanos(shares).await)
                }
                results => results,
            },
            Ok(_) => Ok(self.write_thanos(shares).await),
            Err(error) => Err(error),
        };
        let results = results.unwrap_or_else(|error| {
            shares.iter().map(|_| Err(StoreError::new(error.kind(), error.chain()))).collect()
        });
        let lost = |r: &Result<_, WriteError>| r.as_ref().is_err_and(|e| e.kind() == ErrorKind::Unavailable);
        if results.iter().any(lost) {
            // Who answers next at this address may be another release.
            self.form.store(PeerForm::Unknown as u8, Ordering::Relaxed);
        }
        results
    }

    async fn write_own(
        &self,
        shares: &[PeerShare],
    ) -> Result<Vec<Result<WriteReport, WriteError>>, StoreError> {
        let part = |share: &PeerShare| own::PeerPart {
            tenant: share.tenant.as_str().to_owned(),
            batch: if self.compress { compress_batch(&share.batch) } else { share.batch.clone() },
            late: share.late,
        };
        let request = own::PeerWriteRequest { parts: shares.iter().map(part).collect() };
        let mut client = self.own.clone();
        let answer = self.within(self.timeout, client.write(request)).await?;
        if answer.results.len() != shares.len() {
            let text =
                format!("{}: {} answers to {} shares", self.address, answer.results.len(), shares.len());
            return Err(StoreError::internal(text));
        }
        Ok(answer.results.into_iter().map(|result| self.report_from(result)).collect())
    }

    fn report_from(&self, result: own::PeerResult) -> Result<WriteReport, WriteError> {
        if result.code != 0 {
            let status = tonic::Status::new(tonic::Code::from(result.code as i32), result.message);
            return Err(error_from_status(status).within(&self.address));
        }
        use own::peer_rejection::Kind;
        let rejection = |r: own::PeerRejection| WriteRejection {
            kind: match r.kind() {
                Kind::Conflict => RejectKind::Conflict,
                Kind::Invalid => RejectKind::Invalid,
                Kind::Limit => RejectKind::LimitExceeded,
            },
            series: r.series,
            t: r.t,
            reason: r.reason,
        };
        let listed = result.rejections.into_iter().take(WriteReport::REJECTIONS_MAX);
        Ok(WriteReport {
            written: result.written as usize,
            rejected: result.rejected as usize,
            rejections: listed.map(rejection).collect(),
            ..WriteReport::default()
        })
    }

    async fn write_thanos(&self, shares: &[PeerShare]) -> Vec<Result<WriteReport, WriteError>> {
        futures::future::join_all(shares.iter().map(|share| self.write_thanos_one(share))).await
    }

    async fn write_thanos_one(&self, share: &PeerShare) -> Result<WriteReport, WriteError> {
        let batch = decode_batch(&share.batch)?;
        let written = batch.sample_count();
        let replica_of = |i: usize| share.replicas.as_ref().and_then(|r| r.get(i).copied()).unwrap_or(0);
        let mut replicas: Vec<u8> = (0..batch.series_count()).map(replica_of).collect();
        replicas.sort_unstable();
        replicas.dedup();
        let calls = replicas.into_iter().map(|replica| {
            let series: Vec<u32> =
                (0..batch.series_count()).filter(|i| replica_of(*i) == replica).map(|i| i as u32).collect();
            // Fields 1 and 2: releases up to 0.42 know nothing else, later ones read them when field 4 is empty.
            let request = thanos::WriteRequest {
                timeseries: series::encode(series.iter().map(|i| batch.series(*i as usize))),
                tenant: share.tenant.as_str().to_owned(),
                replica: i64::from(replica) + 1,
                timeseries_tenant_data: Vec::new(),
            };
            let mut client = self.thanos.clone();
            async move { self.within(self.timeout, client.remote_write(request)).await }
        });
        for result in futures::future::join_all(calls).await {
            result?;
        }
        Ok(WriteReport { written, ..WriteReport::default() })
    }

    async fn within<T>(
        &self,
        timeout: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(timeout, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            // A connection that breaks comes as many codes; the peer itself said none of them.
            Ok(Err(status)) if std::error::Error::source(&status).is_some() => {
                let error = error_from_status(status);
                Err(StoreError::unavailable(format!("{}: {}", self.address, error.chain())))
            }
            Ok(Err(status)) => Err(error_from_status(status).within(&self.address)),
            Err(_) => Err(StoreError::timeout(format!("{}: no answer within {timeout:?}", self.address))),
        }
    }
}

#[cfg(test)]
mod tests {
    use chronolith_model::write::encode_labels;
    use chronolith_model::{
        Exemplar, FloatHistogram, Histogram, Labels, MetricMetadata, Sample, WriteBatch, WriteBatchBuilder,
        WriteHistogram, WriteMetadata,
    };

    use super::*;

    /// Three series; the first has everything, the second nothing, the third one sample.
    pub(super) fn batch_of_everything() -> WriteBatch {
        let mut builder = WriteBatchBuilder::default();
        builder.start(0);
        let mut section = Vec::new();
        encode_labels([("__name__", "x"), ("a", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")], &mut section);
        builder.push_series_bytes(&section);
        builder.push_sample(Sample { t: 0, v: 2.5 });
        builder.push_sample_with_start_ts(Sample { t: -5, v: f64::NAN }, -9);
        let float = FloatHistogram { count: 1.0, positive_buckets: vec![1.0], ..Default::default() };
        let integer = Histogram { count: 3, negative_buckets: vec![3, -1], ..Default::default() };
        builder.push_histogram(2, WriteHistogram::Float(Box::new(float)));
        builder.push_histogram_with_start_ts(3, WriteHistogram::Integer(Box::new(integer)), 1);
        let labels = Labels::from_pairs([("trace_id", "1")]).unwrap();
        builder.push_exemplar(Exemplar { labels, value: 7.0, t: 1 });
        builder.push_series_bytes(&section);
        builder.push_series_bytes(&section);
        builder.push_sample(Sample { t: 9, v: 1.0 });
        let says = MetricMetadata { help: "h".into(), unit: "s".into(), ..Default::default() };
        builder.push_metadata(WriteMetadata { metric: "x".into(), says });
        builder.finish(Bytes::new())
    }

    pub(super) fn assert_same(a: &WriteBatch, b: &WriteBatch) {
        assert_eq!((a.series_count(), a.metadata()), (b.series_count(), b.metadata()));
        for (a, b) in a.iter().zip(b.iter()) {
            assert_eq!(a.labels, b.labels);
            let bits = |s: &[Sample]| s.iter().map(|s| (s.t, s.v.to_bits())).collect::<Vec<_>>();
            assert_eq!(bits(a.samples), bits(b.samples));
            let starts = |s: &chronolith_model::WriteSeries<'_>| {
                let samples = (0..s.samples.len()).map(|i| s.start_ts_of_sample(i));
                samples.chain((0..s.histograms.len()).map(|i| s.start_ts_of_histogram(i))).collect::<Vec<_>>()
            };
            assert_eq!(starts(&a), starts(&b));
            assert_eq!((a.histograms, a.exemplars), (b.histograms, b.exemplars));
        }
    }
}
