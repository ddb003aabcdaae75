//! What a resource and a scope add to the labels of their points, worked out once for all of them.

use super::labels::{LabelSet, Text, Texts};
use super::names;
use super::translate::{Fault, Translator};
use super::value::{Attribute, attribute};
use crate::remote_write::{Cursor, DecodeError, WireType};

/// What a resource adds to its points.
#[derive(Default)]
pub(super) struct Resource<'a> {
    pub(super) attributes: Vec<Attribute<'a>>,
    pub(super) promoted: LabelSet,
    pub(super) job: Option<Text>,
    pub(super) instance: Option<Text>,
    /// Nanoseconds of its first and last point.
    pub(super) earliest: Option<u64>,
    pub(super) latest: u64,
}

/// What a scope adds to its points.
#[derive(Default)]
pub(super) struct Scope {
    pub(super) labels: LabelSet,
    /// Labels that are empty take away what an attribute has set.
    pub(super) removes: Vec<Text>,
}

impl<'a> Translator<'a> {
    /// Reads the attributes of a `ResourceMetrics`.
    pub(super) fn read_resource(&mut self, mut message: Cursor<'a>) -> Result<(), DecodeError> {
        self.resource.attributes.clear();
        while !message.is_empty() {
            let (field, wire_type) = message.key()?;
            if field != 1 {
                message.skip(field, wire_type)?;
                continue;
            }
            message.expect(wire_type, WireType::Len)?;
            let mut resource = message.message()?;
            while !resource.is_empty() {
                match resource.key()? {
                    (1, wire_type) => {
                        resource.expect(wire_type, WireType::Len)?;
                        let one = attribute(resource.message()?, &mut self.texts, &mut self.budget)?;
                        self.resource.attributes.push(one);
                    }
                    (field, wire_type) => resource.skip(field, wire_type)?,
                }
            }
        }
        Ok(())
    }

    /// Works out what the resource adds to its points.
    pub(super) fn set_resource(&mut self) -> Result<(), Fault> {
        (self.resource.earliest, self.resource.latest) = (None, 0);
        self.resource.promoted.clear();
        let attributes = std::mem::take(&mut self.resource.attributes);
        let find = |key: &str| attributes.iter().find(|a| a.key == key.as_bytes()).map(|a| a.value);
        self.resource.job = match (find("service.name"), find("service.namespace")) {
            (Some(name), Some(namespace)) => Some(self.joined(namespace, b"/", name)?),
            (name, _) => name,
        };
        self.resource.instance = find("service.instance.id");
        let mut result = Ok(());
        for Attribute { key, value } in &attributes {
            if !self.settings.promotes(&String::from_utf8_lossy(key)) {
                continue;
            }
            match self.label_name(key) {
                Ok(name) => self.resource.promoted.set(&self.texts, name, *value),
                Err(fault) => result = Err(fault),
            }
        }
        self.resource.attributes = attributes;
        result
    }

    /// Works out what the scope adds to its points.
    pub(super) fn set_scope(&mut self, mut message: Cursor<'a>) -> Result<(), Fault> {
        self.scope.labels.clear();
        self.scope.removes.clear();
        if !self.settings.promote_scope_metadata {
            return Ok(());
        }
        let empty = self.texts.keep(b"");
        let (mut of_scope, mut attributes) = ([empty; 3], Vec::new());
        while !message.is_empty() {
            let (field, wire_type) = message.key()?;
            if !matches!(field, 1 | 3) {
                message.skip(field, wire_type)?;
                continue;
            }
            message.expect(wire_type, WireType::Len)?;
            let start = message.pos();
            let mut scope = message.message()?;
            if field == 3 {
                of_scope[2] = Texts::of_body(start, message.pos());
                continue;
            }
            while !scope.is_empty() {
                let (field, wire_type) = scope.key()?;
                if !matches!(field, 1..=3) {
                    scope.skip(field, wire_type)?;
                    continue;
                }
                scope.expect(wire_type, WireType::Len)?;
                let start = scope.pos();
                let inner = scope.message()?;
                match field {
                    3 => attributes.push(attribute(inner, &mut self.texts, &mut self.budget)?),
                    _ => of_scope[field as usize - 1] = Texts::of_body(start, scope.pos()),
                }
            }
        }
        if self.texts.bytes(of_scope[0]).is_empty() {
            return Ok(());
        }
        for Attribute { key, value } in attributes {
            let key = format!("otel_scope_{}", String::from_utf8_lossy(key));
            let name = names::label_name(&key, self.settings).map_err(Fault::Refused)?;
            self.budget.charge(name.len() + 10)?;
            let name = self.texts.keep(name.as_bytes());
            self.scope.labels.set(&self.texts, name, value);
        }
        for (name, value) in self.words.scope.into_iter().zip(of_scope) {
            if self.texts.bytes(value).is_empty() {
                self.scope.removes.push(name);
            }
            self.scope.labels.set(&self.texts, name, value);
        }
        Ok(())
    }
}
