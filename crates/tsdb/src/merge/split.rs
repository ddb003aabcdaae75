//! Whether one index can hold the result, and where to cut if not.
//!
//! Nearly always it can, which the sizes of the inputs tell at once. Otherwise the series are gone through without chunks, and
//! a part ends before the series that would make it too large: the entries of the inputs (the merged one is not longer than all
//! of them), four bytes for each posting, and every string twice, once as a symbol and once in the postings offset table.

use super::input::SeriesMerge;
use super::symbols::{Union, each};
use super::{IndexLimits, MergeError};
use crate::index::{SERIES_ALIGN, symbol_bytes};

/// A run of series that goes into one block.
#[derive(Debug)]
pub(super) struct Part {
    /// How many series, at the most.
    pub(super) series_max: u64,
    /// Symbols that they use and bytes of these entries.
    pub(super) symbols: Symbols,
}

/// The symbols of a part.
#[derive(Debug)]
pub(super) enum Symbols {
    /// All merged ones: their number and bytes.
    All(u32, u64),
    /// Those whose bit is set.
    Some(Vec<u64>),
}

impl Symbols {
    pub(super) fn contains(&self, symbol: u32) -> bool {
        match self {
            Symbols::All(..) => true,
            Symbols::Some(bits) => bits[symbol as usize / 64] >> (symbol % 64) & 1 == 1,
        }
    }
}

/// What lists and tables take beside what is counted for each of them.
const FIXED_BYTES: u64 = 4 << 10;

pub(super) fn plan(
    merge: &mut SeriesMerge,
    union: &Union,
    limits: &IndexLimits,
) -> Result<Vec<Part>, MergeError> {
    let index_bytes: u64 = merge.inputs.iter().map(|i| i.stream.bytes_len()).sum();
    if union.bytes <= limits.symbols_bytes_max && index_bytes <= limits.index_bytes_max {
        return Ok(vec![Part { series_max: u64::MAX, symbols: Symbols::All(union.count, union.bytes) }]);
    }
    let mut symbol_sizes = Vec::with_capacity(union.count as usize);
    each(&merge.inputs, |_, text, _| {
        symbol_sizes.push(symbol_bytes(text.len()) as u32);
        Ok(())
    })?;
    let words = (union.count as usize).div_ceil(64);
    let mut parts = Vec::new();
    let (mut bits, mut series, mut symbols, mut bytes) = (vec![0u64; words], 0, 0, FIXED_BYTES);
    let mut fresh = Vec::new();
    while merge.advance()? {
        let entries = merge.current.iter().map(|at| merge.inputs[*at].entry_bytes as u64);
        let own = entries.sum::<u64>().next_multiple_of(SERIES_ALIGN) + 4 * merge.labels().len() as u64 + 4;
        loop {
            fresh.clear();
            let used = merge.labels().iter().flat_map(|(name, value)| [*name, *value]);
            fresh.extend(used.filter(|s| bits[*s as usize / 64] >> (s % 64) & 1 == 0));
            let added: u64 = fresh.iter().map(|s| u64::from(symbol_sizes[*s as usize])).sum();
            let fits = symbols + added <= limits.symbols_bytes_max
                && bytes + own + 2 * added + 24 * fresh.len() as u64 <= limits.index_bytes_max;
            if fits || series == 0 {
                symbols += added;
                bytes += own + 2 * added + 24 * fresh.len() as u64;
                break;
            }
            let used = std::mem::replace(&mut bits, vec![0; words]);
            parts.push(Part { series_max: series, symbols: Symbols::Some(used) });
            (series, symbols, bytes) = (0, 0, FIXED_BYTES);
        }
        for symbol in &fresh {
            bits[*symbol as usize / 64] |= 1 << (symbol % 64);
        }
        series += 1;
    }
    if series > 0 {
        parts.push(Part { series_max: series, symbols: Symbols::Some(bits) });
    }
    merge.rewind();
    Ok(parts)
}
