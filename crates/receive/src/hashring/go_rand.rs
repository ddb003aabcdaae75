//! The generator behind Go's `math/rand` (additive lagged Fibonacci, as of Go 1), because shuffle sharding draws a tenant's
//! endpoints with it: another generator would give every tenant another shard.

use super::go_rand_table::COOKED;

const LEN: usize = 607;
const TAP: usize = 273;
const INT32_MAX: i64 = (1 << 31) - 1;

/// A seeded source of numbers.
pub(super) struct GoRand {
    state: [u64; LEN],
    tap: usize,
    feed: usize,
}

impl GoRand {
    /// As `rand.NewSource(seed)`.
    pub(super) fn new(seed: i64) -> Self {
        let mut x = seed % INT32_MAX;
        if x < 0 {
            x += INT32_MAX;
        }
        if x == 0 {
            x = 89_482_311;
        }
        let mut next = || {
            x = step(x);
            x as u64
        };
        for _ in 0..20 {
            next();
        }
        let state = std::array::from_fn(|i| {
            let high = next() << 40;
            let middle = next() << 20;
            high ^ middle ^ next() ^ COOKED[i]
        });
        GoRand { state, tap: 0, feed: LEN - TAP }
    }

    /// As `Uint64`.
    pub(super) fn next_u64(&mut self) -> u64 {
        self.tap = self.tap.checked_sub(1).unwrap_or(LEN - 1);
        self.feed = self.feed.checked_sub(1).unwrap_or(LEN - 1);
        let sum = self.state[self.feed].wrapping_add(self.state[self.tap]);
        self.state[self.feed] = sum;
        sum
    }
}

/// `x[n+1] = 48271 * x[n] mod (2^31 - 1)`.
fn step(x: i64) -> i64 {
    (48_271 * x) % INT32_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_go() {
        // Printed by a Go program.
        for (seed, want) in GO {
            let mut rand = GoRand::new(seed);
            let got: Vec<u64> = (0..want.len()).map(|_| rand.next_u64()).collect();
            assert_eq!(got, want, "seed {seed}");
        }
    }

    include!("../../testdata/hashring/go_rand.rs");
}
