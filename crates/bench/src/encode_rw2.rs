//! Remote-write 2.0 requests: a table of symbols a request, and what Prometheus says of each metric beside its samples.

use std::collections::HashMap;

use chronolith_model::write::decode_labels;

use crate::encode::{REQUEST_SAMPLES, put_message, put_sample, put_varint};
use crate::workload::Workload;

/// As [`crate::encode::encode_steps`].
pub(crate) fn encode_steps(workload: &mut Workload, first: u64, steps: u64, requests: &mut Vec<Vec<u8>>) {
    let times: Vec<i64> = (first..first + steps).map(|step| workload.time(step)).collect();
    let mut encoder = snap::raw::Encoder::new();
    let (mut refs, mut one, mut messages) = (Vec::new(), Vec::new(), Vec::new());
    for chunk in workload.series.chunks_mut((REQUEST_SAMPLES / steps as usize).max(1)) {
        let mut symbols = Symbols::default();
        symbols.number("");
        messages.clear();
        for series in chunk {
            refs.clear();
            one.clear();
            let mut help = 0;
            for (name, value) in decode_labels(&series.labels).map(|pair| pair.expect("we made it")) {
                put_varint(symbols.number(name), &mut refs);
                put_varint(symbols.number(value), &mut refs);
                if name == "__name__" {
                    help = symbols.number(&format!("What {value} counts or shows."));
                }
            }
            put_message(0x0A, &refs, &mut one);
            for (t, step) in times.iter().zip(first..) {
                put_sample(*t, series.value(step), &mut one);
            }
            let kind = if series.shape.is_counter() { 1 } else { 2 };
            let mut metadata = vec![0x08, kind, 0x18];
            put_varint(help, &mut metadata);
            put_message(0x2A, &metadata, &mut one);
            put_message(0x2A, &one, &mut messages);
        }
        let mut body = Vec::with_capacity(messages.len() * 2);
        symbols.in_order.iter().for_each(|symbol| put_message(0x22, symbol.as_bytes(), &mut body));
        body.extend_from_slice(&messages);
        requests.push(encoder.compress_vec(&body).expect("a request is far below snappy's 4 GiB"));
    }
}

#[derive(Default)]
struct Symbols {
    in_order: Vec<String>,
    numbers: HashMap<String, u64>,
}

impl Symbols {
    fn number(&mut self, text: &str) -> u64 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.in_order.len() as u64;
        self.in_order.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}
