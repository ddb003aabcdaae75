//! The store behind its gRPC: the acceptance suite once more, batches, hints.

use std::sync::Arc;

use async_trait::async_trait;
use chronolith_model::{BlockId, Labels, MatchOp, Matcher, TimeRange};
use chronolith_objstore::Bucket;
use chronolith_storeapi::contract::{self, StoreFixture, TestSeries};
use chronolith_storeapi::{
    ClientOptions, LabelNamesRequest, LabelValuesRequest, SeriesEvent, SeriesHints, SeriesRequest,
    ServerOptions, Services, Store, StoreClient, serve,
};
use chronolith_testkit::series::{counters, labels};
use futures::StreamExt;
use tokio::net::TcpListener;

use crate::serving::Fixture;
use crate::support::{T0, by_name, open_without_chunks, put_block};

async fn remote(store: Arc<dyn Store>) -> StoreClient {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let services = Services { store: Some(store), ..Services::default() };
    tokio::spawn(async move {
        serve(listener, services, ServerOptions::default(), std::future::pending()).await.unwrap();
    });
    StoreClient::new(&address, &ClientOptions::default()).unwrap()
}

struct Remote(Fixture);

#[async_trait]
impl StoreFixture for Remote {
    async fn load(&self, external: &Labels, series: &[TestSeries]) -> Arc<dyn Store> {
        Arc::new(remote(self.0.load(external, series).await).await)
    }
}

#[tokio::test]
async fn acceptance() {
    contract::run(&Remote(Fixture::new(Bucket::in_memory))).await;
}

/// Two days of ten series, a block a day.
async fn two_blocks() -> (StoreClient, [BlockId; 2], crate::support::Opened) {
    let bucket = Bucket::in_memory();
    let mut ids = Vec::new();
    for day in 0..2 {
        let series = counters("m", 10, T0 + day * 86_400_000, 60_000, 1440);
        ids.push(put_block(&bucket, &labels(&[("cluster", "a")]), 0, series).await);
    }
    let opened = open_without_chunks(&bucket).await;
    (remote(opened.store.clone()).await, [ids[0], ids[1]], opened)
}

async fn answer(client: &StoreClient, request: SeriesRequest) -> (Vec<usize>, Vec<SeriesHints>) {
    let (mut batches, mut hints) = (Vec::new(), Vec::new());
    let mut stream = client.series(request).await.unwrap();
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            SeriesEvent::Batch(batch) => {
                assert!(hints.is_empty(), "hints come last");
                batches.push(batch.len());
            }
            SeriesEvent::Warning(text) => panic!("{text}"),
            SeriesEvent::Hints(told) => hints.push(told),
        }
    }
    (batches, hints)
}

fn block(id: BlockId) -> Vec<Matcher> {
    vec![Matcher::equal("__block_id", &id.to_string())]
}

#[tokio::test]
async fn batches_are_as_large_as_asked_for() {
    let (client, ..) = two_blocks().await;
    for (batch_size, want) in [(1, vec![1; 10]), (4, vec![4, 4, 2]), (100, vec![10])] {
        let request = SeriesRequest { batch_size, skip_chunks: true, ..by_name("m") };
        assert_eq!(answer(&client, request).await.0, want, "batches of {batch_size}");
    }
}

#[tokio::test]
async fn hints_name_blocks_and_what_reading_them_took() {
    let (client, [first, second], _opened) = two_blocks().await;
    let (_, hints) = answer(&client, by_name("m")).await;
    let both = SeriesHints { queried_blocks: vec![first, second], stats: None };
    assert_eq!(hints, [both], "no figures unless they are asked for");

    let (batches, hints) = answer(&client, SeriesRequest { query_stats: true, ..by_name("m") }).await;
    let stats = hints[0].stats.unwrap();
    assert_eq!((stats.blocks, stats.merged_series), (2, batches.iter().sum::<usize>() as u64));
    // 1440 samples are 12 chunks, of ten series in each of two blocks.
    assert_eq!((stats.merged_chunks, stats.chunks_touched, stats.series_touched), (240, 240, 20));
    // What came first is in memory by now: postings and series are not read again.
    assert!(stats.chunk_requests > 0 && stats.chunk_bytes > 0, "{stats:?}");
    assert!(!stats.until_first.is_zero());

    let request = SeriesRequest { block_matchers: block(second), query_stats: true, ..by_name("m") };
    let (_, hints) = answer(&client, request).await;
    assert_eq!(hints[0].queried_blocks, [second]);
    assert_eq!(hints[0].stats.unwrap().merged_chunks, 120);
    let nothing = SeriesRequest { block_matchers: block(BlockId(1.into())), ..by_name("m") };
    assert_eq!(answer(&client, nothing).await, (vec![], vec![SeriesHints::default()]));
}

#[tokio::test]
async fn label_calls_know_blocks_too() {
    let (client, [first, second], _opened) = two_blocks().await;
    let not_first = vec![Matcher::new(MatchOp::NotEqual, "__block_id", &first.to_string()).unwrap()];
    let unknown = block(BlockId(1.into()));
    for (block_matchers, want) in
        [(vec![], vec![first, second]), (not_first, vec![second]), (unknown, vec![])]
    {
        let some = |names: &[&str]| -> Vec<String> {
            names.iter().filter(|_| !want.is_empty()).map(|s| (*s).to_owned()).collect()
        };
        let mut request = LabelNamesRequest::new(TimeRange::ALL, vec![]);
        request.block_matchers.clone_from(&block_matchers);
        let names = client.label_names(request).await.unwrap();
        assert_eq!(names.queried_blocks, want);
        assert_eq!(names.names.contains(&"cluster".to_owned()), !want.is_empty());
        let mut request = LabelValuesRequest::new("cluster", TimeRange::ALL, vec![]);
        request.block_matchers = block_matchers;
        let values = client.label_values(request).await.unwrap();
        assert_eq!((values.values, values.queried_blocks), (some(&["a"]), want));
    }
}
