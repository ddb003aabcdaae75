//! Years of blocks in a bucket: what a query costs that has never been asked, and one that has.
//!
//! ```text
//! blocks (library, seeded) ─ directory ─ S3 server (this process) ─ store ─ querier ─ queries
//! ```
//!
//! The blocks lie in a directory that the tests' S3 server maps, so no process holds them. Store and querier are started anew
//! for every cold figure; the bucket's files are in the page cache, and `--latency-ms` stands for the network between.

mod answers;
mod blocks;
mod cluster;
mod measure;
mod panels;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use chronolith_model::Resolution;
use chronolith_testkit::{S3Faults, S3Server};
use chronolith_tsdb::block::BlockMeta;
use clap::Args;

use crate::peer::Kind;
use crate::report::{Table, figure};
use answers::difference;
use blocks::Contents;
use cluster::System;
use measure::{Cost, Load, Measured, Memory, Place};
use panels::Times;

/// `chronolith-bench years`.
#[derive(Args)]
pub(crate) struct Years {
    /// Days of data.
    #[arg(long, default_value_t = 180)]
    days: i64,
    /// Series, all of them all of the time.
    #[arg(long, default_value_t = 2000)]
    series: usize,
    /// Seconds between two samples of a series.
    #[arg(long, default_value_t = 15)]
    interval: i64,
    /// End of the data in seconds since the epoch. The default lies 7 d 10 h behind a border of blocks of 14 d, so that there are
    /// blocks of every length.
    #[arg(long, default_value_t = 1_775_124_000)]
    end: i64,
    /// Seed of the data.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the blocks lie: made if it is missing, used as it is otherwise. By default a directory that is removed in the end.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Milliseconds that the bucket waits before every answer.
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// New processes for each cold figure, which is their median.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Dashboards at the same time; 0 leaves them out.
    #[arg(long, default_value_t = 10)]
    dashboards: usize,
    /// Only queries whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Write the blocks, and measure nothing.
    #[arg(long)]
    generate: bool,
    /// The chronolith binary; by default the one beside this program.
    #[arg(long)]
    chronolith: Option<PathBuf>,
    /// A further flag of `chronolith store`; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    chronolith_arg: Vec<String>,
    /// A Thanos to be asked the same: NAME=PATH of its binary; may be repeated.
    #[arg(long, value_name = "NAME=PATH")]
    thanos_bin: Vec<String>,
    /// As in the other commands; nobody but Chronolith and those of --thanos-bin takes part.
    #[arg(long, value_delimiter = ',', default_value = "chronolith")]
    peers: Vec<Kind>,
}

impl Years {
    pub(crate) fn run(&self) -> Result<()> {
        ensure!(
            self.days > 0 && self.series > 0 && self.interval > 0,
            "there are days, series and an interval"
        );
        let temporary = tempfile::Builder::new().prefix("chronolith-years-").tempdir()?;
        let dir = self.dir.clone().unwrap_or_else(|| temporary.path().join("bucket"));
        let contents = Contents {
            series: self.series,
            interval_ms: self.interval * 1000,
            start_ms: (self.end - self.days * 86_400) * 1000,
            end_ms: self.end * 1000,
            seed: self.seed,
        };
        if !dir.exists() {
            let begun = Instant::now();
            contents.write(&dir)?;
            eprintln!("blocks written in {:.0?}", begun.elapsed());
        }
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
        let metas = blocks::index(&dir, now_ms)?;
        println!(
            "{} series x {} d at {} s, {} ms latency, medians of {}\n\n{}",
            self.series,
            self.days,
            self.interval,
            self.latency_ms,
            self.repeat,
            blocks_table(&metas)
        );
        if self.generate { Ok(()) } else { self.measure(&dir, temporary.path(), metas.len()) }
    }

    fn systems(&self) -> Result<Vec<System>> {
        let mut systems = Vec::new();
        if self.peers.contains(&Kind::Chronolith) {
            let program = match &self.chronolith {
                Some(path) => path.clone(),
                None => std::env::current_exe()?.with_file_name("chronolith"),
            };
            let (title, store_args) = ("Chronolith".to_owned(), self.chronolith_arg.clone());
            systems.push(System { title, program, store_args });
        }
        for text in &self.thanos_bin {
            let (title, program) =
                text.split_once('=').with_context(|| format!("{text:?} is not NAME=PATH"))?;
            systems.push(System { title: title.to_owned(), program: program.into(), store_args: Vec::new() });
        }
        ensure!(!systems.is_empty(), "nobody takes part");
        Ok(systems)
    }

    fn measure(&self, bucket: &Path, work: &Path, blocks: usize) -> Result<()> {
        let systems = self.systems()?;
        let s3 = S3Server::start();
        s3.serve_directory(bucket)?;
        let latency = Duration::from_millis(self.latency_ms);
        s3.set_faults(S3Faults { latency, ..S3Faults::default() });
        let objstore = work.join("objstore.yml");
        // Thanos would ask the bucket where it lies.
        std::fs::write(&objstore, format!("{}  region: us-east-1\n", s3.config_yaml()))?;
        let times = Times { start_s: self.end - self.days * 86_400, end_s: self.end };
        let queries: Vec<_> =
            panels::all(times).into_iter().filter(|q| q.name.contains(&self.only)).collect();
        let dir = work.join("processes");
        let place = Place { s3: &s3, objstore: &objstore, dir: &dir };
        let mut first: Vec<Measured> = Vec::new();
        let mut loads = Vec::new();
        for system in &systems {
            let mut all = Vec::new();
            for query in &queries {
                let measured = place.query(system, query, self.repeat);
                let measured = measured.with_context(|| format!("{}: {}", system.title, query.name))?;
                eprintln!("{}, {}: {:?}", system.title, query.name, measured.warm);
                all.push(measured);
            }
            println!("{}", queries_table(system, &queries, &all, &first));
            if first.is_empty() {
                first = all;
            }
            if self.dashboards > 0 {
                let load = place.load(system, &panels::dashboard(times), self.dashboards, blocks);
                loads.push(load.with_context(|| format!("{}: dashboards", system.title))?);
            }
        }
        if !loads.is_empty() {
            println!("{}", load_table(&systems, &loads, self.dashboards));
        }
        Ok(())
    }
}

const MIB: f64 = 1_048_576.0;

fn blocks_table(metas: &[BlockMeta]) -> String {
    let mut table =
        Table::new(&["resolution", "blocks", "million samples", "MiB of chunks", "MiB of indexes"]);
    for resolution in [Resolution::Raw, Resolution::FiveMinutes, Resolution::OneHour] {
        let of: Vec<_> = metas.iter().filter(|m| m.resolution() == Some(resolution)).collect();
        let bytes = |of_index: bool| {
            let files = of.iter().filter_map(|m| m.thanos.as_ref()).flat_map(|t| &t.files);
            let sizes = files.filter(|f| (f.rel_path == "index") == of_index).map(|f| f.size_bytes);
            figure(sizes.sum::<u64>() as f64 / MIB)
        };
        let samples = of.iter().map(|m| m.stats.num_samples).sum::<u64>() as f64;
        table.row(&[
            if resolution == Resolution::Raw {
                "raw".to_owned()
            } else {
                format!("{} s", resolution.ms() / 1000)
            },
            of.len().to_string(),
            figure(samples / 1e6),
            bytes(false),
            bytes(true),
        ]);
    }
    table.into_text()
}

fn queries_table(
    system: &System,
    queries: &[crate::measure::Query],
    all: &[Measured],
    first: &[Measured],
) -> String {
    let title = format!("{} (ms / CPU ms / requests / KiB)", system.title);
    let mut heads = vec![title.as_str(), "nothing on disk", "headers on disk", "warm", "rows"];
    if !first.is_empty() {
        heads.push("the same answer");
    }
    let mut table = Table::new(&heads);
    for (i, (query, m)) in queries.iter().zip(all).enumerate() {
        let mut cells =
            vec![query.name.clone(), cost(m.bare), cost(m.cold), cost(m.warm), m.rows.to_string()];
        if let Some(first) = first.get(i) {
            let other = difference(&first.body, &m.body);
            cells.push(other.map_or_else(|| "yes".to_owned(), |place| format!("not at {place}")));
        }
        table.row(&cells);
    }
    table.into_text()
}

fn cost(c: Cost) -> String {
    let [wall, cpu, requests, kib] =
        [c.wall_s * 1e3, c.cpu_s * 1e3, c.requests, c.bytes / 1024.0].map(figure);
    format!("{wall} / {cpu} / {requests} / {kib}")
}

fn load_table(systems: &[System], loads: &[Load], dashboards: usize) -> String {
    let mut heads = vec!["start and memory"];
    heads.extend(systems.iter().map(|s| s.title.as_str()));
    let mut table = Table::new(&heads);
    let mut row = |title: &str, f: &dyn Fn(&Load) -> f64| {
        let mut cells = vec![title.to_owned()];
        cells.extend(loads.iter().map(|load| figure(f(load))));
        table.row(&cells);
    };
    row("store ready, s", &|l| l.ready_s);
    row("all index headers made, s", &|l| l.headers_s);
    row("requests until then", &|l| l.start_requests);
    row("KiB read until then", &|l| l.start_bytes / 1024.0);
    let mut memory = |when: &str, of: &dyn Fn(&Load) -> Memory| {
        row(&format!("store, {when}, anonymous MiB"), &|l| of(l).store as f64 / MIB);
        row(&format!("store, {when}, peak resident MiB"), &|l| of(l).store_resident as f64 / MIB);
        row(&format!("querier, {when}, anonymous MiB"), &|l| of(l).query as f64 / MIB);
    };
    memory("idle", &|l| l.idle);
    memory(&format!("{dashboards} dashboards at once, peak"), &|l| l.peak);
    memory("afterwards", &|l| l.after);
    row("panel p50, ms", &|l| l.panel_p50_s * 1e3);
    row("panel p99, ms", &|l| l.panel_p99_s * 1e3);
    row("CPU ms per panel, both", &|l| l.panel_cpu_s * 1e3);
    row("requests per panel", &|l| l.panel_requests);
    table.into_text()
}
