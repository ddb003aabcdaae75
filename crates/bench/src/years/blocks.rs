//! Blocks of a long time as a compactor leaves them, written straight through the library.
//!
//! ```text
//! seeded series ─ samples of a window ─ raw block ─┬─ upload
//!                                                  └─ downsample to 5 m ─ upload ─ downsample to 1 h ─ upload
//! ```
//!
//! Windows are the compactor's: 14 d where the time is full, 2 d, 8 h and 2 h at the end; what is downsampled is what the compactor would have
//! (raw blocks of 40 h, blocks of 5 m of 10 d). The same size and seed give the same bytes. One raw block is written while
//! the one before is downsampled and uploaded.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use anyhow::{Context, Result};
use chronolith_bucket::{BucketIndexWriter, FetchOptions, Fetcher, UploadOptions, upload_block};
use chronolith_chunk::{Chunk, encode_floats};
use chronolith_compact::downsample::downsample;
use chronolith_model::write::decode_labels;
use chronolith_model::{BlockId, Labels, Resolution};
use chronolith_objstore::{Bucket, BucketConfig, BucketMetrics};
use chronolith_tsdb::block::{
    Block, BlockMeta, BlockParts, BlockWriter, BlockWriterOptions, Compaction, ThanosMeta,
};

use crate::workload::{Series, Workload};

const HOUR_MS: i64 = 3_600_000;
/// Lengths of blocks by level of compaction.
const LEVELS_MS: [i64; 4] = [2 * HOUR_MS, 8 * HOUR_MS, 48 * HOUR_MS, 336 * HOUR_MS];
/// Shortest block that is downsampled, and shortest of 5 m that is downsampled again.
const DOWNSAMPLED_MS_MIN: [(Resolution, i64); 2] =
    [(Resolution::Raw, 40 * HOUR_MS), (Resolution::FiveMinutes, 240 * HOUR_MS)];
/// Series whose samples are in memory at a time.
const SERIES_AT_ONCE: usize = 64;

/// What is written.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    pub(super) series: usize,
    pub(super) interval_ms: i64,
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    pub(super) seed: u64,
}

/// A block's time, and how often it was compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    start_ms: i64,
    end_ms: i64,
    level: usize,
}

fn windows(start_ms: i64, end_ms: i64) -> Vec<Window> {
    let (mut at, mut out) = (start_ms, Vec::new());
    while at < end_ms {
        let stop = |level: usize| (at.div_euclid(LEVELS_MS[level]) + 1) * LEVELS_MS[level];
        let level = (0..LEVELS_MS.len()).rev().find(|l| stop(*l) <= end_ms).unwrap_or(0);
        let window = Window { start_ms: at, end_ms: stop(level).min(end_ms), level };
        at = window.end_ms;
        out.push(window);
    }
    out
}

impl Contents {
    /// Writes all blocks into the directory `to`, laid out as a bucket.
    pub(super) fn write(&self, to: &Path) -> Result<()> {
        let bucket = directory(to)?;
        let work = tempfile::Builder::new().prefix("work-").tempdir_in(to.parent().context("a parent")?)?;
        let (raw, made) = sync_channel(1);
        thread::scope(|scope| {
            let finisher = scope.spawn(|| finish(&bucket, work.path(), made));
            let written = (|| {
                let mut series = self.sorted_series()?;
                for window in windows(self.start_ms, self.end_ms) {
                    let meta = self.write_raw(&mut series, window, work.path())?;
                    if raw.send(meta).is_err() {
                        // It has ended with an error, which is the one to show.
                        break;
                    }
                }
                Ok(())
            })();
            drop(raw);
            finisher.join().expect("it returns its error").and(written)
        })
    }

    fn sorted_series(&self) -> Result<Vec<(Labels, Series)>> {
        let workload = Workload::new(self.series, self.start_ms, self.interval_ms, self.seed);
        let mut out = Vec::with_capacity(workload.series.len());
        for series in workload.series {
            let pairs = decode_labels(&series.labels).collect::<Result<Vec<_>, _>>()?;
            out.push((Labels::from_sorted(pairs.into_iter()), series));
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(out)
    }

    fn write_raw(&self, series: &mut [(Labels, Series)], window: Window, parent: &Path) -> Result<BlockMeta> {
        let step_at = |t_ms: i64| ((t_ms - self.start_ms) + self.interval_ms - 1) / self.interval_ms;
        let steps = step_at(window.start_ms) as u64..step_at(window.end_ms) as u64;
        let mut writer =
            BlockWriter::create(parent, self.id(window.end_ms, window.level as u128 * 16), options())?;
        let threads = thread::available_parallelism().map_or(1, usize::from);
        for batch in series.chunks_mut(SERIES_AT_ONCE) {
            let encoded: Vec<Vec<Chunk>> = thread::scope(|scope| {
                let parts: Vec<_> = batch
                    .chunks_mut(SERIES_AT_ONCE.div_ceil(threads))
                    .map(|part| {
                        let steps = steps.clone();
                        scope.spawn(move || {
                            part.iter_mut().map(|(_, s)| self.encode(s, steps.clone())).collect::<Vec<_>>()
                        })
                    })
                    .collect();
                parts.into_iter().flat_map(|p| p.join().expect("encoding does not fail")).collect()
            });
            for ((labels, _), chunks) in batch.iter().zip(encoded) {
                writer.add_series(labels, &chunks)?;
            }
        }
        let first_source = window.start_ms.div_euclid(LEVELS_MS[0]);
        let sources = first_source..(window.end_ms - 1).div_euclid(LEVELS_MS[0]) + 1;
        let compaction = Compaction {
            level: window.level as u32 + 1,
            sources: sources.map(|n| self.id((n + 1) * LEVELS_MS[0], 0)).collect(),
            ..Compaction::default()
        };
        let external = Labels::from_pairs([("source", "years")])?;
        let parts = BlockParts {
            times: Some((window.start_ms, window.end_ms)),
            compaction,
            thanos: Some(ThanosMeta::new(&external, "compactor")),
        };
        writer.finish(parts)?.context("a window has samples")
    }

    fn encode(&self, series: &mut Series, steps: Range<u64>) -> Vec<Chunk> {
        let times: Vec<i64> = steps.clone().map(|s| self.start_ms + s as i64 * self.interval_ms).collect();
        let values: Vec<f64> = steps.map(|s| series.value(s)).collect();
        encode_floats(&times, &values)
    }

    /// The name of the block that was made of what ends at `end_ms`, the `nth` of them.
    fn id(&self, end_ms: i64, nth: u128) -> BlockId {
        BlockId((u128::from(end_ms as u64) << 80 | u128::from(self.seed) << 8 | nth).into())
    }
}

fn options() -> BlockWriterOptions {
    BlockWriterOptions { sync: false, ..BlockWriterOptions::default() }
}

/// A directory as a bucket.
fn directory(dir: &Path) -> Result<Bucket> {
    std::fs::create_dir_all(dir)?;
    let config = BucketConfig::filesystem(dir.to_str().context("a path in UTF-8")?);
    Ok(chronolith_objstore::open(&config, BucketMetrics::default())?)
}

/// Downsamples what is due, uploads everything.
fn finish(bucket: &Bucket, work: &Path, raw: Receiver<BlockMeta>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for mut meta in raw {
        let mut dirs: Vec<(PathBuf, BlockMeta)> = Vec::new();
        loop {
            let dir = work.join(meta.ulid.to_string());
            let due = DOWNSAMPLED_MS_MIN.iter().any(|(resolution, length_ms_min)| {
                meta.resolution() == Some(*resolution) && meta.max_time - meta.min_time >= *length_ms_min
            });
            dirs.push((dir.clone(), meta.clone()));
            if !due {
                break;
            }
            let next = BlockId((u128::from(meta.ulid.0) + 1).into());
            let made = downsample(&Block::open(&dir)?, work, next, options(), || true)?;
            meta = made.context("a raw block with series has aggregates")?;
        }
        for (dir, meta) in dirs {
            let done = upload_block(bucket, &dir, &meta, UploadOptions::default(), meta.max_time);
            runtime.block_on(done).with_context(|| format!("uploading {}", meta.ulid))?;
            std::fs::remove_dir_all(&dir)?;
        }
    }
    Ok(())
}

/// Writes the bucket index as of now, as a compactor does, and gives the metas of all blocks.
pub(super) fn index(dir: &Path, now_ms: i64) -> Result<Vec<BlockMeta>> {
    let bucket = directory(dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let found = Fetcher::new(bucket.clone(), FetchOptions::default()).fetch(now_ms).await?;
        BucketIndexWriter::new(bucket).update(&found, now_ms).await?;
        Ok(found.blocks.values().map(|meta| BlockMeta::clone(meta)).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * HOUR_MS;

    #[test]
    fn windows_are_the_compactors() {
        let week = 100 * LEVELS_MS[3];
        let got = windows(week - 3 * DAY_MS, week + 5 * DAY_MS + 11 * HOUR_MS);
        let lengths: Vec<_> = got.iter().map(|w| ((w.end_ms - w.start_ms) / HOUR_MS, w.level)).collect();
        let (two_days, eight, two) = ((48, 2), (8, 1), (2, 0));
        let tail = [two_days, two_days, eight, eight, eight, eight, two, (1, 0)];
        assert_eq!(lengths[0], (72, 3));
        assert_eq!(lengths[1..], tail);
        assert!(got.windows(2).all(|w| w[0].end_ms == w[1].start_ms));
    }

    #[test]
    fn the_same_seed_gives_the_same_bucket() {
        let contents = Contents {
            series: 30,
            interval_ms: 300_000,
            start_ms: 100 * LEVELS_MS[3] - 13 * DAY_MS,
            end_ms: 100 * LEVELS_MS[3] + 3 * HOUR_MS,
            seed: 3,
        };
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str| {
            let to = dir.path().join(name);
            contents.write(&to).unwrap();
            index(&to, contents.end_ms + DAY_MS).unwrap()
        };
        let (a, b) = (of("a"), of("b"));
        assert_eq!(a, b);
        let resolutions: Vec<_> = a.iter().map(|m| m.resolution().unwrap()).collect();
        // Raw, 5 m and 1 h of the long one, two blocks at the end.
        let raw = Resolution::Raw;
        assert_eq!(resolutions, [raw, Resolution::FiveMinutes, Resolution::OneHour, raw, raw]);
        assert_eq!(a[0].stats.num_samples, 30 * 13 * 288);
        assert_eq!(a[0].compaction.sources.len(), 13 * 12);
        assert!(dir.path().join("a/chronolith/bucket-index.json.gz").is_file());
    }
}
