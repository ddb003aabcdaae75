//! Which series a request means.

use std::sync::atomic::Ordering;

use super::super::known::Lookup;
use super::super::section::{Fingerprint, canonicalise};
use super::Request;
use super::scratch::{NewSeries, Scratch};

impl Request<'_> {
    /// Fingerprints of the series' sections, or of what is known to be another encoding of them.
    pub(super) fn fingerprint_sections(&self, s: &mut Scratch) {
        let head = self.head;
        s.fingerprints.clear();
        s.fingerprints.extend(self.batch.iter().map(|series| head.key.fingerprint(series.labels)));
        if head.has_aliases.load(Ordering::Acquire) {
            let aliases = head.aliases.read();
            for fp in &mut s.fingerprints {
                if let Some(canonical) = aliases.get(&(fp.low, fp.high)) {
                    *fp = *canonical;
                }
            }
        }
    }

    /// Fingerprints by the decoder's keys; where a key is new, of the canonical section.
    pub(super) fn fingerprint_keys(&self, keys: &[u128], s: &mut Scratch) {
        let Scratch { fingerprints, rendered, unknown, learnt, series: NewSeries { canonical, .. }, .. } = s;
        let head = self.head;
        fingerprints.clear();
        let known = head.known.read();
        for (i, key) in keys.iter().enumerate() {
            fingerprints.push(match known.find(*key) {
                Lookup::Found(fp) => fp,
                Lookup::Old(fp) => {
                    learnt.push((*key, fp));
                    fp
                }
                Lookup::Unknown => {
                    unknown.push(i as u32);
                    Fingerprint::default()
                }
            });
        }
        drop(known);
        for i in unknown.drain(..).map(|i| i as usize) {
            let section = self.batch.section(i, rendered);
            canonical.clear();
            fingerprints[i] = match canonicalise(section, &self.limits, canonical) {
                Ok(()) => {
                    let fp = head.key.fingerprint(canonical);
                    learnt.push((keys[i], fp));
                    fp
                }
                // Found nowhere, since only canonical sections are entered; then it is refused with its reason.
                Err(_) => head.key.fingerprint(section),
            };
        }
        if !learnt.is_empty() {
            head.known.write().enter(learnt.drain(..), head.series_count());
        }
    }
}
