//! `bench security`: what TLS, API keys and rate limits cost. GET and SET in pipelines of 16 over 50 connections, in CPU time of the server for
//! a request: in the clear and over TLS to one node, with a key to another, and with a key and
//! limits that are never reached to a third. It needs `redis-benchmark` and `openssl`.

use super::proc::{Cpus, cpu_seconds, pin_to, pin_to_any};
use super::server::{HENGE_OPTION, Server, henge_binary};
use super::{Arguments, Result, median, print_figure};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

pub(super) const OPTIONS: &[(&str, &str)] = &[
    ("rounds", "turns of each (7)"),
    ("requests", "requests of each turn (2000000)"),
    ("keys", "keys (100000)"),
    HENGE_OPTION,
];

const KINDS: [&str; 2] = ["get", "set"];

/// How a client speaks to a server.
struct Way<'a> {
    name: &'static str,
    server: &'a Server,
    options: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let rounds = arguments.number("rounds", 7_usize)?.max(1);
    let requests = arguments.number("requests", 2_000_000_u64)?.max(1);
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
    let set = |settings: &[String]| -> Vec<String> {
        let flags = settings.iter().map(|one| ["--set".to_owned(), one.clone()]);
        flags.flatten().collect()
    };
    let cpus = Cpus::find()?;
    pin_to(cpus.server)?;
    let open = Server::henge(
        binary,
        &set(&[
            format!("tls.certificate_file={}", path("chain.pem")),
            format!("tls.key_file={}", path("key.pem")),
        ]),
    )?;
    let locked = set(&[format!("security.key_file={}", path("keys.toml"))]);
    let limited = [&locked[..], &set(&rate_limits())].concat();
    let (locked, limited) = (
        Server::henge(binary, &locked)?,
        Server::henge(binary, &limited)?,
    );
    pin_to(cpus.load)?;
    let options = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let way = |name, server, options| Way {
        name,
        server,
        options,
    };
    let ways = [
        way("in the clear, no keys", &open, Vec::new()),
        way(
            "TLS",
            &open,
            options(&["--tls", "--cacert", &path("chain.pem")]),
        ),
        way("a key with all rights", &locked, options(&["-a", &full])),
        way("a confined key", &locked, options(&["-a", &confined])),
        // Who administers is not held against the node's limit.
        way(
            "the same, rates limited",
            &limited,
            options(&["-a", &confined]),
        ),
    ];
    // So that what is read is there.
    for way in [&ways[0], &ways[2], &ways[4]] {
        way.turn("set", 3 * keys, keys)?;
    }
    let mut costs = vec![[Vec::new(), Vec::new()]; ways.len()];
    for round in 1..=rounds {
        for (way, costs) in ways.iter().zip(&mut costs) {
            for (kind, costs) in KINDS.iter().zip(costs) {
                let cost = way.turn(kind, requests, keys)?;
                println!(
                    "round {round}  {kind}  {:<24} {cost:.3} us of CPU",
                    way.name
                );
                costs.push(cost);
            }
        }
    }
    pin_to_any()?;
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
fn rate_limits() -> Vec<String> {
    let of_scope = |scope| {
        [
            format!("rate_limits.{scope}_requests_per_second=10000000"),
            format!("rate_limits.{scope}_bytes_per_second=64GiB"),
        ]
    };
    let mut all = vec!["rate_limits.burst_ms=1".to_owned()];
    all.extend(["key", "address", "node"].into_iter().flat_map(of_scope));
    all
}

impl Way<'_> {
    /// Microseconds of the server's CPU for a request.
    fn turn(&self, kind: &str, requests: u64, keys: u64) -> Result<f64> {
        let address = self.server.address();
        let before = cpu_seconds(self.server.pid())?;
        let output = Command::new("redis-benchmark")
            .args(["-h", &address.ip().to_string()])
            .args(["-p", &address.port().to_string()])
            .args(["-n", &requests.to_string(), "-r", &keys.to_string()])
            .args(["-t", kind, "-d", "64", "-P", "16", "-c", "50", "-q"])
            .args(&self.options)
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || !said.contains("requests per second") {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("redis-benchmark: {said}{why}").into());
        }
        Ok((cpu_seconds(self.server.pid())? - before) / requests as f64 * 1e6)
    }
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
