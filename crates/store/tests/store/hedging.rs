//! A bucket one of whose replicas is slow: a read of a range that hangs there is asked for again.

use std::time::{Duration, Instant};

use chronolith_objstore::HedgeOptions;
use chronolith_testkit::series::{counters, labels};
use chronolith_testkit::{S3Faults, S3Server};

use crate::support::{T0, by_name, collect, open_without_chunks, put_block};

/// Longer than a machine with much to do takes for a query.
const SLOW: Duration = Duration::from_secs(10);

#[tokio::test]
async fn queries_do_not_wait_for_a_slow_replica() {
    let server = S3Server::start();
    let bucket = server.bucket();
    for hour in 0..8 {
        let series = counters("m", 20, T0 + hour * 7_200_000, 15_000, 480);
        put_block(&bucket, &labels(&[("cluster", "a")]), 0, series).await;
    }
    let hedged = bucket.with_hedging(HedgeOptions { repeats_max: 3, quantile: 0.9 });
    let opened = open_without_chunks(&hedged).await;
    let ask = async || {
        let began = Instant::now();
        let (series, warnings) = collect(&*opened.store, by_name("m")).await.unwrap();
        assert_eq!((series.len(), warnings.len()), (20, 0));
        began.elapsed()
    };
    // How long reads take is learnt from the first ones.
    for _ in 0..8 {
        ask().await;
    }
    // Replicas are asked in turns, and one of twenty hangs; a read that is repeated comes to the next.
    server.set_faults(S3Faults { slow_every: 20, slow: SLOW, ..S3Faults::default() });
    server.clear_requests();
    let mut waited = 0;
    for _ in 0..12 {
        waited += usize::from(ask().await >= SLOW);
    }
    // Every query reads the chunks of each of the eight blocks: five reads at the least were slow.
    let requests = server.requests().len();
    assert!(requests >= 96, "{requests} requests");
    // What is saved up for repetitions may be spent on reads that a busy machine made slow.
    assert!(waited <= 1, "{waited} queries waited for a slow read");
}
