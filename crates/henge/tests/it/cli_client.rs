//! `henge get` to `henge scan` against a node, as a shell runs them: what they print, where, and how they end.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};

use crate::client::node;

/// The protocols that a node speaks, by the schemes of their URLs.
const SCHEMES: [&str; 1] = ["http"];

/// Runs the binary with the words of a line and the node's URL, and gives it this on standard input.
fn henge(scheme: &str, address: SocketAddr, line: &str, input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_henge"))
        .args(line.split(' '))
        .arg(format!("-url={scheme}://{address}"))
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary of this build runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    // What reads no input may have ended before it gets any.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

#[test]
fn commands_in_a_row() {
    // A line, its input, what it prints, and what it complains about if it does not succeed.
    type Step<'a> = (&'a str, &'a [u8], &'a [u8], Option<&'a str>);
    let steps: &[Step] = &[
        ("get k", b"", b"", Some("there is no such key")),
        ("ttl k", b"", b"", Some("there is no such key")),
        ("del k", b"", b"", Some("there is no such key")),
        ("scan", b"", b"", Some("no key matches the pattern")),
        (
            "set k v -xx",
            b"",
            b"",
            Some("nothing was stored: there is no such key"),
        ),
        ("set k v", b"", b"", None),
        (
            "set k w -nx",
            b"",
            b"",
            Some("nothing was stored: the key is there"),
        ),
        ("get k", b"", b"v", None),
        ("ttl k", b"", b"none\n", None),
        ("set k -", b"a\n\0\xff", b"", None),
        ("get k", b"", b"a\n\0\xff", None),
        ("incr k", b"", b"", Some("the server refused: ")),
        ("incr n", b"", b"1\n", None),
        ("incr n -by -11", b"", b"-10\n", None),
        ("set a/b?c 1 -ttl 1h", b"", b"", None),
        ("scan a*", b"", b"a/b?c\n", None),
        ("scan ?", b"", b"k\nn\n", None),
        ("del a/b?c", b"", b"", None),
        ("get a/b?c", b"", b"", Some("there is no such key")),
        ("set l v", b"", b"", None),
        (
            "del x k y l",
            b"",
            b"",
            Some("there is no such key: x, y\n"),
        ),
        ("scan", b"", b"n\n", None),
        ("set l v", b"", b"", None),
        ("del n l", b"", b"", None),
    ];
    for scheme in SCHEMES {
        let node = node(&[]);
        for (line, input, printed, complaint) in steps {
            let output = henge(scheme, node.local_addr(), line, input);
            let said = String::from_utf8_lossy(&output.stderr);
            match complaint {
                None => assert_eq!(said, "", "{scheme}: {line}"),
                Some(complaint) => {
                    assert!(said.starts_with(&format!("henge: {complaint}")), "{said}");
                    assert_eq!(said.lines().count(), 1, "{said}");
                }
            }
            let code = match complaint {
                None => 0,
                Some(refused) if refused.starts_with("the server refused") => 3,
                Some(_) => 1,
            };
            assert_eq!(output.status.code(), Some(code), "{scheme}: {line}");
            // A scan has no order.
            let mut lines: Vec<&[u8]> = output.stdout.split_inclusive(|b| *b == b'\n').collect();
            if line.starts_with("scan") {
                lines.sort_unstable();
            }
            assert_eq!(lines.concat(), *printed, "{scheme}: {line}");
        }
        let left = henge(scheme, node.local_addr(), "set t v -ttl 60s", b"");
        assert_eq!(left.status.code(), Some(0));
        let left = henge(scheme, node.local_addr(), "ttl t", b"").stdout;
        let left: f64 = String::from_utf8_lossy(&left)
            .trim()
            .parse()
            .expect("seconds");
        assert!(left > 0.0 && left <= 60.0, "{left}");
    }
}

#[test]
fn a_scan_finds_every_key() {
    for scheme in SCHEMES {
        let node = node(&[]);
        let mut setter = crate::client::Client::connect(node.local_addr());
        let items: Vec<String> = (0..3000)
            .map(|i| format!(r#"{{"key":"user:{i:04}","value":{i}}}"#))
            .collect();
        for items in items.chunks(1000) {
            let body = format!(r#"{{"items":[{}]}}"#, items.join(","));
            assert_eq!(setter.post("/mset", &body).status, 200);
        }
        let output = henge(scheme, node.local_addr(), "scan user:??[1-2]5", b"");
        let mut found: Vec<&[u8]> = output.stdout.trim_ascii().split(|b| *b == b'\n').collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 60);
        let output = henge(scheme, node.local_addr(), "scan user:*", b"");
        let mut found: Vec<&[u8]> = output.stdout.trim_ascii().split(|b| *b == b'\n').collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 3000);
    }
}

#[test]
fn where_nobody_listens_it_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    for scheme in ["http", "redis"] {
        let output = henge(scheme, address, "get k", b"");
        let said = String::from_utf8_lossy(&output.stderr);
        let expected = format!("henge: no connection to {address}: ");
        assert!(said.starts_with(&expected), "{said}");
        assert_eq!(output.status.code(), Some(3));
    }
}

#[test]
fn of_several_nodes_one_has_to_be_there() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = listener.local_addr().expect("it is bound");
    drop(listener);
    let node = node(&[]);
    for (scheme, line) in [
        ("http", format!("set k v -url=http://{gone}")),
        ("redis", format!("get k -url redis://{gone},redis://{gone}")),
    ] {
        let output = henge(scheme, node.local_addr(), &line, b"");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{line}: {said}");
    }
    let line = format!("get k -url redis://{gone}");
    let output = henge("http", node.local_addr(), &line, b"");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("all by redis://"), "{said}");
    assert_eq!(
        output.status.code(),
        Some(2),
        "two protocols are no cluster"
    );
}

#[test]
fn a_wrong_command_line_has_a_code_of_its_own() {
    let node = node(&[]);
    for line in ["get", "get k --ttl", "del"] {
        let output = henge("http", node.local_addr(), line, b"");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
    }
}
