//! Three receivers, three copies: any one of them may be killed, cut off, full, slow or wrong about the time, and the writers
//! notice nothing but repetitions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chronolith_promises::{
    ClockShift, Cluster, ClusterOptions, Effort, LoadOptions, Network, Place, Scratch, SlowProxy, SmallDisk,
};
use chronolith_testkit::{free_port, http, wait_until};

const PATIENCE: Duration = Duration::from_secs(120);

/// Replicas take what they missed late, so there is a window for it; blocks are short, so that heads are cut meanwhile.
fn options(receivers: usize, replication: usize) -> ClusterOptions {
    let receive = ["--tsdb.min-block-duration=20s", "--tsdb.out-of-order.time-window=10m"];
    let receive = receive.map(str::to_owned).into();
    ClusterOptions { receivers, replication, receive, ..ClusterOptions::default() }
}

fn three() -> Vec<Place> {
    (0..3).map(|_| Place::default()).collect()
}

/// Everything that was acknowledged is there: at once in one replica or another, soon in deduplicated answers.
fn finish(cluster: Cluster, load: chronolith_promises::Load) {
    let ledger = load.finish();
    cluster.wait_seen(&[]);
    cluster.assert_kept(&ledger);
    cluster.assert_kept_soon(&ledger);
    eprintln!("{} requests, came back: {:?}", ledger.acknowledged(), ledger.retried());
    cluster.stop();
}

#[test]
fn any_one_killed_again_and_again() {
    let mut cluster = Cluster::start("kill", options(3, 3));
    let load = cluster.load(LoadOptions::default());
    for round in 0..Effort::asked().rounds(4) {
        load.wait_for(15 + round * 5 % 13);
        let victim = round % 3;
        cluster.receivers[victim].process.crash();
        load.wait_for(20);
        cluster.assert_kept(load.ledger());
        cluster.receivers[victim].process.start_again();
        cluster.receivers[victim].process.wait_ready();
        cluster.wait_seen(&[]);
    }
    finish(cluster, load);
}

#[test]
fn one_is_cut_off() {
    let Some(network) = Network::make() else { return };
    let mut places = three();
    places[1] = Place {
        host: Some(network.inner().to_owned()),
        wrapper: network.wrapper().map(str::to_owned).into(),
        ..Place::default()
    };
    let options = ClusterOptions { host: network.outer().to_owned(), ..options(3, 3) };
    let cluster = Cluster::start_with(Scratch::new("cut"), options, places);
    // A writer that was sent to the one that is gone gives up as Prometheus does, only sooner.
    let load = cluster.load(LoadOptions { timeout: Duration::from_secs(4), ..LoadOptions::default() });
    for _ in 0..Effort::asked().rounds(1) {
        load.wait_for(20);
        network.cut(true);
        load.wait_for(3);
        // A load balancer notices, too.
        load.set_targets(cluster.targets(&[1]));
        load.wait_for(30);
        network.cut(false);
        load.set_targets(cluster.targets(&[]));
        cluster.wait_seen(&[]);
    }
    finish(cluster, load);
    drop(network);
}

#[test]
fn one_has_a_full_disk() {
    let dir = Scratch::new("ring-disk");
    let Some(disk) = SmallDisk::mount(&dir.join("disk"), 64) else { return };
    let mut places = three();
    places[2].data = Some(disk.path().join("data"));
    let mut cluster = Cluster::start_with(dir, options(3, 3), places);
    for allowed in ["disk is full", "cutting a block failed"] {
        cluster.receivers[2].process.allow_errors(allowed);
    }
    let load = cluster.load(LoadOptions::default());
    load.wait_for(20);
    disk.fill();
    wait_until("its log to stall", PATIENCE, || {
        (cluster.receivers[2].process.metric("chronolith_receive_wal_stalled") == 1.0).then_some(())
    });
    load.wait_for(40);
    cluster.assert_kept(load.ledger());
    disk.relieve();
    wait_until("its log to go on", PATIENCE, || {
        (cluster.receivers[2].process.metric("chronolith_receive_wal_stalled") == 0.0).then_some(())
    });
    load.wait_for(20);
    // The two others were enough all the time.
    assert_eq!(load.ledger().server_errors(), 0, "{}", load.ledger().last_reason());
    finish(cluster, load);
}

#[test]
fn clocks_are_two_minutes_off() {
    let dir = Scratch::new("ring-clock");
    let shift = ClockShift::build(dir.path());
    let mut places = three();
    places[0].envs = shift.env(120).into();
    places[1].envs = shift.env(-120).into();
    let cluster = Cluster::start_with(dir, options(3, 3), places);
    let load = cluster.load(LoadOptions::default());
    load.wait_for(60);
    finish(cluster, load);
}

#[test]
fn one_answers_slowly() {
    let port = free_port();
    let proxy = SlowProxy::start(&format!("127.0.0.1:{port}"));
    let mut places = three();
    places[2].grpc_port = Some(port);
    places[2].ring_address = Some(proxy.address().to_owned());
    let cluster = Cluster::start_with(Scratch::new("slow"), options(3, 3), places);
    let load = cluster.load(LoadOptions::default());
    load.wait_for(10);
    // Whoever waited for it would need a quarter of an hour.
    proxy.delay(Duration::from_secs(15));
    load.set_targets(cluster.targets(&[2]));
    load.wait_for(60);
    proxy.delay(Duration::ZERO);
    load.set_targets(cluster.targets(&[]));
    load.wait_for(10);
    finish(cluster, load);
}

/// Asks all the time; every answer must know of all series.
fn ask_on(url: &str, series: f64, stop: &AtomicBool) -> usize {
    let mut answers = 0;
    while !stop.load(Ordering::SeqCst) {
        let reply = http::get(url).expect("the querier answers");
        assert_eq!(reply.status, 200, "{}", reply.text());
        let found = chronolith_testkit::Answer::of(&reply).single();
        assert_eq!(found, Some(series), "{}", reply.text());
        answers += 1;
    }
    answers
}

/// Whatever ends the test ends the asking.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_rolling_restart_is_not_noticed() {
    let mut cluster = Cluster::start("rolling", options(3, 3));
    let load_options = LoadOptions::default();
    let series = (load_options.writers * load_options.series) as f64;
    let load = cluster.load(load_options);
    load.wait_for(10);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let on_the_way_out = StopOnDrop(&stop);
        let url = cluster.querier.url("/api/v1/query?query=count(promises_sample)");
        let asking = scope.spawn({
            let stop = &stop;
            move || ask_on(&url, series, stop)
        });
        for _ in 0..Effort::asked().rounds(1) {
            for leaver in 0..3 {
                // As Kubernetes does: the endpoint goes, the process is told; the next one comes once this one is ready.
                load.set_targets(cluster.targets(&[leaver]));
                let process = &mut cluster.receivers[leaver].process;
                process.stop();
                load.wait_for(5);
                process.start_again();
                process.wait_ready();
                load.set_targets(cluster.targets(&[]));
                load.wait_for(5);
                assert!(!asking.is_finished(), "a query failed");
            }
        }
        drop(on_the_way_out);
        assert!(asking.join().expect("no query fails") > 0);
    });
    let retried = load.ledger().retried();
    assert!(retried.keys().all(|status| *status < 500), "{retried:?}: {}", load.ledger().last_reason());
    finish(cluster, load);
}

#[test]
fn three_become_five_become_two() {
    let mut options = options(3, 1);
    options.receive.push("--drain".to_owned());
    let mut cluster = Cluster::start("scale", options);
    let load = cluster.load(LoadOptions::default());
    load.wait_for(20);
    // Out: two more nodes, then one edit.
    let (fourth, fifth) = (cluster.add_receiver(), cluster.add_receiver());
    cluster.set_members(&[0, 1, 2, fourth, fifth]);
    load.set_targets(cluster.targets(&[]));
    wait_until("the new ones to get something", PATIENCE, || {
        let head = |i: usize| cluster.receivers[i].process.metric("prometheus_tsdb_head_series");
        (head(fourth) > 0.0 && head(fifth) > 0.0).then_some(())
    });
    load.wait_for(20);
    // In: one edit, then the leavers are told to go.
    let leavers = [0, 2, fourth];
    cluster.set_members(&[1, fifth]);
    load.set_targets(cluster.targets(&leavers));
    load.wait_for(20);
    for leaver in leavers {
        cluster.receivers[leaver].process.stop();
        std::fs::remove_dir_all(&cluster.receivers[leaver].data).unwrap();
    }
    load.wait_for(20);
    let ledger = load.finish();
    cluster.wait_seen(&leavers);
    wait_until("the store gateway to have it all", PATIENCE, || {
        (chronolith_promises::check_replicas(&ledger, &cluster.querier).missing == 0).then_some(())
    });
    // Replica by replica only: while receivers have not all read the new ring, a series alternates between its old and its new
    // owner. Samples 15 s apart show by their pace that this is no second scrape (`dedup::one_stream`); these have none.
    cluster.assert_kept(&ledger);
    let retried = ledger.retried();
    assert!(retried.keys().all(|status| *status < 500), "{retried:?}: {}", ledger.last_reason());
}
