//! A label set while it is rewritten.

use std::ops::Range;

/// Where a text lies in the buffer.
type Text = Range<usize>;

/// A label set while it is rewritten. All texts lie in one buffer, so that one of these serves request after request without
/// allocating once its buffers have grown.
///
/// Invariant: names are unique; no value is empty. The first [`LabelEdit::came`] pairs are as they came; what a rule set
/// stands behind them, in the order in which it was set. That is the order in which Prometheus's builder walks, and
/// `labelmap` shows it.
#[derive(Debug, Default)]
pub struct LabelEdit {
    pairs: Vec<(Text, Text)>,
    came: usize,
    texts: String,
    changed: bool,
    scratch: String,
    second: String,
}

impl LabelEdit {
    /// Starts over with these pairs. Pairs with an empty value count as absent.
    pub fn start<'a>(&mut self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) {
        self.clear();
        for (name, value) in pairs {
            self.push(name, value);
        }
    }

    /// Starts over with no pair.
    pub fn clear(&mut self) {
        self.pairs.clear();
        self.texts.clear();
        self.came = 0;
        self.changed = false;
    }

    /// Adds a pair as it came; the caller sees to it that names are unique.
    pub fn push(&mut self, name: &str, value: &str) {
        debug_assert_eq!(self.came, self.pairs.len(), "pairs come before they are changed");
        if !value.is_empty() {
            let pair = (self.keep(name), self.keep(value));
            self.pairs.push(pair);
            self.came += 1;
        }
    }

    fn text(&self, text: &Text) -> &str {
        &self.texts[text.clone()]
    }

    /// True when a rule changed something.
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// True when no label is left.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// A label's value; empty when it is not there.
    pub fn get(&self, name: &str) -> &str {
        self.position(name).map_or("", |at| self.text(&self.pairs[at].1))
    }

    /// The pairs, sorted by name.
    pub fn sorted(&mut self) -> impl Iterator<Item = (&str, &str)> {
        let mut pairs = std::mem::take(&mut self.pairs);
        pairs.sort_unstable_by(|a, b| self.text(&a.0).cmp(self.text(&b.0)));
        self.came = 0;
        self.pairs = pairs;
        self.pairs.iter().map(|(name, value)| (self.text(name), self.text(value)))
    }

    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return self.remove(name);
        }
        let found = self.position(name);
        if let Some(at) = found {
            if self.text(&self.pairs[at].1) == value {
                // Prometheus's builder would move it behind the others, which shows nowhere but in `labelmap`'s order.
                if at < self.came {
                    let pair = self.pairs.remove(at);
                    self.came -= 1;
                    self.pairs.push(pair);
                }
                return;
            }
            self.changed = true;
            let made = self.keep(value);
            if at < self.came {
                let (name, _) = self.pairs.remove(at);
                self.came -= 1;
                self.pairs.push((name, made));
            } else {
                self.pairs[at].1 = made;
            }
            return;
        }
        self.changed = true;
        let pair = (self.keep(name), self.keep(value));
        self.pairs.push(pair);
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) {
        if let Some(at) = self.position(name) {
            self.changed = true;
            self.pairs.remove(at);
            if at < self.came {
                self.came -= 1;
            }
        }
    }

    fn keep(&mut self, text: &str) -> Text {
        let start = self.texts.len();
        self.texts.push_str(text);
        start..self.texts.len()
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.pairs.iter().position(|(n, _)| self.text(n) == name)
    }

    /// Keeps the labels whose name `keep` likes.
    pub(super) fn retain_names(&mut self, mut keep: impl FnMut(&str) -> bool) {
        let (before, came) = (self.pairs.len(), self.came);
        let (mut at, mut gone) = (0, 0);
        self.pairs.retain(|(name, _)| {
            let kept = keep(&self.texts[name.clone()]);
            gone += usize::from(!kept && at < came);
            at += 1;
            kept
        });
        self.came = came - gone;
        self.changed |= self.pairs.len() < before;
    }

    /// Sets, for each label that was there when this was called, the label that `name_of` makes of its name to the value
    /// that it had.
    pub(super) fn copy_matching(&mut self, mut name_of: impl FnMut(&str) -> Option<String>) {
        let copies: Vec<(String, String)> = self
            .pairs
            .iter()
            .filter_map(|(name, value)| Some((name_of(self.text(name))?, self.text(value).to_owned())))
            .collect();
        for (name, value) in copies {
            self.set(&name, &value);
        }
    }

    /// The values of these labels with a separator between them.
    pub(super) fn join(&self, sources: &[String], separator: &str, out: &mut String) {
        out.clear();
        for (i, name) in sources.iter().enumerate() {
            if i > 0 {
                out.push_str(separator);
            }
            out.push_str(self.get(name));
        }
    }

    pub(super) fn take_scratch(&mut self) -> String {
        std::mem::take(&mut self.scratch)
    }

    pub(super) fn put_scratch(&mut self, text: String) {
        self.scratch = text;
    }

    pub(super) fn take_second(&mut self) -> String {
        std::mem::take(&mut self.second)
    }

    pub(super) fn put_second(&mut self, text: String) {
        self.second = text;
    }
}
