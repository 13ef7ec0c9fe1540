//! `bench ring`: what being several costs. A GET that the node which was asked has to forward to another, in CPU time of both, over one
//! that it answers itself; and how long a ring of three is without a control leader whose process is killed.

use super::proc::{Cpus, cpu_seconds, pin_to, pin_to_any};
use super::server::{HENGE_OPTION, Server, henge_binary};
use super::{Arguments, Result, median, print_figure};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

pub(super) const OPTIONS: &[(&str, &str)] = &[
    ("rounds", "turns of each kind of GET, and kills (5)"),
    ("requests", "GETs of each turn (1000000)"),
    ("keys", "keys, all of which are there (100000)"),
    HENGE_OPTION,
];

/// How long a node is waited for: many times what it takes.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(5);

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let rounds = arguments.number("rounds", 5_usize)?.max(1);
    let requests = arguments.number("requests", 1_000_000_u64)?.max(1);
    let keys = arguments.number("keys", 100_000_u64)?.max(1);
    let binary = henge_binary(arguments)?;
    forward(&binary, rounds, requests, keys)?;
    kill(&binary, rounds)
}

/// Addresses that no other run of this has.
pub(super) fn address(n: u8) -> SocketAddr {
    let own = (std::process::id() % 250) as u8;
    SocketAddr::from((Ipv4Addr::new(127, 77, own, n), 7100))
}

/// Two nodes, of which the second has joined and was drained, so that it holds nothing: all that it is asked it forwards.
fn forward(binary: &Path, rounds: usize, requests: u64, keys: u64) -> Result<()> {
    let cpus = Cpus::find()?;
    pin_to(cpus.server)?;
    let one = [
        "--set".to_owned(),
        "cluster.replication_factor=1".to_owned(),
    ];
    let owner = Server::member(binary, "owner", address(1), &one)?;
    wait_until(address(1), "is ready", |status| {
        status["standing"] == "member"
    })?;
    let peers = ["--peers".to_owned(), address(1).to_string()];
    let other = Server::member(binary, "other", address(2), &peers)?;
    wait_until(address(2), "has joined", |status| {
        status["standing"] == "member"
    })?;
    let url = format!("http://{}", address(1));
    let drain = Command::new(binary)
        .args(["cluster", "drain", "--url", &url, "other"])
        .output()?;
    if !drain.status.success() {
        let said = String::from_utf8_lossy(&drain.stderr);
        return Err(format!("henge cluster drain: {said}").into());
    }
    pin_to(cpus.load)?;
    benchmark(owner.address(), "set", 3 * keys, keys)?;
    let used = || -> Result<f64> { Ok(cpu_seconds(owner.pid())? + cpu_seconds(other.pid())?) };
    let turn = |at: SocketAddr| -> Result<f64> {
        let before = used()?;
        benchmark(at, "get", requests, keys)?;
        Ok((used()? - before) / requests as f64 * 1e6)
    };
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let (local, forwarded) = (turn(owner.address())?, turn(other.address())?);
        println!("GET P=16: {local:.3} us of CPU where it is, {forwarded:.3} us forwarded");
        ratios.push(forwarded / local);
    }
    pin_to_any()?;
    print_figure("forwarded_get_cpu_ratio", median(ratios));
    Ok(())
}

fn benchmark(at: SocketAddr, command: &str, requests: u64, keys: u64) -> Result<()> {
    let output = Command::new("redis-benchmark")
        .args(["-h", &at.ip().to_string(), "-p", &at.port().to_string()])
        .args(["-n", &requests.to_string(), "-r", &keys.to_string()])
        .args(["-t", command, "-d", "64", "-P", "16", "-c", "50", "-q"])
        .output()?;
    if output.status.success() && !output.stdout.is_empty() {
        return Ok(());
    }
    Err(format!(
        "redis-benchmark: {}",
        String::from_utf8_lossy(&output.stderr)
    )
    .into())
}

/// Three nodes, whose control leader is killed: until both others know another one.
fn kill(binary: &Path, rounds: usize) -> Result<()> {
    let mut worst = 0.0_f64;
    for round in 0..rounds {
        let base = 10 + 3 * u8::try_from(round % 60).unwrap_or(0);
        let addresses = [address(base), address(base + 1), address(base + 2)];
        let mut servers = Vec::new();
        for (n, at) in addresses.iter().enumerate() {
            let others = addresses.iter().filter(|other| *other != at);
            let others: Vec<String> = others.map(ToString::to_string).collect();
            let peers = ["--peers".to_owned(), others.join(",")];
            servers.push(Some(Server::member(
                binary,
                &format!("node{n}"),
                *at,
                &peers,
            )?));
        }
        let mut leaders = Vec::new();
        for at in addresses {
            // While they form, two vote for a moment, and either of these is missed.
            let status = wait_until(at, "has all members up", |status| {
                let up = |member: &Value| member["state"] == "up";
                let members = status["members"].as_array();
                status["leader"].is_string()
                    && members.is_some_and(|all| all.len() == 3 && all.iter().all(up))
            })?;
            leaders.push(status["leader"].as_str().unwrap_or_default().to_owned());
        }
        let first = leaders[0].clone();
        let place = first
            .strip_prefix("node")
            .and_then(|n| n.parse::<usize>().ok());
        let place = place.ok_or_else(|| format!("the leader is called {first:?}"))?;
        drop(servers[place].take());
        let killed = Instant::now();
        for (n, at) in addresses.iter().enumerate() {
            if n != place {
                wait_until(*at, "knows another leader", |status| {
                    status["leader"].as_str().is_some_and(|now| now != first)
                })?;
            }
        }
        let led = killed.elapsed().as_secs_f64();
        // A change is agreed on: the lost one is marked.
        let survivor = addresses[(place + 1) % addresses.len()];
        wait_until(survivor, "knows who is down", |status| {
            let members = status["members"].as_array();
            members.is_some_and(|all| all.iter().any(|member| member["state"] == "down"))
        })?;
        let marked = killed.elapsed().as_secs_f64();
        println!(
            "another control leader after {led:.3} s, the lost one marked after {marked:.3} s"
        );
        worst = worst.max(led);
    }
    print_figure("control_failover_seconds", worst);
    Ok(())
}

/// Waits until a node's status is as it should be.
pub(super) fn wait_until(
    at: SocketAddr,
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Ok(status) = status(at)
            && is_so(&status)
        {
            return Ok(status);
        }
        thread::park_timeout(LOOK);
    }
    Err(format!("the node at {at} never {what}").into())
}

pub(super) fn status(at: SocketAddr) -> Result<Value> {
    page(at, "/cluster/status")
}

/// A page of a node, as JSON.
pub(super) fn page(at: SocketAddr, target: &str) -> Result<Value> {
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8(answer)?;
    let (_, body) = text
        .split_once("\r\n\r\n")
        .ok_or("an answer without an end")?;
    Ok(serde_json::from_str(body)?)
}
