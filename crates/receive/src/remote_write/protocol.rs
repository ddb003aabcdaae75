//! Which protocol a request speaks, by its headers.

use axum::http::{HeaderMap, HeaderValue, header};

use super::reply::Refusal;

/// Which paths a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// Thanos's remote write: success is 200.
    Receive,
    /// Prometheus's: success is 204.
    Write,
    /// OTLP metrics.
    Otlp,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// A snappy block.
    Snappy,
    /// One gzip member.
    Gzip,
    /// Not at all.
    Plain,
}

/// Remote write takes nothing but snappy, which needs no name; OTLP gzip or nothing.
pub(super) fn encoding(endpoint: Endpoint, headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let Some(value) = headers.get(header::CONTENT_ENCODING).filter(|v| !v.is_empty()) else {
        return Ok(if endpoint == Endpoint::Otlp { Encoding::Plain } else { Encoding::Snappy });
    };
    match (endpoint, value.as_bytes()) {
        (Endpoint::Receive | Endpoint::Write, b"snappy") => Ok(Encoding::Snappy),
        (Endpoint::Receive | Endpoint::Write, _) => Err(Refusal::encoding(value, "snappy")),
        (Endpoint::Otlp, b"gzip") => Ok(Encoding::Gzip),
        (Endpoint::Otlp, b"identity") => Ok(Encoding::Plain),
        (Endpoint::Otlp, _) => Err(Refusal::encoding(value, "gzip or none")),
    }
}

/// The message that a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `prometheus.WriteRequest`, remote write 1.0.
    V1,
    /// `io.prometheus.write.v2.Request`, remote write 2.0.
    V2,
    /// An OTLP request in protobuf.
    OtlpProtobuf,
    /// An OTLP request in JSON.
    OtlpJson,
}

impl Format {
    /// True for both encodings of OTLP.
    pub(super) fn is_otlp(self) -> bool {
        matches!(self, Format::OtlpProtobuf | Format::OtlpJson)
    }
}

/// The format that the content type names. For remote write, a missing one is remote write 1.0; so is `application/x-protobuf` without or with `proto=prometheus.WriteRequest`.
pub(super) fn format(endpoint: Endpoint, headers: &HeaderMap) -> Result<Format, Refusal> {
    if endpoint == Endpoint::Otlp {
        return otlp_format(headers);
    }
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

fn otlp_format(headers: &HeaderMap) -> Result<Format, Refusal> {
    let value = headers.get(header::CONTENT_TYPE).cloned().unwrap_or(HeaderValue::from_static(""));
    let media_type = value.to_str().unwrap_or("").split(';').next().unwrap_or("").trim();
    if media_type.eq_ignore_ascii_case("application/x-protobuf") {
        Ok(Format::OtlpProtobuf)
    } else if media_type.eq_ignore_ascii_case("application/json") {
        Ok(Format::OtlpJson)
    } else {
        Err(Refusal::content_type(&value, "want application/x-protobuf or application/json"))
    }
}
