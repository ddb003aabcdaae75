use chronolith_model::MatchOp;

use super::*;
use crate::contract::{StoreFixture, T0, TestSeries};
use crate::{ErrorKind, MemoryStore};

fn memory(external: &Labels, series: &[TestSeries]) -> MemoryStore {
    MemoryStore::new(external.clone(), series.iter().map(|s| (s.labels.clone(), s.chunks())).collect())
}

async fn endpoint(name: &str, store: impl Store + 'static) -> Arc<Endpoint> {
    let info = store.info().await.unwrap();
    Arc::new(Endpoint {
        name: name.to_owned(),
        store: Arc::new(store),
        info,
        local: false,
        apis: Apis::default(),
    })
}

fn fanout(up: Vec<Arc<Endpoint>>, timeout: Option<Duration>) -> Fanout {
    let set: Arc<Endpoints> = Arc::new(Endpoints { up, down: Vec::new() });
    Fanout::new(Arc::new(set), FanoutOptions { response_timeout: timeout })
}

async fn collect(
    store: &dyn Store,
    request: SeriesRequest,
) -> Result<(Vec<Labels>, Vec<String>), StoreError> {
    let mut stream = store.series(request).await?;
    let (mut series, mut warnings) = (Vec::new(), Vec::new());
    while let Some(event) = stream.next().await {
        match event? {
            SeriesEvent::Batch(batch) => series.extend(batch.into_iter().map(|s| s.labels)),
            SeriesEvent::Warning(text) => warnings.push(text),
            SeriesEvent::Hints(_) => {}
        }
    }
    Ok((series, warnings))
}

/// A store that knows nothing of sharding and replica labels, as old endpoints do.
struct Plain(MemoryStore);

#[async_trait]
impl Store for Plain {
    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        assert!(request.shard.is_none() && request.without_replica_labels.is_empty(), "it would ignore them");
        self.0.series(request).await
    }

    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelNames, StoreError> {
        self.0.label_names(request).await
    }

    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelValues, StoreError> {
        self.0.label_values(request).await
    }

    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let info = self.0.info().await?;
        Ok(StoreInfo {
            supports_sharding: false,
            supports_without_replica_labels: false,
            supports_projection: false,
            ..info
        })
    }
}

/// The series dealt over three stores, one of them loaded twice, one of them old.
struct Spread;

#[async_trait]
impl StoreFixture for Spread {
    async fn load(&self, external: &Labels, series: &[TestSeries]) -> Arc<dyn Store> {
        let part = |n: usize| {
            let part: Vec<_> = series.iter().skip(n).step_by(3).cloned().collect();
            memory(external, &part)
        };
        let up = vec![
            endpoint("one", part(0)).await,
            endpoint("again", part(0)).await,
            endpoint("two", part(1)).await,
            endpoint("old", Plain(part(2))).await,
        ];
        Arc::new(fanout(up, Some(Duration::from_secs(10))))
    }
}

struct Memory;

#[async_trait]
impl StoreFixture for Memory {
    async fn load(&self, external: &Labels, series: &[TestSeries]) -> Arc<dyn Store> {
        Arc::new(memory(external, series))
    }
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    crate::contract::run(&Memory).await;
}

#[tokio::test]
async fn fanout_keeps_the_contract() {
    crate::contract::run(&Spread).await;
}

fn name_any() -> Vec<Matcher> {
    vec![Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap()]
}

fn request() -> SeriesRequest {
    SeriesRequest::new(TimeRange::new(T0, T0 + 7_200_000), name_any())
}

fn external(replica: &str) -> Labels {
    Labels::from_pairs([("replica", replica)]).unwrap()
}

type Answer = fn() -> Result<SeriesStream, StoreError>;

/// Says what `info` says and then fails in its way.
struct Broken {
    series: Answer,
}

#[async_trait]
impl Store for Broken {
    async fn series(&self, _: SeriesRequest) -> Result<SeriesStream, StoreError> {
        (self.series)()
    }

    async fn label_names(&self, _: LabelNamesRequest) -> Result<LabelNames, StoreError> {
        std::future::pending().await
    }

    async fn label_values(&self, _: LabelValuesRequest) -> Result<LabelValues, StoreError> {
        Err(StoreError::unavailable("connection refused"))
    }

    async fn info(&self) -> Result<StoreInfo, StoreError> {
        Ok(StoreInfo { range: TimeRange::ALL, ..StoreInfo::new("store") })
    }
}

#[tokio::test]
async fn failing_and_silent_stores_are_warnings_or_the_end() {
    let good = || memory(&external("a"), &[TestSeries::new(&[("__name__", "up")], 0, 5)]);
    let cases: [(Answer, &str); 4] = [
        (|| Err(StoreError::unavailable("connection refused")), "bad: connection refused"),
        (|| Ok(Box::pin(futures::stream::pending())), "bad: no answer within 50ms"),
        (
            || Ok(Box::pin(futures::stream::iter([Err(StoreError::corrupt("chunk of block X"))]))),
            "bad: chunk of block X",
        ),
        (|| Err(StoreError::limit("exceeded series limit")), "bad: exceeded series limit"),
    ];
    for (series, text) in cases {
        let up = vec![endpoint("good", good()).await, endpoint("bad", Broken { series }).await];
        let fanout = fanout(up, Some(Duration::from_millis(50)));
        let (got, warnings) = collect(&fanout, request()).await.unwrap();
        assert_eq!((got.len(), warnings), (1, vec![text.to_owned()]));

        let strict = SeriesRequest { partial_response: PartialResponse::Abort, ..request() };
        let error = collect(&fanout, strict).await.unwrap_err();
        let kind = if text.contains("limit") { ErrorKind::LimitExceeded } else { ErrorKind::Aborted };
        assert_eq!((error.kind(), error.message()), (kind, text));

        let mut names = LabelNamesRequest::new(request().range, vec![]);
        let answer = fanout.label_names(names.clone()).await.unwrap();
        assert_eq!(answer.names, ["__name__", "replica"]);
        assert_eq!(answer.warnings, ["bad: no answer within 50ms"]);
        names.partial_response = PartialResponse::Abort;
        assert_eq!(fanout.label_names(names).await.unwrap_err().kind(), ErrorKind::Aborted);

        let values = LabelValuesRequest::new("replica", request().range, vec![]);
        let answer = fanout.label_values(values).await.unwrap();
        assert_eq!((answer.values, answer.warnings.len()), (vec!["a".to_owned()], 1));
    }
}

#[tokio::test]
async fn only_stores_that_may_have_something_are_asked() {
    let unasked = Broken { series: || Err(StoreError::internal("was asked")) };
    let info = StoreInfo {
        label_sets: vec![external("b")],
        range: TimeRange::new(0, 10),
        ..StoreInfo::new("store")
    };
    let unasked = Arc::new(Endpoint {
        name: "10.0.0.2:10901".into(),
        store: Arc::new(unasked),
        info,
        local: false,
        apis: Apis::default(),
    });
    let series = [TestSeries::new(&[("__name__", "up")], 0, 5)];
    let asked = endpoint("10.0.0.1:10901", memory(&external("a"), &series)).await;
    let fanout = fanout(vec![asked, unasked], None);

    let (got, warnings) = collect(&fanout, request()).await.unwrap();
    assert_eq!((got.len(), warnings.len()), (1, 0), "its time does not overlap");

    let mut by_label = SeriesRequest { range: TimeRange::new(0, T0 + 1_000_000), ..request() };
    by_label.matchers.push(Matcher::equal("replica", "a"));
    let (got, warnings) = collect(&fanout, by_label.clone()).await.unwrap();
    assert_eq!((got.len(), warnings.len()), (1, 0), "its label set does not fit");

    by_label.matchers.pop();
    let (got, warnings) = collect(&fanout, by_label.clone()).await.unwrap();
    assert_eq!((got.len(), warnings), (1, vec!["10.0.0.2:10901: was asked".to_owned()]));

    let chosen = fanout.with_store_matchers(vec![vec![Matcher::equal(ADDRESS_LABEL, "10.0.0.1:10901")]]);
    let (got, warnings) = collect(&chosen, by_label.clone()).await.unwrap();
    assert_eq!((got.len(), warnings.len()), (1, 0), "its address was not chosen");

    let chosen = fanout.with_store_matchers(vec![vec![Matcher::equal("replica", "none")]]);
    let (got, warnings) = collect(&chosen, by_label).await.unwrap();
    assert_eq!((got.len(), warnings.len()), (0, 0));
}

#[tokio::test]
async fn an_endpoint_without_series_is_not_asked_for_any() {
    let silent = Broken { series: || Err(StoreError::internal("was asked")) };
    let ruler = Arc::new(Endpoint {
        name: "ruler".into(),
        store: Arc::new(silent),
        info: StoreInfo::new("rule"),
        local: false,
        apis: Apis::default(),
    });
    let series = [TestSeries::new(&[("__name__", "up")], 0, 5)];
    let fanout = fanout(vec![endpoint("store", memory(&external("a"), &series)).await, ruler], None);
    let all = SeriesRequest { range: TimeRange::ALL, ..request() };
    let (got, warnings) = collect(&fanout, all).await.unwrap();
    assert_eq!((got.len(), warnings.len()), (1, 0));
    let values = LabelValuesRequest::new("replica", TimeRange::ALL, vec![]);
    assert_eq!(fanout.label_values(values).await.unwrap().warnings, Vec::<String>::new());
}

#[tokio::test]
async fn stores_that_are_down_or_missing_are_never_silent() {
    let set: Arc<Endpoints> = Arc::new(Endpoints { up: vec![], down: vec!["strict:1".into()] });
    let fanout = Fanout::new(Arc::new(set), FanoutOptions::default());
    let (got, warnings) = collect(&fanout, request()).await.unwrap();
    assert_eq!((got.len(), warnings), (0, vec!["strict:1: store is down".to_owned()]));
    let strict = SeriesRequest { partial_response: PartialResponse::Abort, ..request() };
    assert_eq!(collect(&fanout, strict.clone()).await.unwrap_err().kind(), ErrorKind::Aborted);
    let nobody: Arc<Endpoints> = Arc::default();
    let fanout = Fanout::new(Arc::new(nobody), FanoutOptions::default());
    assert_eq!(collect(&fanout, strict).await.unwrap_err().message(), "no store is registered");
}

#[tokio::test]
async fn equal_replicas_collapse_when_their_label_is_removed() {
    let series = [TestSeries::new(&[("__name__", "up")], 0, 300)];
    let up = vec![
        endpoint("a", memory(&external("a"), &series)).await,
        endpoint("b", Plain(memory(&external("b"), &series))).await,
    ];
    let fanout = fanout(up, None);
    let mut request = request();
    assert_eq!(collect(&fanout, request.clone()).await.unwrap().0.len(), 2);
    request.without_replica_labels = vec!["replica".into()];
    let mut stream = fanout.series(request).await.unwrap();
    let Some(Ok(SeriesEvent::Batch(batch))) = stream.next().await else { panic!("a batch comes first") };
    assert_eq!(batch.len(), 1);
    assert_eq!(batch[0].chunks.len(), series[0].chunks().len(), "equal chunks are sent once");
}
