//! Our codecs against bytes that Prometheus made; see testdata/README.md.

use std::collections::HashMap;
use std::path::PathBuf;

use chronolith_chunk::{
    Chunk, Encoding, FloatHistogramEncoder, HistogramEncoder, SampleColumns, Xor2Encoder, XorEncoder,
};
use chronolith_model::histogram::{CounterReset, Span};
use chronolith_model::{Histogram, TimeRange};

fn read(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    std::fs::read(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

fn text(name: &str) -> String {
    String::from_utf8(read(name)).unwrap()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn bits(hex: &str) -> f64 {
    f64::from_bits(u64::from_str_radix(hex, 16).unwrap())
}

fn chunk(encoding: Encoding, data: Vec<u8>) -> Chunk {
    Chunk { mint: i64::MIN, maxt: i64::MAX, encoding, data: data.into() }
}

/// Encodes decoded samples anew.
fn encode_again(encoding: Encoding, data: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Xor => XorEncoder::resume(data).unwrap().finish().to_vec(),
        Encoding::Xor2 => Xor2Encoder::resume(data).unwrap().snapshot().to_vec(),
        Encoding::Histogram => HistogramEncoder::resume(data).unwrap().finish().to_vec(),
        Encoding::HistogramSt => HistogramEncoder::resume_with_start_ts(data).unwrap().finish().to_vec(),
        Encoding::FloatHistogramSt => {
            FloatHistogramEncoder::resume_with_start_ts(data).unwrap().finish().to_vec()
        }
        _ => FloatHistogramEncoder::resume(data).unwrap().finish().to_vec(),
    }
}

#[test]
fn segment_of_prometheus_2_42() {
    let segment = read("segment-000001");
    let mut rest = &segment[8..];
    let mut chunks = 0;
    let mut samples = Vec::new();
    while !rest.is_empty() {
        // Every chunk here is shorter than 2^14 bytes.
        let (len, start) = match (rest[0], rest[1]) {
            (a, _) if a < 0x80 => (usize::from(a), 1),
            (a, b) => (usize::from(a & 0x7f) | usize::from(b) << 7, 2),
        };
        assert_eq!(rest[start], Encoding::Xor.as_u8());
        let data = &rest[start + 1..start + 1 + len];
        assert_eq!(encode_again(Encoding::Xor, data), data, "chunk {chunks}");
        let mut out = SampleColumns::default();
        chunk(Encoding::Xor, data.to_vec()).decode_into(TimeRange::ALL, &mut out).unwrap();
        samples.extend(out.ts.into_iter().zip(out.values.into_iter().map(f64::to_bits)));
        rest = &rest[start + 1 + len + 4..];
        chunks += 1;
    }
    assert_eq!((chunks, samples.len()), (10, 1250));
    let dump = text("segment-000001.samples");
    let mut want: Vec<(i64, u64)> = dump
        .lines()
        .map(|line| {
            let (t, v) = line.split_once(' ').unwrap();
            // Go writes `+Inf`, `-Inf` and `NaN`, which Rust reads; a NaN's bits are those of the exposition.
            let v: f64 = v.parse().unwrap();
            (t.parse().unwrap(), if v.is_nan() { 0x7ff8_0000_0000_0001 } else { v.to_bits() })
        })
        .collect();
    samples.sort_unstable();
    want.sort_unstable();
    assert_eq!(samples, want);
}

#[test]
fn floats_of_upstream() {
    let text = text("floats.txt");
    let mut lines = text.lines().peekable();
    let mut cases = 0;
    while let Some(head) = lines.next() {
        let [encoding, name, data] = head.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let data = unhex(data);
        let (mut sts, mut ts, mut values) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(line) = lines.next_if(|l| l.starts_with(|c: char| c.is_ascii_digit() || c == '-')) {
            let [st, t, v] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            sts.push(st.parse::<i64>().unwrap());
            ts.push(t.parse::<i64>().unwrap());
            values.push(bits(v));
        }
        let mut xor = XorEncoder::new();
        let mut xor2 = Xor2Encoder::new();
        for i in 0..ts.len() {
            xor.append(ts[i], values[i]);
            xor2.append(sts[i], ts[i], values[i]).unwrap();
        }
        let (encoding, ours) = match encoding {
            "xor" => (Encoding::Xor, xor.finish()),
            _ => (Encoding::Xor2, xor2.snapshot()),
        };
        assert_eq!(&ours[..], &data[..], "{encoding} {name}");
        let mut out = SampleColumns::default();
        chunk(encoding, data.clone()).decode_into(TimeRange::ALL, &mut out).unwrap();
        assert_eq!(out.ts, ts, "{encoding} {name}");
        assert!(out.values.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()), "{encoding} {name}");
        if encoding == Encoding::Xor2 && sts.iter().any(|st| *st != 0) {
            assert_eq!(out.start_ts, sts, "{name}");
        }
        assert_eq!(encode_again(encoding, &data), data);
        cases += 1;
    }
    assert_eq!(cases, 24);
}

fn list<T>(text: &str, item: impl Fn(&str) -> T) -> Vec<T> {
    let inner = text.trim_matches(['[', ']']);
    if inner.is_empty() { Vec::new() } else { inner.split(',').map(item).collect() }
}

fn histogram(line: &str) -> (i64, Histogram) {
    let f: Vec<_> = line.split(' ').skip(1).collect();
    let spans = |text: &str| {
        list(text, |s| {
            let (offset, length) = s.split_once(':').unwrap();
            Span { offset: offset.parse().unwrap(), length: length.parse().unwrap() }
        })
    };
    let ints = |text: &str| list(text, |s| s.parse::<i64>().unwrap());
    let h = Histogram {
        counter_reset: match f[1] {
            "0" => CounterReset::Unknown,
            "1" => CounterReset::Reset,
            "2" => CounterReset::NotReset,
            _ => CounterReset::Gauge,
        },
        schema: f[2].parse().unwrap(),
        zero_threshold: bits(f[3]),
        zero_count: f[4].parse().unwrap(),
        count: f[5].parse().unwrap(),
        sum: bits(f[6]),
        positive_spans: spans(f[7]),
        negative_spans: spans(f[8]),
        positive_buckets: ints(f[9]),
        negative_buckets: ints(f[10]),
        custom_values: list(f[11], bits),
    };
    (f[0].parse().unwrap(), h)
}

/// Appends all samples as the test data's generator did.
macro_rules! chunks_of {
    ($encoder:ty, $samples:expr, $cut:expr) => {{
        let mut out = Vec::new();
        let mut open: Option<$encoder> = None;
        for (t, h) in $samples {
            match open.take() {
                None => open = Some(<$encoder>::first(None, *t, h).unwrap()),
                Some(full) if full.sample_count() >= $cut => {
                    open = Some(<$encoder>::first(Some(&full), *t, h).unwrap());
                    out.push(full.finish());
                }
                Some(mut encoder) => match encoder.append(*t, h).unwrap() {
                    None => open = Some(encoder),
                    Some(next) => {
                        out.push(encoder.finish());
                        open = Some(next);
                    }
                },
            }
        }
        out.extend(open.map(|e| e.finish()));
        out
    }};
}

#[test]
fn histograms_of_upstream() {
    let text = text("histograms.txt");
    let mut lines = text.lines().peekable();
    let (mut cases, mut chunks) = (0, 0);
    while let Some(head) = lines.next() {
        let [kind, name, cut] = head.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let cut: usize = cut.parse().unwrap();
        let mut samples = Vec::new();
        while let Some(line) = lines.next_if(|l| l.starts_with("sample ")) {
            samples.push(histogram(line));
        }
        let mut want = Vec::new();
        while let Some(line) = lines.next_if(|l| l.starts_with("chunk ")) {
            want.push(unhex(&line["chunk ".len()..]));
        }
        let (encoding, ours) = if kind == "histogram" {
            (Encoding::Histogram, chunks_of!(HistogramEncoder, &samples, cut))
        } else {
            let floats: Vec<_> = samples.iter().map(|(t, h)| (*t, h.to_float())).collect();
            (Encoding::FloatHistogram, chunks_of!(FloatHistogramEncoder, &floats, cut))
        };
        for (i, (ours, want)) in ours.iter().zip(&want).enumerate() {
            assert_eq!(&ours[..], &want[..], "{kind} {name} chunk {i}");
        }
        assert_eq!(ours.len(), want.len(), "{kind} {name}");
        let mut out = SampleColumns::default();
        for data in want {
            assert_eq!(encode_again(encoding, &data), data);
            chunk(encoding, data).decode_into(TimeRange::ALL, &mut out).unwrap();
            chunks += 1;
        }
        for (i, (t, h)) in samples.iter().enumerate() {
            let (mut got, mut want) = ((**out.histogram(i).unwrap()).clone(), h.to_float());
            assert!((out.ts[i], got.compact(0).equals(want.compact(0))) == (*t, true), "{kind} {name} {i}");
        }
        cases += 1;
    }
    assert_eq!(cases, 12);
    assert!(chunks > 40, "{chunks}");
}

/// [`chunks_of`] with start timestamps.
macro_rules! chunks_with_start_ts {
    ($encoder:ty, $samples:expr, $cut:expr) => {{
        let mut out = Vec::new();
        let mut open: Option<$encoder> = None;
        for (st, t, h) in $samples {
            match open.take() {
                None => open = Some(<$encoder>::first_with_start_ts(None, *st, *t, h).unwrap()),
                Some(full) if full.sample_count() >= $cut => {
                    open = Some(<$encoder>::first_with_start_ts(Some(&full), *st, *t, h).unwrap());
                    out.push(full.finish());
                }
                Some(mut encoder) => match encoder.append_with_start_ts(*st, *t, h).unwrap() {
                    None => open = Some(encoder),
                    Some(next) => {
                        out.push(encoder.finish());
                        open = Some(next);
                    }
                },
            }
        }
        out.extend(open.map(|e| e.finish()));
        out
    }};
}

#[test]
fn histograms_with_start_timestamps_of_upstream() {
    let plain = text("histograms.txt");
    let mut series: HashMap<String, (usize, Vec<(i64, Histogram)>)> = HashMap::new();
    let mut name = String::new();
    for line in plain.lines().filter(|l| !l.starts_with("chunk ")) {
        if line.starts_with("sample ") {
            series.get_mut(&name).unwrap().1.push(histogram(line));
        } else {
            let (head, cut) = line.rsplit_once(' ').unwrap();
            name = head.to_owned();
            series.insert(name.clone(), (cut.parse().unwrap(), Vec::new()));
        }
    }
    let text = text("histograms_st.txt");
    let mut lines = text.lines().peekable();
    let (mut cases, mut chunks) = (0, 0);
    while let Some(case) = lines.next() {
        let (cut, histograms) = &series[case.rsplit_once(' ').unwrap().0];
        let sts = list(lines.next().unwrap().strip_prefix("st ").unwrap(), |st| st.parse::<i64>().unwrap());
        // The last histogram comes again until all start timestamps have one.
        let last = histograms.last().unwrap();
        let samples: Vec<_> = sts
            .iter()
            .enumerate()
            .map(|(i, st)| {
                let (t, h) = histograms.get(i).unwrap_or(last);
                (*st, t + 15_000 * (i + 1).saturating_sub(histograms.len()) as i64, h.clone())
            })
            .collect();
        let mut want = Vec::new();
        while let Some(line) = lines.next_if(|l| l.starts_with("chunk ")) {
            want.push(unhex(&line["chunk ".len()..]));
        }
        let (encoding, ours) = if case.starts_with("histogram") {
            (Encoding::HistogramSt, chunks_with_start_ts!(HistogramEncoder, &samples, *cut))
        } else {
            let floats: Vec<_> = samples.iter().map(|(st, t, h)| (*st, *t, h.to_float())).collect();
            (Encoding::FloatHistogramSt, chunks_with_start_ts!(FloatHistogramEncoder, &floats, *cut))
        };
        for (i, (ours, want)) in ours.iter().zip(&want).enumerate() {
            assert_eq!(&ours[..], &want[..], "{case} chunk {i}");
        }
        assert_eq!(ours.len(), want.len(), "{case}");
        let mut out = SampleColumns::default();
        let mut by_iter = Vec::new();
        for data in want {
            assert_eq!(encode_again(encoding, &data), data);
            let chunk = chunk(encoding, data);
            chunk.decode_into(TimeRange::ALL, &mut out).unwrap();
            let mut it = chunk.iter().unwrap();
            while let Some(sample) = it.next() {
                by_iter.push((it.start_ts(), sample.unwrap().0));
            }
            chunks += 1;
        }
        assert_eq!(by_iter, samples.iter().map(|(st, t, _)| (*st, *t)).collect::<Vec<_>>(), "{case}");
        let no_start = vec![0; sts.len()];
        assert_eq!(if out.start_ts.is_empty() { &no_start } else { &out.start_ts }, &sts, "{case}");
        for (i, (_, t, h)) in samples.iter().enumerate() {
            let (mut got, mut want) = ((**out.histogram(i).unwrap()).clone(), h.to_float());
            assert!((out.ts[i], got.compact(0).equals(want.compact(0))) == (*t, true), "{case} {i}");
        }
        cases += 1;
    }
    assert_eq!(cases, 50);
    assert!(chunks > 150, "{chunks}");
}
