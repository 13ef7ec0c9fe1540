//! How a shard writes: a leader's command becomes an effect, and an effect becomes a record in its block, in its table and
//! in the lists of its kind. It stamps the leader's own writes; in which order others stamp, and what is kept, is not its.

use super::room::NoRoom;
use super::{Shard, Short};
use crate::arena::Handle;
use crate::budget::Turn;
use crate::decide::{Decision, decide};
use crate::record::{Body, Content, Shape};
use bytes::Bytes;
use henge_wire::{Data, DataType, Effect, Encoding, Operation, Reply, Value, Version};

impl Shard {
    pub(super) fn write(
        &mut self,
        turn: &Turn<'_>,
        p: usize,
        hash: u64,
        key: &[u8],
        operation: &Operation<'_>,
        found: Option<Handle>,
    ) -> Result<Reply<'_>, Short> {
        self.departures.at(turn.now_ms);
        let current = found.map(|at| self.item(at));
        let as_it_is = current
            .as_ref()
            .map_or(Reply::Missing, |item| Reply::Stored {
                version: item.version,
                expires_at_ms: item.expires_at_ms,
            });
        let decision = decide(current.as_ref(), operation);
        let version = self.partitions[p].last.next();
        let target = Target {
            p,
            hash,
            key,
            version,
        };
        let (reply, outcome) = match decision {
            Decision::Missing => return Ok(Reply::Missing),
            Decision::Refused(refusal) => return Ok(Reply::Refused(refusal)),
            Decision::Unchanged => return Ok(as_it_is),
            Decision::Delete { existed } => {
                let reply = if existed {
                    Reply::Deleted
                } else {
                    Reply::Missing
                };
                let outcome = self.delete(turn, &target);
                if outcome.is_ok() {
                    self.journal(p, version, &[(key, Effect::Delete)]);
                }
                (reply, outcome)
            }
            Decision::Expire { expires_at_ms } => {
                let reply = Reply::Stored {
                    version,
                    expires_at_ms,
                };
                let outcome = self.expire(turn, &target, expires_at_ms);
                if outcome.is_ok() {
                    self.journal(p, version, &[(key, Effect::Expire { expires_at_ms })]);
                }
                (reply, outcome)
            }
            Decision::Count {
                value,
                expires_at_ms,
            } => {
                // Over HTTP a counter is a JSON number; the bytes are the same for everyone.
                let text = value.to_string();
                let mut stored = Value::from_slice(text.as_bytes());
                stored.json = true;
                let reply = Reply::Counted {
                    value,
                    version,
                    expires_at_ms,
                };
                let body = Body::Value(stored.clone());
                let outcome = self.put(turn, &target, &body, expires_at_ms);
                if outcome.is_ok() {
                    self.journal_put(p, version, key, &stored, expires_at_ms);
                }
                (reply, outcome)
            }
            Decision::Put { expires_at_ms } => {
                let Operation::Set { value, .. } = operation else {
                    unreachable!("only a Set is decided to be a Put")
                };
                let reply = Reply::Stored {
                    version,
                    expires_at_ms,
                };
                let body = Body::Value(value.clone());
                // A key without a live item may have a record all the same.
                let outcome = match found {
                    Some(_) => self.put_over(turn, &target, &body, expires_at_ms, found),
                    None => self.put(turn, &target, &body, expires_at_ms),
                };
                if outcome.is_ok() {
                    self.journal_put(p, version, key, value, expires_at_ms);
                }
                (reply, outcome)
            }
        };
        match outcome {
            Ok(()) => {
                let forgets = matches!(operation, Operation::Delete { .. });
                self.advance(p, version, forgets);
                if let Reply::Deleted = reply {
                    self.stats.deletes += 1;
                }
                Ok(reply)
            }
            Err(NoRoom::Short(short)) => Err(short),
            Err(NoRoom::Refused(refusal)) => Ok(Reply::Refused(refusal)),
        }
    }

    pub(super) fn put(
        &mut self,
        turn: &Turn<'_>,
        target: &Target<'_>,
        body: &Body<'_>,
        deadline: Option<u64>,
    ) -> Result<(), NoRoom> {
        let existing = self.find(target.p, target.hash, target.key);
        self.put_over(turn, target, body, deadline, existing)
    }

    /// The same where it is known what record the key has now.
    fn put_over(
        &mut self,
        turn: &Turn<'_>,
        target: &Target<'_>,
        body: &Body<'_>,
        deadline: Option<u64>,
        existing: Option<Handle>,
    ) -> Result<(), NoRoom> {
        let shape = self.records.shape(target.key, deadline, body);
        let content = target.content(deadline, body);
        let alive = existing.filter(|&at| !self.records.is_tombstone(at));
        if let Some(at) = alive {
            let old = self.records.expires_at(at);
            if self.records.fits(at, &shape) {
                if old.is_some() {
                    self.wheel.remove(&mut self.records, at);
                }
                self.records.rewrite(at, &shape, &content);
                self.settle(at, old, deadline);
                self.stats.sets += 1;
                return Ok(());
            }
        } else {
            self.make_room_for_item(turn)?;
        }
        let new = self.allocate(turn, &shape)?;
        self.place(target, new, &shape, &content);
        Ok(())
    }

    /// Writes a value into a block just allocated for it, in the place of what the key has: making room may have evicted or
    /// moved what was there. The old value goes before the new one comes, as their room may be the same.
    #[inline]
    pub(super) fn place(
        &mut self,
        target: &Target<'_>,
        new: Handle,
        shape: &Shape,
        content: &Content<'_>,
    ) {
        let deadline = content.deadline;
        match self.find(target.p, target.hash, target.key) {
            Some(old) if !self.records.is_tombstone(old) => {
                let old_deadline = self.records.expires_at(old);
                if old_deadline.is_some() {
                    self.wheel.remove(&mut self.records, old);
                }
                self.records.copy_links(old, new);
                self.order.moved(&mut self.records, old, new, old_deadline);
                self.reindex(target, old, new);
                self.records.free(old);
                self.records.write(new, shape, content);
                self.settle(new, old_deadline, deadline);
            }
            found => {
                if let Some(tombstone) = found {
                    self.unlink_tombstone(tombstone);
                    self.reindex(target, tombstone, new);
                    self.records.free(tombstone);
                    self.records.write(new, shape, content);
                } else {
                    self.records.write(new, shape, content);
                    self.index(target, new);
                }
                self.order
                    .insert(&mut self.records, new, target.hash, deadline);
                if deadline.is_some() {
                    self.wheel.insert(&mut self.records, new);
                }
                self.stats.items += 1;
            }
        }
        self.stats.sets += 1;
    }

    /// An item was written over: tells the order, and puts it into the wheel. It is not there.
    fn settle(&mut self, at: Handle, old: Option<u64>, new: Option<u64>) {
        if old == new {
            self.order.touch(&mut self.records, at, new);
        } else {
            self.order.retimed(&mut self.records, at, old, new);
            self.order.touch(&mut self.records, at, new);
        }
        if new.is_some() {
            self.wheel.insert(&mut self.records, at);
        }
    }

    pub(super) fn expire(
        &mut self,
        turn: &Turn<'_>,
        target: &Target<'_>,
        deadline: Option<u64>,
    ) -> Result<(), NoRoom> {
        let found = self.find(target.p, target.hash, target.key);
        let Some(at) = found.filter(|&at| !self.records.is_tombstone(at)) else {
            // The value was dropped here, though the leader had it. What an older replica has of it is not this version and
            // must not pass for it; to forget the key is always allowed.
            return self.delete(turn, target);
        };
        let old = self.records.expires_at(at);
        if let (Some(_), Some(new)) = (old, deadline) {
            self.retime(target, at, new);
            return Ok(());
        }
        // The record changes its form: it is written again, from a copy, as making room may move or evict it.
        let copy = self.copied(at);
        self.put(turn, target, &Body::Value(copy.value()), deadline)?;
        self.stats.sets -= 1;
        Ok(())
    }

    /// Gives a record that has a deadline another.
    pub(super) fn retime(&mut self, target: &Target<'_>, at: Handle, deadline: u64) {
        let old = self.records.expires_at(at);
        self.wheel.remove(&mut self.records, at);
        self.records.set_deadline(at, deadline);
        self.records.set_version(at, target.version);
        self.order
            .retimed(&mut self.records, at, old, Some(deadline));
        self.wheel.insert(&mut self.records, at);
    }

    /// The value of a record that is no tombstone.
    pub(super) fn copied(&self, at: Handle) -> Copied {
        let Body::Value(value) = self.records.body(at) else {
            unreachable!("it is no tombstone");
        };
        Copied {
            data_type: value.data_type,
            data: value.data.to_bytes(),
            content_type: value.content_type.map(str::to_owned),
            encoding: value.encoding,
            raw_len: value.raw_len,
            json: value.json,
        }
    }

    pub(super) fn delete(&mut self, turn: &Turn<'_>, target: &Target<'_>) -> Result<(), NoRoom> {
        if self.keeps_tombstones(target.p) {
            return self.bury(turn, target);
        }
        self.forget(target);
        Ok(())
    }

    /// Whether a delete leaves a tombstone. If not, it is dropped in the step that would write it, and `advance` raises the
    /// horizon to it.
    pub(super) fn keeps_tombstones(&self, p: usize) -> bool {
        !self.partitions[p].commits_at_once || self.config.tombstone_bytes > 0
    }

    /// A delete without a tombstone.
    pub(super) fn forget(&mut self, target: &Target<'_>) {
        if let Some(at) = self.find(target.p, target.hash, target.key) {
            // Not if a copy has brought it before it was committed.
            if self.may_drop(at) {
                self.raise_horizon(at);
            }
            let seq = self.records.version(at).seq();
            let (p, hash) = self.remove(at);
            let seqs = self.seqs(p, seq);
            self.departures.deleted(p, hash, seqs);
        }
    }

    /// Puts a tombstone in the key's place, whether or not it is there.
    pub(super) fn bury(&mut self, turn: &Turn<'_>, target: &Target<'_>) -> Result<(), NoRoom> {
        let shape = self.records.shape(target.key, None, &Body::Tombstone);
        let new = self.allocate(turn, &shape)?;
        self.bury_in(target, new, &shape);
        Ok(())
    }

    /// The same in a block just allocated for it.
    pub(super) fn bury_in(&mut self, target: &Target<'_>, new: Handle, shape: &Shape) {
        let content = target.content(None, &Body::Tombstone);
        self.records.write(new, shape, &content);
        if let Some(old) = self.find(target.p, target.hash, target.key) {
            self.leave_lists(old);
            self.reindex(target, old, new);
            self.records.free(old);
        } else {
            self.index(target, new);
        }
        self.tombstones.push(&mut self.records, new);
        self.tombstone_bytes += self.records.kept_bytes(new);
        self.stats.tombstones += 1;
        self.partitions[target.p].tombstones += 1;
    }

    /// A mutation is applied in whole. `forgets` says that it may have deleted something.
    pub(super) fn advance(&mut self, p: usize, version: Version, forgets: bool) {
        let state = &mut self.partitions[p];
        state.last = version;
        if forgets {
            state.deleted = version.seq();
        }
        if state.commits_at_once {
            // In a recovery records that are newer may have been there before.
            state.commit = state.commit.max(version.seq());
            if forgets && self.config.tombstone_bytes == 0 {
                state.dropped(version.seq());
            }
        }
    }
}

/// The key that a write is about, and what it is stamped with.
pub(super) struct Target<'a> {
    /// The partition's place in the shard.
    pub(super) p: usize,
    pub(super) hash: u64,
    pub(super) key: &'a [u8],
    pub(super) version: Version,
}

impl<'a> Target<'a> {
    #[inline]
    pub(super) fn content(&self, deadline: Option<u64>, body: &'a Body<'a>) -> Content<'a> {
        Content {
            key: self.key,
            version: self.version,
            deadline,
            body,
        }
    }
}

/// A value with a life of its own.
pub(super) struct Copied {
    data_type: DataType,
    data: Bytes,
    content_type: Option<String>,
    encoding: Encoding,
    raw_len: u32,
    json: bool,
}

impl Copied {
    pub(super) fn value(&self) -> Value<'_> {
        Value {
            data_type: self.data_type,
            data: Data::Shared(self.data.clone()),
            encoding: self.encoding,
            raw_len: self.raw_len,
            json: self.json,
            content_type: self.content_type.as_deref(),
        }
    }
}
