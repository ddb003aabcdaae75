//! The whole role over real sockets: bad input, tenants, flush, failing buckets, retention, drain and restart.

use std::path::Path;
use std::time::Duration;

use chronolith_model::STALE_NAN;
use chronolith_objstore::Bucket;
use chronolith_receive::{Config, ReceiveError, shipper_file};
use chronolith_service::ManualClock;
use chronolith_testkit::{FaultyStore, StoreFaults};
use chronolith_tsdb::block::BlockMeta;
use futures::TryStreamExt;

mod common;

use common::{Role, config, minutes, series, tagged};

/// Aligned to two hours.
const T0: i64 = 1_767_225_600_000;
const HOUR: i64 = 3_600_000;

async fn metas(bucket: &Bucket) -> Vec<BlockMeta> {
    let objects: Vec<_> = bucket.list("").try_collect().await.unwrap();
    let mut metas = Vec::new();
    for object in objects.iter().filter(|o| o.key.ends_with("/meta.json")) {
        metas.push(BlockMeta::parse(&object.key, &bucket.get(&object.key).await.unwrap()).unwrap());
    }
    metas.sort_by_key(|m| m.min_time);
    metas
}

fn local_blocks(dir: &Path, tenant: &str) -> usize {
    let entries = std::fs::read_dir(dir.join("tenants").join(tenant)).unwrap();
    entries.filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().len() == 26).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_samples_are_named_and_the_good_part_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(T0 + HOUR);
    let config = Config { too_far_in_future_ms: 600_000, ..config(dir.path()) };
    let role = Role::start(config, None, &clock).await;
    let good = |n: i64| series(&[("__name__", "good")], &[(T0 + n, n as f64)]);
    let huge = "x".repeat(10 << 20);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("10 MB label", series(&[("__name__", "big"), ("l", &huge)], &[(T0, 1.0)]), "10485760 bytes"),
        (
            "duplicate label",
            series(&[("__name__", "d"), ("a", "1"), ("a", "2")], &[(T0, 1.0)]),
            "duplicate label name",
        ),
        ("no metric name", series(&[("a", "1")], &[(T0, 1.0)]), "missing metric name"),
        ("no labels", series(&[], &[(T0, 1.0)]), "missing metric name"),
        ("empty label name", series(&[("", "x"), ("__name__", "e")], &[(T0, 1.0)]), "empty label name"),
        (
            "out of order",
            series(&[("__name__", "o")], &[(T0 + 2000, 1.0), (T0 + 1000, 2.0)]),
            "out of order sample",
        ),
        (
            "another value",
            series(&[("__name__", "v")], &[(T0, 1.0), (T0, 2.0)]),
            "duplicate sample for timestamp",
        ),
        ("the end of time", series(&[("__name__", "max")], &[(i64::MAX, 1.0)]), "out of bounds"),
        ("far future", series(&[("__name__", "far")], &[(T0 + 2 * HOUR, 1.0)]), "out of bounds"),
        (
            "malformed label",
            tagged(1, &[tagged(1, &[0x0A, 200]), tagged(2, &[0x10, 1])].concat()),
            "invalid labels",
        ),
        (
            "not UTF-8",
            tagged(1, &[tagged(1, &[0x0A, 1, 0xFF]), tagged(2, &[0x10, 1])].concat()),
            "invalid labels",
        ),
    ];
    for (n, (name, bad, reason)) in cases.iter().enumerate() {
        let n = n as i64 * 2;
        let (status, text) = role.write("a", &[good(n), bad.clone(), good(n + 1)].concat()).await;
        assert_eq!(status, 400, "{name}: {text}");
        assert!(text.contains(reason) && text.contains("series"), "{name}: {text}");
        assert!(text.len() < 4096, "{name}: {} bytes of text", text.len());
        assert_eq!(role.samples("good").await.len() as i64, n + 2, "the good part of {name}");
    }
    for (name, fine, metric, count) in [
        ("unsorted labels", series(&[("z", "1"), ("__name__", "u"), ("a", "2")], &[(T0, 1.0)]), "u", 1),
        ("the same, sorted", series(&[("__name__", "u"), ("a", "2"), ("z", "1")], &[(T0 + 1, 1.0)]), "u", 2),
        ("stale marker", series(&[("__name__", "s")], &[(T0, STALE_NAN)]), "s", 1),
        (
            "other NaN",
            series(&[("__name__", "s")], &[(T0 + 1, f64::from_bits(0x7FF8_0000_0000_0123))]),
            "s",
            2,
        ),
        ("again", series(&[("__name__", "s")], &[(T0 + 1, f64::from_bits(0x7FF8_0000_0000_0123))]), "s", 2),
        ("empty label value", series(&[("__name__", "ev"), ("a", "")], &[(T0, 1.0)]), "ev", 1),
        ("series without samples", series(&[("__name__", "none")], &[]), "none", 0),
        ("empty request", Vec::new(), "none", 0),
    ] {
        assert_eq!(role.write("a", &fine).await, (200, String::new()), "{name}");
        assert_eq!(role.samples(metric).await.len(), count, "{name}");
    }
    let nan = role.samples("s").await;
    assert_eq!([nan[0].2, nan[1].2], [STALE_NAN.to_bits(), 0x7FF8_0000_0000_0123], "payloads are data");
    assert_eq!(role.samples("u").await[0].0, r#"{__name__="u", a="2", replica="r1", tenant_id="a", z="1"}"#);
    // A million samples in one series; they are ascending, so all are taken.
    let million: Vec<_> = (0..1_000_000).map(|i| (T0 - 1_000_000 + i, 1.0)).collect();
    assert_eq!(role.write("b", &series(&[("__name__", "million")], &million)).await, (200, String::new()));
    assert_eq!(role.samples("million").await.len(), 1_000_000);
    let (status, text) = role.write("../x", &good(1000)).await;
    assert_eq!((status, text.contains("invalid tenant")), (400, true), "{text}");
    let (status, text) = role.get("/api/v1/status/tsdb?all_tenants=true").await;
    assert_eq!(status, 200);
    assert!(text.contains(r#""tenant":"b""#) && text.contains(r#""numSeries":1"#), "{text}");
    let text = role.get("/metrics").await.1;
    for want in [
        r#"chronolith_receive_rejections_total{tenant="a",reason="out_of_order"} 1"#,
        r#"prometheus_tsdb_out_of_order_samples_total{tenant="a"} 1"#,
        r#"prometheus_tsdb_out_of_bound_samples_total{tenant="a"} 2"#,
        r#"prometheus_tsdb_head_series{tenant="b"} 1"#,
        r#"thanos_receive_write_samples_count{code="200",tenant="b"} 1"#,
    ] {
        assert!(text.contains(want), "{want} in {text}");
    }
    role.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ends_of_time_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let role = Role::start(config(dir.path()), Some(Bucket::in_memory()), &ManualClock::new(T0)).await;
    for (tenant, t) in [("min", i64::MIN), ("max", i64::MAX), ("zero", 0), ("before", -1)] {
        let (status, text) = role.write(tenant, &series(&[("__name__", "edge")], &[(t, 1.0)])).await;
        assert!(status == 200 || (status == 400 && text.contains("out of bounds")), "{t}: {status} {text}");
        assert_eq!(role.write(tenant, &minutes("m", T0, 10)).await.0, 200, "{t}");
    }
    assert_eq!(role.samples("m").await.len(), 40);
    role.maintenance.cut_due().await.unwrap();
    assert_eq!(role.samples("m").await.len(), 40);
    let (status, text) = role.flush().await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(role.samples("m").await.len(), 40);
    role.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_data_is_cut_shipped_kept_and_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = Bucket::in_memory();
    // The samples are months old: time is theirs.
    let clock = ManualClock::new(chronolith_service::Clock::now_ms(&chronolith_service::SystemClock));
    let role = Role::start(config(dir.path()), Some(bucket.clone()), &clock).await;
    for hour in 0..7 {
        assert_eq!(role.write("a", &minutes("m", T0 + hour * HOUR, 60)).await.0, 200);
    }
    role.maintenance.cut_due().await.unwrap();
    role.maintenance.ship().await.unwrap();
    let shipped = metas(&bucket).await;
    let times: Vec<_> =
        shipped.iter().map(|m| ((m.min_time - T0) / HOUR, (m.max_time - T0) / HOUR)).collect();
    assert_eq!(times, [(0, 2), (2, 4)], "aligned blocks; what is younger stays in the head");
    for meta in &shipped {
        assert_eq!(meta.stats.num_samples, 120);
        let thanos = meta.thanos.as_ref().unwrap();
        assert_eq!(thanos.source, "receive");
        assert_eq!(thanos.external_labels().unwrap().to_string(), r#"{replica="r1", tenant_id="a"}"#);
        assert!(thanos.upload_time.is_some() && !thanos.files.is_empty());
    }
    let uploaded = shipper_file::read(&dir.path().join("tenants/a"));
    assert_eq!(uploaded, shipped.iter().map(|m| m.ulid).collect());
    // Older than the retention, but too young to be known by every store gateway.
    assert_eq!(local_blocks(dir.path(), "a"), 2);
    let (status, text) = role.flush().await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(metas(&bucket).await.iter().map(|m| m.stats.num_samples).sum::<u64>(), 7 * 60);
    assert_eq!(role.samples("m").await.len(), 7 * 60);
    // Flushed heads take more, and a second flush ships only that.
    assert_eq!(role.write("a", &minutes("m", T0 + 7 * HOUR, 10)).await.0, 200);
    let (status, text) = role.flush().await;
    assert_eq!((status, text.as_str()), (200, r#"{"data":{"uploaded":1},"status":"success"}"#));
    assert_eq!(metas(&bucket).await.iter().map(|m| m.stats.num_samples).sum::<u64>(), 7 * 60 + 10);
    clock.advance(2 * HOUR);
    let report = role.maintenance.ship().await.unwrap();
    assert_eq!((report.uploaded, report.dropped), (0, shipped.len() + 3));
    assert_eq!(local_blocks(dir.path(), "a"), 0);
    assert!(role.samples("m").await.is_empty());
    assert_eq!(metas(&bucket).await.iter().map(|m| m.stats.num_samples).sum::<u64>(), 7 * 60 + 10);
    role.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_stops_is_flushed_uploaded_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = Bucket::in_memory();
    let clock = ManualClock::new(chronolith_service::Clock::now_ms(&chronolith_service::SystemClock));
    let config = Config { retention_ms: 24 * HOUR, ..config(dir.path()) };
    let role = Role::start(config, Some(bucket.clone()), &clock).await;
    let now = chronolith_service::Clock::now_ms(&clock);
    assert_eq!(role.write("a", &minutes("m", now - HOUR, 10)).await.0, 200);
    assert_eq!(role.write("b", &minutes("m", now - HOUR, 10)).await.0, 200);
    let round = || async {
        role.maintenance.cut_due().await.unwrap();
        role.maintenance.ship().await.unwrap();
        role.maintenance.forget_idle().await.unwrap();
    };
    round().await;
    assert!(metas(&bucket).await.is_empty(), "too little to be cut");
    clock.advance(4 * HOUR);
    assert_eq!(role.write("b", &minutes("m", now + 3 * HOUR, 10)).await.0, 200);
    round().await;
    let tenants = |metas: &[BlockMeta]| {
        let of = |m: &BlockMeta| m.thanos.as_ref().unwrap().external_labels().unwrap();
        let mut all: Vec<_> =
            metas.iter().map(|m| of(m).get("tenant_id").unwrap_or_default().to_owned()).collect();
        all.sort();
        all.dedup();
        all
    };
    let shipped = metas(&bucket).await;
    assert_eq!(shipped.iter().map(|m| m.stats.num_samples).sum::<u64>(), 20, "{shipped:?}");
    assert_eq!(tenants(&shipped), ["a", "b"], "b had more than one and a half block ranges");
    clock.advance(26 * HOUR);
    assert_eq!(role.write("b", &minutes("m", now + 29 * HOUR, 10)).await.0, 200);
    round().await;
    assert!(!dir.path().join("tenants/a").exists());
    assert!(dir.path().join("tenants/b").exists());
    let text = role.get("/api/v1/status/tsdb?all_tenants=true").await.1;
    assert!(!text.contains(r#""tenant":"a""#) && text.contains(r#""tenant":"b""#), "{text}");
    // And comes back.
    assert_eq!(role.write("a", &minutes("m", now + 30 * HOUR, 10)).await.0, 200);
    assert_eq!(role.samples("m").await.iter().filter(|s| s.0.contains(r#"tenant_id="a""#)).count(), 10);
    role.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_bucket_fails_writes_go_on_and_nothing_doubles() {
    let dir = tempfile::tempdir().unwrap();
    let honest = Bucket::in_memory();
    let (bucket, faults) = FaultyStore::around(&honest);
    let clock = ManualClock::new(T0 + 10 * HOUR);
    let role = Role::start(config(dir.path()), Some(bucket), &clock).await;
    faults.set(StoreFaults { fail: 1.0, ..StoreFaults::default() });
    let mut written = 0;
    for hour in 0..6 {
        assert_eq!(role.write("a", &minutes("m", T0 + hour * HOUR, 60)).await.0, 200);
        written += 60;
        role.maintenance.cut_due().await.unwrap();
        if hour == 5 {
            let error = role.maintenance.ship().await.unwrap_err();
            assert!(error.to_string().contains("tenant a, block 0"), "{error}");
        }
    }
    assert!(metas(&honest).await.is_empty());
    let waiting = local_blocks(dir.path(), "a");
    assert!(waiting >= 2);
    assert_eq!(role.samples("m").await.len(), written);
    assert!(role.metrics.text().contains(&format!("chronolith_receive_blocks_waiting {waiting}\n")));
    // Half of everything fails, some of it after it took effect.
    faults.set(StoreFaults { fail: 0.3, fail_after_write: 0.3, truncate: 0.1, ..StoreFaults::default() });
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while role.maintenance.ship().await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "shipping never succeeds");
    }
    faults.set(StoreFaults::default());
    assert_eq!(role.maintenance.ship().await.unwrap().uploaded, 0);
    let shipped = metas(&honest).await;
    assert_eq!(shipped.len(), waiting);
    assert_eq!(shipped.iter().map(|m| m.stats.num_samples).sum::<u64>(), 60 * 2 * waiting as u64);
    assert_eq!(local_blocks(dir.path(), "a"), waiting, "the retention has not passed");
    role.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_rots_on_disk_is_not_shipped() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = Bucket::in_memory();
    let clock = ManualClock::new(T0 + 10 * HOUR);
    let role = Role::start(config(dir.path()), None, &clock).await;
    for hour in 0..4 {
        role.write("a", &minutes("m", T0 + hour * HOUR, 60)).await;
    }
    role.maintenance.cut_due().await.unwrap();
    let (status, text) = role.flush().await;
    assert_eq!((status, text.contains("no object storage")), (400, true), "{text}");
    role.stop().await.unwrap();
    let tenant_dir = dir.path().join("tenants/a");
    let block =
        std::fs::read_dir(&tenant_dir).unwrap().map(|e| e.unwrap().path()).find(|p| p.join("index").exists());
    let segment = block.unwrap().join("chunks/000001");
    let mut bytes = std::fs::read(&segment).unwrap();
    let last = bytes.len() - 10;
    bytes[last] ^= 0xFF;
    std::fs::write(&segment, bytes).unwrap();
    let role = Role::start(config(dir.path()), Some(bucket.clone()), &clock).await;
    let report = role.maintenance.ship().await.unwrap();
    assert_eq!((report.uploaded, report.damaged), (0, 1));
    assert!(metas(&bucket).await.is_empty());
    let (status, text) = role.flush().await;
    assert_eq!((status, text.contains("damaged")), (500, true), "{text}");
    assert!(!metas(&bucket).await.is_empty(), "the sound rest was shipped");
    role.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything_and_a_drain_ships_it() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = Bucket::in_memory();
    let clock = ManualClock::new(T0 + 10 * HOUR);
    for round in 0..3 {
        let role = Role::start(config(dir.path()), Some(bucket.clone()), &clock).await;
        assert_eq!(role.samples("m").await.len(), round * 30);
        assert_eq!(role.write("a", &minutes("m", T0 + round as i64 * HOUR / 2, 30)).await.0, 200);
        role.stop().await.unwrap();
    }
    assert!(metas(&bucket).await.is_empty(), "without --drain nothing is cut early");
    let drain = Config { drain: true, ..config(dir.path()) };
    let role = Role::start(drain.clone(), Some(bucket.clone()), &clock).await;
    role.stop().await.unwrap();
    assert_eq!(metas(&bucket).await.iter().map(|m| m.stats.num_samples).sum::<u64>(), 90);
    let role = Role::start(drain, Some(bucket.clone()), &clock).await;
    assert_eq!(role.samples("m").await.len(), 90);
    role.stop().await.unwrap();
    assert_eq!(metas(&bucket).await.iter().map(|m| m.stats.num_samples).sum::<u64>(), 90, "nothing doubles");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_into_a_dead_bucket_fails_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (bucket, faults) = FaultyStore::around(&Bucket::in_memory());
    let clock = ManualClock::new(T0 + 10 * HOUR);
    let drain = Config { drain: true, drain_timeout_ms: 1500, ..config(dir.path()) };
    let role = Role::start(drain, Some(bucket), &clock).await;
    assert_eq!(role.write("a", &minutes("m", T0, 30)).await.0, 200);
    faults.set(StoreFaults { fail: 1.0, ..StoreFaults::default() });
    assert!(matches!(role.stop().await, Err(ReceiveError::Ship { .. })));
    let role = Role::start(config(dir.path()), None, &clock).await;
    assert_eq!(role.samples("m").await.len(), 30);
    role.stop().await.unwrap();
}
