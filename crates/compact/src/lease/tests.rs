//! Leases claimed, renewed, lost and taken over, with the clock in the test's hand.

use super::*;

const DURATION: Duration = Duration::from_secs(60);

fn leases(bucket: &Bucket, worker: &str) -> Leases {
    Leases::new(bucket.clone(), worker.to_owned(), DURATION, false)
}

async fn held(leases: &Leases) -> Lease {
    match leases.claim("0@1", "test").await.unwrap() {
        Claim::Held(lease) => lease,
        busy => panic!("{busy:?}"),
    }
}

async fn busy(leases: &Leases) -> bool {
    match leases.claim("0@1", "test").await.unwrap() {
        Claim::Busy { alive } => alive,
        held => panic!("{held:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_held_renewed_and_given_back() {
    let bucket = Bucket::in_memory();
    let (a, b) = (leases(&bucket, "a"), leases(&bucket, "b"));
    assert!(a.probe().await.unwrap());
    let lease = held(&a).await;
    assert_eq!(lease.token(), 1);
    assert!(busy(&a).await, "one job at a time, in one process as well");
    assert!(!busy(&b).await, "not known to live yet");
    // Renewals show, for as long as it takes.
    for _ in 0..5 {
        tokio::time::sleep(DURATION).await;
        assert!(busy(&b).await);
        assert!(lease.in_force().await.unwrap());
    }
    lease.release().await;
    let lease = held(&b).await;
    assert_eq!(lease.token(), 2);
    assert_eq!(tokens(&bucket, &format!("{PREFIX}/0@1")).await.unwrap(), [2], "old tokens are cleared away");
    // Other groups have nothing to do with it.
    assert!(matches!(a.claim("0@2", "").await.unwrap(), Claim::Held(_)));
}

#[tokio::test(start_paused = true)]
async fn a_dead_worker_is_found_out_by_watching() {
    let bucket = Bucket::in_memory();
    let (a, b) = (leases(&bucket, "a"), leases(&bucket, "b"));
    let lease = held(&a).await;
    // As if killed: no renewal, nothing given back.
    drop(lease);
    assert!(!busy(&b).await);
    tokio::time::sleep(DURATION).await;
    assert!(!busy(&b).await, "a missed renewal is not death");
    tokio::time::sleep(DURATION).await;
    let taken = held(&b).await;
    assert_eq!(taken.token(), 2);
    // The same worker, started again, need not wait.
    drop(taken);
    assert_eq!(held(&leases(&bucket, "b")).await.token(), 3);
}

#[tokio::test(start_paused = true)]
async fn who_was_taken_for_dead_finds_out() {
    let bucket = Bucket::in_memory();
    let (faulty, control) = chronolith_testkit::FaultyStore::around(&bucket);
    let (a, b) = (leases(&faulty, "a"), leases(&bucket, "b"));
    let lease = held(&a).await;
    let lost = lease.lost();
    assert!(!busy(&b).await);
    // The bucket is out of reach for one of them only.
    control.set(chronolith_testkit::StoreFaults { fail: 1.0, ..Default::default() });
    tokio::time::timeout(2 * DURATION, lease.until_lost()).await.expect("it gives up by itself");
    assert!(lost.load(Ordering::SeqCst));
    tokio::time::sleep(2 * DURATION).await;
    let other = held(&b).await;
    control.set(chronolith_testkit::StoreFaults::default());
    assert!(!lease.in_force().await.unwrap());
    // What it writes late changes nothing.
    lease.release().await;
    assert!(other.in_force().await.unwrap());
    assert!(!busy(&a).await);
}

#[tokio::test(start_paused = true)]
async fn a_higher_token_ends_a_lease_that_sleeps() {
    let bucket = Bucket::in_memory();
    let lease = held(&leases(&bucket, "a")).await;
    bucket.put(&key(&format!("{PREFIX}/0@1"), 2), "{}".into()).await.unwrap();
    assert!(!lease.in_force().await.unwrap());
    tokio::time::timeout(DURATION, lease.until_lost()).await.expect("the next renewal sees it");
    // An object that nobody understands is watched like any other.
    let b = leases(&bucket, "b");
    assert!(!busy(&b).await);
    tokio::time::sleep(2 * DURATION).await;
    assert_eq!(held(&b).await.token(), 3);
}

#[tokio::test]
async fn only_one_of_many_gets_it() {
    let bucket = Bucket::in_memory();
    for round in 0..5 {
        let names: Vec<String> = (0..8).map(|i| format!("w{round}-{i}")).collect();
        let claims = names.iter().map(|name| {
            let leases = leases(&bucket, name);
            async move { leases.claim("0@1", "race").await.unwrap() }
        });
        let mut won: Vec<Lease> = Vec::new();
        for claim in futures::future::join_all(claims).await {
            if let Claim::Held(lease) = claim {
                won.push(lease);
            }
        }
        assert_eq!(won.len(), 1);
        won.remove(0).release().await;
    }
}

#[tokio::test]
async fn a_single_worker_asks_nobody() {
    let (bucket, control) = chronolith_testkit::FaultyStore::around(&Bucket::in_memory());
    let leases = Leases::new(bucket, "a".to_owned(), DURATION, true);
    assert!(leases.probe().await.unwrap());
    let lease = held(&leases).await;
    assert!(lease.in_force().await.unwrap());
    lease.release().await;
    assert_eq!(control.operations(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_work_that_is_done_leaves_nothing_behind() {
    let bucket = Bucket::in_memory();
    let (a, b) = (leases(&bucket, "a"), leases(&bucket, "b"));
    let lease = held(&a).await;
    assert!(!busy(&b).await);
    lease.finish().await;
    assert!(tokens(&bucket, &format!("{PREFIX}/0@1")).await.unwrap().is_empty());
    // Who comes late begins anew; a renewal of the old holder does not come back.
    let lease = held(&b).await;
    tokio::time::sleep(DURATION).await;
    assert_eq!(tokens(&bucket, &format!("{PREFIX}/0@1")).await.unwrap(), [1]);
    assert!(lease.in_force().await.unwrap());
}
