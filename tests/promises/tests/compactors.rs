//! Compactors, uploaders and the store gateway are killed, stopped, slowed and misled while somebody asks: every sample is there once,
//! an answer that lacks something says so, and the next run finishes the work.

use std::time::Duration;

use chronolith_promises::{
    Archive, Compactor, CompactorPlace, Effort, Group, Reading, Scratch, SlowProxy, SmallDisk,
};
use chronolith_testkit::{Chronolith, Process, S3Faults, damage, wait_until};

const PATIENCE: Duration = Duration::from_secs(120);
/// Uploaders of each part before the one that comes to its end.
const UPLOADERS_KILLED: usize = 3;

/// Numbers that look like chance and are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n) as usize
    }
}

/// A group that is compacted twice over and downsampled, one of replicas that overlap, one with nothing to do.
fn groups() -> [Group; 3] {
    let replicas = Group { replicas: 2, ..Group::new("b", 6) };
    [Group::new("a", 26), replicas, Group::new("c", 1)]
}

/// Six blocks, of which the first four become one.
fn more(name: &str) -> Group {
    Group::new(name, 6)
}

/// Requests that the bucket has answered since they were last forgotten.
fn requests(archive: &Archive) -> usize {
    archive.s3.counts().values().sum()
}

/// Lets a process make so many requests (others may make some of them), unless it ends before.
fn let_run(archive: &Archive, count: usize, process: &mut Process) {
    archive.s3.clear_requests();
    wait_until("requests", PATIENCE, || (requests(archive) >= count || process.is_over()).then_some(()));
}

/// Uploads everything: some uploaders are killed after some requests, one comes to its end.
fn upload_with_kills(archive: &Archive, groups: &[Group], chance: &mut Chance) {
    let mut kills = 0;
    for group in groups {
        let made = archive.make(group);
        for part in 0..group.replicas {
            for _ in 0..UPLOADERS_KILLED {
                let mut uploader = archive.uploader(&made, part);
                let_run(archive, 20 + chance.below(120), &mut uploader);
                kills += usize::from(!uploader.is_over());
                uploader.kill();
            }
            archive.upload(&made, part);
        }
    }
    assert!(kills > 0);
    groups.iter().for_each(|group| archive.expect(group));
}

/// Waits until a compactor has looked at everything and found nothing to do.
fn wait_idle(compactor: &Compactor) {
    let metric = |name: &str| compactor.process.metric(name);
    let begun = metric("thanos_compact_iterations_total");
    wait_until("the compactor to be done", PATIENCE, || {
        let idle = metric("thanos_compact_todo_compactions") == 0.0
            && metric("thanos_compact_iterations_total") >= begun + 2.0;
        idle.then_some(())
    });
}

#[test]
fn killed_at_random_points_nothing_is_lost_or_doubled() {
    let mut archive = Archive::start("compactor-kills");
    let mut chance = Chance(5);
    // Marked blocks stay for two days, so no answer has an excuse but that of a store that is away.
    let mut compactor = archive.compactor("compactor", CompactorPlace::default());
    compactor.process.wait_ready();
    upload_with_kills(&archive, &groups(), &mut chance);
    archive.wait_complete();
    for round in 0..Effort::asked().rounds(10) {
        compactor.process.crash();
        // Where a round found nothing to do, there is more to do.
        if round % 4 == 3 {
            archive.add(&more(&format!("more-{round}")));
        }
        compactor.process.start_again();
        archive.s3.clear_requests();
        let stop_at = 30 + chance.below(150);
        wait_until("requests", PATIENCE, || (requests(&archive) >= stop_at).then_some(()));
        if round % 3 == 1 {
            archive.store.crash();
            archive.store.start_again();
            archive.store.wait_ready();
            archive.wait_complete();
        } else {
            assert_eq!(archive.read(), Reading::Complete, "round {round}");
        }
    }
    compactor.process.crash_and_restart();
    let watch = archive.watch();
    wait_idle(&compactor);
    watch.wait_for(3);
    assert_eq!((watch.partial(), watch.failed()), (0, 0));
    watch.stop();
    compactor.process.stop();
    archive.assert_settled();
    archive.stop();
}

/// The fault itself, or what a replaced piece of infrastructure does to some of the compactors.
fn places(archive: &Archive, proxies: &[SlowProxy], count: usize) -> Vec<CompactorPlace> {
    let off = [0, -600, 3 * 3600, 240, -2 * 3600];
    let place = |i: usize| CompactorPlace {
        endpoint: (i < proxies.len()).then(|| proxies[i].address().to_owned()),
        envs: if off[i] == 0 { Vec::new() } else { archive.clock_off(off[i]) },
        ..CompactorPlace::default()
    };
    (0..count).map(place).collect()
}

/// Waits until another worker takes the lease; false when all others find nothing to do, as its holder had done the work when it was
/// stopped.
fn wait_taken_over(
    archive: &Archive,
    compactors: &[Compactor],
    victim: usize,
    group: &str,
    token: u64,
) -> bool {
    let others = || compactors.iter().enumerate().filter(|(i, _)| *i != victim).map(|(_, c)| &c.process);
    let iterations = |c: &Chronolith| c.metric("thanos_compact_iterations_total");
    let begun: Vec<f64> = others().map(iterations).collect();
    wait_until("another one to take the lease", PATIENCE, || {
        let done = || {
            others().zip(&begun).all(|(c, begun)| {
                iterations(c) >= begun + 2.0 && c.metric("thanos_compact_todo_compactions") == 0.0
            })
        };
        (archive.token(group) > token).then_some(true).or_else(|| done().then_some(false))
    })
}

fn share_a_bucket(workers: usize) {
    let archive = Archive::start(&format!("compactors-{workers}"));
    let mut chance = Chance(workers as u64);
    // The first is slow: it holds its leases for long.
    let proxies = [SlowProxy::start(&archive.s3.endpoint())];
    proxies[0].delay(Duration::from_millis(20));
    let places = places(&archive, &proxies, workers);
    let names = (0..workers).map(|i| format!("compactor-{i}"));
    let mut compactors: Vec<Compactor> =
        names.zip(places).map(|(name, place)| archive.compactor(&name, place)).collect();
    for compactor in &mut compactors {
        compactor.process.wait_ready();
    }
    let watch = archive.watch();
    upload_with_kills(&archive, &groups(), &mut chance);
    archive.wait_complete();
    let mut taken_over = 0;
    for round in 0..Effort::asked().rounds(4) {
        archive.add(&more(&format!("more-{round}")));
        // Whoever holds a lease, or the slow one at its next.
        let held = |compactors: &[Compactor]| {
            compactors.iter().enumerate().find_map(|(i, c)| Some((i, archive.held_by(&c.worker()?)?)))
        };
        let found = wait_until("somebody to work, or all to be done", PATIENCE, || {
            let done =
                || compactors.iter().all(|c| c.process.metric("thanos_compact_todo_compactions") == 0.0);
            held(&compactors).map(Some).or_else(|| done().then_some(None))
        });
        let Some((victim, _)) = found else { continue };
        if round % 2 == 0 {
            // Stopped where it is, beyond its lease; what it does when it goes on must not matter.
            compactors[victim].process.pause(true);
            let worker = compactors[victim].worker().expect("it has begun");
            if let Some((group, token)) = archive.held_by(&worker) {
                taken_over += usize::from(wait_taken_over(&archive, &compactors, victim, &group, token));
            }
            compactors[victim].process.pause(false);
        } else {
            compactors[victim].process.crash_and_restart();
        }
        watch.wait_for(2);
    }
    eprintln!("{workers} compactors: {taken_over} leases taken from one that had stopped");
    for compactor in &compactors {
        wait_idle(compactor);
    }
    watch.wait_for(2);
    assert_eq!((watch.partial(), watch.failed()), (0, 0));
    watch.stop();
    for compactor in &mut compactors {
        compactor.process.stop();
    }
    archive.assert_settled();
    archive.stop();
}

#[test]
fn two_share_a_bucket() {
    share_a_bucket(2);
}

#[test]
fn five_share_a_bucket() {
    share_a_bucket(5);
}

/// Marked blocks are deleted at once, under a store that looks once a second.
#[test]
fn blocks_that_are_swapped_under_a_store_are_never_missed_silently() {
    let archive = Archive::start("swap");
    let watch = archive.watch();
    let flags = vec!["--delete-delay=0s".to_owned()];
    let mut compactor = archive.compactor("compactor", CompactorPlace { flags, ..CompactorPlace::default() });
    for round in 0..Effort::asked().rounds(2) {
        for group in groups() {
            archive.add(&Group { name: format!("{}-{round}", group.name), ..group });
        }
    }
    compactor.process.wait_ready();
    wait_idle(&compactor);
    archive.wait_complete();
    let before = (watch.partial(), watch.failed());
    watch.wait_for(5);
    assert_eq!((watch.partial(), watch.failed()), before, "nothing changes any more");
    assert_eq!(watch.failed(), 0, "what the store still has is answered");
    watch.stop();
    assert!(compactor.process.metric("thanos_compact_blocks_cleaned_total") > 0.0);
    compactor.process.stop();
    archive.assert_settled();
    archive.stop();
}

/// 500, 503, cut connections and short bodies: no answer is wrong, and when it is over the work is finished.
#[test]
fn a_bad_bucket_holds_things_up_and_spoils_nothing() {
    let archive = Archive::start("bad-bucket");
    for group in groups() {
        archive.add(&group);
    }
    let mut compactor = archive.compactor("compactor", CompactorPlace::default());
    // What is tried again at the next iteration.
    for allowed in ["compaction failed, the group is left for now", "downsampling failed"] {
        compactor.process.allow_errors(allowed);
    }
    compactor.process.wait_ready();
    let watch = archive.watch();
    let faults = [
        S3Faults { fail: 0.3, fail_status: 500, ..S3Faults::default() },
        S3Faults { fail: 0.3, fail_status: 503, ..S3Faults::default() },
        S3Faults { fail: 0.1, drop_after_write: 0.3, truncate: 0.3, ..S3Faults::default() },
        S3Faults { refuse: true, ..S3Faults::default() },
        S3Faults { latency: Duration::from_millis(300), ..S3Faults::default() },
    ];
    for round in 0..Effort::asked().rounds(1) {
        for (n, fault) in faults.iter().enumerate() {
            archive.add(&more(&format!("more-{round}-{n}")));
            archive.s3.clear_requests();
            archive.s3.set_faults(fault.clone());
            wait_until("requests", PATIENCE, || (requests(&archive) >= 60).then_some(()));
            watch.wait_for(1);
            archive.s3.set_faults(S3Faults::default());
        }
    }
    archive.wait_complete();
    watch.stop();
    wait_idle(&compactor);
    compactor.process.stop();
    archive.store.check_log();
    archive.assert_settled();
    archive.stop();
}

/// Chunks that an index names out of order, or twice, are read and compacted as if they were in order, and named once.
#[test]
fn chunks_out_of_order_and_named_twice_are_put_right() {
    type Damage = fn(&mut [u8]) -> bool;
    let cases: [(&str, Damage); 2] =
        [("round", damage::turn_chunks_round), ("twice", damage::name_chunk_twice)];
    let archive = Archive::start("chunks");
    for (name, damage) in cases {
        // Two chunks a series and block. The entry grows, so it must be of a length that leaves room behind it.
        let damaged = (0..16).find_map(|len| {
            let group =
                Group { step_ms: 30_000, name_of_series: "x".repeat(len), ..more(&format!("{name}-{len}")) };
            let made = archive.make(&group);
            let mut fits = true;
            for entry in std::fs::read_dir(&made.parts[0].0).unwrap() {
                let dir = entry.unwrap().path();
                let meta = std::fs::read(dir.join("meta.json")).unwrap();
                let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
                // The newest blocks are not compacted, so they would keep what is wrong with them.
                if meta["maxTime"].as_i64().unwrap() > group.last_ms() - 3 * 3_600_000 {
                    continue;
                }
                let path = dir.join("index");
                let mut index = std::fs::read(&path).unwrap();
                fits &= damage(&mut index);
                std::fs::write(&path, index).unwrap();
            }
            fits.then_some((made, group))
        });
        let (made, group) = damaged.expect("there is room behind one of them");
        archive.put_unseen(&made, 0, &group);
        archive.expect(&group);
        archive.wait_complete();
    }
    archive.assert_settled();
    archive.stop();
}

/// The disk of compactor and store is full: nothing is damaged, answers are complete or say what is missing, and with room the
/// work is done.
#[test]
fn a_full_disk_stops_nothing_for_good() {
    let dir = Scratch::new("compactor-disk");
    let Some(disk) = SmallDisk::mount(&dir.join("disk"), 128) else { return };
    let mut archive = Archive::start_with(dir, Some(&disk.path().join("store")));
    let [group, ..] = groups();
    archive.add(&Group::new("before", 1));
    let data = Some(disk.path().join("compactor"));
    let place = CompactorPlace { data, ..CompactorPlace::default() };
    let mut compactor = archive.compactor("compactor", place);
    compactor.process.wait_ready();
    for allowed in ["compaction failed, the group is left for now", "downsampling failed"] {
        compactor.process.allow_errors(allowed);
    }
    let watch = archive.watch();
    for round in 0..Effort::asked().rounds(1) {
        disk.fill();
        let failures = || compactor.process.metric("thanos_compact_group_compactions_failures_total");
        let before = failures();
        let group = Group { name: format!("{}-{round}", group.name), ..group.clone() };
        let made = archive.make(&group);
        archive.upload(&made, 0);
        wait_until("a compaction to be refused", PATIENCE, || (failures() > before).then_some(()));
        // The store cannot keep index headers of new blocks; what it had is answered.
        archive.expect_or_told(&group);
        watch.wait_for(3);
        archive.store.crash();
        archive.store.start_again();
        archive.store.wait_ready();
        watch.wait_for(3);
        disk.relieve();
        archive.wait_complete();
        wait_idle(&compactor);
    }
    watch.stop();
    compactor.process.stop();
    archive.assert_settled();
    archive.stop();
}
