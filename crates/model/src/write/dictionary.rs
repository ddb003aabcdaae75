//! Label sets as numbers: the body has a table of symbols, and a series names its labels by them.
//!
//! ```text
//! body     … text 0 … text 1 … text 2 …           the symbols, wherever the protocol puts them
//! refs     1 2 3 4 | 1 2 3 5 | …                   also in the body: name, value, name, value, … of series 0, 1, …, as varints
//! keys     k0      | k1      | …                   what a series is called for as long as the process lives
//! ```
//!
//! A protocol that sends names and values once a request comes so to the head, which knows a series again by its key and
//! then needs no label. Equal sets have equal keys, whatever their order, and nobody who does not know the secret that goes
//! into them can make two sets share one: that is the decoder's promise. Whoever needs the sections themselves
//! (relabeling, splitting, placement, peers) has them rendered first, [`WriteBatch::render`].

use bytes::Bytes;

use super::{WriteBatch, WriteBatchBuilder, put_label, range, take_varint};
use std::ops::Range;

/// The symbols of a batch, and what its series are called.
#[derive(Clone, Debug, Default)]
pub struct LabelDictionary {
    /// Where in the body each symbol's text lies.
    symbols: Vec<Range<u32>>,
    /// One a series.
    pub(super) keys: Vec<u128>,
}

impl LabelDictionary {
    /// Adds the symbol whose text lies at `at` in the body. Symbols count from 0.
    #[inline(always)]
    pub fn push_symbol(&mut self, at: Range<u32>) {
        self.symbols.push(at);
    }

    /// Writes the section of a series with these references: as far as they are numbers, in pairs, and name symbols.
    pub fn render(&self, body: &[u8], mut refs: &[u8], out: &mut Vec<u8>) {
        let mut next = || {
            // Cut to 32 bits, as protobuf has it.
            let symbol = take_varint(&mut refs).ok()? as u32;
            self.symbols.get(symbol as usize).map(|at| &body[range(at)])
        };
        while let (Some(name), Some(value)) = (next(), next()) {
            put_label(name, value, out);
        }
    }

    pub(super) fn clear(&mut self) {
        self.symbols.clear();
        self.keys.clear();
    }
}

impl WriteBatch {
    /// The series' keys where the batch has a dictionary. A [`super::WriteSeries`] of such a batch has no section.
    pub fn keys(&self) -> Option<&[u128]> {
        (!self.dictionary.keys.is_empty()).then_some(&self.dictionary.keys)
    }

    /// The label section of the `i`-th series, rendered into `buf` where it has to be.
    pub fn section<'a>(&'a self, i: usize, buf: &'a mut Vec<u8>) -> &'a [u8] {
        if self.keys().is_none() {
            return self.series(i).labels;
        }
        buf.clear();
        self.dictionary.render(&self.body, &self.body[range(&self.series[i].labels)], buf);
        buf
    }

    /// Gives every series a section of its own. Its memory is what the decoder was told that sections may take.
    pub fn render(&mut self) {
        if self.keys().is_none() {
            return;
        }
        let mut rendered = Vec::new();
        for entry in &mut self.series {
            let start = rendered.len() as u32;
            self.dictionary.render(&self.body, &self.body[range(&entry.labels)], &mut rendered);
            entry.labels = start..rendered.len() as u32;
        }
        self.dictionary.clear();
        self.body = Bytes::from(rendered);
    }
}

impl WriteBatchBuilder {
    /// The dictionary of the batch that is filled.
    #[inline(always)]
    pub fn dictionary_mut(&mut self) -> &mut LabelDictionary {
        &mut self.batch.dictionary
    }

    /// The dictionary of the batch that is filled, to look into.
    pub fn dictionary(&self) -> &LabelDictionary {
        &self.batch.dictionary
    }

    /// Opens a series whose labels come next; [`WriteBatchBuilder::set_key`] names it. Either all series of a batch are opened
    /// so or none.
    #[inline(always)]
    pub fn push_keyed_series(&mut self) {
        self.push_series(0..0);
        self.batch.dictionary.keys.push(0);
    }

    /// The open series' key. Its references are set as a label section is, with [`WriteBatchBuilder::set_labels`] or
    /// [`WriteBatchBuilder::set_labels_bytes`].
    #[inline(always)]
    pub fn set_key(&mut self, key: u128) {
        *self.batch.dictionary.keys.last_mut().expect("the series was opened with a key") = key;
    }

    /// Takes the open series back, as [`WriteBatchBuilder::drop_series`].
    pub fn drop_keyed_series(&mut self) {
        self.batch.dictionary.keys.pop();
        self.drop_series();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sample;
    use crate::write::encode_labels;

    fn batch() -> (WriteBatch, Vec<Vec<u8>>) {
        // Two series' references, then the symbols.
        let mut body = vec![1, 2, 3, 4, 1, 2, 3, 5];
        let mut builder = WriteBatchBuilder::default();
        builder.start(body.len() as u32 + "__name__upa12".len() as u32);
        for symbol in ["", "__name__", "up", "a", "1", "2"] {
            let start = body.len() as u32;
            body.extend_from_slice(symbol.as_bytes());
            builder.dictionary_mut().push_symbol(start..body.len() as u32);
        }
        for (refs, key) in [(0..4, 1u8), (4..8, 2), (4..6, 3)] {
            builder.push_keyed_series();
            match key {
                1 => builder.set_labels(refs),
                // In pieces, say.
                _ => builder.set_labels_bytes(&body[range(&refs)]),
            }
            builder.set_key(u128::from(key));
            builder.push_sample(Sample { t: 1, v: f64::from(key) });
        }
        builder.drop_keyed_series();
        let want = [("a", "1"), ("a", "2")].map(|pair| {
            let mut section = Vec::new();
            encode_labels([("__name__", "up"), pair], &mut section);
            section
        });
        (builder.finish(Bytes::from(body)), want.to_vec())
    }

    #[test]
    fn sections_come_when_they_are_asked_for() {
        let (mut batch, want) = batch();
        assert_eq!(batch.keys(), Some(&[1, 2][..]));
        let mut buf = b"old".to_vec();
        for (i, want) in want.iter().enumerate() {
            assert_eq!(batch.section(i, &mut buf), want);
            assert!(batch.series(i).labels.is_empty());
        }
        let picked = batch.select(&[1]);
        assert_eq!((picked.series(0).labels, picked.series(0).samples[0].v), (&want[1][..], 2.0));
        batch.render();
        assert!(batch.keys().is_none());
        assert!(batch.iter().map(|s| s.labels).eq(want.iter().map(Vec::as_slice)));
    }

    #[test]
    fn editing_renders_first() {
        let (mut batch, _) = batch();
        batch.edit_labels(&mut Vec::new(), |section, _| match section.ends_with(b"1") {
            true => crate::write::LabelsEdit::Drop,
            false => crate::write::LabelsEdit::Keep,
        });
        assert_eq!((batch.series_count(), batch.keys()), (1, None));
    }
}
