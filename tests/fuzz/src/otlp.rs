//! An OTLP body: JSON to protobuf, protobuf to a batch. The first byte chooses the encoding and the settings.

use bytes::BytesMut;
use chronolith_model::WriteBatchBuilder;
use chronolith_model::write::decode_labels;
use chronolith_receive::otlp::{OtlpSettings, TranslationStrategy, to_protobuf, translate};

const BYTES_MAX: usize = 1 << 20;

pub(crate) const WORDS: &[&str] = &[
    "resourceMetrics",
    "resource",
    "attributes",
    "scopeMetrics",
    "scope",
    "metrics",
    "name",
    "unit",
    "gauge",
    "sum",
    "histogram",
    "exponentialHistogram",
    "summary",
    "dataPoints",
    "timeUnixNano",
    "asInt",
    "asDouble",
    "bucketCounts",
    "explicitBounds",
    "positive",
    "offset",
    "scale",
    "exemplars",
    "traceId",
    "key",
    "value",
    "stringValue",
    "arrayValue",
];

pub(crate) fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let settings = OtlpSettings {
        translation_strategy: match kind >> 1 & 3 {
            0 => TranslationStrategy::UnderscoreEscapingWithSuffixes,
            1 => TranslationStrategy::UnderscoreEscapingWithoutSuffixes,
            2 => TranslationStrategy::NoUtf8EscapingWithSuffixes,
            _ => TranslationStrategy::NoTranslation,
        },
        promote_all_resource_attributes: kind & 8 != 0,
        promote_scope_metadata: kind & 16 != 0,
        convert_histograms_to_nhcb: kind & 32 != 0,
        native_delta: kind & 64 != 0,
        label_name_preserve_multiple_underscores: kind & 128 == 0,
        ..OtlpSettings::default()
    };
    let body = if kind & 1 == 0 {
        rest.to_vec()
    } else {
        match to_protobuf(rest) {
            Ok(body) => body,
            Err(_) => return,
        }
    };
    let (mut builder, mut rendered) = (WriteBatchBuilder::default(), BytesMut::new());
    let Ok(read) = translate(&body, &settings, None, BYTES_MAX, &mut rendered, &mut builder) else { return };
    assert!(read.refused.rejected == 0 || !read.refused.rejections.is_empty());
    assert!(rendered.len() <= 2 * BYTES_MAX);
    let batch = builder.finish_rendered(rendered.freeze());
    for series in batch.iter() {
        assert!(!series.samples.is_empty() || !series.histograms.is_empty());
        let names: Vec<_> = decode_labels(series.labels).map_while(Result::ok).map(|l| l.0).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }
}
