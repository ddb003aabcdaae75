//! How long what is kept: by resolution, by tenant, by series.
//!
//! ```text
//! retention.yml, flags ─ Policy ─ each block: all of it stays │ all of it goes: mark │ some series go: rewrite
//! ```
//!
//! Of the rules for series the first one whose matchers hold decides; a rule that says nothing of a resolution leaves it to the
//! tenant's line, and that to the defaults. A block goes as a whole when its end is out of retention for every series that it
//! might hold; series go from a block when the block's end is out of *their* retention, so a block is rewritten once a rule
//! and not again and again. Nothing here touches a bucket.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use chronolith_bucket::deletions::of_series;
use chronolith_model::{Labels, Matcher, Resolution, TimeRange};
use chronolith_service::config::{ConfigError, DurationMs, load_yaml, read_file};
use chronolith_tsdb::block::BlockMeta;
use serde::Deserialize;

/// Milliseconds for which samples are kept, by resolution; 0 is for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// As they came.
    pub raw_ms: i64,
    /// Five-minute aggregates.
    pub five_minutes_ms: i64,
    /// One-hour aggregates.
    pub one_hour_ms: i64,
}

impl Keep {
    fn of(&self, resolution: Resolution) -> i64 {
        match resolution {
            Resolution::Raw => self.raw_ms,
            Resolution::FiveMinutes => self.five_minutes_ms,
            Resolution::OneHour => self.one_hour_ms,
        }
    }

    /// What must not be combined with downsampling: samples would go before they were downsampled.
    pub fn check_with_downsampling(&self) -> Result<(), String> {
        const HOUR: i64 = 3_600_000;
        for (what, keep_ms, least_hours) in [("raw", self.raw_ms, 40), ("5m", self.five_minutes_ms, 10 * 24)]
        {
            if keep_ms > 0 && keep_ms < least_hours * HOUR {
                return Err(format!(
                    "retention of resolution {what} must be at least {least_hours}h, or samples go before they are downsampled"
                ));
            }
        }
        Ok(())
    }
}

/// A rule's durations; what it does not name is left to others.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Given {
    raw: Option<DurationMs>,
    #[serde(rename = "5m")]
    five_minutes: Option<DurationMs>,
    #[serde(rename = "1h")]
    one_hour: Option<DurationMs>,
}

impl Given {
    fn of(&self, resolution: Resolution) -> Option<i64> {
        let given = match resolution {
            Resolution::Raw => self.raw,
            Resolution::FiveMinutes => self.five_minutes,
            Resolution::OneHour => self.one_hour,
        };
        given.map(|d| d.0)
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenSeries {
    matchers: String,
    raw: Option<DurationMs>,
    #[serde(rename = "5m")]
    five_minutes: Option<DurationMs>,
    #[serde(rename = "1h")]
    one_hour: Option<DurationMs>,
}

/// `retention.yml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    tenant_label: Option<String>,
    defaults: Given,
    tenants: BTreeMap<String, Given>,
    series: Vec<GivenSeries>,
}

#[derive(Clone, Debug)]
struct SeriesRule {
    text: String,
    matchers: Vec<Matcher>,
    given: Given,
}

/// How long what is kept.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    defaults: Keep,
    tenant_label: String,
    tenants: BTreeMap<String, Given>,
    series: Vec<SeriesRule>,
}

/// What is to happen to a block.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// All of it is out of retention.
    Mark {
        /// For the mark's details.
        why: String,
    },
    /// Some series may be out of retention.
    Rewrite(Expired),
}

/// The rules that apply to a block's series, and which of them are over.
#[derive(Clone, Debug)]
pub struct Expired {
    /// In order; the first that holds decides. The last one holds for every series.
    rules: Vec<(Vec<Matcher>, bool)>,
    /// Names the change: the rules that are over.
    pub name: String,
}

impl Expired {
    /// True when the series, given without external labels, goes.
    pub fn goes(&self, labels: &Labels) -> bool {
        let holds = |m: &Matcher| m.matches(labels.get(&m.name).unwrap_or_default());
        self.rules.iter().find(|(matchers, _)| matchers.iter().all(holds)).is_some_and(|(_, over)| *over)
    }

    /// What goes of the series.
    pub fn deleted(&self, labels: &Labels) -> Vec<TimeRange> {
        if self.goes(labels) { vec![TimeRange::ALL] } else { Vec::new() }
    }

    /// Matchers of the rules that are over: a series that goes satisfies one of these lists.
    pub fn candidates(&self) -> impl Iterator<Item = &[Matcher]> {
        self.rules.iter().filter(|(_, over)| *over).map(|(matchers, _)| matchers.as_slice())
    }
}

impl Policy {
    /// The flags alone.
    pub fn new(defaults: Keep) -> Self {
        Policy { defaults, tenant_label: "tenant_id".to_owned(), ..Policy::default() }
    }

    /// A `retention.yml`, and the flags where they are not 0.
    pub fn load(path: &Path, flags: Keep) -> Result<Self, ConfigError> {
        Self::parse(&path.display().to_string(), &read_file(path)?, flags)
    }

    /// The text of a `retention.yml`; `origin` is its name in errors.
    pub fn parse(origin: &str, text: &str, flags: Keep) -> Result<Self, ConfigError> {
        let file: File = if text.trim().is_empty() { File::default() } else { load_yaml(origin, text)? };
        let default = |flag: i64, resolution| match flag {
            0 => file.defaults.of(resolution).unwrap_or(0),
            flag => flag,
        };
        let defaults = Keep {
            raw_ms: default(flags.raw_ms, Resolution::Raw),
            five_minutes_ms: default(flags.five_minutes_ms, Resolution::FiveMinutes),
            one_hour_ms: default(flags.one_hour_ms, Resolution::OneHour),
        };
        let rule = |given: GivenSeries| {
            let matchers = chronolith_promql::parser::parse_selector(&given.matchers)
                .map_err(|e| ConfigError::invalid(origin, format!("matchers {:?}: {e}", given.matchers)))?;
            if matchers.iter().all(Matcher::matches_empty) {
                let text =
                    format!("matchers {:?} select every series: write that under defaults", given.matchers);
                return Err(ConfigError::invalid(origin, text));
            }
            let GivenSeries { matchers: text, raw, five_minutes, one_hour } = given;
            Ok(SeriesRule { text, matchers, given: Given { raw, five_minutes, one_hour } })
        };
        Ok(Policy {
            defaults,
            tenant_label: file.tenant_label.unwrap_or_else(|| "tenant_id".to_owned()),
            tenants: file.tenants,
            series: file.series.into_iter().map(rule).collect::<Result<_, _>>()?,
        })
    }

    /// What holds for everything that no rule names.
    pub fn defaults(&self) -> &Keep {
        &self.defaults
    }

    /// True when nothing ever goes.
    pub fn keeps_all(&self) -> bool {
        let none = |given: &Given| {
            [given.raw, given.five_minutes, given.one_hour].iter().flatten().all(|d| d.0 <= 0)
        };
        self.defaults == Keep::default()
            && self.tenants.values().all(none)
            && self.series.iter().all(|r| none(&r.given))
    }

    /// What is to happen to a block at `now_ms`.
    pub fn judge(&self, meta: &BlockMeta, now_ms: i64) -> Verdict {
        let Some(resolution) = meta.resolution() else { return Verdict::Keep };
        let external =
            meta.thanos.as_ref().and_then(|t| t.external_labels().ok()).unwrap_or_else(Labels::empty);
        let tenant = external.get(&self.tenant_label).and_then(|t| self.tenants.get(t));
        let base = tenant.and_then(|t| t.of(resolution)).unwrap_or_else(|| self.defaults.of(resolution));
        let is_over = |keep_ms: i64| keep_ms > 0 && now_ms.saturating_sub(meta.max_time) > keep_ms;

        let (mut rules, mut over_names) = (Vec::new(), Vec::new());
        for rule in &self.series {
            let Some(keep_ms) = rule.given.of(resolution) else { continue };
            let Some(matchers) = of_series(&rule.matchers, &external) else { continue };
            let (over, all) = (is_over(keep_ms), matchers.is_empty());
            if over {
                over_names.push(format!("{} {keep_ms}", rule.text));
            }
            rules.push((matchers, over));
            if all {
                break;
            }
        }
        if rules.last().is_none_or(|(matchers, _)| !matchers.is_empty()) {
            let over = is_over(base);
            if over {
                over_names.push(format!("default {base}"));
            }
            rules.push((Vec::new(), over));
        }
        match (rules.iter().all(|(_, over)| *over), rules.iter().any(|(_, over)| *over)) {
            (true, _) => Verdict::Mark { why: format!("out of retention: {}", over_names.join(", ")) },
            (false, true) => {
                Verdict::Rewrite(Expired { rules, name: format!("retention {}", over_names.join(", ")) })
            }
            (false, false) => Verdict::Keep,
        }
    }

    /// What is to happen to these blocks, those that stay left out.
    pub fn plan<'a>(
        &self,
        blocks: impl IntoIterator<Item = &'a Arc<BlockMeta>>,
        now_ms: i64,
    ) -> Vec<(Arc<BlockMeta>, Verdict)> {
        let judged = blocks.into_iter().map(|meta| (meta.clone(), self.judge(meta, now_ms)));
        judged.filter(|(_, verdict)| !matches!(verdict, Verdict::Keep)).collect()
    }
}

#[cfg(test)]
mod tests {
    use chronolith_model::BlockId;
    use chronolith_tsdb::block::ThanosMeta;

    use super::*;

    const DAY: i64 = 24 * 3_600_000;

    fn block(max_days: i64, resolution: i64, tenant: &str) -> BlockMeta {
        let mut meta = BlockMeta::new(BlockId(1u128.into()), (max_days - 1) * DAY, max_days * DAY);
        let mut thanos = ThanosMeta::new(&Labels::from_pairs([("tenant_id", tenant)]).unwrap(), "test");
        thanos.downsample.resolution = resolution;
        meta.thanos = Some(thanos);
        meta
    }

    fn word(policy: &Policy, meta: &BlockMeta, now_days: i64) -> &'static str {
        match policy.judge(meta, now_days * DAY) {
            Verdict::Keep => "keep",
            Verdict::Mark { .. } => "mark",
            Verdict::Rewrite(_) => "rewrite",
        }
    }

    const FILE: &str = r#"
defaults: {raw: 30d, 5m: 90d}
tenants:
  short: {raw: 5d}
series:
  - matchers: '{tenant_id="gone"}'
    raw: 1d
  - matchers: 'audit{job=~"a|b"}'
    raw: 100d
    1h: 3y
  - matchers: '{namespace="test"}'
    raw: 7d
"#;

    #[test]
    fn blocks_go_by_resolution_and_tenant() {
        let policy = Policy::new(Keep { raw_ms: 10 * DAY, five_minutes_ms: 0, one_hour_ms: 20 * DAY });
        assert_eq!(word(&policy, &block(10, 0, "a"), 20), "keep", "the end itself is kept");
        assert_eq!(word(&policy, &block(10, 0, "a"), 21), "mark");
        assert_eq!(word(&policy, &block(10, 300_000, "a"), 10_000), "keep");
        assert_eq!(word(&policy, &block(10, 3_600_000, "a"), 30), "keep");
        assert_eq!(word(&policy, &block(10, 3_600_000, "a"), 31), "mark");
        assert!(Policy::new(Keep::default()).keeps_all() && !policy.keeps_all());

        let policy = Policy::parse("f", FILE, Keep::default()).unwrap();
        assert_eq!(word(&policy, &block(10, 0, "gone"), 11), "keep");
        assert_eq!(word(&policy, &block(10, 0, "gone"), 12), "mark", "the rule holds for the whole block");
        assert_eq!(word(&policy, &block(10, 0, "short"), 16), "rewrite", "audit and test are kept longer");
        assert_eq!(word(&policy, &block(10, 0, "other"), 16), "keep");
        assert_eq!(word(&policy, &block(10, 0, "other"), 18), "rewrite");
        assert_eq!(word(&policy, &block(10, 0, "other"), 111), "mark");
        assert_eq!(word(&policy, &block(10, 300_000, "other"), 101), "mark");
        let flags = Keep { raw_ms: 200 * DAY, ..Keep::default() };
        let policy = Policy::parse("f", FILE, flags).unwrap();
        assert_eq!(
            word(&policy, &block(10, 0, "other"), 111),
            "rewrite",
            "a flag comes before the file's default"
        );
    }

    #[test]
    fn of_the_rules_for_series_the_first_decides() {
        let policy = Policy::parse("f", FILE, Keep::default()).unwrap();
        let Verdict::Rewrite(expired) = policy.judge(&block(10, 0, "other"), 50 * DAY) else { panic!() };
        let goes = |pairs: &[(&str, &str)]| expired.goes(&Labels::from_pairs(pairs.iter().copied()).unwrap());
        assert!(!goes(&[("__name__", "audit"), ("job", "a"), ("namespace", "test")]));
        assert!(goes(&[("__name__", "audit"), ("job", "c")]));
        assert!(goes(&[("__name__", "up"), ("namespace", "test")]));
        let Verdict::Rewrite(expired) = policy.judge(&block(10, 0, "other"), 20 * DAY) else { panic!() };
        let goes = |pairs: &[(&str, &str)]| expired.goes(&Labels::from_pairs(pairs.iter().copied()).unwrap());
        assert!(!goes(&[("__name__", "up")]) && goes(&[("__name__", "up"), ("namespace", "test")]));
        assert_eq!(expired.candidates().count(), 1);
    }

    #[test]
    fn a_wrong_file_is_refused() {
        for text in [
            "series: [{matchers: '{', raw: 1d}]",
            "series: [{matchers: '{a=~\".*\"}'}]",
            "raw: 1d",
            "defaults: {raw: 1}",
        ] {
            assert!(Policy::parse("f", text, Keep::default()).is_err(), "{text}");
        }
        assert!(Policy::parse("f", "", Keep::default()).unwrap().keeps_all());
        assert!(Keep { raw_ms: 39 * 3_600_000, ..Keep::default() }.check_with_downsampling().is_err());
        assert!(Keep { five_minutes_ms: 10 * DAY, ..Keep::default() }.check_with_downsampling().is_ok());
    }
}
