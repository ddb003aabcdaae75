//! What the engine reads from: the querier's own [`StoreQueryable`] over a fan-out of one store.

use std::sync::Arc;

use chronolith_query::{SelectOptions, StoreQueryable};
use chronolith_storeapi::{Apis, Endpoint, Endpoints, Fanout, FanoutOptions, PartialResponse, Store};
use tokio::runtime::Handle;

/// [`queryable_with`] raw data only.
pub(crate) async fn queryable(store: Arc<dyn Store>, local: bool) -> Result<StoreQueryable, String> {
    queryable_with(store, local, 0).await
}

/// Asks `store` what it has, as discovery does, and puts the querier in front of it: no deduplication, and a store that
/// fails is an error. Data of up to `max_resolution_ms` answers.
pub async fn queryable_with(
    store: Arc<dyn Store>,
    local: bool,
    max_resolution_ms: i64,
) -> Result<StoreQueryable, String> {
    let info = store.info().await.map_err(|e| e.to_string())?;
    let endpoint = Endpoint { name: "script".to_owned(), store, info, local, apis: Apis::default() };
    let set = Endpoints { up: vec![Arc::new(endpoint)], down: Vec::new() };
    let fanout = Fanout::new(Arc::new(Arc::new(set)), FanoutOptions::default());
    let options = SelectOptions {
        dedup: false,
        partial_response: PartialResponse::Abort,
        max_resolution_ms,
        ..SelectOptions::default()
    };
    Ok(StoreQueryable::over_fanout(&fanout, options, Handle::current()))
}
