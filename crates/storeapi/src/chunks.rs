//! The order of chunks within a series, and the removal of doubles.

use std::cmp::Ordering;

use chronolith_chunk::Chunk;

use crate::AggrChunk;

/// Sorts by time and drops chunks that are equal to the byte, as two replicas of a store send them.
pub fn sort_and_dedup(chunks: &mut Vec<AggrChunk>) {
    if chunks.windows(2).all(|w| (w[0].mint(), w[0].maxt()) < (w[1].mint(), w[1].maxt())) {
        return;
    }
    // Equal chunks must become neighbours, so bytes decide among those of equal time.
    chunks.sort_by(compare);
    chunks.dedup_by(|b, a| compare(a, b) == Ordering::Equal);
}

fn compare(a: &AggrChunk, b: &AggrChunk) -> Ordering {
    (a.mint(), a.maxt()).cmp(&(b.mint(), b.maxt())).then_with(|| match (a, b) {
        (AggrChunk::Raw(a), AggrChunk::Raw(b)) => compare_data(a, b),
        (AggrChunk::Raw(_), AggrChunk::Downsampled(_)) => Ordering::Less,
        (AggrChunk::Downsampled(_), AggrChunk::Raw(_)) => Ordering::Greater,
        (AggrChunk::Downsampled(a), AggrChunk::Downsampled(b)) => {
            for (a, b) in a.parts.iter().zip(&b.parts) {
                let order = match (a, b) {
                    (Some(a), Some(b)) => compare_data(a, b),
                    (a, b) => a.is_some().cmp(&b.is_some()),
                };
                if order != Ordering::Equal {
                    return order;
                }
            }
            Ordering::Equal
        }
    })
}

fn compare_data(a: &Chunk, b: &Chunk) -> Ordering {
    a.encoding.as_u8().cmp(&b.encoding.as_u8()).then_with(|| a.data.cmp(&b.data))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chronolith_chunk::Encoding;

    use super::*;

    #[test]
    fn equal_chunks_go_even_when_another_lies_between() {
        let chunk = |mint, maxt, data: &'static [u8]| {
            AggrChunk::Raw(Chunk { mint, maxt, encoding: Encoding::Xor, data: Bytes::from_static(data) })
        };
        let mut chunks = vec![chunk(5, 9, b"z"), chunk(0, 9, b"a"), chunk(0, 9, b"b"), chunk(0, 9, b"a")];
        sort_and_dedup(&mut chunks);
        assert_eq!(chunks, [chunk(0, 9, b"a"), chunk(0, 9, b"b"), chunk(5, 9, b"z")]);
    }
}
