//! `bench moves`: three nodes with three replicas of each partition, in memory, under a load; a fourth joins, then the second is drained.
//! How long each takes, beside what the bytes that it moves need at the least; p99 meanwhile, beside that before; requests that fail,
//! and keys that are lost or older than they may be.
//!
//! The load is four reads to a write at QUORUM, each of 1 KiB, one at a time over 50 connections that are spread over all nodes, at a
//! quarter of the requests a second that these reach where each is sent as soon as the one before is answered. All of it shares the
//! CPUs of one machine, so that what more a fourth node costs is in p99 as well: each move is compared with what was before it.

mod keys;
mod load;

use self::keys::VALUE_BYTES;
use self::load::{Clients, Latency, Seen};
use super::ring::{address, page, status};
use super::server::{HENGE_OPTION, henge_binary};
use super::three::{NODES, Three, name};
use super::{Arguments, Result, median, print_figure};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

pub(super) const OPTIONS: &[(&str, &str)] = &[
    ("runs", "runs, each with nodes of its own (5)"),
    ("bytes", "of all values together (1GiB)"),
    (
        "secs",
        "seconds of the capacity's load, and of that before each move (5)",
    ),
    (
        "move-rate",
        "what a node sends a second for moves (16MiB, as it is by itself; or none)",
    ),
    HENGE_OPTION,
];

/// Of the capacity, what the load is.
const LOAD: f64 = 0.25;
/// What is not looked at when a load begins.
const WARM_UP: Duration = Duration::from_secs(1);
/// How often a node is asked how far it is.
const LOOK: Duration = Duration::from_millis(20);
/// Moves that take longer never end.
const PATIENCE: Duration = Duration::from_mins(10);
/// p99 below this is good, whatever it was before.
const P99_MS: f64 = 5.0;
/// The node that is drained: the second.
const DRAINED: usize = 1;

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let rate = match arguments.text("move-rate") {
        Some("none") => None,
        _ => Some(arguments.bytes("move-rate", 16 << 20)?),
    };
    let bench = Bench {
        bytes: arguments.bytes("bytes", 1 << 30)?.max(1 << 20),
        before: Duration::from_secs_f64(arguments.number("secs", 5.0_f64)?.clamp(0.1, 600.0)),
        rate,
    };
    let runs = arguments.number("runs", 5_usize)?.max(1);
    let binary = henge_binary(arguments)?;
    println!(
        "{:.0} MiB in values of {VALUE_BYTES} B, {}; the link is this machine's loopback",
        mib(bench.bytes),
        match rate {
            Some(rate) => format!("cluster.move_rate={:.0}MiB", mib(rate)),
            None => "cluster.move_rate=none".to_owned(),
        }
    );
    let mut joins = Vec::new();
    let mut drains = Vec::new();
    let mut seen = Seen::default();
    for run in 0..runs {
        println!("run {}", run + 1);
        let (join, drain, saw) = bench.run(&binary, run)?;
        joins.push(join);
        drains.push(drain);
        seen.add(saw);
    }
    for what in &seen.shown {
        println!("  {what}");
    }
    println!(
        "requests that failed: {:?}; reads of what must not be: {:?}",
        seen.failed, seen.wrong
    );
    print_figure("move_failed_requests", sum(seen.failed.values()));
    print_figure("move_wrong_reads", sum(seen.wrong.values()));
    for (what, moves) in [("join", &joins), ("drain", &drains)] {
        let of = |figure: fn(&Move) -> f64| median(moves.iter().map(figure).collect());
        println!(
            "{what}: {:.2} s, of which {:.2} s at the least; p99 {:.3} ms, {:.3} ms before (medians)",
            of(|one| one.took.as_secs_f64()),
            of(|one| one.least.as_secs_f64()),
            of(|one| one.during.p99_ms),
            of(|one| one.before.p99_ms),
        );
        print_figure(&format!("{what}_p99_over_bound"), of(Move::p99_over_bound));
        print_figure(
            &format!("{what}_time_over_least"),
            of(|one| one.took.as_secs_f64() / one.least.as_secs_f64()),
        );
    }
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn sum<'a>(counts: impl Iterator<Item = &'a usize>) -> f64 {
    counts.sum::<usize>() as f64
}

struct Bench {
    bytes: u64,
    /// How long a load is looked at before something moves.
    before: Duration,
    /// What a node may send a second for moves.
    rate: Option<u64>,
}

/// What a move came to.
struct Move {
    /// From the start of the node that joins, or the command to drain, to the last partition in its place.
    took: Duration,
    /// What it needs at the least: of the link and the rate that is allowed, what takes longer.
    least: Duration,
    before: Latency,
    during: Latency,
}

impl Move {
    fn p99_over_bound(&self) -> f64 {
        self.during.p99_ms / (2.0 * self.before.p99_ms).max(P99_MS)
    }
}

/// When something moved under a load, and what.
struct Moved {
    /// The load before it is looked at since then.
    looked: Instant,
    from: Instant,
    /// When a partition was first seen to be on its way.
    begun: Instant,
    to: Instant,
    /// What each node has sent for it.
    sent: Vec<u64>,
}

impl Bench {
    fn run(&self, binary: &Path, run: usize) -> Result<(Move, Move, Seen)> {
        // Room for all, and what a record has beside its value, and for copies that are on their way.
        let room = format!("cache.max_size_bytes={}", 2 * self.bytes + (256 << 20));
        let rate = match self.rate {
            Some(rate) => format!("cluster.move_rate={rate}"),
            None => "cluster.move_rate=none".to_owned(),
        };
        let settings = [room.as_str(), rate.as_str(), "persistence.enabled=false"];
        // Four of each run, and no other run has them.
        let first = 1 + 4 * (run % 60) as u8;
        let mut ring = Three::start(binary, first, &settings)?;
        let mut clients = Clients::new((self.bytes / VALUE_BYTES as u64) as usize);
        let begun = Instant::now();
        clients.fill(&ring.addresses)?;
        let filled = begun.elapsed().as_secs_f64();
        let (capacity, mut seen) = clients.capacity(&ring.addresses, self.before)?;
        let per_second = capacity * LOAD;
        println!(
            "  all keys are there after {filled:.1} s; {capacity:.0} requests a second, so the load is {per_second:.0}"
        );

        let at = ring.addresses.clone();
        let (moved, saw) = clients.under_load(&at, per_second, || {
            self.moved(&mut ring, |ring| {
                ring.join(address(first + NODES as u8))?;
                Ok(NODES)
            })
        })?;
        let join = self.summed("join", &moved, &saw)?;
        explain(&saw, &ring.addresses)?;
        seen.add(saw);
        ring.settle()?;
        read_back(&mut clients, &ring.addresses, &mut seen)?;

        let at = ring.addresses.clone();
        let (moved, saw) = clients.under_load(&at, per_second, || {
            self.moved(&mut ring, |ring| {
                drain(binary, ring.addresses[0])?;
                Ok(DRAINED)
            })
        })?;
        let drain = self.summed("drain", &moved, &saw)?;
        explain(&saw, &ring.addresses)?;
        seen.add(saw);
        // It holds nothing, so nothing ends with it.
        ring.servers[DRAINED].kill()?;
        let mut rest = ring.addresses.clone();
        rest.remove(DRAINED);
        read_back(&mut clients, &rest, &mut seen)?;
        Ok((join, drain, seen))
    }

    /// Waits under a load, does something that makes partitions move to or from a node, and waits until none does.
    fn moved(
        &self,
        ring: &mut Three<'_>,
        happens: impl FnOnce(&mut Three<'_>) -> Result<usize>,
    ) -> Result<Moved> {
        thread::park_timeout(WARM_UP);
        let looked = Instant::now();
        thread::park_timeout(self.before);
        let sent_before = sent(ring)?;
        let from = Instant::now();
        let node = happens(ring)?;
        let mut begun = None;
        let to = loop {
            thread::park_timeout(LOOK);
            if from.elapsed() > PATIENCE {
                let status = status(ring.addresses[0])?;
                return Err(format!("the moves do not end: {}", status["moves"]).into());
            }
            let Ok(status) = status(ring.addresses[0]) else {
                continue;
            };
            if status["moves"]["partitions_total"] != 0 {
                begun.get_or_insert_with(Instant::now);
            } else if begun.is_some() && is_over(&status, node) {
                break Instant::now();
            }
        };
        let sent = sent(ring)?.into_iter().enumerate();
        let sent = sent.map(|(n, sent)| sent - sent_before.get(n).copied().unwrap_or(0));
        Ok(Moved {
            looked,
            from,
            begun: begun.unwrap_or(from),
            to,
            sent: sent.collect(),
        })
    }

    /// What it came to, printed.
    fn summed(&self, what: &str, moved: &Moved, seen: &Seen) -> Result<Move> {
        let bytes: u64 = moved.sent.iter().sum();
        let most = moved.sent.iter().copied().max().unwrap_or(0);
        let link = copy(bytes)?;
        let rate = self.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(most as f64 / rate as f64)
        });
        let result = Move {
            took: moved.to - moved.from,
            least: link.max(rate),
            before: seen.latency(moved.looked, moved.from),
            during: seen.latency(moved.from, moved.to),
        };
        println!(
            "  {what}: {:.2} s, of which {:.2} s until the first partition moves; {:.0} MiB sent, {:.0} of it by one node; a copy of that over the link takes {:.2} s, cluster.move_rate allows {:.2} s",
            result.took.as_secs_f64(),
            (moved.begun - moved.from).as_secs_f64(),
            mib(bytes),
            mib(most),
            link.as_secs_f64(),
            rate.as_secs_f64(),
        );
        for (when, latency) in [("before", result.before), ("during", result.during)] {
            println!(
                "    {when}: {} requests, p50 {:.3} ms, p99 {:.3} ms, longest {:.3} ms",
                latency.requests, latency.p50_ms, latency.p99_ms, latency.longest_ms
            );
        }
        println!("    failed {:?}, wrong {:?}", seen.failed, seen.wrong);
        Ok(result)
    }
}

/// Where requests have failed: when, and what the nodes say has happened, as why they did is among that.
fn explain(seen: &Seen, at: &[SocketAddr]) -> Result<()> {
    if seen.failed.is_empty() {
        return Ok(());
    }
    for what in &seen.shown {
        println!("    {what}");
    }
    for at in at {
        println!("    at {at}: {}", page(*at, "/cluster/events")?["events"]);
    }
    Ok(())
}

/// Whether all is where it should be, and that is so of this node.
fn is_over(status: &Value, node: usize) -> bool {
    let moves = &status["moves"];
    let has_moved = moves["are_planned"] == true && moves["partitions_total"] == 0;
    let members = status["members"].as_array();
    let own = members.and_then(|all| all.iter().find(|member| member["name"] == name(node)));
    let holds = own.and_then(|own| own["holds_partitions"].as_u64());
    has_moved && holds.is_some_and(|holds| (holds == 0) == (node == DRAINED))
}

/// What each node has sent of copies since its start.
fn sent(ring: &Three<'_>) -> Result<Vec<u64>> {
    let sent = |at: &SocketAddr| {
        let status = status(*at)?;
        let sent = status["copies"]["sent_bytes"].as_u64();
        sent.ok_or_else(|| "a node says nothing of what it has sent".into())
    };
    ring.addresses.iter().map(sent).collect()
}

/// Has the node be drained, as its operator would, by asking another.
fn drain(binary: &Path, at: SocketAddr) -> Result<()> {
    let output = Command::new(binary)
        .args(["cluster", "drain", "--no-wait", "--url"])
        .arg(format!("http://{at}"))
        .arg(name(DRAINED))
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("drain: {}", String::from_utf8_lossy(&output.stderr)).into())
}

fn read_back(clients: &mut Clients, at: &[SocketAddr], seen: &mut Seen) -> Result<()> {
    let begun = Instant::now();
    let saw = clients.read_back(at)?;
    println!(
        "    all keys were read after it in {:.1} s: failed {:?}, wrong {:?}",
        begun.elapsed().as_secs_f64(),
        saw.failed,
        saw.wrong
    );
    seen.add(saw);
    Ok(())
}

/// How long so many bytes take over the loopback, from a thread to another.
fn copy(bytes: u64) -> Result<Duration> {
    const PIECE: usize = 256 << 10;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut from = TcpStream::connect(listener.local_addr()?)?;
    let (mut to, _) = listener.accept()?;
    let begun = Instant::now();
    let sender = thread::spawn(move || {
        let piece = vec![7; PIECE];
        let mut left = bytes as usize;
        while left > 0 {
            let now = left.min(PIECE);
            from.write_all(&piece[..now])?;
            left -= now;
        }
        std::io::Result::Ok(())
    });
    let mut buffer = vec![0; PIECE];
    let mut came = 0;
    loop {
        match to.read(&mut buffer)? {
            0 => break,
            read => came += read as u64,
        }
    }
    sender.join().map_err(|_| "the sender panicked")??;
    if came == bytes {
        return Ok(begun.elapsed());
    }
    Err("the link has lost some of it".into())
}
