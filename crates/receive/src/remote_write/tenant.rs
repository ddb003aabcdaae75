//! Whose samples a request carries.

use axum::http::request::Parts;
use chronolith_model::TenantId;

use super::http::{RemoteWriteOptions, TENANT_HEADER};
use super::reply::Refusal;

/// The request's tenant: the configured header, Thanos's own, or the default.
pub(super) fn of_request(parts: &Parts, options: &RemoteWriteOptions) -> Result<TenantId, Refusal> {
    let named = parts.headers.get(&options.tenant_header).or_else(|| parts.headers.get(TENANT_HEADER));
    match named.filter(|v| !v.is_empty()) {
        None => Ok(options.default_tenant.clone()),
        Some(value) => Ok(TenantId::new(&String::from_utf8_lossy(value.as_bytes()))?),
    }
}
