//! Flags of replication.

use std::path::PathBuf;
use std::time::Duration;

use chronolith_receive::hashring::Algorithm;
use chronolith_receive::{ForwardOptions, HandoffOptions};
use chronolith_service::config::{ByteSize, DurationMs};
use clap::Args;

/// The hashring, and how it is written to. With a hashring and --receive.local-endpoint a receiver routes and keeps, with a hashring
/// alone it only routes, with neither it only keeps.
#[derive(Args, Clone, Debug)]
pub(crate) struct RingArgs {
    /// File with the hashrings, JSON as in Thanos. It is read again when it changes.
    #[arg(long = "receive.hashrings-file", value_name = "FILE", help_heading = "Replication")]
    file: Option<PathBuf>,
    /// The same on the command line; the file comes first.
    #[arg(long = "receive.hashrings", value_name = "JSON", help_heading = "Replication")]
    inline: Option<String>,
    /// How hashrings place series that do not say it themselves: hashmod or ketama.
    #[arg(
        long = "receive.hashrings-algorithm",
        default_value = "hashmod",
        value_name = "NAME",
        help_heading = "Replication"
    )]
    algorithm: Algorithm,
    /// How often the file is read even if it looks unchanged.
    #[arg(
        long = "receive.hashrings-file-refresh-interval",
        default_value = "5m",
        value_name = "DURATION",
        help_heading = "Replication"
    )]
    refresh_interval: DurationMs,
    /// Which endpoint of the hashrings this receiver is.
    #[arg(
        long = "receive.local-endpoint",
        default_value = "",
        hide_default_value = true,
        value_name = "HOST:PORT",
        help_heading = "Replication"
    )]
    local_endpoint: String,
    /// Copies of each series.
    #[arg(
        long = "receive.replication-factor",
        default_value_t = 1,
        value_name = "N",
        help_heading = "Replication"
    )]
    replication_factor: usize,
    /// HTTP header that says which replica a request is.
    #[arg(
        long = "receive.replica-header",
        default_value = "THANOS-REPLICA",
        value_name = "NAME",
        help_heading = "Replication"
    )]
    pub(crate) replica_header: String,
    /// Calls under way to each receiver of Thanos's; ours are sent one call of many requests after the other.
    #[arg(
        long = "receive.forward.async-workers",
        default_value_t = 5,
        value_name = "N",
        help_heading = "Replication"
    )]
    workers: usize,
    /// Memory for what waits for one other receiver; what finds no room fails at once.
    #[arg(
        long = "receive.forward.queue-bytes-max",
        default_value = "64MiB",
        value_name = "SIZE",
        help_heading = "Replication"
    )]
    queue_bytes_max: ByteSize,
    /// How batches for other receivers are compressed, except over loopback: snappy or none.
    #[arg(long = "receive.grpc-compression", default_value = "snappy", value_parser = ["snappy", "none"], value_name = "NAME", help_heading = "Replication", hide_possible_values = true)]
    compression: String,
    /// Protocol between receivers: protobuf is all there is.
    #[arg(long = "receive.replication-protocol", default_value = "protobuf", value_parser = replication_protocol, value_name = "NAME", help_heading = "Replication", hide_short_help = true)]
    replication_protocol: String,
    /// Not supported: connections to other receivers are tried again as they are.
    #[arg(long = "receive.grpc-service-config", default_value = "", hide_default_value = true, value_parser = service_config, value_name = "JSON", help_heading = "Replication", hide_short_help = true)]
    service_config: String,
    /// How long another receiver may take for a write.
    #[arg(
        long = "receive-forward-timeout",
        default_value = "5s",
        value_name = "DURATION",
        help_heading = "Replication",
        hide_short_help = true
    )]
    timeout: DurationMs,
    /// The longest time that a receiver is left alone after it was unavailable.
    #[arg(
        long = "receive-forward-max-backoff",
        default_value = "5s",
        value_name = "DURATION",
        help_heading = "Replication",
        hide_short_help = true
    )]
    backoff_max: DurationMs,
    /// Where what unavailable receivers miss is kept until they are back; by itself the subdirectory handoff of --tsdb.path.
    #[arg(long = "receive.handoff.dir", value_name = "DIR", help_heading = "Replication")]
    handoff_dir: Option<PathBuf>,
    /// The most that is kept, for all receivers together; 0 keeps nothing.
    #[arg(
        long = "receive.handoff.max-bytes",
        default_value = "4GiB",
        value_name = "SIZE",
        help_heading = "Replication"
    )]
    handoff_bytes_max: ByteSize,
    /// The longest time that it is kept; also how far out of order a receiver takes what was kept for it.
    #[arg(
        long = "receive.handoff.max-age",
        default_value = "6h",
        value_name = "DURATION",
        help_heading = "Replication"
    )]
    pub(crate) handoff_age_max: DurationMs,
}

fn replication_protocol(text: &str) -> Result<String, String> {
    match text {
        "protobuf" => Ok(text.to_owned()),
        "capnproto" => Err("Cap'n Proto is not spoken, use protobuf".to_owned()),
        _ => Err("want protobuf".to_owned()),
    }
}

fn service_config(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { Err("gRPC service configs are not supported".to_owned()) }
}

impl RingArgs {
    /// The settings, where there is a hashring.
    pub(crate) fn options(&self) -> Option<ForwardOptions> {
        if self.file.is_none() && self.inline.is_none() {
            return None;
        }
        let duration = |d: DurationMs| Duration::from_millis(d.0.unsigned_abs());
        Some(ForwardOptions {
            file: self.file.clone(),
            inline: self.inline.clone(),
            algorithm: self.algorithm,
            refresh_interval: duration(self.refresh_interval),
            local_endpoint: (!self.local_endpoint.is_empty()).then(|| self.local_endpoint.clone()),
            replication_factor: self.replication_factor,
            timeout: duration(self.timeout),
            backoff_max: duration(self.backoff_max),
            workers: self.workers,
            compress: self.compression == "snappy",
            queue_bytes_max: usize::try_from(self.queue_bytes_max.0).unwrap_or(usize::MAX),
            handoff: HandoffOptions {
                dir: self.handoff_dir.clone().unwrap_or_default(),
                bytes_max: self.handoff_bytes_max.0,
                age_max_ms: self.handoff_age_max.0,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        ring: RingArgs,
    }

    #[test]
    fn no_flag_is_required_and_a_hashring_turns_forwarding_on() {
        assert!(Line::try_parse_from(["x"]).unwrap().ring.options().is_none());
        let line = Line::try_parse_from(["x", "--receive.hashrings", "[]"]).unwrap();
        let options = line.ring.options().unwrap();
        assert_eq!((options.local_endpoint, options.handoff.bytes_max), (None, 4 << 30));
        assert!(Line::try_parse_from(["x", "--receive.replication-protocol", "capnproto"]).is_err());
        assert!(Line::try_parse_from(["x", "--receive.grpc-service-config", "{}"]).is_err());
    }
}
