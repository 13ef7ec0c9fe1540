//! TLS from the other end: the Rust client over it, against one node and against a cluster, and whom it does not trust.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use henge_client::{
    Answer, Client, Connection, ConsistencyLevel, Error, Request, SetOptions, Settings, Target,
    Tls, TlsError,
};
use tokio::runtime::Runtime;

use crate::access::write_private;
use crate::client::DEADLINE;
use crate::cluster::Ring;
use crate::tls::Authority;

/// The protocols over TLS, by the schemes of their URLs.
const SCHEMES: [&str; 2] = ["rediss", "https"];

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

fn trusting(authority: &Authority) -> Tls {
    Tls::trusting(authority.pem()).expect("it is an authority")
}

async fn connected(url: &str, tls: Option<Tls>) -> Result<Client, Error> {
    let builder = Client::builder(url)?;
    let mut builder = builder.request_timeout(DEADLINE).connect_timeout(DEADLINE);
    if let Some(tls) = tls {
        builder = builder.tls(tls);
    }
    builder.connect().await
}

async fn set_and_get(client: &Client, key: &str) {
    let stored = client.set(key, key, SetOptions::new()).await;
    assert!(stored.expect("it is answered"));
    let found = client.get(key).await.expect("it is answered");
    assert_eq!(found.as_deref(), Some(key.as_bytes()));
}

/// By turns at the default level and at others, over the same connections.
async fn at_all_levels(client: &Client, key: &str) {
    let levels = [ConsistencyLevel::All, ConsistencyLevel::One];
    for level in levels.into_iter().chain(levels) {
        set_and_get(&client.at_level(level), key).await;
        set_and_get(client, key).await;
    }
}

#[test]
fn one_node_by_its_name_and_its_address() {
    let authority = Authority::new();
    let node = authority.node(&[("tls.required", "true")]);
    let port = node.local_addr().port();
    runtime().block_on(async {
        for scheme in SCHEMES {
            for host in ["localhost", "127.0.0.1"] {
                let url = format!("{scheme}://{host}:{port}");
                let client = connected(&url, Some(trusting(&authority))).await;
                let client = client.expect(&url);
                for _ in 0..3 {
                    set_and_get(&client, "k").await;
                }
                assert_eq!(client.incr("n", 1).await.expect("answered"), 1);
                assert!(client.del("n").await.expect("answered"));
                let mut scan = client.scan("k*");
                let page = scan.next_page().await.expect("answered");
                assert_eq!(page.expect("a page"), ["k"]);
            }
        }
    });
}

/// Longer than all buffers on the way, in both directions, so that each side waits for the other.
#[test]
fn large_values_in_a_pipeline() {
    let authority = Authority::new();
    let node = authority.node(&[]);
    let large = b"0123456789abcdef".repeat(1 << 19);
    let (key, options) = (&b"k"[..], SetOptions::new());
    let set = |value| Request::Set {
        key,
        value,
        options,
    };
    let requests = [
        set(&large),
        Request::Get { key },
        Request::Get { key },
        set(b"small"),
        Request::Get { key },
    ];
    runtime().block_on(async {
        for scheme in SCHEMES {
            let url = format!("{scheme}://{}", node.local_addr());
            let target: Target = url.parse().expect("a URL");
            let settings = Settings {
                request_timeout: DEADLINE,
                tls: Some(trusting(&authority)),
                ..Settings::default()
            };
            let opened = Connection::open(&target, settings).await;
            let mut connection = opened.expect("it listens");
            for _ in 0..2 {
                let mut answers = Vec::new();
                let exchanged = connection.pipeline(&requests, |place, answer| {
                    assert_eq!(place, answers.len());
                    answers.push(answer.expect("it is answered"));
                });
                exchanged.await.expect("it is answered");
                let value = |bytes: &[u8]| Answer::Value(Some(bytes.to_vec().into()));
                let expected = [
                    Answer::Stored(true),
                    value(&large),
                    value(&large),
                    Answer::Stored(true),
                    value(b"small"),
                ];
                assert!(answers == expected, "{scheme}");
                assert!(connection.is_usable(), "{scheme}");
            }
        }
    });
}

#[test]
fn whom_it_does_not_trust() {
    let authority = Authority::new();
    let node = authority.node(&[]);
    let address = node.local_addr();
    let plain = crate::client::node(&[]);
    let failure = |url: String, tls: Option<Tls>| {
        let error = runtime().block_on(connected(&url, tls));
        error.expect_err(&url)
    };
    for scheme in SCHEMES {
        let url = format!("{scheme}://{address}");
        let error = failure(url.clone(), Some(trusting(&Authority::new())));
        assert!(matches!(error, Error::Connect { .. }), "{error:?}");
        assert!(
            error.to_string().contains("invalid peer certificate"),
            "{error}"
        );
        let error = failure(url, None);
        assert!(matches!(error, Error::Argument(_)), "{error:?}");
        assert!(error.to_string().contains("none are built in"), "{error}");
        // A node without a certificate.
        let url = format!("{scheme}://{}", plain.local_addr());
        let error = failure(url, Some(trusting(&authority)));
        assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    }
    authority.certify(&["other.example", "127.0.0.2"]);
    let mut admin = crate::client::Client::connect(address);
    assert_eq!(admin.post("/admin/reload", "").status, 200);
    for scheme in SCHEMES {
        for host in ["localhost", "127.0.0.1"] {
            let url = format!("{scheme}://{host}:{}", address.port());
            let error = failure(url, Some(trusting(&authority)));
            assert!(matches!(error, Error::Connect { .. }), "{error:?}");
            assert!(error.to_string().contains("not valid for"), "{error}");
        }
    }
}

#[test]
fn a_certificate_of_its_own() {
    let authority = Authority::new();
    let (keys, ca) = (authority.path("keys.toml"), authority.path("ca.pem"));
    write_private(
        Path::new(&keys),
        "[roles]\nall = [\"read\", \"write\"]\n\n[keys.web]\ncertificate = \"web.example\"\nroles = [\"all\"]\n",
    );
    let node = authority.node(&[("security.key_file", &keys), ("tls.client_ca_file", &ca)]);
    let (chain, key) = authority.issue(&["web.example"]);
    let (chain, key) = (chain.as_bytes(), key.as_bytes());
    let with = |chain, key| trusting(&authority).with_certificate(chain, key);
    assert_eq!(with(key, key), Err(TlsError::NoCertificate));
    assert_eq!(with(chain, chain), Err(TlsError::NoKey));
    let (_, other) = authority.issue(&["web.example"]);
    let unfit = with(chain, other.as_bytes());
    assert!(matches!(unfit, Err(TlsError::Unfit(_))), "{unfit:?}");
    let tls = with(chain, key).expect("they fit");
    assert_eq!(
        format!("{tls:?}"),
        "Tls { authorities: 1, has_certificate: true }"
    );
    runtime().block_on(async {
        for scheme in SCHEMES {
            let url = format!("{scheme}://{}", node.local_addr());
            let client = connected(&url, Some(tls.clone())).await;
            at_all_levels(&client.expect("it is known"), "k").await;
            let client = connected(&url, Some(trusting(&authority))).await;
            let refused = client.expect("it listens").get("k").await;
            let refused = refused.expect_err("it is not known");
            assert!(matches!(refused, Error::Refused { .. }), "{refused:?}");
        }
    });
}

/// Each of them is reached by the scheme of the first.
#[test]
fn a_cluster() {
    let authority = Authority::new();
    let mut ring = Ring::new();
    let addresses: [SocketAddr; 3] = [1, 2, 3].map(|n| ring.address(n));
    let hosts = addresses.map(|address| address.ip().to_string());
    authority.certify(&[&hosts[0], &hosts[1], &hosts[2]]);
    for (setting, file) in [("certificate", "chain.pem"), ("key", "key.pem")] {
        let path = authority.path(file);
        ring = ring.set(&format!("tls.{setting}_file={path}"));
    }
    let ring = ring.formed(3);
    runtime().block_on(async {
        for scheme in SCHEMES {
            let url = format!("{scheme}://{}", ring.address(1));
            let client = connected(&url, Some(trusting(&authority))).await;
            let client = client.expect("it listens");
            for n in 0..100 {
                set_and_get(&client, &format!("k{n}")).await;
            }
            for n in 0..10 {
                at_all_levels(&client, &format!("k{n}")).await;
            }
            let mut found = 0;
            let mut scan = client.scan("k*");
            while let Some(keys) = scan.next_page().await.expect("it is answered") {
                found += keys.len();
            }
            assert_eq!(found, 100, "{scheme}");
            let members = format!("{client:?}");
            for address in addresses {
                let host = address.ip().to_string();
                assert!(members.contains(&host), "{scheme}: {members}");
            }
        }
    });
}

/// The program, as a shell runs it: by the client, by a page, and by the tools that have a connection of their own.
#[test]
fn the_commands_that_ask_a_node() {
    let authority = Authority::new();
    let node = authority.node(&[("tls.required", "true")]);
    let run = |ca: Option<&str>, scheme: &str, line: &str| {
        let done = Command::new(env!("CARGO_BIN_EXE_henge"))
            .args(line.split(' '))
            .arg(format!("--url={scheme}://{}", node.local_addr()))
            .env_clear()
            .envs(ca.map(|path| ("HENGE_CA_FILE", path)))
            .output();
        let done = done.expect("the binary of this build runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    };
    let ca = authority.path("ca.pem");
    let nothing = String::new();
    for scheme in SCHEMES {
        let done = run(Some(&ca), scheme, "set k v");
        assert_eq!(done, (Some(0), nothing.clone(), nothing.clone()));
        let done = run(Some(&ca), scheme, "get k");
        assert_eq!(done, (Some(0), "v".to_owned(), nothing.clone()));
    }
    let backup = authority.path("file.backup");
    let restore = format!("restore {backup} --replace");
    let unready = authority.path("nothing.pem");
    for (line, expected) in [
        ("cluster status", "ADDRESS"),
        ("key list", "There is no key"),
        (&format!("backup --to={backup}"), ""),
        (&restore, ""),
        ("bench --duration=1s --warmup=0s --keys=10 --threads=1", ""),
    ] {
        let (code, said, wrong) = run(Some(&ca), "https", line);
        assert_eq!(code, Some(0), "{line}: {wrong}");
        assert!(said.contains(expected), "{line}: {said}");
    }
    for line in ["get k", "cluster status", "key list", &restore] {
        for (ca, expected) in [
            (None, "HENGE_CA_FILE names no file"),
            (Some(&*unready), "nothing.pem"),
            (Some(&*backup), "expected certificates in PEM"),
        ] {
            let (code, said, wrong) = run(ca, "https", line);
            assert_eq!((code, &*said), (Some(3), ""), "{line}: {wrong}");
            assert!(wrong.contains(expected), "{line}: {wrong}");
        }
        let (code, _, wrong) = run(None, "http", line);
        assert_eq!(code, Some(3), "{line}: {wrong}");
    }
}
