//! Stories that chance tells: the same steps of which the others are made, each until nothing happens any more. So most of what
//! it tells has a meaning, and a few steps are a story that lies where one does.

use super::*;
use crate::planted::Look;
use henge_cluster::testing::random::Random;
use henge_cluster::topology::State;

/// Steps of a story.
const STEPS: usize = 80;

/// Keys of a story. Few, so that what is forgotten and what is written meet.
const KEYS: [&str; 4] = ["a", "k", "m", "n"];

const KINDS: [Kind; 9] = [
    Kind::Fence,
    Kind::Fenced,
    Kind::Open,
    Kind::Aligned,
    Kind::Pull,
    Kind::Next,
    Kind::Part,
    Kind::Append,
    Kind::Ack,
];

/// What may happen.
#[derive(Clone, Copy, Debug)]
enum Step {
    Set,
    Delete,
    Add,
    Get,
    Evict,
    Tick,
    Cut,
    Blind,
    Block,
    Hold,
    LetThrough,
    Repeat,
    Lose,
    Mend,
    Lead,
    Report,
    Crash,
    Start,
    StopDisk,
    Change,
}

/// With how often each is told, of about a hundred.
const WEIGHTS: [(Step, usize); 20] = [
    (Step::Set, 14),
    (Step::Delete, 4),
    (Step::Add, 2),
    (Step::Get, 12),
    (Step::Evict, 8),
    (Step::Tick, 10),
    (Step::Cut, 4),
    (Step::Blind, 3),
    (Step::Block, 3),
    (Step::Hold, 6),
    (Step::LetThrough, 5),
    (Step::Repeat, 3),
    (Step::Lose, 3),
    (Step::Mend, 6),
    (Step::Lead, 8),
    (Step::Report, 5),
    (Step::Crash, 3),
    (Step::Start, 5),
    (Step::StopDisk, 2),
    (Step::Change, 2),
];

struct Teller {
    story: Story,
    random: Random,
    next_value: u64,
    told: Vec<String>,
    led: Name,
    led_before: Name,
}

impl Teller {
    fn new(seed: u64, bugs: Bugs) -> Self {
        let mut random = Random::new(seed, 8);
        let replicas = if random.one_in(4) { 5 } else { 3 };
        let spares = random.place(2);
        Self {
            story: Story::new(bugs, replicas, spares),
            random,
            next_value: 0,
            told: Vec::new(),
            led: A,
            led_before: B,
        }
    }

    fn name(&mut self) -> Name {
        self.random.place(self.story.names.len())
    }

    fn key(&mut self) -> &'static str {
        KEYS[self.random.place(KEYS.len())]
    }

    /// Mostly one that leads, or takes itself for the leader: most of what goes wrong does there.
    fn server(&mut self) -> Name {
        let leader = self.story.world.placement().leader;
        let place = |(id, _)| self.story.names.iter().position(|other| *other == id);
        match (leader.and_then(place), self.random.place(4)) {
            (Some(leader), 0 | 1) => {
                if leader != self.led {
                    self.led_before = std::mem::replace(&mut self.led, leader);
                }
                leader
            }
            (_, 2) => self.led_before,
            _ => self.name(),
        }
    }

    fn ask(&mut self, at: Name, request: &Request) {
        if self.story.world.runs(self.story.id(at)) {
            let all = self.random.one_in(8);
            let level = if all { Level::All } else { Level::Quorum };
            let seen = self.story.ask_at(at, level, request.clone());
            self.told
                .push(format!("{at} {level:?} {request:?}: {seen:?}"));
        }
    }

    /// Tells one more step.
    fn step(&mut self) {
        let step = self.random.weighted(&WEIGHTS);
        let leads = self.server();
        let (a, b, key) = (leads, self.name(), self.key());
        let (a, b) = if self.random.one_in(2) {
            (a, b)
        } else {
            (b, a)
        };
        let kind = *self.random.of(&KINDS);
        let runs = self.story.world.runs(self.story.id(a));
        self.next_value += 1;
        let value = self.next_value;
        let story = &mut self.story;
        match step {
            Step::Set | Step::Delete | Step::Add | Step::Get => {
                let at = self.server();
                let request = match step {
                    Step::Set => Request::Set(key.into(), value),
                    Step::Delete => Request::Delete(key.into()),
                    Step::Add => Request::Add(key.into(), value),
                    _ => Request::Get(key.into()),
                };
                self.ask(at, &request);
                return;
            }
            Step::Evict => story.evict(a, key),
            Step::Tick => story.tick(),
            Step::Cut => story.cut(a),
            Step::Blind => story.blind(a),
            Step::Block => story.block(a, b),
            Step::Hold => story.hold(a, b, kind),
            Step::LetThrough => {
                let held = story.world.network.len();
                if held > 0 {
                    let flight = &story.world.network[self.random.place(held)];
                    let (from, to) = (flight.from.0, flight.to.0);
                    let kind = super::kind(&flight.message);
                    let name = |id| story.names.iter().position(|other| *other == id);
                    if let (Some(from), Some(to)) = (name(from), name(to)) {
                        story.let_through(from, to, kind);
                    }
                }
            }
            Step::Repeat => {
                let way = (story.id(a), story.id(b), kind);
                if story.sent.contains_key(&way) {
                    story.repeat(a, b, kind);
                }
            }
            Step::Lose => story.lose(),
            Step::Mend => story.mend(),
            Step::Lead => {
                story.try_to_lead(a);
            }
            Step::Report => story.report(),
            Step::Crash if runs => story.crash(a),
            Step::Start if !runs => {
                if self.random.one_in(3) {
                    story.start_empty(a);
                } else {
                    story.start(a);
                }
            }
            Step::StopDisk => story.stop_disk(a),
            Step::Crash | Step::Start => return,
            Step::Change => self.change(),
        }
        self.told.push(format!("{step:?} {a} {b} {key} {kind:?}"));
    }

    fn change(&mut self) {
        let change = self.story.world.placement().change.clone();
        match change {
            Some(change) if change.has_opened => self.story.finish(),
            Some(change) if !change.is_joint => {
                // It may be refused: of those who are to come too few may remember.
                let _ = self.story.world.command(&Command::Join(vec![partition()]));
                self.story.settle();
            }
            Some(_) => {}
            None => {
                // One leaves, one that has left comes back.
                let leaves = self.name();
                let id = self.story.id(leaves);
                let nodes = self.story.world.topology.nodes();
                let staying = nodes.values().filter(|node| !node.is_leaving).count();
                let is_up = nodes[&id].state == State::Up;
                if staying > 3 && is_up {
                    let _ = self.story.world.command(&Command::Leave(id));
                }
                let _ = self.story.world.command(&Command::Rebalance);
                self.story.settle();
            }
        }
    }

    /// All is well again, and each replica is asked in turn.
    fn end(&mut self) {
        self.story.lose();
        self.story.unkept.clear();
        for name in 0..self.story.names.len() {
            if !self.story.world.runs(self.story.id(name)) {
                self.story.start(name);
            }
        }
        self.story.mend();
        for name in 0..self.story.names.len() {
            self.story.tick();
            self.story.tick();
            self.told.push(format!("lead {name}"));
            if self.story.try_to_lead(name) {
                self.story.tick();
                for key in KEYS {
                    self.ask(name, &Request::Get(key.into()));
                }
            }
        }
    }
}

/// Tells the story of a seed, and says what is wrong with it.
pub(crate) fn tell(seed: u64, bugs: Bugs, look: Look) -> Option<String> {
    let mut teller = Teller::new(seed, bugs);
    let counts = |lie: &Lie| look == Look::All || matches!(lie, Lie::Answer(_));
    for _ in 0..STEPS {
        teller.step();
        if teller.story.world.lies.iter().any(counts) {
            break;
        }
    }
    if !teller.story.world.lies.iter().any(counts) {
        teller.end();
    }
    let lie = teller.story.world.lies.iter().find(|lie| counts(lie))?;
    Some(format!("{lie}\n  {}", teller.told.join("\n  ")))
}
