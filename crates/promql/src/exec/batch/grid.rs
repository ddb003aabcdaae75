//! The times that a query is evaluated at.

/// Evaluation times: `count` of them, `step` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) start: i64,
    pub(crate) step: i64,
    pub(crate) count: usize,
    /// Where the range ends, on a step or after the last one.
    pub(crate) end: i64,
}

impl Grid {
    /// The times from `start` to at most `end`.
    pub(crate) fn new(start: i64, end: i64, step: i64) -> Self {
        let step = step.max(1);
        let count = if end < start { 0 } else { (end.saturating_sub(start) / step) as usize + 1 };
        Grid { start, step, count, end }
    }

    #[inline(always)]
    pub(crate) fn t(&self, i: usize) -> i64 {
        self.start + self.step * i as i64
    }

    pub(crate) fn last(&self) -> i64 {
        self.t(self.count.saturating_sub(1))
    }

    /// The first time alone.
    pub(crate) fn first(&self) -> Grid {
        Grid { count: self.count.min(1), end: self.start, ..*self }
    }

    /// The evaluation of a range rather than at one time, even if the range has room for one step only.
    pub(crate) fn is_range(&self) -> bool {
        self.start != self.end
    }
}
