//! Protobuf and domain types of exemplars and metric metadata.

use chronolith_model::{Exemplar, MetricKind, MetricMetadata, TimeRange};

use crate::convert::{labels_from, labels_to, partial_from, partial_to};
use crate::proto::thanos;
use crate::{
    ExemplarsAnswer, ExemplarsRequest, MetadataAnswer, MetadataRequest, SeriesExemplars, StoreError,
};

/// Metrics in one message: with help texts a few hundred kilobytes.
const METRICS_PER_FRAME: usize = 1000;

pub(crate) fn request_from(proto: thanos::ExemplarsRequest) -> Result<ExemplarsRequest, StoreError> {
    let mut request = ExemplarsRequest::of_query(&proto.query, TimeRange::new(proto.start, proto.end))?;
    request.partial_response = partial_from(false, proto.partial_response_strategy);
    Ok(request)
}

pub(crate) fn request_to(request: &ExemplarsRequest) -> thanos::ExemplarsRequest {
    thanos::ExemplarsRequest {
        query: request.query(),
        start: request.range.mint,
        end: request.range.maxt,
        partial_response_strategy: partial_to(request.partial_response).1,
    }
}

pub(crate) fn series_from(proto: thanos::ExemplarData) -> Result<SeriesExemplars, StoreError> {
    let exemplar = |e: thanos::Exemplar| {
        Ok(Exemplar { labels: labels_from(e.labels.unwrap_or_default())?, value: e.value, t: e.ts })
    };
    Ok(SeriesExemplars {
        labels: labels_from(proto.series_labels.unwrap_or_default())?,
        exemplars: proto.exemplars.into_iter().map(exemplar).collect::<Result<_, StoreError>>()?,
    })
}

/// A message a series, then the warnings.
pub(crate) fn frames(answer: ExemplarsAnswer) -> impl Iterator<Item = thanos::ExemplarsResponse> {
    use thanos::exemplars_response::Result;
    let frame = |result| thanos::ExemplarsResponse { result: Some(result) };
    let exemplar =
        |e: &Exemplar| thanos::Exemplar { labels: Some(labels_to(&e.labels)), value: e.value, ts: e.t };
    let data = move |s: SeriesExemplars| thanos::ExemplarData {
        series_labels: Some(labels_to(&s.labels)),
        exemplars: s.exemplars.iter().map(exemplar).collect(),
    };
    let series = answer.series.into_iter().map(move |s| frame(Result::Data(data(s))));
    series.chain(answer.warnings.into_iter().map(move |w| frame(Result::Warning(w))))
}

pub(crate) fn metadata_request_from(proto: thanos::MetricMetadataRequest) -> MetadataRequest {
    MetadataRequest {
        metric: Some(proto.metric).filter(|m| !m.is_empty()),
        limit: usize::try_from(proto.limit).ok(),
        partial_response: partial_from(false, proto.partial_response_strategy),
    }
}

pub(crate) fn metadata_request_to(request: &MetadataRequest) -> thanos::MetricMetadataRequest {
    thanos::MetricMetadataRequest {
        metric: request.metric.clone().unwrap_or_default(),
        limit: request.limit.map_or(-1, |l| i32::try_from(l).unwrap_or(-1)),
        partial_response_strategy: partial_to(request.partial_response).1,
    }
}

pub(crate) fn meta_from(proto: thanos::Meta) -> MetricMetadata {
    MetricMetadata { kind: MetricKind::from_name(&proto.r#type), help: proto.help, unit: proto.unit }
}

/// Messages of some metrics each, then the warnings.
pub(crate) fn metadata_frames(
    answer: MetadataAnswer,
) -> impl Iterator<Item = thanos::MetricMetadataResponse> {
    use thanos::metric_metadata_response::Result;
    let frame = |result| thanos::MetricMetadataResponse { result: Some(result) };
    let meta =
        |m: MetricMetadata| thanos::Meta { r#type: m.kind.as_str().to_owned(), help: m.help, unit: m.unit };
    let mut metrics = answer.metrics.into_iter();
    let parts = std::iter::from_fn(move || {
        let entry = |(metric, says): (String, Vec<MetricMetadata>)| {
            (metric, thanos::MetricMetadataEntry { metas: says.into_iter().map(meta).collect() })
        };
        let metadata: std::collections::HashMap<_, _> =
            metrics.by_ref().take(METRICS_PER_FRAME).map(entry).collect();
        (!metadata.is_empty()).then_some(thanos::MetricMetadata { metadata })
    });
    let metadata = parts.map(move |m| frame(Result::Metadata(m)));
    metadata.chain(answer.warnings.into_iter().map(move |w| frame(Result::Warning(w))))
}
