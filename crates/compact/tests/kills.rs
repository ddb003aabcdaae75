//! Killed at each call to the store, while it downsamples, retires, rewrites and deletes: readers never miss what is to stay, and the next
//! run ends where a run without a death ends.

mod world;

use std::path::Path;
use std::sync::Arc;

use chronolith_bucket::{DeletionMark, DeletionRequest};
use chronolith_compact::Config;
use chronolith_compact::retention::{Keep, Policy};
use chronolith_model::{Matcher, TimeRange};
use chronolith_objstore::Bucket;
use chronolith_testkit::FaultyStore;

use world::{Coarse, Content, HOUR_MS, NOW_MS, config, deaths, labels, put_block, series, times, worker};

fn settings() -> Config {
    let file = "defaults: {raw: 10d}\nseries: [{matchers: test, raw: 4d}]";
    let retention = Policy::parse("retention.yml", file, Keep::default()).unwrap();
    Config { retention, ..config() }
}

/// A block to downsample, one of which a series goes, one that goes as a whole, one that is marked since long, and two that are
/// merged without what is deleted.
async fn fill(bucket: &Bucket) {
    let [d, e, f, g] = ["d", "e", "f", "g"].map(|name| labels(&[("g", name)]));
    put_block(bucket, 1, &d, times(-60, -12), (0..2).map(|n| series(n, -60, -12)).collect()).await;
    let mut test = series(1, -144, -142);
    test.0 = labels(&[("__name__", "test")]);
    put_block(bucket, 2, &e, times(-144, -142), vec![series(1, -144, -142), test]).await;
    put_block(bucket, 3, &e, times(-480, -478), vec![series(1, -480, -478)]).await;
    let marked = put_block(bucket, 4, &f, times(-10, -8), vec![series(1, -10, -8)]).await;
    DeletionMark::write(bucket, marked, NOW_MS - 49 * HOUR_MS, "").await.unwrap();
    for n in [5, 6] {
        let all = vec![series(1, -10, -8), series(n as usize, -10, -8)];
        put_block(bucket, n, &g, times(-10, -8), all).await;
    }
    let range = TimeRange::new(NOW_MS - 10 * HOUR_MS, NOW_MS - 9 * HOUR_MS - 1);
    let matchers = vec![Matcher::equal("g", "g"), Matcher::equal("n", "1")];
    DeletionRequest::new(&[matchers], range, "", NOW_MS).write(bucket).await.unwrap();
}

/// What is left in the end.
#[derive(PartialEq)]
struct End {
    raw: Content,
    coarse: Coarse,
    blocks: usize,
}

/// Runs until nothing is left to do, and until what that marked is deleted.
async fn run(bucket: &Bucket, dir: &Path) -> End {
    let w = worker(bucket, dir, settings());
    for later in [0, 49 * HOUR_MS] {
        w.clock.advance(later);
        let mut quiet = false;
        for _ in 0..500 {
            let report = w.compactor.iterate().await.unwrap();
            assert_eq!(report.failed, 0, "{report:?}");
            quiet = report == Default::default();
            if quiet {
                break;
            }
            if report.busy > 0 {
                // The lease of the one that died runs out.
                tokio::time::sleep(std::time::Duration::from_millis(60)).await;
            }
        }
        assert!(quiet, "work is left");
    }
    let (raw, coarse) = (world::read(bucket).await, world::read_coarse(bucket).await);
    End { raw, coarse, blocks: world::blocks(bucket).await.len() }
}

/// True when all samples of `part` are in `whole`.
fn within(part: &Content, whole: &Content) -> bool {
    part.iter().all(|(series, samples)| {
        whole.get(series).is_some_and(|there| samples.iter().all(|(t, v)| there.get(t) == Some(v)))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_at_any_call_of_what_is_no_compaction() {
    let full = Bucket::in_memory();
    fill(&full).await;
    let before = Arc::new(world::read_copies(&full).await);
    let dir = tempfile::tempdir().unwrap();
    let end = Arc::new(run(&world::copy(&full).await, dir.path()).await);
    let samples = |content: &Content| content.values().map(|s| s.len()).sum::<usize>();
    // Two hours of `test`, of the old block and of the marked one, one hour of what is deleted.
    assert_eq!(samples(&before) - samples(&end.raw), 3 * 12 + 6);
    assert_eq!(end.coarse.len(), 2, "both series of the long block");
    assert_eq!(end.blocks, 4, "the long block at two resolutions, the rewritten one, the merged one");

    let (counted, control) = FaultyStore::around(&world::copy(&full).await);
    let dir = tempfile::tempdir().unwrap();
    worker(&counted, dir.path(), settings()).compactor.iterate().await.unwrap();
    let calls = control.operations();
    assert!(calls > 60, "{calls} calls");
    deaths(calls, |n, applied| {
        let (full, before, end) = (full.clone(), before.clone(), end.clone());
        async move {
            let what = format!("after a death at call {n}, which had its effect: {applied}");
            let bucket = world::copy(&full).await;
            let (faulty, control) = FaultyStore::around(&bucket);
            let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            control.die_after(n, applied);
            let _ = worker(&faulty, dir.path(), settings()).compactor.iterate().await;
            let now = world::read_copies(&bucket).await;
            assert!(within(&end.raw, &now) && within(&now, &before), "{what}");
            let coarse = world::read_coarse(&bucket).await;
            assert!(coarse.is_empty() || coarse == end.coarse, "{what}");
            let came_back = run(&bucket, if n % 5 == 0 { other.path() } else { dir.path() }).await;
            assert!(came_back == *end, "{what}");
        }
    })
    .await;
}
