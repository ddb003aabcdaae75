//! Writing the workload into a server and what that cost it.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::peer::Kind;
use crate::running::Running;
use crate::shape::Shape;

/// Encoded requests held at once; then they are sent before more are made.
const AHEAD_BYTES_MAX: usize = 1 << 30;

/// What one ingest run measured.
#[derive(Clone, Debug)]
pub(crate) struct IngestResult {
    /// Samples that were acknowledged.
    pub(crate) samples: u64,
    /// Server CPU seconds.
    pub(crate) cpu_s: f64,
    /// Wall seconds of sending alone.
    pub(crate) wall_s: f64,
    /// Peak anonymous memory above the idle process, per active series.
    pub(crate) peak_bytes_per_series: f64,
    /// Latencies of requests in seconds, sorted.
    pub(crate) latencies_s: Vec<f64>,
}

/// Writes a load.
pub(crate) fn ingest(server: &Running, shape: &Shape) -> Result<IngestResult> {
    let mut workload = shape.workload()?;
    let (series, steps) = (workload.series.len(), shape.steps());
    let mut samples = 0;
    let latencies = Mutex::new(Vec::new());
    let mut wall_s = 0.0;
    let mut step = 0;
    while step < steps {
        // One scrape (or burst of them) after the other, as a Prometheus sends them: a series' samples must arrive in
        // order.
        let mut window: Vec<Vec<Vec<u8>>> = Vec::new();
        let mut bytes = 0;
        while step < steps && bytes < AHEAD_BYTES_MAX {
            let burst = shape.burst.min(steps - step);
            let mut requests = Vec::new();
            server.peer.protocol.encode_steps(&mut workload, step, burst, &mut requests);
            bytes += requests.iter().map(Vec::len).sum::<usize>();
            window.push(requests);
            step += burst;
            samples += series as u64 * burst;
        }
        let started = Instant::now();
        for requests in &window {
            let queue: Mutex<VecDeque<&[u8]>> = Mutex::new(requests.iter().map(Vec::as_slice).collect());
            send_all(server, &queue, shape.connections, &latencies)?;
        }
        wall_s += started.elapsed().as_secs_f64();
    }
    let cpu_s = server.cpu_seconds()?;
    let (peak, _) = server.memory_bytes();
    let mut latencies_s = latencies.into_inner().expect("no sender panicked");
    latencies_s.sort_unstable_by(f64::total_cmp);
    Ok(IngestResult {
        samples,
        cpu_s,
        wall_s,
        peak_bytes_per_series: peak as f64 / series as f64,
        latencies_s,
    })
}

/// Sends the requests of one step, without measuring.
pub(crate) fn send(server: &Running, requests: &[Vec<u8>], connections: usize) -> Result<()> {
    let queue = Mutex::new(requests.iter().map(Vec::as_slice).collect());
    send_all(server, &queue, connections, &Mutex::new(Vec::new()))
}

fn send_all(
    server: &Running,
    queue: &Mutex<VecDeque<&[u8]>>,
    connections: usize,
    latencies: &Mutex<Vec<f64>>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..connections)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut client = server.client();
                    let mut own = Vec::new();
                    loop {
                        let Some(body) = queue.lock().expect("no sender panicked").pop_front() else { break };
                        let started = Instant::now();
                        let reply = client.write_by(server.peer.protocol, server.peer.write_path(), body)?;
                        own.push(started.elapsed().as_secs_f64());
                        if !(200..300).contains(&reply.status) {
                            let text = String::from_utf8_lossy(&reply.body).into_owned();
                            bail!("{} answered {}: {text}", server.peer.title, reply.status);
                        }
                    }
                    latencies.lock().expect("no sender panicked").extend(own);
                    Ok(())
                })
            })
            .collect();
        senders.into_iter().try_for_each(|s| s.join().expect("a sender returns its error"))
    })
}

/// Bytes that the samples take once they are in their final form: a block with its index (Chronolith, Prometheus), or
/// the data directory after a merge (VictoriaMetrics).
pub(crate) fn disk_bytes(server: &Running) -> Result<u64> {
    let mut client = server.client();
    let in_block = |p: &std::path::Path| {
        let text = p.to_string_lossy();
        text.ends_with("/index") || text.contains("/chunks/")
    };
    match server.peer.kind {
        Kind::Chronolith => {
            let reply = client.post_form("/api/v1/admin/tsdb/flush", &[])?;
            if reply.status >= 300 {
                bail!("flush answered {}: {}", reply.status, String::from_utf8_lossy(&reply.body));
            }
            Ok(server.disk_bytes(|p| p.to_string_lossy().contains("/bucket/") && in_block(p)))
        }
        Kind::Prometheus => {
            let reply = client.post_form("/api/v1/admin/tsdb/snapshot", &[])?;
            if reply.status >= 300 {
                bail!("snapshot answered {}: {}", reply.status, String::from_utf8_lossy(&reply.body));
            }
            Ok(server.disk_bytes(|p| p.to_string_lossy().contains("/snapshots/") && in_block(p)))
        }
        Kind::VictoriaMetrics => {
            client.get("/internal/force_flush")?;
            client.get("/internal/force_merge")?;
            Ok(server.disk_bytes(|p| !p.to_string_lossy().contains("/cache/")))
        }
    }
}
