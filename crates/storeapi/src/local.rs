//! What stores over local data (heads, blocks, a bucket's blocks) have in common, so that each needs few lines.
//!
//! For every producer (a tenant's head, a block) with its external labels:
//!
//! ```text
//! request ─ SeriesPlan::new ─ None: external labels do not match, nothing to do
//!                          └─ .matchers: what is left for the index ─ series ─ .shape(…) ─ merge_iters / merge
//! ```

use std::cell::Cell;
use std::collections::BTreeSet;

use chronolith_chunk::{Chunk, Encoding};
use chronolith_model::{Labels, Matcher};

use crate::merge::{BATCH_SERIES, SeriesIter};
use crate::{
    AggrChunk, Aggregate, AggregateSet, DownsampledChunk, LabelNames, LabelNamesRequest, LabelValues,
    LabelValuesRequest, SeriesEvent, SeriesRequest, SeriesStream, Shaper, StoreError, StoreSeries,
};

/// The matchers without those on external labels; `None` when one of those does not match, so that the producer has
/// nothing to say.
pub fn strip_external(matchers: &[Matcher], external: &Labels) -> Option<Vec<Matcher>> {
    let mut left = Vec::with_capacity(matchers.len());
    for matcher in matchers {
        match external.get(&matcher.name) {
            Some(value) if !matcher.matches(value) => return None,
            Some(_) => {}
            None => left.push(matcher.clone()),
        }
    }
    Some(left)
}

/// A request for series, cut to one producer.
#[derive(Clone, Debug)]
pub struct SeriesPlan {
    /// What the producer's own labels must match.
    pub matchers: Vec<Matcher>,
    external: Labels,
    request: SeriesRequest,
}

impl SeriesPlan {
    /// `Ok(None)`: the external labels do not match, or no time was asked for: the answer is empty.
    ///
    /// Errors: no matcher is left once those on external labels are taken away.
    pub fn new(request: &SeriesRequest, external: &Labels) -> Result<Option<Self>, StoreError> {
        let Some(matchers) = strip_external(&request.matchers, external) else { return Ok(None) };
        if matchers.is_empty() {
            return Err(StoreError::invalid("no matchers specified (excluding external labels)"));
        }
        if request.range.is_empty() {
            return Ok(None);
        }
        Ok(Some(SeriesPlan { matchers, external: external.clone(), request: request.clone() }))
    }

    /// For sources that push: see [`Shaper`].
    pub fn shaper(&self) -> Shaper {
        Shaper::new(&self.request, &self.external)
    }

    /// Puts a producer's sorted series (with its own labels) into the form that the request asks for.
    pub fn shape<I>(&self, source: I) -> SeriesIter
    where
        I: Iterator<Item = Result<(Labels, Vec<AggrChunk>), StoreError>> + Send + 'static,
    {
        Box::new(Shaped { source: Some(source), shaper: self.shaper(), ready: Vec::new().into_iter() })
    }
}

struct Shaped<I> {
    source: Option<I>,
    shaper: Shaper,
    ready: std::vec::IntoIter<StoreSeries>,
}

impl<I: Iterator<Item = Result<(Labels, Vec<AggrChunk>), StoreError>>> Iterator for Shaped<I> {
    type Item = Result<StoreSeries, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(series) = self.ready.next() {
                return Some(Ok(series));
            }
            let source = self.source.as_mut()?;
            let mut out = Vec::new();
            match source.next() {
                Some(Ok((labels, chunks))) if !self.shaper.is_full() => {
                    self.shaper.push(labels, chunks, &mut out);
                }
                Some(Err(error)) => {
                    self.source = None;
                    return Some(Err(error));
                }
                Some(Ok(_)) | None => {
                    self.source = None;
                    self.shaper.finish(&mut out);
                }
            }
            self.ready = out.into_iter();
        }
    }
}

/// Picks the wanted aggregates out of a downsampled block's chunk; other chunks pass as they are. `None`: none of them
/// is there.
///
/// `parts` are the sub-chunks by [`Aggregate`] number minus one.
pub fn pick_aggregates(
    mint: i64,
    maxt: i64,
    mut parts: [Option<Chunk>; 5],
    wanted: AggregateSet,
) -> Option<AggrChunk> {
    for aggregate in Aggregate::ALL {
        if !wanted.contains(aggregate) {
            parts[aggregate as usize - 1] = None;
        }
    }
    parts
        .iter()
        .any(Option::is_some)
        .then(|| AggrChunk::Downsampled(Box::new(DownsampledChunk { mint, maxt, parts })))
}

/// Raw chunks as a store sends them. [`Encoding::Aggregate`] must have been taken apart by [`pick_aggregates`].
pub fn raw_chunks(chunks: Vec<Chunk>) -> Vec<AggrChunk> {
    debug_assert!(chunks.iter().all(|c| c.encoding != Encoding::Aggregate));
    chunks.into_iter().map(AggrChunk::Raw).collect()
}

thread_local!(static MAY_BLOCK: Cell<bool> = const { Cell::new(false) });

/// Runs `work` on a thread that may block: streams of [`stream_blocking`] that are polled within make their batches right
/// here instead of on the blocking pool.
pub fn on_blocking_thread<T>(work: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            MAY_BLOCK.set(self.0);
        }
    }
    let _restore = Restore(MAY_BLOCK.replace(true));
    work()
}

fn may_block() -> bool {
    MAY_BLOCK.get()
}

/// Runs a producer of series batch by batch: on the blocking pool, or on the polling thread itself within
/// [`on_blocking_thread`]. It holds a thread only while it makes a batch: streams
/// that wait for their readers, however many, cannot use up the pool. The producer stops at the first error, at the
/// limit, and when the stream is dropped.
pub fn stream_blocking<F>(request: &SeriesRequest, open: F) -> SeriesStream
where
    F: FnOnce() -> Result<SeriesIter, StoreError> + Send + 'static,
{
    let batch_size = if request.batch_size == 0 { BATCH_SERIES } else { request.batch_size };
    let left = if request.limit == 0 { usize::MAX } else { request.limit };
    let mut producer = Producer { open: Some(open), series: None, batch_size, left };
    Box::pin(async_stream::stream! {
        loop {
            let (batch, error, done);
            if may_block() {
                (batch, error, done) = producer.step();
            } else {
                let step = tokio::task::spawn_blocking(move || {
                    let step = producer.step();
                    (producer, step)
                });
                match step.await {
                    Ok(step) => (producer, (batch, error, done)) = step,
                    Err(panic) => {
                        yield Err(StoreError::internal("reading series").with_source(panic));
                        return;
                    }
                }
            }
            if !batch.is_empty() {
                yield Ok(SeriesEvent::Batch(batch));
            }
            if let Some(error) = error {
                yield Err(error);
                return;
            }
            if done {
                return;
            }
        }
    })
}

struct Producer<F> {
    open: Option<F>,
    series: Option<SeriesIter>,
    batch_size: usize,
    left: usize,
}

impl<F: FnOnce() -> Result<SeriesIter, StoreError>> Producer<F> {
    /// The next batch, the error that came after it, and whether that was all.
    fn step(&mut self) -> (Vec<StoreSeries>, Option<StoreError>, bool) {
        let mut batch = Vec::new();
        if let Some(open) = self.open.take() {
            match open() {
                Ok(series) => self.series = Some(series),
                Err(error) => return (batch, Some(error), true),
            }
        }
        let Some(series) = &mut self.series else { return (batch, None, true) };
        while batch.len() < self.batch_size.min(self.left) {
            match series.next() {
                Some(Ok(one)) => batch.push(one),
                Some(Err(error)) => return (batch, Some(error), true),
                None => return (batch, None, true),
            }
        }
        self.left -= batch.len();
        let done = self.left == 0;
        (batch, None, done)
    }
}

/// An answer without series.
pub fn empty_stream() -> SeriesStream {
    Box::pin(futures::stream::empty())
}

/// Collects label names or values of several producers: sorted, unique, limited.
#[derive(Debug, Default)]
pub struct LabelSetUnion {
    all: BTreeSet<String>,
}

impl LabelSetUnion {
    /// Adds what one producer answered.
    pub fn extend(&mut self, answer: impl IntoIterator<Item = impl Into<String>>) {
        self.all.extend(answer.into_iter().map(Into::into));
    }

    /// The answer to a request for names.
    pub fn names(mut self, request: &LabelNamesRequest) -> LabelNames {
        for name in &request.without_replica_labels {
            self.all.remove(name);
        }
        LabelNames { names: self.limited(request.limit), ..LabelNames::default() }
    }

    /// The answer to a request for values.
    pub fn values(self, request: &LabelValuesRequest) -> LabelValues {
        LabelValues { values: self.limited(request.limit), ..LabelValues::default() }
    }

    fn limited(self, limit: usize) -> Vec<String> {
        let limit = if limit == 0 { usize::MAX } else { limit };
        self.all.into_iter().filter(|s| !s.is_empty()).take(limit).collect()
    }
}

/// Adds one producer's label names: its own that `read` finds with the matchers left, and its external ones where it has
/// any series.
pub fn add_label_names<E>(
    union: &mut LabelSetUnion,
    request: &LabelNamesRequest,
    external: &Labels,
    read: impl FnOnce(&[Matcher]) -> Result<Vec<String>, E>,
) -> Result<(), E> {
    let Some(matchers) = strip_external(&request.matchers, external) else { return Ok(()) };
    let names = read(&matchers)?;
    if !names.is_empty() {
        union.extend(external.iter().map(|(name, _)| name));
        union.extend(names);
    }
    Ok(())
}

/// How a request for label values is answered for one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValuesPlan {
    /// It has nothing to say.
    Nothing,
    /// Read the values of the label in series that match.
    Read(Vec<Matcher>),
    /// The label is external: this is its only value, provided that a series matches (with no matcher left: that
    /// there is a series at all).
    External {
        /// The label's value.
        value: String,
        /// What the producer's own labels must match.
        matchers: Vec<Matcher>,
    },
}

impl ValuesPlan {
    /// The plan for a producer with these external labels.
    pub fn new(request: &LabelValuesRequest, external: &Labels) -> Self {
        if request.without_replica_labels.contains(&request.label) {
            return ValuesPlan::Nothing;
        }
        let Some(mut matchers) = strip_external(&request.matchers, external) else {
            return ValuesPlan::Nothing;
        };
        if let Some(value) = external.get(&request.label) {
            return ValuesPlan::External { value: value.to_owned(), matchers };
        }
        if !matchers.is_empty() && matchers.iter().all(|m| m.name != request.label || m.matches_empty()) {
            // Series without the label have no value to give; a matcher lets the index skip them early.
            if let Ok(has_label) = Matcher::new(chronolith_model::MatchOp::NotEqual, &request.label, "") {
                matchers.push(has_label);
            }
        }
        ValuesPlan::Read(matchers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_producer_that_panics_is_an_error_not_a_shorter_answer() {
        use futures::StreamExt as _;
        let request = SeriesRequest::new(chronolith_model::TimeRange::ALL, vec![]);
        let one = StoreSeries { labels: Labels::empty(), chunks: vec![] };
        let series = (0..2000).map(move |i| if i < 1000 { Ok(one.clone()) } else { panic!("on purpose") });
        let events: Vec<_> = stream_blocking(&request, move || Ok(Box::new(series))).collect().await;
        let error = events.last().unwrap().as_ref().unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Internal);
    }

    #[test]
    fn external_labels_hide_own_ones_from_matchers() {
        let external = Labels::from_pairs([("region", "eu")]).unwrap();
        let by = |name: &str, value: &str| Matcher::equal(name, value);
        assert_eq!(strip_external(&[by("region", "eu"), by("a", "b")], &external), Some(vec![by("a", "b")]));
        assert_eq!(strip_external(&[by("region", "us"), by("a", "b")], &external), None);
        let none = Matcher::new(chronolith_model::MatchOp::Regex, "region", "").unwrap();
        assert_eq!(strip_external(&[none], &external), None);
    }
}
