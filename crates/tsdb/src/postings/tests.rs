use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use chronolith_model::Labels;
use proptest::prelude::*;

use super::*;

/// An inverted index made of maps, and the naive answer to match against.
struct Naive {
    series: Vec<Labels>,
    lists: BTreeMap<String, BTreeMap<String, Vec<u64>>>,
}

impl Naive {
    fn new(series: Vec<Labels>) -> Self {
        let mut lists: BTreeMap<String, BTreeMap<String, Vec<u64>>> = BTreeMap::new();
        for (i, labels) in series.iter().enumerate() {
            for (n, v) in labels {
                lists.entry(n.into()).or_default().entry(v.into()).or_default().push(i as u64 * 3);
            }
        }
        Naive { series, lists }
    }

    fn matching(&self, matchers: &[Matcher]) -> Vec<u64> {
        let accepts = |l: &Labels| matchers.iter().all(|m| m.matches(l.get(&m.name).unwrap_or("")));
        (0..self.series.len()).filter(|i| accepts(&self.series[*i])).map(|i| i as u64 * 3).collect()
    }
}

impl PostingsSource for Naive {
    type Ref = u64;
    type Error = Infallible;

    fn all(&self) -> Result<Cow<'_, [u64]>, Infallible> {
        Ok((0..self.series.len() as u64).map(|i| i * 3).collect())
    }

    fn postings(&self, name: &str, value: &str) -> Result<Cow<'_, [u64]>, Infallible> {
        assert!(!value.is_empty(), "no list has an empty value");
        Ok(self.lists.get(name).and_then(|v| v.get(value)).map_or(Cow::Owned(vec![]), Cow::from))
    }

    fn postings_matching(
        &self,
        name: &str,
        prefix: &str,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Vec<Cow<'_, [u64]>>, Infallible> {
        let values = self.lists.get(name).into_iter().flatten();
        Ok(values.filter(|(v, _)| v.starts_with(prefix) && keep(v)).map(|(_, l)| Cow::from(l)).collect())
    }
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let op = prop::sample::select(vec![MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex]);
    let name = prop::sample::select(vec!["a", "b", "c", "zz", ""]);
    let value = prop::sample::select(vec![
        "", "1", "2", "22", "1|2", "1|", "2.*", ".*", ".+", "x|y", "(1|2)2?", "2.+", "[^1]*", "(?i:A)", "0",
    ]);
    (op, name, value).prop_map(|(op, name, value)| Matcher::new(op, name, value).unwrap())
}

fn label_set() -> impl Strategy<Value = Labels> {
    let value = prop::sample::select(vec!["", "1", "2", "22", "2x", "a", "A"]);
    prop::collection::vec(value, 3).prop_map(|v| Labels::from_pairs(["a", "b", "c"].iter().zip(v)).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn matchers_select_what_they_say(
        series in prop::collection::btree_set(label_set(), 0..60),
        matchers in prop::collection::vec(matcher(), 0..5),
    ) {
        let naive = Naive::new(series.into_iter().collect());
        let Ok(got) = resolve_matchers(&naive, &matchers);
        prop_assert_eq!(got, naive.matching(&matchers), "{:?}", matchers);
    }

    #[test]
    fn algebra_is_that_of_sets(
        lists in prop::collection::vec(prop::collection::btree_set(0u32..500, 0..80), 0..6),
        scale in prop::sample::select(vec![1u32, 7, 1_000_003]),
        long in any::<bool>(),
    ) {
        let sets: Vec<BTreeSet<u32>> = lists
            .into_iter()
            .enumerate()
            .map(|(i, s)| {
                // A long first list exercises galloping on both sides.
                let more = if long && i == 0 { 0..2000 } else { 0..0 };
                s.into_iter().chain(more).map(|x| x * scale).collect()
            })
            .collect();
        let vecs: Vec<Vec<u32>> = sets.iter().map(|s| s.iter().copied().collect()).collect();
        let all: BTreeSet<u32> = sets.iter().flatten().copied().collect();
        prop_assert_eq!(union(&vecs), all.into_iter().collect::<Vec<_>>());
        for (a, sa) in vecs.iter().zip(&sets) {
            for (b, sb) in vecs.iter().zip(&sets) {
                let mut got = a.clone();
                intersect(&mut got, b);
                prop_assert_eq!(got, (sa & sb).into_iter().collect::<Vec<_>>());
                let mut got = a.clone();
                subtract(&mut got, b);
                prop_assert_eq!(got, (sa - sb).into_iter().collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn plans_prefer_look_ups_to_scans() {
    let m = |op, value| Matcher::new(op, "job", value).unwrap();
    let matchers = [m(MatchOp::NotEqual, ""), m(MatchOp::Equal, "x"), m(MatchOp::NotEqual, "y")];
    let plan = Plan::new(&matchers);
    assert_eq!(plan.intersect[0].lookup, Lookup::Values(vec!["x"]));
    assert_eq!(plan.intersect[1].lookup, Lookup::AnyValue);
    assert_eq!(plan.subtract, [Group { name: "job", lookup: Lookup::Values(vec!["y"]) }]);
    assert!(Plan::new(&[m(MatchOp::NotRegex, ".*")]).nothing);
}

#[test]
fn extreme_references() {
    assert_eq!(union(&[vec![0u64], vec![u64::MAX]]), [0, u64::MAX]);
    assert_eq!(union(&[vec![u64::MAX - 1], vec![u64::MAX]]), [u64::MAX - 1, u64::MAX]);
    assert!(union::<u32, Vec<u32>>(&[]).is_empty());
}
