//! `thanos.shipper.json` in a tenant's directory: the blocks that are in the bucket.
//!
//! ```json
//! {"version": 1, "uploaded": ["01…", …]}
//! ```
//!
//! It saves a look into the bucket for every block at every round. It is no proof: before a local block is deleted, the
//! bucket itself is asked. So a lost or damaged file costs requests and nothing else.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use chronolith_model::BlockId;
use serde::{Deserialize, Serialize};

/// The file's name, Thanos's.
pub const SHIPPER_FILE: &str = "thanos.shipper.json";

#[derive(Serialize, Deserialize)]
struct ShipperJson {
    version: u32,
    #[serde(default)]
    uploaded: Option<Vec<String>>,
}

/// The blocks that the file of a tenant's directory lists; none where it cannot be read.
pub fn read(dir: &Path) -> BTreeSet<BlockId> {
    let Ok(json) = std::fs::read(dir.join(SHIPPER_FILE)) else { return BTreeSet::new() };
    match serde_json::from_slice::<ShipperJson>(&json) {
        Ok(file) if file.version == 1 => {
            file.uploaded.unwrap_or_default().iter().filter_map(|id| id.parse().ok()).collect()
        }
        _ => {
            tracing::warn!(path = %dir.join(SHIPPER_FILE).display(), "shipper file cannot be read, starting over");
            BTreeSet::new()
        }
    }
}

/// Replaces the file.
pub fn write(dir: &Path, uploaded: &BTreeSet<BlockId>) -> std::io::Result<()> {
    let file = ShipperJson { version: 1, uploaded: Some(uploaded.iter().map(ToString::to_string).collect()) };
    let json = serde_json::to_vec_pretty(&file).map_err(std::io::Error::other)?;
    let tmp = dir.join(format!("{SHIPPER_FILE}.tmp"));
    let mut out = std::fs::File::create(&tmp)?;
    out.write_all(&json)?;
    out.sync_all()?;
    std::fs::rename(tmp, dir.join(SHIPPER_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_forgives_damage() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).is_empty());
        let blocks: BTreeSet<BlockId> =
            ["01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(), "01ARZ3NDEKTSV4RRFFQ69G5FAW".parse().unwrap()]
                .into();
        write(dir.path(), &blocks).unwrap();
        assert_eq!(read(dir.path()), blocks);
        std::fs::write(dir.path().join(SHIPPER_FILE), r#"{"version":1,"uploaded":null}"#).unwrap();
        assert!(read(dir.path()).is_empty());
        std::fs::write(dir.path().join(SHIPPER_FILE), "{").unwrap();
        assert!(read(dir.path()).is_empty());
    }
}
