//! `henge inspect`: goes through a segment of the log or a snapshot, frame by frame, counts what is in it and says whether it
//! is whole. It shows no values, and changes nothing.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use henge_engine::persistence::Position;
use henge_engine::persistence::StorageFile;
use henge_engine::persistence::cipher::KeyError;
use henge_engine::persistence::frame::{Content, Damage, Frame, HEADER_BYTES, Header, may_be_torn};
use henge_engine::persistence::snapshot::{self, Part};
use henge_engine::persistence::wal::{self, Record};
use henge_engine::persistence::walk::Walk;
use henge_engine::{Body, ReplayError};
use henge_wire::{Effect, PARTITIONS, Partition, Value, Version};
use serde_json::{Value as Json, json};

use super::{Failure, Output};
use crate::calendar;
use crate::cli::simulate::grouped;
use crate::config::shown;
use crate::disk::files::OpenFile;
use crate::encryption::{Encryption, cipher_name};

pub(super) fn run(
    path: &Path,
    as_json: bool,
    with_records: bool,
    encryption: &Encryption,
    out: &mut Output,
) -> Result<(), Failure> {
    let file_name = shown(path);
    let failed = |error| Failure::failed(format!("{file_name}: {error}"));
    let file = OpenFile::to_read(path).map_err(failed)?;
    let mut head = [0; HEADER_BYTES];
    let mut read = 0;
    while read < head.len() {
        match file
            .read_at(&mut head[read..], read as u64)
            .map_err(failed)?
        {
            0 => break,
            more => read += more,
        }
    }
    let header = Header::decode(&head[..read])
        .map_err(|error| Failure::damaged(format!("{file_name} at byte 0: {error}")))?;
    let mut walk = Walk::new(file.clone(), header, encryption).map_err(failed)?;
    let hidden = walk.key_error().map(KeyError::to_string);
    if let Some(error) = hidden.as_ref().filter(|_| with_records) {
        return Err(Failure::failed(format!("{file_name}: {error}")));
    }
    let first = walk.look(HEADER_BYTES as u64).map_err(failed)?;
    if matches!(first, Frame::Damaged(Damage::Sealed)) {
        let error = KeyError::Wrong(header.key_id);
        return Err(Failure::failed(format!("{file_name}: {error}")));
    }
    let mut listing = Listing {
        out,
        as_json,
        is_wanted: with_records,
    };
    listing.begin();
    let mut tally = Tally {
        is_hidden: hidden.is_some(),
        ..Tally::default()
    };
    let (end, mut wrong) = tally.go_through(&mut walk, &mut listing).map_err(failed)?;
    let data_end = walk.data_end(end).map_err(failed)?;
    if let Some(wrong) = &mut wrong {
        wrong.resumes_at = walk.next_frame(wrong.offset).map_err(failed)?;
        wrong.may_be_torn = header.content == Content::Log
            && wrong.resumes_at.is_none()
            && !wrong.is_sealed
            && is_torn(&file, &header, wrong.offset).map_err(failed)?;
    }
    let report = Report {
        file: file_name.clone(),
        header,
        hidden,
        tally,
        len: walk.len(),
        end,
        data_end,
        wrong,
    };
    if as_json {
        listing.out.line(report.as_json());
    } else {
        listing.out.line(report.text());
    }
    match &report.wrong {
        None => Ok(()),
        Some(wrong) => Err(Failure::damaged(wrong.line(&file_name))),
    }
}

/// What is wrong at a place.
struct Wrong {
    offset: u64,
    detail: String,
    /// A crash may have left it so.
    may_be_torn: bool,
    /// Its checksum is right: no crash has left it so.
    is_sealed: bool,
    /// Where the next whole frame is, if there is one.
    resumes_at: Option<u64>,
}

impl Wrong {
    fn at(offset: u64, detail: impl Into<String>) -> Self {
        Self {
            offset,
            detail: detail.into(),
            may_be_torn: false,
            is_sealed: false,
            resumes_at: None,
        }
    }

    fn line(&self, file: &str) -> String {
        let Self { offset, detail, .. } = self;
        if self.may_be_torn {
            return format!("{file} is torn at byte {offset}, as a crash leaves it: {detail}");
        }
        let next = match self.resumes_at {
            Some(next) => format!("the next whole frame is at byte {next}"),
            None => "no whole frame is behind it".to_owned(),
        };
        format!("{file} is damaged at byte {offset}: {detail}; {next}")
    }
}

fn is_torn(file: &OpenFile, header: &Header, offset: u64) -> std::io::Result<bool> {
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len];
    let mut read = 0;
    while read < len {
        match file.read_at(&mut bytes[read..], read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    bytes.truncate(read);
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    Ok(may_be_torn(header.seed(), &bytes, offset))
}

/// Shows records, if they are wanted.
struct Listing<'a> {
    out: &'a mut Output,
    as_json: bool,
    is_wanted: bool,
}

/// A record as it is shown.
#[derive(Default)]
struct Line<'a> {
    offset: u64,
    partition: Option<Partition>,
    version: Option<Version>,
    operation: &'a str,
    key: Option<&'a [u8]>,
    value: Option<&'a Value<'a>>,
    expires_at_ms: Option<u64>,
    /// What else there is to say.
    detail: Option<String>,
}

impl Listing<'_> {
    fn begin(&mut self) {
        if self.is_wanted && !self.as_json {
            self.out
                .line("# byte\tpartition\tversion\toperation\tkey\tvalue bytes\texpires at");
        }
    }

    fn show(&mut self, line: &Line<'_>) {
        if !self.is_wanted || self.out.is_closed() {
            return;
        }
        let partition = line.partition.map(Partition::number);
        let version = line.version.map(|version| version.to_string());
        let key = line.key.map(|key| key.escape_ascii().to_string());
        let len = line.value.map(|value| value.data.len());
        if self.as_json {
            let mut shown = json!({"byte": line.offset, "operation": line.operation});
            let members = [
                ("partition", json!(partition)),
                ("version", json!(version)),
                ("key", json!(key)),
                ("value_bytes", json!(len)),
                ("raw_bytes", json!(line.value.map(|value| value.raw_len))),
                (
                    "encoding",
                    json!(line.value.map(|value| value.encoding.name())),
                ),
                ("json", json!(line.value.map(|value| value.json))),
                (
                    "content_type",
                    json!(line.value.and_then(|value| value.content_type)),
                ),
                ("expires_at_ms", json!(line.expires_at_ms)),
                ("detail", json!(line.detail)),
            ];
            for (name, member) in members {
                if !member.is_null() {
                    shown[name] = member;
                }
            }
            self.out.line(shown);
            return;
        }
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        self.out.line(format_args!(
            "{}\t{}\t{}\t{}\t{}\t{}\t{}",
            line.offset,
            or_dash(partition.map(|number| number.to_string())),
            or_dash(version),
            line.operation,
            or_dash(key.or_else(|| line.detail.clone())),
            or_dash(len.map(|len| len.to_string())),
            or_dash(line.expires_at_ms.map(|at| at.to_string())),
        ));
    }
}

/// The versions of a partition that were seen.
#[derive(Clone, Copy)]
struct Versions {
    first: Version,
    last: Version,
    records: u64,
    /// What the next version follows; none if a gap is before it.
    follows: Option<Version>,
}

impl Versions {
    fn new(version: Version) -> Self {
        Self {
            first: version,
            last: version,
            records: 0,
            follows: None,
        }
    }
}

/// What was counted.
#[derive(Default)]
struct Tally {
    frames: u64,
    /// What is in them cannot be read for want of a key.
    is_hidden: bool,
    mutations: u64,
    flushes: u64,
    synced: u64,
    started: u64,
    gaps: u64,
    begins: u64,
    puts: u64,
    deletes: u64,
    expirations: u64,
    /// Hashes of the keys of a segment; a snapshot has each once.
    keys: HashSet<u64>,
    hasher: RandomState,
    value_bytes: u64,
    with_deadline: u64,
    partitions: BTreeMap<u16, Versions>,
    last_synced: Option<Position>,
    blocks: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    records: u64,
    /// Of the partition that was not ended yet.
    open_records: u64,
    ended: u64,
    complete: Option<(Position, u64, u64)>,
}

impl Tally {
    /// Counts all frames; says where they end, and what is wrong there.
    fn go_through(
        &mut self,
        walk: &mut Walk<OpenFile>,
        listing: &mut Listing<'_>,
    ) -> std::io::Result<(u64, Option<Wrong>)> {
        let content = walk.header().content;
        let len = walk.len();
        let mut at = HEADER_BYTES as u64;
        loop {
            let (body, next) = match walk.look(at)? {
                Frame::Whole { body, len } => (body, at + len as u64),
                Frame::End if at == len || content == Content::Log => break,
                Frame::End | Frame::Cut => {
                    return Ok((at, Some(Wrong::at(at, Damage::Short.to_string()))));
                }
                Frame::Damaged(damage) => {
                    let wrong = Wrong {
                        is_sealed: damage == Damage::Sealed,
                        ..Wrong::at(at, damage.to_string())
                    };
                    return Ok((at, Some(wrong)));
                }
            };
            self.frames += 1;
            if self.is_hidden {
                at = next;
                continue;
            }
            let taken = match content {
                Content::Log => self.take_record(at, body, listing),
                Content::Snapshot => self.take_part(at, body, listing),
            };
            if let Err(detail) = taken {
                return Ok((at, Some(Wrong::at(at, detail))));
            }
            at = next;
        }
        if content == Content::Log && walk.data_end(at)? > at {
            let detail = "zeros, and then something else";
            return Ok((at, Some(Wrong::at(at, detail))));
        }
        if content == Content::Snapshot && !self.is_hidden && self.complete.is_none() {
            let detail = "it ends before it is complete";
            return Ok((at, Some(Wrong::at(at, detail))));
        }
        Ok((at, None))
    }

    fn take_record(
        &mut self,
        offset: u64,
        body: &[u8],
        listing: &mut Listing<'_>,
    ) -> Result<(), String> {
        let mut effects = Vec::new();
        let record = wal::decode(body, &mut effects).map_err(|damage| damage.to_string())?;
        if let Record::Mutation(mutation) = &record
            && !wal::has_own_keys(mutation)
        {
            return Err(ReplayError::Foreign(mutation.partition).to_string());
        }
        let line = |operation| Line {
            offset,
            operation,
            ..Line::default()
        };
        match record {
            Record::Mutation(mutation) => {
                self.mutations += 1;
                self.follows(mutation.partition, mutation.version)?;
                for (key, effect) in mutation.effects {
                    self.keys.insert(self.hasher.hash_one(key));
                    let (operation, value, expires_at_ms) = match effect {
                        Effect::Delete => ("delete", None, None),
                        Effect::Expire { expires_at_ms } => ("expire", None, *expires_at_ms),
                        Effect::Put {
                            value,
                            expires_at_ms,
                        } => ("put", Some(value), *expires_at_ms),
                    };
                    self.deletes += u64::from(operation == "delete");
                    self.expirations += u64::from(operation == "expire");
                    self.puts += u64::from(operation == "put");
                    self.value_bytes += value.map_or(0, |value| value.data.len() as u64);
                    self.with_deadline += u64::from(expires_at_ms.is_some());
                    listing.show(&Line {
                        partition: Some(mutation.partition),
                        version: Some(mutation.version),
                        key: Some(key),
                        value,
                        expires_at_ms,
                        ..line(operation)
                    });
                }
            }
            Record::Flush { partition, last } => {
                self.flushes += 1;
                self.follows(partition, last)?;
                listing.show(&Line {
                    partition: Some(partition),
                    version: Some(last),
                    ..line("flush")
                });
            }
            Record::Replica(record) => listing.show(&Line {
                partition: Some(record.partition()),
                ..line(record.name())
            }),
            Record::Synced(position) => {
                self.synced += 1;
                self.last_synced = Some(position);
                listing.show(&Line {
                    detail: Some(position.to_string()),
                    ..line("synced")
                });
            }
            Record::Follows(position) => {
                self.begins += 1;
                listing.show(&Line {
                    detail: Some(position.to_string()),
                    ..line("follows")
                });
            }
            Record::Started { incarnation, first } => {
                self.started += 1;
                for seen in self.partitions.values_mut() {
                    seen.follows = seen.follows.map(|before| before.max(first));
                }
                listing.show(&Line {
                    version: Some(first),
                    detail: Some(format!("start {incarnation}")),
                    ..line("started")
                });
            }
            Record::Gap { bytes } => {
                self.gaps += 1;
                for seen in self.partitions.values_mut() {
                    seen.follows = None;
                }
                listing.show(&Line {
                    detail: Some(format!("{bytes} bytes")),
                    ..line("gap")
                });
            }
        }
        Ok(())
    }

    /// Notes a version, which must follow the one before it.
    fn follows(&mut self, partition: Partition, version: Version) -> Result<(), String> {
        let number = partition.number();
        let seen = self
            .partitions
            .entry(number)
            .or_insert(Versions::new(version));
        let before = seen.follows.replace(version);
        seen.last = seen.last.max(version);
        seen.records += 1;
        match before {
            Some(before) if version.seq() != before.seq() + 1 => Err(format!(
                "version {version} of partition {number} does not follow its version {before}"
            )),
            _ => Ok(()),
        }
    }

    fn take_part(
        &mut self,
        offset: u64,
        body: &[u8],
        listing: &mut Listing<'_>,
    ) -> Result<(), String> {
        if self.complete.is_some() {
            return Err("it goes on behind its end".to_owned());
        }
        let wrong = |damage: Damage| damage.to_string();
        match snapshot::decode(body).map_err(wrong)? {
            Part::Block(block) => {
                self.blocks += 1;
                self.raw_bytes += block.raw_bytes();
                self.stored_bytes += block.stored_bytes();
                let partition = block.partition;
                let read = block.own_records(&mut Vec::new(), |record| {
                    let version = record.version;
                    let seen = self.partitions.entry(partition.number());
                    let seen = seen.or_insert(Versions::new(version));
                    seen.first = seen.first.min(version);
                    seen.last = seen.last.max(version);
                    seen.records += 1;
                    let (operation, value) = match &record.body {
                        Body::Value(value) => ("put", Some(value)),
                        Body::Tombstone => ("delete", None),
                    };
                    self.records += 1;
                    self.open_records += 1;
                    self.puts += u64::from(value.is_some());
                    self.deletes += u64::from(value.is_none());
                    self.value_bytes += value.map_or(0, |value| value.data.len() as u64);
                    self.with_deadline += u64::from(record.expires_at_ms.is_some());
                    listing.show(&Line {
                        offset,
                        partition: Some(partition),
                        version: Some(version),
                        operation,
                        key: Some(record.key),
                        value,
                        expires_at_ms: record.expires_at_ms,
                        detail: None,
                    });
                });
                read.map_err(wrong)
            }
            Part::Replica { partition, .. } => {
                listing.show(&Line {
                    offset,
                    partition: Some(partition),
                    operation: "replica",
                    ..Line::default()
                });
                Ok(())
            }
            Part::Partition {
                partition,
                progress,
                records,
            } => {
                self.ended += 1;
                let found = std::mem::take(&mut self.open_records);
                listing.show(&Line {
                    offset,
                    partition: Some(partition),
                    version: Some(progress.last),
                    operation: "partition",
                    detail: Some(format!("{records} records")),
                    ..Line::default()
                });
                if found == records {
                    Ok(())
                } else {
                    let number = partition.number();
                    Err(format!(
                        "partition {number} has {found} records, and says that it has {records}"
                    ))
                }
            }
            Part::Complete {
                position,
                records,
                at_ms,
            } => {
                self.complete = Some((position, records, at_ms));
                if self.ended != u64::from(PARTITIONS) {
                    return Err("it ends before all of its partitions do".to_owned());
                }
                if records == self.records {
                    Ok(())
                } else {
                    let found = self.records;
                    Err(format!(
                        "it has {found} records, and says that it has {records}"
                    ))
                }
            }
        }
    }
}

/// What is said in the end.
struct Report {
    file: String,
    header: Header,
    /// Why what it holds is not shown.
    hidden: Option<String>,
    tally: Tally,
    len: u64,
    /// The place behind the last whole frame of those that follow each other from the begin on.
    end: u64,
    /// The place behind the last byte that is not zero.
    data_end: u64,
    wrong: Option<Wrong>,
}

impl Report {
    fn kind(&self) -> &'static str {
        match self.header.content {
            Content::Log => "segment",
            Content::Snapshot => "snapshot",
        }
    }

    fn versions(&self) -> Option<(Version, Version)> {
        let all = self.tally.partitions.values();
        let first = all.clone().map(|versions| versions.first).min()?;
        let last = all.map(|versions| versions.last).max()?;
        Some((first, last))
    }

    fn as_json(&self) -> Json {
        let Self { header, tally, .. } = self;
        let versions = self.versions();
        let mut shown = json!({
            "file": self.file,
            "kind": self.kind(),
            "number": header.number,
            "format": header.format,
            "cipher": header.cipher,
            "key_id": header.key_id,
            "encryption": cipher_name(header.cipher),
            "not_shown": self.hidden,
            "length_bytes": self.len,
            "end": self.end,
            "frames": tally.frames,
            "whole": self.wrong.is_none(),
            "damage": self.wrong.as_ref().map(|wrong| json!({
                "byte": wrong.offset,
                "detail": wrong.detail,
                "torn": wrong.may_be_torn,
                "next_frame": wrong.resumes_at,
            })),
        });
        if tally.is_hidden {
            return shown;
        }
        let partitions: serde_json::Map<String, Json> = tally
            .partitions
            .iter()
            .map(|(number, versions)| {
                let Versions {
                    first,
                    last,
                    records,
                    ..
                } = versions;
                let versions = json!({
                    "first": first.to_string(), "last": last.to_string(), "records": records,
                });
                (number.to_string(), versions)
            })
            .collect();
        let own = match header.content {
            Content::Log => json!({
                "records": {
                    "mutation": tally.mutations,
                    "flush": tally.flushes,
                    "synced": tally.synced,
                    "started": tally.started,
                    "gap": tally.gaps,
                    "follows": tally.begins,
                },
                "effects": {
                    "put": tally.puts, "delete": tally.deletes, "expire": tally.expirations,
                },
                "keys": tally.keys.len(),
                "synced_to": tally.last_synced.map(place),
            }),
            Content::Snapshot => json!({
                "records": tally.records,
                "tombstones": tally.deletes,
                "blocks": tally.blocks,
                "raw_bytes": tally.raw_bytes,
                "stored_bytes": tally.stored_bytes,
                "log_needed_to": tally.complete.map(|(position, ..)| place(position)),
                "made_at_ms": tally.complete.map(|(_, _, at_ms)| at_ms),
            }),
        };
        let both = json!({
            "value_bytes": tally.value_bytes,
            "with_deadline": tally.with_deadline,
            "lowest_version": versions.map(|(first, _)| first.to_string()),
            "highest_version": versions.map(|(_, last)| last.to_string()),
            "partitions": partitions,
        });
        for more in [own, both] {
            if let (Json::Object(shown), Json::Object(more)) = (&mut shown, more) {
                shown.extend(more);
            }
        }
        shown
    }

    fn text(&self) -> String {
        let header = &self.header;
        let mut rows = Rows::default();
        let what = match header.content {
            Content::Log => "a segment of the log",
            Content::Snapshot => "a snapshot",
        };
        rows.add("file", &self.file);
        rows.add(
            "kind",
            format_args!("{what}, number {}, format {}", header.number, header.format),
        );
        match (header.cipher, header.key_id) {
            (0, _) => rows.add("encryption", "none"),
            (cipher, key) => {
                let numbered = format!("cipher {cipher}");
                let name = cipher_name(cipher).unwrap_or(&numbered);
                rows.add("encryption", format_args!("{name} with key {key}"));
            }
        }
        if let Some(hidden) = &self.hidden {
            rows.add("not shown", format_args!("what it holds: {hidden}"));
        }
        rows.add("length", format_args!("{} bytes", grouped(self.len)));
        match header.content {
            _ if self.tally.is_hidden => rows.add("frames", grouped(self.tally.frames)),
            Content::Log => self.add_records(&mut rows),
            Content::Snapshot => self.add_parts(&mut rows),
        }
        rows.add("state", self.state());
        rows.0.trim_end().to_owned()
    }

    fn add_records(&self, rows: &mut Rows) {
        let tally = &self.tally;
        let synced = tally.last_synced.map_or_else(String::new, |position| {
            format!("; all before {position} was on the disk")
        });
        rows.add("records", grouped(tally.frames));
        let kinds = [
            format!(
                "{}: {}, {}, {}",
                count(tally.mutations, "mutation", "mutations"),
                count(tally.puts, "put", "puts"),
                count(tally.deletes, "delete", "deletes"),
                count(tally.expirations, "new lifetime", "new lifetimes"),
            ),
            count(
                tally.flushes,
                "flush of a partition",
                "flushes of partitions",
            ),
            count(
                tally.begins,
                "begin behind another",
                "begins behind another",
            ),
            count(tally.started, "start of a node", "starts of a node"),
            count(tally.synced, "mark", "marks") + &synced,
            count(
                tally.gaps,
                "gap that a repair left",
                "gaps that repairs left",
            ),
        ];
        for kind in kinds {
            rows.add("", kind);
        }
        rows.add("keys", grouped(tally.keys.len() as u64));
        self.add_both(rows);
    }

    fn add_parts(&self, rows: &mut Rows) {
        let tally = &self.tally;
        rows.add(
            "records",
            format_args!(
                "{}: {}, {}",
                grouped(tally.records),
                count(tally.puts, "item", "items"),
                count(tally.deletes, "tombstone", "tombstones"),
            ),
        );
        rows.add(
            "blocks",
            format_args!(
                "{} of {} bytes, {} uncompressed",
                grouped(tally.blocks),
                grouped(tally.stored_bytes),
                grouped(tally.raw_bytes),
            ),
        );
        self.add_both(rows);
        rows.add("ended", count(tally.ended, "partition", "partitions"));
        let Some((position, _, at_ms)) = tally.complete else {
            return;
        };
        if position == Position::default() {
            rows.add("log", "none is needed");
        } else {
            rows.add("log", format_args!("must go to {position}"));
        }
        if at_ms > 0 {
            rows.add("made", calendar::text(at_ms));
        }
    }

    /// What both kinds have.
    fn add_both(&self, rows: &mut Rows) {
        let tally = &self.tally;
        rows.add(
            "values",
            format_args!(
                "{} bytes; {} with a lifetime",
                grouped(tally.value_bytes),
                grouped(tally.with_deadline)
            ),
        );
        let versions = self.versions().map_or_else(String::new, |(first, last)| {
            format!(", at versions {first} to {last}")
        });
        rows.add(
            "partitions",
            format_args!(
                "{} of {}{versions}",
                grouped(tally.partitions.len() as u64),
                grouped(PARTITIONS.into())
            ),
        );
    }

    fn state(&self) -> String {
        match &self.wrong {
            None if self.len > self.end => format!(
                "whole; it ends at byte {}, with {} bytes of room behind that",
                self.end,
                grouped(self.len - self.end)
            ),
            None => format!("whole; it ends at byte {}", self.end),
            Some(wrong) => {
                let state = if wrong.may_be_torn { "torn" } else { "damaged" };
                let left = grouped(self.data_end.saturating_sub(wrong.offset));
                format!(
                    "{state} at byte {}, with {left} bytes from there on",
                    wrong.offset
                )
            }
        }
    }
}

/// Lines of a name and what there is to say about it.
#[derive(Default)]
struct Rows(String);

impl Rows {
    fn add(&mut self, name: &str, what: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{name:<14}{what}");
    }
}

fn count(number: u64, one: &str, more: &str) -> String {
    let what = if number == 1 { one } else { more };
    format!("{} {what}", grouped(number))
}

fn place(position: Position) -> Json {
    json!({"segment": position.segment, "byte": position.offset})
}
