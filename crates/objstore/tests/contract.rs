//! The contract over the buckets that need no server. S3 runs it in `testkit`.

use std::sync::Arc;

use chronolith_objstore::{Bucket, BucketConfig, BucketMetrics, contract, open};

#[tokio::test]
async fn in_memory() {
    contract::run(&Bucket::in_memory()).await;
}

#[tokio::test]
async fn filesystem_and_its_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let config = BucketConfig::filesystem(dir.path().join("bucket").to_str().unwrap());
    let bucket = open(&config, BucketMetrics::default()).unwrap();
    contract::run(&bucket).await;
    contract::run(&bucket.with_prefix("some/where")).await;
}

#[tokio::test]
async fn prefixes_separate_and_stack() {
    let bucket = Bucket::in_memory();
    let (a, b) = (bucket.with_prefix("a"), bucket.with_prefix("b"));
    a.put("k", "1".into()).await.unwrap();
    contract::run(&b).await;
    assert_eq!(bucket.get("a/k").await.unwrap(), "1");
    bucket.with_prefix("x").with_prefix("y").put("k", "2".into()).await.unwrap();
    assert_eq!(bucket.get("x/y/k").await.unwrap(), "2");
}

#[tokio::test]
async fn wrappers_and_metrics_change_nothing() {
    let mut registry = prometheus_client::registry::Registry::default();
    let metrics = BucketMetrics::register(&mut registry);
    let bucket = Bucket::in_memory().with_metrics(metrics).wrapped(|store| Arc::new(store));
    contract::run(&bucket).await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "thanos_objstore_bucket_operations_total{bucket=\"memory\",operation=\"get_range\"}",
        "thanos_objstore_bucket_operation_failures_total{bucket=\"memory\",operation=\"get_range\"}",
        "thanos_objstore_bucket_operation_duration_seconds_count{bucket=\"memory\",operation=\"get\"}",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
