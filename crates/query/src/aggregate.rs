//! Which aggregates of downsampled data a query needs, and how they become samples.

use chronolith_chunk::{ChunkError, CounterTotals, SampleColumns};
use chronolith_model::TimeRange;
use chronolith_storeapi::{AggrChunk, Aggregate, AggregateSet, DownsampledChunk};

/// How downsampled chunks turn into samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Sum by count.
    Average,
    /// Sums, each with its count, for what adds both up over a range.
    Sums,
    /// One aggregate as it is.
    One(Aggregate),
    /// The counter aggregate with its resets put together over chunk borders.
    Counter,
}

impl View {
    /// The view for the function or aggregation around a selector: as Thanos chooses it, but that averages and counts over a range
    /// are those of the raw samples, and that a function around a subquery (`range_ms` is 0) looks at the values of its steps.
    pub(crate) fn for_function(func: Option<&str>, range_ms: i64) -> Self {
        let over_range = range_ms > 0;
        match func.unwrap_or("") {
            "increase" | "rate" | "irate" | "resets" => View::Counter,
            "min" | "min_over_time" | "ts_of_min_over_time" => View::One(Aggregate::Min),
            "max" | "max_over_time" | "ts_of_max_over_time" => View::One(Aggregate::Max),
            "avg_over_time" | "count_over_time" if over_range => View::Sums,
            "sum_over_time" if over_range => View::One(Aggregate::Sum),
            // These look at what is there, not at its value.
            "count" | "group" | "present_over_time" | "absent_over_time" => View::One(Aggregate::Count),
            _ => View::Average,
        }
    }

    /// The aggregates to ask for.
    pub(crate) fn aggregates(self) -> AggregateSet {
        match self {
            View::Average | View::Sums => AggregateSet::AVERAGE,
            View::One(aggregate) => AggregateSet::RAW.with(aggregate),
            View::Counter => AggregateSet::RAW.with(Aggregate::Counter),
        }
    }
}

/// True for the functions before which penalty deduplication evens out differences between replicas' counters.
pub(crate) fn is_counter_function(func: Option<&str>) -> bool {
    matches!(func, Some("increase" | "rate" | "irate" | "resets"))
}

/// The coarsest resolution that will do: a function over a range needs a sample in it, one that compares samples needs two.
pub(crate) fn max_resolution_ms(requested_ms: i64, range_ms: i64, func: Option<&str>) -> i64 {
    match func {
        Some(
            "rate"
            | "irate"
            | "increase"
            | "delta"
            | "idelta"
            | "deriv"
            | "predict_linear"
            | "changes"
            | "resets"
            | "double_exponential_smoothing",
        ) => requested_ms.min(range_ms / 2),
        Some(_) if range_ms > 0 => requested_ms.min(range_ms),
        _ => requested_ms,
    }
}

/// Appends the samples of chunks that do not overlap, sorted by time, of which some may be downsampled.
pub(crate) fn decode(
    chunks: &[AggrChunk],
    view: View,
    range: TimeRange,
    out: &mut SampleColumns,
) -> Result<(), ChunkError> {
    let downsampled = chunks.iter().any(|c| matches!(c, AggrChunk::Downsampled(_)));
    let mut counter = (downsampled && view == View::Counter).then(CounterTotals::default);
    if counter.is_some() {
        // What growing step by step would move is as much as all samples.
        out.reserve(chunks.iter().map(counter_samples).sum());
    }
    let mut samples = SampleColumns::default();
    for chunk in chunks {
        samples.clear();
        match (chunk, &mut counter) {
            (AggrChunk::Raw(chunk), None) if out.counts.is_empty() => chunk.decode_into(range, out)?,
            (AggrChunk::Raw(chunk), None) => {
                chunk.decode_into(range, &mut samples)?;
                out.extend_from(&samples, 0, samples.len());
            }
            (AggrChunk::Raw(chunk), Some(counter)) => {
                chunk.decode_into(TimeRange::ALL, &mut samples)?;
                push_totals(counter, &samples, range, out);
            }
            (AggrChunk::Downsampled(chunk), None) => decode_downsampled(chunk, view, range, out)?,
            (AggrChunk::Downsampled(chunk), Some(counter)) => {
                if let Some(part) = chunk.part(Aggregate::Counter) {
                    part.decode_into(TimeRange::ALL, &mut samples)?;
                }
                push_totals(counter, &samples, range, out);
            }
        }
    }
    Ok(())
}

/// Samples of a chunk's counter; nothing where it does not say, which decoding will find.
fn counter_samples(chunk: &AggrChunk) -> usize {
    let part = match chunk {
        AggrChunk::Raw(chunk) => Some(chunk),
        AggrChunk::Downsampled(chunk) => chunk.part(Aggregate::Counter),
    };
    part.and_then(|part| part.sample_count().ok()).unwrap_or(0)
}

fn decode_downsampled(
    chunk: &DownsampledChunk,
    view: View,
    range: TimeRange,
    out: &mut SampleColumns,
) -> Result<(), ChunkError> {
    let read = |aggregate| {
        let mut samples = SampleColumns::default();
        match chunk.part(aggregate) {
            Some(part) => part.decode_into(range, &mut samples).map(|()| samples),
            None => Ok(samples),
        }
    };
    match view {
        View::Average | View::Sums => {
            let (counts, sums) = (read(Aggregate::Count)?, read(Aggregate::Sum)?);
            let mut j = 0;
            for (i, t) in counts.ts.iter().enumerate() {
                while j < sums.len() && sums.ts[j] < *t {
                    j += 1;
                }
                if j < sums.len() && sums.ts[j] == *t {
                    if view == View::Sums {
                        out.push_from(&sums, j);
                        out.set_last_count(counts.values[i]);
                    } else {
                        push_average(&counts, i, &sums, j, out);
                    }
                }
            }
        }
        View::One(aggregate) => {
            let samples = read(aggregate)?;
            out.extend_from(&samples, 0, samples.len());
        }
        View::Counter => unreachable!("counters are put together over chunks"),
    }
    Ok(())
}

fn push_average(counts: &SampleColumns, i: usize, sums: &SampleColumns, j: usize, out: &mut SampleColumns) {
    let (t, count) = (counts.ts[i], counts.values[i]);
    match sums.histogram(j) {
        None => out.push_float(t, sums.values[j] / count),
        Some(sum) => {
            let mut average = (**sum).clone();
            average.div(count);
            out.push_histogram(t, average.into());
        }
    }
}

/// Appends the totals inside `range`; histograms pass as they are.
fn push_totals(
    counter: &mut CounterTotals,
    samples: &SampleColumns,
    range: TimeRange,
    out: &mut SampleColumns,
) {
    if samples.histograms.is_empty()
        && out.histograms.is_empty()
        && out.start_ts.is_empty()
        && out.counts.is_empty()
    {
        for (&t, &v) in samples.ts.iter().zip(&samples.values) {
            if let Some(total) = counter.push(t, v).filter(|_| range.contains(t)) {
                out.ts.push(t);
                out.values.push(total);
            }
        }
        return;
    }
    for (i, (&t, &v)) in samples.ts.iter().zip(&samples.values).enumerate() {
        if samples.histogram(i).is_some() {
            if range.contains(t) {
                out.push_from(samples, i);
            }
        } else if let Some(total) = counter.push(t, v).filter(|_| range.contains(t)) {
            out.push_float(t, total);
        }
    }
}

#[cfg(test)]
mod tests {
    use chronolith_chunk::encode_floats;

    use super::*;

    fn downsampled(parts: &[(Aggregate, &[(i64, f64)])]) -> AggrChunk {
        let times = parts.iter().flat_map(|(_, s)| s.iter().map(|(t, _)| *t));
        let (mint, maxt) = (times.clone().min().unwrap(), times.max().unwrap());
        let mut chunk = DownsampledChunk { mint, maxt, parts: Default::default() };
        for (aggregate, samples) in parts {
            let (ts, values): (Vec<i64>, Vec<f64>) = samples.iter().copied().unzip();
            chunk.set_part(*aggregate, encode_floats(&ts, &values).remove(0));
        }
        AggrChunk::Downsampled(Box::new(chunk))
    }

    fn decoded(chunks: &[AggrChunk], view: View, range: TimeRange) -> Vec<(i64, f64)> {
        let mut out = SampleColumns::default();
        decode(chunks, view, range, &mut out).unwrap();
        out.ts.into_iter().zip(out.values).collect()
    }

    #[test]
    fn functions_choose_their_aggregates() {
        let cases = [
            (None, 0, View::Average),
            (Some("sum"), 0, View::Average),
            (Some("sum_over_time"), 1, View::One(Aggregate::Sum)),
            (Some("sum_over_time"), 0, View::Average),
            (Some("avg_over_time"), 1, View::Sums),
            (Some("count_over_time"), 1, View::Sums),
            (Some("min"), 0, View::One(Aggregate::Min)),
            (Some("max_over_time"), 1, View::One(Aggregate::Max)),
            (Some("count"), 0, View::One(Aggregate::Count)),
            (Some("count_values"), 0, View::Average),
            (Some("rate"), 1, View::Counter),
            (Some("delta"), 1, View::Average),
        ];
        for (func, range_ms, view) in cases {
            assert_eq!(View::for_function(func, range_ms), view, "{func:?}");
        }
        assert_eq!(max_resolution_ms(3_600_000, 600_000, Some("rate")), 300_000);
        assert_eq!(max_resolution_ms(3_600_000, 600_000, Some("avg_over_time")), 600_000);
        assert_eq!(max_resolution_ms(3_600_000, 0, Some("sum")), 3_600_000);
    }

    #[test]
    fn sums_keep_their_counts_among_raw_samples() {
        let raw = |t: i64| AggrChunk::Raw(encode_floats(&[t], &[4.0]).remove(0));
        let sums = downsampled(&[
            (Aggregate::Count, &[(10, 2.0), (20, 4.0)]),
            (Aggregate::Sum, &[(10, 5.0), (20, 6.0)]),
        ]);
        let mut out = SampleColumns::default();
        decode(&[raw(1), sums, raw(30)], View::Sums, TimeRange::ALL, &mut out).unwrap();
        assert_eq!(out.values, [4.0, 5.0, 6.0, 4.0]);
        assert_eq!(out.counts, [1.0, 2.0, 4.0, 1.0]);
    }

    #[test]
    fn averages_are_sum_by_count_where_both_are() {
        let chunk = downsampled(&[
            (Aggregate::Count, &[(10, 2.0), (20, 4.0), (30, 1.0)]),
            (Aggregate::Sum, &[(10, 5.0), (30, 7.0)]),
        ]);
        assert_eq!(decoded(&[chunk], View::Average, TimeRange::ALL), [(10, 2.5), (30, 7.0)]);
    }

    #[test]
    fn counters_go_on_over_chunk_borders() {
        let chunks = [
            // The true last value is 4: the counter was reset inside the chunk.
            downsampled(&[(Aggregate::Counter, &[(10, 5.0), (20, 9.0), (20, 4.0)])]),
            // 6 is no reset after 4, although it is below 9.
            downsampled(&[(Aggregate::Counter, &[(30, 6.0), (40, 8.0), (40, 8.0)])]),
            // 3 is one after 8.
            downsampled(&[(Aggregate::Counter, &[(50, 3.0), (50, 3.0)])]),
        ];
        let want = [(10, 5.0), (20, 9.0), (30, 11.0), (40, 13.0), (50, 16.0)];
        assert_eq!(decoded(&chunks, View::Counter, TimeRange::ALL), want);
        assert_eq!(decoded(&chunks, View::Counter, TimeRange::new(30, 40)), want[2..4]);
    }
}
