//! Tables in Markdown, medians over repeats.

use std::fmt::Write;

/// The middle of some figures (of an even number: the upper middle).
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The figure below which a share `p` of sorted figures lies.
pub(crate) fn percentile(sorted: &[f64], p: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * p) as usize).copied().unwrap_or(f64::NAN)
}

/// A Markdown table that grows row by row.
#[derive(Debug)]
pub(crate) struct Table {
    text: String,
}

impl Table {
    /// A table with these column heads.
    pub(crate) fn new(heads: &[&str]) -> Self {
        let mut text = String::new();
        let _ = writeln!(text, "| {} |", heads.join(" | "));
        let _ = writeln!(text, "|{}", " --- |".repeat(heads.len()));
        Table { text }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: &[String]) {
        let _ = writeln!(self.text, "| {} |", cells.join(" | "));
    }

    /// The table's text.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// Three significant digits, no exponent.
pub(crate) fn figure(v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return v.to_string();
    }
    let digits = (2 - v.abs().log10().floor() as i32).clamp(0, 6) as usize;
    format!("{v:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        for (v, text) in
            [(0.12345, "0.123"), (12.345, "12.3"), (1234.5, "1234"), (0.0, "0"), (0.001234, "0.00123")]
        {
            assert_eq!(figure(v), text);
        }
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
