//! The k-way merge of sorted series streams: equal label sets joined, equal chunks dropped.
//!
//! Two forms of the same merge: [`merge`] over async streams (stores), [`merge_iters`] over iterators (the heads and
//! blocks of one process). At any time a source's current batch and one output batch are held, nothing more.

use std::cmp::Ordering;

use chronolith_model::Labels;
use futures::StreamExt as _;

use crate::chunks::sort_and_dedup;
use crate::loser_tree::LoserTree;
use crate::wire::encoded_len_max;
use crate::{ErrorKind, PartialResponse, SeriesEvent, SeriesStream, StoreError, StoreSeries};

/// Series per output batch where the caller does not say: a few hundred amortise the hand-over, a thousand and more
/// were no faster in the gRPC measurements.
pub const BATCH_SERIES: usize = 256;

/// Bytes on the wire after which a batch goes out, however few series it has: series over months are 60 KiB each, and a query would hold
/// 15 MiB of them at every hand-over.
const BATCH_BYTES: usize = 1 << 20;

/// A stream to merge, and the name by which warnings call it.
pub struct Source {
    /// Names the store in warnings and errors.
    pub name: String,
    /// Its sorted series.
    pub stream: SeriesStream,
}

/// How to merge.
#[derive(Clone, Copy, Debug, Default)]
pub struct MergeOptions {
    /// Whether a failing source is a warning or the end.
    pub partial_response: PartialResponse,
    /// Series to let out; 0 means all.
    pub limit: usize,
    /// Series per batch; 0 means [`BATCH_SERIES`].
    pub batch_size: usize,
}

/// Merges streams. A source that fails, or whose series are out of order, ends with a warning that names it, or ends the
/// whole stream with [`ErrorKind::Aborted`].
pub fn merge(sources: Vec<Source>, options: MergeOptions) -> SeriesStream {
    let batch_size = if options.batch_size == 0 { BATCH_SERIES } else { options.batch_size };
    let mut left = if options.limit == 0 { usize::MAX } else { options.limit };
    let mut cursors: Vec<Cursor> = sources.into_iter().map(Cursor::new).collect();
    Box::pin(async_stream::stream! {
        futures::future::join_all(cursors.iter_mut().map(Cursor::fill)).await;
        for cursor in &mut cursors {
            for notice in cursor.take_notices(options.partial_response) {
                let failed = notice.is_err();
                yield notice;
                if failed {
                    return;
                }
            }
        }
        let mut tree = LoserTree::new(cursors.len(), |a, b| before(&cursors, a, b));
        let mut joiner = Joiner::default();
        let mut out = Vec::with_capacity(batch_size);
        let mut bytes = 0;
        while left > 0 {
            let Some(cursor) = cursors.get_mut(tree.winner()) else { break };
            let Some(series) = cursor.pop() else { break };
            if cursor.head.is_none() {
                cursor.fill().await;
                for notice in cursor.take_notices(options.partial_response) {
                    let failed = notice.is_err();
                    yield notice;
                    if failed {
                        return;
                    }
                }
            }
            tree.replay(|a, b| before(&cursors, a, b));
            if let Some(done) = joiner.push(series) {
                bytes += encoded_len_max(&done.labels, &done.chunks);
                out.push(done);
                left -= 1;
                if out.len() >= batch_size || bytes >= BATCH_BYTES {
                    bytes = 0;
                    yield Ok(SeriesEvent::Batch(std::mem::replace(&mut out, Vec::with_capacity(batch_size))));
                }
            }
        }
        if left > 0 {
            out.extend(joiner.finish());
        }
        if !out.is_empty() {
            yield Ok(SeriesEvent::Batch(out));
        }
    })
}

fn before(cursors: &[Cursor], a: usize, b: usize) -> bool {
    head_before(cursors[a].head.as_ref(), cursors[b].head.as_ref(), a, b)
}

/// The order of two sources' heads; ties go to the earlier source, exhausted sources come last.
fn head_before(x: Option<&StoreSeries>, y: Option<&StoreSeries>, a: usize, b: usize) -> bool {
    match (x, y) {
        (Some(x), Some(y)) => match x.labels.cmp(&y.labels) {
            Ordering::Less => true,
            Ordering::Equal => a < b,
            Ordering::Greater => false,
        },
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// One source's place in its stream.
struct Cursor {
    name: String,
    stream: Option<SeriesStream>,
    head: Option<StoreSeries>,
    batch: std::vec::IntoIter<StoreSeries>,
    /// Labels of the last series of the batch before.
    last: Option<Labels>,
    notices: Vec<SeriesEvent>,
    failure: Option<StoreError>,
}

impl Cursor {
    fn new(source: Source) -> Self {
        Cursor {
            name: source.name,
            stream: Some(source.stream),
            head: None,
            batch: Vec::new().into_iter(),
            last: None,
            notices: Vec::new(),
            failure: None,
        }
    }

    /// Takes the head and moves on within the batch. An empty head afterwards asks for [`Cursor::fill`].
    fn pop(&mut self) -> Option<StoreSeries> {
        let next = self.batch.next();
        let series = std::mem::replace(&mut self.head, next);
        if let Some(series) = &series {
            match &self.head {
                Some(head) => self.check_order(&series.labels, &head.labels.clone()),
                None => self.last = Some(series.labels.clone()),
            }
        }
        series
    }

    /// Waits for the next series, collecting warnings and hints on the way.
    async fn fill(&mut self) {
        while self.head.is_none() {
            let Some(stream) = &mut self.stream else { return };
            match stream.next().await {
                Some(Ok(SeriesEvent::Batch(batch))) => {
                    self.batch = batch.into_iter();
                    self.head = self.batch.next();
                    if let (Some(last), Some(head)) = (self.last.take(), &self.head) {
                        self.check_order(&last, &head.labels.clone());
                    }
                }
                Some(Ok(notice)) => self.notices.push(notice),
                Some(Err(error)) => {
                    self.failure = Some(error);
                    self.stream = None;
                }
                None => self.stream = None,
            }
        }
    }

    fn check_order(&mut self, last: &Labels, next: &Labels) {
        if last <= next {
            return;
        }
        self.failure =
            Some(StoreError::corrupt(format!("series are out of order: {next} comes after {last}")));
        self.stream = None;
        self.head = None;
        self.batch = Vec::new().into_iter();
    }

    fn take_notices(&mut self, partial: PartialResponse) -> Vec<Result<SeriesEvent, StoreError>> {
        let mut out: Vec<_> = self.notices.drain(..).map(Ok).collect();
        if let Some(error) = self.failure.take() {
            out.push(failure(&self.name, error, partial));
        }
        out
    }
}

/// What a failed store means for the whole: a warning, or the end.
pub(crate) fn failure(
    name: &str,
    error: StoreError,
    partial: PartialResponse,
) -> Result<SeriesEvent, StoreError> {
    match partial {
        PartialResponse::Warn => Ok(SeriesEvent::Warning(warning(name, &error))),
        PartialResponse::Abort => Err(abort(name, error)),
    }
}

pub(crate) fn warning(name: &str, error: &StoreError) -> String {
    if name.is_empty() { error.chain() } else { format!("{name}: {}", error.chain()) }
}

/// A limit or a bad request stays what it is; anything else becomes [`ErrorKind::Aborted`].
pub(crate) fn abort(name: &str, error: StoreError) -> StoreError {
    let kind = match error.kind() {
        kind @ (ErrorKind::Invalid | ErrorKind::LimitExceeded | ErrorKind::Cancelled) => kind,
        _ => ErrorKind::Aborted,
    };
    StoreError::new(kind, warning(name, &error))
}

/// Joins neighbours of equal labels.
#[derive(Default)]
struct Joiner {
    open: Option<StoreSeries>,
    joined: bool,
}

impl Joiner {
    /// Takes the next series; gives back the one before when it is complete.
    fn push(&mut self, series: StoreSeries) -> Option<StoreSeries> {
        match &mut self.open {
            Some(open) if open.labels == series.labels => {
                open.chunks.extend(series.chunks);
                self.joined = true;
                None
            }
            _ => {
                let done = self.finish();
                self.open = Some(series);
                done
            }
        }
    }

    fn finish(&mut self) -> Option<StoreSeries> {
        let mut done = self.open.take();
        if let Some(series) = &mut done
            && std::mem::take(&mut self.joined)
        {
            sort_and_dedup(&mut series.chunks);
        }
        done
    }
}

/// A sorted sequence of series inside this process.
pub type SeriesIter = Box<dyn Iterator<Item = Result<StoreSeries, StoreError>> + Send>;

/// Merges iterators; the first error ends the merge.
pub fn merge_iters(mut sources: Vec<SeriesIter>) -> SeriesIter {
    if sources.len() == 1 {
        return sources.remove(0);
    }
    Box::new(MergeIter { heads: Vec::new(), sources, tree: None, joiner: Joiner::default() })
}

struct MergeIter {
    sources: Vec<SeriesIter>,
    heads: Vec<Option<StoreSeries>>,
    tree: Option<LoserTree>,
    joiner: Joiner,
}

impl MergeIter {
    fn step(&mut self) -> Result<Option<StoreSeries>, StoreError> {
        if self.tree.is_none() {
            self.heads = self.sources.iter_mut().map(|s| s.next().transpose()).collect::<Result<_, _>>()?;
        }
        let MergeIter { sources, heads, tree, joiner } = self;
        let tree = tree.get_or_insert_with(|| {
            LoserTree::new(heads.len(), |a, b| head_before(heads[a].as_ref(), heads[b].as_ref(), a, b))
        });
        while let Some(series) = heads.get_mut(tree.winner()).and_then(Option::take) {
            heads[tree.winner()] = sources[tree.winner()].next().transpose()?;
            tree.replay(|a, b| head_before(heads[a].as_ref(), heads[b].as_ref(), a, b));
            if let Some(done) = joiner.push(series) {
                return Ok(Some(done));
            }
        }
        Ok(joiner.finish())
    }
}

impl Iterator for MergeIter {
    type Item = Result<StoreSeries, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.heads.clear();
            self.sources.clear();
            self.tree = None;
            self.joiner = Joiner::default();
        }
        step.transpose()
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
