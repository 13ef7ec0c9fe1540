//! The table of a replica in the model: a `Map`, and beside it what no replica has, the whole of its order. The machine does
//! not see that; the laws are about it.

use henge_cluster::replica::{
    Entry, Key, NoRoom, Progress, Ran, Record, Replace, State, Table, Types,
};
use henge_cluster::testing::map::{Durable, Map, Request, Shown};
use henge_wire::Version;

/// In place of a key that was dropped before a generation in which nobody else has anything: in that there never was one.
pub const NOBODYS: u8 = 0;

/// A step of an order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mutation {
    /// Its place.
    pub version: Version,
    /// The key, which is a letter.
    pub key: u8,
    /// What it holds from then on; none if it was deleted.
    pub value: Option<u64>,
}

/// All mutations that a replica has applied or taken over, the first first.
pub type Order = Vec<Mutation>;

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ledger {
    /// What the machine works with.
    pub map: Map,
    /// How it came to that.
    pub order: Order,
    /// The orders behind the copies in the log of the map, and that behind what is on its disk.
    log: Vec<Order>,
    durable: Order,
    /// The order of the source whose copy ends with the part that is given to the machine now.
    pub arriving: Option<Order>,
}

impl Ledger {
    /// The order of which all is on the disk.
    pub fn kept(&self) -> &Order {
        if self.log.is_empty() {
            &self.order
        } else {
            &self.durable
        }
    }

    /// How much was written that is not known to be kept.
    pub fn unkept(&self) -> usize {
        self.map.log.len()
    }

    /// All that is written is kept.
    pub fn keep(&mut self) {
        self.map.log.clear();
        self.log.clear();
        // As good as what is now; what it was makes no difference any more.
        self.map.durable = Durable::default();
        self.durable.clear();
    }

    /// Forgets a record, if that is allowed.
    pub fn evict(&mut self, key: u8) {
        self.begin_log();
        self.map.drop_one(&vec![key]);
        self.written();
    }

    /// What was written is not kept yet: from here on a crash may bring back what there is now.
    fn begin_log(&mut self) {
        if self.log.is_empty() {
            self.map.durable = self.map.now.image();
            self.durable.clone_from(&self.order);
        }
    }

    /// The process ends. So many of the copies in the log survive it.
    pub fn crash(&mut self, survive: usize) {
        if survive < self.unkept() {
            let (map, order) = if survive == 0 {
                (&self.map.durable, &self.durable)
            } else {
                (&self.map.log[survive - 1], &self.log[survive - 1])
            };
            self.map.now = map.clone();
            self.order.clone_from(order);
        }
        self.map.now = self.map.now.image();
        self.keep();
    }

    /// A copy has come.
    fn arrived(&mut self) {
        // Only a planted bug puts what is not the end of a copy; then the order stays, and is not what is in the table.
        if let Some(order) = self.arriving.take() {
            self.order = order;
        }
        self.written();
    }

    /// What was written since has this order behind it.
    fn written(&mut self) {
        self.log.resize(self.map.log.len(), self.order.clone());
    }
}

/// Those of its map.
type Effects = <Map as Types>::Effects;

impl Types for Ledger {
    type Request<'r> = Request;
    type Reply = Shown;
    type Effects = Effects;
    type Value = u64;
}

impl Table<Self> for Ledger {
    fn progress(&self) -> Progress {
        self.map.progress()
    }

    fn execute(
        &mut self,
        now_ms: u64,
        request: &Request,
        wants_effects: bool,
    ) -> Ran<Effects, Shown> {
        self.begin_log();
        // Its order needs them in any case.
        match self.map.execute(now_ms, request, true) {
            Ran::Changed(version, Some(effects), reply) => {
                self.order.push(mutation(version, &effects));
                self.written();
                Ran::Changed(version, wants_effects.then_some(effects), reply)
            }
            ran => ran,
        }
    }

    fn keys(&self, effects: &Effects) -> Vec<Key> {
        self.map.keys(effects)
    }

    fn apply(&mut self, now_ms: u64, entry: &Entry<Effects>) -> Result<(), NoRoom> {
        self.begin_log();
        self.map.apply(now_ms, entry)?;
        self.order.push(mutation(entry.version, &entry.effects));
        self.written();
        Ok(())
    }

    fn commit(&mut self, seq: u64) {
        self.map.commit(seq);
    }

    fn log(&mut self, state: &State) {
        self.begin_log();
        self.map.log(state);
        self.written();
    }

    fn align(&mut self, term: u32, state: &State) {
        self.begin_log();
        self.map.align(term, state);
        self.written();
    }

    fn record(&self, key: &[u8]) -> Option<Record<u64>> {
        self.map.record(key)
    }

    fn scan(&self, place: u32, above: u64, each: &mut dyn FnMut(Record<u64>)) -> u32 {
        self.map.scan(place, above, each)
    }

    fn install(
        &mut self,
        replace: Replace,
        records: Vec<Record<u64>>,
        progress: Progress,
        state: &State,
    ) {
        self.begin_log();
        self.map.install(replace, records, progress, state);
        self.arrived();
    }

    fn fill(&mut self, states: Vec<(Key, Option<Record<u64>>)>) {
        self.map.fill(states);
    }

    fn complete(&mut self, progress: Progress, state: &State) {
        self.begin_log();
        self.map.complete(progress, state);
        self.arrived();
    }

    fn empty(&mut self) {
        self.map.empty();
    }

    fn keep(&mut self, state: &State) {
        self.begin_log();
        self.map.keep(state);
        let records = &self.map.now.records;
        for mutation in &mut self.order {
            if !records.contains_key(&vec![mutation.key]) {
                mutation.key = NOBODYS;
            }
        }
        self.written();
    }

    fn wipe(&mut self, state: &State) {
        self.begin_log();
        self.map.wipe(state);
        self.order.clear();
        self.written();
    }
}

fn mutation(version: Version, (keys, value): &Effects) -> Mutation {
    Mutation {
        version,
        key: letter(&keys[0]),
        value: *value,
    }
}

/// The key as a letter.
pub fn letter(key: &Key) -> u8 {
    key[0]
}
