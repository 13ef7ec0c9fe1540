//! What one node shows of its cluster, by its routes and by `henge cluster status`: a node by itself, and one that waits for others.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Instant;

use henge::Node;

use crate::client::{Client, DEADLINE, config, node};

fn status(address: SocketAddr, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_henge"))
        .args(["cluster", "status", "--url"])
        .arg(format!("http://{address}"))
        .args(more)
        .env_clear()
        .output()
        .expect("the binary of this build runs")
}

/// A node called n1 that is up: it answers a moment before that, as the only member there is.
fn node_that_is_up() -> Node {
    let node = node(&[("cluster.node_id", "n1")]);
    let mut client = Client::connect(node.local_addr());
    let deadline = Instant::now() + DEADLINE;
    loop {
        let page = client.get("/cluster/status").json();
        if page["members"][0]["state"] == "up" {
            return node;
        }
        assert!(Instant::now() < deadline, "{page}");
        std::thread::yield_now();
    }
}

#[test]
fn a_node_by_itself_has_all_partitions() {
    let node = node_that_is_up();
    let mut client = Client::connect(node.local_addr());
    let page = client.get("/cluster/status").json();
    assert_eq!(page["standing"], "member");
    assert_eq!(page["partitions"]["count"], 1024);
    let owners = page["partitions"]["owners"].as_array().expect("owners");
    assert_eq!((&owners[0][0], &owners[0][1]), (&0.into(), &1023.into()));
    let members = page["members"].as_array().expect("members");
    let me = &members[0];
    assert_eq!(members.len(), 1);
    assert_eq!(owners[0][2], me["id"]);
    for (name, expected) in [
        ("name", serde_json::json!("n1")),
        ("state", "up".into()),
        ("is_me", true.into()),
        ("partitions", 1024.into()),
        ("items", 0.into()),
        ("address", node.local_addr().to_string().into()),
    ] {
        assert_eq!(me[name], expected, "{name}");
    }
    for figure in [
        "bytes",
        "operations_per_second",
        "memory_bytes",
        "queue_bytes",
    ] {
        assert!(me[figure].is_u64(), "{figure}");
    }
    let ready = client.get("/ready");
    assert_eq!(
        (ready.status, &ready.json()["status"]),
        (200, &"ready".into())
    );
    let events = client
        .get("/cluster/events?after=18446744073709551615")
        .json();
    assert!(events["count"].is_u64() && events["events"] == serde_json::json!([]));
    let wrong = client.get("/cluster/events?after=soon");
    assert_eq!(
        (wrong.status, &wrong.json()["code"]),
        (400, &"invalid_query".into())
    );
}

#[test]
fn the_ring_says_where_a_key_is_and_why() {
    let node = node(&[("cluster.node_id", "n1")]);
    let mut client = Client::connect(node.local_addr());
    let page = client
        .get("/cluster/ring?key=%7Buser1000%7D.following")
        .json();
    // By the specification of Redis Cluster.
    assert_eq!(
        (&page["slot"], &page["partition"]),
        (&3443.into(), &215.into())
    );
    assert_eq!(page["hash_tag"], "user1000");
    assert_eq!(page["holder"]["name"], "n1");
    assert_eq!(page["replicas"][0], page["holder"]);
    let why = page["why"].as_str().expect("a sentence");
    let begin = "the CRC16 of its hash tag {user1000} modulo 16384 is the slot 3443, which is in the partition 215 (slot / 16), and that is n1's";
    assert!(why.starts_with(begin), "{why}");
    let page = client.get("/cluster/ring?key_base64=%2Fw%3D%3D").json();
    assert_eq!(
        (&page["key_base64"], &page["hash_tag"]),
        (&"/w==".into(), &().into())
    );
    let page = client.get("/cluster/ring").json();
    let runs = page["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 1);
    assert_eq!(
        (&runs[0]["first_slot"], &runs[0]["last_slot"]),
        (&0.into(), &16383.into())
    );
    for query in ["key=a&key_base64=YQ", "kye=a"] {
        assert_eq!(
            client.get(&format!("/cluster/ring?{query}")).status,
            400,
            "{query}"
        );
    }
}

/// It is a cluster by itself.
#[test]
fn a_node_by_itself_has_settings_of_its_cluster() {
    let node = node(&[("cluster.node_id", "n1"), ("cluster.redirect", "false")]);
    let mut client = Client::connect(node.local_addr());
    let shown = |client: &mut Client| client.get("/cluster/settings").json()["settings"][0].clone();
    let own = shown(&mut client);
    assert_eq!(
        (&own["name"], &own["value"], &own["source"], &own["version"]),
        (
            &"cluster.redirect".into(),
            &"false".into(),
            &"node".into(),
            &().into()
        )
    );
    let path = "/cluster/settings/cluster.redirect";
    let set = client.request("PUT", path, &[("if-none-match", "*")], b"true");
    assert_eq!(set.status, 200, "{}", set.text());
    assert_eq!(shown(&mut client)["source"], "cluster");
    let again = client.request("PUT", path, &[("if-none-match", "*")], b"true");
    assert_eq!((again.status, &*again.code()), (412, "precondition_failed"));
    let tag = set.header("etag").expect("a tag").to_owned();
    let unset = client.request("DELETE", path, &[("if-match", &tag)], b"");
    assert_eq!(unset.status, 204, "{}", unset.text());
    assert_eq!(shown(&mut client), own);
    let wrong = client.request("POST", path, &[], b"true");
    assert_eq!(
        (wrong.status, wrong.header("allow")),
        (405, Some("PUT, DELETE"))
    );
}

/// Nobody listens where its peer should be.
#[test]
fn a_node_that_waits_for_others_says_so() {
    let settings = [
        ("cluster.peers", "http://127.0.0.1:1"),
        ("persistence.enabled", "false"),
    ];
    let node = Node::start(config(&settings)).expect("the node starts");
    let mut client = Client::connect(node.local_addr());
    let ready = client.get("/ready");
    assert_eq!(
        (ready.status, &ready.json()["status"]),
        (503, &"forming".into())
    );
    assert!(ready.json()["waits"].is_array());
    assert_eq!(client.get("/health").status, 200);
    for (method, target, body) in [
        ("GET", "/get?key=a", ""),
        ("DELETE", "/delete?key=a", ""),
        ("GET", "/ttl?key=a", ""),
        ("GET", "/exists?key=a", ""),
        ("POST", "/set", r#"{"key":"a","value":1}"#),
        ("POST", "/get", r#"{"key":"a"}"#),
        ("POST", "/incr", r#"{"key":"a"}"#),
        ("POST", "/expire", r#"{"key":"a","ttl":1}"#),
        ("POST", "/persist", r#"{"key":"a"}"#),
        ("GET", "/cache/a", ""),
        ("PUT", "/cache/a", "value"),
        ("DELETE", "/cache/a", ""),
        ("GET", "/keys", ""),
        ("POST", "/flush", ""),
        ("PUT", "/cluster/settings/cluster.redirect", "true"),
        ("DELETE", "/cluster/settings/cluster.redirect", ""),
    ] {
        let refused = client.request(method, target, &[], body.as_bytes());
        assert_eq!(refused.status, 503, "{method} {target}");
        let problem = refused.json();
        assert_eq!(problem["code"], "not_in_cluster", "{method} {target}");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.ends_with("; nothing was done"), "{detail}");
    }
    let batch = client.post("/mget", r#"{"keys":["a"]}"#);
    assert_eq!(
        batch.json()["results"][0]["error"]["code"],
        "not_in_cluster"
    );
    let page = client.get("/cluster/status").json();
    assert_eq!(
        (&page["standing"], &page["cluster"]),
        (&"forming".into(), &().into())
    );
    let shown = status(node.local_addr(), &[]);
    assert_eq!(shown.status.code(), Some(1));
    let text = String::from_utf8(shown.stdout).expect("it is text");
    assert!(text.starts_with("in no cluster yet\n"), "{text}");
}

#[test]
fn the_command_shows_a_table_or_json() {
    let node = node_that_is_up();
    let shown = status(node.local_addr(), &[]);
    assert!(shown.status.success() && shown.stderr.is_empty());
    let text = String::from_utf8(shown.stdout).expect("it is text");
    let row = text
        .lines()
        .find(|line| line.contains(" n1 "))
        .expect("a row");
    assert!(
        row.starts_with('*') && row.contains(" up ") && row.contains(" 1,024 "),
        "{text}"
    );
    assert!(row.ends_with(&node.local_addr().to_string()), "{text}");
    let shown = status(node.local_addr(), &["--json"]);
    let page: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("it is JSON");
    assert_eq!(page["members"][0]["name"], "n1");
    // Nobody listens there.
    let shown = status(SocketAddr::from(([127, 0, 0, 1], 1)), &[]);
    assert_eq!(shown.status.code(), Some(3));
    let line = String::from_utf8(shown.stderr).expect("it is text");
    assert!(
        line.starts_with("henge: no connection to the node: "),
        "{line}"
    );
    assert!(shown.stdout.is_empty());
}
