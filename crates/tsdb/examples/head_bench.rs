//! Measures the write path in process: samples per CPU-second with the log's group commit, memory per series, replay
//! and snapshot speed.
//!
//! ```text
//! head_bench <series> <rounds> <dir> [writers]      NO_SNAPSHOT=1 ends without a snapshot, CUT=1 cuts first
//! head_bench open - <dir>                           opens what the last run left; READS=1 measures reads too
//! ```
//!
//! Each round writes one sample to every series, in requests of 2,000 series, 15 s apart; 240 rounds are an hour.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use chronolith_model::write::encode_labels;
use chronolith_model::{MatchOp, Matcher, Sample, TenantId, TimeRange, WriteBatchBuilder};
use chronolith_tsdb::db::{Db, DbOptions};
use chronolith_tsdb::head::Head;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REQUEST: usize = 2000;

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Resident memory that no file backs, in bytes. The kernel keeps a peak of all resident memory only, and mapped files
/// would count.
fn memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("RssAnon:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
}

/// The largest [`memory`] while `run` ran, asked every few milliseconds.
fn peak_memory<T>(run: impl FnOnce() -> T) -> (T, f64) {
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = memory();
            while !done.load(Ordering::Relaxed) {
                std::thread::park_timeout(std::time::Duration::from_millis(5));
                peak = peak.max(memory());
            }
            peak
        });
        let result = run();
        done.store(true, Ordering::Relaxed);
        watch.thread().unpark();
        (result, watch.join().expect("the watch does not panic"))
    })
}

struct Corpus {
    bodies: Vec<(Bytes, Vec<std::ops::Range<u32>>)>,
}

fn corpus(series: usize) -> Corpus {
    let mut bodies = Vec::new();
    for first in (0..series).step_by(REQUEST) {
        let (mut body, mut ranges) = (Vec::new(), Vec::new());
        for i in first..series.min(first + REQUEST) {
            let start = body.len() as u32;
            // A node's series follow each other, as a scrape sends them.
            let (node, metric) = (i / 500, i % 500);
            let name =
                format!("node_metric_{}_{}", metric / 4, ["total", "bytes", "seconds", "ratio"][metric % 4]);
            let instance = format!("10.{}.{}.{}:9100", node >> 16 & 255, node >> 8 & 255, node & 255);
            let host = format!("node-{node:06}.eu-central-1.compute.internal");
            let device = format!("device{}", metric % 7);
            let pairs = [
                ("__name__", name.as_str()),
                ("availability_zone", "eu-central-1a"),
                ("cluster", "production-eu"),
                ("container", "node-exporter"),
                ("device", &device),
                ("endpoint", "metrics"),
                ("host", &host),
                ("instance", &instance),
                ("job", "node-exporter"),
                ("namespace", "monitoring"),
                ("prometheus", "monitoring/k8s"),
                ("service", "node-exporter"),
            ];
            encode_labels(pairs, &mut body);
            ranges.push(start..body.len() as u32);
        }
        bodies.push((Bytes::from(body), ranges));
    }
    Corpus { bodies }
}

/// Counters with small steps, integer gauges, noisy floats, and constants: roughly a node exporter's mix.
fn value(series: usize, round: usize) -> f64 {
    let noise = ((series as u64) << 20 ^ round as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    match series % 10 {
        0..=3 => (series * 1000 + round * 37 + (noise % 20) as usize) as f64,
        4..=5 => (noise % 1000) as f64,
        6 => noise as f64 / 7919.0,
        _ => (series % 100) as f64,
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let arg = |i: usize, default: usize| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (series, rounds, writers) = (arg(1, 100_000), arg(2, 240), arg(4, 2));
    let dir = args.get(3).cloned().unwrap_or_else(|| "/tmp/head_bench".to_owned());
    let tenant = TenantId::default();
    let options = || DbOptions { clock: Arc::new(|| i64::MAX / 2), ..DbOptions::new(&dir) };
    if args.get(1).is_some_and(|a| a == "open") {
        return open(options(), &tenant);
    }
    let _ = std::fs::remove_dir_all(&dir);
    let corpus = corpus(series);

    // What building the requests costs by itself.
    let before = cpu_seconds();
    for round in 0..10 {
        for r in 0..corpus.bodies.len() {
            std::hint::black_box(request(&corpus, r, round));
        }
    }
    let building = (cpu_seconds() - before) / 10.0;
    let idle = memory();

    let (db, _) = Db::open(options()).expect("open");
    let (started, before) = (Instant::now(), cpu_seconds());
    write_rounds(&db, &tenant, &corpus, 0..1, writers);
    println!(
        "create   {series} series: {:.0} series per CPU-second, {:.2} s",
        series as f64 / (cpu_seconds() - before),
        started.elapsed().as_secs_f64()
    );
    let (started, before) = (Instant::now(), cpu_seconds());
    let ((), peak) = peak_memory(|| write_rounds(&db, &tenant, &corpus, 1..rounds, writers));
    let cpu = cpu_seconds() - before - building * (rounds - 1) as f64;
    let samples = (series * (rounds - 1)) as f64;
    println!(
        "append   {:.2}M samples per CPU-second ({:.2} s CPU without {:.2} s of building requests, {:.2} s wall)",
        samples / cpu / 1e6,
        cpu,
        building * (rounds - 1) as f64,
        started.elapsed().as_secs_f64()
    );
    let now = memory();
    println!(
        "memory   {:.0} B per series now, {:.0} at the peak above {:.0} MB idle; the head says {:.0}",
        (now - idle) / series as f64,
        (peak - idle) / series as f64,
        idle / 1e6,
        db.head(&tenant).expect("head").bytes() as f64 / series as f64
    );
    let wal: u64 = std::fs::read_dir(format!("{dir}/wal"))
        .expect("wal")
        .flatten()
        .filter_map(|e| e.metadata().ok())
        .map(|m| m.len())
        .sum();
    println!("log      {:.2} B per sample", wal as f64 / (samples + series as f64));
    let head = db.head(&tenant).expect("head");
    reads(&head);
    drop(head);
    let close = std::env::var_os("NO_SNAPSHOT").is_none();
    let started = Instant::now();
    if std::env::var_os("CUT").is_some() {
        let (cut, peak) = peak_memory(|| db.cut_all(&tenant));
        println!(
            "cut      {:.2} s, {} blocks, {:.0} B per series at the peak, {:.0} before",
            started.elapsed().as_secs_f64(),
            cut.expect("cut").len(),
            (peak - idle) / series as f64,
            (now - idle) / series as f64
        );
    }
    let started = Instant::now();
    if close {
        let (closed, peak) = peak_memory(|| db.close());
        closed.expect("close");
        println!(
            "close    {:.2} s, {:.0} B per series at the peak",
            started.elapsed().as_secs_f64(),
            (peak - idle) / series as f64
        );
    } else {
        db.sync().expect("sync");
        std::mem::forget(db);
        println!("then: head_bench open - {dir}");
        return;
    }
    drop(db);
    open(options(), &tenant);
}

/// The best of five readings each, as other work on the machine only adds to them.
fn reads(head: &Arc<Head>) {
    let time = |what: &str, run: &dyn Fn() -> String| {
        let best = (0..5).map(|_| {
            let (started, before) = (Instant::now(), cpu_seconds());
            let result = run();
            (started.elapsed().as_secs_f64() * 1e3, (cpu_seconds() - before) * 1e3, result)
        });
        let (wall, cpu, result) = best.min_by(|a, b| a.0.total_cmp(&b.0)).expect("five");
        println!("{what:<28} {wall:>8.1} ms, {cpu:.0} ms CPU: {result}");
    };
    let all = head.time_range().expect("samples");
    let late = TimeRange::new(all.maxt - 300_000, all.maxt);
    let select = |matchers: &[Matcher], range, skip| {
        let (mut series, mut chunks, mut bytes) = (0, 0, 0);
        for s in head.select(matchers, range, skip) {
            series += 1;
            chunks += s.chunks.len();
            bytes += s.chunks.iter().map(|c| c.data.len()).sum::<usize>();
        }
        format!("{series} series, {chunks} chunks, {bytes} bytes")
    };
    let half = [Matcher::new(MatchOp::Regex, "device", "device[0-3]").expect("a regex")];
    let one = [Matcher::equal("__name__", "node_metric_7_bytes")];
    let job = [Matcher::equal("job", "node-exporter")];
    time("select all", &|| select(&[], all, false));
    time("select all, labels only", &|| select(&[], all, true));
    time("select half", &|| select(&half, all, false));
    time("select half, 5 minutes", &|| select(&half, late, false));
    time("select one metric", &|| select(&one, late, false));
    for (what, range) in [("", all), (", 5 minutes", late)] {
        for (matchers, given) in [(&[][..], ""), (&job[..], ", matcher")] {
            let name = |of: &str| format!("{of}{given}{what}");
            time(&name("names"), &|| format!("{}", head.label_names(matchers, range).len()));
            time(&name("values"), &|| format!("{}", head.label_values("host", matchers, range).len()));
        }
    }
}

/// Opens what an earlier run left and says what it cost.
fn open(options: DbOptions, tenant: &TenantId) {
    let (started, before) = (Instant::now(), cpu_seconds());
    let ((db, report), peak) = peak_memory(|| Db::open(options).expect("reopen"));
    let cpu = cpu_seconds() - before;
    let series = db.head(tenant).expect("head").series_count();
    let now = memory();
    println!(
        "open     {:.2} s, {cpu:.2} CPU-s, {series} series, {} samples replayed ({:.2}M per CPU-second), snapshot {:?}, \
         {:.0} B per series, {:.0} at the peak",
        started.elapsed().as_secs_f64(),
        report.samples,
        report.samples as f64 / cpu / 1e6,
        report.snapshot,
        now / series as f64,
        peak / series as f64,
    );
    if std::env::var_os("READS").is_some() {
        reads(&db.head(tenant).expect("head"));
    }
}

fn request(corpus: &Corpus, r: usize, round: usize) -> chronolith_model::WriteBatch {
    thread_local!(static BUILDER: std::cell::RefCell<WriteBatchBuilder> = std::cell::RefCell::default());
    let (body, ranges) = &corpus.bodies[r];
    BUILDER.with_borrow_mut(|builder| {
        builder.start(body.len() as u32);
        for (i, range) in ranges.iter().enumerate() {
            builder.push_series(range.clone());
            let t = 1_700_000_000_000 + round as i64 * 15_000 + (r as i64 * 7919) % 15_000;
            builder.push_sample(Sample { t, v: value(r * REQUEST + i, round) });
        }
        builder.finish(body.clone())
    })
}

fn write_rounds(db: &Db, tenant: &TenantId, corpus: &Corpus, rounds: std::ops::Range<usize>, writers: usize) {
    for round in rounds {
        let next = AtomicUsize::new(0);
        let refused = AtomicI64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..writers {
                scope.spawn(|| {
                    // Up to sixteen requests of a writer wait for the disk at once.
                    let mut waiting = std::collections::VecDeque::new();
                    loop {
                        let r = next.fetch_add(1, Ordering::Relaxed);
                        if r >= corpus.bodies.len() {
                            break;
                        }
                        let outcome = db.write(tenant, &request(corpus, r, round));
                        refused.fetch_add(outcome.rejected_count as i64, Ordering::Relaxed);
                        waiting.push_back(outcome.commit);
                        if waiting.len() > 16 {
                            waiting.pop_front().expect("not empty").wait().expect("durable");
                        }
                    }
                    for commit in waiting {
                        commit.wait().expect("durable");
                    }
                });
            }
        });
        assert_eq!(refused.into_inner(), 0);
    }
}
