//! The tree as JSON, in the form of the API's `/parse_query`; keys are sorted, as Go sorts them.

use std::borrow::Cow;
use std::fmt::Write as _;

use chronolith_model::Matcher;

use super::ast::{
    Ast, At, Binary, Call, Cardinality, DurationId, DurationKind, ExprId, NodeKind, ValueType, VectorSelector,
};
use super::print::number_text;

/// What is still to be written; the last one first.
enum Piece {
    Expr(ExprId),
    Text(Cow<'static, str>),
}

impl Ast {
    /// The tree as JSON.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        let mut pieces = vec![Piece::Expr(self.root())];
        while let Some(piece) = pieces.pop() {
            match piece {
                Piece::Text(text) => out.push_str(&text),
                Piece::Expr(id) => {
                    let first = pieces.len();
                    self.json_pieces(id, &mut pieces);
                    pieces[first..].reverse();
                }
            }
        }
        out
    }

    fn json_pieces(&self, id: ExprId, pieces: &mut Vec<Piece>) {
        let mut text = |s: String| pieces.push(Piece::Text(s.into()));
        match self.kind(id) {
            NodeKind::Number { value, .. } => {
                text(format!("{{\"type\":\"numberLiteral\",\"val\":\"{}\"}}", number_text(*value)));
            }
            NodeKind::String(bytes) => {
                let value = json_string(&String::from_utf8_lossy(bytes));
                text(format!("{{\"type\":\"stringLiteral\",\"val\":{value}}}"));
            }
            NodeKind::VectorSelector(selector) => {
                let fields = self.selector_fields(selector);
                let (smoothed, (start_or_end, timestamp)) = (selector.smoothed, at_fields(selector.at));
                text(format!(
                    "{{{fields},\"smoothed\":{smoothed},{start_or_end},{timestamp},\"type\":\"vectorSelector\"}}"
                ));
            }
            NodeKind::MatrixSelector(matrix) => {
                let Some(selector) = self.vector_selector(matrix.selector) else { return };
                let fields = self.selector_fields(selector);
                let (smoothed, (start_or_end, timestamp)) = (selector.smoothed, at_fields(selector.at));
                let range = format!(
                    "\"range\":{},\"rangeExpr\":{}",
                    matrix.range_ms,
                    self.duration_json(matrix.range_expr)
                );
                text(format!(
                    "{{{fields},{range},\"smoothed\":{smoothed},{start_or_end},{timestamp},\"type\":\"matrixSelector\"}}"
                ));
            }
            NodeKind::Subquery(subquery) => {
                text("{\"expr\":".to_owned());
                pieces.push(Piece::Expr(subquery.expr));
                let (start_or_end, timestamp) = at_fields(subquery.at);
                let rest = format!(
                    ",\"offset\":{},\"offsetExpr\":{},\"range\":{},\"rangeExpr\":{},{start_or_end},\"step\":{},\"stepExpr\":{},{timestamp},\"type\":\"subquery\"}}",
                    subquery.original_offset_ms,
                    self.duration_json(subquery.original_offset_expr),
                    subquery.range_ms,
                    self.duration_json(subquery.range_expr),
                    subquery.step_ms,
                    self.duration_json(subquery.step_expr),
                );
                pieces.push(Piece::Text(rest.into()));
            }
            NodeKind::Paren(inner) => {
                text("{\"expr\":".to_owned());
                pieces.push(Piece::Expr(*inner));
                pieces.push(Piece::Text(",\"type\":\"parenExpr\"}".into()));
            }
            NodeKind::Unary { op, expr } => {
                text("{\"expr\":".to_owned());
                pieces.push(Piece::Expr(*expr));
                pieces.push(Piece::Text(format!(",\"op\":\"{op}\",\"type\":\"unaryExpr\"}}").into()));
            }
            NodeKind::Binary(binary) => {
                text(format!("{{\"bool\":{},\"lhs\":", binary.return_bool));
                pieces.push(Piece::Expr(binary.lhs));
                let rest =
                    format!(",\"matching\":{},\"op\":\"{}\",\"rhs\":", matching_json(binary), binary.op);
                pieces.push(Piece::Text(rest.into()));
                pieces.push(Piece::Expr(binary.rhs));
                pieces.push(Piece::Text(",\"type\":\"binaryExpr\"}".into()));
            }
            NodeKind::Call(call) => {
                text("{\"args\":[".to_owned());
                for (i, arg) in call.args.iter().enumerate() {
                    if i > 0 {
                        pieces.push(Piece::Text(",".into()));
                    }
                    pieces.push(Piece::Expr(*arg));
                }
                pieces.push(Piece::Text(
                    format!("],\"func\":{},\"type\":\"call\"}}", function_json(call)).into(),
                ));
            }
            NodeKind::Aggregate(aggregate) => {
                text("{\"expr\":".to_owned());
                pieces.push(Piece::Expr(aggregate.expr));
                let rest = format!(
                    ",\"grouping\":{},\"op\":\"{}\",\"param\":",
                    json_strings(&aggregate.grouping),
                    aggregate.op
                );
                pieces.push(Piece::Text(rest.into()));
                pieces.push(match aggregate.param {
                    Some(param) => Piece::Expr(param),
                    None => Piece::Text("null".into()),
                });
                let rest = format!(",\"type\":\"aggregation\",\"without\":{}}}", aggregate.without);
                pieces.push(Piece::Text(rest.into()));
            }
        }
    }

    /// The fields that vector and range selectors share, up to `offsetExpr`.
    fn selector_fields(&self, selector: &VectorSelector) -> String {
        let matchers: Vec<String> = selector.matchers.iter().map(matcher_json).collect();
        format!(
            "\"anchored\":{},\"matchers\":[{}],\"name\":{},\"offset\":{},\"offsetExpr\":{}",
            selector.anchored,
            matchers.join(","),
            json_string(&selector.name),
            selector.original_offset_ms,
            self.duration_json(selector.original_offset_expr),
        )
    }

    /// Duration expressions are shallow by construction, so recursion will do.
    fn duration_json(&self, id: Option<DurationId>) -> String {
        let Some(id) = id else { return "null".to_owned() };
        let node = self.duration(id);
        let (op, lhs, rhs) = match node.kind {
            DurationKind::Number { value, duration } => {
                let value = number_text(value);
                return format!("{{\"duration\":{duration},\"type\":\"numberLiteral\",\"val\":\"{value}\"}}");
            }
            DurationKind::Step => ("step", None, None),
            DurationKind::Range => ("range", None, None),
            DurationKind::MinOf(x, y) => ("min_of", Some(x), Some(y)),
            DurationKind::MaxOf(x, y) => ("max_of", Some(x), Some(y)),
            DurationKind::Unary(op, x) => (op.as_str(), None, Some(x)),
            DurationKind::Binary(op, x, y) => (op.as_str(), Some(x), Some(y)),
        };
        format!(
            "{{\"lhs\":{},\"op\":\"{op}\",\"rhs\":{},\"type\":\"durationExpr\",\"wrapped\":{}}}",
            self.duration_json(lhs),
            self.duration_json(rhs),
            node.wrapped
        )
    }
}

/// `startOrEnd` and `timestamp`.
fn at_fields(at: Option<At>) -> (String, String) {
    let (word, timestamp) = match at {
        None => ("null", "null".to_owned()),
        Some(At::Start) => ("\"start\"", "null".to_owned()),
        Some(At::End) => ("\"end\"", "null".to_owned()),
        Some(At::Timestamp(ms)) => ("null", ms.to_string()),
    };
    (format!("\"startOrEnd\":{word}"), format!("\"timestamp\":{timestamp}"))
}

fn matching_json(binary: &Binary) -> String {
    let Some(matching) = &binary.matching else { return "null".to_owned() };
    let card = match matching.card {
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    };
    // JSON has no NaN and no infinities; those come as null, as where there is no fill.
    let fill = |value: Option<f64>| match value {
        Some(value) if value.is_finite() => number_text(value),
        _ => "null".to_owned(),
    };
    format!(
        "{{\"card\":\"{card}\",\"fillValues\":{{\"lhs\":{},\"rhs\":{}}},\"include\":{},\"labels\":{},\"on\":{}}}",
        fill(matching.fill_left),
        fill(matching.fill_right),
        json_strings(&matching.include),
        json_strings(&matching.labels),
        matching.on
    )
}

fn function_json(call: &Call) -> String {
    let func = call.func;
    let types: Vec<String> =
        func.arg_types.iter().map(|t: &ValueType| format!("\"{}\"", t.as_str())).collect();
    format!(
        "{{\"argTypes\":[{}],\"name\":\"{}\",\"returnType\":\"{}\",\"variadic\":{}}}",
        types.join(","),
        func.name,
        func.return_type.as_str(),
        func.variadic
    )
}

fn matcher_json(matcher: &Matcher) -> String {
    format!(
        "{{\"name\":{},\"type\":\"{}\",\"value\":{}}}",
        json_string(&matcher.name),
        matcher.op.as_str(),
        json_string(&matcher.value)
    )
}

fn json_strings(list: &[String]) -> String {
    format!("[{}]", list.iter().map(|s| json_string(s)).collect::<Vec<_>>().join(","))
}

fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' => write!(out, "\\u{:04x}", c as u32).expect("writing to a string"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use crate::parser::{ParseOptions, parse};

    #[test]
    fn trees() {
        for (query, want) in [
            (
                "-(1)",
                r#"{"expr":{"expr":{"type":"numberLiteral","val":"1"},"type":"parenExpr"},"op":"-","type":"unaryExpr"}"#,
            ),
            (
                "foo{a=~\"b\\n\"}[5m] @ 1.5 offset 1m",
                r#"{"anchored":false,"matchers":[{"name":"a","type":"=~","value":"b\n"},{"name":"__name__","type":"=","value":"foo"}],"name":"foo","offset":60000,"offsetExpr":null,"range":300000,"rangeExpr":null,"smoothed":false,"startOrEnd":null,"timestamp":1500,"type":"matrixSelector"}"#,
            ),
            (
                "topk(1, {a=\"b\"} @ start())",
                r#"{"expr":{"anchored":false,"matchers":[{"name":"a","type":"=","value":"b"}],"name":"","offset":0,"offsetExpr":null,"smoothed":false,"startOrEnd":"start","timestamp":null,"type":"vectorSelector"},"grouping":[],"op":"topk","param":{"type":"numberLiteral","val":"1"},"type":"aggregation","without":false}"#,
            ),
            (
                "vector(1)[5m:step() * 2] @ end()",
                r#"{"expr":{"args":[{"type":"numberLiteral","val":"1"}],"func":{"argTypes":["scalar"],"name":"vector","returnType":"vector","variadic":0},"type":"call"},"offset":0,"offsetExpr":null,"range":300000,"rangeExpr":null,"startOrEnd":"end","step":0,"stepExpr":{"lhs":{"lhs":null,"op":"step","rhs":null,"type":"durationExpr","wrapped":false},"op":"*","rhs":{"duration":false,"type":"numberLiteral","val":"2"},"type":"durationExpr","wrapped":false},"timestamp":null,"type":"subquery"}"#,
            ),
            (
                "vector(1) + on(a) group_left(b) fill(2) vector(1)",
                r#"{"bool":false,"lhs":V,"matching":{"card":"many-to-one","fillValues":{"lhs":2,"rhs":2},"include":["b"],"labels":["a"],"on":true},"op":"+","rhs":V,"type":"binaryExpr"}"#,
            ),
        ] {
            let vector = r#"{"args":[{"type":"numberLiteral","val":"1"}],"func":{"argTypes":["scalar"],"name":"vector","returnType":"vector","variadic":0},"type":"call"}"#;
            let ast = parse(query, &ParseOptions::ALL).unwrap();
            assert_eq!(ast.to_json(), want.replace(":V,", &format!(":{vector},")), "{query}");
        }
    }
}
