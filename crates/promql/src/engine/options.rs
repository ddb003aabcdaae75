//! Settings of an engine.

use std::time::Duration;

use crate::parser::ParseOptions;

/// Settings of an engine; the defaults are those of a Prometheus 3.14 server.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How old a sample may be to count as current.
    pub lookback_ms: i64,
    /// Most samples that one query may hold at a time.
    pub samples_max: usize,
    /// Longest that one query may run.
    pub timeout: Duration,
    /// Most threads that one query runs on; 0 is as many as there are cores. All queries together never use more
    /// helping threads than there are cores.
    pub threads_max: usize,
    /// Step of a subquery that names none.
    pub subquery_step_ms: i64,
    /// Parts of the language that are switched on.
    pub parse: ParseOptions,
    /// Removes metric names at the end of the query rather than at each function
    /// (`promql-delayed-name-removal`).
    pub delayed_name_removal: bool,
    /// Lets stores fold aggregations of which that is exact. Changes no result; tests compare with and without.
    pub push_aggregations: bool,
    /// `rate` and its kin use start timestamps (`use-start-timestamps`).
    pub start_timestamps: bool,
    /// Counts samples by step for queries that ask for it (`promql-per-step-stats`).
    pub step_stats: bool,
    /// Annotations look at `__type__` rather than at the metric's name (`type-and-unit-labels`).
    pub type_and_unit_labels: bool,
}

impl EngineOptions {
    /// Threads that a query may run on.
    pub(crate) fn threads(&self) -> usize {
        if self.threads_max == 0 { crate::exec::ordered::cores() } else { self.threads_max }
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            lookback_ms: 5 * 60 * 1000,
            samples_max: 50_000_000,
            timeout: Duration::from_secs(120),
            threads_max: 0,
            subquery_step_ms: 60 * 1000,
            parse: ParseOptions::default(),
            delayed_name_removal: false,
            push_aggregations: true,
            start_timestamps: false,
            step_stats: false,
            type_and_unit_labels: false,
        }
    }
}
