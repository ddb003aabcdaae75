//! The hints at the end of an answer: which blocks were read, and what that took.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chronolith_bucket::QueryStats;
use chronolith_model::BlockId;
use chronolith_storeapi::{SeriesEvent, SeriesHints, SeriesStats, SeriesStream};
use futures::StreamExt;

/// What is told of one answer, gathered while it goes out.
pub(crate) struct Report {
    queried: Vec<BlockId>,
    /// `None` where nobody asked for figures.
    figures: Option<Figures>,
}

struct Figures {
    read: Arc<QueryStats>,
    began: Instant,
    first: Option<Duration>,
    series: u64,
    chunks: u64,
}

impl Report {
    pub(crate) fn new(queried: Vec<BlockId>, with_figures: bool, read: Arc<QueryStats>) -> Self {
        let figures = Figures { read, began: Instant::now(), first: None, series: 0, chunks: 0 };
        Report { queried, figures: with_figures.then_some(figures) }
    }

    /// The answer with its hints behind it.
    pub(crate) fn behind(self, answer: SeriesStream) -> SeriesStream {
        futures::stream::unfold(Some((answer, self)), |state| async move {
            let (mut answer, mut report) = state?;
            match answer.next().await {
                Some(event) => {
                    if let (Some(figures), Ok(SeriesEvent::Batch(batch))) = (&mut report.figures, &event) {
                        figures.first.get_or_insert_with(|| figures.began.elapsed());
                        figures.series += batch.len() as u64;
                        figures.chunks += batch.iter().map(|s| s.chunks.len() as u64).sum::<u64>();
                    }
                    Some((event, Some((answer, report))))
                }
                None => Some((Ok(SeriesEvent::Hints(report.finish())), None)),
            }
        })
        .fuse()
        .boxed()
    }

    fn finish(self) -> SeriesHints {
        let blocks = self.queried.len() as u64;
        let stats = self.figures.map(|figures| {
            let (read, took) = (figures.read.snapshot(), figures.began.elapsed());
            let until_first = figures.first.unwrap_or(took);
            SeriesStats {
                blocks,
                merged_series: figures.series,
                merged_chunks: figures.chunks,
                postings_requests: read.postings_requests,
                postings_bytes: read.postings_bytes,
                series_touched: read.series_touched,
                series_requests: read.series_requests,
                series_bytes: read.series_bytes,
                chunks_touched: read.chunks_touched,
                chunk_requests: read.chunk_requests,
                chunk_bytes: read.chunk_bytes,
                until_first,
                after_first: took - until_first,
            }
        });
        SeriesHints { queried_blocks: self.queried, stats }
    }
}
