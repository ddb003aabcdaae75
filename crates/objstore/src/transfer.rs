//! Files to and from a bucket, in parts of bounded size.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path as FilePath;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use object_store::{ObjectStore, PutMode, PutMultipartOptions, PutPayload};

use crate::{Bucket, BucketError, ErrorKind};

/// Parts of one file in flight; with the part size it bounds an upload's memory.
const PARTS_IN_FLIGHT: usize = 4;

/// S3 takes at most this many parts.
const PARTS_MAX: u64 = 10_000;

/// Bytes of one request of a download: small enough for a request timeout on a slow link.
const DOWNLOAD_BYTES: u64 = 8 << 20;

impl Bucket {
    /// Uploads a file: in one request when small, else in parts. Other readers see the object only when it is
    /// complete; a failed upload leaves nothing visible.
    pub async fn put_file(&self, key: &str, file: &FilePath) -> Result<u64, BucketError> {
        self.measured("upload", async {
            let fail = |e| BucketError::io("upload", key, e);
            let file = tokio::fs::File::open(file).await.map_err(fail)?.into_std().await;
            let size = file.metadata().map_err(fail)?.len();
            if size <= self.inner.part_bytes || !self.inner.multipart {
                let (_, bytes) = read_part(file, size, key).await?;
                let path = self.path("upload", key)?;
                let options = self.put_options(PutMode::Overwrite);
                let put = self.inner.patient.put_opts(&path, PutPayload::from_bytes(bytes), options);
                put.await.map_err(|e| BucketError::from_store("upload", key, e))?;
            } else {
                self.put_parts(key, file, size).await?;
            }
            self.inner.metrics.sent(&self.inner.name, "upload", size);
            Ok(size)
        })
        .await
    }

    async fn put_parts(&self, key: &str, mut file: File, size: u64) -> Result<(), BucketError> {
        let fail = |e| BucketError::from_store("upload", key, e);
        let path = self.path("upload", key)?;
        let options = PutMultipartOptions {
            attributes: self.inner.attributes.clone(),
            ..PutMultipartOptions::default()
        };
        let mut upload = self.inner.patient.put_multipart_opts(&path, options).await.map_err(fail)?;
        let part_bytes = self.inner.part_bytes.max(size.div_ceil(PARTS_MAX));
        let mut in_flight = FuturesUnordered::new();
        let mut left = size;
        let result = async {
            while left > 0 {
                let part;
                (file, part) = read_part(file, left.min(part_bytes), key).await?;
                left -= part.len() as u64;
                if in_flight.len() == PARTS_IN_FLIGHT {
                    in_flight.next().await.transpose().map_err(fail)?;
                }
                in_flight.push(upload.put_part(PutPayload::from_bytes(part)));
            }
            while let Some(done) = in_flight.next().await {
                done.map_err(fail)?;
            }
            upload.complete().await.map_err(fail)
        }
        .await;
        if let Err(err) = result {
            drop(in_flight);
            // Best effort: an upload that is never completed is invisible, it only costs space.
            let _ = upload.abort().await;
            return Err(err);
        }
        Ok(())
    }

    /// Downloads an object into a file by ranges. The file appears whole or not at all.
    pub async fn get_to_file(&self, key: &str, file: &FilePath) -> Result<u64, BucketError> {
        let size = self.head(key).await?.size;
        let fail = |e| BucketError::io("get", key, e);
        let mut name = file.as_os_str().to_owned();
        name.push(".tmp");
        let tmp = std::path::PathBuf::from(name);
        let mut out = tokio::fs::File::create(&tmp).await.map_err(fail)?.into_std().await;
        let mut at = 0;
        while at < size {
            let bytes = self.get_range(key, at..size.min(at + DOWNLOAD_BYTES)).await?;
            at += bytes.len() as u64;
            out = blocking(move || out.write_all(&bytes).map(|()| out)).await.map_err(fail)?;
        }
        let to = file.to_owned();
        blocking(move || out.sync_all().and_then(|()| std::fs::rename(&tmp, &to))).await.map_err(fail)?;
        Ok(size)
    }
}

/// Reads the next `len` bytes; a file that ends before is an error (it shrank under us).
async fn read_part(mut file: File, len: u64, key: &str) -> Result<(File, Bytes), BucketError> {
    let read = blocking(move || {
        let mut buf = vec![0; usize::try_from(len).map_err(std::io::Error::other)?];
        file.read_exact(&mut buf)?;
        Ok((file, Bytes::from(buf)))
    });
    read.await.map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            BucketError::new("upload", key, ErrorKind::Invalid, "the file became shorter while it was read")
        }
        _ => BucketError::io("upload", key, e),
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}
