//! What a simulated replica does not know about itself: which mutations its order consists of, and what was ever stamped,
//! promised and committed anywhere. With it the invariants of the protocol are asserted, by their numbers in docs/simulator.md. A
//! `Watched` table is a table that tells the ghost what is done to it, so that it is told of the moment and knows tables of any kind.
//! The ghost of the small worlds is another: that one is told nothing by a table, looks at all that it holds, and says what is
//! broken instead of ending the world, as a story has to go on to its lie.

use crate::coverage::{Coverage, Rule};
use crate::store::{EffectsOf, Found, Held, ReplyOf, RequestOf, Size, Store, Told, ValueOf};
use henge_cluster::replica::{
    Entry, Fate, Key, Loss, NoRoom, Progress, Ran, Record, Replace, State, Table,
};
use henge_cluster::ring::NodeId;
use henge_cluster::testing::random::Random;
use henge_cluster::topology::{Epoch, Incarnation, Placement};
use henge_wire::Version;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What is known of one partition by who sees all of it.
#[derive(Default)]
pub struct Ledger {
    /// What each version did. A term is of one generation, so it is of one as well.
    mutations: BTreeMap<Version, (Key, Option<u64>)>,
    /// The order as far as it is committed, by generations; the version of seq 1 is the first.
    committed: BTreeMap<Epoch, Vec<Version>>,
    /// In which term each of it came to be committed.
    committed_in: BTreeMap<Epoch, Vec<Epoch>>,
    /// Who may keep its table in a generation.
    seeds: BTreeMap<Epoch, (NodeId, Incarnation)>,
    /// What was committed when a node was registered without its memory: of which generation, up to where.
    owed: BTreeMap<NodeId, (Epoch, u64)>,
    /// Who has started a term.
    started: BTreeMap<Epoch, (NodeId, Incarnation)>,
    /// Where a term began.
    bases: BTreeMap<Epoch, u64>,
    /// Which terms were open.
    opened: Vec<Epoch>,
    /// Up to where a replica has said, in a term, that it has applied and kept the order.
    acked: BTreeMap<(NodeId, Incarnation, Epoch), u64>,
    /// The same of those that have to keep it.
    promised: BTreeMap<(NodeId, Incarnation, Epoch), u64>,
    /// Who has answered the fence of a term.
    fenced: BTreeSet<(NodeId, Incarnation, Epoch)>,
    /// What a client was told to be done, and who had stamped it.
    acknowledged: BTreeMap<Version, NodeId>,
    /// What replicas have reported as lost.
    lost: BTreeSet<Version>,
    /// Runs of the order of which they have reported that nobody knows.
    unknown: Vec<(Version, Version)>,
    /// Who has ever lost its memory, or has gone for good.
    forgetful: BTreeSet<NodeId>,
    /// What happened how often.
    pub coverage: Coverage,
}

impl Ledger {
    /// Invariant 4: somebody starts a term.
    pub fn start(&mut self, term: Epoch, who: (NodeId, Incarnation)) {
        if self.started.insert(term, who).is_none() {
            self.coverage.rule(Rule::StartedTerm);
        } else {
            assert_eq!(self.started[&term], who, "term {term} is started once");
        }
    }

    /// Invariant 4: a term has one base; 3: what is committed is in it; and 6: a quorum has left lower terms.
    pub fn open(
        &mut self,
        placement: &Placement,
        starts: &BTreeSet<(NodeId, Incarnation)>,
        me: NodeId,
        (term, base): (Epoch, u64),
    ) {
        if let Some(&before) = self.bases.get(&term) {
            assert_eq!(before, base, "term {term} has one base");
            return;
        }
        self.bases.insert(term, base);
        if placement.term != term {
            // It waited for the disk, and the topology has gone on meanwhile.
            return;
        }
        // What later terms have committed is none of its business, if it is slow.
        let committed_in = self.committed_in.get(&placement.generation);
        let committed = committed_in.map_or(0, |terms| terms.partition_point(|&t| t < term)) as u64;
        // Where there was nobody to tell, it goes on already.
        let is_first = !self.opened.contains(&term);
        assert!(
            !is_first || committed <= base,
            "{committed} is committed, and the base of term {term} is {base}"
        );
        let fenced = &self.fenced;
        let has = |node: NodeId| {
            let mut its = starts.iter().filter(|(of, _)| *of == node);
            node == me || its.any(|&(_, start)| fenced.contains(&(node, start, term)))
        };
        assert!(
            placement.is_quorum(has),
            "a quorum of voters has left the terms below {term}"
        );
    }

    /// A leader says that its term is open.
    pub fn opened(&mut self, term: Epoch, who: (NodeId, Incarnation)) {
        self.opened.push(term);
        self.start(term, who);
        self.coverage.rule(Rule::Opened);
    }

    /// Invariant 8: whether a term of a joint change that began in an epoch was open.
    pub fn has_opened(&self, since: Epoch, until: Epoch) -> bool {
        self.opened
            .iter()
            .any(|&term| term >= since && term <= until)
    }

    /// The topology names who may keep its table in a generation.
    pub fn seed(&mut self, generation: Epoch, who: (NodeId, Incarnation)) {
        self.seeds.insert(generation, who);
    }

    /// A node that counted was registered without its memory, and what it owes is what was committed before.
    pub fn register(&mut self, node: NodeId, generation: Epoch) {
        let committed = self.committed(generation);
        self.owed.insert(node, (generation, committed));
    }

    /// Who is no replica any more owes nothing.
    pub fn forgive(&mut self, is_replica: impl Fn(NodeId) -> bool) {
        self.owed.retain(|&node, _| is_replica(node));
    }

    /// Rule 12: it votes again, so it has what it may have promised. What it has is its generation and how far it
    /// has come, if that start runs still.
    pub fn remembers(&mut self, node: NodeId, has: Option<(Epoch, u64)>) {
        let Some((of, committed)) = self.owed.remove(&node) else {
            return;
        };
        if let Some((generation, last)) = has {
            assert!(
                of != generation || committed <= last,
                "{node} votes again with {last}, and {committed} was committed when it lost its memory"
            );
        }
    }

    /// A replica says that it has applied and kept an order; whether it had said that before.
    pub fn ack(&mut self, who: (NodeId, Incarnation), term: Epoch, applied: u64) -> bool {
        let before = self.acked.get(&(who.0, who.1, term)).copied();
        let newest = before.unwrap_or(0).max(applied);
        self.acked.insert((who.0, who.1, term), newest);
        let promised = self.promised.entry((who.0, who.1, term)).or_default();
        *promised = applied.max(*promised);
        before.is_some()
    }

    /// A replica answers a fence.
    pub fn fence(&mut self, who: (NodeId, Incarnation), term: Epoch) {
        self.fenced.insert((who.0, who.1, term));
    }

    /// A replica is none any more, and has forgotten what it had. Who learns again may do so in the same term.
    pub fn dismiss(&mut self, who: (NodeId, Incarnation)) {
        self.promised
            .retain(|(node, incarnation, _), _| (*node, *incarnation) != who);
    }

    /// Durability: what a node has said in a start, which has ended, it has still.
    pub fn check_promises(&self, who: (NodeId, Incarnation), state: &State, progress: Progress) {
        let own = |&(node, incarnation, term): &(NodeId, Incarnation, Epoch)| {
            ((node, incarnation) == who).then_some(term)
        };
        let fenced = self.fenced.iter().filter_map(own);
        let led = self.started.iter().filter(|(_, leader)| **leader == who);
        let promised = fenced.chain(led.map(|(&term, _)| term)).max();
        assert!(
            Some(state.adopted) >= promised,
            "{who:?} has adopted {promised:?}, and remembers {}",
            state.adopted
        );
        for (key, &applied) in &self.promised {
            let Some(term) = own(key) else { continue };
            // What was of an earlier generation, or whoever was removed, is rightly forgotten.
            let counts = term >= state.generation && !state.history.terms().is_empty();
            assert!(
                !counts || progress.last >= Version::new(term, applied),
                "{who:?} has said that it has {applied} in term {term}, and remembers {progress:?}"
            );
        }
    }

    /// Invariant 6: what counts are voters of the starts that the topology names, and what they have said.
    pub fn check_commit(
        &self,
        placement: &Placement,
        incarnations: &BTreeMap<NodeId, Incarnation>,
        own: (NodeId, Option<u64>),
        seq: u64,
    ) {
        let term = placement.term;
        let has = |node: NodeId| {
            if node == own.0 {
                return own.1 >= Some(seq);
            }
            let Some(&incarnation) = incarnations.get(&node) else {
                return false;
            };
            let acked = self.acked.get(&(node, incarnation, term));
            acked.is_some_and(|&applied| applied >= seq)
        };
        assert!(
            placement.is_quorum(has),
            "{seq} is committed in term {term} by a quorum of voters that have said so"
        );
    }

    /// A client was told that this is done.
    pub fn acknowledge(&mut self, version: Version, by: NodeId) {
        self.acknowledged.insert(version, by);
    }

    /// What a node had, and did not report, nobody else may have.
    pub fn forgets(&mut self, node: NodeId) {
        self.forgetful.insert(node);
    }

    /// A replica reports a loss, which is of what was stamped, and of nothing that survives.
    pub fn lose(&mut self, loss: &Loss) {
        let Some((first, last)) = loss.versions else {
            self.coverage.rule(Rule::LostToReset);
            return;
        };
        if loss.fate != Fate::Replaced {
            self.coverage.rule(Rule::LostUnknown);
            self.unknown.push((first, last));
            return;
        }
        self.coverage.rule(Rule::Lost);
        assert_eq!(first.term(), last.term(), "{loss:?} is of one term");
        for seq in first.seq()..=last.seq() {
            let version = Version::new(first.term(), seq);
            assert!(
                self.mutations.contains_key(&version),
                "{version} is reported as lost, and was stamped by nobody"
            );
            self.lost.insert(version);
        }
        let committed = self.committed.get(&loss.generation);
        self.check_lost(committed.map_or(&[], |committed| committed));
    }

    /// A start ends that has given this up, and will not find out whether it survives.
    pub fn leave(&mut self, unsettled: &[Loss]) {
        let runs = unsettled.iter().filter_map(|loss| loss.versions);
        self.unknown.extend(runs);
    }

    /// Nothing that is committed was reported as lost.
    fn check_lost(&self, committed: &[Version]) {
        let found = committed.iter().find(|version| self.lost.contains(version));
        assert_eq!(found, None, "it was reported as lost, and survives");
    }

    /// At the end: of what a client was told to be done in this generation, all that did not survive was reported, where nobody
    /// has lost its memory.
    pub fn check_losses(&mut self, generation: Epoch) {
        let none = Vec::new();
        let committed = self.committed.get(&generation).unwrap_or(&none);
        self.check_lost(committed);
        let mut reported = 0;
        for (version, by) in &self.acknowledged {
            let place = version.seq() as usize - 1;
            let survives = committed.get(place) == Some(version);
            if version.term() < generation || survives || self.forgetful.contains(by) {
                continue;
            }
            let is_unknown = |(first, last): &(Version, Version)| {
                (first.seq()..=last.seq()).contains(&version.seq())
            };
            assert!(
                self.lost.contains(version) || self.unknown.iter().any(is_unknown),
                "{by} has acknowledged {version}, it did not survive, and nobody has reported that"
            );
            reported += 1;
        }
        for _ in 0..reported {
            self.coverage.rule(Rule::LostAcknowledged);
        }
    }

    /// What a version has put.
    pub fn value(&self, version: Version) -> Option<u64> {
        let (_, value) = self.mutations.get(&version)?;
        *value
    }

    /// How far the order of a generation is committed.
    pub fn committed(&self, generation: Epoch) -> u64 {
        let committed = self.committed.get(&generation);
        committed.map_or(0, |committed| committed.len() as u64)
    }
}

/// What all tables of a partition share.
pub type Shared = Rc<RefCell<Ledger>>;

/// See the head of the file.
pub struct Watched<S: Store> {
    /// The table.
    pub store: S,
    ledger: Shared,
    /// The order that this replica has, as the ledger names it: the version of seq 1 is the first.
    order: Vec<Version>,
    /// What the newest mutation of each key did.
    newest: BTreeMap<Key, Held>,
    state: State,
    /// As it was when somebody last looked.
    seen: (Epoch, Progress),
    /// Whose it is, in this start of it.
    pub me: Option<(NodeId, Incarnation)>,
    /// The key that somebody asks for.
    pub asked: Option<Key>,
    /// The term in which it has installed a copy.
    pub copied: Option<Epoch>,
    /// A copy that was asked for in this term has not come.
    pub pulls: Option<Epoch>,
    /// Parts of a copy are in the table, and count for nothing yet.
    is_filled: bool,
}

impl<S: Store> Watched<S> {
    /// An empty one.
    pub fn create(size: Size, ledger: Shared) -> Self {
        Self {
            store: S::create(size),
            ledger,
            order: Vec::new(),
            newest: BTreeMap::new(),
            state: State::default(),
            seen: (0, Progress::default()),
            me: None,
            asked: None,
            copied: None,
            pulls: None,
            is_filled: false,
        }
    }

    /// The state of the protocol, as it was written last.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What a key holds, for who asks for no more than that.
    pub fn read(&self, key: &[u8]) -> Told {
        let held = self.store.held(key);
        Told {
            version: held.map(|(version, _)| version),
            is_there: held.is_some_and(|(_, value)| value.is_some()),
            value: held.and_then(|(_, value)| value),
            is_changed: false,
        }
    }

    /// The newest of each key.
    pub fn newest(&self) -> &BTreeMap<Key, Held> {
        &self.newest
    }

    /// The process or the machine ends.
    pub fn crash(&mut self, is_machine: bool, random: &mut Random) -> Found {
        let found = self.store.crash(is_machine, random);
        self.state = found.state.clone();
        self.pulls = None;
        self.is_filled = false;
        self.seen = (found.state.generation, found.progress);
        self.retrace();
        found
    }

    /// Forgets some record.
    pub fn evict(&mut self, random: &mut Random) {
        if self.store.evict(random) {
            self.ledger.borrow_mut().coverage.rule(Rule::Dropped);
            self.check_all();
        }
    }

    /// The order follows from the history and how far it goes.
    fn retrace(&mut self) {
        let ledger = self.ledger.borrow();
        let committed = ledger.committed.get(&self.state.generation);
        let committed = committed.map_or(&[][..], |committed| committed);
        let last = self.store.progress().last.seq() as usize;
        let terms = self.state.history.terms();
        // Where the history does not go back that far all of it is committed.
        let known = terms.first().map_or(last, |&(_, first)| first as usize - 1);
        let old = committed.iter().take(known.min(last)).copied();
        let mut order: Vec<Version> = old.collect();
        for (place, &(term, first)) in terms.iter().enumerate() {
            let end = terms
                .get(place + 1)
                .map_or(last as u64, |&(_, next)| next - 1);
            order.extend((first..=end).map(|seq| Version::new(term, seq)));
        }
        assert_eq!(order.len(), last, "the history goes as far as the order");
        self.newest.clear();
        for version in &order {
            let Some((key, value)) = ledger.mutations.get(version) else {
                panic!("{version} was stamped by nobody");
            };
            self.newest.insert(key.clone(), (*version, *value));
        }
        self.order = order;
        drop(ledger);
        self.check_all();
        self.check_committed(0);
    }

    /// Invariant 1, for one key.
    fn check(&self, key: &[u8]) {
        let newest = self.newest.get(key).copied();
        if self.is_filled {
            assert_eq!(newest, None, "what is filled has no order yet");
            return;
        }
        let held = self.store.held(key);
        let horizon = self.store.progress().horizon;
        let is_right = match (newest, held) {
            // What was kept in a new generation may have been dropped in the one before.
            (Some((version, _)), None) => {
                version.seq() <= horizon || version.term() < self.state.generation
            }
            (newest, held) => newest == held,
        };
        assert!(
            is_right,
            "the newest of {:?} is {newest:?}, and it holds {held:?} with horizon {horizon}",
            String::from_utf8_lossy(key)
        );
    }

    fn check_all(&self) {
        for key in self.newest.keys() {
            self.check(key);
        }
        for key in self.store.all_keys() {
            self.check(&key);
        }
    }

    /// Invariant 3, from a seq on.
    fn check_committed(&self, from: u64) {
        let commit = self.store.progress().commit as usize;
        let mut ledger = self.ledger.borrow_mut();
        let ledger = &mut *ledger;
        let generation = self.state.generation;
        let committed = ledger.committed.entry(generation).or_default();
        let both = commit.min(committed.len());
        let from = (from as usize).min(both);
        assert_eq!(
            self.order[from..both],
            committed[from..both],
            "committed prefixes agree"
        );
        if commit > both {
            committed.extend(&self.order[both..commit]);
            let lost = &ledger.lost;
            let found = committed[both..]
                .iter()
                .find(|version| lost.contains(version));
            assert_eq!(found, None, "it was reported as lost, and survives");
            let terms = ledger.committed_in.entry(generation).or_default();
            let term = self.store.progress().last.term();
            terms.resize(commit, terms.last().copied().unwrap_or(0).max(term));
        }
    }

    /// Invariant 2, after each step; and what is above `commit` of this replica is in no other's way.
    pub fn look(&mut self) {
        let (generation, before) = self.seen;
        let now = self.store.progress();
        if generation == self.state.generation {
            assert!(
                now.last >= before.last
                    && now.commit >= before.commit
                    && now.horizon >= before.horizon,
                "{now:?} is not behind {before:?}"
            );
        }
        assert!(
            now.horizon <= now.commit && now.commit <= now.last.seq(),
            "{now:?} is in order"
        );
        self.seen = (self.state.generation, now);
    }

    fn note(&self, version: Version, key: &Key) -> Held {
        let held = self.store.held(key);
        let held = held.expect("what was written is there");
        assert_eq!(held.0, version, "it was written in its version");
        held
    }

    fn extend(&mut self, version: Version, keys: &[Key]) {
        let [key] = keys else {
            panic!("one key is written at a time");
        };
        let held = self.note(version, key);
        let did = (key.clone(), held.1);
        let mut ledger = self.ledger.borrow_mut();
        let known = ledger.mutations.entry(version);
        let known = known.or_insert_with(|| did.clone());
        assert_eq!(*known, did, "{version} is one mutation");
        drop(ledger);
        self.order.push(version);
        self.newest.insert(key.clone(), held);
        self.check(key);
    }

    fn count(&self, rule: Rule) {
        self.ledger.borrow_mut().coverage.rule(rule);
    }
}

impl<S: Store> Table<S::Kind> for Watched<S> {
    fn progress(&self) -> Progress {
        self.store.progress()
    }

    fn execute(
        &mut self,
        now_ms: u64,
        request: &RequestOf<'_, S>,
        wants_effects: bool,
    ) -> Ran<EffectsOf<S>, ReplyOf<S>> {
        let horizon = self.progress().horizon;
        let ran = self.store.execute(now_ms, request, wants_effects);
        match &ran {
            Ran::Changed(version, ..) => {
                assert_eq!(
                    version.term(),
                    self.state.adopted,
                    "a leader stamps in its term"
                );
                assert!(
                    !self.ledger.borrow().mutations.contains_key(version),
                    "{version} is stamped once"
                );
                let key = self.asked.take().expect("somebody has asked");
                self.extend(*version, &[key]);
            }
            Ran::NoRoom => self.count(Rule::NoRoomAtLeader),
            Ran::Saw(..) => {}
        }
        if self.progress().horizon > horizon {
            self.count(Rule::DroppedForRoom);
            self.check_all();
        }
        ran
    }

    fn keys(&self, effects: &EffectsOf<S>) -> Vec<Key> {
        self.store.keys(effects)
    }

    fn apply(&mut self, now_ms: u64, entry: &Entry<EffectsOf<S>>) -> Result<(), NoRoom> {
        let Progress { last, horizon, .. } = self.progress();
        // Invariant 7.
        assert_eq!(
            (entry.version.term(), entry.version.seq()),
            (last.term(), last.seq() + 1),
            "what is applied is next in the term in which it is aligned"
        );
        assert_eq!(
            last.term(),
            self.state.adopted,
            "what is applied is of the term that was adopted"
        );
        assert_eq!(
            self.pulls, None,
            "nothing is applied while a copy is staged"
        );
        let applied = self.store.apply(now_ms, entry);
        match applied {
            Ok(()) => self.extend(entry.version, &self.store.keys(&entry.effects)),
            Err(NoRoom) => self.count(Rule::NoRoomAtFollower),
        }
        if self.progress().horizon > horizon {
            self.count(Rule::DroppedForRoom);
            self.check_all();
        }
        applied
    }

    fn commit(&mut self, seq: u64) {
        let before = self.progress().commit;
        self.store.commit(seq);
        if seq > before {
            self.check_committed(before);
        }
    }

    fn log(&mut self, state: &State) {
        self.adopt(state);
        self.store.log(state);
    }

    fn align(&mut self, term: u32, state: &State) {
        self.adopt(state);
        self.store.align(term, state);
    }

    fn record(&self, key: &[u8]) -> Option<Record<ValueOf<S>>> {
        self.store.record(key)
    }

    fn scan(&self, place: u32, above: u64, each: &mut dyn FnMut(Record<ValueOf<S>>)) -> u32 {
        self.store.scan(place, above, each)
    }

    fn install(
        &mut self,
        replace: Replace,
        records: Vec<Record<ValueOf<S>>>,
        progress: Progress,
        state: &State,
    ) {
        self.count(match replace {
            Replace::All => Rule::CopiedAll,
            Replace::Above(_) => Rule::CopiedDifference,
        });
        self.adopt(state);
        self.pulls = None;
        self.copied = Some(state.adopted);
        self.store.install(replace, records, progress, state);
        self.retrace();
    }

    fn fill(&mut self, states: Vec<(Key, Option<Record<ValueOf<S>>>)>) {
        assert_eq!(self.progress().last.seq(), 0, "who has something keeps it");
        self.is_filled = true;
        self.store.fill(states);
    }

    fn complete(&mut self, progress: Progress, state: &State) {
        assert!(self.is_filled, "parts of a copy have come");
        self.is_filled = false;
        self.count(Rule::Filled);
        self.adopt(state);
        self.pulls = None;
        self.copied = Some(state.adopted);
        self.store.complete(progress, state);
        self.retrace();
    }

    fn empty(&mut self) {
        assert!(self.is_filled, "parts of a copy have come");
        self.is_filled = false;
        self.count(Rule::Emptied);
        self.store.empty();
        self.check_all();
    }

    fn keep(&mut self, state: &State) {
        self.count(Rule::SeedKept);
        let seed = self.ledger.borrow().seeds.get(&state.generation).copied();
        assert_eq!(seed, self.me, "only the seed of a reset keeps its table");
        self.adopt(state);
        self.store.keep(state);
        self.seen = (state.generation, self.progress());
    }

    fn wipe(&mut self, state: &State) {
        self.count(if state.generation > self.state.generation {
            Rule::WipedByReset
        } else {
            Rule::WipedAsRemoved
        });
        self.adopt(state);
        self.store.wipe(state);
        self.is_filled = false;
        self.order.clear();
        self.newest.clear();
        self.seen = (state.generation, Progress::default());
        self.check_all();
    }
}

impl<S: Store> Watched<S> {
    fn adopt(&mut self, state: &State) {
        assert!(
            state.adopted >= self.state.adopted && state.generation >= self.state.generation,
            "{state:?} is not behind {:?}",
            self.state
        );
        if state.adopted > self.state.adopted || state.generation > self.state.generation {
            self.pulls = None;
        }
        self.state = state.clone();
    }
}
