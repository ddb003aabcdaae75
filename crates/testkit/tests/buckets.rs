//! The bucket contract over S3 and over faults, and what faults look like through a client.

use bytes::Bytes;
use chronolith_objstore::{Bucket, BucketMetrics, ErrorKind, PutOutcome, config, contract, open};
use chronolith_testkit::{FaultyStore, S3Faults, S3Operation, S3Server, StoreFaults};
use futures::TryStreamExt;

#[tokio::test]
async fn s3_keeps_the_contract() {
    let server = S3Server::start();
    contract::run(&server.bucket()).await;
    let counts = server.counts();
    for operation in [S3Operation::UploadPart, S3Operation::CompleteMultipartUpload, S3Operation::ListObjects]
    {
        assert!(counts.contains_key(&operation), "{operation:?} in {counts:?}");
    }
}

#[tokio::test]
async fn s3_keeps_the_contract_below_a_prefix_and_through_a_wrapper() {
    let server = S3Server::start();
    let (bucket, _) = FaultyStore::around(&server.bucket().with_prefix("a/b"));
    contract::run(&bucket).await;
}

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    let server = S3Server::start();
    let yaml = server.config_yaml().replace("secret_key: test-secret-key", "secret_key: guess");
    let bucket = open(&config::parse(&yaml).unwrap(), BucketMetrics::default()).unwrap();
    assert_eq!(bucket.put("x", Bytes::new()).await.unwrap_err().kind(), ErrorKind::Denied);
    assert!(server.keys().is_empty());
}

#[tokio::test]
async fn failures_are_retried() {
    let server = S3Server::start();
    let bucket = server.bucket();
    for status in [500, 503] {
        server.set_faults(S3Faults { fail: 0.3, fail_status: status, ..S3Faults::default() });
        for i in 0..20 {
            let key = format!("k/{i}");
            bucket.put(&key, Bytes::from(key.clone())).await.unwrap();
        }
    }
    // A query gives up sooner than an upload, so it gets a milder fault.
    server.set_faults(S3Faults { fail: 0.05, ..S3Faults::default() });
    for i in 0..20 {
        let key = format!("k/{i}");
        assert_eq!(bucket.get(&key).await.unwrap(), key);
    }
}

#[tokio::test]
async fn refusing_and_truncation_are_errors_not_short_answers() {
    let server = S3Server::start();
    let bucket = server.bucket();
    let body = Bytes::from(vec![7u8; 100_000]);
    bucket.put("o", body.clone()).await.unwrap();
    server.set_faults(S3Faults { truncate: 0.3, ..S3Faults::default() });
    for _ in 0..10 {
        match bucket.get("o").await {
            Ok(got) => assert_eq!(got, body),
            Err(e) => assert_eq!(e.kind(), ErrorKind::Unavailable),
        }
    }
    server.set_faults(S3Faults { refuse: true, ..S3Faults::default() });
    let err = bucket.get("o").await.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Unavailable);
    assert!(err.to_string().contains("\"o\""), "{err}");
    let (faulty, control) = FaultyStore::around(&Bucket::in_memory());
    faulty.put("o", body).await.unwrap();
    control.set(StoreFaults { truncate: 1.0, ..StoreFaults::default() });
    assert_eq!(faulty.get("o").await.unwrap_err().kind(), ErrorKind::Unavailable);
    control.set(StoreFaults::default());
    control.fail_next(1);
    assert!(faulty.get("o").await.is_err());
    assert!(faulty.get("o").await.is_ok());
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_is_still_ours() {
    let server = S3Server::start();
    let bucket = server.bucket();
    server.set_faults(S3Faults { drop_after_write: 1.0, ..S3Faults::default() });
    let outcome = bucket.put_if_absent("lock", Bytes::from_static(b"token 1")).await;
    server.set_faults(S3Faults::default());
    assert_eq!(outcome.unwrap(), PutOutcome::Created);
    assert_eq!(bucket.put_if_absent("lock", "token 2".into()).await.unwrap(), PutOutcome::Exists);
}

#[tokio::test]
async fn the_probe_finds_stores_that_ignore_conditions() {
    let server = S3Server::start();
    let bucket = server.bucket();
    assert!(bucket.honours_put_if_absent("probe").await.unwrap());
    server.set_faults(S3Faults { ignore_conditions: true, ..S3Faults::default() });
    assert!(!bucket.honours_put_if_absent("probe").await.unwrap());
    let left: Vec<_> = bucket.list("").try_collect().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}
