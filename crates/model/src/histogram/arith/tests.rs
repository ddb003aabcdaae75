use super::super::CUSTOM_BUCKETS_SCHEMA;
use super::*;

fn spans(s: &[(i32, u32)]) -> Vec<Span> {
    s.iter().map(|&(offset, length)| Span { offset, length }).collect()
}

fn exponential(schema: i32, zero: (f64, f64), positive: (&[(i32, u32)], &[f64])) -> FloatHistogram {
    FloatHistogram {
        schema,
        zero_threshold: zero.0,
        zero_count: zero.1,
        count: zero.1 + positive.1.iter().sum::<f64>(),
        sum: 1.0,
        positive_spans: spans(positive.0),
        positive_buckets: positive.1.to_vec(),
        ..FloatHistogram::default()
    }
}

fn custom(bounds: &[f64], buckets: &[f64]) -> FloatHistogram {
    FloatHistogram {
        count: buckets.iter().sum(),
        positive_spans: spans(&[(0, buckets.len() as u32)]),
        positive_buckets: buckets.to_vec(),
        schema: CUSTOM_BUCKETS_SCHEMA,
        custom_values: bounds.to_vec(),
        ..FloatHistogram::default()
    }
}

#[test]
fn same_layout_adds_bucket_by_bucket() {
    let a = exponential(0, (0.1, 1.0), (&[(0, 2), (1, 1)], &[1.0, 2.0, 3.0]));
    let mut sum = a.clone();
    assert_eq!(sum.add(&a), Ok(AddNotes::default()));
    let mut double = a.clone();
    double.mul(2.0);
    assert_eq!(sum, double);
    sum.sub(&a).unwrap();
    assert_eq!(sum, a);
}

#[test]
fn layouts_are_merged_and_the_coarser_schema_wins() {
    let mut a = exponential(1, (0.0, 0.0), (&[(1, 2), (3, 1)], &[1.0, 2.0, 3.0]));
    let b = exponential(0, (0.0, 0.0), (&[(-4, 1), (4, 1)], &[10.0, 20.0]));
    let mut other_way = b.clone();
    other_way.add(&a).unwrap();
    a.add(&b).unwrap();
    for h in [&mut a, &mut other_way] {
        h.compact(0);
        assert_eq!(h.schema, 0);
        let counts: Vec<_> = h.positive_counts().collect();
        assert_eq!(counts, [(-4, 10.0), (1, 23.0), (3, 3.0)]);
    }
}

#[test]
fn zero_buckets_are_widened_to_a_populated_buckets_end() {
    // The zero bucket of b ends inside the populated (1, 2]; both must end at 2.
    let a = exponential(0, (0.5, 1.0), (&[(0, 3)], &[1.0, 2.0, 3.0]));
    let b = exponential(0, (1.5, 4.0), (&[(2, 1)], &[5.0]));
    for (mut x, y) in [(a.clone(), &b), (b.clone(), &a)] {
        x.add(y).unwrap();
        x.compact(0);
        assert_eq!((x.zero_threshold, x.zero_count), (2.0, 8.0));
        assert_eq!(x.positive_counts().collect::<Vec<_>>(), [(2, 8.0)]);
        let mut c = None;
        let mut k = if std::ptr::eq(y, &b) { a.clone() } else { b.clone() };
        k.kahan_add(y, &mut c).unwrap();
        k.add(&c.unwrap()).unwrap();
        k.compact(0);
        assert_eq!(k, x);
    }
}

#[test]
fn custom_bounds_meet_in_the_common_ones() {
    let mut a = custom(&[1.0, 2.0, 5.0], &[1.0, 2.0, 3.0, 4.0]);
    let b = custom(&[2.0, 4.0, 5.0], &[10.0, 20.0, 30.0, 40.0]);
    let mut k = a.clone();
    let notes = a.add(&b).unwrap();
    assert!(notes.custom_bounds_reconciled);
    assert_eq!(a.custom_values, [2.0, 5.0]);
    assert_eq!(a.positive_buckets, [13.0, 53.0, 44.0]);
    let mut c = None;
    k.kahan_add(&b, &mut c).unwrap();
    assert_eq!(k, a);
    a.sub(&b).unwrap();
    assert_eq!(a.positive_buckets, [3.0, 3.0, 4.0]);
    assert_eq!(a.add(&exponential(0, (0.0, 0.0), (&[], &[]))), Err(HistogramError::IncompatibleSchema));
}

#[test]
fn compensation_keeps_what_rounding_loses() {
    let mut sum = exponential(0, (0.0, 0.0), (&[(0, 1)], &[1e16]));
    let one = exponential(1, (0.0, 0.0), (&[(0, 1), (5, 1)], &[1.0, 1.0]));
    let mut c = None;
    for _ in 0..1000 {
        sum.kahan_add(&one, &mut c).unwrap();
    }
    let c = c.unwrap();
    assert_eq!(c.positive_spans, sum.positive_spans);
    sum.add(&c).unwrap();
    assert_eq!(sum.positive_counts().collect::<Vec<_>>(), [(0, 1e16 + 1000.0), (3, 1000.0)]);
}

#[test]
fn hints() {
    use CounterReset::{Gauge, NotReset, Reset, Unknown};
    for (a, b, want, collision) in [
        (Reset, Reset, Reset, false),
        (Gauge, Reset, Gauge, false),
        (Unknown, Gauge, Gauge, false),
        (NotReset, Unknown, Unknown, false),
        (Reset, NotReset, Unknown, true),
    ] {
        let mut x = FloatHistogram { counter_reset: a, ..FloatHistogram::default() };
        let notes = x.add(&FloatHistogram { counter_reset: b, ..FloatHistogram::default() }).unwrap();
        assert_eq!((x.counter_reset, notes.counter_reset_collision), (want, collision));
    }
}

#[test]
fn division_by_zero_leaves_no_buckets() {
    let mut h = exponential(0, (0.1, 1.0), (&[(0, 1)], &[1.0]));
    h.div(0.0);
    assert!(h.positive_buckets.is_empty() && h.count == f64::INFINITY && h.has_overflow());
    assert_eq!(exponential(0, (0.1, 1.0), (&[], &[])).div(-1.0).counter_reset, CounterReset::Gauge);
}

#[test]
fn resets() {
    let base = exponential(1, (0.5, 1.0), (&[(0, 4)], &[1.0, 2.0, 3.0, 4.0]));
    let grown = |f: fn(&mut FloatHistogram)| {
        let mut h = base.clone();
        h.count += 100.0;
        f(&mut h);
        h
    };
    assert!(!grown(|_| {}).detect_reset(&base));
    assert!(grown(|h| h.positive_buckets[2] = 2.0).detect_reset(&base));
    assert!(grown(|h| h.zero_count = 0.0).detect_reset(&base));
    assert!(grown(|h| h.zero_threshold = 0.25).detect_reset(&base));
    assert!(grown(|h| h.schema = 2).detect_reset(&base));
    assert!(!grown(|h| *h = h.copy_to_schema(0).unwrap()).detect_reset(&base));
    assert!(grown(|h| h.positive_spans[0].offset = 1).detect_reset(&base));
    // A wider zero bucket that holds what it covers.
    assert!(
        !grown(|h| {
            h.zero_threshold = 1.0;
            h.zero_count = 2.0;
            h.positive_spans = spans(&[(1, 3)]);
            h.positive_buckets.remove(0);
        })
        .detect_reset(&base)
    );
    assert!(grown(|h| h.zero_threshold = 1.1).detect_reset(&base));
    assert!(base.detect_reset(&grown(|_| {})));
    let c = custom(&[1.0, 2.0], &[1.0, 2.0, 3.0]);
    assert!(!custom(&[2.0], &[3.0, 3.0]).detect_reset(&c));
    assert!(custom(&[2.0], &[2.0, 4.0]).detect_reset(&c));
}

#[test]
fn trimming() {
    let h = exponential(0, (0.0, 0.0), (&[(1, 3)], &[2.0, 4.0, 8.0]));
    let mut below = h.clone();
    below.trim_upper(4.0);
    assert_eq!(below.positive_counts().collect::<Vec<_>>(), [(1, 2.0), (2, 4.0)]);
    assert_eq!((below.count, below.sum), (6.0, 2.0 * 2f64.sqrt() + 4.0 * 8f64.sqrt()));
    let mut above = h.clone();
    above.trim_lower(32f64.sqrt());
    assert_eq!(above.positive_counts().collect::<Vec<_>>(), [(3, 4.0)]);
    // Nothing cut: sum and count stay what they were.
    assert_eq!(h.clone().trim_upper(8.0), &h);
    let c = custom(&[4.0, 8.0], &[2.0, 4.0, 8.0]);
    let mut x = c.clone();
    x.trim_upper(2.0);
    assert_eq!((x.positive_buckets.as_slice(), x.sum), (&[1.0][..], 1.0));
    let mut x = c.clone();
    x.trim_lower(6.0);
    assert_eq!(x.positive_buckets, [2.0, 8.0]);
    let mut zero = exponential(0, (1.0, 4.0), (&[(1, 1)], &[4.0]));
    zero.trim_upper(0.5);
    assert_eq!((zero.zero_count, zero.positive_buckets.len(), zero.count), (2.0, 0, 2.0));
}
