//! A load on one thread: connections that ask, wait for all answers of what they asked, and ask again. It must cost little beside the
//! servers, as it shares their CPUs: requests are made in one buffer, and answers are known by their bytes. An answer that is not
//! as it should be ends it.

use super::super::random::Random;
use super::super::{Result, median};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::JoinSet;

/// Bytes of a value.
pub(super) const VALUE_BYTES: usize = 64;
/// Keys at random; all are there.
pub(super) const KEYS: usize = 100_000;
/// What is not counted at the beginning of a turn.
const WARM_UP: Duration = Duration::from_millis(500);

/// What a turn came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) per_second: f64,
    /// Of a whole pipeline.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// When a turn is counted, and what was.
pub(super) struct Tally {
    from: Instant,
    to: Instant,
    requests: RefCell<usize>,
    millis: RefCell<Vec<f64>>,
}

impl Tally {
    pub(super) fn begin(seconds: f64) -> Rc<Self> {
        let from = Instant::now() + WARM_UP;
        Rc::new(Self {
            from,
            to: from + Duration::from_secs_f64(seconds),
            requests: RefCell::default(),
            millis: RefCell::default(),
        })
    }

    /// Whether it goes on after what was asked then and is answered now.
    pub(super) fn count(&self, asked: Instant, requests: usize) -> bool {
        let now = Instant::now();
        if now >= self.to {
            return false;
        }
        if asked >= self.from {
            *self.requests.borrow_mut() += requests;
            let took = now - asked;
            self.millis.borrow_mut().push(took.as_secs_f64() * 1e3);
        }
        true
    }

    pub(super) fn turn(&self) -> Turn {
        let mut millis = self.millis.borrow().clone();
        millis.sort_by(f64::total_cmp);
        let place = millis.len() * 99 / 100;
        Turn {
            per_second: *self.requests.borrow() as f64 / (self.to - self.from).as_secs_f64(),
            p99_ms: millis.get(place).copied().unwrap_or_default(),
            p50_ms: median(millis),
        }
    }
}

/// Runs tasks on this thread until all of them end.
pub(super) fn run<F, I>(tasks: impl FnOnce() -> I) -> Result<()>
where
    F: Future<Output = Result<()>> + 'static,
    I: IntoIterator<Item = F>,
{
    let runtime = Builder::new_current_thread()
        .enable_io()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let mut running = JoinSet::new();
        for task in tasks() {
            running.spawn_local(task);
        }
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        Ok(())
    })
}

/// What is asked over the Redis protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    Set,
    /// Writes, and behind those of a pipeline one wait for a replica: with the primary these are two of three.
    SetAndWait,
    /// Reads, at this level of consistency.
    Get(&'static str),
    /// Reads at QUORUM, of each server those keys that it leads, as a client asks that knows the map of the cluster.
    GetOwn,
}

impl Ask {
    /// At which level it reads.
    pub(super) const fn level(self) -> Option<&'static str> {
        match self {
            Self::Set | Self::SetAndWait => None,
            Self::Get(level) => Some(level),
            Self::GetOwn => Some("QUORUM"),
        }
    }
}

/// Asks for some seconds over connections that are spread over these servers, each of which has the keys beside it, in no order, where
/// that makes a difference.
pub(super) fn ask(
    servers: &[(SocketAddr, Rc<[usize]>)],
    connections: usize,
    pipeline: usize,
    ask: Ask,
    seconds: f64,
) -> Result<Turn> {
    let tally = Tally::begin(seconds);
    run(|| {
        let servers = servers.iter().cycle().take(connections).enumerate();
        let tasks = servers.map(|(n, (at, own))| {
            let own = (ask == Ask::GetOwn).then(|| Rc::clone(own));
            turn(*at, own, n as u64, pipeline, ask, Rc::clone(&tally))
        });
        tasks.collect::<Vec<_>>()
    })?;
    Ok(tally.turn())
}

async fn turn(
    at: SocketAddr,
    own: Option<Rc<[usize]>>,
    seed: u64,
    pipeline: usize,
    ask: Ask,
    tally: Rc<Tally>,
) -> Result<()> {
    let mut connection = Connection::open(at).await?;
    if let Some(level) = ask.level() {
        let level = format!("HENGE LEVEL {level}\r\n");
        connection.exchange(level.as_bytes(), b"+OK\r\n").await?;
    }
    let mut random = Random::new(seed);
    // They are in no order: whoever draws from a list of so many waits for memory, and so do the servers for the CPU.
    let begin = own.as_ref().map_or(0, |own| random.below(own.len()));
    let mut own = own.as_deref().map(|own| own.iter().cycle().skip(begin));
    let mut questions = String::new();
    let answers = answers(ask, pipeline);
    loop {
        questions.clear();
        for _ in 0..pipeline {
            let key = match own.as_mut().and_then(Iterator::next) {
                None => random.below(KEYS),
                Some(key) => *key,
            };
            put(&mut questions, ask, key)?;
        }
        if ask == Ask::SetAndWait {
            questions.push_str("*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n");
        }
        let asked = Instant::now();
        connection.exchange(questions.as_bytes(), &answers).await?;
        if !tally.count(asked, pipeline) {
            return Ok(());
        }
    }
}

/// Sets every key once.
pub(super) fn fill(at: SocketAddr) -> Result<()> {
    const BATCH: usize = 500;
    run(|| {
        [async move {
            let mut connection = Connection::open(at).await?;
            for first in (0..KEYS).step_by(BATCH) {
                let mut questions = String::new();
                for key in first..KEYS.min(first + BATCH) {
                    put(&mut questions, Ask::Set, key)?;
                }
                let count = KEYS.min(first + BATCH) - first;
                let answers = answers(Ask::Set, count);
                connection.exchange(questions.as_bytes(), &answers).await?;
            }
            Ok(())
        }]
    })
}

/// The slots of all keys, by a server that knows how they are reckoned.
pub(super) fn slots(at: SocketAddr) -> Result<Vec<u16>> {
    const BATCH: usize = 500;
    let stream = std::net::TcpStream::connect(at)?;
    let mut replies = BufReader::new(&stream).lines();
    let mut slots = Vec::with_capacity(KEYS);
    while slots.len() < KEYS {
        let batch = slots.len()..KEYS.min(slots.len() + BATCH);
        let mut questions = String::new();
        for number in batch.clone() {
            writeln!(questions, "CLUSTER KEYSLOT {}\r", key(number))?;
        }
        (&stream).write_all(questions.as_bytes())?;
        for _ in batch {
            let reply = replies.next().ok_or("a server closed a connection")??;
            let slot = reply.strip_prefix(':').and_then(|slot| slot.parse().ok());
            slots.push(slot.ok_or_else(|| format!("a server answered {reply}"))?);
        }
    }
    Ok(slots)
}

/// What key it is by its number.
pub(super) fn key(number: usize) -> String {
    format!("key:{number:012}")
}

fn put(questions: &mut String, ask: Ask, key: usize) -> std::fmt::Result {
    match ask {
        Ask::Get(_) | Ask::GetOwn => {
            write!(questions, "*2\r\n$3\r\nGET\r\n$16\r\nkey:{key:012}\r\n")
        }
        Ask::Set | Ask::SetAndWait => {
            write!(questions, "*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n")?;
            write!(questions, "${VALUE_BYTES}\r\n{VALUE}\r\n")
        }
    }
}

/// The value of all.
const VALUE: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
const _: () = assert!(VALUE.len() == VALUE_BYTES);

/// The answers to a pipeline, where all is well; of a wait it is how many have it, one at the least.
fn answers(ask: Ask, pipeline: usize) -> Vec<u8> {
    let one = match ask {
        Ask::Get(_) | Ask::GetOwn => format!("${VALUE_BYTES}\r\n{VALUE}\r\n"),
        Ask::Set | Ask::SetAndWait => "+OK\r\n".to_owned(),
    };
    let mut all = one.repeat(pipeline);
    if ask == Ask::SetAndWait {
        all.push_str(":1\r\n");
    }
    all.into_bytes()
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(at: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// Asks, and waits for these answers.
    async fn exchange(&mut self, questions: &[u8], answers: &[u8]) -> Result<()> {
        self.stream.write_all(questions).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("a server closed a connection".into());
            }
            let came = &self.buffer;
            let is_well = came.len() <= answers.len()
                && (came[..] == answers[..came.len()] || is_two(came, answers));
            if !is_well {
                let shown = &came[..came.len().min(200)];
                return Err(format!("a server answered {}", shown.escape_ascii()).into());
            }
            if came.len() == answers.len() {
                return Ok(());
            }
        }
    }
}

/// Whether both replicas have it, where one would do.
fn is_two(came: &[u8], answers: &[u8]) -> bool {
    let (Some(end), true) = (answers.strip_suffix(b":1\r\n"), came.len() <= answers.len()) else {
        return false;
    };
    let wait = came.strip_prefix(end);
    wait.is_some_and(|wait| b":2\r\n".starts_with(wait))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_answered_by_one_or_two() {
        let answers = answers(Ask::SetAndWait, 2);
        assert_eq!(answers, b"+OK\r\n+OK\r\n:1\r\n");
        for (came, expected) in [
            (&b"+OK\r\n+OK\r\n:2\r\n"[..], true),
            (b"+OK\r\n+OK\r\n:2", true),
            (b"+OK\r\n+OK\r\n:0\r\n", false),
            (b"+OK\r\n-ERR\r\n:2\r\n", false),
        ] {
            assert_eq!(is_two(came, &answers), expected, "{came:?}");
        }
    }
}
