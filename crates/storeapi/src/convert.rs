//! Protobuf to domain types and back, with the bounds that bytes from outside must keep.

use chronolith_model::{Labels, MatchOp, Matcher, TimeRange};
use tonic::{Code, Status};

use crate::chunk_encodings::ChunkEncodings;
use crate::convert_hints::{self, Call};
use crate::projection::SERIES_HASH;
use crate::proto::thanos;
use crate::proto::thanos::info;
use crate::{
    Aggregate, AggregateSet, ErrorKind, LabelNamesRequest, LabelValuesRequest, PartialResponse, Projection,
    QueryHints, SERIES_HASH_LABEL, SeriesRequest, ShardInfo, StoreError, StoreInfo, TsdbInfo,
};

/// More matchers than any query writes; each costs an index lookup.
const MATCHERS_MAX: usize = 1_000;
/// More names than any replica or shard setting has.
const NAMES_MAX: usize = 1_000;
/// Series in one message; above it nothing gets faster and the memory of one message grows.
pub(crate) const BATCH_SIZE_MAX: usize = 10_000;

pub(crate) fn matchers_from(proto: Vec<thanos::LabelMatcher>) -> Result<Vec<Matcher>, StoreError> {
    bounded("matchers", proto.len(), MATCHERS_MAX)?;
    proto.into_iter().map(matcher_from).collect()
}

fn matcher_from(proto: thanos::LabelMatcher) -> Result<Matcher, StoreError> {
    let op = match thanos::label_matcher::Type::try_from(proto.r#type) {
        Ok(thanos::label_matcher::Type::Eq) => MatchOp::Equal,
        Ok(thanos::label_matcher::Type::Neq) => MatchOp::NotEqual,
        Ok(thanos::label_matcher::Type::Re) => MatchOp::Regex,
        Ok(thanos::label_matcher::Type::Nre) => MatchOp::NotRegex,
        Err(_) => return Err(StoreError::invalid(format!("unknown matcher type {}", proto.r#type))),
    };
    if proto.name.is_empty() {
        return Err(StoreError::invalid("a matcher has no label name"));
    }
    Matcher::new(op, &proto.name, &proto.value).map_err(|e| {
        StoreError::invalid(format!("matcher {}{}{:?}", proto.name, op.as_str(), proto.value)).with_source(e)
    })
}

pub(crate) fn matchers_to(matchers: &[Matcher]) -> Vec<thanos::LabelMatcher> {
    let kind = |op| match op {
        MatchOp::Equal => thanos::label_matcher::Type::Eq,
        MatchOp::NotEqual => thanos::label_matcher::Type::Neq,
        MatchOp::Regex => thanos::label_matcher::Type::Re,
        MatchOp::NotRegex => thanos::label_matcher::Type::Nre,
    };
    matchers
        .iter()
        .map(|m| thanos::LabelMatcher {
            r#type: kind(m.op).into(),
            name: m.name.clone(),
            value: m.value.clone(),
        })
        .collect()
}

fn bounded(what: &str, n: usize, max: usize) -> Result<(), StoreError> {
    if n <= max { Ok(()) } else { Err(StoreError::invalid(format!("{n} {what}, more than {max}"))) }
}

fn count_from(what: &str, n: i64) -> Result<usize, StoreError> {
    usize::try_from(n).map_err(|_| StoreError::invalid(format!("{what} is negative: {n}")))
}

pub(crate) fn partial_from(disabled: bool, strategy: i32) -> PartialResponse {
    if disabled || strategy == i32::from(thanos::PartialResponseStrategy::Abort) {
        PartialResponse::Abort
    } else {
        PartialResponse::Warn
    }
}

/// The old flag and the new field, for old and new servers.
pub(crate) fn partial_to(partial: PartialResponse) -> (bool, i32) {
    match partial {
        PartialResponse::Warn => (false, thanos::PartialResponseStrategy::Warn.into()),
        PartialResponse::Abort => (true, thanos::PartialResponseStrategy::Abort.into()),
    }
}

const AGGREGATES: [(Aggregate, thanos::Aggr); 5] = [
    (Aggregate::Count, thanos::Aggr::Count),
    (Aggregate::Sum, thanos::Aggr::Sum),
    (Aggregate::Min, thanos::Aggr::Min),
    (Aggregate::Max, thanos::Aggr::Max),
    (Aggregate::Counter, thanos::Aggr::Counter),
];

pub(crate) fn series_request_from(proto: thanos::SeriesRequest) -> Result<SeriesRequest, StoreError> {
    let mut aggregates = AggregateSet::RAW;
    for (ours, theirs) in AGGREGATES {
        if proto.aggregates.contains(&theirs.into()) {
            aggregates = aggregates.with(ours);
        }
    }
    let (block_matchers, query_stats) = convert_hints::request_from(Call::Series, proto.hints.as_ref())?;
    bounded("replica labels", proto.without_replica_labels.len(), NAMES_MAX)?;
    let projection = projection_from(&proto)?;
    Ok(SeriesRequest {
        range: TimeRange::new(proto.min_time, proto.max_time),
        matchers: matchers_from(proto.matchers)?,
        max_resolution_ms: proto.max_resolution_window.max(0),
        aggregates,
        partial_response: partial_from(proto.partial_response_disabled, proto.partial_response_strategy),
        skip_chunks: proto.skip_chunks,
        newest_only: false,
        block_matchers,
        query_stats,
        hints: proto.query_hints.map(hints_from).unwrap_or_default(),
        shard: proto.shard_info.map(shard_from).transpose()?.flatten(),
        without_replica_labels: proto.without_replica_labels,
        projection,
        limit: count_from("limit", proto.limit)?,
        batch_size: count_from("response_batch_size", proto.response_batch_size)?.clamp(1, BATCH_SIZE_MAX),
    })
}

pub(crate) fn series_request_to(request: &SeriesRequest) -> thanos::SeriesRequest {
    let (partial_response_disabled, partial_response_strategy) = partial_to(request.partial_response);
    let wanted = AGGREGATES.iter().filter(|(ours, _)| request.aggregates.contains(*ours));
    thanos::SeriesRequest {
        min_time: request.range.mint,
        max_time: request.range.maxt,
        matchers: matchers_to(&request.matchers),
        max_resolution_window: request.max_resolution_ms,
        aggregates: if request.aggregates.is_raw() {
            vec![thanos::Aggr::Raw.into()]
        } else {
            wanted.map(|(_, theirs)| i32::from(*theirs)).collect()
        },
        partial_response_disabled,
        partial_response_strategy,
        skip_chunks: request.skip_chunks,
        hints: convert_hints::series_request_to(request),
        query_hints: Some(hints_to(&request.hints, request.projection.as_ref())),
        shard_info: request.shard.as_ref().map(|s| thanos::ShardInfo {
            shard_index: s.index as i64,
            total_shards: s.count as i64,
            by: s.by,
            labels: s.labels.clone(),
        }),
        without_replica_labels: request.without_replica_labels.clone(),
        limit: i64::try_from(request.limit).unwrap_or(0),
        response_batch_size: request.batch_size.min(BATCH_SIZE_MAX) as i64,
        chunk_encodings: ChunkEncodings::ALL.to_wire(),
        series_hash: request.projection.as_ref().map_or_else(String::new, |_| SERIES_HASH.to_owned()),
    }
}

fn hints_from(proto: thanos::QueryHints) -> QueryHints {
    let grouping = proto.grouping.unwrap_or_default();
    QueryHints {
        step_ms: proto.step_millis,
        func: proto.func.map(|f| f.name).filter(|name| !name.is_empty()),
        by: grouping.by,
        grouping: grouping.labels,
        range_ms: proto.range.map_or(0, |r| r.millis),
    }
}

/// Carried out only for who asks by our hash; see the field's comment.
fn projection_from(proto: &thanos::SeriesRequest) -> Result<Option<Projection>, StoreError> {
    let asked = proto.query_hints.as_ref().filter(|hints| {
        proto.series_hash == SERIES_HASH
            && hints.projection_include
            && hints.series_hash_label_name == SERIES_HASH_LABEL
    });
    let Some(hints) = asked else { return Ok(None) };
    bounded("projected labels", hints.projection_labels.len(), NAMES_MAX)?;
    match Projection::new(hints.projection_labels.clone()) {
        Some(projection) => Ok(Some(projection)),
        None => Err(StoreError::invalid(format!("{SERIES_HASH_LABEL} cannot be projected"))),
    }
}

fn hints_to(hints: &QueryHints, projection: Option<&Projection>) -> thanos::QueryHints {
    thanos::QueryHints {
        step_millis: hints.step_ms,
        func: hints.func.clone().map(|name| thanos::Func { name }),
        grouping: Some(thanos::Grouping { by: hints.by, labels: hints.grouping.clone() }),
        range: Some(thanos::Range { millis: hints.range_ms }),
        projection_labels: projection.map_or_else(Vec::new, |p| p.names().to_vec()),
        projection_include: projection.is_some(),
        series_hash_label_name: projection.map_or_else(String::new, |_| SERIES_HASH_LABEL.to_owned()),
    }
}

/// Fewer than one shard in total means no sharding.
fn shard_from(proto: thanos::ShardInfo) -> Result<Option<ShardInfo>, StoreError> {
    if proto.total_shards < 1 {
        return Ok(None);
    }
    bounded("shard labels", proto.labels.len(), NAMES_MAX)?;
    if !(0..proto.total_shards).contains(&proto.shard_index) {
        let text = format!("shard {} of {}", proto.shard_index, proto.total_shards);
        return Err(StoreError::invalid(text));
    }
    Ok(Some(ShardInfo {
        index: proto.shard_index as u64,
        count: proto.total_shards as u64,
        by: proto.by,
        labels: proto.labels,
    }))
}

pub(crate) fn names_request_from(proto: thanos::LabelNamesRequest) -> Result<LabelNamesRequest, StoreError> {
    bounded("replica labels", proto.without_replica_labels.len(), NAMES_MAX)?;
    let (block_matchers, _) = convert_hints::request_from(Call::LabelNames, proto.hints.as_ref())?;
    Ok(LabelNamesRequest {
        block_matchers,
        range: TimeRange::new(proto.start, proto.end),
        matchers: matchers_from(proto.matchers)?,
        partial_response: partial_from(proto.partial_response_disabled, proto.partial_response_strategy),
        without_replica_labels: proto.without_replica_labels,
        limit: count_from("limit", proto.limit)?,
    })
}

pub(crate) fn names_request_to(request: &LabelNamesRequest) -> thanos::LabelNamesRequest {
    let (partial_response_disabled, partial_response_strategy) = partial_to(request.partial_response);
    thanos::LabelNamesRequest {
        partial_response_disabled,
        partial_response_strategy,
        start: request.range.mint,
        end: request.range.maxt,
        hints: convert_hints::request_to(Call::LabelNames, &request.block_matchers, false),
        matchers: matchers_to(&request.matchers),
        without_replica_labels: request.without_replica_labels.clone(),
        limit: i64::try_from(request.limit).unwrap_or(0),
    }
}

pub(crate) fn values_request_from(
    proto: thanos::LabelValuesRequest,
) -> Result<LabelValuesRequest, StoreError> {
    bounded("replica labels", proto.without_replica_labels.len(), NAMES_MAX)?;
    if proto.label.is_empty() {
        return Err(StoreError::invalid("no label name"));
    }
    let (block_matchers, _) = convert_hints::request_from(Call::LabelValues, proto.hints.as_ref())?;
    Ok(LabelValuesRequest {
        block_matchers,
        label: proto.label,
        range: TimeRange::new(proto.start, proto.end),
        matchers: matchers_from(proto.matchers)?,
        partial_response: partial_from(proto.partial_response_disabled, proto.partial_response_strategy),
        without_replica_labels: proto.without_replica_labels,
        limit: count_from("limit", proto.limit)?,
    })
}

pub(crate) fn values_request_to(request: &LabelValuesRequest) -> thanos::LabelValuesRequest {
    let (partial_response_disabled, partial_response_strategy) = partial_to(request.partial_response);
    thanos::LabelValuesRequest {
        label: request.label.clone(),
        partial_response_disabled,
        partial_response_strategy,
        start: request.range.mint,
        end: request.range.maxt,
        hints: convert_hints::request_to(Call::LabelValues, &request.block_matchers, false),
        matchers: matchers_to(&request.matchers),
        without_replica_labels: request.without_replica_labels.clone(),
        limit: i64::try_from(request.limit).unwrap_or(0),
    }
}

pub(crate) fn labels_to(labels: &Labels) -> thanos::LabelSet {
    let label =
        |(name, value): (&str, &str)| thanos::Label { name: name.to_owned(), value: value.to_owned() };
    thanos::LabelSet { labels: labels.iter().map(label).collect() }
}

pub(crate) fn labels_from(proto: thanos::LabelSet) -> Result<Labels, StoreError> {
    Labels::from_pairs(proto.labels.iter().map(|l| (&l.name, &l.value)))
        .map_err(|e| StoreError::corrupt("label set of an answer").with_source(e))
}

/// What an endpoint says of itself; `store` is `None` where it offers no StoreAPI.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointInfo {
    /// Its component name, shown as it came.
    pub component: String,
    /// Its StoreAPI.
    pub store: Option<StoreInfo>,
    /// It answers [`crate::Exemplars`].
    pub exemplars: bool,
    /// It answers [`crate::Metadata`].
    pub metadata: bool,
    /// It answers [`crate::Rules`].
    pub rules: bool,
    /// It answers [`crate::Targets`].
    pub targets: bool,
    /// It answers [`crate::Status`].
    pub status: bool,
    /// It answers [`crate::Fold`], of our version.
    pub fold: bool,
}

/// What a server offers beside the StoreAPI.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Offers {
    pub(crate) exemplars: bool,
    pub(crate) metadata: bool,
    pub(crate) rules: bool,
    pub(crate) targets: bool,
    /// `chronolith.Peer`.
    pub(crate) peer: bool,
    pub(crate) status: bool,
    pub(crate) fold: bool,
}

pub(crate) fn info_to(info: &StoreInfo, offers: Offers) -> info::InfoResponse {
    // Thanos's querier asks only sources whose time overlaps.
    let exemplars =
        offers.exemplars.then_some(info::ExemplarsInfo { min_time: i64::MIN, max_time: i64::MAX });
    info::InfoResponse {
        label_sets: info.label_sets.iter().map(labels_to).collect(),
        component_type: info.component.clone(),
        store: Some(info::StoreInfo {
            min_time: info.range.mint,
            max_time: info.range.maxt,
            supports_sharding: info.supports_sharding,
            supports_without_replica_labels: info.supports_without_replica_labels,
            tsdb_infos: info
                .tsdbs
                .iter()
                .map(|t| info::TsdbInfo {
                    labels: Some(labels_to(&t.labels)),
                    min_time: t.range.mint,
                    max_time: t.range.maxt,
                })
                .collect(),
            supports_projections: false,
            series_hash: if info.supports_projection { SERIES_HASH.to_owned() } else { String::new() },
        }),
        exemplars,
        metric_metadata: offers.metadata.then_some(info::MetricMetadataInfo {}),
        rules: offers.rules.then_some(info::RulesInfo {}),
        targets: offers.targets.then_some(info::TargetsInfo {}),
        chronolith_peer: offers
            .peer
            .then_some(info::PeerInfo { batch_version: u32::from(crate::peer::BATCH_VERSION) }),
        status: offers.status.then_some(info::StatusInfo {}),
        chronolith_fold: offers.fold.then_some(info::FoldInfo { version: chronolith_promql::FOLD_VERSION }),
        ..Default::default()
    }
}

pub(crate) fn info_from(proto: info::InfoResponse) -> Result<EndpointInfo, StoreError> {
    let label_sets = proto.label_sets.into_iter().map(labels_from).collect::<Result<Vec<_>, _>>()?;
    let component = proto.component_type;
    let (exemplars, metadata) = (proto.exemplars.is_some(), proto.metric_metadata.is_some());
    let (rules, targets) = (proto.rules.is_some(), proto.targets.is_some());
    let status = proto.status.is_some();
    let fold = proto.chronolith_fold.is_some_and(|fold| fold.version == chronolith_promql::FOLD_VERSION);
    let store = proto.store.map(|store| {
        let tsdbs = store.tsdb_infos.into_iter().map(|t| {
            let labels = labels_from(t.labels.unwrap_or_default())?;
            Ok(TsdbInfo { labels, range: TimeRange::new(t.min_time, t.max_time) })
        });
        Ok(StoreInfo {
            component: component.clone(),
            label_sets,
            range: TimeRange::new(store.min_time, store.max_time),
            supports_sharding: store.supports_sharding,
            supports_without_replica_labels: store.supports_without_replica_labels,
            supports_projection: store.series_hash == SERIES_HASH,
            tsdbs: tsdbs.collect::<Result<_, StoreError>>()?,
        })
    });
    Ok(EndpointInfo {
        component,
        store: store.transpose()?,
        exemplars,
        metadata,
        rules,
        targets,
        status,
        fold,
    })
}

/// The one place where errors become gRPC codes.
pub(crate) fn status_from_error(error: &StoreError) -> Status {
    let code = match error.kind() {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Conflict => Code::AlreadyExists,
        ErrorKind::LimitExceeded => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Timeout => Code::DeadlineExceeded,
        ErrorKind::Aborted => Code::Aborted,
        ErrorKind::Corrupt => Code::DataLoss,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Internal => Code::Internal,
    };
    Status::new(code, error.chain())
}

/// The one place where gRPC codes become errors.
pub(crate) fn error_from_status(status: Status) -> StoreError {
    let kind = match status.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => ErrorKind::Invalid,
        Code::NotFound | Code::Unimplemented => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::Conflict,
        Code::ResourceExhausted => ErrorKind::LimitExceeded,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::Timeout,
        Code::Aborted => ErrorKind::Aborted,
        Code::DataLoss => ErrorKind::Corrupt,
        Code::Cancelled => ErrorKind::Cancelled,
        _ => ErrorKind::Internal,
    };
    let message = if status.message().is_empty() { status.code().description() } else { status.message() };
    let error = StoreError::new(kind, message.to_owned());
    match std::error::Error::source(&status) {
        // A transport error's reason (connection refused) is in its causes only.
        Some(cause) => error.with_source(causes(cause)),
        None => error,
    }
}

fn causes(mut error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    while let Some(cause) = error.source() {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        error = cause;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_requests_round_trip() {
        let request = SeriesRequest {
            max_resolution_ms: 300_000,
            aggregates: AggregateSet::AVERAGE.with(Aggregate::Counter),
            partial_response: PartialResponse::Abort,
            skip_chunks: true,
            block_matchers: vec![Matcher::equal("__block_id", "x")],
            hints: QueryHints {
                step_ms: 1,
                func: Some("rate".into()),
                by: true,
                grouping: vec!["a".into()],
                range_ms: 5,
            },
            shard: Some(ShardInfo { index: 1, count: 2, by: true, labels: vec!["l".into()] }),
            without_replica_labels: vec!["replica".into()],
            limit: 7,
            batch_size: 64,
            ..SeriesRequest::new(
                TimeRange::new(-1, 5),
                vec![Matcher::new(MatchOp::NotRegex, "a", "b.*").unwrap()],
            )
        };
        assert_eq!(series_request_from(series_request_to(&request)).unwrap(), request);
    }

    #[test]
    fn bad_requests_say_what_is_bad() {
        let matcher = |kind, name: &str, value: &str| thanos::LabelMatcher {
            r#type: kind,
            name: name.into(),
            value: value.into(),
        };
        let with = |m| thanos::SeriesRequest { matchers: vec![m], ..Default::default() };
        let shard = thanos::ShardInfo { shard_index: 2, total_shards: 2, ..Default::default() };
        let cases = [
            (with(matcher(9, "a", "b")), "unknown matcher type 9"),
            (with(matcher(0, "", "b")), "a matcher has no label name"),
            (with(matcher(2, "a", "(")), "matcher a=~\"(\""),
            (thanos::SeriesRequest { limit: -1, ..Default::default() }, "limit is negative: -1"),
            (thanos::SeriesRequest { shard_info: Some(shard), ..Default::default() }, "shard 2 of 2"),
        ];
        for (request, text) in cases {
            let error = series_request_from(request).unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Invalid, text));
        }
    }

    #[test]
    fn kinds_survive_the_wire() {
        for kind in [
            ErrorKind::Invalid,
            ErrorKind::NotFound,
            ErrorKind::Conflict,
            ErrorKind::LimitExceeded,
            ErrorKind::Unavailable,
            ErrorKind::Timeout,
            ErrorKind::Aborted,
            ErrorKind::Corrupt,
            ErrorKind::Cancelled,
            ErrorKind::Internal,
        ] {
            let back = error_from_status(status_from_error(&StoreError::new(kind, "text")));
            assert_eq!((back.kind(), back.message()), (kind, "text"));
        }
    }
}
