//! Files as people write them, right and wrong.

use chronolith_model::TenantId;
use chronolith_model::relabel::LabelEdit;
use chronolith_tsdb::db::{Limits as DbLimits, TenantOptions};

use super::LimitsConfig;

fn parse(text: &str) -> Result<LimitsConfig, String> {
    LimitsConfig::parse("limits.yml", text, "tenant_id").map_err(|e| e.to_string())
}

#[test]
fn thanos_files_are_read() {
    let config = parse(
        "write:\n  global:\n    max_concurrency: 30\n  default:\n    request:\n      size_bytes_limit: 1024\n      \
         series_limit: 1000\n      samples_limit: 10\n    head_series_limit: 1000\n  tenants:\n    acme:\n      \
         request:\n        size_bytes_limit: 0\n        series_limit: 0\n      head_series_limit: 0\n    ajax:\n      \
         request:\n        series_limit: 50000\n        samples_limit: 500\n    1234:\n",
    )
    .unwrap();
    assert_eq!(config.max_concurrency, 30);
    let of = |name: &str| {
        let limits = config.of(&TenantId::new(name).unwrap());
        let r = limits.request;
        (r.size_bytes, r.series, r.samples, limits.head_series)
    };
    assert_eq!(of("nobody"), (1024, 1000, 10, 1000));
    assert_eq!(of("acme"), (0, 0, 10, 0), "0 is no limit, and what is left out is the default's");
    assert_eq!(of("ajax"), (1024, 50000, 500, 1000));
    assert_eq!(of("1234"), of("nobody"), "a tenant may be named by a number, and say nothing");
    for nothing in ["", "write:", "write: {global: , default: , tenants: }", "# only a comment\n"] {
        assert_eq!(parse(nothing).unwrap().default.head_series, 0, "{nothing:?}");
    }
}

#[test]
fn our_own_keys_are_read_and_inherited() {
    let config = parse(
        "write:\n  default:\n    labels: {count_limit: 30, value_bytes_limit: 100}\n    \
         ingestion: {samples_per_second: 1000}\n    out_of_order_time_window: 1h\n    \
         relabel_configs: [{action: labeldrop, regex: pod}]\n    external_labels: {cluster: eu}\n  tenants:\n    \
         a:\n      labels: {name_bytes_limit: 20}\n      ingestion: {burst_samples: 5000}\n      retention: 2d\n      \
         concurrent_requests_limit: 3\n      relabel_configs: []\n    \
         b: {ingestion: {samples_per_second: 0}, external_labels: {}, out_of_order_time_window: 0s}\n",
    )
    .unwrap();
    let of = |name: &str| config.of(&TenantId::new(name).unwrap()).clone();
    let own = TenantOptions { limits: DbLimits::default(), out_of_order_window_ms: 5 };
    let (a, b, c) = (of("a"), of("b"), of("c"));
    let options = a.tenant_options(own);
    assert_eq!(
        (
            options.limits.labels_max,
            options.limits.label_name_bytes_max,
            options.limits.label_value_bytes_max
        ),
        (30, 20, 100)
    );
    assert_eq!(options.limits.series_max, 0);
    assert_eq!(options.out_of_order_window_ms, 3_600_000);
    assert_eq!(b.tenant_options(own).out_of_order_window_ms, 0);
    assert_eq!(c.tenant_options(own).limits.label_name_bytes_max, DbLimits::default().label_name_bytes_max);
    let rate = a.rate.unwrap();
    assert_eq!((rate.samples_per_second, rate.burst_samples), (1000.0, 5000.0));
    assert_eq!((b.rate, c.rate.unwrap().burst_samples), (None, 1000.0));
    assert_eq!((a.retention_ms, c.retention_ms), (Some(2 * 86_400_000), None));
    assert_eq!((a.concurrent_requests, c.concurrent_requests), (3, 0));
    assert_eq!((a.external_labels.len(), b.external_labels.len()), (1, 0));
    assert!(a.relabeling.is_empty(), "an empty list is a list");
    let mut edit = LabelEdit::default();
    edit.start([("__name__", "up"), ("pod", "x")]);
    assert!(c.relabeling.apply(&mut edit) && edit.get("pod").is_empty());
}

/// Each with what the operator reads.
#[test]
fn wrong_files_say_what_is_wrong() {
    let cases = [
        ("write: [", "limits.yml: "),
        ("- write", "invalid type: sequence"),
        ("read: {}", "unknown field `read`"),
        ("write: {defaults: {}}", "unknown field `defaults`"),
        ("write: {default: {head_series_limits: 5}}", "unknown field `head_series_limits`"),
        ("write: {default: {request: {size_limit: 5}}}", "unknown field `size_limit`"),
        ("write: {tenants: {a: {request: {series: 5}}}}", "unknown field `series`"),
        ("write: {tenants: {a: {head_series_limit: 1}, a: {head_series_limit: 2}}}", "\"a\" stands twice"),
        ("write: {default: {head_series_limit: many}}", "invalid type: string \"many\""),
        ("write: {default: {head_series_limit: 1.5}}", "invalid type: floating point `1.5`"),
        (
            "write: {default: {head_series_limit: -1}}",
            "limits.yml: write.default.head_series_limit: -1 is negative; 0 is no limit",
        ),
        (
            "write: {tenants: {a: {request: {samples_limit: -3}}}}",
            "write.tenants.a.request.samples_limit: -3 is negative",
        ),
        ("write: {global: {max_concurrency: -1}}", "write.global.max_concurrency: -1 is negative"),
        (
            "write: {global: {meta_monitoring_url: 'http://prometheus:9090'}}",
            "write.global.meta_monitoring_url: not supported: each receiver counts its own active series exactly",
        ),
        (
            "write: {global: {meta_monitoring_limit_query: 'sum(x)'}}",
            "write.global.meta_monitoring_limit_query",
        ),
        ("write: {tenants: {a/b: {}}}", "write.tenants: invalid tenant \"a/b\""),
        ("write: {tenants: {..: {}}}", "write.tenants: invalid tenant \"..\""),
        (
            "write: {default: {labels: {count_limit: 0}}}",
            "write.default.labels.count_limit: 0 is not between 1",
        ),
        (
            "write: {default: {labels: {value_bytes_limit: 99999999}}}",
            "99999999 is not between 1 and 1048576",
        ),
        ("write: {default: {ingestion: {samples_per_second: -5}}}", "-5 is no number of samples"),
        ("write: {default: {ingestion: {samples_per_second: .nan}}}", "NaN is no number of samples"),
        (
            "write: {default: {ingestion: {burst_samples: 5}}}",
            "write.default.ingestion.burst_samples: there is no samples_per_second",
        ),
        (
            "write: {default: {ingestion: {samples_per_second: 5, burst_samples: 0}}}",
            "0 would let nothing pass",
        ),
        ("write: {default: {retention: 5}}", "not a duration: \"5\""),
        ("write: {default: {retention: -5d}}", "not a duration: \"-5d\""),
        ("write: {default: {out_of_order_time_window: soon}}", "not a duration: \"soon\""),
        (
            "write: {tenants: {a: {relabel_configs: [{action: keep, regex: x}, {action: dorp}]}}}",
            "write.tenants.a.relabel_configs: relabel rule 2: unknown relabel action \"dorp\"",
        ),
        (
            "write: {default: {relabel_configs: [{regex: '('}]}}",
            "relabel rule 1: action replace needs target_label",
        ),
        (
            "write: {default: {external_labels: {a-b: c}}}",
            "write.default.external_labels: \"a-b\" is no label name",
        ),
        ("write: {default: {external_labels: {tenant_id: c}}}", "tenant_id cannot be set here"),
        ("write: {default: {external_labels: {a: ''}}}", "write.default.external_labels: a is empty"),
    ];
    let mut wrong = Vec::new();
    for (text, want) in cases {
        let error = parse(text).map(|_| ()).expect_err(text);
        assert!(error.starts_with("limits.yml: "), "{error:?} names the file");
        if !error.contains(want) {
            wrong.push(format!("{text}\n  says {error:?}\n  not  {want:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
