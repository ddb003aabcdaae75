//! Retention and deletion requests, applied by a running compactor.

mod world;

use std::collections::BTreeSet;

use chronolith_bucket::deletions::applied_to;
use chronolith_bucket::{DeletionMark, DeletionRequest};
use chronolith_compact::Config;
use chronolith_compact::retention::{Keep, Policy};
use chronolith_model::{Matcher, TimeRange};
use chronolith_objstore::Bucket;
use chronolith_tsdb::block::BlockMeta;
use world::{NOW_MS, Series, blocks, config, labels, put_block, read, worker};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

fn series(name: &str, from: i64, to: i64) -> Series {
    (labels(&[("__name__", name)]), (from..to).step_by(60_000).map(|t| (t, t as f64)).collect())
}

/// Names of the series that a reader sees, and their samples.
async fn seen(bucket: &Bucket) -> Vec<(String, usize)> {
    read(bucket).await.into_iter().map(|((_, own), samples)| (own, samples.len())).collect()
}

#[tokio::test]
async fn blocks_and_series_out_of_retention_go_once() {
    let (bucket, dir) = (Bucket::in_memory(), tempfile::tempdir().unwrap());
    let external = labels(&[("tenant_id", "a")]);
    let mut ids = Vec::new();
    for (n, days) in [(1, 20), (2, 6), (3, 1)] {
        let (from, to) = (NOW_MS - days * DAY_MS, NOW_MS - days * DAY_MS + 2 * HOUR_MS);
        let all = vec![series("test", from, to), series("up", from, to)];
        ids.push(put_block(&bucket, n, &external, (from, to), all).await);
    }
    let file = "defaults: {raw: 10d}\nseries: [{matchers: test, raw: 4d}]";
    let retention = Policy::parse("retention.yml", file, Keep::default()).unwrap();
    let w = worker(&bucket, dir.path(), Config { retention, ..config() });
    let report = w.compactor.iterate().await.unwrap();
    assert_eq!((report.retired, report.failed), (2, 0));
    for (id, marked) in ids.iter().zip([true, true, false]) {
        assert_eq!(DeletionMark::read(&bucket, *id).await.unwrap().is_some(), marked, "{id}");
    }
    assert_eq!(w.compactor.iterate().await.unwrap().retired, 0);
    w.clock.advance(49 * HOUR_MS);
    assert_eq!(w.compactor.iterate().await.unwrap().deleted, 2);
    let own = |name: &str| format!("{{__name__=\"{name}\"}}");
    assert_eq!(seen(&bucket).await, [(own("test"), 120), (own("up"), 240)]);
}

#[tokio::test]
async fn a_compaction_applies_deletion_requests() {
    let (bucket, dir) = (Bucket::in_memory(), tempfile::tempdir().unwrap());
    let external = labels(&[("tenant_id", "a")]);
    let (from, to) = (NOW_MS - 10 * HOUR_MS, NOW_MS - 8 * HOUR_MS);
    let mut before = BTreeSet::new();
    for n in [1, 2] {
        let other = series(&format!("of_{n}"), from, to);
        before.insert(
            put_block(&bucket, n, &external, (from, to), vec![series("secret", from, to), other]).await,
        );
    }
    let range = TimeRange::new(from, from + HOUR_MS - 1);
    let request = DeletionRequest::new(&[vec![Matcher::equal("__name__", "secret")]], range, "", NOW_MS);
    request.write(&bucket).await.unwrap();
    let w = worker(&bucket, dir.path(), config());
    assert_eq!(w.compactor.iterate().await.unwrap().compactions, 1);
    w.clock.advance(49 * HOUR_MS);
    w.compactor.iterate().await.unwrap();
    let own = |name: &str| format!("{{__name__=\"{name}\"}}");
    assert_eq!(seen(&bucket).await, [(own("of_1"), 120), (own("of_2"), 120), (own("secret"), 60)]);
    let made = blocks(&bucket).await;
    let [made] = Vec::from_iter(made.difference(&before))[..] else { panic!("{made:?}") };
    let json = bucket.get(&format!("{made}/meta.json")).await.unwrap();
    let meta = BlockMeta::parse("meta.json", &json).unwrap();
    assert_eq!(applied_to(&meta), BTreeSet::from([request.id.parse().unwrap()]));
}
