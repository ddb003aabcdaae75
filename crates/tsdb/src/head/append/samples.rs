//! What becomes of one series' samples, histograms and exemplars once the series is found.

use chronolith_model::{Exemplar, Sample};

use super::super::Head;
use super::super::exemplars::ExemplarTaken;
use super::super::histogram::check as check_histogram;
use super::super::outcome::{Appended, RejectReason};
use super::super::shard::{Shard, Slot, Taken};
use super::Request;
use super::scratch::Groups;
use crate::wal::HistogramGroup;

impl Request<'_> {
    #[inline]
    pub(super) fn append_samples(
        &self,
        shard: &mut Shard,
        slot: Slot,
        i: usize,
        groups: &mut Groups,
        out: &mut Appended,
    ) {
        for (k, Sample { t, v }) in self.batch.samples(i).iter().copied().enumerate() {
            if t > self.max_valid {
                out.reject((self.batch, i), t, 1, RejectReason::OutOfBounds);
                continue;
            }
            let start_ts = if self.start_ts { self.batch.series(i).start_ts_of_sample(k) } else { 0 };
            let taken = match start_ts {
                0 => shard.append(slot, t, v, &self.bounds),
                _ => shard.append_started(slot, t, v, start_ts, &self.bounds),
            };
            let group = match taken {
                Taken::InOrder => Some(&mut groups.in_order),
                Taken::OutOfOrder => {
                    out.out_of_order_written += 1;
                    Some(&mut groups.late)
                }
                Taken::Duplicate => None,
                Taken::Refused(refusal) => {
                    out.reject((self.batch, i), t, 1, refusal.into());
                    continue;
                }
            };
            match group {
                Some(group) if start_ts == 0 => group.push(slot, t, v),
                Some(group) => group.push_started(slot, t, v, start_ts),
                None => {}
            }
            out.written += 1;
        }
        if !self.batch.has_only_floats(i) {
            self.append_others(shard, slot, i, groups, out);
        }
    }

    /// What few series have.
    fn append_others(
        &self,
        shard: &mut Shard,
        slot: Slot,
        i: usize,
        groups: &mut Groups,
        out: &mut Appended,
    ) {
        let series = self.batch.series(i);
        if !series.histograms.is_empty() {
            self.append_histograms(shard, slot, i, &mut groups.histograms, out);
        }
        if !series.exemplars.is_empty() && self.head.options.exemplars_max > 0 {
            for exemplar in series.exemplars {
                match self.head.add_exemplar(shard, slot, exemplar) {
                    ExemplarTaken::Taken => groups.exemplars.push(slot, exemplar),
                    ExemplarTaken::Duplicate => {}
                    refused @ (ExemplarTaken::OutOfOrder | ExemplarTaken::LabelsTooLong) => {
                        out.exemplars_rejected += 1;
                        out.exemplars_out_of_order += usize::from(refused == ExemplarTaken::OutOfOrder);
                        continue;
                    }
                }
                out.exemplars_written += 1;
            }
        }
    }

    fn append_histograms(
        &self,
        shard: &mut Shard,
        slot: Slot,
        i: usize,
        group: &mut HistogramGroup,
        out: &mut Appended,
    ) {
        let series = self.batch.series(i);
        for (k, (t, h)) in series.histograms.iter().enumerate() {
            let t = *t;
            let start_ts = if self.start_ts { series.start_ts_of_histogram(k) } else { 0 };
            if t > self.max_valid {
                out.reject((self.batch, i), t, 1, RejectReason::OutOfBounds);
                continue;
            }
            let reduced = match check_histogram(h, self.limits.histogram_buckets_max) {
                Ok(reduced) => reduced,
                Err(why) => {
                    out.reject((self.batch, i), t, 1, RejectReason::InvalidHistogram(why));
                    continue;
                }
            };
            let h = reduced.as_ref().unwrap_or(h);
            match shard.append_histogram(slot, t, start_ts, h, &self.bounds) {
                taken @ (Taken::InOrder | Taken::OutOfOrder) => {
                    let late = taken == Taken::OutOfOrder;
                    out.out_of_order_written += usize::from(late);
                    group.push(slot, t, start_ts, late, h);
                }
                Taken::Duplicate => {}
                Taken::Refused(refusal) => {
                    out.reject((self.batch, i), t, 1, refusal.into());
                    continue;
                }
            }
            out.written += 1;
            out.histograms_written += 1;
        }
    }
}

impl Head {
    /// Takes an exemplar of the series at `slot`.
    pub(crate) fn add_exemplar(&self, shard: &Shard, slot: Slot, exemplar: &Exemplar) -> ExemplarTaken {
        let series = shard.series(slot);
        let labels = || shard.labels(series, &self.index.read().symbols);
        self.exemplars.lock().add(series.fp, labels, exemplar)
    }
}
