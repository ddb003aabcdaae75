//! A store over series in memory: the smallest complete [`Store`], for tests and as an example of [`crate::local`].

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use async_trait::async_trait;
use chronolith_chunk::Chunk;
use chronolith_model::{Labels, Matcher, TimeRange};

use crate::local::{
    LabelSetUnion, SeriesPlan, ValuesPlan, add_label_names, empty_stream, raw_chunks, stream_blocking,
};
use crate::{
    LabelNames, LabelNamesRequest, LabelValues, LabelValuesRequest, SeriesRequest, SeriesStream, Store,
    StoreError, StoreInfo, TsdbInfo,
};

/// Series of one producer.
#[derive(Debug)]
pub struct MemoryStore {
    external: Labels,
    series: Arc<[(Labels, Vec<Chunk>)]>,
}

impl MemoryStore {
    /// A store of these series; labels are unique, chunks come by time.
    pub fn new(external: Labels, mut series: Vec<(Labels, Vec<Chunk>)>) -> Self {
        series.sort_by(|a, b| a.0.cmp(&b.0));
        MemoryStore { external, series: series.into() }
    }

    fn matching<'a>(&'a self, matchers: &'a [Matcher], range: TimeRange) -> impl Iterator<Item = &'a Labels> {
        self.series
            .iter()
            .filter(move |(labels, chunks)| is_match(labels, matchers) && overlaps(chunks, range))
            .map(|(labels, _)| labels)
    }
}

fn is_match(labels: &Labels, matchers: &[Matcher]) -> bool {
    matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")))
}

fn overlaps(chunks: &[Chunk], range: TimeRange) -> bool {
    chunks.iter().any(|c| c.time_range().overlaps(&range))
}

#[async_trait]
impl Store for MemoryStore {
    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        let Some(plan) = SeriesPlan::new(&request, &self.external)? else { return Ok(empty_stream()) };
        let series = Arc::clone(&self.series);
        let (range, skip_chunks, matchers) = (request.range, request.skip_chunks, plan.matchers.clone());
        Ok(stream_blocking(&request, move || {
            let found = (0..series.len()).filter_map(move |i| {
                let (labels, chunks) = &series[i];
                if !is_match(labels, &matchers) {
                    return None;
                }
                let mut chunks = chunks.clone();
                chunks.retain(|c| c.time_range().overlaps(&range));
                if chunks.is_empty() {
                    return None;
                }
                let chunks = if skip_chunks { Vec::new() } else { raw_chunks(chunks) };
                Some(Ok((labels.clone(), chunks)))
            });
            Ok(plan.shape(found))
        }))
    }

    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelNames, StoreError> {
        let mut union = LabelSetUnion::default();
        let Ok(()) = add_label_names(&mut union, &request, &self.external, |matchers| {
            let names: BTreeSet<&str> =
                self.matching(matchers, request.range).flat_map(|l| l.iter().map(|(n, _)| n)).collect();
            Ok::<_, Infallible>(names.into_iter().map(str::to_owned).collect())
        });
        Ok(union.names(&request))
    }

    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelValues, StoreError> {
        let mut union = LabelSetUnion::default();
        match ValuesPlan::new(&request, &self.external) {
            ValuesPlan::Nothing => {}
            ValuesPlan::External { value, matchers } => {
                if self.matching(&matchers, request.range).next().is_some() {
                    union.extend([value]);
                }
            }
            ValuesPlan::Read(matchers) => {
                union.extend(self.matching(&matchers, request.range).filter_map(|l| l.get(&request.label)));
            }
        }
        Ok(union.values(&request))
    }

    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let mut info = StoreInfo::new("store");
        for chunk in self.series.iter().flat_map(|(_, chunks)| chunks) {
            info.range.mint = info.range.mint.min(chunk.mint);
            info.range.maxt = info.range.maxt.max(chunk.maxt);
        }
        info.label_sets = vec![self.external.clone()];
        info.tsdbs = vec![TsdbInfo { labels: self.external.clone(), range: info.range }];
        Ok(info)
    }
}
