//! Ascending series references in few bytes, for caches outside of the process: differences as varints.

use bytes::{BufMut, Bytes, BytesMut};

/// `head`, the number of references, and their differences.
pub(crate) fn encode(head: &[u8], refs: &[u32]) -> Bytes {
    let mut out = BytesMut::with_capacity(head.len() + 5 + 2 * refs.len());
    out.put_slice(head);
    put(&mut out, u32::try_from(refs.len()).unwrap_or(u32::MAX));
    let mut last = 0u32;
    for r in refs {
        put(&mut out, r.wrapping_sub(last));
        last = *r;
    }
    out.freeze()
}

/// What [`encode`] made of references, without the head. `None` for anything else.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Vec<u32>> {
    let count = take(&mut bytes)? as usize;
    // Each takes a byte at least.
    if count > bytes.len() {
        return None;
    }
    let mut out = Vec::with_capacity(count);
    let mut last = 0u32;
    for _ in 0..count {
        last = last.checked_add(take(&mut bytes)?)?;
        out.push(last);
    }
    bytes.is_empty().then_some(out)
}

fn put(out: &mut BytesMut, mut n: u32) {
    while n >= 0x80 {
        out.put_u8(n as u8 | 0x80);
        n >>= 7;
    }
    out.put_u8(n as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u32> {
    let mut n = 0u64;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        n |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(n).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn references_round_trip(mut refs in proptest::collection::vec(any::<u32>(), 0..200)) {
            refs.sort_unstable();
            prop_assert_eq!(decode(&encode(&[], &refs)), Some(refs.clone()));
            prop_assert_eq!(decode(&encode(&[7], &refs)[1..]), Some(refs));
        }

        #[test]
        fn other_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes);
        }
    }
}
