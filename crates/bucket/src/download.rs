//! Downloading a whole block.

use std::collections::BTreeMap;
use std::path::Path;

use chronolith_objstore::Bucket;
use chronolith_tsdb::block::BlockMeta;
use futures::{FutureExt, StreamExt, TryStreamExt};

use crate::{Error, Result, layout};

/// Downloads index, segments and meta of a block into the directory `dir`, which is made, `concurrency` files at a time, and
/// gives the bytes. meta.json comes last, so a directory with it is complete.
///
/// What the block's meta says of its files must be what is there: a missing file, or one of another size, is
/// [`crate::ErrorKind::Corrupt`] where the meta is still there, and [`crate::ErrorKind::NotFound`] where the whole block went. Listings
/// may be stale, so what one lacks is asked for by its name before the block is called damaged.
pub async fn download_block(
    bucket: &Bucket,
    meta: &BlockMeta,
    dir: &Path,
    concurrency: usize,
) -> Result<u64> {
    let block = meta.ulid;
    let objects: Vec<_> = bucket.list(&block.to_string()).try_collect().await?;
    let mut there: BTreeMap<String, u64> =
        objects.into_iter().filter_map(|o| Some((layout::parse(&o.key)?.1.to_owned(), o.size))).collect();
    if !there.contains_key(layout::META) {
        // Tells what an object that is not there tells.
        bucket.head(&layout::key(block, layout::META)).await?;
    }
    let promised = meta.thanos.iter().flat_map(|t| &t.files).filter(|f| f.rel_path != layout::META);
    let promised: Vec<(&str, Option<u64>)> =
        promised.map(|f| (f.rel_path.as_str(), Some(f.size_bytes))).chain([(layout::INDEX, None)]).collect();
    for (file, size) in &promised {
        if there.get(*file).is_none_or(|listed| size.is_some_and(|size| size != *listed)) {
            match bucket.head(&layout::key(block, file)).await {
                Ok(info) => drop(there.insert((*file).to_owned(), info.size)),
                Err(e) if e.is_not_found() => drop(there.remove(*file)),
                Err(e) => return Err(e.into()),
            }
        }
    }
    let wanted: BTreeMap<&str, u64> = there
        .iter()
        .filter(|(file, _)| *file == layout::INDEX || file.starts_with("chunks/"))
        .map(|(file, size)| (file.as_str(), *size))
        .collect();
    if !wanted.contains_key(layout::INDEX) {
        let key = layout::key(block, layout::INDEX);
        return Err(Error::corrupt(&key, 0, "the block has no index"));
    }
    for (file, size) in promised {
        let Some(size) = size else { continue };
        match wanted.get(file) {
            Some(found) if *found == size => {}
            found => {
                let what = format!("{found:?} bytes, but meta.json says {size}");
                return Err(Error::corrupt(&layout::key(block, file), 0, what));
            }
        }
    }
    let chunks = dir.join(layout::CHUNKS);
    tokio::fs::create_dir_all(&chunks).await.map_err(Error::io("create", &chunks))?;
    let files: Vec<(String, u64)> = wanted.iter().map(|(file, size)| ((*file).to_owned(), *size)).collect();
    let downloads = futures::stream::iter(files).map(|(file, size)| {
        async move {
            let key = layout::key(block, &file);
            let got = bucket.get_to_file(&key, &dir.join(&file)).await?;
            if got != size {
                let what = format!("{got} bytes downloaded of an object of {size}");
                return Err(Error::corrupt(&key, 0, what));
            }
            Ok(got)
        }
        .boxed()
    });
    let bytes: u64 = downloads
        .buffer_unordered(concurrency.max(1))
        .try_fold(0, |sum, n| async move { Ok(sum + n) })
        .await?;
    let path = dir.join(layout::META);
    tokio::fs::write(&path, meta.to_json()).await.map_err(Error::io("write", &path))?;
    Ok(bytes)
}
