//! The symbols of all inputs as one table.

use rustc_hash::FxHashMap;

use super::MergeError;
use super::input::Input;
use crate::Error;
use crate::index::symbol_bytes;

/// From the symbols of one input to the merged ones.
#[derive(Debug)]
pub(super) enum SymbolMap {
    /// Versions 2 and 3 number their symbols.
    Dense(Vec<u32>),
    /// Version 1 refers to them by position.
    Sparse(FxHashMap<u32, u32>),
}

impl SymbolMap {
    #[inline]
    pub(super) fn get(&self, symbol: u32) -> Option<u32> {
        match self {
            SymbolMap::Dense(map) => map.get(symbol as usize).copied(),
            SymbolMap::Sparse(map) => map.get(&symbol).copied(),
        }
    }

    fn add(&mut self, symbol: u32, merged: u32) {
        match self {
            // Numbers come in order.
            SymbolMap::Dense(map) => map.push(merged),
            SymbolMap::Sparse(map) => drop(map.insert(symbol, merged)),
        }
    }
}

/// The merged table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Union {
    pub(super) count: u32,
    /// Bytes of all entries.
    pub(super) bytes: u64,
    /// The number of the empty string, if there is one.
    pub(super) empty: Option<u32>,
}

/// Merges the tables and fills in the maps of the inputs.
pub(super) fn unite(inputs: &mut [Input]) -> Result<Union, MergeError> {
    let mut union = Union { count: 0, bytes: 0, empty: None };
    let mut maps: Vec<SymbolMap> = inputs
        .iter()
        .map(|i| match i.stream.version() {
            1 => SymbolMap::Sparse(FxHashMap::default()),
            _ => SymbolMap::Dense(Vec::new()),
        })
        .collect();
    each(inputs, |number, text, users| {
        if text.is_empty() {
            union.empty = Some(number);
        }
        union.count = number.checked_add(1).ok_or_else(|| {
            let what = "2^32 distinct strings do not fit the symbol table";
            MergeError::from(Error::Invalid(what.to_owned()))
        })?;
        union.bytes += symbol_bytes(text.len());
        for (input, symbol) in users {
            maps[*input].add(*symbol, number);
        }
        Ok(())
    })?;
    for (input, map) in inputs.iter_mut().zip(maps) {
        input.map = map;
    }
    Ok(union)
}

/// Calls `visit` with the number, the text, and who has it under which own number, for each merged symbol in order.
pub(super) fn each(
    inputs: &[Input],
    mut visit: impl FnMut(u32, &[u8], &[(usize, u32)]) -> Result<(), MergeError>,
) -> Result<(), MergeError> {
    let mut streams = Vec::with_capacity(inputs.len());
    for (i, input) in inputs.iter().enumerate() {
        let mut stream = input.stream.symbols().map_err(MergeError::of(input.id()))?;
        if stream.advance().map_err(MergeError::of(input.id()))? {
            streams.push((i, stream));
        }
    }
    let mut number = 0;
    // Places in `streams`, and the users as the visitor wants them.
    let (mut least, mut users) = (Vec::new(), Vec::new());
    while !streams.is_empty() {
        least.clear();
        for at in 0..streams.len() {
            let order = match least.first() {
                None => std::cmp::Ordering::Less,
                Some(&first) => {
                    let (_, stream): &(usize, crate::index::SymbolStream) = &streams[at];
                    stream.text().cmp(streams[first as usize].1.text())
                }
            };
            if order.is_lt() {
                least.clear();
            }
            if order.is_le() {
                least.push(at as u32);
            }
        }
        users.clear();
        users.extend(least.iter().map(|at| {
            let (input, stream) = &streams[*at as usize];
            (*input, stream.reference())
        }));
        visit(number, streams[least[0] as usize].1.text(), &users)?;
        number = number.wrapping_add(1);
        for at in least.iter().rev() {
            let (input, stream) = &mut streams[*at as usize];
            if !stream.advance().map_err(MergeError::of(inputs[*input].id()))? {
                streams.remove(*at as usize);
            }
        }
    }
    Ok(())
}
