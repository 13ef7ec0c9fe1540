//! Several keys at once: guards are checked, room is made for all effects, and then all happen under one version. It makes
//! all or none of them visible, and undoes nothing: whatever can fail comes before the first effect.
//!
//! Why it is all or none:
//! 1. Guards are checked first. From then on nothing changes what they saw: the shard is borrowed for all of the call, no key
//!    comes to be before the effects, and a record that a guard found is held, so that making room moves it at the most.
//! 2. Each effect that writes a record gets a fresh block, also where the record before it might be written over: whether
//!    that still fits is only known once nothing moves any more. The blocks are in no table and no list. Their links, which
//!    they do not use yet, hold their number, so that an evacuation that moves one finds who holds it.
//! 3. With the last block there is room for all that is charged later: own allocations of large values, less those of the
//!    records that go in the same step, and what tables and orders may grow by. Dropping records never takes that room
//!    away: the record of an effect's key that is evicted was counted as going anyway.
//! 4. Up to here a failure frees the blocks and has changed nothing but that records may have been evicted. After it nothing
//!    can fail.

use std::collections::BTreeSet;

use super::room::{Need, NoRoom};
use super::write::Target;
use super::{Shard, Short};
use crate::arena::{GRANULE, Handle};
use crate::budget::Turn;
use crate::links::Links;
use crate::persistence::frame::MAX_BODY_BYTES;
use crate::record::{Body, Records, Shape};
use crate::segment::SEGMENT_BYTES;
use henge_wire::{
    Condition, Effect, MAX_TRANSACTION_KEYS, Outcome, Partition, Refusal, Transaction, Version,
};

/// What a call holds until its effects happen; empty between calls.
#[derive(Default)]
pub(super) struct Held {
    /// Blocks for records to come, by the place of their step.
    blocks: Vec<Handle>,
    /// Records that may not be dropped.
    guarded: BTreeSet<Handle>,
}

impl Held {
    fn guard(&mut self, at: Handle) {
        self.guarded.insert(at);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.guarded.is_empty()
    }

    /// Whether a record may not be dropped.
    #[inline]
    pub(super) fn guards(&self, at: Handle) -> bool {
        self.guarded.contains(&at)
    }

    /// A block was copied to another; true if it is for a record to come, which no table and no list has.
    #[inline]
    pub(super) fn moved(&mut self, records: &Records, old: Handle, new: Handle) -> bool {
        if self.guarded.remove(&old) {
            self.guarded.insert(new);
            return false;
        }
        // In a record's block this is a link, and may be any number; but then the block at that place is another.
        let place = Links::previous(records, new).0 as usize;
        match self.blocks.get_mut(place) {
            Some(block) if *block == old => {
                *block = new;
                true
            }
            _ => false,
        }
    }
}

/// What becomes of one key.
struct Step<'a> {
    key: &'a [u8],
    hash: u64,
    fate: Fate<'a>,
    /// Of the record that is to be written, if one is.
    shape: Option<Shape>,
}

enum Fate<'a> {
    Put {
        body: Body<'a>,
        deadline: Option<u64>,
    },
    /// Its record, which is held, takes this deadline where it lies.
    Retime(u64),
    /// Its record, which is held, is written again, as with this deadline it has another form.
    Reform(Option<u64>),
    /// It leaves a tombstone.
    Bury,
    /// It leaves nothing.
    Forget,
}

impl Shard {
    /// Runs a transaction as the leader of the partition. A record that a guard wants is not evicted for its room.
    ///
    /// # Panics
    /// If there are more than [`MAX_TRANSACTION_KEYS`] guards or effects, a key is of another partition, or one that takes a new deadline is not guarded to exist.
    pub fn transact(
        &mut self,
        turn: &Turn<'_>,
        partition: Partition,
        transaction: &Transaction<'_>,
    ) -> Result<Outcome, Short> {
        let p = self.local(partition);
        self.durable.begin_call();
        assert!(
            transaction.guards.len().max(transaction.effects.len()) <= MAX_TRANSACTION_KEYS,
            "a transaction has few enough keys for one hold of the lock"
        );
        assert!(
            transaction
                .keys()
                .all(|key| Partition::of(key) == partition),
            "the keys of a transaction are of its partition"
        );
        let outcome = self.check_and_carry_out(turn, p, transaction);
        self.held.guarded.clear();
        match outcome {
            Ok(outcome) => Ok(outcome),
            Err(NoRoom::Short(short)) => Err(short),
            Err(NoRoom::Refused(refusal)) => Ok(Outcome::Refused(refusal)),
        }
    }

    fn check_and_carry_out(
        &mut self,
        turn: &Turn<'_>,
        p: usize,
        transaction: &Transaction<'_>,
    ) -> Result<Outcome, NoRoom> {
        for (n, guard) in transaction.guards.iter().enumerate() {
            let hash = self.hasher.hash(guard.key);
            let at = self.find_live(turn.now_ms, p, hash, guard.key);
            let found = at.map(|at| self.records.version(at));
            if !guard.condition.holds(found) {
                return Ok(Outcome::Failed { guard: n, found });
            }
            if let Some(at) = at {
                self.held.guard(at);
            }
        }
        let last = self.partitions[p].last;
        if transaction.effects.is_empty() {
            return Ok(Outcome::Applied(last));
        }
        for (key, effect) in transaction.effects {
            assert!(
                !matches!(effect, Effect::Expire { .. })
                    || transaction
                        .guards
                        .iter()
                        .any(|guard| { guard.key == *key && guard.condition != Condition::Absent }),
                "a new deadline is for a key that is guarded to exist"
            );
        }
        let version = last.next();
        if !fits_the_log(transaction.effects) {
            return Err(NoRoom::Refused(Refusal::TooLarge));
        }
        let deleted = self.carry_out(turn, p, version, transaction.effects)?;
        self.stats.deletes += deleted;
        self.journal(p, version, transaction.effects);
        let puts_only = transaction
            .effects
            .iter()
            .all(|(_, effect)| matches!(effect, Effect::Put { .. }));
        self.advance(p, version, !puts_only);
        Ok(Outcome::Applied(version))
    }

    /// Makes room for all effects, and has all of them happen, or none. Gives how many live items were deleted.
    pub(super) fn carry_out(
        &mut self,
        turn: &Turn<'_>,
        p: usize,
        version: Version,
        effects: &[(&[u8], Effect<'_>)],
    ) -> Result<u64, NoRoom> {
        let steps = self.plan(p, effects);
        let staged = self
            .make_room_for_items(turn, p, &steps)
            .and_then(|()| self.stage(turn, p, &steps));
        self.held.guarded.clear();
        let mut blocks = std::mem::take(&mut self.held.blocks);
        if let Err(no_room) = staged {
            for at in blocks {
                self.records.free(at);
            }
            return Err(no_room);
        }
        let mut deleted = 0;
        // What goes goes first: what comes may have been given its room.
        for goes in [true, false] {
            let mut blocks = blocks.iter();
            for step in &steps {
                let block = step
                    .shape
                    .as_ref()
                    .map(|shape| (*blocks.next().expect("each shape has a block"), shape));
                if goes != matches!(step.fate, Fate::Bury | Fate::Forget) {
                    continue;
                }
                let found = self.find(p, step.hash, step.key);
                let live = found.is_some_and(|at| self.is_live(at, turn.now_ms));
                deleted += u64::from(goes && live);
                let target = Target {
                    p,
                    hash: step.hash,
                    key: step.key,
                    version,
                };
                self.carry_out_one(&target, &step.fate, block);
            }
        }
        blocks.clear();
        self.held.blocks = blocks;
        Ok(deleted)
    }

    fn carry_out_one(
        &mut self,
        target: &Target<'_>,
        fate: &Fate<'_>,
        block: Option<(Handle, &Shape)>,
    ) {
        match (fate, block) {
            (Fate::Put { body, deadline }, Some((new, shape))) => {
                self.place(target, new, shape, &target.content(*deadline, body));
            }
            (Fate::Reform(deadline), Some((new, shape))) => {
                let at = self.find(target.p, target.hash, target.key);
                let copy = self.copied(at.expect("it was held"));
                let body = Body::Value(copy.value());
                self.place(target, new, shape, &target.content(*deadline, &body));
                self.stats.sets -= 1;
            }
            (Fate::Retime(deadline), None) => {
                let at = self.find(target.p, target.hash, target.key);
                self.retime(target, at.expect("it was held"), *deadline);
            }
            (Fate::Bury, Some((new, shape))) => self.bury_in(target, new, shape),
            (Fate::Forget, None) => self.forget(target),
            _ => unreachable!("what writes a record has a block, and nothing else has"),
        }
    }

    /// What becomes of each key, once each, in the order of their last effects. Holds the records that take a deadline.
    fn plan<'a>(&mut self, p: usize, effects: &[(&'a [u8], Effect<'a>)]) -> Vec<Step<'a>> {
        let mut last: Vec<(u64, usize, &'a [u8], Effect<'a>)> = effects
            .iter()
            .enumerate()
            .map(|(place, (key, effect))| (self.hasher.hash(key), place, *key, effect.clone()))
            .collect();
        last.sort_by(|a, b| (a.0, a.2).cmp(&(b.0, b.2)));
        last.dedup_by(|later, earlier| {
            let same = later.2 == earlier.2;
            if same {
                earlier.1 = later.1;
                after(&mut earlier.3, &later.3);
            }
            same
        });
        last.sort_unstable_by_key(|&(_, place, ..)| place);
        last.into_iter()
            .map(|(hash, _, key, effect)| self.step(p, hash, key, effect))
            .collect()
    }

    fn step<'a>(&mut self, p: usize, hash: u64, key: &'a [u8], effect: Effect<'a>) -> Step<'a> {
        let (fate, shape) = match effect {
            Effect::Put {
                value,
                expires_at_ms: deadline,
            } => {
                let body = Body::Value(value);
                let shape = self.records.shape(key, deadline, &body);
                (Fate::Put { body, deadline }, Some(shape))
            }
            Effect::Expire { expires_at_ms } => match self.find_value(p, hash, key) {
                // As for one effect: what has no value here must not pass for this version.
                None => self.delete_step(p, key),
                Some(at) => {
                    self.held.guard(at);
                    match (self.records.expires_at(at), expires_at_ms) {
                        (Some(_), Some(new)) => (Fate::Retime(new), None),
                        (_, new) => {
                            let shape = self.records.shape(key, new, &self.records.body(at));
                            (Fate::Reform(new), Some(shape))
                        }
                    }
                }
            },
            Effect::Delete => self.delete_step(p, key),
        };
        Step {
            key,
            hash,
            fate,
            shape,
        }
    }

    fn delete_step<'a>(&self, p: usize, key: &[u8]) -> (Fate<'a>, Option<Shape>) {
        if self.keeps_tombstones(p) {
            let shape = self.records.shape(key, None, &Body::Tombstone);
            (Fate::Bury, Some(shape))
        } else {
            (Fate::Forget, None)
        }
    }

    /// The key's record that is no tombstone.
    fn find_value(&self, p: usize, hash: u64, key: &[u8]) -> Option<Handle> {
        let found = self.find(p, hash, key);
        found.filter(|&at| !self.records.is_tombstone(at))
    }

    /// Makes the room of the items that there will be more. Evicting one that an effect puts or deletes gives none, so it is
    /// counted again until it is enough.
    fn make_room_for_items(
        &mut self,
        turn: &Turn<'_>,
        p: usize,
        steps: &[Step<'_>],
    ) -> Result<(), NoRoom> {
        let puts = steps
            .iter()
            .filter(|step| matches!(step.fate, Fate::Put { .. }))
            .count() as u64;
        let stay = self.held.guarded.len() as u64;
        loop {
            let (mut gone, mut guarded_gone) = (0, 0);
            for step in steps {
                if matches!(step.fate, Fate::Retime(_) | Fate::Reform(_)) {
                    continue;
                }
                if let Some(at) = self.find_value(p, step.hash, step.key) {
                    gone += 1;
                    guarded_gone += u64::from(self.held.guards(at));
                }
            }
            if puts + stay - guarded_gone > turn.limit.items {
                return Err(NoRoom::Refused(Refusal::TooLarge));
            }
            let after = self.stats.items - gone + puts;
            if after <= self.granted.items {
                return Ok(());
            }
            self.give_way_to_items(turn, after - self.granted.items)?;
        }
    }

    /// Finds a block for each record that is to be written, into `self.held`, and the room for all that comes with them.
    fn stage(&mut self, turn: &Turn<'_>, p: usize, steps: &[Step<'_>]) -> Result<(), NoRoom> {
        let shapes = || steps.iter().filter_map(|step| step.shape.as_ref());
        let need = Need {
            insertions: shapes().count(),
            large: shapes().filter(|shape| shape.is_large()).count(),
            large_bytes: shapes().map(|shape| shape.large_bytes).sum(),
            block_bytes: shapes().map(|s| s.granules() as usize * GRANULE).sum(),
        };
        if need.insertions == 0 {
            return Ok(());
        }
        let guarded: usize = self
            .held
            .guarded
            .iter()
            .map(|&at| self.records.large_bytes_of(at))
            .sum();
        let guarded_freed = self.freed(p, steps, |shard, at| shard.held.guards(at));
        let segments = segments_for(shapes().map(Shape::granules));
        let beside = segments * SEGMENT_BYTES + guarded - guarded_freed;
        self.refuse_too_large(turn, &need, beside)?;
        // It changes only when a large record goes, and looking for all keys after each eviction would add up.
        let mut known = None;
        for shape in shapes() {
            let at = self.find_block(turn, shape.granules(), &need, |shard| {
                let large = shard.records.large_bytes();
                match known {
                    Some((then, freed)) if then == large => freed,
                    _ => {
                        let freed = shard.freed(p, steps, |_, _| true);
                        known = Some((large, freed));
                        freed
                    }
                }
            })?;
            let place = Handle(self.held.blocks.len() as u32);
            Links::set_previous(&mut self.records, at, place);
            self.held.blocks.push(at);
        }
        Ok(())
    }

    /// What is charged for allocations of records that the steps write over or delete, of those that count.
    fn freed(&self, p: usize, steps: &[Step<'_>], counts: impl Fn(&Self, Handle) -> bool) -> usize {
        steps
            .iter()
            .filter(|step| !matches!(step.fate, Fate::Retime(_)))
            .filter_map(|step| self.find(p, step.hash, step.key))
            .filter(|&at| counts(self, at))
            .map(|at| self.records.large_bytes_of(at))
            .sum()
    }
}

/// Makes the effect on a key what it and the next one come to.
fn after<'a>(effect: &mut Effect<'a>, next: &Effect<'a>) {
    match (effect, next) {
        (
            Effect::Put { expires_at_ms, .. } | Effect::Expire { expires_at_ms },
            Effect::Expire { expires_at_ms: new },
        ) => *expires_at_ms = *new,
        (Effect::Delete, Effect::Expire { .. }) => {}
        (effect, next) => *effect = next.clone(),
    }
}

/// The segments that these blocks take, one after the other in empty ones.
fn segments_for(blocks: impl Iterator<Item = u32>) -> usize {
    let whole = (SEGMENT_BYTES / GRANULE) as u32;
    let (mut segments, mut left) = (0, 0);
    for block in blocks {
        if left < block {
            segments += 1;
            left = whole;
        }
        left -= block;
    }
    segments
}

/// Whether all effects are few and small enough for one record of the log.
fn fits_the_log(effects: &[(&[u8], Effect<'_>)]) -> bool {
    /// More than an effect takes beside its key and its data.
    const BESIDE_BYTES: usize = 300;
    let bytes = effects.iter().map(|(key, effect)| {
        let data = match effect {
            Effect::Put { value, .. } => value.data.len(),
            Effect::Expire { .. } | Effect::Delete => 0,
        };
        key.len() + data + BESIDE_BYTES
    });
    bytes.sum::<usize>() < MAX_BODY_BYTES
}
