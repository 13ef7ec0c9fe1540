//! The routes that show the node: health, figures, metrics, and the description of the interface.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Instant;

use crate::client::{Client, DEADLINE, Process, node};
use crate::side_by_side::Connection;

#[test]
fn pages_say_what_they_must() {
    let node = node(&[("cluster.node_id", "n1")]);
    let mut client = Client::connect(node.local_addr());
    client.post("/set", r#"{"key":"a","value":1}"#);
    client.get("/get?key=a");
    client.get("/get?key=b");
    // It answers before it has agreed with itself that it is up.
    let deadline = Instant::now() + DEADLINE;
    while client.get("/cluster/status").json()["members"][0]["state"] != "up" {
        assert!(Instant::now() < deadline, "it is never up");
        thread::yield_now();
    }
    // A page, and members of it.
    for (target, members) in [
        (
            "/health",
            &[
                ("/status", serde_json::json!("ok")),
                ("/node_id", "n1".into()),
            ][..],
        ),
        ("/ready", &[("/status", "ready".into())]),
        (
            "/version",
            &[
                ("/name", "henge".into()),
                ("/version", env!("CARGO_PKG_VERSION").into()),
            ],
        ),
        (
            "/cluster/status",
            &[
                ("/partitions/count", 1024.into()),
                ("/replication_factor", 3.into()),
                ("/nodes/0/id", "n1".into()),
                ("/members/0/state", "up".into()),
            ],
        ),
        (
            "/stats",
            &[
                ("/items", 1.into()),
                ("/hits", 1.into()),
                ("/misses", 1.into()),
                ("/hit_ratio", 0.5.into()),
                ("/requests/get", 2.into()),
                ("/policy", "lru".into()),
            ],
        ),
        (
            "/metrics/json",
            &[
                ("/node_id", "n1".into()),
                ("/routes/get/by_status/404", 1.into()),
            ],
        ),
    ] {
        let page = client.get(target);
        assert_eq!(page.status, 200, "{target}");
        assert_eq!(
            client.request("HEAD", target, &[], b"").status,
            200,
            "{target}"
        );
        let page = page.json();
        for (pointer, value) in members {
            assert_eq!(page.pointer(pointer), Some(value), "{target}: {page}");
        }
    }
    let page = client.get("/metrics/json").json();
    let latency = &page["routes"]["get"]["latency_seconds"];
    assert!(
        latency["p50"].as_f64() > Some(0.0) && latency["p999"].as_f64() >= latency["p50"].as_f64()
    );
}

/// What is in memory is for something, and threads say how busy they were.
#[test]
fn memory_and_threads_are_accounted_for() {
    let process = Process::start(Process::command(&[
        "--set=limits.max_connections=77",
        "--set=compression.algorithm=none",
    ]));
    let mut client = Client::connect(process.address);
    let value = "v".repeat(4096);
    for key in 0..200 {
        client.post("/set", &format!(r#"{{"key":"k{key}","value":"{value}"}}"#));
    }
    let busy = |page: &serde_json::Value| {
        let threads = page["threads"].as_object().expect("threads").values();
        let busy = threads.map(|thread| thread["busy_seconds"].as_f64().expect("seconds"));
        busy.sum::<f64>()
    };
    let page = client.get("/metrics/json").json();
    let uses = page["memory"]["by_use"].as_object().expect("uses");
    let bytes = |name: &str| uses[name].as_u64().expect("bytes");
    assert!(bytes("items") >= 200 * 4096, "{uses:?}");
    let all: u64 = uses.values().filter_map(serde_json::Value::as_u64).sum();
    let resident = page["allocator"]["resident_bytes"].as_u64().expect("bytes");
    // Both were read in one page, but not at one moment.
    assert!(
        all.abs_diff(resident) <= resident / 4,
        "{all} of {resident}: {uses:?}"
    );
    assert_eq!(page["connections"]["limit"], 77);
    assert!(page["process"]["open_files_limit"].as_u64() > Some(77));
    assert_eq!(page["security"]["audit_lost"], 0);
    assert_eq!(
        page["security"]["certificate_expires_at_seconds"],
        serde_json::Value::Null
    );
    let none = serde_json::json!({});
    assert_eq!(page["answers"], none, "it waits for no other node");
    assert_eq!(page.pointer("/replication/peers"), Some(&none));
    let threads = page["threads"].as_object().expect("threads").len();
    assert_eq!(page["process"]["data_threads"], threads);
    let deadline = Instant::now() + DEADLINE;
    loop {
        let now = client.get("/metrics/json").json();
        let looks =
            |thread: &serde_json::Value| thread["delay_seconds"]["count"].as_u64() > Some(1);
        if busy(&now) > busy(&page)
            && now["threads"]
                .as_object()
                .expect("threads")
                .values()
                .all(looks)
        {
            break;
        }
        assert!(Instant::now() < deadline, "it says nothing more: {now}");
    }
}

/// What is built in a checkout says of which commit.
#[test]
fn the_version_says_which_commit() {
    let git = |arguments: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = command.args(arguments).output().ok()?;
        let said = output.status.success().then_some(output.stdout)?;
        Some(String::from_utf8_lossy(&said).into_owned())
    };
    let node = node(&[]);
    let version = Client::connect(node.local_addr()).get("/version").json();
    // Sources without git, or unpacked within something else's, say nothing of a commit.
    if git(&["ls-files", "--error-unmatch", "Cargo.toml"]).is_some()
        && let Some(head) = git(&["rev-parse", "HEAD"])
    {
        let commit = version["commit"].as_str().expect("a commit");
        // A build may be told what to say.
        assert!(
            head.starts_with(commit) || std::env::var_os("HENGE_COMMIT").is_some(),
            "{commit} is not {head}"
        );
    }
}

/// One metric of the exposition.
#[derive(Default)]
struct Family {
    kind: String,
    help: bool,
    samples: Vec<(String, String, f64)>,
}

/// A strict reader of the text format: every sample under its own header, no name or series twice.
fn read(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut series = BTreeSet::new();
    let mut ended = false;
    for line in text.lines() {
        assert!(!ended, "after the end: {line}");
        if line == "# EOF" {
            ended = true;
        } else if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let mut word = || words.next().expect("three words").to_owned();
            let (what, name, rest) = (word(), word(), word());
            if name != current {
                assert!(!families.contains_key(&name), "{name} comes twice");
                current.clone_from(&name);
            }
            let family = families.entry(name).or_default();
            match &*what {
                "HELP" => family.help = !rest.is_empty(),
                "TYPE" => family.kind = rest,
                "UNIT" => assert!(current.ends_with(&format!("_{rest}")), "{line}"),
                _ => panic!("{line}"),
            }
        } else {
            let (name_and_labels, value) = line.rsplit_once(' ').expect("a value");
            assert!(series.insert(name_and_labels.to_owned()), "twice: {line}");
            let (name, labels) = name_and_labels
                .split_once('{')
                .unwrap_or((name_and_labels, "}"));
            let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(legal), "{line}");
            assert!(labels.ends_with('}'), "{line}");
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            let suffix = name
                .strip_prefix(&*current)
                .unwrap_or_else(|| panic!("{line} stands under {current}"));
            let family = families.get_mut(&current).expect("a header came first");
            family.samples.push((
                suffix.to_owned(),
                labels.trim_end_matches('}').to_owned(),
                value,
            ));
        }
    }
    assert!(ended, "it does not end");
    families
}

#[test]
fn prometheus_can_read_the_metrics() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    client.post("/set", r#"{"key":"a","value":1}"#);
    for _ in 0..10 {
        client.get("/get?key=a");
    }
    client.get("/nonsense");
    // As Prometheus asks.
    let accept =
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    let page = client.request("GET", "/metrics", &[("accept", accept)], b"");
    let content_type = page.header("content-type").expect("a type");
    assert!(
        content_type.starts_with("application/openmetrics-text; version=1.0.0"),
        "{content_type}"
    );
    let families = read(&page.text());
    for (name, family) in &families {
        assert!(name.starts_with("henge_"), "{name}");
        assert!(family.help, "{name}");
        for (suffix, labels, value) in &family.samples {
            let expected: &[&str] = match &*family.kind {
                "counter" => &["_total"],
                "gauge" => &[""],
                "info" => &["_info"],
                "histogram" => &["_sum", "_count", "_bucket"],
                other => panic!("{name}: {other}"),
            };
            assert!(expected.contains(&&**suffix), "{name}{suffix}{{{labels}}}");
            assert!(value.is_finite() && *value >= 0.0, "{name}: {value}");
        }
    }
    let sample = |name: &str, label: &str| {
        let samples = families.get(name).map_or(&[][..], |family| &family.samples);
        samples
            .iter()
            .find(|sample| sample.1.contains(label))
            .map(|sample| sample.2)
    };
    assert_eq!(
        sample("henge_requests", r#"route="get",class="read",status="200""#),
        Some(10.0)
    );
    assert_eq!(sample("henge_requests", r#"route="unrouted""#), Some(1.0));
    assert_eq!(sample("henge_hits", ""), Some(10.0));
    for name in [
        "henge_misses",
        "henge_sets",
        "henge_deletes",
        "henge_evictions",
        "henge_expirations",
        "henge_items",
        "henge_charged_bytes",
        "henge_limit_bytes",
        "henge_compression_in_bytes",
        "henge_compression_out_bytes",
        "henge_rss_bytes",
        "henge_uptime_seconds",
        "henge_build",
        "henge_open_connections",
        "henge_cpu_seconds",
        "henge_threads",
        "henge_live_tasks",
        "henge_open_files",
        "henge_sweeps",
        "henge_purges",
        "henge_cluster_members",
        "henge_cluster_events",
        "henge_lost_entries",
        "henge_moved_partitions",
        "henge_copies_sent_bytes",
        "henge_dropped_datagrams",
        "henge_partitions_to_move",
        "henge_replicas_to_align",
        "henge_unknown_losses",
        "henge_control_leader",
        "henge_epoch",
        "henge_forwarded",
        "henge_in_cluster",
        "henge_partitions",
    ] {
        assert!(families.contains_key(name), "{name} is missing");
    }
    let buckets = &families["henge_request_duration_seconds"].samples;
    let of_get: Vec<_> = buckets
        .iter()
        .filter(|sample| sample.1.contains(r#"route="get""#))
        .collect();
    let counts: Vec<f64> = of_get
        .iter()
        .filter(|s| s.0 == "_bucket")
        .map(|s| s.2)
        .collect();
    assert!(counts.is_sorted() && counts.len() > 20, "{counts:?}");
    let last = of_get.iter().rfind(|s| s.0 == "_bucket").expect("buckets");
    assert!(last.1.contains(r#"le="+Inf""#), "{}", last.1);
    let count = of_get.iter().find(|s| s.0 == "_count").map(|s| s.2);
    assert_eq!(count, counts.last().copied());
    assert_eq!(count, Some(10.0));
}

/// The older format has the same series, each under a header of its own whole name.
#[test]
fn who_asks_for_no_format_is_answered_in_the_older_one() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    client.get("/get?key=a");
    let page = client.get("/metrics");
    let content_type = page.header("content-type").expect("a type");
    assert!(
        content_type.starts_with("text/plain; version=0.0.4"),
        "{content_type}"
    );
    let (mut kinds, mut series) = (BTreeMap::new(), BTreeSet::new());
    for line in page.text().lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "TYPE", name, kind] => {
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none());
            }
            ["#", "HELP", name, _] => assert!(!kinds.contains_key(name), "{line}"),
            ["#", ..] => panic!("{line}"),
            _ => {
                let name = line.split(['{', ' ']).next().expect("a name");
                let family = ["_bucket", "_sum", "_count"]
                    .iter()
                    .filter_map(|suffix| name.strip_suffix(suffix))
                    .find(|name| kinds.get(*name).is_some_and(|kind| kind == "histogram"));
                assert!(kinds.contains_key(family.unwrap_or(name)), "{line}");
                series.insert(name.to_owned());
            }
        }
    }
    let accept = [("accept", "application/openmetrics-text")];
    let page = client.request("GET", "/metrics", &accept, b"").text();
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let names: BTreeSet<String> = samples
        .filter_map(|line| line.split(['{', ' ']).next().map(str::to_owned))
        .collect();
    assert_eq!(series, names);
}

/// What is shown to people and to Prometheus are the same figures.
#[test]
fn json_has_what_prometheus_has() {
    let node = node(&[("cache.max_items", "2")]);
    let mut client = Client::connect(node.local_addr());
    for key in ["a", "b", "c", "d"] {
        client.post("/set", &format!(r#"{{"key":"{key}","value":1}}"#));
        client.get(&format!("/get?key={key}"));
    }
    let json = client.get("/metrics/json").json();
    let text = client.get("/metrics").text();
    for (series, pointer) in [
        ("henge_hits_total", "/hits"),
        ("henge_sets_total", "/sets"),
        (
            r#"henge_evictions_total{policy="lru",cause="items"}"#,
            "/evictions/items",
        ),
        ("henge_items", "/items"),
        ("henge_limit_items", "/limit_items"),
        ("henge_accepted_connections_total", "/connections/accepted"),
        (
            r#"henge_requests_total{route="get",class="read",status="200"}"#,
            "/routes/get/by_status/200",
        ),
        (
            r#"henge_request_duration_seconds_count{route="set"}"#,
            "/routes/set/latency_seconds/count",
        ),
        ("henge_epoch", "/cluster/epoch"),
        ("henge_log_writable", "/persistence/log/writable"),
    ] {
        let line = text.lines().find_map(|line| {
            line.strip_prefix(series)
                .and_then(|rest| rest.strip_prefix(' '))
        });
        let shown = line.map(|value| value.parse::<f64>().expect("a number"));
        let found = json.pointer(pointer).map(|value| {
            let flag = value.as_bool().map(|holds| f64::from(u8::from(holds)));
            flag.or(value.as_f64()).expect("a figure")
        });
        assert_eq!(shown, found, "{series}");
    }
}

/// What a node by itself has no figure of.
pub(crate) const ONLY_IN_A_CLUSTER: [&str; 7] = [
    "henge_answer_duration_seconds",
    "henge_link_duration_seconds",
    "henge_link_failures_total",
    "henge_replica_lag_entries",
    "henge_replica_lag_seconds",
    "henge_replicas_to_follow",
    "henge_replica_queue_bytes",
];

/// A figure that is in the documentation is shown by a node that has done something.
#[test]
fn every_metric_is_shown() {
    // The program, as the allocator is its own.
    let process = Process::start(Process::command(&["--set=cache.max_items=100"]));
    let mut client = Client::connect(process.address);
    client.request("PUT", "/cache/long", &[], &[b'a'; 4096]);
    let mut connection = Connection::open(process.address, 2);
    assert_eq!(connection.call(&["SET", "k", "text"]), b"+OK\r\n");
    assert!(connection.call(&["INCR", "k"]).starts_with(b"-ERR"));
    let page = client.get("/metrics").text();
    let shown: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let docs = include_str!("../../../../docs/metrics.md");
    let documented = docs
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let is_here = |metric: &&str| {
        // It has no certificate either.
        !ONLY_IN_A_CLUSTER.contains(metric) && !metric.contains("certificate_expiry")
    };
    assert_eq!(shown, documented.filter(is_here).collect());
}
