//! Bucket tools over buckets in memory.

mod support;

use chronolith_bucket::{DeletionMark, layout};
use chronolith_model::{Labels, Matcher, TimeRange};
use chronolith_objstore::Bucket;
use chronolith_tsdb::block::{Block, BlockMeta};
use support::{DAY, HOUR, bucket_text, bucket_tool, id, labels, put_block, samples, write_block};

const TENANT: &[(&str, &str)] = &[("tenant_id", "a")];

fn series(names: &[&str]) -> Vec<Labels> {
    names.iter().map(|n| labels(&[("__name__", n)])).collect()
}

async fn issues(bucket: &Bucket, args: &[&str]) -> Vec<(String, String, String)> {
    let args: Vec<&str> = ["verify", "-o", "json"].iter().chain(args).copied().collect();
    let (text, _) = bucket_tool(bucket, 10 * DAY, &args).await;
    let list: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let part = |i: &serde_json::Value, key: &str| i[key].as_str().unwrap_or_default().to_owned();
    list.iter().map(|i| (part(i, "block"), part(i, "issue"), part(i, "details"))).collect()
}

#[tokio::test]
async fn blocks_of_a_prometheus_are_adopted_and_shown() {
    let (bucket, tmp) = (Bucket::in_memory(), tempfile::tempdir().unwrap());
    write_block(tmp.path(), 1, &series(&["up", "down"]), 0, 2 * HOUR);
    write_block(tmp.path(), 2, &series(&["up", "down"]), 2 * HOUR, 4 * HOUR);
    let second = Block::open(&tmp.path().join(id(2).to_string())).unwrap();
    second.delete(&[Matcher::equal("__name__", "down")], TimeRange::ALL).unwrap();
    let path = tmp.path().to_str().unwrap();
    let args = ["upload-blocks", "--path", path, "--label", "cluster=\"x\""];
    let text = bucket_text(&bucket, DAY, &args).await;
    assert!(text.contains(&format!("{}: uploaded\n", id(1))), "{text}");
    assert!(text.contains("uploaded without what its tombstones delete"), "{text}");
    let found = samples(&bucket).await;
    let (up, down) = ("{__name__=\"up\"}", "{__name__=\"down\"}");
    assert_eq!((found[up], found[down]), (240, 120));
    assert_eq!(issues(&bucket, &[]).await, []);

    let ids = bucket_text(&bucket, DAY, &["ls"]).await;
    assert_eq!(ids.lines().count(), 2);
    let wide = bucket_text(&bucket, DAY, &["ls", "-o", "wide", "--max-time", "1970-01-01T01:00:00Z"]).await;
    let want = "-- 1970-01-01T00:00:00Z - 1970-01-01T02:00:00Z Diff: 2h0m0s, Compaction: 1, Downsample: 0, Source: bucket.upload";
    assert_eq!(wide.trim_end(), format!("{} {want}", id(1)));
    let json = bucket_text(&bucket, DAY, &["ls", "-o", "json"]).await;
    let first = BlockMeta::parse("line", json.lines().next().unwrap().as_bytes()).unwrap();
    assert_eq!((first.ulid, first.thanos.unwrap().labels["cluster"].as_str()), (id(1), "x"));
    let csv = bucket_text(&bucket, DAY, &["inspect", "-o", "csv", "-l", "cluster=\"x\""]).await;
    assert!(csv.lines().nth(1).unwrap().starts_with(&format!("{},1970-01-01T00:00:00Z", id(1))), "{csv}");
    let none = bucket_text(&bucket, DAY, &["inspect", "-o", "csv", "-l", "cluster=\"y\""]).await;
    assert_eq!(none.lines().count(), 1);
    let web: serde_json::Value =
        serde_json::from_str(&bucket_text(&bucket, DAY, &["web-json"]).await).unwrap();
    assert_eq!(web["data"]["blocks"].as_array().unwrap().len(), 2);

    // The blocks of a Mimir tenant lie one level deeper.
    let tenant = Bucket::in_memory();
    put_block(&tenant.with_prefix("team-a"), 5, TENANT, &series(&["up"]), 0, HOUR).await;
    assert_eq!(bucket_text(&tenant, DAY, &["ls"]).await, "");
    assert_eq!(bucket_text(&tenant.with_prefix("team-a"), DAY, &["ls"]).await, format!("{}\n", id(5)));
}

#[tokio::test]
async fn verify_names_what_is_wrong_and_mends_what_is_safe() {
    let bucket = Bucket::in_memory();
    let all = series(&["up"]);
    let good = put_block(&bucket, 1, TENANT, &all, 0, 2 * HOUR).await;
    put_block(&bucket, 2, TENANT, &all, HOUR, 3 * HOUR).await;
    // All sources of block 3 are in block 4.
    for n in [3, 4] {
        let mut meta = put_block(&bucket, n, &[("tenant_id", "b")], &all, 0, HOUR).await;
        meta.compaction.sources = if n == 3 { vec![id(3)] } else { vec![id(3), id(9)] };
        bucket.put(&layout::key(id(n), layout::META), meta.to_json().into()).await.unwrap();
    }
    put_block(&bucket, 5, &[("tenant_id", "c")], &all, 0, HOUR).await;
    bucket.delete(&layout::segment_key(id(5), 0)).await.unwrap();
    put_block(&bucket, 6, &[("tenant_id", "d")], &all, 0, HOUR).await;
    let segment = layout::segment_key(id(6), 0);
    let mut bytes = bucket.get(&segment).await.unwrap().to_vec();
    bytes[20] ^= 1;
    bucket.put(&segment, bytes.into()).await.unwrap();
    let mut meta = put_block(&bucket, 7, &[("tenant_id", "e")], &all, 0, HOUR).await;
    meta.stats.num_series = 17;
    bucket.put(&layout::key(id(7), layout::META), meta.to_json().into()).await.unwrap();
    bucket.put(&format!("{}/index", id(8)), "x".into()).await.unwrap();

    let found = issues(&bucket, &[]).await;
    let kinds: Vec<(String, &str)> = found.iter().map(|(b, k, _)| (b.clone(), k.as_str())).collect();
    let want = [
        (2, "overlapped_blocks"),
        (3, "duplicated_compaction"),
        (4, "overlapped_blocks"),
        (5, "missing_files"),
        (6, "corrupt"),
        (7, "meta_disagreement"),
        (8, "missing_files"),
    ];
    assert_eq!(kinds, want.map(|(n, k)| (id(n).to_string(), k)), "{found:?}");
    assert!(found[4].2.contains("000001"), "it says where: {}", found[4].2);
    let only = issues(&bucket, &["-i", "corrupt", "--id", &id(6).to_string()]).await;
    assert_eq!(only.len(), 1);

    bucket_tool(&bucket, 10 * DAY, &["verify", "--repair", "-i", "duplicated_compaction"]).await.1.unwrap();
    assert!(DeletionMark::read(&bucket, id(3)).await.unwrap().is_some());
    assert!(DeletionMark::read(&bucket, good.ulid).await.unwrap().is_none());
    let left = issues(&bucket, &["-i", "duplicated_compaction"]).await;
    assert_eq!(left, []);
}

#[tokio::test]
async fn marks_are_set_removed_and_cleaned_up() {
    let bucket = Bucket::in_memory();
    for n in [1, 2] {
        put_block(&bucket, n, TENANT, &series(&["up"]), 0, HOUR).await;
    }
    let one = id(1).to_string();
    let mark = ["mark", "--id", &one, "--marker", "deletion-mark.json", "--details", "why not"];
    assert_eq!(bucket_text(&bucket, DAY, &mark).await, format!("{one}: marked\n"));
    assert_eq!(bucket_text(&bucket, DAY, &mark).await, format!("{one}: had that mark already\n"));
    let missing = id(77).to_string();
    let args = ["mark", "--id", &missing, "--marker", "no-compact-mark.json"];
    assert!(bucket_tool(&bucket, DAY, &args).await.1.is_err(), "there is no such block");
    assert_eq!(bucket_text(&bucket, DAY, &["ls", "--exclude-delete"]).await, format!("{}\n", id(2)));
    assert!(bucket_text(&bucket, 2 * DAY, &["cleanup"]).await.starts_with("0 blocks"));
    assert!(bucket_text(&bucket, 3 * DAY, &["cleanup", "--dry-run"]).await.contains("1 blocks"));
    assert!(bucket_text(&bucket, 3 * DAY, &["cleanup"]).await.contains("marked"));
    assert_eq!(bucket_text(&bucket, 3 * DAY, &["ls"]).await, format!("{}\n", id(2)));
    let two = id(2).to_string();
    let marker = ["--marker", "no-compact-mark.json"];
    let args: Vec<&str> = ["mark", "--id", &two].into_iter().chain(marker).collect();
    bucket_text(&bucket, DAY, &args).await;
    assert!(bucket_text(&bucket, DAY, &["inspect", "-o", "tsv"]).await.contains("no-compact"));
    let args: Vec<&str> = args.into_iter().chain(["--remove"]).collect();
    assert_eq!(bucket_text(&bucket, DAY, &args).await, format!("{two}: mark removed\n"));
}

#[tokio::test]
async fn retention_marks_blocks_and_rewrites_those_of_which_some_series_go() {
    let (bucket, tmp) = (Bucket::in_memory(), tempfile::tempdir().unwrap());
    let two = id(2).to_string();
    put_block(&bucket, 1, TENANT, &series(&["up", "test"]), 0, HOUR).await;
    put_block(&bucket, 2, TENANT, &series(&["up", "test"]), 5 * DAY, 5 * DAY + HOUR).await;
    put_block(&bucket, 3, TENANT, &series(&["up"]), 5 * DAY + HOUR, 5 * DAY + 2 * HOUR).await;
    let file = tmp.path().join("retention.yml");
    let mark = ["mark", "--id", &two, "--marker", "no-compact-mark.json", "--details", "part 1 of 2"];
    bucket_text(&bucket, 6 * DAY, &mark).await;
    std::fs::write(&file, "defaults: {raw: 8d}\nseries:\n- matchers: test\n  raw: 3d\n").unwrap();
    let args = ["retention", "--retention.config-file", file.to_str().unwrap()];
    let dry: Vec<&str> = args.iter().copied().chain(["--dry-run"]).collect();
    let before = bucket_text(&bucket, 10 * DAY, &["ls", "-o", "json"]).await;
    let text = bucket_text(&bucket, 10 * DAY, &dry).await;
    assert_eq!(bucket_text(&bucket, 10 * DAY, &["ls", "-o", "json"]).await, before, "nothing was changed");
    let listing = chronolith_tools::Listing::read(&bucket).await.unwrap();
    let bytes = |n| listing.blocks[&id(n)].bytes();
    let want = format!(
        "1 blocks, {} bytes to mark for deletion; 1 blocks of {} bytes to rewrite",
        bytes(1),
        bytes(2)
    );
    assert!(text.contains(&want), "{text}");

    bucket_text(&bucket, 10 * DAY, &args).await;
    for (n, marked) in [(1, true), (2, true), (3, false)] {
        assert_eq!(DeletionMark::read(&bucket, id(n)).await.unwrap().is_some(), marked, "block {n}");
    }
    let found = samples(&bucket).await;
    assert_eq!(found, [("{__name__=\"up\"}".to_owned(), 120)].into());
    let listing = chronolith_tools::Listing::read(&bucket).await.unwrap();
    let new = listing.blocks.values().find(|b| b.id.0.timestamp_ms() >= 10 * DAY as u64).unwrap();
    assert_eq!(new.no_compact.as_ref().unwrap().details, "part 1 of 2", "the compactor's hands stay off it");
    let again = bucket_text(&bucket, 10 * DAY, &args).await;
    assert!(again.contains("0 blocks, 0 bytes marked for deletion; 0 blocks"), "{again}");
    let (_, nothing) = bucket_tool(&bucket, 10 * DAY, &["retention"]).await;
    assert!(nothing.unwrap_err().is_usage());
}

#[tokio::test]
async fn deletions_are_listed_revoked_and_taken_out_of_bytes() {
    let bucket = Bucket::in_memory();
    put_block(&bucket, 1, TENANT, &series(&["up", "secret"]), 0, 2 * HOUR).await;
    put_block(&bucket, 2, &[("tenant_id", "b")], &series(&["secret"]), 0, 2 * HOUR).await;
    let delete = ["delete", "--match", "secret", "--tenant", "a", "--max-time", "1970-01-01T00:59:59Z"];
    let first = bucket_text(&bucket, DAY, &delete).await.trim_end().to_owned();
    let list = bucket_text(&bucket, DAY, &["delete", "--list"]).await;
    assert!(list.contains(&first) && list.contains("tenant_id=\"a\""), "{list}");
    bucket_text(&bucket, DAY, &["delete", "--revoke", &first]).await;
    assert!(bucket_tool(&bucket, DAY, &["delete", "--revoke", &first]).await.1.is_err());
    assert_eq!(bucket_text(&bucket, DAY, &["rewrite"]).await, "nothing is to be deleted\n");
    assert!(bucket_tool(&bucket, DAY, &["delete", "--match", "{a=~\".*\"}"]).await.1.unwrap_err().is_usage());

    let second = bucket_text(&bucket, DAY, &delete).await.trim_end().to_owned();
    let looked = bucket_text(&bucket, DAY, &["rewrite"]).await;
    assert!(looked.lines().count() == 1 && looked.starts_with(&id(1).to_string()), "{looked}");
    assert_eq!(samples(&bucket).await["{__name__=\"secret\"}"], 120);
    let done = bucket_text(&bucket, DAY, &["rewrite", "--no-dry-run", "--delete-blocks"]).await;
    assert!(done.contains("rewritten as"), "{done}");
    // Of tenant a an hour went; of tenant b nothing. Both have one name in the dump, and the times are the same.
    bucket_text(&bucket, DAY, &["mark", "--id", &id(2).to_string(), "--marker", "deletion-mark.json"]).await;
    let found = samples(&bucket).await;
    assert_eq!((found["{__name__=\"secret\"}"], found["{__name__=\"up\"}"]), (60, 120));
    let listing = chronolith_tools::Listing::read(&bucket).await.unwrap();
    let (_, meta) = listing.with_meta().find(|(b, _)| b.deletion.is_none()).unwrap();
    assert_eq!(chronolith_bucket::deletions::applied_to(meta).len(), 1);
    assert!(meta.thanos.as_ref().unwrap().unknown["rewrites"].to_string().contains(&second));
    assert_eq!(meta.compaction.level, 1);
    assert_eq!(bucket_text(&bucket, DAY, &["rewrite"]).await, "", "nothing is left to do");
    assert_eq!(issues(&bucket, &[]).await, []);
}

async fn requests(bucket: &Bucket) -> Vec<(String, u64, u64)> {
    let text = bucket_text(bucket, DAY, &["delete", "--list", "-o", "json"]).await;
    let list: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let row = |r: &serde_json::Value| {
        (
            r["state"].as_str().unwrap().to_owned(),
            r["blocks"].as_u64().unwrap(),
            r["marked"].as_u64().unwrap(),
        )
    };
    list.iter().map(row).collect()
}

#[tokio::test]
async fn the_list_says_how_far_a_request_is() {
    let bucket = Bucket::in_memory();
    put_block(&bucket, 1, TENANT, &series(&["up", "secret"]), 0, 2 * HOUR).await;
    put_block(&bucket, 2, TENANT, &series(&["up"]), 2 * HOUR, 4 * HOUR).await;
    put_block(&bucket, 3, &[("tenant_id", "b")], &series(&["secret"]), 0, 2 * HOUR).await;
    bucket_text(&bucket, DAY, &["delete", "--match", "secret", "--tenant", "a"]).await;
    assert_eq!(requests(&bucket).await, [("masked".to_owned(), 2, 0)]);
    bucket_text(&bucket, DAY, &["rewrite", "--no-dry-run", "--delete-blocks"]).await;
    assert_eq!(requests(&bucket).await, [("masked".to_owned(), 1, 1)], "the old block is there");
    bucket_text(&bucket, 4 * DAY, &["cleanup"]).await;
    assert_eq!(requests(&bucket).await, [("applied".to_owned(), 0, 0)]);
}

#[tokio::test]
async fn series_get_other_labels_are_dropped_and_become_one() {
    let bucket = Bucket::in_memory();
    let own = |name: &str, instance: &str| labels(&[("__name__", name), ("instance", instance)]);
    let all = [own("up", "1"), own("up", "2"), own("debug", "1"), own("aaa", "1")];
    put_block(&bucket, 1, TENANT, &all, 0, 2 * HOUR).await;
    let rules =
        "[{source_labels: [__name__], regex: debug, action: drop}, {regex: instance, action: labeldrop},
        {source_labels: [__name__], regex: aaa, target_label: __name__, replacement: zzz}]";
    let one = id(1).to_string();
    let rewrite = ["rewrite", "--rewrite.to-relabel-config", rules];
    assert!(bucket_tool(&bucket, DAY, &rewrite).await.1.unwrap_err().is_usage(), "which blocks?");
    let rewrite: Vec<&str> = rewrite.into_iter().chain(["--id", &one]).collect();
    let dry: Vec<&str> = rewrite.iter().copied().chain(["--rewrite.add-change-log"]).collect();
    let text = bucket_text(&bucket, DAY, &dry).await;
    assert!(text.contains("3 series get other labels, 1 series are dropped"), "{text}");
    assert!(text.contains("dropped {__name__=\"debug\""), "{text}");
    assert_eq!(samples(&bucket).await.len(), 4, "nothing was changed");
    let done: Vec<&str> =
        rewrite.iter().copied().chain(["--no-dry-run", "--delete-blocks", "-o", "json"]).collect();
    let done: serde_json::Value = serde_json::from_str(&bucket_text(&bucket, DAY, &done).await).unwrap();
    assert!(done[0]["result"].as_str().unwrap().contains("rewritten as"), "{done}");
    let want = [("{__name__=\"up\"}".to_owned(), 120), ("{__name__=\"zzz\"}".to_owned(), 120)];
    assert_eq!(samples(&bucket).await, want.into());
    let listing = chronolith_tools::Listing::read(&bucket).await.unwrap();
    let (_, meta) = listing.with_meta().find(|(b, _)| b.deletion.is_none()).unwrap();
    let applied = &meta.thanos.as_ref().unwrap().unknown["rewrites"][0]["relabels_applied"];
    assert_eq!(applied[0]["sourceLabels"][0], "__name__");
    assert_eq!(issues(&bucket, &[]).await, []);
    // The same rules find nothing any more.
    let id = meta.ulid.to_string();
    let again = ["rewrite", "--rewrite.to-relabel-config", rules, "--id", &id, "--no-dry-run"];
    assert!(bucket_text(&bucket, DAY, &again).await.contains("no series of it is concerned"));
}

#[tokio::test]
async fn repaired_blocks_are_copied_before() {
    let (bucket, tmp) = (Bucket::in_memory(), tempfile::tempdir().unwrap());
    put_block(&bucket, 1, TENANT, &series(&["up"]), 0, HOUR).await;
    let from = tempfile::tempdir().unwrap();
    let mut meta = write_block(from.path(), 2, &series(&["up"]), 0, HOUR);
    meta.thanos = Some(chronolith_tsdb::block::ThanosMeta::new(&labels(TENANT), "compactor"));
    meta.compaction.sources = vec![id(1), id(2)];
    let dir = from.path().join(id(2).to_string());
    chronolith_bucket::upload_block(&bucket, &dir, &meta, Default::default(), 0).await.unwrap();
    let backup = format!("{{type: FILESYSTEM, config: {{directory: {:?}}}}}", tmp.path());
    let args = ["verify", "--repair", "-i", "duplicated_compaction", "--objstore-backup.config", &backup];
    bucket_text(&bucket, DAY, &args).await;
    assert!(DeletionMark::read(&bucket, id(1)).await.unwrap().is_some());
    let copied = tmp.path().join(id(1).to_string()).join("index");
    assert_eq!(std::fs::read(copied).unwrap(), bucket.get(&layout::key(id(1), "index")).await.unwrap());
    assert!(!tmp.path().join(id(2).to_string()).exists());
}

/// As Mimir lays them out: a directory a tenant, marks once more in a directory of their own, an index of its own, and blocks
/// without external labels or with that of the tenant's shard.
#[tokio::test]
async fn a_tenant_of_mimir_is_read_in_place() {
    let bucket = Bucket::in_memory();
    let tenant = bucket.with_prefix("team-a");
    let shard: &[(&str, &str)] = &[("__compactor_shard_id__", "1_of_2")];
    put_block(&tenant, 1, shard, &series(&["up"]), 0, HOUR).await;
    put_block(&tenant, 2, shard, &series(&["up"]), HOUR, 2 * HOUR).await;
    let mark = format!("{{\"id\":\"{}\",\"deletion_time\":5,\"version\":1}}", id(2));
    for key in [layout::key(id(2), layout::DELETION_MARK), format!("markers/{}-deletion-mark.json", id(2))] {
        tenant.put(&key, mark.clone().into()).await.unwrap();
    }
    tenant.put("bucket-index.json.gz", "x".into()).await.unwrap();
    put_block(&bucket.with_prefix("team-b"), 3, shard, &series(&["up"]), 0, HOUR).await;
    let ls = bucket_text(&tenant, DAY, &["ls", "--exclude-delete"]).await;
    assert_eq!(ls, format!("{}\n", id(1)));
    assert!(bucket_text(&tenant, DAY, &["inspect", "-o", "csv"]).await.contains(",deletion\n"));
    assert_eq!(issues(&tenant, &[]).await, []);
    assert_eq!(samples(&tenant).await, [("{__name__=\"up\"}".to_owned(), 60)].into());
}

#[tokio::test]
async fn blocks_are_replicated_once() {
    let (bucket, tmp) = (Bucket::in_memory(), tempfile::tempdir().unwrap());
    put_block(&bucket, 1, TENANT, &series(&["up"]), 0, HOUR).await;
    put_block(&bucket, 2, &[("tenant_id", "b")], &series(&["up"]), 0, HOUR).await;
    let to = format!("{{type: FILESYSTEM, config: {{directory: {:?}}}}}", tmp.path());
    let args = ["replicate", "--objstore-to.config", &to, "--single-run", "--matcher", "tenant_id=\"a\""];
    assert!(bucket_text(&bucket, DAY, &args).await.contains("1 blocks, "));
    assert!(bucket_text(&bucket, DAY, &args).await.starts_with("0 blocks, 0 bytes"));
    let copy = |file: &str| std::fs::read(tmp.path().join(id(1).to_string()).join(file)).unwrap();
    for file in ["meta.json", "index", "chunks/000001"] {
        assert_eq!(copy(file), bucket.get(&layout::key(id(1), file)).await.unwrap(), "{file}");
    }
    assert!(!tmp.path().join(id(2).to_string()).exists());
}

#[tokio::test]
async fn chunks_out_of_order_are_found_and_put_in_order() {
    let (bucket, tmp) = (Bucket::in_memory(), tempfile::tempdir().unwrap());
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let broken = (1..=8).find_map(|n| {
        let pairs: Vec<(&str, &str)> = names[..n].iter().map(|name| (*name, "x")).collect();
        let mut meta =
            write_block(tmp.path(), n as u64, &[labels(&pairs), labels(&[("z", "y")])], 0, 4 * HOUR);
        let dir = tmp.path().join(meta.ulid.to_string());
        meta.thanos = Some(chronolith_tsdb::block::ThanosMeta::new(&labels(TENANT), "test"));
        let mut index = std::fs::read(dir.join("index")).unwrap();
        let turned = chronolith_testkit::damage::turn_chunks_round(&mut index);
        std::fs::write(dir.join("index"), index).unwrap();
        turned.then_some((meta, dir))
    });
    let (meta, dir) = broken.expect("the padding is long enough for one of them");
    chronolith_bucket::upload_block(&bucket, &dir, &meta, Default::default(), 0).await.unwrap();
    let found = issues(&bucket, &[]).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].1.as_str(), &found[0].2[..22]), ("index_known_issues", "1 chunks out of order,"));
    bucket_tool(&bucket, 10 * DAY, &["verify", "--repair"]).await.1.unwrap();
    assert!(DeletionMark::read(&bucket, meta.ulid).await.unwrap().is_some());
    assert_eq!(samples(&bucket).await.into_values().collect::<Vec<_>>(), [240, 240]);
    bucket_text(&bucket, 13 * DAY, &["cleanup"]).await;
    assert_eq!(issues(&bucket, &[]).await, []);
}
