//! `info(v, {…})`: adds the labels of info metrics, matched on `job` and `instance`, to the series of a vector.

use chronolith_chunk::SampleColumns;
use chronolith_model::{Labels, METRIC_NAME, MatchOp, Matcher, TimeRange};
use hashbrown::HashMap;

use crate::engine::EngineError;
use crate::exec::batch::label_bytes;
use crate::exec::current::each_current;
use crate::exec::merge::merge_equal;
use crate::exec::select::decode;
use crate::exec::{Batch, Exec, Grid, Held, Result, Sink};
use crate::memory::MemoryUse;
use crate::parser::{Call, ExprId, NodeKind, VectorSelector};
use crate::queryable::{SelectHints, SelectRequest};

/// Labels that tie a series to its info series.
const IDENTIFYING: [&str; 2] = ["instance", "job"];
/// The info metric that is used when none is named.
const TARGET_INFO: &str = "target_info";

/// An info series with the time of its current sample by step.
struct InfoSeries {
    labels: Labels,
    times: Vec<Option<i64>>,
}

/// What an info series is found by: its name and the values of the identifying labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Signature {
    name: String,
    identity: [Option<String>; 2],
}

impl Signature {
    fn of(name: &str, labels: &Labels) -> Self {
        Signature { name: name.to_owned(), identity: IDENTIFYING.map(|l| labels.get(l).map(str::to_owned)) }
    }
}

impl<'a> Exec<'a> {
    /// `info(v)` and `info(v, selector)`.
    pub(crate) fn info(&mut self, call: &Call, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        let (names, data) = self.info_matchers(call);
        let anchor = self.info_anchor(call.args[0]);
        let base = self.collect(call.args[0], grid)?;
        let ignored: Vec<bool> = base
            .rows()
            .map(|r| names.iter().all(|m| m.matches(r.labels.metric_name().unwrap_or_default())))
            .collect();
        let mut held = self.held(MemoryUse::Joins);
        let infos = self.info_series(&base, &ignored, &names, &data, &anchor, grid, &mut held)?;
        // At most a list of its own for each.
        held.more(infos.len() * grid.count * std::mem::size_of::<Option<usize>>())?;
        let winners = newest(&infos, &base, grid)?;
        let mut metrics: Vec<&str> = infos.iter().filter_map(|i| i.labels.metric_name()).collect();
        metrics.sort_unstable();
        metrics.dedup();
        let mut out = Batch::new(grid.count);
        for (r, row) in base.rows().enumerate() {
            self.row_progress(r, &mut out)?;
            if ignored[r] {
                out.push(|| row.labels.clone(), row.drop_name, |to| to.copy_masked(&row, |_| u64::MAX));
                continue;
            }
            let lists: Vec<&Vec<Option<usize>>> =
                metrics.iter().filter_map(|m| winners.get(&Signature::of(m, row.labels))).collect();
            // Steps by the info series that are in force.
            let mut groups: Vec<(Vec<usize>, Vec<usize>)> = Vec::new();
            row.each(|i, _, _| {
                let found: Vec<usize> = lists.iter().filter_map(|l| l[i]).collect();
                match groups.iter_mut().find(|(f, _)| *f == found) {
                    Some((_, steps)) => steps.push(i),
                    None => groups.push((found, vec![i])),
                }
            });
            for (found, steps) in groups {
                let found: Vec<&Labels> = found.iter().map(|i| &infos[*i].labels).collect();
                if let Some(labels) = enriched(row.labels, &found, &data)? {
                    out.push(|| labels, row.drop_name, |to| steps.iter().for_each(|i| to.copy(*i, &row)));
                }
            }
        }
        drop(base);
        self.emit(merge_equal(out)?, sink)
    }

    /// Matchers of the info metric's name, and those of its other labels.
    fn info_matchers(&self, call: &Call) -> (Vec<Matcher>, Vec<Matcher>) {
        let written = match call.args.get(1).map(|a| self.plan.unwrapped(*a).1) {
            Some(NodeKind::VectorSelector(s)) => s.matchers.clone(),
            _ => Vec::new(),
        };
        let (mut names, data): (Vec<Matcher>, Vec<Matcher>) =
            written.into_iter().partition(|m| m.name == METRIC_NAME);
        if names.is_empty() {
            names.push(Matcher::equal(METRIC_NAME, TARGET_INFO));
        } else if !names.iter().any(|m| matches!(m.op, MatchOp::Equal | MatchOp::Regex))
            && let Ok(any) = Matcher::new(MatchOp::Regex, METRIC_NAME, ".+_info")
        {
            names.insert(0, any);
        }
        (names, data)
    }

    /// The modifiers that say at which time the info series are looked up: those of the first selector in `expr` and
    /// of the subqueries around it, as a selector.
    fn info_anchor(&self, expr: ExprId) -> VectorSelector {
        let ast = &self.plan.ast;
        let mut anchor: Option<VectorSelector> = None;
        ast.walk(expr, |id, path| {
            if anchor.is_some() {
                return false;
            }
            if let NodeKind::VectorSelector(s) = ast.kind(id) {
                let (mut at, mut offset_ms) = (s.timestamp_ms, s.offset_ms);
                for above in path.iter().rev() {
                    if at.is_some() {
                        break;
                    }
                    if let NodeKind::Subquery(s) = ast.kind(*above) {
                        offset_ms += s.offset_ms;
                        at = s.timestamp_ms;
                    }
                }
                anchor = Some(VectorSelector { timestamp_ms: at, offset_ms, ..VectorSelector::default() });
            }
            true
        });
        anchor.unwrap_or_default()
    }

    #[allow(clippy::too_many_arguments)]
    fn info_series(
        &mut self,
        base: &Batch,
        ignored: &[bool],
        names: &[Matcher],
        data: &[Matcher],
        anchor: &VectorSelector,
        grid: &Grid,
        held: &mut Held,
    ) -> Result<Vec<InfoSeries>> {
        let mut matchers = names.to_vec();
        matchers.extend(data.iter().cloned());
        let mut identified = false;
        for label in IDENTIFYING {
            let rows = base.rows().zip(ignored).filter(|(_, ignored)| !**ignored);
            let mut values: Vec<&str> = rows.filter_map(|(r, _)| r.labels.get(label)).collect();
            if values.is_empty() {
                continue;
            }
            identified = true;
            values.sort_unstable();
            values.dedup();
            let pattern = values.iter().map(|v| regex::escape(v)).collect::<Vec<_>>().join("|");
            matchers.push(
                Matcher::new(MatchOp::Regex, label, &pattern)
                    .map_err(|e| EngineError::Execution(e.to_string()))?,
            );
        }
        if !identified {
            return Ok(Vec::new());
        }
        let lookback = self.plan.times.lookback_ms;
        let (first, last) = anchor.timestamp_ms.map_or((grid.start, grid.last()), |t| (t, t));
        let range = TimeRange::new(first - anchor.offset_ms - lookback + 1, last - anchor.offset_ms);
        let hints = SelectHints {
            start: range.mint,
            end: range.maxt,
            step_ms: grid.step,
            func: Some("info".to_owned()),
            ..SelectHints::default()
        };
        let request = SelectRequest { matchers: &matchers, range, hints: &hints };
        let mut set = self.open(&request)?;
        let mut out = Vec::new();
        let mut columns = SampleColumns::default();
        while let Some(series) = set.next()? {
            self.stats.series_read += 1;
            self.cx.check()?;
            columns.clear();
            decode(&series.data, range, &mut columns)?;
            self.counts.read += columns.len() as u64;
            let mut times = vec![None; grid.count];
            let mut histogram = false;
            each_current(self.cx, anchor, lookback, &columns, grid, |step, i| {
                histogram |= columns.histogram(i).is_some();
                times[step] = Some(columns.ts[i]);
            })?;
            if histogram {
                return Err(EngineError::Execution(format!(
                    "this should be an info metric, with float samples: {}",
                    series.labels
                )));
            }
            if times.iter().any(Option::is_some) {
                held.more(label_bytes(&series.labels) + times.len() * std::mem::size_of::<Option<i64>>())?;
                out.push(InfoSeries { labels: series.labels, times });
            }
        }
        for warning in set.take_warnings() {
            self.annotations.add_storage_warning(warning);
        }
        Ok(out)
    }
}

/// By signature and step the info series with the newest sample. Errors: two have the same time.
fn newest(infos: &[InfoSeries], base: &Batch, grid: &Grid) -> Result<HashMap<Signature, Vec<Option<usize>>>> {
    let mut wanted = vec![false; grid.count];
    for row in base.rows() {
        row.each(|i, _, _| wanted[i] = true);
    }
    let mut out: HashMap<Signature, Vec<Option<usize>>> = HashMap::new();
    for (n, info) in infos.iter().enumerate() {
        let signature = Signature::of(info.labels.metric_name().unwrap_or_default(), &info.labels);
        let list = out.entry(signature).or_insert_with(|| vec![None; grid.count]);
        for i in (0..grid.count).filter(|i| wanted[*i]) {
            let Some(t) = info.times[i] else { continue };
            let existing = list[i].and_then(|o| infos[o].times[i].map(|t| (o, t)));
            match existing {
                Some((_, other)) if other > t => {}
                Some((o, other)) if other == t => {
                    return Err(EngineError::Execution(format!(
                        "found duplicate series for info metric: existing {} @ {other}, new {} @ {t}",
                        infos[o].labels, info.labels
                    )));
                }
                _ => list[i] = Some(n),
            }
        }
    }
    Ok(out)
}

/// A series' labels with those of its info series; `None` when the selector asks for labels that no info series has.
fn enriched(base: &Labels, infos: &[&Labels], data: &[Matcher]) -> Result<Option<Labels>> {
    if infos.is_empty() {
        return Ok(data.iter().all(Matcher::matches_empty).then(|| base.clone()));
    }
    let mut added: Vec<(&str, &str)> = Vec::new();
    for info in infos {
        for (name, value) in info.iter() {
            if name == METRIC_NAME || (!data.is_empty() && !data.iter().any(|m| m.name == name)) {
                continue;
            }
            if added.iter().any(|(n, v)| *n == name && *v != value) {
                return Err(EngineError::Execution(format!("conflicting label: {name}")));
            }
            if base.get(name).is_none() {
                added.push((name, value));
            }
        }
    }
    Ok(Some(base.with(added)))
}
