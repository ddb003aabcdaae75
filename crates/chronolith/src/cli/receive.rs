//! Flags of the receive role, shared by `receive` and `server`.

use std::path::PathBuf;
use std::time::Duration;

use chronolith_model::{Relabeling, TenantId};
use chronolith_receive::otlp::OtlpSettings;
use chronolith_receive::{CertificateField, Config, LimitsSource, StorageFeatures};
use chronolith_service::config::{ByteSize, DurationMs, inline_or_file};
use chronolith_service::exit::Exit;
use chronolith_service::relabel::parse_relabeling;
use chronolith_service::tls::{ServerTlsConfig, TlsVersion};
use chronolith_tsdb::db::WalSync;
use clap::Args;

use super::common::{GrpcServerTlsArgs, LogArgs, ObjstoreArgs, address, given, label};
use super::ring::RingArgs;

/// Take remote write, keep the newest data, ship blocks into the bucket.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReceiveArgs {
    /// Where remote write is taken.
    #[arg(long = "remote-write.address", default_value = "0.0.0.0:19291", value_parser = address, value_name = "HOST:PORT")]
    remote_write_address: String,
    /// Where metrics, probes and the admin API are served.
    #[arg(long = "http-address", default_value = "0.0.0.0:10902", value_parser = address, value_name = "HOST:PORT")]
    http_address: String,
    /// Where the StoreAPI is served.
    #[arg(long = "grpc-address", default_value = "0.0.0.0:10901", value_parser = address, value_name = "HOST:PORT")]
    grpc_address: String,
    /// Directory of heads, write-ahead log and local blocks.
    #[arg(long = "tsdb.path", default_value = "./data", value_name = "DIR")]
    tsdb_path: PathBuf,
    /// Features to switch on, Prometheus's names; several by repeating the flag or by commas: st-storage,
    /// otlp-native-delta-ingestion, otlp-deltatocumulative.
    #[arg(long = "enable-feature", value_name = "NAME", help_heading = "Receive")]
    features: Vec<String>,
    /// Certificate of the remote-write server; without it connections are plain. Read again when it changes.
    #[arg(long = "remote-write.server-tls-cert", value_name = "FILE", help_heading = "TLS")]
    write_tls_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long = "remote-write.server-tls-key", value_name = "FILE", help_heading = "TLS")]
    write_tls_key: Option<PathBuf>,
    /// Authorities whose certificates writers must show; without it they need none.
    #[arg(long = "remote-write.server-tls-client-ca", value_name = "FILE", help_heading = "TLS")]
    write_tls_client_ca: Option<PathBuf>,
    /// Oldest protocol: 1.2 or 1.3.
    #[arg(
        long = "remote-write.server-tls-min-version",
        default_value = "1.3",
        value_name = "VERSION",
        help_heading = "TLS"
    )]
    write_tls_min_version: TlsVersion,
    /// Field of the writer's certificate that names its tenant: organization, organizationalUnit or commonName. The header
    /// is not looked at then.
    #[arg(
        long = "receive.tenant-certificate-field",
        default_value = "",
        value_parser = certificate_field,
        value_name = "FIELD",
        help_heading = "Receive"
    )]
    tenant_certificate_field: OptionalField,
    #[command(flatten)]
    tls: GrpcServerTlsArgs,
    #[command(flatten)]
    ingest: IngestArgs,
    #[command(flatten)]
    ring: RingArgs,
    #[command(flatten)]
    pub(crate) objstore: ObjstoreArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// What `server` takes, too.
#[derive(Args, Clone, Debug)]
pub(crate) struct IngestArgs {
    /// External label of everything that is written here; may be repeated.
    #[arg(long = "label", value_parser = label, value_name = "NAME=\"VALUE\"", help_heading = "Receive")]
    labels: Vec<(String, String)>,
    /// How long blocks stay on this machine after they were uploaded; 0 keeps them.
    #[arg(long = "tsdb.retention", default_value = "15d", value_name = "DURATION", help_heading = "Receive")]
    retention: DurationMs,
    /// Data of so much time becomes a block.
    #[arg(
        long = "tsdb.min-block-duration",
        default_value = "2h",
        value_name = "DURATION",
        help_heading = "Receive",
        hide_short_help = true
    )]
    block_duration: DurationMs,
    /// Samples may be so much older than the newest one of their tenant.
    #[arg(
        long = "tsdb.out-of-order.time-window",
        default_value = "0s",
        value_name = "DURATION",
        help_heading = "Receive"
    )]
    out_of_order_window: DurationMs,
    /// Samples may be so much ahead of the clock; 0 sets no bound.
    #[arg(
        long = "tsdb.too-far-in-future.time-window",
        default_value = "10m",
        value_name = "DURATION",
        help_heading = "Receive"
    )]
    too_far_in_future: DurationMs,
    /// Exemplars that a tenant keeps in memory; the oldest goes for the next. 0 keeps none.
    #[arg(
        long = "tsdb.max-exemplars",
        default_value_t = 100_000,
        value_name = "N",
        help_heading = "Receive"
    )]
    exemplars_max: usize,
    /// When an acknowledged write is on disk: group (before the acknowledgement, one fsync for many requests), interval
    /// (within 200 ms), off (when the kernel likes).
    #[arg(long = "wal.sync", default_value = "group", value_parser = wal_sync, value_name = "MODE", help_heading = "Receive")]
    wal_sync: WalSync,
    /// Tenant of requests that name none.
    #[arg(long = "receive.default-tenant-id", default_value = TenantId::DEFAULT, value_name = "TENANT", help_heading = "Receive")]
    default_tenant: String,
    /// HTTP header that names the tenant.
    #[arg(
        long = "receive.tenant-header",
        default_value = "THANOS-TENANT",
        value_name = "NAME",
        help_heading = "Receive"
    )]
    tenant_header: String,
    /// External label that carries the tenant.
    #[arg(
        long = "receive.tenant-label-name",
        default_value = "tenant_id",
        value_name = "NAME",
        help_heading = "Receive"
    )]
    tenant_label: String,
    /// Label that names a series' tenant, instead of the request's; it is taken off.
    #[arg(
        long = "receive.split-tenant-label-name",
        default_value = "",
        value_name = "NAME",
        help_heading = "Receive"
    )]
    split_tenant_label: String,
    /// File with relabel rules for everything that is written, Prometheus's relabel_configs.
    #[arg(long = "receive.relabel-config-file", value_name = "FILE", help_heading = "Receive")]
    relabel_config_file: Option<PathBuf>,
    /// The same as YAML on the command line.
    #[arg(
        long = "receive.relabel-config",
        value_name = "YAML",
        conflicts_with = "relabel_config_file",
        help_heading = "Receive"
    )]
    relabel_config: Option<String>,
    /// File with the tenants' limits; read again when it changes, and at SIGHUP.
    #[arg(long = "receive.limits-config-file", value_name = "FILE", help_heading = "Receive")]
    limits_config_file: Option<PathBuf>,
    /// The same as YAML on the command line.
    #[arg(
        long = "receive.limits-config",
        value_name = "YAML",
        conflicts_with = "limits_config_file",
        help_heading = "Receive"
    )]
    limits_config: Option<String>,
    /// How often that file is looked at.
    #[arg(
        long = "receive.limits-config-reload-timer",
        default_value = "1s",
        value_name = "DURATION",
        help_heading = "Receive"
    )]
    limits_reload_interval: DurationMs,
    /// Most tenants; a new one beyond it is answered 429.
    #[arg(
        long = "receive.tenants-max",
        default_value_t = 10_000,
        value_name = "N",
        help_heading = "Receive"
    )]
    tenants_max: usize,
    /// Largest request body, compressed as well as decompressed.
    #[arg(
        long = "receive.request-bytes-max",
        default_value = "32MiB",
        value_name = "SIZE",
        help_heading = "Receive"
    )]
    request_bytes_max: ByteSize,
    /// A target_info series for each OTLP resource.
    #[arg(
        long = "receive.otlp-enable-target-info",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        action = clap::ArgAction::Set,
        value_name = "BOOL",
        help_heading = "Receive"
    )]
    otlp_target_info: bool,
    /// OTLP resource attribute that becomes a label of every series; may be repeated.
    #[arg(long = "receive.otlp-promote-resource-attributes", value_name = "NAME", help_heading = "Receive")]
    otlp_promote: Vec<String>,
    /// YAML file with what stands below `otlp:` in a Prometheus configuration.
    #[arg(long = "receive.otlp-config-file", value_name = "FILE", help_heading = "Receive")]
    otlp_file: Option<PathBuf>,
    /// Memory for all requests that are being decoded.
    #[arg(
        long = "receive.inflight-bytes-max",
        default_value = "1GiB",
        value_name = "SIZE",
        help_heading = "Receive"
    )]
    inflight_bytes_max: ByteSize,
    /// Put hashes of the files into meta.json: SHA256 or nothing.
    #[arg(long = "hash-func", default_value = "", value_parser = ["", "SHA256"], value_name = "NAME", help_heading = "Receive", hide_possible_values = true)]
    hash_func: String,
    /// How often due heads and new blocks are looked for.
    #[arg(
        long = "shipper.interval",
        default_value = "30s",
        value_name = "DURATION",
        help_heading = "Receive",
        hide_short_help = true
    )]
    shipper_interval: DurationMs,
    /// Serve /api/v1/admin/tsdb/…
    #[arg(long = "web.enable-admin-api", help_heading = "Receive")]
    pub(crate) enable_admin_api: bool,
    /// On SIGTERM upload what is in the heads and deliver hints, too: this node leaves for good.
    #[arg(long = "drain", help_heading = "Receive")]
    drain: bool,
    /// How long a drain goes on trying; hints get at most half of it.
    #[arg(long = "drain.timeout", default_value = "5m", value_name = "DURATION", help_heading = "Receive")]
    drain_timeout: DurationMs,
}

fn wal_sync(text: &str) -> Result<WalSync, String> {
    match text {
        "group" => Ok(WalSync::Group),
        "interval" => Ok(WalSync::Interval(Duration::from_millis(200))),
        "off" => Ok(WalSync::Off),
        _ => Err("want group, interval or off".to_owned()),
    }
}

/// An empty field is none, as in Thanos.
#[derive(Clone, Copy, Debug)]
struct OptionalField(Option<CertificateField>);

fn certificate_field(text: &str) -> Result<OptionalField, String> {
    match text {
        "" => Ok(OptionalField(None)),
        field => field.parse().map(|field| OptionalField(Some(field))),
    }
}

impl ReceiveArgs {
    /// The role's settings.
    pub(crate) fn config(&self) -> Result<Config, Exit> {
        let (features, others) = StorageFeatures::from_flags(&self.features);
        for name in others {
            tracing::warn!(option = name, "Unknown option for --enable-feature");
        }
        Ok(Config {
            features,
            remote_write_address: Some(self.remote_write_address.clone()),
            http_address: Some(self.http_address.clone()),
            grpc_address: Some(self.grpc_address.clone()),
            require_labels: true,
            tsdb_path: self.tsdb_path.clone(),
            forward: self.ring.options(),
            late_window_ms: self.ring.handoff_age_max.0,
            replica_header: self.ring.replica_header.clone(),
            remote_write_tls: ServerTlsConfig {
                cert_file: given(&self.write_tls_cert),
                key_file: given(&self.write_tls_key),
                client_ca_file: given(&self.write_tls_client_ca),
                min_version: self.write_tls_min_version,
            },
            grpc_tls: self.tls.config(),
            tenant_certificate_field: self.tenant_certificate_field.0,
            ..self.ingest.config()?
        })
    }
}

impl IngestArgs {
    /// The settings of a receiver without listeners of its own.
    pub(crate) fn config(&self) -> Result<Config, Exit> {
        let rules = inline_or_file(
            "receive.relabel-config",
            self.relabel_config.as_deref(),
            self.relabel_config_file.as_deref(),
        )?;
        let relabeling = match rules {
            Some((origin, text)) => parse_relabeling(&origin, &text)?,
            None => Relabeling::default(),
        };
        let limits_config = match (&self.limits_config, &self.limits_config_file) {
            (Some(text), _) => LimitsSource::Inline(text.clone()),
            (None, Some(path)) => LimitsSource::File(path.clone()),
            (None, None) => LimitsSource::None,
        };
        Ok(Config {
            remote_write_address: None,
            http_address: None,
            grpc_address: None,
            require_labels: false,
            labels: self.labels.clone(),
            retention_ms: self.retention.0,
            block_duration_ms: self.block_duration.0,
            out_of_order_window_ms: self.out_of_order_window.0,
            too_far_in_future_ms: self.too_far_in_future.0,
            exemplars_max: self.exemplars_max,
            wal_sync: self.wal_sync,
            default_tenant: self.default_tenant.clone(),
            tenant_header: self.tenant_header.clone(),
            tenant_label: self.tenant_label.clone(),
            tenants_max: self.tenants_max,
            request_bytes_max: self.request_bytes_max.0,
            inflight_bytes_max: self.inflight_bytes_max.0,
            otlp: OtlpSettings {
                target_info: self.otlp_target_info,
                promote_resource_attributes: self.otlp_promote.iter().cloned().collect(),
                ..OtlpSettings::default()
            },
            otlp_file: self.otlp_file.clone(),
            hash: self.hash_func == "SHA256",
            maintenance_interval_ms: self.shipper_interval.0,
            enable_admin_api: self.enable_admin_api,
            drain: self.drain,
            drain_timeout_ms: self.drain_timeout.0,
            split_tenant_label: self.split_tenant_label.clone(),
            relabeling,
            limits_config,
            limits_reload_interval_ms: self.limits_reload_interval.0,
            ..Config::default()
        })
    }

    /// The tenant of own metrics.
    pub(crate) fn default_tenant(&self) -> &str {
        &self.default_tenant
    }
}
