//! What this process has on its own disk, in the form of the query API.

use std::sync::Arc;

use async_trait::async_trait;
use chronolith_model::Matcher;
use chronolith_query::http::StatusSource;
use chronolith_receive::Tenants;

/// Reads the databases of this process.
pub(super) struct HeadStatus(pub(super) Arc<Tenants>);

#[async_trait]
impl StatusSource for HeadStatus {
    async fn blocks(&self, tenant: Option<&Matcher>) -> Vec<String> {
        let Ok(db) = self.0.db() else { return Vec::new() };
        let mut tenants = db.tenants();
        if let Some(matcher) = tenant {
            tenants.retain(|t| matcher.matches(self.0.external_of(t).get(&matcher.name).unwrap_or("")));
        }
        let blocks = tenants.iter().flat_map(|tenant| db.blocks(tenant));
        blocks.map(|block| String::from_utf8_lossy(&block.meta().to_json()).into_owned()).collect()
    }
}
