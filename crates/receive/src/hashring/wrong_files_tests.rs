//! Hashring files that are wrong, and what their author reads.

use super::*;

/// The message for a file, read for three replicas and ketama where the file does not say otherwise.
fn message(text: &str) -> String {
    let read = config::parse(text).and_then(|configs| Hashrings::new(configs, Algorithm::Ketama, 3));
    read.err().map_or_else(|| format!("no error: {text}"), |e| e.to_string())
}

#[test]
fn wrong_files_are_refused_with_their_place() {
    let cases = [
        ("", "the hashring configuration is empty"),
        ("[{", "not valid JSON: EOF while parsing an object at line 1 column 2"),
        ("{}", "want a list of hashrings, got an object"),
        ("[]", "the list of hashrings is empty"),
        ("[7]", "hashring 1: want an object, got 7"),
        (r#"[{"hashring": "a"}]"#, r#"hashring 1 ("a"): no endpoints"#),
        (r#"[{"endpoints": "a:1"}]"#, "hashring 1: endpoints: want a list, got a text"),
        (r#"[{"endpoints": [""]}]"#, "hashring 1: endpoint 1: address must be set"),
        (r#"[{"endpoints": [{"az": "x"}]}]"#, "hashring 1: endpoint 1: address must be set"),
        (r#"[{"endpoints": ["a:1", 5]}]"#, "hashring 1: endpoint 2: want an address or an object, got 5"),
        (
            r#"[{"endpoints": ["receive-0"]}]"#,
            r#"hashring 1: endpoint 1: "receive-0" is no address, want host:port"#,
        ),
        (r#"[{"endpoints": ["a:1", "b:1", "a:1"]}]"#, "hashring 1: endpoint a:1 is listed twice"),
        (
            r#"[{"endpoints": ["a:1", "b:1", "c:1"], "tenant": ["x"]}]"#,
            "hashring 1: unknown field \"tenant\", want one of hashring, tenants, tenant_matcher_type, endpoints, \
             algorithm, external_labels, shuffle_sharding_config",
        ),
        (
            r#"[{"endpoints": ["a:1"], "algorithm": "ketma"}]"#,
            r#"hashring 1: algorithm: "ketma" is no hashring algorithm, want hashmod or ketama"#,
        ),
        (
            r#"[{"endpoints": ["a:1"], "tenants": ["x"], "tenant_matcher_type": "regex"}]"#,
            r#"hashring 1: tenant_matcher_type: "regex", want exact or glob"#,
        ),
        (
            r#"[{"endpoints": ["a:1"], "tenants": ["x["], "tenant_matcher_type": "glob"}]"#,
            r#"hashring 1: tenants: "x[" is no glob pattern"#,
        ),
        (r#"[{"endpoints": ["a:1"], "tenants": [""]}]"#, "hashring 1: tenants: a tenant is empty"),
        (r#"[{"endpoints": ["a:1"], "tenants": [true]}]"#, "hashring 1: tenants: want texts, got true"),
        (
            r#"[{"endpoints": ["a:1", "b:1"]}]"#,
            "hashring 1: 2 endpoints are fewer than the replication factor, 3",
        ),
        (
            r#"[{"endpoints": ["a:1", "b:1"], "algorithm": "hashmod"}]"#,
            "hashring 1: 2 endpoints are fewer than the replication factor, 3",
        ),
        (
            r#"[{"endpoints": ["a:1", "b:1", {"address": "c:1", "az": "z"}], "algorithm": "hashmod"}]"#,
            "hashring 1: endpoint c:1: hashmod knows no availability zones: use ketama, or remove az",
        ),
        (
            r#"[{"endpoints": ["a:1", "b:1", "c:1"], "algorithm": "hashmod", "shuffle_sharding_config": {"shard_size": 3}}]"#,
            "hashring 1: hashmod knows no shuffle sharding: use ketama, or remove shuffle_sharding_config",
        ),
        (
            r#"[{"endpoints": [{"address": "a:1", "az": "x"}, {"address": "b:1", "az": "y"}, "c:1", "d:1"]},
                {"hashring": "b", "endpoints": [{"address": "a:1", "az": "x"}, {"address": "b:1", "az": "x"},
                 {"address": "c:1", "az": "x"}, {"address": "d:1", "az": "y"}], "shuffle_sharding_config": {"shard_size": 4}}]"#,
            r#"hashring 2 ("b"): shard size 4 takes 2 endpoints, but there are 1 of availability zone y"#,
        ),
        (
            r#"[{"endpoints": ["a:1", "b:1", "c:1"], "shuffle_sharding_config": {"shard_size": 2}}]"#,
            "hashring 1: shard size 2 gives 2 endpoints, fewer than the replication factor, 3",
        ),
        (
            r#"[{"endpoints": ["a:1", "b:1", "c:1"], "shuffle_sharding_config": {"shard_size": -1}}]"#,
            "hashring 1: shuffle_sharding_config: shard_size: want a number from 0 to 1000000, got -1",
        ),
        (
            r#"[{"endpoints": ["a:1", "b:1", "c:1"], "shuffle_sharding_config": {"shard_size": 3, "overrides":
                [{"shard_size": 9, "tenants": ["x"], "tenant_matcher_type": "exact"}]}}]"#,
            "hashring 1: shard size 9 takes 9 endpoints, but there are 3",
        ),
        (
            r#"[{"endpoints": ["a:1", "b:1", "c:1"], "shuffle_sharding_config": {"shard_size": 3, "overrides": [{"tenants": ["x"]}]}}]"#,
            "hashring 1: shuffle_sharding_config: override 1: shard_size must be above 0",
        ),
        (
            r#"[{"endpoints": ["a:1", "b:1", "c:1"], "external_labels": {"a-b": "c"}}]"#,
            r#"hashring 1: external_labels: "a-b" is no label name"#,
        ),
        (
            r#"[{"endpoints": ["a:1", "b:1", "c:1"], "external_labels": {"a": 1}}]"#,
            "hashring 1: external_labels: a: want a text, got 1",
        ),
        (
            r#"[{"endpoints": [{"address": "a:1", "az": "x"}, {"address": "b:1", "az": "y"}, {"address": "c:1", "az": "y"}]},
                {"endpoints": [{"address": "a:1", "az": "x"}, {"address": "b:1", "az": "y"}]}]"#,
            "hashring 2: 2 endpoints are fewer than the replication factor, 3",
        ),
    ];
    assert!(cases.len() >= 20);
    for (text, want) in cases {
        assert_eq!(message(text), want, "{text}");
    }
}

#[test]
fn zones_that_cannot_be_filled_evenly_are_refused_instead_of_searched_for_ever() {
    let text = r#"[{"endpoints": [{"address": "a:1", "az": "x"}, {"address": "b:1", "az": "y"},
        {"address": "c:1", "az": "y"}, {"address": "d:1", "az": "y"}]}]"#;
    let configs = config::parse(text).unwrap();
    assert!(Hashrings::new(configs.clone(), Algorithm::Ketama, 3).is_ok());
    let error = Hashrings::new(configs, Algorithm::Ketama, 4).unwrap_err().to_string();
    let want = "hashring 1: 4 replicas cannot be spread evenly over the 2 availability zones: a zone has too few endpoints";
    assert_eq!(error, want);
}

#[test]
fn what_go_takes_is_taken() {
    let text = r#"[{"Endpoints": ["a:1", {"Address": "b:1", "AZ": null}, "c:1"], "tenants": null}]"#;
    let configs = config::parse(text).unwrap();
    assert!(configs[0].takes("anybody"));
    assert!(configs[0].endpoints[1].is_at("b:19391"));
}
