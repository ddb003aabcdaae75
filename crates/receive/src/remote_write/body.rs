//! Reading a request's body into memory that was reserved for it.

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use chronolith_model::TenantId;
use futures::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::budget::ByteShare;
use super::http::RemoteWrite;
use super::protocol::Encoding;
use super::reply::Refusal;

/// Snappy's densest element is a copy of 64 bytes written in 3. A length beyond that is a lie.
const SNAPPY_EXPANSION_MAX: u64 = 22;
/// A body takes memory from the time at which it was announced. Prometheus gives a whole request 30 s.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Deflate's densest code writes 258 bytes with two bits.
const GZIP_EXPANSION_MAX: u64 = 1032;
/// Header and trailer.
const GZIP_BYTES_MIN: usize = 18;

impl RemoteWrite {
    /// Reads the whole body into memory that was reserved for it: its announced length or, without one, the maximum.
    pub(super) async fn read_body(
        &self,
        tenant: &TenantId,
        bytes_max: u64,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Bytes, ByteShare), Refusal> {
        let too_large = |bytes| Refusal::TooLarge { what: "body", bytes, bytes_max };
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if let Some(bytes) = announced.filter(|&bytes| bytes > bytes_max) {
            return Err(too_large(bytes));
        }
        let admission = &self.admission;
        let share = admission.bytes(&admission.read, tenant, announced.unwrap_or(bytes_max)).await?;
        let mut pieces = body.into_data_stream();
        let mut first = Bytes::new();
        let mut whole = BytesMut::new();
        let deadline = Instant::now() + BODY_TIMEOUT;
        let late = |_| Refusal::Body(format!("it did not come within {} s", BODY_TIMEOUT.as_secs()));
        while let Some(piece) = timeout_at(deadline, pieces.next()).await.map_err(late)? {
            let piece = piece.map_err(|e| Refusal::Body(e.to_string()))?;
            let so_far = (first.len() + whole.len() + piece.len()) as u64;
            if so_far > bytes_max {
                return Err(too_large(so_far));
            }
            if first.is_empty() && whole.is_empty() {
                first = piece; // Often the only one: no copy.
                continue;
            }
            if whole.is_empty() {
                whole.reserve(announced.map_or(first.len() + piece.len(), |len| len as usize));
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&piece);
        }
        Ok((if whole.is_empty() { first } else { whole.freeze() }, share))
    }
}

/// What the body says it decompresses to, checked before anything is allocated for it.
pub(super) fn decompressed_len(encoding: Encoding, body: &[u8], bytes_max: u64) -> Result<u64, Refusal> {
    let (bytes, expansion_max) = match encoding {
        Encoding::Plain => return Ok(body.len() as u64),
        // An empty body is not a snappy block: even nothing compresses to a length of zero.
        Encoding::Snappy if body.is_empty() => return Err(Refusal::Snappy("empty body".to_owned())),
        Encoding::Snappy => {
            let bytes = snap::raw::decompress_len(body).map_err(|e| Refusal::Snappy(e.to_string()))?;
            (bytes as u64, SNAPPY_EXPANSION_MAX)
        }
        Encoding::Gzip => {
            let Some(size) = body.last_chunk::<4>().filter(|_| body.len() >= GZIP_BYTES_MIN) else {
                return Err(Refusal::Gzip("cut off".to_owned()));
            };
            (u64::from(u32::from_le_bytes(*size)), GZIP_EXPANSION_MAX)
        }
    };
    let lie = || format!("{} bytes cannot decompress to {bytes}", body.len());
    let is_lie = bytes > body.len() as u64 * expansion_max;
    match encoding {
        // What ends anything but gzip is any number.
        Encoding::Gzip if is_lie => Err(Refusal::Gzip(lie())),
        _ if bytes > bytes_max => Err(Refusal::TooLarge { what: "decompressed body", bytes, bytes_max }),
        _ if is_lie => Err(Refusal::Snappy(lie())),
        _ => Ok(bytes),
    }
}

/// Decompresses a body to the `len` bytes that [`decompressed_len`] said, into `into`.
pub(super) fn decompress(
    encoding: Encoding,
    body: &[u8],
    len: usize,
    into: &mut BytesMut,
) -> Result<(), Refusal> {
    // What the last request left in the buffer needs no clearing; only growth does.
    into.resize(len, 0);
    match encoding {
        Encoding::Plain => into.copy_from_slice(body),
        Encoding::Snappy => {
            let read = snap::raw::Decoder::new().decompress(body, into);
            into.truncate(read.map_err(|e| Refusal::Snappy(e.to_string()))?);
        }
        Encoding::Gzip => {
            let mut reader = flate2::bufread::GzDecoder::new(body);
            reader.read_exact(into).map_err(|e| Refusal::Gzip(e.to_string()))?;
            // Reading on checks the sum, and that there is no more than the member says.
            if reader.read(&mut [0]).map_err(|e| Refusal::Gzip(e.to_string()))? != 0 {
                return Err(Refusal::Gzip("longer than its trailer says".to_owned()));
            }
            if !reader.into_inner().is_empty() {
                return Err(Refusal::Gzip("more than one member".to_owned()));
            }
        }
    }
    Ok(())
}
