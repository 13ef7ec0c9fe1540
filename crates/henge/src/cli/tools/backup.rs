//! `henge backup`: asks the leader of each partition of a cluster for all of it, page by page, checks every frame that comes, and
//! writes them as they come, as one snapshot that needs no log. A partition whose leader is lost meanwhile is taken anew from the next one,
//! over what was written of it, so that no two orders are mixed. It holds a page in memory, and leaves a whole file or none.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use henge_client::Target;
use henge_engine::Progress;
use henge_engine::persistence::cipher::{self, KeyError};
use henge_engine::persistence::frame::{Content, Frame, HEADER_BYTES, Header, append, frame};
use henge_engine::persistence::journal::Journal;
use henge_engine::persistence::snapshot::{self, Builder, Part};
use henge_engine::persistence::snapshot_file::SnapshotWriter;
use henge_engine::persistence::{Name, Position, Storage};
use henge_wire::{PARTITIONS, Partition, Version};
use http::{HeaderValue, StatusCode};
use indicatif::{HumanBytes, ProgressBar};

use super::link::{Link, LinkError};
use super::map::Map;
use super::{Failure, Output, bar};
use crate::cli::simulate::grouped;
use crate::clock::Clock;
use crate::config::shown;
use crate::disk::one_file::OneFile;
use crate::encryption::{Encryption, salt};
use crate::http::{X_NEXT_PLACE, X_TERM};

/// What a backup counts as: a snapshot that comes before every log.
const FIRST: u64 = 1;
/// How often a page is asked for, when the node has too much in flight or the connection was cut.
const TRIES: usize = 10;
/// How long is waited before that: what a node asks for that has too much in flight.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a partition is begun anew, after that pause: several times as long as a lost leader is without a successor, and as nodes
/// take to start again.
const TRIES_ANEW: usize = 60;

/// Why there is no backup.
#[derive(Debug)]
enum BackupError {
    Exists,
    /// A directory, a device, a link or the like is there.
    NoFile,
    /// What would lie beside the file while it is written is there: its path.
    Unfinished(PathBuf),
    /// There is no answer, or the node says no.
    Link(LinkError),
    /// Another node leads a partition than when its copy was begun.
    Moved,
    /// What came for a partition is not what a node sends.
    Page(Partition, String),
    /// What comes is encrypted, and not to be read.
    Key(KeyError),
    /// No leader has given a partition in one piece for so long, and why not the last time.
    NoLeader(Partition, Box<Self>),
    /// The node is in no cluster, or does not say who is in it.
    NoCluster(String),
    /// The file cannot be written.
    Write(io::Error),
    Interrupted,
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile => {
                f.write_str("what is there is no file, and is not replaced; name another place")
            }
            Self::Exists => f.write_str("it is there already; --force replaces it"),
            Self::Unfinished(part) => write!(
                f,
                "{} is there: another backup is writing it, or was cut off; remove it if it is not needed",
                shown(part)
            ),
            Self::Link(error) => error.fmt(f),
            Self::Moved => f.write_str("its leader has changed while it was copied"),
            Self::Page(partition, wrong) => {
                write!(
                    f,
                    "what came for partition {} is damaged: {wrong}",
                    partition.number()
                )
            }
            Self::Key(error) => write!(f, "what the node sends: {error}"),
            Self::NoLeader(partition, error) => write!(
                f,
                "no leader of partition {} gives it in one piece; the last time: {error}",
                partition.number()
            ),
            Self::NoCluster(why) => f.write_str(why),
            Self::Write(error) => error.fmt(f),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl From<LinkError> for BackupError {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl BackupError {
    /// Whether another node may lead soon, or does already.
    fn may_move(&self) -> bool {
        match self {
            Self::Moved | Self::NoCluster(_) => true,
            Self::Link(error) => error.may_move(),
            _ => false,
        }
    }

    /// Whether it may be other in a moment.
    fn may_pass(&self) -> bool {
        match self {
            // Of the second the log failed while the answer waited for it; the next does not wait.
            Self::Link(LinkError::Http(_) | LinkError::Refused(StatusCode::GATEWAY_TIMEOUT, _)) => {
                true
            }
            Self::Link(LinkError::Refused(StatusCode::SERVICE_UNAVAILABLE, said)) => {
                said.code == "overloaded"
            }
            _ => false,
        }
    }
}

/// What a backup holds.
#[derive(Clone, Copy, Default)]
struct Made {
    records: u64,
    bytes: u64,
}

pub(super) fn run(
    target: &Target,
    patience: Duration,
    to: &Path,
    force: bool,
    encryption: Encryption,
    out: &mut Output,
) -> Result<(), Failure> {
    let failed = |error: BackupError| Failure::failed(format!("no backup {}: {error}", shown(to)));
    match std::fs::symlink_metadata(to) {
        Ok(there) if !there.is_file() => return Err(failed(BackupError::NoFile)),
        Ok(_) if !force => return Err(failed(BackupError::Exists)),
        // What else is wrong with the place is found when it is written to.
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(BackupError::Write(error)))?;
    let bar = bar(
        "backing up [{bar:40}] {pos} of {len} partitions, {msg}, {eta} left",
        PARTITIONS.into(),
    );
    let made = runtime.block_on(async {
        tokio::select! {
            made = back_up(target, patience, (to, force), encryption, &bar) => made,
            _ = tokio::signal::ctrl_c() => Err(BackupError::Interrupted),
        }
    });
    bar.finish_and_clear();
    let made = made.map_err(failed)?;
    out.line(format_args!(
        "{}: {} records in {} bytes, of {target}",
        shown(to),
        grouped(made.records),
        grouped(made.bytes)
    ));
    Ok(())
}

async fn back_up(
    target: &Target,
    patience: Duration,
    (to, force): (&Path, bool),
    encryption: Encryption,
    bar: &ProgressBar,
) -> Result<Made, BackupError> {
    let mut cluster = Cluster::new(target, patience);
    // Before the file, so that a wrong URL leaves nothing.
    cluster.look().await?;
    let at_ms = Clock::start().now_ms();
    // A page is asked for twice: how a node encrypts is how the file is encrypted.
    let first = Partition::new(0).expect("there is one");
    let page = cluster.first_page(first).await?;
    let header = Header::decode(&page);
    let header = header.map_err(|error| BackupError::Page(first, error.to_string()))?;
    let encryption = encryption.made_of(header.cipher);
    let file = OneFile::new(to, encryption.clone(), force);
    let begun = SnapshotWriter::begin(file.clone(), FIRST, salt());
    let mut writer = begun.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Unfinished(file.part()),
        _ => BackupError::Write(error),
    })?;
    let unfinished = Unfinished(Some(&file));
    let mut made = Made::default();
    for partition in Partition::all() {
        let before = writer.len();
        let copied = cluster.led(partition, async |link| {
            // What another leader gave of it is nothing now.
            writer.cut_back(before).map_err(BackupError::Write)?;
            copy(link, partition, &encryption, &mut writer).await
        });
        made.records += copied.await?;
        bar.inc(1);
        let bytes = HumanBytes(writer.len());
        bar.set_message(format!("{bytes}, {} records", grouped(made.records)));
    }
    // No log has any of it.
    let position = Position::default();
    let finished = writer.finish(position, made.records, at_ms);
    finished.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists,
        _ => BackupError::Write(error),
    })?;
    unfinished.keep();
    made.bytes = file.len().map_err(BackupError::Write)?;
    Ok(made)
}

/// What is written beside the file, and is gone when this is before it is done: a backup that fails, or is interrupted, leaves
/// nothing. There is one only after the file was made, so that nothing else is ever removed.
struct Unfinished<'a>(Option<&'a OneFile>);

impl Unfinished<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.0 {
            // Where that fails the next backup says that it is there.
            let _ = file.remove(Name::unfinished(FIRST));
        }
    }
}

/// The nodes that are asked, by what one of them says.
struct Cluster<'a> {
    /// The one that was named.
    target: &'a Target,
    patience: Duration,
    map: Map,
    links: BTreeMap<String, Link>,
}

impl<'a> Cluster<'a> {
    fn new(target: &'a Target, patience: Duration) -> Self {
        Self {
            target,
            patience,
            map: Map::default(),
            links: BTreeMap::new(),
        }
    }

    fn link(&mut self, target: &Target) -> &mut Link {
        let patience = self.patience;
        let link = self.links.entry(target.server());
        link.or_insert_with(|| Link::new(target.clone(), patience))
    }

    /// Finds out who leads what: of the node that was named, or any other that is known.
    async fn look(&mut self) -> Result<(), BackupError> {
        let named = self.target.clone();
        let others = self.map.others(&named);
        let mut first = None;
        for target in std::iter::once(named.clone()).chain(others) {
            let page = self.link(&target).get("/cluster/status").await;
            let map = page.map_err(BackupError::Link);
            let map =
                map.and_then(|(_, page)| Map::of(&page, &target).map_err(BackupError::NoCluster));
            match map {
                Ok(map) => {
                    self.map = map;
                    return Ok(());
                }
                Err(error) => {
                    self.link(&target).drop_connection();
                    first.get_or_insert(error);
                }
            }
        }
        Err(first.expect("one was asked"))
    }

    /// Does something about a partition with its leader, and with the next one where that fails.
    async fn led<T>(
        &mut self,
        partition: Partition,
        mut work: impl AsyncFnMut(&mut Link) -> Result<T, BackupError>,
    ) -> Result<T, BackupError> {
        let mut pause = tokio::time::interval(PAUSE);
        // The first tick comes at once.
        pause.tick().await;
        let mut tries = 0;
        loop {
            let failure = match self.map.leader(partition).cloned() {
                None => BackupError::NoCluster("nobody leads it".to_owned()),
                Some(leader) => {
                    let link = self.link(&leader);
                    match work(link).await {
                        Err(error) if error.may_move() => {
                            link.drop_connection();
                            error
                        }
                        done => return done,
                    }
                }
            };
            tries += 1;
            // Of one node there is nobody else to ask.
            if tries >= TRIES_ANEW || self.map.is_one() {
                return Err(if self.map.is_one() {
                    failure
                } else {
                    BackupError::NoLeader(partition, Box::new(failure))
                });
            }
            pause.tick().await;
            // What was known before may do, where nobody says more.
            if let Err(error) = self.look().await
                && !error.may_move()
            {
                return Err(error);
            }
        }
    }

    async fn first_page(&mut self, partition: Partition) -> Result<Vec<u8>, BackupError> {
        let first = self.led(partition, async |link| page(link, partition, 0).await);
        Ok(first.await?.bytes)
    }
}

/// Copies a partition from a node, all of it in one term, page by page, so that there is one of them in memory. Says how many records it
/// has. After an error some of it is written.
async fn copy(
    link: &mut Link,
    partition: Partition,
    encryption: &Encryption,
    writer: &mut SnapshotWriter<OneFile>,
) -> Result<u64, BackupError> {
    let mut copied = Copied::default();
    let mut place = 0_u32;
    let mut began = None;
    loop {
        let Page {
            mut bytes,
            next,
            term,
        } = page(link, partition, place).await?;
        if *began.get_or_insert_with(|| term.clone()) != term {
            return Err(BackupError::Moved);
        }
        open(&mut bytes, encryption)?;
        let wrong = |wrong: String| BackupError::Page(partition, wrong);
        let mut frames = Journal::default();
        let end = copied.take(partition, &bytes, &mut frames).map_err(wrong)?;
        match (next, end) {
            (Some(next), None) => {
                // Places go by their reversed bits, and never back.
                if next.reverse_bits() <= place.reverse_bits() {
                    return Err(wrong(format!("place {next} came after place {place}")));
                }
                place = next;
                writer.write(&mut frames).map_err(BackupError::Write)?;
            }
            (None, Some(progress)) => {
                let last = progress.last.max(copied.newest);
                let progress = Progress { last, ..progress };
                let ended = Builder::partition(partition, progress, copied.records, &mut frames);
                ended.map_err(|error| wrong(error.to_string()))?;
                writer.write(&mut frames).map_err(BackupError::Write)?;
                return Ok(copied.records);
            }
            (Some(_), Some(_)) => return Err(wrong("it goes on behind its end".to_owned())),
            (None, None) => return Err(wrong("it has no end".to_owned())),
        }
    }
}

/// Makes a page that is encrypted a plain one. What is no page is left as it is, for who reads it to say.
fn open(page: &mut Vec<u8>, encryption: &Encryption) -> Result<(), BackupError> {
    let Ok(header) = Header::decode(page) else {
        return Ok(());
    };
    let cipher = cipher::opener(encryption, &header).map_err(BackupError::Key)?;
    let Some(cipher) = cipher else {
        return Ok(());
    };
    let plain = Header {
        cipher: 0,
        key_id: 0,
        ..header
    };
    let mut opened = plain.encode().to_vec();
    let mut at = HEADER_BYTES;
    while let Frame::Whole { body, len } = frame(header.seed(), &page[at..]) {
        let mut body = body.to_vec();
        let place = cipher::open(&*cipher, &mut body)
            .map_err(|_| BackupError::Key(KeyError::Wrong(header.key_id)))?;
        let appended = append(plain.seed(), &body[place], &mut opened);
        appended.expect("it is shorter than it was");
        at += len;
    }
    // What is no frame is none after this either.
    opened.extend_from_slice(&page[at..]);
    *page = opened;
    Ok(())
}

/// What was copied of a partition.
#[derive(Default)]
struct Copied {
    records: u64,
    newest: Version,
    scratch: Vec<u8>,
}

impl Copied {
    /// Takes the blocks of a page; and gives how far the partition has come, if it was the last.
    fn take(
        &mut self,
        partition: Partition,
        page: &[u8],
        frames: &mut Journal,
    ) -> Result<Option<Progress>, String> {
        let header = Header::decode(page).map_err(|error| error.to_string())?;
        if header.content != Content::Snapshot {
            return Err("it is no part of a snapshot".to_owned());
        }
        let mut at = HEADER_BYTES;
        let mut end = None;
        while at < page.len() {
            let body = match frame(header.seed(), &page[at..]) {
                Frame::Whole { body, len } => {
                    at += len;
                    body
                }
                Frame::Damaged(damage) => return Err(format!("at byte {at}: {damage}")),
                Frame::End | Frame::Cut => return Err(format!("at byte {at} it is cut off")),
            };
            if end.is_some() {
                return Err("it goes on behind its end".to_owned());
            }
            let (of, ends) = match snapshot::decode(body).map_err(|damage| damage.to_string())? {
                Part::Block(block) => {
                    let newest = &mut self.newest;
                    let read = block.own_records(&mut self.scratch, |record| {
                        *newest = (*newest).max(record.version);
                    });
                    read.map_err(|damage| damage.to_string())?;
                    self.records += u64::from(block.records);
                    frames.push_body(body).map_err(|error| error.to_string())?;
                    (block.partition, None)
                }
                Part::Replica { partition, .. } => (partition, None),
                Part::Partition {
                    partition,
                    progress,
                    ..
                } => (partition, Some(progress)),
                Part::Complete { .. } => return Err("it says that all is complete".to_owned()),
            };
            if of != partition {
                return Err(format!("it is of partition {}", of.number()));
            }
            end = ends;
        }
        Ok(end)
    }
}

/// A page as it came, and where the next one begins.
struct Page {
    bytes: Vec<u8>,
    next: Option<u32>,
    /// The term that it is of; none of a node that does not say.
    term: Option<HeaderValue>,
}

async fn page(link: &mut Link, partition: Partition, place: u32) -> Result<Page, BackupError> {
    let mut pause = tokio::time::interval(PAUSE);
    // The first tick comes at once.
    pause.tick().await;
    let mut tries = 0;
    loop {
        tries += 1;
        match try_page(link, partition, place).await {
            Err(error) if error.may_pass() && tries < TRIES => {
                if matches!(error, BackupError::Link(LinkError::Http(_))) {
                    link.drop_connection();
                }
            }
            page => return page,
        }
        pause.tick().await;
    }
}

async fn try_page(link: &mut Link, partition: Partition, place: u32) -> Result<Page, BackupError> {
    let number = partition.number();
    let path = format!("/admin/backup?partition={number}&place={place}&leads=true");
    let (headers, bytes) = link.get(&path).await?;
    let next = headers.get(X_NEXT_PLACE);
    let next = next.map(|place| place.to_str().ok().and_then(|place| place.parse().ok()));
    let next = match next {
        None => None,
        Some(Some(place)) => Some(place),
        Some(None) => {
            let wrong = format!("{X_NEXT_PLACE} is no number");
            return Err(BackupError::Page(partition, wrong));
        }
    };
    let term = headers.get(X_TERM).cloned();
    Ok(Page { bytes, next, term })
}
