//! Requests to delete series, applied to blocks that no compaction takes, and removed when nothing needs them.

mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use chronolith_bucket::deletions::{Looked, applied_to};
use chronolith_bucket::{DeletionMark, DeletionRequest, Deletions};
use chronolith_compact::Config;
use chronolith_model::{BlockId, Matcher, TimeRange};
use chronolith_objstore::Bucket;
use chronolith_testkit::FaultyStore;
use chronolith_tsdb::block::BlockMeta;
use futures::StreamExt;
use world::{Content, HOUR_MS, NOW_MS, Series, Worker, blocks, config, labels, put_block, read, worker};

const DAY_MS: i64 = 24 * HOUR_MS;

fn series(name: &str, from: i64) -> Series {
    let times = (from..from + 2 * HOUR_MS).step_by(600_000);
    (labels(&[("__name__", name)]), times.map(|t| (t, t as f64)).collect())
}

/// A block of a group of its own.
async fn lone(bucket: &Bucket, n: u128, names: &[&str]) -> BlockId {
    let (external, from) = (labels(&[("tenant_id", &format!("t{n}"))]), NOW_MS - DAY_MS);
    let all = names.iter().map(|name| series(name, from)).collect();
    put_block(bucket, n, &external, (from, from + 2 * HOUR_MS), all).await
}

async fn request(bucket: &Bucket) -> BlockId {
    let secret = [vec![Matcher::equal("__name__", "secret")]];
    let request = DeletionRequest::new(&secret, TimeRange::ALL, "", NOW_MS);
    request.write(bucket).await.unwrap();
    request.id.parse().unwrap()
}

/// A compactor `days` after the request.
fn later(bucket: &Bucket, dir: &std::path::Path, days: i64, config: Config) -> Worker {
    let w = worker(bucket, dir, config);
    w.clock.advance(days * DAY_MS);
    w
}

fn names(content: &Content) -> Vec<&str> {
    content.keys().map(|(_, own)| own.trim_start_matches("{__name__=\"").trim_end_matches("\"}")).collect()
}

#[tokio::test]
async fn blocks_that_nobody_merges_are_rewritten_after_the_grace_and_a_few_at_a_time() {
    let (bucket, dir) = (Bucket::in_memory(), tempfile::tempdir().unwrap());
    let mut with = BTreeSet::new();
    for n in 1..=3 {
        with.insert(lone(&bucket, n, &["secret", "up"]).await);
    }
    let without = lone(&bucket, 4, &["up"]).await;
    let only = lone(&bucket, 5, &["secret"]).await;
    let id = request(&bucket).await;
    let config = Config { wait: true, deletion_rewrites_max: 2, ..config() };
    let soon = worker(&bucket, &dir.path().join("soon"), config.clone());
    let report = soon.compactor.iterate().await.unwrap();
    assert_eq!((report.rewritten, report.failed), (0, 0), "it may still be revoked");
    let w = later(&bucket, dir.path(), 2, config);
    let mut rewritten = Vec::new();
    for _ in 0..4 {
        let report = w.compactor.iterate().await.unwrap();
        assert_eq!(report.failed, 0);
        rewritten.push(report.rewritten);
    }
    assert_eq!(rewritten, [2, 2, 0, 0]);
    for block in with.iter().chain([&only]) {
        assert!(DeletionMark::read(&bucket, *block).await.unwrap().is_some(), "{block}");
    }
    assert_eq!(DeletionMark::read(&bucket, without).await.unwrap(), None);
    assert_eq!(Looked::read(&bucket, id).await.unwrap().blocks, BTreeSet::from([without]));
    w.clock.advance(3 * DAY_MS);
    assert_eq!(w.compactor.iterate().await.unwrap().deleted, 4);
    assert_eq!(names(&read(&bucket).await), ["up"; 4]);
    for block in blocks(&bucket).await.into_iter().filter(|b| *b != without) {
        let json = bucket.get(&format!("{block}/meta.json")).await.unwrap();
        let meta = BlockMeta::parse("meta.json", &json).unwrap();
        assert_eq!(applied_to(&meta), BTreeSet::from([id]));
        assert_eq!(meta.compaction.level, 1);
    }
}

#[tokio::test]
async fn a_request_goes_when_it_is_old_and_no_block_needs_it() {
    let bucket = Bucket::in_memory();
    lone(&bucket, 1, &["secret", "up"]).await;
    lone(&bucket, 2, &["up"]).await;
    let id = request(&bucket).await;
    let run = async |days: i64, config: Config| {
        let dir = tempfile::tempdir().unwrap();
        later(&bucket, dir.path(), days, config).compactor.iterate().await.unwrap()
    };
    let left_alone = Config { deletion_rewrites_max: 0, ..config() };
    assert_eq!(run(20, left_alone).await.requests_retired, 0, "a block needs it");
    let report = run(20, config()).await;
    assert_eq!((report.rewritten, report.requests_retired), (1, 0), "the marked block may still be read");
    // Cleaned, but an upload is under way, of which nobody knows what is in it.
    let upload = format!("{}/index", BlockId(ulid::Ulid::from_parts(NOW_MS as u64, 99)));
    bucket.put(&upload, "x".into()).await.unwrap();
    let report = run(23, config()).await;
    assert_eq!((report.deleted, report.requests_retired), (1, 0));
    bucket.delete(&upload).await.unwrap();
    assert_eq!(run(13, config()).await.requests_retired, 0, "receivers may still hold samples");
    let for_ever = Config { deletion_keep: Duration::ZERO, ..config() };
    assert_eq!(run(20, for_ever).await.requests_retired, 0);
    assert_eq!(run(20, config()).await.requests_retired, 1);
    assert!(Deletions::read(&bucket).await.unwrap().is_empty());
    assert_eq!(Looked::read(&bucket, id).await.unwrap(), Looked::default());
    assert_eq!(names(&read(&bucket).await), ["up"; 2]);
}

#[tokio::test]
async fn what_is_damaged_is_named_once_and_stays_masked() {
    let bucket = Bucket::in_memory();
    let broken = lone(&bucket, 1, &["secret", "up"]).await;
    let sound = lone(&bucket, 2, &["secret", "up"]).await;
    bucket.put(&format!("{broken}/chunks/000001"), "short".into()).await.unwrap();
    request(&bucket).await;
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let report = later(&bucket, first.path(), 2, config()).compactor.iterate().await.unwrap();
    assert_eq!((report.rewritten, report.failed), (1, 1));
    assert!(DeletionMark::read(&bucket, sound).await.unwrap().is_some());
    let report = later(&bucket, second.path(), 20, config()).compactor.iterate().await.unwrap();
    assert_eq!((report.rewritten, report.failed, report.requests_retired), (0, 0, 0));
}

/// Killed at each call to the store in turn, before or after it has an effect: nothing that is not deleted is lost, and the next
/// runs finish the work.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_at_any_call() {
    let full = Bucket::in_memory();
    for (n, series) in [(1, &["secret", "up"][..]), (2, &["up"]), (3, &["secret"])] {
        lone(&full, n, series).await;
    }
    request(&full).await;
    let (counted, control) = FaultyStore::around(&world::copy(&full).await);
    let dir = tempfile::tempdir().unwrap();
    let report = later(&counted, dir.path(), 2, config()).compactor.iterate().await.unwrap();
    assert_eq!((report.rewritten, report.failed), (2, 0));
    let calls = control.operations();
    let tries = (0..calls).map(|n| {
        let full = full.clone();
        tokio::spawn(async move { die_and_come_back(&full, n).await })
    });
    let done: Vec<_> = futures::stream::iter(tries).buffer_unordered(8).collect().await;
    done.into_iter().for_each(|result| result.unwrap());
}

async fn remove_partial(bucket: &Bucket) {
    let whole = blocks(bucket).await;
    let objects: Vec<_> = bucket.list("").map(Result::unwrap).collect().await;
    for object in objects {
        let block = object.key.split('/').next().and_then(|dir| dir.parse::<BlockId>().ok());
        if block.is_some_and(|block| !whole.contains(&block)) {
            bucket.delete(&object.key).await.unwrap();
        }
    }
}

async fn die_and_come_back(full: &Bucket, n: u64) {
    let bucket = world::copy(full).await;
    let (faulty, control) = FaultyStore::around(&bucket);
    control.die_after(n, n.is_multiple_of(2));
    let dir = tempfile::tempdir().unwrap();
    let _ = later(&faulty, dir.path(), 2, config()).compactor.iterate().await;
    let seen = world::read_copies(&bucket).await;
    assert_eq!(names(&seen).iter().filter(|name| **name == "up").count(), 2, "after a death at call {n}");
    // The same machine again: its own leases do not keep it waiting.
    let w = later(&bucket, dir.path(), 2, Config { delete_delay: Duration::ZERO, ..config() });
    for _ in 0..500 {
        let report = w.compactor.iterate().await.unwrap();
        assert_eq!(report.failed, 0, "{report:?}");
        if report.rewritten + report.compactions + report.busy + report.deleted == 0 {
            break;
        }
    }
    // An upload that stopped keeps a request, as nobody knows what is in it; the store's clock is not the test's, so it goes by hand.
    remove_partial(&bucket).await;
    let last =
        later(&bucket, &dir.path().join("last"), 20, Config { delete_delay: Duration::ZERO, ..config() });
    for _ in 0..3 {
        last.compactor.iterate().await.unwrap();
    }
    assert_eq!(names(&read(&bucket).await), ["up"; 2], "after a death at call {n}");
    assert!(Deletions::read(&bucket).await.unwrap().is_empty(), "after a death at call {n}");
}
