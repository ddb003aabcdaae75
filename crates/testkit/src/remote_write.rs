//! Remote-write bodies made by hand: the tests' own encoder, so that the product's decoder is not judged by itself.

use chronolith_model::write::encode_labels;

/// A series to write.
#[derive(Clone, Debug)]
pub struct TestSeries {
    /// Pairs in the order in which they are written.
    pub labels: Vec<(String, String)>,
    /// Milliseconds and value.
    pub samples: Vec<(i64, f64)>,
}

impl TestSeries {
    /// A series with labels as given.
    pub fn new(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Self {
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        TestSeries { labels, samples: samples.to_vec() }
    }
}

/// The protobuf of a write request, not compressed.
pub fn write_request(series: &[TestSeries]) -> Vec<u8> {
    let mut out = Vec::new();
    for s in series {
        let mut one = Vec::new();
        encode_labels(s.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())), &mut one);
        for (t, v) in &s.samples {
            let mut sample = vec![0x09];
            sample.extend_from_slice(&v.to_bits().to_le_bytes());
            sample.push(0x10);
            put_varint(*t as u64, &mut sample);
            one.push(0x12);
            put_varint(sample.len() as u64, &mut one);
            one.extend_from_slice(&sample);
        }
        out.push(0x0A);
        put_varint(one.len() as u64, &mut out);
        out.extend_from_slice(&one);
    }
    out
}

/// The body of a write request: [`write_request`] in snappy's block format.
pub fn write_body(series: &[TestSeries]) -> Vec<u8> {
    let request = write_request(series);
    snap::raw::Encoder::new().compress_vec(&request).expect("a test body is far below snappy's 4 GiB")
}

fn put_varint(mut v: u64, out: &mut Vec<u8>) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}
