//! Label sets of OTLP points: texts where they lie, sets sorted by name.

use crate::remote_write::{DecodeError, Piece, Sections};

/// A text in the body or in the request's own memory, with its length in front.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    piece: Piece,
    own: bool,
}

/// Where texts lie.
#[derive(Debug)]
pub(super) struct Texts<'a> {
    body: &'a [u8],
    own: Vec<u8>,
}

impl<'a> Texts<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Texts { body, own: Vec::new() }
    }

    /// A text of the body: its length begins at `start`, it ends at `end`.
    pub(super) fn of_body(start: usize, end: usize) -> Text {
        Text { piece: Piece { start: start as u32, len: (end - start) as u32 }, own: false }
    }

    /// Keeps a text. What is kept must have been paid for.
    pub(super) fn keep(&mut self, text: &[u8]) -> Text {
        let start = self.own.len();
        let mut len = text.len();
        while len >= 0x80 {
            self.own.push(len as u8 | 0x80);
            len >>= 7;
        }
        self.own.push(len as u8);
        self.own.extend_from_slice(text);
        Text { piece: Piece { start: start as u32, len: (self.own.len() - start) as u32 }, own: true }
    }

    /// Its bytes.
    pub(super) fn bytes(&self, text: Text) -> &[u8] {
        text.piece.text(self.buf(text))
    }

    fn buf(&self, text: Text) -> &[u8] {
        if text.own { &self.own } else { self.body }
    }
}

/// Labels sorted by name, each name once, no value empty.
#[derive(Clone, Debug, Default)]
pub(super) struct LabelSet {
    labels: Vec<(Text, Text)>,
}

impl LabelSet {
    pub(super) fn clear(&mut self) {
        self.labels.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Text, Text)> + '_ {
        self.labels.iter().copied()
    }

    fn position(&self, texts: &Texts<'_>, name: &[u8]) -> Result<usize, usize> {
        // Most come in order.
        match self.labels.last() {
            Some(last) if texts.bytes(last.0) >= name => {
                self.labels.binary_search_by(|(other, _)| texts.bytes(*other).cmp(name))
            }
            _ => Err(self.labels.len()),
        }
    }

    pub(super) fn get(&self, texts: &Texts<'_>, name: Text) -> Option<Text> {
        self.position(texts, texts.bytes(name)).ok().map(|i| self.labels[i].1)
    }

    /// Sets a label; an empty value removes it.
    pub(super) fn set(&mut self, texts: &Texts<'_>, name: Text, value: Text) {
        let empty = texts.bytes(value).is_empty();
        match self.position(texts, texts.bytes(name)) {
            Ok(i) if empty => _ = self.labels.remove(i),
            Ok(i) => self.labels[i].1 = value,
            Err(i) if !empty => self.labels.insert(i, (name, value)),
            Err(_) => {}
        }
    }

    /// Writes names and values with their lengths: equal sets give equal bytes.
    pub(super) fn write_key(&self, texts: &Texts<'_>, out: &mut Vec<u8>) {
        for text in self.labels.iter().flat_map(|(name, value)| [name, value]) {
            out.extend_from_slice(text.piece.bytes(texts.buf(*text)));
        }
    }

    /// Writes the section.
    pub(super) fn render(&self, texts: &Texts<'_>, sections: &mut Sections<'_>) -> Result<(), DecodeError> {
        for (name, value) in &self.labels {
            sections.label(texts.buf(*name), name.piece, texts.buf(*value), value.piece)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_sorted_and_hold_a_name_once() {
        let mut texts = Texts::new(b"");
        let mut set = LabelSet::default();
        for (name, value) in [("b", "1"), ("a", "2"), ("c", "3"), ("b", "4"), ("a", ""), ("d", "")] {
            let (name, value) = (texts.keep(name.as_bytes()), texts.keep(value.as_bytes()));
            set.set(&texts, name, value);
        }
        let mut buf = bytes::BytesMut::new();
        let mut sections = Sections::new(&mut buf, 1000);
        set.render(&texts, &mut sections).unwrap();
        let labels: Result<Vec<_>, _> = chronolith_model::write::decode_labels(sections.since(0)).collect();
        assert_eq!(labels.unwrap(), [("b", "4"), ("c", "3")]);
        let name = texts.keep(b"c");
        assert_eq!(texts.bytes(set.get(&texts, name).unwrap()), b"3");
    }
}
