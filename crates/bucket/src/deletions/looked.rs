//! Blocks that a request does not concern after all.
//!
//! Labels and times of a block often cannot tell whether a request finds series in it; its index can. What was found out is kept
//! beside the request, so that no worker has to look again, and everybody can tell what is left to do:
//!
//! ```text
//! chronolith/deletions/<ULID>.looked   {"version": 1, "blocks": ["<ULID>", …]}
//! ```
//!
//! Blocks never change, so an entry holds for ever. Two workers that write at the same time may lose each other's entries,
//! which costs a look. What cannot be read counts as empty.

use std::collections::BTreeSet;

use chronolith_model::BlockId;
use chronolith_objstore::Bucket;
use serde::{Deserialize, Serialize};

use super::{PREFIX, VERSION};
use crate::Result;

/// Blocks that have nothing of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// The blocks.
    pub blocks: BTreeSet<BlockId>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u64,
    blocks: Vec<String>,
}

fn key(request: BlockId) -> String {
    format!("{PREFIX}/{request}.looked")
}

impl Looked {
    /// What was found out so far.
    pub async fn read(bucket: &Bucket, request: BlockId) -> Result<Self> {
        let json = match bucket.get(&key(request)).await {
            Ok(json) => json,
            Err(e) if e.is_not_found() => return Ok(Looked::default()),
            Err(e) => return Err(e.into()),
        };
        let written = serde_json::from_slice::<Written>(&json).ok().filter(|w| w.version == VERSION);
        let blocks = written.into_iter().flat_map(|w| w.blocks).filter_map(|id| id.parse().ok());
        Ok(Looked { blocks: blocks.collect() })
    }

    /// Keeps it.
    pub async fn write(&self, bucket: &Bucket, request: BlockId) -> Result<()> {
        let blocks = self.blocks.iter().map(BlockId::to_string).collect();
        let json = serde_json::to_vec(&Written { version: VERSION, blocks }).expect("plain data");
        Ok(bucket.put(&key(request), json.into()).await?)
    }

    pub(super) async fn remove(bucket: &Bucket, request: BlockId) -> Result<()> {
        Ok(bucket.delete(&key(request)).await?)
    }
}
