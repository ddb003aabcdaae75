use chronolith_model::{Labels, Matcher, TimeRange};
use chronolith_storeapi::contract::{T0, TestSeries};
use chronolith_storeapi::{
    Apis, Fanout, FanoutOptions, MemoryStore, SeriesEvent, SeriesRequest, ServerOptions, Services, serve,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

fn store(replica: &str) -> Arc<dyn Store> {
    let external = Labels::from_pairs([("replica", replica)]).unwrap();
    let series = TestSeries::new(&[("__name__", "up")], 0, 10);
    Arc::new(MemoryStore::new(external, vec![(series.labels.clone(), series.chunks())]))
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn start(listener: TcpListener, store: Arc<dyn Store>) -> JoinHandle<Result<(), StoreError>> {
    let services = Services { store: Some(store), ..Services::default() };
    tokio::spawn(serve(listener, services, ServerOptions::default(), std::future::pending()))
}

fn config(endpoints: &[&str]) -> Config {
    Config {
        endpoints: endpoints.iter().map(|&e| e.to_owned()).collect(),
        info_interval: Duration::from_millis(20),
        info_timeout: Duration::from_millis(500),
        ..Config::default()
    }
}

async fn until(pool: &EndpointPool, what: &str, is: impl Fn(&Endpoints) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is(&pool.endpoints()) {
        assert!(Instant::now() < deadline, "never: {what}; {:?}", pool.states());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn endpoints_come_go_and_come_back() {
    let (listener, address) = listen().await;
    let (dead, dead_address) = listen().await;
    drop(dead);
    let pool = EndpointPool::new(&config(&[&address, &dead_address]), vec![]).unwrap();
    let shutdown = CancellationToken::new();
    let task = {
        let (pool, shutdown) = (Arc::clone(&pool), shutdown.clone());
        tokio::spawn(async move { pool.run(shutdown).await })
    };
    let server = start(listener, store("a"));
    until(&pool, "up", |e| e.up.len() == 1).await;
    let states = pool.states();
    let state = |name: &str| states.iter().find(|s| s.name == name).cloned();
    if let Some(dead) = state(&dead_address) {
        assert!(dead.last_error.unwrap().contains("refused"));
    }

    server.abort();
    let _ = server.await;
    until(&pool, "down", |e| e.up.is_empty()).await;

    let server = start(TcpListener::bind(&address).await.unwrap(), store("a"));
    until(&pool, "up again", |e| e.up.len() == 1).await;
    shutdown.cancel();
    task.await.unwrap();
    server.abort();
}

#[tokio::test]
async fn strict_endpoints_are_missed() {
    let (dead, address) = listen().await;
    drop(dead);
    let config = Config { endpoints_strict: vec![address.clone()], ..config(&[]) };
    let pool = EndpointPool::new(&config, vec![]).unwrap();
    assert_eq!(pool.endpoints().down, std::slice::from_ref(&address), "before the first answer too");
    pool.refresh().await;
    assert_eq!(pool.endpoints().down, [address]);
}

#[tokio::test]
async fn names_are_looked_up_and_a_silent_endpoint_does_not_hold_others_back() {
    let (listener, address) = listen().await;
    let (silent, silent_address) = listen().await;
    let port = address.rsplit_once(':').unwrap().1;
    let named = format!("dns+127.0.0.1:{port}");
    let pool = EndpointPool::new(&config(&[&named, &silent_address]), vec![]).unwrap();
    start(listener, store("a"));
    let refreshing = {
        let pool = Arc::clone(&pool);
        tokio::spawn(async move { pool.refresh().await })
    };
    until(&pool, "up", |e| e.up.len() == 1).await;
    assert!(!refreshing.is_finished(), "the silent endpoint is still waited for");
    refreshing.await.unwrap();
    let states = pool.states();
    let silent_state = states.iter().find(|s| s.name == silent_address).unwrap();
    assert!(silent_state.last_error.as_ref().unwrap().contains("no answer to Info"));
    drop(silent);
}

#[tokio::test]
async fn local_stores_are_there_at_once() {
    let local = LocalStore { name: "receive".to_owned(), store: store("a"), apis: Apis::default() };
    let pool = EndpointPool::new(&config(&[]), vec![local]).unwrap();
    let fanout = Fanout::new(Arc::clone(&pool) as Arc<dyn EndpointSet>, FanoutOptions::default());
    let request = SeriesRequest::new(TimeRange::new(T0, T0 + 1), vec![Matcher::equal("__name__", "up")]);
    let events: Vec<_> = fanout.series(request).await.unwrap().collect().await;
    assert!(matches!(&events[..], [Ok(SeriesEvent::Batch(batch))] if batch.len() == 1), "{events:?}");
    pool.refresh().await;
    assert_eq!(pool.states()[0].info.as_ref().unwrap().component, "store");
}
