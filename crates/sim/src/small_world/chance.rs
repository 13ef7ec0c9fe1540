//! A small world in which chance says what is next. How often each thing happens is drawn from the seed as well: one seed has
//! many evictions and no crash, another the reverse, so that the rare meets the rare.

use super::{Flight, Lie, Node, World, partition};
use crate::planted::Look;
use henge_cluster::bugs::Bugs;
use henge_cluster::replica::{Answer, Input, Key, Level, Progress};
use henge_cluster::ring::NodeId;
use henge_cluster::testing::map::{Durable, Request};
use henge_cluster::testing::random::Random;
use henge_cluster::topology::Command;
use henge_wire::Version;

/// What may be next.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Event {
    Deliver,
    Ask,
    Keep,
    See,
    Tick,
    Report,
    Change,
    Return,
    // Faults.
    Lose,
    Evict,
    Crash,
    Start,
    Down,
    Cut,
    Blind,
    Mend,
    Leave,
    Remove,
    Flush,
    Fill,
}

/// How often each is in a thousand, or thereabouts: in the calm, and at the most with faults.
const EVENTS: [(Event, usize, usize); 20] = [
    (Event::Deliver, 450, 450),
    (Event::Ask, 150, 50),
    (Event::Keep, 200, 200),
    (Event::See, 100, 100),
    (Event::Tick, 40, 40),
    (Event::Report, 60, 60),
    (Event::Change, 6, 20),
    (Event::Return, 0, 20),
    (Event::Lose, 0, 20),
    (Event::Evict, 0, 160),
    (Event::Crash, 0, 10),
    (Event::Start, 0, 30),
    (Event::Down, 0, 16),
    (Event::Cut, 0, 16),
    (Event::Blind, 0, 16),
    (Event::Mend, 0, 12),
    (Event::Leave, 0, 8),
    (Event::Remove, 0, 60),
    (Event::Flush, 0, 2),
    (Event::Fill, 0, 8),
];

/// Steps of a seed before all is mended.
const STEPS: usize = 2_000;

/// Rounds of all nodes, messages and reports until all are at rest.
const REST: usize = 80;

/// See the head of the file.
struct Chance {
    world: World,
    random: Random,
    events: Vec<(Event, usize)>,
    /// Nothing goes from and to these for a while.
    away: Vec<NodeId>,
    /// These hear nothing of the topology for a while.
    blind: Vec<NodeId>,
    /// One in so many starts is without memory.
    empty: u64,
    /// One in so many messages is delivered before others, or twice.
    early: u64,
    twice: u64,
    keys: Vec<Key>,
    next_value: u64,
    shown: usize,
}

impl Chance {
    fn new(seed: u64, bugs: Bugs) -> Self {
        let mut random = Random::new(seed, 7);
        let count = random.within(3, 5);
        let replication = *random.of(&[1, 2, 3, 3, 3]);
        let replication = if count == 5 && random.one_in(4) {
            5
        } else {
            replication
        };
        let draw = |(event, calm, most): (Event, usize, usize)| {
            // Not at all, a little, or as much as may be.
            let part = *random.of(&[0, 1, 4]);
            (event, (calm * (4 - part) + most * part) / 4)
        };
        let events = EVENTS.map(draw).to_vec();
        let keys = (0..2 + random.place(4) as u8).map(|n| vec![b'a' + n]);
        let keys = keys.collect();
        Self {
            // Mostly of several parts, so that things happen in between.
            world: World::new(count, replication, *random.of(&[1, 1, 2, 256]), bugs),
            events,
            away: Vec::new(),
            blind: Vec::new(),
            empty: *random.of(&[1, 3, 9]),
            early: *random.of(&[2, 4, 16]),
            twice: *random.of(&[8, 32, 1_000]),
            keys,
            next_value: 0,
            shown: 0,
            random,
        }
    }

    fn pick(&mut self) -> NodeId {
        NodeId(self.random.within(1, self.world.nodes.len() as u64))
    }

    fn pick_key(&mut self) -> Key {
        self.keys[self.random.place(self.keys.len())].clone()
    }

    fn incarnation(&self, id: NodeId) -> u64 {
        self.world.topology.nodes()[&id].incarnation
    }

    /// One thing happens.
    fn step(&mut self) {
        match self.random.weighted(&self.events) {
            Event::Deliver => self.deliver(),
            Event::Ask => self.ask(),
            Event::Keep => self.keep(),
            Event::See => self.see(),
            Event::Tick => {
                let id = self.pick();
                self.world.give(id, Input::Tick);
            }
            Event::Report => {
                if !self.world.reports.is_empty() {
                    let place = self.random.place(self.world.reports.len());
                    self.world.report(place);
                }
            }
            Event::Change => self.change(),
            Event::Return => {
                let id = self.pick();
                let incarnation = self.incarnation(id);
                let node = &self.world.nodes[&id];
                let term = self.world.placement().term;
                let is_aligned = node.map.now.progress.last.term() == term;
                // Who says so is believed, and may have said it of another term.
                let _ = if node.replica.is_some() && (is_aligned || self.random.one_in(8)) {
                    self.world.command(&Command::Up(id, incarnation))
                } else {
                    self.world.command(&Command::Back(id, incarnation))
                };
                // It may be before the other one rests.
                if !self.random.one_in(4) {
                    self.hand_over();
                }
            }
            Event::Lose => {
                if !self.world.network.is_empty() {
                    let lost = self.random.place(self.world.network.len());
                    self.world.network.remove(lost);
                }
            }
            Event::Evict => {
                let (id, key) = (self.pick(), self.pick_key());
                self.world.evict(id, &key);
            }
            Event::Crash => {
                let id = self.pick();
                if self.world.runs(id) {
                    self.crash(id);
                }
            }
            Event::Start => {
                let id = self.pick();
                if !self.world.runs(id) {
                    self.start(id);
                }
            }
            // Rightly or not.
            Event::Down => {
                let id = self.pick();
                let incarnation = self.incarnation(id);
                let _ = self.world.command(&Command::Down(id, incarnation));
            }
            Event::Cut => {
                let id = self.pick();
                self.away.push(id);
                self.blind.push(id);
            }
            Event::Blind => {
                let id = self.pick();
                self.blind.push(id);
            }
            Event::Mend => {
                self.away.clear();
                self.blind.clear();
            }
            Event::Leave => self.leave(),
            Event::Remove => self.remove(),
            Event::Flush => self.world.flush(),
            Event::Fill => {
                let id = self.pick();
                let is_tight = &mut self.world.map(id).is_tight;
                *is_tight = !*is_tight;
            }
        }
    }

    fn deliver(&mut self) {
        let network = &self.world.network;
        let is_free = |flight: &Flight| {
            !self.away.contains(&flight.from.0) && !self.away.contains(&flight.to.0)
        };
        let free = network.iter().enumerate().filter(|(_, f)| is_free(f));
        let free: Vec<usize> = free.map(|(place, _)| place).collect();
        if free.is_empty() {
            return;
        }
        let place = if self.early > 0 && self.random.one_in(self.early) {
            free[self.random.place(free.len())]
        } else {
            free[0]
        };
        let flight = if self.twice > 0 && self.random.one_in(self.twice) {
            self.world.network[place].clone()
        } else {
            self.world.network.remove(place)
        };
        self.world.deliver(flight);
    }

    fn ask(&mut self) {
        // Mostly of who leads, as far as that is known.
        let leader = self.world.placement().leader;
        let id = match leader {
            Some((leader, _)) if !self.random.one_in(3) => leader,
            _ => self.pick(),
        };
        if !self.world.runs(id) {
            return;
        }
        self.next_value += 1;
        let (key, value) = (self.pick_key(), self.next_value);
        let request = match self.random.below(6) {
            0 | 1 => Request::Get(key),
            2 => Request::Set(key, value),
            3 => Request::Delete(key),
            4 => Request::Add(key, value),
            _ => Request::Increment(key),
        };
        let level = if self.random.one_in(4) {
            Level::All
        } else {
            Level::Quorum
        };
        if self.world.is_alone(id) && self.random.one_in(2) {
            self.world.ask_past(id, level, &request);
        } else {
            self.world.ask(id, level, request);
        }
    }

    fn keep(&mut self) {
        let id = self.pick();
        let had_begun = !self.random.one_in(2);
        if !had_begun {
            self.world.keep(id);
        }
        self.world.begin_to_keep(id);
        if had_begun {
            self.world.keep(id);
        }
    }

    /// A node hears of a later state of the topology.
    fn see(&mut self) {
        let id = self.pick();
        let newest = self.world.newest();
        let &Node { epoch, .. } = &self.world.nodes[&id];
        if epoch < newest && self.world.runs(id) && !self.blind.contains(&id) {
            let ahead = self.random.within(1, u64::from(newest - epoch)) as u32;
            let seen = *self.random.of(&[newest, epoch + ahead]);
            self.world.see(id, seen);
        }
    }

    /// What proposes changes does something.
    fn change(&mut self) {
        let all = vec![partition()];
        let change = self.world.placement().change.clone();
        let _ = match change {
            Some(change) if change.has_opened => self.world.command(&Command::Finish(all)),
            Some(change) if !change.is_joint => self.world.command(&Command::Join(all)),
            _ => self.world.command(&Command::Rebalance),
        };
    }

    /// Who has come leads what it is to lead.
    fn hand_over(&mut self) {
        let heirs = self.world.topology.heirs();
        if !heirs.is_empty() {
            let lead = Command::Lead(heirs);
            self.world.command(&lead).expect("it may");
        }
    }

    fn leave(&mut self) {
        let nodes = self.world.topology.nodes().values();
        let leaving = nodes.filter(|node| node.is_leaving).count();
        // Three stay.
        if leaving + 3 < self.world.nodes.len() {
            let id = self.pick();
            let _ = self.world.command(&Command::Leave(id));
        }
    }

    /// One that has left and holds nothing is no member any more, and joins again.
    fn remove(&mut self) {
        let id = self.pick();
        let may = self.world.topology.nodes()[&id].is_leaving;
        if may && !self.world.placement().names(id) {
            if self.world.runs(id) {
                self.crash(id);
            }
            let removed = self.world.command(&Command::Remove(id));
            removed.expect("it holds nothing");
            self.start(id);
        }
    }

    fn crash(&mut self, id: NodeId) {
        let kept = self.random.place(self.world.unkept(id) + 1);
        self.world.crash(id, kept);
    }

    fn start(&mut self, id: NodeId) {
        let has_lost_memory = self.random.one_in(self.empty);
        self.world.start(id, has_lost_memory);
    }

    /// Nothing fails any more, and all come to an end.
    fn heal(&mut self) -> bool {
        self.events = EVENTS.map(|(event, calm, _)| (event, calm)).to_vec();
        (self.early, self.twice) = (0, 0);
        self.away.clear();
        self.blind.clear();
        for id in self.world.nodes.keys().copied().collect::<Vec<_>>() {
            self.world.map(id).is_tight = false;
            if !self.world.runs(id) {
                self.world.start(id, false);
            }
        }
        for id in self.world.nodes.keys().copied().collect::<Vec<_>>() {
            let back = Command::Back(id, self.incarnation(id));
            let _ = self.world.command(&back);
        }
        let before = self.shown();
        for _ in 0..6_000 {
            self.step();
            self.hand_over();
            if self.shown() > before + 5 {
                return true;
            }
        }
        false
    }

    /// Nothing happens any more: replicas have what their leader has, and others nothing. An error says who has not.
    fn rest(&mut self) -> Result<(), String> {
        let ids: Vec<NodeId> = self.world.nodes.keys().copied().collect();
        for _ in 0..REST {
            for &id in &ids {
                let newest = self.world.newest();
                if self.world.nodes[&id].epoch < newest {
                    self.world.see(id, newest);
                }
                self.world.give(id, Input::Tick);
                // What was on its way, and the rest.
                self.world.keep(id);
                self.world.begin_to_keep(id);
                self.world.keep(id);
            }
            while !self.world.network.is_empty() {
                let flight = self.world.network.remove(0);
                self.world.deliver(flight);
            }
            while !self.world.reports.is_empty() {
                self.world.report(0);
            }
        }
        let placement = self.world.placement();
        let Some((leader, _)) = placement.leader else {
            return Err(format!("nobody leads: {placement:?}"));
        };
        let led = &self.world.nodes[&leader].map.now;
        let Progress { last, commit, .. } = led.progress;
        if last != Version::new(placement.term, commit) {
            return Err(format!("{leader} rests at {:?}", led.progress));
        }
        for (id, node) in &self.world.nodes {
            let now = &node.map.now;
            let is_same = |key: &Key| {
                let (own, other) = (now.records.get(key), led.records.get(key));
                let has_dropped = |by: &Durable, of: Option<&(Version, _)>| {
                    of.is_none_or(|(version, _)| version.seq() <= by.progress.horizon)
                };
                own == other
                    || own.is_none() && has_dropped(now, other)
                    || other.is_none() && has_dropped(led, own)
            };
            let is_well = if placement.names(*id) {
                now.progress.last == last && self.keys.iter().all(is_same)
            } else {
                now.progress == Progress::default() && now.records.is_empty()
            };
            if !is_well {
                return Err(format!(
                    "{id} rests with {now:?}, and {leader} with {led:?}"
                ));
            }
        }
        Ok(())
    }

    /// How many answers show something.
    fn shown(&mut self) -> usize {
        // Only what came since the last look.
        for (_, answer) in std::mem::take(&mut self.world.answers) {
            self.shown += usize::from(matches!(answer, Answer::Reply((Some(_), _))));
        }
        self.shown
    }
}

/// Runs a seed, and says what is wrong with it.
pub(crate) fn run(seed: u64, bugs: Bugs, look: Look) -> Option<String> {
    let mut chance = Chance::new(seed, bugs);
    let counts = |lie: &Lie| look == Look::All || matches!(lie, Lie::Answer(_));
    for _ in 0..STEPS {
        chance.step();
        if chance.world.lies.iter().any(counts) {
            break;
        }
    }
    let is_dead = !chance.world.lies.iter().any(counts) && !chance.heal();
    let is_well = !is_dead && !chance.world.lies.iter().any(counts);
    let restless = (is_well && look == Look::All).then(|| chance.rest().err());
    let lie = chance.world.lies.iter().find(|lie| counts(lie));
    let dead = || is_dead.then(|| format!("nothing is answered: {:?}", chance.world.placement()));
    lie.map(Lie::to_string).or_else(dead).or(restless.flatten())
}
