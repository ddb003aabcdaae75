//! `histogram_quantile` and its kin, on classic histograms (a series a bucket) and native ones.

use chronolith_model::{FloatHistogram, Labels};
use hashbrown::HashMap;

use crate::annotations::{Monotonicity, format_g};
use crate::exec::batch::label_bytes;
use crate::exec::labels::without_metadata;
use crate::exec::merge::merge_equal;
use crate::exec::{Batch, Exec, Grid, Held, Result, Sink};
use crate::functions::classic::{self, Bucket};
use crate::functions::native;
use crate::memory::MemoryUse;
use crate::parser::{Call, ExprId, FunctionId, Span};

/// What is estimated.
enum Estimate {
    /// A quantile by step, and the label that names it where several are asked for.
    Quantile(Vec<f64>),
    /// The fraction between two bounds by step.
    Fraction(Vec<f64>, Vec<f64>),
}

/// A classic histogram: its labels without `le` and its buckets' rows, sorted by bound.
struct Classic {
    labels: Labels,
    buckets: Vec<(f64, usize)>,
}

/// A vector taken apart.
struct Histograms {
    input: Batch,
    classic: Vec<Classic>,
    /// Index of the classic histogram with the very labels of a native one, by row.
    twins: Vec<Option<usize>>,
    _held: Held,
}

/// A bucket in its histogram's list, and its row's place among the twins.
const BUCKET_BYTES: usize = 48;

impl<'a> Exec<'a> {
    /// `histogram_quantile`, `histogram_quantiles`, `histogram_fraction`.
    pub(crate) fn histogram_estimate(
        &mut self,
        id: ExprId,
        call: &Call,
        grid: &Grid,
        sink: Sink<'_, 'a>,
    ) -> Result<()> {
        let strip = self.drops_names_now(id);
        let (vector, estimates, label) = match call.func.id {
            FunctionId::HistogramQuantile => {
                let q = self.scalar(call.args[0], grid)?;
                (call.args[1], vec![Estimate::Quantile(q)], None)
            }
            FunctionId::HistogramQuantiles => {
                let mut estimates = Vec::new();
                for &arg in &call.args[2..] {
                    estimates.push(Estimate::Quantile(self.scalar(arg, grid)?));
                }
                (call.args[0], estimates, Some(self.string(call.args[1])))
            }
            _ => {
                let (l, u) = (self.scalar(call.args[0], grid)?, self.scalar(call.args[1], grid)?);
                (call.args[2], vec![Estimate::Fraction(l, u)], None)
            }
        };
        let span = self.plan.ast.span(self.plan.ast.unwrap_parens(vector));
        let histograms = self.histograms(vector, grid, span)?;
        // After what the input has to say: of equal texts the last one's position is shown.
        let first = usize::from(label.is_some()) * 2;
        for (estimate, &arg) in estimates.iter().zip(&call.args[first..]) {
            if let Estimate::Quantile(q) = estimate {
                self.warn_of_quantiles_by_step(q, arg);
            }
        }
        let mut out = Batch::new(grid.count);
        for estimate in &estimates {
            self.estimate(&histograms, estimate, label.as_deref(), strip, span, grid, &mut out)?;
        }
        drop(histograms);
        self.emit(merge_equal(out)?, sink)
    }

    /// Values of a quantile argument outside [0, 1] are warned about.
    fn warn_of_quantiles_by_step(&mut self, q: &[f64], arg: ExprId) {
        let span = self.plan.ast.span(self.plan.ast.unwrap_parens(arg));
        for (i, &q_i) in q.iter().enumerate() {
            if !(0.0..=1.0).contains(&q_i) && (i == 0 || q[i - 1].to_bits() != q_i.to_bits()) {
                self.annotations.invalid_quantile(q_i, span);
            }
        }
    }

    /// Sorts a vector into classic and native histograms.
    fn histograms(&mut self, vector: ExprId, grid: &Grid, span: Span) -> Result<Histograms> {
        let input = self.collect(vector, grid)?;
        let mut held = self.held(MemoryUse::Joins);
        let mut classic: Vec<Classic> = Vec::new();
        let mut index: HashMap<Labels, usize> = HashMap::new();
        for (r, row) in input.rows().enumerate() {
            if row.hists.is_some_and(|h| !has_floats(&row, h)) {
                continue;
            }
            let le = row.labels.get("le").unwrap_or_default();
            let Some(upper) = parse_go_float(le) else {
                let metric = if self.options.delayed_name_removal {
                    row.labels.metric_name().unwrap_or_default()
                } else {
                    ""
                };
                self.annotations.bad_bucket_label(metric, le, span);
                continue;
            };
            let labels = row.labels.without("le");
            held.more(BUCKET_BYTES)?;
            let mut new = 0;
            let c = *index.entry(labels.clone()).or_insert_with(|| {
                new = label_bytes(&labels);
                classic.push(Classic { labels, buckets: Vec::new() });
                classic.len() - 1
            });
            held.more(new)?;
            classic[c].buckets.push((upper, r));
        }
        for c in &mut classic {
            c.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        let twins = input.rows().map(|row| row.hists.and_then(|_| index.get(row.labels).copied())).collect();
        Ok(Histograms { input, classic, twins, _held: held })
    }

    #[allow(clippy::too_many_arguments)]
    fn estimate(
        &mut self,
        all: &Histograms,
        estimate: &Estimate,
        label: Option<&str>,
        strip: bool,
        span: Span,
        grid: &Grid,
        out: &mut Batch,
    ) -> Result<()> {
        let delayed = self.options.delayed_name_removal;
        let name = |labels: &Labels| -> String {
            if delayed { labels.metric_name().unwrap_or_default().to_owned() } else { String::new() }
        };
        let final_labels = |labels: &Labels, q: Option<f64>| {
            let labels = if strip { without_metadata(labels) } else { labels.clone() };
            match (label, q) {
                (Some(label), Some(q)) => labels.with([(label, open_metrics_float(q).as_str())]),
                _ => labels,
            }
        };
        // Steps at which a classic histogram stands beside a native one of the same labels.
        let mut clash: HashMap<usize, Vec<bool>> = HashMap::new();
        for (r, row) in all.input.rows().enumerate() {
            let Some(twin) = all.twins[r] else { continue };
            let buckets = &all.classic[twin].buckets;
            for i in 0..grid.count {
                let classic = |b: &(f64, usize)| {
                    let other = all.input.row(b.1);
                    other.has(i) && other.histogram(i).is_none()
                };
                if row.histogram(i).is_some() && buckets.iter().any(classic) {
                    self.annotations.mixed_classic_native(&name(row.labels), span);
                    clash.entry(twin).or_insert_with(|| vec![false; grid.count])[i] = true;
                }
            }
        }
        let q_values: Vec<Option<f64>> = match estimate {
            Estimate::Quantile(q) if label.is_some() => distinct(q).into_iter().map(Some).collect(),
            _ => vec![None],
        };
        for wanted in q_values {
            let here = |i: usize| match (estimate, wanted) {
                (Estimate::Quantile(q), Some(w)) => q[i].to_bits() == w.to_bits(),
                _ => true,
            };
            for (r, row) in all.input.rows().enumerate() {
                self.row_progress(r, out)?;
                if row.hists.is_none() {
                    continue;
                }
                let clashes = all.twins[r].and_then(|t| clash.get(&t));
                out.push(
                    || final_labels(row.labels, wanted),
                    true,
                    |to| {
                        row.each(|i, _, h| {
                            let Some(h) = h else { return };
                            if here(i) && !clashes.is_some_and(|c| c[i]) {
                                let v = self.estimate_native(estimate, i, h, &name(row.labels), span);
                                to.set(i, v);
                            }
                        });
                    },
                );
            }
            let mut buckets: Vec<Bucket> = Vec::new();
            for (c, classic) in all.classic.iter().enumerate() {
                self.row_progress(c, out)?;
                let rows: Vec<_> = classic.buckets.iter().map(|b| (b.0, all.input.row(b.1))).collect();
                let clashes = clash.get(&c);
                out.push(
                    || final_labels(&classic.labels, wanted),
                    true,
                    |to| {
                        for i in (0..grid.count).filter(|i| here(*i)) {
                            if clashes.is_some_and(|c| c[i]) {
                                continue;
                            }
                            buckets.clear();
                            buckets.extend(
                                rows.iter()
                                    .filter(|(_, row)| row.has(i) && row.histogram(i).is_none())
                                    .map(|(upper, row)| Bucket { upper: *upper, count: row.values[i] }),
                            );
                            if buckets.is_empty() {
                                continue;
                            }
                            match estimate {
                                Estimate::Fraction(l, u) => {
                                    to.set(i, classic::fraction(l[i], u[i], &mut buckets));
                                }
                                Estimate::Quantile(q) => {
                                    let (v, forced) = classic::quantile(q[i], &mut buckets);
                                    if let Some(f) = forced {
                                        let what = Monotonicity {
                                            mint: grid.t(i),
                                            maxt: grid.t(i),
                                            bucket_min: f.bucket_min,
                                            bucket_max: f.bucket_max,
                                            diff_max: f.diff_max,
                                            count: 1,
                                        };
                                        let name = name(&classic.labels);
                                        self.annotations.forced_monotonicity(&name, span, what);
                                    }
                                    to.set(i, v);
                                }
                            }
                        }
                    },
                );
            }
        }
        Ok(())
    }

    fn estimate_native(
        &mut self,
        estimate: &Estimate,
        i: usize,
        h: &FloatHistogram,
        metric: &str,
        span: Span,
    ) -> f64 {
        match estimate {
            Estimate::Quantile(q) => {
                let (v, note) = native::quantile(q[i], h);
                match note {
                    Some(native::NanNote::Result) => self.annotations.quantile_nan_result(metric, span),
                    Some(native::NanNote::Skew) => self.annotations.quantile_nan_skew(metric, span),
                    None => {}
                }
                v
            }
            Estimate::Fraction(l, u) => {
                let (v, nans) = native::fraction(l[i], u[i], h);
                if nans {
                    self.annotations.fraction_nans(metric, span);
                }
                v
            }
        }
    }

    /// `histogram_count` and its kin: a number of each histogram, floats go.
    pub(crate) fn histogram_statistic(
        &mut self,
        id: ExprId,
        call: &Call,
        grid: &Grid,
        sink: Sink<'_, 'a>,
    ) -> Result<()> {
        let statistic: fn(&FloatHistogram) -> f64 = match call.func.id {
            FunctionId::HistogramCount => |h| h.count,
            FunctionId::HistogramSum => |h| h.sum,
            FunctionId::HistogramAvg => |h| h.sum / h.count,
            FunctionId::HistogramStddev => |h| native::variance(h).sqrt(),
            _ => native::variance,
        };
        self.rename(id, call.args[0], grid, sink, &mut |_, batch| {
            batch.keep_histograms_as(statistic);
            Ok(())
        })
    }
}

fn has_floats(row: &crate::exec::batch::Row<'_>, hists: &[Option<std::sync::Arc<FloatHistogram>>]) -> bool {
    (0..hists.len()).any(|i| row.has(i) && hists[i].is_none())
}

fn distinct(values: &[f64]) -> Vec<f64> {
    let mut out: Vec<f64> = Vec::new();
    for v in values {
        if !out.iter().any(|o| o.to_bits() == v.to_bits()) {
            out.push(*v);
        }
    }
    out
}

/// A float as label values of OpenMetrics spell it: `1.0`, `0.5`, `+Inf`.
fn open_metrics_float(v: f64) -> String {
    let text = format_g(v);
    if v.is_finite() && !text.contains(['e', '.']) { format!("{text}.0") } else { text }
}

/// What Go's `ParseFloat` accepts, as far as bucket bounds go.
fn parse_go_float(text: &str) -> Option<f64> {
    let plain = text.strip_prefix(['+', '-']).unwrap_or(text);
    if plain.is_empty() || plain.starts_with(['+', '-']) {
        return None;
    }
    text.parse().ok()
}
