use chronolith_model::{STALE_NAN, TimeRange};
use proptest::prelude::*;

use super::*;
use crate::SampleColumns;

fn encode(samples: &[(i64, f64)]) -> Bytes {
    let mut e = XorEncoder::new();
    for &(t, v) in samples {
        e.append(t, v);
    }
    e.finish()
}

fn decode(data: &[u8], range: TimeRange) -> Result<Vec<(i64, u64)>, ChunkError> {
    let mut out = SampleColumns::default();
    decode_into(data, range, &mut out)?;
    Ok(out.ts.iter().copied().zip(out.values.iter().map(|v| v.to_bits())).collect())
}

fn bits(samples: &[(i64, f64)]) -> Vec<(i64, u64)> {
    samples.iter().map(|&(t, v)| (t, v.to_bits())).collect()
}

#[test]
fn state_stays_small() {
    assert!(std::mem::size_of::<XorState>() <= 40);
}

#[test]
fn empty_chunk_is_its_count() {
    assert_eq!(&XorEncoder::new().finish()[..], [0, 0]);
    assert_eq!(decode(&[0, 0], TimeRange::ALL), Ok(vec![]));
    assert!(decode(&[0], TimeRange::ALL).is_err());
}

#[test]
fn class_edges_come_back() {
    let mut t = 0i64;
    let mut delta = 100_000i64;
    let mut samples = vec![(t, 1.0), (t + delta, f64::NAN)];
    t += delta;
    for dod in [
        0,
        1,
        -1,
        8191,
        8192,
        -8191,
        -8192,
        8193,
        65535,
        65536,
        -65535,
        -65536,
        524_288,
        -524_287,
        -524_288,
        1 << 40,
    ] {
        delta += dod;
        t += delta;
        samples.push((t, dod as f64));
    }
    samples.extend([(i64::MAX, STALE_NAN), (i64::MIN, -0.0), (0, f64::INFINITY)]);
    let data = encode(&samples);
    let got: Vec<_> =
        XorIter::new(&data).unwrap().map(|s| s.unwrap()).map(|(t, v)| (t, v.to_bits())).collect();
    assert_eq!(got, bits(&samples));
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (0u32..1000).prop_map(f64::from),
        Just(STALE_NAN),
        Just(f64::NAN),
        Just(0.0),
    ]
}

/// Ascending samples with the distances that choose every class.
pub(crate) fn samples() -> impl Strategy<Value = Vec<(i64, f64)>> {
    let step = prop_oneof![Just(15_000i64), 1i64..100, 1i64..200_000, 1i64..10_000_000, 1i64..1 << 45];
    let start = prop_oneof![Just(i64::MIN), Just(0), Just(1_700_000_000_000)];
    (start, prop::collection::vec((step, value()), 0..300)).prop_map(|(start, steps)| {
        let mut t = start;
        steps
            .into_iter()
            .map(|(step, v)| {
                t += step;
                (t, v)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn samples_come_back_and_clip(samples in samples(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let data = encode(&samples);
        prop_assert_eq!(decode(&data, TimeRange::ALL).unwrap(), bits(&samples));
        prop_assert_eq!(&XorEncoder::resume(&data).unwrap().finish(), &data);
        if !samples.is_empty() {
            let range = TimeRange::new(samples[a.index(samples.len())].0, samples[b.index(samples.len())].0);
            let inside: Vec<_> = samples.iter().copied().filter(|s| range.contains(s.0)).collect();
            prop_assert_eq!(decode(&data, range).unwrap(), bits(&inside));
        }
    }

    #[test]
    fn a_state_continues_from_its_bytes(samples in samples(), at in any::<prop::sample::Index>()) {
        let (mut state, mut words) = (XorState::new(), Vec::new());
        let at = at.index(samples.len() + 1);
        for (i, (t, v)) in samples.iter().enumerate() {
            if i == at {
                state = XorState::from_bytes(&state.to_bytes());
            }
            state.append(&mut words, *t, *v);
        }
        state.finish(&mut words);
        prop_assert_eq!(words, encode(&samples).to_vec());
    }

    #[test]
    fn any_timestamps_come_back(samples in prop::collection::vec((any::<i64>(), value()), 0..50)) {
        let data = encode(&samples);
        let got: Vec<_> = XorIter::new(&data).unwrap().map(|s| s.unwrap()).map(|(t, v)| (t, v.to_bits())).collect();
        prop_assert_eq!(got, bits(&samples));
    }

    #[test]
    fn cut_chunks_are_errors(samples in samples(), cut in any::<prop::sample::Index>()) {
        let data = encode(&samples);
        let cut = cut.index(data.len());
        prop_assert!(decode(&data[..cut], TimeRange::ALL).is_err());
    }

    #[test]
    fn damaged_chunks_do_not_panic(samples in samples(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut data = encode(&samples).to_vec();
        let at = at.index(data.len());
        data[at] ^= 1u8 << bit;
        let _ = decode(&data, TimeRange::ALL);
    }

    #[test]
    fn garbage_does_not_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut out = SampleColumns::from_floats([(1, 1.0)]);
        if decode_into(&data, TimeRange::ALL, &mut out).is_err() {
            prop_assert_eq!(out, SampleColumns::from_floats([(1, 1.0)]));
        }
    }
}
