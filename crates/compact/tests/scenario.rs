//! The compaction scenario that Thanos tests itself with (`TestCompactWithStoreGateway`): groups that are ready or not, marked
//! blocks, replicas that overlap in part and wholly, with one replica label and two, a long block to be downsampled, and five
//! kinds of stopped uploads. The numbers are its.

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use chronolith_bucket::{DeletionMark, NoCompactMark, layout};
use chronolith_compact::Config;
use chronolith_model::BlockId;
use chronolith_objstore::Bucket;
use chronolith_tsdb::merge::Deduplication;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use world::{HOUR_MS, NOW_MS, Worker, config, labels, put_block, worker};

/// External labels, beginning and end in hours, the values of label `b`.
type Described<'a> = (&'a [(&'a str, &'a str)], i64, i64, &'a [&'a str]);

/// 120 samples a series, evenly over the block; as there, each block draws the same random values.
async fn put(
    bucket: &Bucket,
    n: u128,
    (external, from, to, bs): Described<'_>,
    name: &str,
    samples: usize,
) -> BlockId {
    let (from, to) = (NOW_MS + from * HOUR_MS, NOW_MS + to * HOUR_MS);
    let step = (to - from) / (samples as i64 + 1);
    let mut rng = StdRng::seed_from_u64(samples as u64);
    let mut values: Vec<Vec<(i64, f64)>> = vec![Vec::new(); bs.len()];
    for i in 0..samples as i64 {
        for series in &mut values {
            series.push((from + i * step, rng.random::<f64>()));
        }
    }
    let series = bs.iter().zip(values).map(|(b, samples)| (labels(&[(name, "1"), ("b", b)]), samples));
    put_block(bucket, n, &labels(external), (from, to), series.collect()).await
}

const MARKED: &str = "compaction-ready-one-block-marked-for-no-compact";

async fn fill(bucket: &Bucket) -> usize {
    let r1 = ("replica", "1");
    let case = |name| ("case", name);
    let no = [case("no-compaction"), r1];
    let ready = [case("compaction-ready"), r1];
    let marked = [case(MARKED), r1];
    let after = [case("compaction-ready-after-dedup"), r1];
    let after2 = [case("compaction-ready-after-dedup"), ("replica", "2")];
    let partial = |replica| [case("a-partial-overlap-dedup-ready"), ("replica", replica)];
    let multi = |rule| [case("partial-multi-replica-overlap-dedup-ready"), r1, ("rule_replica", rule)];
    let full = |replica| [case("full-replica-overlap-dedup-ready"), ("replica", replica)];
    let (p1, p2, p3) = (partial("1"), partial("2"), partial("3"));
    let (m1, m2) = (multi("1"), multi("2"));
    let (f1, f2) = (full("1"), full("2"));
    let blocks: Vec<Described<'_>> = vec![
        (&no, 0, 2, &["2"]),
        (&no, 2, 4, &["2"]),
        (&no, 4, 6, &["2"]),
        (&ready, 0, 2, &["2"]),
        (&ready, 2, 4, &["3"]),
        (&ready, 4, 6, &["4"]),
        (&ready, 6, 8, &["5"]),
        (&ready, 8, 10, &["6"]),
        (&marked, 0, 2, &["2"]),
        (&marked, 2, 4, &["3"]),
        (&marked, 4, 6, &["4"]),
        (&marked, 6, 8, &["5"]),
        (&marked, 8, 10, &["6"]),
        (&after, 0, 2, &["2"]),
        (&after, 2, 4, &["3"]),
        (&after, 4, 6, &["4"]),
        (&after2, 6, 8, &["5"]),
        (&after, 8, 10, &["6"]),
        (&p1, 0, 2, &["1", "2"]),
        (&p2, 1, 4, &["2", "3"]),
        (&p3, 3, 4, &["2", "4"]),
        (&p1, 4, 6, &["2", "5"]),
        (&m1, 0, 2, &["1", "2"]),
        (&m2, 1, 4, &["2", "3"]),
        (&m1, 1, 4, &["2", "4"]),
        (&m1, 4, 6, &["2", "5"]),
        (&f1, 0, 2, &["1", "2"]),
        (&f2, 0, 2, &["2", "3"]),
        (&f1, 2, 4, &["2", "4"]),
        (&f1, 4, 6, &["2", "5"]),
    ];
    for (n, block) in blocks.iter().enumerate() {
        let id = put(bucket, n as u128 + 1, *block, "a", 120).await;
        if block.0 == marked && block.1 == 4 {
            NoCompactMark::write(bucket, id, NOW_MS, "why not", "manual").await.unwrap();
        }
    }
    blocks.len()
}

/// Uploads that stopped: fresh and older ones, without and with a mark, and one whose mark is 50 h old.
async fn stop_uploads(bucket: &Bucket) -> Vec<BlockId> {
    let mut ids = Vec::new();
    for n in 0..5u128 {
        let external = [("case", "malformed-things"), ("replica", "101")];
        let id = put(bucket, 500 + n, (&external, 0, 2, &["2"]), "a", 120).await;
        bucket.delete(&layout::key(id, layout::META)).await.unwrap();
        if n % 2 == 1 {
            DeletionMark::write(bucket, id, NOW_MS, "").await.unwrap();
        }
        if n == 4 {
            DeletionMark::write(bucket, id, NOW_MS - 50 * HOUR_MS, "").await.unwrap();
        }
        ids.push(id);
    }
    ids
}

/// Samples of series with `a="1"` by their labels, external ones included.
async fn counts(bucket: &Bucket) -> BTreeMap<String, usize> {
    let mut out = BTreeMap::new();
    for ((external, labels), samples) in world::read_copies(bucket).await {
        if labels.contains("a=\"1\"") {
            let b = labels.split("b=\"").nth(1).unwrap().chars().next().unwrap();
            *out.entry(format!("{b} {}", external.replace('"', ""))).or_default() += samples.len();
        }
    }
    out
}

fn expected(partial: usize, multi: usize) -> BTreeMap<String, usize> {
    let mut out = BTreeMap::new();
    let mut add = |bs: &str, count, external: String| {
        for b in bs.chars() {
            assert!(out.insert(format!("{b} {{{external}}}"), count).is_none());
        }
    };
    add("2", 360, "case=no-compaction, replica=1".to_owned());
    for case in ["compaction-ready", "compaction-ready-after-dedup"] {
        add("2345", 120, format!("case={case}"));
        add("6", 120, format!("case={case}, replica=1"));
    }
    add("23", 120, format!("case={MARKED}"));
    add("456", 120, format!("case={MARKED}, replica=1"));
    add("134", 120, "case=a-partial-overlap-dedup-ready".to_owned());
    add("2", partial, "case=a-partial-overlap-dedup-ready".to_owned());
    add("25", 120, "case=a-partial-overlap-dedup-ready, replica=1".to_owned());
    let case = "case=partial-multi-replica-overlap-dedup-ready";
    add("134", 120, case.to_owned());
    add("2", multi, case.to_owned());
    add("25", 120, format!("{case}, replica=1, rule_replica=1"));
    add("123", 120, "case=full-replica-overlap-dedup-ready".to_owned());
    add("45", 120, "case=full-replica-overlap-dedup-ready, replica=1".to_owned());
    add("2", 240, "case=full-replica-overlap-dedup-ready, replica=1".to_owned());
    out
}

fn with_replicas(deduplication: Deduplication) -> Config {
    let replica_labels = vec!["replica".to_owned(), "rule_replica".to_owned()];
    Config { replica_labels, deduplication, ..config() }
}

fn check(w: &Worker, want: &[(&str, f64)]) {
    for (name, value) in want {
        assert_eq!(w.metric(name), *value, "{name}");
    }
}

async fn scenario(deduplication: Deduplication, partial: usize, multi: usize) {
    let bucket = Bucket::in_memory();
    let raw = fill(&bucket).await;
    let long =
        put(&bucket, 400, (&[("case", "block-about-to-be-downsampled")], 0, 240, &["2", "5"]), "z", 1200)
            .await;
    let stopped = stop_uploads(&bucket).await;
    let dir = tempfile::tempdir().unwrap();
    // What a crash left in the work directory goes.
    let left = dir.path().join("compact/0@1/01ARZ3NDEKTSV4RRFFQ69G5FAV");
    std::fs::create_dir_all(&left).unwrap();

    let w = worker(&bucket, dir.path(), with_replicas(deduplication));
    assert!(!left.exists());
    let report = w.compactor.iterate().await.unwrap();
    assert_eq!((report.compactions, report.downsamples, report.failed), (6, 2, 0), "{report:?}");
    check(
        &w,
        &[
            ("thanos_compact_halted", 0.0),
            ("thanos_compact_iterations_total", 1.0),
            ("thanos_compact_blocks_marked_total", 18.0),
            ("thanos_compact_group_compactions_total", 6.0),
            ("thanos_compact_group_vertical_compactions_total", 3.0),
            ("thanos_compact_group_compactions_failures_total", 0.0),
            ("thanos_compact_group_compaction_runs_started_total", 14.0),
            ("thanos_compact_group_compaction_runs_completed_total", 14.0),
            ("thanos_compact_downsample_total", 2.0),
            ("thanos_compact_downsample_failures_total", 0.0),
            ("thanos_compact_aborted_partial_uploads_deletion_attempts_total", 0.0),
            ("thanos_compact_todo_compactions", 0.0),
            // Of the stopped uploads only the one whose mark is due is gone.
            ("thanos_compact_blocks_cleaned_total", 1.0),
            ("thanos_compact_block_cleanup_failures_total", 0.0),
        ],
    );
    assert_eq!(world::blocks(&bucket).await.len(), raw + 1 + 6 + 2);
    drop(w);

    // Without a delay the marked ones go, and with them the two stopped uploads that are marked.
    let w =
        worker(&bucket, dir.path(), Config { delete_delay: Duration::ZERO, ..with_replicas(deduplication) });
    let report = w.compactor.iterate().await.unwrap();
    assert_eq!((report.compactions, report.downsamples, report.failed), (0, 0, 0));
    check(
        &w,
        &[
            ("thanos_compact_blocks_cleaned_total", 18.0 + 2.0),
            ("thanos_compact_group_compactions_total", 0.0),
            ("thanos_compact_group_compaction_runs_started_total", 7.0),
            ("thanos_compact_group_compaction_runs_completed_total", 7.0),
            ("thanos_compact_blocks_marked_total", 0.0),
        ],
    );
    assert_eq!(world::blocks(&bucket).await.len(), 21);
    assert_eq!(counts(&bucket).await, expected(partial, multi));
    for (n, id) in stopped.iter().enumerate() {
        let there = bucket.exists(&layout::key(*id, layout::INDEX)).await.unwrap();
        assert_eq!(there, n % 2 == 0 && n != 4, "stopped upload {n}");
    }

    // The coarser blocks answer for the long one when it is gone.
    chronolith_bucket::delete_block(&bucket, long).await.unwrap();
    assert_eq!(world::blocks(&bucket).await.len(), 20);
    let report = w.compactor.iterate().await.unwrap();
    assert_eq!((report.compactions, report.downsamples), (0, 0));
}

#[tokio::test]
async fn one_to_one() {
    scenario(Deduplication::OneToOne, 360, 240).await;
}

/// Thanos has 200 and 195 here. It takes each *chunk* for a replica, and so loses and doubles samples where one replica's chunk
/// ends inside another's: its head cuts these random values after 117 samples, and its way of folding gives 200 and 195 for
/// that length, 202 and 199 for 118, 207 and 196 for 110. We follow whole replicas: 120 samples of the first, then the 79 of
/// the second that lie more than two intervals behind its end, wherever chunks end.
#[tokio::test]
async fn penalty() {
    scenario(Deduplication::Penalty, 199, 199).await;
}

/// Where Thanos halts, since nobody told it of replicas, what overlaps within one producer is put together.
#[tokio::test]
async fn overlaps_halt_nothing() {
    let bucket = Bucket::in_memory();
    fill(&bucket).await;
    let before = world::read_copies(&bucket).await;
    let dir = tempfile::tempdir().unwrap();
    let w = worker(&bucket, dir.path(), config());
    let report = w.compactor.iterate().await.unwrap();
    assert_eq!(report.failed, 0);
    check(
        &w,
        &[
            ("thanos_compact_halted", 0.0),
            ("thanos_compact_group_compactions_failures_total", 0.0),
            ("thanos_compact_group_vertical_compactions_total", 1.0),
        ],
    );
    assert!(world::read(&bucket).await == before, "every sample of every producer, once");
}
