//! One run: start both sides, write, ask, compare, shrink what differs, report.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use chronolith_testkit::{http, wait_until};
use serde_json::Value;

use crate::compare::{Outcome, compare};
use crate::data::Data;
use crate::dialect::Dialect;
use crate::differences::{CHANCE, excuse};
use crate::generate::{Case, case};
use crate::servers::{PATIENCE, Server, version_of};

/// Steps of the shrinker for one divergence; each asks both sides once.
const SHRINK_STEPS_MAX: usize = 300;

/// How often the peer is asked again before its answer counts as settled: of two equally likely answers, the wrong one so many
/// times in a row does not happen.
const ASKED_AGAIN: usize = 30;

/// Where our side reads what was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Storage {
    /// The head of `chronolith server`.
    #[default]
    Head,
    /// Blocks in a bucket, behind the StoreAPI: `chronolith query` over `chronolith store`.
    Bucket,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Prometheus.
    pub prometheus: PathBuf,
    /// The Chronolith.
    pub chronolith: PathBuf,
    /// Feature flags of both.
    pub features: Vec<String>,
    /// Native histograms are part of the data.
    pub native: bool,
    /// Where our side reads.
    pub storage: Storage,
    /// Seed of the queries.
    pub seed: u64,
    /// Numbers of the queries.
    pub numbers: std::ops::Range<u64>,
    /// The run ends after so many divergences.
    pub divergences_max: usize,
}

/// Two answers that nothing excuses.
#[derive(Clone, Debug)]
pub struct Divergence {
    number: u64,
    query: String,
    call: String,
    smallest: String,
    what: String,
    ours: Value,
    theirs: Value,
}

/// What a run has found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Version of the peer.
    pub version: (u32, u32),
    /// Queries asked.
    pub asked: usize,
    /// Answers with at least one series or a scalar.
    pub with_data: usize,
    /// Answers that are errors on both sides.
    pub errors: usize,
    /// Equal within the tolerance only.
    pub close: usize,
    /// Excused, by name.
    pub named: BTreeMap<&'static str, usize>,
    /// Not excused.
    pub divergences: Vec<Divergence>,
    /// Error lines of our server's log.
    pub log_errors: Vec<String>,
}

struct Sides {
    dialect: Dialect,
    ours: Server,
    theirs: Server,
}

impl Sides {
    fn ask(&self, case: &Case) -> Result<(Value, Value)> {
        let (path, form) = case.call();
        let form = format!("query={}&{form}", http::encode(&case.expr.to_string()));
        let mut ours = self.ours.ask(path, &form)?;
        let theirs = self.theirs.ask(path, &form)?;
        if !self.dialect.is_current() {
            // The difference "annotations".
            for field in ["warnings", "infos"] {
                ours.as_object_mut().and_then(|o| o.remove(field));
            }
        }
        Ok((ours, theirs))
    }

    /// What differs, unless it is excused.
    fn divergence(&self, case: &Case) -> Result<Option<(String, Value, Value)>> {
        let (ours, theirs) = self.ask(case)?;
        Ok(match compare(case, &ours, &theirs) {
            Outcome::Different(what)
                if excuse(&self.dialect, case, &ours, &theirs).is_none()
                    && !self.is_chance(case, &ours, &theirs)? =>
            {
                Some((what, ours, theirs))
            }
            _ => None,
        })
    }

    /// The smallest case found that still diverges.
    fn shrink(&self, case: &Case) -> Result<Case> {
        let (mut best, mut steps) = (case.clone(), 0);
        'smaller: loop {
            for expr in best.expr.smaller() {
                steps += 1;
                if steps > SHRINK_STEPS_MAX {
                    return Ok(best);
                }
                let candidate = Case { expr, ..best.clone() };
                if self.divergence(&candidate)?.is_some() {
                    best = candidate;
                    continue 'smaller;
                }
            }
            return Ok(best);
        }
    }
}

/// Runs the check.
pub fn run(settings: &Settings, progress: &mut dyn FnMut(&Report)) -> Result<Report> {
    let version = version_of(&settings.prometheus)?;
    let dialect = Dialect { version, features: settings.features.clone(), native: settings.native };
    let dir = tempfile::tempdir()?;
    let data = Data::new(&dialect, 1);
    let ours = Server::chronolith(&settings.chronolith, dir.path(), &dialect)?;
    let theirs = Server::prometheus(&settings.prometheus, dir.path(), &dialect)?;
    ours.write(&data.series, &[])?;
    // The tenant's label: the peer's series get it from the start.
    let added = ours.added_labels(&data.series[0])?;
    theirs.write(&data.series, &added)?;
    let ours = match settings.storage {
        Storage::Head => ours,
        Storage::Bucket => ours.into_bucket(&settings.chronolith, dir.path(), &dialect)?,
    };
    let sides = Sides { dialect, ours, theirs };
    sides.check_data(data.series.len())?;
    let mut report = Report { version, ..Report::default() };
    for number in settings.numbers.clone() {
        let case = case(&sides.dialect, &data, settings.seed, number);
        sides.one(number, &case, &mut report)?;
        if report.divergences.len() >= settings.divergences_max {
            break;
        }
        if report.asked.is_multiple_of(1000) {
            progress(&report);
        }
    }
    report.log_errors = sides.ours.errors();
    Ok(report)
}

impl Sides {
    /// Both sides hold all series before the first question.
    fn check_data(&self, written: usize) -> Result<()> {
        let form = format!(
            "query={}&time={}",
            http::encode("count(last_over_time({job!=\"\"}[2h]))"),
            1_709_253_000
        );
        let count = |v: &Value| v["data"]["result"][0]["value"][1].as_str().map(str::to_owned);
        let theirs = self.theirs.ask("query", &form)?;
        // A querier finds its endpoints after it is ready.
        let mut ours = Value::Null;
        wait_until("our side has all series", PATIENCE, || {
            ours = self.ours.ask("query", &form).ok()?;
            (count(&ours) == count(&theirs)).then_some(())
        });
        ensure!(
            count(&ours) == Some(written.to_string()) && count(&ours) == count(&theirs),
            "{written} series were written; ours: {ours}, theirs: {theirs}"
        );
        if self.dialect.starts() && self.dialect.experimental() {
            let query = "count(start_timestamp(http_requests_total) > 0)";
            let form = format!("query={}&time={}", http::encode(query), 1_709_252_400);
            let (ours, theirs) = (self.ours.ask("query", &form)?, self.theirs.ask("query", &form)?);
            ensure!(
                count(&ours).is_some() && count(&ours) == count(&theirs),
                "starts were written; ours: {ours}, theirs: {theirs}"
            );
        }
        Ok(())
    }

    /// The peer, asked again, agrees with us or contradicts itself.
    fn is_chance(&self, case: &Case, ours: &Value, theirs: &Value) -> Result<bool> {
        for _ in 0..ASKED_AGAIN {
            let (_, again) = self.ask(case)?;
            let differs = |other| matches!(compare(case, other, &again), Outcome::Different(_));
            if !differs(ours) || differs(theirs) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn one(&self, number: u64, case: &Case, report: &mut Report) -> Result<()> {
        let (ours, theirs) = self.ask(case)?;
        report.asked += 1;
        let some = |v: &Value| v["data"]["result"].as_array().is_some_and(|r| !r.is_empty());
        report.with_data += usize::from(some(&ours) && some(&theirs));
        report.errors += usize::from(ours["status"] == "error" && theirs["status"] == "error");
        match compare(case, &ours, &theirs) {
            Outcome::Exact => {}
            Outcome::Close => report.close += 1,
            Outcome::Different(_) if let Some(name) = excuse(&self.dialect, case, &ours, &theirs) => {
                *report.named.entry(name).or_default() += 1;
            }
            Outcome::Different(what) => {
                if self.is_chance(case, &ours, &theirs)? {
                    *report.named.entry(CHANCE).or_default() += 1;
                    return Ok(());
                }
                let smallest = self.shrink(case)?;
                let (what, ours, theirs) = self.divergence(&smallest)?.unwrap_or((what, ours, theirs));
                let (path, form) = case.call();
                report.divergences.push(Divergence {
                    number,
                    query: case.expr.to_string(),
                    call: format!("{path}?{form}"),
                    smallest: smallest.expr.to_string(),
                    what,
                    ours,
                    theirs,
                });
            }
        }
        Ok(())
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = |v: &Value| v.to_string().chars().take(600).collect::<String>();
        writeln!(f, "query {} ({}): {}", self.number, self.call, self.query)?;
        writeln!(f, "  smallest: {}", self.smallest)?;
        writeln!(f, "  {}", self.what.chars().take(900).collect::<String>())?;
        writeln!(f, "  ours:   {}", cut(&self.ours))?;
        writeln!(f, "  theirs: {}", cut(&self.theirs))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for d in &self.divergences {
            writeln!(f, "{d}")?;
        }
        for line in &self.log_errors {
            writeln!(f, "in our log: {line}")?;
        }
        let (major, minor) = self.version;
        write!(
            f,
            "{} queries against Prometheus {major}.{minor}: {} with data, {} refused by both, {} equal within 1e-9 only, ",
            self.asked, self.with_data, self.errors, self.close
        )?;
        write!(f, "excused: {:?}, divergences: {}", self.named, self.divergences.len())
    }
}
