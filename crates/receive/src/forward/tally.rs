//! What a request with replicas comes to: quorum per series, and Thanos's table of failures.
//!
//! A unit is a series, or the whole batch where all series have the same receivers. Each receiver's answer counts for all units
//! that it was sent: one that rejected a part of its share has stored the rest, and counts as a rejection all the same, as in
//! Thanos.
//!
//! | unit | verdict |
//! | --- | --- |
//! | enough successes | stored |
//! | a class of failure reached the quorum's number | that class |
//! | only all classes together did | unavailable: in doubt the sender repeats |
//!
//! Over all units the worst counts: unavailable, internal, limit, conflict, invalid.

use chronolith_storeapi::{ErrorKind, RejectKind, WriteError, WriteReport};

/// Classes of failures, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    Invalid = 0,
    Conflict = 1,
    Limit = 2,
    Internal = 3,
    Unavailable = 4,
}

const CLASSES: [Failure; 5] =
    [Failure::Invalid, Failure::Conflict, Failure::Limit, Failure::Internal, Failure::Unavailable];

impl Failure {
    /// Repeating the request does not help, as long as nothing else changes.
    pub(super) fn is_permanent(self) -> bool {
        self <= Failure::Limit
    }

    /// Whether a receiver's answer is one, and which.
    pub(super) fn of(answer: &Result<WriteReport, WriteError>) -> Option<Failure> {
        let error = match answer {
            Ok(report) if report.rejected == 0 => return None,
            Ok(report) => {
                let has = |kind| report.rejections.iter().any(|r| r.kind == kind);
                return Some(if has(RejectKind::Conflict) {
                    Failure::Conflict
                } else if has(RejectKind::LimitExceeded) && !has(RejectKind::Invalid) {
                    Failure::Limit
                } else {
                    Failure::Invalid
                });
            }
            Err(error) => error,
        };
        Some(match error.kind() {
            ErrorKind::Conflict => Failure::Conflict,
            ErrorKind::Invalid => Failure::Invalid,
            ErrorKind::LimitExceeded => Failure::Limit,
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Cancelled | ErrorKind::Aborted => {
                Failure::Unavailable
            }
            ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Internal => Failure::Internal,
        })
    }
}

/// Successes that a request needs: more than half of the replicas; one of two, as in Thanos.
pub(super) fn quorum(replicas: usize) -> usize {
    if replicas == 2 { 1 } else { replicas / 2 + 1 }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    successes: u8,
    failures: [u8; CLASSES.len()],
}

/// The answers so far.
#[derive(Debug)]
pub(super) struct Tally {
    quorum: u8,
    replicas: u8,
    units: Vec<Counts>,
}

/// Which units an answer is for: these, or all.
pub(super) type Units<'a> = Option<&'a [u32]>;

impl Tally {
    /// A count over `units` units of `replicas` replicas each, of which `quorum` must succeed.
    pub(super) fn new(units: usize, replicas: usize, quorum: usize) -> Self {
        let narrow = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
        Tally { quorum: narrow(quorum), replicas: narrow(replicas), units: vec![Counts::default(); units] }
    }

    /// How many units there are.
    pub(super) fn units(&self) -> usize {
        self.units.len()
    }

    /// Counts one receiver's answer.
    pub(super) fn add(&mut self, units: Units<'_>, failure: Option<Failure>) {
        self.each(units, |counts| match failure {
            None => counts.successes += 1,
            Some(failure) => counts.failures[failure as usize] += 1,
        });
    }

    /// Takes an unavailable receiver's failure back: it is asked again.
    pub(super) fn take_back_unavailable(&mut self, units: Units<'_>) {
        self.each(units, |counts| counts.failures[Failure::Unavailable as usize] -= 1);
    }

    /// Takes an unavailable receiver's failure back and counts a success where `here` says that this machine holds no other
    /// copy of the unit.
    pub(super) fn replace_by_hint(&mut self, units: Units<'_>, here: &mut Here) {
        let all = 0..self.units.len() as u32;
        let mut one = |unit: u32| {
            if here.add(unit) {
                let counts = &mut self.units[unit as usize];
                counts.failures[Failure::Unavailable as usize] -= 1;
                counts.successes += 1;
            }
        };
        match units {
            None => all.for_each(&mut one),
            Some(units) => units.iter().copied().for_each(&mut one),
        }
    }

    fn each(&mut self, units: Units<'_>, mut change: impl FnMut(&mut Counts)) {
        match units {
            None => self.units.iter_mut().for_each(change),
            Some(units) => units.iter().for_each(|u| change(&mut self.units[*u as usize])),
        }
    }

    fn failures_max(&self) -> u8 {
        self.replicas.saturating_sub(self.quorum) + 1
    }

    /// Every unit is stored, or has so many permanent failures that it never will be.
    pub(super) fn is_decided(&self) -> bool {
        let max = self.failures_max();
        self.units.iter().all(|c| {
            let permanent: u8 =
                CLASSES.iter().filter(|f| f.is_permanent()).map(|f| c.failures[*f as usize]).sum();
            c.successes >= self.quorum || permanent >= max
        })
    }

    /// Every unit is stored.
    pub(super) fn is_stored(&self) -> bool {
        self.units.iter().all(|c| c.successes >= self.quorum)
    }

    /// With a success of each of these shares the request would be stored.
    pub(super) fn would_be_stored_with(&self, shares: &[Units<'_>]) -> bool {
        self.would_be_stored(shares, |_| true)
    }

    /// With a hint of each of these shares the request would be stored; `here` is what this machine holds already.
    pub(super) fn would_be_stored_by_hints(&self, shares: &[Units<'_>], here: &Here) -> bool {
        let mut here = here.clone();
        self.would_be_stored(shares, |unit| here.add(unit))
    }

    fn would_be_stored(&self, shares: &[Units<'_>], mut counts: impl FnMut(u32) -> bool) -> bool {
        let mut successes: Vec<u8> = self.units.iter().map(|c| c.successes).collect();
        for units in shares {
            let mut one = |unit: u32| successes[unit as usize] += u8::from(counts(unit));
            match units {
                None => (0..self.units.len() as u32).for_each(&mut one),
                Some(units) => units.iter().copied().for_each(&mut one),
            }
        }
        successes.iter().all(|s| *s >= self.quorum)
    }

    /// The worst of the units that failed, once no more answers come; `None` when none did.
    pub(super) fn verdict(&self) -> Option<Failure> {
        self.units.iter().filter_map(|counts| self.verdict_of(counts)).max()
    }

    fn verdict_of(&self, counts: &Counts) -> Option<Failure> {
        if counts.successes >= self.quorum {
            return None;
        }
        // Of an already replicated request there is one answer, and it decides.
        let class = CLASSES
            .into_iter()
            .filter(|f| counts.failures[*f as usize] >= self.quorum)
            .max_by_key(|f| (counts.failures[*f as usize], *f));
        Some(class.unwrap_or(Failure::Unavailable))
    }
}

/// Of which units this machine holds a copy: its own replica, or one hint. A second copy on the same disk is not another replica.
#[derive(Clone, Debug)]
pub(super) struct Here(Vec<bool>);

impl Here {
    /// None of `units`.
    pub(super) fn none(units: usize) -> Self {
        Here(vec![false; units])
    }

    /// Notes a copy; true when it is the first.
    pub(super) fn add(&mut self, unit: u32) -> bool {
        !std::mem::replace(&mut self.0[unit as usize], true)
    }

    /// Notes copies of these units.
    pub(super) fn add_all(&mut self, units: Units<'_>) {
        match units {
            None => self.0.fill(true),
            Some(units) => units.iter().for_each(|u| self.0[*u as usize] = true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One unit: its answers in order, then whether and when it is decided, and the verdict.
    fn check(
        factor: usize,
        answers: &[Option<Failure>],
        decided_after: Option<usize>,
        want: Option<Failure>,
    ) {
        let mut tally = Tally::new(1, factor, quorum(factor));
        let mut decided = None;
        for (i, answer) in answers.iter().enumerate() {
            tally.add(None, *answer);
            if decided.is_none() && tally.is_decided() {
                decided = Some(i + 1);
            }
        }
        assert_eq!(decided, decided_after, "{factor} {answers:?}");
        assert_eq!(tally.verdict(), want, "{factor} {answers:?}");
    }

    #[test]
    fn one_series_follows_the_table_of_thanos() {
        use Failure::*;
        let ok = None;
        check(1, &[ok], Some(1), None);
        check(1, &[Some(Conflict)], Some(1), Some(Conflict));
        check(1, &[Some(Unavailable)], None, Some(Unavailable));
        check(1, &[Some(Internal)], None, Some(Internal));
        // One of two is enough, and takes both to fail.
        check(2, &[ok, Some(Unavailable)], Some(1), None);
        check(2, &[Some(Conflict), ok], Some(2), None);
        check(2, &[Some(Conflict), Some(Conflict)], Some(2), Some(Conflict));
        check(2, &[Some(Conflict), Some(Unavailable)], None, Some(Unavailable));
        check(3, &[ok, ok, Some(Unavailable)], Some(2), None);
        check(3, &[ok, Some(Unavailable), ok], Some(3), None);
        check(3, &[ok, Some(Conflict), Some(Conflict)], Some(3), Some(Conflict));
        check(3, &[Some(Conflict), Some(Conflict), ok], Some(2), Some(Conflict));
        check(3, &[Some(Limit), Some(Limit), Some(Limit)], Some(2), Some(Limit));
        check(3, &[ok, Some(Conflict), Some(Unavailable)], None, Some(Unavailable));
        check(3, &[Some(Unavailable), Some(Unavailable), ok], None, Some(Unavailable));
        check(3, &[Some(Internal), Some(Internal), ok], None, Some(Internal));
        check(5, &[ok, ok, Some(Conflict), Some(Unavailable), ok], Some(5), None);
        check(5, &[Some(Conflict), Some(Conflict), Some(Conflict)], Some(3), Some(Conflict));
        check(5, &[Some(Conflict), Some(Conflict), Some(Unavailable), ok, ok], None, Some(Unavailable));
    }

    #[test]
    fn series_are_counted_each_for_itself_and_the_worst_decides() {
        let mut tally = Tally::new(3, 3, 2);
        tally.add(Some(&[0, 1]), None);
        tally.add(Some(&[0, 1, 2]), Some(Failure::Conflict));
        tally.add(Some(&[0, 2]), None);
        assert!(!tally.is_decided());
        tally.add(Some(&[1, 2]), Some(Failure::Conflict));
        assert!(tally.is_decided() && !tally.is_stored());
        assert_eq!(tally.verdict(), Some(Failure::Conflict));
        let mut tally = Tally::new(2, 3, 2);
        tally.add(None, Some(Failure::Conflict));
        tally.add(Some(&[0]), Some(Failure::Conflict));
        tally.add(Some(&[1]), Some(Failure::Unavailable));
        tally.add(None, None);
        assert_eq!(tally.verdict(), Some(Failure::Unavailable), "in doubt the sender repeats");
    }

    #[test]
    fn a_hint_counts_once_and_not_beside_a_copy_of_this_machine() {
        // This machine holds unit 0, two others hold nothing yet.
        let mut here = Here::none(2);
        here.add_all(Some(&[0]));
        let mut tally = Tally::new(2, 3, 2);
        tally.add(None, None);
        tally.add(None, Some(Failure::Unavailable));
        tally.add(None, Some(Failure::Unavailable));
        assert!(
            !tally.would_be_stored_by_hints(&[None, None], &here),
            "unit 0 would lie on one machine only"
        );
        assert!(tally.would_be_stored_by_hints(&[None], &Here::none(2)));
        assert!(tally.would_be_stored_with(&[None]) && !tally.would_be_stored_with(&[Some(&[0])]));
        tally.replace_by_hint(None, &mut here);
        assert_eq!(tally.verdict(), Some(Failure::Unavailable));
        let mut tally = Tally::new(1, 3, 2);
        let mut here = Here::none(1);
        tally.add(None, Some(Failure::Unavailable));
        tally.add(None, Some(Failure::Unavailable));
        tally.replace_by_hint(None, &mut here);
        tally.replace_by_hint(None, &mut here);
        assert!(!tally.is_stored(), "two hints are one machine");
        tally.add(None, None);
        assert!(tally.is_stored());
    }
}
