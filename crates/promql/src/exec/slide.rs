//! Windows of floats that slide along a series: what can be carried from one window to the next is not computed anew.

use crate::annotations::Annotations;
use crate::exec::Grid;
use crate::exec::counts::WindowCounts;
use crate::exec::range::RangeCall;
use crate::exec::samples::{Samples, Window, Windows};
use crate::functions::blocks::{self, Blocks, Max, Min, Regression, Sum, Variance};
use crate::functions::kahan::{self, LANES};
use crate::functions::over_time;
use crate::functions::sorted::{self, SortedWindow};
use crate::parser::FunctionId;

/// What windows over a series are like.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Samples in a window.
    window: usize,
    /// Samples by which a window differs from the one before.
    new: usize,
}

impl Shape {
    fn of(windows: &Windows, samples: &Samples, grid: &Grid) -> Self {
        let n = samples.ft.len();
        let (Some(first), Some(last)) = (samples.ft.first(), samples.ft.last()) else {
            return Shape { window: 0, new: 0 };
        };
        let span_ms = (last - first).max(1) as f64;
        let in_ms = |ms: i64| ((n as f64 * ms as f64 / span_ms) as usize).min(n);
        let window = in_ms(windows.range_ms);
        let new = if windows.at.is_some() { 0 } else { in_ms(grid.step).min(window) };
        Shape { window, new }
    }
}

/// Buffers that windows slide with.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlideBuffers {
    keys: Vec<i64>,
    selected: Vec<i64>,
    sorted: SortedWindow,
    counts: Vec<u32>,
}

/// Calls `set` with each step's value of a function over a series of floats, whose start timestamps are not
/// looked at. False, and nothing done, when windows of this function have nothing in common.
pub(crate) fn slide(
    range: &mut RangeCall,
    samples: &Samples,
    grid: &Grid,
    counts: &mut WindowCounts<'_>,
    annotations: &mut Annotations,
    mut set: impl FnMut(usize, f64),
) -> bool {
    use FunctionId::*;
    let windows = range.windows;
    let shape = Shape::of(&windows, samples, grid);
    let by_blocks = blocks::are_worth_it(samples.ft.len(), shape.window, grid.count);
    macro_rules! each {
        (|$step:ident, $w:ident| $e:expr) => {
            windows.slide(samples, grid, counts, |$step, $w| set($step, $e))
        };
    }
    macro_rules! each_block {
        ($part:ident, |$w:ident, $p:ident| $e:expr) => {{
            let blocks = Blocks::<$part>::new(samples);
            each!(|step, $w| {
                let $p = blocks.window($w);
                $e
            })
        }};
    }
    match range.id {
        SumOverTime if by_blocks => each_block!(Sum, |w, sum| sum.total()),
        SumOverTime => in_lanes(samples, kahan::kahan_sum, kahan::kahan_sums, &mut set, |take| {
            windows.slide(samples, grid, counts, take);
        }),
        AvgOverTime if by_blocks => each_block!(Sum, |w, sum| sum.mean(w.fv)),
        AvgOverTime => in_lanes(samples, kahan::kahan_mean, kahan::kahan_means, &mut set, |take| {
            windows.slide(samples, grid, counts, take);
        }),
        MaxOverTime if by_blocks => each_block!(Max, |w, max| max.0),
        MaxOverTime => each!(|step, w| blocks::max(w.fv)),
        MinOverTime if by_blocks => each_block!(Min, |w, min| min.0),
        MinOverTime => each!(|step, w| blocks::min(w.fv)),
        StdvarOverTime if by_blocks => each_block!(Variance, |w, v| v.of_population()),
        StdvarOverTime => each!(|step, w| over_time::variance(w.fv)),
        StddevOverTime if by_blocks => each_block!(Variance, |w, v| v.of_population().sqrt()),
        StddevOverTime => each!(|step, w| over_time::variance(w.fv).sqrt()),
        LastOverTime => each!(|step, w| w.fv[w.fv.len() - 1]),
        FirstOverTime => each!(|step, w| w.fv[0]),
        Deriv | PredictLinear => {
            let blocks = by_blocks.then(|| Blocks::<Regression>::new(samples));
            let predict = range.id == PredictLinear;
            let params = &range.params;
            windows.slide(samples, grid, counts, |step, w| {
                if w.fv.len() < 2 {
                    return;
                }
                let origin = if predict { grid.t(step) } else { w.ft[0] };
                let line = match &blocks {
                    Some(blocks) => blocks.window(w).seen_from(origin).line(),
                    None => Regression::from(w.ft, w.fv, origin).line(),
                };
                set(step, if predict { line.0 * params[0][step] + line.1 } else { line.0 });
            });
        }
        Changes => {
            let changed = |a: f64, b: f64| a != b && !(a.is_nan() && b.is_nan());
            count_pairs(&samples.fv, changed, &mut range.slide.counts);
            let pairs = &range.slide.counts;
            each!(|step, w| pairs_in(pairs, w))
        }
        Resets => {
            count_pairs(&samples.fv, |a, b| b < a, &mut range.slide.counts);
            let pairs = &range.slide.counts;
            each!(|step, w| pairs_in(pairs, w))
        }
        QuantileOverTime => {
            let SlideBuffers { keys, selected, sorted, .. } = &mut range.slide;
            sorted::keys(&samples.fv, keys);
            let (params, span) = (&range.params[0], range.span);
            let slides = SortedWindow::is_worth_it(shape.window, shape.new);
            sorted.clear();
            each!(|step, w| {
                let q = params[step];
                if !(0.0..=1.0).contains(&q) {
                    annotations.invalid_quantile(q, span);
                }
                let (from, to) = (w.first, w.first + w.fv.len());
                if slides {
                    sorted.slide(keys, from, to);
                    sorted.quantile(q)
                } else {
                    selected.clear();
                    selected.extend_from_slice(&keys[from..to]);
                    sorted::quantile(q, selected)
                }
            })
        }
        MadOverTime => {
            let SlideBuffers { keys, selected, sorted, .. } = &mut range.slide;
            sorted::keys(&samples.fv, keys);
            let slides = SortedWindow::is_worth_it(shape.window, shape.new);
            sorted.clear();
            each!(|step, w| {
                let (from, to) = (w.first, w.first + w.fv.len());
                if slides {
                    sorted.slide(keys, from, to);
                    sorted.mad()
                } else {
                    selected.clear();
                    selected.extend_from_slice(&keys[from..to]);
                    sorted::mad(selected)
                }
            })
        }
        _ => return false,
    }
    true
}

/// Calls `set` with a number of each window that `slide` hands on, made of several windows at a time where they are of
/// the same length.
fn in_lanes<'s>(
    samples: &'s Samples,
    alone: fn(&[f64]) -> f64,
    beside: fn(&[f64], [usize; LANES], usize) -> [f64; LANES],
    set: &mut impl FnMut(usize, f64),
    slide: impl FnOnce(&mut dyn FnMut(usize, &Window<'s>)),
) {
    let (mut steps, mut firsts, mut n, mut len) = ([0; LANES], [0; LANES], 0, 0);
    let mut flush = |steps: &[usize], firsts: &[usize], len: usize| match firsts.try_into() {
        Ok(all) => steps.iter().zip(beside(&samples.fv, all, len)).for_each(|(step, v)| set(*step, v)),
        Err(_) => {
            for (step, first) in steps.iter().zip(firsts) {
                set(*step, alone(&samples.fv[*first..*first + len]));
            }
        }
    };
    slide(&mut |step, w| {
        if n == LANES || w.fv.len() != len {
            flush(&steps[..n], &firsts[..n], len);
            n = 0;
            len = w.fv.len();
        }
        (steps[n], firsts[n]) = (step, w.first);
        n += 1;
    });
    flush(&steps[..n], &firsts[..n], len);
}

/// Counts, up to each value, the neighbours of which `is` is true.
fn count_pairs(values: &[f64], is: impl Fn(f64, f64) -> bool, counts: &mut Vec<u32>) {
    counts.clear();
    let mut count = 0;
    counts.push(count);
    counts.extend(values.windows(2).map(|pair| {
        count += u32::from(is(pair[0], pair[1]));
        count
    }));
}

fn pairs_in(counts: &[u32], w: &Window<'_>) -> f64 {
    f64::from(counts[w.first + w.fv.len() - 1] - counts[w.first])
}
