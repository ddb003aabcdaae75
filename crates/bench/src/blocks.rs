//! A bucket full of blocks as years of tenants leave behind: one real block, under other names, times and labels.

use anyhow::{Context, Result};
use bytes::Bytes;
use chronolith_model::{BlockId, Labels};
use chronolith_testkit::{S3Server, series};
use chronolith_tsdb::block::{BlockMeta, BlockParts, BlockWriter, BlockWriterOptions, ThanosMeta};

const DAY_MS: i64 = 86_400_000;
/// The longest block that a compactor makes: there is nothing left to do with it.
const SPAN_MS: i64 = 14 * DAY_MS;
/// Stretches of a tenant: a year.
const SPANS: usize = 26;
/// Raw, 5 m, 1 h: what a compactor leaves of a stretch.
const RESOLUTIONS: [i64; 3] = [0, 300_000, 3_600_000];

/// What is put into the bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks {
    /// Number of blocks.
    pub(crate) count: usize,
    /// Series of each.
    pub(crate) series: usize,
    /// Blocks of two hours that a meta.json says that a block was made of.
    pub(crate) sources: usize,
}

impl Blocks {
    /// Puts them into the bucket, the newest a week old at `now_ms`.
    pub(crate) fn put(&self, server: &S3Server, now_ms: i64) -> Result<()> {
        let (meta, index, chunks) = self.block()?;
        let newest = (now_ms - 7 * DAY_MS) / SPAN_MS * SPAN_MS;
        for n in 0..self.count {
            let (tenant, span) = (n / (SPANS * RESOLUTIONS.len()), n / RESOLUTIONS.len() % SPANS);
            let resolution = RESOLUTIONS[n % RESOLUTIONS.len()];
            let max_time = newest - span as i64 * SPAN_MS;
            let id = id_at(max_time + 3_600_000, n as u128);
            let mut meta = meta.clone();
            (meta.ulid, meta.min_time, meta.max_time) = (id, max_time - SPAN_MS, max_time);
            meta.compaction.level = 4;
            // The same for all resolutions of a stretch: so a compactor knows that they are there.
            let stretch = (n / RESOLUTIONS.len()) as u128;
            let step = SPAN_MS / self.sources.max(1) as i64;
            meta.compaction.sources = (0..self.sources as i64)
                .map(|i| id_at(meta.min_time + i * step, random(stretch << 32 | i as u128)))
                .collect();
            let thanos = meta.thanos.as_mut().context("it was written with its labels")?;
            thanos.labels.insert("tenant_id".to_owned(), format!("tenant-{tenant}"));
            thanos.downsample.resolution = resolution;
            server.put_object(&format!("{id}/chunks/000001"), chunks.clone());
            server.put_object(&format!("{id}/index"), index.clone());
            server.put_object(&format!("{id}/meta.json"), meta.to_json());
        }
        Ok(())
    }

    /// Meta, index and chunks of the block behind all of them.
    fn block(&self) -> Result<(BlockMeta, Bytes, Bytes)> {
        let dir = tempfile::tempdir()?;
        let id = id_at(0, 1);
        let options = BlockWriterOptions { sync: false, ..BlockWriterOptions::default() };
        let mut writer = BlockWriter::create(dir.path(), id, options)?;
        for (labels, chunks) in series::counters("requests_total", self.series, 0, 60_000, 120) {
            writer.add_series(&labels, &chunks)?;
        }
        let labels = Labels::from_pairs([("replica", "a"), ("tenant_id", "")])?;
        let thanos = Some(ThanosMeta::new(&labels, "compactor"));
        let meta = writer.finish(BlockParts { thanos, ..BlockParts::default() })?.context("it has series")?;
        let read = |file: &str| std::fs::read(dir.path().join(id.to_string()).join(file));
        Ok((meta, read("index")?.into(), read("chunks/000001")?.into()))
    }
}

fn id_at(ms: i64, low: u128) -> BlockId {
    BlockId((u128::from(ms.unsigned_abs()) << 80 | low & ((1 << 80) - 1)).into())
}

/// Spread bits, as names of real blocks have them: they compress badly.
fn random(seed: u128) -> u128 {
    let mix = |mut z: u64| {
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    let (a, b) = (mix(seed as u64 + 1), mix((seed >> 64) as u64 ^ mix(seed as u64)));
    u128::from(a) << 64 | u128::from(b)
}
