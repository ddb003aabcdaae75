//! How long a writer waits at half of the load that the server can take, and while everything in its heads is cut into blocks
//! and uploaded, and a snapshot is taken.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use crate::encode::{REQUEST_SAMPLES, encode_steps};
use crate::ingest;
use crate::peer::{Kind, Peers};
use crate::report::{Table, figure, percentile};
use crate::running::Running;
use crate::shape::Shape;

/// `chronolith-bench stall`. The first steps are written at full speed, which tells the rate; the rest at half of it, each
/// request at its time whatever became of the ones before. A third of the way a flush begins (Chronolith).
#[derive(Args)]
pub(crate) struct Stall {
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    peers: Peers,
    /// Steps at full speed.
    #[arg(long, default_value_t = 4)]
    full_steps: u64,
}

/// Seconds that a request waited, and whether a flush was under way when it ended.
type Waited = (f64, bool);

impl Stall {
    pub(crate) fn run(&self) -> Result<()> {
        let steps = self.shape.steps();
        ensure!(steps > self.full_steps, "there are steps at half load");
        println!("{}, {} of {steps} steps at full speed\n", self.shape.title(), self.full_steps);
        let mut table = Table::new(&[
            "at half load",
            "requests",
            "p50 ms",
            "p99 ms",
            "longest ms",
            "peak KiB per series",
        ]);
        for peer in self.peers.list()? {
            let server = Running::start(&peer)?;
            let mut workload = self.shape.workload()?;
            let started = Instant::now();
            let mut busy = Duration::ZERO;
            for step in 0..self.full_steps {
                let mut requests = Vec::new();
                encode_steps(&mut workload, step, 1, &mut requests);
                let began = Instant::now();
                ingest::send(&server, &requests, self.shape.connections)?;
                // The first step enters the series.
                busy += if step == 0 { Duration::ZERO } else { began.elapsed() };
            }
            let full = (self.full_steps - 1) as f64 * self.shape.series as f64 / busy.as_secs_f64();
            let mut requests = Vec::new();
            for step in self.full_steps..steps {
                encode_steps(&mut workload, step, 1, &mut requests);
            }
            eprintln!("{}: {full:.0} samples/s in {:.0?}", peer.title, started.elapsed());
            let quiet_peak = server.memory_bytes().0;
            server.reset_memory_peak();
            let waited = self.paced(&server, &requests, full / 2.0)?;
            let flush_peak = server.memory_bytes().0;
            for (title, flushing, peak) in
                [("quiet", false, quiet_peak), ("while flushing", true, flush_peak)]
            {
                let mut of: Vec<f64> = waited.iter().filter(|w| w.1 == flushing).map(|w| w.0 * 1e3).collect();
                of.sort_unstable_by(f64::total_cmp);
                let Some(longest) = of.last() else { continue };
                table.row(&[
                    format!("{}, {title}", peer.title),
                    of.len().to_string(),
                    figure(percentile(&of, 0.5)),
                    figure(percentile(&of, 0.99)),
                    figure(*longest),
                    figure(peak as f64 / 1024.0 / self.shape.series as f64),
                ]);
            }
        }
        println!("{}", table.into_text());
        Ok(())
    }

    /// Sends each request at its time, and flushes meanwhile.
    fn paced(&self, server: &Running, requests: &[Vec<u8>], rate: f64) -> Result<Vec<Waited>> {
        let gap = Duration::from_secs_f64(REQUEST_SAMPLES as f64 / rate);
        let (next, flushing) = (AtomicUsize::new(0), AtomicBool::new(false));
        let all = Mutex::new(Vec::with_capacity(requests.len()));
        let start = Instant::now();
        std::thread::scope(|scope| -> Result<()> {
            let flush = scope.spawn(|| -> Result<()> {
                if server.peer.kind != Kind::Chronolith {
                    return Ok(());
                }
                wait_until(start + gap * (requests.len() / 3) as u32);
                flushing.store(true, Ordering::Relaxed);
                let began = Instant::now();
                let reply = server.client().post_form("/api/v1/admin/tsdb/flush", &[])?;
                flushing.store(false, Ordering::Relaxed);
                ensure!(reply.status < 300, "flush: {}", String::from_utf8_lossy(&reply.body));
                eprintln!("{}: flushed in {:.1?}", server.peer.title, began.elapsed());
                Ok(())
            });
            let senders: Vec<_> = (0..self.shape.connections)
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        let mut client = server.client();
                        loop {
                            let i = next.fetch_add(1, Ordering::Relaxed);
                            let Some(body) = requests.get(i) else { return Ok(()) };
                            let due = start + gap * i as u32;
                            wait_until(due);
                            let reply = client.write(server.peer.write_path(), body)?;
                            ensure!(reply.status < 300, "{}", String::from_utf8_lossy(&reply.body));
                            let waited = (due.elapsed().as_secs_f64(), flushing.load(Ordering::Relaxed));
                            all.lock().expect("no sender panicked").push(waited);
                        }
                    })
                })
                .collect();
            for thread in senders {
                thread.join().expect("a sender returns its error")?;
            }
            flush.join().expect("the flush returns its error")
        })?;
        Ok(all.into_inner().expect("no sender panicked"))
    }
}

fn wait_until(due: Instant) {
    while let Some(left) = due.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
        std::thread::park_timeout(left);
    }
}
