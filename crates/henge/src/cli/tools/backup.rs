//! `henge backup`: asks a running node for all of its partitions, page by page, checks every frame that comes, and writes them
//! as one snapshot that needs no log. It leaves a whole file or none.

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
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use indicatif::{HumanBytes, ProgressBar};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Failure, Output, bar};
use crate::cli::simulate::grouped;
use crate::clock::Clock;
use crate::config::shown;
use crate::disk::one_file::OneFile;
use crate::encryption::{Encryption, salt};
use crate::http::X_NEXT_PLACE;

/// What a backup counts as: a snapshot that comes before every log.
const FIRST: u64 = 1;
/// The longest page that is taken: the longest frame, and as much beside it.
const MAX_PAGE_BYTES: usize = 1 << 32;
/// How often a page is asked for, when the node has too much in flight or the connection was cut.
const TRIES: usize = 10;
/// How long is waited before that: what a node asks for that has too much in flight.
const PAUSE: Duration = Duration::from_secs(1);

/// Why there is no backup.
#[derive(Debug)]
enum BackupError {
    Exists,
    /// A directory, a device, a link or the like is there.
    NoFile,
    /// What would lie beside the file while it is written is there: its path.
    Unfinished(PathBuf),
    /// There is no connection.
    Connect(io::Error),
    /// The connection failed, or what came over it.
    Http(String),
    /// Nothing came for so long.
    TimedOut(Duration),
    /// The node says no: the status, the code of the problem, and what it says about it.
    Refused(StatusCode, String),
    /// What came for a partition is not what a node sends.
    Page(Partition, String),
    /// What comes is encrypted, and not to be read.
    Key(KeyError),
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
            Self::Connect(error) => write!(f, "no connection to the node: {error}"),
            Self::Http(error) => write!(f, "the connection to the node failed: {error}"),
            Self::TimedOut(after) => write!(f, "the node did not answer within {after:?}"),
            Self::Refused(status, said) => write!(f, "the node refused ({status}): {said}"),
            Self::Page(partition, wrong) => {
                write!(
                    f,
                    "what came for partition {} is damaged: {wrong}",
                    partition.number()
                )
            }
            Self::Key(error) => write!(f, "what the node sends: {error}"),
            Self::Write(error) => error.fmt(f),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl BackupError {
    /// Whether it may be other in a moment.
    fn may_pass(&self) -> bool {
        match self {
            // Of the second the log failed while the answer waited for it; the next does not wait.
            Self::Http(_) | Self::Refused(StatusCode::GATEWAY_TIMEOUT, _) => true,
            Self::Refused(StatusCode::SERVICE_UNAVAILABLE, said) => said.starts_with("overloaded"),
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
    let mut link = Link::new(target, patience);
    // Before the file, so that a wrong URL leaves nothing.
    link.connect().await?;
    let at_ms = Clock::start().now_ms();
    // A page is asked for twice: how the node encrypts is how the file is encrypted.
    let first = Partition::new(0).expect("there is one");
    let (page, _) = link.page(first, 0).await?;
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
        made.records += copy(&mut link, partition, &encryption, &mut writer).await?;
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

/// Copies a partition, and says how many records it has.
async fn copy(
    link: &mut Link<'_>,
    partition: Partition,
    encryption: &Encryption,
    writer: &mut SnapshotWriter<OneFile>,
) -> Result<u64, BackupError> {
    let mut copied = Copied::default();
    let mut frames = Journal::default();
    let mut place = 0_u32;
    loop {
        let (mut page, next) = link.page(partition, place).await?;
        open(&mut page, encryption)?;
        let wrong = |wrong: String| BackupError::Page(partition, wrong);
        let end = copied.take(partition, &page, &mut frames).map_err(wrong)?;
        match (next, end) {
            (Some(next), None) => {
                // Places go by their reversed bits, and never back.
                if next.reverse_bits() <= place.reverse_bits() {
                    return Err(wrong(format!("place {next} came after place {place}")));
                }
                place = next;
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
        writer.write(&mut frames).map_err(BackupError::Write)?;
        frames = Journal::default();
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

/// A connection to the node, made anew when it breaks: pages are only read.
struct Link<'a> {
    target: &'a Target,
    patience: Duration,
    sender: Option<http1::SendRequest<Empty<Bytes>>>,
}

impl<'a> Link<'a> {
    fn new(target: &'a Target, patience: Duration) -> Self {
        Self {
            target,
            patience,
            sender: None,
        }
    }

    async fn connect(&mut self) -> Result<(), BackupError> {
        let Target { host, port, .. } = self.target;
        let connecting = TcpStream::connect((host.as_str(), *port));
        let stream = self
            .in_time(connecting)
            .await?
            .map_err(BackupError::Connect)?;
        let shaken = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let (sender, driver) = shaken;
        // It ends with the connection, and what went wrong there the request is told.
        tokio::spawn(driver);
        self.sender = Some(sender);
        Ok(())
    }

    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, BackupError> {
        let worked = timeout(self.patience, work).await;
        worked.map_err(|_| BackupError::TimedOut(self.patience))
    }

    /// A page, and where the next one begins.
    async fn page(
        &mut self,
        partition: Partition,
        place: u32,
    ) -> Result<(Vec<u8>, Option<u32>), BackupError> {
        let mut pause = tokio::time::interval(PAUSE);
        // The first tick comes at once.
        pause.tick().await;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_page(partition, place).await {
                Err(error) if error.may_pass() && tries < TRIES => {
                    if matches!(error, BackupError::Http(_)) {
                        self.sender = None;
                    }
                }
                page => return page,
            }
            pause.tick().await;
        }
    }

    async fn try_page(
        &mut self,
        partition: Partition,
        place: u32,
    ) -> Result<(Vec<u8>, Option<u32>), BackupError> {
        if self.sender.is_none() {
            self.connect().await?;
        }
        let host = self.target.server();
        let number = partition.number();
        let path = format!("/admin/backup?partition={number}&place={place}");
        let request = Request::get(path)
            .header(http::header::HOST, host)
            .body(Empty::new())
            .map_err(http)?;
        let sender = self.sender.as_mut().expect("it was connected above");
        let patience = self.patience;
        let late = |_| BackupError::TimedOut(patience);
        let answering = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let response = timeout(patience, answering)
            .await
            .map_err(late)?
            .map_err(http)?;
        let status = response.status();
        let next = response.headers().get(X_NEXT_PLACE);
        let next = next.map(|place| place.to_str().ok().and_then(|place| place.parse().ok()));
        let body = self.body(response.into_body()).await?;
        if status != StatusCode::OK {
            return Err(BackupError::Refused(status, said(&body)));
        }
        match next {
            None => Ok((body, None)),
            Some(Some(place)) => Ok((body, Some(place))),
            Some(None) => {
                let wrong = format!("{X_NEXT_PLACE} is no number");
                Err(BackupError::Page(partition, wrong))
            }
        }
    }

    async fn body(&self, mut body: Incoming) -> Result<Vec<u8>, BackupError> {
        let mut bytes = Vec::new();
        // However long it is, something of it has to come in time.
        while let Some(some) = self.in_time(body.frame()).await? {
            if let Ok(data) = some.map_err(http)?.into_data() {
                if bytes.len() + data.len() > MAX_PAGE_BYTES {
                    return Err(BackupError::Http("the answer has no end".to_owned()));
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes)
    }
}

fn http(error: impl std::error::Error) -> BackupError {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        line = format!("{line}: {inner}");
        source = inner.source();
    }
    BackupError::Http(line)
}

/// What a problem says: its code, and what it says about it.
fn said(body: &[u8]) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let text = |name: &str| {
        let problem = problem.as_ref()?;
        problem[name].as_str().map(str::to_owned)
    };
    match (text("code"), text("detail").or_else(|| text("title"))) {
        (Some(code), Some(detail)) => format!("{code}: {detail}"),
        (Some(code), None) => code,
        _ => "it does not say why".to_owned(),
    }
}
