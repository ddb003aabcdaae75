//! Remote-write 1.0 requests, encoded by hand and ahead of time, so that the generator never competes for what is
//! measured.

use crate::workload::Workload;

/// Samples in a request: Prometheus's default `max_samples_per_send`.
pub(crate) const REQUEST_SAMPLES: usize = 2000;

/// The snappy-compressed requests of `steps` steps of the whole workload, from `first` on. All samples of a series are
/// in one request.
pub(crate) fn encode_steps(workload: &mut Workload, first: u64, steps: u64, requests: &mut Vec<Vec<u8>>) {
    let times: Vec<i64> = (first..first + steps).map(|step| workload.time(step)).collect();
    let mut encoder = snap::raw::Encoder::new();
    let mut body = Vec::with_capacity(REQUEST_SAMPLES * 400);
    let mut samples = Vec::new();
    for chunk in workload.series.chunks_mut((REQUEST_SAMPLES / steps as usize).max(1)) {
        body.clear();
        for series in chunk {
            samples.clear();
            for (t, step) in times.iter().zip(first..) {
                put_sample(*t, series.value(step), &mut samples);
            }
            body.push(0x0A);
            put_varint((series.labels.len() + samples.len()) as u64, &mut body);
            body.extend_from_slice(&series.labels);
            body.extend_from_slice(&samples);
        }
        requests.push(encoder.compress_vec(&body).expect("a request is far below snappy's 4 GiB"));
    }
}

/// A sample as both versions of remote write have it: `2: { 1: value, 2: time }`.
pub(crate) fn put_sample(t: i64, v: f64, out: &mut Vec<u8>) {
    out.push(0x12);
    put_varint((1 + 8 + 1 + varint_len(t as u64)) as u64, out);
    out.push(0x09);
    out.extend_from_slice(&v.to_bits().to_le_bytes());
    out.push(0x10);
    put_varint(t as u64, out);
}

fn varint_len(v: u64) -> usize {
    (64 - (v | 1).leading_zeros()).div_ceil(7) as usize
}

/// A field that holds bytes or a message.
pub(crate) fn put_message(tag: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    put_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

pub(crate) fn put_varint(mut v: u64, out: &mut Vec<u8>) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_cut_into_requests_of_two_thousand() {
        let mut w = Workload::new(4500, 1_700_000_000_000, 15_000, 1);
        let mut requests = Vec::new();
        encode_steps(&mut w, 0, 1, &mut requests);
        assert_eq!(requests.len(), 3);
        let body = snap::raw::Decoder::new().decompress_vec(&requests[2]).unwrap();
        assert_eq!(body[0], 0x0A);
    }
    #[test]
    fn several_steps_make_requests_of_the_same_size() {
        let mut w = Workload::new(1000, 1_700_000_000_000, 15_000, 1);
        let mut requests = Vec::new();
        encode_steps(&mut w, 0, 10, &mut requests);
        assert_eq!(requests.len(), 1000 * 10 / REQUEST_SAMPLES);
    }
}
