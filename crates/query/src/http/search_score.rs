//! How well a name fits what someone typed: upstream's scores, from 0 to 1, so that a client sorts as it does there.

/// How names that do not hold the term itself are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// All characters of the term in their order, runs of them counted by their square.
    #[default]
    Subsequence,
    /// The term itself, or else the similarity of Jaro and Winkler.
    JaroWinkler,
}

impl Algorithm {
    /// The algorithm of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "" | "subsequence" => Some(Algorithm::Subsequence),
            "jarowinkler" => Some(Algorithm::JaroWinkler),
            _ => None,
        }
    }
}

/// What is looked for; a name fits when it fits one of the terms.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    terms: Vec<Vec<char>>,
    algorithm: Algorithm,
    /// From 0 to 1; lower scores do not fit.
    threshold: f64,
    fold_case: bool,
}

impl Terms {
    /// Empty terms say nothing.
    pub(super) fn new<'a>(
        terms: impl Iterator<Item = &'a str>,
        algorithm: Algorithm,
        threshold: f64,
        fold_case: bool,
    ) -> Self {
        let fold = |t: &str| if fold_case { t.to_lowercase() } else { t.to_owned() };
        let terms = terms.filter(|t| !t.is_empty()).map(|t| fold(t).chars().collect()).collect();
        Terms { terms, algorithm, threshold, fold_case }
    }

    /// The best score, `None` where the name does not fit; 1 where nothing is looked for.
    pub(super) fn score(&self, name: &str) -> Option<f64> {
        if self.terms.is_empty() {
            return Some(1.0);
        }
        let name: Vec<char> =
            if self.fold_case { name.to_lowercase().chars().collect() } else { name.chars().collect() };
        self.terms.iter().filter_map(|term| self.one(term, &name)).max_by(f64::total_cmp)
    }

    fn one(&self, term: &[char], name: &[char]) -> Option<f64> {
        match self.algorithm {
            Algorithm::Subsequence if name.starts_with(term) => Some(1.0),
            Algorithm::Subsequence => {
                let score = subsequence(term, name);
                (score > 0.0 && score >= self.threshold).then_some(score)
            }
            Algorithm::JaroWinkler => substring(term, name).or_else(|| {
                let score = jaro_winkler(term, name);
                (self.threshold > 0.0 && score >= self.threshold).then_some(score)
            }),
        }
    }
}

/// 1 at the start, down to 0.1 at the end.
fn substring(term: &[char], name: &[char]) -> Option<f64> {
    let at = name.windows(term.len()).position(|w| w == term)?;
    let last = name.len() - term.len();
    Some(if at == 0 { 1.0 } else { 1.0 - 0.9 * at as f64 / last as f64 })
}

/// The best over all places where the match may begin.
fn subsequence(term: &[char], name: &[char]) -> f64 {
    if term.len() > name.len() {
        return 0.0;
    }
    let starts = (0..=name.len() - term.len()).filter(|i| name[*i] == term[0]);
    let mut best = -1.0_f64;
    for start in starts {
        // What cannot be completed from here cannot be from later either.
        let Some(score) = runs(term, name, start) else { break };
        best = best.max(score);
    }
    // What is not the name itself, or its beginning, stays below 1.
    if best < 0.0 { 0.0 } else { best / (term.len() * term.len()) as f64 * 0.999 }
}

/// Runs of matched characters by their square, less the gaps as parts of the name; the one at the end counts half.
fn runs(term: &[char], name: &[char], start: usize) -> Option<f64> {
    let part = 1.0 / name.len() as f64;
    let (mut score, mut matched, mut i, mut end) = (0.0, 0, start, 0);
    while matched < term.len() {
        i += name[i..].iter().position(|c| *c == term[matched])?;
        let from = i;
        while matched < term.len() && i < name.len() && name[i] == term[matched] {
            matched += 1;
            i += 1;
        }
        let gap = from - end;
        if gap > 0 {
            score -= gap as f64 * part;
        }
        let run = (i - from) as f64;
        score += run * run;
        end = i;
    }
    let rest = name.len() - end;
    Some(if rest > 0 { score - rest as f64 * part * 0.5 } else { score })
}

fn jaro_winkler(term: &[char], name: &[char]) -> f64 {
    let (a, b) = if term.len() <= name.len() { (term, name) } else { (name, term) };
    if a.is_empty() {
        return 0.0;
    }
    let near = (b.len() / 2).saturating_sub(1);
    let (mut taken, mut left) = (vec![false; b.len()], Vec::new());
    for (i, c) in a.iter().enumerate() {
        let window = i.saturating_sub(near)..(i + near + 1).min(b.len());
        if let Some(j) = window.into_iter().find(|j| !taken[*j] && b[*j] == *c) {
            taken[j] = true;
            left.push(*c);
        }
    }
    if left.is_empty() {
        return 0.0;
    }
    let right = b.iter().zip(&taken).filter(|(_, taken)| **taken).map(|(c, _)| *c);
    let swapped = left.iter().zip(right).filter(|(l, r)| **l != *r).count() as f64;
    let matches = left.len() as f64;
    let jaro = (matches * (1.0 / a.len() as f64)
        + matches * (1.0 / b.len() as f64)
        + (matches - swapped * 0.5) / matches)
        / 3.0;
    let prefix = a.iter().zip(b).take(4).take_while(|(x, y)| x == y).count() as f64;
    jaro + prefix * 0.1 * (1.0 - jaro)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(algorithm: Algorithm, threshold: f64, term: &str, name: &str) -> Option<f64> {
        Terms::new([term].into_iter(), algorithm, threshold, false).score(name)
    }

    #[test]
    fn scores_are_upstreams() {
        let close = |got: Option<f64>, want: f64| (got.unwrap_or(-1.0) - want).abs() < 1e-12;
        let sub = |term, name| score(Algorithm::Subsequence, 0.0, term, name);
        assert_eq!(sub("http", "http_requests"), Some(1.0));
        assert_eq!(sub("up", "up"), Some(1.0));
        assert_eq!(sub("xyz", "http"), None);
        // One run of two after a gap of one: 4 - 1/3, over 4.
        assert!(close(sub("bc", "abc"), (4.0 - 1.0 / 3.0) / 4.0 * 0.999));
        // Two runs with a gap of one between them and one at the end.
        assert!(close(sub("ac", "abcd"), (2.0 - 0.25 - 0.125) / 4.0 * 0.999));
        // The later start is the better one.
        assert!(close(sub("ab", "a_ab"), (4.0 - 0.5) / 4.0 * 0.999));
        let jaro = |threshold, term, name| score(Algorithm::JaroWinkler, threshold, term, name);
        assert!(close(jaro(0.5, "martha", "marhta"), 0.961_111_111_111_111_1));
        assert!(close(jaro(0.5, "dixon", "dicksonx"), 0.813_333_333_333_333_3));
        assert_eq!(jaro(0.0, "martha", "marhta"), None);
        assert!(close(jaro(0.0, "b", "abc"), 1.0 - 0.9 / 2.0));
        assert_eq!(jaro(0.0, "abc", "ab"), None);
    }

    #[test]
    fn any_term_will_do() {
        let terms = Terms::new(["UP", "", "go"].into_iter(), Algorithm::Subsequence, 0.9, true);
        assert_eq!(terms.score("Go_gc"), Some(1.0));
        assert_eq!(terms.score("up"), Some(1.0));
        assert_eq!(terms.score("u_p"), None);
        assert_eq!(Terms::new([""].into_iter(), Algorithm::Subsequence, 0.9, true).score("x"), Some(1.0));
    }
}
