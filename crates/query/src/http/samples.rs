//! Reading series outside the engine, for remote read and federation: on a blocking thread, sample by sample, integer
//! histograms as they are.

use chronolith_chunk::{Chunk, ChunkError, Encoding, SampleColumns};
use chronolith_model::{SampleValue, TimeRange};
use chronolith_promql::{QueryContext, QueryableError, QueryableErrorKind, SeriesData};
use chronolith_storeapi::PartialResponse;

use super::options::partial_response;
use super::{Api, ApiError, Params, ReadOptions};

/// Cancels a query when it is dropped: when the client goes away, so does the handler's future or the reply's body.
pub(super) struct CancelOnDrop(pub(super) QueryContext);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// As [`ReadOptions::with_params`] for answers that have no place for a warning: a store that fails makes them fail, unless
/// the request itself says `partial_response=true`.
pub(super) fn read_whole(api: &Api, params: &Params) -> Result<ReadOptions, ApiError> {
    let options = api.defaults.with_params(params, 0)?;
    Ok(ReadOptions { partial_response: partial_response(params, PartialResponse::Abort)?, ..options })
}

/// Calls `each` for every sample in the range, in order of time.
pub(super) fn for_each_sample(
    data: &SeriesData,
    range: TimeRange,
    mut each: impl FnMut(i64, SampleValue) -> Result<(), QueryableError>,
) -> Result<(), QueryableError> {
    match data {
        SeriesData::Columns(columns) => {
            for i in 0..columns.len() {
                if range.contains(columns.ts[i]) {
                    each(columns.ts[i], columns.value(i))?;
                }
            }
        }
        SeriesData::Chunks(chunks) => {
            for chunk in chunks.iter().filter(|c| c.mint <= range.maxt && c.maxt >= range.mint) {
                for sample in chunk.iter()? {
                    let (t, value) = sample?;
                    if range.contains(t) {
                        each(t, value)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// A series' chunks in the three encodings that every client knows.
pub(super) fn into_known_chunks(data: SeriesData) -> Result<Vec<Chunk>, ChunkError> {
    let known = |e| matches!(e, Encoding::Xor | Encoding::Histogram | Encoding::FloatHistogram);
    match data {
        SeriesData::Columns(columns) => chronolith_chunk::encode_columns(&columns),
        SeriesData::Chunks(chunks) if chunks.iter().all(|c| known(c.encoding)) => Ok(chunks),
        SeriesData::Chunks(chunks) => {
            let mut out = Vec::with_capacity(chunks.len());
            for chunk in chunks {
                if known(chunk.encoding) {
                    out.push(chunk);
                    continue;
                }
                let mut samples = SampleColumns::default();
                chunk.decode_into(TimeRange::ALL, &mut samples)?;
                out.extend(chronolith_chunk::encode_columns(&samples)?);
            }
            Ok(out)
        }
    }
}

/// What a failed read is worth to an HTTP client.
pub(super) fn status_of(error: &QueryableError) -> http::StatusCode {
    match error.kind {
        QueryableErrorKind::Invalid => http::StatusCode::BAD_REQUEST,
        QueryableErrorKind::LimitExceeded | QueryableErrorKind::MemoryExceeded => {
            http::StatusCode::UNPROCESSABLE_ENTITY
        }
        QueryableErrorKind::Timeout => http::StatusCode::SERVICE_UNAVAILABLE,
        _ => http::StatusCode::INTERNAL_SERVER_ERROR,
    }
}
