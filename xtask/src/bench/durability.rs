//! `bench durability`: what the log and snapshots cost, beside a node without them and beside Redis with its own.
//!
//! 1. SET in pipelines of 16 over 50 connections, with the log synced at an interval and without a log: requests per CPU-second.
//!    The server has a CPU for itself and the load another; the two take turns.
//! 2. SET one at a time over 50 connections, with every write synced, beside Redis with `appendfsync always`: requests a
//!    second, and syncs for each 1,000 writes, which `strace` counts in runs of their own. CPUs as in part 1.
//! 3. A snapshot of some gigabytes: MB/s beside Redis's BGSAVE of the same data and beside what the disk writes in sequence;
//!    what it adds to the resident size and to the latency of 20,000 SET/s, CPUs as in part 1, as the load spins to send on
//!    time; and the restart beside Redis's, both with all CPUs.

use super::proc::{Cpus, cpu_seconds, pin_to, pin_to_any, reset_peak, rss, thread_cpu_seconds};
use super::server::{HENGE_OPTION, Server, henge_binary};
use super::{Arguments, Result, median, print_figure};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

pub(super) const OPTIONS: &[(&str, &str)] = &[
    (
        "rounds",
        "turns of each server in the parts 1 and 2, and of the load in part 3 (3)",
    ),
    ("requests", "requests of a turn of part 1 (3000000)"),
    ("syncs", "writes of a turn of part 2 (60000)"),
    ("gib", "GiB of the snapshot (2)"),
    ("part", "only 1, 2 or 3"),
    ("redis", "the binary of Redis (redis-server)"),
    HENGE_OPTION,
];

/// Bytes of a value in part 3: below what a node compresses by itself.
const VALUE_BYTES: u64 = 900;
/// What an item has beside its value there: a key of 16 bytes.
const KEY_BYTES: u64 = 16;
/// Writes a second while a snapshot is made.
const RATE: &str = "20000";

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let only = arguments.text("part").unwrap_or_default();
    let bench = Bench {
        henge: henge_binary(arguments)?,
        redis: PathBuf::from(arguments.text("redis").unwrap_or("redis-server")),
        cpus: Cpus::find()?,
        rounds: arguments.number("rounds", 3_usize)?.max(1),
    };
    let parts: [(&str, Part); 3] = [
        ("1", Bench::interval),
        ("2", Bench::always),
        ("3", Bench::snapshot),
    ];
    for (name, part) in parts {
        if only.is_empty() || only == name {
            part(&bench, arguments)?;
        }
    }
    Ok(())
}

type Part = fn(&Bench, &Arguments) -> Result<()>;

struct Bench {
    henge: PathBuf,
    redis: PathBuf,
    cpus: Cpus,
    rounds: usize,
}

fn flags(settings: &[&str]) -> Vec<String> {
    let all = settings.iter().flat_map(|setting| ["--set", setting]);
    all.map(str::to_owned).collect()
}

impl Bench {
    fn interval(&self, arguments: &Arguments) -> Result<()> {
        let requests = arguments.number("requests", 3_000_000_u64)?.max(1);
        println!(
            "SET P=16, 50 connections: requests per CPU-second of the data threads, and of all"
        );
        let (mut of_data, mut of_all) = (Vec::new(), Vec::new());
        for round in 1..=self.rounds {
            let mut turns = Vec::new();
            for setting in ["persistence.enabled=false", "persistence.enabled=true"] {
                pin_to(self.cpus.server)?;
                let server = Server::henge(&self.henge, &flags(&[setting]))?;
                pin_to(self.cpus.load)?;
                benchmark(server.address(), "16", requests / 10)?;
                let before = (
                    thread_cpu_seconds(server.pid(), "henge-data")?,
                    cpu_seconds(server.pid())?,
                );
                benchmark(server.address(), "16", requests)?;
                let data = thread_cpu_seconds(server.pid(), "henge-data")? - before.0;
                let all = cpu_seconds(server.pid())? - before.1;
                turns.push((requests as f64 / data, requests as f64 / all));
            }
            let (off, on) = (turns[0], turns[1]);
            println!(
                "  round {round}: without {:>9.0} {:>9.0}   with {:>9.0} {:>9.0}   {:.3} {:.3}",
                off.0,
                off.1,
                on.0,
                on.1,
                on.0 / off.0,
                on.1 / off.1
            );
            of_data.push(on.0 / off.0);
            of_all.push(on.1 / off.1);
        }
        print_figure("log_interval_data_ratio", median(of_data));
        print_figure("log_interval_all_ratio", median(of_all));
        Ok(())
    }

    fn always(&self, arguments: &Arguments) -> Result<()> {
        let writes = arguments.number("syncs", 60_000_u64)?.max(1_000);
        println!(
            "SET P=1, 50 connections, every write synced: requests a second, syncs for 1,000 writes"
        );
        let (mut rates, mut syncs) = (Vec::new(), Vec::new());
        for round in 1..=self.rounds {
            let mut turns = Vec::new();
            for ours in [true, false] {
                pin_to(self.cpus.server)?;
                let server = self.always_synced(ours, false)?;
                pin_to(self.cpus.load)?;
                benchmark(server.address(), "1", writes / 5)?;
                let per_second = benchmark(server.address(), "1", writes)?;
                drop(server);
                pin_to(self.cpus.server)?;
                let server = self.always_synced(ours, true)?;
                pin_to(self.cpus.load)?;
                benchmark(server.address(), "1", writes)?;
                let counted = server.syncs()?;
                turns.push((per_second, counted as f64 * 1e3 / writes as f64));
            }
            let (ours, theirs) = (turns[0], turns[1]);
            println!(
                "  round {round}: henge {:>7.0} {:>6.1}   redis {:>7.0} {:>6.1}   {:.2} {:.2}",
                ours.0,
                ours.1,
                theirs.0,
                theirs.1,
                ours.0 / theirs.0,
                ours.1 / theirs.1
            );
            rates.push(ours.0 / theirs.0);
            syncs.push(ours.1 / theirs.1);
        }
        print_figure("log_always_over_redis", median(rates));
        print_figure("log_always_syncs_over_redis", median(syncs));
        Ok(())
    }

    /// A server that syncs every write, and whose syncs may be counted.
    fn always_synced(&self, ours: bool, is_counted: bool) -> Result<Server> {
        let settings = flags(&["persistence.enabled=true", "persistence.sync=always"]);
        let options = ["--appendonly", "yes", "--appendfsync", "always"];
        match (ours, is_counted) {
            (true, false) => Server::henge(&self.henge, &settings),
            (true, true) => Server::henge_counted(&self.henge, &settings),
            (false, false) => Server::redis_with(&self.redis, &options),
            (false, true) => Server::redis_counted(&self.redis, &options),
        }
    }

    fn snapshot(&self, arguments: &Arguments) -> Result<()> {
        let gib = arguments.number("gib", 2.0_f64)?.clamp(0.01, 64.0);
        #[expect(clippy::cast_sign_loss, reason = "it is at least a hundredth")]
        let bytes = (gib * (1_u64 << 30) as f64) as u64;
        let keys = bytes / (VALUE_BYTES + KEY_BYTES);
        let megabytes = (keys * (VALUE_BYTES + KEY_BYTES)) as f64 / 1e6;
        println!("a snapshot of {keys} items, {megabytes:.0} MB of keys and values");

        pin_to_any()?;
        let disk = disk_rate(megabytes)?;
        println!("  the disk writes {disk:.0} MB/s in sequence");

        let size = format!("cache.max_size_bytes={}", 2 * bytes);
        let settings = ["persistence.enabled=true", &size];
        pin_to(self.cpus.server)?;
        let mut server = Server::henge(&self.henge, &flags(&settings))?;
        pin_to(self.cpus.load)?;
        self.load(server.address(), keys, &[])?;
        // The log of the loading is none of its concern.
        save(server.address())?;
        let quiet = timed(|| save(server.address()))?;
        let ours = megabytes / quiet;

        let seconds = format!("{:.1}s", quiet.max(2.0));
        let load = ["--rate", RATE, "--duration", &seconds, "--no-load"];
        self.load(server.address(), keys, &load)?;
        let before = rss(server.pid())?.now;
        let (mut ratios, mut peak) = (Vec::new(), 0);
        for round in 1..=self.rounds {
            let without = self.load(server.address(), keys, &load)?;
            let saving = while_saving(&server, || self.load(server.address(), keys, &load))?;
            let with = saving.0;
            peak = peak.max(saving.1);
            println!(
                "  round {round}: p99 of {RATE} SET/s {without:.0} us, and {with:.0} us with a snapshot"
            );
            ratios.push(with / without);
        }
        let rss_ratio = peak as f64 / before as f64;
        save(server.address())?;
        pin_to_any()?;
        let restarted = timed(|| server.restart(&self.henge, &flags(&settings)))?;
        drop(server);

        pin_to(self.cpus.server)?;
        let mut redis = Server::redis_with(&self.redis, &[])?;
        pin_to(self.cpus.load)?;
        self.load(redis.address(), keys, &[])?;
        let theirs = megabytes / timed(|| background_save(&redis))?;
        pin_to_any()?;
        let reloaded = timed(|| redis.restart_redis(&self.redis, &[]))?;

        println!("  MB/s: henge {ours:.0}, redis {theirs:.0}");
        println!("  resident: {before} bytes, and {peak} at most with a snapshot");
        println!("  restart: henge {restarted:.2} s, redis {reloaded:.2} s");
        print_figure("snapshot_over_redis", ours / theirs);
        print_figure("snapshot_over_disk", ours / disk);
        // Either is enough.
        print_figure(
            "snapshot_speed",
            (ours / theirs / 3.0).max(ours / disk / 0.8),
        );
        print_figure("snapshot_rss_ratio", rss_ratio);
        print_figure("snapshot_p99_ratio", median(ratios));
        print_figure("restart_over_redis", reloaded / restarted);
        Ok(())
    }

    /// Writes all keys, or what the options say; gives the p99 of the writes in microseconds.
    fn load(&self, address: SocketAddr, keys: u64, options: &[&str]) -> Result<f64> {
        let report = std::env::temp_dir().join(format!("henge-bench-{}.json", std::process::id()));
        let mut command = Command::new(&self.henge);
        command
            .args(["bench", "--url", &format!("redis://{address}")])
            .args([
                "--keys",
                &keys.to_string(),
                "--size",
                &VALUE_BYTES.to_string(),
            ])
            .args(["--read", "0", "--warmup", "0s"])
            .arg("--json")
            .arg(&report);
        if options.is_empty() {
            command.args(["--duration", "10ms", "--pipeline", "16"]);
        }
        let output = command.args(options).output()?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("henge bench: {errors}").into());
        }
        let text = fs::read_to_string(&report)?;
        fs::remove_file(&report)?;
        let found: serde_json::Value = serde_json::from_str(&text)?;
        let p99 = &found["writes"]["latency_us"]["p99"];
        p99.as_f64()
            .ok_or_else(|| "henge bench found no p99".into())
    }
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Writes so much to a file in sequence and syncs it; MB/s.
fn disk_rate(megabytes: f64) -> Result<f64> {
    let path = std::env::temp_dir().join(format!("henge-bench-{}.disk", std::process::id()));
    let piece = vec![0x5a; 1_000_000];
    let mut file = fs::File::create(&path)?;
    let begun = Instant::now();
    #[expect(clippy::cast_sign_loss, reason = "it is a size")]
    let written = (0..megabytes as u64).try_for_each(|_| file.write_all(&piece));
    let written = written.and_then(|()| file.sync_all());
    let took = begun.elapsed().as_secs_f64();
    fs::remove_file(&path)?;
    written?;
    Ok(megabytes / took)
}

/// One command, inline, and the first line of its answer.
fn ask(address: SocketAddr, command: &str) -> Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(address)?);
    stream
        .get_mut()
        .write_all(format!("{command}\r\n").as_bytes())?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    if let Some(len) = line.trim_end().strip_prefix('$') {
        let mut text = vec![0; len.parse()?];
        stream.read_exact(&mut text)?;
        return Ok(String::from_utf8_lossy(&text).into_owned());
    }
    Ok(line)
}

/// Has a node make a snapshot.
fn save(address: SocketAddr) -> Result<()> {
    match ask(address, "SAVE")?.trim_end() {
        "+OK" => Ok(()),
        other => Err(format!("SAVE was answered {other}").into()),
    }
}

/// The same in Redis, which forks for it.
fn background_save(server: &Server) -> Result<()> {
    ask(server.address(), "BGSAVE")?;
    server.wait_for_line("Background saving terminated with success")
}

/// Does something while snapshots are made, one after the other. Gives what it found and the highest resident size.
fn while_saving<T>(server: &Server, work: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    let is_done = AtomicBool::new(false);
    let address = server.address();
    reset_peak(server.pid())?;
    thread::scope(|scope| {
        let saver = scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                // What it fails with the other will see.
                if save(address).is_err() {
                    return;
                }
            }
        });
        let found = work();
        is_done.store(true, Ordering::Relaxed);
        saver.join().map_err(|_| "the saver panicked")?;
        Ok((found?, rss(server.pid())?.peak))
    })
}

/// Runs `redis-benchmark` with SET; requests a second.
fn benchmark(address: SocketAddr, pipeline: &str, requests: u64) -> Result<f64> {
    let begun = Instant::now();
    let output = Command::new("redis-benchmark")
        .args(["-p", &address.port().to_string(), "-q", "-t", "set"])
        .args(["-n", &requests.to_string(), "-r", "200000", "-d", "64"])
        .args(["-P", pipeline, "-c", "50"])
        .output()?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("redis-benchmark: {errors}").into());
    }
    Ok(requests as f64 / begun.elapsed().as_secs_f64())
}
