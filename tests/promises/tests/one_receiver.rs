//! One receiver, without a ring: what it acknowledged survives restarts, kills, a full disk, a wrong clock and a bad bucket.

use std::fs;
use std::time::Duration;

use chronolith_promises::{
    ClockShift, Cluster, ClusterOptions, Effort, LoadOptions, Place, Scratch, SmallDisk,
};
use chronolith_testkit::{S3Faults, wait_until};

const PATIENCE: Duration = Duration::from_secs(120);

/// Short blocks, so that heads are cut and shipped during a test; and patience with what comes late, which with blocks of
/// seconds is what a repetition after a restart is.
fn options() -> ClusterOptions {
    let receive = ["--tsdb.min-block-duration=8s", "--tsdb.out-of-order.time-window=10m"];
    ClusterOptions { receive: receive.map(str::to_owned).into(), ..ClusterOptions::default() }
}

fn blocks(cluster: &Cluster) -> usize {
    cluster.s3.keys().iter().filter(|k| k.ends_with("/meta.json")).count()
}

#[test]
fn restarts_and_kills_under_load_lose_nothing() {
    let mut cluster = Cluster::start("restarts", options());
    let load = cluster.load(LoadOptions::default());
    for round in 0..Effort::asked().rounds(4) {
        load.wait_for(30 + round % 7);
        let receiver = &mut cluster.receivers[0].process;
        if round % 2 == 0 {
            receiver.crash();
        } else {
            receiver.stop();
        }
        receiver.start_again();
        receiver.wait_ready();
        load.wait_for(1);
        cluster.wait_seen(&[]);
        cluster.assert_kept(load.ledger());
    }
    let ledger = load.finish();
    cluster.assert_kept(&ledger);
    cluster.assert_kept_soon(&ledger);
    cluster.stop();
}

#[test]
fn a_drained_receiver_leaves_everything_in_the_bucket() {
    let mut cluster = options();
    cluster.receive.push("--drain".to_owned());
    let mut cluster = Cluster::start("drain", cluster);
    let load = cluster.load(LoadOptions::default());
    load.wait_for(60);
    let leaver = &mut cluster.receivers[0].process;
    leaver.signal_stop();
    assert!(leaver.wait_stopped().success(), "a drain that succeeds says so");
    leaver.check_log();
    fs::remove_dir_all(&cluster.receivers[0].data).unwrap();
    // The writers have found nobody since, so the ledger stands still; what is in flight was not acknowledged.
    cluster.assert_kept_soon(load.ledger());
    // And nobody is left who has it but the bucket: a new receiver with an empty disk takes over.
    cluster.receivers[0].process.start_again();
    cluster.receivers[0].process.wait_ready();
    let ledger = load.finish();
    cluster.assert_kept_soon(&ledger);
    cluster.stop();
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room_again() {
    let dir = Scratch::new("disk");
    let Some(disk) = SmallDisk::mount(&dir.join("disk"), 64) else { return };
    let place = Place { data: Some(disk.path().join("data")), ..Place::default() };
    let mut cluster = Cluster::start_with(dir, options(), vec![place]);
    // What a full disk leaves to be told: an operator is needed.
    for allowed in ["disk is full", "cutting a block failed"] {
        cluster.receivers[0].process.allow_errors(allowed);
    }
    let load = cluster.load(LoadOptions::default());
    for round in 0..Effort::asked().rounds(2) {
        load.wait_for(20);
        let refused = load.ledger().server_errors();
        disk.fill();
        wait_until("writes are refused", PATIENCE, || {
            (load.ledger().server_errors() > refused).then_some(())
        });
        // Reads go on.
        cluster.assert_kept(load.ledger());
        let metric = "chronolith_receive_wal_stalled";
        assert_eq!(cluster.receivers[0].process.metric(metric), 1.0, "{metric}");
        if round % 2 == 1 {
            // Killed while full: what was acknowledged before is there, when there is room to start again.
            cluster.receivers[0].process.crash();
            disk.relieve();
            cluster.receivers[0].process.start_again();
            cluster.receivers[0].process.wait_ready();
            cluster.wait_seen(&[]);
        } else {
            disk.relieve();
        }
        load.wait_for(5);
        assert_eq!(cluster.receivers[0].process.metric(metric), 0.0, "{metric}");
    }
    // What was written after the relief is in the log as it should be: it survives a kill.
    cluster.receivers[0].process.crash_and_restart();
    let ledger = load.finish();
    cluster.wait_seen(&[]);
    cluster.assert_kept(&ledger);
    cluster.assert_kept_soon(&ledger);
    drop(cluster);
}

#[test]
fn a_clock_two_minutes_off_changes_nothing() {
    for seconds in [-120, 120] {
        let dir = Scratch::new("clock");
        let shift = ClockShift::build(dir.path());
        let place = Place { envs: shift.env(seconds).into(), ..Place::default() };
        let mut cluster = Cluster::start_with(dir, options(), vec![place]);
        let load = cluster.load(LoadOptions::default());
        load.wait_for(30);
        cluster.receivers[0].process.crash_and_restart();
        load.wait_for(10);
        let ledger = load.finish();
        cluster.wait_seen(&[]);
        cluster.assert_kept(&ledger);
        cluster.receivers[0].process.flush();
        assert!(blocks(&cluster) > 0);
        cluster.assert_kept_soon(&ledger);
        cluster.stop();
    }
}

#[test]
fn a_bad_bucket_keeps_no_writer_waiting() {
    let cluster = Cluster::start("bucket", options());
    let load = cluster.load(LoadOptions::default());
    let faults = [
        S3Faults { latency: Duration::from_secs(2), ..S3Faults::default() },
        S3Faults { refuse: true, ..S3Faults::default() },
        S3Faults { fail: 0.4, drop_after_write: 0.2, truncate: 0.2, ..S3Faults::default() },
    ];
    for fault in faults {
        cluster.s3.set_faults(fault);
        load.wait_for(Effort::asked().rounds(60));
    }
    // Writers have not noticed.
    let ledger = load.finish();
    assert_eq!(ledger.retried(), Default::default(), "{}", ledger.last_reason());
    cluster.s3.set_faults(S3Faults::default());
    cluster.receivers[0].process.flush();
    wait_until("no block waits", PATIENCE, || {
        (cluster.receivers[0].process.metric("chronolith_receive_blocks_waiting") == 0.0).then_some(())
    });
    assert!(blocks(&cluster) > 0);
    cluster.assert_kept(&ledger);
    cluster.assert_kept_soon(&ledger);
    cluster.stop();
}
