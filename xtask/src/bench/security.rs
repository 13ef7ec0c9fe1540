//! `bench security`: what TLS, API keys and rate limits cost. GET and SET in pipelines of 16 over 50 connections, in CPU time of the server for
//! a request: in the clear, over TLS, with a key, and with a key and limits that are never reached. All ask one node, which is
//! configured anew for each: two processes that do the same differ by as much as is looked for. It needs `redis-benchmark` and `openssl`.

use super::client::Connection;
use super::proc::{Cpus, pin_to, pin_to_any, thread_cpu_seconds};
use super::server::{HENGE_OPTION, Server, henge_binary};
use super::{Arguments, Result, median, print_figure};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) const OPTIONS: &[(&str, &str)] = &[
    ("rounds", "turns of each (40)"),
    ("requests", "requests of each turn (400000)"),
    ("keys", "keys (100000)"),
    HENGE_OPTION,
];

const KINDS: [&str; 2] = ["get", "set"];

/// How a client speaks to the node.
struct Way {
    name: &'static str,
    setting: Setting,
    options: Vec<String>,
}

/// What the node is configured to ask of clients.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Setting {
    Open,
    Keys,
    KeysAndRates,
}

/// A node that is configured anew while it runs.
struct Node {
    server: Server,
    setting: Setting,
    config: PathBuf,
    /// What it is configured to be in any case.
    always: String,
    key_file: String,
    /// The API key by which it is told to read its configuration.
    admin: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let rounds = arguments.number("rounds", 40_usize)?.max(1);
    let requests = arguments.number("requests", 400_000_u64)?.max(1);
    let keys = arguments.number("keys", 100_000_u64)?.max(1);
    let binary = henge_binary(arguments)?;
    let folder = std::env::temp_dir().join(format!("henge-security-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let measured = measure(&binary, &folder, rounds, requests, keys);
    fs::remove_dir_all(&folder)?;
    measured
}

fn measure(binary: &Path, folder: &Path, rounds: usize, requests: u64, keys: u64) -> Result<()> {
    let path = |name: &str| folder.join(name).display().to_string();
    certificate(&path("chain.pem"), &path("key.pem"))?;
    let (full, of_full) = key(binary, &["full", "--permissions=read,write,admin"])?;
    // The keys of redis-benchmark begin so, as each request of such a key has to be held against its prefix.
    let confined = ["confined", "--permissions=read,write", "--prefix=key:"];
    let (confined, of_confined) = key(binary, &confined)?;
    write_private(&folder.join("keys.toml"), &(of_full + &of_confined))?;
    let cpus = Cpus::find()?;
    pin_to(cpus.server)?;
    let tls = format!(
        "[tls]\ncertificate_file = {:?}\nkey_file = {:?}\n",
        path("chain.pem"),
        path("key.pem")
    );
    let mut node = Node::start(
        binary,
        folder.join("henge.toml"),
        tls,
        path("keys.toml"),
        full.clone(),
    )?;
    pin_to(cpus.load)?;
    let options = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let way = |name, setting, words: &[&str]| Way {
        name,
        setting,
        options: options(words),
    };
    let ways = [
        way("in the clear, no keys", Setting::Open, &[]),
        way(
            "TLS",
            Setting::Open,
            &["--tls", "--cacert", &path("chain.pem")],
        ),
        way("a key with all rights", Setting::Keys, &["-a", &full]),
        way("a confined key", Setting::Keys, &["-a", &confined]),
        // Who administers is not held against the node's limit.
        way(
            "the same, rates limited",
            Setting::KeysAndRates,
            &["-a", &confined],
        ),
    ];
    // So that what is read is there.
    node.turn(&ways[0], "set", 3 * keys, keys)?;
    let mut costs = vec![[Vec::new(), Vec::new()]; ways.len()];
    for round in 0..rounds {
        // Each is first, and behind each other, equally often.
        for place in 0..ways.len() {
            let way = (place + round) % ways.len();
            for (kind, costs) in KINDS.iter().zip(&mut costs[way]) {
                let cost = node.turn(&ways[way], kind, requests, keys)?;
                let name = ways[way].name;
                println!("round {round}  {kind}  {name:<24} {cost:.3} us of CPU");
                costs.push(cost);
            }
        }
    }
    pin_to_any()?;
    for (way, costs) in ways.iter().zip(&costs) {
        let [get, set] = costs;
        let (get, set) = (median(get.clone()), median(set.clone()));
        println!("median   get {get:.3}  set {set:.3}  {}", way.name);
    }
    // Of the two kinds that which loses more; each round by itself, as a machine is faster in one than in another.
    let over_plain = |way: usize| -> f64 {
        let of_kind = |kind: usize| {
            let (own, plain) = (&costs[way][kind], &costs[0][kind]);
            median(
                own.iter()
                    .zip(plain)
                    .map(|(own, plain)| own / plain)
                    .collect(),
            )
        };
        of_kind(0).max(of_kind(1))
    };
    print_figure("tls_cpu_over_plain", over_plain(1));
    print_figure("full_key_cpu_over_none", over_plain(2));
    print_figure("confined_key_cpu_over_none", over_plain(3));
    print_figure("rate_limits_cpu_over_none", over_plain(4));
    Ok(())
}

/// All that there are, so high that none is reached, and with buckets so small that tokens are taken from each every 20 batches or so.
fn rate_limits() -> String {
    let of_scope = |scope: &str| {
        format!("{scope}_requests_per_second = 10000000\n{scope}_bytes_per_second = \"64GiB\"\n")
    };
    let scopes: String = ["key", "address", "node"].map(of_scope).concat();
    format!("[rate_limits]\nburst_ms = 1\n{scopes}")
}

impl Node {
    /// One that is open to all of this machine.
    fn start(
        binary: &Path,
        config: PathBuf,
        always: String,
        key_file: String,
        admin: String,
    ) -> Result<Self> {
        fs::write(&config, &always)?;
        let flags = ["--config".to_owned(), config.display().to_string()];
        Ok(Self {
            server: Server::henge(binary, &flags)?,
            setting: Setting::Open,
            config,
            always,
            key_file,
            admin,
        })
    }

    /// Has it be configured so.
    fn set(&mut self, setting: Setting) -> Result<()> {
        if self.setting == setting {
            return Ok(());
        }
        let mut text = self.always.clone();
        if setting != Setting::Open {
            let section = format!("[security]\nkey_file = {:?}\n", self.key_file);
            text += &section;
        }
        if setting == Setting::KeysAndRates {
            text += &rate_limits();
        }
        fs::write(&self.config, text)?;
        // By what held until now.
        let shown = match self.setting {
            Setting::Open => String::new(),
            _ => format!("X-API-Key: {}\r\n", self.admin),
        };
        let request = format!("POST /admin/reload HTTP/1.1\r\nHost: localhost\r\n{shown}\r\n");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut connection = Connection::open(self.server.address()).await?;
            connection.expect_ok(request.as_bytes()).await.map(drop)
        })?;
        self.setting = setting;
        Ok(())
    }

    /// Microseconds of its CPU for a request.
    fn turn(&mut self, way: &Way, kind: &str, requests: u64, keys: u64) -> Result<f64> {
        self.set(way.setting)?;
        benchmark(&self.server, kind, requests, keys, &way.options)
    }
}

/// Microseconds of a server's CPU for a request of redis-benchmark, in pipelines of 16 over 50 connections.
pub(super) fn benchmark(
    server: &Server,
    kind: &str,
    requests: u64,
    keys: u64,
    options: &[String],
) -> Result<f64> {
    let address = server.address();
    // To the nanosecond: a turn is short, so that all of a round have the machine as it is then.
    let spent = || thread_cpu_seconds(server.pid(), "");
    let before = spent()?;
    let output = Command::new("redis-benchmark")
        .args(["-h", &address.ip().to_string()])
        .args(["-p", &address.port().to_string()])
        .args(["-n", &requests.to_string(), "-r", &keys.to_string()])
        .args(["-t", kind, "-d", "64", "-P", "16", "-c", "50", "-q"])
        .args(options)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !said.contains("requests per second") {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("redis-benchmark: {said}{why}").into());
    }
    Ok((spent()? - before) / requests as f64 * 1e6)
}

/// A certificate that is its own authority, of the curve that most are of.
fn certificate(chain: &str, key: &str) -> Result<()> {
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=bench"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-keyout", key, "-out", chain])
        .output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("openssl: {why}").into());
    }
    fs::set_permissions(key, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// A key, and its lines of a key file.
fn key(binary: &Path, words: &[&str]) -> Result<(String, String)> {
    let output = Command::new(binary)
        .args(["key", "new", "--name"])
        .args(words)
        .output()?;
    let said = String::from_utf8(output.stdout)?;
    let key = said.lines().find(|line| line.starts_with("henge_"));
    let entry = said.find("[keys.").map(|at| format!("{}\n", &said[at..]));
    match (key, entry) {
        (Some(key), Some(entry)) => Ok((key.to_owned(), entry)),
        _ => Err(format!("henge key new: {said}").into()),
    }
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}
