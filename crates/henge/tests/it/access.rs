//! Who may do what: every command and every route with no key, with wrong ones and with each kind of right, over HTTP and both
//! versions of the Redis protocol. What each needs is written down here once more, by hand, and none may be missing.

mod audit;
mod changes;
mod strangers;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use henge::Node;
use serde_json::Value;

use crate::client::{Client, Response, config, data_directory, node};
use crate::resp_reply::Reply;
use crate::side_by_side::Connection;
use crate::tls::Authority;
use changes::await_state;

/// A row of a table: what is needed, whether it is of all keys or of several in one answer, and what is asked.
struct Row {
    needs: &'static str,
    is_of_all: bool,
    is_batch: bool,
    words: Vec<&'static str>,
}

fn rows(table: &'static str) -> impl Iterator<Item = Row> {
    let lines = table.lines().filter(|line| !line.starts_with("# "));
    lines.map(|line| {
        let mut words: Vec<&str> = line.split(' ').collect();
        let needs = words.remove(0);
        let has = |word: &str| words[0] == word;
        let (is_of_all, is_batch) = (has("all"), has("batch"));
        if is_of_all || is_batch {
            words.remove(0);
        }
        Row {
            needs,
            is_of_all,
            is_batch,
            words,
        }
    })
}

/// Who asks: a key, what it holds, and to which keys of the cache it is confined.
#[derive(Clone, Debug)]
struct Who {
    name: &'static str,
    key: Option<String>,
    /// None of who is not known, and is told nothing.
    holds: Option<&'static [&'static str]>,
    is_confined: bool,
}

/// What is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// It was run, whatever came of it.
    Run,
    /// Who asks is not known.
    Unknown,
    /// Who asks may not.
    Forbidden,
}

impl Who {
    fn verdict(&self, row: &Row, is_in_scope: bool) -> Verdict {
        if row.needs == "open" {
            return Verdict::Run;
        }
        let Some(holds) = self.holds else {
            return Verdict::Unknown;
        };
        let has = |permission| holds.contains(&permission);
        let is_enough = match row.needs {
            "connection" => true,
            "read" | "write" | "admin" => has(row.needs),
            "update" => has("read") && has("write"),
            "observe" => has("read") || has("admin"),
            other => panic!("{other:?} is nothing that can be needed"),
        };
        let names_key = row.words.iter().any(|word| word.contains('@'));
        let names_other = row.words.iter().any(|word| word.contains('#'));
        let is_outside =
            self.is_confined && (row.is_of_all || names_other || names_key && !is_in_scope);
        if is_enough && !is_outside {
            Verdict::Run
        } else {
            Verdict::Forbidden
        }
    }
}

/// Makes a key with the program itself; its text, and its lines for a key file.
pub(crate) fn made(arguments: &[&str]) -> (String, String) {
    let made = Command::new(env!("CARGO_BIN_EXE_henge"))
        .args(["key", "new", "--name"])
        .args(arguments)
        .output()
        .expect("the program runs");
    let text = String::from_utf8(made.stdout).expect("text");
    assert!(
        made.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let key = text.lines().find(|line| line.starts_with("henge_"));
    let entry = text.split_once("[keys.").expect("an entry").1;
    (key.expect("a key").to_owned(), format!("[keys.{entry}\n"))
}

/// Writes a file that is its owner's alone.
pub(crate) fn write_private(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, text).expect("it is written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("it is ours");
}

/// A node with the keys of these, and who they are.
fn everyone() -> (Node, Authority, Vec<Who>) {
    let mut file = String::from("[roles]\nreader = [\"read\"]\n\n");
    let mut all = Vec::new();
    let mut add = |name: &'static str, more: &[&str], holds, is_confined| {
        let (key, entry) = made(&[&[name], more].concat());
        file += &entry;
        all.push(Who {
            name,
            key: Some(key),
            holds,
            is_confined,
        });
    };
    add("read", &["--roles=reader"], Some(&["read"][..]), false);
    add("write", &["--permissions=write"], Some(&["write"]), false);
    add("admin", &["--permissions=admin"], Some(&["admin"]), false);
    add(
        "both",
        &["--permissions=read,write"],
        Some(&["read", "write"]),
        false,
    );
    add(
        "all",
        &["--permissions=read,write,admin"],
        Some(&["read", "write", "admin"]),
        false,
    );
    let confined = [
        "--permissions=read,write",
        "--prefix=app:",
        "--prefix=more:",
    ];
    add("confined", &confined, Some(&["read", "write"]), true);
    add(
        "expired",
        &["--permissions=read,write,admin", "--expires=9999-01-01"],
        None,
        false,
    );
    add("revoked", &["--permissions=read,write,admin"], None, false);
    let wrong = all[0].key.as_deref().map(|key| {
        let last = if key.ends_with('A') { "B" } else { "A" };
        format!("{}{last}", &key[..key.len() - 1])
    });
    for (name, key) in [
        ("nobody", None),
        ("wrong", wrong),
        ("stranger", Some(made(&["x", "--permissions=read"]).0)),
        ("other", Some("password".to_owned())),
    ] {
        all.push(Who {
            name,
            key,
            holds: None,
            is_confined: false,
        });
    }
    // None is made that has expired already.
    file = file.replace("9999-01-01", "2026-01-01");
    let path = data_directory().join("keys.toml");
    write_private(&path, &file);
    let path = path.to_str().expect("text");
    let authority = Authority::new();
    let node = authority.node(&[("security.key_file", path)]);
    let admin = all[4].key.clone().expect("a key");
    let mut client = Client::connect(node.local_addr());
    let key = [("x-api-key", &*admin)];
    let revoked = client.request("DELETE", "/admin/keys/revoked", &key, b"");
    assert_eq!(revoked.status, 204, "{}", revoked.text());
    await_state(&mut client, &admin, "revoked", Some("revoked"));
    (node, authority, all)
}

/// A key of the cache that who is confined may touch, and one that it may not.
const KEYS: [(&str, bool); 2] = [("app:k", true), ("elsewhere", false)];

/// How a client speaks: the version of the protocol, and whether over TLS.
type Speaks = (u8, bool);

#[test]
fn every_command() {
    let (node, authority, all) = everyone();
    let rows: Vec<Row> = rows(include_str!("access/commands.txt")).collect();
    for speaks in [(2, false), (3, false), (2, true), (3, true)] {
        for who in &all {
            let mut open: Option<Connection> = None;
            for (row, (key, is_in_scope)) in rows.iter().flat_map(|row| KEYS.map(|key| (row, key)))
            {
                let connection =
                    open.get_or_insert_with(|| logged_in(&node, &authority, who, speaks));
                let words = row.words.iter();
                let words = words.map(|word| word.replace('@', key).replace('#', "beyond"));
                let words: Vec<String> = words.collect();
                let reply = connection.call(&words);
                assert!(!reply.is_empty(), "{words:?}");
                let found = match &reply {
                    _ if reply.starts_with(b"-NOAUTH ") => Verdict::Unknown,
                    _ if reply.starts_with(b"-NOPERM ") => Verdict::Forbidden,
                    _ => Verdict::Run,
                };
                let expected = who.verdict(row, is_in_scope);
                let shown = reply.escape_ascii();
                assert_eq!(found, expected, "{} {words:?}: {shown}", who.name);
                if row.needs == "open" {
                    // After these the connection is another, or none.
                    open = None;
                }
            }
        }
    }
}

/// A connection that has shown a key, and was told what it had to be told about it.
fn logged_in(
    node: &Node,
    authority: &Authority,
    who: &Who,
    (protocol, is_secure): Speaks,
) -> Connection {
    let mut connection = if is_secure {
        Connection::over(authority.connect(node.local_addr()), 2)
    } else {
        Connection::open(node.local_addr(), 2)
    };
    let Some(key) = &who.key else {
        return connection;
    };
    let answer = match protocol {
        2 => connection.call(&["AUTH", key]),
        _ => connection.call(&["HELLO", "3", "AUTH", "default", key]),
    };
    let begins = match (who.holds, protocol) {
        (None, _) => &b"-WRONGPASS "[..],
        (Some(_), 2) => b"+OK",
        (Some(_), _) => b"%",
    };
    assert!(
        answer.starts_with(begins),
        "{who:?}: {}",
        answer.escape_ascii()
    );
    connection
}

/// A command that is in no row may be called by anybody, for all that the test above knows.
#[test]
fn every_command_has_a_row() {
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr(), 2);
    let table = include_str!("access/commands.txt");
    let rows: Vec<Row> = rows(table).collect();
    let is_covered = |name: &str| {
        let words: Vec<&str> = name.split('|').collect();
        rows.iter().any(|row| {
            row.words.len() >= words.len()
                && row
                    .words
                    .iter()
                    .zip(&words)
                    .all(|(row, word)| row.eq_ignore_ascii_case(word))
        })
    };
    let all = connection.call(&["COMMAND"]);
    let mut names = BTreeSet::new();
    for command in Reply::read(&all).parts() {
        let parts = command.parts();
        names.insert(parts[0].text().to_owned());
        for subcommand in parts[9].parts() {
            names.insert(subcommand.parts()[0].text().to_owned());
        }
    }
    assert!(names.len() > 100, "{names:?}");
    // These two are what logs in, and have tests of their own.
    let missing = names
        .iter()
        .filter(|name| !matches!(name.as_str(), "auth" | "hello"));
    let missing: Vec<&String> = missing.filter(|name| !is_covered(name)).collect();
    assert_eq!(missing, [""; 0]);
}

/// What a request of a row is: method, target and body.
fn request(row: &Row, key: &str) -> (String, String, String) {
    let mut words = row.words.iter().map(|word| word.replace('@', key));
    let mut next = || words.next().unwrap_or_default();
    (next(), next(), next())
}

fn verdict_of(response: &Response) -> Verdict {
    match (response.status, response.header("www-authenticate")) {
        (401, Some("Bearer")) => Verdict::Unknown,
        (401, _) => panic!("a 401 says how one is known"),
        (403, _) => Verdict::Forbidden,
        _ => Verdict::Run,
    }
}

#[test]
fn every_route() {
    let (node, authority, all) = everyone();
    let rows: Vec<Row> = rows(include_str!("access/routes.txt")).collect();
    let mut plain = Client::connect(node.local_addr());
    let mut secure = Client::over(authority.connect(node.local_addr()));
    for (who, is_secure) in all.iter().flat_map(|who| [(who, false), (who, true)]) {
        let client = if is_secure { &mut secure } else { &mut plain };
        for (row, (key, is_in_scope)) in rows.iter().flat_map(|row| KEYS.map(|key| (row, key))) {
            let (method, target, body) = request(row, key);
            for header in ["x-api-key", "authorization"] {
                let text = who.key.clone().map(|key| match header {
                    "authorization" => format!("Bearer {key}"),
                    _ => key,
                });
                let kind = [("content-type", "application/json")];
                let key = text.iter().map(|text| (header, text.as_str()));
                let headers: Vec<(&str, &str)> = kind.into_iter().chain(key).collect();
                let answer = client.request(&method, &target, &headers, body.as_bytes());
                let mut expected = who.verdict(row, is_in_scope);
                if row.is_batch && expected == Verdict::Forbidden && who.is_confined {
                    // Each key of a batch has an answer of its own.
                    let results = answer.json()["results"].clone();
                    let results = results.as_array().expect("results");
                    let forbidden = |result: &Value| result["error"]["code"] == "forbidden";
                    assert!(results.iter().all(forbidden), "{results:?}");
                    expected = Verdict::Run;
                }
                let shown = answer.text();
                assert_eq!(
                    verdict_of(&answer),
                    expected,
                    "{} {method} {target}: {shown}",
                    who.name
                );
                if expected != Verdict::Run && method != "HEAD" {
                    assert!(
                        !shown.contains("app:") && !shown.contains("henge_"),
                        "{shown}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_route_has_a_row() {
    let node = node(&[]);
    let document = Client::connect(node.local_addr())
        .get("/openapi.json")
        .json();
    let rows: Vec<Row> = rows(include_str!("access/routes.txt")).collect();
    let mut missing = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            let begin = path.split('{').next().unwrap_or_default();
            let is_it = |row: &&Row| {
                let target = row.words[1].split('?').next().unwrap_or_default();
                row.words[0].eq_ignore_ascii_case(method)
                    && if begin == path {
                        target == begin
                    } else {
                        target.starts_with(begin)
                    }
            };
            if !rows.iter().any(|row| is_it(&row)) {
                missing.insert(path, method);
            }
        }
    }
    assert_eq!(missing, BTreeMap::new());
}

/// What was proved on a connection holds for its next commands, until it is reset or says who else it is.
#[test]
fn a_connection_says_who_it_is() {
    let (node, _authority, all) = everyone();
    let key = |name: &str| {
        let who = all.iter().find(|who| who.name == name);
        who.and_then(|who| who.key.clone()).expect("it is there")
    };
    let mut connection = Connection::open(node.local_addr(), 2);
    let (read, write) = (key("read"), key("write"));
    for (words, begins) in [
        (&["HELLO", "3"][..], "-NOAUTH HELLO must be called"),
        (&["NONESUCH"], "-NOAUTH "),
        (&["GET"], "-NOAUTH "),
        (&["AUTH", "write", &read], "-WRONGPASS "),
        (&["AUTH", "read", &read], "+OK"),
        (&["GET", "k"], "$-1"),
        (
            &["SET", "k", "v"],
            "-NOPERM User read has no permissions to run the 'set' command",
        ),
        (&["NONESUCH"], "-ERR unknown command"),
        (&["GET"], "-ERR wrong number of arguments"),
        (&["AUTH", "nonsense"], "-WRONGPASS "),
        (&["GET", "k"], "$-1"),
        (&["AUTH", "default", &write], "+OK"),
        (&["SET", "k", "v"], "+OK"),
        (&["GET", "k"], "-NOPERM "),
        (&["RESET"], "+RESET"),
        (&["SET", "k", "v"], "-NOAUTH "),
        (&["AUTH", &read, &read], "-WRONGPASS "),
        (&["HELLO", "3", "AUTH", "write", &write], "%"),
        (&["SET", "k", "v"], "+OK"),
    ] {
        let reply = connection.call(words);
        let shown = String::from_utf8_lossy(&reply);
        assert!(shown.starts_with(begins), "{words:?}: {shown}");
    }
    let mut admin = Connection::open(node.local_addr(), 2);
    admin.call(&["AUTH", &key("all")]);
    let list = admin.call(&["CLIENT", "LIST", "USER", "write"]);
    let list = String::from_utf8_lossy(&list).into_owned();
    assert!(list.contains(" user=write "), "{list}");
    assert!(
        !list.contains(&write) && !list.contains(" user=all "),
        "{list}"
    );
    let config = admin.call(&["CONFIG", "GET", "*"]);
    assert!(!String::from_utf8_lossy(&config).contains("hs256"));
    // A pipeline in which who asks changes is answered command by command.
    let mut pipeline = Connection::open(node.local_addr(), 2);
    for words in [
        &["GET", "k"][..],
        &["AUTH", &read],
        &["GET", "k"],
        &["RESET"],
        &["GET", "k"],
    ] {
        pipeline.send(words);
    }
    let replies: Vec<String> = (0..5)
        .map(|_| pipeline.reply().escape_ascii().to_string())
        .collect();
    let begins = ["-NOAUTH", "+OK", "$1", "+RESET", "-NOAUTH"];
    for (reply, begins) in replies.iter().zip(begins) {
        assert!(reply.starts_with(begins), "{replies:?}");
    }
}

/// A key file that is wrong is refused, whole: at the start and at a reload.
#[test]
fn key_files_that_are_wrong() {
    let path = data_directory().join("keys.toml");
    let (key, entry) = made(&["web", "--permissions=read,write,admin"]);
    write_private(&path, &entry);
    let file = path.to_str().expect("text");
    let settings = [("security.key_file", file)];
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("it is ours");
    let error = Node::start(config(&settings))
        .expect_err("others may read it")
        .to_string();
    assert!(
        error.contains("mode 0640") && error.contains(file),
        "{error}"
    );
    write_private(&path, &entry);
    let node = node(&settings);
    let mut client = Client::connect(node.local_addr());
    let header = [("x-api-key", &*key)];
    write_private(
        &path,
        "[keys.web]\nhash = \"x\"\npermissions = [\"read\"]\n",
    );
    let refused = client.request("POST", "/admin/reload", &header, b"");
    assert_eq!(refused.code(), "invalid_configuration");
    assert_eq!(
        client.request("GET", "/get?key=k", &header, b"").status,
        404,
        "as before"
    );
    let (other, entry) = made(&["other", "--permissions=admin"]);
    write_private(&path, &entry);
    assert_eq!(
        client.request("POST", "/admin/reload", &header, b"").status,
        200
    );
    assert_eq!(
        client.request("GET", "/get?key=k", &header, b"").status,
        401
    );
    let header = [("x-api-key", &*other)];
    assert_eq!(
        client.request("GET", "/admin/keys", &header, b"").status,
        200
    );
}

/// Two that share a thread of the node, of which one is confined, while both their requests wait for their bodies.
#[test]
fn requests_that_wait_keep_their_own_scopes() {
    let path = data_directory().join("keys.toml");
    let (one, entry) = made(&["one", "--permissions=read,write", "--prefix=a:"]);
    let (other, more) = made(&["other", "--permissions=read,write", "--prefix=b:"]);
    write_private(&path, &(entry + &more));
    let node = node(&[("security.key_file", path.to_str().expect("text"))]);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // So many that some of each are on one thread.
    let mut clients: Vec<(Client, &str)> = (0..4 * threads)
        .map(|n| {
            (
                Client::connect(node.local_addr()),
                if n % 2 == 0 { "a:" } else { "b:" },
            )
        })
        .collect();
    for (client, prefix) in &mut clients {
        let key = if *prefix == "a:" { &one } else { &other };
        let head = format!(
            "POST /set HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\ncontent-type: application/json\r\ncontent-length: 23\r\n\r\n{{\"key\":\""
        );
        client.send(head.as_bytes()).expect("it is sent");
    }
    for (n, (client, prefix)) in clients.iter_mut().enumerate() {
        let (asked, status) = match n % 4 {
            0 | 1 => (*prefix, 200),
            _ => (if *prefix == "a:" { "b:" } else { "a:" }, 403),
        };
        let rest = format!("{asked}k\",\"value\":1}}");
        client.send(rest.as_bytes()).expect("it is sent");
        let answer = client.response(true);
        assert_eq!(answer.status, status, "{n}: {}", answer.text());
    }
}
