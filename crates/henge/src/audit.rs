//! The audit log: who did which administrative action, or was denied which, when and from where, as lines of JSON in a file that
//! is rotated. Whoever tells it something never waits for the disk; what it has no room for is counted, and the count is in it.
//! No key, no value and no secret is in it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::access::hash::without_keys;
use crate::calendar;

/// Lines that may wait for the disk: seconds of what is written of a flood.
const QUEUE: usize = 1024;

/// Denied actions that are listed at once, and in how many milliseconds there is room for another; those beyond are counted. Without
/// that a stranger could have older lines rotated away: this way it takes more than a week to fill the files of the default.
const DENIED_AT_ONCE: u64 = 50;
const DENIED_EVERY_MS: u64 = 5_000;

/// After so much silence it is said what was not listed.
const COUNTS_AFTER: Duration = Duration::from_secs(1);

/// At most one line this often in the node's own log on a file that cannot be written.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);

/// What came of an action.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Done,
    Failed,
    Denied,
    /// Who asked did not wait for what came of it.
    Unknown,
}

/// An action of which there is a line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Action<'a> {
    /// `http` or `redis`; `signal` of what the machine that the node is on asks for.
    pub(crate) protocol: &'static str,
    /// None of a signal.
    pub(crate) client: Option<SocketAddr>,
    /// The name of the API key that was shown; none of who has shown none.
    pub(crate) key: Option<&'a str>,
    /// The method and the path, or the command and its arguments.
    #[serde(rename = "action")]
    pub(crate) what: &'a str,
    pub(crate) outcome: Outcome,
    /// Why it was denied or failed: a code of the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<&'a str>,
}

/// What an answer over HTTP adds to its action, where the path does not say what was done.
#[derive(Clone, Debug)]
pub(crate) struct Detail(pub(crate) String);

#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    node: &'a str,
    #[serde(flatten)]
    action: &'a Action<'a>,
}

/// Where actions are told; nobody listens where no file is set.
#[derive(Debug)]
pub(crate) struct Audit {
    node: String,
    lines: Option<SyncSender<Told>>,
    counts: Arc<Counts>,
}

/// What is not written line by line.
#[derive(Debug, Default)]
struct Counts {
    /// When all that are listed at once would have had their time: each moves it on.
    listed_until_ms: AtomicU64,
    /// Denied actions beyond those that are listed, since that was last written.
    beyond: AtomicU64,
    /// Lines for which there was no room, or no disk, since that was last written.
    lost: AtomicU64,
    /// The same since the start.
    lost_ever: AtomicU64,
    /// The file is to be opened anew.
    is_to_reopen: AtomicBool,
}

impl Counts {
    fn lose(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
        self.lost_ever.fetch_add(lines, Ordering::Relaxed);
    }

    /// Whether a denied action is to be listed. Before anything is done for it, as who is denied can ask without end.
    fn lists(&self, time_ms: u64) -> bool {
        let latest = time_ms + DENIED_AT_ONCE * DENIED_EVERY_MS;
        let next = |until_ms: u64| {
            // A clock that was set back does not hold it up for longer than that.
            let until_ms = until_ms.clamp(time_ms, latest) + DENIED_EVERY_MS;
            (until_ms <= latest).then_some(until_ms)
        };
        let (listed, relaxed) = (&self.listed_until_ms, Ordering::Relaxed);
        let is_listed = listed.fetch_update(relaxed, relaxed, next).is_ok();
        if !is_listed {
            self.beyond.fetch_add(1, relaxed);
        }
        is_listed
    }
}

#[derive(Debug)]
enum Told {
    Entry(Entry),
    /// Nothing comes any more.
    End,
}

#[derive(Debug)]
struct Entry {
    line: Vec<u8>,
    time_ms: u64,
}

impl Audit {
    /// One that keeps nothing.
    pub(crate) fn none() -> Self {
        Self {
            node: String::new(),
            lines: None,
            counts: Arc::default(),
        }
    }

    /// One that keeps what it is told for the writer that is returned.
    pub(crate) fn of(node: String, file: AuditFile) -> (Self, Writer) {
        let (lines, told) = sync_channel(QUEUE);
        let counts: Arc<Counts> = Arc::default();
        let writer = Writer {
            told,
            counts: Arc::clone(&counts),
            node: node.clone(),
            file,
            last_ms: 0,
            complained: None,
        };
        let audit = Self {
            node,
            lines: Some(lines),
            counts,
        };
        (audit, writer)
    }

    /// Whether somebody listens: only then is it worth to say what was done.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Notes an action down.
    #[cold]
    pub(crate) fn note(&self, time_ms: u64, action: &Action<'_>) {
        let Some(lines) = &self.lines else {
            return;
        };
        if action.outcome == Outcome::Denied && !self.counts.lists(time_ms) {
            return;
        }
        let time = calendar::text_with_millis(time_ms);
        // A machine has one address, whichever way the port is listened on.
        let canonical =
            |client: SocketAddr| SocketAddr::new(client.ip().to_canonical(), client.port());
        let client = action.client.map(canonical);
        // Who gives a key where its name belongs has it known to the log's readers else.
        let what = without_keys(action.what);
        let action = &Action {
            client,
            what: &what,
            ..action.clone()
        };
        let line = Line {
            time: &time,
            node: &self.node,
            action,
        };
        let mut bytes = serde_json::to_vec(&line).expect("it is texts");
        bytes.push(b'\n');
        let entry = Entry {
            line: bytes,
            time_ms,
        };
        if lines.try_send(Told::Entry(entry)).is_err() {
            self.counts.lose(1);
        }
    }

    /// Lines for which there was no room, or no disk, since the start.
    pub(crate) fn lost(&self) -> u64 {
        self.counts.lost_ever.load(Ordering::Relaxed)
    }

    /// Has the file opened anew, which may have been taken away; what comes from here on is in that.
    pub(crate) fn reopen(&self) {
        self.counts.is_to_reopen.store(true, Ordering::Release);
    }

    /// Has the writer write what it was told until now, and end.
    pub(crate) fn end(&self) {
        if let Some(lines) = &self.lines {
            // It fails only where the writer has ended already.
            let _ = lines.send(Told::End);
        }
    }
}

/// The file, and what is kept of it.
#[derive(Debug)]
pub(crate) struct AuditFile {
    path: PathBuf,
    max_size_bytes: u64,
    /// How many older ones are kept beside it.
    keep_files: u64,
    open: BufWriter<File>,
    size_bytes: u64,
}

impl AuditFile {
    /// Opens it, to write behind what is there.
    pub(crate) fn open(path: &Path, max_size_bytes: u64, keep_files: u64) -> io::Result<Self> {
        let (open, size_bytes) = append_to(path)?;
        Ok(Self {
            path: path.to_owned(),
            max_size_bytes,
            keep_files,
            open,
            size_bytes,
        })
    }

    /// Opens what has its name now. Where that fails it goes on with what it has.
    fn reopen(&mut self) -> io::Result<()> {
        self.open.flush()?;
        (self.open, self.size_bytes) = append_to(&self.path)?;
        Ok(())
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size_bytes > 0 && self.size_bytes + line.len() as u64 > self.max_size_bytes {
            self.rotate()?;
        }
        self.open.write_all(line)?;
        self.size_bytes += line.len() as u64;
        Ok(())
    }

    /// Makes room: `audit.log` is `audit.log.1` from now on, that is `audit.log.2`, and the last is gone.
    fn rotate(&mut self) -> io::Result<()> {
        self.open.flush()?;
        for number in (1..self.keep_files).rev() {
            match fs::rename(self.older(number), self.older(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Somebody else may have taken it away.
        match fs::rename(&self.path, self.older(1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        (self.open, self.size_bytes) = append_to(&self.path)?;
        Ok(())
    }

    fn older(&self, number: u64) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

fn append_to(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        // It was there, and is its owner's alone from now on.
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    let size_bytes = metadata.len();
    Ok((BufWriter::new(file), size_bytes))
}

/// Writes what an [`Audit`] was told, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Writer {
    told: Receiver<Told>,
    counts: Arc<Counts>,
    node: String,
    file: AuditFile,
    /// The time of the last line.
    last_ms: u64,
    complained: Option<Instant>,
}

impl Writer {
    /// Writes until it is told to end.
    pub(crate) fn run(mut self) {
        loop {
            let told = self.told.recv_timeout(COUNTS_AFTER);
            if self.counts.is_to_reopen.swap(false, Ordering::Acquire) {
                let reopened = self.file.reopen();
                self.look(reopened, 0);
            }
            match told {
                Ok(Told::Entry(entry)) => {
                    if entry.time_ms / 1000 > self.last_ms / 1000 {
                        self.settle();
                    }
                    self.last_ms = entry.time_ms;
                    let written = self.file.write(&entry.line);
                    self.look(written, 1);
                }
                Err(RecvTimeoutError::Timeout) => self.settle(),
                Ok(Told::End) | Err(RecvTimeoutError::Disconnected) => break,
            }
            self.flush();
        }
        self.settle();
        self.flush();
    }

    /// Says how much was not written line by line since that was last said.
    fn settle(&mut self) {
        let beyond = self.counts.beyond.swap(0, Ordering::Relaxed);
        let lost = self.counts.lost.swap(0, Ordering::Relaxed);
        if beyond == 0 && lost == 0 {
            return;
        }
        let time = calendar::text_with_millis(self.last_ms);
        let line = serde_json::json!({"time": time, "node": self.node, "denied_and_not_listed": beyond, "lost": lost});
        let written = self.file.write(format!("{line}\n").as_bytes());
        self.look(written, beyond + lost);
    }

    fn flush(&mut self) {
        let flushed = self.file.open.flush();
        self.look(flushed, 1);
    }

    /// What cannot be written is lost, so much of it, and counted; the disk may have room again later.
    fn look(&mut self, outcome: io::Result<()>, lines: u64) {
        let Err(error) = outcome else {
            return;
        };
        self.counts.lose(lines);
        let now = Instant::now();
        let is_told = self
            .complained
            .is_some_and(|at| now.duration_since(at) < COMPLAINT_INTERVAL);
        if !is_told {
            self.complained = Some(now);
            tracing::error!(file = %self.file.path.display(), %error, "the audit log cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("henge-audit-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    fn action(outcome: Outcome) -> Action<'static> {
        Action {
            protocol: "http",
            client: "[::ffff:192.0.2.7]:1234".parse().ok(),
            key: Some("boss"),
            what: "POST /flush",
            outcome,
            code: (outcome != Outcome::Done).then_some("forbidden"),
        }
    }

    /// What a writer makes of these, at these times.
    fn written(path: &Path, max_size_bytes: u64, told: &[(u64, Outcome)]) {
        let file = AuditFile::open(path, max_size_bytes, 2).expect("it opens");
        let (audit, writer) = Audit::of("node1".to_owned(), file);
        for (time_ms, outcome) in told {
            audit.note(*time_ms, &action(*outcome));
        }
        audit.end();
        writer.run();
    }

    #[test]
    fn a_line_says_who_did_what_when_and_from_where() {
        let folder = folder("line");
        let path = folder.join("audit.log");
        File::create(&path).expect("it is made");
        let open_to_all = Permissions::from_mode(0o644);
        fs::set_permissions(&path, open_to_all).expect("it is changed");
        written(
            &path,
            1 << 20,
            &[(1_500, Outcome::Done), (2_000, Outcome::Denied)],
        );
        let text = fs::read_to_string(&path).expect("it is there");
        assert_eq!(
            text,
            "{\"time\":\"1970-01-01T00:00:01.500Z\",\"node\":\"node1\",\"protocol\":\"http\",\"client\":\"192.0.2.7:1234\",\"key\":\"boss\",\"action\":\"POST /flush\",\"outcome\":\"done\"}\n\
             {\"time\":\"1970-01-01T00:00:02.000Z\",\"node\":\"node1\",\"protocol\":\"http\",\"client\":\"192.0.2.7:1234\",\"key\":\"boss\",\"action\":\"POST /flush\",\"outcome\":\"denied\",\"code\":\"forbidden\"}\n"
        );
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(&path).expect("it is there").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        fs::remove_dir_all(folder).expect("it goes");
    }

    #[test]
    fn the_file_is_rotated_and_the_oldest_goes() {
        let folder = folder("rotate");
        let path = folder.join("audit.log");
        let many: Vec<(u64, Outcome)> = (0..20).map(|n| (n * 1000, Outcome::Done)).collect();
        // Room for three lines and a bit.
        written(&path, 500, &many);
        let mut names: Vec<String> = folder
            .read_dir()
            .expect("it is there")
            .map(|entry| {
                entry
                    .expect("one")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        assert_eq!(names, ["audit.log", "audit.log.1", "audit.log.2"]);
        let all: String = ["audit.log.2", "audit.log.1", "audit.log"]
            .iter()
            .map(|name| fs::read_to_string(folder.join(name)).expect("it is there"))
            .collect();
        let seconds: Vec<&str> = all.lines().map(|line| &line[26..28]).collect();
        let last = ["12", "13", "14", "15", "16", "17", "18", "19"];
        assert!(
            seconds.ends_with(&last[4..]) && last.ends_with(&seconds),
            "{seconds:?}"
        );
        fs::remove_dir_all(folder).expect("it goes");
    }

    /// More of them than the queue has room for, while nothing is written.
    #[test]
    fn a_flood_of_strangers_is_counted_and_takes_no_room() {
        let folder = folder("flood");
        let path = folder.join("audit.log");
        let mut many = vec![(5_000, Outcome::Denied); 2 * QUEUE];
        many.push((5_999, Outcome::Done));
        many.push((6_000, Outcome::Done));
        // There is room for another, and for one only.
        many.extend([(10_000, Outcome::Denied); 2]);
        written(&path, 1 << 20, &many);
        let text = fs::read_to_string(&path).expect("it is there");
        assert_eq!(text.matches("\"outcome\":\"denied\"").count(), 51);
        assert_eq!(text.lines().count(), 51 + 1 + 2);
        assert_eq!(text.matches("\"outcome\":\"done\"").count(), 2);
        assert!(
            text.contains("\"denied_and_not_listed\":1999,\"lost\":0"),
            "{text}"
        );
        fs::remove_dir_all(folder).expect("it goes");
    }

    #[test]
    fn a_file_that_was_taken_away_is_begun_again() {
        let folder = folder("moved");
        let path = folder.join("audit.log");
        let file = AuditFile::open(&path, 500, 2).expect("it opens");
        fs::rename(&path, folder.join("elsewhere")).expect("it is there");
        let (audit, writer) = Audit::of("node1".to_owned(), file);
        for second in 0..10 {
            audit.note(second * 1000, &action(Outcome::Done));
        }
        audit.end();
        writer.run();
        let text = fs::read_to_string(&path).expect("it is there again");
        assert!(text.contains("00:00:09.000Z"), "{text}");
        // With room for all it is begun when that is asked for.
        let file = AuditFile::open(&path, 1 << 20, 2).expect("it opens");
        fs::rename(&path, folder.join("elsewhere")).expect("it is there");
        let (audit, writer) = Audit::of("node1".to_owned(), file);
        audit.reopen();
        audit.note(1000, &action(Outcome::Done));
        audit.end();
        writer.run();
        let text = fs::read_to_string(&path).expect("it is there again");
        assert_eq!(text.lines().count(), 1);
        fs::remove_dir_all(folder).expect("it goes");
    }
}
