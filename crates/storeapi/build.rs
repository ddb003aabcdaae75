//! Compiles the `.proto` files of the workspace, without protoc.

use std::path::Path;

const FILES: [&str; 14] = [
    "chronolith/fold.proto",
    "chronolith/peer.proto",
    "thanos/labels.proto",
    "thanos/store.proto",
    "thanos/samples.proto",
    "thanos/write.proto",
    "thanos/info.proto",
    "thanos/exemplars.proto",
    "thanos/metadata.proto",
    "thanos/rules.proto",
    "thanos/targets.proto",
    "thanos/status.proto",
    "prometheus/types.proto",
    "prometheus/remote.proto",
];

/// Message fields that are kept as the bytes they came in: `wire.rs` and `peer/series.rs` read and write series themselves, since prost's
/// label strings cost more than all the rest of a Series stream.
const OPAQUE: [(&str, &str, &str); 4] = [
    ("thanos", "SeriesResponse", "series"),
    ("thanos", "SeriesBatch", "series"),
    ("thanos", "WriteRequest", "timeseries"),
    ("thanos", "TimeSeriesTenantData", "timeseries"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut set = protox::compile(FILES.map(|f| root.join(f)), [&root])?;
    for file in &mut set.file {
        for (package, message, field) in OPAQUE {
            if file.package() != package {
                continue;
            }
            let fields = file.message_type.iter_mut().filter(|m| m.name() == message);
            for field in fields.flat_map(|m| &mut m.field).filter(|f| f.name() == field) {
                field.set_type(prost_types::field_descriptor_proto::Type::Bytes);
                field.type_name = None;
            }
        }
    }
    tonic_prost_build::configure()
        .bytes(".")
        .include_file("protos.rs")
        .emit_rerun_if_changed(false)
        .compile_fds(set)?;
    Ok(())
}
