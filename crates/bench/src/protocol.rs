//! How the load travels: the protocol, its headers, and where a server takes it.

use clap::ValueEnum;

use crate::peer::Kind;
use crate::workload::Workload;
use crate::{encode, encode_otlp, encode_rw2};

/// A protocol of the write path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// Remote write 1.0.
    #[default]
    Rw1,
    /// Remote write 2.0, with metadata, as Prometheus sends it.
    Rw2,
    /// OTLP over HTTP in protobuf, not compressed: what SDKs send by default.
    Otlp,
    /// The same with gzip: what the collector sends by default.
    OtlpGzip,
}

impl Protocol {
    /// The name in columns of reports; nothing for the usual one.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Protocol::Rw1 => "",
            Protocol::Rw2 => ", 2.0",
            Protocol::Otlp => ", OTLP",
            Protocol::OtlpGzip => ", OTLP gzip",
        }
    }

    /// Header lines of a request.
    pub(crate) fn headers(self) -> &'static str {
        match self {
            Protocol::Rw1 => {
                "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
                 X-Prometheus-Remote-Write-Version: 0.1.0\r\n"
            }
            Protocol::Rw2 => {
                "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n\
                 Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 2.0.0\r\n"
            }
            Protocol::Otlp => "Content-Type: application/x-protobuf\r\n",
            Protocol::OtlpGzip => "Content-Type: application/x-protobuf\r\nContent-Encoding: gzip\r\n",
        }
    }

    /// Where a server takes it; `None` when it does not.
    pub(crate) fn path(self, kind: Kind) -> Option<&'static str> {
        match (self, kind) {
            (Protocol::Rw1 | Protocol::Rw2, Kind::Chronolith) => Some("/api/v1/receive"),
            (Protocol::Rw1 | Protocol::Rw2, Kind::Prometheus) | (Protocol::Rw1, Kind::VictoriaMetrics) => {
                Some("/api/v1/write")
            }
            (Protocol::Rw2, Kind::VictoriaMetrics) => None,
            (Protocol::Otlp | Protocol::OtlpGzip, Kind::VictoriaMetrics) => Some("/opentelemetry/v1/metrics"),
            (Protocol::Otlp | Protocol::OtlpGzip, _) => Some("/api/v1/otlp/v1/metrics"),
        }
    }

    /// The requests of `steps` steps of the whole workload, from `first` on. All samples of a series are in one request.
    pub(crate) fn encode_steps(
        self,
        workload: &mut Workload,
        first: u64,
        steps: u64,
        requests: &mut Vec<Vec<u8>>,
    ) {
        match self {
            Protocol::Rw1 => encode::encode_steps(workload, first, steps, requests),
            Protocol::Rw2 => encode_rw2::encode_steps(workload, first, steps, requests),
            Protocol::Otlp => encode_otlp::encode_steps(workload, first, steps, false, requests),
            Protocol::OtlpGzip => encode_otlp::encode_steps(workload, first, steps, true, requests),
        }
    }
}
