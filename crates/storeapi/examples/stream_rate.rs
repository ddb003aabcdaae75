//! Measures series per second through server, client and merge on one machine:
//! `cargo run --release -p chronolith-storeapi --features contract --example stream_rate -- [series] [stores]`.
#![allow(missing_docs, clippy::print_stdout)]

use std::sync::Arc;
use std::time::Instant;

use chronolith_model::{Labels, Matcher, TimeRange};
use chronolith_storeapi::contract::TestSeries;
use chronolith_storeapi::{
    Apis, ClientOptions, Endpoint, Endpoints, Fanout, FanoutOptions, MemoryStore, SeriesEvent, SeriesRequest,
    ServerOptions, Services, Store, StoreClient, serve,
};
use futures::StreamExt as _;
use tokio::net::TcpListener;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<usize>().expect("a number"));
    let (series, stores) = (args.next().unwrap_or(200_000), args.next().unwrap_or(2));
    // Four labels and one chunk of 120 samples each; every store has all series (full overlap).
    let all: Vec<_> = (0..series)
        .map(|i| {
            let (instance, path) =
                (format!("10.0.{}.{}:9100", i / 250 % 250, i % 250), format!("/p/{}", i / 62_500));
            let labels = [
                ("__name__", "http_requests_total"),
                ("instance", &instance),
                ("job", "api"),
                ("path", &path),
            ];
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
    for (name, store, sources) in cases {
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let request = SeriesRequest::new(TimeRange::ALL, vec![Matcher::equal("job", "api")]);
            let started = Instant::now();
            let mut stream = store.series(request).await.expect("the store answers");
            let (mut got, mut bytes) = (0, 0);
            while let Some(event) = stream.next().await {
                match event.expect("no error") {
                    SeriesEvent::Batch(batch) => {
                        got += batch.len();
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
        println!("{name:12} {sources} x {series} series in {best:.3} s: {rate:.0} series/s read");
    }
}
