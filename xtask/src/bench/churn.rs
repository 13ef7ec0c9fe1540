//! `bench churn`: does the limit hold? Random bytes of mixed sizes go through a small cache, many times its size, with
//! overwrites and deletes; halfway the sizes turn from mostly small to mostly large. What counts is the peak of the resident
//! size, and whether the node's own figure is the allocator's.

use super::client::{Connection, request, request_with};
use super::proc::rss;
use super::random::Random;
use super::server::{HENGE_OPTION, Server, henge_binary};
use super::{Arguments, Result, print_figure};
use serde_json::Value;
use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::JoinSet;

pub(super) const OPTIONS: &[(&str, &str)] = &[
    ("max-size", "the cache's limit, in MiB (256)"),
    ("write", "what to write, in MiB (4096)"),
    (
        "connections",
        "connections, each with one request at a time (8)",
    ),
    ("seed", "of the load (1)"),
    HENGE_OPTION,
];

/// Where `/stats` has the bytes that the cache charges itself, as a JSON pointer.
const CHARGED_BYTES: &str = "/memory/charged_bytes";
/// Where `/stats` has the bytes that the allocator holds.
const ALLOCATOR_BYTES: &str = "/memory/allocator_bytes";

/// What a process may take beside its cache: code, stacks, buffers of connections, tables that are no part of the limit.
const FIXED_BYTES: f64 = 64.0 * MIB;
/// What fragmentation may add to the limit.
const SLACK: f64 = 1.15;
const MIB: f64 = 1_048_576.0;

const SMALL: (usize, usize) = (10, 2_000);
const LARGE: (usize, usize) = (10_000, 100_000);
/// The part of the values that are of the other kind, in either half.
const ODD_ONES: f64 = 0.05;
/// The part of the requests that are deletes.
const DELETES: f64 = 0.1;
/// In the first half a value has 2 KB on average: these are some 900 MB, several times the limit, and each is
/// overwritten a few times.
const KEYS: usize = 400_000;
/// Lines of progress.
const REPORTS: u64 = 8;

/// The load, shared by the connections: who is next, and with what.
struct Load {
    random: Random,
    /// Values are slices of this, from anywhere in it.
    pool: Vec<u8>,
    written: u64,
    to_write: u64,
    reported: u64,
}

impl Load {
    fn new(seed: u64, to_write: u64) -> Self {
        let mut random = Random::new(seed);
        let pool = random.bytes(4 << 20);
        Self {
            random,
            pool,
            written: 0,
            to_write,
            reported: 0,
        }
    }

    /// The bytes written so far, when it is time to say so.
    fn report_due(&mut self) -> Option<u64> {
        let due = (self.written * REPORTS / self.to_write.max(1)).min(REPORTS);
        if due == self.reported {
            return None;
        }
        self.reported = due;
        Some(self.written)
    }

    /// The next request; None when all is written.
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.written >= self.to_write {
            return None;
        }
        let target = format!("/cache/key-{:08}", self.random.below(KEYS));
        if self.random.fraction() < DELETES {
            return Some(request("DELETE", &target));
        }
        let odd = self.random.fraction() < ODD_ONES;
        let second_half = self.written >= self.to_write / 2;
        let (least, most) = if odd == second_half { SMALL } else { LARGE };
        let size = self.random.size(least, most);
        let start = self.random.below(self.pool.len() - size);
        self.written += size as u64;
        let value = &self.pool[start..start + size];
        Some(request_with(
            "PUT",
            &target,
            "application/octet-stream",
            value,
        ))
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let limit_mib = arguments.number("max-size", 256_u64)?;
    let to_write = arguments.number("write", 4096_u64)? << 20;
    let connections = arguments.number("connections", 8_usize)?.max(1);
    let seed = arguments.number("seed", 1_u64)?;
    let binary = henge_binary(arguments)?;
    let server = Server::henge(&binary, &[format!("--max-size={limit_mib}MiB")])?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;

    println!("{:>12} {:>12} {:>12}", "written MiB", "rss MiB", "peak MiB");
    let stats: Value = runtime.block_on(async {
        let load = Rc::new(RefCell::new(Load::new(seed, to_write)));
        let mut clients = JoinSet::new();
        for _ in 0..connections {
            let mut connection = Connection::open(server.address()).await?;
            let (load, pid) = (Rc::clone(&load), server.pid());
            clients.spawn_local(async move { drive(&mut connection, &load, pid).await });
        }
        while let Some(result) = clients.join_next().await {
            result??;
        }
        let mut connection = Connection::open(server.address()).await?;
        let answer = connection.expect_ok(&request("GET", "/stats")).await?;
        Ok::<_, Box<dyn Error>>(serde_json::from_slice(answer.body)?)
    })?;

    let peak = rss(server.pid())?.peak as f64;
    let allowed = limit_mib as f64 * MIB * SLACK + FIXED_BYTES;
    let field = |pointer: &str| {
        let number = stats.pointer(pointer).and_then(Value::as_f64);
        number.ok_or_else(|| format!("/stats has no number at {pointer}"))
    };
    let (charged, allocator) = (field(CHARGED_BYTES)?, field(ALLOCATOR_BYTES)?);
    println!();
    for (name, bytes) in [
        ("peak of the resident size", peak),
        ("allowed", allowed),
        ("charged, says /stats", charged),
        ("the allocator's", allocator),
    ] {
        println!("{name:<28} {:>10.1} MiB", bytes / MIB);
    }
    print_figure("churn_rss_ratio", peak / allowed);
    print_figure("stats_vs_allocator", (charged / allocator - 1.0).abs());
    Ok(())
}

/// One connection's share of the load, with a line of progress now and then.
async fn drive(connection: &mut Connection, load: &RefCell<Load>, pid: u32) -> Result<()> {
    loop {
        let next = load.borrow_mut().next();
        let Some(request) = next else { return Ok(()) };
        if request.starts_with(b"DELETE") {
            // Whether a key that is not there is a 404 is not what is measured.
            connection.exchange(&request).await?;
        } else {
            connection.expect_ok(&request).await?;
        }
        if let Some(written) = load.borrow_mut().report_due() {
            let rss = rss(pid)?;
            let [written, now, peak] = [written, rss.now, rss.peak].map(|n| n as f64 / MIB);
            println!("{written:>12.0} {now:>12.1} {peak:>12.1}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_turn_halfway_and_all_is_written() {
        let mut load = Load::new(1, 40 << 20);
        let (mut deletes, mut reports) = (0, 0);
        // Small and large values of each half.
        let mut counts = [[0_u32; 2]; 2];
        loop {
            let half = usize::from(load.written >= load.to_write / 2);
            let Some(request) = load.next() else { break };
            reports += u64::from(load.report_due().is_some());
            if request.starts_with(b"DELETE /cache/key-") {
                deletes += 1;
            } else {
                assert!(request.starts_with(b"PUT /cache/key-"));
                counts[half][usize::from(request.len() > 5000)] += 1;
            }
        }
        assert!(load.written >= load.to_write);
        assert_eq!(reports, REPORTS);
        assert!(counts[0][0] > 10 * counts[0][1], "{counts:?}");
        assert!(counts[1][1] > 10 * counts[1][0], "{counts:?}");
        let all: u32 = counts.iter().flatten().sum();
        assert!(
            deletes * 20 > all && deletes * 5 < all,
            "{deletes} of {all}"
        );
    }
}
