//! Selectors, ranges, subqueries, offsets and times.

use super::Generator;
use crate::data::{SPAN_MS, START_MS, Shape};
use crate::expr::{Expr, Piece, optional};

const DURATIONS: [&str; 8] = ["15s", "30s", "1m", "2m", "5m", "10m", "17m", "90s"];

impl Generator<'_> {
    /// A selector, with modifiers now and then.
    pub(super) fn selector(&mut self, shape: Option<Shape>) -> Expr {
        let mut pieces = self.bare_selector(shape);
        if self.dialect.has("promql-extended-range-selectors") && self.random.chance(5) {
            pieces.push(optional(" smoothed"));
        }
        pieces.extend(self.modifiers());
        Expr { kind: crate::expr::Kind::Vector, pieces }
    }

    fn bare_selector(&mut self, shape: Option<Shape>) -> Vec<Piece> {
        if self.random.chance(2) {
            return vec!["no_such_metric".into()];
        }
        let metric = self.metric(shape).clone();
        let mut matchers = Vec::new();
        for (label, values) in &metric.labels {
            if self.random.chance(20) {
                matchers.push(self.matcher(label, values));
            }
        }
        if self.random.chance(3) {
            matchers
                .push(["nowhere=\"\"", "nowhere!=\"x\"", "nowhere=~\".+\""][self.random.below(3)].to_owned());
        }
        if metric.name.contains('.') {
            matchers.insert(0, format!("\"{}\"", metric.name));
            return vec![format!("{{{}}}", matchers.join(", ")).into()];
        }
        if self.random.chance(4) {
            let prefix: String = metric.name.chars().take(2).collect();
            let by_name = format!("__name__=~\"{prefix}.*\"");
            matchers.insert(0, by_name);
            return vec![format!("{{{}}}", matchers.join(",")).into()];
        }
        let mut pieces: Vec<Piece> = vec![metric.name.into()];
        if !matchers.is_empty() {
            pieces.push(optional(format!("{{{}}}", matchers.join(","))));
        }
        pieces
    }

    fn matcher(&mut self, label: &str, values: &[String]) -> String {
        let quote = |v: &str| format!("{v:?}");
        let value = &values[self.random.below(values.len())];
        let name = if label.contains('.') { quote(label) } else { label.to_owned() };
        let pattern = |g: &mut Self| match g.random.below(7) {
            0 => ".*".to_owned(),
            1 => ".+".to_owned(),
            2 => format!("{}|{}", value.replace(['"', '\\', '/'], "."), "other"),
            3 => format!("{}.*", value.chars().next().filter(char::is_ascii_alphanumeric).unwrap_or('.')),
            4 => "[a-b].*".to_owned(),
            5 => "(?i:GET|API)".to_owned(),
            _ => "|x".to_owned(),
        };
        match self.random.below(10) {
            0..=4 => format!("{name}={}", quote(value)),
            5..=6 => format!("{name}!={}", quote(value)),
            7..=8 => format!("{name}=~{}", quote(&pattern(self))),
            _ => format!("{name}!~{}", quote(&pattern(self))),
        }
    }

    /// `offset` and `@`, in either order.
    fn modifiers(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if self.random.chance(12) {
            let d = self.random.pick(&DURATIONS);
            let text = match self.random.below(10) {
                0..=6 => format!(" offset {d}"),
                7 | 8 => format!(" offset -{d}"),
                _ if self.durations() => format!(" offset ({d} - 10 * 2s)"),
                _ => format!(" offset {d}"),
            };
            pieces.push(optional(text));
        }
        if self.random.chance(8) {
            let text = match self.random.below(4) {
                0 => " @ start()".to_owned(),
                1 => " @ end()".to_owned(),
                _ => {
                    let t = START_MS / 1000 + self.random.below((SPAN_MS / 1000) as usize) as i64;
                    format!(" @ {t}{}", if self.dialect.closed_windows() { ".5" } else { "" })
                }
            };
            pieces.push(optional(text));
            if pieces.len() == 2 && self.random.chance(50) {
                pieces.swap(0, 1);
            }
        }
        pieces
    }

    /// Duration expressions are in the language.
    pub(super) fn durations(&self) -> bool {
        self.dialect.is_current()
    }

    fn range_text(&mut self) -> String {
        let d = self.random.pick(&DURATIONS[1..]).to_owned();
        if self.durations() && self.random.chance(5) {
            return match self.random.below(4) {
                0 => format!("{d} * 2"),
                1 => format!("2 * {d} - 15s"),
                2 => format!("max_of({d}, step())"),
                _ => format!("{d} + 5 ^ 2"),
            };
        }
        if self.dialect.version >= (3, 0) && self.random.chance(3) {
            return "240".to_owned();
        }
        d
    }

    /// A range vector, of a shape if one is asked for.
    pub(super) fn matrix_of(&mut self, shape: Option<Shape>, depth: usize, extended: &[&str]) -> Expr {
        if depth > 1 && self.random.chance(25) && self.subqueries < 2 {
            return self.subquery(depth);
        }
        let mut pieces = self.bare_selector(shape);
        pieces.push(format!("[{}]", self.range_text()).into());
        if self.dialect.has("promql-extended-range-selectors")
            && !extended.is_empty()
            && self.random.chance(35)
        {
            pieces.push(optional(format!(" {}", self.random.pick(extended))));
        }
        pieces.extend(self.modifiers());
        Expr { kind: crate::expr::Kind::Matrix, pieces }
    }

    /// A range vector.
    pub(super) fn matrix(&mut self, depth: usize) -> Expr {
        self.matrix_of(None, depth, &[])
    }

    fn subquery(&mut self, depth: usize) -> Expr {
        self.subqueries += 1;
        let inner = self.vector(depth - 1);
        self.subqueries -= 1;
        let range = self.random.pick(&DURATIONS[2..7]).to_owned();
        // Inside another subquery the times are on the step: a quarter of a second keeps the window's end off it.
        let aligned = self.subqueries > 0 && self.dialect.closed_windows();
        let range = if aligned { format!("{range}250ms") } else { range };
        let step = self.random.pick(&["", "15s", "30s", "1m", "47s"]);
        // Without parentheses the subquery takes the last part only, or is refused, on both sides.
        let bare = self.random.chance(50);
        let mut pieces: Vec<Piece> =
            if bare { vec![inner.into()] } else { vec!["(".into(), inner.into(), ")".into()] };
        pieces.push(format!("[{range}:{step}]").into());
        pieces.extend(self.modifiers());
        Expr { kind: crate::expr::Kind::Matrix, pieces }
    }
}
