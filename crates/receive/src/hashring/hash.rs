//! The hash of a series: xxhash64 over the tenant and the labels in the order in which they were sent, each part followed by
//! 0xFF. The order is the sender's, not ours: Thanos hashes what it gets.

use chronolith_model::write::{LabelSectionError, decode_labels};
use xxhash_rust::xxh64::{Xxh64, xxh64};

const SEPARATOR: u8 = 0xFF;

/// A series' place on every ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesHash(pub u64);

impl SeriesHash {
    /// Hash of a series by its label section (see `chronolith_model::write`). `buffer` is scratch space.
    pub fn of(tenant: &str, section: &[u8], buffer: &mut Vec<u8>) -> Result<Self, LabelSectionError> {
        buffer.clear();
        buffer.extend_from_slice(tenant.as_bytes());
        buffer.push(SEPARATOR);
        for pair in decode_labels(section) {
            let (name, value) = pair?;
            buffer.extend_from_slice(name.as_bytes());
            buffer.push(SEPARATOR);
            buffer.extend_from_slice(value.as_bytes());
            buffer.push(SEPARATOR);
        }
        Ok(SeriesHash(xxh64(buffer, 0)))
    }

    /// Hash of a series whose labels cannot be read: any receiver will refuse it, so any place will do.
    pub fn of_malformed(tenant: &str, section: &[u8]) -> Self {
        let mut state = Xxh64::new(0);
        state.update(tenant.as_bytes());
        state.update(section);
        SeriesHash(state.digest())
    }
}
