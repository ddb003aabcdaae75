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
        let mut rest = section;
        while let Some((name, value, behind)) = usual_label(rest) {
            push(buffer, name, value);
            rest = behind;
        }
        for pair in decode_labels(rest) {
            let (name, value) = pair?;
            push(buffer, name.as_bytes(), value.as_bytes());
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

#[inline]
fn push(buffer: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    buffer.extend_from_slice(name);
    buffer.push(SEPARATOR);
    buffer.extend_from_slice(value);
    buffer.push(SEPARATOR);
}

/// The first label's name and value and what is behind it, where it is written as nearly all are: name, value and nothing else,
/// shorter than 128 bytes together. Whether it is UTF-8 is not asked: where it is not, any receiver refuses it, so any place will do.
#[inline]
fn usual_label(section: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let [0x0A, len @ 0..0x80, rest @ ..] = section else { return None };
    let (label, behind) = rest.split_at_checked(usize::from(*len))?;
    let [0x0A, name_len @ 0..0x80, rest @ ..] = label else { return None };
    let (name, rest) = rest.split_at_checked(usize::from(*name_len))?;
    let [0x12, value_len @ 0..0x80, value @ ..] = rest else { return None };
    (value.len() == usize::from(*value_len)).then_some((name, value, behind))
}

#[cfg(test)]
mod tests {
    use chronolith_model::write::encode_labels;

    use super::*;

    #[test]
    fn every_way_to_write_a_label_hashes_alike() {
        let long = "v".repeat(300);
        let labels = [("__name__", "up"), ("a", ""), ("b", long.as_str()), ("c", "d")];
        let mut expected = b"t\xFF".to_vec();
        for (name, value) in labels {
            expected.extend_from_slice(&[name.as_bytes(), b"\xFF", value.as_bytes(), b"\xFF"].concat());
        }
        let mut section = Vec::new();
        encode_labels(labels, &mut section);
        let mut buffer = Vec::new();
        assert_eq!(SeriesHash::of("t", &section, &mut buffer).unwrap(), SeriesHash(xxh64(&expected, 0)));
        assert_eq!(buffer, expected);
        // The value first, an unknown field, lengths in more bytes than needed.
        let same = [
            &b"\x0A\x06\x0A\x01a\x12\x01b"[..],
            b"\x0A\x06\x12\x01b\x0A\x01a",
            b"\x0A\x08\x0A\x01a\x12\x01b\x18\x05",
            b"\x0A\x87\x00\x0A\x81\x00a\x12\x01b",
        ];
        for section in same {
            SeriesHash::of("t", section, &mut buffer).unwrap();
            assert_eq!(buffer, b"t\xFFa\xFFb\xFF");
        }
        for cut in 1..same[0].len() {
            assert!(SeriesHash::of("t", &same[0][..cut], &mut buffer).is_err(), "{cut}");
        }
        assert!(SeriesHash::of("t", b"\x12\x01b", &mut buffer).is_err());
    }
}
