//! Which protocol a request speaks, by its headers.

use axum::http::{HeaderMap, header};

use super::reply::Refusal;

/// Nothing but snappy is taken, and needs no name.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(value) if !value.is_empty() && value.as_bytes() != b"snappy" => Err(Refusal::encoding(value)),
        _ => Ok(()),
    }
}

/// The message that a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `prometheus.WriteRequest`, remote write 1.0.
    V1,
    /// `io.prometheus.write.v2.Request`, remote write 2.0.
    V2,
}

/// The format that the content type names. A missing one is remote write 1.0; so is `application/x-protobuf` without or with `proto=prometheus.WriteRequest`.
pub(super) fn format(headers: &HeaderMap) -> Result<Format, Refusal> {
    let Some(value) = headers.get(header::CONTENT_TYPE).filter(|v| !v.is_empty()) else {
        return Ok(Format::V1);
    };
    let refuse = |why| Err(Refusal::content_type(value, why));
    let Ok(text) = value.to_str() else { return refuse("not text") };
    let mut parts = text.split(';').map(str::trim);
    if !parts.next().unwrap_or("").eq_ignore_ascii_case("application/x-protobuf") {
        return refuse("want application/x-protobuf");
    }
    let mut format = Format::V1;
    for parameter in parts {
        let Some((name, value)) = parameter.split_once('=') else { return refuse("malformed parameter") };
        if !name.trim().eq_ignore_ascii_case("proto") {
            continue;
        }
        match value.trim().trim_matches('"') {
            "prometheus.WriteRequest" => format = Format::V1,
            "io.prometheus.write.v2.Request" => format = Format::V2,
            _ => {
                return refuse(
                    "unknown message, want prometheus.WriteRequest or io.prometheus.write.v2.Request",
                );
            }
        }
    }
    Ok(format)
}
