//! Whose samples a request carries: by certificate, by header, by a label of each series.

mod identity;
mod names;
mod split;

pub use identity::{CertificateField, TENANT_HEADER, TenantIdentity, TenantRefusal};
pub use names::{OTHER_TENANTS, TenantNames};
pub(crate) use split::{Split, split};
