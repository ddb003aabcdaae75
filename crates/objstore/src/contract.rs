//! What every bucket must do, as a function: run it over each implementation and each wrapper.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::TryStreamExt;

use crate::{Bucket, ErrorKind, PutOutcome};

/// Runs the whole suite over an empty bucket and leaves it empty.
///
/// # Panics
/// At the first promise that the bucket breaks.
pub async fn run(bucket: &Bucket) {
    objects_come_back(bucket).await;
    ranges_are_exact(bucket).await;
    listing(bucket).await;
    conditional_creates(bucket).await;
    racing_creates(bucket).await;
    files(bucket).await;
    bad_keys(bucket).await;
    assert_eq!(keys(bucket, "").await, BTreeSet::new(), "the suite cleans up");
}

async fn keys(bucket: &Bucket, prefix: &str) -> BTreeSet<String> {
    let infos: Vec<_> = bucket.list(prefix).try_collect().await.expect("listing works");
    infos.into_iter().map(|i| i.key).collect()
}

async fn objects_come_back(b: &Bucket) {
    assert_eq!(b.get("a/none").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!b.exists("a/none").await.unwrap());
    assert!(b.head("a/none").await.unwrap_err().is_not_found());
    b.put("a/one", Bytes::from_static(b"first")).await.unwrap();
    b.put("a/one", Bytes::from_static(b"second!")).await.unwrap();
    assert_eq!(b.get("a/one").await.unwrap(), "second!");
    assert_eq!(b.get_max("a/one", 3).await.unwrap_err().kind(), ErrorKind::LimitExceeded);
    let info = b.head("a/one").await.unwrap();
    assert_eq!((info.key.as_str(), info.size), ("a/one", 7));
    let age = std::time::SystemTime::now().duration_since(info.last_modified).unwrap_or_default();
    assert!(age.as_secs() < 120, "an object written now is young: {age:?}");
    b.put("a/empty", Bytes::new()).await.unwrap();
    assert_eq!(b.get("a/empty").await.unwrap().len(), 0);
    for key in ["a/one", "a/empty", "a/none"] {
        b.delete(key).await.unwrap();
    }
    assert!(!b.exists("a/one").await.unwrap());
}

async fn ranges_are_exact(b: &Bucket) {
    let body: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
    b.put("r/o", body.clone().into()).await.unwrap();
    for range in [0..1, 0..40_000, 39_999..40_000, 17..4_711] {
        let got = b.get_range("r/o", range.clone()).await.unwrap();
        assert_eq!(got, body[range.start as usize..range.end as usize], "{range:?}");
    }
    assert_eq!(
        b.get_range("r/o", 39_990..50_000).await.unwrap(),
        body[39_990..],
        "an end behind the object's"
    );
    assert_eq!(b.get_range("r/o", 5..5).await.unwrap().len(), 0);
    assert!(b.get_range("r/o", 40_000..40_001).await.is_err(), "a start behind the end");
    assert!(b.get_range("r/none", 0..1).await.unwrap_err().is_not_found());
    let many = b.get_ranges("r/o", &[100..200, 0..10, 30_000..30_001]).await.unwrap();
    assert_eq!(many, [&body[100..200], &body[0..10], &body[30_000..30_001]]);
    b.delete("r/o").await.unwrap();
}

async fn listing(b: &Bucket) {
    // More than a page of S3 (1000), so that paging shows.
    const COUNT: usize = 1_050;
    let all: Vec<String> = (0..COUNT).map(|i| format!("l/{:02}/{i:04}", i % 21)).collect();
    for batch in all.chunks(50) {
        let puts = batch.iter().map(|key| b.put(key, Bytes::from_static(b"x")));
        futures::future::try_join_all(puts).await.unwrap();
    }
    b.put("l2/x", Bytes::from_static(b"yy")).await.unwrap();
    assert_eq!(keys(b, "l").await, all.iter().cloned().collect(), "`l` is a directory, not a prefix of `l2`");
    assert_eq!(keys(b, "l/07/").await.len(), COUNT / 21);
    assert_eq!(keys(b, "nothing").await.len(), 0);
    assert_eq!(b.list_dirs("").await.unwrap(), ["l", "l2"]);
    let dirs = b.list_dirs("l").await.unwrap();
    assert_eq!((dirs.len(), dirs[0].as_str()), (21, "l/00"));
    assert_eq!(b.list_dirs("nothing").await.unwrap().len(), 0);
    let infos: Vec<_> = b.list("l2").try_collect().await.unwrap();
    assert_eq!((infos[0].key.as_str(), infos[0].size), ("l2/x", 2));
    for batch in all.chunks(50) {
        futures::future::try_join_all(batch.iter().map(|key| b.delete(key))).await.unwrap();
    }
    b.delete("l2/x").await.unwrap();
}

async fn conditional_creates(b: &Bucket) {
    assert_eq!(b.put_if_absent("c/x", Bytes::from_static(b"mine")).await.unwrap(), PutOutcome::Created);
    assert_eq!(b.put_if_absent("c/x", Bytes::from_static(b"his")).await.unwrap(), PutOutcome::Exists);
    assert_eq!(b.get("c/x").await.unwrap(), "mine");
    b.delete("c/x").await.unwrap();
    assert!(b.honours_put_if_absent("c/probe").await.unwrap());
}

async fn racing_creates(b: &Bucket) {
    let creates = (0..16).map(|i| b.put_if_absent("c/race", Bytes::from(format!("writer {i}"))));
    let outcomes = futures::future::try_join_all(creates).await.unwrap();
    let winners: Vec<usize> = (0..16).filter(|i| outcomes[*i] == PutOutcome::Created).collect();
    assert_eq!(winners.len(), 1, "one create wins: {winners:?}");
    assert_eq!(b.get("c/race").await.unwrap(), format!("writer {}", winners[0]));
    b.delete("c/race").await.unwrap();
}

async fn files(b: &Bucket) {
    let dir = std::env::temp_dir().join(format!("objstore-contract-{:032x}", rand::random::<u128>()));
    std::fs::create_dir(&dir).unwrap();
    let (from, to) = (dir.join("from"), dir.join("to"));
    // Three parts of S3's smallest size, the last one short.
    let body: Vec<u8> = (0..11 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&from, &body).unwrap();
    let in_parts = b.with_part_bytes(5 << 20);
    assert_eq!(in_parts.put_file("f/big", &from).await.unwrap(), body.len() as u64);
    assert_eq!(b.head("f/big").await.unwrap().size, body.len() as u64);
    b.get_to_file("f/big", &to).await.unwrap();
    assert!(std::fs::read(&to).unwrap() == body, "a file survives the round trip in parts");
    std::fs::write(&from, b"").unwrap();
    b.put_file("f/empty", &from).await.unwrap();
    assert_eq!(b.head("f/empty").await.unwrap().size, 0);
    assert!(b.put_file("f/none", &dir.join("none")).await.unwrap_err().is_not_found());
    assert!(!b.exists("f/none").await.unwrap());
    for key in ["f/big", "f/empty"] {
        b.delete(key).await.unwrap();
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

async fn bad_keys(b: &Bucket) {
    for key in ["../x", "a/../b", "a//b"] {
        assert_eq!(b.get(key).await.unwrap_err().kind(), ErrorKind::Invalid, "{key:?}");
    }
}
