//! The buckets of two layouts together.

use chronolith_model::histogram::Span;

/// A bucket of the union: its index, and its place in the old and in the new buckets.
struct Entry {
    index: i64,
    old: Option<usize>,
    new: Option<usize>,
}

/// One side of two histograms, merged by bucket index.
pub(super) struct Union {
    entries: Vec<Entry>,
    /// The new one has buckets that the old one lacks.
    pub(super) grows: bool,
    /// The old one has buckets that the new one lacks.
    pub(super) lacks: bool,
}

impl Union {
    pub(super) fn new(old: &[Span], new: &[Span]) -> Union {
        let mut a = indices(old).enumerate().peekable();
        let mut b = indices(new).enumerate().peekable();
        let mut union = Union { entries: Vec::new(), grows: false, lacks: false };
        loop {
            let index = match (a.peek(), b.peek()) {
                (None, None) => return union,
                (Some((_, x)), None) => *x,
                (None, Some((_, y))) => *y,
                (Some((_, x)), Some((_, y))) => *x.min(y),
            };
            let old = a.next_if(|(_, x)| *x == index).map(|(at, _)| at);
            let new = b.next_if(|(_, y)| *y == index).map(|(at, _)| at);
            union.grows |= old.is_none();
            union.lacks |= new.is_none();
            union.entries.push(Entry { index, old, new });
        }
    }

    /// False when a bucket shrank, or vanished while it was populated.
    pub(super) fn is_monotonic<V: Copy + PartialOrd + Default>(
        &self,
        old: impl Fn(usize) -> V,
        new: &[V],
    ) -> bool {
        self.entries.iter().all(|e| match (e.old, e.new) {
            (Some(a), Some(b)) => !shrank(old(a), new[b]),
            (Some(a), None) => old(a) == V::default(),
            _ => true,
        })
    }

    /// Old counts in the union's buckets.
    pub(super) fn widen_old<V: Copy + Default>(&self, old: &[V]) -> Vec<V> {
        self.entries.iter().map(|e| e.old.map_or(V::default(), |at| old[at])).collect()
    }

    /// New counts in the union's buckets.
    pub(super) fn widen_new<V: Copy + Default>(&self, new: &[V]) -> Vec<V> {
        self.entries.iter().map(|e| e.new.map_or(V::default(), |at| new[at])).collect()
    }

    /// The union's buckets as spans.
    pub(super) fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        let mut end = 0;
        for e in &self.entries {
            match spans.last_mut() {
                Some(last) if e.index == end => last.length += 1,
                _ => spans.push(Span { offset: (e.index - end) as i32, length: 1 }),
            }
            end = e.index + 1;
        }
        spans
    }
}

/// True when a bucket became smaller; no number is smaller than NaN.
#[inline]
pub(super) fn shrank<V: PartialOrd>(old: V, new: V) -> bool {
    old > new
}

/// The bucket indices of spans, ascending.
fn indices(spans: &[Span]) -> impl Iterator<Item = i64> + '_ {
    let mut end = 0i64;
    spans.iter().flat_map(move |s| {
        let start = end + i64::from(s.offset);
        end = start + i64::from(s.length);
        start..end
    })
}
