//! Label sections as numbers: labels stand once in the body, and a series names them.
//!
//! ```text
//! body     label 0 | label 1 | label 2 | …        each rendered as in a section
//! refs     0 1 2 | 0 1 3 | 0 1 4 | …               the labels of series 0, 1, 2, …
//! keys     k0    | k1    | k2    | …               what a series is called for as long as the process lives
//! ```
//!
//! A protocol that sends names and values once a request comes so to the head, which knows a series again by its key and
//! then needs no section. A key is the sum of a keyed 128-bit hash of each label: equal sets have equal keys, whatever
//! their order, and nobody who does not know the hash's key can make two sets share one. Whoever needs the sections
//! themselves (relabeling, splitting, placement, peers) has them rendered first, [`WriteBatch::render`].

use bytes::Bytes;

use super::{WriteBatch, WriteBatchBuilder, range};
use std::ops::Range;

/// The labels of a batch, and which series has which.
#[derive(Clone, Debug, Default)]
pub struct LabelDictionary {
    /// Where in the body each label lies.
    labels: Vec<Range<u32>>,
    refs: Vec<u32>,
    /// One a series.
    pub(super) keys: Vec<u128>,
}

impl LabelDictionary {
    /// Adds a label that lies at `at` in the body; the answer is its number.
    pub fn add(&mut self, at: Range<u32>) -> u32 {
        self.labels.push(at);
        self.labels.len() as u32 - 1
    }

    /// Adds a label to the series that is read.
    #[inline(always)]
    pub fn push_ref(&mut self, label: u32) {
        self.refs.push(label);
    }

    /// Labels named so far: where the next series' begin.
    #[inline(always)]
    fn refs_len(&self) -> u32 {
        self.refs.len() as u32
    }

    /// Writes the section of the series whose labels are named at `refs`.
    fn render(&self, body: &[u8], refs: Range<u32>, out: &mut Vec<u8>) {
        for label in &self.refs[range(&refs)] {
            out.extend_from_slice(&body[range(&self.labels[*label as usize])]);
        }
    }

    pub(super) fn clear(&mut self) {
        self.labels.clear();
        self.refs.clear();
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
        self.dictionary.render(&self.body, self.series[i].labels.clone(), buf);
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
            self.dictionary.render(&self.body, entry.labels.clone(), &mut rendered);
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

    /// Opens a series whose labels the dictionary is told next; [`WriteBatchBuilder::set_key`] closes them. Either all series
    /// of a batch are opened so or none.
    #[inline(always)]
    pub fn push_keyed_series(&mut self) {
        let at = self.batch.dictionary.refs_len();
        self.push_series(at..at);
        self.batch.dictionary.keys.push(0);
    }

    /// The open series' labels are those named since it was opened, and this is its key.
    #[inline(always)]
    pub fn set_key(&mut self, key: u128) {
        let end = self.batch.dictionary.refs_len();
        self.open().labels.end = end;
        *self.batch.dictionary.keys.last_mut().expect("the series was opened with a key") = key;
    }

    /// The section of the open series, whose labels lie in `body` so far.
    pub fn render_open(&self, body: &[u8], out: &mut Vec<u8>) {
        if let Some(open) = self.batch.series.last() {
            self.batch.dictionary.render(body, open.labels.clone(), out);
        }
    }

    /// Takes the open series back, as [`WriteBatchBuilder::drop_series`].
    pub fn drop_keyed_series(&mut self) {
        if let Some(open) = self.batch.series.last() {
            let start = open.labels.start;
            self.batch.dictionary.refs.truncate(start as usize);
            self.batch.dictionary.keys.pop();
        }
        self.drop_series();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sample;
    use crate::write::encode_labels;

    fn batch() -> (WriteBatch, Vec<Vec<u8>>) {
        let mut body = Vec::new();
        let mut builder = WriteBatchBuilder::default();
        builder.start(0);
        for (name, value) in [("__name__", "up"), ("a", "1"), ("a", "2")] {
            let start = body.len() as u32;
            encode_labels([(name, value)], &mut body);
            builder.dictionary_mut().add(start..body.len() as u32);
        }
        for labels in [[0, 1], [0, 2], [1, 2]] {
            builder.push_keyed_series();
            labels.iter().for_each(|l| builder.dictionary_mut().push_ref(*l));
            builder.set_key(u128::from(labels[1]));
            builder.push_sample(Sample { t: 1, v: f64::from(labels[1]) });
        }
        builder.drop_keyed_series();
        let want = [("a", "1"), ("a", "2")].map(|pair| {
            let mut section = Vec::new();
            encode_labels([("__name__", "up"), pair], &mut section);
            section
        });
        (builder.finish_rendered(Bytes::from(body)), want.to_vec())
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
