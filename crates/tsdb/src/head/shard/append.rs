//! What a shard makes of the samples that come.

use chronolith_model::histogram::CounterReset;
use chronolith_model::{SampleValue, WriteHistogram, is_stale_nan};

use super::{Bounds, PAGE, PAGE_SHIFT, Refusal, Shard, Slot, Taken};
use crate::head::growing::{Growing, Grows};
use crate::head::histogram::is_same;
use crate::head::ooo::Insert;
use crate::head::series::{GROWS_BESIDE, HAS_OUT_OF_ORDER};

impl Shard {
    /// Takes a float sample of the series at `slot`.
    #[inline]
    pub(crate) fn append(&mut self, slot: Slot, t: i64, v: f64, bounds: &Bounds) -> Taken {
        let Shard { pages, fragments, segments, .. } = self;
        let series = &mut pages[(slot >> PAGE_SHIFT) as usize][slot as usize % PAGE];
        match series.last() {
            Some((last, _)) if t > last && t >= bounds.min_valid => {}
            None if t >= bounds.min_valid && series.flags & GROWS_BESIDE == 0 => {}
            last => return self.append_late(slot, (t, v, 0), last, bounds),
        }
        if series.append(t, v, bounds.range, fragments, segments) {
            self.min_t = self.min_t.min(t);
        }
        self.max_t = self.max_t.max(t);
        Taken::InOrder
    }

    /// As [`Shard::append`], of a sample with a start timestamp.
    pub(crate) fn append_started(
        &mut self,
        slot: Slot,
        t: i64,
        v: f64,
        start_ts: i64,
        bounds: &Bounds,
    ) -> Taken {
        let series = self.series(slot);
        let newest = self.growing_range(slot, series).is_none_or(|(_, last)| t > last);
        if newest && t >= bounds.min_valid {
            self.push_float(slot, t, v, start_ts, bounds.range);
            return Taken::InOrder;
        }
        let last = series.last();
        self.append_late(slot, (t, v, start_ts), last, bounds)
    }

    #[cold]
    fn append_late(
        &mut self,
        slot: Slot,
        (t, v, start_ts): (i64, f64, i64),
        last: Option<(i64, f64)>,
        bounds: &Bounds,
    ) -> Taken {
        if let Some((last_t, last_v)) = last
            && last_t == t
        {
            let same = last_v.to_bits() == v.to_bits();
            return if same { Taken::Duplicate } else { Taken::Refused(Refusal::DuplicateTimestamp) };
        }
        if self.series(slot).flags & GROWS_BESIDE != 0
            && let Some(taken) = self.append_beside(slot, (t, v, start_ts), bounds)
        {
            return taken;
        }
        if t >= bounds.out_of_order_min {
            return self.insert_out_of_order(slot, t, v, start_ts);
        }
        Taken::Refused(bounds.refusal(t))
    }

    /// Takes a float sample of a series whose chunk grows beside it; `None` when it is a late one. A stale marker becomes
    /// one of the histograms, as in Prometheus.
    fn append_beside(
        &mut self,
        slot: Slot,
        (t, v, start_ts): (i64, f64, i64),
        bounds: &Bounds,
    ) -> Option<Taken> {
        let growing = self.growing.get(&slot)?;
        let last_t = growing.last_t();
        if t == last_t {
            let same = match (stale_of(growing), growing.last()) {
                (Some(stale), Some(last)) => is_stale_nan(v) && is_same(&last, &stale),
                (None, Some(SampleValue::Float(last))) => last.to_bits() == v.to_bits(),
                _ => false,
            };
            return Some(if same { Taken::Duplicate } else { Taken::Refused(Refusal::DuplicateTimestamp) });
        }
        if t < last_t || t < bounds.min_valid {
            return None;
        }
        self.push_float(slot, t, v, start_ts, bounds.range);
        Some(Taken::InOrder)
    }

    /// Appends a float that is newer than all, into whichever chunk it belongs.
    pub(super) fn push_float(&mut self, slot: Slot, t: i64, v: f64, start_ts: i64, range: i64) {
        self.max_t = self.max_t.max(t);
        if let Some(growing) = self.growing.get_mut(&slot) {
            if growing.append_float(t, start_ts, v) {
                return;
            }
            if let Some(stale) = stale_of(growing).filter(|_| is_stale_nan(v)) {
                self.push_histogram(slot, t, start_ts, &stale, range);
                return;
            }
            self.complete_beside(slot);
        }
        self.min_t = self.min_t.min(t);
        let Shard { pages, fragments, segments, growing, .. } = self;
        let series = &mut pages[(slot >> PAGE_SHIFT) as usize][slot as usize % PAGE];
        let started = if start_ts == 0 { None } else { Growing::first_started(t, start_ts, v, range).ok() };
        match started {
            Some(first) => {
                series.complete(fragments, segments);
                growing.insert(slot, Box::new(first));
                series.flags |= GROWS_BESIDE;
            }
            None => {
                series.append(t, v, range, fragments, segments);
            }
        }
    }

    /// Takes a histogram of the series at `slot`. It has been checked.
    pub(crate) fn append_histogram(
        &mut self,
        slot: Slot,
        t: i64,
        start_ts: i64,
        h: &WriteHistogram,
        bounds: &Bounds,
    ) -> Taken {
        match self.growing_range(slot, self.series(slot)) {
            Some((_, last)) if t == last => {
                let growing = self.growing.get(&slot);
                let same = growing.and_then(|g| g.last()).is_some_and(|last| is_same(&last, h));
                return if same { Taken::Duplicate } else { Taken::Refused(Refusal::DuplicateTimestamp) };
            }
            Some((_, last)) if t < last => {}
            _ if t < bounds.min_valid => {}
            _ => {
                return match self.push_histogram(slot, t, start_ts, h, bounds.range) {
                    true => Taken::InOrder,
                    false => Taken::Refused(Refusal::InvalidHistogram),
                };
            }
        }
        if t >= bounds.out_of_order_min {
            return self.insert_histogram_out_of_order(slot, t, h.clone(), start_ts);
        }
        Taken::Refused(bounds.refusal(t))
    }

    /// Appends a histogram that is newer than all. False when it cannot be encoded.
    pub(super) fn push_histogram(
        &mut self,
        slot: Slot,
        t: i64,
        start_ts: i64,
        h: &WriteHistogram,
        range: i64,
    ) -> bool {
        if self.growing.get(&slot).is_some_and(|g| g.kind() == Grows::Floats) {
            self.complete_beside(slot);
        }
        let Shard { pages, fragments, segments, growing, .. } = self;
        let series = &mut pages[(slot >> PAGE_SHIFT) as usize][slot as usize % PAGE];
        match growing.get_mut(&slot) {
            Some(growing) => match growing.append(t, start_ts, h, range) {
                Ok(None) => {}
                Ok(Some(chunk)) => series.store(&chunk, segments),
                Err(_) => return false,
            },
            None => {
                let Ok(first) = Growing::first(t, start_ts, h, range) else { return false };
                series.complete(fragments, segments);
                growing.insert(slot, Box::new(first));
                series.flags |= GROWS_BESIDE;
            }
        }
        self.min_t = self.min_t.min(t);
        self.max_t = self.max_t.max(t);
        true
    }

    /// Moves the growing chunk beside the series into the segments.
    pub(super) fn complete_beside(&mut self, slot: Slot) {
        if let Some(growing) = self.growing.remove(&slot) {
            let Shard { pages, segments, .. } = self;
            let series = &mut pages[(slot >> PAGE_SHIFT) as usize][slot as usize % PAGE];
            series.store(&growing.chunk(), segments);
            series.flags &= !GROWS_BESIDE;
        }
    }

    pub(crate) fn insert_histogram_out_of_order(
        &mut self,
        slot: Slot,
        t: i64,
        h: WriteHistogram,
        start_ts: i64,
    ) -> Taken {
        let insert = self.ooo.entry(slot).or_default().insert_histogram(t, h, start_ts);
        self.inserted(slot, t, insert)
    }

    pub(crate) fn insert_out_of_order(&mut self, slot: Slot, t: i64, v: f64, start_ts: i64) -> Taken {
        let insert = self.ooo.entry(slot).or_default().insert(t, v, start_ts);
        self.inserted(slot, t, insert)
    }

    fn inserted(&mut self, slot: Slot, t: i64, insert: Insert) -> Taken {
        match insert {
            Insert::Taken => {
                self.series_mut(slot).flags |= HAS_OUT_OF_ORDER;
                self.late_samples += 1;
                self.min_t = self.min_t.min(t);
                self.max_t = self.max_t.max(t);
                Taken::OutOfOrder
            }
            Insert::Duplicate => Taken::Duplicate,
            Insert::Conflict => Taken::Refused(Refusal::DuplicateTimestamp),
        }
    }
}

/// What a stale marker becomes among the histograms of a chunk; `None` in a chunk of floats.
pub(super) fn stale_of(growing: &Growing) -> Option<WriteHistogram> {
    match growing.kind() {
        Grows::Histograms => Some(crate::wal::stale(false, CounterReset::Unknown)),
        Grows::FloatHistograms => Some(crate::wal::stale(true, CounterReset::Unknown)),
        Grows::Floats => None,
    }
}
