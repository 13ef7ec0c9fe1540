//! Meters over buckets, at times that the test makes up.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::meter::{Exceeded, Grant, Meter};
use super::{Allowances, Rates, Resource, Scope};
use crate::access::Access;
use crate::access::caller::Caller;
use crate::access::hash::NewKey;
use crate::access::testing::{access, file};
use crate::config::Config;

const ADDRESS: [u8; 4] = [192, 0, 2, 1];

fn config(settings: &[(&str, &str)]) -> Config {
    let mut config = Config::default();
    for (name, value) in settings {
        let name = format!("rate_limits.{name}");
        config.set(&name, value).expect("it is a setting");
    }
    config
}

/// Rates for two threads.
fn rates(settings: &[(&str, &str)]) -> Rates {
    Rates::new(&config(settings), 2)
}

/// A connection to a thread.
struct Connection<'a> {
    meter: Meter,
    rates: &'a Rates,
    thread: &'a Allowances,
    caller: Caller,
}

impl<'a> Connection<'a> {
    fn new(address: impl Into<IpAddr>, rates: &'a Rates, thread: &'a Allowances) -> Self {
        let address = address.into();
        let mut caller = Caller::from(address, Vec::new());
        caller.look(&access(false, None), 0);
        Self {
            meter: Meter::of(address),
            rates,
            thread,
            caller,
        }
    }

    fn grant(&mut self, wanted: usize, now: Instant) -> Grant {
        let (rates, thread) = (self.rates, self.thread);
        self.meter.grant(wanted, rates, thread, &self.caller, now)
    }

    /// Asks for so much, and spends what is granted, of so many bytes each. Says how much it is.
    fn ask(&mut self, wanted: usize, bytes: u64, now: Instant) -> usize {
        let count = self.grant(wanted, now).count;
        let spent = count as u64;
        self.meter.spend(spent, spent * bytes);
        count
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn nothing_is_limited_by_default() {
    let (rates, thread) = (rates(&[]), Allowances::default());
    let mut connection = Connection::new(ADDRESS, &rates, &thread);
    let now = Instant::now();
    assert_eq!(connection.ask(1_000_000, 1 << 40, now), 1_000_000);
    assert!(!connection.meter.is_on());
    assert_eq!(thread.len(), 0);
}

#[test]
fn as_many_of_a_batch_as_there_are_tokens() {
    let rates = rates(&[("address_requests_per_second", "10")]);
    let thread = Allowances::default();
    let mut connection = Connection::new(ADDRESS, &rates, &thread);
    let start = Instant::now();
    for (at, wanted, expected, wait) in [
        (0, 4, 4, None),
        (0, 16, 6, Some(100)),
        (0, 16, 0, Some(100)),
        (60, 1, 0, Some(40)),
        (100, 16, 1, Some(100)),
        (400, 2, 2, None),
        (400, 2, 1, Some(100)),
        // No more than a bucket has room for, however long nobody asks.
        (60_000, 16, 10, Some(100)),
    ] {
        let now = start + ms(at);
        let grant = connection.grant(wanted, now);
        let exceeded = wait.map(|wait| Exceeded {
            scope: Scope::Address,
            resource: Resource::Requests,
            wait: ms(wait),
        });
        let expected = Grant {
            count: expected,
            exceeded,
        };
        assert_eq!(grant, expected, "{wanted} at {at} ms");
        assert_eq!(connection.ask(wanted, 0, now), expected.count);
    }
}

#[test]
fn what_was_too_much_is_made_good_first() {
    let rates = rates(&[("address_bytes_per_second", "1MiB")]);
    let thread = Allowances::default();
    let mut connection = Connection::new(ADDRESS, &rates, &thread);
    let start = Instant::now();
    // One value of ten seconds.
    assert_eq!(connection.ask(1, 10 << 20, start), 1);
    let exceeded = connection.grant(1, start).exceeded.expect("it owes");
    assert_eq!(exceeded.scope, Scope::Address);
    assert_eq!(exceeded.resource, Resource::Bytes);
    assert!(
        exceeded.wait > ms(8_900) && exceeded.wait < ms(9_100),
        "{exceeded:?}"
    );
    // Another connection of the same client owes the same.
    let mut other = Connection::new(ADDRESS, &rates, &thread);
    assert_eq!(other.ask(1, 1, start + ms(5_000)), 0);
    assert_eq!(
        connection.ask(1, 1, start + exceeded.wait.saturating_sub(ms(20))),
        0
    );
    assert_eq!(other.ask(1, 1, start + exceeded.wait + ms(5)), 1);
}

#[test]
fn a_large_bucket_that_fills_slowly() {
    let rates = rates(&[("address_bytes_per_second", "1KiB"), ("burst_ms", "600000")]);
    let thread = Allowances::default();
    let mut connection = Connection::new(ADDRESS, &rates, &thread);
    let now = Instant::now();
    assert_eq!(connection.ask(1, 400_000, now), 1);
    assert_eq!(connection.ask(1, 400_000, now), 1);
    let exceeded = connection.grant(1, now).exceeded.expect("it owes");
    let wait = exceeded.wait.as_secs();
    assert!((180..=184).contains(&wait), "{wait}");
}

#[test]
fn what_two_threads_owe_is_made_good() {
    let rates = rates(&[("address_bytes_per_second", "1MiB")]);
    let threads = [Allowances::default(), Allowances::default()];
    let start = Instant::now();
    let mut connections = threads
        .each_ref()
        .map(|thread| Connection::new(ADDRESS, &rates, thread));
    for bytes in [10 << 20, 0] {
        for connection in &mut connections {
            let count = connection.ask(1, bytes, start);
            assert_eq!(count, usize::from(bytes > 0));
        }
    }
    // From then on each asks for a MiB a second, now the one first and now the other. One may begin before the other has made good
    // its ten, and neither is kept waiting for good.
    let mut had = [0_u64; 2];
    for second in 1..=100 {
        for turn in 0..2 {
            let one = (turn + usize::from(second % 3 == 0)) % 2;
            let count = connections[one].ask(1, 1 << 20, start + ms(second * 1_000));
            had[one] += count as u64;
        }
        let had = had.iter().sum::<u64>();
        assert!(
            had <= (second + 1).saturating_sub(9),
            "{had} after {second} s"
        );
    }
    assert!(had.iter().all(|&had| had > 10), "{had:?}");
}

#[test]
fn each_has_a_bucket_of_its_own() {
    let rates = rates(&[
        ("address_requests_per_second", "100"),
        ("key_requests_per_second", "10"),
        ("node_requests_per_second", "1000"),
    ]);
    let thread = Allowances::default();
    let keys = [NewKey::draw(), NewKey::draw()];
    let access: Access = access(
        true,
        Some(file(&[
            ("one", &keys[0], &["read"], &[], None),
            ("two", &keys[1], &["read"], &[], None),
        ])),
    );
    let now = Instant::now();
    let connect = |address: [u8; 4], key: Option<&NewKey>| {
        let mut connection = Connection::new(address, &rates, &thread);
        connection.caller = Caller::from(address.into(), Vec::new());
        connection.caller.look(&access, 0);
        if let Some(key) = key {
            let shown = connection
                .caller
                .show(&access, None, key.text.as_bytes(), 0);
            shown.expect("it holds");
        }
        connection
    };
    let elsewhere = [192, 0, 2, 2];
    assert_eq!(connect(ADDRESS, Some(&keys[0])).ask(16, 0, now), 10);
    assert_eq!(connect(elsewhere, Some(&keys[0])).ask(16, 0, now), 0);
    let mut connection = connect(ADDRESS, Some(&keys[1]));
    assert_eq!(connection.ask(8, 0, now), 8);
    let exceeded = connection.grant(16, now).exceeded.expect("2 are left");
    assert_eq!(exceeded.scope, Scope::Key);

    // Who forgets its key, or shows another, pays with the one that it was granted by.
    let mut late = connect(elsewhere, Some(&keys[1]));
    let grant = late.grant(2, now);
    assert_eq!(grant.count, 2);
    late.caller.forget();
    late.meter.spend(2, 0);
    assert_eq!(connection.ask(1, 0, now), 0);

    // A stranger has an address, and uses up nothing of the node's.
    let mut stranger = connect([192, 0, 2, 3], None);
    assert_eq!(stranger.ask(1_000, 0, now), 100);
    let left = stranger.meter.left(None).expect("it is limited");
    assert_eq!(left, "\"address\";r=0");
    let mut other = connect([192, 0, 2, 4], Some(&keys[1]));
    other.caller = Connection::new(ADDRESS, &rates, &thread).caller;
    assert_eq!(other.ask(1_000, 0, now), 100);
}

#[test]
fn another_configuration_holds_at_once() {
    let rates = rates(&[("address_requests_per_second", "1")]);
    let thread = Allowances::default();
    let mut connection = Connection::new(ADDRESS, &rates, &thread);
    let now = Instant::now();
    assert_eq!(connection.ask(5, 0, now), 1);
    rates.set(&config(&[("node_requests_per_second", "3")]));
    // The buckets are as old as that.
    let now = Instant::now();
    assert_eq!(connection.ask(5, 0, now), 3);
    assert_eq!(connection.ask(5, 0, now), 0);
    rates.set(&config(&[]));
    assert_eq!(connection.ask(5, 0, now), 5);
    assert_eq!(thread.len(), 0);
}

#[test]
fn who_asks_no_longer_is_forgotten() {
    let rates = rates(&[
        ("address_requests_per_second", "10"),
        ("address_bytes_per_second", "1MiB"),
    ]);
    let thread = Allowances::default();
    let start = Instant::now();
    for last in 0..=255 {
        let mut connection = Connection::new([192, 0, 2, last], &rates, &thread);
        assert_eq!(connection.ask(1, u64::from(last == 7) << 23, start), 1);
    }
    assert_eq!(thread.len(), 256);
    let limits = rates.current().expect("there are some");
    let buckets = || {
        let limit = limits.limit(Scope::Address).expect("it is limited");
        limit.requests.as_ref().expect("they are").len()
    };
    assert_eq!(buckets(), 256);

    // All but the one that owes, and the one that has come.
    let later = start + ms(2_000);
    let mut connection = Connection::new([198, 51, 100, 1], &rates, &thread);
    assert_eq!(connection.ask(1, 0, later), 1);
    assert_eq!(thread.len(), 2);
    let mut debtor = Connection::new([192, 0, 2, 7], &rates, &thread);
    assert_eq!(debtor.ask(1, 0, later), 0);

    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().expect("a runtime");
    runtime.block_on(rates.drop_idle(start + ms(10_000)));
    assert_eq!(buckets(), 0);
}

#[test]
fn what_clients_are_told() {
    let rates = rates(&[
        ("key_requests_per_second", "100"),
        ("address_bytes_per_second", "1KiB"),
        ("burst_ms", "2500"),
    ]);
    let limits = rates.current().expect("there are some");
    assert_eq!(
        limits.policy(),
        "\"key\";q=300;w=3, \"address-bytes\";q=3072;w=3;qu=\"content-bytes\""
    );
    let exceeded = |wait| Exceeded {
        scope: Scope::Address,
        resource: Resource::Bytes,
        wait,
    };
    for (wait, ms, seconds) in [
        (Duration::ZERO, 1, 1),
        (Duration::from_nanos(1), 1, 1),
        (Duration::from_micros(1_500), 2, 1),
        (self::ms(1_000), 1_000, 1),
        (self::ms(1_001), 1_001, 2),
    ] {
        let exceeded = exceeded(wait);
        assert_eq!((exceeded.wait_ms(), exceeded.wait_seconds()), (ms, seconds));
    }
    let thread = Allowances::default();
    let mut connection = Connection::new(ADDRESS, &rates, &thread);
    let now = Instant::now();
    connection.ask(1, 0, now);
    assert_eq!(
        connection.meter.left(None),
        None,
        "no requests are limited of who has no key"
    );
    let left = connection.meter.left(Some(exceeded(ms(1))));
    assert_eq!(left.expect("it is limited"), "\"address-bytes\";r=0;t=1");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever two threads and their clients do, an address has never had more than its bucket held at first and what has filled it since;
    /// and who asks without a pause has that.
    #[test]
    fn no_more_than_the_rate_and_no_less(
        rate in 1_u64..5_000,
        burst_ms in 1_u64..5_000,
        steps in prop::collection::vec((0_usize..2, 0_usize..3, 1_usize..64, 0_u64..400), 1..200),
    ) {
        let rates = rates(&[
            ("address_requests_per_second", &rate.to_string()),
            ("burst_ms", &burst_ms.to_string()),
        ]);
        let threads = [Allowances::default(), Allowances::default()];
        let address = |client: usize| [192, 0, 2, client as u8];
        let mut connections: Vec<Vec<Connection<'_>>> = threads
            .iter()
            .map(|thread| (0..3).map(|client| Connection::new(address(client), &rates, thread)).collect())
            .collect();
        let start = Instant::now();
        let mut now = start;
        let mut had = [0_u64; 3];
        let room = (rate * burst_ms / 1_000).max(1);
        for (thread, client, wanted, pause_ms) in steps {
            now += ms(pause_ms);
            had[client] += connections[thread][client].ask(wanted, 0, now) as u64;
            // A bucket fills by whole nanoseconds, which is up to a part in 200,000 too fast at these rates.
            let filled = u128::from(rate) * (now - start).as_nanos() / 999_990_000;
            prop_assert!(u128::from(had[client]) <= u128::from(room) + filled + 1, "{had:?}, {room}, {filled}");
        }
        let mut fresh = Connection::new([198, 51, 100, 1], &rates, &threads[0]);
        let mut had = 0;
        let begin = now;
        while now - begin < ms(2_000) {
            had += fresh.ask(64, 0, now) as u64;
            now += ms(1);
        }
        let filled = rate * 1_999 / 1_000;
        // Where a bucket has no room for what comes in a millisecond it runs over.
        let most = (room + filled).min(64 * 2_000);
        if room >= 2 + rate / 1_000 {
            prop_assert!(had + 1 >= most, "{had} of {most}");
        }
    }
}
