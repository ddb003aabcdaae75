//! Promise 1: what was acknowledged is there after `kill -9`, and none of it twice.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use chronolith_e2e::{Chronolith, TestSeries, write_body};
use chronolith_testkit::{http, wait_until};
use rand::{RngExt, SeedableRng};

const ROUNDS: usize = 30;
const WRITERS: usize = 4;
const SERIES: usize = 20;
/// Samples of a writer are a second apart, from here on: data of long ago is data all the same.
const START_MS: i64 = 1_700_000_000_000;

/// One request: sample number `n` of each series of a writer; its value is `n`.
fn body(writer: usize, n: i64) -> Vec<u8> {
    let series: Vec<TestSeries> = (0..SERIES)
        .map(|s| {
            let (writer, s) = (writer.to_string(), s.to_string());
            let labels = [("__name__", "crash_test"), ("series", s.as_str()), ("writer", writer.as_str())];
            TestSeries::new(&labels, &[(START_MS + n * 1000, n as f64)])
        })
        .collect();
    write_body(&series)
}

/// Writes until told to stop or the server is gone; keeps the number of the last acknowledged sample. Writers keep in
/// step within a few samples, so that none falls behind the head.
fn write_on(url: &str, writer: usize, acknowledged: &[AtomicI64], stop: &AtomicBool) {
    let headers = [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
    let mut n = acknowledged[writer].load(Ordering::SeqCst) + 1;
    while !stop.load(Ordering::SeqCst) {
        let slowest = acknowledged.iter().map(|a| a.load(Ordering::SeqCst)).min().unwrap_or(0);
        if n > slowest + 5 {
            std::thread::yield_now();
            continue;
        }
        match http::request("POST", url, &headers, &body(writer, n)) {
            Ok(reply) if reply.status < 300 => {
                acknowledged[writer].store(n, Ordering::SeqCst);
                n += 1;
            }
            Ok(reply) => panic!("writer {writer} got {}: {}", reply.status, reply.text()),
            // The server died under the request; whether this sample is in is not known, and it is sent again.
            Err(_) => return,
        }
    }
}

#[test]
fn thirty_kills_under_load_lose_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Blocks of a minute of sample time: cuts, snapshots and uploads happen between the kills, too.
    let mut server =
        Chronolith::server(dir.path(), &["--tsdb.min-block-duration=1m", "--shipper.interval=1s"]);
    let acknowledged: Vec<AtomicI64> = (0..WRITERS).map(|_| AtomicI64::new(-1)).collect();
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    for round in 0..ROUNDS {
        let stop = AtomicBool::new(false);
        let url = server.url("/api/v1/receive");
        let total = || acknowledged.iter().map(|a| a.load(Ordering::SeqCst)).sum::<i64>();
        let before = total();
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (url, stop, acknowledged) = (&url, &stop, &acknowledged);
                scope.spawn(move || write_on(url, writer, acknowledged, stop));
            }
            // Killed after a random number of acknowledgements rather than after a time.
            let more = random.random_range(1..150);
            wait_until("acknowledged writes", Duration::from_secs(60), || {
                (total() >= before + more).then_some(())
            });
            server.crash();
            stop.store(true, Ordering::SeqCst);
        });
        server.crash_and_restart();
        check(&server, &acknowledged, round);
    }
    server.flush();
    check(&server, &acknowledged, ROUNDS);
    server.stop();
}

fn check(server: &Chronolith, acknowledged: &[AtomicI64], round: usize) {
    for (writer, last) in acknowledged.iter().enumerate() {
        let last = last.load(Ordering::SeqCst);
        if last < 0 {
            continue;
        }
        let end_s = (START_MS + last * 1000) as f64 / 1000.0;
        let window_s = last + 1;
        let selector = format!("crash_test{{writer=\"{writer}\"}}[{window_s}s]");
        let count = server.query(&format!("count_over_time({selector})"), end_s).points(&[]);
        let sum = server.query(&format!("sum_over_time({selector})"), end_s).points(&[]);
        assert_eq!(count.len(), SERIES, "round {round}, writer {writer}: series");
        for (labels, points) in &count {
            // Samples 0 to last, each once: their number and their sum say so.
            assert_eq!(points[0].1, window_s as f64, "round {round}: samples of {labels:?}");
            assert_eq!(sum[labels][0].1, (last * (last + 1) / 2) as f64, "round {round}: sum of {labels:?}");
        }
    }
}
