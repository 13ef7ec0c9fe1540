//! Random commands on few keys, to a node and to valkey-server: each reply must be the same bytes, and now and then all keys
//! must hold the same. The seed is printed, and `HENGE_SEED` repeats a run. Without a server the node must only answer.
//!
//! What depends on when a command is run is left out: lifetimes are given as points in time, long past or far ahead.

use super::{PROTOCOLS, Pair, VALUE_BYTES, Valkey, shown};
use crate::random::Random;

/// Commands in each protocol.
const COMMANDS: usize = 4_000;
/// Commands between two looks at all keys.
const LOOK_EACH: usize = 50;
/// Commands that are shown when one was answered otherwise.
const SHOWN: usize = 20;
/// Of one slot, so that MSETNX and BITOP take them.
const KEYS: [&str; 6] = ["{t}a", "{t}b", "{t}c", "{t}d", "{t}e", "{t}f"];

#[test]
fn random_commands_are_answered_alike() {
    let (_, seed) = Random::seeded("random commands");
    let valkey = Valkey::start();
    for &protocol in PROTOCOLS {
        run(seed, Pair::over(valkey.as_ref(), protocol));
    }
}

fn run(seed: u64, mut pair: Pair) {
    let mut random = Commands(Random::new(seed));
    let mut history: Vec<String> = Vec::new();
    for number in 1..=COMMANDS {
        let words = random.command();
        history.push(line(&words));
        compare(&mut pair, &words, &history, seed);
        if number % LOOK_EACH == 0 {
            for key in KEYS {
                for look in ["GET", "PEXPIRETIME"] {
                    compare(&mut pair, &[look.into(), key.into()], &history, seed);
                }
            }
        }
    }
}

fn compare(pair: &mut Pair, words: &[Vec<u8>], history: &[String], seed: u64) {
    let (node, server) = pair.connection("");
    let ours = node.call(words);
    assert!(!ours.is_empty(), "HENGE_SEED={seed}: {}", line(words));
    let Some(server) = server else {
        return;
    };
    let theirs = server.call(words);
    if ours != theirs {
        let since = history.len().saturating_sub(SHOWN);
        panic!(
            "HENGE_SEED={seed}, after {} commands, of which the last are\n{}\n{}\n    henge: {}\n    valkey: {}",
            history.len(),
            history[since..].join("\n"),
            line(words),
            shown(&ours),
            shown(&theirs)
        );
    }
}

fn line(words: &[Vec<u8>]) -> String {
    let words: Vec<_> = words
        .iter()
        .map(|word| format!("\"{}\"", shown(word)))
        .collect();
    words.join(" ")
}

/// What a random command is made from.
struct Commands(Random);

impl Commands {
    fn command(&mut self) -> Vec<Vec<u8>> {
        let mut words: Vec<Vec<u8>> = Vec::new();
        // Each letter is a kind of argument; `*` and what follows may come several times, or not at all.
        let (name, form) = self.0.of(&[
            ("GET", "k"),
            ("SET", "kvo"),
            ("SET", "kvo"),
            ("SET", "kv"),
            ("SETNX", "kv"),
            ("SETEX", "kzv"),
            ("PSETEX", "kzv"),
            ("GETSET", "kv"),
            ("GETDEL", "k"),
            ("GETEX", "kg"),
            ("GETEX", "kg"),
            ("MGET", "k*k"),
            ("MSET", "kv*kv"),
            ("MSETNX", "kv*kv"),
            ("INCR", "k"),
            ("DECR", "k"),
            ("INCRBY", "ki"),
            ("DECRBY", "ki"),
            ("INCRBYFLOAT", "kf"),
            ("INCRBYFLOAT", "kf"),
            ("APPEND", "kv"),
            ("STRLEN", "k"),
            ("GETRANGE", "kii"),
            ("SUBSTR", "kii"),
            ("SETRANGE", "kpv"),
            ("SETBIT", "kpb"),
            ("SETBIT", "kpb"),
            ("GETBIT", "kp"),
            ("BITCOUNT", "k"),
            ("BITCOUNT", "kr"),
            ("BITPOS", "kb"),
            ("BITPOS", "kbr"),
            ("BITOP", "ck*k"),
            ("BITOP", "ckk*k"),
            ("BITOP", "ckk*k"),
        ]);
        words.push(name.into());
        let (once, again) = form.split_once('*').unwrap_or((form, ""));
        self.arguments(once, &mut words);
        if !again.is_empty() {
            for _ in 0..self.0.below(4) {
                self.arguments(again, &mut words);
            }
        }
        // Sometimes a word too many, or too few. What stands where a key does is one: of the same slot, and not too long.
        if self.0.one_in(100) {
            let is_key = form.contains('*') || form.ends_with('k');
            self.arguments(if is_key { "k" } else { "v" }, &mut words);
        } else if self.0.one_in(100) && words.len() > 1 {
            words.pop();
        }
        words
    }

    fn arguments(&mut self, form: &str, words: &mut Vec<Vec<u8>>) {
        for kind in form.chars() {
            let word = match kind {
                'k' => self.0.of(&KEYS).into(),
                'v' => self.value(),
                'i' => self.integer(),
                'f' => self.float(),
                'p' => self.position(),
                'b' => self.0.of(&["0", "1", "1", "0", "0", "1", "2", "a"]).into(),
                'c' => self.0.of(&["AND", "OR", "XOR", "NOT", "and", "foo"]).into(),
                'z' => self
                    .0
                    .of(&["0", "-1", "a", "9223372036854775807", "", "1.5"])
                    .into(),
                'o' => {
                    for _ in 0..self.0.below(5) {
                        self.set_option(words);
                    }
                    continue;
                }
                'g' => {
                    for _ in 0..self.0.below(3) {
                        match self.0.below(4) {
                            0 => words.push(b"PERSIST".to_vec()),
                            1 => self.set_option(words),
                            _ => self.time(words),
                        }
                    }
                    continue;
                }
                'r' => {
                    for _ in 0..=self.0.below(2) {
                        let word = self.integer();
                        words.push(word);
                    }
                    if self.0.one_in(2) {
                        words.push(self.0.of(&["BIT", "BYTE", "bit", "bits"]).into());
                    }
                    continue;
                }
                other => unreachable!("no kind of argument: {other}"),
            };
            words.push(word);
        }
    }

    fn set_option(&mut self, words: &mut Vec<Vec<u8>>) {
        match self.0.below(8) {
            0 => words.push(b"NX".to_vec()),
            1 => words.push(b"xx".to_vec()),
            2 | 3 => words.push(b"GET".to_vec()),
            4 => words.push(b"KEEPTTL".to_vec()),
            5 => {
                words.push(b"IFEQ".to_vec());
                let value = self.value();
                words.push(value);
            }
            _ => self.time(words),
        }
    }

    fn time(&mut self, words: &mut Vec<Vec<u8>>) {
        let (unit, time) = self.0.of(&[
            ("EXAT", "4102444800"),
            ("PXAT", "4102444800123"),
            ("PXAT", "9223372036854775807"),
            ("exat", "9223372036854775"),
            ("EXAT", "4102444801"),
            ("PXAT", "1"),
            ("EXAT", "1"),
            ("EXAT", "0"),
            ("EX", "0"),
            ("PX", "-1"),
            ("EX", "9223372036854775807"),
            ("EX", "a"),
            ("PXAT", ""),
        ]);
        words.extend([unit.into(), time.into()]);
    }

    fn integer(&mut self) -> Vec<u8> {
        match self.0.below(10) {
            0 => self
                .0
                .of(&[
                    "9223372036854775807",
                    "-9223372036854775808",
                    "9223372036854775808",
                    "9223372036854775800",
                    "a",
                    "",
                    "+1",
                    "01",
                ])
                .into(),
            1 => self.signed(100_000),
            2 => self.signed(1_000),
            _ => self.signed(20),
        }
    }

    /// `-0`, which is no integer, included.
    fn signed(&mut self, bound: usize) -> Vec<u8> {
        let sign = self.0.of(&["", "-"]);
        format!("{sign}{}", self.0.below(bound)).into()
    }

    fn position(&mut self) -> Vec<u8> {
        match self.0.below(12) {
            0 => self.integer(),
            1 => (VALUE_BYTES * 8 - 2 + self.0.below(4)).to_string().into(),
            2 => (VALUE_BYTES - 2 + self.0.below(4)).to_string().into(),
            3 => self.0.below(50_000).to_string().into(),
            _ => self.0.below(100).to_string().into(),
        }
    }

    fn float(&mut self) -> Vec<u8> {
        match self.0.below(8) {
            0 => self
                .0
                .of(&[
                    "inf", "-inf", "nan", "1e4931", "-1e4932", "1e-4940", "0x1p-3", "", " 1", "1e",
                    ".", "-.5", "5.", "1e400", "0",
                ])
                .into(),
            1 => self.integer(),
            2 => format!("{:e}", f64::from_bits(self.0.next())).into(),
            3 => format!(
                "{}.{:017}",
                self.0.below(1_000_000),
                self.0.next() % 100_000_000_000_000_000
            )
            .into(),
            _ => {
                let scale = self.0.of(&[1.0, 10.0, 100.0, 1e6, 1e9]);
                ((self.0.below(2_000_000) as f64 - 1e6) / scale)
                    .to_string()
                    .into()
            }
        }
    }

    fn value(&mut self) -> Vec<u8> {
        match self.0.below(16) {
            0 => Vec::new(),
            1..=4 => self.integer(),
            5..=6 => self.float(),
            7 => {
                // Long enough to be compressed.
                let byte = self.0.of(&[0, 0xff, b'x', 0x0f]);
                vec![byte; 1_000 + self.0.below(3_000)]
            }
            8 if self.0.one_in(4) => {
                // Long enough to be kept by reference, and nothing that shrinks.
                let len = 30_000 + self.0.below(10_000);
                (0..len).map(|_| self.0.next() as u8).collect()
            }
            9 if self.0.one_in(8) => vec![b'y'; VALUE_BYTES - self.0.below(3)],
            10 => vec![self.0.of(&[0, 0xff]); self.0.below(200)],
            _ => {
                let len = self.0.below(30);
                (0..len).map(|_| self.0.next() as u8).collect()
            }
        }
    }
}
