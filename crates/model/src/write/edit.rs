//! Changing the series of a decoded request: their labels, or which of them there are.
//!
//! Samples stay where they lie in their columns; a series that goes leaves a gap that nobody points to.

use std::ops::Range;

use bytes::Bytes;

use super::{WriteBatch, range};

/// What is to become of a series' labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelsEdit {
    /// They stay.
    Keep,
    /// The series goes, with its samples.
    Drop,
    /// They become what was written to the buffer.
    Replace,
}

impl WriteBatch {
    /// Asks `edit` for each series, which may write another label section to the (empty) buffer it is given. `made` is
    /// working memory: its content does not matter, its capacity is kept.
    ///
    /// New sections are appended to the request's body, in place where nobody else holds on to it.
    pub fn edit_labels(
        &mut self,
        made: &mut Vec<u8>,
        mut edit: impl FnMut(&[u8], &mut Vec<u8>) -> LabelsEdit,
    ) {
        self.render();
        made.clear();
        let body = std::mem::take(&mut self.body);
        let end = body.len();
        self.series.retain_mut(|entry| {
            let start = made.len();
            let decided = edit(&body[range(&entry.labels)], made);
            if decided != LabelsEdit::Replace {
                made.truncate(start);
                return decided == LabelsEdit::Keep;
            }
            match section_at(end + start, made.len() - start) {
                Some(labels) => entry.labels = labels,
                // Bodies are bounded far below 4 GiB; labels that do not fit beside one are malformed to whoever reads them.
                None => entry.labels = 0..0,
            }
            true
        });
        self.body = if made.is_empty() { body } else { extended(body, made) };
    }
}

fn section_at(start: usize, len: usize) -> Option<Range<u32>> {
    Some(u32::try_from(start).ok()?..u32::try_from(start + len).ok()?)
}

fn extended(body: Bytes, made: &[u8]) -> Bytes {
    match body.try_into_mut() {
        Ok(mut body) => {
            body.extend_from_slice(made);
            body.freeze()
        }
        Err(body) => Bytes::from([&body[..], made].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::{decode_labels, encode_labels};
    use crate::{Sample, WriteBatchBuilder};

    fn batch(names: &[&str]) -> WriteBatch {
        let mut builder = WriteBatchBuilder::default();
        builder.start(0);
        for (i, name) in names.iter().enumerate() {
            let mut section = Vec::new();
            encode_labels([("a", *name)], &mut section);
            builder.push_series_bytes(&section);
            for t in 0..=i as i64 {
                builder.push_sample_with_start_ts(Sample { t, v: i as f64 }, 10 * i as i64);
            }
        }
        builder.finish(Bytes::new())
    }

    fn values(batch: &WriteBatch) -> Vec<(String, usize)> {
        let value = |labels| decode_labels(labels).next().unwrap().unwrap().1.to_owned();
        batch.iter().map(|s| (value(s.labels), s.samples.len())).collect()
    }

    #[test]
    fn labels_are_replaced_and_series_go() {
        for shared in [false, true] {
            let mut batch = batch(&["x", "y", "z"]);
            let held = shared.then(|| batch.clone());
            let mut made = b"old".to_vec();
            batch.edit_labels(&mut made, |labels, out| match decode_labels(labels).next() {
                Some(Ok((_, "x"))) => LabelsEdit::Keep,
                Some(Ok((_, "y"))) => LabelsEdit::Drop,
                _ => {
                    encode_labels([("a", "new")], out);
                    LabelsEdit::Replace
                }
            });
            assert_eq!(values(&batch), [("x".to_owned(), 1), ("new".to_owned(), 3)]);
            assert_eq!(
                (batch.series_count(), batch.sample_count()),
                (2, 4),
                "samples of dropped series do not count"
            );
            if let Some(held) = held {
                assert_eq!(values(&held)[2].0, "z", "whoever shares the body sees the old labels");
            }
        }
    }
}
