//! Spans as what they mean: a list of bucket indices.
//!
//! Operations on spans are written as walks over `(index, count)` pairs in ascending order, from which [`Rebuild`]
//! makes spans again. Nothing here panics on spans that contradict their buckets; such histograms come out shorter.

use super::Span;

/// One side of a histogram: buckets in ascending index order.
#[derive(Clone, Debug)]
pub(super) struct Walk<'a, T> {
    spans: &'a [Span],
    buckets: &'a [T],
    span: usize,
    in_span: u32,
    bucket: usize,
    /// Index of the next bucket, once the current span's offset is counted in.
    index: i32,
}

impl<'a, T: Copy> Walk<'a, T> {
    pub(super) fn new(spans: &'a [Span], buckets: &'a [T]) -> Self {
        let index = spans.first().map_or(0, |s| s.offset);
        Walk { spans, buckets, span: 0, in_span: 0, bucket: 0, index }
    }

    /// Positions: the bucket's place in `buckets`, its index in the schema, its count.
    #[inline]
    pub(super) fn next_at(&mut self) -> Option<(usize, i32, T)> {
        let count = *self.buckets.get(self.bucket)?;
        while self.in_span >= self.spans.get(self.span)?.length {
            self.in_span = 0;
            self.span += 1;
            self.index = self.index.wrapping_add(self.spans.get(self.span)?.offset);
        }
        let at = (self.bucket, self.index, count);
        self.in_span += 1;
        self.bucket += 1;
        self.index = self.index.wrapping_add(1);
        Some(at)
    }
}

impl<T: Copy> Iterator for Walk<'_, T> {
    type Item = (i32, T);

    #[inline]
    fn next(&mut self) -> Option<(i32, T)> {
        self.next_at().map(|(_, index, count)| (index, count))
    }
}

/// One side of a histogram: buckets in descending index order.
#[derive(Clone, Debug)]
pub(super) struct WalkBack<'a, T> {
    spans: &'a [Span],
    buckets: &'a [T],
    left_in_span: u32,
    /// Index after the next bucket.
    index: i32,
}

impl<'a, T: Copy> WalkBack<'a, T> {
    pub(super) fn new(spans: &'a [Span], buckets: &'a [T]) -> Self {
        let index = spans.iter().fold(0i32, |i, s| i.wrapping_add(s.offset).wrapping_add(s.length as i32));
        WalkBack { spans, buckets, left_in_span: spans.last().map_or(0, |s| s.length), index }
    }
}

impl<T: Copy> Iterator for WalkBack<'_, T> {
    type Item = (i32, T);

    fn next(&mut self) -> Option<(i32, T)> {
        let (&count, buckets) = self.buckets.split_last()?;
        while self.left_in_span == 0 {
            let (span, spans) = self.spans.split_last()?;
            self.index = self.index.wrapping_sub(span.offset);
            self.spans = spans;
            self.left_in_span = spans.last()?.length;
        }
        self.buckets = buckets;
        self.left_in_span -= 1;
        self.index = self.index.wrapping_sub(1);
        Some((self.index, count))
    }
}

/// Collects ascending indices into spans.
#[derive(Debug, Default)]
pub(super) struct Rebuild {
    pub(super) spans: Vec<Span>,
    /// Index after the last bucket.
    next: i32,
}

impl Rebuild {
    /// The bucket at `index` comes next.
    #[inline]
    pub(super) fn push(&mut self, index: i32) {
        match self.spans.last_mut() {
            Some(last) if self.next == index => last.length += 1,
            _ => self.spans.push(Span { offset: index.wrapping_sub(self.next), length: 1 }),
        }
        self.next = index.wrapping_add(1);
    }
}

/// The bucket of the coarser schema that holds bucket `index` of the finer.
#[inline]
pub(super) fn index_in(index: i32, schema: i32, target: i32) -> i32 {
    // Beyond 31 the shift leaves only the sign, as any larger one would.
    let shift = (schema - target).clamp(0, 31);
    (index.wrapping_sub(1) >> shift).wrapping_add(1)
}

/// Merges neighbours that fall into one bucket of the target schema.
pub(super) fn merged<I>(walk: I, schema: i32, target: i32) -> impl Iterator<Item = (i32, f64)>
where
    I: Iterator<Item = (i32, f64)>,
{
    let mut walk = walk.map(move |(i, c)| (index_in(i, schema, target), c)).peekable();
    std::iter::from_fn(move || {
        let (index, mut count) = walk.next()?;
        while let Some((_, more)) = walk.next_if(|(i, _)| *i == index) {
            count += more;
        }
        Some((index, count))
    })
}

/// Spans and buckets in a coarser schema.
pub(super) fn reduce(spans: &[Span], buckets: &[f64], schema: i32, target: i32) -> (Vec<Span>, Vec<f64>) {
    let mut out = Rebuild::default();
    let mut counts = Vec::with_capacity(buckets.len());
    for (index, count) in merged(Walk::new(spans, buckets), schema, target) {
        out.push(index);
        counts.push(count);
    }
    (out.spans, counts)
}

/// Buckets as absolute counts, from deltas.
pub(super) fn absolute(deltas: &[i64]) -> impl Iterator<Item = i64> {
    deltas.iter().scan(0i64, |sum, d| {
        *sum = sum.wrapping_add(*d);
        Some(*sum)
    })
}

/// Absolute counts to deltas, in place.
pub(super) fn to_deltas(counts: &mut [i64]) {
    let mut prev = 0i64;
    for c in counts {
        (*c, prev) = (c.wrapping_sub(prev), *c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(s: &[(i32, u32)]) -> Vec<Span> {
        s.iter().map(|&(offset, length)| Span { offset, length }).collect()
    }

    #[test]
    fn walks_agree_and_rebuild() {
        type Case = (&'static [(i32, u32)], &'static [i32]);
        let table: [Case; 5] = [
            (&[], &[]),
            (&[(-2, 3), (2, 1)], &[-2, -1, 0, 3]),
            (&[(5, 0), (1, 2), (0, 0), (3, 1)], &[6, 7, 11]),
            (&[(0, 0)], &[]),
            (&[(0, 2), (0, 1), (4, 0)], &[0, 1, 2]),
        ];
        for (s, want) in table {
            let s = spans(s);
            let buckets: Vec<f64> = (0..want.len()).map(|i| i as f64).collect();
            let forward: Vec<_> = Walk::new(&s, &buckets).collect();
            let mut back: Vec<_> = WalkBack::new(&s, &buckets).collect();
            back.reverse();
            assert_eq!(forward.iter().map(|x| x.0).collect::<Vec<_>>(), want);
            assert_eq!(forward, back);
            let mut r = Rebuild::default();
            forward.iter().for_each(|x| r.push(x.0));
            assert_eq!(Walk::new(&r.spans, &buckets).collect::<Vec<_>>(), forward);
        }
    }

    #[test]
    fn spans_without_buckets_end_early() {
        let s = spans(&[(0, u32::MAX), (i32::MAX, u32::MAX)]);
        assert_eq!(Walk::new(&s, &[1.0, 2.0]).count(), 2);
        assert_eq!(WalkBack::new(&s, &[1.0, 2.0]).count(), 2);
        assert_eq!(Walk::new(&spans(&[(0, 1)]), &[1.0, 2.0]).count(), 1);
    }

    #[test]
    fn indices_shrink_towards_their_bucket() {
        for (index, schema, target, want) in [
            (1, 1, 0, 1),
            (2, 1, 0, 1),
            (3, 1, 0, 2),
            (0, 1, 0, 0),
            (-1, 1, 0, 0),
            (-2, 1, 0, -1),
            (7, 52, -9, 1),
        ] {
            assert_eq!(index_in(index, schema, target), want, "{index} {schema} {target}");
        }
    }
}
