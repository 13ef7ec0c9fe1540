//! `bench http`: requests per CPU-second of `GET /get` beside a bare hyper server that gives the same answer. Each server
//! has a CPU for itself, the load has another one, and the two take turns within a run, so that a machine whose speed
//! drifts slows both. Only the server's CPU time counts; how fast the load is does not, as long as it keeps up.

use super::client::{Connection, request, request_with};
use super::proc::{Cpus, cpu_seconds, pin_to};
use super::random::Random;
use super::server::{HENGE_OPTION, Server, henge_binary};
use super::{Arguments, Result, median, print_figure};
use std::cell::Cell;
use std::error::Error;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub(super) const OPTIONS: &[(&str, &str)] = &[
    ("rounds", "turns of each server (5)"),
    ("secs", "seconds of each turn (3)"),
    (
        "connections",
        "connections, each with one request at a time (50)",
    ),
    ("size", "bytes of a value (100)"),
    ("keys", "keys that are asked for (1000)"),
    (
        "against",
        "\"bare\" to measure the bare server against itself (henge)",
    ),
    HENGE_OPTION,
];

/// Before each turn is counted: connections open, caches warm.
const WARM_UP: Duration = Duration::from_millis(300);

/// A server that is less busy than this waits for the load; a round with such a turn compares nothing, and is repeated.
const LEAST_BUSY: f64 = 0.9;
/// So many times as many rounds as are asked for may be begun.
const TRIES: usize = 4;

/// What one turn found.
#[derive(Clone, Copy)]
struct Turn {
    per_cpu_second: f64,
    per_second: f64,
    /// The part of its CPU that the server used. Well below 1, it waited for the load, and each request then costs it
    /// more: one wake-up serves fewer of them.
    busy: f64,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let rounds = arguments.number("rounds", 5_usize)?.max(1);
    let length = Duration::from_secs_f64(arguments.number("secs", 3.0_f64)?.clamp(0.1, 600.0));
    let connections = arguments.number("connections", 50_usize)?.max(1);
    let size = arguments.number("size", 100_usize)?;
    let keys = arguments.number("keys", 1000_usize)?.max(1);
    let against_itself = arguments.text("against") == Some("bare");

    // Before the thread is pinned: the build may have all CPUs.
    let binary = if against_itself {
        None
    } else {
        Some(henge_binary(arguments)?)
    };
    let cpus = Cpus::find()?;
    pin_to(cpus.server)?;
    let first = match &binary {
        Some(binary) => Server::henge(binary, &[])?,
        None => Server::bare(&made_up_answer(size))?,
    };
    pin_to(cpus.load)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    let names: Vec<String> = (0..keys).map(|i| format!("key-{i:08}")).collect();
    let requests: Rc<[Vec<u8>]> = names
        .iter()
        .map(|name| request("GET", &format!("/get?key={name}")))
        .collect();
    if binary.is_some() {
        runtime.block_on(load(&first, &names, size))?;
    }
    let answer = runtime.block_on(async {
        let mut connection = Connection::open(first.address()).await?;
        let answer = connection.expect_ok(&requests[0]).await?;
        Ok::<_, Box<dyn Error>>(answer.raw.to_vec())
    })?;
    println!("{}\n", String::from_utf8_lossy(&answer).replace('\r', ""));
    pin_to(cpus.server)?;
    let bare = Server::bare(&answer)?;
    pin_to(cpus.load)?;

    let servers = [&bare, &first];
    let mut turns: [Vec<Turn>; 2] = [Vec::new(), Vec::new()];
    let mut idle = 0;
    while turns[0].len() < rounds {
        let round = turns[0].len() + idle;
        if round == rounds * TRIES {
            return Err(format!(
                "in {idle} of {round} rounds a server was less than {:.0}% busy: the machine has other work, and \
                 nothing was measured",
                LEAST_BUSY * 100.0
            )
            .into());
        }
        // Each goes first in turn: what a turn leaves behind (a warm CPU, timers) falls on both alike.
        let mut pair = [None; 2];
        for i in [round % 2, (round + 1) % 2] {
            let turn = measure(&runtime, servers[i], &requests, connections, length)?;
            pair[i] = Some(turn).filter(|turn| turn.busy >= LEAST_BUSY);
        }
        match pair {
            [Some(bare), Some(other)] => {
                turns[0].push(bare);
                turns[1].push(other);
            }
            _ => idle += 1,
        }
    }
    if idle > 0 {
        println!("left out {idle} rounds in which a server waited for the load");
    }

    let name = if against_itself {
        "bare again"
    } else {
        "henge"
    };
    let of = |i: usize, part: fn(&Turn) -> f64| median(turns[i].iter().map(part).collect());
    let ratios = turns[1].iter().zip(&turns[0]);
    let ratio = median(
        ratios
            .map(|(a, b)| a.per_cpu_second / b.per_cpu_second)
            .collect(),
    );
    println!(
        "{:<12} {:>12} {:>12} {:>8} {:>14}",
        "", "req/cpu-s", "req/s", "busy", "ratio to bare"
    );
    for (i, name, ratio) in [(0, "bare hyper", 1.0), (1, name, ratio)] {
        println!(
            "{name:<12} {:>12.0} {:>12.0} {:>7.0}% {ratio:>14.3}",
            of(i, |turn| turn.per_cpu_second),
            of(i, |turn| turn.per_second),
            of(i, |turn| turn.busy) * 100.0,
        );
    }
    let spread: Vec<String> = turns[1]
        .iter()
        .zip(&turns[0])
        .map(|(a, b)| format!("{:.3}", a.per_cpu_second / b.per_cpu_second))
        .collect();
    println!("ratios of the rounds: {}", spread.join(" "));
    print_figure("http_get_ratio", ratio);
    Ok(())
}

/// For the bare server against itself: the answer that a node would give, more or less.
fn made_up_answer(size: usize) -> Vec<u8> {
    let value = Random::new(1).text(size);
    let body = format!(
        r#"{{"key":"key-00000000","value":"{value}","ttl":null,"version":"1-960000000000001"}}"#
    );
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-consistency-level: QUORUM\r\n\
         content-length: {}\r\ndate: Mon, 23 Nov 2026 00:00:00 GMT\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn load(server: &Server, names: &[String], size: usize) -> Result<()> {
    let mut connection = Connection::open(server.address()).await?;
    let mut random = Random::new(1);
    for name in names {
        let body = format!(r#"{{"key":"{name}","value":"{}"}}"#, random.text(size));
        let request = request_with("POST", "/set", "application/json", body.as_bytes());
        connection.expect_ok(&request).await?;
    }
    Ok(())
}

/// One turn of one server, on connections of its own.
fn measure(
    runtime: &LocalRuntime,
    server: &Server,
    requests: &Rc<[Vec<u8>]>,
    connections: usize,
    length: Duration,
) -> Result<Turn> {
    runtime.block_on(async {
        let count = Rc::new(Cell::new(0_u64));
        let mut clients = JoinSet::new();
        for i in 0..connections {
            let mut connection = Connection::open(server.address()).await?;
            let (requests, count) = (Rc::clone(requests), Rc::clone(&count));
            clients.spawn_local(async move {
                // Each connection begins elsewhere among the keys, and never ends.
                for request in requests.iter().cycle().skip(i * 37 % requests.len()) {
                    connection.expect_ok(request).await?;
                    count.set(count.get() + 1);
                }
                Ok::<_, Box<dyn Error>>(())
            });
        }
        // A client ends only by an error, and then there is no point in going on.
        if let Ok(Some(ended)) = timeout(WARM_UP, clients.join_next()).await {
            ended??;
        }
        let (before, cpu_before, started) =
            (count.get(), cpu_seconds(server.pid())?, Instant::now());
        if let Ok(Some(ended)) = timeout(length, clients.join_next()).await {
            ended??;
        }
        let (after, cpu_after, seconds) = (
            count.get(),
            cpu_seconds(server.pid())?,
            started.elapsed().as_secs_f64(),
        );
        clients.shutdown().await;

        let (done, cpu) = ((after - before) as f64, cpu_after - cpu_before);
        if done == 0.0 || cpu == 0.0 {
            return Err("the server did nothing".into());
        }
        Ok(Turn {
            per_cpu_second: done / cpu,
            per_second: done / seconds,
            busy: cpu / seconds,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_made_up_answer_is_one() {
        let raw = made_up_answer(100);
        let head = super::super::client::Head::parse(&raw).ok().flatten();
        let head = head.expect("the head is whole");
        assert_eq!(head.len + head.body_len, raw.len());
    }
}
