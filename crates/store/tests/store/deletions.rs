//! What requests delete is gone from series and labels at once, and from nothing else.

use chronolith_bucket::DeletionRequest;
use chronolith_chunk::encode_floats;
use chronolith_model::{MatchOp, Matcher, TimeRange};
use chronolith_objstore::Bucket;
use chronolith_storeapi::{LabelNamesRequest, LabelValuesRequest, SeriesRequest, Store as _};
use chronolith_testkit::S3Server;
use chronolith_testkit::series::labels;

use crate::support::{NOW_MS, Opened, T0, by_name, collect, open, put_block};

const LAST: i64 = T0 + 60_000;

/// Two jobs share one metric; a third metric has a label that nobody else has.
async fn put(bucket: &Bucket) {
    let one = |pairs| (labels(pairs), encode_floats(&[T0, LAST], &[1.0, 2.0]));
    let series = [
        one(&[("__name__", "m"), ("instance", "1"), ("job", "a")]),
        one(&[("__name__", "m"), ("instance", "1"), ("job", "b")]),
        one(&[("__name__", "m"), ("instance", "2"), ("job", "b")]),
        one(&[("__name__", "n"), ("job", "c"), ("secret", "x")]),
    ];
    put_block(bucket, &labels(&[("tenant_id", "t")]), 0, series).await;
}

async fn delete(bucket: &Bucket, matchers: &[Matcher], range: TimeRange) {
    DeletionRequest::new(&[matchers.to_vec()], range, "", NOW_MS).write(bucket).await.unwrap();
}

async fn names(opened: &Opened, matchers: &[Matcher], range: TimeRange) -> Vec<String> {
    let request = LabelNamesRequest::new(range, matchers.to_vec());
    opened.store.label_names(request).await.unwrap().names
}

async fn values(opened: &Opened, label: &str, matchers: &[Matcher]) -> Vec<String> {
    let request = LabelValuesRequest::new(label, TimeRange::ALL, matchers.to_vec());
    opened.store.label_values(request).await.unwrap().values
}

async fn series_count(opened: &Opened, range: TimeRange) -> usize {
    let all = vec![Matcher::equal("tenant_id", "t"), Matcher::new(MatchOp::NotEqual, "job", "").unwrap()];
    let request = SeriesRequest { skip_chunks: true, ..SeriesRequest::new(range, all) };
    collect(&*opened.store, request).await.unwrap().0.len()
}

#[tokio::test]
async fn labels_of_deleted_series_are_not_told() {
    let bucket = Bucket::in_memory();
    put(&bucket).await;
    delete(&bucket, &[Matcher::equal("job", "b")], TimeRange::ALL).await;
    delete(&bucket, &[Matcher::equal("secret", "x")], TimeRange::ALL).await;
    let opened = open(&bucket).await;
    assert_eq!(names(&opened, &[], TimeRange::ALL).await, ["__name__", "instance", "job", "tenant_id"]);
    assert_eq!(values(&opened, "__name__", &[]).await, ["m"]);
    assert_eq!(values(&opened, "job", &[]).await, ["a"]);
    assert_eq!(values(&opened, "instance", &[]).await, ["1"], "another series has this value");
    let m = Matcher::equal("__name__", "m");
    assert_eq!(values(&opened, "job", std::slice::from_ref(&m)).await, ["a"]);
    assert_eq!(values(&opened, "job", &[Matcher::new(MatchOp::Regex, "job", "a|b").unwrap()]).await, ["a"]);
    assert_eq!(names(&opened, &[Matcher::equal("__name__", "n")], TimeRange::ALL).await, [""; 0]);
    assert_eq!(values(&opened, "tenant_id", &[]).await, ["t"]);
    assert_eq!(values(&opened, "tenant_id", &[Matcher::equal("job", "b")]).await, [""; 0]);
    assert_eq!(series_count(&opened, TimeRange::ALL).await, 1);
    let (series, warnings) = collect(&*opened.store, by_name("m")).await.unwrap();
    assert_eq!((series.len(), warnings.len()), (1, 0));
}

#[tokio::test]
async fn what_is_left_in_what_was_asked_keeps_its_labels() {
    let bucket = Bucket::in_memory();
    put(&bucket).await;
    delete(&bucket, &[Matcher::equal("secret", "x")], TimeRange::new(T0, LAST - 1)).await;
    let opened = open(&bucket).await;
    assert_eq!(values(&opened, "secret", &[]).await, ["x"], "its last sample is there");
    assert_eq!(series_count(&opened, TimeRange::ALL).await, 4);
    let before = TimeRange::new(T0, LAST - 1);
    assert!(!names(&opened, &[], before).await.contains(&"secret".to_owned()));
    assert_eq!(series_count(&opened, before).await, 3);
}

#[tokio::test]
async fn where_everything_is_deleted_nothing_is_told() {
    let bucket = Bucket::in_memory();
    put(&bucket).await;
    delete(&bucket, &[Matcher::equal("tenant_id", "t")], TimeRange::ALL).await;
    let opened = open(&bucket).await;
    assert_eq!(names(&opened, &[], TimeRange::ALL).await, [""; 0]);
    assert_eq!(values(&opened, "job", &[]).await, [""; 0]);
    assert_eq!(values(&opened, "tenant_id", &[]).await, [""; 0]);
    assert_eq!(series_count(&opened, TimeRange::ALL).await, 0);
}

#[tokio::test]
async fn requests_that_concern_no_series_of_a_block_read_no_entries() {
    let server = S3Server::start();
    let bucket = server.bucket();
    put(&bucket).await;
    let opened = open(&bucket).await;
    assert_eq!(values(&opened, "job", &[]).await, ["a", "b", "c"]);
    delete(&bucket, &[Matcher::equal("job", "nobody")], TimeRange::ALL).await;
    delete(&bucket, &[Matcher::equal("job", "b")], TimeRange::new(T0 + 10 * LAST, i64::MAX)).await;
    opened.store.deletions().forget();
    // Looks for requests, and then nothing of the block.
    assert_eq!(values(&opened, "job", &[]).await, ["a", "b", "c"]);
    server.clear_requests();
    assert_eq!(values(&opened, "job", &[]).await, ["a", "b", "c"]);
    assert_eq!(names(&opened, &[], TimeRange::ALL).await.len(), 5);
    assert_eq!(server.requests().len(), 0);
}
