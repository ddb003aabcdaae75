//! A process's own metrics as values: families of samples, read back from the text that the registry renders.
//!
//! The registry's library hands out nothing but text. What reads it here knows that text only (no timestamps, no exemplars),
//! not every exposition there is; a line that it cannot read is left out.

/// Metrics of one name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Family {
    /// Name, a counter's with `_total`.
    pub name: String,
    /// What it tells.
    pub help: String,
    /// `counter`, `gauge`, `histogram`, `summary` or `untyped`.
    pub kind: String,
    /// In the order of the text; those of a histogram are its `_bucket`s, `_sum` and `_count`, one label set after another.
    pub samples: Vec<FamilySample>,
}

/// One line of an exposition.
#[derive(Clone, Debug, PartialEq)]
pub struct FamilySample {
    /// Name of the series, with the suffix that its kind has.
    pub name: String,
    /// Labels in the order of the text.
    pub labels: Vec<(String, String)>,
    /// Value.
    pub value: f64,
}

/// Reads text of the format 0.0.4 as [`crate::Metrics::text`] renders it.
pub fn families(text: &str) -> Vec<Family> {
    let mut all: Vec<Family> = Vec::new();
    let mut help = ("", "");
    for line in text.lines().filter(|l| !l.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').unwrap_or((rest, ""));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|r| r.split_once(' ')) {
            let help = if help.0 == name { help.1 } else { "" };
            let help = help.replace("\\n", "\n").replace("\\\\", "\\");
            all.push(Family { name: name.to_owned(), help, kind: kind.to_owned(), samples: Vec::new() });
        } else if !line.starts_with('#')
            && let (Some(family), Some(sample)) = (all.last_mut(), parse_sample(line))
        {
            family.samples.push(sample);
        }
    }
    all
}

/// `name{label="value",…} number`.
fn parse_sample(line: &str) -> Option<FamilySample> {
    let name_end = line.find(['{', ' '])?;
    let mut labels = Vec::new();
    let mut rest = &line[name_end..];
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (name, after) = rest.split_once("=\"")?;
            let (value, after) = unquote(after)?;
            labels.push((name.trim_start_matches(',').to_owned(), value));
            rest = after.trim_start_matches(',');
        }
        rest = &rest[1..];
    }
    let number = rest.split_ascii_whitespace().next()?;
    let value = number.replace("Inf", "inf").parse().ok()?;
    Some(FamilySample { name: line[..name_end].to_owned(), labels, value })
}

/// The value up to the closing quote, escapes resolved, and what comes behind the quote.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[i + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            plain => value.push(plain),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_back() {
        let text = "# HELP a_total says\\nb\n# TYPE a_total counter\na_total{code=\"200\",path=\"/\\\"x\\\\\"} 3\n\
                    # TYPE plain gauge\nplain 1.5\nbad{ 2\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} +Inf\n";
        let sample = |name: &str, labels: &[(&str, &str)], value| FamilySample {
            name: name.to_owned(),
            labels: labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            value,
        };
        let family = |name: &str, help: &str, kind: &str, sample| Family {
            name: name.to_owned(),
            help: help.to_owned(),
            kind: kind.to_owned(),
            samples: vec![sample],
        };
        assert_eq!(
            families(text),
            [
                family(
                    "a_total",
                    "says\nb",
                    "counter",
                    sample("a_total", &[("code", "200"), ("path", "/\"x\\")], 3.0)
                ),
                family("plain", "", "gauge", sample("plain", &[], 1.5)),
                family("h", "", "histogram", sample("h_bucket", &[("le", "+Inf")], f64::INFINITY)),
            ]
        );
    }
}
