//! Penalty deduplication, as Thanos does it.
//!
//! Two replicas scrape the same target at different moments. Taking every sample would double the rate, so one replica
//! is followed, and the other one pays a penalty: only when the followed one has been silent for twice its last step
//! is the other one taken, and then followed in turn.
//!
//! More than two replicas are folded from the left. For counters a change of replica must not look like a reset: when
//! the last value lies above the one that a replica has now, that replica is lifted by the difference from there on.
//! Histograms are chosen alike and never lifted.
//!
//! The state and its order of steps are Thanos's (`pkg/dedup/iter.go`), warts included: replicas of irregular scrape
//! intervals lose samples, and the very first step compares with the first replica's first sample as if that had
//! been emitted.

use chronolith_chunk::SampleColumns;

/// Penalty while no step is known yet; scrapes are usually seconds apart.
const PENALTY_INITIAL_MS: i64 = 5000;

/// A chosen sample: sample `index` of `columns`, a float of it lifted by `lift`.
#[derive(Clone, Copy, Debug)]
pub struct Picked<'a> {
    /// The replica.
    pub columns: &'a SampleColumns,
    /// Place in the replica.
    pub index: usize,
    /// What must be added to a float value; 0 except for counters.
    pub lift: f64,
}

impl Picked<'_> {
    fn t(&self) -> i64 {
        self.columns.ts[self.index]
    }

    /// The lifted value; `None` for a histogram.
    pub fn float(&self) -> Option<f64> {
        match self.columns.histogram(self.index) {
            Some(_) => None,
            None => Some(self.columns.values[self.index] + self.lift),
        }
    }

    /// Appends the sample to `out`.
    pub fn push_to(&self, out: &mut SampleColumns) {
        out.push_from(self.columns, self.index);
        if self.lift != 0.0
            && let (Some(v), Some(last)) = (self.float(), out.values.last_mut())
        {
            *last = v;
        }
    }
}

/// Appends the deduplicated samples of `replicas` to `out`. `is_counter` asks for the lifting described above; Thanos
/// does it for `increase`, `rate`, `irate` and `resets`.
pub fn dedup(replicas: &[SampleColumns], is_counter: bool, out: &mut SampleColumns) {
    match replicas {
        [] => {}
        [one] => out.extend_from(one, 0, one.len()),
        [a, b] => {
            out.reserve(a.len().max(b.len()));
            let mut pair = Pair::new(Leaf::new(a, is_counter), Leaf::new(b, is_counter));
            while let Some(picked) = pair.advance() {
                picked.push_to(out);
            }
        }
        _ => iter(replicas, is_counter).for_each(|picked| picked.push_to(out)),
    }
}

/// The choice of [`dedup`], sample by sample.
pub fn iter<'a>(replicas: &'a [SampleColumns], is_counter: bool) -> impl Iterator<Item = Picked<'a>> {
    // A single replica is passed on as it is, without the lifting.
    let lifts = is_counter && replicas.len() > 1;
    let mut leaves = replicas.iter().map(|r| Leaf::new(r, lifts));
    let mut source: Option<Box<dyn Source<'a> + 'a>> = leaves.next().map(|first| Box::new(first) as _);
    for leaf in leaves {
        source = source.map(|a| Box::new(Pair::new(a, leaf)) as _);
    }
    std::iter::from_fn(move || source.as_mut()?.advance())
}

/// Something that yields samples in time order.
trait Source<'a> {
    /// The next sample; `None` at the end, for good.
    fn advance(&mut self) -> Option<Picked<'a>>;
    /// The first sample at or after `t` that is not before the current one.
    fn seek(&mut self, t: i64) -> Option<Picked<'a>>;
    /// Lifts replicas whose current float lies below `last`.
    fn lift_to(&mut self, last: f64);
    /// The current sample anew, after a lift.
    fn current(&self) -> Option<Picked<'a>>;
}

impl<'a> Source<'a> for Box<dyn Source<'a> + 'a> {
    fn advance(&mut self) -> Option<Picked<'a>> {
        (**self).advance()
    }

    fn seek(&mut self, t: i64) -> Option<Picked<'a>> {
        (**self).seek(t)
    }

    fn lift_to(&mut self, last: f64) {
        (**self).lift_to(last);
    }

    fn current(&self) -> Option<Picked<'a>> {
        (**self).current()
    }
}

/// One replica.
struct Leaf<'a> {
    columns: &'a SampleColumns,
    /// The sample after the current one.
    next: usize,
    lifts: bool,
    lift: f64,
}

impl<'a> Leaf<'a> {
    fn new(columns: &'a SampleColumns, lifts: bool) -> Self {
        Leaf { columns, next: 0, lifts, lift: 0.0 }
    }
}

impl<'a> Source<'a> for Leaf<'a> {
    #[inline]
    fn advance(&mut self) -> Option<Picked<'a>> {
        self.next = (self.next + 1).min(self.columns.len() + 1);
        self.current()
    }

    #[inline]
    fn seek(&mut self, t: i64) -> Option<Picked<'a>> {
        // The current sample counts, too.
        self.next = self.next.max(1);
        while self.columns.ts.get(self.next - 1).is_some_and(|now| *now < t) {
            self.next += 1;
        }
        self.current()
    }

    fn lift_to(&mut self, last: f64) {
        if let Some(v) = self.current().filter(|_| self.lifts).and_then(|p| p.float())
            && last > v
        {
            self.lift += last - v;
        }
    }

    #[inline]
    fn current(&self) -> Option<Picked<'a>> {
        let index = self.next.checked_sub(1)?;
        (index < self.columns.len()).then_some(Picked { columns: self.columns, index, lift: self.lift })
    }
}

/// Two sources and whose turn it is.
struct Pair<'a, A, B> {
    a: A,
    b: B,
    at_a: Option<Picked<'a>>,
    at_b: Option<Picked<'a>>,
    /// Time of the last emitted sample.
    last_t: Option<i64>,
    penalty_a: i64,
    penalty_b: i64,
    use_a: bool,
}

impl<'a, A: Source<'a>, B: Source<'a>> Pair<'a, A, B> {
    fn new(mut a: A, mut b: B) -> Self {
        let (at_a, at_b) = (a.advance(), b.advance());
        Pair { a, b, at_a, at_b, last_t: None, penalty_a: 0, penalty_b: 0, use_a: true }
    }

    /// Moves both on and chooses.
    #[inline]
    fn choose(&mut self) {
        if let Some(last_t) = self.last_t {
            if self.at_a.is_some() {
                self.at_a = self.a.seek(last_t.wrapping_add(1).wrapping_add(self.penalty_a));
            }
            if self.at_b.is_some() {
                self.at_b = self.b.seek(last_t.wrapping_add(1).wrapping_add(self.penalty_b));
            }
        }
        let penalty = |t: i64, last_t: Option<i64>| {
            last_t.map_or(PENALTY_INITIAL_MS, |last_t| t.wrapping_sub(last_t).wrapping_mul(2))
        };
        match (self.at_a.map(|p| p.t()), self.at_b.map(|p| p.t())) {
            (None, None) => self.use_a = false,
            (None, Some(t)) => {
                self.use_a = false;
                self.last_t = Some(t);
                self.penalty_b = 0;
            }
            (Some(t), None) => {
                self.use_a = true;
                self.last_t = Some(t);
                self.penalty_a = 0;
            }
            (Some(a), Some(b)) if a <= b => {
                self.use_a = true;
                self.penalty_b = penalty(a, self.last_t);
                self.penalty_a = 0;
                self.last_t = Some(a);
            }
            (Some(_), Some(b)) => {
                self.use_a = false;
                self.penalty_a = penalty(b, self.last_t);
                self.penalty_b = 0;
                self.last_t = Some(b);
            }
        }
    }
}

impl<'a, A: Source<'a>, B: Source<'a>> Source<'a> for Pair<'a, A, B> {
    #[inline]
    fn advance(&mut self) -> Option<Picked<'a>> {
        let last = self.current().and_then(|p| p.float());
        let used_a = self.use_a;
        self.choose();
        if self.use_a != used_a
            && let Some(last) = last
        {
            self.lift_to(last);
        }
        self.current()
    }

    fn seek(&mut self, t: i64) -> Option<Picked<'a>> {
        // By steps: a seek of the sources would not see the gaps.
        while let Some(now) = self.current() {
            if now.t() >= t {
                return Some(now);
            }
            self.advance();
        }
        None
    }

    fn lift_to(&mut self, last: f64) {
        if self.at_a.is_some_and(|p| p.float().is_some()) {
            self.a.lift_to(last);
            self.at_a = self.a.current();
        }
        if self.at_b.is_some_and(|p| p.float().is_some()) {
            self.b.lift_to(last);
            self.at_b = self.b.current();
        }
    }

    #[inline]
    fn current(&self) -> Option<Picked<'a>> {
        if self.use_a { self.at_a } else { self.at_b }
    }
}

#[cfg(test)]
mod tests;
