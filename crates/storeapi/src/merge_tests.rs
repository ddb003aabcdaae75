use bytes::Bytes;
use chronolith_chunk::{Chunk, Encoding};
use proptest::prelude::*;

use super::*;
use crate::AggrChunk;

fn labels(i: u32) -> Labels {
    // Two labels, so that neither text nor number order is the buffer's order by chance.
    Labels::from_pairs([("a", format!("{}", i % 5)), ("b", "x".repeat(i as usize % 7))]).unwrap()
}

fn series(i: u32, chunk: u32) -> StoreSeries {
    let data = Bytes::from(vec![chunk as u8]);
    let t = i64::from(chunk % 3);
    let chunk = Chunk { mint: t, maxt: t + 10, encoding: Encoding::Xor, data };
    StoreSeries { labels: labels(i), chunks: vec![AggrChunk::Raw(chunk)] }
}

fn source(name: &str, events: Vec<Result<SeriesEvent, StoreError>>) -> Source {
    Source { name: name.to_owned(), stream: Box::pin(futures::stream::iter(events)) }
}

/// The naive merge: everything by label set.
fn naive(sources: &[Vec<StoreSeries>]) -> Vec<StoreSeries> {
    let mut all = std::collections::BTreeMap::<Labels, Vec<AggrChunk>>::new();
    for series in sources.iter().flatten() {
        all.entry(series.labels.clone()).or_default().extend(series.chunks.iter().cloned());
    }
    let joined = all.into_iter().map(|(labels, mut chunks)| {
        sort_and_dedup(&mut chunks);
        StoreSeries { labels, chunks }
    });
    joined.collect()
}

async fn collect(mut stream: SeriesStream) -> Result<(Vec<StoreSeries>, Vec<String>), StoreError> {
    let (mut series, mut warnings) = (Vec::new(), Vec::new());
    while let Some(event) = stream.next().await {
        match event? {
            SeriesEvent::Batch(batch) => series.extend(batch),
            SeriesEvent::Warning(text) => warnings.push(text),
            SeriesEvent::Hints(_) => {}
        }
    }
    Ok((series, warnings))
}

fn run<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}

proptest! {
    #[test]
    fn merges_as_the_naive_way_does(
        sources in prop::collection::vec(prop::collection::vec((0u32..35, 0u32..6), 0..30), 0..6),
        batch in 1usize..5,
        limit in 0usize..10,
    ) {
        let sources: Vec<Vec<StoreSeries>> = sources
            .into_iter()
            .map(|source| {
                // A store may split a series over several frames, so equal labels may stand in a row.
                let mut source: Vec<_> = source.into_iter().map(|(i, c)| series(i, c)).collect();
                source.sort_by(|a, b| a.labels.cmp(&b.labels));
                source
            })
            .collect();
        let mut want = naive(&sources);

        let iters = sources.iter().map(|s| Box::new(s.clone().into_iter().map(Ok)) as SeriesIter).collect();
        let merged: Vec<_> = merge_iters(iters).map(Result::unwrap).collect();
        if sources.len() != 1 {
            prop_assert_eq!(&merged, &want);
        }

        let streams = sources.iter().map(|s| {
            let batches = s.chunks(batch).map(|b| Ok(SeriesEvent::Batch(b.to_vec()))).collect();
            source("store", batches)
        });
        let options = MergeOptions { limit, batch_size: batch, ..MergeOptions::default() };
        let (got, warnings) = run(collect(merge(streams.collect(), options))).unwrap();
        if limit > 0 {
            want.truncate(limit);
        }
        prop_assert_eq!(got, want);
        prop_assert!(warnings.is_empty());
    }
}

fn failing() -> Vec<Source> {
    vec![
        source("good", vec![Ok(SeriesEvent::Batch(vec![series(1, 0), series(3, 0)]))]),
        source(
            "bad",
            vec![
                Ok(SeriesEvent::Warning("half a block is missing".into())),
                Ok(SeriesEvent::Batch(vec![series(2, 0)])),
                Err(StoreError::unavailable("connection lost")),
            ],
        ),
    ]
}

#[test]
fn a_failing_source_is_a_warning() {
    let (got, warnings) = run(collect(merge(failing(), MergeOptions::default()))).unwrap();
    assert_eq!(got.len(), 3);
    assert_eq!(warnings, ["half a block is missing", "bad: connection lost"]);
}

#[test]
fn a_failing_source_ends_all_where_partial_answers_are_forbidden() {
    let options = MergeOptions { partial_response: PartialResponse::Abort, ..MergeOptions::default() };
    let error = run(collect(merge(failing(), options))).unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Aborted, "bad: connection lost"));
}

#[test]
fn a_source_out_of_order_is_found_within_and_across_batches() {
    for batches in [vec![vec![series(2, 0), series(1, 0)]], vec![vec![series(2, 0)], vec![series(1, 0)]]] {
        let events = batches.into_iter().map(|b| Ok(SeriesEvent::Batch(b))).collect();
        let sources = vec![source("messy", events), source("other", vec![])];
        let (got, warnings) = run(collect(merge(sources, MergeOptions::default()))).unwrap();
        assert_eq!(got.len(), 1);
        assert!(warnings[0].starts_with("messy: series are out of order"), "{warnings:?}");
    }
}

#[test]
fn nothing_to_merge_is_an_empty_answer() {
    let (got, warnings) = run(collect(merge(vec![], MergeOptions::default()))).unwrap();
    assert!(got.is_empty() && warnings.is_empty());
    assert!(merge_iters(vec![]).next().is_none());
}

#[test]
fn a_batch_is_bounded_by_its_bytes_too() {
    let sources = ["a", "b"].map(|name| {
        let series = (0..100u32).map(|i| {
            let chunk = |t| Chunk {
                mint: t,
                maxt: t,
                encoding: Encoding::Xor,
                data: Bytes::from(format!("{name}{i}").repeat(10_000)),
            };
            let labels = Labels::from_pairs([("n", format!("{i:03}"))]).unwrap();
            StoreSeries { labels, chunks: vec![AggrChunk::Raw(chunk(0)), AggrChunk::Raw(chunk(1))] }
        });
        source(name, vec![Ok(SeriesEvent::Batch(series.collect()))])
    });
    let mut stream = merge(sources.into(), MergeOptions::default());
    let (mut batches, mut all) = (0, 0);
    while let Some(event) = run(stream.next()) {
        let Ok(SeriesEvent::Batch(batch)) = event else { panic!("{event:?}") };
        let bytes = batch.iter().map(|s| encoded_len_max(&s.labels, &s.chunks)).collect::<Vec<_>>();
        let last = bytes.last().copied().unwrap_or(0);
        assert!(bytes.iter().sum::<usize>() - last < BATCH_BYTES, "one series at most beyond the bound");
        (batches, all) = (batches + 1, all + batch.len());
    }
    assert_eq!(all, 100);
    assert!(batches > 5, "{batches}");
}
