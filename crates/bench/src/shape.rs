//! How much load: series, time, and how it is sent.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use clap::Args;

use crate::workload::Workload;

/// From here on there are queries over a day, too.
const DAY_S: u64 = 86_400;

/// The size of a load.
#[derive(Args, Clone, Debug)]
pub(crate) struct Shape {
    /// Series of the workload.
    #[arg(long, default_value_t = 50_000)]
    pub(crate) series: usize,
    /// Hours of data.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) hours: f64,
    /// Seconds between two samples of a series.
    #[arg(long, default_value_t = 15)]
    pub(crate) interval: u64,
    /// Steps to write; overrides the hours.
    #[arg(long)]
    pub(crate) steps: Option<u64>,
    /// Samples of one series that come in one request: 1 as a scraper sends them, more to fill a long time quickly.
    #[arg(long, default_value_t = 1)]
    pub(crate) burst: u64,
    /// Connections that write at once.
    #[arg(long, default_value_t = 4)]
    pub(crate) connections: usize,
    /// Seed of the workload.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

impl Shape {
    /// Steps to write.
    pub(crate) fn steps(&self) -> u64 {
        self.steps.unwrap_or((self.hours * 3600.0) as u64 / self.interval.max(1))
    }

    /// The load. It ends at a full block of two hours, so that an hour lies inside one aligned block of every peer.
    pub(crate) fn workload(&self) -> Result<Workload> {
        ensure!(
            self.series > 0 && self.interval > 0 && self.burst > 0,
            "a load has series, steps and samples"
        );
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
        let end_ms = now_ms / 7_200_000 * 7_200_000;
        let interval_ms = self.interval as i64 * 1000;
        Ok(Workload::new(self.series, end_ms - self.steps() as i64 * interval_ms, interval_ms, self.seed))
    }

    /// The time that queries are asked about.
    pub(crate) fn span(&self, workload: &Workload) -> Span {
        Span {
            start_s: workload.start_ms as f64 / 1000.0,
            end_s: workload.time(self.steps()) as f64 / 1000.0,
            hosts: workload.hosts(),
        }
    }

    /// For the head of a table.
    pub(crate) fn title(&self) -> String {
        let hours = self.steps() as f64 * self.interval as f64 / 3600.0;
        let time = if hours >= 48.0 { format!("{} d", hours / 24.0) } else { format!("{hours} h") };
        format!("{} series x {time} at {} s", self.series, self.interval)
    }
}

/// The time and the hosts that there is data of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// First sample, in seconds.
    pub(crate) start_s: f64,
    /// After the last sample, in seconds.
    pub(crate) end_s: f64,
    /// Number of hosts.
    pub(crate) hosts: usize,
}

impl Span {
    /// There is a day and more.
    pub(crate) fn has_a_day(&self) -> bool {
        self.end_s - self.start_s >= DAY_S as f64
    }

    /// The step of a range query over so many seconds: what a dashboard of usual width asks, never below 15 s.
    pub(crate) fn step_s(span_s: f64) -> u64 {
        match span_s {
            s if s <= 3.0 * 3600.0 => 15,
            s if s <= DAY_S as f64 => 120,
            _ => 600,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_from_hours_unless_they_are_given() {
        let shape =
            Shape { series: 1, hours: 24.0, interval: 60, steps: None, burst: 1, connections: 1, seed: 1 };
        assert_eq!(shape.steps(), 1440);
        assert_eq!(Shape { steps: Some(7), ..shape.clone() }.steps(), 7);
        let workload = shape.workload().unwrap();
        assert!(shape.span(&workload).has_a_day());
        assert_eq!(shape.title(), "1 series x 24 h at 60 s");
    }
}
