//! Records: what a frame of the log holds.
//!
//! ```text
//! record:   kind u8 ‖ …
//! tenant    1 ‖ tenant ‖ name                       before the first record that uses the number
//! series    2 ‖ tenant ‖ shard ‖ count ‖ count × (slot ‖ length ‖ canonical label section)
//! samples   3 ‖ tenant ‖ groups                     taken in order
//! samples   4 ‖ tenant ‖ groups                     taken out of order
//! cut       5 ‖ tenant ‖ cut number ‖ time          what is older lies in blocks once this cut is committed
//! histogr.  6 ‖ tenant ‖ groups                     see `histogram`
//! exemplars 7 ‖ tenant ‖ groups                     see `beside`
//! tombst.   8 ‖ tenant ‖ groups                     reserved
//! metadata  9 ‖ tenant ‖ entries                    see `beside`
//! samples  10 ‖ tenant ‖ groups                     as 3, with start timestamps
//! samples  11 ‖ tenant ‖ groups                     as 4, with start timestamps
//! forget   12 ‖ tenant                              nothing is left of it, its number is free
//!
//! group:    shard ‖ count ‖ payload length u32 ‖ payload
//! samples' payload, a column after the other:
//!           slots   count × zigzag difference to the one before
//!           times   first zigzag ‖ 0 (all equal) or 1 ‖ (count − 1) × zigzag difference to the one before
//!           starts  count × zigzag difference to the one before, in kinds 10 and 11; 0 is none
//!           values  count × 4 bits: how many bytes ‖ those bytes of the double, most significant first
//! ```
//!
//! Numbers are LEB128. Values drop their trailing zero bytes, which most counters and gauges have. One request makes
//! one record; groups let a replay hand each shard its part without looking into it.

use bytes::Bytes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RecordKind {
    Tenant = 1,
    Series = 2,
    Samples = 3,
    OutOfOrder = 4,
    Cut = 5,
    Histograms = 6,
    Exemplars = 7,
    Tombstones = 8,
    Metadata = 9,
    StartedSamples = 10,
    StartedOutOfOrder = 11,
    Forget = 12,
}

/// The record is whole but says something impossible: it was written by another version, or there is a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unreadable record of kind {kind}")]
pub(crate) struct RecordError {
    pub(crate) kind: u8,
}

pub(crate) fn put_uvarint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

pub(crate) fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

pub(crate) fn unzigzag(v: u64) -> i64 {
    (v >> 1) as i64 ^ -((v & 1) as i64)
}

#[inline]
pub(crate) fn take_uvarint(rest: &mut &[u8]) -> Option<u64> {
    let (mut v, mut shift) = (0u64, 0);
    while let [byte, tail @ ..] = *rest {
        *rest = tail;
        v |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(v);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
    None
}

pub(crate) fn put_tenant(out: &mut Vec<u8>, tenant: u32, name: &str) {
    out.push(RecordKind::Tenant as u8);
    put_uvarint(out, u64::from(tenant));
    out.extend_from_slice(name.as_bytes());
}

pub(crate) fn put_forget(out: &mut Vec<u8>, tenant: u32) {
    out.push(RecordKind::Forget as u8);
    put_uvarint(out, u64::from(tenant));
}

pub(crate) fn put_cut(out: &mut Vec<u8>, tenant: u32, number: u64, time: i64) {
    out.push(RecordKind::Cut as u8);
    put_uvarint(out, u64::from(tenant));
    put_uvarint(out, number);
    put_uvarint(out, zigzag(time));
}

pub(crate) fn put_series(out: &mut Vec<u8>, tenant: u32, shard: usize, count: usize, list: &[u8]) {
    out.push(RecordKind::Series as u8);
    put_uvarint(out, u64::from(tenant));
    put_uvarint(out, shard as u64);
    put_uvarint(out, count as u64);
    out.extend_from_slice(list);
}

/// One series of a series record's list.
pub(crate) fn put_series_entry(list: &mut Vec<u8>, slot: u32, section: &[u8]) {
    put_uvarint(list, u64::from(slot));
    put_uvarint(list, section.len() as u64);
    list.extend_from_slice(section);
}

/// The head of a record of groups; the groups follow.
pub(crate) fn put_groups(out: &mut Vec<u8>, kind: RecordKind, tenant: u32) {
    out.push(kind as u8);
    put_uvarint(out, u64::from(tenant));
}

/// Columns of samples of one shard.
#[derive(Default, Debug, Clone, PartialEq)]
pub(crate) struct SampleGroup {
    pub(crate) slots: Vec<u32>,
    pub(crate) ts: Vec<i64>,
    pub(crate) vs: Vec<f64>,
    /// Start timestamps. Empty when none is known; may be shorter than the others while the group is filled.
    pub(crate) starts: Vec<i64>,
}

impl SampleGroup {
    pub(crate) fn push(&mut self, slot: u32, t: i64, v: f64) {
        self.slots.push(slot);
        self.ts.push(t);
        self.vs.push(v);
    }

    /// [`SampleGroup::push`] with a start timestamp.
    pub(crate) fn push_started(&mut self, slot: u32, t: i64, v: f64, start_ts: i64) {
        self.starts.resize(self.len(), 0);
        self.starts.push(start_ts);
        self.push(slot, t, v);
    }

    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.ts.clear();
        self.vs.clear();
        self.starts.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Appends the group to a record, one with start timestamps or not.
    pub(crate) fn encode(&self, shard: usize, with_start_ts: bool, out: &mut Vec<u8>) {
        let n = self.len();
        debug_assert!(with_start_ts || self.starts.is_empty(), "a record of the kind that keeps them");
        put_uvarint(out, shard as u64);
        put_uvarint(out, n as u64);
        let len_at = out.len();
        out.extend_from_slice(&[0; 4]);
        let payload = out.len();
        let mut last = 0i64;
        for &slot in &self.slots {
            put_uvarint(out, zigzag(i64::from(slot) - last));
            last = i64::from(slot);
        }
        if let Some(&first) = self.ts.first() {
            put_uvarint(out, zigzag(first));
            let all_equal = self.ts.iter().all(|t| *t == first);
            out.push(u8::from(!all_equal));
            if !all_equal {
                for w in self.ts.windows(2) {
                    put_uvarint(out, zigzag(w[1].wrapping_sub(w[0])));
                }
            }
        }
        if with_start_ts {
            let mut last = 0i64;
            for start_ts in self.starts.iter().copied().chain(std::iter::repeat(0)).take(n) {
                put_uvarint(out, zigzag(start_ts.wrapping_sub(last)));
                last = start_ts;
            }
        }
        encode_values(&self.vs, out);
        let len = (out.len() - payload) as u32;
        out[len_at..len_at + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// Fills the columns from a group's payload. `None` when it is not one; the columns are then unspecified.
    pub(crate) fn decode(&mut self, count: usize, with_start_ts: bool, mut payload: &[u8]) -> Option<()> {
        self.clear();
        // Each sample has at least a byte of its slot.
        if count > payload.len() {
            return None;
        }
        let mut last = 0i64;
        for _ in 0..count {
            last = last.wrapping_add(unzigzag(take_uvarint(&mut payload)?));
            self.slots.push(u32::try_from(last).ok()?);
        }
        if count > 0 {
            let mut t = unzigzag(take_uvarint(&mut payload)?);
            let (&mode, rest) = payload.split_first()?;
            payload = rest;
            self.ts.push(t);
            if mode == 0 {
                self.ts.resize(count, t);
            } else {
                for _ in 1..count {
                    t = t.wrapping_add(unzigzag(take_uvarint(&mut payload)?));
                    self.ts.push(t);
                }
            }
        }
        if with_start_ts {
            let mut last = 0i64;
            for _ in 0..count {
                last = last.wrapping_add(unzigzag(take_uvarint(&mut payload)?));
                self.starts.push(last);
            }
        }
        decode_values(count, payload, &mut self.vs)
    }
}

fn encode_values(vs: &[f64], out: &mut Vec<u8>) {
    let lens_at = out.len();
    let mut at = lens_at + vs.len().div_ceil(2);
    // Every value is written whole; the next one overwrites its trailing zeros.
    out.resize(at + vs.len() * 8, 0);
    for (i, v) in vs.iter().enumerate() {
        let bits = v.to_bits();
        let len = 8 - (bits.trailing_zeros() / 8).min(8) as usize;
        out[at..at + 8].copy_from_slice(&bits.to_be_bytes());
        at += len;
        out[lens_at + i / 2] |= (len as u8) << (4 * (i % 2));
    }
    out.truncate(at);
}

fn decode_values(count: usize, payload: &[u8], vs: &mut Vec<f64>) -> Option<()> {
    let (lens, mut bytes) = payload.split_at_checked(count.div_ceil(2))?;
    vs.reserve(count);
    for i in 0..count {
        let len = usize::from(lens[i / 2] >> (4 * (i % 2)) & 0xF);
        let bits = match bytes.first_chunk::<8>() {
            Some(whole) if len <= 8 => {
                let bits = u64::from_be_bytes(*whole);
                if len == 0 { 0 } else { bits & (u64::MAX << (64 - 8 * len)) }
            }
            _ => {
                let mut whole = [0; 8];
                whole.get_mut(..len)?.copy_from_slice(bytes.get(..len)?);
                u64::from_be_bytes(whole)
            }
        };
        bytes = bytes.get(len..)?;
        vs.push(f64::from_bits(bits));
    }
    Some(())
}

/// A group as it lies in a record.
#[derive(Debug)]
pub(crate) struct RawGroup {
    pub(crate) shard: usize,
    pub(crate) count: usize,
    pub(crate) payload: Bytes,
}

/// A record, its parts not yet looked into.
#[derive(Debug)]
pub(crate) enum Record {
    Tenant { tenant: u32, name: String },
    Series { tenant: u32, shard: usize, list: Bytes },
    Groups { kind: RecordKind, tenant: u32, groups: Vec<RawGroup> },
    Cut { tenant: u32, number: u64, time: i64 },
    Metadata { tenant: u32, list: Bytes },
    Forget { tenant: u32 },
}

impl Record {
    pub(crate) fn parse(body: &Bytes) -> Result<Record, RecordError> {
        let kind = body.first().copied().unwrap_or(0);
        Self::parse_body(kind, body).ok_or(RecordError { kind })
    }

    fn parse_body(kind: u8, body: &Bytes) -> Option<Record> {
        let mut rest = body.get(1..)?;
        let tenant = u32::try_from(take_uvarint(&mut rest)?).ok()?;
        let groups_of = |kind, rest| Some(Record::Groups { kind, tenant, groups: parse_groups(body, rest)? });
        match kind {
            1 => Some(Record::Tenant { tenant, name: std::str::from_utf8(rest).ok()?.to_owned() }),
            2 => {
                let shard = usize::try_from(take_uvarint(&mut rest)?).ok()?;
                let _count = take_uvarint(&mut rest)?;
                Some(Record::Series { tenant, shard, list: body.slice_ref(rest) })
            }
            3 => groups_of(RecordKind::Samples, rest),
            4 => groups_of(RecordKind::OutOfOrder, rest),
            5 => {
                let number = take_uvarint(&mut rest)?;
                Some(Record::Cut { tenant, number, time: unzigzag(take_uvarint(&mut rest)?) })
            }
            6 => groups_of(RecordKind::Histograms, rest),
            7 => groups_of(RecordKind::Exemplars, rest),
            8 => groups_of(RecordKind::Tombstones, rest),
            9 => Some(Record::Metadata { tenant, list: body.slice_ref(rest) }),
            10 => groups_of(RecordKind::StartedSamples, rest),
            11 => groups_of(RecordKind::StartedOutOfOrder, rest),
            12 => Some(Record::Forget { tenant }),
            _ => None,
        }
    }
}

fn parse_groups(body: &Bytes, mut rest: &[u8]) -> Option<Vec<RawGroup>> {
    let mut groups = Vec::new();
    while !rest.is_empty() {
        let shard = usize::try_from(take_uvarint(&mut rest)?).ok()?;
        let count = usize::try_from(take_uvarint(&mut rest)?).ok()?;
        let (len, tail) = rest.split_first_chunk::<4>()?;
        let (payload, tail) = tail.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        rest = tail;
        groups.push(RawGroup { shard, count, payload: body.slice_ref(payload) });
    }
    Some(groups)
}

/// The entries of a series record: slot and section.
pub(crate) fn series_entries(mut list: &[u8]) -> impl Iterator<Item = Option<(u32, &[u8])>> {
    std::iter::from_fn(move || {
        if list.is_empty() {
            return None;
        }
        let one = (|| {
            let slot = u32::try_from(take_uvarint(&mut list)?).ok()?;
            let len = usize::try_from(take_uvarint(&mut list)?).ok()?;
            let (section, tail) = list.split_at_checked(len)?;
            list = tail;
            Some((slot, section))
        })();
        if one.is_none() {
            list = &[];
        }
        Some(one)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn groups_round_trip(
            rows in prop::collection::vec((any::<u32>(), any::<i64>(), any::<u64>(), any::<bool>()), 0..200),
            same_time: bool,
            started: bool,
            cut in any::<prop::sample::Index>(),
        ) {
            let mut group = SampleGroup::default();
            for (slot, t, bits, short) in rows {
                let v = if short { f64::from(bits as u16) } else { f64::from_bits(bits) };
                let t = if same_time { 77 } else { t };
                if started && short {
                    group.push_started(slot, t, v, t.wrapping_sub(i64::from(bits as u8)));
                } else {
                    group.push(slot, t, v);
                }
            }
            let mut body = Vec::new();
            let kind = if started { RecordKind::StartedSamples } else { RecordKind::Samples };
            put_groups(&mut body, kind, 300);
            group.encode(5, started, &mut body);
            group.encode(6, started, &mut body);
            let body = Bytes::from(body);
            let Ok(Record::Groups { kind: back, tenant: 300, groups }) = Record::parse(&body) else {
                panic!("not a sample record");
            };
            prop_assert_eq!(back, kind);
            prop_assert_eq!(groups.iter().map(|g| g.shard).collect::<Vec<_>>(), [5, 6]);
            let mut back = SampleGroup::default();
            back.decode(groups[1].count, started, &groups[1].payload).unwrap();
            prop_assert_eq!(&back.slots, &group.slots);
            prop_assert_eq!(&back.ts, &group.ts);
            let bits = |g: &SampleGroup| g.vs.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&back), bits(&group));
            group.starts.resize(if started { group.len() } else { 0 }, 0);
            prop_assert_eq!(&back.starts, &group.starts);
            // Cut short: an error or fewer groups, no panic.
            let at = cut.index(body.len());
            if let Ok(Record::Groups { groups, .. }) = Record::parse(&body.slice(..at)) {
                for g in groups {
                    let _ = back.decode(g.count, started, &g.payload[..g.payload.len() / 2]);
                }
            }
        }
    }

    #[test]
    fn small_records_round_trip() {
        let mut body = Vec::new();
        put_tenant(&mut body, 7, "team-ä");
        assert!(
            matches!(Record::parse(&Bytes::from(body)), Ok(Record::Tenant { tenant: 7, name }) if name == "team-ä")
        );
        let mut body = Vec::new();
        put_forget(&mut body, 300);
        assert!(matches!(Record::parse(&Bytes::from(body)), Ok(Record::Forget { tenant: 300 })));
        let mut body = Vec::new();
        put_cut(&mut body, 7, 9, -5);
        assert!(matches!(
            Record::parse(&Bytes::from(body)),
            Ok(Record::Cut { tenant: 7, number: 9, time: -5 })
        ));
        let (mut list, mut body) = (Vec::new(), Vec::new());
        put_series_entry(&mut list, 1, b"abc");
        put_series_entry(&mut list, 500, b"");
        put_series(&mut body, 7, 3, 2, &list);
        let Ok(Record::Series { tenant: 7, shard: 3, list }) = Record::parse(&Bytes::from(body)) else {
            panic!("not a series record");
        };
        assert_eq!(
            series_entries(&list).collect::<Vec<_>>(),
            [Some((1, &b"abc"[..])), Some((500, &b""[..]))]
        );
        assert!(Record::parse(&Bytes::from_static(&[99, 1])).is_err());
        assert!(Record::parse(&Bytes::new()).is_err());
    }
}
