//! Where things lie in a bucket: Thanos's layout, unchanged.

use chronolith_model::BlockId;

/// Written last; makes the block visible.
pub const META: &str = "meta.json";
/// The block's index.
pub const INDEX: &str = "index";
/// The directory of segment files.
pub const CHUNKS: &str = "chunks";
/// The block will be removed later.
pub const DELETION_MARK: &str = "deletion-mark.json";
/// The block is left out of compaction.
pub const NO_COMPACT_MARK: &str = "no-compact-mark.json";
/// What a listing told, see `bucket_index`. No block's.
pub const BUCKET_INDEX: &str = "chronolith/bucket-index.json.gz";
/// The block is left out of downsampling.
pub const NO_DOWNSAMPLE_MARK: &str = "no-downsample-mark.json";

/// Key of `file` of a block.
pub fn key(block: BlockId, file: &str) -> String {
    format!("{block}/{file}")
}

/// Key of segment `number`, counted from 0 as chunk references do; files count from 1.
pub fn segment_key(block: BlockId, number: usize) -> String {
    format!("{block}/{CHUNKS}/{:06}", number as u64 + 1)
}

/// Splits a key into block and path below it. `None` for what is not part of a block.
pub fn parse(key: &str) -> Option<(BlockId, &str)> {
    let (dir, file) = key.split_once('/')?;
    Some((dir.parse().ok()?, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let id: BlockId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        assert_eq!(segment_key(id, 0), "01ARZ3NDEKTSV4RRFFQ69G5FAV/chunks/000001");
        assert_eq!(parse(&key(id, META)), Some((id, META)));
        assert_eq!(parse("debug/metas/01ARZ3NDEKTSV4RRFFQ69G5FAV.json"), None);
        assert_eq!(parse("01ARZ3NDEKTSV4RRFFQ69G5FAV"), None);
    }
}
