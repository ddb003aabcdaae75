//! From a producer's own series to what its store sends: external labels put over, replica labels taken away, order
//! restored, sharding and limit applied.
//!
//! Both changes of labels can upset the order: `{a="1"} < {a="1", b="2"}`, but with the external label `aa="x"` it is
//! the same, and with `c="x"` it is the other way round. What cannot change is the order of two series that differ in
//! their first label, as long as that label's name lies before every name that is put in or taken out. So series
//! are collected while their first label (in practice, the metric name) stays the same, sorted, and let go: memory
//! is bounded by the series of one metric, and one metric's order is mostly right already, which makes the sort
//! cheap.

use std::collections::BTreeSet;

use chronolith_model::Labels;

use crate::{
    AggrChunk, Projection, SERIES_HASH_LABEL, SeriesRequest, ShardInfo, StoreSeries, chunks::sort_and_dedup,
};

/// Shapes a sorted sequence of series. Feed it with [`Shaper::push`], end with [`Shaper::finish`]; what is ready lies in
/// the `out` of either.
#[derive(Debug)]
pub struct Shaper {
    external: Labels,
    remove: BTreeSet<String>,
    /// The smallest label name that is put in or taken out.
    pivot: Option<String>,
    projection: Option<Projection>,
    /// A first label was dropped: order is known at the end only.
    hold: bool,
    shard: Option<ShardInfo>,
    /// Series that may still be let out.
    left: usize,
    group: Vec<StoreSeries>,
}

impl Shaper {
    /// For series of a producer with these external labels.
    pub fn new(request: &SeriesRequest, external: &Labels) -> Self {
        let remove: BTreeSet<String> = request.without_replica_labels.iter().cloned().collect();
        let names = external.iter().map(|(name, _)| name).chain(remove.iter().map(String::as_str));
        let names = names.chain(request.projection.as_ref().map(|_| SERIES_HASH_LABEL));
        let pivot = names.min().map(str::to_owned);
        Shaper {
            external: external.clone(),
            pivot,
            projection: request.projection.clone(),
            hold: false,
            remove,
            shard: request.shard.clone(),
            left: if request.limit == 0 { usize::MAX } else { request.limit },
            group: Vec::new(),
        }
    }

    /// True once the limit is reached: further series will be dropped.
    pub fn is_full(&self) -> bool {
        self.left == 0
    }

    /// Takes the next series, with the producer's own labels.
    pub fn push(&mut self, labels: Labels, chunks: Vec<AggrChunk>, out: &mut Vec<StoreSeries>) {
        if self.is_full() {
            return;
        }
        let Some(pivot) = self.pivot.as_deref() else {
            if self.in_shard(&labels) {
                self.left -= 1;
                out.push(StoreSeries { labels, chunks });
            }
            return;
        };
        if let (Some(projection), Some((first, _))) = (&self.projection, labels.iter().next()) {
            self.hold |= !projection.keeps(first);
        }
        let open = self.group.first().filter(|_| !self.hold).and_then(|s| s.labels.iter().next());
        if open.is_some_and(|first| first.0 < pivot && labels.iter().next() != Some(first)) {
            self.flush(out);
        }
        let labels = with_changes(&labels, &self.external, &self.remove);
        // A series that had replica labels only would come first of all, after others were let go. It names nothing
        // any more, so it is left out.
        if !labels.is_empty() && self.in_shard(&labels) {
            let labels = match &self.projection {
                Some(projection) => projection.apply(&labels),
                None => labels,
            };
            self.group.push(StoreSeries { labels, chunks });
        }
    }

    /// Lets out the rest.
    pub fn finish(&mut self, out: &mut Vec<StoreSeries>) {
        self.flush(out);
    }

    fn flush(&mut self, out: &mut Vec<StoreSeries>) {
        if !self.group.is_sorted_by(|a, b| a.labels < b.labels) {
            self.group.sort_by(|a, b| a.labels.cmp(&b.labels));
            self.group.dedup_by(|next, kept| {
                let same = next.labels == kept.labels;
                if same {
                    kept.chunks.append(&mut next.chunks);
                    sort_and_dedup(&mut kept.chunks);
                }
                same
            });
        }
        let n = self.left.min(self.group.len());
        self.left -= n;
        out.extend(self.group.drain(..).take(n));
    }

    fn in_shard(&self, labels: &Labels) -> bool {
        self.shard.as_ref().is_none_or(|shard| shard.contains(labels))
    }
}

impl ShardInfo {
    /// True when a series belongs to this shard: xxhash64 over `name 0xFF value 0xFF …` of the chosen labels,
    /// modulo the number of shards.
    pub fn contains(&self, labels: &Labels) -> bool {
        if self.count <= 1 {
            return true;
        }
        let mut hasher = xxhash_rust::xxh64::Xxh64::new(0);
        for (name, value) in labels {
            if self.labels.iter().any(|l| l == name) == self.by {
                hasher.update(name.as_bytes());
                hasher.update(&[0xFF]);
                hasher.update(value.as_bytes());
                hasher.update(&[0xFF]);
            }
        }
        hasher.digest() % self.count == self.index
    }
}

/// The labels with `external` put over them and the names of `remove` taken away.
pub fn with_changes(labels: &Labels, external: &Labels, remove: &BTreeSet<String>) -> Labels {
    let merged = labels.overlay(external);
    if remove.is_empty() { merged } else { merged.filter(|name, _| !remove.contains(name)) }
}

#[cfg(test)]
mod tests {
    use chronolith_model::TimeRange;
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    fn shape(series: Vec<Labels>, request: &SeriesRequest, external: &Labels) -> Vec<Labels> {
        let mut shaper = Shaper::new(request, external);
        let mut out = Vec::new();
        for labels in series {
            shaper.push(labels, Vec::new(), &mut out);
        }
        shaper.finish(&mut out);
        out.into_iter().map(|s| s.labels).collect()
    }

    fn request() -> SeriesRequest {
        SeriesRequest::new(TimeRange::ALL, Vec::new())
    }

    #[test]
    fn a_finished_metric_is_let_go_before_the_end() {
        let mut shaper = Shaper::new(&request(), &labels(&[("replica", "a")]));
        let mut out = Vec::new();
        shaper.push(labels(&[("__name__", "a"), ("x", "1")]), Vec::new(), &mut out);
        shaper.push(labels(&[("__name__", "a"), ("x", "2")]), Vec::new(), &mut out);
        assert!(out.is_empty());
        shaper.push(labels(&[("__name__", "b")]), Vec::new(), &mut out);
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn shards_are_disjoint_and_complete() {
        let all: Vec<Labels> =
            (0..100).map(|i| labels(&[("__name__", "a"), ("i", &format!("{i:03}"))])).collect();
        let mut seen = 0;
        for index in 0..3 {
            let shard = ShardInfo { index, count: 3, by: true, labels: vec!["i".into()] };
            let mut request = request();
            request.shard = Some(shard);
            seen += shape(all.clone(), &request, &Labels::empty()).len();
        }
        assert_eq!(seen, 100);
    }

    proptest! {
        /// The naive way: change all, sort all, drop doubles.
        #[test]
        fn order_holds_after_any_change(
            sets in prop::collection::btree_set(prop::collection::btree_map("[A-F_]", "[12]", 0..4), 0..40),
            external in prop::collection::btree_map("[A-F_]", "[12]", 0..3),
            remove in prop::collection::vec("[A-F_]", 0..3),
            limit in 0usize..20,
            keep in prop::option::of(prop::collection::vec("[A-F_]", 0..3)),
        ) {
            let external = Labels::from_pairs(external).unwrap();
            let mut series: Vec<Labels> = sets.into_iter().map(|s| Labels::from_pairs(s).unwrap()).collect();
            series.sort();
            let mut request = request();
            request.without_replica_labels = remove.clone();
            request.limit = limit;
            request.projection = keep.and_then(Projection::new);
            let projection = request.projection.clone();
            let remove: BTreeSet<String> = remove.into_iter().collect();
            let mut want: Vec<Labels> = series
                .iter()
                .map(|l| l.with(external.iter()).filter(|n, _| !remove.contains(n)))
                .collect();
            if !external.is_empty() || !remove.is_empty() || projection.is_some() {
                want.retain(|l| !l.is_empty());
            }
            if let Some(projection) = &projection {
                want = want.iter().map(|l| projection.apply(l)).collect();
            }
            want.sort();
            want.dedup();
            if limit > 0 {
                want.truncate(limit);
            }
            prop_assert_eq!(shape(series, &request, &external), want);
        }
    }
}
