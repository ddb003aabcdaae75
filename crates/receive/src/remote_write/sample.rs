//! A float sample, as both versions of remote write have it: `Sample { 1: value, 2: time, 3: start (2.0) }`.

use chronolith_model::Sample;

use super::wire::{Cursor, WireError, WireType};

/// Reads a sample, and since when it counts where `STARTED`: milliseconds, 0 when unknown.
#[inline(always)]
pub(super) fn read<const STARTED: bool>(mut message: Cursor<'_>) -> Result<(Sample, i64), WireError> {
    let (mut sample, mut start_t) = (Sample { t: 0, v: 0.0 }, 0);
    // The form that every sender writes.
    if message.take_byte(0x09) {
        sample.v = message.double()?;
        if message.take_byte(0x10) {
            sample.t = message.varint()? as i64;
        }
    }
    while !message.is_empty() {
        match message.key()? {
            (1, wire_type) => {
                message.expect(wire_type, WireType::Fixed64)?;
                sample.v = message.double()?;
            }
            (2, wire_type) => {
                message.expect(wire_type, WireType::Varint)?;
                sample.t = message.varint()? as i64;
            }
            (3, wire_type) if STARTED => {
                message.expect(wire_type, WireType::Varint)?;
                start_t = message.varint()? as i64;
            }
            (field, wire_type) => message.skip(field, wire_type)?,
        }
    }
    Ok((sample, start_t))
}
