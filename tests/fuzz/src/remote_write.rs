//! A remote-write body: snappy, then the hand-written protobuf decoder. The first byte chooses whether the rest is
//! compressed, and whether it is 1.0 or 2.0.

use bytes::Bytes;
use chronolith_model::write::decode_labels;
use chronolith_model::{WriteBatch, WriteBatchBuilder};
use chronolith_receive::remote_write::{LabelKey, decode_v1, decode_v2};

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
    let Some(batch) = (if kind & 2 == 0 { read_v1(body) } else { read_v2(body) }) else { return };
    let mut samples = 0;
    for series in batch.iter() {
        samples += series.samples.len() + series.histograms.len();
        for label in decode_labels(series.labels) {
            let _ = label;
        }
    }
    assert_eq!(samples, batch.sample_count());
}

fn read_v1(body: Vec<u8>) -> Option<WriteBatch> {
    let mut builder = WriteBatchBuilder::default();
    decode_v1::decode(&body, &mut builder).ok()?;
    Some(builder.finish(Bytes::from(body)))
}

fn read_v2(body: Vec<u8>) -> Option<WriteBatch> {
    let mut builder = WriteBatchBuilder::default();
    let (key, mut symbols) = (LabelKey::default(), decode_v2::Symbols::default());
    let read = decode_v2::decode(&body, BODY_BYTES_MAX, &key, None, &mut symbols, &mut builder).ok()?;
    assert!(read.refused.rejected == 0 || !read.refused.rejections.is_empty());
    let mut batch = builder.finish(Bytes::from(body));
    batch.render();
    let sections: usize = batch.iter().map(|series| series.labels.len()).sum();
    assert!(sections <= 2 * BODY_BYTES_MAX, "what is rendered is bounded");
    Some(batch)
}
