//! `bench failover`: three nodes with three replicas of each partition, under writes to the two that stay, while something happens to
//! the third: how long the writes to the partitions that it led are not acknowledged, what clients are told, and whether there is
//! another leader.
//!
//! 1. It is killed, and started again for the next round.
//! 2. All that it sends, and all that is sent to it, is lost in silence, TCP and UDP; each node is in a network namespace of its own.
//! 3. It is paused for 300 ms, which is to make no other leader.

use super::network::Network;
use super::random::Random;
use super::ring::page;
use super::server::{HENGE_OPTION, henge_binary};
use super::three::{NODES, Three, name};
use super::{Arguments, Result, print_figure};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

pub(super) const OPTIONS: &[(&str, &str)] = &[
    ("kills", "kills of a leader (50)"),
    ("silences", "times that a leader's packets are lost (20)"),
    ("pauses", "pauses of 300 ms (50)"),
    ("rate", "writes a second (5000)"),
    HENGE_OPTION,
];

/// Connections of the load, half of them to each node that stays: at 5,000 writes a second each has 10 ms for one.
const CONNECTIONS: usize = 50;
/// Keys, a third of which each node leads.
const KEYS: usize = 600;
/// What a client waits for an answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// The load before something happens, and from then on: above all gaps that are allowed.
const BEFORE: Duration = Duration::from_millis(500);
const AFTER_KILL: Duration = Duration::from_millis(2500);
const AFTER_SILENCE: Duration = Duration::from_secs(5);
const AFTER_PAUSE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(300);
const SETTINGS: &str = "persistence.enabled=true";

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let kills = arguments.number("kills", 50_usize)?;
    let silences = arguments.number("silences", 20_usize)?;
    let pauses = arguments.number("pauses", 50_usize)?;
    let rate = arguments.number("rate", 5000_u32)?.max(1);
    let binary = henge_binary(arguments)?;
    if kills + pauses > 0 {
        let mut ring = Three::start(&binary, 240, &[SETTINGS])?;
        kill(&mut ring, kills, rate)?;
        pause(&mut ring, pauses, rate)?;
    }
    if silences > 0 {
        let network = Network::new(NODES)?;
        let rounds = || silence(&network, &binary, silences, rate).map_err(|e| e.to_string());
        network.amidst(rounds)?;
    }
    Ok(())
}

fn kill(ring: &mut Three<'_>, kills: usize, rate: u32) -> Result<()> {
    let mut gaps = Vec::new();
    let mut told = Told::new();
    for round in 0..kills {
        let victim = round % NODES;
        let seen = under_load(ring, victim, rate, AFTER_KILL, |ring| {
            ring.servers[victim].kill()
        })?;
        seen.print("killed", round, victim);
        gaps.push(seen.gap.as_secs_f64());
        add(&mut told, seen.errors);
        ring.restart(victim)?;
    }
    if kills == 0 {
        return Ok(());
    }
    // The longest but for one in fifty.
    print_gaps("failover_gap_seconds", gaps, kills / 50);
    let unknown = told.remove("UNKNOWN").unwrap_or(0);
    println!("{unknown} writes were told as unknown; else {told:?}");
    let others: u32 = told.values().sum();
    print_figure("failover_other_errors", f64::from(others));
    Ok(())
}

fn pause(ring: &mut Three<'_>, pauses: usize, rate: u32) -> Result<()> {
    let mut failovers = 0;
    for round in 0..pauses {
        let victim = round % NODES;
        let before = ring.epoch()?;
        let seen = under_load(ring, victim, rate, AFTER_PAUSE, |ring| {
            let pid = i32::try_from(ring.servers[victim].pid())?;
            let pid = Pid::from_raw(pid).ok_or("a process has a number")?;
            kill_process(pid, Signal::STOP)?;
            thread::park_timeout(PAUSE);
            Ok(kill_process(pid, Signal::CONT)?)
        })?;
        ring.settle()?;
        if ring.epoch()? != before {
            failovers += 1;
            seen.print("paused, and the topology has changed", round, victim);
        }
    }
    if pauses > 0 {
        print_figure("pause_failovers", f64::from(failovers));
    }
    Ok(())
}

fn silence(network: &Network, binary: &Path, silences: usize, rate: u32) -> Result<()> {
    // Nodes of several machines need one.
    let secret = Secret::new()?;
    let secret = format!("cluster.secret_file={}", secret.0.display());
    let mut ring = Three::start_in(network, binary, &[SETTINGS, &secret])?;
    let mut gaps = Vec::new();
    for round in 0..silences {
        let victim = round % NODES;
        let others = || (0..NODES).filter(move |&n| n != victim);
        let seen = under_load(&mut ring, victim, rate, AFTER_SILENCE, |_| {
            for other in others() {
                network.lose(victim + 1, other + 1);
                network.lose(other + 1, victim + 1);
            }
            Ok(())
        })?;
        seen.print("silent", round, victim);
        gaps.push(seen.gap.as_secs_f64());
        for other in others() {
            network.pass(victim + 1, other + 1);
            network.pass(other + 1, victim + 1);
        }
        ring.settle()?;
    }
    // The longest but for one in twenty.
    print_gaps("silent_gap_seconds", gaps, silences / 20);
    Ok(())
}

/// A file with a secret, for as long as this is there.
struct Secret(PathBuf);

impl Secret {
    fn new() -> Result<Self> {
        let name = format!("henge-bench-secret-{}", std::process::id());
        let secret = Self(std::env::temp_dir().join(name));
        fs::write(&secret.0, "a bench has no secrets".repeat(2))?;
        fs::set_permissions(&secret.0, fs::Permissions::from_mode(0o600))?;
        Ok(secret)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // It lies in the folder of temporary files.
        let _ = fs::remove_file(&self.0);
    }
}

/// Prints the longest gap but for so many that may be longer.
fn print_gaps(figure: &str, mut gaps: Vec<f64>, allowed: usize) {
    gaps.sort_by(f64::total_cmp);
    if let Some(worst) = gaps.last() {
        let median = gaps[gaps.len() / 2];
        println!("the longest of all is {worst:.3} s, the median {median:.3} s");
        print_figure(figure, gaps[gaps.len().saturating_sub(1 + allowed)]);
    }
}

/// Errors, by their codes.
type Told = BTreeMap<String, u32>;

fn add(told: &mut Told, more: Told) {
    for (error, count) in more {
        *told.entry(error).or_insert(0) += count;
    }
}

/// What clients saw.
struct Seen {
    gap: Duration,
    errors: Told,
}

impl Seen {
    fn print(&self, what: &str, round: usize, victim: usize) {
        println!(
            "round {round}: node{victim} is {what}: no write to what it led for {:.3} s; {:?}",
            self.gap.as_secs_f64(),
            self.errors
        );
    }
}

/// Writes to those that stay while something happens to one.
fn under_load(
    ring: &mut Three<'_>,
    victim: usize,
    rate: u32,
    after: Duration,
    happens: impl FnOnce(&mut Three<'_>) -> Result<()>,
) -> Result<Seen> {
    let name = name(victim);
    let survivor = ring.addresses[(victim + 1) % NODES];
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
    let end = begun + BEFORE + after;
    let interval = Duration::from_secs(1) * CONNECTIONS as u32 / rate;
    thread::scope(|scope| {
        let writers: Vec<_> = (0..CONNECTIONS)
            .map(|n| {
                let at = ring.addresses[(victim + 1 + n % (NODES - 1)) % NODES];
                let keys = &keys;
                let first = begun + interval * n as u32 / CONNECTIONS as u32;
                scope.spawn(move || write(at, keys, first, interval, end, n as u64))
            })
            .collect();
        thread::park_timeout(BEFORE.saturating_sub(begun.elapsed()));
        let at = Instant::now();
        let happened = happens(ring);
        let mut acknowledged = Vec::new();
        let mut errors = BTreeMap::new();
        for writer in writers {
            let (times, told) = writer.join().map_err(|_| "a writer panicked")??;
            acknowledged.extend(times);
            add(&mut errors, told);
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

type Written = (Vec<Instant>, Told);

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
    let mut errors = Told::new();
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
        let value = turn.to_string();
        let set = format!(
            "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n",
            key.len(),
            value.len()
        );
        let answer = stream
            .write_all(set.as_bytes())
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
