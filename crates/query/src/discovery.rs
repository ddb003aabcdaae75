//! Which endpoints there are: flags, the service discovery file, DNS.

use std::collections::BTreeSet;
use std::path::PathBuf;

use chronolith_service::config::{ConfigError, load_yaml_file};
use chronolith_service::tls::{ClientTlsConfig, client_config};
use serde::Deserialize;

use crate::Config;

/// One endpoint as it was configured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spec {
    /// Without the DNS prefix.
    pub(crate) address: String,
    /// The address is looked up, and every answer is an endpoint.
    pub(crate) dns: bool,
    /// Must be asked, and is missed when it does not answer.
    pub(crate) strict: bool,
    /// All answers of the look-up are equal; one of them is asked.
    pub(crate) group: bool,
    /// How it is called; `None` is plain.
    pub(crate) tls: Option<ClientTlsConfig>,
}

/// `--endpoint.sd-config-file`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    default_client_config: ClientConfig,
    #[serde(default)]
    endpoints: Vec<FileEndpoint>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEndpoint {
    address: String,
    #[serde(default)]
    strict: bool,
    #[serde(default)]
    group: bool,
    /// gRPC's own retry settings, of Go's client; ours has none.
    #[serde(default)]
    #[allow(dead_code)]
    service_config: String,
    #[serde(default)]
    client_config: ClientConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClientConfig {
    tls_config: TlsConfig,
    server_name: String,
    compression: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TlsConfig {
    enabled: Option<bool>,
    insecure_skip_verify: Option<bool>,
    cert_file: String,
    key_file: String,
    ca_file: String,
    min_version: String,
}

/// The endpoints of the flags.
pub(crate) fn from_flags(config: &Config) -> Result<Vec<Spec>, ConfigError> {
    let mut specs = Vec::new();
    for (flag, addresses, strict, group) in [
        ("--endpoint", &config.endpoints, false, false),
        ("--endpoint-strict", &config.endpoints_strict, true, false),
        ("--endpoint-group", &config.endpoint_groups, false, true),
    ] {
        for address in addresses {
            specs.push(spec(flag, address, strict, group, config.client_tls.clone())?);
        }
    }
    unique("--endpoint", &specs)?;
    Ok(specs)
}

/// The endpoints of the service discovery file.
pub(crate) fn from_file(config: &Config) -> Result<Vec<Spec>, ConfigError> {
    let Some(path) = &config.sd_config_file else { return Ok(Vec::new()) };
    let origin = path.display().to_string();
    let file: File = load_yaml_file(path)?;
    let mut specs = Vec::new();
    for endpoint in &file.endpoints {
        let mut tls = config.client_tls.clone();
        for client in [&file.default_client_config, &endpoint.client_config] {
            tls = client_tls(&origin, client, tls)?;
        }
        specs.push(spec(&origin, &endpoint.address, endpoint.strict, endpoint.group, tls)?);
    }
    unique(&origin, &specs)?;
    Ok(specs)
}

/// How an endpoint is called by its own configuration, where `default` holds for what it leaves out.
fn client_tls(
    origin: &str,
    client: &ClientConfig,
    default: Option<ClientTlsConfig>,
) -> Result<Option<ClientTlsConfig>, ConfigError> {
    match client.compression.as_str() {
        "" | "none" => {}
        other => {
            let text = format!("client_config.compression: {other:?} is not supported");
            return Err(ConfigError::invalid(origin, text));
        }
    }
    let own = &client.tls_config;
    if !own.enabled.unwrap_or(default.is_some()) {
        return Ok(None);
    }
    let mut tls = default.unwrap_or_default();
    for (given, file) in [
        (&own.ca_file, &mut tls.ca_file),
        (&own.cert_file, &mut tls.cert_file),
        (&own.key_file, &mut tls.key_file),
    ] {
        if !given.is_empty() {
            *file = Some(PathBuf::from(given));
        }
    }
    if !client.server_name.is_empty() {
        tls.server_name = Some(client.server_name.clone());
    }
    tls.skip_verify = own.insecure_skip_verify.unwrap_or(tls.skip_verify);
    if !own.min_version.is_empty() {
        let bad =
            |text| ConfigError::invalid(origin, format!("client_config.tls_config.min_version: {text}"));
        tls.min_version = own.min_version.parse().map_err(bad)?;
    }
    client_config(&tls)
        .map_err(|e| ConfigError::invalid(origin, format!("client_config.tls_config: {e}")))?;
    Ok(Some(tls))
}

fn spec(
    origin: &str,
    address: &str,
    strict: bool,
    group: bool,
    tls: Option<ClientTlsConfig>,
) -> Result<Spec, ConfigError> {
    let invalid = |text: String| Err(ConfigError::invalid(origin, text));
    let (dns, rest) = match address.split_once('+') {
        Some(("dns", rest)) => (true, rest),
        Some((scheme @ ("dnssrv" | "dnssrvnoa"), _)) => {
            return invalid(format!("{address}: {scheme}+ is not supported, use dns+host:port"));
        }
        _ => (false, address),
    };
    let port = rest.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    if port.is_none_or(|port| port.parse::<u16>().is_err()) {
        return invalid(format!("{address:?} is not host:port"));
    }
    if strict && dns {
        return invalid(format!("{address}: a strict endpoint has a static address"));
    }
    Ok(Spec { address: rest.to_owned(), dns: dns || group, strict, group, tls })
}

fn unique(origin: &str, specs: &[Spec]) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    match specs.iter().find(|s| !seen.insert(&s.address)) {
        Some(double) => {
            Err(ConfigError::invalid(origin, format!("endpoint {} stands twice", double.address)))
        }
        None => Ok(()),
    }
}

/// The addresses behind a spec.
pub(crate) async fn resolve(spec: &Spec) -> std::io::Result<Vec<String>> {
    if !spec.dns {
        return Ok(vec![spec.address.clone()]);
    }
    let found: BTreeSet<String> =
        tokio::net::lookup_host(&spec.address).await?.map(|address| address.to_string()).collect();
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_say_what_is_wrong() {
        let with = |endpoint: &str| Config { endpoints: vec![endpoint.to_owned()], ..Config::default() };
        let ok = from_flags(&with("dns+store.example:10901")).unwrap();
        assert_eq!((ok[0].address.as_str(), ok[0].dns), ("store.example:10901", true));
        for (endpoint, text) in [
            ("store", "--endpoint: \"store\" is not host:port"),
            (":10901", "--endpoint: \":10901\" is not host:port"),
            ("a:99999", "--endpoint: \"a:99999\" is not host:port"),
            (
                "dnssrv+_grpc._tcp.store",
                "--endpoint: dnssrv+_grpc._tcp.store: dnssrv+ is not supported, use dns+host:port",
            ),
        ] {
            assert_eq!(from_flags(&with(endpoint)).unwrap_err().to_string(), text);
        }
        let strict = Config { endpoints_strict: vec!["dns+a:1".into()], ..Config::default() };
        assert!(
            from_flags(&strict).unwrap_err().to_string().contains("a strict endpoint has a static address")
        );
        let twice = Config { endpoints: vec!["a:1".into(), "a:1".into()], ..Config::default() };
        assert!(from_flags(&twice).unwrap_err().to_string().contains("endpoint a:1 stands twice"));
    }

    #[test]
    fn files_are_thanos_s() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("endpoints.yml");
        let config = Config { sd_config_file: Some(path.clone()), ..Config::default() };
        let text = "default_client_config:\n  tls_config:\n    enabled: false\nendpoints:\n- address: a:1\n  strict: true\n\
                    - address: dns+b:2\n- address: c:3\n  group: true\n";
        std::fs::write(&path, text).unwrap();
        let specs = from_file(&config).unwrap();
        assert_eq!(
            specs.iter().map(|s| (s.strict, s.dns, s.group)).collect::<Vec<_>>(),
            [(true, false, false), (false, true, false), (false, true, true)]
        );
        let tls = "default_client_config:\n  tls_config: {enabled: true, insecure_skip_verify: true, min_version: '1.2'}\n\
                   endpoints:\n- address: a:1\n  client_config: {server_name: store.example}\n\
                   - address: b:1\n  client_config: {tls_config: {enabled: false}}\n";
        std::fs::write(&path, tls).unwrap();
        let specs = from_file(&config).unwrap();
        let first = specs[0].tls.as_ref().unwrap();
        assert_eq!((first.server_name.as_deref(), first.skip_verify), (Some("store.example"), true));
        assert_eq!(specs[1].tls, None);
        std::fs::write(
            &path,
            tls.replace("'1.2'", "'1.2', ca_file: /nowhere")
                .replace("insecure_skip_verify: true", "insecure_skip_verify: false"),
        )
        .unwrap();
        let error = from_file(&config).unwrap_err().to_string();
        assert!(error.contains("tls_config: /nowhere"), "{error}");
        std::fs::write(&path, "endpoints:\n- addres: a:1\n").unwrap();
        let error = from_file(&config).unwrap_err().to_string();
        assert!(error.contains("addres") && error.contains("endpoints.yml"), "{error}");
    }
}
