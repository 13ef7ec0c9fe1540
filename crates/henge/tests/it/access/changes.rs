//! Keys and roles that come and go while a node, or a cluster, runs: that they hold, and what is refused.

use std::process::Command;

use serde_json::{Value, json};

use super::{made, write_private};
use crate::client::{Client, Response, data_directory};
use crate::cluster::Ring;
use crate::side_by_side::Connection;

/// Waits until a node has taken notice of what the cluster has agreed on.
pub(super) fn await_state(client: &mut Client, admin: &str, name: &str, state: Option<&str>) {
    await_entry(client, admin, "keys", name, |key| {
        key.and_then(|key| key["state"].as_str()) == state
    });
}

/// Waits until the entry of a name in a list of `/admin/keys` is so.
fn await_entry(
    client: &mut Client,
    admin: &str,
    list: &str,
    name: &str,
    is_so: impl Fn(Option<&Value>) -> bool,
) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    loop {
        let page = client.request("GET", "/admin/keys", &[("x-api-key", admin)], b"");
        let page = page.json();
        let mut entries = page[list].as_array().expect("a list").iter();
        let entry = entries.find(|entry| entry["name"] == name);
        if is_so(entry) {
            return;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{name} is still {entry:?}"
        );
        std::thread::yield_now();
    }
}

/// Bodies that make no key, where there is one of the name `web`.
fn keys_that_are_none(mut post: impl FnMut(&Value) -> Response) {
    for (body, code) in [
        (
            json!({"name": "web", "permissions": ["read"]}),
            "api_key_exists",
        ),
        (
            json!({"name": "w b", "permissions": ["read"]}),
            "invalid_configuration",
        ),
        (json!({"name": "x"}), "invalid_configuration"),
        (
            json!({"name": "x", "roles": ["none"]}),
            "invalid_configuration",
        ),
        (
            json!({"name": "x", "permissions": ["read"], "expires": "2026-01-01"}),
            "invalid_configuration",
        ),
        (
            json!({"name": "x", "permissions": ["read"], "hash": "x"}),
            "invalid_configuration",
        ),
        (json!({"name": "x", "more": 1}), "invalid_json"),
        (json!([]), "invalid_json"),
    ] {
        assert_eq!(post(&body).code(), code, "{body}");
    }
}

/// Keys come and go while connections are open, and are there after a restart.
#[test]
fn keys_come_and_go() {
    let folder = data_directory();
    let settings = [
        ("persistence.dir", folder.to_str().expect("text")),
        ("cluster.node_id", "one"),
    ];
    let node = crate::client::node(&settings);
    let mut client = Client::connect(node.local_addr());
    // The first one has to be able to make others.
    let reader = json!({"name": "reader", "permissions": ["read"]}).to_string();
    assert_eq!(
        client.post("/admin/keys", &reader).code(),
        "nobody_administers"
    );
    let late = json!({"name": "a", "permissions": ["admin"], "expires": "2030-01-01"}).to_string();
    assert_eq!(
        client.post("/admin/keys", &late).code(),
        "nobody_administers"
    );
    let boss = json!({"name": "boss", "permissions": ["admin"]}).to_string();
    let made = client.post("/admin/keys", &boss);
    assert_eq!(
        (made.status, made.header("cache-control")),
        (201, Some("no-store"))
    );
    let boss = made.json()["key"].as_str().expect("a key").to_owned();
    await_state(&mut client, &boss, "boss", Some("active"));
    assert_eq!(client.get("/get?key=k").status, 401);
    let key = [("x-api-key", &*boss)];
    let mut post =
        |body: &Value| client.request("POST", "/admin/keys", &key, body.to_string().as_bytes());
    let made = post(&json!({"name": "web", "permissions": ["read"], "prefixes": ["a:"]}));
    let web = made.json()["key"].as_str().expect("a key").to_owned();
    keys_that_are_none(post);
    let mut open = Connection::open(node.local_addr(), 2);
    await_state(&mut client, &boss, "web", Some("active"));
    assert_eq!(open.call(&["AUTH", &web]), b"+OK\r\n");
    assert_eq!(open.call(&["GET", "a:1"]), b"$-1\r\n");
    // A role that is given and taken.
    let role = client.request(
        "PUT",
        "/admin/roles/writer",
        &[("x-api-key", &*boss), ("content-type", "application/json")],
        b"[\"write\"]",
    );
    assert_eq!(role.status, 204);
    let revoked = client.request("DELETE", "/admin/keys/web", &key, b"");
    assert_eq!(revoked.status, 204);
    await_state(&mut client, &boss, "web", Some("revoked"));
    assert!(open.call(&["GET", "a:1"]).starts_with(b"-NOAUTH"));
    for (path, code) in [
        ("/admin/keys/boss", "nobody_administers"),
        ("/admin/keys/none", "api_key_not_found"),
        ("/admin/keys/boss?forget=true", "api_key_exists"),
        ("/admin/roles/none", "role_not_found"),
    ] {
        assert_eq!(
            client.request("DELETE", path, &key, b"").code(),
            code,
            "{path}"
        );
    }
    drop(client);
    assert!(node.shutdown());
    let node = crate::client::node(&settings);
    let mut client = Client::connect(node.local_addr());
    assert_eq!(
        client.get("/get?key=k").status,
        401,
        "before anything was heard of the cluster"
    );
    let page = client.request("GET", "/admin/keys", &key, b"").json();
    let names: Vec<&str> = page["keys"]
        .as_array()
        .expect("keys")
        .iter()
        .filter_map(|key| key["name"].as_str())
        .collect();
    assert_eq!(names, ["boss", "web"]);
    assert_eq!(page["roles"][0]["name"], "writer");
    let forgotten = client.request("DELETE", "/admin/keys/web?forget=true", &key, b"");
    assert_eq!(forgotten.status, 204);
    await_state(&mut client, &boss, "web", None);
    assert!(!page.to_string().contains("hs256"), "{page}");
    let events = client.request("GET", "/cluster/events", &key, b"").text();
    assert!(
        events.contains("the cluster has forgotten an API key"),
        "{events}"
    );
    // Who may only read hears of it, and neither of names nor of hashes.
    assert!(!events.contains("web"), "{events}");
    assert!(!events.contains("hs256"), "{events}");
}

/// A role is not taken from who has it, and a certificate is one key's.
#[test]
fn what_others_have_is_refused() {
    let node = crate::client::node(&[]);
    let mut client = Client::connect(node.local_addr());
    let boss = json!({"name": "boss", "permissions": ["admin"]}).to_string();
    let boss = client.post("/admin/keys", &boss).json();
    let boss = boss["key"].as_str().expect("a key").to_owned();
    await_state(&mut client, &boss, "boss", Some("active"));
    let header = [("x-api-key", &*boss), ("content-type", "application/json")];
    let set = client.request("PUT", "/admin/roles/writer", &header, b"[\"write\"]");
    assert_eq!(set.status, 204);
    await_entry(&mut client, &boss, "roles", "writer", |role| role.is_some());
    let post = |client: &mut Client, name: &str| {
        let key = json!({"name": name, "roles": ["writer"], "certificate": "c.example"});
        client.request("POST", "/admin/keys", &header, key.to_string().as_bytes())
    };
    assert_eq!(post(&mut client, "scribe").status, 201);
    await_state(&mut client, &boss, "scribe", Some("active"));
    let twin = post(&mut client, "twin");
    let unset = client.request("DELETE", "/admin/roles/writer", &header, b"");
    for (refused, code, why) in [
        (
            twin,
            "api_key_exists",
            "scribe has the certificate name c.example already",
        ),
        (unset, "role_in_use", "scribe has the role writer"),
    ] {
        assert_eq!(refused.code(), code);
        assert!(refused.text().contains(why), "{}", refused.text());
    }
    let revoked = client.request("DELETE", "/admin/keys/scribe", &header, b"");
    assert_eq!(revoked.status, 204);
    await_state(&mut client, &boss, "scribe", Some("revoked"));
    let unset = client.request("DELETE", "/admin/roles/writer", &header, b"");
    assert_eq!(unset.status, 204);
}

/// A key that was given where none belongs is not shown to whoever reads the errors.
#[test]
fn no_error_shows_a_key() {
    let (boss, entry) = made(&["boss", "--permissions=read,write,admin"]);
    let path = data_directory().join("keys.toml");
    write_private(&path, &entry);
    let node = crate::client::node(&[("security.key_file", path.to_str().expect("text"))]);
    let mut client = Client::connect(node.local_addr());
    let header = [("x-api-key", &*boss), ("content-type", "application/json")];
    let body = format!("[\"{boss}\"]");
    for (method, target, body) in [
        ("GET", format!("/{boss}"), ""),
        ("DELETE", format!("/admin/keys/{boss}"), ""),
        ("DELETE", format!("/admin/roles/{boss}"), ""),
        ("PUT", format!("/admin/roles/{boss}"), "[\"read\"]"),
        ("PUT", "/admin/roles/r".to_owned(), &*body),
        ("PUT", format!("/cluster/settings/{boss}"), "1"),
        ("POST", "/admin/keys".to_owned(), &body),
        ("POST", format!("/cluster/drain/{boss}"), ""),
    ] {
        let answer = client.request(method, &target, &header, body.as_bytes());
        assert!((400..500).contains(&answer.status), "{method} {target}");
        assert!(!answer.text().contains(&boss), "{}", answer.text());
    }
    let mut resp = Connection::open(node.local_addr(), 2);
    assert_eq!(resp.call(&["AUTH", &boss]), b"+OK\r\n");
    for words in [
        &["ATUH", &*boss][..],
        &[&boss],
        &["CONFIG", &boss],
        &["CLIENT", &boss],
    ] {
        let answer = resp.call(words);
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with('-') && !answer.contains(&boss),
            "{answer}"
        );
    }
}

/// However many roles there are, a key of a key file can be revoked.
#[test]
fn roles_leave_room_for_what_is_revoked() {
    let (boss, entry) = made(&["boss", "--permissions=read,write,admin"]);
    let (_, web) = made(&["web", "--permissions=read"]);
    let path = data_directory().join("keys.toml");
    write_private(&path, &(entry + &web));
    let node = crate::client::node(&[("security.key_file", path.to_str().expect("text"))]);
    let mut client = Client::connect(node.local_addr());
    let header = [("x-api-key", &*boss), ("content-type", "application/json")];
    let mut roles = 0;
    let refused = loop {
        let path = format!("/admin/roles/role{roles}");
        let answer = client.request("PUT", &path, &header, b"[\"read\"]");
        if answer.status != 204 {
            break answer;
        }
        roles += 1;
        assert!(roles < 1_000, "it has no bound");
    };
    assert_eq!(refused.code(), "invalid_configuration");
    let revoked = client.request("DELETE", "/admin/keys/web", &header, b"");
    assert_eq!(revoked.status, 204);
}

/// Who is connected may not take the key file away in which alone somebody may administer.
#[test]
fn nobody_is_locked_out_by_a_setting() {
    let (boss, entry) = made(&["boss", "--permissions=read,write,admin"]);
    let path = data_directory().join("keys.toml");
    write_private(&path, &entry);
    let path = path.to_str().expect("text");
    let node = crate::client::node(&[("security.key_file", path)]);
    let mut client = Client::connect(node.local_addr());
    let header = [("x-api-key", &*boss), ("content-type", "application/json")];
    let web = json!({"name": "web", "permissions": ["read"]}).to_string();
    let added = client.request("POST", "/admin/keys", &header, web.as_bytes());
    assert_eq!(added.status, 201);
    await_state(&mut client, &boss, "web", Some("active"));
    let mut resp = Connection::open(node.local_addr(), 2);
    assert_eq!(resp.call(&["AUTH", &boss]), b"+OK\r\n");
    let refused = resp.call(&["CONFIG", "SET", "security.key_file", "none"]);
    let refused = String::from_utf8_lossy(&refused);
    assert!(
        refused.contains("would have the permission admin"),
        "{refused}"
    );
    let shown = client.request("GET", "/admin/keys", &header, b"");
    assert_eq!(shown.status, 200);
}

/// What a cluster has agreed on holds on each of its nodes, whichever of them has the key that is asked for.
#[test]
fn keys_reach_every_node() {
    let ring = Ring::new().formed(3);
    let mut client = ring.http(1);
    let boss = json!({"name": "boss", "permissions": ["read", "write", "admin"]}).to_string();
    let boss = client.post("/admin/keys", &boss).json();
    let boss = boss["key"].as_str().expect("a key").to_owned();
    let web =
        json!({"name": "web", "permissions": ["read", "write"], "prefixes": ["app:"]}).to_string();
    let header = [("x-api-key", &*boss)];
    await_state(&mut client, &boss, "boss", Some("active"));
    let web = client
        .request("POST", "/admin/keys", &header, web.as_bytes())
        .json();
    let web = web["key"].as_str().expect("a key").to_owned();
    for n in 1..=3 {
        await_state(&mut ring.http(n), &boss, "web", Some("active"));
        let mut client = ring.http(n);
        let mut connection = Connection::open(ring.address(n), 2);
        assert_eq!(client.get("/get?key=app:1").status, 401);
        assert!(connection.call(&["GET", "app:1"]).starts_with(b"-NOAUTH"));
        assert_eq!(connection.call(&["AUTH", "web", &web]), b"+OK\r\n");
        // Some of these are here and some elsewhere.
        for key in 0..30 {
            let (inside, outside) = (format!("app:{key}"), format!("other:{key}"));
            assert_eq!(connection.call(&["SET", &inside, "v"]), b"+OK\r\n");
            assert!(connection.call(&["GET", &outside]).starts_with(b"-NOPERM"));
            let answer = client.request(
                "GET",
                &format!("/get?key={inside}"),
                &[("x-api-key", &web)],
                b"",
            );
            assert_eq!(answer.status, 200, "{}", answer.text());
            let answer = client.request(
                "GET",
                &format!("/get?key={outside}"),
                &[("x-api-key", &web)],
                b"",
            );
            assert_eq!(answer.status, 403, "{}", answer.text());
        }
        let listed = connection.call(&["KEYS", "app:*"]);
        assert!(listed.starts_with(b"*30\r\n"), "{}", listed.escape_ascii());
    }
    // The program asks with a key of its environment, and says what a node says that it does not know.
    let url = format!("http://{}", ring.address(2));
    let run = |key: Option<&str>, words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_henge"));
        command
            .args(words)
            .args(["--url", &url])
            .env_remove("HENGE_API_KEY");
        let done = command.envs(key.map(|key| ("HENGE_API_KEY", key))).output();
        let done = done.expect("the program runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    };
    assert_eq!(
        run(Some(&web), &["get", "app:7"]),
        (Some(0), "v".to_owned(), String::new())
    );
    let (code, _, error) = run(None, &["get", "app:7"]);
    assert!(
        code == Some(3) && error.contains("unauthenticated"),
        "{code:?}: {error}"
    );
    let (code, _, error) = run(Some(&web), &["key", "list"]);
    assert!(
        code == Some(3) && error.contains("403"),
        "{code:?}: {error}"
    );
    let (code, list, _) = run(Some(&boss), &["key", "list"]);
    assert!(
        code == Some(0) && list.contains("app:") && !list.contains("hs256"),
        "{list}"
    );
    let (code, _, error) = run(Some("not a key"), &["cluster", "status"]);
    assert!(code == Some(3) && !error.contains("not a key"), "{error}");
    let (code, said, _) = run(Some(&boss), &["key", "revoke", "web"]);
    assert_eq!(
        (code, said.as_str()),
        (Some(0), "web is revoked in the whole cluster\n")
    );
    for n in 1..=3 {
        await_state(&mut ring.http(n), &boss, "web", Some("revoked"));
        let answer = ring
            .http(n)
            .request("GET", "/get?key=app:1", &[("x-api-key", &web)], b"");
        assert_eq!(answer.status, 401);
    }
}
