use super::*;

fn s3(text: &str) -> S3Config {
    match parse(text).unwrap().store {
        StoreConfig::S3(c) => *c,
        other => panic!("{other:?}"),
    }
}

const FULL_S3: &str = r#"
type: s3
config:
  bucket: metrics
  endpoint: s3.eu-west-1.amazonaws.com
  disable_dualstack: false
  aws_sdk_auth: no
  access_key: a
  secret_key: b
  session_token: ""
  insecure: off
  signature_version2: false
  put_user_metadata: {"X-Amz-Storage-Class": STANDARD_IA}
  http_config:
    idle_conn_timeout: 1m30s
    response_header_timeout: 2m
    insecure_skip_verify: false
    tls_handshake_timeout: 10s
    expect_continue_timeout: 1s
    max_idle_conns: 100
    max_idle_conns_per_host: 50
    max_conns_per_host: 0
    tls_config: {ca_file: "", cert_file: "", key_file: "", server_name: "", insecure_skip_verify: false}
    disable_compression: false
  trace: {enable: true}
  list_objects_version: ""
  bucket_lookup_type: auto
  send_content_md5: true
  disable_multipart: false
  part_size: 67108864
  sse_config: {type: SSE-KMS, kms_key_id: k, kms_encryption_context: {}, encryption_key: ""}
  sts_endpoint: ""
  max_retries: 0
prefix: /team/a/
"#;

#[test]
fn every_key_of_thanos_is_known() {
    let config = parse(FULL_S3).unwrap();
    assert_eq!(config.prefix, "team/a");
    let c = s3(FULL_S3);
    assert_eq!((c.http_config.max_idle_conns_per_host, c.part_size), (50, 67_108_864));
    assert!(c.virtual_hosted());
    assert_eq!(c.region_or_default(), "eu-west-1");
    for text in [
        "type: GCS\nconfig: {bucket: b, service_account: '', use_grpc: false, grpc_conn_pool_size: 0, \
         http_config: {}, chunk_size_bytes: 0, max_retries: 0, no_auth: true}",
        "type: AZURE\nconfig: {storage_account: a, storage_account_key: aw==, storage_connection_string: '', \
         storage_create_container: false, container: c, endpoint: '', user_assigned_id: '', max_retries: 0, \
         reader_config: {max_retry_requests: 0}, pipeline_config: {max_tries: 0, try_timeout: 0, \
         retry_delay: 0s, max_retry_delay: 1m}, http_config: {}, az_tenant_id: '', client_id: '', \
         client_secret: '', msi_resource: ''}",
        "type: FileSystem\nconfig:\n  directory: /x",
    ] {
        parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    }
}

#[test]
fn lookup_and_region() {
    let minimal = |endpoint: &str, more: &str| {
        s3(&format!("type: S3\nconfig:\n  bucket: b\n  endpoint: {endpoint}\n{more}"))
    };
    assert!(!minimal("127.0.0.1:9000", "").virtual_hosted());
    assert!(minimal("127.0.0.1:9000", "  bucket_lookup_type: virtual-hosted").virtual_hosted());
    assert!(!minimal("s3.amazonaws.com", "  bucket_lookup_type: path").virtual_hosted());
    assert_eq!(minimal("s3.amazonaws.com", "").region_or_default(), "us-east-1");
    assert_eq!(minimal("s3-eu-north-1.amazonaws.com", "").region_or_default(), "eu-north-1");
    assert_eq!(minimal("minio:9000", "  region: mars").region_or_default(), "mars");
}

#[test]
fn errors_name_what_is_wrong() {
    let cases = [
        ("type: S3\nconfig: {bucket: b, endpoint: e, acces_key: x}", "acces_key"),
        ("type: S3\nconfig: {bucket: b, endpoint: e, http_config: {foo: 1}}", "foo"),
        ("type: S3\nconfig: {bucket: b}", "config.endpoint"),
        ("type: S3\nconfig: {bucket: b, endpoint: 'https://e'}", "without a scheme"),
        ("type: S3\nconfig: {bucket: b, endpoint: e, access_key: a}", "secret_key"),
        ("type: S3\nconfig: {bucket: b, endpoint: e, insecure: perhaps}", "perhaps"),
        ("type: S3\nconfig: {bucket: b, bucket: c, endpoint: e}", "\"bucket\" stands twice"),
        ("type: S3\nconfig: {bucket: b, endpoint: e, signature_version2: true}", "signature_version2"),
        ("type: S3\nconfig: {bucket: b, endpoint: e, bucket_lookup_type: dns}", "bucket_lookup_type"),
        ("type: FILESYSTEM\nconfig: {}", "config.directory"),
        ("type: FILESYSTEM", "config.directory"),
        ("type: SWIFT\nconfig: {auth_url: x}", "\"SWIFT\" is not supported"),
        ("type: TAPE", "\"TAPE\" is not supported"),
        ("config: {directory: x}", "type is missing"),
        ("type: FILESYSTEM\nconf: {directory: x}", "conf"),
        ("", "type is missing"),
        ("- a", "invalid type"),
    ];
    for (text, part) in cases {
        let err = parse(text).map(|_| ()).unwrap_err().to_string();
        assert!(err.contains(part), "{text:?}: {err}");
    }
}

#[test]
fn azure_connection_strings() {
    let text = "type: AZURE\nconfig:\n  container: c\n  storage_connection_string: \
                'DefaultEndpointsProtocol=https;AccountName=me;AccountKey=a2V5;EndpointSuffix=core.usgovcloudapi.net'";
    let StoreConfig::Azure(c) = parse(text).unwrap().store else { panic!() };
    assert_eq!((c.account().name.as_str(), c.account().key.as_str()), ("me", "a2V5"));
    assert_eq!(c.endpoint_url(), "https://me.blob.core.usgovcloudapi.net");
}

#[test]
fn the_examples_are_valid() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/objstore");
    let mut count = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        parse(&std::fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        count += 1;
    }
    assert!(count >= 4);
}

#[test]
fn hedging_is_off_unless_enabled() {
    let hedging =
        |text: &str| parse(&format!("type: FILESYSTEM\nconfig: {{directory: x}}\n{text}")).map(|c| c.hedging);
    assert_eq!(hedging("").unwrap(), None);
    assert_eq!(hedging("hedging_config: {up_to: 2}").unwrap(), None);
    let on = hedging("hedging_config: {enabled: true, quantile: 0.99}").unwrap();
    assert_eq!(on, Some(crate::HedgeOptions { repeats_max: 3, quantile: 0.99 }));
    assert!(
        hedging("hedging_config: {enabled: true, quantile: 2}").unwrap_err().to_string().contains("quantile")
    );
}
