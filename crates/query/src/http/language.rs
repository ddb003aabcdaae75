//! `/api/v1/format_query`, `/api/v1/parse_query`, `/api/v1/features`: what the parser knows.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::response::Response;
use chronolith_httpapi::{Annotations, ApiError, Params, success};
use chronolith_promql::parser::{self, AggregateOp, Ast, FUNCTIONS};

use super::Api;

/// Words of the language that are no operators, and are always on.
const KEYWORDS: [&str; 10] = [
    "bool",
    "by",
    "duration_expr",
    "end",
    "group_left",
    "group_right",
    "ignoring",
    "offset",
    "on",
    "without",
];

const OPERATORS: [&str; 19] = [
    "!=", "!~", "%", "*", "+", "-", "/", "<", "<=", "==", "=~", ">", ">=", "@", "^", "and", "atan2", "or",
    "unless",
];

pub(super) async fn format(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request).await?;
    let text = ast(&api, &params)?.pretty();
    Ok(success(&Annotations::default(), |j| {
        j.string(&text);
    }))
}

pub(super) async fn parse(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request).await?;
    let json = ast(&api, &params)?.to_json();
    Ok(success(&Annotations::default(), |j| {
        j.raw(&json);
    }))
}

fn ast(api: &Api, params: &Params) -> Result<Ast, ApiError> {
    parser::parse(params.get("query"), &api.engine.options().parse)
        .map_err(|e| ApiError::parameter("query", e))
}

/// Category to feature to whether it is on.
pub(super) async fn features(State(api): State<Api>) -> Response {
    let options = api.engine.options();
    let experimental = options.parse.experimental_functions;
    let on = |names: &[&'static str]| names.iter().map(|n| (*n, true)).collect::<Vec<_>>();
    let mut promql = on(&KEYWORDS);
    promql.extend([
        ("anchored", options.parse.extended_range_selectors),
        ("smoothed", options.parse.extended_range_selectors),
        ("fill", options.parse.fill_modifiers),
        ("fill_left", options.parse.fill_modifiers),
        ("fill_right", options.parse.fill_modifiers),
        ("delayed_name_removal", options.delayed_name_removal),
        ("use_start_timestamps", options.start_timestamps),
        ("type_and_unit_labels", options.type_and_unit_labels),
    ]);
    let mut operators = on(&OPERATORS);
    operators.extend(AggregateOp::ALL.map(|op| (op.as_str(), !op.is_experimental() || experimental)));
    let functions = FUNCTIONS.iter().map(|f| (f.name, !f.experimental || experimental)).collect();
    let interface = vec![
        ("exclude_alerts", true),
        ("federate", true),
        ("label_values_match", true),
        ("query_stats", true),
        ("query_warnings", true),
        ("remote_read", true),
        ("openapi_3.1", true),
        ("openapi_3.2", true),
        ("rules_pagination", true),
        ("search", api.settings.search.enabled),
        ("tenancy", api.settings.tenancy.is_some()),
    ];
    let categories: [(&str, Vec<(&str, bool)>); 4] = [
        ("api", interface),
        ("promql", promql),
        ("promql_functions", functions),
        ("promql_operators", operators),
    ];
    success(&Annotations::default(), |j| {
        j.raw("{");
        for (i, (category, features)) in categories.into_iter().enumerate() {
            j.raw(if i > 0 { "," } else { "" }).string(category).raw(":{");
            let sorted: BTreeMap<&str, bool> = features.into_iter().collect();
            for (i, (name, enabled)) in sorted.iter().enumerate() {
                j.raw(if i > 0 { "," } else { "" }).string(name).raw(":");
                j.raw(if *enabled { "true" } else { "false" });
            }
            j.raw("}");
        }
        j.raw("}");
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronolith_promql::parser::ParseOptions;

    #[test]
    fn the_operators_are_the_languages_own() {
        let parses = |query: &str| parser::parse(query, &ParseOptions::ALL).is_ok();
        for operator in OPERATORS.iter().filter(|o| !["!~", "=~", "@"].contains(o)) {
            assert!(parses(&format!("a {operator} b")), "{operator}");
        }
    }
}
