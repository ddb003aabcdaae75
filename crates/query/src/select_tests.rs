use chronolith_model::MatchOp;
use chronolith_promql::SelectHints;
use chronolith_storeapi::contract::{STEP_MS, T0, TestSeries};
use chronolith_storeapi::{
    Apis, Endpoint, Endpoints, FanoutOptions, LabelNames, LabelNamesRequest, LabelValues, LabelValuesRequest,
    MemoryStore, SeriesStream, StoreInfo,
};

use super::*;

fn memory(replica: &str, series: &[TestSeries]) -> Arc<dyn Store> {
    let external = Labels::from_pairs([("replica", replica)]).unwrap();
    Arc::new(MemoryStore::new(external, series.iter().map(|s| (s.labels.clone(), s.chunks())).collect()))
}

fn fanout(stores: Vec<(&str, Arc<dyn Store>)>) -> Fanout {
    let up = stores.into_iter().map(|(name, store)| {
        Arc::new(Endpoint {
            name: name.to_owned(),
            store,
            info: StoreInfo::new("store"),
            local: true,
            apis: Apis::default(),
        })
    });
    let set: Arc<Endpoints> = Arc::new(Endpoints { up: up.collect(), down: vec![] });
    Fanout::new(Arc::new(set), FanoutOptions::default())
}

fn options(dedup: bool) -> SelectOptions {
    SelectOptions { dedup, replica_labels: vec!["replica".to_owned()], ..SelectOptions::default() }
}

/// Reads a selector to its end on a blocking thread.
async fn read(
    queryable: StoreQueryable,
    func: Option<&str>,
    cx: QueryContext,
) -> Result<(Vec<Series>, Vec<String>), QueryableError> {
    let func = func.map(str::to_owned);
    tokio::task::spawn_blocking(move || {
        let matchers = [Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap()];
        let hints = SelectHints { func, ..SelectHints::default() };
        let request =
            SelectRequest { matchers: &matchers, range: TimeRange::new(T0, T0 + 7_200_000), hints: &hints };
        let mut set = queryable.select(&request, &cx)?;
        let mut out = Vec::new();
        while let Some(series) = set.next()? {
            out.push(series);
        }
        Ok((out, set.take_warnings()))
    })
    .await
    .unwrap()
}

fn samples(series: &Series) -> Vec<(i64, f64)> {
    let mut columns = SampleColumns::default();
    match &series.data {
        SeriesData::Chunks(chunks) => {
            for chunk in chunks {
                chunk.decode_into(TimeRange::ALL, &mut columns).unwrap();
            }
        }
        SeriesData::Columns(c) => columns = c.clone(),
    }
    columns.ts.into_iter().zip(columns.values).collect()
}

fn queryable(fanout: &Fanout, dedup: bool) -> StoreQueryable {
    StoreQueryable::over_fanout(fanout, options(dedup), Handle::current())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_pass_undecoded_where_nothing_overlaps() {
    let series = TestSeries::new(&[("__name__", "up")], 0, 300);
    let fanout = fanout(vec![("a", memory("a", std::slice::from_ref(&series)))]);
    for dedup in [false, true] {
        let (got, warnings) = read(queryable(&fanout, dedup), None, QueryContext::new()).await.unwrap();
        assert_eq!((got.len(), warnings.len()), (1, 0));
        assert_eq!(got[0].labels.get("replica").is_some(), !dedup);
        assert!(matches!(&got[0].data, SeriesData::Chunks(chunks) if chunks.len() == 3));
        assert_eq!(samples(&got[0]), series.samples);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_replicas_are_one_series_of_undecoded_chunks() {
    let series = [TestSeries::new(&[("__name__", "up")], 0, 300)];
    let fanout = fanout(vec![("a", memory("a", &series)), ("b", memory("b", &series))]);
    let (got, _) = read(queryable(&fanout, true), None, QueryContext::new()).await.unwrap();
    assert_eq!(got.len(), 1);
    assert!(matches!(&got[0].data, SeriesData::Chunks(_)));
    let (got, _) = read(queryable(&fanout, false), None, QueryContext::new()).await.unwrap();
    assert_eq!(got.len(), 2);
}

/// The samples of a scraper whose clock is `shift` ahead and that was away from `gap.0` to `gap.1`.
fn scraped(shift: i64, gap: (i64, i64)) -> TestSeries {
    let mut series = TestSeries::new(&[("__name__", "up")], 0, 300);
    series.samples.retain(|(t, _)| !(gap.0..gap.1).contains(&((t - T0) / STEP_MS)));
    series.samples.iter_mut().for_each(|s| s.0 += shift);
    series
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_fill_each_other_s_gaps() {
    let (a, b) = (scraped(0, (100, 150)), scraped(3_000, (200, 220)));
    let fanout = fanout(vec![("a", memory("a", &[a])), ("b", memory("b", &[b]))]);
    let (got, _) = read(queryable(&fanout, true), None, QueryContext::new()).await.unwrap();
    assert_eq!(got.len(), 1);
    let samples = samples(&got[0]);
    assert!(samples.is_sorted_by(|x, y| x.0 < y.0));
    // One sample per interval, all in all, give or take the two changes of replica.
    assert!((296..=302).contains(&samples.len()), "{} samples", samples.len());
    let widest = samples.windows(2).map(|w| w[1].0 - w[0].0).max().unwrap();
    assert!(widest <= 3 * STEP_MS, "a gap of {widest} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlaps_are_merged_sample_by_sample_without_replica_labels() {
    let whole = TestSeries::new(&[("__name__", "up")], 0, 300);
    let mut odd = whole.clone();
    odd.samples = odd.samples.into_iter().skip(1).step_by(2).collect();
    let mut even = whole.clone();
    even.samples = even.samples.into_iter().step_by(2).collect();
    let fanout = fanout(vec![("a", memory("a", &[odd])), ("b", memory("a", &[even]))]);
    let (got, _) = read(queryable(&fanout, false), None, QueryContext::new()).await.unwrap();
    assert_eq!(got.len(), 1);
    assert_eq!(samples(&got[0]), whole.samples);
}

/// Answers with what it was made with, and remembers the request.
struct Canned {
    events: Vec<SeriesEvent>,
    hangs: bool,
    request: Arc<std::sync::Mutex<Option<SeriesRequest>>>,
}

#[async_trait::async_trait]
impl Store for Canned {
    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        *self.request.lock().unwrap() = Some(request);
        let events = futures::stream::iter(self.events.clone().into_iter().map(Ok));
        if self.hangs { Ok(Box::pin(events.chain(futures::stream::pending()))) } else { Ok(Box::pin(events)) }
    }

    async fn label_names(&self, _: LabelNamesRequest) -> Result<LabelNames, StoreError> {
        Ok(LabelNames::default())
    }

    async fn label_values(&self, _: LabelValuesRequest) -> Result<LabelValues, StoreError> {
        Ok(LabelValues::default())
    }

    async fn info(&self) -> Result<StoreInfo, StoreError> {
        Ok(StoreInfo::new("store"))
    }
}

fn canned(events: Vec<SeriesEvent>, hangs: bool) -> Canned {
    Canned { events, hangs, request: Arc::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warnings_arrive_once_each() {
    let warn = |text: &str| SeriesEvent::Warning(text.to_owned());
    let store = canned(vec![warn("a"), warn("b"), warn("a")], false);
    let queryable = StoreQueryable::new(Arc::new(store), options(true), Handle::current());
    let (_, warnings) = read(queryable, None, QueryContext::new()).await.unwrap();
    assert_eq!(warnings, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_and_cancellation_end_a_wait() {
    let make = || StoreQueryable::new(Arc::new(canned(vec![], true)), options(true), Handle::current());
    let late = QueryContext::new().with_deadline(Instant::now() + Duration::from_millis(30));
    assert_eq!(read(make(), None, late).await.unwrap_err().kind, QueryableErrorKind::Timeout);
    let cx = QueryContext::new();
    let cancel = cx.clone();
    let reading = tokio::spawn(read(make(), None, cx));
    cancel.cancel();
    assert_eq!(reading.await.unwrap().unwrap_err().kind, QueryableErrorKind::Cancelled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_carry_what_the_query_needs() {
    let store = canned(vec![], false);
    let request = Arc::clone(&store.request);
    let options = SelectOptions { max_resolution_ms: 300_000, ..options(true) };
    let queryable = StoreQueryable::new(Arc::new(store), options, Handle::current());
    for (func, aggregates) in [
        (Some("max_over_time"), View::One(chronolith_storeapi::Aggregate::Max).aggregates()),
        (None, View::Average.aggregates()),
    ] {
        read(queryable.clone(), func, QueryContext::new()).await.unwrap();
        let request = request.lock().unwrap().take().unwrap();
        assert_eq!((request.max_resolution_ms, request.aggregates), (300_000, aggregates));
        assert_eq!(request.without_replica_labels, ["replica"]);
        assert_eq!(request.hints.func.as_deref(), func);
    }
}
