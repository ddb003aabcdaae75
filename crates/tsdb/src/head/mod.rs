//! The head: a tenant's newest samples, in memory and writable.
//!
//! ```text
//! WriteBatch ── fingerprints ── by shard ──┬─ shard (lock): table → series (2 cache lines) → fragments, segments
//!                                          └─ new series: index (lock): symbols, postings
//! ```
//!
//! A series is known by the keyed 128-bit fingerprint of its canonical label section ([`section`]), by a slot in its
//! shard ([`shard`]), and to the index and to readers by the two together. Locks are taken in the order shard, index.
//! Readers resolve matchers under the index lock, then visit shard by shard; a series that went meanwhile is skipped.
//!
//! Complete chunks leave memory for files as segments fill up ([`spill`]); labels, postings and growing chunks stay.
//!
//! Samples older than `min_valid` lie in blocks: the head takes them only out of order.

mod append;
mod cut;
mod exemplars;
mod fragments;
mod gather;
mod growing;
mod histogram;
mod index;
mod known;
mod lazy_shard;
mod metadata;
mod ooo;
mod outcome;
mod read;
mod section;
mod segments;
mod select;
mod series;
mod shard;
mod spill;
mod stats;
mod symbols;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

pub(crate) use append::Scratch;
pub(crate) use cut::CutPlan;
pub use exemplars::ExemplarStats;
pub(crate) use growing::Growing;
pub(crate) use lazy_shard::LazyShard;
pub(crate) use ooo::{LateFloat, LateHistogram, OutOfOrder, encode as encode_late};
pub use outcome::{REJECTIONS_LISTED_MAX, RejectReason, Rejection, WriteOutcome};
pub(crate) use section::{Fingerprint, KEY_BYTES, Key};
pub(crate) use segments::{ChunkAt, Segment, Segments};
pub use select::{HeadSelect, HeadSeries};
pub(crate) use shard::{CutBound, CutCounts, Refusal, Shard, Slot, Taken};
pub(crate) use spill::Spill;
pub use spill::SpillStats;
pub use stats::{HeadStats, NameValue};

use crate::db::{DbOptions, TenantOptions};
use chronolith_model::{TenantId, TimeRange};
use exemplars::ExemplarRing;
use index::HeadIndex;
use known::Known;
use metadata::MetadataTable;

/// A tenant's newest samples.
pub struct Head {
    tenant: TenantId,
    /// The tenant's number in the log.
    pub(crate) number: u32,
    pub(crate) options: Arc<DbOptions>,
    /// The tenant's own; they may change.
    own: RwLock<TenantOptions>,
    key: Key,
    pub(crate) shards: Box<[Mutex<LazyShard>]>,
    pub(crate) index: RwLock<HeadIndex>,
    /// Other encodings of known series.
    aliases: RwLock<HashMap<(u64, u64), Fingerprint>>,
    has_aliases: AtomicBool,
    /// Series by what their decoder calls them.
    known: RwLock<Known>,
    pub(crate) series_count: AtomicUsize,
    pub(crate) min_t: AtomicI64,
    pub(crate) max_t: AtomicI64,
    /// Older samples lie in blocks.
    pub(crate) min_valid: AtomicI64,
    /// When samples came last, by the clock.
    pub(crate) last_write_ms: AtomicI64,
    /// The tenant has been forgotten: no write may begin here. Changed while the gate is held alone.
    pub(crate) is_forgotten: AtomicBool,
    /// Locked after a shard, as the index.
    pub(crate) exemplars: Mutex<ExemplarRing>,
    pub(crate) metadata: Mutex<MetadataTable>,
    /// Held shared from the first sample of a request until its records are in the log. Held alone for a moment, it
    /// says that every sample in memory is in the log and that no record is on its way.
    pub(crate) gate: RwLock<()>,
    /// Where complete chunks go.
    spill: Arc<Spill>,
}

impl Head {
    pub(crate) fn new(
        tenant: TenantId,
        number: u32,
        options: Arc<DbOptions>,
        key: Key,
        shards: usize,
        spill: Arc<Spill>,
    ) -> Self {
        assert!(shards.is_power_of_two() && shards <= 256, "shards are checked when the directory is opened");
        // Symbols are hashed with a key too; any part of the secret will do.
        let seed = u64::from_le_bytes(*key.0.last_chunk().expect("the key is longer than a seed"));
        let own = options.tenant(&tenant);
        let exemplars = ExemplarRing::new(options.exemplars_max, own.out_of_order_window_ms);
        let now = (options.clock)();
        Head {
            tenant,
            number,
            options,
            own: RwLock::new(own),
            key,
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            index: RwLock::new(HeadIndex::new(seed)),
            aliases: RwLock::new(HashMap::new()),
            has_aliases: AtomicBool::new(false),
            known: RwLock::default(),
            series_count: AtomicUsize::new(0),
            min_t: AtomicI64::new(i64::MAX),
            max_t: AtomicI64::new(i64::MIN),
            min_valid: AtomicI64::new(i64::MIN),
            last_write_ms: AtomicI64::new(now),
            is_forgotten: AtomicBool::new(false),
            exemplars: Mutex::new(exemplars),
            metadata: Mutex::default(),
            gate: RwLock::new(()),
            spill,
        }
    }

    /// Whose samples these are.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// What holds for this tenant now.
    pub fn tenant_options(&self) -> TenantOptions {
        *self.own.read()
    }

    /// From now on these hold. Series beyond a smaller bound stay, and go when they are cut.
    pub(crate) fn set_tenant_options(&self, own: TenantOptions) {
        *self.own.write() = own;
        self.exemplars.lock().set_window(own.out_of_order_window_ms);
    }

    /// Oldest and newest sample; `None` when there is none.
    pub fn time_range(&self) -> Option<TimeRange> {
        let range = TimeRange::new(self.min_t.load(Ordering::Relaxed), self.max_t.load(Ordering::Relaxed));
        (!range.is_empty()).then_some(range)
    }

    /// Samples before this time lie in blocks; the head takes them only out of order.
    pub fn min_valid_time(&self) -> i64 {
        self.min_valid.load(Ordering::Relaxed)
    }

    /// Number of series.
    pub fn series_count(&self) -> usize {
        self.series_count.load(Ordering::Relaxed)
    }

    /// Moves the shard's full segments from memory to disk. To be called without a lock by whoever has filled one: a write into
    /// the page cache, for which nobody else waits.
    pub(crate) fn spill(&self, shard: usize) {
        /// Segments written at once, so that a request that meets a backlog is not held up for long: 4 MiB.
        const SEGMENTS_MAX: usize = 16;
        if !self.spill.is_due() {
            return;
        }
        let full = self.shards[shard].lock().segments.take_unwritten(SEGMENTS_MAX);
        let mut fails = false;
        for (number, bytes) in full {
            let written = if fails { None } else { self.spill.write(&bytes) };
            fails = written.is_none();
            let freed = self.shards[shard].lock().segments.put_written(number, &bytes, written);
            drop(freed);
        }
    }

    #[inline]
    pub(crate) fn shard_of(&self, fp: Fingerprint) -> usize {
        fp.high as usize & (self.shards.len() - 1)
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// A series' number in the whole head.
    pub(crate) fn series_ref(&self, shard: usize, slot: Slot) -> u32 {
        let bits = self.shards.len().trailing_zeros();
        assert!(slot <= u32::MAX >> bits, "a head has at most four billion series");
        slot << bits | shard as u32
    }

    /// Shard and slot of a series.
    pub(crate) fn place(&self, series: u32) -> (usize, Slot) {
        let bits = self.shards.len().trailing_zeros();
        ((series & ((1 << bits) - 1)) as usize, series >> bits)
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Head")
            .field("tenant", &self.tenant)
            .field("series", &self.series_count())
            .finish_non_exhaustive()
    }
}
