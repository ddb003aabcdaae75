//! Uploading a block.
//!
//! Order: every file below `chunks/`, then `index`, then, after the bucket has shown all of them with their sizes,
//! `meta.json`. Until the last put nobody sees the block; after it everybody sees all of it. An upload that stopped
//! anywhere is repeated as a whole: files that are there with the right size are kept (objects are written
//! atomically and a block never changes), and a block whose meta.json and files are there is done. So a retry never doubles
//! anything, and two uploaders of the same block do no harm.
//!
//! An upload that goes on after days may be taken for one that has stopped, and be deleted at the same time
//! ([`crate::Cleaning`]). So what is old is written again, which tells the cleaner that the upload lives, and after meta.json the
//! bucket has to show the files once more. Where meta.json is there and a file is not, the file is written from the local copy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chronolith_model::BlockId;
use chronolith_objstore::{Bucket, ObjectInfo};
use chronolith_tsdb::block::{BlockFile, BlockMeta};
use futures::TryStreamExt;
use sha2::{Digest, Sha256};

use crate::{Error, Result, layout, time};

/// Files older than this are written again: half the time after which the cleaner takes an upload for stopped, so that neither
/// clocks that differ nor a long upload matter.
const KEPT_AGE_MAX: Duration = Duration::from_secs(crate::PARTIAL_UPLOAD_AGE.as_secs() / 2);

/// How to upload.
#[derive(Clone, Copy, Debug, Default)]
pub struct UploadOptions {
    /// Put SHA-256 sums of the files into meta.json.
    pub hash: bool,
    /// Take blocks without external labels, as plain Prometheus blocks are. Whoever reads such a bucket cannot tell
    /// producers apart, so it is off for our own uploads.
    pub allow_no_labels: bool,
}

#[derive(Clone)]
struct LocalFile {
    rel_path: String,
    path: PathBuf,
    size: u64,
}

/// Uploads the block in `dir`, which `meta` describes (its `thanos` section says whose it is), and gives back the
/// meta as it stands in the bucket. `now_ms` becomes the upload time.
pub async fn upload_block(
    bucket: &Bucket,
    dir: &Path,
    meta: &BlockMeta,
    options: UploadOptions,
    now_ms: i64,
) -> Result<BlockMeta> {
    let block = meta.ulid;
    let invalid = |what: &str| Error::Invalid { block, what: what.to_owned() };
    let thanos = meta.thanos.as_ref().ok_or_else(|| invalid("meta.json has no thanos section"))?;
    if thanos.labels.is_empty() && !options.allow_no_labels {
        return Err(invalid("no external labels"));
    }
    let owned = dir.to_owned();
    let files = blocking(move || local_files(&owned)).await?;
    if let Some(visible) = visible(bucket, block).await? {
        complete(bucket, &visible, &files).await?;
        return Ok(visible);
    }
    if !files.iter().any(|f| f.rel_path == layout::INDEX) {
        return Err(invalid("the directory has no index"));
    }
    let there = objects(bucket, block).await?;
    let mut resumed_late = false;
    for file in &files {
        let found = there.get(&file.rel_path);
        let old = found.is_some_and(|o| is_old(o.last_modified, now_ms));
        resumed_late |= old;
        if old || found.is_none_or(|o| o.size != file.size) {
            bucket.put_file(&layout::key(block, &file.rel_path), &file.path).await?;
        }
    }
    let there = objects(bucket, block).await?;
    let size = |file: &LocalFile| there.get(&file.rel_path).map(|o| o.size);
    if let Some(file) = files.iter().find(|f| size(f) != Some(f.size)) {
        let (rel_path, found) = (&file.rel_path, size(file));
        let what =
            format!("{rel_path} has {found:?} bytes in the bucket after its upload, {} on disk", file.size);
        return Err(Error::Invalid { block, what });
    }
    let mut uploaded = meta.clone();
    let thanos = uploaded.thanos.as_mut().expect("checked above");
    thanos.version = 1;
    thanos.upload_time = Some(time::format_rfc3339(now_ms));
    thanos.segment_files =
        files.iter().filter_map(|f| f.rel_path.strip_prefix("chunks/")).map(str::to_owned).collect();
    thanos.files = describe(files.clone(), options.hash).await?;
    bucket.put(&layout::key(block, layout::META), uploaded.to_json().into()).await?;
    if resumed_late {
        complete(bucket, &uploaded, &files).await?;
    }
    Ok(uploaded)
}

fn is_old(last_modified: SystemTime, now_ms: i64) -> bool {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms.max(0).unsigned_abs());
    now.duration_since(last_modified).is_ok_and(|age| age > KEPT_AGE_MAX)
}

/// The block's meta.json, if it is there and can be read.
async fn visible(bucket: &Bucket, block: BlockId) -> Result<Option<BlockMeta>> {
    let key = layout::key(block, layout::META);
    match bucket.get(&key).await {
        Ok(json) => Ok(BlockMeta::parse(&key, &json).ok()),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Writes from the local copy what a visible block lacks.
///
/// Errors: the local copy has no such file.
async fn complete(bucket: &Bucket, visible: &BlockMeta, files: &[LocalFile]) -> Result<()> {
    let block = visible.ulid;
    let there = objects(bucket, block).await?;
    for (rel_path, size) in missing(visible, &there) {
        let Some(file) = files.iter().find(|f| f.rel_path == rel_path && size.is_none_or(|n| n == f.size))
        else {
            let what = format!("the bucket's {rel_path} is not as meta.json says, nor is the local one");
            return Err(Error::Invalid { block, what });
        };
        tracing::warn!(%block, file = rel_path, "file of a visible block was missing, written again");
        bucket.put_file(&layout::key(block, &rel_path), &file.path).await?;
    }
    Ok(())
}

/// The files that a visible block should have and has not, or not with their size, and that size where it is known.
fn missing(visible: &BlockMeta, there: &BTreeMap<String, ObjectInfo>) -> Vec<(String, Option<u64>)> {
    let mut missing = Vec::new();
    for file in visible.thanos.iter().flat_map(|t| &t.files).filter(|f| f.rel_path != layout::META) {
        if there.get(&file.rel_path).is_none_or(|o| o.size != file.size_bytes) {
            missing.push((file.rel_path.clone(), Some(file.size_bytes)));
        }
    }
    // Uploaders of old list no files.
    if missing.is_empty() && !there.contains_key(layout::INDEX) {
        missing.push((layout::INDEX.to_owned(), None));
    }
    missing
}

/// True when the block is in the bucket: meta.json parses, and every file that it lists has its size. What is about
/// to delete its local copy asks this, not its own memory of an upload.
pub async fn is_uploaded(bucket: &Bucket, block: BlockId) -> Result<bool> {
    let Some(visible) = visible(bucket, block).await? else { return Ok(false) };
    Ok(missing(&visible, &objects(bucket, block).await?).is_empty())
}

/// The block's objects by path below it.
async fn objects(bucket: &Bucket, block: BlockId) -> Result<BTreeMap<String, ObjectInfo>> {
    let infos: Vec<_> = bucket.list(&block.to_string()).try_collect().await?;
    let relative = |info: &ObjectInfo| layout::parse(&info.key).map(|(_, file)| file.to_owned());
    Ok(infos.into_iter().filter_map(|info| Some((relative(&info)?, info))).collect())
}

/// Segments in order, then the index: the order of upload.
fn local_files(dir: &Path) -> Result<Vec<LocalFile>> {
    let mut files = Vec::new();
    let chunks = dir.join(layout::CHUNKS);
    match std::fs::read_dir(&chunks) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry.map_err(Error::io("list", &chunks))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.len() == 6 && name.bytes().all(|b| b.is_ascii_digit()) {
                    let size = entry.metadata().map_err(Error::io("stat", &entry.path()))?.len();
                    files.push(LocalFile {
                        rel_path: format!("{}/{name}", layout::CHUNKS),
                        path: entry.path(),
                        size,
                    });
                }
            }
        }
        // A block without samples has no segments.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("list", &chunks)(e)),
    }
    files.sort_by(|a, b| a.rel_path.cmp(&b.rel_path));
    let path = dir.join(layout::INDEX);
    let size = std::fs::metadata(&path).map_err(Error::io("stat", &path))?.len();
    files.push(LocalFile { rel_path: layout::INDEX.to_owned(), path, size });
    Ok(files)
}

async fn describe(files: Vec<LocalFile>, hash: bool) -> Result<Vec<BlockFile>> {
    blocking(move || {
        let mut out = Vec::with_capacity(files.len() + 1);
        for file in files {
            let sum = hash.then(|| sha256(&file.path)).transpose()?;
            let hash = sum.map(|value| serde_json::json!({"hashFunc": "SHA256", "value": value}));
            let (rel_path, size_bytes) = (file.rel_path, file.size);
            out.push(BlockFile { rel_path, size_bytes, hash, ..BlockFile::default() });
        }
        out.push(BlockFile { rel_path: layout::META.to_owned(), ..BlockFile::default() });
        out.sort_by(|a, b| a.rel_path.cmp(&b.rel_path));
        Ok(out)
    })
    .await
}

fn sha256(path: &Path) -> Result<String> {
    use std::io::Read;
    let mut file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let (mut hasher, mut buf) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let n = file.read(&mut buf).map_err(Error::io("read", path))?;
        if n == 0 {
            break;
        }
        hasher.update(&buf[..n]);
    }
    Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    joined(tokio::task::spawn_blocking(work).await)
}

/// The result of a task; its panic goes on.
pub(crate) fn joined<T>(result: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    match result {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(e) => {
            Err(Error::Io { op: "run", path: PathBuf::from("a task"), source: std::io::Error::other(e) })
        }
    }
}
