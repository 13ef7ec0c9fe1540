//! `bench insight`: what it costs that a node can explain its figures: hot keys, why keys left, the slow log, and traces, as many as there
//! are by default, for a collector that takes all. GET of what is there and of what was evicted, SET, and SET that evicts, in pipelines of
//! 16 over 50 connections, in CPU time of the server for a request: with all of it on, and with all of it off. One node does both in turns,
//! as two that do the same differ by as much as is looked for. It needs `redis-benchmark`.

use super::client::Connection;
use super::proc::{Cpus, pin_to, pin_to_any};
use super::security::benchmark;
use super::server::{HENGE_OPTION, Server, henge_binary};
use super::{Arguments, Result, median, print_figure};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

pub(super) const OPTIONS: &[(&str, &str)] = &[
    ("rounds", "turns of each (16)"),
    ("requests", "requests of each turn (400000)"),
    HENGE_OPTION,
];

/// Keys that fit into the cache.
const FEW_KEYS: u64 = 100_000;
/// Several times as many as fit.
const MANY_KEYS: u64 = 4_000_000;

/// Each kind of load: its name, the command of redis-benchmark, and over how many keys.
const LOADS: [(&str, &str, u64); 4] = [
    ("get of what is there", "get", FEW_KEYS),
    ("set of what is there", "set", FEW_KEYS),
    ("set that evicts", "set", MANY_KEYS),
    ("get of what mostly was evicted", "get", MANY_KEYS),
];

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let rounds = arguments.number("rounds", 16_usize)?.max(1);
    let requests = arguments.number("requests", 400_000_u64)?.max(1);
    let binary = henge_binary(arguments)?;
    let folder = std::env::temp_dir().join(format!("henge-insight-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let measured = measure(&binary, &folder, rounds, requests);
    fs::remove_dir_all(&folder)?;
    measured
}

fn measure(binary: &Path, folder: &Path, rounds: usize, requests: u64) -> Result<()> {
    let cpus = Cpus::find()?;
    pin_to(cpus.server)?;
    let settings = Settings {
        path: folder.join("henge.toml"),
        collector: collector()?,
    };
    settings.write(true)?;
    let path = settings.path.display().to_string();
    let flags = ["--config", &path, "--max-size", "128MiB"].map(str::to_owned);
    let server = Server::henge(binary, &flags)?;
    pin_to(cpus.load)?;
    let mut worst = 0.0_f64;
    for (name, kind, keys) in LOADS {
        // So that what is read is there, or was.
        benchmark(&server, "set", 3 * FEW_KEYS.max(keys / 2), keys, &[])?;
        let mut costs = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            // On comes first as often as off. The first turn after a change is not counted: how many keys are taken follows how many there are.
            for place in 0..2 {
                let is_on = (place + round) % 2 == 0;
                set(&server, &settings, is_on)?;
                benchmark(&server, kind, 2 * requests, keys, &[])?;
                let cost = benchmark(&server, kind, requests, keys, &[])?;
                let word = if is_on { "on" } else { "off" };
                println!("round {round}  {name:<31} {word:<3} {cost:.3} us of CPU");
                costs[usize::from(is_on)].push(cost);
            }
        }
        // Each round by itself, as a machine is faster in one than in another.
        let [off, on] = costs;
        let ratio = median(on.iter().zip(&off).map(|(on, off)| on / off).collect());
        let (off, on) = (median(off), median(on));
        println!("median   {name:<31} off {off:.3}  on {on:.3}  {ratio:.3}");
        worst = worst.max(ratio);
    }
    pin_to_any()?;
    print_figure("insight_cpu_over_none", worst);
    Ok(())
}

/// What a node is set to.
struct Settings {
    path: PathBuf,
    collector: SocketAddr,
}

impl Settings {
    fn write(&self, is_on: bool) -> Result<()> {
        let ratio = if is_on { "" } else { "sample_ratio = 0.0\n" };
        let collector = self.collector;
        let text = format!(
            "[insight]\nenabled = {is_on}\n[tracing]\nendpoint = \"http://{collector}\"\n{ratio}"
        );
        Ok(fs::write(&self.path, text)?)
    }
}

/// Takes whatever is sent, until the program ends.
fn collector() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // One that breaks is the node's to tell of, which counts what was not taken.
            let _ = take(stream);
        }
    });
    Ok(address)
}

/// Takes the requests of a connection.
fn take(stream: TcpStream) -> std::io::Result<()> {
    let mut answers = stream.try_clone()?;
    let mut requests = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while requests.read_line(&mut line)? > 0 {
        let lower = line.trim().to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if lower.is_empty() {
            std::io::copy(&mut requests.by_ref().take(length), &mut std::io::sink())?;
            answers.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        line.clear();
    }
    Ok(())
}

/// Turns all of it on or off.
fn set(server: &Server, settings: &Settings, is_on: bool) -> Result<()> {
    settings.write(is_on)?;
    let request = b"POST /admin/reload HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut connection = Connection::open(server.address()).await?;
        connection.expect_ok(request).await.map(drop)
    })?;
    let mut stream = TcpStream::connect(server.address())?;
    let threshold_us = if is_on { 10_000 } else { -1 };
    write!(
        stream,
        "CONFIG SET slowlog-log-slower-than {threshold_us}\r\n"
    )?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    if answer == *b"+OK\r\n" {
        Ok(())
    } else {
        Err("CONFIG SET is refused".into())
    }
}
