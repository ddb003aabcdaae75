//! Mutations without guidance, for the short run of `cargo test`.

/// A small generator of random numbers (xorshift64*): the same seed gives the same inputs on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Random(seed.max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`; 0 for 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() >> 16) as usize % n }
    }
}

/// An input made from those there are by a few cuts, repeats, splices, words and flipped bits.
pub fn input(random: &mut Random, seeds: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let mut out = seeds.get(random.below(seeds.len())).cloned().unwrap_or_default();
    for _ in 0..=random.below(4) {
        let at = random.below(out.len() + 1);
        let to = (at + random.below(16)).min(out.len());
        match random.below(6) {
            0 => {
                out.drain(at..to);
            }
            1 => {
                let piece = out[at..to].to_vec();
                let piece = piece.repeat(1 + random.below(8));
                out.splice(at..at, piece);
            }
            2 if at < out.len() => out[at] ^= 1 << random.below(8),
            3 if !words.is_empty() => {
                let word = words[random.below(words.len())];
                out.splice(at..to, word.bytes());
            }
            4 => {
                let other = seeds.get(random.below(seeds.len())).map_or(&[][..], |s| s);
                let from = random.below(other.len() + 1);
                let piece = other[from..(from + random.below(40)).min(other.len())].to_vec();
                out.splice(at..to, piece);
            }
            _ => out.insert(at, random.below(256) as u8),
        }
    }
    out
}
