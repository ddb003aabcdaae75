//! How long a writer waits at half of the load that the server can take, and while everything in its heads is cut into blocks
//! and uploaded, and a snapshot is taken.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// Names of the times before, during and after the flush.
const PHASES: [&str; 3] = ["before", "while flushing", "afterwards"];

/// Seconds that a request waited, and the phase in which it ended.
type Waited = (f64, usize);

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
            server.reset_memory_peak();
            let (waited, peaks) = self.paced(&server, &requests, full / 2.0)?;
            for (phase, title) in PHASES.iter().enumerate() {
                let mut of: Vec<f64> = waited.iter().filter(|w| w.1 == phase).map(|w| w.0 * 1e3).collect();
                of.sort_unstable_by(f64::total_cmp);
                let Some(longest) = of.last() else { continue };
                table.row(&[
                    format!("{}, {title}", peer.title),
                    of.len().to_string(),
                    figure(percentile(&of, 0.5)),
                    figure(percentile(&of, 0.99)),
                    figure(*longest),
                    figure(peaks[phase] as f64 / 1024.0 / self.shape.series as f64),
                ]);
            }
        }
        println!("{}", table.into_text());
        Ok(())
    }

    /// Sends each request at its time, and flushes meanwhile. Beside what the requests waited, the peak of memory in each phase.
    fn paced(
        &self,
        server: &Running,
        requests: &[Vec<u8>],
        rate: f64,
    ) -> Result<(Vec<Waited>, [u64; PHASES.len()])> {
        let gap = Duration::from_secs_f64(REQUEST_SAMPLES as f64 / rate);
        let (next, phase) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let all = Mutex::new(Vec::with_capacity(requests.len()));
        let start = Instant::now();
        let mut peaks = std::thread::scope(|scope| -> Result<[u64; PHASES.len()]> {
            let flush = scope.spawn(|| -> Result<[u64; PHASES.len()]> {
                let mut peaks = [0; PHASES.len()];
                if server.peer.kind != Kind::Chronolith {
                    return Ok(peaks);
                }
                wait_until(start + gap * (requests.len() / 3) as u32);
                peaks[0] = server.memory_bytes().0;
                server.reset_memory_peak();
                phase.store(1, Ordering::Relaxed);
                let began = Instant::now();
                let reply = server.client().post_form("/api/v1/admin/tsdb/flush", &[])?;
                phase.store(2, Ordering::Relaxed);
                peaks[1] = server.memory_bytes().0;
                server.reset_memory_peak();
                ensure!(reply.status < 300, "flush: {}", String::from_utf8_lossy(&reply.body));
                eprintln!("{}: flushed in {:.1?}", server.peer.title, began.elapsed());
                Ok(peaks)
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
                            let waited = (due.elapsed().as_secs_f64(), phase.load(Ordering::Relaxed));
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
        let last = phase.into_inner();
        peaks[last] = peaks[last].max(server.memory_bytes().0);
        Ok((all.into_inner().expect("no sender panicked"), peaks))
    }
}

fn wait_until(due: Instant) {
    while let Some(left) = due.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
        std::thread::park_timeout(left);
    }
}
