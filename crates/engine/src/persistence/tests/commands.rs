//! What clients have a node do, at random or as told, and what the model makes of it. What an answer shows has to be what
//! the model has, and has to wait for the log if it may be in none.

use super::machine::{KEYS, Machine, USED_SHARDS};
use super::model::{Change, Entry, Item};
use super::recover::{SEED, partitions, shard_of, turn};
use crate::hasher::KeyHasher;
use bytes::Bytes;
use henge_wire::{
    Command, Condition, Data, Effect, Expiry, Guard, Operation, Outcome, Partition, Precondition,
    Reply, Transaction, Value, Version,
};

/// Values from here on are given as what they are kept as, and not copied.
const SHARED_BYTES: usize = 4_096;

impl Machine {
    /// One of the keys.
    pub(crate) fn key(&self, number: usize) -> Vec<u8> {
        self.keys[number % self.keys.len()].clone()
    }

    fn any_key(&mut self) -> Vec<u8> {
        let number = self.random.below(self.keys.len());
        self.key(number)
    }

    fn any_data(&mut self) -> Vec<u8> {
        let len = match self.random.below(20) {
            0 => SHARED_BYTES + self.random.below(2_000),
            1..4 => self.random.below(2_000),
            _ => self.random.below(60),
        };
        match self.random.below(4) {
            0 if self.settings.has_zeros => vec![0; len],
            1 => self.random.bytes(len),
            n => (0..len).map(|at| b'a' + ((at * n) % 26) as u8).collect(),
        }
    }

    fn any_expiry(&mut self) -> Expiry {
        match self.random.below(4) {
            0 => Expiry::Keep,
            1 => Expiry::At(self.now_ms + 1 + self.random.below(3_000) as u64),
            _ => Expiry::Never,
        }
    }

    /// Something, mostly with a key.
    pub(crate) fn command(&mut self) {
        self.now_ms += self.random.below(20) as u64;
        let key = self.any_key();
        match self.random.below(100) {
            0..40 => {
                let (data, expiry) = (self.any_data(), self.any_expiry());
                self.set(&key, &data, expiry);
            }
            40..55 => self.delete(&key),
            55..65 => {
                let expiry = self.any_expiry();
                self.expire(&key, expiry);
            }
            65..75 => self.increment(&key),
            75..85 => self.get(&key),
            85..95 => self.transact(&key),
            95..98 => {
                let now_ms = self.now_ms;
                for shard in &mut self.process().shards {
                    shard.sweep(now_ms, 10);
                }
            }
            _ if self.random.one_in(4) => self.clear(),
            _ => {}
        }
    }

    /// Runs an operation on a key. What it changes is known before.
    fn run(&mut self, key: &[u8], operation: Operation<'_>, change: Option<Change>) {
        let partition = Partition::of(key);
        let now_ms = self.now_ms;
        let shard = &mut self.process().shards[shard_of(partition)];
        let reply = shard.execute(
            &turn(now_ms),
            partition,
            KeyHasher::new(SEED).hash(key),
            &Command { key, operation },
        );
        let reply = reply.expect("a shard without a fair share is never short");
        if let Reply::Refused(refusal) = reply {
            assert!(change.is_none(), "{refusal:?}");
        }
        self.changed(partition, change.map(|change| vec![change]));
    }

    /// A call has made these changes, or none.
    fn changed(&mut self, partition: Partition, changes: Option<Vec<Change>>) {
        let number = partition.number();
        let before = self.model.now.last[&number];
        let shard = &self.shards()[shard_of(partition)];
        let last = shard.progress(partition).last;
        let Some(mut changes) = changes else {
            assert_eq!(last, before, "nothing changed");
            return;
        };
        assert!(shard.is_unkept(), "the answer shows what is in no log");
        assert_eq!(last, before.next());
        let stamped = self.stamped.insert(number, last);
        assert!(stamped < Some(last), "{last} was stamped twice");
        for item in changes.iter_mut().filter_map(|(_, item)| item.as_mut()) {
            item.version = last;
        }
        let entry = Entry::Mutation(partition, last, changes);
        self.model.journal(shard_of(partition), entry);
    }

    /// The deadline that a key has after this.
    fn deadline(&self, key: &[u8], expiry: Expiry) -> Option<u64> {
        match expiry {
            Expiry::Never => None,
            Expiry::At(at) => Some(at),
            Expiry::Keep => self.item(key).and_then(|item| item.deadline),
        }
    }

    /// The item of a key, if it is there.
    fn item(&self, key: &[u8]) -> Option<&Item> {
        let item = self.model.now.live(key, self.now_ms)?;
        let partition = Partition::of(key);
        let shard = &self.shards()[shard_of(partition)];
        let hash = KeyHasher::new(SEED).hash(key);
        let found = shard.footprint(partition, hash, key, self.now_ms);
        assert!(found.is_some() || self.settings.evicts());
        found.map(|_| item)
    }

    pub(crate) fn set(&mut self, key: &[u8], data: &[u8], expiry: Expiry) {
        let item = Item {
            data: data.to_vec(),
            deadline: self.deadline(key, expiry),
            version: Version::ZERO,
        };
        let operation = Operation::Set {
            value: Value::raw(given(data)),
            expiry,
            precondition: Precondition::NONE,
        };
        self.run(key, operation, Some((key.to_vec(), Some(item))));
    }

    pub(crate) fn delete(&mut self, key: &[u8]) {
        let precondition = Precondition::NONE;
        let operation = Operation::Delete { precondition };
        self.run(key, operation, Some((key.to_vec(), None)));
    }

    pub(crate) fn expire(&mut self, key: &[u8], expiry: Expiry) {
        let deadline = self.deadline(key, expiry);
        let item = self.item(key).filter(|item| item.deadline != deadline);
        let item = item.cloned().map(|item| Item { deadline, ..item });
        let operation = Operation::Expire {
            expiry,
            precondition: Precondition::NONE,
        };
        self.run(key, operation, item.map(|item| (key.to_vec(), Some(item))));
    }

    pub(crate) fn increment(&mut self, key: &[u8]) {
        let by = i64::from(self.random.number() as u8) - 100;
        let item = match self.item(key) {
            None => Some((by, None)),
            // An integer is written in one way only.
            Some(item) => std::str::from_utf8(&item.data)
                .ok()
                .and_then(|text| Some((text, text.parse::<i64>().ok()?)))
                .filter(|(text, value)| value.to_string() == *text)
                .map(|(_, value)| (value + by, item.deadline)),
        };
        let item = item.map(|(value, deadline)| Item {
            data: value.to_string().into_bytes(),
            deadline,
            version: Version::ZERO,
        });
        let operation = Operation::Increment {
            by,
            initial: 0,
            expiry: Expiry::Never,
        };
        self.run(key, operation, item.map(|item| (key.to_vec(), Some(item))));
    }

    /// Reads a key. The answer has to wait exactly if it may show what is in no log.
    pub(crate) fn get(&mut self, key: &[u8]) {
        let partition = Partition::of(key);
        let (n, now_ms) = (shard_of(partition), self.now_ms);
        let expected = self.item(key).map(|item| (item.data.clone(), item.version));
        let is_unkept = self.model.is_unkept(n, key);
        let shard = &mut self.process().shards[n];
        let hash = KeyHasher::new(SEED).hash(key);
        let operation = Operation::Get;
        let reply = shard.execute(&turn(now_ms), partition, hash, &Command { key, operation });
        let found = match reply.expect("a shard without a fair share is never short") {
            Reply::Found(item) => Some((item.value.data.to_vec(), item.version)),
            _ => None,
        };
        assert_eq!(found, expected);
        assert!(
            shard.is_unkept() || !is_unkept,
            "it shows what is in no log"
        );
        let has_unkept = shard.has_unkept();
        assert!(has_unkept || !shard.is_unkept(), "it waits for nothing");
        self.changed(partition, None);
    }

    /// Changes some keys of the partition of this one.
    pub(crate) fn transact(&mut self, key: &[u8]) {
        let partition = Partition::of(key);
        let number = self.keys.iter().position(|other| other == key);
        let first = number.expect("it is one of them") / KEYS * KEYS;
        let mut steps = Vec::new();
        for n in first..first + KEYS {
            let key = self.key(n);
            let (data, expiry) = (self.any_data(), self.any_expiry());
            let deadline = self.deadline(&key, expiry);
            let change = match (self.random.below(5), self.item(&key)) {
                (0 | 1, _) => Some(Item {
                    data,
                    deadline,
                    version: Version::ZERO,
                }),
                (2, _) => None,
                (3, Some(item)) => Some(Item {
                    deadline,
                    ..item.clone()
                }),
                _ => continue,
            };
            let is_kept = self.item(&key).map(|item| &item.data);
            let is_kept = change.is_some() && is_kept == change.as_ref().map(|item| &item.data);
            steps.push((key, change, is_kept));
        }
        let mut guards = Vec::new();
        let mut effects: Vec<(&[u8], Effect<'_>)> = Vec::new();
        for (key, item, is_kept) in &steps {
            let effect = match item {
                None => Effect::Delete,
                Some(item) if *is_kept => {
                    guards.push(Guard {
                        key,
                        condition: Condition::Exists,
                    });
                    Effect::Expire {
                        expires_at_ms: item.deadline,
                    }
                }
                Some(item) => Effect::Put {
                    value: Value::raw(given(&item.data)),
                    expires_at_ms: item.deadline,
                },
            };
            effects.push((key, effect));
        }
        let transaction = Transaction {
            guards: &guards,
            effects: &effects,
        };
        let now_ms = self.now_ms;
        let shard = &mut self.process().shards[shard_of(partition)];
        let outcome = shard.transact(&turn(now_ms), partition, &transaction);
        let outcome = outcome.expect("a shard without a fair share is never short");
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
        let changes: Vec<Change> = steps
            .into_iter()
            .map(|(key, item, _)| (key, item))
            .collect();
        self.changed(
            partition,
            Some(changes).filter(|changes| !changes.is_empty()),
        );
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        for n in 0..usize::from(USED_SHARDS) {
            drop(self.process().shards[n].clear());
            for partition in partitions() {
                if shard_of(partition) == n {
                    let last = self.shards()[n].progress(partition).last;
                    self.stamped.insert(partition.number(), last);
                    self.model.journal(n, Entry::Flush(partition, last));
                }
            }
        }
    }
}

/// As a value is given: what is long is shared.
fn given(data: &[u8]) -> Data<'_> {
    if data.len() < SHARED_BYTES {
        Data::Slice(data)
    } else {
        Data::Shared(Bytes::copy_from_slice(data))
    }
}
