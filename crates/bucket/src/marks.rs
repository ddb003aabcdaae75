//! Marker files beside a block.
//!
//! Times in them are unix *seconds*. A mark that does not parse is logged and counts as absent, and a new one takes its place; one
//! of a version that we do not know is an error, as it may mean something.

use chronolith_model::BlockId;
use chronolith_objstore::Bucket;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, layout};

/// The only version there is.
const VERSION: u64 = 1;

macro_rules! mark {
    ($(#[$doc:meta])* $name:ident, $file:path, $time:ident $(, $reason:ident)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            /// The block, as text.
            pub id: String,
            version: u64,
            /// Remark for humans.
            #[serde(default, skip_serializing_if = "String::is_empty")]
            pub details: String,
            /// When it was set, in unix seconds.
            pub $time: i64,
            $(
                /// Why.
                #[serde(default)]
                pub $reason: String,
            )?
        }

        impl $name {
            /// Reads a block's mark. `None` when there is none, or none that parses.
            pub async fn read(bucket: &Bucket, block: BlockId) -> Result<Option<Self>> {
                let found: Option<Self> = read(bucket, block, $file).await?;
                match found {
                    Some(m) if m.version != VERSION => {
                        let what = format!("{}: version {} is unknown, only 1 is read", $file, m.version);
                        Err(Error::Invalid { block, what })
                    }
                    found => Ok(found),
                }
            }

            /// Marks a block, unless it is marked already. True when the mark is new.
            pub async fn write(
                bucket: &Bucket,
                block: BlockId,
                now_ms: i64,
                details: &str,
                $($reason: &str,)?
            ) -> Result<bool> {
                let mark = $name {
                    id: block.to_string(),
                    version: VERSION,
                    details: details.to_owned(),
                    $time: now_ms.div_euclid(1000),
                    $($reason: $reason.to_owned(),)?
                };
                write(bucket, block, $file, &mark).await
            }
        }
    };
}

mark!(
    /// `deletion-mark.json`: the block will be removed after a delay.
    DeletionMark,
    layout::DELETION_MARK,
    deletion_time
);
mark!(
    /// `no-compact-mark.json`: the block is left out of compaction.
    NoCompactMark,
    layout::NO_COMPACT_MARK,
    no_compact_time,
    reason
);
mark!(
    /// `no-downsample-mark.json`: the block is left out of downsampling.
    NoDownsampleMark,
    layout::NO_DOWNSAMPLE_MARK,
    no_downsample_time,
    reason
);

async fn read<T: DeserializeOwned>(bucket: &Bucket, block: BlockId, file: &str) -> Result<Option<T>> {
    let bytes = match bucket.get(&layout::key(block, file)).await {
        Ok(bytes) => bytes,
        Err(e) if e.is_not_found() => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    match serde_json::from_slice(&bytes) {
        Ok(mark) => Ok(Some(mark)),
        Err(err) => {
            tracing::warn!(%block, file, %err, "marker file does not parse, ignored");
            Ok(None)
        }
    }
}

async fn write<T: Serialize>(bucket: &Bucket, block: BlockId, file: &str, mark: &T) -> Result<bool> {
    let key = layout::key(block, file);
    match bucket.get(&key).await {
        // Garbage says nothing, and would keep the block from ever being marked.
        Ok(there) if serde_json::from_slice::<serde_json::Value>(&there).is_ok_and(|v| v.is_object()) => {
            return Ok(false);
        }
        Ok(_) => {}
        Err(e) if e.is_not_found() => {}
        Err(e) => return Err(e.into()),
    }
    let json = serde_json::to_vec(mark).expect("a mark is plain data");
    bucket.put(&key, json.into()).await?;
    Ok(true)
}

/// Gives a block that was made of another one the marks that keep the compactor's hands off that, before anyone sees it.
pub async fn carry_marks(bucket: &Bucket, from: BlockId, to: BlockId, now_ms: i64) -> Result<()> {
    if let Some(mark) = NoCompactMark::read(bucket, from).await? {
        NoCompactMark::write(bucket, to, now_ms, &mark.details, &mark.reason).await?;
    }
    if let Some(mark) = NoDownsampleMark::read(bucket, from).await? {
        NoDownsampleMark::write(bucket, to, now_ms, &mark.details, &mark.reason).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn marks_round_trip_and_garbage_is_ignored() {
        let bucket = Bucket::in_memory();
        let id: BlockId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        assert_eq!(DeletionMark::read(&bucket, id).await.unwrap(), None);
        assert!(DeletionMark::write(&bucket, id, 1_700_000_000_999, "old").await.unwrap());
        assert!(!DeletionMark::write(&bucket, id, 1_800_000_000_000, "again").await.unwrap());
        let mark = DeletionMark::read(&bucket, id).await.unwrap().unwrap();
        assert_eq!((mark.deletion_time, mark.details.as_str()), (1_700_000_000, "old"));
        assert!(NoCompactMark::write(&bucket, id, 0, "", "manual").await.unwrap());
        let json = bucket.get(&layout::key(id, layout::NO_COMPACT_MARK)).await.unwrap();
        assert_eq!(
            json,
            format!("{{\"id\":\"{id}\",\"version\":1,\"no_compact_time\":0,\"reason\":\"manual\"}}")
        );
        bucket.put(&layout::key(id, layout::DELETION_MARK), "{".into()).await.unwrap();
        assert_eq!(DeletionMark::read(&bucket, id).await.unwrap(), None);
        let future = format!("{{\"id\":\"{id}\",\"version\":2,\"deletion_time\":1}}");
        bucket.put(&layout::key(id, layout::DELETION_MARK), future.into()).await.unwrap();
        assert!(DeletionMark::read(&bucket, id).await.unwrap_err().to_string().contains("version 2"));
    }
}
