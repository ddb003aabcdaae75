//! What a query makes of downsampled data is what it makes of the raw samples, where windows begin and end with those of the
//! resolution: blocks of all three resolutions in a bucket, the store gateway, the querier.

use std::sync::Arc;

use chronolith_bucket::{UploadOptions, upload_block};
use chronolith_chunk::{Chunk, SampleColumns, encode_columns};
use chronolith_compact::downsample::downsample;
use chronolith_conformance::queryable_with;
use chronolith_model::histogram::Span;
use chronolith_model::{BlockId, FloatHistogram, Labels, STALE_NAN};
use chronolith_objstore::Bucket;
use chronolith_promql::{Engine, EngineOptions, QueryContext, Value};
use chronolith_query::StoreQueryable;
use chronolith_service::{Metrics, SystemClock};
use chronolith_store::{BucketStore, Config};
use chronolith_tsdb::block::{Block, BlockParts, BlockWriter, BlockWriterOptions, ThanosMeta};

const HOUR: i64 = 3_600_000;
/// A multiple of an hour.
const START: i64 = 472_000 * HOUR;
const HOURS: i64 = 60;
const STEP: i64 = 30_000;

/// What grows by one a sample, even where it was reset; what goes up and down, with an hour of nothing; histograms of what grows.
fn series() -> Vec<(Labels, Vec<Chunk>)> {
    let (mut counter, mut gauge, mut histogram) =
        (SampleColumns::default(), SampleColumns::default(), SampleColumns::default());
    let mut total = 0.0;
    for i in 0..HOURS * HOUR / STEP {
        let t = START + 7_000 + i * STEP;
        total = if i % 1_737 == 1_000 { 1.0 } else { total + 1.0 };
        counter.push_float(t, total);
        let h = FloatHistogram {
            count: 2.0 * total,
            sum: total,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![total, total],
            ..FloatHistogram::default()
        };
        histogram.push_histogram(t, Arc::new(h));
        let hour = i * STEP / HOUR;
        if hour != 20 {
            gauge.push_float(t, ((i * 7_919) % 1_009) as f64 - 300.0);
        } else if i % 120 == 0 {
            gauge.push_float(t, STALE_NAN);
        }
    }
    [("counter", counter), ("gauge", gauge), ("histogram", histogram)]
        .into_iter()
        .map(|(name, samples)| {
            (Labels::from_pairs([("__name__", name)]).unwrap(), encode_columns(&samples).unwrap())
        })
        .collect()
}

/// A querier for each resolution: raw, five minutes, one hour.
async fn queriers(dir: &std::path::Path) -> Vec<(i64, StoreQueryable)> {
    let quick = BlockWriterOptions { sync: false, ..BlockWriterOptions::default() };
    let [raw, five, hour] = [1u128, 2, 3].map(|n| BlockId(n.into()));
    let mut writer = BlockWriter::create(dir, raw, quick).unwrap();
    for (labels, chunks) in series() {
        writer.add_series(&labels, &chunks).unwrap();
    }
    let thanos = Some(ThanosMeta::new(&Labels::from_pairs([("cluster", "a")]).unwrap(), "test"));
    let times = Some((START, START + HOURS * HOUR));
    let mut metas =
        vec![writer.finish(BlockParts { times, thanos, ..BlockParts::default() }).unwrap().unwrap()];
    for (from, to) in [(raw, five), (five, hour)] {
        let block = Block::open(&dir.join(from.to_string())).unwrap();
        metas.push(downsample(&block, dir, to, quick, || true).unwrap().unwrap());
    }
    let bucket = Bucket::in_memory();
    for meta in &metas {
        let dir = dir.join(meta.ulid.to_string());
        upload_block(&bucket, &dir, meta, UploadOptions::default(), 0).await.unwrap();
    }
    let config = Config { data_dir: dir.join("store"), ..Config::default() };
    let store = Arc::new(BucketStore::new(bucket, config, Arc::new(SystemClock), &Metrics::new()).unwrap());
    store.sync().await.unwrap();
    let mut out = Vec::new();
    for resolution in [0, 300_000, HOUR] {
        out.push((resolution, queryable_with(store.clone(), true, resolution).await.unwrap()));
    }
    out
}

/// The values of a query's only series, by hour, and how many samples were read.
fn values(querier: &StoreQueryable, query: &str, resolution: i64) -> (Vec<(i64, f64)>, u64) {
    let mut cx = QueryContext::new();
    cx.downsampled = resolution > 0;
    let engine = Engine::new(EngineOptions::default());
    // Windows of raw samples end where those of the resolution end.
    let (start, end) = (START + 4 * HOUR - 1, START + HOURS * HOUR - 1);
    let result = engine.range(querier, query, start, end, HOUR, &cx).unwrap();
    let Value::Matrix(series) = &result.value else { panic!("{:?}", result.value) };
    assert!(series.len() <= 1, "{query}: {series:?}");
    let floats = series
        .iter()
        .flat_map(|s| s.timestamps.iter().map(|t| (t - START) / HOUR).zip(s.values.iter().copied()));
    (floats.collect(), result.stats.samples_read)
}

/// Compares what queries make of downsampled data with what they make of raw data.
async fn check(queries: &'static [&'static str], tolerance: f64) {
    let dir = tempfile::tempdir().unwrap();
    let queriers = queriers(dir.path()).await;
    let checked = tokio::task::spawn_blocking(move || {
        for query in queries {
            let (raw, raw_read) = values(&queriers[0].1, query, 0);
            assert!(!raw.is_empty(), "{query}");
            for (resolution, querier) in &queriers[1..] {
                let (got, read) = values(querier, query, *resolution);
                assert!(read * 5 < raw_read, "{query} at {resolution}: read {read} of {raw_read} samples");
                assert_eq!(got.len(), raw.len(), "{query} at {resolution}: {got:?} for {raw:?}");
                for ((t, got), (at, want)) in got.iter().zip(&raw) {
                    let near = (got - want).abs() <= tolerance * want.abs().max(1.0);
                    assert!(
                        t == at && near,
                        "{query} at {resolution}: {got} at hour {t}, {want} at hour {at}"
                    );
                }
            }
        }
    });
    checked.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_over_ranges_keep_their_meaning() {
    check(
        &[
            "sum_over_time(gauge[2h])",
            "count_over_time(gauge[2h])",
            "avg_over_time(gauge[2h])",
            "min_over_time(gauge[2h])",
            "max_over_time(gauge[2h])",
            "present_over_time(gauge[1h])",
            "avg_over_time(gauge[3h]) * count_over_time(gauge[3h]) - sum_over_time(gauge[3h])",
            "max_over_time(gauge[2h]) - min_over_time(gauge[2h]) + avg_over_time(gauge[2h] offset 1h)",
            "count_over_time(histogram[2h])",
            "histogram_count(sum_over_time(histogram[2h]))",
            "histogram_avg(avg_over_time(histogram[2h]))",
            "histogram_sum(avg_over_time(histogram[2h]))",
        ],
        1e-9,
    )
    .await;
}

/// Totals are exact. Their times are not: the sample of a window stands at its end, although the last raw one came up to an
/// interval earlier, but at the end of a chunk it stands where that one stood. Hence half a percent, with an interval of 30 s and
/// ranges of hours; a reset that is missed would be far more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_grow_over_resets_as_they_did() {
    check(
        &[
            "increase(counter[3h])",
            "rate(counter[2h])",
            "irate(counter[3h])",
            "sum(rate(counter[4h]))",
            "increase(counter[3h]) / on() group_left max_over_time(vector(1)[1h:1h])",
        ],
        0.005,
    )
    .await;
    // The last reset of a block moves what was counted behind it into the next window, of which a range of 3 h has three. A reset that
    // is missed, or seen where there is none, would be as much as the counter had come to: the double and more.
    check(&["histogram_count(increase(histogram[3h]))", "histogram_sum(rate(histogram[3h]))"], 0.25).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_selector_is_the_average_of_its_window() {
    let dir = tempfile::tempdir().unwrap();
    let queriers = queriers(dir.path()).await;
    let checked = tokio::task::spawn_blocking(move || {
        for (resolution, window) in [(300_000, "5m"), (HOUR, "1h")] {
            let querier = &queriers.iter().find(|(r, _)| *r == resolution).unwrap().1;
            for (plain, of_raw) in [
                ("gauge", "avg_over_time(gauge[W])"),
                ("min(gauge)", "min_over_time(gauge[W])"),
                ("-max(-gauge)", "avg_over_time(gauge[W])"),
                ("sum_over_time(gauge[2h:1h])", "sum_over_time(avg_over_time(gauge[W])[2h:1h])"),
                ("histogram_sum(histogram)", "histogram_sum(avg_over_time(histogram[W]))"),
            ] {
                let got = values(querier, plain, resolution).0;
                let want = values(&queriers[0].1, &of_raw.replace('W', window), 0).0;
                assert!(!want.is_empty(), "{of_raw}");
                let want: Vec<_> =
                    want.into_iter().filter(|(t, _)| got.iter().any(|(at, _)| at == t)).collect();
                assert_eq!(got.len(), want.len(), "{plain} at {resolution}");
                assert!(got.len() > 50, "{plain} at {resolution}");
                for ((t, got), (_, want)) in got.iter().zip(&want) {
                    let near = (got - want).abs() <= 1e-9 * want.abs().max(1.0);
                    assert!(near, "{plain} at {resolution}: {got} at hour {t}, not {want}");
                }
            }
        }
    });
    checked.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_range_is_read_from_what_is_fine_enough() {
    let dir = tempfile::tempdir().unwrap();
    let queriers = queriers(dir.path()).await;
    let checked = tokio::task::spawn_blocking(move || {
        let (_, coarse) = queriers.last().unwrap();
        // Ten minutes hold two samples of five; five minutes of a counter need raw ones.
        for (query, samples_a_window) in [("avg_over_time(gauge[10m])", 2), ("rate(counter[5m])", 10)] {
            let (got, read) = values(coarse, query, HOUR);
            assert!(got.len() >= 55, "{query}: {got:?}");
            assert!(read <= got.len() as u64 * samples_a_window + samples_a_window, "{query}: {read}");
        }
    });
    checked.await.unwrap();
}
