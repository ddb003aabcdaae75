//! The `process_*` metrics every Prometheus client library offers, read from `/proc/self`.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Clock ticks per second in `/proc/<pid>/stat`: 100 on every Linux architecture Rust has a tier-1 or -2 target for.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug)]
pub(crate) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(stat) = ProcessStat::read() {
            let cpu = ConstCounter::new(stat.cpu_seconds);
            let help = "Total user and system CPU time spent in seconds";
            cpu.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, cpu.metric_type())?)?;
            gauge(&mut encoder, "process_virtual_memory_bytes", "Virtual memory size in bytes", stat.vsize)?;
            gauge(&mut encoder, "process_threads", "Number of OS threads", stat.threads)?;
            if let Some(start) = boot_time_seconds().map(|boot| boot + stat.start_seconds) {
                let help = "Start time of the process since unix epoch in seconds";
                gauge(&mut encoder, "process_start_time_seconds", help, start)?;
            }
        }
        if let Some(bytes) = resident_bytes() {
            gauge(&mut encoder, "process_resident_memory_bytes", "Resident memory size in bytes", bytes)?;
        }
        if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
            // The directory handle itself is one of them.
            let open = fds.count().saturating_sub(1) as f64;
            gauge(&mut encoder, "process_open_fds", "Number of open file descriptors", open)?;
        }
        if let Some(max) = max_fds() {
            gauge(&mut encoder, "process_max_fds", "Maximum number of open file descriptors", max)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

#[derive(Debug, PartialEq)]
struct ProcessStat {
    cpu_seconds: f64,
    start_seconds: f64,
    vsize: f64,
    threads: f64,
}

impl ProcessStat {
    fn read() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// The command name, in parentheses, may hold anything: count fields from its end (proc_pid_stat(5)).
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        Some(ProcessStat {
            cpu_seconds: (number(14)? + number(15)?) / TICKS_PER_SECOND,
            threads: number(20)?,
            start_seconds: number(22)? / TICKS_PER_SECOND,
            vsize: number(23)?,
        })
    }
}

fn boot_time_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()
}

fn resident_bytes() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok().map(|kb| kb * 1024.0)
}

fn max_fds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_spaces_and_parentheses_is_skipped() {
        let line = "42 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 7 0 1000 4096 12";
        let stat = ProcessStat::parse(line).unwrap();
        assert_eq!(stat, ProcessStat { cpu_seconds: 3.0, start_seconds: 10.0, vsize: 4096.0, threads: 7.0 });
        assert!(ProcessStat::parse("42 (a").is_none());
    }

    #[test]
    fn this_process_has_memory_and_files() {
        assert!(resident_bytes().unwrap() > 100_000.0);
        assert!(max_fds().unwrap() >= 3.0);
        assert!(ProcessStat::read().unwrap().threads >= 1.0);
        assert!(boot_time_seconds().unwrap() > 1e9);
    }
}
