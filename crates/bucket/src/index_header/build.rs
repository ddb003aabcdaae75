//! Making an index header: both ends of the index at once, then what is missing of the symbols and of the postings offset
//! table; never the whole of an index that is not small. Most blocks take two requests and one round trip.

use std::io::Write;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use chronolith_model::BlockId;
use chronolith_objstore::Bucket;
use chronolith_tsdb::crc32c;
use chronolith_tsdb::index::{HEADER_BYTES, MAGIC as INDEX_MAGIC, Toc};
use futures::{StreamExt, TryStreamExt};

use super::{HEAD_BYTES, MAGIC, VERSION};
use crate::upload::blocking;
use crate::{Error, Result, layout};

/// First requests: each end of the index. In most blocks of two hours they cover all symbols and the whole postings offset table, and
/// more would not be worth a second round trip saved.
const END_BYTES_FIRST: u64 = 64 << 10;
/// Size of one request of a section, small enough for a request timeout on a slow link.
const PIECE_BYTES: u64 = 4 << 20;
/// Pieces in flight.
const PIECES_CONCURRENT: usize = 4;

/// Makes the header of `block` at `path`. `index_bytes` is the index's size where it is known.
pub(super) async fn build(
    bucket: &Bucket,
    block: BlockId,
    index_bytes: Option<u64>,
    path: &Path,
) -> Result<()> {
    let key = layout::key(block, layout::INDEX);
    let size = match index_bytes {
        Some(size) => size,
        None => bucket.head(&key).await?.size,
    };
    if size < (HEADER_BYTES + Toc::BYTES) as u64 {
        return Err(Error::corrupt(&key, 0, format!("{size} bytes are too few for an index")));
    }
    let (start, tail_start, tail) = ends(bucket, &key, size).await?;
    let toc = Toc::parse(&key, size, &tail)?;
    let (symbols, table) = (toc.symbols..toc.series, toc.postings_offset_table..size);
    if symbols.start < HEADER_BYTES as u64 {
        return Err(Error::corrupt(&key, symbols.start, "symbol table inside the header"));
    }

    let dir = path.parent().unwrap_or(Path::new("."));
    tokio::fs::create_dir_all(dir).await.map_err(Error::io("create", dir))?;
    let tmp = path.with_extension("tmp");
    let file = tokio::fs::File::create(&tmp).await.map_err(Error::io("create", &tmp))?.into_std().await;
    let mut out = Output { file, tmp };

    // The index's own header comes with the symbols, which follow it.
    let version = check_index_header(&key, &start)?;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(&MAGIC.to_be_bytes());
    head.extend_from_slice(&[VERSION, version]);
    head.extend_from_slice(&table.start.to_be_bytes());
    out = out.write(head.into()).await?;
    // `Toc::parse` has ordered the sections; the symbols may still begin behind the first bytes.
    let skip = usize::try_from(symbols.start).unwrap_or(usize::MAX);
    if skip > start.len() {
        return Err(Error::corrupt(&key, symbols.start, "symbol table far behind the header"));
    }
    let known = start.len().min(usize::try_from(symbols.end).unwrap_or(usize::MAX));
    out = out.write(start.slice(skip..known)).await?;
    let mut behind = pieces(bucket, &key, known as u64..symbols.end);
    while let Some(piece) = behind.try_next().await? {
        out = out.write(piece).await?;
    }
    if table.start >= tail_start {
        out = out.write(tail.slice((table.start - tail_start) as usize..)).await?;
    } else {
        let mut before = self::pieces(bucket, &key, table.start..tail_start);
        while let Some(piece) = before.try_next().await? {
            out = out.write(piece).await?;
        }
        out = out.write(tail).await?;
    }
    let mut end = Vec::new();
    end.extend_from_slice(&(HEAD_BYTES as u64).to_be_bytes());
    end.extend_from_slice(&(HEAD_BYTES as u64 + (symbols.end - symbols.start)).to_be_bytes());
    end.extend_from_slice(&crc32c(&end).to_be_bytes());
    out = out.write(end.into()).await?;
    // Not synced: what a power cut leaves fails its checksums and is made again.
    std::fs::rename(&out.tmp, path).map_err(Error::io("rename", &out.tmp))
}

/// The first bytes of an index, where its last ones begin, and these. Both are all of an index that is small.
async fn ends(bucket: &Bucket, key: &str, size: u64) -> Result<(Bytes, u64, Bytes)> {
    if size <= 2 * END_BYTES_FIRST {
        let whole = exactly(bucket, key, 0..size).await?;
        return Ok((whole.clone(), 0, whole));
    }
    let tail_start = size - END_BYTES_FIRST;
    let (start, tail) =
        futures::try_join!(exactly(bucket, key, 0..END_BYTES_FIRST), exactly(bucket, key, tail_start..size))?;
    Ok((start, tail_start, tail))
}

struct Output {
    file: std::fs::File,
    tmp: std::path::PathBuf,
}

impl Output {
    async fn write(mut self, bytes: Bytes) -> Result<Self> {
        blocking(move || {
            self.file.write_all(&bytes).map_err(Error::io("write", &self.tmp))?;
            Ok(self)
        })
        .await
    }
}

fn check_index_header(key: &str, bytes: &[u8]) -> Result<u8> {
    if bytes.len() < HEADER_BYTES || bytes[..4] != INDEX_MAGIC.to_be_bytes() {
        return Err(Error::corrupt(key, 0, "not an index: wrong magic number"));
    }
    match bytes[4] {
        version @ 1..=3 => Ok(version),
        version => {
            let what = format!("index version {version} is unknown, versions 1 to 3 are read");
            Err(chronolith_tsdb::Error::Unsupported { file: key.to_owned(), what }.into())
        }
    }
}

/// The bytes of a range in pieces, in order.
fn pieces<'a>(
    bucket: &'a Bucket,
    key: &'a str,
    range: Range<u64>,
) -> impl futures::Stream<Item = Result<Bytes>> + Unpin + 'a {
    let starts = (range.start..range.end).step_by(PIECE_BYTES as usize);
    let ranges = starts.map(move |start| start..range.end.min(start + PIECE_BYTES));
    let fetches = futures::stream::iter(ranges).map(move |range| exactly(bucket, key, range));
    Box::pin(fetches.buffered(PIECES_CONCURRENT))
}

async fn exactly(bucket: &Bucket, key: &str, range: Range<u64>) -> Result<Bytes> {
    let bytes = bucket.get_range(key, range.clone()).await?;
    if bytes.len() as u64 != range.end - range.start {
        let what = format!("the object ends inside of {range:?}");
        return Err(Error::corrupt(key, range.start + bytes.len() as u64, what));
    }
    Ok(bytes)
}
