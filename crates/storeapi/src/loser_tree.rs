//! A tournament over k sorted sources: the smallest of their heads in log₂ k comparisons.
//!
//! ```text
//!             winner: 2            every inner node keeps the loser of its match,
//!              loser: 0            so the way from a leaf to the root names all
//!            ┌───┴───┐             rivals that a new head of that leaf has to meet
//!         loser: 1  loser: 3
//!         ┌──┴──┐   ┌──┴──┐
//!         0     1   2     3        leaves: the sources' heads
//! ```

/// The tree's inner nodes; the heads stay with the caller, who compares them.
#[derive(Debug)]
pub(crate) struct LoserTree {
    /// `nodes[0]` is the winner, `nodes[1..k]` are losers.
    nodes: Vec<usize>,
}

impl LoserTree {
    /// Plays all matches among `k` sources. `before(a, b)` says that the head of source `a` comes first; it must be a
    /// strict order, with exhausted sources last.
    pub(crate) fn new(k: usize, mut before: impl FnMut(usize, usize) -> bool) -> Self {
        let mut nodes = vec![0; k.max(1)];
        // Winners of the subtrees, heap-ordered: node i has the children 2i and 2i+1, leaves are k..2k.
        let mut winners = vec![0; 2 * k];
        for i in (1..2 * k).rev() {
            if i >= k {
                winners[i] = i - k;
            } else {
                let (a, b) = (winners[2 * i], winners[2 * i + 1]);
                let (winner, loser) = if before(b, a) { (b, a) } else { (a, b) };
                winners[i] = winner;
                nodes[i] = loser;
            }
        }
        nodes[0] = winners.get(1).copied().unwrap_or(0);
        LoserTree { nodes }
    }

    /// The source with the first head.
    pub(crate) fn winner(&self) -> usize {
        self.nodes[0]
    }

    /// Plays again after the winner's head has changed.
    pub(crate) fn replay(&mut self, mut before: impl FnMut(usize, usize) -> bool) {
        let k = self.nodes.len();
        let mut winner = self.nodes[0];
        let mut node = (winner + k) / 2;
        while node > 0 {
            if before(self.nodes[node], winner) {
                std::mem::swap(&mut self.nodes[node], &mut winner);
            }
            node /= 2;
        }
        self.nodes[0] = winner;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn merges_like_a_sort(mut sources in prop::collection::vec(prop::collection::vec(0u32..50, 0..20), 1..12)) {
            for source in &mut sources {
                source.sort_unstable_by(|a, b| b.cmp(a)); // heads are at the end
            }
            let mut want: Vec<u32> = sources.iter().flatten().copied().collect();
            want.sort_unstable();
            let before = |sources: &[Vec<u32>], a: usize, b: usize| match (sources[a].last(), sources[b].last()) {
                (Some(x), Some(y)) => (x, a) < (y, b),
                (x, _) => x.is_some(),
            };
            let mut tree = LoserTree::new(sources.len(), |a, b| before(&sources, a, b));
            let mut got = Vec::new();
            while let Some(v) = sources[tree.winner()].pop() {
                got.push(v);
                tree.replay(|a, b| before(&sources, a, b));
            }
            prop_assert_eq!(got, want);
        }
    }
}
