//! Which series a request means.

use std::sync::atomic::Ordering;

use super::super::known::{Lookup, Place};
use super::super::section::{Fingerprint, canonicalise};
use super::super::shard::{Shard, Slot};
use super::Request;
use super::scratch::{NewSeries, Scratch};

/// No slot, no section.
const NONE: u32 = u32::MAX;

/// A series of the request, as far as it is known before its shard is locked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sought {
    /// With a slot, that of its [`Place`].
    pub(super) fp: Fingerprint,
    slot: Slot,
    /// Which of the scratch's canonical sections is its own.
    section: u32,
}

impl Sought {
    /// A series that only its fingerprint is known of.
    pub(super) fn by(fp: Fingerprint) -> Self {
        Sought { fp, slot: NONE, section: NONE }
    }

    fn at(place: Place) -> Self {
        Sought { fp: place.fingerprint(), slot: place.slot(), section: NONE }
    }

    /// The series' slot, if the shard has it. Where a known place holds another series by now, it has to be sought anew.
    #[inline]
    pub(super) fn find(&self, shard: &Shard) -> Option<Slot> {
        match self.slot {
            NONE => shard.find(self.fp),
            slot => shard.is_at(slot, |fp| Place::new(fp, slot).fingerprint() == self.fp).then_some(slot),
        }
    }

    /// True unless its place was known.
    #[inline]
    pub(super) fn is_new_to_us(&self) -> bool {
        self.slot == NONE
    }

    /// The number of its canonical section, where one was made.
    pub(super) fn section(&self) -> Option<usize> {
        (self.section != NONE).then_some(self.section as usize)
    }
}

impl Request<'_> {
    /// Fingerprints of the series' sections, or of what is known to be another encoding of them.
    pub(super) fn seek_sections(&self, s: &mut Scratch) {
        let head = self.head;
        s.sought.clear();
        s.sought.extend(self.batch.iter().map(|series| Sought::by(head.key.fingerprint(series.labels))));
        if head.has_aliases.load(Ordering::Acquire) {
            let aliases = head.aliases.read();
            for sought in &mut s.sought {
                if let Some(canonical) = aliases.get(&(sought.fp.low, sought.fp.high)) {
                    sought.fp = *canonical;
                }
            }
        }
    }

    /// Places by the decoder's keys; where a key is new, the fingerprint of the canonical section, which is kept.
    pub(super) fn seek_keys(&self, keys: &[u128], s: &mut Scratch) {
        let Scratch { sought, rendered, unknown, learnt, sections, made, .. } = s;
        let NewSeries { canonical, .. } = &mut s.series;
        let head = self.head;
        sought.clear();
        head.known.read().find_all(keys, |i, lookup| {
            sought.push(match lookup {
                Lookup::Found(place) => Sought::at(place),
                Lookup::Old(place) => {
                    learnt.push((keys[i], place));
                    Sought::at(place)
                }
                Lookup::Unknown => {
                    unknown.push(i as u32);
                    Sought::by(Fingerprint::default())
                }
            });
        });
        for i in unknown.drain(..).map(|i| i as usize) {
            let section = self.batch.section(i, rendered);
            canonical.clear();
            sought[i] = match canonicalise(section, &self.limits, canonical) {
                Ok(()) => {
                    made.push(sections.len()..sections.len() + canonical.len());
                    sections.extend_from_slice(canonical);
                    Sought { section: made.len() as u32 - 1, ..Sought::by(head.key.fingerprint(canonical)) }
                }
                // Found nowhere, since only canonical sections are entered; then it is refused with its reason.
                Err(_) => Sought::by(head.key.fingerprint(section)),
            };
        }
    }
}
