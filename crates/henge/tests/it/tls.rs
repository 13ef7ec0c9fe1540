//! TLS on the port that speaks all else: who speaks what over it, certificates that change while the node runs, clients that are
//! known by theirs, and what comes that is no TLS.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use henge::Node;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, StreamOwned,
};

use crate::access::write_private;
use crate::client::{Client, DEADLINE, Transport, config, data_directory, node, skipped};
use crate::readme::is_installed;
use crate::side_by_side::Connection;

/// Who makes certificates, and a folder with those of a node.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    folder: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut asked = CertificateParams::new(Vec::new()).expect("it has no name");
        // OpenSSL takes a certificate for self-signed that has the name of its issuer.
        asked
            .distinguished_name
            .push(DnType::CommonName, "an authority");
        asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = asked.self_signed(&key).expect("it is signed").pem();
        let folder = data_directory();
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("ca.pem"), &pem).expect("it is written");
        Self {
            issuer: Issuer::new(asked, key),
            pem,
            folder,
        }
    }

    /// Its own certificate, in PEM.
    pub(crate) fn pem(&self) -> &[u8] {
        self.pem.as_bytes()
    }

    /// A certificate for these names, and its key, in PEM.
    pub(crate) fn issue(&self, names: &[&str]) -> (String, String) {
        self.issue_until(names, 4096)
    }

    /// The same, until a year begins.
    fn issue_until(&self, names: &[&str], year: i32) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut asked = CertificateParams::new(names).expect("they are names");
        asked.not_after = rcgen::date_time_ymd(year, 1, 1);
        let signed = asked.signed_by(&key, &self.issuer).expect("it is signed");
        (signed.pem(), key.serialize_pem())
    }

    /// A file in the folder.
    pub(crate) fn path(&self, name: &str) -> String {
        let path = self.folder.join(name);
        path.to_str().expect("it is text").to_owned()
    }

    /// Gives the node another certificate, of these names.
    pub(crate) fn certify(&self, names: &[&str]) {
        self.certify_until(names, 4096);
    }

    /// The same, until a year begins.
    fn certify_until(&self, names: &[&str], year: i32) {
        let (certificate, key) = self.issue_until(names, year);
        fs::write(self.path("chain.pem"), certificate).expect("it is written");
        write_private(Path::new(&self.path("key.pem")), &key);
    }

    /// A node with a certificate of this authority.
    pub(crate) fn node(&self, more: &[(&str, &str)]) -> Node {
        self.certify(&["localhost", "127.0.0.1"]);
        let (chain, key) = (self.path("chain.pem"), self.path("key.pem"));
        let own = [("tls.certificate_file", &*chain), ("tls.key_file", &key)];
        node(&[&own[..], more].concat())
    }

    /// A connection over TLS.
    pub(crate) fn connect(&self, address: SocketAddr) -> Box<dyn Transport> {
        self.connect_as(address, rustls::DEFAULT_VERSIONS, &[])
            .expect("the handshake is made")
    }

    /// The same by these versions, with a certificate for these names if there are any.
    fn connect_as(
        &self,
        address: SocketAddr,
        versions: &[&'static rustls::SupportedProtocolVersion],
        names: &[&str],
    ) -> io::Result<Box<dyn Transport>> {
        let stream = self.handshake(address, versions, names)?;
        Ok(Box::new(stream))
    }

    /// A client by these versions, with a certificate for these names if there are any.
    fn client(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        names: &[&str],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("it is one");
        roots.add(ca).expect("it is one");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("they are known")
            .with_root_certificates(roots);
        let config = if names.is_empty() {
            builder.with_no_client_auth()
        } else {
            let (certificate, key) = self.issue(names);
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
            builder
                .with_client_auth_cert(vec![certificate.expect("a certificate")], key)
                .expect("they fit")
        };
        Arc::new(config)
    }

    fn handshake(
        &self,
        address: SocketAddr,
        versions: &[&'static rustls::SupportedProtocolVersion],
        names: &[&str],
    ) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        shake_hands(address, self.client(versions, names))
    }
}

fn shake_hands(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(config, name).expect("a connection");
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.set_write_timeout(Some(DEADLINE))?;
    socket.set_nodelay(true)?;
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

#[test]
fn all_is_spoken_over_tls_on_the_same_port() {
    let authority = Authority::new();
    let node = authority.node(&[("server.resp_listen", "127.0.0.1:0")]);
    let address = node.local_addr();
    // Longer than all buffers on the way, so that the node has to wait for its client.
    let large = "0123456789abcdef".repeat(1 << 20);
    let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
    for version in versions.chunks(1) {
        let connect = |address| {
            let connected = authority.connect_as(address, version, &[]);
            connected.expect("the handshake is made")
        };
        let mut http = Client::over(connect(address));
        assert_eq!(
            http.request("PUT", "/cache/k", &[], large.as_bytes())
                .status,
            204
        );
        for _ in 0..2 {
            let found = http.get("/cache/k");
            assert_eq!((found.status, found.body.len()), (200, large.len()));
            assert!(found.body == large.as_bytes());
        }
        let ports = [address, node.resp_addr().expect("it has one")];
        for (port, protocol) in ports.into_iter().flat_map(|port| [(port, 2), (port, 3)]) {
            let mut resp = Connection::over(connect(port), protocol);
            for _ in 0..3 {
                resp.send(&["GET", "k"]);
            }
            resp.send(&["ECHO", "after it"]);
            for _ in 0..3 {
                let reply = resp.reply();
                assert!(reply.len() > large.len() && reply.ends_with(b"ef\r\n"));
            }
            assert_eq!(resp.reply(), b"$8\r\nafter it\r\n");
            assert_eq!(resp.call(&["SET", "l", &large]), b"+OK\r\n");
            assert_eq!(resp.call(&["STRLEN", "l"]), b":16777216\r\n");
        }
        let mut inline = connect(address);
        inline.write_all(b"PING\r\n").expect("it is sent");
        let mut reply = [0; 7];
        inline.read_exact(&mut reply).expect("it is answered");
        assert_eq!(&reply, b"+PONG\r\n");
    }
    // Plain connections are served beside it.
    assert_eq!(Client::connect(address).get("/health").status, 200);
    assert_eq!(
        Connection::open(address, 2).call(&["STRLEN", "l"]),
        b":16777216\r\n"
    );
}

/// Real clients, which do all that the tests above do by themselves.
#[test]
fn curl_and_redis_cli() {
    let authority = Authority::new();
    let node = authority.node(&[]);
    let port = node.local_addr().port().to_string();
    let ca = authority.path("ca.pem");
    if is_installed("curl") {
        let url = format!("https://localhost:{port}/cache/k");
        let run = |more: &[&str]| {
            let done = Command::new("curl")
                .args(["-sS", "--cacert", &ca])
                .args(more)
                .arg(&url)
                .output();
            let done = done.expect("curl runs");
            assert!(
                done.status.success(),
                "{}",
                String::from_utf8_lossy(&done.stderr)
            );
            String::from_utf8_lossy(&done.stdout).into_owned()
        };
        run(&["-X", "PUT", "--data-binary", "over TLS"]);
        assert_eq!(run(&[]), "over TLS");
    } else {
        skipped("curl", "HTTP over TLS by curl");
    }
    if is_installed("redis-cli") {
        let done = Command::new("redis-cli")
            .args([
                "--tls",
                "--cacert",
                &ca,
                "-h",
                "localhost",
                "-p",
                &port,
                "SET",
                "r",
                "v",
            ])
            .output()
            .expect("redis-cli runs");
        assert_eq!(
            String::from_utf8_lossy(&done.stdout).trim(),
            "OK",
            "{done:?}"
        );
    } else {
        skipped("redis-cli", "RESP over TLS by redis-cli");
    }
}

fn certificate_of(stream: &StreamOwned<ClientConnection, TcpStream>) -> Vec<u8> {
    let chain = stream.conn.peer_certificates().expect("it has shown some");
    chain[0].to_vec()
}

#[test]
fn certificates_change_while_the_node_runs() {
    let authority = Authority::new();
    let node = authority.node(&[]);
    let connect = || authority.handshake(node.local_addr(), rustls::DEFAULT_VERSIONS, &[]);
    let mut before = connect().expect("the handshake is made");
    let first = certificate_of(&before);
    // One that does not fit its key changes nothing.
    let (other, _) = authority.issue(&["localhost"]);
    fs::write(authority.path("chain.pem"), other).expect("it is written");
    let mut admin = Client::connect(node.local_addr());
    let expires_at_s = |admin: &mut Client| {
        let figures = admin.get("/metrics/json").json();
        figures["security"]["certificate_expires_at_seconds"].as_u64()
    };
    // In 4096, as those do that are issued here.
    assert_eq!(expires_at_s(&mut admin), Some(67_090_118_400));
    let refused = admin.post("/admin/reload", "");
    assert_eq!(
        refused.code(),
        "invalid_configuration",
        "{}",
        refused.text()
    );
    assert_eq!(certificate_of(&connect().expect("as before")), first);
    authority.certify_until(&["localhost"], 2050);
    assert_eq!(admin.post("/admin/reload", "").status, 200);
    assert_eq!(expires_at_s(&mut admin), Some(2_524_608_000));
    let after = connect().expect("the handshake is made");
    assert_ne!(certificate_of(&after), first);
    assert_eq!(
        after.conn.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
    // What was open goes on.
    before.write_all(b"PING\r\n").expect("it is sent");
    let mut reply = [0; 7];
    before.read_exact(&mut reply).expect("it is answered");
    assert_eq!(&reply, b"+PONG\r\n");
}

/// A session that is resumed would be that of a certificate that was shown long ago, and may have run out.
#[test]
fn who_has_shown_a_certificate_shows_it_again() {
    let authority = Authority::new();
    let ca = authority.path("ca.pem");
    for (settings, again) in [
        (vec![], HandshakeKind::Resumed),
        (vec![("tls.client_ca_file", &*ca)], HandshakeKind::Full),
    ] {
        let node = authority.node(&settings);
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let client = authority.client(&[version], &["web.example"]);
            let kind = || {
                let shaken = shake_hands(node.local_addr(), Arc::clone(&client));
                let mut stream = shaken.expect("the handshake is made");
                let kind = stream.conn.handshake_kind();
                // What resumes it comes before the first answer.
                stream.write_all(b"PING\r\n").expect("it is sent");
                let mut pong = [0; 7];
                stream.read_exact(&mut pong).expect("it is answered");
                kind
            };
            assert_eq!(kind(), Some(HandshakeKind::Full));
            assert_eq!(kind(), Some(again), "{settings:?}");
        }
    }
}

#[test]
fn clients_are_known_by_their_certificates() {
    let authority = Authority::new();
    let (keys, ca) = (authority.path("keys.toml"), authority.path("ca.pem"));
    write_private(
        Path::new(&keys),
        "[roles]\nreader = [\"read\"]\n\n[keys.web]\ncertificate = \"Web.example\"\nroles = [\"reader\"]\n",
    );
    let log = authority.path("audit.log");
    let node = authority.node(&[
        ("security.key_file", &keys),
        ("tls.client_ca_file", &ca),
        ("audit.file", &log),
    ]);
    let address = node.local_addr();
    let connect = |names: &[&str]| authority.connect_as(address, rustls::DEFAULT_VERSIONS, names);
    let get = |names: &[&str]| {
        let mut client = Client::over(connect(names).expect("the handshake is made"));
        client.get("/get?key=k").status
    };
    assert_eq!(get(&["web.example"]), 404);
    assert_eq!(get(&["a.example", "web.example"]), 404);
    assert_eq!(get(&["web.example.org"]), 401);
    assert_eq!(get(&["*.example"]), 401);
    assert_eq!(get(&[]), 401);
    let mut resp = Connection::over(connect(&["web.example"]).expect("the handshake is made"), 3);
    assert_eq!(resp.call(&["GET", "k"]), b"_\r\n");
    assert!(
        resp.call(&["SET", "k", "v"])
            .starts_with(b"-NOPERM User web ")
    );
    // A reset makes it what it was when it was new: it had a certificate then.
    assert_eq!(resp.call(&["RESET"]), b"+RESET\r\n");
    assert_eq!(resp.call(&["GET", "k"]), b"$-1\r\n");
    // A certificate of somebody else's authority is none.
    let stranger = Authority::new();
    let (certificate, key) = stranger.issue(&["web.example"]);
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("it is one"))
        .expect("it is one");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("they are known")
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("one")],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key"),
        )
        .expect("they fit");
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    let mut stream = StreamOwned::new(connection, socket);
    let asked = stream
        .write_all(b"PING\r\n")
        .and_then(|()| stream.read_exact(&mut [0; 7]));
    assert!(asked.is_err(), "it is not served");
    let own = connect(&["web.example"]).expect("the handshake is made");
    let figures = Client::over(own).get("/metrics/json").json();
    assert_eq!(figures["security"]["refused_certificates"], 1);
    assert!(node.shutdown());
    let noted = fs::read_to_string(&log).expect("it is there");
    let last = noted.lines().last().unwrap_or_default();
    let expected = "\"protocol\":\"tls\"";
    assert!(
        last.contains(expected) && last.contains("\"code\":\"certificate\""),
        "{noted}"
    );
}

#[test]
fn where_tls_is_required_nothing_is_said_in_the_clear() {
    let authority = Authority::new();
    let resp = ("server.resp_listen", "127.0.0.1:0");
    let log = authority.path("audit.log");
    let node = authority.node(&[("tls.required", "true"), resp, ("audit.file", &log)]);
    let address = node.local_addr();
    for target in ["/get?key=k", "/health"] {
        let mut client = Client::connect(address);
        let refused = client.get(target);
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (403, "tls_required")
        );
        assert_eq!(client.until_closed(), b"");
    }
    for port in [address, node.resp_addr().expect("it has one")] {
        let mut connection = Connection::open(port, 2);
        assert!(
            connection
                .call(&["GET", "k"])
                .starts_with(b"-DENIED TLS is required")
        );
        assert_eq!(connection.call(&["GET", "k"]), b"");
        let mut secure = Connection::over(authority.connect(port), 2);
        assert_eq!(secure.call(&["GET", "k"]), b"$-1\r\n");
    }
    assert!(node.shutdown());
    let noted = fs::read_to_string(&log).expect("it is there");
    let noted = noted.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let parts = ["protocol", "action", "outcome", "code"];
        parts
            .map(|name| line[name].as_str().unwrap_or("-").to_owned())
            .join(" ")
    });
    let noted: Vec<String> = noted.collect();
    let (http, redis) = (
        "http connect denied tls_required",
        "redis connect denied DENIED",
    );
    assert_eq!(noted, [http, http, redis, redis]);
}

/// What begins as TLS does and goes on as something else ends its own connection, and nothing else.
#[test]
fn what_is_no_tls() {
    let authority = Authority::new();
    let node = authority.node(&[("limits.header_timeout_ms", "200")]);
    let with_tls = node.local_addr();
    let without = crate::client::node(&[]);
    let hello = [&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3][..], &[0; 300]].concat();
    for address in [with_tls, without.local_addr()] {
        for bytes in [
            &b"\x16"[..],
            b"\x16\x03\x01",
            b"\x16\x03\x01\xff\xff",
            &hello,
            b"\x16GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
            &vec![0x16; 70_000],
        ] {
            let mut client = Client::connect(address);
            // The node may have closed it before all is sent.
            let _ = client.send(bytes);
            // An alert at the most, and the end.
            let rest = client.until_closed();
            assert!(rest.len() < 64, "{}", rest.escape_ascii());
        }
    }
    // Bytes in the clear after the handshake, and half a record.
    for bytes in [&b"PING\r\n"[..], &[0x17, 3, 3, 0x40, 0, 1, 2, 3]] {
        let stream = authority.handshake(with_tls, rustls::DEFAULT_VERSIONS, &[]);
        let mut socket = stream.expect("the handshake is made").sock;
        let _ = socket.write_all(bytes);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        assert!(!rest.ends_with(b"+PONG\r\n"));
    }
    assert_eq!(
        Connection::over(authority.connect(with_tls), 2).call(&["PING"]),
        b"+PONG\r\n"
    );
}

/// A setting that names files is put in force with what is in them, or not at all.
#[test]
fn files_that_a_client_names() {
    let authority = Authority::new();
    authority.certify(&["localhost", "127.0.0.1"]);
    let (chain, key) = (authority.path("chain.pem"), authority.path("key.pem"));
    let node = node(&[]);
    let mut open = Connection::open(node.local_addr(), 2);
    let mut set = |chain: &str| {
        let words = [
            "CONFIG",
            "SET",
            "tls.certificate_file",
            chain,
            "tls.key_file",
            &key,
            "tls.required",
            "true",
        ];
        open.call(&words)
    };
    let refused = set("/none/such");
    assert!(refused.starts_with(b"-ERR"), "{}", refused.escape_ascii());
    assert_eq!(
        Client::connect(node.local_addr()).get("/health").status,
        200,
        "as before"
    );
    let done = set(&chain);
    assert_eq!(done, b"+OK\r\n", "{}", done.escape_ascii());
    assert_eq!(
        Client::connect(node.local_addr()).get("/health").status,
        403
    );
    let mut secure = Connection::over(authority.connect(node.local_addr()), 2);
    assert_eq!(secure.call(&["PING"]), b"+PONG\r\n");
}

#[test]
fn files_that_are_wrong() {
    let authority = Authority::new();
    authority.certify(&["localhost"]);
    let (chain, key) = (authority.path("chain.pem"), authority.path("key.pem"));
    let nothing = authority.path("nothing");
    fs::write(&nothing, "nothing").expect("it is written");
    let folder = authority.folder.to_str().expect("text").to_owned();
    let failed = |settings: &[(&str, &str)]| {
        let started = Node::start(config(settings));
        started.expect_err("it cannot start").to_string()
    };
    let both = |chain, key| failed(&[("tls.certificate_file", chain), ("tls.key_file", key)]);
    for (error, expected) in [
        (both(&chain, "/none/such"), "No such file"),
        (both("/none/such", &key), "No such file"),
        (both(&nothing, &key), "expected certificates in PEM"),
        (both(&folder, &key), "expected a file"),
        (
            both(&chain, &chain),
            "others than its owner may use the private key",
        ),
        (failed(&[("tls.certificate_file", &chain)]), "tls.key_file"),
        (failed(&[("tls.required", "true")]), "tls.certificate_file"),
        (
            failed(&[("tls.client_ca_file", &chain)]),
            "tls.certificate_file",
        ),
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    fs::set_permissions(&nothing, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let error = both(&chain, &nothing);
    assert!(error.contains("expected a private key in PEM"), "{error}");
    let (_, other) = authority.issue(&["localhost"]);
    write_private(Path::new(&nothing), &other);
    let error = both(&chain, &nothing);
    assert!(
        error.contains(&chain) && error.contains(&nothing),
        "{error}"
    );
    assert!(!error.contains("PRIVATE"), "{error}");
}
