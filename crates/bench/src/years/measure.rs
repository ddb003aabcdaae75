//! One query, cold and warm; many dashboards at once; what the processes hold.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use chronolith_testkit::{S3Operation, S3Server};

use super::answers::difference;
use super::cluster::{Cluster, Headers, System};
use crate::measure::{Query, count_rows};
use crate::memory::{anonymous_bytes, peak_resident_bytes};
use crate::report::{median, percentile};

/// Executions that make the median of a warm query, after one that does not count.
const WARM_RUNS: usize = 9;
/// Times that each dashboard is refreshed.
const REFRESHES: usize = 2;

/// What one execution, or the median of some, took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) wall_s: f64,
    /// Store and querier together.
    pub(super) cpu_s: f64,
    /// Requests that the bucket answered.
    pub(super) requests: f64,
    /// Bytes of objects in their answers.
    pub(super) bytes: f64,
}

/// One query of one system.
pub(super) struct Measured {
    /// A new store without a file on disk.
    pub(super) bare: Cost,
    /// A new store that has its index headers on disk.
    pub(super) cold: Cost,
    /// Asked before.
    pub(super) warm: Cost,
    pub(super) rows: usize,
    /// The answer.
    pub(super) body: Vec<u8>,
}

/// Where a run takes place.
pub(super) struct Place<'a> {
    pub(super) s3: &'a S3Server,
    pub(super) objstore: &'a Path,
    /// Of the processes, removed before a start without headers.
    pub(super) dir: &'a Path,
}

impl Place<'_> {
    fn wipe(&self) -> Result<()> {
        if self.dir.exists() {
            fs::remove_dir_all(self.dir)?;
        }
        Ok(())
    }

    fn asked(&self) -> (f64, f64) {
        let requests = self.s3.requests();
        let reads = requests.iter().filter(|r| r.operation == S3Operation::GetObject);
        (requests.len() as f64, reads.map(|r| r.body_bytes).sum::<u64>() as f64)
    }

    /// Asks `runs` times; the cost is the median's, and the mean of what the kernel counts in ticks.
    fn cost(&self, cluster: &Cluster, query: &Query, runs: usize) -> Result<(Cost, Vec<u8>)> {
        let (mut client, mut walls, mut body) = (cluster.client(), Vec::new(), Vec::new());
        self.s3.clear_requests();
        let cpu = cluster.cpu_seconds()?;
        for _ in 0..runs {
            let begun = Instant::now();
            body = query.execute(&mut client)?;
            walls.push(begun.elapsed().as_secs_f64());
        }
        let (requests, bytes) = self.asked();
        let each = |total: f64| total / runs as f64;
        let cpu_s = each(cluster.cpu_seconds()? - cpu);
        Ok((Cost { wall_s: median(walls), cpu_s, requests: each(requests), bytes: each(bytes) }, body))
    }

    /// Asks a query of new processes `repeat` times, and then of the last of them again.
    pub(super) fn query(&self, system: &System, query: &Query, repeat: usize) -> Result<Measured> {
        let (mut bare, mut cold) = (Vec::new(), Vec::new());
        let mut last = None;
        for _ in 0..repeat.max(1) {
            drop(last.take());
            self.wipe()?;
            let cluster = Cluster::start(system, self.objstore, self.dir, Headers::Lazy)?;
            let (cost, first) = self.cost(&cluster, query, 1)?;
            bare.push(cost);
            drop(cluster);
            let cluster = Cluster::start(system, self.objstore, self.dir, Headers::Lazy)?;
            let (cost, again) = self.cost(&cluster, query, 1)?;
            cold.push(cost);
            same(&first, &again).context("with headers on disk")?;
            last = Some((cluster, again));
        }
        let (cluster, body) = last.expect("repeated at least once");
        self.cost(&cluster, query, 1)?;
        let (warm, again) = self.cost(&cluster, query, WARM_RUNS)?;
        same(&body, &again).context("warm")?;
        let rows = count_rows(&body)?;
        ensure!(rows > 0, "{} has an empty answer", query.name);
        Ok(Measured { bare: median_cost(&bare), cold: median_cost(&cold), warm, rows, body })
    }

    /// Starts a store that makes all index headers, and many dashboards over it.
    pub(super) fn load(
        &self,
        system: &System,
        panels: &[Query],
        dashboards: usize,
        blocks: usize,
    ) -> Result<Load> {
        self.wipe()?;
        self.s3.clear_requests();
        let begun = Instant::now();
        let mut cluster = Cluster::start(system, self.objstore, self.dir, Headers::Eager)?;
        cluster.wait_for_headers(self.dir, blocks)?;
        let headers_s = begun.elapsed().as_secs_f64();
        let (start_requests, start_bytes) = self.asked();
        let idle = Memory::of(&cluster);
        cluster.store.memory.forget();
        cluster.query.memory.forget();
        self.s3.clear_requests();
        let cpu = cluster.cpu_seconds()?;
        let mut latencies_s = std::thread::scope(|scope| {
            let viewers: Vec<_> = (0..dashboards)
                .map(|_| {
                    let mut client = cluster.client();
                    scope.spawn(move || -> Result<Vec<f64>> {
                        let mut latencies = Vec::new();
                        for panel in (0..REFRESHES).flat_map(|_| panels) {
                            let begun = Instant::now();
                            panel.execute(&mut client)?;
                            latencies.push(begun.elapsed().as_secs_f64());
                        }
                        Ok(latencies)
                    })
                })
                .collect();
            let mut all = Vec::new();
            for viewer in viewers {
                all.extend(viewer.join().expect("a viewer returns its error")?);
            }
            Ok::<_, anyhow::Error>(all)
        })?;
        latencies_s.sort_unstable_by(f64::total_cmp);
        let count = latencies_s.len() as f64;
        Ok(Load {
            ready_s: cluster.store_ready_s,
            headers_s,
            start_requests,
            start_bytes,
            idle,
            peak: Memory {
                store: cluster.store.memory.peak(),
                store_resident: peak_resident_bytes(cluster.store.pid()).unwrap_or(0),
                query: cluster.query.memory.peak(),
            },
            after: Memory::of(&cluster),
            panel_p50_s: percentile(&latencies_s, 0.5),
            panel_p99_s: percentile(&latencies_s, 0.99),
            panel_cpu_s: (cluster.cpu_seconds()? - cpu) / count,
            panel_requests: self.asked().0 / count,
        })
    }
}

/// Bytes of the two processes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// Anonymous.
    pub(super) store: u64,
    /// Peak of all that is resident, mapped index headers included.
    pub(super) store_resident: u64,
    /// Anonymous.
    pub(super) query: u64,
}

impl Memory {
    fn of(cluster: &Cluster) -> Self {
        Memory {
            store: anonymous_bytes(cluster.store.pid()).unwrap_or(0),
            store_resident: peak_resident_bytes(cluster.store.pid()).unwrap_or(0),
            query: anonymous_bytes(cluster.query.pid()).unwrap_or(0),
        }
    }
}

/// A store from its start to many dashboards.
pub(super) struct Load {
    pub(super) ready_s: f64,
    /// From the start until all index headers were there.
    pub(super) headers_s: f64,
    pub(super) start_requests: f64,
    pub(super) start_bytes: f64,
    pub(super) idle: Memory,
    pub(super) peak: Memory,
    pub(super) after: Memory,
    pub(super) panel_p50_s: f64,
    pub(super) panel_p99_s: f64,
    pub(super) panel_cpu_s: f64,
    pub(super) panel_requests: f64,
}

fn same(a: &[u8], b: &[u8]) -> Result<()> {
    match difference(a, b) {
        None => Ok(()),
        Some(place) => anyhow::bail!("the answer differs from that before at {place}"),
    }
}

fn median_cost(costs: &[Cost]) -> Cost {
    let of = |f: fn(&Cost) -> f64| median(costs.iter().map(f).collect());
    Cost {
        wall_s: of(|c| c.wall_s),
        cpu_s: of(|c| c.cpu_s),
        requests: of(|c| c.requests),
        bytes: of(|c| c.bytes),
    }
}
