//! Start timestamps: when that began which a sample counts.

use crate::data::{Native, Point, STALE, Series};
use crate::random::Random;

/// How the source of a series speaks of starts.
#[derive(Clone, Copy)]
enum Habit {
    /// Not at all.
    Silent,
    /// The start changes when the counter falls, and now and then although it does not.
    Cumulative,
    /// Every sample begins where the last one ended.
    Delta,
    /// As one likes: unknown, far back, at the sample itself, before an older one's, after the sample.
    Wild,
}

/// Adds starts to series that OTLP can carry, from a stream of chance of their own: all else is the same with them and without.
/// The first point has none.
pub(crate) fn add_starts(series: &mut [Series], seed: u64) {
    let mut random = Random::of_query(seed, 1);
    for s in series {
        if !otlp_has_them(s) {
            continue;
        }
        let habit = random.weighted(&[
            (2, Habit::Silent),
            (5, Habit::Cumulative),
            (1, Habit::Delta),
            (2, Habit::Wild),
        ]);
        let Some(first) = s.points.first().map(|(t, _)| *t) else { continue };
        let (mut start, mut before) = (first - 1 - random.below(600_000) as i64, None);
        s.starts = Vec::with_capacity(s.points.len());
        for (t, point) in &s.points {
            let last_t = before.map_or(first - 15_000, |(t, _)| t);
            let level = match point {
                Point::Float(v) => *v,
                Point::Histogram(h) => h.count(),
            };
            let fell = before.is_some_and(|(_, last)| level < last);
            let said = match habit {
                Habit::Silent => 0,
                Habit::Cumulative => {
                    if fell || random.chance(2) {
                        start = last_t + random.below((t - last_t) as usize) as i64;
                    }
                    if random.chance(3) { 0 } else { start }
                }
                Habit::Delta => last_t,
                Habit::Wild => match random.below(6) {
                    0 => 0,
                    1 => *t,
                    2 => t - 1,
                    3 => t + 1000,
                    4 => last_t - random.below(60_000) as i64,
                    _ => first - 1_000_000,
                },
            };
            s.starts.push(said);
            before = Some((*t, level));
        }
        s.starts[0] = 0;
        if matches!(habit, Habit::Silent) {
            s.starts.clear();
        }
    }
}

/// Floats, and exponential histograms of whole counts that are no gauges.
fn otlp_has_them(series: &Series) -> bool {
    let floats = series.points.iter().all(|(_, p)| matches!(p, Point::Float(_)));
    let exponential = |h: &Native| h.custom.is_empty() && !h.float && !h.gauge;
    floats
        || series.points.iter().all(|(_, p)| match p {
            Point::Float(v) => v.to_bits() == STALE.to_bits(),
            Point::Histogram(h) => exponential(h),
        })
}
