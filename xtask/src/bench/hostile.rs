//! `bench hostile`: what clients that mean harm cost others. The others are an open-loop load at a quarter of what the node can do,
//! by itself and beside each of five attacks from another address: p99, requests that fail, and how large the node grows.
//!
//! The node has a CPU for itself. The load and the attackers, which are two processes, share the other, so what attackers take of
//! it could make the load late: how late it was sent is printed beside each p99, and is part of it.

mod attacks;

pub(super) use self::attacks::attack;
use self::attacks::{ATTACKS, BIG_BYTES, BIG_KEY, UNDER_WAY};
use super::proc::{Cpus, cpu_seconds, pin_to, pin_to_any, reset_peak, rss, thread_wait_seconds};
use super::server::{HENGE_OPTION, Server, henge_binary};
use super::{ATTACKER, Arguments, Result, median, print_figure};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::Value;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub(super) const OPTIONS: &[(&str, &str)] = &[
    ("runs", "runs, in each of which all take their turn (5)"),
    ("secs", "seconds of each turn (4)"),
    ("only", "one attack by its name"),
    ("over", "what the load speaks: redis or http (redis)"),
    HENGE_OPTION,
];

/// Of the capacity, what the load is.
const LOAD: f64 = 0.25;
/// p99 below this is good, whatever it is without attackers.
const P99_MS: f64 = 5.0;
/// From the end of an attack to what comes next.
const SETTLE: Duration = Duration::from_millis(500);
const MIB: u64 = 1 << 20;
/// What the cache may hold; its keys fill it.
const CACHE_MIB: u64 = 256;
/// What requests and answers may.
const IN_FLIGHT_MIB: u64 = 64;
/// The most that a node may be, beside requests and answers, as in `bench churn`.
const ROOM: f64 = 1.15;
const ROOM_MIB: u64 = 64;
const KEYS: &str = "240000";
const VALUE_BYTES: &str = "900";

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let seconds = arguments.number("secs", 4.0_f64)?.clamp(0.1, 600.0);
    let runs = arguments.number("runs", 5_usize)?.max(1);
    let only = arguments.text("only");
    if let Some(only) = only
        && !ATTACKS.iter().any(|(name, _)| *name == only)
    {
        return Err(format!("there is no attack {only:?}").into());
    }
    let scheme = match arguments.text("over").unwrap_or("redis") {
        scheme @ ("redis" | "http") => scheme,
        other => return Err(format!("--over is {other:?}; expected redis or http").into()),
    };
    let henge = henge_binary(arguments)?;
    // Each end of ten thousand connections needs a file for each.
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files)?;
    let cpus = Cpus::find()?;
    pin_to(cpus.server)?;
    let set = [
        format!("cache.max_size_bytes={CACHE_MIB}MiB"),
        format!("limits.max_inflight_bytes={IN_FLIGHT_MIB}MiB"),
        format!("limits.max_body_bytes={IN_FLIGHT_MIB}MiB"),
        "limits.max_value_bytes=16MiB".to_owned(),
    ];
    let flags: Vec<String> = set.into_iter().flat_map(|s| ["--set".into(), s]).collect();
    let server = Server::henge(&henge, &flags)?;
    pin_to(cpus.load)?;
    let bench = Bench {
        henge,
        url: format!("{scheme}://{}", server.address()),
        server,
        seconds,
    };
    let capacity = bench.capacity()?;
    let rate = (capacity * LOAD).round();
    let mut alone = Vec::new();
    let mut found: Vec<(&str, Vec<Beside>)> = ATTACKS.map(|(name, _)| (name, vec![])).into();
    found.retain(|(name, _)| only.is_none_or(|only| only == *name));
    for run in 1..=runs {
        let load = bench.load(rate)?;
        println!("run {run}: {:<17} {}", "alone", load.shown());
        alone.push(load);
        for (name, turns) in &mut found {
            let beside = bench.beside(name, rate)?;
            println!(
                "run {run}: {name:<17} {}; {:.0} MiB at most; CPU: node {:.2}, attackers {:.2}; {}",
                beside.load.shown(),
                mib(beside.peak_bytes),
                beside.node_cpu,
                beside.cpu,
                beside.done
            );
            turns.push(beside);
        }
    }
    pin_to_any()?;
    summary(&alone, &found);
    Ok(())
}

fn summary(alone: &[Load], found: &[(&str, Vec<Beside>)]) {
    let without = median(alone.iter().map(|load| load.p99_ms).collect());
    println!("p99 alone {without:.3} ms (median)");
    let all = found.iter().flat_map(|(_, turns)| turns);
    let peak = all.clone().map(|beside| beside.peak_bytes).max();
    let failed: f64 = all.map(|beside| beside.load.failed).sum();
    for (name, turns) in found {
        let p99 = median(turns.iter().map(|beside| beside.load.p99_ms).collect());
        println!(
            "p99 beside {name}: {p99:.3} ms (median), {:.2} times",
            p99 / without
        );
        print_figure(
            &format!("hostile_{name}_p99_over_bound"),
            p99 / (2.0 * without).max(P99_MS),
        );
    }
    let bound = CACHE_MIB as f64 * ROOM + (ROOM_MIB + IN_FLIGHT_MIB) as f64;
    let peak = mib(peak.unwrap_or(0));
    println!(
        "the node was {peak:.0} MiB at most, of {bound:.0}: {ROOM} times the {CACHE_MIB} MiB of the cache, {ROOM_MIB} MiB, and {IN_FLIGHT_MIB} MiB of limits.max_inflight_bytes"
    );
    print_figure("hostile_failed_requests", failed);
    print_figure("hostile_rss_over_bound", peak / bound);
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

struct Bench {
    henge: PathBuf,
    url: String,
    server: Server,
    seconds: f64,
}

/// What a load came to.
struct Load {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    longest_ms: f64,
    /// How late it was sent, for no reason but the load itself and who shares its CPU.
    lag_p99_ms: f64,
    /// Requests that were refused or not answered.
    failed: f64,
    /// Those that were due when it ended and had no connection that was free.
    unsent: f64,
    first_error: Option<String>,
    /// How long the node's data threads waited for their CPU while others had it: its own other threads, and whoever else is on
    /// the machine. Much of it makes p99 a figure of the machine.
    waited_ms: f64,
}

/// What it came to beside an attack.
struct Beside {
    load: Load,
    /// The most that the node was meanwhile.
    peak_bytes: u64,
    /// Of a CPU, what the node took.
    node_cpu: f64,
    /// Of another, what the attackers took.
    cpu: f64,
    /// What they did.
    done: String,
}

impl Load {
    fn of(report: &Value) -> Result<Self> {
        let all = &report["all"];
        let ms = |latencies: &Value, name: &str| latencies[name].as_f64().map(|us| us / 1e3);
        let latency = |name: &str| ms(&all["latency_us"], name);
        let number = |value: &Value| value.as_f64();
        let load = || {
            Some(Self {
                per_second: number(&all["ops_per_second"])?,
                p50_ms: latency("p50")?,
                p99_ms: latency("p99")?,
                longest_ms: latency("max")?,
                lag_p99_ms: ms(&report["send_lag_us"], "p99").unwrap_or(0.0),
                failed: number(&all["errors"])?,
                unsent: number(&report["unsent"])?,
                first_error: report["first_error"].as_str().map(str::to_owned),
                waited_ms: 0.0,
            })
        };
        load().ok_or_else(|| format!("henge bench found no figures: {report}").into())
    }

    fn shown(&self) -> String {
        let wrong = match &self.first_error {
            Some(error) => format!(", {} failed: {error}", self.failed),
            None if self.unsent > 0.0 => format!(", {} not sent", self.unsent),
            None => String::new(),
        };
        format!(
            "{:.0}/s, p50 {:.3} ms, p99 {:.3} ms, longest {:.1} ms, sent late p99 {:.3} ms, the node waited {:.0} ms for its CPU{wrong}",
            self.per_second,
            self.p50_ms,
            self.p99_ms,
            self.longest_ms,
            self.lag_p99_ms,
            self.waited_ms
        )
    }
}

impl Bench {
    /// Requests a second that the node can do with its CPU. The load shares the machine, and may not be able to ask for as many.
    fn capacity(&self) -> Result<f64> {
        // Writes all keys.
        self.bench(&["--duration", "100ms"])?;
        put_big(self.server.address())?;
        let before = cpu_seconds(self.server.pid())?;
        let report = self.bench(&["--no-load", "--duration", &self.duration()])?;
        let cpu = cpu_seconds(self.server.pid())? - before;
        let load = Load::of(&report)?;
        let capacity = report["all"]["ops"].as_f64().unwrap_or(0.0) / cpu;
        println!(
            "{}: {:.0} requests a second without a pause, {capacity:.0} for each second of CPU of the node; the load is {LOAD} of that",
            self.url, load.per_second
        );
        Ok(capacity)
    }

    fn duration(&self) -> String {
        format!("{}ms", (self.seconds * 1e3).round())
    }

    /// The load by itself.
    fn load(&self, rate: f64) -> Result<Load> {
        let rate = rate.to_string();
        let options = ["--no-load", "--rate", &rate, "--duration", &self.duration()];
        let waited = || thread_wait_seconds(self.server.pid(), "henge-data");
        let before = waited()?;
        let mut load = Load::of(&self.bench(&options)?)?;
        load.waited_ms = (waited()? - before) * 1e3;
        Ok(load)
    }

    /// The load beside an attack.
    fn beside(&self, name: &str, rate: f64) -> Result<Beside> {
        let pid = self.server.pid();
        reset_peak(pid)?;
        let attackers = Attackers::start(name, self.server.address())?;
        let begun = Instant::now();
        let before = (cpu_seconds(pid)?, cpu_seconds(attackers.child.id())?);
        let load = self.load(rate)?;
        let took = begun.elapsed().as_secs_f64();
        let after = (cpu_seconds(pid)?, cpu_seconds(attackers.child.id())?);
        let peak_bytes = rss(pid)?.peak;
        let done = attackers.end()?;
        // The node has thousands of connections to close, which is no part of what comes next.
        thread::park_timeout(SETTLE);
        Ok(Beside {
            load,
            peak_bytes,
            node_cpu: (after.0 - before.0) / took,
            cpu: (after.1 - before.1) / took,
            done,
        })
    }

    /// Runs `henge bench` with these options; its report.
    fn bench(&self, options: &[&str]) -> Result<Value> {
        let report = env::temp_dir().join(format!("henge-hostile-{}.json", std::process::id()));
        let output = Command::new(&self.henge)
            .args(["bench", "--url", &self.url, "--keys", KEYS])
            .args(["--size", VALUE_BYTES, "--warmup", "0s", "--json"])
            .arg(&report)
            .args(options)
            .output()?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("henge bench: {errors}").into());
        }
        let text = fs::read_to_string(&report)?;
        fs::remove_file(&report)?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// What clients ask for that read nothing.
fn put_big(at: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(at)?;
    let head = format!(
        "*3\r\n$3\r\nSET\r\n${}\r\n{BIG_KEY}\r\n${BIG_BYTES}\r\n",
        BIG_KEY.len()
    );
    stream.write_all(head.as_bytes())?;
    // Of all bytes, so that it is not compressed to nothing.
    let mut random = super::random::Random::new(1);
    let value: Vec<u8> = (0..BIG_BYTES).map(|_| random.below(256) as u8).collect();
    stream.write_all(&value)?;
    stream.write_all(b"\r\n")?;
    let mut reply = [0; 5];
    stream.read_exact(&mut reply)?;
    if &reply == b"+OK\r\n" {
        return Ok(());
    }
    Err(format!("SET was answered {}", reply.escape_ascii()).into())
}

/// The process of the attackers; it is killed when this is dropped.
struct Attackers {
    child: Child,
    /// Its end is that of the attack.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Attackers {
    /// Returns when the attack is under way.
    fn start(name: &str, at: SocketAddr) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args(["bench", ATTACKER, name, &at.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let Some(output) = child.stdout.take() else {
            return Err("the attackers have no output".into());
        };
        let mut attackers = Self {
            child,
            input,
            output: BufReader::new(output),
        };
        match attackers.line()?.as_str() {
            UNDER_WAY => Ok(attackers),
            other => Err(format!("the attackers said {other:?}").into()),
        }
    }

    /// Ends the attack; what was done.
    fn end(mut self) -> Result<String> {
        self.input = None;
        let done = self.line()?;
        self.child.wait()?;
        Ok(done)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        // It may have ended by itself, which is all that these could complain about.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
