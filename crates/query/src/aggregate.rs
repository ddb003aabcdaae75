//! Which aggregates of downsampled data a query needs, and how they become samples.

use chronolith_chunk::{ChunkError, CounterTotals, SampleColumns};
use chronolith_model::TimeRange;
use chronolith_storeapi::{AggrChunk, Aggregate, AggregateSet, DownsampledChunk};

/// How downsampled chunks turn into samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Sum by count.
    Average,
    /// One aggregate as it is.
    One(Aggregate),
    /// The counter aggregate with its resets put together over chunk borders.
    Counter,
}

impl View {
    /// The view for the function or aggregation around a selector, as Thanos chooses it.
    pub(crate) fn for_function(func: Option<&str>) -> Self {
        match func.unwrap_or("") {
            "increase" | "rate" | "irate" | "resets" | "xincrease" | "xrate" => View::Counter,
            f if f == "min" || f.starts_with("min_") => View::One(Aggregate::Min),
            f if f == "max" || f.starts_with("max_") => View::One(Aggregate::Max),
            f if f == "count" || f.starts_with("count_") => View::One(Aggregate::Count),
            // `sum` itself wants the samples' own values, which the average is nearest to.
            f if f.starts_with("sum_") => View::One(Aggregate::Sum),
            _ => View::Average,
        }
    }

    /// The aggregates to ask for.
    pub(crate) fn aggregates(self) -> AggregateSet {
        match self {
            View::Average => AggregateSet::AVERAGE,
            View::One(aggregate) => AggregateSet::RAW.with(aggregate),
            View::Counter => AggregateSet::RAW.with(Aggregate::Counter),
        }
    }
}

/// True for the functions before which penalty deduplication evens out differences between replicas' counters.
pub(crate) fn is_counter_function(func: Option<&str>) -> bool {
    matches!(func, Some("increase" | "rate" | "irate" | "resets"))
}

/// The coarsest resolution that will do: functions over a range need at least two points in it.
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
            | "holt_winters"
            | "double_exponential_smoothing",
        ) => requested_ms.min(range_ms / 2),
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
    for chunk in chunks {
        match (chunk, &mut counter) {
            (AggrChunk::Raw(chunk), None) => chunk.decode_into(range, out)?,
            (AggrChunk::Raw(chunk), Some(counter)) => {
                let mut samples = SampleColumns::default();
                chunk.decode_into(TimeRange::ALL, &mut samples)?;
                push_totals(counter, &samples, range, out);
            }
            (AggrChunk::Downsampled(chunk), None) => decode_downsampled(chunk, view, range, out)?,
            (AggrChunk::Downsampled(chunk), Some(counter)) => {
                let mut samples = SampleColumns::default();
                if let Some(part) = chunk.part(Aggregate::Counter) {
                    part.decode_into(TimeRange::ALL, &mut samples)?;
                }
                push_totals(counter, &samples, range, out);
            }
        }
    }
    Ok(())
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
        View::Average => {
            let (counts, sums) = (read(Aggregate::Count)?, read(Aggregate::Sum)?);
            let mut j = 0;
            for (i, t) in counts.ts.iter().enumerate() {
                while j < sums.len() && sums.ts[j] < *t {
                    j += 1;
                }
                if j < sums.len() && sums.ts[j] == *t {
                    push_average(&counts, i, &sums, j, out);
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
            average.count /= count;
            average.sum /= count;
            average.zero_count /= count;
            average
                .positive_buckets
                .iter_mut()
                .chain(&mut average.negative_buckets)
                .for_each(|b| *b /= count);
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
            (None, View::Average),
            (Some("sum"), View::Average),
            (Some("sum_over_time"), View::One(Aggregate::Sum)),
            (Some("min"), View::One(Aggregate::Min)),
            (Some("max_over_time"), View::One(Aggregate::Max)),
            (Some("count"), View::One(Aggregate::Count)),
            (Some("rate"), View::Counter),
            (Some("delta"), View::Average),
        ];
        for (func, view) in cases {
            assert_eq!(View::for_function(func), view, "{func:?}");
        }
        assert_eq!(max_resolution_ms(3_600_000, 600_000, Some("rate")), 300_000);
        assert_eq!(max_resolution_ms(3_600_000, 600_000, Some("avg_over_time")), 3_600_000);
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
