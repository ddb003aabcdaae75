//! A remote-write body: snappy, then the hand-written protobuf decoder. The first byte chooses whether the rest is compressed.

use bytes::Bytes;
use chronolith_model::WriteBatchBuilder;
use chronolith_model::write::decode_labels;
use chronolith_receive::remote_write::decode_v1;

/// A body may declare any length; this much is believed.
const BODY_BYTES_MAX: usize = 1 << 20;

pub(crate) fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let body = if kind & 1 == 0 {
        rest.to_vec()
    } else {
        match snap::raw::decompress_len(rest) {
            Ok(len) if len <= BODY_BYTES_MAX => match snap::raw::Decoder::new().decompress_vec(rest) {
                Ok(body) => body,
                Err(_) => return,
            },
            _ => return,
        }
    };
    let mut builder = WriteBatchBuilder::default();
    if decode_v1::decode(&body, &mut builder).is_err() {
        return;
    }
    let batch = builder.finish(Bytes::from(body));
    let mut samples = 0;
    for series in batch.iter() {
        samples += series.samples.len() + series.histograms.len();
        for label in decode_labels(series.labels) {
            let _ = label;
        }
    }
    assert_eq!(samples, batch.sample_count());
}
