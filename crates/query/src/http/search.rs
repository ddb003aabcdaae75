//! `/api/v1/search/*`: metric names, label names and label values that fit what someone typed, for completion. Experimental
//! upstream and behind its feature flag `search-api` here, too.
//!
//! The answer is one JSON object a line: batches of results, then a line that says how it ended. Names are gathered from all stores
//! before the first line is written, under the memory budget of a query, so an error is an ordinary reply.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use chronolith_httpapi::{ApiError, ErrorKind, JsonBuf, Params};
use chronolith_model::{METRIC_NAME, MetricMetadata, TimeRange};
use chronolith_storeapi::{
    LabelNamesRequest, LabelValuesRequest, Metadata as _, MetadataRequest, Store as _,
};
use http::header;

use super::labels::{Held, selectors};
use super::search_score::{Algorithm, Terms};
use super::{Api, ReadOptions, store_error};

/// Upstream's default of `limit` and of `batch_size`.
const RESULTS: usize = 100;
/// Upstream's bound: each term costs a comparison a name.
const TERMS_MAX: usize = 32;
/// How far back a search without times looks.
const RANGE_MS: i64 = 3_600_000;

/// What the flags say of searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchSettings {
    /// `--enable-feature=search-api`.
    pub enabled: bool,
    /// `--web.search.max-limit`; 0 is no bound.
    pub limit_max: usize,
}

impl Default for SearchSettings {
    fn default() -> Self {
        SearchSettings { enabled: false, limit_max: 10_000 }
    }
}

/// What the results are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Name,
    NameDescending,
    Score,
}

struct Search {
    options: ReadOptions,
    params: Params,
    terms: Terms,
    order: Order,
    range: TimeRange,
    limit: usize,
    batch_size: usize,
    show_score: bool,
}

pub(super) async fn metric_names(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let search = Search::new(&api, request, "metric_names").await?;
    let with_metadata = search.bool("include_metadata", false)?;
    let (names, mut warnings) = search.values(&api, METRIC_NAME).await?;
    let mut metadata = BTreeMap::new();
    if with_metadata && !names.is_empty() {
        let partial_response = search.options.partial_response;
        let request = MetadataRequest { partial_response, ..MetadataRequest::default() };
        let answer = (api.stores)(&search.options).metadata(request).await.map_err(store_error)?;
        warnings.extend(answer.warnings);
        metadata = answer.metrics;
    }
    Ok(search.lines("name", names, warnings, |j, name| {
        let Some(MetricMetadata { kind, help, unit }) = metadata.get(name).and_then(|m| m.first()) else {
            return;
        };
        for (key, value) in [("type", kind.as_str()), ("help", help), ("unit", unit)] {
            if !value.is_empty() {
                j.raw(",").string(key).raw(":").string(value);
            }
        }
    }))
}

pub(super) async fn label_names(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let search = Search::new(&api, request, "label_names").await?;
    let store = (api.stores)(&search.options);
    let (mut found, mut warnings, mut held) = (BTreeSet::new(), Vec::new(), Held::new(&api)?);
    for matchers in search.selectors()? {
        let mut read = LabelNamesRequest::new(search.range, search.options.enforced(matchers));
        read.partial_response = search.options.partial_response;
        let answer = store.label_names(read).await.map_err(store_error)?;
        held.more(answer.names.iter().map(String::len))?;
        found.extend(answer.names);
        warnings.extend(answer.warnings);
    }
    Ok(search.lines("name", found, warnings, |_, _| {}))
}

pub(super) async fn label_values(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let search = Search::new(&api, request, "label_values").await?;
    let label = search.params.get("label").to_owned();
    if label.is_empty() {
        return Err(ApiError::bad_data("missing required parameter \"label\""));
    }
    let (values, warnings) = search.values(&api, &label).await?;
    Ok(search.lines("value", values, warnings, |_, _| {}))
}

impl Search {
    async fn new(api: &Api, request: Request, endpoint: &str) -> Result<Self, ApiError> {
        let settings = api.settings.search;
        if !settings.enabled {
            return Err(ApiError::new(ErrorKind::Unavailable, "search API disabled"));
        }
        let (options, params) = api.read(request).await?;
        let bad = |text: String| ApiError::bad_data(text);
        let now = api.clock.now_ms();
        let range = TimeRange::new(params.time("start", now - RANGE_MS)?, params.time("end", now)?);
        if range.is_empty() {
            return Err(bad("end timestamp must not be before start timestamp".to_owned()));
        }
        let terms = params.all("search[]").count();
        if terms > TERMS_MAX {
            return Err(bad(format!("too many search[] terms: got {terms}, maximum is {TERMS_MAX}")));
        }
        let threshold = match params.get("fuzz_threshold") {
            "" => 0,
            text => match text.parse::<u32>() {
                Ok(n @ 0..=100) => n,
                _ => return Err(bad(format!("invalid fuzz_threshold {text:?}: must be 0-100"))),
            },
        };
        let name = params.get("fuzz_alg");
        let algorithm = Algorithm::named(name).ok_or_else(|| {
            bad(format!("unsupported fuzz_alg {name:?}: must be one of [subsequence jarowinkler]"))
        })?;
        let positive = |name: &str, default: usize| match params.get(name) {
            "" => Ok(default),
            text => match text.parse::<usize>() {
                Ok(n) if n > 0 => Ok(n),
                _ => Err(bad(format!("invalid {name} {text:?}: must be a positive integer"))),
            },
        };
        let max = if settings.limit_max == 0 { usize::MAX } else { settings.limit_max };
        let limit = positive("limit", RESULTS.min(max))?;
        if limit > max {
            return Err(bad(format!(
                "limit {limit} exceeds the configured maximum ({max}, see --web.search.max-limit)"
            )));
        }
        let batch_size = positive("batch_size", RESULTS)?;
        let order = order(&params, endpoint)?;
        let mut search = Search {
            terms: Terms::new([].into_iter(), algorithm, 0.0, false),
            options,
            order,
            range,
            limit,
            batch_size,
            show_score: false,
            params,
        };
        let fold_case = !search.bool("case_sensitive", true)?;
        search.show_score = search.bool("include_score", false)?;
        let threshold = f64::from(threshold) / 100.0;
        search.terms = Terms::new(search.params.all("search[]"), algorithm, threshold, fold_case);
        Ok(search)
    }

    fn bool(&self, name: &str, default: bool) -> Result<bool, ApiError> {
        let refuse =
            |_| ApiError::bad_data(format!("invalid {name} {:?}: must be boolean", self.params.get(name)));
        self.params.bool(name, default).map_err(refuse)
    }

    fn selectors(&self) -> Result<Vec<Vec<chronolith_model::Matcher>>, ApiError> {
        let found = selectors(&self.params).map_err(ApiError::bad_data)?;
        Ok(if found.is_empty() { vec![Vec::new()] } else { found })
    }

    async fn values(&self, api: &Api, label: &str) -> Result<(BTreeSet<String>, Vec<String>), ApiError> {
        let store = (api.stores)(&self.options);
        let (mut found, mut warnings, mut held) = (BTreeSet::new(), Vec::new(), Held::new(api)?);
        for matchers in self.selectors()? {
            let mut read = LabelValuesRequest::new(label, self.range, self.options.enforced(matchers));
            read.partial_response = self.options.partial_response;
            let answer = store.label_values(read).await.map_err(store_error)?;
            held.more(answer.values.iter().map(String::len))?;
            found.extend(answer.values);
            warnings.extend(answer.warnings);
        }
        Ok((found, warnings))
    }

    /// Scores, sorts, cuts, and writes the lines. `more` adds to a result's object.
    fn lines(
        &self,
        key: &str,
        found: BTreeSet<String>,
        mut warnings: Vec<String>,
        more: impl Fn(&mut JsonBuf, &str),
    ) -> Response {
        let mut results: Vec<(String, f64)> =
            found.into_iter().filter_map(|name| self.terms.score(&name).map(|score| (name, score))).collect();
        match self.order {
            Order::Name => {}
            Order::NameDescending => results.reverse(),
            Order::Score => results.sort_by(|a, b| b.1.total_cmp(&a.1)),
        }
        let has_more = results.len() > self.limit;
        results.truncate(self.limit);
        warnings.sort_unstable();
        warnings.dedup();
        let partial = !warnings.is_empty();
        let mut j = JsonBuf::new();
        let mut batches = results.chunks(self.batch_size);
        // The first line is there even without results: warnings are found in it.
        let mut next = Some(batches.next().unwrap_or_default());
        while let Some(batch) = next {
            j.raw(r#"{"results":"#).array(batch, |j, (name, score)| {
                j.raw("{").string(key).raw(":").string(name);
                if self.show_score {
                    j.raw(&format!(r#","score":{score}"#));
                }
                more(j, name);
                j.raw("}");
            });
            if !warnings.is_empty() {
                j.raw(r#","warnings":"#).array(&warnings, |j, text| {
                    j.string(text);
                });
                warnings.clear();
            }
            j.raw("}\n");
            next = batches.next();
        }
        j.raw(&format!("{{\"status\":\"success\",\"has_more\":{has_more}}}\n"));
        let kind = [(header::CONTENT_TYPE, "application/x-ndjson; charset=utf-8")];
        let mut response = (kind, j.bytes).into_response();
        if partial {
            response.headers_mut().insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
        }
        response
    }
}

fn order(params: &Params, endpoint: &str) -> Result<Order, ApiError> {
    let (by, direction) = (params.get("sort_by"), params.get("sort_dir"));
    let searched = params.all("search[]").next().is_some();
    match (by, direction) {
        ("", "") => Ok(Order::Name),
        ("", _) => Err(ApiError::bad_data("sort_dir is only valid when sort_by is set")),
        ("score", "") if !searched => Err(ApiError::bad_data("sort_by=score requires search[] to be set")),
        ("score", "") => Ok(Order::Score),
        ("score", _) => Err(ApiError::bad_data("sort_dir is not supported for sort_by=score")),
        (_, direction) if !matches!(direction, "" | "asc" | "dsc") => {
            Err(ApiError::bad_data(format!("invalid sort_dir {direction:?}: must be \"asc\" or \"dsc\"")))
        }
        ("alpha", "dsc") => Ok(Order::NameDescending),
        ("alpha", _) => Ok(Order::Name),
        _ => Err(ApiError::bad_data(format!(
            "invalid sort_by {by:?} for {endpoint}: must be \"alpha\" or \"score\""
        ))),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::super::testing::{api_over, get, series};
    use crate::{Config, Features};

    #[tokio::test]
    async fn names_and_values_come_line_by_line() {
        let off = api_over(Config::default(), series(), |_| {}).await;
        let (status, body) = get(&off, "/api/v1/search/metric_names").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body.contains(r#""errorType":"unavailable","error":"search API disabled""#), "{body}");
        let features = Features::from_flags(&["search-api".to_owned()]);
        let api = api_over(Config { features, ..Config::default() }, series(), |_| {}).await;
        let end = r#"{"status":"success","has_more":false}"#;
        for (path, lines) in [
            ("metric_names", vec![r#"{"results":[{"name":"gone"},{"name":"up"}]}"#, end]),
            (
                "metric_names?search[]=p&include_score=true",
                vec![r#"{"results":[{"name":"up","score":0.4995}]}"#, end],
            ),
            ("metric_names?search[]=zz", vec![r#"{"results":[]}"#, end]),
            (
                "label_names?sort_by=alpha&sort_dir=dsc&limit=3&batch_size=2",
                vec![
                    r#"{"results":[{"name":"job"},{"name":"instance"}]}"#,
                    r#"{"results":[{"name":"cluster"}]}"#,
                    r#"{"status":"success","has_more":true}"#,
                ],
            ),
            (
                "label_values?label=instance&match[]=up&search[]=3&search[]=H2&case_sensitive=false&sort_by=score",
                vec![r#"{"results":[{"value":"h2"},{"value":"h3"}]}"#, end],
            ),
            ("label_values?label=instance&match[]=gone", vec![r#"{"results":[]}"#, end]),
        ] {
            let (status, body) = get(&api, &format!("/api/v1/search/{path}")).await;
            assert_eq!((status, body.lines().collect::<Vec<_>>()), (StatusCode::OK, lines), "{path}");
        }
        for (path, error) in [
            ("label_values", r#"missing required parameter \"label\""#),
            (
                "label_names?limit=10001",
                "limit 10001 exceeds the configured maximum (10000, see --web.search.max-limit)",
            ),
            ("label_names?limit=0", r#"invalid limit \"0\": must be a positive integer"#),
            ("label_names?sort_dir=asc", "sort_dir is only valid when sort_by is set"),
            ("label_names?sort_by=score", "sort_by=score requires search[] to be set"),
            (
                "label_names?sort_by=x",
                r#"invalid sort_by \"x\" for label_names: must be \"alpha\" or \"score\""#,
            ),
            ("label_names?fuzz_threshold=101", r#"invalid fuzz_threshold \"101\": must be 0-100"#),
            ("label_names?include_score=7", r#"invalid include_score \"7\": must be boolean"#),
            ("label_names?fuzz_alg=x", "unsupported fuzz_alg"),
            ("label_names?start=2&end=1", "end timestamp must not be before start timestamp"),
        ] {
            let (status, body) = get(&api, &format!("/api/v1/search/{path}")).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {body}");
            assert!(body.contains(error), "{path}: {body}");
        }
    }
}
