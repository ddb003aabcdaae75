use proptest::prelude::*;

use super::*;

fn encode(samples: &[(i64, i64, f64)]) -> Bytes {
    let mut e = Xor2Encoder::new();
    for &(st, t, v) in samples {
        e.append(st, t, v).unwrap();
    }
    e.snapshot()
}

fn bits(samples: impl IntoIterator<Item = (i64, i64, f64)>) -> Vec<(i64, i64, u64)> {
    samples.into_iter().map(|(st, t, v)| (st, t, v.to_bits())).collect()
}

fn st() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0i64), Just(1_000), -5i64..5, any::<i64>()]
}

proptest! {
    #[test]
    fn samples_come_back(
        samples in crate::xor::tests::samples(),
        sts in prop::collection::vec(st(), 300),
        first in 0usize..300,
        st in prop_oneof![Just(0i64), Just(77)],
    ) {
        let samples: Vec<_> = samples
            .into_iter()
            .enumerate()
            .map(|(i, (t, v))| (if i < first { st } else { sts[i] }, t, v))
            .collect();
        let data = encode(&samples);
        let got: Result<Vec<_>, _> = Xor2Iter::new(&data).unwrap().collect();
        prop_assert_eq!(bits(got.unwrap()), bits(samples.iter().copied()));
        prop_assert_eq!(&Xor2Encoder::resume(&data).unwrap().snapshot(), &data);
        let mut out = SampleColumns::default();
        decode_into(&data, TimeRange::ALL, &mut out).unwrap();
        prop_assert_eq!(out.ts.len(), samples.len());
        if !out.start_ts.is_empty() {
            prop_assert_eq!(out.start_ts, samples.iter().map(|s| s.0).collect::<Vec<_>>());
        }
    }

    #[test]
    fn cut_and_damaged_chunks_do_not_panic(
        samples in crate::xor::tests::samples(),
        at in any::<prop::sample::Index>(),
        bit in 0..8,
    ) {
        let mut data = encode(&samples.iter().map(|&(t, v)| (5, t, v)).collect::<Vec<_>>()).to_vec();
        let at = at.index(data.len());
        let mut out = SampleColumns::default();
        if at != 2 || !samples.is_empty() {
            prop_assert!(decode_into(&data[..at], TimeRange::ALL, &mut out).is_err());
        }
        data[at] ^= 1u8 << bit;
        let _ = decode_into(&data, TimeRange::ALL, &mut out);
    }
}
