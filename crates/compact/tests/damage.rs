//! Damaged blocks and deceiving stores: what is bad is left out and named, what only seems so is not, everything else goes on.

mod world;

use std::time::Duration;

use chronolith_bucket::NoCompactMark;
use chronolith_compact::Config;
use chronolith_model::BlockId;
use chronolith_objstore::Bucket;
use chronolith_testkit::{FaultyStore, StoreFaults, damage};

use world::{config, fill, finish, finished, read, worker};

/// Changes an object.
async fn change(bucket: &Bucket, key: &str, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = bucket.get(key).await.unwrap().to_vec();
    how(&mut bytes);
    bucket.put(key, bytes.into()).await.unwrap();
}

async fn no_compact(bucket: &Bucket, id: BlockId) -> Option<(String, String)> {
    NoCompactMark::read(bucket, id).await.unwrap().map(|m| (m.reason, m.details))
}

#[tokio::test]
async fn each_kind_of_damage_is_isolated_and_named() {
    // What is wrong, and the object that the mark must name.
    let cases = [
        ("missing segment", "chunks/000001"),
        ("segment cut short", "chunks/000001"),
        ("corrupt CRC", "chunks/000001"),
        ("missing index", "index"),
        ("index cut short", "index"),
        ("garbled index", "index"),
        ("index over its symbols", "index"),
    ];
    for (what, object) in cases {
        let bucket = Bucket::in_memory();
        fill(&bucket).await;
        let before = read(&bucket).await;
        let ids: Vec<BlockId> = world::blocks(&bucket).await.into_iter().collect();
        // One of a group that overlaps nothing, and one of a group with overlaps.
        let bad = [ids[1], ids[6]];
        for id in bad {
            let key = format!("{id}/{object}");
            match what {
                "missing segment" | "missing index" => bucket.delete(&key).await.unwrap(),
                "segment cut short" | "index cut short" => {
                    change(&bucket, &key, |b| b.truncate(b.len() / 2)).await
                }
                "corrupt CRC" => change(&bucket, &key, |b| *b.last_mut().unwrap() ^= 1).await,
                "garbled index" => {
                    change(&bucket, &key, |b| b.iter_mut().skip(40).for_each(|b| *b ^= 0x55)).await
                }
                _ => change(&bucket, &key, |b| damage::index_over_symbols(b)).await,
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let w = worker(&bucket, dir.path(), config());
        let report = w.compactor.iterate().await.unwrap();
        assert_eq!(report.failed, 0, "{what}: {report:?}");
        assert!(report.compactions > 0, "{what}: the rest of the first group goes on");
        for id in &ids {
            let mark = no_compact(&bucket, *id).await;
            if !bad.contains(id) {
                assert_eq!(mark, None, "{what}");
                continue;
            }
            let (reason, details) = mark.unwrap_or_else(|| panic!("{what}: {id} is not marked"));
            assert_eq!(reason, "block-damaged", "{what}");
            assert!(details.contains(object), "{what}: {details:?} does not name {object}");
            assert!(bucket.exists(&format!("{id}/meta.json")).await.unwrap(), "{what}: nobody deletes it");
        }
        // Nothing is left to do, and everything of the other blocks is there.
        assert_eq!(w.compactor.iterate().await.unwrap().compactions, 0, "{what}");
        for id in bad {
            chronolith_bucket::delete_block(&bucket, id).await.unwrap();
        }
        let left = read(&bucket).await;
        let lost: usize = before
            .iter()
            .map(|(series, samples)| samples.len() - left.get(series).map_or(0, |found| found.len()))
            .sum();
        // Three series of twelve samples, and two.
        assert_eq!(lost, 5 * 12, "{what}");
    }
}

#[tokio::test]
async fn a_garbled_meta_is_left_alone_and_the_rest_goes_on() {
    let bucket = Bucket::in_memory();
    fill(&bucket).await;
    let ids: Vec<BlockId> = world::blocks(&bucket).await.into_iter().collect();
    let key = format!("{}/meta.json", ids[1]);
    let meta = bucket.get(&key).await.unwrap();
    bucket.put(&key, "{\"version\":1,".into()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let w = worker(&bucket, dir.path(), config());
    let report = w.compactor.iterate().await.unwrap();
    assert_eq!(report.failed, 0, "{report:?}");
    assert!(report.compactions >= 2, "both groups go on: {report:?}");
    assert!(bucket.exists(&format!("{}/index", ids[1])).await.unwrap(), "nobody deletes it");
    // Mended, it is taken up.
    bucket.put(&key, meta).await.unwrap();
    drop(w);
    finish(&bucket, dir.path()).await;
    assert!(!world::read_copies(&bucket).await.is_empty());
}

/// Bodies that end early and calls that fail say nothing of a block.
#[tokio::test]
async fn a_bad_connection_damages_no_block() {
    let bucket = Bucket::in_memory();
    fill(&bucket).await;
    let before = read(&bucket).await;
    let (faulty, control) = FaultyStore::around(&bucket);
    for faults in [
        StoreFaults { truncate: 0.5, ..StoreFaults::default() },
        StoreFaults { fail: 0.3, ..StoreFaults::default() },
        StoreFaults { fail_after_write: 0.3, ..StoreFaults::default() },
    ] {
        control.set(faults);
        let dir = tempfile::tempdir().unwrap();
        let w = worker(&faulty, dir.path(), config());
        for _ in 0..5 {
            let _ = w.compactor.iterate().await;
            assert!(read(&bucket).await == before);
        }
    }
    assert_no_marks(&bucket).await;
    let dir = tempfile::tempdir().unwrap();
    finish(&bucket, dir.path()).await;
    finished(&bucket, &before).await;
}

async fn assert_no_marks(bucket: &Bucket) {
    for id in world::blocks(bucket).await {
        assert_eq!(no_compact(bucket, id).await, None, "{id} is not damaged");
    }
}

/// Listings that lag behind: blocks that others have compacted and deleted long ago, own results that do not show.
#[tokio::test]
async fn stale_listings_do_no_harm() {
    for others_first in [true, false] {
        let bucket = Bucket::in_memory();
        fill(&bucket).await;
        let before = read(&bucket).await;
        let (faulty, control) = FaultyStore::around(&bucket);
        control.freeze_listings(&bucket).await;
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        if others_first {
            finish(&bucket, other.path()).await;
            finished(&bucket, &before).await;
        }
        let w = worker(&faulty, dir.path(), Config { delete_delay: Duration::ZERO, ..config() });
        for _ in 0..3 {
            w.compactor.iterate().await.unwrap();
            assert!(read(&bucket).await == before, "others first: {others_first}");
        }
        assert_no_marks(&bucket).await;
        control.thaw_listings();
        drop(w);
        finish(&bucket, dir.path()).await;
        finished(&bucket, &before).await;
    }
}
