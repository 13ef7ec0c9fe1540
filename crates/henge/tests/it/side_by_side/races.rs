//! Commands that make a new value of the old one, from several connections at a time on the same keys: none of them may be
//! lost, and what happens to several keys happens to all of them. There is nothing to compare here but what must come out.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::Connection;
use crate::client::node;

const CONNECTIONS: usize = 4;
/// What each connection does to each key.
const ROUNDS: usize = 100;
/// Long enough to be compressed by the blocking pool, so that others come in between.
const LONG: usize = 20_000;

/// Runs the same on several connections at once; each is told its number.
fn at_once(address: SocketAddr, run: impl Fn(usize, &mut Connection) + Sync) {
    thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            let run = &run;
            scope.spawn(move || run(number, &mut Connection::open(address, 2)));
        }
    });
}

#[test]
fn no_change_is_lost() {
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr(), 2);
    let long = "x".repeat(LONG);
    assert_eq!(connection.call(&["SET", "long", &long]), b"+OK\r\n");
    at_once(node.local_addr(), |number, connection| {
        for round in 0..ROUNDS {
            let bit = (number * ROUNDS + round).to_string();
            for (words, kind) in [
                (&["APPEND", "short", "ab"][..], b':'),
                (&["APPEND", "long", "ab"], b':'),
                (&["INCR", "count"], b':'),
                (&["INCRBYFLOAT", "sum", "0.5"], b'$'),
                (&["SETBIT", "bits", &bit, "1"], b':'),
            ] {
                let reply = connection.call(words);
                assert_eq!(reply[0], kind, "{words:?}: {}", reply.escape_ascii());
            }
        }
    });
    let all = CONNECTIONS * ROUNDS;
    for (words, expected) in [
        (&["STRLEN", "short"][..], format!(":{}\r\n", 2 * all)),
        (&["STRLEN", "long"], format!(":{}\r\n", LONG + 2 * all)),
        (&["INCRBY", "count", "0"], format!(":{all}\r\n")),
        (&["BITCOUNT", "bits"], format!(":{all}\r\n")),
        (&["INCRBY", "sum", "0"], format!(":{}\r\n", all / 2)),
    ] {
        assert_eq!(connection.call(words), expected.as_bytes(), "{words:?}");
    }
}

#[test]
fn one_of_several_wins_and_gets_all() {
    let node = node(&[]);
    let won = AtomicUsize::new(0);
    at_once(node.local_addr(), |number, connection| {
        let name = number.to_string();
        for round in 0..ROUNDS {
            let (one, other) = (format!("{{{round}}}one"), format!("{{{round}}}other"));
            // Half of them name the keys the other way round.
            let (one, other) = if number % 2 == 0 {
                (one, other)
            } else {
                (other, one)
            };
            match &connection.call(&["MSETNX", &one, &name, &other, &name])[..] {
                b":1\r\n" => {
                    won.fetch_add(1, Ordering::Relaxed);
                }
                reply => assert_eq!(reply, b":0\r\n"),
            }
        }
    });
    assert_eq!(won.into_inner(), ROUNDS);
    let mut connection = Connection::open(node.local_addr(), 2);
    for round in 0..ROUNDS {
        let one = connection.call(&["GET", &format!("{{{round}}}one")]);
        let other = connection.call(&["GET", &format!("{{{round}}}other")]);
        assert!(one == other && one.starts_with(b"$1"), "round {round}");
    }
}

/// SET IFEQ and GETDEL hand a value on to exactly one.
#[test]
fn a_value_is_handed_on_once() {
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr(), 2);
    for round in 0..ROUNDS {
        let reply = connection.call(&["SET", &format!("{round}-once"), "it"]);
        assert_eq!(reply, b"+OK\r\n");
    }
    let taken = AtomicUsize::new(0);
    let count = || {
        taken.fetch_add(1, Ordering::Relaxed);
    };
    at_once(node.local_addr(), |_, connection| {
        for round in 0..ROUNDS {
            let key = round.to_string();
            if connection.call(&["SET", &key, "free", "NX"]) == b"+OK\r\n" {
                count();
            }
            if connection.call(&["SET", &key, "held", "IFEQ", "free"]) == b"+OK\r\n" {
                count();
            }
            if connection.call(&["GETDEL", &format!("{key}-once")]) != b"$-1\r\n" {
                count();
            }
        }
    });
    assert_eq!(taken.into_inner(), 3 * ROUNDS);
}
