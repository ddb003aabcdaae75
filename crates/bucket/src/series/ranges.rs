//! Joining neighbouring byte ranges: a request costs a round trip, a gap costs its bytes.

/// Bytes `start..end` of an object, which cover items `first..=last` of the list that was joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) first: usize,
    pub(super) last: usize,
}

/// Joins ranges that are sorted by start, where at most `gap_max` bytes lie between them and the whole stays within
/// `bytes_max` (one range alone may exceed it).
pub(super) fn join(ranges: impl Iterator<Item = (u64, u64)>, gap_max: u64, bytes_max: u64) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (i, (start, end)) in ranges.enumerate() {
        if let Some(part) = parts.last_mut()
            && start <= part.end.saturating_add(gap_max)
            && end.max(part.end) - part.start <= bytes_max
        {
            part.end = part.end.max(end);
            part.last = i;
            continue;
        }
        parts.push(Part { start, end, first: i, last: i });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(ranges: &[(u64, u64)], gap: u64, max: u64) -> Vec<(u64, u64, usize, usize)> {
        let parts = join(ranges.iter().copied(), gap, max);
        parts.into_iter().map(|p| (p.start, p.end, p.first, p.last)).collect()
    }

    #[test]
    fn gaps_and_sizes_decide() {
        assert_eq!(joined(&[], 10, 100), []);
        let ranges = [(0, 5), (15, 20), (31, 40), (35, 36), (200, 500), (501, 502)];
        assert_eq!(
            joined(&ranges, 10, 100),
            [(0, 20, 0, 1), (31, 40, 2, 3), (200, 500, 4, 4), (501, 502, 5, 5)]
        );
        assert_eq!(joined(&ranges, 11, 100), [(0, 40, 0, 3), (200, 500, 4, 4), (501, 502, 5, 5)]);
        assert_eq!(joined(&[(0, 60), (60, 120)], 0, 100), [(0, 60, 0, 0), (60, 120, 1, 1)]);
    }
}
