//! Exemplars of OTLP points.
//!
//! ```text
//! Exemplar { 2: time, 3: double, 4: span id, 5: trace id, 6: int, 7: attribute* }
//! ```

use chronolith_model::{Exemplar, LabelsBuilder};

use super::points::millis;
use super::translate::Translator;
use super::value::attribute;
use crate::remote_write::{Cursor, DecodeError, WireType};

/// Characters that an exemplar's labels may have; attributes beyond are left out, ids stay.
const CHARS_MAX: usize = 128;

impl<'a> Translator<'a> {
    /// Reads a point's exemplars. One whose labels are no text is counted and left out.
    pub(super) fn exemplars(&mut self, messages: &[Cursor<'a>]) -> Result<Vec<Exemplar>, DecodeError> {
        let mut out = Vec::with_capacity(messages.len());
        for message in messages {
            match self.exemplar(*message)? {
                Some(exemplar) => out.push(exemplar),
                None => self.drop_exemplar(),
            }
        }
        Ok(out)
    }

    fn exemplar(&mut self, mut message: Cursor<'a>) -> Result<Option<Exemplar>, DecodeError> {
        let (mut value, mut time) = (None, 0);
        let (mut span, mut trace): (&[u8], &[u8]) = (&[], &[]);
        let mut attributes = Vec::new();
        while !message.is_empty() {
            let (field, wire_type) = message.key()?;
            let want = match field {
                2 | 3 | 6 => WireType::Fixed64,
                4 | 5 | 7 => WireType::Len,
                _ => {
                    message.skip(field, wire_type)?;
                    continue;
                }
            };
            message.expect(wire_type, want)?;
            match field {
                2 => time = message.fixed64()?,
                3 => value = Some(message.double()?),
                6 => value = Some(message.fixed64()? as i64 as f64),
                4 => span = message.message()?.rest(),
                5 => trace = message.message()?.rest(),
                _ => attributes.push(attribute(message.message()?, &mut self.texts, &mut self.budget)?),
            }
        }
        let mut labels = LabelsBuilder::new();
        let mut chars = 0;
        for (name, id) in [("trace_id", trace), ("span_id", span)] {
            if id.iter().any(|b| *b != 0) {
                chars += name.len() + 2 * id.len();
                self.budget.charge(name.len() + 2 * id.len())?;
                labels.add(name, &hex(id));
            }
        }
        let mut pairs = Vec::with_capacity(attributes.len());
        for one in &attributes {
            let value = self.texts.bytes(one.value);
            let (Ok(key), Ok(value)) = (std::str::from_utf8(one.key), std::str::from_utf8(value)) else {
                return Ok(None);
            };
            chars += key.chars().count() + value.chars().count();
            pairs.push((key, value));
        }
        if chars <= CHARS_MAX {
            self.budget.charge(pairs.iter().map(|(k, v)| k.len() + v.len()).sum())?;
            for (key, value) in pairs {
                labels.add(key, value);
            }
        }
        let (Ok(labels), Some(value)) = (labels.try_build(), value) else { return Ok(None) };
        Ok(Some(Exemplar { labels, value, t: millis(time) }))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
