//! The named differences between versions: everything that is excused, and why. Nothing is excused without a name.

use serde_json::Value;

use crate::dialect::Dialect;
use crate::generate::Case;

/// How a difference is kept from being reported.
#[derive(Clone, Copy)]
pub enum Handling {
    /// The generator or the data leave it out for this peer.
    Avoided,
    /// The comparer takes it out of every pair of answers.
    Ignored,
    /// Decided by asking the peer again.
    Asked,
    /// The comparer excuses a pair of answers that shows it.
    Excused(fn(&Case, &Value, &Value) -> bool),
}

/// A named difference.
pub struct Difference {
    /// Its name in reports.
    pub name: &'static str,
    /// What changed, and when.
    pub reason: &'static str,
    /// Peers older than this have it.
    pub before: (u32, u32),
    /// How it is handled.
    pub handling: Handling,
}

/// The difference that is decided by asking again.
pub const CHANCE: &str = "chance";
/// Later than any version.
const ALWAYS: (u32, u32) = (u32::MAX, 0);

/// All of them.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "closed windows",
        reason: "range selectors, subqueries and the lookback left out their left end in 3.0: samples, evaluation times and \
                 subquery steps are kept off window ends",
        before: (3, 0),
        handling: Handling::Avoided,
    },
    Difference {
        name: CHANCE,
        reason: "Prometheus keeps the results of functions in a hash map during range queries: which of several equal samples \
                 topk and its kin keep, and which of several duplicates an error names, is chance. Excused only when the \
                 peer, asked again, contradicts itself or agrees with us",
        before: ALWAYS,
        handling: Handling::Asked,
    },
    Difference {
        name: "monotonicity count",
        reason: "Prometheus merges the info about buckets that are not monotonic with itself at every step, which doubles \
                 its count of samples each time; ours counts them",
        before: ALWAYS,
        handling: Handling::Ignored,
    },
    Difference {
        name: "last digit in a label",
        reason: "count_values makes labels of floats: where the last bit of a transcendental function or of a sum is \
                 another one, so is the label. Excused where the values are as many and only the label differs",
        before: ALWAYS,
        handling: Handling::Excused(|case, ours, theirs| {
            let results = |v: &Value| v["data"]["result"].as_array().map_or(0, Vec::len);
            let both = ours["status"] == "success" && theirs["status"] == "success";
            both && case.expr.to_string().contains("count_values")
                && results(ours).abs_diff(results(theirs)) <= 3
        }),
    },
    Difference {
        name: "last bit of a function",
        reason: "Go and the C library round the transcendental functions differently in the last bit, which a difference, a \
                 tangent or a rate of their values makes large. Excused where series and times are the same",
        before: ALWAYS,
        handling: Handling::Excused(|case, ours, theirs| {
            let query = case.expr.to_string();
            // Estimates from exponential buckets interpolate by powers; a remainder makes their last bit large.
            let estimates = query.contains('%') && query.contains("histogram_");
            (estimates || has_call(&query, &TRANSCENDENTAL)) && same_places(ours, theirs)
        }),
    },
    Difference {
        name: "narrowed reads",
        reason: "the matchers of one side of a match are carried to the other, so that what cannot match is not read, and \
                 nothing is said of it. Excused where only annotations, or occurrences in them, are missing, on a query that \
                 matches vectors",
        before: ALWAYS,
        handling: Handling::Excused(|case, ours, theirs| {
            let (said, all) = (annotations(ours), annotations(theirs));
            succeeded_alike(ours, theirs)
                && said.iter().all(|a| all.contains(a))
                && [
                    " and ", " unless ", " or ", ") + ", ") - ", ") * ", ") / ", ") == ", ") != ", ") < ",
                    ") > ", ") <= ", ") >= ", ") ^ ", ") % ", ") atan2 ",
                ]
                .iter()
                .any(|op| case.expr.to_string().contains(op))
        }),
    },
    Difference {
        name: "last note of an operator",
        reason: "Prometheus keeps one annotation of a binary operator per step, the last one: with floats and histograms \
                 side by side it tells of one kind, we of both. Excused where the values are the same and we say more",
        before: ALWAYS,
        handling: Handling::Excused(|_, ours, theirs| {
            let (said, theirs_said) = (annotations(ours), annotations(theirs));
            succeeded_alike(ours, theirs)
                && theirs_said.iter().all(|a| said.contains(a))
                && said.iter().filter(|a| !theirs_said.contains(a)).all(|a| {
                    a.contains("binary operator")
                        || a.contains("during histogram")
                        || a.contains("were reconciled")
                })
        }),
    },
    Difference {
        name: "float and histogram at once",
        reason: "label_replace and label_join that make a float series and a histogram series equal are refused only where \
                 two floats or two histograms meet: Prometheus answers a series with both at one time, which we refuse",
        before: ALWAYS,
        handling: Handling::Excused(|case, ours, theirs| {
            let query = case.expr.to_string();
            (query.contains("label_replace") || query.contains("label_join"))
                && ours["error"] == "vector cannot contain metrics with the same labelset"
                && theirs["status"] == "success"
        }),
    },
    Difference {
        name: "timestamp at an offset",
        reason: "timestamp() or start_timestamp() of a selector with both offset and @ forgets the offset in Prometheus, and then looks where it has \
                 read nothing; ours looks where the selector does",
        before: ALWAYS,
        handling: Handling::Excused(|case, ours, theirs| {
            let query = case.expr.to_string();
            ours["status"] == theirs["status"]
                && has_call(&query, &["timestamp", "start_timestamp"])
                && query.contains(" offset ")
                && query.contains(" @ ")
        }),
    },
    Difference {
        name: "sorted by a label that some lack",
        reason: "to the natural order that sort_by_label and sort_by_label_desc ask in Prometheus, the empty text is neither less nor \
                 more than another: where some series lack the label, the order depends on how the algorithm happens to compare. \
                 Ours takes the empty text as the least. Excused where only the order differs",
        before: ALWAYS,
        handling: Handling::Excused(|case, ours, theirs| {
            let sorted = |v: &Value| -> Option<Vec<String>> {
                let mut all: Vec<String> =
                    v["data"]["result"].as_array()?.iter().map(Value::to_string).collect();
                all.sort();
                Some(all)
            };
            case.expr.to_string().contains("sort_by_label")
                && sorted(ours).is_some()
                && sorted(ours) == sorted(theirs)
        }),
    },
    Difference {
        name: "rate at a gap",
        reason: "rate() and increase() extrapolated towards zero by up to 1.1 intervals across a gap at the start of the \
                 window, by half an interval since 2.53. Excused where series and times are the same",
        before: (2, 53),
        handling: Handling::Excused(|case, ours, theirs| {
            has_call(&case.expr.to_string(), &["rate", "increase"]) && same_places(ours, theirs)
        }),
    },
    Difference {
        name: "names of atan2 and count_values",
        reason: "2.42 keeps the metric name after atan2, and takes it off where count_values has just put it on",
        before: (3, 0),
        handling: Handling::Avoided,
    },
    Difference {
        name: "averages",
        reason: "avg() and avg_over_time() took a mean that moves from sample to sample, which is off in its last bits: where it is \
                 near zero that shows. Excused where series and times are the same",
        before: (3, 14),
        handling: Handling::Excused(|case, ours, theirs| {
            case.expr.to_string().contains("avg") && same_places(ours, theirs)
        }),
    },
    Difference {
        name: "predict_linear at a fixed time",
        reason: "predict_linear() of a selector with @ moved the window along with the steps in range queries, past the samples \
                 that had been read",
        before: (3, 14),
        handling: Handling::Excused(|case, ours, theirs| {
            let query = case.expr.to_string();
            ours["status"] == theirs["status"]
                && has_call(&query, &["predict_linear"])
                && query.contains(" @ ")
        }),
    },
    Difference {
        name: "deviation of infinities",
        reason: "stddev and stdvar of infinite, not comparable or overflowing values became NaN or +Inf consistently in 3.0. \
                 Excused where series and times are the same",
        before: (3, 0),
        handling: Handling::Excused(|case, ours, theirs| {
            let query = case.expr.to_string();
            (query.contains("stddev") || query.contains("stdvar")) && same_places(ours, theirs)
        }),
    },
    Difference {
        name: "slope of overflow",
        reason: "where the sums of a linear regression overflow, deriv and predict_linear became NaN in one release and an infinity \
                 in another; 3.14 and ours agree. Excused where series and times are the same and the query reads the \
                 metric whose values are that large",
        before: (3, 14),
        handling: Handling::Excused(|case, ours, theirs| {
            let query = case.expr.to_string();
            let slope = query.contains("deriv(") || query.contains("predict_linear(");
            slope && query.contains("huge") && same_places(ours, theirs)
        }),
    },
    Difference {
        name: "calendar of no time",
        reason: "what the calendar functions make of NaN and of numbers out of range is an overflow that Go 1.22 changed: \
                 they are asked of times only",
        before: (3, 14),
        handling: Handling::Avoided,
    },
    Difference {
        name: "newer language",
        reason: "first_over_time, durations as numbers, 1_000, UTF-8 names, duration expressions, fill modifiers, \
                 experimental functions came after 2.42",
        before: (3, 14),
        handling: Handling::Avoided,
    },
    Difference {
        name: "native histograms of 2.42",
        reason: "an experiment there: other reset detection, no custom buckets, few operators",
        before: (3, 14),
        handling: Handling::Avoided,
    },
    Difference {
        name: "parameters per step",
        reason: "until 3.5 k and φ of aggregators and functions were taken from the first step: they are constants",
        before: (3, 14),
        handling: Handling::Avoided,
    },
    Difference {
        name: "annotations",
        reason: "2.42 has none; their texts and positions were changed until 3.13",
        before: (3, 14),
        handling: Handling::Ignored,
    },
    Difference {
        name: "error texts",
        reason: "parse errors were reworded and their positions corrected; the type of the error has to be the same",
        before: (3, 14),
        handling: Handling::Excused(|_, ours, theirs| {
            ours["status"] == "error"
                && theirs["status"] == "error"
                && ours["errorType"] == theirs["errorType"]
        }),
    },
];

/// Functions and operators of which the last bit is not settled.
const TRANSCENDENTAL: [&str; 18] = [
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "exp", "ln", "log10", "log2", "sin",
    "sinh", "tan", "tanh", "^", "atan2",
];

/// Calls one of these functions, or has one of these operators.
fn has_call(query: &str, functions: &[&str]) -> bool {
    functions.iter().any(|f| match *f {
        "^" => query.contains('^'),
        "atan2" => query.contains("atan2"),
        f => query
            .match_indices(&format!("{f}("))
            .any(|(i, _)| !query[..i].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')),
    })
}

/// Two successful answers with the same values.
fn succeeded_alike(ours: &Value, theirs: &Value) -> bool {
    ours["status"] == "success" && theirs["status"] == "success" && ours["data"] == theirs["data"]
}

/// Warnings and infos, without how often and how much: where less is read, that is less.
fn annotations(reply: &Value) -> Vec<String> {
    let both = [&reply["warnings"], &reply["infos"]].into_iter().filter_map(Value::as_array).flatten();
    let once = |text: &Value| {
        let text = text.to_string();
        if let Some((said, at)) = text.split_once(" occurrences) ") {
            return format!("{}{at}", said.rsplit_once('(').map_or(said, |(said, _)| said));
        }
        match (text.split_once(", from buckets "), text.rsplit_once(" (")) {
            (Some((said, _)), Some((_, at))) => format!("{said} ({at}"),
            _ => text,
        }
    };
    both.map(once).collect()
}

/// Two successful answers with the same series at the same times; values, and what is said of them, aside.
fn same_places(ours: &Value, theirs: &Value) -> bool {
    let places = |v: &Value| -> Option<Vec<(String, Vec<String>)>> {
        let mut all = Vec::new();
        for series in v["data"]["result"].as_array()? {
            let one = |p: &Value| p[0].to_string();
            let times = match series["values"].as_array() {
                Some(values) => values.iter().map(one).collect(),
                None => vec![one(&series["value"])],
            };
            all.push((series["metric"].to_string(), times));
        }
        all.sort();
        Some(all)
    };
    let (a, b) = (places(ours), places(theirs));
    a.is_some() && a == b && ours["warnings"] == theirs["warnings"] && ours["infos"] == theirs["infos"]
}

/// The name that excuses two different answers.
pub fn excuse(dialect: &Dialect, case: &Case, ours: &Value, theirs: &Value) -> Option<&'static str> {
    let applies = |d: &&Difference| match d.handling {
        Handling::Excused(shows) => dialect.version < d.before && shows(case, ours, theirs),
        _ => false,
    };
    DIFFERENCES.iter().find(applies).map(|d| d.name)
}
