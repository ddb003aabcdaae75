//! Upload, discovery and deletion over real buckets, with faults.

use std::path::Path;

use chronolith_bucket::{
    BlockFilter, DeletionMark, Discovery, FetchOptions, Fetcher, UploadOptions, delete_block, is_uploaded,
    layout, upload_block,
};
use chronolith_model::BlockId;
use chronolith_objstore::Bucket;
use chronolith_testkit::{FaultyStore, S3Faults, S3Operation, S3Server, StoreFaults};
use chronolith_tsdb::block::{BlockMeta, ThanosMeta};

const NOW_MS: i64 = 1_700_000_000_000;

fn id(n: u128) -> BlockId {
    BlockId(((1_600_000_000_000u128 << 80) + n).into())
}

/// A directory that looks like a block to an uploader, which does not read inside files.
fn block_dir(dir: &Path, n: u128) -> BlockMeta {
    std::fs::create_dir_all(dir.join("chunks")).unwrap();
    std::fs::write(dir.join("chunks/000001"), vec![1; 1000]).unwrap();
    std::fs::write(dir.join("chunks/000002"), vec![2; 10]).unwrap();
    std::fs::write(dir.join("index"), vec![3; 500]).unwrap();
    std::fs::write(dir.join("tombstones"), b"").unwrap();
    let mut meta = BlockMeta::new(id(n), 0, 7_200_000);
    meta.compaction.sources = vec![id(n)];
    let labels = chronolith_testkit::series::labels(&[("tenant_id", "a")]);
    meta.thanos = Some(ThanosMeta::new(&labels, "receive"));
    meta
}

async fn upload(bucket: &Bucket, dir: &Path, meta: &BlockMeta) -> chronolith_bucket::Result<BlockMeta> {
    upload_block(bucket, dir, meta, UploadOptions::default(), NOW_MS).await
}

fn fetcher(bucket: &Bucket) -> Fetcher {
    Fetcher::new(bucket.clone(), FetchOptions::default())
}

#[tokio::test]
async fn the_order_is_chunks_index_meta() {
    let (server, dir) = (S3Server::start(), tempfile::tempdir().unwrap());
    let meta = block_dir(dir.path(), 1);
    let options = UploadOptions { hash: true, ..UploadOptions::default() };
    let uploaded = upload_block(&server.bucket(), dir.path(), &meta, options, NOW_MS).await.unwrap();
    let puts: Vec<String> = server
        .requests()
        .into_iter()
        .filter(|r| r.operation == S3Operation::PutObject)
        .map(|r| r.target.rsplit_once(&format!("{}/", id(1))).unwrap().1.to_owned())
        .collect();
    assert_eq!(puts, ["chunks/000001", "chunks/000002", "index", "meta.json"]);
    let thanos = uploaded.thanos.as_ref().unwrap();
    assert_eq!(thanos.upload_time.as_deref(), Some("2023-11-14T22:13:20Z"));
    assert_eq!(thanos.segment_files, ["000001", "000002"]);
    let files: Vec<_> = thanos.files.iter().map(|f| (f.rel_path.as_str(), f.size_bytes)).collect();
    assert_eq!(files, [("chunks/000001", 1000), ("chunks/000002", 10), ("index", 500), ("meta.json", 0)]);
    assert!(thanos.files[0].hash.as_ref().unwrap()["value"].as_str().unwrap().len() == 64);
    assert!(is_uploaded(&server.bucket(), id(1)).await.unwrap());

    // Again: nothing is written.
    server.clear_requests();
    assert_eq!(upload(&server.bucket(), dir.path(), &meta).await.unwrap(), uploaded);
    assert!(!server.counts().contains_key(&S3Operation::PutObject));
    server.remove_object(&layout::segment_key(id(1), 1));
    assert!(!is_uploaded(&server.bucket(), id(1)).await.unwrap());
}

#[tokio::test]
async fn what_a_visible_block_lacks_is_written_again() {
    let (server, dir) = (S3Server::start(), tempfile::tempdir().unwrap());
    let (bucket, meta) = (server.bucket(), block_dir(dir.path(), 1));
    let uploaded = upload(&bucket, dir.path(), &meta).await.unwrap();
    server.remove_object(&layout::segment_key(id(1), 1));
    server.put_object(&layout::key(id(1), layout::INDEX), "short");
    assert_eq!(upload(&bucket, dir.path(), &meta).await.unwrap(), uploaded);
    assert!(is_uploaded(&bucket, id(1)).await.unwrap());
    // From another block's files it cannot be mended.
    server.remove_object(&layout::segment_key(id(1), 1));
    std::fs::write(dir.path().join("chunks/000002"), "others").unwrap();
    let err = upload(&bucket, dir.path(), &meta).await.unwrap_err().to_string();
    assert!(err.contains("chunks/000002"), "{err}");
}

#[tokio::test]
async fn an_upload_that_goes_on_after_a_day_shows_that_it_lives() {
    let (server, dir) = (S3Server::start(), tempfile::tempdir().unwrap());
    let (bucket, meta) = (server.bucket(), block_dir(dir.path(), 1));
    bucket.put_file(&layout::segment_key(id(1), 0), &dir.path().join("chunks/000001")).await.unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    for (hours, puts) in [(23, 3), (25, 4)] {
        server.clear_requests();
        let now_ms = now + hours * 3_600_000;
        upload_block(&bucket, dir.path(), &meta, UploadOptions::default(), now_ms).await.unwrap();
        assert_eq!(server.counts()[&S3Operation::PutObject], puts, "after {hours} h");
        assert!(is_uploaded(&bucket, id(1)).await.unwrap());
        for file in ["meta.json", "index", "chunks/000002"] {
            server.remove_object(&layout::key(id(1), file));
        }
    }
}

#[tokio::test]
async fn an_upload_that_stopped_anywhere_is_resumed() {
    let (backing, dir) = (Bucket::in_memory(), tempfile::tempdir().unwrap());
    let meta = block_dir(dir.path(), 1);
    let mut failures = 0;
    for fail_at in 0.. {
        let (bucket, control) = FaultyStore::around(&backing);
        // Let `fail_at` operations pass, then fail one.
        let task = tokio::spawn({
            let (bucket, dir, meta, control) =
                (bucket.clone(), dir.path().to_owned(), meta.clone(), control.clone());
            async move {
                control.fail_after(fail_at);
                upload(&bucket, &dir, &meta).await
            }
        });
        match task.await.unwrap() {
            Ok(_) => break,
            Err(_) => failures += 1,
        }
        let result = fetcher(&backing).fetch(NOW_MS).await.unwrap();
        assert!(result.blocks.is_empty() && result.corrupt.is_empty(), "a stopped upload shows nothing");
    }
    assert!(failures >= 5, "each step was made to fail: {failures}");
    let result = fetcher(&backing).fetch(NOW_MS).await.unwrap();
    assert_eq!(result.blocks.keys().copied().collect::<Vec<_>>(), [id(1)]);
}

#[tokio::test]
async fn lost_answers_do_not_double_or_lose() {
    let (server, dir) = (S3Server::start(), tempfile::tempdir().unwrap());
    let meta = block_dir(dir.path(), 1);
    server.set_faults(S3Faults { drop_after_write: 0.4, fail: 0.2, ..S3Faults::default() });
    let mut rounds = 0;
    while upload(&server.bucket(), dir.path(), &meta).await.is_err() {
        rounds += 1;
        assert!(rounds < 50);
    }
    server.set_faults(S3Faults::default());
    assert_eq!(server.keys().len(), 4, "{:?}", server.keys());
    assert!(is_uploaded(&server.bucket(), id(1)).await.unwrap());
}

#[tokio::test]
async fn what_must_not_be_uploaded_is_refused() {
    let (bucket, dir) = (Bucket::in_memory(), tempfile::tempdir().unwrap());
    let mut meta = block_dir(dir.path(), 1);
    meta.thanos.as_mut().unwrap().labels.clear();
    let err = upload(&bucket, dir.path(), &meta).await.unwrap_err().to_string();
    assert!(err.contains("no external labels") && err.contains(&id(1).to_string()), "{err}");
    meta.thanos = None;
    assert!(upload(&bucket, dir.path(), &meta).await.unwrap_err().to_string().contains("no thanos section"));
    let meta = block_dir(dir.path(), 1);
    std::fs::remove_file(dir.path().join("index")).unwrap();
    assert!(upload(&bucket, dir.path(), &meta).await.is_err());
    assert!(fetcher(&bucket).fetch(NOW_MS).await.unwrap().partial.is_empty());
}

#[tokio::test]
async fn discovery_sorts_good_partial_corrupt_and_marked() {
    let server = S3Server::start();
    let (bucket, dir) = (server.bucket(), tempfile::tempdir().unwrap());
    for n in 1..=4 {
        upload(&bucket, dir.path(), &block_dir(dir.path(), n)).await.unwrap();
    }
    server.remove_object(&layout::key(id(2), layout::META));
    server.put_object(&layout::key(id(3), layout::META), "{\"ulid\":");
    DeletionMark::write(&bucket, id(4), NOW_MS - 50_000, "").await.unwrap();
    server.put_object(&layout::key(id(1), layout::DELETION_MARK), "garbage");
    server.put_object("debug/metas/x.json", "{}");
    server.put_object("readme", "hello");

    let cache = tempfile::tempdir().unwrap();
    for discovery in [Discovery::Recursive, Discovery::Concurrent] {
        let filter = BlockFilter { hide_marked_after_ms: Some(49_000), ..BlockFilter::default() };
        let cache_dir = Some(cache.path().to_owned());
        let options = FetchOptions { discovery, filter, cache_dir, ..FetchOptions::default() };
        let fetcher = Fetcher::new(bucket.clone(), options);
        let result = fetcher.fetch(NOW_MS).await.unwrap();
        assert_eq!(result.blocks.keys().copied().collect::<Vec<_>>(), [id(1)], "{discovery:?}");
        assert_eq!(result.partial.keys().copied().collect::<Vec<_>>(), [id(2)]);
        assert!(result.corrupt[&id(3)].contains(&format!("{}/meta.json", id(3))), "{:?}", result.corrupt);
        assert_eq!(result.excluded.len(), 1);
        assert_eq!(result.marks.keys().copied().collect::<Vec<_>>(), [id(4)]);
        server.clear_requests();
        let again = fetcher.fetch(NOW_MS).await.unwrap();
        assert_eq!(again.blocks, result.blocks);
        let target = layout::key(id(1), layout::META);
        let gets = server
            .requests()
            .into_iter()
            .filter(|r| r.operation == S3Operation::GetObject && r.target.contains(&target));
        assert_eq!(gets.count(), 0, "a meta is read once");
    }
    assert!(cache.path().join("meta-syncer").join(id(1).to_string()).join("meta.json").exists());
}

#[tokio::test]
async fn a_meta_that_cannot_be_read_now_is_failed_not_gone() {
    let (backing, dir) = (Bucket::in_memory(), tempfile::tempdir().unwrap());
    for n in 1..=2 {
        upload(&backing, dir.path(), &block_dir(dir.path(), n)).await.unwrap();
    }
    let (bucket, control) = FaultyStore::around(&backing);
    let only_keys = layout::key(id(2), layout::META);
    control.set(StoreFaults { fail: 1.0, only_keys, ..StoreFaults::default() });
    let fetcher = fetcher(&bucket);
    let result = fetcher.fetch(NOW_MS).await.unwrap();
    assert!(result.blocks.contains_key(&id(1)) && result.failed.contains_key(&id(2)), "{result:?}");
    control.set(StoreFaults::default());
    assert_eq!(fetcher.fetch(NOW_MS).await.unwrap().blocks.len(), 2);
    control.set(StoreFaults { fail: 1.0, ..StoreFaults::default() });
    assert!(fetcher.fetch(NOW_MS).await.is_err(), "a failed listing is an error, not an empty bucket");
}

#[tokio::test]
async fn deletion_takes_meta_first_and_the_mark_last() {
    let (backing, dir) = (Bucket::in_memory(), tempfile::tempdir().unwrap());
    upload(&backing, dir.path(), &block_dir(dir.path(), 1)).await.unwrap();
    upload(&backing, dir.path(), &block_dir(dir.path(), 2)).await.unwrap();
    DeletionMark::write(&backing, id(1), NOW_MS, "").await.unwrap();
    for fail_at in 0.. {
        let (bucket, control) = FaultyStore::around(&backing);
        control.fail_after(fail_at);
        if delete_block(&bucket, id(1)).await.is_ok() {
            break;
        }
        let result = fetcher(&backing).fetch(NOW_MS).await.unwrap();
        assert!(fail_at == 0 || !result.blocks.contains_key(&id(1)), "meta.json goes first");
        assert!(result.marks.contains_key(&id(1)), "the mark goes last");
    }
    let result = fetcher(&backing).fetch(NOW_MS).await.unwrap();
    assert!(result.partial.is_empty() && result.marks.is_empty(), "{result:?}");
    assert_eq!(result.blocks.keys().collect::<Vec<_>>(), [&id(2)]);
}
