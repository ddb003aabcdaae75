//! Statistics of heads: protobuf to domain types and back.

use chronolith_model::Matcher;

use crate::convert::{matchers_from, matchers_to, partial_from, partial_to};
use crate::proto::thanos;
use crate::{Statistic, StatusAnswer, StatusRequest, StoreError, TsdbStatistics};

/// Entries of a list at most: the HTTP API's own bound.
const LIMIT_MAX: usize = 10_000;
/// Thanos's default.
const LIMIT_DEFAULT: usize = 10;
/// The label that receivers call their tenants by, which the superseded field means.
const TENANT_LABEL: &str = "tenant_id";

pub(crate) fn request_from(proto: thanos::TsdbStatisticsRequest) -> Result<StatusRequest, StoreError> {
    let mut matchers = matchers_from(proto.matchers)?;
    if !proto.tenant.is_empty() {
        matchers.push(Matcher::equal(TENANT_LABEL, &proto.tenant));
    }
    let limit = usize::try_from(proto.limit).ok().filter(|n| *n > 0).unwrap_or(LIMIT_DEFAULT);
    Ok(StatusRequest {
        limit: limit.min(LIMIT_MAX),
        matchers,
        partial_response: partial_from(false, proto.partial_response_strategy),
    })
}

pub(crate) fn request_to(request: &StatusRequest) -> thanos::TsdbStatisticsRequest {
    thanos::TsdbStatisticsRequest {
        tenant: String::new(),
        limit: i32::try_from(request.limit).unwrap_or(i32::MAX),
        partial_response_strategy: partial_to(request.partial_response).1,
        matchers: matchers_to(&request.matchers),
    }
}

/// A message a tenant, then the warnings.
pub(crate) fn frames(answer: StatusAnswer) -> impl Iterator<Item = thanos::TsdbStatisticsResponse> {
    use thanos::tsdb_statistics_response::Result;
    let frame = |result| thanos::TsdbStatisticsResponse { result: Some(result) };
    // None is an answer, too.
    let none =
        answer.tenants.is_empty().then(|| frame(Result::Statistics(thanos::TsdbStatistics::default())));
    let tenants = answer.tenants.into_iter().map(move |(tenant, statistics)| {
        let statistics = [(tenant, entry_to(statistics))].into();
        frame(Result::Statistics(thanos::TsdbStatistics { statistics }))
    });
    none.into_iter().chain(tenants).chain(answer.warnings.into_iter().map(move |w| frame(Result::Warning(w))))
}

fn entry_to(statistics: TsdbStatistics) -> thanos::TsdbStatisticsEntry {
    let list = |list: Vec<Statistic>| {
        list.into_iter().map(|s| thanos::Statistic { name: s.name, value: s.value }).collect()
    };
    let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    thanos::TsdbStatisticsEntry {
        head_statistics: Some(thanos::HeadStatistics {
            num_series: statistics.series,
            num_label_pairs: int(statistics.label_pairs),
            chunk_count: int(statistics.chunks),
            min_time: statistics.mint,
            max_time: statistics.maxt,
        }),
        series_count_by_metric_name: list(statistics.series_by_metric),
        label_value_count_by_label_name: list(statistics.values_by_label),
        memory_in_bytes_by_label_name: list(statistics.bytes_by_label),
        series_count_by_label_value_pair: list(statistics.series_by_pair),
    }
}

pub(crate) fn entry_from(entry: thanos::TsdbStatisticsEntry) -> TsdbStatistics {
    let list = |list: Vec<thanos::Statistic>| {
        list.into_iter().map(|s| Statistic { name: s.name, value: s.value }).collect()
    };
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    let head = entry.head_statistics.unwrap_or_default();
    TsdbStatistics {
        series: head.num_series,
        label_pairs: count(head.num_label_pairs),
        chunks: count(head.chunk_count),
        mint: head.min_time,
        maxt: head.max_time,
        series_by_metric: list(entry.series_count_by_metric_name),
        values_by_label: list(entry.label_value_count_by_label_name),
        bytes_by_label: list(entry.memory_in_bytes_by_label_name),
        series_by_pair: list(entry.series_count_by_label_value_pair),
    }
}
