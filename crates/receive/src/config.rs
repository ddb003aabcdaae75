//! Settings of the receive role: plain values. Where Thanos has the flag, name, meaning and default are Thanos's; where not,
//! the field says so.

use std::path::PathBuf;
use std::sync::Arc;

use axum::http::HeaderName;
use chronolith_model::{Labels, Relabeling, TenantId};
use chronolith_service::Clock;
use chronolith_service::tls::ServerTlsConfig;
use chronolith_tsdb::db::{DbOptions, Limits, TenantOptions, WalSync};

use crate::error::ReceiveError;
use crate::features::StorageFeatures;
use crate::forward::ForwardOptions;
use crate::otlp::OtlpSettings;
use crate::tenant::{CertificateField, TenantIdentity};

/// Settings of the receive role.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--remote-write.address`; `None` leaves the remote-write paths to whoever takes the router.
    pub remote_write_address: Option<String>,
    /// `--http-address`: metrics, probes, admin.
    pub http_address: Option<String>,
    /// `--grpc-address`: StoreAPI, Info, WriteableStore.
    pub grpc_address: Option<String>,
    /// `--label`, repeated.
    pub labels: Vec<(String, String)>,
    /// Refuse to start without a label, as Thanos does. `server` turns it off: it has one producer.
    pub require_labels: bool,
    /// `--tsdb.path`.
    pub tsdb_path: PathBuf,
    /// `--tsdb.retention` (15d): how long blocks stay on this machine; 0 keeps them.
    pub retention_ms: i64,
    /// `--tsdb.min-block-duration` (2h, hidden).
    pub block_duration_ms: i64,
    /// `--tsdb.out-of-order.time-window` (0s).
    pub out_of_order_window_ms: i64,
    /// `--tsdb.too-far-in-future.time-window`. 10 min, Prometheus's bound; Thanos's default, 0, means none: there one
    /// sender with a wrong clock moves a head's time for everybody.
    pub too_far_in_future_ms: i64,
    /// `--tsdb.max-exemplars` of a tenant; 0 keeps none. 100,000, Prometheus's bound; Thanos's default is 0.
    pub exemplars_max: usize,
    /// `--wal.sync` (ours): group, interval or off.
    pub wal_sync: WalSync,
    /// `--enable-feature`, as far as it concerns what is stored.
    pub features: StorageFeatures,
    /// Bounds on label sets, and series a tenant.
    pub limits: Limits,
    /// `--receive.default-tenant-id` (default-tenant).
    pub default_tenant: String,
    /// `--receive.tenant-header` (THANOS-TENANT).
    pub tenant_header: String,
    /// `--receive.tenant-certificate-field`.
    pub tenant_certificate_field: Option<CertificateField>,
    /// `--receive.split-tenant-label-name`; empty for none.
    pub split_tenant_label: String,
    /// `--receive.relabel-config[-file]`.
    pub relabeling: Relabeling,
    /// `--receive.limits-config[-file]`.
    pub limits_config: LimitsSource,
    /// `--receive.limits-config-reload-timer` (1s): how often the file is looked at.
    pub limits_reload_interval_ms: i64,
    /// `--remote-write.server-tls-*`.
    pub remote_write_tls: ServerTlsConfig,
    /// `--grpc-server-tls-*`.
    pub grpc_tls: ServerTlsConfig,
    /// `--receive.tenant-label-name` (tenant_id).
    pub tenant_label: String,
    /// `--receive.tenants-max` (ours): a new tenant beyond it is answered 429.
    pub tenants_max: usize,
    /// `--receive.request-bytes-max` (ours, 32MiB): the largest body, compressed as well as decompressed.
    pub request_bytes_max: u64,
    /// `--receive.inflight-bytes-max` (ours, 1GiB): memory for all requests that are being decoded.
    pub inflight_bytes_max: u64,
    /// The hashring and how it is written to; `None` keeps everything here.
    pub forward: Option<ForwardOptions>,
    /// `--receive.handoff.max-age` (ours, 6h): how far out of order samples are taken that waited for this receiver.
    pub late_window_ms: i64,
    /// `--receive.replica-header` (THANOS-REPLICA).
    pub replica_header: String,
    /// `--receive.otlp-*`.
    pub otlp: OtlpSettings,
    /// `--receive.otlp-config-file` (ours): more of them.
    pub otlp_file: Option<PathBuf>,
    /// `--hash-func=SHA256`.
    pub hash: bool,
    /// `--shipper.interval` (ours, 30s, Thanos's fixed value): how often due heads and new blocks are looked for.
    pub maintenance_interval_ms: i64,
    /// `--web.enable-admin-api` (ours).
    pub enable_admin_api: bool,
    /// `--drain` (ours): at shutdown, upload what is in the heads too.
    pub drain: bool,
    /// `--drain.timeout` (ours, 5m): how long a drain tries.
    pub drain_timeout_ms: i64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            remote_write_address: Some("0.0.0.0:19291".to_owned()),
            http_address: Some("0.0.0.0:10902".to_owned()),
            grpc_address: Some("0.0.0.0:10901".to_owned()),
            labels: Vec::new(),
            require_labels: true,
            tsdb_path: PathBuf::from("./data"),
            retention_ms: 15 * 24 * 3_600_000,
            block_duration_ms: 2 * 3_600_000,
            out_of_order_window_ms: 0,
            too_far_in_future_ms: 10 * 60_000,
            exemplars_max: 100_000,
            wal_sync: WalSync::Group,
            features: StorageFeatures::default(),
            limits: Limits::default(),
            default_tenant: TenantId::DEFAULT.to_owned(),
            tenant_header: "THANOS-TENANT".to_owned(),
            tenant_certificate_field: None,
            split_tenant_label: String::new(),
            relabeling: Relabeling::default(),
            limits_config: LimitsSource::None,
            limits_reload_interval_ms: 1000,
            remote_write_tls: ServerTlsConfig::default(),
            grpc_tls: ServerTlsConfig::default(),
            tenant_label: "tenant_id".to_owned(),
            tenants_max: 10_000,
            request_bytes_max: 32 << 20,
            inflight_bytes_max: 1 << 30,
            forward: None,
            late_window_ms: 6 * 3_600_000,
            replica_header: "THANOS-REPLICA".to_owned(),
            otlp: OtlpSettings::default(),
            otlp_file: None,
            hash: false,
            maintenance_interval_ms: 30_000,
            enable_admin_api: false,
            drain: false,
            drain_timeout_ms: 5 * 60_000,
        }
    }
}

/// What follows from a [`Config`] once it was checked.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) external: Labels,
    pub(crate) identity: TenantIdentity,
    pub(crate) replica_header: HeaderName,
}

/// Where limits come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LimitsSource {
    /// There are none.
    #[default]
    None,
    /// `--receive.limits-config`.
    Inline(String),
    /// `--receive.limits-config-file`; it is read again when it changes.
    File(PathBuf),
}

impl Config {
    /// Checks what can be checked without touching anything.
    pub(crate) fn check(&self) -> Result<Checked, ReceiveError> {
        let bad = |text: String| Err(ReceiveError::Config(text));
        if self.require_labels && self.labels.is_empty() {
            return bad(
                "no external labels: a receiver needs at least one --label to be told apart".to_owned()
            );
        }
        let external = match Labels::from_pairs(self.labels.iter().map(|(n, v)| (n, v))) {
            Ok(labels) => labels,
            Err(e) => return bad(format!("--label: {e}")),
        };
        if !chronolith_model::is_legacy_label_name(&self.tenant_label) {
            return bad(format!("--receive.tenant-label-name: {:?} is no label name", self.tenant_label));
        }
        if external.get(&self.tenant_label).is_some() {
            return bad(format!("--label {} is the tenant label", self.tenant_label));
        }
        let default_tenant = match TenantId::new(&self.default_tenant) {
            Ok(tenant) => tenant,
            Err(e) => return bad(format!("--receive.default-tenant-id: {e}")),
        };
        let Ok(tenant_header) = self.tenant_header.to_ascii_lowercase().parse::<HeaderName>() else {
            return bad(format!("--receive.tenant-header: {:?} is no header name", self.tenant_header));
        };
        let Ok(replica_header) = self.replica_header.to_ascii_lowercase().parse() else {
            return bad(format!("--receive.replica-header: {:?} is no header name", self.replica_header));
        };
        if let Some(forward) = &self.forward {
            if !(1..=64).contains(&forward.replication_factor) {
                return bad("--receive.replication-factor must be from 1 to 64".to_owned());
            }
            if forward.timeout.is_zero() || forward.refresh_interval.is_zero() {
                return bad(
                    "--receive-forward-timeout and --receive.hashrings-file-refresh-interval must be more than 0"
                        .to_owned(),
                );
            }
            if !(1..=1000).contains(&forward.workers) {
                return bad("--receive.forward.async-workers must be from 1 to 1000".to_owned());
            }
        }
        if !self.split_tenant_label.is_empty()
            && !chronolith_model::is_legacy_label_name(&self.split_tenant_label)
        {
            let name = &self.split_tenant_label;
            return bad(format!("--receive.split-tenant-label-name: {name:?} is no label name"));
        }
        if self.tenant_certificate_field.is_some() && self.remote_write_tls.client_ca_file.is_none() {
            return bad(
                "--receive.tenant-certificate-field needs --remote-write.server-tls-client-ca: only a \
                        certificate that was verified names a tenant"
                    .to_owned(),
            );
        }
        for (flag, value) in [
            ("--receive.limits-config-reload-timer", self.limits_reload_interval_ms),
            ("--tsdb.min-block-duration", self.block_duration_ms),
            ("--shipper.interval", self.maintenance_interval_ms),
        ] {
            if value <= 0 {
                return bad(format!("{flag} must be more than 0"));
            }
        }
        for (flag, value) in [
            ("--tsdb.retention", self.retention_ms),
            ("--tsdb.out-of-order.time-window", self.out_of_order_window_ms),
            ("--tsdb.too-far-in-future.time-window", self.too_far_in_future_ms),
            ("--drain.timeout", self.drain_timeout_ms),
            ("--receive.handoff.max-age", self.late_window_ms),
        ] {
            if value < 0 {
                return bad(format!("{flag} must not be negative"));
            }
        }
        let identity = TenantIdentity {
            header: tenant_header,
            certificate_field: self.tenant_certificate_field,
            default: default_tenant,
        };
        Ok(Checked { external, identity, replica_header })
    }

    /// How OTLP is translated; reads the file of its settings.
    pub(crate) fn otlp_settings(&self) -> Result<OtlpSettings, ReceiveError> {
        let mut flags = self.otlp.clone();
        flags.native_delta |= self.features.native_delta;
        flags.delta_to_cumulative |= self.features.delta_to_cumulative;
        let settings = match &self.otlp_file {
            Some(path) => flags.with_file(path),
            None => flags.check().map(|()| flags),
        };
        settings.map_err(|e| ReceiveError::Config(format!("OTLP: {e}")))
    }

    pub(crate) fn db_options(&self, clock: Arc<dyn Clock>, limits: Arc<crate::limits::Limits>) -> DbOptions {
        let mut options = DbOptions::new(&self.tsdb_path);
        options.block_range_ms = self.block_duration_ms;
        options.out_of_order_window_ms = self.out_of_order_window_ms;
        options.late_window_ms = self.late_window_ms;
        options.future_max_ms =
            if self.too_far_in_future_ms == 0 { i64::MAX } else { self.too_far_in_future_ms };
        options.exemplars_max = self.exemplars_max;
        options.wal_sync = self.wal_sync;
        options.start_timestamps = self.features.start_timestamps;
        options.limits = self.limits;
        let own = TenantOptions { limits: self.limits, out_of_order_window_ms: self.out_of_order_window_ms };
        options.tenant_options = Some(Arc::new(move |tenant| limits.of(tenant).tenant_options(own)));
        options.clock = Arc::new(move || clock.now_ms());
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_named() {
        let good = Config { labels: vec![("replica".into(), "a".into())], ..Config::default() };
        assert_eq!(good.check().unwrap().external.to_string(), r#"{replica="a"}"#);
        let check = |change: &dyn Fn(&mut Config), want: &str| {
            let mut config = good.clone();
            change(&mut config);
            let text = config.check().unwrap_err().to_string();
            assert!(text.contains(want), "{text}");
        };
        check(&|c| c.labels.clear(), "at least one --label");
        check(&|c| c.labels.push(("replica".into(), "b".into())), "duplicate");
        check(&|c| c.labels.push(("tenant_id".into(), "b".into())), "tenant label");
        check(&|c| c.default_tenant = "a/b".into(), "--receive.default-tenant-id");
        check(&|c| c.tenant_header = "a b".into(), "--receive.tenant-header");
        check(&|c| c.split_tenant_label = "a-b".into(), "--receive.split-tenant-label-name");
        let field = Some(CertificateField::CommonName);
        check(&|c| c.tenant_certificate_field = field, "--remote-write.server-tls-client-ca");
        check(&|c| c.block_duration_ms = 0, "--tsdb.min-block-duration");
        check(&|c| c.retention_ms = -1, "--tsdb.retention");
    }
}
