//! Beside a real Thanos: queriers of both over receivers and stores of both, routers of both in front of receivers of both.
//!
//! Optional: runs when `CHRONOLITH_THANOS` names a `thanos` binary (docs/operating/thanos.md).

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chronolith_e2e::{
    Answer, Chronolith, TestSeries, Thanos, assert_same, thanos_binary, write_body, write_to,
};
use chronolith_model::{BlockId, MatchOp, Matcher, TimeRange};
use chronolith_storeapi::{
    ClientOptions, LabelNamesRequest, LabelValuesRequest, SeriesEvent, SeriesRequest, SeriesStats, ShardInfo,
    Store, StoreClient,
};
use chronolith_testkit::{S3Server, free_port, http, wait_until};
use futures::StreamExt;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
const TENANT: &str = "default-tenant";

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// A receiver of ours.
struct Receiver {
    process: Chronolith,
    grpc: String,
    write: String,
}

fn receiver(dir: &Path, label: &str, args: &[String]) -> Receiver {
    let (grpc, write) = (free_address(), free_address());
    let mut all = vec![
        format!("--tsdb.path={}", dir.join(label).display()),
        format!("--grpc-address={grpc}"),
        format!("--remote-write.address={write}"),
        format!("--label=replica=\"{label}\""),
        "--web.enable-admin-api".to_owned(),
    ];
    all.extend_from_slice(args);
    Receiver { process: Chronolith::start("receive", &all), grpc, write }
}

fn thanos_receiver(binary: &Path, dir: &Path, label: &str, args: &[String]) -> Thanos {
    let grpc = free_address();
    let mut all = vec![
        format!("--tsdb.path={}", dir.join(label).display()),
        format!("--label=replica=\"{label}\""),
        format!("--receive.local-endpoint={grpc}"),
    ];
    all.extend_from_slice(args);
    Thanos::start_on(binary, "receive", &grpc, &all)
}

/// Samples every 15 s of forty series from `from` on; one ends with a stale marker.
fn load(from: i64, count: usize) -> Vec<TestSeries> {
    let series = |i: usize| {
        let labels = [
            ("__name__", if i.is_multiple_of(2) { "requests_total" } else { "temperature" }),
            ("instance", &*format!("host{i:02}")),
            ("job", if i.is_multiple_of(3) { "a" } else { "b" }),
        ];
        let samples = (0..count).map(|n| {
            let t = from + n as i64 * 15_000;
            let k = t / 15_000 % 10_000;
            (
                t,
                if i.is_multiple_of(2) {
                    (k * (i as i64 + 1)) as f64
                } else {
                    (k as f64 / 7.0).sin() * i as f64
                },
            )
        });
        let mut series = TestSeries::new(&labels, &samples.collect::<Vec<_>>());
        if i == 3 {
            series.samples.push((from + count as i64 * 15_000, f64::from_bits(0x7ff0_0000_0000_0002)));
        }
        series
    };
    (0..40).map(series).collect()
}

const QUERIES: [&str; 11] = [
    "requests_total",
    "sum by (job) (rate(requests_total[5m]))",
    "avg_over_time(temperature[10m])",
    "topk(3, temperature)",
    "requests_total{instance=~\"host1.\"} / on (instance) requests_total",
    "count({__name__=~\".+\"})",
    "count by (job, instance) ({instance=~\"host.*\", job!=\"a\"})",
    "max_over_time(rate(requests_total[2m])[30m:1m])",
    "temperature{instance=\"host03\"}",
    "increase(requests_total{job!=\"a\"}[1h])",
    "absent(requests_total{instance=\"none\"})",
];

/// Restricts a query to these endpoints.
fn among(endpoints: &[&String]) -> String {
    let one = |e: &&String| format!("&storeMatch[]={}", http::encode(&format!("{{__address__=\"{e}\"}}")));
    endpoints.iter().map(one).collect()
}

/// The label sets or strings of a reply, in one order.
fn sorted(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut list: Vec<String> =
        answer.body["data"].as_array().expect("a list").iter().map(Value::to_string).collect();
    list.sort_unstable();
    list
}

#[test]
fn queriers_of_both_answer_the_same_over_receivers_and_stores_of_both() {
    let Some(binary) = thanos_binary() else { return };
    let dir = tempfile::tempdir().unwrap();
    let s3 = S3Server::start();
    let objstore = dir.path().join("objstore.yml");
    // Thanos asks for the region where it is not told.
    std::fs::write(&objstore, format!("{}  region: us-east-1\n", s3.config_yaml())).unwrap();
    let objstore = format!("--objstore.config-file={}", objstore.display());
    let ours = receiver(dir.path(), "ours", std::slice::from_ref(&objstore));
    let mut theirs = thanos_receiver(&binary, dir.path(), "theirs", std::slice::from_ref(&objstore));

    // Two hours that go into the bucket, then half an hour that stays in the heads; both on no round second.
    let last = now_ms() - 60_000;
    let old = write_body(&load(last - 600 * 15_000, 480));
    let new = write_body(&load(last - 119 * 15_000, 119));
    for (body, uploads) in [(&old, true), (&new, false)] {
        assert_eq!(theirs.write(TENANT, body).0, 200);
        assert_eq!(write_to(&ours.write, TENANT, body).0, 200);
        if uploads {
            ours.process.flush();
            theirs.stop();
            theirs = thanos_receiver(&binary, dir.path(), "theirs", std::slice::from_ref(&objstore));
        }
    }
    let metas = s3.keys().iter().filter(|k| k.ends_with("/meta.json")).count();
    assert!(metas >= 2, "both uploaded: {:?}", s3.keys());
    let data = |name: &str| format!("--data-dir={}", dir.path().join(name).display());
    let their_store = Thanos::start(&binary, "store", &[data("their-store"), objstore.clone()]);
    let our_store_grpc = free_address();
    let store_args = [data("our-store"), format!("--grpc-address={our_store_grpc}"), objstore];
    let our_store = Chronolith::start("store", &store_args);

    let endpoints = [&ours.grpc, &our_store_grpc, &theirs.grpc, &their_store.grpc];
    let mut query_args: Vec<String> = endpoints.iter().map(|e| format!("--endpoint={e}")).collect();
    query_args.push("--query.replica-label=replica".to_owned());
    let their_query = Thanos::start(&binary, "query", &query_args);
    query_args.push(format!("--grpc-address={}", free_address()));
    let our_query = Chronolith::start("query", &query_args);
    let ask_ours = |path: &str| Answer::of(&our_query.get(path));
    let ask_theirs = |path: &str| their_query.get(path);
    for endpoint in endpoints {
        let query = "count_over_time(requests_total[3h])";
        let path =
            format!("/api/v1/query?query={}&time={}{}", http::encode(query), last / 1000, among(&[endpoint]));
        wait_until("both queriers to find something at each endpoint", PATIENCE, || {
            let found = |answer: Answer| !answer.points(&[]).is_empty();
            (found(ask_ours(&path)) && found(ask_theirs(&path))).then_some(())
        });
    }

    // Each pair of a receiver and a store that has its blocks, and all together.
    let sets: [(&str, &[&String]); 5] = [
        ("ours", &[&ours.grpc, &our_store_grpc]),
        ("theirs", &[&theirs.grpc, &their_store.grpc]),
        ("our receiver, their store", &[&ours.grpc, &their_store.grpc]),
        ("their receiver, our store", &[&theirs.grpc, &our_store_grpc]),
        ("all", &endpoints),
    ];
    let window = format!("&start={}&end={}&step=60", (last - 9_000_000) / 1000, last / 1000);
    let mut compared = 0;
    for (name, set) in sets {
        let among = among(set);
        for dedup in ["true", "false"] {
            for query in QUERIES {
                let asked = format!("query={}&dedup={dedup}{among}", http::encode(query));
                for path in [
                    format!("/api/v1/query?{asked}&time={}", last / 1000),
                    format!("/api/v1/query_range?{asked}{window}"),
                ] {
                    let what = format!("{name}, dedup={dedup}: {query}");
                    let (a, b) = (ask_ours(&path), ask_theirs(&path));
                    compared += 1;
                    if b.body["status"] == "error" {
                        // Not deduplicated, the two replicas match each other.
                        assert!(query.contains(" on ") && dedup == "false", "{what}: {}", b.body);
                        assert_eq!(
                            (a.status, &a.body["errorType"]),
                            (b.status, &b.body["errorType"]),
                            "{what}"
                        );
                        continue;
                    }
                    let (a, b) = (a.points(&[]), b.points(&[]));
                    assert!(!b.is_empty() || query.contains("host03"), "{what}: Thanos found nothing");
                    assert_same(&what, &a, &b);
                }
            }
        }
        for path in [
            format!("/api/v1/series?match[]=temperature{window}{among}"),
            format!("/api/v1/series?match[]=temperature&dedup=false{window}{among}"),
            // Replica labels are among them, deduplicated or not.
            format!("/api/v1/labels?match[]=temperature{window}{among}"),
            format!("/api/v1/labels?match[]=temperature&dedup=false{window}{among}"),
            format!("/api/v1/label/instance/values?match[]=temperature{window}{among}"),
            format!("/api/v1/label/replica/values?match[]=temperature{window}{among}"),
        ] {
            assert_eq!(sorted(&ask_ours(&path)), sorted(&ask_theirs(&path)), "{name}: {path}");
        }
    }
    eprintln!("{compared} queries");
    compare_stores(&our_store_grpc, &their_store.grpc, last);
    for process in [&ours.process, &our_store, &our_query] {
        process.check_log();
    }
}

/// What a store said to a request.
#[derive(Debug, PartialEq)]
struct Said {
    labels: Vec<String>,
    chunks: usize,
    batches: bool,
    blocks: Vec<String>,
    stats: Option<SeriesStats>,
}

async fn say(client: &StoreClient, request: SeriesRequest) -> Said {
    let mut said = Said { labels: Vec::new(), chunks: 0, batches: false, blocks: Vec::new(), stats: None };
    let mut stream = client.series(request).await.unwrap();
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            SeriesEvent::Batch(batch) => {
                said.batches |= batch.len() > 1;
                for series in batch {
                    let labels = series.labels.to_string();
                    said.chunks += series.chunks.len();
                    if said.labels.last() != Some(&labels) {
                        said.labels.push(labels);
                    }
                }
            }
            SeriesEvent::Warning(text) => panic!("{text}"),
            SeriesEvent::Hints(hints) => {
                said.blocks = hints.queried_blocks.iter().map(ToString::to_string).collect();
                said.blocks.sort_unstable();
                said.stats = hints.stats;
            }
        }
    }
    said
}

/// The fields of the StoreAPI that a querier does not use by itself: stores of both over the same bucket say the same.
fn compare_stores(ours: &str, theirs: &str, last_ms: i64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let [ours, theirs] = [ours, theirs].map(|a| StoreClient::new(a, &ClientOptions::default()).unwrap());
        let range = TimeRange::new(last_ms - 14_400_000, last_ms);
        let all = || SeriesRequest::new(range, vec![Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap()]);
        let without = || vec!["replica".to_owned()];
        let blocks = say(&ours, all()).await.blocks;
        assert!(blocks.len() >= 2, "{blocks:?}");
        let shard =
            |index, by, label: &str| Some(ShardInfo { index, count: 3, by, labels: vec![label.to_owned()] });
        let one_block = || vec![Matcher::equal("__block_id", &blocks[0])];
        let cases: Vec<(&str, SeriesRequest)> = vec![
            ("everything", all()),
            ("labels only", SeriesRequest { skip_chunks: true, ..all() }),
            ("without replica labels", SeriesRequest { without_replica_labels: without(), ..all() }),
            ("shard by", SeriesRequest { shard: shard(1, true, "instance"), ..all() }),
            ("shard without", SeriesRequest { shard: shard(2, false, "instance"), ..all() }),
            ("batches", SeriesRequest { batch_size: 16, ..all() }),
            ("one by one", SeriesRequest { batch_size: 1, ..all() }),
            ("one block", SeriesRequest { block_matchers: one_block(), ..all() }),
            ("figures", SeriesRequest { query_stats: true, ..all() }),
            ("no block", SeriesRequest { block_matchers: vec![Matcher::equal("__block_id", "x")], ..all() }),
        ];
        for (what, request) in cases {
            let (mut a, b) = (say(&ours, request.clone()).await, say(&theirs, request.clone()).await);
            assert_eq!(a.labels.is_empty(), what == "no block", "{what}");
            assert_eq!(a.stats.is_some(), what == "figures");
            if what == "one block" {
                assert_eq!(a.blocks, blocks[..1]);
            }
            // Thanos's store has these hints and does not send them.
            assert_eq!((b.blocks.len(), b.stats), (0, None), "{what}");
            (a.blocks, a.stats) = (Vec::new(), None);
            if what == "without replica labels" {
                // Equal series of two producers: one here; one after the other there, which the querier puts together.
                let mut labels = b.labels;
                labels.dedup();
                assert_eq!((a.labels, a.chunks), (labels, b.chunks), "{what}");
                continue;
            }
            assert_eq!(a, b, "{what}");
        }
        for limit in [1, 7] {
            let request = || SeriesRequest { limit, ..all() };
            let (a, b) = (say(&ours, request()).await.labels, say(&theirs, request()).await.labels);
            assert_eq!(a.len(), limit, "limit {limit}");
            assert!(b.len() >= limit && b[..limit] == a, "limit {limit}: {b:?}");
        }
        for (block_matchers, limit) in [(vec![], 0), (vec![], 2), (one_block(), 0)] {
            let mut names = LabelNamesRequest::new(range, vec![]);
            names.limit = limit;
            names.without_replica_labels = without();
            names.block_matchers.clone_from(&block_matchers);
            let (a, b) =
                (ours.label_names(names.clone()).await.unwrap(), theirs.label_names(names).await.unwrap());
            assert_eq!(a.names, b.names, "names, limit {limit}");
            let set = |blocks: Vec<BlockId>| blocks.into_iter().collect::<BTreeSet<_>>();
            assert_eq!(set(a.queried_blocks), set(b.queried_blocks), "blocks of names");
            for label in ["instance", "replica"] {
                let mut values = LabelValuesRequest::new(label, range, vec![]);
                values.limit = limit;
                values.block_matchers.clone_from(&block_matchers);
                let a = ours.label_values(values.clone()).await.unwrap();
                let b = theirs.label_values(values).await.unwrap();
                assert_eq!(a.values, b.values, "values of {label}, limit {limit}");
                assert_eq!(set(a.queried_blocks), set(b.queried_blocks), "blocks of values of {label}");
            }
        }
    });
}

/// Sixty series with one sample each.
fn batch(t: i64, value: f64) -> Vec<u8> {
    let series = |i: usize| {
        TestSeries::new(&[("__name__", "placed"), ("i", &i.to_string()), ("pod", "p")], &[(t, value)])
    };
    write_body(&(0..60).map(series).collect::<Vec<_>>())
}

#[test]
fn routers_of_both_place_alike_on_receivers_of_both() {
    let Some(binary) = thanos_binary() else { return };
    let dir = tempfile::tempdir().unwrap();
    let ours = [receiver(dir.path(), "o1", &[]), receiver(dir.path(), "o2", &[])];
    let theirs = ["t1", "t2"].map(|label| thanos_receiver(&binary, dir.path(), label, &[]));
    let members = [&ours[0].grpc, &theirs[0].grpc, &ours[1].grpc, &theirs[1].grpc];
    let zones: Vec<Value> = members
        .iter()
        .enumerate()
        .map(|(i, m)| serde_json::json!({"address": m, "az": format!("z{}", i % 3)}))
        .collect();
    let ring = |tenants: &[&str], algorithm: &str, endpoints: Value| {
        serde_json::json!({
            "hashring": format!("{algorithm}-{}", tenants.join("-")), "tenants": tenants,
            "algorithm": algorithm, "endpoints": endpoints,
        })
    };
    let plain = serde_json::json!(members);
    let mut shuffled = ring(&["shuffled"], "ketama", plain.clone());
    shuffled["shuffle_sharding_config"] =
        serde_json::json!({"shard_size": 3, "zone_awareness_disabled": true});
    let rings = serde_json::json!([
        ring(&["mod"], "hashmod", plain.clone()),
        ring(&["zones"], "ketama", Value::from(zones)),
        shuffled,
        ring(&[], "ketama", plain),
    ]);
    let file = dir.path().join("ring.json");
    std::fs::write(&file, rings.to_string()).unwrap();
    let file = format!("--receive.hashrings-file={}", file.display());

    let mut query_args: Vec<String> = members.iter().map(|e| format!("--endpoint={e}")).collect();
    query_args.push(format!("--grpc-address={}", free_address()));
    let querier = Chronolith::start("query", &query_args);
    wait_until("the querier to know all receivers", PATIENCE, || {
        let text = querier.get("/api/v1/stores").text();
        members.iter().all(|m| text.contains(m.as_str())).then_some(())
    });

    let t0 = now_ms() - 600_000;
    for factor in [1usize, 2, 3] {
        let args = [file.clone(), format!("--receive.replication-factor={factor}")];
        let write = free_address();
        let mut our_args = args.to_vec();
        our_args.push(format!("--grpc-address={}", free_address()));
        our_args.push("--label=replica=\"router\"".to_owned());
        our_args.push(format!("--remote-write.address={write}"));
        our_args.push(format!("--tsdb.path={}", dir.path().join(format!("router{factor}")).display()));
        let our_router = Chronolith::start("receive", &our_args);
        let their_router = Thanos::start(&binary, "receive", &{
            let mut args = args.to_vec();
            args.push("--label=replica=\"router\"".to_owned());
            args.push(format!("--tsdb.path={}", dir.path().join(format!("their-router{factor}")).display()));
            args
        });
        let send = |is_ours: bool, tenant: &str, body: &[u8]| {
            if is_ours { write_to(&write, tenant, body) } else { their_router.write(tenant, body) }
        };
        for (n, tenant) in ["mod", "zones", "shuffled", "other"].into_iter().enumerate() {
            // The rings of one tenant would overlap between factors, so samples go on in time.
            let t = t0 + (factor * 100 + n) as i64 * 1000;
            for (i, is_ours) in [true, false, true, false].into_iter().enumerate() {
                let what = format!("factor {factor}, {tenant}, ours: {is_ours}");
                let (status, text) = send(is_ours, tenant, &batch(t + i as i64 * 100, 1.0));
                assert_eq!(status, 200, "{what}: {text}");
            }
            // All four samples of a series are where one is, and there are as many copies as asked for.
            wait_until(&format!("factor {factor}, {tenant}: all four samples together"), PATIENCE, || {
                let query = format!("count_over_time(placed{{tenant_id=\"{tenant}\"}}[900ms])");
                let path = format!(
                    "/api/v1/query?query={}&dedup=false&time={}",
                    http::encode(&query),
                    (t + 500) as f64 / 1000.0
                );
                let found = Answer::of(&querier.get(&path)).points(&[]);
                assert!(found.len() <= 60 * factor, "factor {factor}, {tenant}: {} copies", found.len());
                (found.len() == 60 * factor && found.values().all(|p| p[0].1 == 4.0)).then_some(())
            });
            for is_ours in [true, false] {
                let (status, text) = send(is_ours, tenant, &batch(t, 2.0));
                assert_eq!(status, 409, "factor {factor}, {tenant}, ours: {is_ours}: {text}");
            }
        }
        our_router.check_log();
    }
    for process in [&ours[0].process, &ours[1].process, &querier] {
        process.check_log();
    }
}
