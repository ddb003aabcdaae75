//! Requests written and read, and what they hide of series and chunks.

use chronolith_chunk::encode_floats;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn of_tenant(tenant: &str) -> Vec<Vec<Matcher>> {
    vec![vec![Matcher::equal("tenant_id", tenant), Matcher::new(MatchOp::Regex, "job", "a|b").unwrap()]]
}

#[tokio::test]
async fn a_request_is_read_as_it_was_written_and_revoked_once() {
    let bucket = Bucket::in_memory();
    let request = DeletionRequest::new(&of_tenant("x"), TimeRange::new(5, i64::MAX), "x", 1000);
    request.write(&bucket).await.unwrap();
    request.write(&bucket).await.unwrap();
    let read = Deletions::read(&bucket).await.unwrap();
    assert_eq!(read.all.len(), 1);
    assert_eq!(read.all[0].request, request);
    assert_eq!(request.range(), TimeRange::new(5, 1000), "what comes later is not meant");
    assert_eq!(request.selector_texts(), ["{tenant_id=\"x\", job=~\"a|b\"}"]);
    assert!(DeletionRequest::revoke(&bucket, read.all[0].id).await.unwrap());
    assert!(!DeletionRequest::revoke(&bucket, read.all[0].id).await.unwrap());
    assert!(Deletions::read(&bucket).await.unwrap().is_empty());
    bucket.put(&format!("{PREFIX}/x.json"), "{}".into()).await.unwrap();
    assert!(Deletions::read(&bucket).await.is_err(), "what cannot be understood must not be passed over");
}

#[tokio::test]
async fn a_mask_reaches_its_tenant_its_series_and_its_range_only() {
    let bucket = Bucket::in_memory();
    let request = DeletionRequest::new(&of_tenant("x"), TimeRange::new(100, 200), "x", 1000);
    request.write(&bucket).await.unwrap();
    let all = Deletions::read(&bucket).await.unwrap();
    let (none, x) = (BTreeSet::new(), labels(&[("tenant_id", "x")]));
    assert!(all.mask(&labels(&[("tenant_id", "y")]), TimeRange::ALL, 0, &none).is_none());
    assert!(all.mask(&x, TimeRange::new(201, 300), 0, &none).is_none());
    assert!(all.mask(&x, TimeRange::ALL, 0, &BTreeSet::from([all.all[0].id])).is_none());
    // The window that ends at 300 holds samples from 201 - 99 on.
    assert!(all.mask(&x, TimeRange::new(201, 300), 100, &none).is_some());

    let mask = all.mask(&x, TimeRange::ALL, 0, &none).unwrap();
    let chunk = || encode_floats(&[90, 110, 190, 210], &[1.0, 2.0, 3.0, 4.0]);
    let mut chunks = chunk();
    assert!(mask.apply(&labels(&[("job", "c")]), &mut chunks, TimeRange::ALL).unwrap());
    assert_eq!(chunks, chunk());
    assert!(mask.apply(&labels(&[("job", "a")]), &mut chunks, TimeRange::ALL).unwrap());
    assert_eq!(chunks, encode_floats(&[90, 210], &[1.0, 4.0]));
    let mut gone = encode_floats(&[110, 190], &[2.0, 3.0]);
    assert!(!mask.apply(&labels(&[("job", "b")]), &mut gone, TimeRange::ALL).unwrap());
}

#[test]
fn a_series_is_hidden_when_nothing_of_its_chunks_is_left_in_what_was_asked() {
    let mut mask = Mask::default();
    let id: BlockId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
    mask.add(id, vec![Matcher::equal("job", "a")], TimeRange::new(100, 199));
    mask.add(id, vec![Matcher::equal("job", "a")], TimeRange::new(200, 300));
    let a = labels(&[("job", "a")]);
    let hides = |chunks: &[(i64, i64)], range: (i64, i64)| {
        let chunks = chunks.iter().map(|c| TimeRange::new(c.0, c.1));
        mask.hides(&a, chunks, TimeRange::new(range.0, range.1))
    };
    assert!(hides(&[(100, 150), (160, 300)], (0, 1000)), "ranges that touch are one");
    assert!(!hides(&[(100, 150), (160, 301)], (0, 1000)));
    assert!(hides(&[(100, 150), (160, 301)], (0, 300)), "what is left lies behind what was asked");
    assert!(!mask.hides(&labels(&[("job", "b")]), [TimeRange::new(150, 160)], TimeRange::ALL));
    assert!(!mask.hides_all(TimeRange::new(100, 300)));
    mask.add(id, vec![], TimeRange::new(50, 250));
    assert!(mask.hides_all(TimeRange::new(50, 250)) && !mask.hides_all(TimeRange::new(50, 251)));
}

#[test]
fn derived_sources_are_repeatable_and_keep_their_age() {
    let source: BlockId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
    let (a, b) = (derived_source(source, "a"), derived_source(source, "b"));
    assert_eq!(a, derived_source(source, "a"));
    assert!(a != b && a != source && a.0.timestamp_ms() == source.0.timestamp_ms());
}

#[test]
fn applied_requests_are_found_in_the_meta() {
    let id = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let mut meta = BlockMeta::new(id.parse().unwrap(), 0, 1);
    assert!(applied_to(&meta).is_empty());
    let mut thanos = chronolith_tsdb::block::ThanosMeta::default();
    let rewrites = serde_json::json!([{"sources": [], "deletions_applied": [{"request_id": id}, {}]}, 7]);
    thanos.unknown.insert("rewrites".to_owned(), rewrites);
    meta.thanos = Some(thanos);
    assert_eq!(applied_to(&meta), BTreeSet::from([id.parse().unwrap()]));
}

#[tokio::test]
async fn a_watch_looks_again_after_its_time_and_not_before() {
    let bucket = Bucket::in_memory();
    let hour = std::time::Duration::from_secs(3600);
    let watch = DeletionWatch::with_interval(Some(bucket.clone()), hour);
    let eager = DeletionWatch::with_interval(Some(bucket.clone()), std::time::Duration::ZERO);
    assert!(watch.current().await.is_empty() && eager.current().await.is_empty());
    DeletionRequest::new(&of_tenant("x"), TimeRange::ALL, "", 5).write(&bucket).await.unwrap();
    assert!(watch.current().await.is_empty());
    assert_eq!(eager.current().await.all.len(), 1);
    watch.forget();
    assert_eq!(watch.current().await.all.len(), 1);
    bucket.put(&format!("{PREFIX}/garbage.json"), "{".into()).await.unwrap();
    watch.forget();
    assert_eq!(watch.current().await.all.len(), 1, "what was known holds on");
    assert!(DeletionWatch::new(None).current().await.is_empty());
}

#[tokio::test]
async fn what_was_looked_through_goes_with_its_request() {
    let bucket = Bucket::in_memory();
    let request = DeletionRequest::new(&of_tenant("x"), TimeRange::ALL, "", 1000);
    request.write(&bucket).await.unwrap();
    let id: BlockId = request.id.parse().unwrap();
    assert_eq!(Looked::read(&bucket, id).await.unwrap(), Looked::default());
    let looked = Looked { blocks: BTreeSet::from([id, derived_source(id, "x")]) };
    looked.write(&bucket, id).await.unwrap();
    assert_eq!(Looked::read(&bucket, id).await.unwrap(), looked);
    assert_eq!(Deletions::read(&bucket).await.unwrap().all.len(), 1, "no request");
    assert!(DeletionRequest::revoke(&bucket, id).await.unwrap());
    assert_eq!(Looked::read(&bucket, id).await.unwrap(), Looked::default());
}
