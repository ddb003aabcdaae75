//! The series that the load generator writes: node_exporter-like, seeded, the same for every peer.
//!
//! A "host" has about a thousand series in the proportions that a scrape of node_exporter shows: per-CPU counters,
//! per-device counters, gauges that move, gauges that hardly do, and one histogram family of an application. Values
//! are a pure function of (seed, series, step), so that any run can be repeated and any answer checked.

use chronolith_model::write::encode_labels;

/// How a series' value moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    /// Integer counter growing by up to `per_step` each step; resets when its host restarts.
    Counter {
        /// Largest growth of one step.
        per_step: u32,
    },
    /// Float counter (CPU seconds): two decimals.
    SecondsCounter,
    /// Gauge walking around a level with three decimals.
    Gauge,
    /// Integer gauge that changes at one step in eight (memory, connections).
    SlowGauge,
    /// Never changes.
    Constant,
}

impl Shape {
    /// True when it only grows, but for restarts.
    pub(crate) fn is_counter(self) -> bool {
        matches!(self, Shape::Counter { .. } | Shape::SecondsCounter)
    }
}

/// One series: its label section in remote-write form and its shape.
#[derive(Debug)]
pub(crate) struct Series {
    /// `repeated Label` bytes, canonical.
    pub(crate) labels: Vec<u8>,
    /// How it moves.
    pub(crate) shape: Shape,
    /// Per-series seed.
    seed: u64,
    /// Accumulated value of counters at the last step asked.
    acc: f64,
}

/// A set of series and the clock of its samples.
#[derive(Debug)]
pub(crate) struct Workload {
    /// The series, host by host.
    pub(crate) series: Vec<Series>,
    /// First timestamp.
    pub(crate) start_ms: i64,
    /// Distance of samples.
    pub(crate) interval_ms: i64,
    seed: u64,
    generation: u32,
}

const MODES: [&str; 8] = ["idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"];
const BUCKETS: [&str; 12] =
    ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"];
/// Labels that all series of a host have alike.
pub(crate) const HOST_LABELS: [&str; 6] = ["cluster", "env", "instance", "job", "rack", "region"];
/// Series of one host.
pub(crate) const HOST_SERIES: usize = 1000;
/// A host restarts (its counters reset) once in this many steps, staggered over hosts.
const RESET_STEPS: u64 = 500;

impl Workload {
    /// `count` series from `start_ms` on.
    pub(crate) fn new(count: usize, start_ms: i64, interval_ms: i64, seed: u64) -> Self {
        let mut workload =
            Workload { series: Vec::with_capacity(count), start_ms, interval_ms, seed, generation: 0 };
        let mut host = 0;
        while workload.series.len() < count {
            let room = count - workload.series.len();
            workload.series.extend(host_series(host, 0, seed).into_iter().take(room));
            host += 1;
        }
        workload
    }

    /// Replaces `share` (0 to 1) of the hosts by new ones: churn as a deployment makes it.
    pub(crate) fn churn(&mut self, share: f64) {
        self.generation += 1;
        let hosts = self.series.len().div_ceil(HOST_SERIES);
        let replaced = ((hosts as f64 * share).round() as usize).max(1);
        let first = self.generation as usize * replaced % hosts;
        for host in (first..first + replaced).map(|h| h % hosts) {
            let from = host * HOST_SERIES;
            let to = (from + HOST_SERIES).min(self.series.len());
            let fresh = host_series(host, self.generation, self.seed);
            for (slot, series) in self.series[from..to].iter_mut().zip(fresh) {
                *slot = series;
            }
        }
    }

    /// Hosts that have series.
    pub(crate) fn hosts(&self) -> usize {
        self.series.len().div_ceil(HOST_SERIES)
    }

    /// The timestamp of step `step`.
    pub(crate) fn time(&self, step: u64) -> i64 {
        self.start_ms + step as i64 * self.interval_ms
    }
}

impl Series {
    fn new(labels: &[(&str, &str)], shape: Shape, seed: u64) -> Self {
        let mut sorted = labels.to_vec();
        sorted.sort_unstable();
        let mut section = Vec::with_capacity(400);
        encode_labels(sorted, &mut section);
        Series { labels: section, shape, seed, acc: 0.0 }
    }

    /// The value at `step`; steps must be asked in order, as counters accumulate.
    pub(crate) fn value(&mut self, step: u64) -> f64 {
        let r = mix(self.seed ^ step.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        match self.shape {
            Shape::Counter { per_step } => {
                if (step + self.seed % RESET_STEPS).is_multiple_of(RESET_STEPS) {
                    self.acc = 0.0;
                }
                // Half of all counters stand still at any one step, as in real scrapes.
                if r & 1 == 0 {
                    self.acc += ((r >> 8) % u64::from(per_step + 1)) as f64;
                }
                self.acc
            }
            Shape::SecondsCounter => {
                self.acc += ((r >> 8) % 1500) as f64 / 100.0;
                (self.acc * 100.0).round() / 100.0
            }
            Shape::Gauge => {
                let level = (self.seed % 1000) as f64;
                ((level + ((r >> 8) % 1000) as f64 / 50.0) * 1000.0).round() / 1000.0
            }
            Shape::SlowGauge => {
                let held = mix(self.seed ^ (step / 8));
                ((self.seed % 4096) * 4096 + held % 65_536 * 4096) as f64
            }
            Shape::Constant => (self.seed % 64) as f64,
        }
    }
}

fn host_series(host: usize, generation: u32, seed: u64) -> Vec<Series> {
    let instance = if generation == 0 {
        format!("node-{host:05}.prod.example.net:9100")
    } else {
        format!("node-{host:05}-g{generation}.prod.example.net:9100")
    };
    let region = ["eu-west-1", "us-east-1", "ap-south-1"][host % 3];
    let rack = format!("rack-{:02}", host % 40);
    let base = [
        ("cluster", "prod-a"),
        ("env", "production"),
        ("instance", instance.as_str()),
        ("job", "node"),
        ("rack", rack.as_str()),
        ("region", region),
    ];
    let mut out: Vec<Series> = Vec::with_capacity(HOST_SERIES);
    let mut add = |name: &str, extra: &[(&str, &str)], shape: Shape| {
        let mut labels = vec![("__name__", name)];
        labels.extend_from_slice(&base);
        labels.extend_from_slice(extra);
        let id = (host as u64) << 32 | u64::from(generation) << 20 | out.len() as u64;
        out.push(Series::new(&labels, shape, mix(seed ^ id)));
        out.len()
    };
    for cpu in 0..32 {
        let cpu = cpu.to_string();
        for mode in MODES {
            add("node_cpu_seconds_total", &[("cpu", &cpu), ("mode", mode)], Shape::SecondsCounter);
        }
    }
    for device in 0..16 {
        let device = format!("eth{device}");
        for what in ["bytes", "packets", "errs", "drop"] {
            for direction in ["receive", "transmit"] {
                let name = format!("node_network_{direction}_{what}_total");
                let per_step = if what == "bytes" { 1_000_000 } else { 1_000 };
                let still = what == "errs" || what == "drop";
                let shape = if still { Shape::Constant } else { Shape::Counter { per_step } };
                add(&name, &[("device", &device)], shape);
            }
        }
    }
    for handler in 0..16 {
        let handler = format!("/api/v1/resource-{handler:02}");
        for le in BUCKETS {
            let extra = [("handler", handler.as_str()), ("le", le)];
            add("http_request_duration_seconds_bucket", &extra, Shape::Counter { per_step: 40 });
        }
        add("http_request_duration_seconds_count", &[("handler", &handler)], Shape::Counter { per_step: 40 });
        add("http_request_duration_seconds_sum", &[("handler", &handler)], Shape::SecondsCounter);
    }
    for disk in 0..16 {
        let disk = format!("sd{}", char::from(b'a' + disk));
        for what in ["reads_completed", "writes_completed", "read_bytes", "written_bytes"] {
            let name = format!("node_disk_{what}_total");
            add(&name, &[("device", &disk)], Shape::Counter { per_step: 10_000 });
        }
        for what in ["avail_bytes", "free_bytes", "size_bytes", "files"] {
            let shape = if what == "size_bytes" { Shape::Constant } else { Shape::SlowGauge };
            add(&format!("node_filesystem_{what}"), &[("device", &disk), ("fstype", "ext4")], shape);
        }
    }
    let mut filler = 0;
    loop {
        let shape = [Shape::Gauge, Shape::SlowGauge, Shape::Constant, Shape::SlowGauge][filler % 4];
        if add(&format!("node_metric_{filler:03}"), &[], shape) >= HOST_SERIES {
            return out;
        }
        filler += 1;
    }
}

/// splitmix64's finaliser: a good enough stream for load, and the same on every machine.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_load() {
        let mut a = Workload::new(2500, 0, 15_000, 7);
        let mut b = Workload::new(2500, 0, 15_000, 7);
        assert_eq!(a.series.len(), 2500);
        for step in 0..3 {
            for (x, y) in a.series.iter_mut().zip(&mut b.series) {
                assert_eq!(x.labels, y.labels);
                assert_eq!(x.value(step), y.value(step));
            }
        }
    }

    #[test]
    fn label_sets_are_unique_and_churn_replaces_whole_hosts() {
        let mut w = Workload::new(5000, 0, 15_000, 7);
        let unique = |w: &Workload| {
            w.series.iter().map(|s| s.labels.clone()).collect::<std::collections::HashSet<_>>()
        };
        let before = unique(&w);
        assert_eq!(before.len(), 5000);
        w.churn(0.2);
        assert_eq!(before.intersection(&unique(&w)).count(), 4000);
    }
}
