//! `bench peers`: requests per CPU-second of GET and SET over the Redis protocol, beside an echo loop that does nothing else,
//! Redis and Valkey. Each server has a CPU for itself and `redis-benchmark` another; the servers take turns within a round,
//! so that a machine whose speed drifts slows all alike, and medians of the rounds' ratios are compared.

use super::echo::VALUE_BYTES;
use super::proc::{Cpus, cpu_seconds, pin_to};
use super::server::{HENGE_OPTION, Server, henge_binary};
use super::{Arguments, Result, median, print_figure};
use std::env;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) const OPTIONS: &[(&str, &str)] = &[
    ("rounds", "turns of each server (3)"),
    ("secs", "seconds of each turn (3)"),
    ("keys", "keys, all of which are there (1000000)"),
    (
        "only",
        "only workloads with this in their name, such as GET or P=16",
    ),
    (
        "servers",
        "some of echo,henge,redis,valkey (all that are installed)",
    ),
    ("redis", "the binary of Redis (redis-server)"),
    (
        "valkey",
        "the binary of Valkey (valkey-server, or what VALKEY_SERVER says)",
    ),
    HENGE_OPTION,
];

/// The same, of the two that the floor is about.
pub(super) const FLOOR_OPTIONS: &[(&str, &str)] = &[
    ("rounds", "turns of each server (3)"),
    ("secs", "seconds of each turn (3)"),
    ("keys", "keys, all of which are there (1000000)"),
    HENGE_OPTION,
];

/// What is asked.
struct Workload {
    name: &'static str,
    /// In the names of figures.
    figure: &'static str,
    command: &'static str,
    pipeline: &'static str,
    connections: &'static str,
}

const WORKLOADS: [Workload; 6] = [
    workload("GET P=1", "get_p1", "get", "1", "50"),
    workload("SET P=1", "set_p1", "set", "1", "50"),
    workload("GET P=16", "get_p16", "get", "16", "50"),
    workload("SET P=16", "set_p16", "set", "16", "50"),
    workload("GET P=64", "get_p64", "get", "64", "20"),
    workload("SET P=64", "set_p64", "set", "64", "20"),
];

const fn workload(
    name: &'static str,
    figure: &'static str,
    command: &'static str,
    pipeline: &'static str,
    connections: &'static str,
) -> Workload {
    Workload {
        name,
        figure,
        command,
        pipeline,
        connections,
    }
}

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Contender {
    Echo,
    Henge,
    Redis,
    Valkey,
}

impl Contender {
    const ALL: [Self; 4] = [Self::Echo, Self::Henge, Self::Redis, Self::Valkey];

    const fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Henge => "henge",
            Self::Redis => "redis",
            Self::Valkey => "valkey",
        }
    }
}

/// What one turn found.
#[derive(Clone, Copy)]
struct Turn {
    per_cpu_second: f64,
    per_second: f64,
    p99_ms: f64,
}

/// Requests of the run that says how many a longer one has.
const SIZING_REQUESTS: u64 = 200_000;
/// Keys that are set at once before anything is measured.
const LOAD_BATCH: u64 = 500;

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let only = arguments.text("only").unwrap_or_default();
    let named: Vec<&str> = arguments
        .text("servers")
        .map(|names| names.split(',').collect())
        .unwrap_or_default();
    for name in &named {
        if !Contender::ALL.iter().any(|known| known.name() == *name) {
            return Err(format!("there is no server {name:?} to compare with").into());
        }
    }
    let binaries = Binaries::find(arguments, &named)?;
    let workloads: Vec<&Workload> = WORKLOADS
        .iter()
        .filter(|workload| workload.name.contains(only))
        .collect();
    compare(arguments, &binaries, &workloads)
}

/// `bench floor`: one request at a time, beside the echo loop alone.
pub(super) fn run_floor(arguments: &Arguments) -> Result<()> {
    let binaries = Binaries::find(arguments, &["echo", "henge"])?;
    compare(arguments, &binaries, &[&WORKLOADS[0], &WORKLOADS[1]])
}

struct Binaries {
    contenders: Vec<Contender>,
    henge: PathBuf,
    redis: PathBuf,
    valkey: PathBuf,
}

impl Binaries {
    /// Those that were named; all that are installed if none was.
    fn find(arguments: &Arguments, named: &[&str]) -> Result<Self> {
        let redis = PathBuf::from(arguments.text("redis").unwrap_or("redis-server"));
        let valkey = match arguments.text("valkey") {
            Some(path) => PathBuf::from(path),
            None => env::var_os("VALKEY_SERVER").map_or("valkey-server".into(), PathBuf::from),
        };
        let contenders = Contender::ALL
            .into_iter()
            .filter(|contender| match contender {
                _ if !named.is_empty() => named.contains(&contender.name()),
                Contender::Echo | Contender::Henge => true,
                Contender::Redis => is_installed(&redis),
                Contender::Valkey => is_installed(&valkey),
            })
            .collect();
        if !is_installed(Path::new("redis-benchmark")) {
            return Err("redis-benchmark is not installed; Debian has it in redis-tools".into());
        }
        Ok(Self {
            contenders,
            henge: henge_binary(arguments)?,
            redis,
            valkey,
        })
    }

    fn start(&self, contender: Contender) -> Result<Server> {
        match contender {
            Contender::Echo => Server::echo(),
            Contender::Henge => Server::henge(&self.henge, &[]),
            Contender::Redis => Server::redis(&self.redis),
            Contender::Valkey => Server::redis(&self.valkey),
        }
    }
}

fn is_installed(binary: &Path) -> bool {
    Command::new(binary)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

fn compare(arguments: &Arguments, binaries: &Binaries, workloads: &[&Workload]) -> Result<()> {
    let rounds = arguments.number("rounds", 3_usize)?.max(1);
    let seconds = arguments.number("secs", 3.0_f64)?.clamp(0.1, 600.0);
    let keys = arguments.number("keys", 1_000_000_u64)?.max(1);
    let cpus = Cpus::find()?;
    let contenders = &binaries.contenders;
    let mut turns = vec![vec![Vec::new(); contenders.len()]; workloads.len()];
    for _ in 0..rounds {
        for (place, &contender) in contenders.iter().enumerate() {
            pin_to(cpus.server)?;
            let server = binaries.start(contender)?;
            pin_to(cpus.load)?;
            fill(&server, keys)?;
            for (workload, turns) in workloads.iter().zip(&mut turns) {
                turns[place].push(measure(&server, workload, keys, seconds)?);
            }
        }
    }
    report(contenders, workloads, &turns);
    Ok(())
}

/// Sets every key once, over one connection.
fn fill(server: &Server, keys: u64) -> Result<()> {
    let mut stream = TcpStream::connect(server.address())?;
    let value = format!("${VALUE_BYTES}\r\n{}\r\n", "x".repeat(VALUE_BYTES));
    let mut replies = vec![0; 5 * LOAD_BATCH as usize];
    let mut next = 0;
    while next < keys {
        let batch = next..keys.min(next + LOAD_BATCH);
        next = batch.end;
        let count = (batch.end - batch.start) as usize;
        let mut requests = String::new();
        for n in batch {
            let set = format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:{n:012}\r\n");
            requests.push_str(&set);
            requests.push_str(&value);
        }
        stream.write_all(requests.as_bytes())?;
        stream.read_exact(&mut replies[..5 * count])?;
        if !replies[..5 * count]
            .chunks(5)
            .all(|reply| reply == b"+OK\r\n")
        {
            return Err("a server does not take the keys".into());
        }
    }
    Ok(())
}

fn measure(server: &Server, workload: &Workload, keys: u64, seconds: f64) -> Result<Turn> {
    let sizing = benchmark(server, workload, keys, SIZING_REQUESTS)?;
    #[expect(clippy::cast_sign_loss, reason = "neither factor is negative")]
    let requests = SIZING_REQUESTS.max((sizing.0 * seconds) as u64);
    let before = cpu_seconds(server.pid())?;
    let (per_second, p99_ms) = benchmark(server, workload, keys, requests)?;
    let used = cpu_seconds(server.pid())? - before;
    if used <= 0.0 {
        return Err("the server did nothing".into());
    }
    Ok(Turn {
        per_cpu_second: requests as f64 / used,
        per_second,
        p99_ms,
    })
}

/// Runs `redis-benchmark`: requests a second, and the 99th percentile of the latency in milliseconds.
fn benchmark(server: &Server, workload: &Workload, keys: u64, requests: u64) -> Result<(f64, f64)> {
    let output = Command::new("redis-benchmark")
        .args(["-p", &server.address().port().to_string()])
        .args(["-n", &requests.to_string(), "-r", &keys.to_string()])
        .args(["-d", &VALUE_BYTES.to_string(), "-t", workload.command])
        .args(["-P", workload.pipeline, "-c", workload.connections, "--csv"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_csv(&text).ok_or_else(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("redis-benchmark said {text:?} {errors:?}").into()
    })
}

/// The last line: name, requests a second, then average, minimum, p50, p95, p99 and maximum in milliseconds.
fn parse_csv(text: &str) -> Option<(f64, f64)> {
    let row = text
        .lines()
        .rfind(|line| line.starts_with('"') && !line.starts_with("\"test\""))?;
    let mut fields = row.split(',').map(|field| field.trim_matches('"'));
    let per_second = fields.nth(1)?.parse().ok()?;
    let p99_ms = fields.nth(4)?.parse().ok()?;
    Some((per_second, p99_ms))
}

fn report(contenders: &[Contender], workloads: &[&Workload], turns: &[Vec<Vec<Turn>>]) {
    let of = |turns: &[Turn], part: fn(&Turn) -> f64| median(turns.iter().map(part).collect());
    println!(
        "{:<10} {:<8} {:>12} {:>12} {:>8}   henge's requests per CPU-second over it, by round",
        "", "", "req/cpu-s", "req/s", "p99 ms"
    );
    let henge = contenders.iter().position(|&c| c == Contender::Henge);
    for (workload, turns) in workloads.iter().zip(turns) {
        for (&contender, theirs) in contenders.iter().zip(turns) {
            print!(
                "{:<10} {:<8} {:>12.0} {:>12.0} {:>8.3}",
                workload.name,
                contender.name(),
                of(theirs, |turn| turn.per_cpu_second),
                of(theirs, |turn| turn.per_second),
                of(theirs, |turn| turn.p99_ms),
            );
            let ours = henge.map(|place| &turns[place]);
            match ours {
                Some(ours) if contender != Contender::Henge => {
                    let ratios = ratios(ours, theirs);
                    let shown: Vec<String> = ratios.iter().map(|r| format!("{r:.2}")).collect();
                    println!("   {:.2} ({})", median(ratios), shown.join(" "));
                }
                _ => println!(),
            }
        }
    }
    let Some(henge) = henge else {
        return;
    };
    for (workload, turns) in workloads.iter().zip(turns) {
        for (&contender, theirs) in contenders.iter().zip(turns) {
            if contender == Contender::Henge {
                continue;
            }
            let (name, ours) = (contender.name(), &turns[henge]);
            print_figure(
                &format!("resp_{}_over_{name}", workload.figure),
                median(ratios(ours, theirs)),
            );
            if contender == Contender::Redis {
                print_figure(
                    &format!("resp_{}_p99_over_{name}", workload.figure),
                    of(ours, |turn| turn.p99_ms) / of(theirs, |turn| turn.p99_ms),
                );
            }
        }
    }
}

fn ratios(ours: &[Turn], theirs: &[Turn]) -> Vec<f64> {
    ours.iter()
        .zip(theirs)
        .map(|(a, b)| a.per_cpu_second / b.per_cpu_second)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_redis_benchmark_is_read() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
            \"GET\",\"890273.75\",\"1.371\",\"0.128\",\"0.855\",\"3.855\",\"7.775\",\"24.527\"\n";
        assert_eq!(parse_csv(text), Some((890_273.75, 7.775)));
        assert_eq!(parse_csv("Error: connection refused"), None);
    }
}
