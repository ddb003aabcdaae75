//! The tenants of this receiver: their database, and the labels they are known by.
//!
//! The database is opened while the listeners serve already, so whoever asks earlier is told to come back.

use std::sync::{Arc, OnceLock};

use chronolith_model::{Labels, TenantId};
use chronolith_storeapi::StoreError;
use chronolith_tsdb::db::Db;

/// All tenants' heads and local blocks, once they are there.
#[derive(Debug)]
pub struct Tenants {
    db: OnceLock<Arc<Db>>,
    external: Labels,
    tenant_label: String,
}

impl Tenants {
    /// Tenants without a database yet; `external` are the `--label`s, `tenant_label` is `--receive.tenant-label-name`
    /// (empty: tenants are not told apart, for a process that has one).
    pub fn new(external: Labels, tenant_label: &str) -> Self {
        Tenants { db: OnceLock::new(), external, tenant_label: tenant_label.to_owned() }
    }

    /// From now on this is the database.
    ///
    /// # Panics
    /// When there is one already.
    pub fn set_db(&self, db: Arc<Db>) {
        assert!(self.db.set(db).is_ok(), "a receiver has one database");
    }

    /// The database, or an error that asks to come back.
    pub fn db(&self) -> Result<&Arc<Db>, StoreError> {
        self.db
            .get()
            .ok_or_else(|| StoreError::unavailable("not ready: the write-ahead log is being replayed"))
    }

    /// The `--label`s.
    pub fn external(&self) -> &Labels {
        &self.external
    }

    /// What a tenant's series and blocks carry besides their own labels.
    pub fn external_of(&self, tenant: &TenantId) -> Labels {
        if self.tenant_label.is_empty() {
            return self.external.clone();
        }
        self.external.with([(self.tenant_label.as_str(), tenant.as_str())])
    }
}
