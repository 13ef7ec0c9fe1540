//! `bench memory`: what an item costs beside its key and value. A fresh node for each of several numbers of items, as
//! tables grow in steps and a single number could fall just before one or just behind; growth of the resident size over the
//! items, and the mean of all.

use super::client::{Connection, request, request_with};
use super::proc::rss;
use super::random::Random;
use super::server::{HENGE_OPTION, Server, henge_binary};
use super::{Arguments, Result, print_figure};
use std::path::Path;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

pub(super) const OPTIONS: &[(&str, &str)] = &[
    ("divisor", "of the numbers of items, for a quick look (1)"),
    HENGE_OPTION,
];

/// As the issue has them.
const ITEMS: [usize; 4] = [900_000, 1_000_000, 1_300_000, 1_800_000];
const KEY_BYTES: usize = 16;
/// Below the compression threshold, so that nothing is compressed.
const VALUE_BYTES: usize = 64;
/// Items in a request.
const BATCH: usize = 1000;
/// Requests before the growth is measured from: they write few keys many times, so that buffers are there and items are
/// not.
const WARM_UP_BATCHES: usize = 50;
const WARM_UP_KEYS: usize = 10;
/// Far above what all items take, so that nothing is evicted.
const MAX_SIZE: &str = "2GiB";

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let divisor = arguments.number("divisor", 1_usize)?.max(1);
    let binary = henge_binary(arguments)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    println!(
        "{:>12} {:>14} {:>14}",
        "items", "rss growth MiB", "overhead B"
    );
    let mut sum = 0.0;
    for items in ITEMS {
        let items = items / divisor;
        let growth = growth_bytes(&runtime, &binary, items)?;
        let overhead = growth / items as f64 - (KEY_BYTES + VALUE_BYTES) as f64;
        println!(
            "{items:>12} {:>14.1} {overhead:>14.2}",
            growth / 1_048_576.0
        );
        sum += overhead;
    }
    print_figure("item_overhead_bytes", sum / ITEMS.len() as f64);
    Ok(())
}

/// What the resident size of a fresh node grows by with this many items.
fn growth_bytes(runtime: &LocalRuntime, binary: &Path, items: usize) -> Result<f64> {
    let server = Server::henge(
        binary,
        &[format!("--max-size={MAX_SIZE}"), "--policy=lru".into()],
    )?;
    runtime.block_on(async {
        let mut connection = Connection::open(server.address()).await?;
        let mut random = Random::new(1);
        for _ in 0..WARM_UP_BATCHES {
            let keys = (0..BATCH).map(|i| i % WARM_UP_KEYS);
            write(&mut connection, keys, &mut random).await?;
        }
        let before = rss(server.pid())?.now;
        for start in (0..items).step_by(BATCH) {
            let keys = start..items.min(start + BATCH);
            write(&mut connection, keys, &mut random).await?;
        }
        let after = rss(server.pid())?.now;
        // Had some been evicted, the rest would look expensive or cheap; the first to go would be the oldest.
        for i in [0, 1, 2, items / 2, items - 1] {
            let target = format!("/get?key={}", key(i));
            connection.expect_ok(&request("GET", &target)).await?;
        }
        Ok(after.saturating_sub(before) as f64)
    })
}

async fn write(
    connection: &mut Connection,
    keys: impl Iterator<Item = usize>,
    random: &mut Random,
) -> Result<()> {
    let body = mset_body(keys, random);
    let request = request_with("POST", "/mset", "application/json", body.as_bytes());
    let answer = connection.expect_ok(&request).await?;
    // An mset is a 200 whatever became of its items.
    if answer.body.windows(8).any(|part| part == b"\"error\":") {
        return Err(format!("an item failed: {}", String::from_utf8_lossy(answer.body)).into());
    }
    Ok(())
}

fn mset_body(keys: impl Iterator<Item = usize>, random: &mut Random) -> String {
    let items: Vec<String> = keys
        .map(|i| {
            let (key, value) = (key(i), random.text(VALUE_BYTES));
            format!(r#"{{"key":"{key}","value":"{value}"}}"#)
        })
        .collect();
    format!(r#"{{"items":[{}]}}"#, items.join(","))
}

fn key(i: usize) -> String {
    format!("key-{i:012}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn bodies_hold_keys_and_values_of_the_right_size() {
        let body = mset_body(999..1001, &mut Random::new(1));
        let body: Value = serde_json::from_str(&body).expect("it is JSON");
        let items = body["items"].as_array().expect("items are an array");
        assert_eq!(items.len(), 2);
        for item in items {
            assert_eq!(item["key"].as_str().map(str::len), Some(KEY_BYTES));
            assert_eq!(item["value"].as_str().map(str::len), Some(VALUE_BYTES));
        }
    }
}
