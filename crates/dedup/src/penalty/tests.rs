use std::sync::Arc;

use chronolith_model::FloatHistogram;
use proptest::prelude::*;

use super::*;

fn columns(samples: &[(i64, f64)]) -> SampleColumns {
    SampleColumns::from_floats(samples.iter().copied())
}

fn run(replicas: &[&[(i64, f64)]], is_counter: bool) -> Vec<(i64, f64)> {
    let replicas: Vec<_> = replicas.iter().map(|r| columns(r)).collect();
    let mut out = SampleColumns::default();
    dedup(&replicas, is_counter, &mut out);
    let picked: Vec<_> = iter(&replicas, is_counter).map(|p| (p.t(), p.float().unwrap())).collect();
    let got: Vec<_> = out.ts.into_iter().zip(out.values).collect();
    assert_eq!(got, picked, "both forms agree");
    got
}

#[test]
fn choices() {
    type Case = (&'static str, &'static [&'static [(i64, f64)]], &'static [(i64, f64)]);
    let cases: [Case; 9] = [
        ("nothing", &[], &[]),
        ("one replica passes", &[&[(1, 1.0), (2, 2.0)]], &[(1, 1.0), (2, 2.0)]),
        (
            "the first to begin is followed",
            &[&[(10_000, 1.0), (20_000, 2.0), (30_000, 3.0)], &[(10_100, 9.0), (20_100, 9.0), (30_100, 9.0)]],
            &[(10_000, 1.0), (20_000, 2.0), (30_000, 3.0)],
        ),
        (
            "a tie goes to the first",
            &[&[(1, 1.0), (10_001, 2.0)], &[(1, 9.0), (10_001, 9.0)]],
            &[(1, 1.0), (10_001, 2.0)],
        ),
        (
            // The step at 20,000 was 10,000, so that b may speak after 40,000; then a has to wait, and loses 80,000.
            "a gap is filled after twice the last step",
            &[
                &[(10_000, 1.0), (20_000, 2.0), (80_000, 8.0), (90_000, 9.0)],
                &[(10_100, 9.1), (20_100, 9.2), (30_100, 9.3), (40_100, 9.4), (50_100, 9.5), (60_100, 9.6)],
            ],
            &[(10_000, 1.0), (20_000, 2.0), (40_100, 9.4), (50_100, 9.5), (60_100, 9.6), (90_000, 9.0)],
        ),
        (
            "the other goes on at the end",
            &[&[(10_000, 1.0), (20_000, 2.0)], &[(10_100, 9.1), (20_100, 9.2), (30_100, 9.3), (40_100, 9.4)]],
            &[(10_000, 1.0), (20_000, 2.0), (40_100, 9.4)],
        ),
        ("an empty replica", &[&[], &[(1, 1.0), (2, 2.0)]], &[(1, 1.0), (2, 2.0)]),
        ("all empty", &[&[], &[], &[]], &[]),
        (
            "three fold from the left",
            &[
                &[(10_000, 1.0), (20_000, 2.0)],
                &[(10_100, 2.1), (20_100, 2.2), (30_100, 2.3), (40_100, 2.4)],
                &[(10_200, 3.1), (50_200, 3.5), (60_200, 3.6), (100_200, 3.7)],
            ],
            // Of the first two, 40,100 comes 20,100 after 20,000; the third one waits until 80,301.
            &[(10_000, 1.0), (20_000, 2.0), (40_100, 2.4), (100_200, 3.7)],
        ),
    ];
    for (name, replicas, want) in cases {
        assert_eq!(run(replicas, false), want, "{name}");
    }
}

#[test]
fn counters_are_lifted_at_a_change_of_replica() {
    let a: &[(i64, f64)] = &[(10_000, 8.0), (20_000, 12.0), (30_000, 16.0)];
    let b: &[(i64, f64)] = &[(10_100, 5.0), (40_100, 10.0), (60_100, 11.0), (70_100, 15.0)];
    assert_eq!(run(&[a, b], false)[3..], [(60_100, 11.0), (70_100, 15.0)]);
    assert_eq!(run(&[a, b], true)[3..], [(60_100, 16.0), (70_100, 20.0)]);
    assert_eq!(run(&[&[(1, 5.0), (2, 1.0)]], true), [(1, 5.0), (2, 1.0)]);
}

#[test]
fn the_first_step_compares_with_the_first_replicas_first_sample() {
    let a: &[(i64, f64)] = &[(10_100, 50.0)];
    let b: &[(i64, f64)] = &[(10_000, 5.0), (20_000, 6.0)];
    assert_eq!(run(&[a, b], true), [(10_000, 50.0), (20_000, 51.0)]);
}

#[test]
fn histograms_are_chosen_and_not_lifted() {
    let mut a = columns(&[(10_000, 100.0)]);
    let mut b = SampleColumns::default();
    for (t, sum) in [(10_100, 1.0), (20_100, 2.0), (30_100, 3.0)] {
        b.push_histogram(t, Arc::new(FloatHistogram { sum, ..FloatHistogram::default() }));
    }
    a.push_float(20_000, 200.0);
    let mut out = SampleColumns::default();
    dedup(&[a, b], true, &mut out);
    assert_eq!(out.ts, [10_000, 20_000]);
    let mut out = SampleColumns::default();
    let mut c = SampleColumns::default();
    c.push_histogram(90_000, Arc::new(FloatHistogram { sum: 7.0, ..FloatHistogram::default() }));
    dedup(&[columns(&[(10_000, 100.0), (20_000, 200.0)]), c], true, &mut out);
    assert_eq!(out.values, [100.0, 200.0, 7.0]);
    assert!(out.histogram(1).is_none() && out.histogram(2).is_some());
}

/// What Thanos itself makes of random replicas; see testdata/README.md.
#[test]
fn thanos_chooses_the_same() {
    let samples = |text: &str| -> Vec<(i64, f64)> {
        let pairs = text.split(' ').skip(1).map(|pair| pair.split_once(':').unwrap());
        pairs.map(|(t, v)| (t.parse().unwrap(), v.parse().unwrap())).collect()
    };
    let (mut replicas, mut counter, mut cases, mut unlike) = (Vec::new(), false, 0, 0);
    for line in include_str!("../../testdata/penalty.txt").lines() {
        match line.split(' ').next() {
            Some("case") => (replicas, counter) = (Vec::new(), line.ends_with("true")),
            Some("replica") => replicas.push(samples(line)),
            _ => {
                let refs: Vec<_> = replicas.iter().map(Vec::as_slice).collect();
                assert_eq!(run(&refs, counter), samples(line), "case {cases}");
                let lists: Vec<_> = replicas.iter().map(|r| columns(r)).collect();
                let mut out = SampleColumns::default();
                crate::replicas::dedup(&lists, counter, &mut out);
                let out: Vec<_> = out.ts.into_iter().zip(out.values).collect();
                unlike += usize::from(out != samples(line));
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 60);
    // In one of them two replicas are hardly ever there at the same time, and pass for one.
    assert!(unlike <= 1, "{unlike} were not taken for scrapes of their own");
}

/// Scrapes every 15 s with gaps and jitter.
fn replica() -> impl Strategy<Value = Vec<(i64, f64)>> {
    let scrape = (0i64..200, 0u8..10);
    (0i64..15_000, prop::collection::vec(scrape, 0..60)).prop_map(|(offset, scrapes)| {
        let kept = scrapes.iter().enumerate().filter(|(_, (_, gap))| *gap > 2);
        kept.map(|(i, (jitter, _))| (offset + i as i64 * 15_000 + jitter, i as f64)).collect()
    })
}

proptest! {
    #[test]
    fn time_ascends_and_samples_are_somebodys(replicas in prop::collection::vec(replica(), 0..5), counter in any::<bool>()) {
        let refs: Vec<_> = replicas.iter().map(Vec::as_slice).collect();
        let got = run(&refs, counter);
        prop_assert!(got.windows(2).all(|w| w[0].0 < w[1].0));
        if counter && replicas.len() > 1 {
            // The replicas count up together and never reset; no change between them may look like a reset.
            prop_assert!(got.windows(2).all(|w| w[0].1 <= w[1].1), "{got:?}");
        } else {
            prop_assert!(got.iter().all(|s| replicas.iter().any(|r| r.contains(s))));
        }
    }

    #[test]
    fn equal_replicas_change_nothing(a in replica(), n in 1usize..4, counter in any::<bool>()) {
        let refs = vec![a.as_slice(); n];
        prop_assert_eq!(run(&refs, counter), a);
    }
}
