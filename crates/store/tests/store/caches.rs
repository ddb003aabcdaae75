//! Stores behind caches: what these save, and that a bad one changes no answer.

use std::time::Duration;

use chronolith_bucket::{CachedItems, ChunkCacheOptions};
use chronolith_cache::{GuardOptions, MemcachedOptions};
use chronolith_store::{CachePlace, ChunkCacheConfig, Config, IndexCacheConfig};
use chronolith_storeapi::StoreSeries;
use chronolith_testkit::S3Server;
use chronolith_testkit::series::{counters, labels};

use crate::support::{Opened, T0, by_name, collect, open_with, put_block};

async fn bucket_of_two(server: &S3Server) {
    let bucket = server.bucket();
    for day in 0..2 {
        let series = counters("m", 40, T0 + day * 86_400_000, 60_000, 1440);
        put_block(&bucket, &labels(&[("cluster", "a")]), 0, series).await;
    }
}

fn all_in(config: &mut Config, index: CachePlace, chunks: CachePlace) {
    config.index_cache = Some(IndexCacheConfig { place: index, items: CachedItems::default() });
    config.chunk_cache = Some(ChunkCacheConfig { place: chunks, options: ChunkCacheOptions::default() });
}

async fn answer(opened: &Opened) -> Vec<StoreSeries> {
    let (series, warnings) = collect(&*opened.store, by_name("m")).await.unwrap();
    assert_eq!(warnings, [""; 0]);
    series
}

async fn synced(server: &S3Server, change: impl FnOnce(&mut Config)) -> Opened {
    let opened = open_with(&server.bucket(), change);
    opened.store.sync().await.unwrap();
    opened.store.prepare_headers().await;
    opened
}

#[tokio::test]
async fn in_memory_the_second_query_asks_nothing() {
    let server = S3Server::start();
    bucket_of_two(&server).await;
    let plain = synced(&server, |_| {}).await;
    let want = answer(&plain).await;
    let memory = || CachePlace::Memory { bytes_max: 64 << 20, item_bytes_max: 1 << 20 };
    let cached = synced(&server, |c| all_in(c, memory(), memory())).await;
    assert!(answer(&cached).await == want);
    server.clear_requests();
    assert!(answer(&cached).await == want);
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn a_cache_that_hangs_changes_no_answer_and_little_time() {
    let server = S3Server::start();
    bucket_of_two(&server).await;
    let want = answer(&synced(&server, |_| {}).await).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hanging = || {
        let options = MemcachedOptions {
            addresses: vec![silent.local_addr().unwrap().to_string()],
            idle_connections_max: 10,
            concurrency: 10,
            ttl: Duration::from_secs(60),
            ..MemcachedOptions::default()
        };
        CachePlace::Memcached(
            options,
            GuardOptions { get_timeout: Duration::from_millis(20), ..Default::default() },
        )
    };
    let opened = synced(&server, |c| all_in(c, hanging(), hanging())).await;
    for _ in 0..3 {
        assert!(answer(&opened).await == want);
    }
}
