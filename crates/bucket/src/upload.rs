//! Uploading a block.
//!
//! Order: every file below `chunks/`, then `index`, then, after the bucket has shown all of them with their sizes,
//! `meta.json`. Until the last put nobody sees the block; after it everybody sees all of it. An upload that stopped
//! anywhere is repeated as a whole: files that are there with the right size are kept (objects are written
//! atomically and a block never changes), and a block whose meta.json is there is done. So a retry never doubles
//! anything, and two uploaders of the same block do no harm.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chronolith_model::BlockId;
use chronolith_objstore::Bucket;
use chronolith_tsdb::block::{BlockFile, BlockMeta};
use futures::TryStreamExt;
use sha2::{Digest, Sha256};

use crate::{Error, Result, layout, time};

/// How to upload.
#[derive(Clone, Copy, Debug, Default)]
pub struct UploadOptions {
    /// Put SHA-256 sums of the files into meta.json.
    pub hash: bool,
    /// Take blocks without external labels, as plain Prometheus blocks are. Whoever reads such a bucket cannot tell
    /// producers apart, so it is off for our own uploads.
    pub allow_no_labels: bool,
}

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
    let meta_key = layout::key(block, layout::META);
    match bucket.get(&meta_key).await {
        Ok(json) => {
            // Visible means complete, by the order above.
            if let Ok(there) = BlockMeta::parse(&meta_key, &json) {
                return Ok(there);
            }
        }
        Err(e) if e.is_not_found() => {}
        Err(e) => return Err(e.into()),
    }
    let owned = dir.to_owned();
    let files = blocking(move || local_files(&owned)).await?;
    if !files.iter().any(|f| f.rel_path == layout::INDEX) {
        return Err(invalid("the directory has no index"));
    }
    let mut there = sizes(bucket, block).await?;
    for file in &files {
        if there.get(&file.rel_path) != Some(&file.size) {
            bucket.put_file(&layout::key(block, &file.rel_path), &file.path).await?;
        }
    }
    there = sizes(bucket, block).await?;
    if let Some(file) = files.iter().find(|f| there.get(&f.rel_path) != Some(&f.size)) {
        let what = format!(
            "{} has {:?} bytes in the bucket after its upload, {} on disk",
            file.rel_path,
            there.get(&file.rel_path),
            file.size
        );
        return Err(Error::Invalid { block, what });
    }
    let mut uploaded = meta.clone();
    let thanos = uploaded.thanos.as_mut().expect("checked above");
    thanos.version = 1;
    thanos.upload_time = Some(time::format_rfc3339(now_ms));
    thanos.segment_files =
        files.iter().filter_map(|f| f.rel_path.strip_prefix("chunks/")).map(str::to_owned).collect();
    thanos.files = describe(files, options.hash).await?;
    bucket.put(&meta_key, uploaded.to_json().into()).await?;
    Ok(uploaded)
}

/// True when the block is in the bucket: meta.json parses, and every file that it lists has its size. What is about
/// to delete its local copy asks this, not its own memory of an upload.
pub async fn is_uploaded(bucket: &Bucket, block: BlockId) -> Result<bool> {
    let key = layout::key(block, layout::META);
    let json = match bucket.get(&key).await {
        Ok(json) => json,
        Err(e) if e.is_not_found() => return Ok(false),
        Err(e) => return Err(e.into()),
    };
    let Ok(meta) = BlockMeta::parse(&key, &json) else { return Ok(false) };
    let there = sizes(bucket, block).await?;
    let files = meta.thanos.map(|t| t.files).unwrap_or_default();
    Ok(there.contains_key(layout::INDEX)
        && files.iter().all(|f| {
            there.get(&f.rel_path).is_some_and(|size| f.rel_path == layout::META || *size == f.size_bytes)
        }))
}

async fn sizes(bucket: &Bucket, block: BlockId) -> Result<BTreeMap<String, u64>> {
    let infos: Vec<_> = bucket.list(&block.to_string()).try_collect().await?;
    let relative = |key: String| layout::parse(&key).map(|(_, file)| file.to_owned());
    Ok(infos.into_iter().filter_map(|i| Some((relative(i.key)?, i.size))).collect())
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
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(e) => Err(Error::Io {
            op: "run",
            path: PathBuf::from("a blocking task"),
            source: std::io::Error::other(e),
        }),
    }
}
