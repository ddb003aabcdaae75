//! What the log holds beside samples: exemplars and metric metadata.
//!
//! ```text
//! exemplars' payload:  count × (slot zigzag difference ‖ time zigzag difference ‖ value 8 bytes ‖ labels)
//! labels:              number ‖ number × (name ‖ value)
//! metadata record:     9 ‖ tenant ‖ any number of (kind u8 ‖ metric ‖ help ‖ unit)
//! ```
//!
//! A text is its length and its bytes.

use chronolith_model::{Exemplar, Labels, LabelsBuilder, MetricKind, MetricMetadata};

use super::record::{RecordKind, put_uvarint, take_uvarint, unzigzag, zigzag};

/// Exemplars of one shard, encoded as they come.
#[derive(Default, Debug)]
pub(crate) struct ExemplarGroup {
    count: usize,
    last: (i64, i64),
    payload: Vec<u8>,
}

impl ExemplarGroup {
    pub(crate) fn push(&mut self, slot: u32, exemplar: &Exemplar) {
        let slot = i64::from(slot);
        put_uvarint(&mut self.payload, zigzag(slot - self.last.0));
        put_uvarint(&mut self.payload, zigzag(exemplar.t.wrapping_sub(self.last.1)));
        self.last = (slot, exemplar.t);
        self.count += 1;
        put_exemplar_value(&mut self.payload, exemplar);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn clear(&mut self) {
        self.count = 0;
        self.last = (0, 0);
        self.payload.clear();
    }

    /// Appends the group to a record.
    pub(crate) fn encode(&self, shard: usize, out: &mut Vec<u8>) {
        put_uvarint(out, shard as u64);
        put_uvarint(out, self.count as u64);
        out.extend_from_slice(&(self.payload.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.payload);
    }
}

/// The exemplars of a group's payload, with their slots. `None` when it is not one.
pub(crate) fn decode_exemplars(count: usize, mut payload: &[u8]) -> Option<Vec<(u32, Exemplar)>> {
    let rest = &mut payload;
    if count > rest.len() / 11 {
        return None;
    }
    let mut rows = Vec::with_capacity(count);
    let (mut slot, mut t) = (0i64, 0i64);
    for _ in 0..count {
        slot = slot.wrapping_add(unzigzag(take_uvarint(rest)?));
        t = t.wrapping_add(unzigzag(take_uvarint(rest)?));
        let (value, labels) = take_exemplar_value(rest)?;
        rows.push((u32::try_from(slot).ok()?, Exemplar { labels, value, t }));
    }
    rest.is_empty().then_some(rows)
}

/// Value and labels of an exemplar.
pub(crate) fn put_exemplar_value(out: &mut Vec<u8>, exemplar: &Exemplar) {
    out.extend_from_slice(&exemplar.value.to_bits().to_le_bytes());
    put_labels(out, &exemplar.labels);
}

/// Takes what [`put_exemplar_value`] wrote.
pub(crate) fn take_exemplar_value(rest: &mut &[u8]) -> Option<(f64, Labels)> {
    let (bits, tail) = rest.split_first_chunk::<8>()?;
    *rest = tail;
    Some((f64::from_bits(u64::from_le_bytes(*bits)), take_labels(rest)?))
}

pub(crate) fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    put_uvarint(out, labels.len() as u64);
    for (name, value) in labels.iter() {
        put_text(out, name);
        put_text(out, value);
    }
}

pub(crate) fn take_labels(rest: &mut &[u8]) -> Option<Labels> {
    let mut builder = LabelsBuilder::new();
    for _ in 0..take_uvarint(rest)? {
        let name = take_text(rest)?;
        builder.add(name, take_text(rest)?);
    }
    builder.try_build().ok()
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_uvarint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let len = usize::try_from(take_uvarint(rest)?).ok()?;
    let (text, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    std::str::from_utf8(text).ok()
}

/// The beginning of a metadata record; entries follow.
pub(crate) fn put_metadata(out: &mut Vec<u8>, tenant: u32) {
    out.push(RecordKind::Metadata as u8);
    put_uvarint(out, u64::from(tenant));
}

/// Appends what is said of a metric.
pub(crate) fn put_metadata_entry(out: &mut Vec<u8>, metric: &str, says: &MetricMetadata) {
    out.push(says.kind as u8);
    put_text(out, metric);
    put_text(out, &says.help);
    put_text(out, &says.unit);
}

/// Takes what is said of a metric.
pub(crate) fn take_metadata_entry(rest: &mut &[u8]) -> Option<(String, MetricMetadata)> {
    let (&kind, tail) = rest.split_first()?;
    *rest = tail;
    let metric = take_text(rest)?.to_owned();
    let (help, unit) = (take_text(rest)?.to_owned(), take_text(rest)?.to_owned());
    Some((metric, MetricMetadata { kind: MetricKind::from_number(u64::from(kind)), help, unit }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exemplars_and_metadata_round_trip() {
        let labels = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied()).unwrap();
        let rows = [
            (5, Exemplar { labels: labels(&[("trace_id", "ä")]), value: -0.5, t: 1000 }),
            (2, Exemplar { labels: Labels::empty(), value: f64::INFINITY, t: i64::MIN }),
            (u32::MAX, Exemplar { labels: labels(&[("a", "1"), ("b", "2")]), value: 0.0, t: i64::MAX }),
        ];
        let mut group = ExemplarGroup::default();
        rows.iter().for_each(|(slot, e)| group.push(*slot, e));
        assert_eq!(decode_exemplars(3, &group.payload).unwrap(), rows);
        for cut in 0..group.payload.len() {
            assert_eq!(decode_exemplars(3, &group.payload[..cut]), None);
        }
        let says = MetricMetadata { kind: MetricKind::Info, help: "ü".to_owned(), unit: "s".to_owned() };
        let mut out = Vec::new();
        put_metadata_entry(&mut out, "m", &says);
        assert_eq!(take_metadata_entry(&mut &out[..]), Some(("m".to_owned(), says)));
        for cut in 0..out.len() {
            assert_eq!(take_metadata_entry(&mut &out[..cut]), None);
        }
    }
}
