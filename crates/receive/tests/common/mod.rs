//! A whole role over real sockets, and what to write to it.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chronolith_model::write::encode_labels;
use chronolith_model::{Matcher, TimeRange};
use chronolith_objstore::Bucket;
use chronolith_receive::{Config, Maintenance, Parts, ReceiveError, build, run};
use chronolith_service::shutdown::CancellationToken;
use chronolith_service::{ManualClock, Metrics, Probes};
use chronolith_storeapi::{SeriesEvent, SeriesRequest, Store};
use chronolith_tsdb::db::WalSync;
use futures::StreamExt;
use prost::encoding::encode_varint;
use tokio::task::JoinHandle;

/// A running receiver.
pub struct Role {
    pub remote_write: SocketAddr,
    pub http: SocketAddr,
    pub store: Arc<dyn Store>,
    pub maintenance: Arc<Maintenance>,
    pub metrics: Metrics,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<(), ReceiveError>>,
    pub client: reqwest::Client,
}

pub fn config(dir: &Path) -> Config {
    let local = || Some("127.0.0.1:0".to_owned());
    Config {
        remote_write_address: local(),
        http_address: local(),
        grpc_address: local(),
        labels: vec![("replica".to_owned(), "r1".to_owned())],
        tsdb_path: dir.to_owned(),
        wal_sync: WalSync::Group,
        too_far_in_future_ms: 0,
        enable_admin_api: true,
        // The tests ask for work themselves.
        maintenance_interval_ms: 3_600_000,
        ..Config::default()
    }
}

impl Role {
    pub async fn start(config: Config, bucket: Option<Bucket>, clock: &ManualClock) -> Self {
        chronolith_service::tls::install_crypto_provider();
        let parts =
            Parts { bucket, metrics: Metrics::new(), probes: Probes::new(), clock: Arc::new(clock.clone()) };
        let (metrics, probes) = (parts.metrics.clone(), parts.probes.clone());
        let receive = build(config, parts).await.unwrap();
        let (remote_write, http) = (receive.remote_write_addr().unwrap(), receive.http_addr().unwrap());
        let (store, maintenance) = (receive.store(), receive.maintenance());
        let shutdown = CancellationToken::new();
        let mut task = tokio::spawn(run(receive, shutdown.clone()));
        let mut ready = probes.watch();
        tokio::select! {
            ready = ready.wait_for(|ready| *ready) => drop(ready.unwrap()),
            ended = &mut task => panic!("{ended:?}"),
        }
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        Role { remote_write, http, store, maintenance, metrics, shutdown, task, client }
    }

    pub async fn write(&self, tenant: &str, body: &[u8]) -> (u16, String) {
        let compressed = snap::raw::Encoder::new().compress_vec(body).unwrap();
        let url = format!("http://{}/api/v1/receive", self.remote_write);
        let request = self.client.post(url).header("THANOS-TENANT", tenant).body(compressed);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub async fn flush(&self) -> (u16, String) {
        let url = format!("http://{}/api/v1/admin/tsdb/flush", self.http);
        let response = self.client.post(url).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(format!("http://{}{path}", self.http)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// All samples of a metric, sorted, each once.
    pub async fn samples(&self, metric: &str) -> Vec<(String, i64, u64)> {
        let request = SeriesRequest::new(TimeRange::ALL, vec![Matcher::equal("__name__", metric)]);
        let mut stream = self.store.series(request).await.unwrap();
        let mut out = Vec::new();
        while let Some(event) = stream.next().await {
            let SeriesEvent::Batch(batch) = event.unwrap() else { continue };
            for series in batch {
                for chunk in series.chunks.iter().filter_map(|c| c.raw()) {
                    let mut columns = chronolith_chunk::SampleColumns::default();
                    chunk.decode_into(TimeRange::ALL, &mut columns).unwrap();
                    let values = columns.ts.iter().zip(&columns.values);
                    out.extend(values.map(|(t, v)| (series.labels.to_string(), *t, v.to_bits())));
                }
            }
        }
        out.sort();
        out.dedup();
        out
    }

    pub async fn stop(self) -> Result<(), ReceiveError> {
        self.shutdown.cancel();
        self.task.await.unwrap()
    }
}

pub fn tagged(field: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

pub fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Vec<u8> {
    let mut content = Vec::new();
    encode_labels(labels.iter().copied(), &mut content);
    for (t, v) in samples {
        let mut sample = vec![0x09];
        sample.extend_from_slice(&v.to_le_bytes());
        sample.push(0x10);
        encode_varint(*t as u64, &mut sample);
        content.extend(tagged(2, &sample));
    }
    tagged(1, &content)
}

/// `count` samples a minute apart from `from` on.
pub fn minutes(metric: &str, from: i64, count: i64) -> Vec<u8> {
    let samples: Vec<_> = (0..count).map(|i| (from + i * 60_000, i as f64)).collect();
    series(&[("__name__", metric), ("job", "x")], &samples)
}
