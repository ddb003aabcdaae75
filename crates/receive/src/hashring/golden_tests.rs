//! Placement against what Thanos's own hashring code answers for the same series (`testdata/hashring/placements.json`, written by
//! a Go program around it): each case has the rings, and for each tenant the endpoints of the first series and a digest of all.

use chronolith_model::write::encode_labels;
use serde_json::Value;
use xxhash_rust::xxh64::xxh64;

use super::*;

/// SplitMix64, as in the program that wrote the file.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// A series of one to nine labels; some are long, some are not ASCII.
fn section(numbers: &mut Numbers) -> Vec<u8> {
    let count = 1 + numbers.next() % 9;
    let mut pairs = vec![("__name__".to_owned(), format!("metric_{}", numbers.next() % 500))];
    for i in 0..count {
        let mut value = format!("v{}", numbers.next() % 100_000);
        if numbers.next().is_multiple_of(50) {
            value = value.repeat(60);
        }
        if numbers.next().is_multiple_of(20) {
            value = format!("ü{value}");
        }
        pairs.push((format!("l{i}"), value));
    }
    let mut section = Vec::new();
    encode_labels(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())), &mut section);
    section
}

fn place(rings: &Hashrings, seed: usize, tenant: &str, series: u64) -> Result<String, PlacementError> {
    let ring = rings.ring_of(tenant)?;
    let mut numbers = Numbers(seed as u64);
    let (mut out, mut buffer) = (String::new(), Vec::new());
    for _ in 0..series {
        let hash = SeriesHash::of(tenant, &section(&mut numbers), &mut buffer).unwrap();
        for n in 0..rings.replication_factor() {
            out.push(char::from_digit(u32::from(ring.endpoint(hash, n)), 36).unwrap());
        }
    }
    Ok(out)
}

#[test]
fn placement_is_that_of_thanos() {
    let text = include_str!("../../testdata/hashring/placements.json");
    let cases: Vec<Value> = serde_json::from_str(text).unwrap();
    assert!(cases.len() > 30);
    for (seed, case) in cases.iter().enumerate() {
        let name = case["name"].as_str().unwrap();
        let factor = case["replication_factor"].as_u64().unwrap() as usize;
        let algorithm = case["algorithm"].as_str().unwrap().parse().unwrap();
        let configs = config::parse(&case["config"].to_string()).expect(name);
        let rings = Hashrings::new(configs, algorithm, factor).expect(name);
        for tenant in case["tenants"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()) {
            let placed = place(&rings, seed, tenant, case["series"].as_u64().unwrap());
            if case["errors"][tenant].is_string() {
                assert_eq!(placed, Err(PlacementError::NoRing(tenant.to_owned())), "{name}");
                continue;
            }
            let placed = placed.expect(name);
            let first = case["first"][tenant].as_str().unwrap();
            assert_eq!(&placed[..first.len()], first, "{name}, tenant {tenant}");
            let digest = format!("{:016x}", xxh64(placed.as_bytes(), 0));
            assert_eq!(digest, case["digest"][tenant].as_str().unwrap(), "{name}, tenant {tenant}");
        }
    }
}

#[test]
fn shards_are_remembered_and_forgotten() {
    let config = r#"[{"hashring": "h", "endpoints": ["a:1", "b:1", "c:1"],
        "shuffle_sharding_config": {"shard_size": 2, "cache_size": 2}}]"#;
    let rings = Hashrings::new(config::parse(config).unwrap(), Algorithm::Ketama, 1).unwrap();
    for tenant in ["x", "y", "x", "z", "x", "y"] {
        assert_eq!(rings.ring_of(tenant).unwrap().endpoints().len(), 2);
    }
    let stats = rings.shard_caches().next().unwrap().1;
    assert_eq!((stats.requests, stats.hits, stats.evicted, stats.items), (6, 2, 2, 2));
}

#[test]
fn a_ketama_ring_moves_few_series_when_an_endpoint_comes() {
    let ring = |n: usize| {
        let endpoints: Vec<String> = (0..n).map(|i| format!("\"r{i}:1\"")).collect();
        let text = format!("[{{\"endpoints\": [{}]}}]", endpoints.join(","));
        Hashrings::new(config::parse(&text).unwrap(), Algorithm::Ketama, 1).unwrap()
    };
    let (before, after) = (place(&ring(4), 1, "t", 2000).unwrap(), place(&ring(5), 1, "t", 2000).unwrap());
    let moved = before.bytes().zip(after.bytes()).filter(|(a, b)| a != b).count();
    assert!((200..700).contains(&moved), "{moved} of 2000 moved, about a fifth should");
    assert!(before.bytes().zip(after.bytes()).all(|(a, b)| a == b || b == b'4'), "only to the new one");
}

#[test]
fn tenants_listed_by_name_have_the_labels_of_their_ring() {
    let text = r#"[{"endpoints": ["a:1"], "tenants": ["x", "y*"], "tenant_matcher_type": "glob", "external_labels": {"ring": "a"}},
        {"endpoints": ["b:1"], "external_labels": {"ring": "b"}}]"#;
    let rings = Hashrings::new(config::parse(text).unwrap(), Algorithm::Ketama, 1).unwrap();
    assert_eq!(rings.external_labels("x").unwrap().to_string(), r#"{ring="a"}"#);
    assert_eq!((rings.external_labels("yes"), rings.external_labels("z")), (None, None));
}
