//! A counter over many chunks, its resets applied.
//!
//! The counter aggregate of a downsampled chunk begins with the raw counter's first sample, goes on with a total for each
//! window, resets inside the chunk applied, and ends with a second sample of its last time, which carries the raw
//! counter's last value. The next chunk's first sample is compared with that one, so that a reset between two chunks is
//! seen although each has totals of its own. Raw chunks are read by the same rules.

/// Puts the samples of chunks in time order together to one counter that never goes back.
#[derive(Clone, Copy, Debug, Default)]
pub struct CounterTotals {
    /// Time and raw value of the last sample.
    last: Option<(i64, f64)>,
    total: f64,
}

impl CounterTotals {
    /// Takes a sample; gives the total at its time, unless the sample is none of its own: not a number, earlier than what
    /// came before, or the second one of its time.
    #[inline]
    pub fn push(&mut self, t: i64, v: f64) -> Option<f64> {
        if v.is_nan() {
            return None;
        }
        match self.last {
            None => self.total = v,
            Some((last_t, _)) if t < last_t => return None,
            Some((last_t, _)) if t == last_t => {
                self.last = Some((t, v));
                return None;
            }
            Some((_, last_v)) => self.total += if v >= last_v { v - last_v } else { v },
        }
        self.last = Some((t, v));
        Some(self.total)
    }

    /// The raw counter's last value.
    pub fn last_raw(&self) -> Option<f64> {
        self.last.map(|(_, v)| v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_sample_of_a_time_says_where_the_next_chunk_goes_on() {
        let mut counter = CounterTotals::default();
        let samples = [(10, 5.0), (20, 9.0), (20, 4.0), (30, 6.0), (25, 1.0), (40, f64::NAN), (50, 3.0)];
        let totals: Vec<_> = samples.iter().map(|(t, v)| counter.push(*t, *v)).collect();
        assert_eq!(totals, [Some(5.0), Some(9.0), None, Some(11.0), None, None, Some(14.0)]);
        assert_eq!(counter.last_raw(), Some(3.0));
    }
}
