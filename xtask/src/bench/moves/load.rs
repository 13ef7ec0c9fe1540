//! Clients that write and read keys of their own, each over one connection and one request at a time: as fast as they are answered, or
//! when it is time to, whether the one before was answered or not. What took how long counts from when it was to be sent, so that one that
//! waits behind another is as slow as its user sees it. What is wrong is counted by its kind and ends nothing.

use super::super::Result;
use super::super::random::Random;
use super::keys::{Keys, Wrong};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Clients: at 5,000 requests a second each has 10 ms for one.
const CLIENTS: usize = 50;
/// Of a hundred requests, how many read.
const READS: usize = 80;
/// What a client waits for an answer: twice what a node itself waits for another.
const DEADLINE: Duration = Duration::from_secs(10);
/// Requests that are sent together where keys are written first, or read back: some 64 KiB.
const BATCH: usize = 64;
/// So many of what was wrong are told in full.
const SHOWN: usize = 3;

/// See the head of the file.
pub(super) struct Clients {
    all: Vec<Client>,
}

/// What clients saw.
#[derive(Default)]
pub(super) struct Seen {
    /// When each request was to be sent, and how long it took from then on.
    latencies: Vec<(Instant, Duration)>,
    /// Errors, by their codes or by what became of the connection.
    pub(super) failed: BTreeMap<String, usize>,
    /// What was read and must not be.
    pub(super) wrong: BTreeMap<Wrong, usize>,
    /// Some of the last two, in full, each with its time in ms since 1970.
    pub(super) shown: Vec<String>,
}

/// Of the requests that were to be sent in some time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latency {
    pub(super) requests: usize,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) longest_ms: f64,
}

impl Seen {
    pub(super) fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        for (kind, count) in other.failed {
            *self.failed.entry(kind).or_default() += count;
        }
        for (kind, count) in other.wrong {
            *self.wrong.entry(kind).or_default() += count;
        }
        self.shown.extend(other.shown);
    }

    pub(super) fn latency(&self, from: Instant, to: Instant) -> Latency {
        let within = |(due, _): &&(Instant, Duration)| (from..to).contains(due);
        let within = self.latencies.iter().filter(within);
        let mut millis: Vec<f64> = within.map(|(_, took)| took.as_secs_f64() * 1e3).collect();
        millis.sort_by(f64::total_cmp);
        let at = |part: usize| {
            let place = millis.len() * part / 100;
            millis.get(place).copied().unwrap_or_default()
        };
        Latency {
            requests: millis.len(),
            p50_ms: at(50),
            p99_ms: at(99),
            longest_ms: millis.last().copied().unwrap_or_default(),
        }
    }

    fn failed(&mut self, kind: &str, what: &str) {
        *self.failed.entry(kind.to_owned()).or_default() += 1;
        self.show(what);
    }

    fn wrong(&mut self, wrong: Wrong, what: &str) {
        *self.wrong.entry(wrong).or_default() += 1;
        self.show(what);
    }

    fn show(&mut self, what: &str) {
        if self.shown.len() < SHOWN {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now_ms = now.unwrap_or_default().as_millis();
            self.shown.push(format!("{now_ms}: {what}"));
        }
    }
}

impl Clients {
    /// For so many keys in all.
    pub(super) fn new(keys: usize) -> Self {
        let all = (0..CLIENTS).map(|number| Client {
            keys: Keys::new(number, CLIENTS, keys),
            random: Random::new(number as u64),
        });
        Self { all: all.collect() }
    }

    /// Writes every key once.
    pub(super) fn fill(&mut self, at: &[SocketAddr]) -> Result<()> {
        let seen = self.each(at, Client::fill)?;
        if seen.failed.is_empty() {
            return Ok(());
        }
        Err(format!("keys could not be written: {:?}", seen.shown).into())
    }

    /// Reads every key.
    pub(super) fn read_back(&mut self, at: &[SocketAddr]) -> Result<Seen> {
        self.each(at, Client::read_back)
    }

    /// How many requests a second there are for some seconds, where each client asks as soon as it is answered.
    pub(super) fn capacity(&mut self, at: &[SocketAddr], time: Duration) -> Result<(f64, Seen)> {
        let begun = Instant::now();
        let seen = self.each(at, |client, at| {
            client.run(at, begun, Duration::ZERO, &|| begun.elapsed() >= time)
        })?;
        let latency = seen.latency(begun, begun + time);
        Ok((latency.requests as f64 / time.as_secs_f64(), seen))
    }

    /// A load of so many requests a second, for as long as something is done.
    pub(super) fn under_load<T>(
        &mut self,
        at: &[SocketAddr],
        per_second: f64,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Seen)> {
        let interval = Duration::from_secs_f64(CLIENTS as f64 / per_second);
        let ends = AtomicBool::new(false);
        let ends = &ends;
        let begun = Instant::now();
        thread::scope(|scope| {
            let runs = self.all.iter_mut().enumerate().map(|(n, client)| {
                let at = at[n % at.len()];
                let first = begun + interval.mul_f64(n as f64 / CLIENTS as f64);
                let is_over = || ends.load(Ordering::Relaxed);
                scope.spawn(move || client.run(at, first, interval, &is_over))
            });
            let runs: Vec<_> = runs.collect();
            let done = work();
            ends.store(true, Ordering::Relaxed);
            let mut all = Seen::default();
            for run in runs {
                all.add(run.join().map_err(|_| "a client panicked")??);
            }
            Ok((done?, all))
        })
    }

    /// All do the same, spread over these nodes.
    fn each(
        &mut self,
        at: &[SocketAddr],
        work: impl Fn(&mut Client, SocketAddr) -> io::Result<Seen> + Sync,
    ) -> Result<Seen> {
        let work = &work;
        thread::scope(|scope| {
            let clients = self.all.iter_mut().enumerate();
            let runs = clients.map(|(n, client)| {
                let at = at[n % at.len()];
                scope.spawn(move || work(client, at))
            });
            let runs: Vec<_> = runs.collect();
            let mut all = Seen::default();
            for run in runs {
                all.add(run.join().map_err(|_| "a client panicked")??);
            }
            Ok(all)
        })
    }
}

struct Client {
    keys: Keys,
    random: Random,
}

/// What a node answers to `GET` and `SET`.
enum Reply {
    Done,
    Found(Option<Vec<u8>>),
    Error(String),
}

impl Client {
    /// Asks when it is time to, until it is over.
    fn run(
        &mut self,
        at: SocketAddr,
        first: Instant,
        interval: Duration,
        is_over: &dyn Fn() -> bool,
    ) -> io::Result<Seen> {
        let mut seen = Seen::default();
        let mut connection = Connection::open(at)?;
        let mut due = first;
        while !is_over() {
            loop {
                let early = due.saturating_duration_since(Instant::now());
                if early.is_zero() {
                    break;
                }
                thread::park_timeout(early);
            }
            let place = self.random.below(self.keys.len());
            let reads = self.random.below(100) < READS;
            let question = if reads {
                self.get(place)
            } else {
                self.set(place)
            };
            match connection.ask(&question) {
                Ok(reply) => self.told(&mut seen, at, place, reply),
                Err(error) => {
                    let what = if reads { "GET" } else { "SET" };
                    let name = self.keys.name(place);
                    seen.failed(kind(&error), &format!("{what} {name} at {at}: {error}"));
                    connection = Connection::open(at)?;
                }
            }
            seen.latencies.push((due, due.elapsed()));
            due = if interval.is_zero() {
                Instant::now()
            } else {
                due + interval
            };
        }
        Ok(seen)
    }

    fn fill(&mut self, at: SocketAddr) -> io::Result<Seen> {
        self.in_batches(at, Self::set)
    }

    fn read_back(&mut self, at: SocketAddr) -> io::Result<Seen> {
        self.in_batches(at, |client, place| client.get(place))
    }

    /// Asks something of each key.
    fn in_batches(
        &mut self,
        at: SocketAddr,
        question: impl Fn(&mut Self, usize) -> Vec<u8>,
    ) -> io::Result<Seen> {
        let mut seen = Seen::default();
        let mut connection = Connection::open(at)?;
        for first in (0..self.keys.len()).step_by(BATCH) {
            let places = first..self.keys.len().min(first + BATCH);
            let questions: Vec<u8> = places
                .clone()
                .flat_map(|place| question(self, place))
                .collect();
            connection.send(&questions)?;
            for place in places {
                let reply = connection.reply()?;
                self.told(&mut seen, at, place, reply);
            }
        }
        Ok(seen)
    }

    fn get(&self, place: usize) -> Vec<u8> {
        let name = self.keys.name(place);
        format!("*2\r\n$3\r\nGET\r\n${}\r\n{name}\r\n", name.len()).into_bytes()
    }

    fn set(&mut self, place: usize) -> Vec<u8> {
        let (name, value) = (self.keys.name(place), self.keys.next(place));
        let head = format!(
            "*3\r\n$3\r\nSET\r\n${}\r\n{name}\r\n${}\r\n",
            name.len(),
            value.len()
        );
        [head.as_bytes(), &value, b"\r\n"].concat()
    }

    /// Looks at what was answered about a key.
    fn told(&mut self, seen: &mut Seen, at: SocketAddr, place: usize, reply: Reply) {
        let name = self.keys.name(place);
        match reply {
            Reply::Done => self.keys.acknowledged(place),
            Reply::Found(found) => {
                if let Err(wrong) = self.keys.found(place, found.as_deref()) {
                    let known = self.keys.known(place);
                    seen.wrong(wrong, &format!("{name} at {at} is {wrong}: {known}"));
                }
            }
            Reply::Error(error) => {
                let code = error.split(' ').next().unwrap_or_default();
                seen.failed(code, &format!("{name} at {at}: {error}"));
            }
        }
    }
}

/// What became of a connection.
fn kind(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time",
        io::ErrorKind::InvalidData => "an answer to something else",
        _ => "the connection broke",
    }
}

struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(at: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&at, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn send(&mut self, questions: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(questions)
    }

    fn ask(&mut self, question: &[u8]) -> io::Result<Reply> {
        self.send(question)?;
        self.reply()
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, line.to_owned());
        match line.split_at_checked(1) {
            Some(("+", "OK")) => Ok(Reply::Done),
            Some(("-", error)) => Ok(Reply::Error(error.to_owned())),
            Some(("$", "-1")) => Ok(Reply::Found(None)),
            Some(("$", len)) => {
                let len: u32 = len.parse().map_err(|_| wrong())?;
                let mut value = Vec::new();
                let all = u64::from(len) + 2;
                self.0.by_ref().take(all).read_to_end(&mut value)?;
                if value.len() as u64 != all {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                value.truncate(len as usize);
                Ok(Reply::Found(Some(value)))
            }
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_latencies_is_looked_at() {
        let begun = Instant::now();
        let at = |n| begun + Duration::from_millis(n);
        let latencies = (0..200).map(|n| (at(n), Duration::from_millis(n)));
        let seen = Seen {
            latencies: latencies.collect(),
            ..Seen::default()
        };
        let latency = seen.latency(at(100), at(200));
        assert_eq!(latency.requests, 100);
        assert!((latency.p50_ms - 150.0).abs() < 1e-9);
        assert!((latency.p99_ms - 199.0).abs() < 1e-9);
        assert_eq!(seen.latency(at(300), at(400)).requests, 0);
    }
}
