//! Index files with the damage that bugs and bad disks have left: checksums are right, what they cover is not.
//!
//! Works on the bytes of Prometheus's index format; only the first series is touched, and nothing moves.

use std::ops::Range;

/// The first series of an index, taken apart.
struct First {
    /// Where it begins, its length included, and where the next one does.
    place: Range<usize>,
    /// The bytes of the entry without its chunks.
    labels: Vec<u8>,
    /// First and last time, and reference.
    chunks: Vec<(i64, i64, u64)>,
}

const TOC_BYTES: usize = 52;
const SERIES_ALIGNMENT: usize = 16;

/// Where the entry of the first series lies, without its length and its checksum, and the place of all of it.
fn first_entry(index: &[u8]) -> (Range<usize>, Range<usize>) {
    let toc = index.len() - TOC_BYTES;
    let series = u64::from_be_bytes(index[toc + 8..toc + 16].try_into().expect("eight bytes")) as usize;
    let begin = series.next_multiple_of(SERIES_ALIGNMENT);
    let mut at = begin;
    let len = get_uvarint(index, &mut at) as usize;
    (at..at + len, begin..(at + len + 4).next_multiple_of(SERIES_ALIGNMENT))
}

/// The first series' first label name becomes a symbol that is not there.
pub fn index_over_symbols(index: &mut [u8]) {
    let (entry, _) = first_entry(index);
    // The number of labels is one byte, and so is the number of a symbol of a handful.
    index[entry.start + 1] = 0x7F;
    let crc = crc32c(&index[entry.clone()]);
    index[entry.end..entry.end + 4].copy_from_slice(&crc.to_be_bytes());
}

/// Turns round the two chunks of the first series: what an old bug of Prometheus left. False, and nothing done, when the longer entry
/// does not fit into the padding behind the old one.
pub fn turn_chunks_round(index: &mut [u8]) -> bool {
    let mut first = First::read(index);
    assert_eq!(first.chunks.len(), 2, "a series of two chunks");
    first.chunks.reverse();
    first.write(index)
}

/// Names the last chunk of the first series twice. False, and nothing done, when there is no room for it.
pub fn name_chunk_twice(index: &mut [u8]) -> bool {
    let mut first = First::read(index);
    first.chunks.extend(first.chunks.last().copied());
    first.write(index)
}

impl First {
    fn read(index: &[u8]) -> Self {
        let (entry, place) = first_entry(index);
        let mut at = entry.start;
        for _ in 0..2 * get_uvarint(index, &mut at) {
            get_uvarint(index, &mut at);
        }
        let labels = index[entry.start..at].to_vec();
        let mut chunks: Vec<(i64, i64, u64)> = Vec::new();
        for _ in 0..get_uvarint(index, &mut at) {
            let (mint, reference) = match chunks.last() {
                None => (get_varint(index, &mut at), 0),
                Some((_, maxt, reference)) => (maxt + get_uvarint(index, &mut at) as i64, *reference),
            };
            let maxt = mint + get_uvarint(index, &mut at) as i64;
            let reference = match chunks.is_empty() {
                true => get_uvarint(index, &mut at),
                false => reference.wrapping_add_signed(get_varint(index, &mut at)),
            };
            chunks.push((mint, maxt, reference));
        }
        First { place, labels, chunks }
    }

    fn write(&self, index: &mut [u8]) -> bool {
        let mut entry = self.labels.clone();
        put_uvarint(&mut entry, self.chunks.len() as u64);
        let mut before: Option<(i64, u64)> = None;
        for (mint, maxt, reference) in &self.chunks {
            match before {
                None => put_varint(&mut entry, *mint),
                Some((end, _)) => put_uvarint(&mut entry, mint.wrapping_sub(end) as u64),
            }
            put_uvarint(&mut entry, (maxt - mint) as u64);
            match before {
                None => put_uvarint(&mut entry, *reference),
                Some((_, last)) => put_varint(&mut entry, *reference as i64 - last as i64),
            }
            before = Some((*maxt, *reference));
        }
        let mut out = Vec::new();
        put_uvarint(&mut out, entry.len() as u64);
        out.extend(&entry);
        out.extend(crc32c(&entry).to_be_bytes());
        if out.len() > self.place.len() {
            return false;
        }
        out.resize(self.place.len(), 0);
        index[self.place.clone()].copy_from_slice(&out);
        true
    }
}

fn put_uvarint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn put_varint(out: &mut Vec<u8>, v: i64) {
    put_uvarint(out, ((v << 1) ^ (v >> 63)) as u64);
}

fn get_uvarint(bytes: &[u8], at: &mut usize) -> u64 {
    let (mut v, mut shift) = (0, 0);
    loop {
        let byte = bytes[*at];
        *at += 1;
        v |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return v;
        }
    }
}

fn get_varint(bytes: &[u8], at: &mut usize) -> i64 {
    let v = get_uvarint(bytes, at);
    (v >> 1) as i64 ^ -((v & 1) as i64)
}

/// Castagnoli, bit by bit: an index's entry is short.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }
}
