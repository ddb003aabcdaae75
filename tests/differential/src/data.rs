//! The data that both sides get: every kind of series that makes a difference to an engine.
//!
//! Times are fixed, so that a seed means the same query on every day; they cross the end of a February of a leap year, for
//! the functions of the calendar. Series are sorted by labels: Prometheus numbers series in the order in which it meets
//! them, and reads them in that order, so ties (`topk`, `limitk`, "found duplicate series") fall as they fall for us.

use crate::dialect::Dialect;
use crate::random::Random;
use crate::starts::add_starts;

/// Time of the first sample: 2024-02-29T23:30:00Z, in milliseconds.
pub const START_MS: i64 = 1_709_249_400_000;
/// From the first to the last sample, within one head of either side.
pub const SPAN_MS: i64 = 50 * 60 * 1000;
/// The usual time between two samples.
const SCRAPE_MS: i64 = 15_000;
/// The marker that ends a series until its next sample.
pub(crate) const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// What the numbers of a metric look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A counter.
    Counter,
    /// A gauge.
    Gauge,
    /// Buckets of a classic histogram.
    Bucket,
    /// Constant 1, with labels to join.
    Info,
    /// Native histograms, counters or gauges, with exponential or custom buckets.
    Native,
    /// Floats at some times, histograms at others.
    Mixed,
}

/// A native histogram, buckets by index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Native {
    /// -4..=8, or -53 for custom buckets.
    pub schema: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in it.
    pub zero_count: f64,
    /// Sum of observations.
    pub sum: f64,
    /// Buckets, ascending by index, never empty of observations.
    pub positive: Vec<(i32, f64)>,
    /// The same for negative observations.
    pub negative: Vec<(i32, f64)>,
    /// Upper bounds of custom buckets.
    pub custom: Vec<f64>,
    /// Counts are floats.
    pub float: bool,
    /// A gauge histogram.
    pub gauge: bool,
}

impl Native {
    /// Observations in all buckets.
    pub fn count(&self) -> f64 {
        self.zero_count + self.positive.iter().chain(&self.negative).map(|(_, c)| c).sum::<f64>()
    }
}

/// A sample's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Point {
    /// A number.
    Float(f64),
    /// A native histogram.
    Histogram(Native),
}

/// A series.
#[derive(Clone, Debug)]
pub struct Series {
    /// Sorted by name.
    pub labels: Vec<(String, String)>,
    /// Ascending by time.
    pub points: Vec<(i64, Point)>,
    /// When what each point counts began, 0 where that is not known; empty where no point says so.
    pub starts: Vec<i64>,
}

/// What the generator knows of a metric.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// What its numbers look like.
    pub shape: Shape,
    /// Its labels with all their values.
    pub labels: Vec<(String, Vec<String>)>,
}

/// The series and what is known of them.
#[derive(Clone, Debug, Default)]
pub struct Data {
    /// All series, sorted by labels.
    pub series: Vec<Series>,
    /// All metrics.
    pub metrics: Vec<Metric>,
}

struct Builder {
    data: Data,
    random: Random,
    closed_windows: bool,
    /// Series carry `__type__` and `__unit__`.
    types: bool,
}

impl Data {
    /// The data for a peer: without what its version does not take.
    pub fn new(dialect: &Dialect, seed: u64) -> Self {
        let mut b = Builder {
            data: Data::default(),
            random: Random::new(seed),
            closed_windows: dialect.closed_windows(),
            types: dialect.has("type-and-unit-labels"),
        };
        b.classic();
        b.gauges();
        b.buckets(!dialect.closed_windows());
        b.infos();
        if !dialect.closed_windows() {
            b.utf8();
        }
        if dialect.native {
            b.natives();
        }
        b.data.series.sort_by(|a, b| a.labels.cmp(&b.labels));
        if dialect.starts() {
            add_starts(&mut b.data.series, seed);
        }
        b.data
    }
}

impl Builder {
    /// Times of a series. Under closed windows no sample lies where a window can end: they are 137 ms past the second.
    fn times(&mut self, aligned: bool, every_ms: i64) -> Vec<i64> {
        let shift = if aligned && !self.closed_windows { 0 } else { 137 };
        (0..=SPAN_MS / every_ms).map(|i| START_MS + i * every_ms + shift).collect()
    }

    fn add(&mut self, shape: Shape, name: &str, labels: &[(&str, &str)], points: Vec<(i64, Point)>) {
        let mut labels = labels.to_vec();
        if self.types {
            let kind = match shape {
                Shape::Counter => Some("counter"),
                Shape::Gauge => Some("gauge"),
                Shape::Bucket | Shape::Native => Some("histogram"),
                Shape::Info => Some("info"),
                Shape::Mixed => None,
            };
            labels.extend(kind.map(|kind| ("__type__", kind)));
            let unit = ["seconds", "bytes"].into_iter().find(|unit| name.contains(unit));
            labels.extend(unit.map(|unit| ("__unit__", unit)));
        }
        let at = self.data.metrics.iter().position(|m| m.name == name);
        let at = at.unwrap_or_else(|| {
            self.data.metrics.push(Metric { name: name.to_owned(), shape, labels: Vec::new() });
            self.data.metrics.len() - 1
        });
        let metric = &mut self.data.metrics[at];
        for (label, value) in &labels {
            match metric.labels.iter_mut().find(|(l, _)| l == label) {
                Some((_, values)) if values.iter().any(|v| v == value) => {}
                Some((_, values)) => values.push((*value).to_owned()),
                None => metric.labels.push(((*label).to_owned(), vec![(*value).to_owned()])),
            }
        }
        let mut labels: Vec<(String, String)> =
            labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        labels.push(("__name__".to_owned(), name.to_owned()));
        labels.sort();
        self.data.series.push(Series { labels, points, starts: Vec::new() });
    }

    fn floats(&mut self, shape: Shape, name: &str, labels: &[(&str, &str)], points: Vec<(i64, f64)>) {
        self.add(shape, name, labels, points.into_iter().map(|(t, v)| (t, Point::Float(v))).collect());
    }

    /// A counter that starts anew now and then, whole or fractional.
    fn counter(&mut self, times: &[i64], step: f64, whole: bool) -> Vec<(i64, f64)> {
        let mut v = if self.random.chance(50) { 0.0 } else { 1000.0 };
        let mut out = Vec::new();
        for t in times {
            if self.random.chance(2) {
                v = 0.0;
            }
            v += if self.random.chance(20) { 0.0 } else { self.random.unit() * step };
            out.push((*t, if whole { v.floor() } else { v }));
        }
        out
    }

    /// Takes away some samples, and a stretch longer than the lookback.
    fn gaps(&mut self, points: &mut Vec<(i64, f64)>, long: bool) {
        points.retain(|_| !self.random.chance(10));
        if long {
            let from = START_MS + 10 * 60_000 + self.random.below(20 * 60) as i64 * 1000;
            points.retain(|(t, _)| *t < from || *t > from + 8 * 60_000);
        }
    }

    fn classic(&mut self) {
        for (job, instances) in [("api", ["a:1", "b:1", "c:1"]), ("db", ["a:2", "b:2", "d:2"])] {
            for instance in instances {
                let times = self.times(job == "api", SCRAPE_MS);
                for (method, code) in [("GET", "200"), ("GET", "500"), ("POST", "200"), ("POST", "404")] {
                    if job == "db" && code == "404" {
                        continue;
                    }
                    let mut points = self.counter(&times, 20.0, true);
                    self.gaps(&mut points, code == "500");
                    let labels = [("job", job), ("instance", instance), ("method", method), ("code", code)];
                    self.floats(Shape::Counter, "http_requests_total", &labels, points);
                }
                let points = self.counter(&times, 0.9, false);
                self.floats(
                    Shape::Counter,
                    "cpu_seconds_total",
                    &[("job", job), ("instance", instance)],
                    points,
                );
                // An instance is up, goes away with a stale marker, comes back.
                let mut points: Vec<(i64, f64)> = Vec::new();
                let mut up = true;
                for t in &times {
                    if self.random.chance(4) {
                        if up {
                            points.push((*t, STALE));
                        }
                        up = !up;
                    } else if up {
                        points.push((*t, if self.random.chance(85) { 1.0 } else { 0.0 }));
                    }
                }
                self.floats(Shape::Gauge, "up", &[("job", job), ("instance", instance)], points);
            }
        }
    }

    fn gauges(&mut self) {
        for (job, instance, room) in
            [("api", "a:1", "hall"), ("api", "b:1", "attic"), ("db", "a:2", "hall"), ("db", "b:2", "cellar")]
        {
            let times = self.times(job == "db", SCRAPE_MS);
            let mut v = 20.0;
            let mut points = Vec::new();
            for t in &times {
                v += self.random.unit() * 4.0 - 2.0;
                points.push((*t, v));
            }
            self.gaps(&mut points, room == "attic");
            self.floats(Shape::Gauge, "temperature", &[("job", job), ("room", room)], points);
            // Few values, so that there are ties; and what is no number.
            let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0];
            let points = times.iter().map(|t| {
                let odd = self.random.chance(6);
                (*t, if odd { special[self.random.below(4)] } else { self.random.below(7) as f64 - 3.0 })
            });
            let points = points.collect();
            self.floats(Shape::Gauge, "queue", &[("job", job), ("instance", instance)], points);
            let points =
                times.iter().map(|t| (*t, 3.0e7 + (self.random.below(1000) * 4096) as f64)).collect();
            self.floats(Shape::Gauge, "memory_bytes", &[("job", job), ("instance", instance)], points);
            // So large that their sum is out of range.
            let points = times.iter().map(|t| (*t, (self.random.unit() - 0.3) * 1.7e308)).collect();
            self.floats(Shape::Gauge, "huge", &[("job", job), ("room", room)], points);
            let day = 86_400.0;
            let points =
                times.iter().map(|t| (*t, (self.random.unit() * 40_000.0 - 10_000.0) * day)).collect();
            self.floats(Shape::Gauge, "birthday_seconds", &[("job", job), ("instance", instance)], points);
        }
        // Every minute, with jitter, and with pauses around the lookback.
        for instance in ["a:1", "a:2"] {
            let mut t = START_MS + 137;
            let mut points = Vec::new();
            while t < START_MS + SPAN_MS {
                points.push((t, self.random.below(100) as f64));
                t += 1000 * (20 + self.random.below(400) as i64);
            }
            self.floats(Shape::Gauge, "sparse", &[("instance", instance), ("job", "api")], points);
        }
        self.floats(Shape::Gauge, "once", &[("job", "api")], vec![(START_MS + 20 * 60_000 + 137, 42.0)]);
        let times = self.times(true, 60_000);
        let points = times.iter().map(|t| (*t, 0.1)).collect();
        self.floats(Shape::Gauge, "constant", &[("job", "db")], points);
        let points = times.iter().map(|t| (*t, 7.0)).collect();
        self.floats(Shape::Gauge, "constant", &[("job", "api"), ("empty_in_db", "x")], points);
    }

    fn buckets(&mut self, malformed: bool) {
        const BOUNDS: [&str; 5] = ["0.1", "0.5", "1", "5", "+Inf"];
        for (job, instance) in [("api", "a:1"), ("api", "b:1"), ("db", "a:2")] {
            let times = self.times(job == "db", SCRAPE_MS);
            let mut counts = [0.0_f64; 5];
            let (mut sum, mut rows) = (0.0, Vec::new());
            for t in &times {
                if self.random.chance(1) {
                    (counts, sum) = ([0.0; 5], 0.0);
                }
                for _ in 0..self.random.below(6) {
                    let observed = self.random.unit() * self.random.unit() * 8.0;
                    sum += observed;
                    for (count, bound) in counts.iter_mut().zip([0.1, 0.5, 1.0, 5.0, f64::INFINITY]) {
                        *count += if observed <= bound { 1.0 } else { 0.0 };
                    }
                }
                rows.push((*t, counts, sum));
            }
            for (i, le) in BOUNDS.into_iter().enumerate() {
                // A scrape that is torn between two buckets makes them fall.
                let torn = i == 1 && job == "db";
                let points = rows.iter().map(|(t, c, _)| {
                    (*t, if torn && self.random.chance(5) { (c[i] - 3.0).max(0.0) } else { c[i] })
                });
                let points = points.collect();
                let labels = [("job", job), ("instance", instance), ("le", le)];
                self.floats(Shape::Bucket, "latency_seconds_bucket", &labels, points);
            }
            let labels = [("job", job), ("instance", instance)];
            let points = rows.iter().map(|(t, c, _)| (*t, c[4])).collect();
            self.floats(Shape::Counter, "latency_seconds_count", &labels, points);
            let points = rows.iter().map(|(t, _, s)| (*t, *s)).collect();
            self.floats(Shape::Counter, "latency_seconds_sum", &labels, points);
            if malformed && job == "db" {
                let points = rows.iter().map(|(t, c, _)| (*t, c[2])).collect();
                let labels = [("job", job), ("instance", instance), ("le", "many")];
                self.floats(Shape::Bucket, "latency_seconds_bucket", &labels, points);
            }
        }
    }

    fn infos(&mut self) {
        let times = self.times(true, SCRAPE_MS);
        let half = times.len() / 2;
        for (job, instance, version, region) in [
            ("api", "a:1", "1.0", "eu"),
            ("api", "b:1", "1.0", "us"),
            ("db", "a:2", "2.1", "eu"),
            ("db", "b:2", "2.1", ""),
        ] {
            // The second one is updated half way.
            let upgraded = instance == "b:1";
            let before = times.iter().take(if upgraded { half } else { times.len() });
            let mut points: Vec<(i64, f64)> = before.map(|t| (*t, 1.0)).collect();
            if upgraded {
                points.push((times[half], STALE));
                let after = times[half..].iter().map(|t| (*t, 1.0)).collect();
                let labels = [("job", job), ("instance", instance), ("version", "1.1")];
                self.floats(Shape::Info, "build_info", &labels, after);
            }
            let labels = [("job", job), ("instance", instance), ("version", version)];
            self.floats(Shape::Info, "build_info", &labels, points);
            let points: Vec<(i64, f64)> = times.iter().map(|t| (*t, 1.0)).collect();
            let labels = [("job", job), ("instance", instance), ("region", region), ("version", "os1")];
            let given = labels.into_iter().filter(|(_, v)| !v.is_empty()).collect::<Vec<_>>();
            self.floats(Shape::Info, "target_info", &given, points);
        }
    }

    fn utf8(&mut self) {
        for (service, zone) in [("käse", "eu/1"), ("käse", "eu/2"), ("plain", "\"quoted\"\\")] {
            let times = self.times(service == "plain", SCRAPE_MS);
            let points = self.counter(&times, 3.0, false);
            let labels = [("service.name", service), ("zone", zone), ("job", "api")];
            self.floats(Shape::Counter, "http.requests", &labels, points);
        }
    }

    fn natives(&mut self) {
        for (i, (job, instance)) in
            [("api", "a:1"), ("api", "b:1"), ("db", "a:2"), ("db", "b:2")].into_iter().enumerate()
        {
            let labels = [("job", job), ("instance", instance)];
            let times = self.times(job == "api", SCRAPE_MS);
            let schema = [0, 2, 0, 3][i];
            let mut h = Native { schema, zero_threshold: 0.001, ..Native::default() };
            let mut points = Vec::new();
            for (n, t) in times.iter().enumerate() {
                if self.random.chance(2) {
                    h = Native { schema, zero_threshold: 0.001, ..Native::default() };
                }
                // One changes its resolution on the way.
                if i == 3 && n == times.len() / 2 {
                    h = Native { schema: 1, zero_threshold: 0.01, ..Native::default() };
                }
                self.observe(&mut h, 4);
                points.push((*t, Point::Histogram(h.clone())));
            }
            if i == 2 {
                points[times.len() / 3].1 = Point::Float(STALE);
                points.drain(times.len() / 3 + 1..times.len() / 2);
            }
            self.add(Shape::Native, "rpc_seconds", &labels, points);
            // A gauge: each one for itself, some with float counts.
            let points = times.iter().map(|t| {
                let mut h = Native { schema: 1, zero_threshold: 0.001, gauge: true, ..Native::default() };
                h.float = i == 1;
                self.observe(&mut h, 8);
                if h.float {
                    h.positive.iter_mut().for_each(|b| b.1 *= 0.75);
                }
                (*t, Point::Histogram(h))
            });
            let points = points.collect();
            self.add(Shape::Native, "rpc_in_flight", &labels, points);
            let custom =
                [vec![0.5, 1.0, 2.5], vec![0.5, 1.0, 2.5], vec![0.5, 2.5, 10.0], vec![1.0]][i].clone();
            let mut h = Native { schema: -53, custom: custom.clone(), ..Native::default() };
            let mut points = Vec::new();
            for t in &times {
                if self.random.chance(2) {
                    h = Native { schema: -53, custom: custom.clone(), ..Native::default() };
                }
                for _ in 0..self.random.below(4) {
                    let observed = self.random.unit() * 4.0;
                    let bucket = custom.iter().position(|b| observed <= *b).unwrap_or(custom.len());
                    count(&mut h.positive, bucket as i32);
                    h.sum += observed;
                }
                points.push((*t, Point::Histogram(h.clone())));
            }
            self.add(Shape::Native, "rpc_custom", &labels, points);
            if i < 2 {
                let mut h = Native { schema: 0, ..Native::default() };
                let mut points = Vec::new();
                for (n, t) in times.iter().enumerate() {
                    self.observe(&mut h, 3);
                    let float = (n / 40) % 2 == i;
                    points
                        .push((*t, if float { Point::Float(n as f64) } else { Point::Histogram(h.clone()) }));
                }
                self.add(Shape::Mixed, "mixed_total", &labels, points);
            }
        }
    }

    /// Up to `n` observations, positive ones mostly.
    fn observe(&mut self, h: &mut Native, n: usize) {
        for _ in 0..self.random.below(n + 1) {
            let v = (self.random.unit() * 10.0 - 3.0).exp() * if self.random.chance(15) { -1.0 } else { 1.0 };
            let v = if self.random.chance(10) { 0.0 } else { v };
            h.sum += v;
            if v.abs() <= h.zero_threshold {
                h.zero_count += 1.0;
                continue;
            }
            let index = (v.abs().log2() * f64::from(h.schema).exp2()).ceil() as i32;
            count(if v < 0.0 { &mut h.negative } else { &mut h.positive }, index);
        }
    }
}

fn count(buckets: &mut Vec<(i32, f64)>, index: i32) {
    match buckets.binary_search_by_key(&index, |b| b.0) {
        Ok(at) => buckets[at].1 += 1.0,
        Err(at) => buckets.insert(at, (index, 1.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_is_sorted_and_the_same_every_time() {
        let dialect = Dialect { version: Dialect::OURS, features: vec![], native: true };
        let data = Data::new(&dialect, 1);
        assert!(data.series.windows(2).all(|w| w[0].labels < w[1].labels));
        for s in &data.series {
            assert!(s.points.windows(2).all(|w| w[0].0 < w[1].0), "{:?}", s.labels);
        }
        assert_eq!(format!("{data:?}"), format!("{:?}", Data::new(&dialect, 1)));
        let old = Data::new(&Dialect { version: (2, 42), features: vec![], native: false }, 1);
        let on_edge = old.series.iter().flat_map(|s| &s.points).any(|(t, _)| t % 1000 != 137);
        assert!(!on_edge && old.series.len() < data.series.len());
    }
}
