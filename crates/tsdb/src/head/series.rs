//! One series of the head: two cache lines.
//!
//! The first line decides about a sample (the last sample, when the chunk ends, whose series this is), the second
//! takes its bits. Labels, complete chunks and out-of-order samples lie elsewhere and are not touched by an append.

use chronolith_chunk::{Chunk, Encoding, WordSink, XorState};

use super::fragments::{FRAGMENT_WORDS, Fragments, NO_FRAGMENT};
use super::section::Fingerprint;
use super::segments::{ChunkAt, Copies, Segments};

/// Samples that a chunk aims at; twice as many end it in any case. Prometheus's numbers, so that blocks hold the
/// chunks that Prometheus's would.
const SAMPLES_PER_CHUNK: usize = 120;
/// Bytes that end a chunk: 1,024 less what one more sample may take.
const CHUNK_BYTES_MAX: usize = 1024 - 19;

pub(crate) const LIVE: u8 = 1;
/// The shard holds out-of-order samples of the series.
pub(crate) const HAS_OUT_OF_ORDER: u8 = 2;
/// The shard holds the series' growing chunk, see [`super::growing`]; the series itself then holds none.
pub(crate) const GROWS_BESIDE: u8 = 8;

/// A complete chunk may reach into the growing one: it was completed for a cut of everything, which bars no times.
pub(crate) const MAY_OVERLAP: u8 = 4;

#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Series {
    /// The growing chunk; without samples there is none.
    pub(crate) xor: XorState,
    pub(crate) fp: Fingerprint,
    /// When the growing chunk ends.
    pub(crate) next_at: i64,
    /// First sample of the growing chunk.
    pub(crate) mint: i64,
    /// The newest complete chunk.
    pub(crate) last_chunk: ChunkAt,
    /// Place of the labels in the shard's arena.
    pub(crate) labels: u32,
    /// The growing chunk's newest fragment.
    pub(crate) fragment: u32,
    pub(crate) fragments: u8,
    tail_words: u8,
    pub(crate) flags: u8,
    /// Words of the growing chunk behind its fragments.
    tail: [u64; FRAGMENT_WORDS],
}

const _: () = assert!(size_of::<Series>() == 128, "a series is two cache lines");

/// Takes the whole words of a growing chunk.
struct Sink<'a> {
    fragments: &'a mut Fragments,
    fragment: &'a mut u32,
    count: &'a mut u8,
    tail: &'a mut [u64; FRAGMENT_WORDS],
    tail_words: &'a mut u8,
}

impl WordSink for Sink<'_> {
    #[inline]
    fn push_word(&mut self, word: u64) {
        if usize::from(*self.tail_words) == FRAGMENT_WORDS {
            *self.fragment = self.fragments.push(*self.fragment, self.tail);
            *self.count += 1;
            *self.tail_words = 0;
        }
        self.tail[usize::from(*self.tail_words) % FRAGMENT_WORDS] = word;
        *self.tail_words += 1;
    }
}

/// End of the block range that `t` lies in. Truncates toward zero as Prometheus does, so ranges before 1970 are
/// skewed, the same way everywhere.
pub(crate) fn range_end(t: i64, range: i64) -> i64 {
    (t / range).saturating_mul(range).saturating_add(range)
}

/// Spreads the rest of the range evenly, once a quarter of a chunk shows the rate of samples.
fn chunk_end(start: i64, current: i64, max: i64) -> i64 {
    let span = current.saturating_sub(start).saturating_add(1).saturating_mul(4);
    let chunks = max.saturating_sub(start) / span;
    if chunks <= 1 { max } else { start + (max - start) / chunks }
}

/// What decides when a chunk of floats ends.
pub(crate) struct FloatEnd {
    pub(crate) samples: usize,
    pub(crate) bytes: usize,
}

impl FloatEnd {
    /// When the chunk from `mint` to `last` ends, as far as that is known.
    #[inline]
    pub(crate) fn next_at(&self, mint: i64, last: i64, next_at: i64) -> i64 {
        if self.samples == SAMPLES_PER_CHUNK / 4 { chunk_end(mint, last, next_at) } else { next_at }
    }

    /// True when a sample at `t` begins another chunk.
    #[inline]
    pub(crate) fn is_full(&self, t: i64, next_at: i64) -> bool {
        t >= next_at || self.samples >= 2 * SAMPLES_PER_CHUNK || self.bytes > CHUNK_BYTES_MAX
    }
}

impl Series {
    pub(crate) fn dead() -> Self {
        Series {
            xor: XorState::new(),
            fp: Fingerprint::default(),
            next_at: 0,
            mint: 0,
            last_chunk: ChunkAt::NONE,
            labels: 0,
            fragment: NO_FRAGMENT,
            fragments: 0,
            tail_words: 0,
            flags: 0,
            tail: [0; FRAGMENT_WORDS],
        }
    }

    pub(crate) fn new(fp: Fingerprint, labels: u32) -> Self {
        Series { fp, labels, flags: LIVE, ..Series::dead() }
    }

    #[inline]
    pub(crate) fn is_live(&self) -> bool {
        self.flags & LIVE != 0
    }

    /// Time and value of the newest sample in order, while its chunk is still growing and one of floats.
    #[inline]
    pub(crate) fn last(&self) -> Option<(i64, f64)> {
        (self.xor.sample_count() > 0).then(|| (self.xor.last_t(), self.xor.last_v()))
    }

    /// True when the series has no sample.
    pub(crate) fn holds_nothing(&self) -> bool {
        self.xor.sample_count() == 0
            && self.last_chunk == ChunkAt::NONE
            && self.flags & (HAS_OUT_OF_ORDER | GROWS_BESIDE) == 0
    }

    /// Appends a sample that is newer than the last one. True when it began a chunk.
    #[inline]
    pub(crate) fn append(
        &mut self,
        t: i64,
        v: f64,
        range: i64,
        fragments: &mut Fragments,
        segments: &mut Segments,
    ) -> bool {
        let end = FloatEnd { samples: self.xor.sample_count(), bytes: self.xor.bytes_len() };
        self.next_at = end.next_at(self.mint, self.xor.last_t(), self.next_at);
        let begins = end.samples == 0 || end.is_full(t, self.next_at);
        if begins {
            self.complete(fragments, segments);
            self.next_at = range_end(t, range);
            self.mint = t;
        }
        let mut sink = Sink {
            fragments,
            fragment: &mut self.fragment,
            count: &mut self.fragments,
            tail: &mut self.tail,
            tail_words: &mut self.tail_words,
        };
        self.xor.append(&mut sink, t, v);
        begins
    }

    /// Moves the growing chunk into the segments.
    #[cold]
    pub(crate) fn complete(&mut self, fragments: &mut Fragments, segments: &mut Segments) {
        if self.xor.sample_count() > 0 {
            let range = (self.mint, self.xor.last_t());
            self.last_chunk =
                segments.push(self.last_chunk, range, Encoding::Xor, self.xor.bytes_len() + 8, |out| {
                    self.write_growing(fragments, out)
                });
        } else if self.last_chunk != ChunkAt::NONE {
            self.flags |= MAY_OVERLAP;
        }
        self.drop_growing(fragments);
    }

    /// Moves a chunk that grew beside the series into the segments.
    pub(crate) fn store(&mut self, chunk: &Chunk, segments: &mut Segments) {
        let range = (chunk.mint, chunk.maxt);
        self.last_chunk = segments.push(self.last_chunk, range, chunk.encoding, chunk.data.len(), |out| {
            out.extend_from_slice(&chunk.data);
        });
    }

    /// Forgets the growing chunk.
    pub(crate) fn drop_growing(&mut self, fragments: &mut Fragments) {
        fragments.free(self.fragment, usize::from(self.fragments));
        self.xor = XorState::new();
        self.fragment = NO_FRAGMENT;
        self.fragments = 0;
        self.tail_words = 0;
    }

    fn write_growing(&self, fragments: &Fragments, out: &mut Vec<u8>) {
        let start = out.len();
        self.write_words(fragments, out);
        self.xor.finish_at(out, start);
    }

    /// The whole words of the growing chunk.
    pub(crate) fn write_words(&self, fragments: &Fragments, out: &mut Vec<u8>) {
        fragments.read(self.fragment, usize::from(self.fragments), out);
        for word in &self.tail[..usize::from(self.tail_words)] {
            out.extend_from_slice(&word.to_be_bytes());
        }
    }

    /// Takes up a growing chunk from a snapshot.
    pub(crate) fn resume(
        &mut self,
        xor: XorState,
        words: &[u8],
        mint: i64,
        next_at: i64,
        fragments: &mut Fragments,
    ) {
        self.xor = xor;
        self.mint = mint;
        self.next_at = next_at;
        let mut sink = Sink {
            fragments,
            fragment: &mut self.fragment,
            count: &mut self.fragments,
            tail: &mut self.tail,
            tail_words: &mut self.tail_words,
        };
        for word in words.chunks_exact(8) {
            sink.push_word(u64::from_be_bytes(word.try_into().expect("eight bytes")));
        }
    }

    /// A chunk of the newest sample alone, where that is known without reading what lies elsewhere.
    pub(crate) fn newest(&self, copies: &mut Copies) -> Option<Chunk> {
        let (t, v) = self.last().filter(|_| self.flags & (MAY_OVERLAP | HAS_OUT_OF_ORDER) == 0)?;
        let data = copies.write(|words| {
            let mut one = XorState::new();
            one.append(words, t, v);
            one.finish(words);
        });
        Some(Chunk { mint: t, maxt: t, encoding: Encoding::Xor, data })
    }

    /// The growing chunk as it is now.
    pub(crate) fn growing(&self, fragments: &Fragments, copies: &mut Copies) -> Option<Chunk> {
        let (maxt, _) = self.last()?;
        let data = copies.write(|words| {
            self.write_words(fragments, words);
            self.xor.finish(words);
        });
        Some(Chunk { mint: self.mint, maxt, encoding: Encoding::Xor, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(s: &Series, f: &Fragments, g: &Segments) -> Vec<Chunk> {
        let mut out: Vec<Chunk> = s.growing(f, &mut Copies::default()).into_iter().collect();
        let mut at = s.last_chunk;
        while let Some(stored) = g.stored(at) {
            out.push(g.chunk(at, &stored, &mut Copies::default()).unwrap());
            at = stored.previous;
        }
        out.reverse();
        out
    }

    #[test]
    fn chunks_are_cut_as_prometheus_cuts_them() {
        let (mut f, mut g) = (Fragments::default(), Segments::default());
        let range = 7_200_000;
        let mut s = Series::new(Fingerprint::default(), 0);
        // 15 s scrapes: four chunks of 120 samples in 2 h, and the next range begins a fifth.
        for i in 0..481 {
            s.append(i * 15_000, i as f64 * 1.1, range, &mut f, &mut g);
        }
        let counts: Vec<_> = chunks(&s, &f, &g).iter().map(|c| c.sample_count().unwrap()).collect();
        assert_eq!(counts, [120, 120, 120, 120, 1]);
        let all: Vec<_> = chunks(&s, &f, &g)
            .iter()
            .flat_map(|c| c.iter().unwrap().map(Result::unwrap).collect::<Vec<_>>())
            .collect();
        assert_eq!(all.len(), 481);
        assert!(all.iter().enumerate().all(|(i, (t, v))| *t == i as i64 * 15_000
            && *v == chronolith_model::SampleValue::Float(i as f64 * 1.1)));

        // Incompressible values end a chunk by its size.
        let mut s = Series::new(Fingerprint::default(), 0);
        for i in 0..400i64 {
            let v = f64::from_bits((i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 2);
            s.append(i * 1000 + i % 7, v, range, &mut f, &mut g);
        }
        assert!(chunks(&s, &f, &g).iter().all(|c| c.data.len() <= 1024));

        // Other rates are spread evenly, a little below the aim.
        let mut s = Series::new(Fingerprint::default(), 0);
        for i in 0..7200 {
            s.append(i * 1000, 1.0, range, &mut f, &mut g);
        }
        let counts: Vec<_> = chunks(&s, &f, &g).iter().map(|c| c.sample_count().unwrap()).collect();
        assert!(counts.len() == 61 && counts.iter().all(|c| (110..=120).contains(c)), "{counts:?}");
    }

    #[test]
    fn ranges_are_prometheus_s() {
        assert_eq!(
            [range_end(0, 10), range_end(9, 10), range_end(10, 10), range_end(-5, 10)],
            [10, 10, 20, 10]
        );
        assert_eq!(range_end(i64::MIN, 7_200_000) % 7_200_000, 0);
    }
}
