//! The tenants of this receiver: their database, and the labels they are known by.
//!
//! The database is opened while the listeners serve already, so whoever asks earlier is told to come back.

use std::sync::{Arc, OnceLock};

use chronolith_model::{Labels, TenantId};
use chronolith_storeapi::StoreError;
use chronolith_tsdb::db::Db;

use crate::limits::Limits;

/// All tenants' heads and local blocks, once they are there.
#[derive(Debug)]
pub struct Tenants {
    db: OnceLock<Arc<Db>>,
    external: Labels,
    tenant_label: String,
    ring_labels: OnceLock<RingLabels>,
    limits: Arc<Limits>,
}

/// Labels that a hashring gives a tenant.
#[derive(Clone)]
pub(crate) struct RingLabels(pub(crate) Arc<LabelsOf>);

type LabelsOf = dyn Fn(&TenantId) -> Option<Labels> + Send + Sync;

impl std::fmt::Debug for RingLabels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RingLabels")
    }
}

impl Tenants {
    /// Tenants without a database yet; `external` are the `--label`s, `tenant_label` is `--receive.tenant-label-name`
    /// (empty: tenants are not told apart, for a process that has one).
    pub fn new(external: Labels, tenant_label: &str) -> Self {
        Tenants {
            db: OnceLock::new(),
            external,
            tenant_label: tenant_label.to_owned(),
            ring_labels: OnceLock::new(),
            limits: Arc::default(),
        }
    }

    /// With limits, which may give tenants labels and times of their own.
    pub fn with_limits(mut self, limits: Arc<Limits>) -> Self {
        self.limits = limits;
        self
    }

    /// The tenants' limits.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
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
        let ring = self.ring_labels.get().and_then(|labels| (labels.0)(tenant));
        let external = match ring {
            // The `--label`s win, as in Thanos.
            Some(ring) => ring.with(self.external.iter()),
            None => self.external.clone(),
        };
        let limits = self.limits.of(tenant);
        let own = limits.external_labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let named = (!self.tenant_label.is_empty()).then_some((self.tenant_label.as_str(), tenant.as_str()));
        external.with(own.chain(named))
    }

    /// From now on a hashring's labels are added.
    pub(crate) fn set_ring_labels(&self, labels: RingLabels) {
        let _ = self.ring_labels.set(labels);
    }
}
