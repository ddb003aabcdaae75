//! Quantiles of windows. A series' floats become integers of the same order once, so that windows are cheap to select
//! from; where windows overlap a lot, one sorted window slides along instead.

/// The floats of a series as integers that sort like them, NaN first.
pub(crate) fn keys(values: &[f64], keys: &mut Vec<i64>) {
    keys.clear();
    keys.extend(values.iter().map(|v| key(*v)));
}

#[inline(always)]
fn key(v: f64) -> i64 {
    if v.is_nan() {
        return i64::MIN;
    }
    let bits = v.to_bits() as i64;
    // Negative floats sort by their magnitude, turned around.
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

#[inline(always)]
fn value(key: i64) -> f64 {
    if key == i64::MIN {
        return f64::NAN;
    }
    f64::from_bits((key ^ (((key >> 63) as u64) >> 1) as i64) as u64)
}

/// Where the φ-quantile of `n` values lies: the lower neighbour's rank and the weight of the upper one; or the quantile
/// itself where that does not depend on the values.
#[inline]
fn place(q: f64, n: usize) -> Result<(usize, f64), f64> {
    if n == 0 || q.is_nan() {
        return Err(f64::NAN);
    }
    if q < 0.0 {
        return Err(f64::NEG_INFINITY);
    }
    if q > 1.0 {
        return Err(f64::INFINITY);
    }
    let rank = q * (n - 1) as f64;
    Ok(((rank.floor() as usize).min(n - 1), rank - rank.floor()))
}

/// The φ-quantile by linear interpolation; NaN values count as smallest. Reorders `keys`.
pub(crate) fn quantile(q: f64, keys: &mut [i64]) -> f64 {
    let (lower, weight) = match place(q, keys.len()) {
        Ok(place) => place,
        Err(value) => return value,
    };
    let (_, low, above) = keys.select_nth_unstable(lower);
    let low = *low;
    let high = above.iter().copied().min().unwrap_or(low);
    value(low) * (1.0 - weight) + value(high) * weight
}

/// The median of the deviations from the median. Overwrites `keys`.
pub(crate) fn mad(keys: &mut [i64]) -> f64 {
    if keys.contains(&i64::MIN) {
        return f64::NAN;
    }
    let median = quantile(0.5, keys);
    for k in keys.iter_mut() {
        *k = key((value(*k) - median).abs());
    }
    quantile(0.5, keys)
}

/// The keys of a window, sorted, that slides along a series.
#[derive(Clone, Debug, Default)]
pub(crate) struct SortedWindow {
    sorted: Vec<i64>,
    from: usize,
    to: usize,
}

impl SortedWindow {
    /// True when sliding costs less than selecting from each window anew: windows of so many samples, of which so many
    /// are new from one to the next.
    pub(crate) fn is_worth_it(window: usize, new: usize) -> bool {
        // An insertion and a removal each search and move half of the window; selecting looks at each sample a few
        // times. In quarters of a nanosecond, roughly.
        2 * new * (120 + window / 2) < 16 * window
    }

    /// Forgets the window, before another series.
    pub(crate) fn clear(&mut self) {
        self.sorted.clear();
        (self.from, self.to) = (0, 0);
    }

    /// Moves on to `keys[from..to]`; neither end goes back.
    pub(crate) fn slide(&mut self, keys: &[i64], from: usize, to: usize) {
        if from >= self.to {
            self.sorted.clear();
            (self.from, self.to) = (from, from);
        }
        for gone in &keys[self.from..from] {
            if let Ok(at) = self.sorted.binary_search(gone) {
                self.sorted.remove(at);
            }
        }
        let new = &keys[self.to..to];
        if self.sorted.is_empty() {
            self.sorted.extend_from_slice(new);
            self.sorted.sort_unstable();
        } else {
            for key in new {
                let at = self.sorted.partition_point(|k| k < key);
                self.sorted.insert(at, *key);
            }
        }
        (self.from, self.to) = (from, to);
    }

    /// The φ-quantile of the window.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        match place(q, self.sorted.len()) {
            Ok((lower, weight)) => {
                let high = (lower + 1).min(self.sorted.len() - 1);
                value(self.sorted[lower]) * (1.0 - weight) + value(self.sorted[high]) * weight
            }
            Err(value) => value,
        }
    }

    /// As [`mad`].
    pub(crate) fn mad(&self) -> f64 {
        let Some(&first) = self.sorted.first() else { return f64::NAN };
        if first == i64::MIN {
            return f64::NAN;
        }
        let median = self.quantile(0.5);
        let Ok((lower, weight)) = place(0.5, self.sorted.len()) else { return f64::NAN };
        // Deviations grow to both sides of the median: two sorted lists, walked up to the middle.
        let deviation = |i: usize| (value(self.sorted[i]) - median).abs();
        let mut right = self.sorted.partition_point(|k| value(*k) < median);
        let mut left = right;
        let mut next = || {
            let from_left =
                left > 0 && (right == self.sorted.len() || deviation(left - 1) <= deviation(right));
            if from_left {
                left -= 1;
                deviation(left)
            } else {
                right += 1;
                deviation(right - 1)
            }
        };
        let mut low = next();
        for _ in 0..lower {
            low = next();
        }
        let high = if lower + 1 < self.sorted.len() { next() } else { low };
        low * (1.0 - weight) + high * weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::over_time;

    fn same(a: f64, b: f64) -> bool {
        a == b || (a.is_nan() && b.is_nan())
    }

    #[test]
    fn keys_sort_like_floats() {
        let sorted = [f64::NAN, f64::NEG_INFINITY, -1e300, -1.0, -1e-300, 0.0, 1e-300, 1.0, f64::INFINITY];
        let mut all = Vec::new();
        keys(&sorted, &mut all);
        assert!(all.is_sorted());
        assert!(all.iter().zip(sorted).all(|(k, v)| same(value(*k), v)));
    }

    #[test]
    fn sliding_and_selecting_agree_with_sorting() {
        let mut values: Vec<f64> = (0..500).map(|i: i64| ((i * 7919) % 101 - 50) as f64 / 3.0).collect();
        values[77] = f64::NAN;
        values[300] = f64::INFINITY;
        let mut all = Vec::new();
        keys(&values, &mut all);
        let mut window = SortedWindow::default();
        for (from, to) in
            [(0, 1), (0, 60), (3, 61), (10, 90), (78, 90), (78, 120), (200, 280), (201, 301), (301, 340)]
        {
            window.slide(&all, from, to);
            let mut sorted = values[from..to].to_vec();
            sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan())));
            for q in [0.0, 0.1, 0.5, 0.9, 1.0, -1.0, 2.0, f64::NAN] {
                let rank = q * (sorted.len() - 1) as f64;
                let want = if q.is_nan() {
                    f64::NAN
                } else if !(0.0..=1.0).contains(&q) {
                    q * f64::INFINITY
                } else {
                    let low = rank.floor() as usize;
                    let high = (low + 1).min(sorted.len() - 1);
                    let weight = rank - rank.floor();
                    sorted[low] * (1.0 - weight) + sorted[high] * weight
                };
                let selected = quantile(q, &mut all[from..to].to_vec());
                assert!(same(window.quantile(q), want), "{q} of {from}..{to}: {}", window.quantile(q));
                assert!(same(selected, want), "{q} of {from}..{to}: {selected}");
            }
            let want = over_time::mad(&values[from..to], &mut Vec::new());
            assert!(same(window.mad(), want), "{from}..{to}: {} {want}", window.mad());
            assert!(same(mad(&mut all[from..to].to_vec()), want), "{from}..{to}");
        }
    }
}
