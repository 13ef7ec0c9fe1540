//! Each setting beside what it takes and what it refuses.

use super::*;

/// For each setting, texts that the command line and the environment may give: how the good ones are shown again,
/// and the bad ones.
type Texts<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);
const TEXTS: &[Texts<'_>] = &[
    (
        "server.listen",
        &[
            ("9000", "\":9000\""),
            (":0", "\":0\""),
            ("[::1]:80", "\"[::1]:80\""),
        ],
        &["", "70000", "localhost", "::1:80"],
    ),
    (
        "server.resp_listen",
        &[(":6379", "\":6379\""), ("none", "\"none\"")],
        &["", "70000", "localhost"],
    ),
    (
        "server.shutdown_timeout_ms",
        &[("0", "0"), ("3600000", "3600000")],
        &["-1", "3600001", "10s", "1.5", ""],
    ),
    (
        "cluster.node_id",
        &[("node-1", "\"node-1\""), ("none", "\"none\"")],
        &["", "a b", "-x"],
    ),
    (
        "cluster.peers",
        &[("none", "\"none\""), ("http://a:1,b:2", "\"a:1,b:2\"")],
        &["", "a", "https://a:1"],
    ),
    (
        "cluster.advertise",
        &[("none", "\"none\""), ("http://a:1", "\"a:1\"")],
        &["", ":8080", "a:0"],
    ),
    (
        "cluster.secret_file",
        &[("none", "\"none\""), ("/etc/secret", "\"/etc/secret\"")],
        &[""],
    ),
    (
        "cluster.accepted_secret_file",
        &[("none", "\"none\""), ("/etc/next", "\"/etc/next\"")],
        &[""],
    ),
    (
        "cluster.redirect",
        &[("true", "true"), ("false", "false")],
        &["no"],
    ),
    (
        "cluster.replication_factor",
        &[("1", "1"), ("3", "3"), ("7", "7")],
        &["0", "8", "-1", "three"],
    ),
    (
        "cluster.down_timeout",
        &[("1", "\"1s\""), ("5m", "\"5m\""), ("none", "\"none\"")],
        &["0", "366d", "soon", ""],
    ),
    (
        "cluster.move_rate",
        &[
            ("64KiB", "\"64KiB\""),
            ("1GB", "1000000000"),
            ("none", "\"none\""),
        ],
        &["0", "63KiB", "2TiB", "fast", ""],
    ),
    (
        "cluster.default_consistency",
        &[("ONE", "\"one\""), ("All", "\"all\"")],
        &["two", ""],
    ),
    (
        "cache.max_size_bytes",
        &[
            ("1MiB", "\"1MiB\""),
            ("1048577", "1048577"),
            ("1GB", "1000000000"),
            ("AUTO", "\"auto\""),
        ],
        &["1048575", "1023k", "1025TiB", "none", "-1", "512 MegaBytes"],
    ),
    (
        "cache.max_items",
        &[("1", "1"), ("None", "\"none\"")],
        &["0", "-1", "9223372036854775808", "auto", "3k"],
    ),
    (
        "cache.policy",
        &[
            ("LFU", "\"lfu\""),
            ("ttl", "\"ttl\""),
            ("random", "\"random\""),
        ],
        &["fifo", ""],
    ),
    (
        "cache.cleanup_interval_ms",
        &[("1", "1"), ("60000", "60000")],
        &["0", "60001"],
    ),
    (
        "cache.memory_trigger",
        &[("0.1", "0.1"), ("1", "1.0"), ("0.95", "0.95")],
        &["0", "0.09", "1.01", "NaN", "inf", "90%"],
    ),
    (
        "persistence.enabled",
        &[("true", "true"), ("false", "false")],
        &["yes", "1"],
    ),
    (
        "persistence.dir",
        &[
            ("/var/lib/henge", "\"/var/lib/henge\""),
            ("data", "\"data\""),
        ],
        &[""],
    ),
    (
        "persistence.sync",
        &[("Always", "\"always\""), ("never", "\"never\"")],
        &["everysec"],
    ),
    (
        "persistence.sync_interval_ms",
        &[("10", "10"), ("3600000", "3600000")],
        &["9", "3600001"],
    ),
    (
        "persistence.snapshot_interval",
        &[("10", "\"10s\""), ("60m", "\"1h\""), ("none", "\"none\"")],
        &["9s", "366d", "hourly"],
    ),
    (
        "persistence.encryption",
        &[
            ("none", "\"none\""),
            ("AES-256-GCM", "\"aes-256-gcm\""),
            ("chacha20-poly1305", "\"chacha20-poly1305\""),
        ],
        &["", "aes", "aes-128-gcm", "true"],
    ),
    (
        "persistence.key_file",
        &[("none", "\"none\""), ("/etc/keys", "\"/etc/keys\"")],
        &[""],
    ),
    (
        "security.key_file",
        &[("none", "\"none\""), ("/etc/keys", "\"/etc/keys\"")],
        &[""],
    ),
    (
        "security.protected_mode",
        &[("true", "true"), ("false", "false")],
        &["yes"],
    ),
    (
        "tls.certificate_file",
        &[("none", "\"none\""), ("/etc/chain", "\"/etc/chain\"")],
        &[""],
    ),
    (
        "tls.key_file",
        &[("none", "\"none\""), ("/etc/key", "\"/etc/key\"")],
        &[""],
    ),
    (
        "tls.client_ca_file",
        &[("none", "\"none\""), ("/etc/ca", "\"/etc/ca\"")],
        &[""],
    ),
    (
        "tls.required",
        &[("true", "true"), ("false", "false")],
        &["yes"],
    ),
    (
        "audit.file",
        &[
            ("none", "\"none\""),
            ("/var/log/audit", "\"/var/log/audit\""),
        ],
        &[""],
    ),
    (
        "audit.max_size_bytes",
        &[("64KiB", "\"64KiB\""), ("1GiB", "\"1GiB\"")],
        &["63KiB", "2GiB", "none"],
    ),
    (
        "audit.keep_files",
        &[("1", "1"), ("100", "100")],
        &["0", "101", "none"],
    ),
    (
        "cors.origins",
        &[
            ("none", "\"none\""),
            ("*", "\"*\""),
            ("https://A,http://b:1", "\"https://a,http://b:1\""),
        ],
        &["", "a", "https://a/b"],
    ),
    (
        "cors.methods",
        &[("GET", "\"GET\""), ("GET,PUT", "\"GET, PUT\"")],
        &["", "GET PUT", "GET,"],
    ),
    (
        "cors.headers",
        &[("x-a , x-b", "\"x-a, x-b\"")],
        &["", "x:a"],
    ),
    (
        "cors.credentials",
        &[("true", "true"), ("false", "false")],
        &["yes"],
    ),
    (
        "cors.max_age",
        &[("0", "\"0s\""), ("1d", "\"1d\"")],
        &["2d", "none", "-1"],
    ),
    (
        "compression.algorithm",
        &[("ZSTD", "\"zstd\""), ("none", "\"none\"")],
        &["brotli", "gz"],
    ),
    (
        "compression.threshold_bytes",
        &[("0", "0"), ("4k", "\"4KiB\"")],
        &["1025MiB", "-1"],
    ),
    (
        "compression.level",
        &[("1", "1"), ("19", "19")],
        &["0", "20", "fast"],
    ),
    (
        "limits.max_value_bytes",
        &[("1", "1"), ("1GiB", "\"1GiB\"")],
        &["0", "1073741825"],
    ),
    (
        "limits.max_body_bytes",
        &[("1k", "\"1KiB\""), ("2GiB", "\"2GiB\"")],
        &["1023", "3GiB"],
    ),
    (
        "limits.max_header_bytes",
        &[("8k", "\"8KiB\""), ("128KiB", "\"128KiB\"")],
        &["8191", "129KiB", "none"],
    ),
    (
        "limits.max_inflight_bytes",
        &[("1k", "\"1KiB\""), ("1TiB", "\"1TiB\"")],
        &["1023", "2TiB"],
    ),
    (
        "limits.max_inflight_bytes_per_address",
        &[("1k", "\"1KiB\""), ("none", "\"none\"")],
        &["1023", "2TiB", "all"],
    ),
    (
        "limits.max_batch_items",
        &[("1", "1"), ("1000000", "1000000")],
        &["0", "1000001"],
    ),
    (
        "limits.max_connections",
        &[("1", "1"), ("1000000", "1000000")],
        &["0", "1000001"],
    ),
    (
        "limits.max_connections_per_address",
        &[("1", "1"), ("none", "\"none\"")],
        &["0", "1000001", "many"],
    ),
    (
        "limits.header_timeout_ms",
        &[("1", "1"), ("3600000", "3600000")],
        &["0", "3600001"],
    ),
    (
        "limits.body_timeout_ms",
        &[("1", "1"), ("3600000", "3600000")],
        &["0", "3600001"],
    ),
    (
        "limits.write_timeout_ms",
        &[("1", "1"), ("3600000", "3600000")],
        &["0", "3600001"],
    ),
    (
        "limits.idle_timeout_ms",
        &[("1", "1"), ("86400000", "86400000")],
        &["0", "86400001"],
    ),
    (
        "rate_limits.key_requests_per_second",
        &[("1", "1"), ("none", "\"none\"")],
        &["0", "10000001", "fast"],
    ),
    (
        "rate_limits.key_bytes_per_second",
        &[("1KiB", "\"1KiB\""), ("none", "\"none\"")],
        &["1023", "2TiB"],
    ),
    (
        "rate_limits.address_requests_per_second",
        &[("10000000", "10000000")],
        &["0", "10000001"],
    ),
    (
        "rate_limits.address_bytes_per_second",
        &[("64GiB", "\"64GiB\"")],
        &["1023", "65GiB"],
    ),
    (
        "rate_limits.node_requests_per_second",
        &[("1", "1"), ("none", "\"none\"")],
        &["0", "10000001"],
    ),
    (
        "rate_limits.node_bytes_per_second",
        &[("16MiB", "\"16MiB\"")],
        &["1023", "2TiB"],
    ),
    (
        "rate_limits.burst_ms",
        &[("1", "1"), ("3600000", "3600000")],
        &["0", "3600001"],
    ),
    (
        "rate_limits.exempt_health",
        &[("true", "true"), ("false", "false")],
        &["yes"],
    ),
    (
        "rate_limits.exempt_metrics",
        &[("true", "true"), ("false", "false")],
        &["yes"],
    ),
    (
        "insight.enabled",
        &[("true", "true"), ("false", "false")],
        &["on"],
    ),
    (
        "tracing.endpoint",
        &[
            ("none", "\"none\""),
            (
                "http://127.0.0.1:4318",
                "\"http://127.0.0.1:4318/v1/traces\"",
            ),
        ],
        &["https://127.0.0.1:4318/v1/traces", "127.0.0.1:4318", ""],
    ),
    (
        "tracing.sample_ratio",
        &[("0", "0.0"), ("1", "1.0"), ("0.25", "0.25")],
        &["-0.1", "1.1", "NaN", "5%"],
    ),
    (
        "log.level",
        &[("Warn", "\"warn\""), ("trace", "\"trace\"")],
        &["warning", "off"],
    ),
    ("log.format", &[("JSON", "\"json\"")], &["logfmt"]),
];

#[test]
fn every_setting_takes_the_good_and_refuses_the_bad() {
    let names: Vec<_> = TEXTS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(
        names,
        SETTINGS.iter().map(Setting::name).collect::<Vec<_>>(),
        "the table covers every setting"
    );

    for (name, good, bad) in TEXTS {
        let setting = Setting::find(name).expect("the table names settings");
        let mut config = Config::default();
        for (text, shown) in *good {
            let assigned = setting.assign(&mut config, &Literal::Untyped((*text).to_owned()));
            assert_eq!(assigned, Ok(()), "{name} = {text}");
            assert_eq!(setting.value(&config).render(), *shown);
        }
        for text in *bad {
            let before = config.clone();
            let error = setting
                .assign(&mut config, &Literal::Untyped((*text).to_owned()))
                .expect_err("the table says that this is refused");
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("{name}: found {text:?}, expected ")),
                "{error}"
            );
            assert_eq!(config, before, "a refused value changes nothing");
        }
    }
}

#[test]
fn a_file_must_give_the_right_type() {
    // Setting, what a file says, and whether that is taken.
    let cases = [
        ("server.listen", Literal::Integer(8080), true),
        ("server.listen", Literal::Integer(65536), false),
        ("cache.max_items", Literal::Integer(3), true),
        ("cache.max_items", Literal::Text("3".to_owned()), false),
        ("cache.max_items", Literal::Float(3.0), false),
        ("cache.max_items", Literal::Integer(-1), false),
        ("cache.max_size_bytes", Literal::Integer(1 << 30), true),
        (
            "cache.max_size_bytes",
            Literal::Text("1GiB".to_owned()),
            true,
        ),
        ("cache.max_size_bytes", Literal::Boolean(true), false),
        ("cache.memory_trigger", Literal::Float(0.5), true),
        ("cache.memory_trigger", Literal::Integer(1), true),
        (
            "cache.memory_trigger",
            Literal::Text("0.5".to_owned()),
            false,
        ),
        ("cache.policy", Literal::Other("an array"), false),
        ("cluster.node_id", Literal::Integer(1), false),
    ];
    for (name, literal, taken) in cases {
        let setting = Setting::find(name).expect("the table names settings");
        assert_eq!(
            setting.assign(&mut Config::default(), &literal).is_ok(),
            taken,
            "{name} = {literal:?}"
        );
    }
}

#[test]
fn defaults_are_valid_and_read_back() {
    let config = Config::default();
    for setting in SETTINGS {
        let mut copy = Config::default();
        assert_eq!(setting.assign(&mut copy, &setting.value(&config)), Ok(()));
        assert_eq!(copy, config, "{}", setting.name());
    }
    assert_eq!(config.compression.threshold_bytes.as_u64(), 1024);
    assert_eq!(config.compression.level, 6);
    assert_eq!(config.limits.max_value_bytes.as_usize(), 64 * 1024 * 1024);
    assert_eq!(config.server.listen.to_string(), ":8080");
}

#[test]
fn errors_suggest_a_near_word() {
    let mut config = Config::default();
    let policy = Setting::find("cache.policy").expect("it is defined above");
    let error = policy
        .assign(&mut config, &Literal::Text("lruu".to_owned()))
        .expect_err("no such policy");
    assert_eq!(
        error.to_string(),
        "cache.policy: found the text \"lruu\", expected one of lru, lfu, ttl, random, s3fifo, sieve, wtinylfu; did you mean \"lru\"?"
    );
}
