//! The envelope: `{"status":…,"data":…,"warnings":…,"infos":…}`.

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, header};

use crate::{ApiError, JsonBuf};

/// At most so many warnings, and as many infos, are in a reply; upstream's bound.
const ANNOTATIONS_MAX: usize = 10;

/// Warnings and infos of a successful call.
#[derive(Clone, Debug, Default)]
pub struct Annotations {
    /// Warnings of PromQL and of the API itself.
    pub warnings: Vec<String>,
    /// Infos of PromQL.
    pub infos: Vec<String>,
    /// True when a store did not answer: such a reply must not be cached.
    pub partial: bool,
}

/// A successful reply whose `data` is what `write` writes.
pub fn success(annotations: &Annotations, write: impl FnOnce(&mut JsonBuf)) -> Response {
    let written = try_success::<(), std::convert::Infallible>(annotations, |j| {
        write(j);
        Ok(())
    });
    match written {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// As [`success`], for a large `data` whose writing may be given up. What `write` returns is kept as long as the reply is
/// in memory.
pub fn try_success<H: Send + Sync + 'static, E>(
    annotations: &Annotations,
    write: impl FnOnce(&mut JsonBuf) -> Result<H, E>,
) -> Result<Response, E> {
    let mut j = JsonBuf::new();
    j.raw(r#"{"status":"success","data":"#);
    let held = write(&mut j)?;
    put_list(&mut j, "warnings", "warning", &annotations.warnings);
    put_list(&mut j, "infos", "info", &annotations.infos);
    j.raw("}");
    let bytes = Bytes::from_owner(Held { bytes: j.bytes, _held: held });
    let mut response = json_response(bytes);
    if annotations.partial {
        // Thanos's query-frontend relies on this to keep partial answers out of its cache.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(response)
}

/// A reply's bytes, and what is kept with them.
struct Held<H> {
    bytes: Vec<u8>,
    _held: H,
}

impl<H> AsRef<[u8]> for Held<H> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A failed reply.
pub fn failure(error: &ApiError) -> Response {
    let mut j = JsonBuf::new();
    j.raw(r#"{"status":"error","errorType":"#).string(error.kind.as_str());
    j.raw(r#","error":"#).string(&error.message).raw("}");
    let mut response = json_response(j.bytes.into());
    *response.status_mut() = error.kind.status();
    response
}

impl axum::response::IntoResponse for ApiError {
    fn into_response(self) -> Response {
        failure(&self)
    }
}

fn json_response(bytes: Bytes) -> Response {
    let mut response = Response::new(bytes.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn put_list(j: &mut JsonBuf, key: &str, singular: &str, texts: &[String]) {
    if texts.is_empty() {
        return;
    }
    let omitted = texts.len().saturating_sub(ANNOTATIONS_MAX);
    let note = format!("{omitted} more {singular} annotations omitted");
    let shown = texts.iter().take(ANNOTATIONS_MAX).chain((omitted > 0).then_some(&note));
    j.raw(",\"").raw(key).raw("\":").array(shown, |j, text| {
        j.string(text);
    });
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::ErrorKind;

    fn text(response: Response) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn envelopes() {
        let plain = success(&Annotations::default(), |j| {
            j.raw("[]");
        });
        assert_eq!(text(plain), r#"{"status":"success","data":[]}"#);
        let many = Annotations {
            warnings: (0..12).map(|i| i.to_string()).collect(),
            partial: true,
            ..Default::default()
        };
        let reply = success(&many, |j| {
            j.raw("1");
        });
        assert_eq!(reply.headers()["cache-control"], "no-store");
        assert!(text(reply).ends_with(r#","9","2 more warning annotations omitted"]}"#));
        let bad = failure(&ApiError::parameter("step", "no"));
        assert_eq!(bad.status(), 400);
        assert_eq!(
            text(bad),
            r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"step\": no"}"#
        );
        assert_eq!(failure(&ApiError::new(ErrorKind::Canceled, "x")).status(), 499);
    }
}
