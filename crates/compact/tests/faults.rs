//! Whatever happens to compactors, readers see every sample once, at every moment, and the next run finishes the work.

mod world;

use std::sync::Arc;
use std::time::Duration;

use chronolith_compact::Config;
use chronolith_objstore::Bucket;
use chronolith_testkit::{FaultyStore, StoreFaults};
use futures::stream::BoxStream;
use object_store::path::Path;

use world::{
    Content, HOUR_MS, config, deaths, fill, finish, finished, labels, put_block, read, series, times, worker,
};

/// Killed at each call to the store in turn: before it has an effect, or after, when only its answer is lost; with
/// `CHRONOLITH_SOAK` set both at each call.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_at_any_call() {
    let full = Bucket::in_memory();
    fill(&full).await;
    let before = Arc::new(read(&full).await);
    let (counted, control) = FaultyStore::around(&world::copy(&full).await);
    let dir = tempfile::tempdir().unwrap();
    worker(&counted, dir.path(), config()).compactor.iterate().await.unwrap();
    let calls = control.operations();
    assert!(calls > 40, "{calls} calls");
    deaths(calls, |n, applied| {
        let (full, before) = (full.clone(), before.clone());
        async move { die_and_come_back(&full, &before, n, applied).await }
    })
    .await;
}

async fn die_and_come_back(full: &Bucket, before: &Content, n: u64, applied: bool) {
    let bucket = world::copy(full).await;
    let (faulty, control) = FaultyStore::around(&bucket);
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    control.die_after(n, applied);
    // The work directory's lock goes with its process.
    let _ = worker(&faulty, dir.path(), config()).compactor.iterate().await;
    assert!(read(&bucket).await == *before, "after a death at call {n}");
    // The same machine comes back, or another one has to wait for the lease.
    finish(&bucket, if n.is_multiple_of(5) { other.path() } else { dir.path() }).await;
    finished(&bucket, before).await;
}

/// Two and five compactors at once, slow storage that fails now and then, wrong clocks, leases that run out under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once() {
    for workers in [2, 5] {
        let bucket = Bucket::in_memory();
        fill(&bucket).await;
        let before = read(&bucket).await;
        let mut tasks = tokio::task::JoinSet::new();
        for i in 0..workers {
            let (faulty, control) = FaultyStore::around(&bucket);
            control.set(StoreFaults {
                latency: Duration::from_millis(1 + 2 * i),
                fail: 0.02,
                fail_after_write: 0.02,
                ..StoreFaults::default()
            });
            tasks.spawn(async move {
                let dir = tempfile::tempdir().unwrap();
                // Shorter than a job takes on the slowest of these stores: some lose their leases.
                let config = Config { lease_duration: Duration::from_millis(40 + 60 * i), ..config() };
                let w = worker(&faulty, dir.path(), config);
                w.clock.advance([0, -HOUR_MS / 4, 5 * HOUR_MS, -3 * HOUR_MS, HOUR_MS][i as usize]);
                // Until a look finds nothing that is left, or long enough.
                for _ in 0..20 {
                    if let Ok(report) = w.compactor.iterate().await
                        && report.compactions + report.failed + report.busy == 0
                    {
                        break;
                    }
                }
            });
        }
        let readers = Arc::new(bucket.clone());
        while let Some(worker) = tasks.join_next().await {
            worker.unwrap();
            // Two whose views differ, one of them without its lease, may have made blocks that share some of their sources;
            // readers take equal samples once, and the next compaction puts them together.
            assert!(world::read_copies(&readers).await == before, "{workers} workers");
        }
        let dir = tempfile::tempdir().unwrap();
        finish(&bucket, dir.path()).await;
        finished(&bucket, &before).await;
    }
}

/// A damaged block, a missing segment and an index of another size are left out with a mark; the rest of the group goes on.
#[tokio::test]
async fn bad_blocks_are_isolated() {
    let bucket = Bucket::in_memory();
    fill(&bucket).await;
    let before = read(&bucket).await;
    let ids: Vec<_> = world::blocks(&bucket).await.into_iter().collect();
    let segment = format!("{}/chunks/000001", ids[1]);
    let mut bytes = bucket.get(&segment).await.unwrap().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    bucket.put(&segment, bytes.into()).await.unwrap();
    bucket.delete(&format!("{}/chunks/000001", ids[6])).await.unwrap();
    bucket.put("garbage", "x".into()).await.unwrap();
    bucket.put(&format!("{}/deletion-mark.json", ids[8]), "{".into()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let w = worker(&bucket, dir.path(), config());
    let report = w.compactor.iterate().await.unwrap();
    assert_eq!((report.compactions, report.failed), (1, 0), "{report:?}");
    assert_eq!(w.metric("thanos_compact_group_compactions_failures_total"), 2.0);
    for (n, id) in ids.iter().enumerate() {
        let mark = chronolith_bucket::NoCompactMark::read(&bucket, *id).await.unwrap();
        let reason = mark.map(|m| m.reason);
        assert_eq!(reason.as_deref(), (n == 1 || n == 6).then_some("block-damaged"), "block {n}");
    }
    // Blocks 3 and 4 of the first group became one; nobody touched the damaged ones.
    let left = world::blocks(&bucket).await;
    assert!(left.contains(&ids[1]) && left.contains(&ids[6]));
    drop(before);
}

/// A deletion mark that says nothing is none: its block is compacted, and marked and deleted as any other.
#[tokio::test]
async fn a_garbage_deletion_mark_holds_nothing_up() {
    for garbage in ["", "{", "[1]", "null"] {
        let bucket = Bucket::in_memory();
        fill(&bucket).await;
        let before = read(&bucket).await;
        for id in world::blocks(&bucket).await.into_iter().step_by(3) {
            bucket.put(&format!("{id}/deletion-mark.json"), garbage.into()).await.unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        finish(&bucket, dir.path()).await;
        finished(&bucket, &before).await;
    }
}

/// What no index could hold is split, and a crash between the parts is put right.
#[tokio::test]
async fn split_results_survive_a_crash() {
    let full = Bucket::in_memory();
    let external = labels(&[("g", "a")]);
    for i in 0..5 {
        let all = (0..60).map(|n| series(n, 2 * i, 2 * i + 2)).collect();
        put_block(&full, i as u128 + 1, &external, times(2 * i, 2 * i + 2), all).await;
    }
    let before = world::read_copies(&full).await;
    let small = || Config { index_bytes_max: 8_000, ..config() };
    let mut split = 0;
    for n in (0..).step_by(3) {
        let bucket = world::copy(&full).await;
        let (faulty, control) = FaultyStore::around(&bucket);
        let dir = tempfile::tempdir().unwrap();
        control.die_after(n, n % 2 == 0);
        let died = {
            let w = worker(&faulty, dir.path(), small());
            let _ = w.compactor.iterate().await;
            control.is_dead()
        };
        assert!(world::read_copies(&bucket).await == before, "after a death at call {n}");
        for _ in 0..2 {
            let w = worker(&bucket, dir.path(), Config { delete_delay: Duration::ZERO, ..small() });
            let report = w.compactor.iterate().await.unwrap();
            assert_eq!(report.failed, 0);
        }
        // Now no sample is there twice: the parts stand for their inputs.
        assert!(read(&bucket).await == before, "after a death at call {n}");
        split = world::blocks(&bucket).await.len();
        assert!(split > 2, "parts and the newest block");
        if !died {
            break;
        }
    }
    assert!(split > 2);
}

/// An idle compactor costs next to nothing.
#[tokio::test(start_paused = true)]
async fn idle_requests_are_few() {
    let bucket = Bucket::in_memory();
    fill(&bucket).await;
    let (counted, control) = FaultyStore::around(&bucket);
    let dir = tempfile::tempdir().unwrap();
    let w = worker(&counted, dir.path(), config());
    w.compactor.iterate().await.unwrap();
    w.compactor.iterate().await.unwrap();
    let start = control.operations();
    for _ in 0..288 {
        tokio::time::advance(Duration::from_secs(300)).await;
        w.compactor.iterate().await.unwrap();
    }
    // A day: one short listing each time, a full one an hour.
    let day = control.operations() - start;
    assert!(day <= 288 + 24, "{day} requests");
}

/// An upload that stopped is deleted when nothing of it was written for 48 hours, and never while it goes on.
#[tokio::test]
async fn stopped_uploads_go_after_two_days() {
    use chronolith_service::{Clock, SystemClock};
    let bucket = Bucket::in_memory();
    let id = put_block(&bucket, 1, &labels(&[("g", "a")]), times(0, 2), vec![series(1, 0, 2)]).await;
    bucket.delete(&format!("{id}/meta.json")).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let w = worker(&bucket, dir.path(), config());
    for (hours, there) in [(47, true), (49, false)] {
        w.clock.set(SystemClock.now_ms() + hours * HOUR_MS);
        w.compactor.iterate().await.unwrap();
        assert_eq!(bucket.exists(&format!("{id}/index")).await.unwrap(), there, "after {hours} h");
    }
    assert_eq!(w.metric("thanos_compact_aborted_partial_uploads_deletion_attempts_total"), 1.0);
    assert_eq!(w.metric("thanos_compact_blocks_cleaned_total"), 1.0);
}

/// Stores that ignore conditions are not shared; whoever says that there is one worker only may go on.
#[tokio::test]
async fn a_store_that_ignores_conditions_is_not_shared() {
    let bucket = Bucket::in_memory().wrapped(|store| Arc::new(Careless(store)));
    let dir = tempfile::tempdir().unwrap();
    let w = worker(&bucket, dir.path(), config());
    assert!(!w.compactor.leases().probe().await.unwrap());
    drop(w);
    let w = worker(&bucket, dir.path(), Config { single_worker: true, ..config() });
    assert!(w.compactor.leases().probe().await.unwrap());
    fill(&bucket).await;
    let before = read(&bucket).await;
    w.compactor.iterate().await.unwrap();
    drop(w);
    finished(&bucket, &before).await;
}

/// Overwrites whatever it is told to create.
#[derive(Debug)]
struct Careless(Arc<dyn object_store::ObjectStore>);

impl std::fmt::Display for Careless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Careless({})", self.0)
    }
}

#[async_trait::async_trait]
impl object_store::ObjectStore for Careless {
    async fn put_opts(
        &self,
        at: &Path,
        payload: object_store::PutPayload,
        opts: object_store::PutOptions,
    ) -> object_store::Result<object_store::PutResult> {
        let opts = object_store::PutOptions { mode: object_store::PutMode::Overwrite, ..opts };
        self.0.put_opts(at, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: object_store::PutMultipartOptions,
    ) -> object_store::Result<Box<dyn object_store::MultipartUpload>> {
        self.0.put_multipart_opts(at, opts).await
    }

    async fn get_opts(
        &self,
        at: &Path,
        options: object_store::GetOptions,
    ) -> object_store::Result<object_store::GetResult> {
        self.0.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(
        &self,
        prefix: Option<&Path>,
    ) -> BoxStream<'static, object_store::Result<object_store::ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(
        &self,
        prefix: Option<&Path>,
    ) -> object_store::Result<object_store::ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: object_store::CopyOptions,
    ) -> object_store::Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}
