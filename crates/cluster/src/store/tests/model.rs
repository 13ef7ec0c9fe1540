//! Two nodes with two replicas each: one with room for all, and one that evicts all the time, crashes, and is made again of any
//! part of its log. Each replica has its order beside it as a list of all steps. Of each key its table has the newest of
//! those, or nothing and a horizon at or above it; and after a crash it is as it was at some moment that it may be.

use super::*;
use crate::replica::Key;
use henge_wire::{Condition, Effect, Expiry, Guard, Operation, Precondition};
use std::collections::{BTreeMap, BTreeSet};

const PARTITIONS: usize = 2;
const KEYS: usize = 50;

/// What becomes of a key.
#[derive(Clone, PartialEq, Debug)]
enum Change {
    Put(Value),
    Expire(Option<u64>),
    Delete,
}

/// A step of an order.
#[derive(Clone, PartialEq, Debug)]
struct Step {
    version: Version,
    changes: Vec<(Key, Change)>,
}

/// The newest of a key.
struct Newest {
    version: Version,
    value: Option<Value>,
    /// Who had dropped the value when only its deadline changed has a tombstone.
    may_be_gone: bool,
}

/// What a replica should be.
#[derive(Clone, Default)]
struct Ghost {
    order: Vec<Step>,
    term: u32,
    commit: u64,
    state: State,
}

impl Ghost {
    fn last(&self) -> Version {
        Version::new(self.term, self.order.len() as u64)
    }

    fn newest(&self) -> BTreeMap<Key, Newest> {
        let mut all: BTreeMap<Key, Newest> = BTreeMap::new();
        for Step { version, changes } in &self.order {
            for (key, change) in changes {
                let before = all.get(key).and_then(|newest| newest.value.clone());
                let value = match change {
                    Change::Put(value) => Some(value.clone()),
                    Change::Delete => None,
                    Change::Expire(expires_at_ms) => before.map(|value| Value {
                        expires_at_ms: *expires_at_ms,
                        ..value
                    }),
                };
                let newest = Newest {
                    version: *version,
                    value,
                    may_be_gone: matches!(change, Change::Expire(_)),
                };
                all.insert(key.clone(), newest);
            }
        }
        all
    }

    /// Up to where two orders are the same.
    fn common(&self, other: &Self) -> u64 {
        let pairs = self.order.iter().zip(&other.order);
        pairs.take_while(|(a, b)| a == b).count() as u64
    }
}

fn partition(p: usize) -> Partition {
    Partition::of([b"{p}", b"{q}"][p])
}

fn key(p: usize, n: usize) -> Key {
    format!("{}{n}", ["{p}", "{q}"][p]).into_bytes()
}

/// One node.
struct Node {
    settings: ShardSettings,
    shard: Shard,
    ghosts: [Ghost; PARTITIONS],
    files: Files,
    /// Bytes of the log that went with snapshots.
    gone: usize,
    /// Up to where the log has what the ghosts were then.
    moments: Vec<(usize, [Ghost; PARTITIONS])>,
    snapshot: Option<(Snapshot, usize)>,
    scan: Option<Scan>,
}

/// A scan that others change meanwhile.
struct Scan {
    p: usize,
    place: u32,
    stays: BTreeSet<Key>,
    shown: BTreeSet<Key>,
}

impl Node {
    fn new(settings: ShardSettings) -> Self {
        Self {
            shard: settings.shard(),
            settings,
            ghosts: Default::default(),
            files: Files::default(),
            gone: 0,
            moments: vec![(0, Default::default())],
            snapshot: None,
            scan: None,
        }
    }

    fn table(&mut self, p: usize, now_ms: u64) -> PartitionTable<'_> {
        let turn = self.settings.turn(now_ms);
        PartitionTable::new(&mut self.shard, partition(p), turn)
    }

    fn records(&mut self, p: usize, above: u64) -> BTreeMap<Key, Record<Value>> {
        let table = self.table(p, 0);
        let (mut records, mut place) = (BTreeMap::new(), 0);
        loop {
            place = table.scan(place, above, &mut |record| {
                let before = records.insert(record.key.clone(), record);
                assert!(before.is_none(), "nothing comes twice");
            });
            if place == 0 {
                return records;
            }
        }
    }

    /// What always holds; `is_new` if a recovery has just made it.
    fn check(&mut self, is_new: bool) {
        for p in 0..PARTITIONS {
            let found = self.records(p, 0);
            let progress = self.table(p, 0).progress();
            let ghost = &mut self.ghosts[p];
            assert_eq!(progress.last, ghost.last());
            if is_new {
                assert!(
                    progress.commit <= ghost.commit,
                    "it was not known to be more"
                );
                ghost.commit = progress.commit;
            }
            assert_eq!(progress.commit, ghost.commit);
            assert!(progress.horizon <= progress.commit);
            let newest = ghost.newest();
            for key in found.keys() {
                assert!(newest.contains_key(key), "{key:?} was never written");
            }
            for (key, newest) in newest {
                let name = String::from_utf8_lossy(&key);
                let Some(record) = found.get(&key) else {
                    let seq = newest.version.seq();
                    assert!(seq <= progress.horizon, "{name} of {seq} is not there");
                    continue;
                };
                assert_eq!(record.version, newest.version, "{name}");
                let is_gone = newest.may_be_gone && record.value.is_none();
                assert!(is_gone || record.value == newest.value, "{name}");
            }
            if let Some(scan) = &mut self.scan
                && scan.p == p
            {
                scan.stays.retain(|key| found.contains_key(key));
            }
        }
    }

    /// Writes the journal; sometimes it is synced.
    fn write(&mut self, sync: bool) {
        self.files.write(&mut self.shard);
        let len = self.gone + self.files.log.len();
        self.moments.push((len, self.ghosts.clone()));
        if sync {
            self.files.sync();
        }
        let synced = self.gone + self.files.synced;
        let newest = self.moments.iter().rposition(|(len, _)| *len <= synced);
        self.moments.drain(..newest.unwrap_or(0));
    }

    fn step_snapshot(&mut self, keeps_log: bool) {
        let Some((snapshot, _)) = &mut self.snapshot else {
            self.write(false);
            let from = self.files.log.len();
            self.files.snapshots += 1;
            self.snapshot = Some((Snapshot::begin(self.files.snapshots), from));
            return;
        };
        if !snapshot.step(&mut self.shard) {
            return;
        }
        self.write(true);
        let (snapshot, from) = self.snapshot.take().expect("it was stepped");
        self.files.snapshot = Some(snapshot.finish());
        if !keeps_log {
            self.files.log.drain(..from);
            self.files.synced -= from;
            self.gone += from;
        }
    }

    fn step_scan(&mut self, p: usize) {
        let Some(mut scan) = self.scan.take() else {
            let stays = self.records(p, 0).into_keys().collect();
            self.scan = Some(Scan {
                p,
                place: 0,
                stays,
                shown: BTreeSet::new(),
            });
            return;
        };
        let table = self.table(scan.p, 0);
        scan.place = table.scan(scan.place, 0, &mut |record| {
            scan.shown.insert(record.key);
        });
        if scan.place == 0 {
            assert!(scan.stays.is_subset(&scan.shown), "what stays is shown");
        } else {
            self.scan = Some(scan);
        }
    }

    /// Ends and starts with a part of what was not synced. Says how many replicas have lost their memory.
    fn crash(&mut self, random: &mut Random, now_ms: u64) -> usize {
        (self.snapshot, self.scan) = (None, None);
        let unsynced = self.files.log.len() - self.files.synced;
        let kept = self.files.synced + random.place(unsynced + 1);
        self.files.lose(kept);
        let found = self.files.recover(&self.settings, now_ms);
        self.shard = found.shard;
        let end = self.gone + found.log_bytes;
        let moment = self.moments.iter().rfind(|(len, _)| *len <= end);
        self.ghosts
            .clone_from(&moment.expect("the first is kept").1);
        let mut lost = 0;
        for p in 0..PARTITIONS {
            let replica = found.replicas.get(&partition(p)).cloned();
            let replica = replica.unwrap_or_default();
            let ghost = &mut self.ghosts[p];
            if replica.has_lost_memory {
                lost += 1;
                ghost.state.history = History::default();
                *ghost = Ghost {
                    state: ghost.state.clone(),
                    ..Ghost::default()
                };
            }
            assert_eq!(replica.state, ghost.state);
            let stored = State::from(self.shard.replica_state(partition(p)));
            assert_eq!(replica.state, stored);
        }
        self.check(true);
        self.moments.clear();
        // That some have lost their memory is in the journal.
        self.write(false);
        self.moments[0].0 = self.gone + self.files.synced;
        lost
    }

    /// A client asks, of a replica that leads.
    fn execute(&mut self, p: usize, random: &mut Random, now_ms: u64) {
        let key = key(p, random.place(KEYS));
        let data = vec![b'v'; *random.of(&[0, 3, 30, 300, 6_000, 30_000])];
        let expiry = match random.below(4) {
            0 => Expiry::At(now_ms + random.within(1, 50)),
            1 => Expiry::Keep,
            _ => Expiry::Never,
        };
        let value = henge_wire::Value::from_slice(&data);
        let precondition = Precondition::NONE;
        let operation = match random.below(10) {
            0..=3 => Operation::Set {
                value: value.clone(),
                expiry,
                precondition,
            },
            4 => Operation::Delete { precondition },
            5 => Operation::Expire {
                expiry,
                precondition,
            },
            6 => Operation::Increment {
                by: 3,
                initial: 1,
                expiry,
            },
            _ => Operation::Get,
        };
        let other = super::model::key(p, random.place(KEYS));
        let (guards, effects) = (
            [Guard {
                key: &key,
                condition: *random.of(&[Condition::Exists, Condition::Absent]),
            }],
            [
                (&key[..], Effect::Delete),
                (
                    &other[..],
                    Effect::Put {
                        value,
                        expires_at_ms: None,
                    },
                ),
            ],
        );
        let transaction = Transaction {
            guards: &guards,
            effects: &effects[..random.place(3)],
        };
        let hash = self.shard.hash(&key);
        let command = Command {
            key: &key,
            operation,
        };
        let request = if random.one_in(6) {
            Request::Transaction(&transaction)
        } else {
            Request::Command(&command, hash)
        };
        let before = self.ghosts[p].last();
        let ran = self.table(p, now_ms).execute(now_ms, &request, true);
        match ran {
            Ran::NoRoom => {}
            Ran::Saw(seq, reply) => {
                assert!(seq <= before.seq());
                if let Reply::Found(value, version) = reply {
                    assert_eq!(version.seq(), seq);
                    assert!(value.expires_at_ms.is_none_or(|at| at > now_ms));
                    let newest = self.ghosts[p].newest();
                    assert_eq!(newest[&key].value.as_ref(), Some(&value));
                }
            }
            Ran::Changed(version, effects, _) => {
                assert_eq!(version, before.next());
                let effects = effects.expect("they were asked for");
                self.ghosts[p].order.push(step(version, &effects));
            }
        }
    }
}

fn step(version: Version, effects: &EncodedEffects) -> Step {
    let changes = effects.with(|effects| {
        let change = |effect: &Effect<'_>| match effect {
            Effect::Delete => Change::Delete,
            Effect::Expire { expires_at_ms } => Change::Expire(*expires_at_ms),
            Effect::Put {
                value,
                expires_at_ms,
            } => Change::Put(Value {
                data_type: value.data_type,
                data: value.data.to_bytes(),
                encoding: value.encoding,
                raw_len: value.raw_len,
                json: value.json,
                content_type: value.content_type.map(Into::into),
                expires_at_ms: *expires_at_ms,
            }),
        };
        let changes = effects.iter();
        changes
            .map(|(key, effect)| (key.to_vec(), change(effect)))
            .collect()
    });
    Step { version, changes }
}

/// Both nodes.
struct World {
    random: Random,
    now_ms: u64,
    /// The one with room for all, and the other.
    nodes: [Node; 2],
    term: u32,
    lost: usize,
    crashes: usize,
    copies: [usize; 2],
}

impl World {
    /// A replica leads in a term of its own from now on.
    fn lead(&mut self, n: usize, p: usize) {
        self.term += 1;
        let ghost = &mut self.nodes[n].ghosts[p];
        ghost.state.adopted = self.term;
        let first = ghost.last().seq() + 1;
        ghost.state.history.begin(self.term, first);
        ghost.term = self.term;
        let (term, state) = (ghost.term, ghost.state.clone());
        self.nodes[n].table(p, self.now_ms).align(term, &state);
    }

    /// What both have is committed, as far as somebody tells a replica.
    fn commit(&mut self, n: usize, p: usize) {
        let common = self.nodes[0].ghosts[p].common(&self.nodes[1].ghosts[p]);
        let ghost = &mut self.nodes[n].ghosts[p];
        if common > ghost.commit {
            ghost.commit += self.random.within(1, common - ghost.commit);
            let commit = ghost.commit;
            self.nodes[n].table(p, self.now_ms).commit(commit);
        }
    }

    /// A replica applies the next that the other has, if it is in its term.
    fn follow(&mut self, n: usize, p: usize) {
        let [a, b] = &mut self.nodes;
        let (to, from) = if n == 0 { (a, b) } else { (b, a) };
        let (own, other) = (&to.ghosts[p], &from.ghosts[p]);
        let next = own.order.len();
        if own.term != other.term || own.common(other) < next as u64 || other.order.len() <= next {
            return;
        }
        let step = other.order[next].clone();
        let effects: Vec<(&[u8], Effect<'_>)> = step
            .changes
            .iter()
            .map(|(key, change)| {
                let effect = match change {
                    Change::Delete => Effect::Delete,
                    Change::Expire(expires_at_ms) => Effect::Expire {
                        expires_at_ms: *expires_at_ms,
                    },
                    Change::Put(value) => Effect::Put {
                        value: value.view(),
                        expires_at_ms: value.expires_at_ms,
                    },
                };
                (&key[..], effect)
            })
            .collect();
        let effects = EncodedEffects::encode(&effects).expect("they are few");
        let entry = Entry {
            version: step.version,
            effects,
        };
        if to.table(p, self.now_ms).apply(self.now_ms, &entry).is_ok() {
            to.ghosts[p].order.push(step);
        }
    }

    /// A replica takes over the order of the other, if that is of a later term and has all that is committed here.
    fn copy(&mut self, n: usize, p: usize, is_full: bool) {
        let [a, b] = &mut self.nodes;
        let (to, from) = if n == 0 { (a, b) } else { (b, a) };
        let (own, other) = (&to.ghosts[p], &from.ghosts[p]);
        let common = own.common(other);
        if other.last() <= own.last() || common < own.commit {
            return;
        }
        let mut progress = from.table(p, self.now_ms).progress();
        // As the protocol has it: what both have is committed if one knows it to be.
        progress.commit = progress.commit.max(own.commit.min(common));
        let is_full = is_full || common < progress.horizon;
        let (replace, records) = if is_full {
            (Replace::All, from.records(p, 0))
        } else {
            let mut records = from.records(p, common);
            for key in to.records(p, common).into_keys() {
                if let Some(record) = from.table(p, self.now_ms).record(&key) {
                    records.insert(key, record);
                }
            }
            (Replace::Above(common), records)
        };
        self.copies[usize::from(is_full)] += 1;
        let ghost = &mut to.ghosts[p];
        *ghost = Ghost {
            order: from.ghosts[p].order.clone(),
            term: from.ghosts[p].term,
            commit: progress.commit,
            state: State {
                adopted: self.term,
                history: from.ghosts[p].state.history.clone(),
                ..ghost.state.clone()
            },
        };
        let state = ghost.state.clone();
        let records = records.into_values().collect();
        let mut table = to.table(p, self.now_ms);
        table.install(replace, records, progress, &state);
        let overdrawn = table.overdrawn();
        to.shard.surrender(overdrawn);
    }

    fn run(seed: u64) -> Self {
        let _printed = Printed(seed);
        let mut little = settings(2 + seed % 3, 8 + seed % 40);
        little.tombstone_bytes = [0, 200, 10_000][seed as usize % 3];
        let mut much = settings(100, 1_000);
        much.tombstone_bytes = [0, 10_000][seed as usize % 2];
        let mut world = Self {
            random: Random::new(seed, 0),
            now_ms: 1_000,
            nodes: [much, little].map(Node::new),
            term: 0,
            lost: 0,
            crashes: 0,
            copies: [0; 2],
        };
        for _ in 0..600 {
            world.step();
            for node in &mut world.nodes {
                node.check(false);
            }
        }
        world
    }

    fn step(&mut self) {
        let (n, p) = (self.random.place(2), self.random.place(PARTITIONS));
        let node = &mut self.nodes[n];
        let leads = node.ghosts[p].term == node.ghosts[p].state.adopted && self.term > 0;
        let chance = self.random.below(100);
        match chance {
            0..=29 if leads && node.ghosts[p].term > 0 => {
                // In a term that the other leads it follows.
                let other = &self.nodes[1 - n].ghosts[p];
                let node = &self.nodes[n].ghosts[p];
                if other.term < node.term || other.common(node) == other.last().seq() {
                    self.nodes[n].execute(p, &mut self.random, self.now_ms);
                    self.forbid_the_other(n, p);
                }
            }
            0..=49 => self.follow(n, p),
            50..=64 => self.commit(n, p),
            65..=68 => self.lead(n, p),
            69..=74 => {
                let is_full = self.random.one_in(3);
                self.copy(n, p, is_full);
            }
            75..=77 => {
                self.now_ms += 20;
                node.shard.sweep(self.now_ms, 5);
            }
            78..=81 => node.step_scan(p),
            82..=91 => {
                let keeps_log = self.random.one_in(2);
                node.step_snapshot(keeps_log);
            }
            92..=95 => {
                let sync = self.random.one_in(2);
                node.write(sync);
            }
            96 => {
                node.ghosts[p].state.adopted = self.term;
                let state = node.ghosts[p].state.clone();
                node.table(p, self.now_ms).log(&state);
            }
            97 if n == 1 && self.random.one_in(3) => {
                let generation = node.ghosts[p].state.generation + 1;
                let ghost = Ghost {
                    state: State {
                        adopted: self.term,
                        generation,
                        history: History::default(),
                    },
                    ..Ghost::default()
                };
                let state = ghost.state.clone();
                node.ghosts[p] = ghost;
                node.table(p, self.now_ms).wipe(&state);
            }
            _ if self.random.one_in(2) => {
                self.lost += node.crash(&mut self.random, self.now_ms);
                self.crashes += 1;
            }
            _ => {}
        }
        let node = &mut self.nodes[n];
        // Each step has its own place in the log.
        node.write(false);
    }

    /// Two never stamp in one term.
    fn forbid_the_other(&mut self, n: usize, p: usize) {
        let term = self.nodes[n].ghosts[p].term;
        if self.nodes[1 - n].ghosts[p].term == term {
            let (own, other) = (&self.nodes[n].ghosts[p], &self.nodes[1 - n].ghosts[p]);
            assert_eq!(own.common(other), other.last().seq(), "it has led before");
        }
    }
}

#[test]
fn a_table_has_the_newest_of_its_order_or_a_horizon() {
    let (mut lost, mut crashes, mut copies) = (0, 0, [0; 2]);
    for seed in 0..300 {
        let world = World::run(seed);
        lost += world.lost;
        crashes += world.crashes;
        copies[0] += world.copies[0];
        copies[1] += world.copies[1];
    }
    assert!(
        lost > 0 && lost * 2 < crashes && copies[0] > 300 && copies[1] > 300,
        "{crashes} crashes, {lost} lost, {copies:?} copies"
    );
}
