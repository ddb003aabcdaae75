//! What each selector reads from storage: its range of time, hints, and which selectors share one read.

use chronolith_model::{Matcher, TimeRange};
use hashbrown::HashMap;

use crate::parser::{Ast, ExprId, NodeKind, VectorSelector};
use crate::plan::PlanTimes;
use crate::queryable::SelectHints;

/// How a selector gets its series.
#[derive(Clone, Debug)]
pub(crate) struct SelectorRead {
    /// Index of the source.
    pub(crate) source: usize,
    /// The samples that this selector may look at.
    pub(crate) range: TimeRange,
}

/// One read from storage.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The matchers.
    pub(crate) matchers: Vec<Matcher>,
    /// All samples that a selector of this source may look at.
    pub(crate) range: TimeRange,
    /// Hints; those of a read that different functions share name none.
    pub(crate) hints: SelectHints,
    /// Number of selectors that use it.
    pub(crate) uses: usize,
}

/// What the nodes above a node say about it.
#[derive(Clone, Default)]
struct Above<'a> {
    subquery_offset: i64,
    subquery_range: i64,
    subquery_at: Option<i64>,
    step: Option<i64>,
    range: Option<i64>,
    func: Option<&'a str>,
    grouping: Option<(bool, &'a [String])>,
}

/// By node the reads, and the sources.
/// `carried` are matchers of selectors besides their own, `kept` the labels that are looked at where not all are.
pub(super) fn find(
    ast: &Ast,
    times: &PlanTimes,
    carried: &[Vec<Matcher>],
    kept: &mut [Option<Vec<String>>],
) -> (Vec<Option<SelectorRead>>, Vec<Source>) {
    let mut reads = vec![None; ast.len()];
    let mut sources = Sources::default();
    let mut stack = vec![(ast.root(), Above::default())];
    while let Some((id, above)) = stack.pop() {
        let below = Above { grouping: None, ..above.clone() };
        match ast.kind(id) {
            NodeKind::Number { .. } | NodeKind::String(_) => {}
            NodeKind::VectorSelector(selector) => {
                let range = time_range(selector, &above, times);
                let matchers = selector.matchers.iter().chain(&carried[id.index()]).cloned().collect();
                let mut hints = hints(&above, range, times);
                // At one time, which is what the range ends with.
                let at_once = range.mint == range.maxt.saturating_sub(times.lookback_ms - 1);
                hints.newest_only = at_once && above.range.is_none() && !selector.smoothed;
                hints.keep_labels = kept[id.index()].take();
                let source = sources.get(matchers, range, hints, times.by_function);
                reads[id.index()] = Some(SelectorRead { source, range });
            }
            NodeKind::MatrixSelector(m) => {
                stack.push((m.selector, Above { range: Some(m.range_ms), ..below }));
            }
            NodeKind::Subquery(s) => {
                let reset = s.timestamp_ms.is_some();
                stack.push((
                    s.expr,
                    Above {
                        subquery_offset: s.offset_ms + if reset { 0 } else { above.subquery_offset },
                        subquery_range: s.range_ms + if reset { 0 } else { above.subquery_range },
                        subquery_at: s.timestamp_ms.or(above.subquery_at),
                        step: Some(if s.step_ms == 0 { times.subquery_step_ms } else { s.step_ms }),
                        ..below
                    },
                ));
            }
            NodeKind::Paren(e) => stack.push((*e, below)),
            // What is negated is no longer what the function looks at: the least of it comes of the largest.
            NodeKind::Unary { expr: e, .. } => stack.push((*e, Above { func: None, ..below })),
            NodeKind::Binary(b) => {
                let below = Above { func: None, ..below };
                stack.push((b.lhs, below.clone()));
                stack.push((b.rhs, below));
            }
            NodeKind::Aggregate(a) => {
                let below =
                    Above { func: Some(a.op.as_str()), grouping: Some((!a.without, &a.grouping)), ..above };
                stack.extend(a.param.map(|p| (p, below.clone())));
                stack.push((a.expr, below));
            }
            NodeKind::Call(call) => {
                let below = Above { func: Some(call.func.name), ..below };
                stack.extend(call.args.iter().map(|a: &ExprId| (*a, below.clone())));
            }
        }
    }
    (reads, sources.list)
}

fn hints(above: &Above<'_>, range: TimeRange, times: &PlanTimes) -> SelectHints {
    SelectHints {
        start: range.mint,
        end: range.maxt,
        step_ms: above.step.unwrap_or(times.step_ms),
        range_ms: above.range.unwrap_or(0),
        func: above.func.map(str::to_owned),
        by: above.grouping.is_some_and(|(by, _)| by),
        grouping: above.grouping.map_or_else(Vec::new, |(_, labels)| labels.to_vec()),
        newest_only: false,
        keep_labels: None,
    }
}

/// The samples that a selector may look at. Windows are open on the left, hence the millisecond.
fn time_range(selector: &VectorSelector, above: &Above<'_>, times: &PlanTimes) -> TimeRange {
    let (mut start, mut end) = match (selector.timestamp_ms, above.subquery_at) {
        (Some(t), _) => (t, t),
        (None, at) => {
            let (start, end) = at.map_or((times.start, times.end), |t| (t, t));
            let end = end.saturating_sub(above.subquery_offset);
            (start.saturating_sub(above.subquery_offset).saturating_sub(above.subquery_range), end)
        }
    };
    let back = match above.range {
        None => times.lookback_ms,
        Some(range) if selector.anchored || selector.smoothed => range.saturating_add(times.lookback_ms),
        Some(range) => range,
    };
    start = start.saturating_sub(back - 1);
    if selector.smoothed {
        end = end.saturating_add(times.lookback_ms);
    }
    TimeRange::new(start.saturating_sub(selector.offset_ms), end.saturating_sub(selector.offset_ms))
}

/// The sources so far.
#[derive(Default)]
struct Sources {
    list: Vec<Source>,
    /// Indexes by what the matchers say, in any order.
    by_matchers: HashMap<String, Vec<usize>>,
}

impl Sources {
    /// An existing source of the same matchers whose range overlaps (and of the same function, where that matters), widened,
    /// or a new one.
    fn get(
        &mut self,
        matchers: Vec<Matcher>,
        range: TimeRange,
        hints: SelectHints,
        by_function: bool,
    ) -> usize {
        let mut texts: Vec<String> = matchers.iter().map(Matcher::to_string).collect();
        texts.sort_unstable();
        let alike = self.by_matchers.entry(texts.join(",")).or_default();
        let fits = |source: &Source| {
            let of = |hints: &SelectHints| (hints.func.clone(), hints.range_ms);
            source.range.overlaps(&range) && (!by_function || of(&source.hints) == of(&hints))
        };
        if let Some(&i) = alike.iter().find(|i| fits(&self.list[**i])) {
            self.list[i].widen(range, hints);
            return i;
        }
        alike.push(self.list.len());
        self.list.push(Source { matchers, range, hints, uses: 1 });
        self.list.len() - 1
    }
}

impl Source {
    /// Makes another selector use it.
    fn widen(&mut self, range: TimeRange, hints: SelectHints) {
        self.range = TimeRange::new(self.range.mint.min(range.mint), self.range.maxt.max(range.maxt));
        self.uses += 1;
        if self.hints != hints {
            let same = self.hints.func == hints.func && self.hints.range_ms == hints.range_ms;
            self.hints = SelectHints {
                start: self.range.mint,
                end: self.range.maxt,
                step_ms: hints.step_ms.min(self.hints.step_ms),
                range_ms: hints.range_ms.max(self.hints.range_ms),
                func: hints.func.filter(|_| same),
                ..SelectHints::default()
            };
        }
    }
}
