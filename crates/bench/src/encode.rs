//! Remote-write 1.0 requests, encoded by hand and ahead of time, so that the generator never competes for what is
//! measured.

use crate::workload::Workload;

/// Samples in a request: Prometheus's default `max_samples_per_send`.
pub(crate) const REQUEST_SAMPLES: usize = 2000;

/// The snappy-compressed requests of one step of the whole workload.
pub(crate) fn encode_step(workload: &mut Workload, step: u64, requests: &mut Vec<Vec<u8>>) {
    let t = workload.time(step);
    let mut encoder = snap::raw::Encoder::new();
    let mut body = Vec::with_capacity(REQUEST_SAMPLES * 400);
    for chunk in workload.series.chunks_mut(REQUEST_SAMPLES) {
        body.clear();
        for series in chunk {
            let v = series.value(step);
            put_series(&series.labels, t, v, &mut body);
        }
        requests.push(encoder.compress_vec(&body).expect("a request is far below snappy's 4 GiB"));
    }
}

fn put_series(labels: &[u8], t: i64, v: f64, out: &mut Vec<u8>) {
    let t_len = varint_len(t as u64);
    let sample_len = 1 + 8 + 1 + t_len;
    let series_len = labels.len() + 1 + varint_len(sample_len as u64) + sample_len;
    out.push(0x0A);
    put_varint(series_len as u64, out);
    out.extend_from_slice(labels);
    out.push(0x12);
    put_varint(sample_len as u64, out);
    out.push(0x09);
    out.extend_from_slice(&v.to_bits().to_le_bytes());
    out.push(0x10);
    put_varint(t as u64, out);
}

fn varint_len(v: u64) -> usize {
    (64 - (v | 1).leading_zeros()).div_ceil(7) as usize
}

fn put_varint(mut v: u64, out: &mut Vec<u8>) {
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
        encode_step(&mut w, 0, &mut requests);
        assert_eq!(requests.len(), 3);
        let body = snap::raw::Decoder::new().decompress_vec(&requests[2]).unwrap();
        assert_eq!(body[0], 0x0A);
    }
}
