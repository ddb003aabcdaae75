//! A row of a batch, and the bits that say where it has points.

use std::sync::Arc;

use chronolith_model::{FloatHistogram, Labels};

use super::HistogramRow;

/// A row of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) drop_name: bool,
    pub(crate) values: &'a [f64],
    pub(crate) present: &'a [u64],
    pub(crate) hists: Option<&'a HistogramRow>,
}

impl<'a> Row<'a> {
    #[inline(always)]
    pub(crate) fn has(&self, i: usize) -> bool {
        bit(self.present, i)
    }

    #[inline(always)]
    pub(crate) fn histogram(&self, i: usize) -> Option<&'a Arc<FloatHistogram>> {
        self.hists.and_then(|h| h[i].as_ref())
    }

    /// Calls `f` for each step with a point.
    #[inline(always)]
    pub(crate) fn each(&self, mut f: impl FnMut(usize, f64, Option<&'a Arc<FloatHistogram>>)) {
        each_bit(self.present, |i| f(i, self.values[i], self.histogram(i)));
    }

    pub(crate) fn point_count(&self) -> usize {
        self.present.iter().map(|w| w.count_ones() as usize).sum()
    }
}

/// A row that is being written.
#[derive(Debug)]
pub(crate) struct RowMut<'a> {
    pub(super) values: &'a mut [f64],
    pub(super) present: &'a mut [u64],
    pub(super) hists: &'a mut Option<HistogramRow>,
}

impl RowMut<'_> {
    #[inline(always)]
    pub(crate) fn set(&mut self, i: usize, v: f64) {
        self.values[i] = v;
        self.present[i / 64] |= 1 << (i % 64);
    }

    /// Makes the floats of the set bits points, and gives all values to be written.
    pub(crate) fn fill(&mut self, present: &[u64]) -> &mut [f64] {
        self.present.copy_from_slice(present);
        self.values
    }

    pub(crate) fn set_histogram(&mut self, i: usize, h: Arc<FloatHistogram>) {
        let steps = self.values.len();
        self.hists.get_or_insert_with(|| vec![None; steps])[i] = Some(h);
        self.present[i / 64] |= 1 << (i % 64);
    }

    /// Copies the point of another row, if it has one.
    pub(crate) fn copy(&mut self, i: usize, from: &Row<'_>) {
        if from.has(i) {
            match from.histogram(i) {
                Some(h) => self.set_histogram(i, Arc::clone(h)),
                None => self.set(i, from.values[i]),
            }
        }
    }

    /// Copies the points of another row where `mask` has a bit.
    pub(crate) fn copy_masked(&mut self, from: &Row<'_>, mask: impl Fn(usize) -> u64) {
        for w in 0..self.present.len() {
            self.present[w] = from.present[w] & mask(w);
        }
        self.values.copy_from_slice(from.values);
        if let Some(hists) = from.hists {
            *self.hists = Some(hists.clone());
        }
    }

    pub(crate) fn has(&self, i: usize) -> bool {
        bit(self.present, i)
    }
}

#[inline(always)]
fn bit(words: &[u64], i: usize) -> bool {
    words[i / 64] >> (i % 64) & 1 == 1
}

#[inline(always)]
pub(crate) fn each_bit(words: &[u64], mut f: impl FnMut(usize)) {
    for (w, &word) in words.iter().enumerate() {
        if word == u64::MAX {
            for i in w * 64..w * 64 + 64 {
                f(i);
            }
            continue;
        }
        let mut rest = word;
        while rest != 0 {
            f(w * 64 + rest.trailing_zeros() as usize);
            rest &= rest - 1;
        }
    }
}

/// Calls `f` with each run of set bits, from the first to behind the last.
#[inline(always)]
pub(crate) fn each_run(words: &[u64], mut f: impl FnMut(usize, usize)) {
    let (mut from, mut to) = (0, 0);
    for (w, &word) in words.iter().enumerate() {
        let mut rest = word;
        let mut at = w * 64;
        while rest != 0 {
            let skip = rest.trailing_zeros();
            rest >>= skip;
            at += skip as usize;
            let ones = rest.trailing_ones();
            if at > to {
                if from < to {
                    f(from, to);
                }
                from = at;
            }
            at += ones as usize;
            to = at;
            rest = rest.checked_shr(ones).unwrap_or(0);
        }
    }
    if from < to {
        f(from, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_what_bits_are() {
        for words in [
            vec![],
            vec![0],
            vec![u64::MAX, u64::MAX, 0xfff],
            vec![1, 1 << 63, 1, 0, 0b1011 << 60],
            vec![0x8000_0000_0000_0001, 0x8000_0000_0000_0001],
            vec![0x1234_5678_9abc_def0, 0xf0f0_ffff_0001_8001],
        ] {
            let (mut bits, mut runs, mut ends) = (Vec::new(), Vec::new(), Vec::new());
            each_bit(&words, |i| bits.push(i));
            each_run(&words, |from, to| {
                runs.extend(from..to);
                ends.push((from, to));
            });
            assert_eq!(bits, runs);
            assert!(ends.windows(2).all(|w| w[0].1 < w[1].0), "{ends:?}");
        }
    }
}
