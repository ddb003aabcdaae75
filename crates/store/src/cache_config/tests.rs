use super::*;

#[test]
fn thanos_files_are_read() {
    let text = "type: IN-MEMORY\nconfig:\n  max_size: 10MB\n  max_item_size: 1KB\nenabled_items: [Postings]";
    let c = IndexCacheConfig::parse(text).unwrap();
    let CachePlace::Memory { bytes_max, item_bytes_max } = c.place else { panic!("{c:?}") };
    assert_eq!((bytes_max, item_bytes_max), (10 << 20, 1 << 10));
    assert_eq!(c.items, CachedItems { postings: true, series: false, expanded: false });
    assert_eq!(IndexCacheConfig::parse("type: in-memory").unwrap().items, CachedItems::default());

    let text = "type: MEMCACHED\nttl: 1h\nconfig:\n  addresses: ['dns+b:1', 'a:2']\n  timeout: 300ms\n  \
                max_item_size: 2MiB\n  set_async_circuit_breaker_config: {enabled: true, open_duration: 1s}";
    let c = IndexCacheConfig::parse(text).unwrap();
    let CachePlace::Memcached(o, guard) = c.place else { panic!("{c:?}") };
    assert_eq!(
        (o.addresses, o.ttl),
        (vec!["dns+b:1".to_owned(), "a:2".to_owned()], Duration::from_secs(3600))
    );
    assert_eq!((guard.get_timeout, guard.item_bytes_max), (Duration::from_millis(300), 2 << 20));
    assert_eq!((guard.failures_max, guard.pause), (5, Duration::from_secs(1)));
    assert_eq!((o.auto_discovery, o.lookup_interval), (false, Duration::from_secs(10)));
    let text =
        "type: MEMCACHED\nconfig: {addresses: [a], auto_discovery: true, dns_provider_update_interval: 1m}";
    let CachePlace::Memcached(o, _) = IndexCacheConfig::parse(text).unwrap().place else { panic!() };
    assert_eq!((o.auto_discovery, o.lookup_interval), (true, Duration::from_secs(60)));

    let text = "type: REDIS\nconfig: {addr: 'a:1,b:2', master_name: m, password: p, tls_enabled: yes}\n\
                chunk_subrange_size: 8000\nmetafile_exists_ttl: 2h\nblocks_iter_ttl: 5m\nmetafile_max_size: 1MiB";
    let c = ChunkCacheConfig::parse(text).unwrap();
    assert_eq!(c.options, ChunkCacheOptions { piece_bytes: 8000, requests_max: 3 });
    let CachePlace::Redis(o, guard) = c.place else { panic!("{c:?}") };
    assert_eq!((o.addresses.len(), o.master_name.as_deref(), o.tls), (2, Some("m"), true));
    assert_eq!((o.tls_client, o.tls_server_name), (None, None));
    assert_eq!(guard.get_timeout, Duration::from_secs(3));

    let text = "type: REDIS\nconfig: {addr: 'a:1', tls_enabled: true, tls_config: {ca_file: c, cert_file: x, \
                key_file: y, server_name: n, min_version: '1.2', insecure_skip_verify: true}}";
    let CachePlace::Redis(o, _) = IndexCacheConfig::parse(text).unwrap().place else { panic!() };
    assert_eq!(o.tls_client, Some(("x".into(), "y".into())));
    assert_eq!((o.tls_ca_file, o.tls_server_name.as_deref()), (Some("c".into()), Some("n")));
    assert!(o.tls_insecure);

    let c = ChunkCacheConfig::parse("type: DISK\nconfig: {directory: /cache, max_size: 10GB}").unwrap();
    let CachePlace::Disk(o) = c.place else { panic!("{c:?}") };
    assert_eq!(o.bytes_max, 10 << 30);
}

#[test]
fn what_cannot_be_honoured_is_named() {
    for (text, want) in [
        ("config: {}", "type is missing"),
        ("type: GROUPCACHE", "\"GROUPCACHE\" is not supported"),
        ("type: IN-MEMORY\nconfig: {max_sizes: 1}", "max_sizes"),
        ("type: IN-MEMORY\nconf: {}", "conf"),
        ("type: IN-MEMORY\nenabled_items: [Chunks]", "Chunks"),
        ("type: MEMCACHED", "addresses"),
        ("type: MEMCACHED\nconfig: {addresses: ['dnssrv+a']}", "SRV"),
        ("type: REDIS", "addr"),
        ("type: REDIS\nconfig: {addr: a, tls_config: {cert_file: x}}", "key_file"),
        ("type: REDIS\nconfig: {addr: a, tls_config: {min_version: '1.3'}}", "min_version"),
    ] {
        let err = IndexCacheConfig::parse(text).unwrap_err();
        assert!(err.contains(want), "{text:?}: {err}");
    }
    let err = ChunkCacheConfig::parse("type: IN-MEMORY\nchunk_subrange_size: 0").unwrap_err();
    assert!(err.contains("chunk_subrange_size"), "{err}");
}
