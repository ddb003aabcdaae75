//! Prometheus's relabeling: rules that rewrite a label set, or drop it.
//!
//! ```text
//! RuleSpec (as written) ── Rule::new checks ── Relabeling ── apply(&mut LabelEdit) ── keep or drop
//! ```
//!
//! The algebra alone: files are read by whoever has them, and what becomes of a dropped set is the caller's business.
//! Used on the write path for series and by readers of a bucket to choose blocks by their external labels.

mod edit;
mod letters;

use md5::{Digest, Md5};

use crate::{GoRegex, RegexError};
pub use edit::LabelEdit;

/// What a rule does. Names are Prometheus's, in lower case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RelabelAction {
    /// Sets the target to the expanded replacement where the regex matches.
    #[default]
    Replace,
    /// Drops sets that do not match.
    Keep,
    /// Drops sets that match.
    Drop,
    /// Drops sets whose target differs from the source.
    KeepEqual,
    /// Drops sets whose target equals the source.
    DropEqual,
    /// Sets the target to a hash of the source, modulo `modulus`.
    HashMod,
    /// Copies labels whose name matches to an expanded name.
    LabelMap,
    /// Removes labels whose name matches.
    LabelDrop,
    /// Removes labels whose name does not match.
    LabelKeep,
    /// Sets the target to the source in lower case.
    Lowercase,
    /// Sets the target to the source in upper case.
    Uppercase,
}

impl RelabelAction {
    const ALL: [(&'static str, RelabelAction); 11] = [
        ("replace", RelabelAction::Replace),
        ("keep", RelabelAction::Keep),
        ("drop", RelabelAction::Drop),
        ("keepequal", RelabelAction::KeepEqual),
        ("dropequal", RelabelAction::DropEqual),
        ("hashmod", RelabelAction::HashMod),
        ("labelmap", RelabelAction::LabelMap),
        ("labeldrop", RelabelAction::LabelDrop),
        ("labelkeep", RelabelAction::LabelKeep),
        ("lowercase", RelabelAction::Lowercase),
        ("uppercase", RelabelAction::Uppercase),
    ];

    /// The action of a name in any case.
    pub fn parse(name: &str) -> Result<Self, RelabelError> {
        let found = Self::ALL.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, action)| *action).ok_or_else(|| RelabelError::UnknownAction(name.to_owned()))
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, action)| *action == self).map_or("", |(name, _)| name)
    }
}

/// A rule as it is written; `None` is a key that was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSpec {
    /// `source_labels`.
    pub source_labels: Vec<String>,
    /// `separator` (`;`).
    pub separator: Option<String>,
    /// `regex` (`(.*)`).
    pub regex: Option<String>,
    /// `modulus`.
    pub modulus: u64,
    /// `target_label`.
    pub target_label: String,
    /// `replacement` (`$1`).
    pub replacement: Option<String>,
    /// `action` (`replace`).
    pub action: RelabelAction,
}

/// Why a rule was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelabelError {
    /// No such action.
    #[error("unknown relabel action {0:?}")]
    UnknownAction(String),
    /// A pattern that Go's regular expressions would refuse.
    #[error("regex: {0}")]
    Regex(#[from] RegexError),
    /// Hashmod by zero.
    #[error("action hashmod needs a modulus that is not 0")]
    NoModulus,
    /// The action writes to a label and none is named.
    #[error("action {0} needs target_label")]
    NoTarget(&'static str),
    /// An empty label name.
    #[error("{0}: an empty label name")]
    EmptyName(&'static str),
    /// A key that the action has no use for.
    #[error("action {action} takes no {key}")]
    Superfluous {
        /// The action.
        action: &'static str,
        /// The key.
        key: &'static str,
    },
}

/// One rule, checked and compiled.
#[derive(Clone, Debug)]
pub struct Rule {
    action: RelabelAction,
    sources: Vec<String>,
    separator: String,
    /// `None` is the default, which matches everything and whose `$1` is the whole.
    regex: Option<GoRegex>,
    modulus: u64,
    target: Template,
    replacement: Template,
}

/// A text that may refer to groups.
#[derive(Clone, Debug)]
enum Template {
    Plain(String),
    /// `$1` of the default regex: the value itself.
    Whole,
    Groups(String),
}

impl Template {
    fn new(text: String, default_regex: bool) -> Self {
        match text.as_str() {
            "$1" | "${1}" | "$0" | "${0}" if default_regex => Template::Whole,
            _ if text.contains('$') => Template::Groups(text),
            _ => Template::Plain(text),
        }
    }
}

impl Rule {
    /// Checks a rule by Prometheus's conditions.
    pub fn new(spec: RuleSpec) -> Result<Self, RelabelError> {
        use RelabelAction as A;
        let action = spec.action;
        let name = action.as_str();
        let superfluous = |key, given: bool| match given {
            true => Err(RelabelError::Superfluous { action: name, key }),
            false => Ok(()),
        };
        let other = |given: &Option<String>, default: &str| given.as_deref().is_some_and(|g| g != default);
        let (separator, replacement) = (other(&spec.separator, ";"), other(&spec.replacement, "$1"));
        if action == A::HashMod && spec.modulus == 0 {
            return Err(RelabelError::NoModulus);
        }
        let writes = matches!(
            action,
            A::Replace | A::HashMod | A::Lowercase | A::Uppercase | A::KeepEqual | A::DropEqual
        );
        if writes && spec.target_label.is_empty() {
            return Err(RelabelError::NoTarget(name));
        }
        if spec.source_labels.iter().any(String::is_empty) {
            return Err(RelabelError::EmptyName("source_labels"));
        }
        match action {
            A::Lowercase | A::Uppercase => superfluous("replacement", replacement)?,
            A::KeepEqual | A::DropEqual => {
                superfluous("regex", spec.regex.is_some())?;
                superfluous("modulus", spec.modulus != 0)?;
                superfluous("separator", separator)?;
                superfluous("replacement", replacement)?;
            }
            A::LabelDrop | A::LabelKeep => {
                superfluous("source_labels", !spec.source_labels.is_empty())?;
                superfluous("target_label", !spec.target_label.is_empty())?;
                superfluous("modulus", spec.modulus != 0)?;
                superfluous("separator", separator)?;
                superfluous("replacement", replacement)?;
            }
            A::LabelMap if spec.replacement.as_deref() == Some("") => {
                return Err(RelabelError::EmptyName("replacement"));
            }
            A::LabelMap | A::Replace | A::Keep | A::Drop | A::HashMod => {}
        }
        let regex = match spec.regex.as_deref() {
            None | Some("(.*)") => None,
            Some(pattern) => Some(GoRegex::new(pattern)?),
        };
        let default_regex = regex.is_none();
        Ok(Rule {
            action,
            sources: spec.source_labels,
            separator: spec.separator.unwrap_or_else(|| ";".to_owned()),
            regex,
            modulus: spec.modulus,
            target: match action {
                A::Replace => Template::new(spec.target_label, default_regex),
                _ => Template::Plain(spec.target_label),
            },
            replacement: Template::new(spec.replacement.unwrap_or_else(|| "$1".to_owned()), default_regex),
        })
    }

    fn matches(&self, text: &str) -> bool {
        self.regex.as_ref().is_none_or(|regex| regex.is_match(text))
    }

    /// `None` when `text` does not match.
    fn expand(&self, template: &Template, text: &str, out: &mut String) -> Option<()> {
        out.clear();
        match (template, &self.regex) {
            (Template::Plain(plain), _) => out.push_str(plain),
            (Template::Whole, _) => out.push_str(text),
            (Template::Groups(groups), Some(regex)) => {
                return regex.expand_into(text, groups, out).then_some(());
            }
            (Template::Groups(groups), None) => return whole().expand_into(text, groups, out).then_some(()),
        }
        Some(())
    }

    /// Applies the rule; false when the set is to be dropped.
    fn apply(&self, labels: &mut LabelEdit) -> bool {
        use RelabelAction as A;
        match self.action {
            A::LabelDrop => labels.retain_names(|name| !self.matches(name)),
            A::LabelKeep => labels.retain_names(|name| self.matches(name)),
            A::LabelMap => {
                let mut name_out = String::new();
                labels.copy_matching(|name| {
                    if !self.matches(name) {
                        return None;
                    }
                    self.expand(&self.replacement, name, &mut name_out)?;
                    Some(name_out.clone())
                });
            }
            A::Keep
            | A::Drop
            | A::KeepEqual
            | A::DropEqual
            | A::Replace
            | A::HashMod
            | A::Lowercase
            | A::Uppercase => {
                let mut value = labels.take_scratch();
                labels.join(&self.sources, &self.separator, &mut value);
                let keep = self.apply_to_value(labels, &value);
                labels.put_scratch(value);
                return keep;
            }
        }
        true
    }

    fn apply_to_value(&self, labels: &mut LabelEdit, value: &str) -> bool {
        use RelabelAction as A;
        let target = match &self.target {
            Template::Plain(name) => name.as_str(),
            Template::Whole | Template::Groups(_) => "",
        };
        match self.action {
            A::Keep => return self.matches(value),
            A::Drop => return !self.matches(value),
            A::KeepEqual => return labels.get(target) == value,
            A::DropEqual => return labels.get(target) != value,
            A::Lowercase => labels.set(target, &letters::to_lower(value)),
            A::Uppercase => labels.set(target, &letters::to_upper(value)),
            A::HashMod => {
                let digest = Md5::digest(value.as_bytes());
                let last: [u8; 8] = digest[8..].try_into().expect("an MD5 sum has 16 bytes");
                let bucket = u64::from_be_bytes(last) % self.modulus;
                labels.set(target, &bucket.to_string());
            }
            A::Replace => self.replace(labels, value),
            A::LabelMap | A::LabelDrop | A::LabelKeep => unreachable!("these look at names"),
        }
        true
    }

    fn replace(&self, labels: &mut LabelEdit, value: &str) {
        if !self.matches(value) {
            return;
        }
        let mut out = labels.take_second();
        let target = match &self.target {
            Template::Plain(name) => Some(name.clone()),
            other => self.expand(other, value, &mut out).map(|()| out.clone()),
        };
        if let Some(target) = target.filter(|name| !name.is_empty())
            && self.expand(&self.replacement, value, &mut out).is_some()
        {
            labels.set(&target, &out);
        }
        labels.put_second(out);
    }
}

/// The default pattern, for templates that name its group among other text.
fn whole() -> &'static GoRegex {
    static WHOLE: std::sync::OnceLock<GoRegex> = std::sync::OnceLock::new();
    WHOLE.get_or_init(|| GoRegex::new("(.*)").expect("a valid pattern"))
}

/// Rules that are applied one after the other. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Relabeling(std::sync::Arc<[Rule]>);

impl Relabeling {
    /// Checks all rules; the error comes with the rule's number, from 0.
    pub fn new(specs: Vec<RuleSpec>) -> Result<Self, (usize, RelabelError)> {
        let rules = specs.into_iter().enumerate().map(|(i, spec)| Rule::new(spec).map_err(|e| (i, e)));
        Ok(Relabeling(rules.collect::<Result<Vec<_>, _>>()?.into()))
    }

    /// True when there is no rule.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Applies all rules in their order. False as soon as one says to drop; the labels are worth nothing then.
    pub fn apply(&self, labels: &mut LabelEdit) -> bool {
        self.0.iter().all(|rule| rule.apply(labels))
    }
}

#[cfg(test)]
mod tests;
