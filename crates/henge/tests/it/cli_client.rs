//! `henge get` to `henge scan` against a node, as a shell runs them: what they print, where, and how they end.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use crate::client::{data_directory, node};

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

/// A line, its input, what it prints, and what it complains about if it does not succeed.
type Step<'a> = (&'a str, &'a [u8], &'a [u8], Option<&'a str>);

#[test]
fn commands_in_a_row() {
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
        follow(scheme, node.local_addr(), steps);
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

/// Runs steps one after the other.
fn follow(scheme: &str, address: SocketAddr, steps: &[Step]) {
    for (line, input, printed, complaint) in steps {
        let output = henge(scheme, address, line, input);
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
}

#[test]
fn commands_as_json() {
    let steps: &[Step] = &[
        (
            "set k v -json",
            b"",
            b"{\"is_stored\":true,\"key\":\"k\"}\n",
            None,
        ),
        (
            "get k -json",
            b"",
            b"{\"key\":\"k\",\"value\":\"v\"}\n",
            None,
        ),
        ("ttl k -json", b"", b"{\"key\":\"k\",\"ttl\":null}\n", None),
        ("scan -json", b"", b"{\"key\":\"k\"}\n", None),
        (
            "set k - -json -xx",
            b"\x1b\xff",
            b"{\"is_stored\":true,\"key\":\"k\"}\n",
            None,
        ),
        (
            "get k -json",
            b"",
            b"{\"key\":\"k\",\"value_base64\":\"G/8=\"}\n",
            None,
        ),
        (
            "del k l -json",
            b"",
            b"{\"is_removed\":true,\"key\":\"k\"}\n{\"is_removed\":false,\"key\":\"l\"}\n",
            Some("there is no such key: l\n"),
        ),
        ("get k -json", b"", b"", Some("there is no such key")),
        ("incr n -json", b"", b"{\"key\":\"n\",\"value\":1}\n", None),
        ("del n", b"", b"", None),
    ];
    for scheme in SCHEMES {
        let node = node(&[]);
        follow(scheme, node.local_addr(), steps);
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

#[test]
fn a_node_has_only_the_ciphertext_of_what_is_encrypted() {
    let folder = data_directory();
    fs::create_dir_all(&folder).expect("a folder");
    let file = |name: &str, text: &str, mode| {
        let path = folder.join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        path.display().to_string()
    };
    let key = |number: u32, digit: &str| format!("{number} {}\n", digit.repeat(64));
    let ours = file("ours", &key(1, "1"), 0o600);
    let rotated = file("rotated", &(key(1, "1") + &key(2, "2")), 0o400);
    let other = file("other", &key(1, "3"), 0o600);
    let third = file("third", &key(3, "3"), 0o600);
    let open = file("open", &key(1, "1"), 0o644);
    let broken = file("broken", "1 abc\n", 0o600);
    let value = &b"nobody but us\n\0\xff"[..];
    for scheme in ["http", "redis"] {
        let node = node(&[]);
        let run = |line: &str, input: &[u8]| henge(scheme, node.local_addr(), line, input);
        let done = |line: &str, input: &[u8]| {
            let output = run(line, input);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!((output.status.code(), &*said), (Some(0), ""), "{line}");
            output.stdout
        };
        done(&format!("set k - -encrypt-key-file {ours}"), value);
        let sealed = done("get k", b"");
        assert_eq!(sealed.len(), value.len() + 37);
        assert!(sealed.starts_with(b"\x89HSV\x01\x01\0\0\0"));
        assert!(!sealed.windows(6).any(|part| part == b"nobody"));
        assert_eq!(done(&format!("get k -encrypt-key-file {ours}"), b""), value);
        // A new key writes, and the old one still reads.
        done(&format!("set new w -encrypt-key-file {rotated}"), b"");
        for (key, expected) in [("k", value), ("new", b"w")] {
            let line = format!("get {key} -encrypt-key-file {rotated}");
            assert_eq!(done(&line, b""), expected);
        }
        done("set moved -", &sealed);
        done("set plain text", b"");
        let not_opened = "found a sealed value that key 1 does not open; expected ";
        let mode = format!(
            "{open}: others than its owner may use the key file (mode 0644); expected 0600 or 0400"
        );
        let length =
            format!("{broken}, line 1: a key has 64 hexadecimal digits, not more and not less");
        for (line, complaint) in [
            (format!("get k -encrypt-key-file {other}"), not_opened),
            (format!("get moved -encrypt-key-file {ours}"), not_opened),
            (
                format!("get k -encrypt-key-file {third}"),
                "found a value that is sealed under key 1; expected one of those given: 3",
            ),
            (
                format!("get plain -encrypt-key-file {ours}"),
                "found a value of 4 bytes that is not sealed; expected ",
            ),
            (format!("get k -encrypt-key-file {open}"), &mode),
            (format!("set k v -encrypt-key-file {open}"), &mode),
            (format!("set k v -encrypt-key-file {broken}"), &length),
        ] {
            let output = run(&line, b"");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.starts_with(&format!("henge: {complaint}")), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert_eq!(output.status.code(), Some(3), "{line}");
            assert_eq!(output.stdout, b"", "{line}");
        }
        assert_eq!(
            done("get k", b""),
            sealed,
            "what was refused changed nothing"
        );
        let missing = run(&format!("get none -encrypt-key-file {ours}"), b"");
        assert_eq!(missing.status.code(), Some(1), "a miss is a miss");
    }
    fs::remove_dir_all(&folder).expect("it is ours");
}

#[test]
fn a_node_is_pinged() {
    let node = node(&[]);
    let run = |line: &str| {
        let output = henge("http", node.local_addr(), line, b"");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };
    assert_eq!(run("ping"), (Some(0), "ok\n".to_owned()));
    assert_eq!(run("ping --ready"), (Some(0), "ready\n".to_owned()));
    let (code, page) = run("ping --json");
    assert_eq!(code, Some(0));
    assert!(
        page.starts_with('{') && page.contains("\"status\":\"ok\""),
        "{page}"
    );
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nobody = listener.local_addr().expect("it has one");
    drop(listener);
    assert_eq!(henge("http", nobody, "ping", b"").status.code(), Some(3));
}
