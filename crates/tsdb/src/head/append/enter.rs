//! Series that the head does not have yet, and other spellings of those that it has.

use std::sync::atomic::Ordering;

use super::super::Head;
use super::super::outcome::RejectReason;
use super::super::section::{Fingerprint, canonicalise};
use super::super::shard::{Shard, Slot};
use super::Request;
use super::scratch::{NewSeries, Scratch};
use crate::wal::put_series_entry;

impl Request<'_> {
    /// A series that the shard does not have where it was sought. `Err(None)` when it was put aside as another spelling.
    #[cold]
    pub(super) fn enter(
        &self,
        shard: &mut Shard,
        index: usize,
        i: usize,
        s: &mut Scratch,
    ) -> Result<Slot, Option<RejectReason>> {
        let sought = s.sought[i];
        // The series may be new and stand twice in the request.
        if let Some(slot) = shard.find(sought.fp) {
            return Ok(slot);
        }
        if let Some(section) = sought.section() {
            let section = &s.sections[s.made[section].clone()];
            return self.insert(shard, sought.fp, section, &mut s.series).map_err(Some);
        }
        let section = self.batch.section(i, &mut s.rendered);
        s.series.canonical.clear();
        canonicalise(section, &self.limits, &mut s.series.canonical).map_err(Some)?;
        // Not where a key was known, but its place has gone: then the fingerprint is only a part of one.
        if s.series.canonical == section && self.batch.keys().is_none() {
            return self.insert(shard, sought.fp, section, &mut s.series).map_err(Some);
        }
        let canonical = self.head.key.fingerprint(&s.series.canonical);
        if self.batch.keys().is_none() {
            self.head.remember_alias(self.head.key.fingerprint(section), canonical);
        }
        if self.head.shard_of(canonical) == index
            && let Some(slot) = shard.find(canonical)
        {
            return Ok(slot);
        }
        let start = s.sections.len();
        s.sections.extend_from_slice(&s.series.canonical);
        s.respelled.push((i as u32, canonical, start..s.sections.len()));
        Err(None)
    }

    /// Enters a new series with this canonical section.
    pub(super) fn insert(
        &self,
        shard: &mut Shard,
        fp: Fingerprint,
        section: &[u8],
        new: &mut NewSeries,
    ) -> Result<Slot, RejectReason> {
        let max = self.limits.series_max;
        if max > 0 && self.head.series_count.load(Ordering::Relaxed) >= max {
            return Err(RejectReason::SeriesLimit(max));
        }
        let index = self.head.shard_of(fp);
        self.head.index.write().symbols.intern_section(section, &mut new.one);
        let slot = shard.insert(fp, &new.one);
        self.head.series_count.fetch_add(1, Ordering::Relaxed);
        let start = new.symbols.len();
        new.symbols.extend_from_slice(&new.one);
        new.entered.push((self.head.series_ref(index, slot), start..new.symbols.len()));
        put_series_entry(&mut new.list, slot, section);
        new.count += 1;
        Ok(slot)
    }
}

impl Head {
    /// Enters the request's new series in the index, all at once and in the order of their references: entered shard by
    /// shard, each would move the ends of the long lists that the one before has just moved.
    ///
    /// The caller holds the gate, so a cut that removes one of them meanwhile takes it out of the index afterwards.
    pub(super) fn index_entered(&self, new: &mut NewSeries) {
        if new.entered.is_empty() {
            return;
        }
        new.entered.sort_unstable_by_key(|(series, _)| *series);
        let mut index = self.index.write();
        for (series, symbols) in new.entered.drain(..) {
            for (name, value) in &new.symbols[symbols] {
                index.insert(*name, *value, series);
            }
        }
        new.symbols.clear();
    }

    /// Enters a series that the log names under its slot. The index follows with [`Head::finish_replay`].
    pub(crate) fn replay_series(
        &self,
        shard: &mut Shard,
        slot: Slot,
        fp: Fingerprint,
        section: &[u8],
        symbols: &mut Vec<(u32, u32)>,
    ) {
        self.index.write().symbols.intern_section(section, symbols);
        shard.insert_at(slot, fp, symbols);
    }

    /// Keeps that `spelled` is another encoding of `canonical`.
    fn remember_alias(&self, spelled: Fingerprint, canonical: Fingerprint) {
        /// An alias costs 40 bytes. Beyond this the cache starts over: a sender that never spells a series twice the
        /// same way gains nothing from it.
        const ALIASES_MAX: usize = 1 << 18;
        let mut aliases = self.aliases.write();
        if aliases.len() >= ALIASES_MAX {
            aliases.clear();
        }
        aliases.insert((spelled.low, spelled.high), canonical);
        self.has_aliases.store(true, Ordering::Release);
    }
}
