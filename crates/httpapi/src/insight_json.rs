//! What a query cost, as JSON: Prometheus's `stats`, Thanos's `analysis` and operator trees.

use std::time::Duration;

use chronolith_promql::value::{Analysis, OperatorAnalysis, QueryStats, QueryTimings, StepSamples};

use crate::JsonBuf;

/// The times of the steps that [`StepSamples`] is about.
#[derive(Clone, Copy, Debug)]
pub struct StepTimes {
    /// First step, milliseconds.
    pub start_ms: i64,
    /// Between steps; 0 for a query at one time.
    pub step_ms: i64,
}

/// Writes upstream's `stats` object.
pub fn write_stats(
    j: &mut JsonBuf,
    timings: &QueryTimings,
    queued_s: f64,
    stats: &QueryStats,
    steps: Option<(&StepSamples, StepTimes)>,
) {
    j.raw(r#"{"timings":"#);
    write_timings(j, timings, queued_s);
    j.raw(r#","samples":{"#);
    if let Some((samples, times)) = steps {
        j.raw(r#""totalQueryableSamplesPerStep":"#);
        write_steps(j, &samples.total, times);
        j.raw(",");
    }
    j.raw(r#""totalQueryableSamples":"#).int(stats.samples_total as i64).raw(",");
    if let Some((samples, times)) = steps {
        j.raw(r#""samplesReadPerStep":"#);
        write_steps(j, &samples.read, times);
        j.raw(",");
    }
    j.raw(r#""samplesRead":"#).int(stats.samples_read as i64);
    j.raw(r#","peakSamples":"#).int(stats.samples_peak as i64).raw("}}");
}

fn write_steps(j: &mut JsonBuf, counts: &[u64], times: StepTimes) {
    j.array(counts.iter().enumerate(), |j, (i, n)| {
        j.raw("[").timestamp(times.start_ms + times.step_ms * i as i64).raw(",").int(*n as i64).raw("]");
    });
}

/// Writes upstream's `timings` object.
pub fn write_timings(j: &mut JsonBuf, timings: &QueryTimings, queued_s: f64) {
    let eval_s = timings.prepare_s + timings.eval_s + timings.sort_s;
    j.raw(r#"{"evalTotalTime":"#).raw(&seconds(eval_s));
    j.raw(r#","resultSortTime":"#).raw(&seconds(timings.sort_s));
    j.raw(r#","queryPreparationTime":"#).raw(&seconds(timings.prepare_s));
    j.raw(r#","innerEvalTime":"#).raw(&seconds(timings.eval_s));
    j.raw(r#","execQueueTime":"#).raw(&seconds(queued_s));
    j.raw(r#","execTotalTime":"#).raw(&seconds(queued_s + eval_s)).raw("}");
}

/// Seconds to the nanosecond, as a JSON number.
pub fn seconds(seconds: f64) -> String {
    let text = format!("{:.9}", seconds.max(0.0));
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Writes Thanos's `analysis`: what each operator cost. `series`, `samples` and `peakMemoryBytes` are ours.
pub fn write_analysis(j: &mut JsonBuf, analysis: &Analysis) {
    // As Thanos has it, an operator's samples are those of the operators below it, too.
    let mut peaks: Vec<u64> = analysis.operators.iter().map(|o| o.samples_peak).collect();
    for (i, o) in analysis.operators.iter().enumerate().rev() {
        peaks[i] = o.children.iter().map(|c| peaks[*c]).fold(peaks[i], u64::max);
    }
    write_tree(j, analysis, |j, i, o| {
        j.raw(r#""name":"#).string(&o.name).raw(r#","executionTime":"#).string(&go_duration(o.time));
        for (key, n) in [
            ("peakSamples", peaks[i]),
            ("totalSamples", o.samples_total),
            ("series", o.series),
            ("samples", o.samples),
            ("peakMemoryBytes", o.memory_peak_bytes),
        ] {
            if n > 0 {
                j.raw(",\"").raw(key).raw("\":").int(n as i64);
            }
        }
    });
}

/// Writes what Thanos answers to `query_explain`: the operators' names.
pub fn write_explanation(j: &mut JsonBuf, analysis: &Analysis) {
    write_tree(j, analysis, |j, _, o| {
        j.raw(r#""name":"#).string(&o.name);
    });
}

/// Writes operators as nested objects. Works with a list of its own: a chain of operators is a deep tree.
fn write_tree(
    j: &mut JsonBuf,
    analysis: &Analysis,
    mut write: impl FnMut(&mut JsonBuf, usize, &OperatorAnalysis),
) {
    if analysis.operators.is_empty() {
        j.raw("{}");
        return;
    }
    // Operators that are open, with the number of children that are written.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut next = Some(0);
    loop {
        if let Some(i) = next.take() {
            j.raw("{");
            write(j, i, &analysis.operators[i]);
            open.push((i, 0));
        }
        let Some((i, written)) = open.last_mut() else { return };
        match analysis.operators[*i].children.get(*written) {
            Some(child) => {
                j.raw(if *written == 0 { r#","children":["# } else { "," });
                *written += 1;
                next = Some(*child);
            }
            None => {
                j.raw(if *written > 0 { "]}" } else { "}" });
                open.pop();
            }
        }
    }
}

/// Go's `Duration.String()`.
fn go_duration(d: Duration) -> String {
    let nanos = d.as_nanos();
    let fraction = |n: u128, unit: u128, digits: usize| {
        let text = format!("{}.{:0digits$}", n / unit, n % unit);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000, 6)),
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let seconds = fraction(rest, 1_000_000_000, 9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, m) => format!("{m}m{seconds}s"),
                (h, m) => format!("{h}h{m}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(name: &str, nanos: u64, samples_peak: u64, children: Vec<usize>) -> OperatorAnalysis {
        OperatorAnalysis {
            name: name.to_owned(),
            time: Duration::from_nanos(nanos),
            samples_peak,
            children,
            ..OperatorAnalysis::default()
        }
    }

    #[test]
    fn trees_nest() {
        let operators = vec![
            operator("[binary] +", 1_500_000, 1, vec![1, 2]),
            operator("[number] 1", 0, 0, vec![]),
            OperatorAnalysis { series: 2, ..operator("[aggregate] sum", 61_000_000_000, 3, vec![3]) },
            operator("[vectorSelector] up", 2_500, 7, vec![]),
        ];
        let analysis = Analysis { operators };
        let json = |write: fn(&mut JsonBuf, &Analysis)| {
            let mut j = JsonBuf::new();
            write(&mut j, &analysis);
            String::from_utf8(j.bytes).unwrap()
        };
        assert_eq!(
            json(write_explanation),
            r#"{"name":"[binary] +","children":[{"name":"[number] 1"},{"name":"[aggregate] sum","children":[{"name":"[vectorSelector] up"}]}]}"#
        );
        let analysis: serde_json::Value = serde_json::from_str(&json(write_analysis)).unwrap();
        assert_eq!((&analysis["executionTime"], &analysis["peakSamples"]), (&"1.5ms".into(), &7.into()));
        let sum = &analysis["children"][1];
        assert_eq!((&sum["executionTime"], &sum["series"]), (&"1m1s".into(), &2.into()));
        assert_eq!(sum["children"][0]["executionTime"], "2.5µs");
        assert_eq!(analysis["children"][0]["executionTime"], "0s");
        // A tree as deep as the longest query.
        let deep = (0..100_000).map(|i| operator("-", 1, 0, if i < 99_999 { vec![i + 1] } else { vec![] }));
        let mut j = JsonBuf::new();
        write_explanation(&mut j, &Analysis { operators: deep.collect() });
        assert!(j.bytes.ends_with(b"}]}]}]}"));
    }

    #[test]
    fn stats_are_upstreams() {
        let stats = QueryStats { samples_total: 5, samples_read: 3, samples_peak: 2, series_read: 1 };
        let timings = QueryTimings { prepare_s: 0.25, eval_s: 1.0, sort_s: 0.5 };
        let steps = StepSamples { total: vec![3, 2], read: vec![3, 0] };
        let mut j = JsonBuf::new();
        let times = StepTimes { start_ms: 1_500, step_ms: 15_000 };
        write_stats(&mut j, &timings, 0.125, &stats, Some((&steps, times)));
        assert_eq!(
            String::from_utf8(j.bytes).unwrap(),
            concat!(
                r#"{"timings":{"evalTotalTime":1.75,"resultSortTime":0.5,"queryPreparationTime":0.25,"#,
                r#""innerEvalTime":1,"execQueueTime":0.125,"execTotalTime":1.875},"#,
                r#""samples":{"totalQueryableSamplesPerStep":[[1.500,3],[16.500,2]],"totalQueryableSamples":5,"#,
                r#""samplesReadPerStep":[[1.500,3],[16.500,0]],"samplesRead":3,"peakSamples":2}}"#
            )
        );
    }
}
