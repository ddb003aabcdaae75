//! The acceptance suite of [`Store`]: what all sources of series have in common.
//!
//! Every implementation runs it over a fixture that loads series into a new store: the in-memory store, client and
//! server over a socket, and the fan-out do here; heads, blocks and buckets do in their crates, with the feature
//! `contract` as a dev-dependency.
//!
//! What it expects is computed the naive way from the loaded series. All samples lie inside two hours from [`T0`], so
//! that they fit one block.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use chronolith_chunk::{Chunk, SampleColumns, encode_floats};
use chronolith_model::{Labels, MatchOp, Matcher, TimeRange};
use futures::StreamExt as _;

use crate::{
    AggrChunk, ErrorKind, LabelNamesRequest, LabelValuesRequest, PartialResponse, Projection, SeriesEvent,
    SeriesRequest, ShardInfo, Store, StoreError,
};

/// The first sample's time: a multiple of two hours.
pub const T0: i64 = 1_599_998_400_000;
/// Between samples.
pub const STEP_MS: i64 = 15_000;

/// A series to load.
#[derive(Clone, Debug, PartialEq)]
pub struct TestSeries {
    /// The producer's own labels.
    pub labels: Labels,
    /// Times (in milliseconds, ascending) and values.
    pub samples: Vec<(i64, f64)>,
}

impl TestSeries {
    /// A series of `count` samples from sample number `first` after [`T0`] on.
    pub fn new(labels: &[(&str, &str)], first: i64, count: i64) -> Self {
        let labels = Labels::from_pairs(labels.iter().copied()).expect("test labels are fine");
        let seed = (labels.stable_hash() % 1000) as f64;
        let samples = (first..first + count).map(|i| (T0 + i * STEP_MS, seed + i as f64 / 8.0)).collect();
        TestSeries { labels, samples }
    }

    /// The samples in chunks of 120, for fixtures that take chunks.
    pub fn chunks(&self) -> Vec<Chunk> {
        let (ts, values): (Vec<i64>, Vec<f64>) = self.samples.iter().copied().unzip();
        encode_floats(&ts, &values)
    }
}

/// Makes stores for the suite.
#[async_trait]
pub trait StoreFixture: Send + Sync {
    /// A new store with these series of one producer. What it needs (directories, servers) lives as long as it or as
    /// the fixture.
    async fn load(&self, external: &Labels, series: &[TestSeries]) -> Arc<dyn Store>;
}

/// Runs all cases.
///
/// # Panics
/// When the store does not behave.
pub async fn run(fixture: &dyn StoreFixture) {
    matchers(fixture).await;
    time_ranges(fixture).await;
    external_labels_win(fixture).await;
    replica_labels_go_before_sorting(fixture).await;
    shards(fixture).await;
    projections(fixture).await;
    limits(fixture).await;
    info(fixture).await;
}

/// A store, and what was loaded into it.
struct Loaded {
    store: Arc<dyn Store>,
    external: Labels,
    series: Vec<TestSeries>,
}

impl Loaded {
    async fn new(fixture: &dyn StoreFixture, external: &[(&str, &str)], series: Vec<TestSeries>) -> Self {
        let external = Labels::from_pairs(external.iter().copied()).expect("test labels are fine");
        let store = fixture.load(&external, &series).await;
        Loaded { store, external, series }
    }

    /// The naive answer: label sets after removal of `remove`, sorted and unique, of series that match.
    fn want(&self, matchers: &[Matcher], remove: &[&str]) -> Vec<Labels> {
        let mut want: Vec<Labels> =
            self.full(matchers).map(|l| l.filter(|name, _| !remove.contains(&name))).collect();
        want.sort();
        want.dedup();
        want
    }

    fn full<'a>(&'a self, matchers: &'a [Matcher]) -> impl Iterator<Item = Labels> + 'a {
        let full = self.series.iter().map(|s| s.labels.with(self.external.iter()));
        full.filter(|l| matchers.iter().all(|m| m.matches(l.get(&m.name).unwrap_or(""))))
    }
}

async fn projections(fixture: &dyn StoreFixture) {
    let mut series = Vec::new();
    for (metric, pod, replica) in
        [("a", "1", "x"), ("a", "1", "y"), ("a", "2", "x"), ("b", "1", "x"), ("b", "3", "x")]
    {
        let labels = [("__name__", metric), ("job", "j"), ("pod", pod), ("replica", replica)];
        series.push(TestSeries::new(&labels, 0, 10));
    }
    let loaded = Loaded::new(fixture, &[("region", "eu")], series).await;
    let everything = [Matcher::equal("job", "j")];
    for keep in [&["__name__"][..], &["__name__", "job", "region"], &["pod"], &[]] {
        let projection = Projection::new(keep.iter().map(|s| (*s).to_owned()).collect());
        let mut request = SeriesRequest::new(TimeRange::ALL, everything.to_vec());
        request.without_replica_labels = vec!["replica".to_owned()];
        request.projection.clone_from(&projection);
        let projection = projection.expect("none of these is the hash label");
        let mut want: Vec<Labels> =
            loaded.want(&everything, &["replica"]).iter().map(|l| projection.apply(l)).collect();
        want.sort();
        assert_eq!(want.len(), 4);
        assert_eq!(labels_of(loaded.store.as_ref(), request).await, want, "{keep:?}");
    }
}

/// A whole answer. Frames of one series are joined; order and uniqueness are checked.
async fn collect(
    store: &dyn Store,
    request: SeriesRequest,
) -> Result<Vec<(Labels, Vec<AggrChunk>)>, StoreError> {
    let mut stream = store.series(request).await?;
    let mut out: Vec<(Labels, Vec<AggrChunk>)> = Vec::new();
    while let Some(event) = stream.next().await {
        match event? {
            SeriesEvent::Batch(batch) => {
                for series in batch {
                    match out.last_mut() {
                        Some((last, chunks)) if *last == series.labels => chunks.extend(series.chunks),
                        last => {
                            if let Some((last, _)) = last {
                                assert!(*last < series.labels, "{} comes after {last}", series.labels);
                            }
                            out.push((series.labels, series.chunks));
                        }
                    }
                }
            }
            SeriesEvent::Warning(text) => panic!("unexpected warning: {text}"),
            SeriesEvent::Hints(_) => {}
        }
    }
    Ok(out)
}

async fn labels_of(store: &dyn Store, request: SeriesRequest) -> Vec<Labels> {
    let answer = collect(store, request).await.expect("the store answers");
    answer.into_iter().map(|(labels, _)| labels).collect()
}

/// All samples of the chunks inside the range, by time, doubles removed.
fn samples_of(chunks: &[AggrChunk], range: TimeRange) -> Vec<(i64, f64)> {
    let mut columns = SampleColumns::default();
    for chunk in chunks {
        let raw = chunk.raw().expect("the suite loads raw samples");
        raw.decode_into(range, &mut columns).expect("a store sends sound chunks");
    }
    let mut samples: Vec<_> = columns.ts.into_iter().zip(columns.values).collect();
    samples.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    samples.dedup();
    samples
}

fn request(matchers: Vec<Matcher>) -> SeriesRequest {
    SeriesRequest {
        partial_response: PartialResponse::Abort,
        ..SeriesRequest::new(TimeRange::new(T0, T0 + 7_200_000), matchers)
    }
}

fn matcher(op: MatchOp, name: &str, value: &str) -> Matcher {
    Matcher::new(op, name, value).expect("test patterns are fine")
}

fn eq(name: &str, value: &str) -> Matcher {
    Matcher::equal(name, value)
}

fn name_any() -> Matcher {
    matcher(MatchOp::Regex, "__name__", ".+")
}

async fn matchers(fixture: &dyn StoreFixture) {
    let loaded = Loaded::new(
        fixture,
        &[("region", "eu"), ("replica", "a")],
        vec![
            TestSeries::new(&[("__name__", "up"), ("job", "api"), ("instance", "a")], 0, 10),
            TestSeries::new(&[("__name__", "up"), ("job", "api"), ("instance", "b")], 0, 10),
            TestSeries::new(&[("__name__", "up"), ("job", "db"), ("instance", "a")], 0, 10),
            TestSeries::new(&[("__name__", "requests_total"), ("job", "api"), ("code", "200")], 0, 10),
            TestSeries::new(&[("__name__", "requests_total"), ("job", "api"), ("code", "500")], 0, 10),
            TestSeries::new(&[("__name__", "build"), ("ümlaut", "wört\n\"x\"")], 0, 10),
            TestSeries::new(&[("__name__", "bare")], 0, 10),
        ],
    )
    .await;
    use MatchOp::{Equal, NotEqual, NotRegex, Regex};
    #[rustfmt::skip]
    let cases: &[&[(MatchOp, &str, &str)]] = &[
        &[(Equal, "__name__", "up")],
        &[(Equal, "__name__", "none")],
        &[(Equal, "job", "api")],
        &[(Equal, "job", "")],
        &[(Equal, "job", "api"), (Equal, "__name__", "up")],
        &[(Equal, "job", "api"), (Equal, "job", "db")],
        &[(Equal, "missing", "")],
        &[(Equal, "missing", ""), (Equal, "__name__", "bare")],
        &[(Equal, "missing", "x")],
        &[(Equal, "ümlaut", "wört\n\"x\"")],
        &[(NotEqual, "job", "api")],
        &[(NotEqual, "job", "")],
        &[(NotEqual, "job", "none"), (Equal, "__name__", "up")],
        &[(NotEqual, "missing", "")],
        &[(NotEqual, "missing", "x")],
        &[(NotEqual, "code", "200"), (Equal, "__name__", "requests_total")],
        &[(Regex, "job", "api|db")],
        &[(Regex, "job", "a.*")],
        &[(Regex, "job", "a")],
        &[(Regex, "job", "")],
        &[(Regex, "job", ".*")],
        &[(Regex, "job", ".+")],
        &[(Regex, "job", "api|")],
        &[(Regex, "job", "(a|d)(pi|b)")],
        &[(Regex, "code", "5..")],
        &[(Regex, "code", "(?i)500")],
        &[(Regex, "ümlaut", "w.rt.*")],
        &[(Regex, "missing", ".*"), (Equal, "__name__", "bare")],
        &[(Regex, "missing", ".+")],
        &[(NotRegex, "job", "api|db")],
        &[(NotRegex, "job", "")],
        &[(NotRegex, "job", ".*")],
        &[(NotRegex, "job", ".+")],
        &[(NotRegex, "job", "api|")],
        &[(NotRegex, "code", "2.."), (Equal, "job", "api")],
        &[(NotRegex, "missing", ".+"), (Regex, "__name__", "b.*")],
        // On external labels.
        &[(Equal, "region", "eu"), (Equal, "__name__", "up")],
        &[(Equal, "region", "us"), (Equal, "__name__", "up")],
        &[(Equal, "region", ""), (Equal, "__name__", "up")],
        &[(NotEqual, "region", "us"), (Equal, "job", "db")],
        &[(NotEqual, "region", "eu"), (Equal, "job", "db")],
        &[(NotEqual, "region", ""), (Equal, "job", "db")],
        &[(Regex, "region", "eu|us"), (Equal, "job", "db")],
        &[(Regex, "region", "e.|us"), (Regex, "replica", ".+"), (Equal, "job", "db")],
        &[(Regex, "region", "us|"), (Equal, "job", "db")],
        &[(NotRegex, "region", "eu|us"), (Equal, "job", "db")],
        &[(NotRegex, "region", ""), (Equal, "job", "db")],
    ];
    for case in cases {
        let list: Vec<Matcher> = case.iter().map(|(op, name, value)| matcher(*op, name, value)).collect();
        let want = loaded.want(&list, &[]);
        let answer = collect(&*loaded.store, request(list.clone())).await.expect("the store answers");
        let got: Vec<Labels> = answer.iter().map(|(labels, _)| labels.clone()).collect();
        assert_eq!(got, want, "matchers {list:?}");
        for (labels, chunks) in &answer {
            let own = loaded.series.iter().find(|s| s.labels.with(loaded.external.iter()) == *labels);
            let want = &own.expect("it was loaded").samples;
            assert_eq!(samples_of(chunks, TimeRange::ALL), *want, "samples of {labels}");
        }

        let skip = SeriesRequest { skip_chunks: true, ..request(list.clone()) };
        let answer = collect(&*loaded.store, skip).await.expect("the store answers");
        assert!(answer.iter().all(|(_, chunks)| chunks.is_empty()), "chunks were not asked for");
        assert_eq!(answer.into_iter().map(|(l, _)| l).collect::<Vec<_>>(), want, "matchers {list:?}");

        label_calls(&loaded, &list).await;
    }
    label_calls(&loaded, &[]).await;
    for list in [vec![], vec![eq("region", "eu")]] {
        let error = collect(&*loaded.store, request(list)).await.expect_err("no matcher is left");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

/// Label names and values with these matchers.
async fn label_calls(loaded: &Loaded, list: &[Matcher]) {
    let range = TimeRange::new(T0, T0 + 7_200_000);
    let full: Vec<Labels> = loaded.full(list).collect();
    let names: BTreeSet<&str> = full.iter().flat_map(|l| l.iter().map(|(name, _)| name)).collect();
    let mut names_request = LabelNamesRequest::new(range, list.to_vec());
    names_request.partial_response = PartialResponse::Abort;
    let got = loaded.store.label_names(names_request.clone()).await.expect("the store answers");
    assert_eq!(got.names, names.iter().copied().collect::<Vec<_>>(), "label names with {list:?}");

    names_request.limit = 2;
    let got = loaded.store.label_names(names_request.clone()).await.expect("the store answers");
    assert_eq!(got.names, names.iter().copied().take(2).collect::<Vec<_>>(), "2 label names with {list:?}");

    names_request.limit = 0;
    names_request.without_replica_labels = vec!["replica".into()];
    let got = loaded.store.label_names(names_request).await.expect("the store answers");
    let want: Vec<&str> = names.iter().copied().filter(|n| *n != "replica").collect();
    assert_eq!(got.names, want, "label names without replica label with {list:?}");

    for label in ["__name__", "job", "code", "region", "replica", "ümlaut", "missing"] {
        let values: BTreeSet<&str> = full.iter().filter_map(|l| l.get(label)).collect();
        let mut values_request = LabelValuesRequest::new(label, range, list.to_vec());
        values_request.partial_response = PartialResponse::Abort;
        let got = loaded.store.label_values(values_request.clone()).await.expect("the store answers");
        assert_eq!(got.values, values.iter().copied().collect::<Vec<_>>(), "values of {label} with {list:?}");

        values_request.limit = 1;
        let got = loaded.store.label_values(values_request.clone()).await.expect("the store answers");
        assert_eq!(got.values, values.iter().copied().take(1).collect::<Vec<_>>(), "1 value of {label}");

        values_request.limit = 0;
        values_request.without_replica_labels = vec!["replica".into()];
        let got = loaded.store.label_values(values_request).await.expect("the store answers");
        let want: Vec<&str> = values.iter().copied().filter(|_| label != "replica").collect();
        assert_eq!(got.values, want, "values of {label} without replica label with {list:?}");
    }
}

async fn time_ranges(fixture: &dyn StoreFixture) {
    // Three chunks' worth from the start, a short series in the middle, one at the end.
    let loaded = Loaded::new(
        fixture,
        &[("region", "eu")],
        vec![
            TestSeries::new(&[("__name__", "long")], 0, 400),
            TestSeries::new(&[("__name__", "middle")], 200, 10),
            TestSeries::new(&[("__name__", "late")], 390, 10),
        ],
    )
    .await;
    let t = |i: i64| T0 + i * STEP_MS;
    for (from, to) in
        [(0, 399), (0, 0), (399, 399), (100, 205), (205, 205), (209, 209), (210, 389), (250, 395)]
    {
        for (mint, maxt) in [(t(from), t(to)), (t(from) - 1, t(to) + 1)] {
            let range = TimeRange::new(mint, maxt);
            let request = SeriesRequest { range, ..request(vec![name_any()]) };
            let answer = collect(&*loaded.store, request).await.expect("the store answers");
            for series in &loaded.series {
                let labels = series.labels.with(loaded.external.iter());
                let want: Vec<_> = series.samples.iter().copied().filter(|s| range.contains(s.0)).collect();
                let found = answer.iter().find(|(l, _)| *l == labels);
                let got = found.map(|(_, chunks)| samples_of(chunks, range)).unwrap_or_default();
                assert_eq!(got, want, "{labels} in {range}");
                let (first, last) = (series.samples[0].0, series.samples[series.samples.len() - 1].0);
                assert!(
                    found.is_none() || TimeRange::new(first, last).overlaps(&range),
                    "{labels} has nothing in {range}"
                );
            }
            for (labels, chunks) in &answer {
                assert!(!chunks.is_empty(), "{labels} in {range} has no chunks");
                for chunk in chunks {
                    let time = TimeRange::new(chunk.mint(), chunk.maxt());
                    assert!(time.overlaps(&range), "{labels} in {range}: a chunk of {time}");
                }
            }
        }
    }
    for range in
        [TimeRange::new(T0 - 100, T0 - 1), TimeRange::new(t(400), t(500)), TimeRange::new(t(5), t(4))]
    {
        let request = SeriesRequest { range, ..request(vec![name_any()]) };
        let answer = collect(&*loaded.store, request).await.expect("the store answers");
        assert_eq!(answer, vec![], "series in {range}");
    }
}

async fn external_labels_win(fixture: &dyn StoreFixture) {
    let loaded = Loaded::new(
        fixture,
        &[("region", "eu"), ("job", "external")],
        vec![
            // These two become one.
            TestSeries::new(&[("__name__", "up"), ("job", "api")], 0, 10),
            TestSeries::new(&[("__name__", "up"), ("job", "db")], 20, 10),
            TestSeries::new(&[("__name__", "up"), ("job", "api"), ("region", "us"), ("z", "1")], 0, 10),
            // The external labels upset the order of these.
            TestSeries::new(&[("__name__", "up"), ("job", "a"), ("x", "2")], 0, 10),
            TestSeries::new(&[("__name__", "up"), ("job", "b"), ("x", "1")], 0, 10),
            TestSeries::new(&[("__name__", "up"), ("x", "0")], 0, 10),
            TestSeries::new(&[("__name__", "up"), ("k", "0")], 0, 10),
            TestSeries::new(&[("__name__", "up"), ("zz", "0")], 0, 10),
            TestSeries::new(&[("A", "before the name"), ("__name__", "up")], 0, 10),
        ],
    )
    .await;
    for list in [
        vec![eq("__name__", "up")],
        vec![eq("__name__", "up"), eq("job", "external")],
        vec![eq("__name__", "up"), eq("job", "api")],
        vec![eq("__name__", "up"), eq("region", "us")],
        vec![eq("__name__", "up"), eq("region", "eu"), matcher(MatchOp::Regex, "x", "[12]")],
    ] {
        let got = labels_of(&*loaded.store, request(list.clone())).await;
        assert_eq!(got, loaded.want(&list, &[]), "matchers {list:?}");
    }
    let answer =
        collect(&*loaded.store, request(vec![eq("__name__", "up")])).await.expect("the store answers");
    let joined = Labels::from_pairs([("__name__", "up"), ("job", "external"), ("region", "eu")]);
    let joined = joined.expect("test labels are fine");
    let (_, chunks) = answer.iter().find(|(l, _)| *l == joined).expect("the joined series is there");
    let mut want = [loaded.series[0].samples.as_slice(), &loaded.series[1].samples].concat();
    want.sort_by_key(|s| s.0);
    assert_eq!(samples_of(chunks, TimeRange::ALL), want);
    for label in ["job", "region"] {
        let range = TimeRange::new(T0, T0 + 7_200_000);
        let request = LabelValuesRequest::new(label, range, vec![]);
        let got = loaded.store.label_values(request).await.expect("the store answers");
        assert_eq!(got.values, [loaded.external.get(label).expect("it is external")]);
    }
}

async fn replica_labels_go_before_sorting(fixture: &dyn StoreFixture) {
    let mut series = Vec::new();
    for replica in ["1", "2"] {
        for (name, value) in [("a", "1"), ("a", "2"), ("q", "1"), ("z", "1"), ("z", "2")] {
            series.push(TestSeries::new(&[("__name__", "m"), ("r", replica), (name, value)], 0, 10));
        }
        series.push(TestSeries::new(&[("__name__", "m"), ("r", replica)], 0, 10));
        series.push(TestSeries::new(&[("__name__", "n"), ("r", replica), ("z", "1")], 0, 10));
    }
    let loaded = Loaded::new(fixture, &[("replica", "x"), ("cluster", "c")], series).await;
    for remove in
        [&["r"][..], &["replica"], &["r", "replica"], &["cluster", "r", "replica"], &["missing"], &["a", "z"]]
    {
        let list = vec![matcher(MatchOp::Regex, "__name__", "m|n")];
        let mut request = request(list.clone());
        request.without_replica_labels = remove.iter().map(|&s| s.to_owned()).collect();
        let got = labels_of(&*loaded.store, request.clone()).await;
        assert_eq!(got, loaded.want(&list, remove), "without {remove:?}");
        // Matchers see the labels as they were before.
        request.matchers.push(eq("r", "1"));
        let got = labels_of(&*loaded.store, request.clone()).await;
        assert_eq!(got, loaded.want(&request.matchers, remove), "without {remove:?}, of r=1");
    }
}

async fn shards(fixture: &dyn StoreFixture) {
    let values: Vec<String> = (0..30).map(|i| format!("v{i}")).collect();
    let series = values.iter().map(|v| TestSeries::new(&[("__name__", "m"), ("i", v), ("pod", "x")], 0, 3));
    let loaded = Loaded::new(fixture, &[("region", "eu")], series.collect()).await;
    for (by, names) in [(true, vec!["i"]), (false, vec!["pod", "region"]), (true, vec!["pod"])] {
        let labels: Vec<String> = names.iter().map(|&s| s.to_owned()).collect();
        let mut all = Vec::new();
        for index in 0..4 {
            let shard = ShardInfo { index, count: 4, by, labels: labels.clone() };
            let mut want = loaded.want(&[], &[]);
            want.retain(|l| shard.contains(l));
            let request = SeriesRequest { shard: Some(shard), ..request(vec![eq("__name__", "m")]) };
            let got = labels_of(&*loaded.store, request).await;
            assert_eq!(got, want, "shard {index} by {names:?}");
            all.extend(got);
        }
        all.sort();
        assert_eq!(all, loaded.want(&[], &[]), "all shards by {names:?}");
    }
}

async fn limits(fixture: &dyn StoreFixture) {
    let values: Vec<String> = (0..20).map(|i| format!("v{i:02}")).collect();
    let series = values.iter().map(|v| TestSeries::new(&[("__name__", "m"), ("i", v)], 0, 3));
    let loaded = Loaded::new(fixture, &[("region", "eu")], series.collect()).await;
    for (limit, batch_size) in [(0, 0), (1, 1), (5, 2), (20, 7), (21, 100), (7, 0)] {
        let request = SeriesRequest { limit, batch_size, ..request(vec![eq("__name__", "m")]) };
        let mut want = loaded.want(&[], &[]);
        want.truncate(if limit == 0 { usize::MAX } else { limit });
        assert_eq!(labels_of(&*loaded.store, request).await, want, "limit {limit}, batches of {batch_size}");
    }
}

async fn info(fixture: &dyn StoreFixture) {
    let series = vec![TestSeries::new(&[("__name__", "m")], 0, 100)];
    let loaded = Loaded::new(fixture, &[("region", "eu")], series).await;
    let info = loaded.store.info().await.expect("the store answers");
    assert!(info.label_sets.contains(&loaded.external), "{:?}", info.label_sets);
    for (t, _) in &loaded.series[0].samples {
        assert!(info.range.contains(*t), "{t} lies outside {}", info.range);
    }
}
