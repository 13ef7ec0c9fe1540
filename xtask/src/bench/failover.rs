//! `bench failover`: three nodes with three replicas of each partition, under writes to the two that stay, while the third is killed, or
//! paused for a moment: how long the writes to the partitions that it led are not acknowledged, what clients are told, and
//! whether a pause of 300 ms makes another leader.

use super::random::Random;
use super::ring::{address, page, status, wait_until};
use super::server::{HENGE_OPTION, Server, henge_binary};
use super::{Arguments, Result, print_figure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

pub(super) const OPTIONS: &[(&str, &str)] = &[
    ("kills", "kills of a leader (50)"),
    ("pauses", "pauses of 300 ms (50)"),
    ("rate", "writes a second (5000)"),
    HENGE_OPTION,
];

const NODES: usize = 3;
/// Connections of the load, half of them to each node that stays: at 5,000 writes a second each has 10 ms for one.
const CONNECTIONS: usize = 50;
/// Keys, a third of which each node leads.
const KEYS: usize = 600;
/// What a client waits for an answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// The load before something happens, and from then on.
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(300);

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let kills = arguments.number("kills", 50_usize)?;
    let pauses = arguments.number("pauses", 50_usize)?;
    let rate = arguments.number("rate", 5000_u32)?.max(1);
    let binary = henge_binary(arguments)?;
    let mut ring = Ring::start(&binary)?;
    let mut gaps = Vec::new();
    let mut told = BTreeMap::new();
    for round in 0..kills {
        let victim = round % NODES;
        let seen = ring.under_load(victim, rate, |ring| ring.servers[victim].kill())?;
        println!(
            "kill {round} of node{victim}: no write to what it led for {:.3} s; {:?}",
            seen.gap.as_secs_f64(),
            seen.errors
        );
        gaps.push(seen.gap.as_secs_f64());
        for (error, count) in seen.errors {
            *told.entry(error).or_insert(0) += count;
        }
        ring.restart(&binary, victim)?;
    }
    let mut failovers = 0;
    for round in 0..pauses {
        let victim = round % NODES;
        let before = ring.epoch()?;
        let seen = ring.under_load(victim, rate, |ring| {
            let pid = i32::try_from(ring.servers[victim].pid())?;
            let pid = Pid::from_raw(pid).ok_or("a process has a number")?;
            kill_process(pid, Signal::STOP)?;
            thread::park_timeout(PAUSE);
            Ok(kill_process(pid, Signal::CONT)?)
        })?;
        ring.settle()?;
        if ring.epoch()? != before {
            failovers += 1;
            println!(
                "pause {round} of node{victim}: the topology has changed; {:?}",
                seen.errors
            );
        }
    }
    gaps.sort_by(f64::total_cmp);
    if let Some(worst) = gaps.last() {
        let allowed = gaps.len() / 50;
        let counted = gaps.len().saturating_sub(1 + allowed);
        println!(
            "the longest of all is {worst:.3} s, the median {:.3} s",
            gaps[gaps.len() / 2]
        );
        print_figure("failover_kill_seconds", gaps[counted]);
        let unknown = told.remove("UNKNOWN").unwrap_or(0);
        println!("{unknown} writes were told as unknown; else {told:?}");
        print_figure(
            "failover_other_errors",
            f64::from(told.values().sum::<u32>()),
        );
    }
    if pauses > 0 {
        print_figure("failover_pauses", f64::from(failovers));
    }
    Ok(())
}

struct Ring {
    servers: Vec<Server>,
    addresses: Vec<SocketAddr>,
}

/// What clients saw.
struct Seen {
    gap: Duration,
    /// By their codes.
    errors: BTreeMap<String, u32>,
}

impl Ring {
    fn start(binary: &Path) -> Result<Self> {
        let addresses: Vec<SocketAddr> = (0..NODES).map(|n| address(240 + n as u8)).collect();
        let mut ring = Self {
            servers: Vec::new(),
            addresses,
        };
        for n in 0..NODES {
            let (at, flags) = (ring.addresses[n], ring.flags(n));
            let server = Server::member(binary, &format!("node{n}"), at, &flags)?;
            ring.servers.push(server);
        }
        ring.settle()?;
        Ok(ring)
    }

    fn flags(&self, n: usize) -> Vec<String> {
        let others = self.addresses.iter().enumerate();
        let others = others.filter(|(other, _)| *other != n);
        let others: Vec<String> = others.map(|(_, at)| at.to_string()).collect();
        let mut flags = vec!["--peers".to_owned(), others.join(",")];
        for setting in ["cluster.replication_factor=3", "persistence.enabled=true"] {
            flags.extend(["--set".to_owned(), setting.to_owned()]);
        }
        flags
    }

    fn restart(&mut self, binary: &Path, n: usize) -> Result<()> {
        let flags = self.flags(n);
        let at = self.addresses[n];
        self.servers[n].restart_member(binary, &format!("node{n}"), at, &flags)?;
        self.settle()
    }

    /// Waits until each knows all to be up.
    fn settle(&self) -> Result<()> {
        for at in &self.addresses {
            wait_until(*at, "knows all to be up", |status| {
                let members = status["members"].as_array();
                members.is_some_and(|all| {
                    let is_up = |member: &Value| member["state"] == "up";
                    all.len() == NODES && all.iter().all(is_up)
                })
            })?;
        }
        Ok(())
    }

    fn epoch(&self) -> Result<u64> {
        let status = status(self.addresses[0])?;
        status["epoch"].as_u64().ok_or_else(|| "no epoch".into())
    }

    /// Writes to those that stay while something happens to one.
    fn under_load(
        &mut self,
        victim: usize,
        rate: u32,
        happens: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<Seen> {
        let name = format!("node{victim}");
        let survivor = self.addresses[(victim + 1) % NODES];
        let mut keys = [Vec::new(), Vec::new()];
        for key in 0..KEYS {
            let page = page(survivor, &format!("/cluster/ring?key=k{key}"))?;
            let is_its = page["holder"]["name"] == name;
            keys[usize::from(is_its)].push(format!("k{key}"));
        }
        if keys.iter().any(Vec::is_empty) {
            return Err(format!("{name} leads all keys, or none").into());
        }
        let begun = Instant::now();
        let end = begun + BEFORE + AFTER;
        let interval = Duration::from_secs(1) * CONNECTIONS as u32 / rate;
        thread::scope(|scope| {
            let writers: Vec<_> = (0..CONNECTIONS)
                .map(|n| {
                    let at = self.addresses[(victim + 1 + n % (NODES - 1)) % NODES];
                    let keys = &keys;
                    let first = begun + interval * n as u32 / CONNECTIONS as u32;
                    scope.spawn(move || write(at, keys, first, interval, end, n as u64))
                })
                .collect();
            thread::park_timeout(BEFORE.saturating_sub(begun.elapsed()));
            let at = Instant::now();
            let happened = happens(self);
            let mut acknowledged = Vec::new();
            let mut errors = BTreeMap::new();
            for writer in writers {
                let (times, told) = writer.join().map_err(|_| "a writer panicked")??;
                acknowledged.extend(times);
                for (error, count) in told {
                    *errors.entry(error).or_insert(0) += count;
                }
            }
            happened?;
            acknowledged.retain(|time| *time > at);
            acknowledged.push(end.max(at));
            acknowledged.sort();
            let mut gap = Duration::ZERO;
            let mut before = at;
            for time in acknowledged {
                gap = gap.max(time - before);
                before = time;
            }
            Ok(Seen { gap, errors })
        })
    }
}

type Written = (Vec<Instant>, BTreeMap<String, u32>);

/// Writes over one connection when it is time to, to the keys of the node that something happens to and to others in turn. When
/// each of the first was acknowledged, and the errors of all.
fn write(
    at: SocketAddr,
    keys: &[Vec<String>; 2],
    first: Instant,
    interval: Duration,
    end: Instant,
    seed: u64,
) -> io::Result<Written> {
    let mut random = Random::new(seed);
    let mut acknowledged = Vec::new();
    let mut errors: BTreeMap<String, u32> = BTreeMap::new();
    let mut stream = connect(at)?;
    let mut due = first;
    for turn in 0.. {
        if due >= end {
            break;
        }
        thread::park_timeout(due.saturating_duration_since(Instant::now()));
        due += interval;
        let is_its = turn % 2;
        let key = &keys[is_its][random.below(keys[is_its].len())];
        let answer = stream
            .write_all(format!("SET {key} {turn}\r\n").as_bytes())
            .and_then(|()| line(&mut stream));
        match answer {
            Ok(answer) if answer.starts_with('+') => {
                if is_its == 1 {
                    acknowledged.push(Instant::now());
                }
            }
            Ok(answer) => {
                let code = answer.split(' ').next().unwrap_or_default();
                *errors
                    .entry(code.trim_start_matches('-').to_owned())
                    .or_default() += 1;
            }
            Err(_) => {
                *errors.entry("no answer in time".to_owned()).or_default() += 1;
                stream = connect(at)?;
            }
        }
    }
    Ok((acknowledged, errors))
}

fn connect(at: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&at, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn line(stream: &mut TcpStream) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 512];
    while !bytes.ends_with(b"\r\n") {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..read]);
    }
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}
