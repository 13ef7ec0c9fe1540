//! `bench replication`: writes a second that a majority of three replicas has, beside three etcd and beside Redis with two replicas;
//! and reads at QUORUM beside those at ONE, of whichever node and of the leaders of their keys. All of a contender's processes and the load share all CPUs, as there are fewer than
//! processes; contenders take turns, each alone on the machine, so that one that drifts slows all alike.
//!
//! | contender | a write is answered when | connections |
//! |---|---|---|
//! | henge, `sync = "always"` | two of three have synced it | spread over the nodes |
//! | etcd | two of three have synced it, which etcd always does | spread over the nodes |
//! | henge, no persistence | two of three have it in memory | spread over the nodes |
//! | Redis, no persistence | `WAIT 1`, one for a pipeline: the primary and a replica have it in memory | all to the primary |
//! | henge, `sync = "interval"`, each second | two of three have written it to their logs | spread over the nodes |
//! | Redis, `appendfsync everysec` | as above, and the log is written | all to the primary |
//!
//! The first two are compared, the next two, and the last two only for who reads. A node of Henge has one data thread, as Redis has: with
//! as many as CPUs there would be six of them for two. All else is as it is by itself.

mod etcd;
mod load;

use self::load::{Ask, Turn};
use super::proc::{Cpus, cpu_seconds, pin_to, pin_to_any, unpin};
use super::random::Random;
use super::ring::{address, page};
use super::server::{HENGE_OPTION, Server, henge_binary};
use super::three::{NODES, Three};
use super::{Arguments, Result, median, print_figure};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

pub(super) const OPTIONS: &[(&str, &str)] = &[
    ("rounds", "turns of each contender (3)"),
    ("secs", "seconds of each turn (3)"),
    ("connections", "connections of the load (50)"),
    (
        "only",
        "some of henge-always,etcd,henge-memory,redis-memory,henge-interval,redis-everysec (all)",
    ),
    ("etcd", "the binary of etcd (etcd)"),
    ("redis", "the binary of Redis (redis-server)"),
    HENGE_OPTION,
];

/// Requests of a pipeline, and the part of the figures' names.
const PIPELINES: [(usize, &str); 2] = [(1, "p1"), (16, "p16")];
/// How long etcd is waited for: many times what it takes.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(20);

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Contender {
    HengeAlways,
    Etcd,
    HengeMemory,
    RedisMemory,
    HengeInterval,
    RedisEverysec,
}

impl Contender {
    const ALL: [Self; 6] = [
        Self::HengeAlways,
        Self::Etcd,
        Self::HengeMemory,
        Self::RedisMemory,
        Self::HengeInterval,
        Self::RedisEverysec,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::HengeAlways => "henge-always",
            Self::Etcd => "etcd",
            Self::HengeMemory => "henge-memory",
            Self::RedisMemory => "redis-memory",
            Self::HengeInterval => "henge-interval",
            Self::RedisEverysec => "redis-everysec",
        }
    }

    /// Its settings, beside those that make three replicas of it.
    const fn settings(self) -> &'static [&'static str] {
        match self {
            Self::HengeAlways => &["persistence.enabled=true", "persistence.sync=always"],
            Self::HengeInterval => &["persistence.enabled=true", "persistence.sync=interval"],
            Self::HengeMemory => &["persistence.enabled=false"],
            Self::RedisMemory => &["--appendonly", "no"],
            Self::RedisEverysec => &["--appendonly", "yes", "--appendfsync", "everysec"],
            Self::Etcd => &[],
        }
    }
}

/// What is measured of a contender.
#[derive(Clone, Copy)]
struct Measure {
    contender: Contender,
    ask: Ask,
    pipeline: usize,
}

/// What was.
struct Measured {
    turn: Turn,
    /// CPU time of all servers for a request, in microseconds.
    cpu_us: f64,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let bench = Bench {
        henge: henge_binary(arguments)?,
        etcd: PathBuf::from(arguments.text("etcd").unwrap_or("etcd")),
        redis: PathBuf::from(arguments.text("redis").unwrap_or("redis-server")),
        connections: arguments.number("connections", 50_usize)?.max(1),
        seconds: arguments.number("secs", 3.0_f64)?.clamp(0.1, 600.0),
    };
    let rounds = arguments.number("rounds", 3_usize)?.max(1);
    let contenders = chosen(arguments)?;
    for contender in &contenders {
        println!("{}: {}", contender.name(), contender.settings().join(" "));
    }
    println!("one CPU time for all: three servers of each, and the load on one thread beside them");
    let mut measured: Vec<(Measure, Vec<Measured>)> = Vec::new();
    for round in 1..=rounds {
        for &contender in &contenders {
            for (measure, result) in bench.turn(contender)? {
                print(round, &measure, &result);
                let of = |(known, _): &(Measure, _)| measure.is(known);
                match measured.iter().position(of) {
                    Some(place) => measured[place].1.push(result),
                    None => measured.push((measure, vec![result])),
                }
            }
        }
    }
    figures(&measured);
    Ok(())
}

/// Those that were asked for.
fn chosen(arguments: &Arguments) -> Result<Vec<Contender>> {
    let Some(named) = arguments.text("only") else {
        return Ok(Contender::ALL.to_vec());
    };
    let find = |name: &str| {
        let known = Contender::ALL
            .into_iter()
            .find(|known| known.name() == name);
        known.ok_or_else(|| format!("there is nobody called {name:?} to measure").into())
    };
    named.split(',').map(find).collect()
}

impl Measure {
    fn is(&self, other: &Self) -> bool {
        (self.contender, self.ask, self.pipeline) == (other.contender, other.ask, other.pipeline)
    }
}

struct Bench {
    henge: PathBuf,
    etcd: PathBuf,
    redis: PathBuf,
    connections: usize,
    seconds: f64,
}

impl Bench {
    /// Starts a contender, measures it, and ends it.
    fn turn(&self, contender: Contender) -> Result<Vec<(Measure, Measured)>> {
        match contender {
            Contender::Etcd => self.etcd(),
            Contender::RedisMemory | Contender::RedisEverysec => self.redis(contender),
            Contender::HengeAlways | Contender::HengeMemory | Contender::HengeInterval => {
                self.henge(contender)
            }
        }
    }

    fn henge(&self, contender: Contender) -> Result<Vec<(Measure, Measured)>> {
        // A node has a data thread for each CPU that it may use when it starts.
        pin_to(Cpus::find()?.server)?;
        let three = Three::start(&self.henge, 200, contender.settings());
        pin_to_any()?;
        let three = three?;
        for server in &three.servers {
            unpin(server.pid())?;
        }
        load::fill(three.addresses[0])?;
        let mut asks: Vec<(usize, Ask)> = PIPELINES.map(|(p, _)| (p, Ask::Set)).to_vec();
        if contender == Contender::HengeMemory {
            let (most, _) = PIPELINES[PIPELINES.len() - 1];
            asks.extend([Ask::Get("ONE"), Ask::Get("QUORUM"), Ask::GetOwn].map(|ask| (most, ask)));
        }
        let own = led(&three.addresses)?;
        self.over_resp(contender, &three.servers, &own, &asks)
    }

    fn redis(&self, contender: Contender) -> Result<Vec<(Measure, Measured)>> {
        let primary = Server::redis_with(&self.redis, contender.settings())?;
        let (at, mut servers) = (primary.address(), vec![primary]);
        let (host, port) = (at.ip().to_string(), at.port().to_string());
        let of = [contender.settings(), &["--replicaof", &host, &port]].concat();
        for _ in 1..NODES {
            let replica = Server::redis_with(&self.redis, &of)?;
            replica.wait_for_line("sync: Finished with success")?;
            servers.push(replica);
        }
        load::fill(at)?;
        let asks = PIPELINES.map(|(pipeline, _)| (pipeline, Ask::SetAndWait));
        self.over_resp(contender, &servers, &[(at, Rc::default())], &asks)
    }

    fn over_resp(
        &self,
        contender: Contender,
        servers: &[Server],
        addresses: &[(SocketAddr, Rc<[usize]>)],
        asks: &[(usize, Ask)],
    ) -> Result<Vec<(Measure, Measured)>> {
        let measure = |&(pipeline, ask): &(usize, Ask)| {
            let measured = measured(servers, || {
                load::ask(addresses, self.connections, pipeline, ask, self.seconds)
            })?;
            let measure = Measure {
                contender,
                ask,
                pipeline,
            };
            Ok((measure, measured))
        };
        asks.iter().map(measure).collect()
    }

    fn etcd(&self) -> Result<Vec<(Measure, Measured)>> {
        let clients: Vec<SocketAddr> = (0..NODES).map(|n| address(210 + n as u8)).collect();
        let peers: Vec<String> = (0..NODES)
            .map(|n| format!("http://{}", address(220 + n as u8)))
            .collect();
        let all: Vec<String> = peers
            .iter()
            .enumerate()
            .map(|(n, peer)| format!("etcd{n}={peer}"))
            .collect();
        let mut servers = Vec::new();
        for (n, (at, peer)) in clients.iter().zip(&peers).enumerate() {
            let flags = [
                ["--listen-peer-urls", peer],
                ["--initial-advertise-peer-urls", peer],
                ["--initial-cluster", &all.join(",")],
                ["--initial-cluster-state", "new"],
            ];
            let flags: Vec<String> = flags
                .as_flattened()
                .iter()
                .map(ToString::to_string)
                .collect();
            servers.push(Server::etcd(&self.etcd, &format!("etcd{n}"), *at, &flags)?);
        }
        for at in &clients {
            let begun = Instant::now();
            while !page(*at, "/health").is_ok_and(|page| page["health"] == "true") {
                if begun.elapsed() > PATIENCE {
                    return Err("etcd is not healthy".into());
                }
                thread::park_timeout(LOOK);
            }
        }
        let measure = |(pipeline, _)| {
            let measured = measured(&servers, || {
                etcd::put(&clients, self.connections, pipeline, self.seconds)
            })?;
            let measure = Measure {
                contender: Contender::Etcd,
                ask: Ask::Set,
                pipeline,
            };
            Ok((measure, measured))
        };
        PIPELINES.into_iter().map(measure).collect()
    }
}

/// Nodes, and the numbers of the keys that each leads, in no order.
fn led(nodes: &[SocketAddr]) -> Result<Vec<(SocketAddr, Rc<[usize]>)>> {
    let ring = page(nodes[0], "/cluster/ring")?;
    let runs = ring["runs"].as_array().ok_or("a node has no ring")?;
    let slots = load::slots(nodes[0])?;
    let led = |at: &SocketAddr| {
        let address = at.to_string();
        let own = runs
            .iter()
            .filter(|run| run["holder"]["address"] == address);
        let own: Vec<(u64, u64)> = own
            .filter_map(|run| Some((run["first_slot"].as_u64()?, run["last_slot"].as_u64()?)))
            .collect();
        let is_own = |slot: u64| {
            own.iter()
                .any(|&(first, last)| (first..=last).contains(&slot))
        };
        let numbers = (0..slots.len()).filter(|&number| is_own(slots[number].into()));
        let mut numbers: Vec<usize> = numbers.collect();
        let mut random = Random::new(u64::from(at.port()));
        for last in (1..numbers.len()).rev() {
            numbers.swap(last, random.below(last + 1));
        }
        (*at, numbers.into())
    };
    let led: Vec<(SocketAddr, Rc<[usize]>)> = nodes.iter().map(led).collect();
    match led.iter().find(|(_, own)| own.is_empty()) {
        Some((at, _)) => Err(format!("{at} leads no key").into()),
        None => Ok(led),
    }
}

/// A turn, and what it cost the servers: with what is not counted of it, as a part of all.
fn measured(servers: &[Server], turn: impl FnOnce() -> Result<Turn>) -> Result<Measured> {
    let used = || {
        servers
            .iter()
            .map(|server| cpu_seconds(server.pid()))
            .sum::<Result<f64>>()
    };
    let (before, begun) = (used()?, Instant::now());
    let turn = turn()?;
    let cpu = used()? - before;
    let requests = turn.per_second * begun.elapsed().as_secs_f64();
    Ok(Measured {
        turn,
        cpu_us: cpu / requests * 1e6,
    })
}

fn print(round: usize, measure: &Measure, measured: &Measured) {
    let Measured { turn, cpu_us } = measured;
    let ask = match measure.ask {
        Ask::Set | Ask::SetAndWait => "SET".to_owned(),
        Ask::Get(level) => format!("GET {level}"),
        Ask::GetOwn => "GET of its own".to_owned(),
    };
    println!(
        "round {round}  {:<14} {ask:<14} P={:<2} {:>9.0} a second  {cpu_us:>7.2} us of CPU each  p50 {:>7.3} ms  p99 {:>7.3} ms",
        measure.contender.name(),
        measure.pipeline,
        turn.per_second,
        turn.p50_ms,
        turn.p99_ms,
    );
}

fn figures(measured: &[(Measure, Vec<Measured>)]) {
    let of = |contender: Contender, pipeline: usize, is_it: fn(Ask) -> bool| {
        let found = measured.iter().find(|(measure, _)| {
            measure.contender == contender && measure.pipeline == pipeline && is_it(measure.ask)
        })?;
        let rates = found.1.iter().map(|measured| measured.turn.per_second);
        Some(rates.collect::<Vec<f64>>())
    };
    let ratio = |name: &str, ours: Option<Vec<f64>>, theirs: Option<Vec<f64>>| {
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
            let shown: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
            println!("{name} by rounds: {}", shown.join(" "));
            print_figure(name, median(ratios));
        }
    };
    let is_set = |ask: Ask| ask.level().is_none();
    for (pipeline, part) in PIPELINES {
        for (ours, theirs, whom) in [
            (Contender::HengeAlways, Contender::Etcd, "etcd"),
            (Contender::HengeMemory, Contender::RedisMemory, "redis"),
            (
                Contender::HengeInterval,
                Contender::RedisEverysec,
                "redis_everysec",
            ),
        ] {
            ratio(
                &format!("quorum_set_{part}_over_{whom}"),
                of(ours, pipeline, is_set),
                of(theirs, pipeline, is_set),
            );
        }
        let get = |is_it| of(Contender::HengeMemory, pipeline, is_it);
        ratio(
            &format!("quorum_get_{part}_over_one"),
            get(|ask| ask == Ask::Get("QUORUM")),
            get(|ask| ask == Ask::Get("ONE")),
        );
        ratio(
            &format!("quorum_get_{part}_of_leaders_over_one"),
            get(|ask| ask == Ask::GetOwn),
            get(|ask| ask == Ask::Get("ONE")),
        );
    }
}
