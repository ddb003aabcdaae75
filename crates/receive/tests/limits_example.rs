//! The example of a limits file is one.

use chronolith_model::TenantId;
use chronolith_receive::limits::LimitsConfig;

#[test]
fn the_example_is_a_limits_file() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/tenants/limits.yml");
    let text = std::fs::read_to_string(path).unwrap();
    let config = LimitsConfig::parse(path, &text, "tenant_id").unwrap();
    let of = |name: &str| config.of(&TenantId::new(name).unwrap()).clone();
    assert_eq!(of("anybody").request.series, 20_000);
    assert_eq!(of("staging").retention_ms, Some(2 * 86_400_000));
    assert_eq!(of("edge").relabeling.len(), 2);
    assert!(of("platform").rate.is_none() && of("platform").head_series == 0);
    assert_eq!(of("platform").labels.count, Some(60), "what a tenant leaves out is the default's");
}
