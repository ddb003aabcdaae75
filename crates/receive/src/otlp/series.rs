//! A point's labels, and the series that it becomes.

use chronolith_model::{Exemplar, Sample, WriteHistogram};

use super::labels::Text;
use super::names;
use super::resource::Resource;
use super::translate::{Fault, NAME_BYTES, Translator, Words};
use super::value::Attribute;
use crate::remote_write::{DecodeError, SAMPLE_BYTES, SERIES_BYTES};

/// When a point was, and since when it counts: milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) t: i64,
    pub(super) start_t: i64,
}

impl<'a> Translator<'a> {
    /// The label of an attribute.
    pub(super) fn label_name(&mut self, key: &'a [u8]) -> Result<Text, Fault> {
        if let Some(known) = self.label_names.get(key) {
            return known.clone().map_err(Fault::Refused);
        }
        let text = String::from_utf8_lossy(key);
        let name = names::label_name(&text, self.settings);
        self.budget.charge(NAME_BYTES + name.as_ref().map_or_else(String::len, |n| n.len()))?;
        let name = name.map(|name| self.texts.keep(name.as_bytes()));
        self.label_names.insert(key, name.clone());
        name.map_err(Fault::Refused)
    }

    pub(super) fn joined(&mut self, first: Text, between: &[u8], second: Text) -> Result<Text, DecodeError> {
        let joined = [self.texts.bytes(first), between, self.texts.bytes(second)].concat();
        self.budget.charge(joined.len() + 10)?;
        Ok(self.texts.keep(&joined))
    }

    /// A number as the value of `le` or `quantile`.
    pub(super) fn bound(&mut self, v: f64) -> Result<Text, DecodeError> {
        if let Some(known) = self.bounds.get(&v.to_bits()) {
            return Ok(*known);
        }
        let text = match v {
            _ if v.is_nan() => "NaN".to_owned(),
            f64::INFINITY => "+Inf".to_owned(),
            f64::NEG_INFINITY => "-Inf".to_owned(),
            v => v.to_string(),
        };
        self.budget.charge(NAME_BYTES + text.len())?;
        let text = self.texts.keep(text.as_bytes());
        self.bounds.insert(v.to_bits(), text);
        Ok(text)
    }

    /// Makes the labels of the point whose attributes were read: its own, the resource's, the scope's.
    pub(super) fn set_point_labels(&mut self) -> Result<(), Fault> {
        self.set_own_labels(&["__name__"])?;
        for (name, value) in self.resource.promoted.iter() {
            if self.labels.get(&self.texts, name).is_none() {
                self.labels.set(&self.texts, name, value);
            }
        }
        self.set_identity();
        if !self.scope.labels.is_empty() {
            for (name, value) in self.scope.labels.iter() {
                self.labels.set(&self.texts, name, value);
            }
            let empty = self.texts.keep(b"");
            for name in &self.scope.removes {
                self.labels.set(&self.texts, *name, empty);
            }
        }
        Ok(())
    }

    /// `job` and `instance`.
    pub(super) fn set_identity(&mut self) {
        let Words { job, instance, .. } = self.words;
        for (name, value) in [(job, self.resource.job), (instance, self.resource.instance)] {
            if let Some(value) = value.filter(|v| !self.texts.bytes(*v).is_empty()) {
                self.labels.set(&self.texts, name, value);
            }
        }
    }

    /// Labels of the attributes alone, but for `without`. Those that become the same label are joined with `;`.
    pub(super) fn set_own_labels(&mut self, without: &[&str]) -> Result<(), Fault> {
        self.labels.clear();
        if !self.attributes.is_sorted_by(|a, b| a.key <= b.key) {
            self.attributes.sort_by(|a, b| a.key.cmp(b.key));
        }
        let joins = self.settings.translation_strategy.escapes();
        for i in 0..self.attributes.len() {
            let Attribute { key, value } = self.attributes[i];
            if without.iter().any(|name| name.as_bytes() == key) {
                continue;
            }
            let name = self.label_name(key)?;
            let value = match self.labels.get(&self.texts, name) {
                Some(held) if joins => self.joined(held, b";", value)?,
                _ => value,
            };
            self.labels.set(&self.texts, name, value);
        }
        Ok(())
    }

    /// A name with a suffix.
    pub(super) fn suffixed(&mut self, name: Text, suffix: &str) -> Result<Text, DecodeError> {
        let empty = self.texts.keep(b"");
        self.joined(name, suffix.as_bytes(), empty)
    }

    /// Opens a series with the labels made, under this name.
    fn push_series(&mut self, name: Text) -> Result<(), DecodeError> {
        self.budget.charge(SERIES_BYTES + SAMPLE_BYTES)?;
        self.labels.set(&self.texts, self.words.name, name);
        let start = self.sections.pos();
        self.labels.render(&self.texts, &mut self.sections)?;
        self.builder.push_series(start..self.sections.pos());
        Ok(())
    }

    /// Writes a float sample of the series with the labels made, under this name.
    pub(super) fn push(&mut self, name: Text, at: Times, v: f64) -> Result<(), DecodeError> {
        self.push_series(name)?;
        self.builder.push_sample_with_start_ts(Sample { t: at.t, v }, at.start_t);
        Ok(())
    }

    /// As [`Translator::push`], a histogram.
    pub(super) fn push_native(
        &mut self,
        name: Text,
        at: Times,
        histogram: WriteHistogram,
    ) -> Result<(), DecodeError> {
        self.push_series(name)?;
        self.builder.push_histogram_with_start_ts(at.t, histogram, at.start_t);
        Ok(())
    }

    /// Adds exemplars to the series that was pushed last.
    pub(super) fn push_exemplars(&mut self, exemplars: impl IntoIterator<Item = Exemplar>) {
        exemplars.into_iter().for_each(|e| self.builder.push_exemplar(e));
    }

    /// Notes the time of a point for `target_info`.
    pub(super) fn note_time(&mut self, nanos: u64) {
        let Resource { earliest, latest, .. } = &mut self.resource;
        *earliest = Some(earliest.map_or(nanos, |e| e.min(nanos)));
        *latest = (*latest).max(nanos);
    }
}
