//! The symbols of one request: where each lies in the body, and its hash, computed once however many series name it.

use chronolith_model::write::LabelDictionary;

use super::super::decode::{Budget, DecodeError};
use super::super::label_key::LabelKey;
use super::super::wire::{Cursor, WireType};
use super::Fault;
use super::said::Statements;

/// Two halves, so that a symbol takes 24 bytes and not 32.
#[derive(Clone, Copy, Debug, Default)]
struct Hash([u64; 2]);

impl From<u128> for Hash {
    #[inline(always)]
    fn from(hash: u128) -> Self {
        Hash([hash as u64, (hash >> 64) as u64])
    }
}

impl From<Hash> for u128 {
    #[inline(always)]
    fn from(Hash([low, high]): Hash) -> Self {
        u128::from(high) << 64 | u128::from(low)
    }
}

#[derive(Clone, Copy, Debug)]
struct Symbol {
    hash: Hash,
    start: u32,
    len: u32,
}

/// A symbol as a label's name; 0 until one is asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Name {
    odd: Hash,
    len: u64,
}

/// What a label's own bytes come to when rendered, beside its texts.
const LABEL_BYTES: u64 = 6;

/// The symbols of a request, in memory to use again.
#[derive(Debug, Default)]
pub struct Symbols {
    symbols: Vec<Symbol>,
    /// As many as symbols.
    names: Vec<Name>,
    pub(super) statements: Statements,
}

/// A label: its hash, and its bytes when rendered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label {
    pub(super) hash: u128,
    pub(super) len: u64,
}

/// Which symbols are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// Those before anything else, where every sender has them.
    Leading,
    /// All, wherever they stand.
    Whole,
}

/// What a first look at a request has found.
pub(super) struct Found<'a> {
    /// The number of `__name__`.
    pub(super) name_symbol: u32,
    /// From the first field on that is no symbol.
    pub(super) request: Cursor<'a>,
}

impl Symbols {
    /// Bytes of memory held.
    pub(in super::super) fn capacity_bytes(&self) -> usize {
        (self.symbols.capacity() * size_of::<Symbol>())
            .max(self.names.capacity() * size_of::<Name>())
            .max(self.statements.capacity_bytes())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Finds and hashes the symbols of a request, and enters them in `dictionary`.
    pub(super) fn read<'a>(
        &mut self,
        body: &'a [u8],
        scan: Scan,
        key: &LabelKey,
        budget: &mut Budget,
        dictionary: &mut LabelDictionary,
    ) -> Result<Found<'a>, DecodeError> {
        // The last part is the dictionary's.
        const BYTES: usize =
            size_of::<Symbol>() + size_of::<Name>() + Statements::SYMBOL_BYTES + 2 * size_of::<u32>();
        let mut name_symbol = u32::MAX;
        let mut others = None;
        self.symbols.clear();
        let mut request = Cursor::new(body);
        while !request.is_empty() {
            let before = request;
            match request.key()? {
                (4, wire_type) => {
                    request.expect(wire_type, WireType::Len)?;
                    budget.charge(BYTES)?;
                    let text = request.message()?;
                    let (start, text) = (text.pos() as u32, text.rest());
                    if text == b"__name__" {
                        name_symbol = self.symbols.len() as u32;
                    }
                    let len = text.len() as u32;
                    self.symbols.push(Symbol { hash: key.hash(text).into(), start, len });
                    dictionary.push_symbol(start..start + len);
                }
                (5, WireType::Len) => {
                    others.get_or_insert(before);
                    if scan == Scan::Leading {
                        break;
                    }
                    request.message()?;
                }
                (field, wire_type) => {
                    others.get_or_insert(before);
                    request.skip(field, wire_type)?;
                }
            }
        }
        self.names.clear();
        self.names.resize(self.symbols.len(), Name::default());
        self.statements.start(self.symbols.len());
        Ok(Found { name_symbol, request: others.unwrap_or(request) })
    }

    /// The text of a symbol, empty for one that there is not.
    pub(super) fn text<'a>(&self, body: &'a [u8], symbol: u32) -> Option<&'a [u8]> {
        let at = self.symbols.get(symbol as usize)?;
        Some(&body[at.start as usize..][..at.len as usize])
    }

    /// The hash of a symbol's text.
    pub(super) fn hash(&self, symbol: u32) -> Option<u128> {
        self.symbols.get(symbol as usize).map(|s| s.hash.into())
    }

    /// The label of this name and this value.
    #[inline(always)]
    pub(super) fn label(
        &mut self,
        body: &[u8],
        key: &LabelKey,
        name: u32,
        value: u32,
    ) -> Result<Label, Fault> {
        let named = match self.names.get(name as usize) {
            Some(named) if named.odd.0[0] != 0 => *named,
            _ => self.name(body, key, name)?,
        };
        let Some(value) = self.symbols.get(value as usize) else { return Err(Fault::Reference(value)) };
        let hash = u128::from(named.odd).wrapping_mul(value.hash.into());
        Ok(Label { hash, len: named.len + u64::from(value.len) })
    }

    #[cold]
    fn name(&mut self, body: &[u8], key: &LabelKey, name: u32) -> Result<Name, Fault> {
        let text = self.text(body, name).ok_or(Fault::Reference(name))?;
        let named = Name { odd: key.name(text).into(), len: text.len() as u64 + LABEL_BYTES };
        self.names[name as usize] = named;
        Ok(named)
    }
}
