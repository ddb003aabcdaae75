//! Measures series per second and CPU through server, client and merge on one machine, with whole label sets and with those that
//! `sum by (job)` looks at:
//! `cargo run --release -p chronolith-storeapi --features contract --example stream_rate -- [series] [stores] [labels]`.
#![allow(missing_docs, clippy::print_stdout)]

use std::sync::Arc;
use std::time::Instant;

use chronolith_model::{Labels, Matcher, TimeRange};
use chronolith_storeapi::contract::TestSeries;
use chronolith_storeapi::{
    Apis, ClientOptions, Endpoint, Endpoints, Fanout, FanoutOptions, MemoryStore, Projection, SeriesEvent,
    SeriesRequest, ServerOptions, Services, Store, StoreClient, serve,
};
use futures::StreamExt as _;
use tokio::net::TcpListener;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<usize>().expect("a number"));
    let (series, stores) = (args.next().unwrap_or(200_000), args.next().unwrap_or(2));
    let more_labels = args.next().unwrap_or(4).saturating_sub(4);
    // One chunk of 120 samples each; every store has all series (full overlap).
    let all: Vec<_> = (0..series)
        .map(|i| {
            let (instance, path) =
                (format!("10.0.{}.{}:9100", i / 250 % 250, i % 250), format!("/p/{}", i / 62_500));
            let mut labels = vec![
                ("__name__", "http_requests_total"),
                ("instance", &instance),
                ("job", "api"),
                ("path", &path),
            ];
            // As long as those that a cluster's service discovery gives.
            let named: Vec<String> = (0..more_labels).map(|i| format!("kubernetes_label_{i}")).collect();
            labels.extend(named.iter().map(|name| (name.as_str(), "frontend-7d4b9c6f5-x2x9k")));
            let series = TestSeries::new(&labels, 0, 120);
            (series.labels.clone(), series.chunks())
        })
        .collect();
    let memory = Arc::new(MemoryStore::new(Labels::empty(), all));
    let mut up = Vec::new();
    for i in 0..stores {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let services = Services { store: Some(memory.clone()), ..Services::default() };
        tokio::spawn(serve(listener, services, ServerOptions::default(), std::future::pending()));
        let client = StoreClient::new(&address, &ClientOptions::default()).expect("an address");
        let info = client.info().await.expect("the server answers");
        up.push(Arc::new(Endpoint {
            name: format!("store-{i}"),
            store: Arc::new(client),
            info,
            local: false,
            apis: Apis::default(),
        }));
    }
    let one: Arc<Endpoints> = Arc::new(Endpoints { up: up[..1].to_vec(), down: vec![] });
    let set: Arc<Endpoints> = Arc::new(Endpoints { up, down: vec![] });
    let cases: [(&str, Arc<dyn Store>, usize); 3] = [
        ("memory", memory, 1),
        ("grpc x1", Arc::new(Fanout::new(Arc::new(one), FanoutOptions::default())), 1),
        ("grpc merged", Arc::new(Fanout::new(Arc::new(set), FanoutOptions::default())), stores),
    ];
    let keep = Projection::new(vec!["__name__".to_owned(), "job".to_owned()]);
    let cases = cases.into_iter().flat_map(|(name, store, sources)| {
        [None, keep.clone()].map(|projection| (name, Arc::clone(&store), sources, projection))
    });
    for (name, store, sources, projection) in cases {
        let mut best = f64::INFINITY;
        let (cpu, mut label_bytes) = (cpu_ms(), 0);
        for _ in 0..3 {
            let mut request = SeriesRequest::new(TimeRange::ALL, vec![Matcher::equal("job", "api")]);
            request.projection.clone_from(&projection);
            label_bytes = 0;
            let started = Instant::now();
            let mut stream = store.series(request).await.expect("the store answers");
            let (mut got, mut bytes) = (0, 0);
            while let Some(event) = stream.next().await {
                match event.expect("no error") {
                    SeriesEvent::Batch(batch) => {
                        got += batch.len();
                        label_bytes += batch.iter().map(|s| s.labels.encoded_len()).sum::<usize>();
                        bytes += batch.iter().flat_map(|s| &s.chunks).map(|c| c.bytes_len()).sum::<usize>();
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(got, series);
            assert!(bytes > 0);
            best = best.min(started.elapsed().as_secs_f64());
        }
        let rate = (series * sources) as f64 / best;
        let what = if projection.is_some() { "projected" } else { "whole" };
        println!(
            "{name:12} {what:9} {sources} x {series} series in {best:.3} s: {rate:.0} series/s read, {} ms CPU, {} label bytes a series",
            (cpu_ms() - cpu) / 3,
            label_bytes / series
        );
    }
}

/// User and system time of this process so far.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    // Ticks of 10 ms; user and system time are the 12th and 13th field after the name.
    fields.skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum::<u64>() * 10
}
