//! `henge restore --url`: sends the records of a backup to a running cluster, through any of its nodes, some batches at a time. What a
//! node could not do now is asked for again, of the next node too, for a bounded time; what the cluster has already stays,
//! unless it is to be replaced. It reads no record and writes no file; when it gives up it says how far it came.

use std::collections::HashSet;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use henge_client::{Socket, Target};
use henge_wire::resp::encode;
use http::StatusCode;
use indicatif::ProgressBar;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::link::{Link, LinkError, Refusal};
use super::super::map::Map;
use super::super::{Failure, Output, bar};
use super::batches::{Batch, Checked, Shown, check, read};
use super::unread;
use crate::calendar;
use crate::cli::simulate::grouped;
use crate::cli::{api_key, tls};
use crate::config::shown;
use crate::disk::restore::RestoreError;
use crate::encryption::Encryption;

/// Batches that are out at a time, each over a connection of its own: enough that the threads of a node have work while others wait
/// for replicas, and few enough that those of a user have a turn.
const AT_A_TIME: usize = 8;
/// For how long a batch is asked for again of which nothing can be written: several times as long as a lost leader is without a
/// successor, and as nodes take to start again.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long is waited before that: little beside what a leader takes to be replaced.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest line that says how many keys there are, or why that is not said.
const MAX_LINE_BYTES: u64 = 4096;

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct Order {
    pub(in super::super) target: Target,
    pub(in super::super) timeout: Duration,
    /// What the cluster has of the keys of the backup is replaced.
    pub(in super::super) replace: bool,
}

/// Why not all was restored.
enum Stopped {
    /// Nothing was sent.
    Before(Failure),
    /// The node does not take what is sent, or none did anything with it for so long.
    Node(LinkError),
    /// Of so many records none could be written for so long; of the first why.
    Records(usize, Refusal),
    /// What was answered makes no sense.
    Answer,
    /// The file was whole before.
    File(RestoreError),
    Interrupted,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before(failure) => f.write_str(&failure.line),
            Self::Node(error) => error.fmt(f),
            Self::Records(1, why) => write!(f, "a record cannot be written: {why}"),
            Self::Records(count, why) => {
                write!(f, "{count} records cannot be written; the first: {why}")
            }
            Self::Answer => f.write_str("the node's answer is none to what was asked"),
            Self::File(error) => error.fmt(f),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// What became of the records.
#[derive(Clone, Default)]
struct Tally {
    written: u64,
    present: u64,
    /// Were there when they were sent again, as the first time may have written them.
    found_again: u64,
    expired: u64,
    deleted: u64,
    older: u64,
    /// May be written or not, as no answer came.
    unknown: u64,
    /// Could never be written: how many, and the key of the first and why.
    refused: u64,
    first_refused: Option<(String, Refusal)>,
}

pub(in super::super) fn run(
    order: &Order,
    file: &Path,
    encryption: &Encryption,
    out: &mut Output,
) -> Result<(), Failure> {
    let checking = bar(
        "checking [{bar:40}] {bytes} of {total_bytes}, {msg}, {eta} left",
        0,
    );
    let checked = check(file, encryption, &mut |read, of, records| {
        checking.set_length(of);
        checking.set_position(read);
        checking.set_message(format!("{} records", grouped(records)));
    });
    checking.finish_and_clear();
    let checked = Arc::new(checked.map_err(unread)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    let bar = bar(
        "restoring [{bar:40}] {human_pos} of {human_len} records, {per_sec}, {eta} left",
        checked.records,
    );
    let shared = Arc::new(Shared {
        nodes: Nodes::new(order.target.clone()),
        order: order.clone(),
        patience: PATIENCE,
        bar: bar.clone(),
        tally: Mutex::default(),
        is_over: AtomicBool::new(false),
    });
    let loading = load(&shared, file, encryption, &checked);
    let loaded = runtime.block_on(async {
        tokio::select! {
            loaded = loading => loaded,
            _ = tokio::signal::ctrl_c() => Err(Stopped::Interrupted),
        }
    });
    bar.finish_and_clear();
    let keys = loaded.is_ok().then(|| {
        let asked = shared.nodes.current();
        runtime.block_on(size(&asked, order.timeout)).ok()
    });
    // The thread that reads the file may still be about to find that nobody takes it.
    runtime.shutdown_background();
    let tally = shared.tally().clone();
    let target = &order.target;
    match loaded {
        Ok(()) => {}
        Err(Stopped::Before(failure)) => return Err(failure),
        Err(why) => return Err(halted(target, file, &why, &tally, checked.records)),
    }
    let of = match checked.at_ms {
        0 => String::new(),
        at_ms => format!(" of {}", calendar::text(at_ms)),
    };
    let now = keys.flatten().map_or_else(String::new, |keys| {
        format!(", which has {} keys now", grouped(keys))
    });
    let written = grouped(tally.written);
    let left_out = tally.left_out();
    out.line(format_args!(
        "restored {written} records{of} into {target}{now}{left_out}"
    ));
    match &tally.first_refused {
        None => Ok(()),
        Some((key, why)) => Err(Failure::failed(format!(
            "{} records were refused for good; the first, of the key {key}: {why}",
            grouped(tally.refused)
        ))),
    }
}

/// How far it came of so many records, and how to go on.
fn halted(target: &Target, file: &Path, why: &Stopped, tally: &Tally, records: u64) -> Failure {
    let (file, written, of) = (shown(file), grouped(tally.written), grouped(records));
    let maybe = match (why, tally.unknown) {
        (Stopped::Interrupted, _) => "; what was under way may be restored as well".to_owned(),
        (_, 0) => String::new(),
        (_, unknown) => format!("; {} more may be", grouped(unknown)),
    };
    Failure::failed(format!(
        "restored {written} of {of} records into {target}, and then no more: {why}{maybe}; to go on, \
         henge restore {file} --url {target} --replace writes all of them once more"
    ))
}

impl Tally {
    /// What else there was, for people.
    fn left_out(&self) -> String {
        let parts = [
            (self.present, "were there already and stay as they are"),
            (
                self.found_again,
                "were there when they were sent again, as no answer had come",
            ),
            (self.expired, "have expired"),
            (self.deleted, "say that a key was deleted"),
            (self.older, "are older ones of the same keys"),
        ];
        let parts = parts.into_iter().filter(|(count, _)| *count > 0);
        let parts = parts.map(|(count, what)| format!("; {} {what}", grouped(count)));
        parts.collect()
    }
}

/// The nodes that may be asked, of which one is.
struct Nodes {
    all: Mutex<Vec<Target>>,
    at: AtomicUsize,
}

impl Nodes {
    fn new(target: Target) -> Self {
        Self {
            all: Mutex::new(vec![target]),
            at: AtomicUsize::new(0),
        }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Target>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Target {
        let all = self.all();
        all[self.at.load(Ordering::Relaxed) % all.len()].clone()
    }

    /// Has the next one asked, if it is this one that is now.
    fn leave(&self, target: &Target) {
        if self.current() == *target {
            self.at.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What all who send have.
struct Shared {
    nodes: Nodes,
    order: Order,
    patience: Duration,
    bar: ProgressBar,
    tally: Mutex<Tally>,
    /// Somebody gave up.
    is_over: AtomicBool,
}

impl Shared {
    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

async fn load(
    shared: &Arc<Shared>,
    file: &Path,
    encryption: &Encryption,
    checked: &Arc<Checked>,
) -> Result<(), Stopped> {
    get_ready(shared).await.map_err(Stopped::Before)?;
    let (sender, receiver) = mpsc::channel(AT_A_TIME);
    let reading = {
        let (file, encryption) = (file.to_owned(), encryption.clone());
        let (checked, shared) = (Arc::clone(checked), Arc::clone(shared));
        tokio::task::spawn_blocking(move || {
            read(&file, &encryption, &checked, &mut |shown| {
                let is_taken = match shown {
                    Shown::Batch(batch) => sender.blocking_send(batch).is_ok(),
                    Shown::Older(count) => {
                        shared.tally().older += count;
                        shared.bar.inc(count);
                        true
                    }
                };
                if is_taken {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })
        })
    };
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    let mut senders = JoinSet::new();
    for _ in 0..AT_A_TIME {
        senders.spawn(send_all(Arc::clone(shared), Arc::clone(&receiver)));
    }
    // Once all of them are gone nobody takes what is read.
    drop(receiver);
    let mut stopped = Ok(());
    while let Some(sent) = senders.join_next().await {
        if let Err(why) = sent.expect("nothing in it panics") {
            // The others end with what they have out, so that it is known what became of it.
            shared.is_over.store(true, Ordering::Relaxed);
            stopped = stopped.and(Err(why));
        }
    }
    stopped?;
    let read = reading.await.expect("nothing in it panics");
    read.map_err(Stopped::File)
}

/// Finds the members of the cluster, and refuses one that has keys where nothing is to be replaced.
async fn get_ready(shared: &Shared) -> Result<(), Failure> {
    let Order {
        target,
        timeout,
        replace,
    } = &shared.order;
    let nothing = |why: &dyn fmt::Display| {
        Failure::failed(format!("nothing was restored into {target}: {why}"))
    };
    let mut link = Link::new(target.clone(), *timeout);
    let page = link.get("/cluster/status").await;
    let (_, page) = page.map_err(|error| nothing(&error))?;
    let map = Map::of(&page, target).map_err(|why| nothing(&why))?;
    shared.nodes.all().extend(map.others(target));
    if *replace {
        return Ok(());
    }
    match size(target, *timeout).await {
        Ok(0) => Ok(()),
        Ok(keys) => Err(Failure::damaged(format!(
            "{target} has {} keys, and nothing was restored; --replace writes those of the backup over them and leaves all others, \
             FLUSHALL or POST /flush removes all",
            grouped(keys)
        ))),
        Err(why) => Err(nothing(&format!("whether it has keys is not known: {why}"))),
    }
}

/// How many keys the cluster has: what `DBSIZE` says on the same port, since over HTTP each node tells of its own.
async fn size(target: &Target, patience: Duration) -> Result<u64, String> {
    let asking = async {
        let socket = Socket::open(target, tls::towards(target)?.as_ref()).await?;
        let mut stream = BufReader::new(socket);
        let mut line = String::new();
        if let Some(key) = api_key::of_environment().map_err(std::io::Error::other)? {
            let mut words = Vec::new();
            encode::request(&mut words, &[b"AUTH", key.reveal().as_bytes()]);
            stream.write_all(&words).await?;
            stream.flush().await?;
            (&mut stream)
                .take(MAX_LINE_BYTES)
                .read_line(&mut line)
                .await?;
            if line != "+OK\r\n" {
                return Ok(line);
            }
            line.clear();
        }
        stream.write_all(b"*1\r\n$6\r\nDBSIZE\r\n").await?;
        stream.flush().await?;
        stream.take(MAX_LINE_BYTES).read_line(&mut line).await?;
        std::io::Result::Ok(line)
    };
    let line = tokio::time::timeout(patience, asking).await;
    let line = line.map_err(|_| format!("DBSIZE was not answered within {patience:?}"))?;
    let line = line.map_err(|error| format!("DBSIZE was not answered: {error}"))?;
    let line = line.trim_end();
    let count = line.strip_prefix(':').and_then(|count| count.parse().ok());
    count.ok_or_else(|| format!("DBSIZE was answered {line:?}"))
}

type Batches = Arc<tokio::sync::Mutex<mpsc::Receiver<Batch>>>;

/// Sends batches one after the other, until there are no more or somebody gave up.
async fn send_all(shared: Arc<Shared>, batches: Batches) -> Result<(), Stopped> {
    let mut link = Link::new(shared.nodes.current(), shared.order.timeout);
    loop {
        // Whoever has the lock waits for the next one, and the others for the lock.
        let batch = batches.lock().await.recv().await;
        let Some(batch) = batch else {
            return Ok(());
        };
        if shared.is_over() {
            return Ok(());
        }
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            send(&shared, &mut link, part, &mut parts).await?;
        }
    }
}

/// Sends a batch until of each record it is known what became of it; one that is too large for the node goes in `parts`.
async fn send(
    shared: &Shared,
    link: &mut Link,
    mut batch: Batch,
    parts: &mut Vec<Batch>,
) -> Result<(), Stopped> {
    let path = if shared.order.replace {
        "/admin/restore?replace=true"
    } else {
        "/admin/restore"
    };
    let mut idle_since: Option<Instant> = None;
    let mut pause = tokio::time::interval(PAUSE);
    // An answer was lost that may have said that they are written.
    let mut is_doubtful = false;
    loop {
        let node = shared.nodes.current();
        if *link.target() != node {
            *link = Link::new(node, shared.order.timeout);
        }
        let why = match link.post(path, batch.body.clone()).await {
            Ok(answer) => {
                let answer = Answer::read(&answer, batch.records).ok_or(Stopped::Answer)?;
                if answer.is_progress() {
                    idle_since = None;
                }
                let rest = shared.take(&batch, &answer, is_doubtful);
                let Some((places, why)) = rest else {
                    return Ok(());
                };
                is_doubtful |= answer.is_doubtful();
                batch = batch.only(&places);
                Stopped::Records(batch.records, why)
            }
            Err(error) if is_passing(&error) => {
                is_doubtful |= may_be_done(&error);
                if error.is_of_connection() {
                    link.drop_connection();
                }
                Stopped::Node(error)
            }
            Err(LinkError::Refused(StatusCode::PAYLOAD_TOO_LARGE, why)) => {
                link.drop_connection();
                if batch.records > 1 {
                    let half = batch.records / 2;
                    parts.push(batch.only(&(0..half).collect()));
                    parts.push(batch.only(&(half..batch.records).collect()));
                } else {
                    shared.refuse(&batch, 0, why);
                    shared.bar.inc(1);
                }
                return Ok(());
            }
            Err(error) => return Err(Stopped::Node(error)),
        };
        let since = *idle_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= shared.patience || shared.is_over() {
            if is_doubtful {
                shared.tally().unknown += batch.records as u64;
            }
            return Err(why);
        }
        shared.nodes.leave(link.target());
        // However late the answer came.
        pause.reset();
        pause.tick().await;
    }
}

/// Whether it may be other in a moment, or at another node.
fn is_passing(error: &LinkError) -> bool {
    match error {
        LinkError::Refused(status, _) => is_passing_status(*status),
        _ => true,
    }
}

fn is_passing_status(status: StatusCode) -> bool {
    // What is full, or cannot log, may have room again once replicas or the disk have caught up.
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
            | StatusCode::INSUFFICIENT_STORAGE
    )
}

/// Whether some of a batch may be written all the same.
fn may_be_done(error: &LinkError) -> bool {
    match error {
        LinkError::Connect(_) => false,
        LinkError::Http(_) | LinkError::TimedOut(_) => true,
        // Also where of a part of the batch it is sure that it is not.
        LinkError::Refused(status, why) => {
            *status == StatusCode::GATEWAY_TIMEOUT || why.code == "try_again"
        }
    }
}

/// What a node says became of a batch.
#[derive(Deserialize)]
struct Answer {
    records: usize,
    written: u64,
    present: u64,
    expired: u64,
    deleted: u64,
    failed: Vec<Failed>,
}

/// A record of which that is not written.
#[derive(Deserialize)]
struct Failed {
    at: usize,
    error: serde_json::Value,
}

impl Failed {
    fn status(&self) -> Option<StatusCode> {
        let status = self.error["status"].as_u64()?;
        StatusCode::from_u16(u16::try_from(status).ok()?).ok()
    }
}

impl Answer {
    /// Reads it; none where it is of anything but so many records.
    fn read(bytes: &[u8], records: usize) -> Option<Self> {
        let answer: Self = serde_json::from_slice(bytes).ok()?;
        let told = [
            answer.written,
            answer.present,
            answer.expired,
            answer.deleted,
            answer.failed.len() as u64,
        ];
        let told = told.into_iter().try_fold(0, u64::checked_add)?;
        let places: HashSet<usize> = answer.failed.iter().map(|failed| failed.at).collect();
        let is_whole = told == records as u64
            && answer.records == records
            && places.len() == answer.failed.len()
            && places.iter().all(|at| *at < records);
        is_whole.then_some(answer)
    }

    fn is_progress(&self) -> bool {
        self.failed.len() < self.records
    }

    /// Whether some may be written all the same.
    fn is_doubtful(&self) -> bool {
        let unknown = Some(StatusCode::GATEWAY_TIMEOUT);
        self.failed.iter().any(|failed| failed.status() == unknown)
    }
}

impl Shared {
    /// Counts a record that can never be written.
    fn refuse(&self, batch: &Batch, place: usize, why: Refusal) {
        let mut tally = self.tally();
        tally.refused += 1;
        tally.first_refused.get_or_insert_with(|| {
            let key = batch.key(place).unwrap_or_default();
            (format!("{:?}", String::from_utf8_lossy(&key)), why)
        });
    }

    /// Counts what became of a batch. The places of the records that are to be sent again, and why the first of them is.
    fn take(
        &self,
        batch: &Batch,
        answer: &Answer,
        is_doubtful: bool,
    ) -> Option<(HashSet<usize>, Refusal)> {
        let mut tally = self.tally();
        tally.written += answer.written;
        tally.expired += answer.expired;
        tally.deleted += answer.deleted;
        if is_doubtful {
            tally.found_again += answer.present;
        } else {
            tally.present += answer.present;
        }
        drop(tally);
        let mut again = HashSet::new();
        let mut why = None;
        for failed in &answer.failed {
            if failed.status().is_some_and(is_passing_status) {
                again.insert(failed.at);
                why.get_or_insert_with(|| Refusal::of(&failed.error));
            } else {
                self.refuse(batch, failed.at, Refusal::of(&failed.error));
            }
        }
        self.bar.inc((batch.records - again.len()) as u64);
        Some(again).zip(why)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A restore that asks this address and has no patience, and what it says when it has given a batch of five records up, of ten.
    fn given_up(address: std::net::SocketAddr) -> Failure {
        let target: Target = format!("http://{address}").parse().expect("it is one");
        let shared = Shared {
            nodes: Nodes::new(target.clone()),
            order: Order {
                target: target.clone(),
                timeout: Duration::from_mins(1),
                replace: false,
            },
            patience: Duration::ZERO,
            bar: ProgressBar::hidden(),
            tally: Mutex::default(),
            is_over: AtomicBool::new(false),
        };
        shared.tally().written = 3;
        let batch = Batch {
            body: vec![b'x'].into(),
            records: 5,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let sent = runtime.block_on(async {
            let mut link = Link::new(target.clone(), shared.order.timeout);
            send(&shared, &mut link, batch, &mut Vec::new()).await
        });
        let why = sent.expect_err("nobody takes it");
        let tally = shared.tally().clone();
        halted(&target, Path::new("a.backup"), &why, &tally, 10)
    }

    #[test]
    fn who_gives_up_says_how_far_it_came() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it has one");
        drop(listener);
        let nobody = given_up(address);
        assert_ne!(nobody.exit_code, 0);
        let expected = format!(
            "restored 3 of 10 records into http://{address}, and then no more: no connection to the node"
        );
        assert!(nobody.line.starts_with(&expected), "{}", nobody.line);
        assert!(!nobody.line.contains("more may be"), "{}", nobody.line);
        assert!(
            nobody
                .line
                .contains("--replace writes all of them once more")
        );
    }

    #[test]
    fn what_was_sent_and_not_answered_may_be_restored() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it has one");
        let node = std::thread::spawn(move || {
            // It ends before it has answered.
            listener.accept().map(drop)
        });
        let lost = given_up(address);
        node.join().expect("it ends").expect("it was asked");
        assert!(
            lost.line.contains("; 5 more may be; to go on"),
            "{}",
            lost.line
        );
    }
}
