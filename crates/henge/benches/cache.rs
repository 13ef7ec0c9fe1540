//! What a GET and a SET cost in the cache itself, one by one and looked up ahead in batches as a pipeline's are, on one thread
//! and on two: no socket, no protocol. `cargo bench --bench
//! cache` measures; `cargo test`, which does not say `--bench`, has a tiny run of it, so that it does not rot.

use henge::allocator::{self, Allocator};
use henge::cache::{AHEAD, Cache, CacheConfig, Location, LookAhead};
use henge_engine::PolicyKind;
use henge_wire::{Command, Expiry, Operation, Precondition, Reply, Value, Version};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

struct Size {
    keys: u64,
    operations: u64,
    rounds: usize,
}

fn main() {
    let measure = std::env::args().any(|argument| argument == "--bench");
    let size = if measure {
        Size {
            keys: 1_000_000,
            operations: 1_000_000,
            rounds: 15,
        }
    } else {
        Size {
            keys: 1_000,
            operations: 1_000,
            rounds: 1,
        }
    };
    let cache = Cache::new(&CacheConfig {
        max_size_bytes: 1 << 30,
        max_items: None,
        policy: PolicyKind::Lru,
        seed: 42,
        first: Version::new(1, 0),
        threads: 2,
        allocation_size: allocator::rounded_size,
        remembers_departures: true,
    });
    let value = [b'x'; 64];
    for n in 0..size.keys {
        let key = key(n);
        set(&cache, cache.locate(&key), &key, &value);
    }
    let each = |run: &dyn Fn(Location, &[u8]), batch: &[u64]| {
        let keys: &[[u8; 16]] = &batch.iter().map(|&n| key(n)).collect::<Vec<_>>();
        if let [key] = keys {
            return run(cache.locate(key), key);
        }
        let located: Vec<Location> = keys.iter().map(|key| cache.locate(key)).collect();
        let mut ahead = LookAhead::default();
        for (nth, (key, at)) in keys.iter().zip(&located).enumerate() {
            ahead.before(nth, &cache, &located);
            run(*at, key);
        }
    };
    let get = |at: Location, key: &[u8]| get(&cache, at, key);
    let set = |at: Location, key: &[u8]| set(&cache, at, key, &value);
    report("get", &size, 1, &|batch| each(&get, batch));
    report("set", &size, 1, &|batch| each(&set, batch));
    report("get_ahead", &size, BATCH, &|batch| each(&get, batch));
    report("set_ahead", &size, BATCH, &|batch| each(&set, batch));
}

/// Operations that are looked up ahead together, as a pipeline of so many commands is.
const BATCH: usize = AHEAD;

/// Prints what an operation costs on one thread and on two, and how much more two do: the median over rounds, in each of which
/// one is measured beside the other, so that what disturbs one disturbs both.
fn report(name: &str, size: &Size, batch: usize, operation: &(impl Fn(&[u64]) + Sync)) {
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..size.rounds {
        one.push(run(1, size, batch, operation));
        two.push(run(2, size, batch, operation));
    }
    let speedup = median(
        one.iter()
            .zip(&two)
            .map(|(one, two)| 2.0 * one / two)
            .collect(),
    );
    let (one, two) = (median(one), median(two));
    println!(
        "{name}: {one:.0} ns on one thread, {two:.0} ns on each of two, together {speedup:.2} times one",
    );
    println!("figure cache_{name}_ns {one:.1}");
    println!("figure cache_{name}_two_thread_speedup {speedup:.3}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds for an operation on each of so many threads.
fn run(threads: u64, size: &Size, batch: usize, operation: &(impl Fn(&[u64]) + Sync)) -> f64 {
    let barrier = Barrier::new(threads as usize);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let mut state = 0x9e37_79b9_7f4a_7c15 ^ (thread + 1);
                    barrier.wait();
                    let start = Instant::now();
                    let mut keys = vec![0; batch];
                    for _ in 0..size.operations / batch as u64 {
                        for key in &mut keys {
                            state = next(state);
                            *key = ((u128::from(state) * u128::from(size.keys)) >> 64) as u64;
                        }
                        operation(&keys);
                    }
                    start.elapsed().as_nanos() as f64 / size.operations as f64
                })
            })
            .collect();
        let times: Vec<f64> = workers
            .into_iter()
            .map(|w| w.join().expect("no operation panics"))
            .collect();
        times.iter().sum::<f64>() / threads as f64
    })
}

fn next(state: u64) -> u64 {
    let state = state ^ (state << 13);
    let state = state ^ (state >> 7);
    state ^ (state << 17)
}

fn key(n: u64) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let (mut n, mut at) = (n, 15);
    while n > 0 {
        key[at] = b'0' + (n % 10) as u8;
        n /= 10;
        at -= 1;
    }
    key
}

fn get(cache: &Cache, at: Location, key: &[u8]) {
    let command = Command {
        key,
        operation: Operation::Get,
    };
    let mut buffer = [0u8; 64];
    cache.execute_at(at, &command, 1, |reply| {
        let Reply::Found(item) = reply else {
            panic!("every key is there")
        };
        buffer.copy_from_slice(&item.value.data);
    });
    black_box(buffer);
}

fn set(cache: &Cache, at: Location, key: &[u8], value: &[u8]) {
    let command = Command {
        key,
        operation: Operation::Set {
            value: Value::from_slice(value),
            expiry: Expiry::Never,
            precondition: Precondition::NONE,
        },
    };
    cache.execute_at(at, &command, 1, |reply| {
        assert!(matches!(reply, Reply::Stored { .. }));
    });
}
