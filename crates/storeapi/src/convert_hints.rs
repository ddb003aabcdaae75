//! Hints of requests and answers: which blocks are read, and what that took.
//!
//! They travel as `Any`, under the names of Thanos's package `hintspb`. Those of label calls have the fields of those of series,
//! as far as they have fields.

use std::time::Duration;

use chronolith_model::{BlockId, Matcher};
use prost::Message as _;
use prost_types::Any;

use crate::convert::{matchers_from, matchers_to};
use crate::proto::thanos;
use crate::{SeriesHints, SeriesRequest, SeriesStats, StoreError};

/// The calls that have hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Series,
    LabelNames,
    LabelValues,
}

impl Call {
    fn name(self, side: &str) -> String {
        let call = match self {
            Call::Series => "Series",
            Call::LabelNames => "LabelNames",
            Call::LabelValues => "LabelValues",
        };
        format!("hintspb.{call}{side}Hints")
    }

    fn is_named_by(self, any: &Any, side: &str) -> bool {
        let name = self.name(side);
        let message = any.type_url.rsplit('/').next().unwrap_or_default();
        // Earlier versions of ours named another package.
        message.rsplit('.').next() == name.rsplit('.').next()
    }

    fn any(self, side: &str, value: Vec<u8>) -> Any {
        Any { type_url: format!("type.googleapis.com/{}", self.name(side)), value }
    }
}

/// Block matchers of a request, and whether it wants to know what was read. Errors: hints that cannot be read.
pub(crate) fn request_from(call: Call, any: Option<&Any>) -> Result<(Vec<Matcher>, bool), StoreError> {
    let Some(any) = any.filter(|any| call.is_named_by(any, "Request")) else {
        return Ok((Vec::new(), false));
    };
    let hints = thanos::SeriesRequestHints::decode(any.value.as_slice())
        .map_err(|e| StoreError::invalid("request hints").with_source(e))?;
    Ok((matchers_from(hints.block_matchers)?, hints.enable_query_stats))
}

pub(crate) fn series_request_to(request: &SeriesRequest) -> Option<Any> {
    request_to(Call::Series, &request.block_matchers, request.query_stats)
}

pub(crate) fn request_to(call: Call, block_matchers: &[Matcher], query_stats: bool) -> Option<Any> {
    let block_matchers = matchers_to(block_matchers);
    let asks = !block_matchers.is_empty() || query_stats;
    let hints = thanos::SeriesRequestHints { block_matchers, enable_query_stats: query_stats };
    asks.then(|| call.any("Request", hints.encode_to_vec()))
}

pub(crate) fn answer_to(call: Call, hints: &SeriesHints) -> Any {
    let queried_blocks = hints.queried_blocks.iter().map(|id| thanos::Block { id: id.to_string() }).collect();
    let query_stats = hints.stats.map(stats_to);
    call.any("Response", thanos::SeriesResponseHints { queried_blocks, query_stats }.encode_to_vec())
}

/// Hints inform; those that cannot be read are left out.
pub(crate) fn answer_from(call: Call, any: &Any) -> Option<SeriesHints> {
    if !call.is_named_by(any, "Response") {
        return None;
    }
    let hints = thanos::SeriesResponseHints::decode(any.value.as_slice()).ok()?;
    let queried_blocks = hints.queried_blocks.iter().filter_map(|b| b.id.parse::<BlockId>().ok()).collect();
    Some(SeriesHints { queried_blocks, stats: hints.query_stats.as_ref().map(stats_from) })
}

fn stats_to(s: SeriesStats) -> thanos::QueryStats {
    let n = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    thanos::QueryStats {
        blocks_queried: n(s.blocks),
        merged_series_count: n(s.merged_series),
        merged_chunks_count: n(s.merged_chunks),
        postings_fetch_count: n(s.postings_requests),
        postings_fetched_size_sum: n(s.postings_bytes),
        series_touched: n(s.series_touched),
        series_fetch_count: n(s.series_requests),
        series_fetched_size_sum: n(s.series_bytes),
        chunks_touched: n(s.chunks_touched),
        chunks_fetch_count: n(s.chunk_requests),
        chunks_fetched_size_sum: n(s.chunk_bytes),
        data_downloaded_size_sum: n(s.postings_bytes + s.series_bytes + s.chunk_bytes),
        get_all_duration: prost_types::Duration::try_from(s.until_first).ok(),
        merge_duration: prost_types::Duration::try_from(s.after_first).ok(),
        ..thanos::QueryStats::default()
    }
}

fn stats_from(s: &thanos::QueryStats) -> SeriesStats {
    let n = |n: i64| u64::try_from(n).unwrap_or(0);
    let duration =
        |d: &Option<prost_types::Duration>| d.and_then(|d| Duration::try_from(d).ok()).unwrap_or_default();
    SeriesStats {
        blocks: n(s.blocks_queried),
        merged_series: n(s.merged_series_count),
        merged_chunks: n(s.merged_chunks_count),
        postings_requests: n(s.postings_fetch_count),
        postings_bytes: n(s.postings_fetched_size_sum),
        series_touched: n(s.series_touched),
        series_requests: n(s.series_fetch_count),
        series_bytes: n(s.series_fetched_size_sum),
        chunks_touched: n(s.chunks_touched),
        chunk_requests: n(s.chunks_fetch_count),
        chunk_bytes: n(s.chunks_fetched_size_sum),
        until_first: duration(&s.get_all_duration),
        after_first: duration(&s.merge_duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_come_back_as_they_went() {
        let matchers = vec![Matcher::equal("__block_id", "x")];
        for call in [Call::Series, Call::LabelNames, Call::LabelValues] {
            for (matchers, stats) in [(matchers.clone(), true), (Vec::new(), true), (matchers.clone(), false)]
            {
                let any = request_to(call, &matchers, stats);
                assert_eq!(request_from(call, any.as_ref()).unwrap(), (matchers, stats));
            }
            assert_eq!(request_to(call, &[], false), None);
            let stats = SeriesStats {
                blocks: 1,
                merged_series: 2,
                merged_chunks: 3,
                postings_requests: 4,
                postings_bytes: 5,
                series_touched: 6,
                series_requests: 7,
                series_bytes: 8,
                chunks_touched: 9,
                chunk_requests: 10,
                chunk_bytes: 11,
                until_first: Duration::from_millis(12),
                after_first: Duration::from_micros(13),
            };
            let hints = SeriesHints { queried_blocks: vec![BlockId(7u128.into())], stats: Some(stats) };
            let any = answer_to(call, &hints);
            assert_eq!(answer_from(call, &any), Some(hints));
            let others = Call::Series;
            assert_eq!(answer_from(others, &any).is_some(), call == others);
        }
        assert_eq!(
            answer_to(Call::Series, &SeriesHints::default()).type_url,
            "type.googleapis.com/hintspb.SeriesResponseHints"
        );
        let garbage = Call::Series.any("Request", vec![0xff; 3]);
        assert!(request_from(Call::Series, Some(&garbage)).is_err());
        let other = Any { type_url: "type.googleapis.com/other.Thing".to_owned(), value: vec![0xff] };
        assert_eq!(request_from(Call::Series, Some(&other)).unwrap(), (Vec::new(), false));
    }
}
