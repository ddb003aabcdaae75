//! Which queries are so small that they are evaluated on the thread that has read their request.
//!
//! The way to a blocking thread and back costs two wake-ups of other threads: more CPU than a panel of one series. A
//! worker of the runtime may be kept for about as long as the decoding of a write keeps it; so a query is small when
//! everything it reads is in this process's memory, and its series and steps are few.

use chronolith_model::TimeRange;
use chronolith_promql::parser::{NodeKind, ParseOptions, VectorSelector, parse};
use chronolith_promql::{Queryable, parser::Ast};
use tokio::runtime::{Handle, RuntimeFlavor};

/// Texts beyond this may nest so deep that the engine wants a thread with a larger stack.
const TEXT_BYTES_MAX: usize = 400;
/// Samples that are decoded and points that are computed: about 200 us.
const WORK_MAX: i64 = 8_000;
/// Selectors: each is parsed, planned and looked up.
const SELECTORS_MAX: usize = 8;
/// The usual distance of samples, to guess how many there are in a time.
const INTERVAL_MS: i64 = 15_000;

/// What is evaluated when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) start: i64,
    pub(super) end: i64,
    /// 0 for one time.
    pub(super) step_ms: i64,
    pub(super) lookback_ms: i64,
}

/// True when `query` is small over what `queryable` holds. A query that the parser refuses is small, too.
pub(super) fn is_small(queryable: &dyn Queryable, options: &ParseOptions, query: &str, times: Times) -> bool {
    // A runtime with one thread must keep it for the listeners.
    let spare = Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    if !spare || query.len() > TEXT_BYTES_MAX {
        return false;
    }
    match parse(query, options) {
        Ok(ast) => work(queryable, &ast, times).is_some_and(|work| work <= WORK_MAX),
        Err(_) => true,
    }
}

/// Samples and points of all selectors, at most; `None` when that is not known.
fn work(queryable: &dyn Queryable, ast: &Ast, times: Times) -> Option<i64> {
    let steps = times.end.checked_sub(times.start)? / times.step_ms.max(1) + 1;
    let (mut selectors, mut reach_ms) = (Vec::new(), times.lookback_ms);
    for id in ast.ids() {
        match ast.kind(id) {
            // Its points are its own, and `info` reads what no selector says.
            NodeKind::Subquery(_) => return None,
            NodeKind::Call(call) if call.func.name == "info" => return None,
            NodeKind::MatrixSelector(m) if m.range_expr.is_some() => return None,
            NodeKind::MatrixSelector(m) => reach_ms = reach_ms.max(m.range_ms),
            NodeKind::VectorSelector(selector) if is_moved(selector) => return None,
            NodeKind::VectorSelector(selector) => selectors.push(selector),
            _ => {}
        }
    }
    if selectors.len() > SELECTORS_MAX {
        return None;
    }
    let range = TimeRange::new(times.start.checked_sub(reach_ms)?, times.end);
    let samples = range.maxt.checked_sub(range.mint)? / INTERVAL_MS + 1;
    let mut work = steps;
    for selector in selectors {
        if work > WORK_MAX {
            break;
        }
        let series = i64::try_from(queryable.series_at_once(&selector.matchers, range)?).ok()?;
        work = work.checked_add(series.checked_mul(steps.checked_add(samples)?)?)?;
    }
    Some(work)
}

/// It reads at another time.
fn is_moved(selector: &VectorSelector) -> bool {
    let reaches_out = selector.anchored || selector.smoothed;
    reaches_out || selector.at.is_some() || selector.offset_ms != 0 || selector.original_offset_expr.is_some()
}

#[cfg(test)]
mod tests {
    use chronolith_model::Matcher;
    use chronolith_promql::{QueryContext, QueryableError, SelectRequest, SeriesSet};

    use super::*;

    /// Holds so many series in memory from `since` on; what is older lies elsewhere.
    struct Held {
        series: usize,
        since: i64,
    }

    impl Queryable for Held {
        fn select(
            &self,
            _: &SelectRequest<'_>,
            _: &QueryContext,
        ) -> Result<Box<dyn SeriesSet>, QueryableError> {
            unreachable!("only counted")
        }

        fn series_at_once(&self, _: &[Matcher], range: TimeRange) -> Option<usize> {
            (range.mint >= self.since).then_some(self.series)
        }
    }

    const HOUR_MS: i64 = 3_600_000;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn only_what_is_in_memory_and_little_is_small() {
        let instant = Times { start: HOUR_MS, end: HOUR_MS, step_ms: 0, lookback_ms: 300_000 };
        let range = Times { start: HOUR_MS, end: 2 * HOUR_MS, step_ms: 15_000, lookback_ms: 300_000 };
        let long_text = format!("up{}", " ".repeat(TEXT_BYTES_MAX));
        for (query, times, series, small) in [
            ("up", instant, 1, true),
            ("up", instant, 100, true),
            ("up", instant, 1_000, false),
            ("up", range, 1, true),
            ("up", range, 100, false),
            ("rate(up[5m])", range, 1, true),
            ("up + up", instant, 1, true),
            ("up + up", instant, 300, false),
            // Its window begins before what is held.
            ("rate(up[2h])", instant, 1, false),
            ("up offset 1h", instant, 1, false),
            ("up @ 0", instant, 1, false),
            ("max_over_time(up[5m:1s])", instant, 1, false),
            ("info(up)", instant, 1, false),
            ("1 + 1", range, 1_000_000, true),
            ("sum(", range, 1_000_000, true),
            (&long_text, instant, 1, false),
        ] {
            let held = Held { series, since: 0 };
            assert_eq!(is_small(&held, &ParseOptions::ALL, query, times), small, "{query} {series}");
        }
        let recent = Held { series: 1, since: HOUR_MS };
        assert!(!is_small(&recent, &ParseOptions::default(), "up", instant), "the lookback begins before");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nothing_is_small_on_the_only_thread() {
        let now = Times { start: 0, end: 0, step_ms: 0, lookback_ms: 300_000 };
        assert!(!is_small(&Held { series: 1, since: i64::MIN }, &ParseOptions::default(), "1", now));
    }
}
