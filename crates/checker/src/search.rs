//! Whether the events of one key can be put into an order in which a register that may forget gives every answer. It is the
//! just-in-time search of Wing, Gong and Lowe, breadth first: it walks through calls and returns in order of time and carries
//! every *world*, a register with the events under way that are done in it, that can still be the true one; an event is placed
//! no sooner than somebody returns who needs it. So what is over is forgotten, and a quiet moment costs nothing: the worlds
//! there are the states that the register may be in. It knows nothing of other keys, and explains nothing.
//!
//! Forgetting makes it cheap. An event that is possible on an empty register (a write, a delete, a miss, a counter that came
//! to 1) can be placed wherever the register may be emptied, at the price of what is there. So between two such events, one
//! behind the other, any number of others can be placed that nobody ever sees: they need not be searched for. Three rules
//! follow, for what is called *loose* here: answered, possible on an empty register, and without a version.
//!
//! 1. A world notes when its register last was, or might have been, empty (`born`). What is loose and was asked before that
//!    counts as placed there if it returns, and can be placed later all the same.
//! 2. An event of unknown outcome is placed only if an answered event needs it. To leave it out is allowed, as it may never
//!    have been done; what came after it and does not look at what it made comes after a forgotten register as well. An
//!    increment is no exception: whoever shows a number needs each addition since the last restart from nothing, and
//!    only those are placed.
//! 3. A register is emptied only if what it holds was needed by an answered event. If not, leaving out what made it (rule 1 or
//!    2) leads to the same place with more choice.
//!
//! Two more keep the worlds few, and both need all of the history:
//!
//! 4. A world that loses a value which somebody must still find, and which nobody can make any more, is no true one. So of
//!    reads and writes at once few worlds are left; but a lie is found before it is told. When it was told is found by trying
//!    beginnings of the history ([`told_at`]).
//! 5. What nobody who is still to return can tell from other records is one record in all worlds, and none if nobody looks
//!    ([`Ops::reduced`]).

use crate::history::{Event, Operation, Outcome};
use crate::look::{Leaves, condition, named_by, needs};
use crate::op::{Moment, Ops};
use crate::reach::Reach;
use crate::register::{Record, Register};
use std::collections::{BTreeSet, HashMap, VecDeque};

/// How a search ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// There is such an order.
    Holds,
    /// There is none.
    Lies,
    /// The steps were spent first.
    Spent,
}

/// One way in which it may have been so far.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct World {
    register: Register,
    /// Those of the events under way that are placed, ascending.
    placed: Vec<u32>,
    /// The moment at which the register last could be empty; 0 while it is, as it means nothing then.
    born: u32,
}

impl World {
    fn has(&self, op: u32) -> bool {
        self.placed.binary_search(&op).is_ok()
    }

    fn place(&mut self, op: u32) {
        if let Err(at) = self.placed.binary_search(&op) {
            self.placed.insert(at, op);
        }
    }

    fn with(&self, op: u32, register: Register, born: u32) -> Self {
        let mut world = Self {
            register,
            placed: self.placed.clone(),
            born: if register.record.is_some() { born } else { 0 },
        };
        world.place(op);
        world
    }
}

/// A world from which events are placed.
struct Open {
    world: World,
    /// What the register holds was needed by an answered event.
    needed: bool,
}

/// A search under way.
pub(crate) struct Search<'a> {
    ops: Ops<'a>,
    moments: &'a [Moment],
    now: u32,
    /// Those under way, in order of their calls; the optional stay as long as they are of use.
    pending: Vec<u32>,
    worlds: Vec<World>,
    steps: u64,
    budget: u64,
}

impl<'a> Search<'a> {
    /// Of the events of one key that did not fail, in any order, and their moments or the first of these.
    pub(crate) fn new(events: &[&'a Event], moments: &'a [Moment], budget: u64) -> Self {
        Self {
            ops: Ops::new(events, moments),
            moments,
            now: 0,
            pending: Vec::new(),
            worlds: vec![World {
                register: Register::default(),
                placed: Vec::new(),
                born: 0,
            }],
            steps: 0,
            budget,
        }
    }

    /// Steps that were taken.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Moments that were gone through.
    pub(crate) fn moments(&self) -> usize {
        self.now as usize
    }

    /// To its end.
    pub(crate) fn run(&mut self) -> End {
        while let Some(&moment) = self.moments.get(self.moments()) {
            match moment {
                Moment::Call(place) => self.call(place as u32),
                Moment::Return(place) => self.answer(place as u32),
            }
            self.now += 1;
            if self.steps > self.budget {
                return End::Spent;
            }
            if self.worlds.is_empty() {
                return End::Lies;
            }
        }
        End::Holds
    }

    /// Somebody asks.
    fn call(&mut self, x: u32) {
        let op = &self.ops[x];
        if op.optional() {
            if op.of_use_until > self.now {
                self.pending.push(x);
            }
            return;
        }
        self.pending.push(x);
        let mut worlds = std::mem::take(&mut self.worlds);
        worlds.retain_mut(|world| {
            if self.is_free(world, x) {
                world.place(x);
            }
            !op.too_late(world.register.floor)
        });
        self.worlds = worlds;
    }

    /// Somebody is answered.
    fn answer(&mut self, x: u32) {
        let before = std::mem::take(&mut self.worlds);
        let mut next = Vec::new();
        let mut open = Vec::new();
        let op = &self.ops[x];
        self.steps += before.len() as u64;
        for world in before {
            if world.has(x) {
                next.push(world);
                continue;
            }
            if self.covers(&world, x) {
                let leaves = Leaves::of(op.event);
                let mut placed = world.clone();
                placed.place(x);
                let now = world.register.record.map(|record| record.value);
                let is_missed = match leaves {
                    Leaves::Value(value) if now != Some(value) => {
                        self.ops.is_missed(value, now, &placed.placed)
                    }
                    _ => false,
                };
                if !is_missed {
                    next.push(placed);
                }
                // What leaves nothing leads nowhere else but to an empty register, which that world can have as well.
                if leaves == Leaves::Nothing {
                    continue;
                }
            }
            open.push(world);
        }
        let mut steps = self.steps;
        self.explore(open, x, &mut next, &mut steps, None);
        self.steps = steps;
        self.pending.retain(|&p| p != x);
        self.ops.end(x);
        let alike = self.alike();
        for world in &mut next {
            world.placed.retain(|&p| p != x);
            exchange(world, &alike);
            self.settle(world);
        }
        self.worlds = self.thin(next);
        self.retire();
    }

    /// The optional events under way whose values nobody names any more, those together of which one is as good as another.
    fn alike(&self) -> Vec<Vec<u32>> {
        let mut groups: Vec<Vec<u32>> = Vec::new();
        for &p in self.pending.iter().filter(|&&p| self.is_nameless(p)) {
            match groups.iter_mut().find(|group| self.are_alike(group[0], p)) {
                Some(group) => group.push(p),
                None => groups.push(vec![p]),
            }
        }
        groups.retain(|group| group.len() > 1);
        groups
    }

    fn is_nameless(&self, p: u32) -> bool {
        let op = &self.ops[p];
        op.optional() && op.named_until < self.now
    }

    /// Of two that are nameless: whether they do their like in the same places. On an empty register, or in any case, is the
    /// same.
    fn are_alike(&self, p: u32, q: u32) -> bool {
        let (p, q) = (&self.ops[p], &self.ops[q]);
        p.follows == q.follows
            && (!p.follows || condition(p.event.operation) == condition(q.event.operation))
    }

    /// Optional events that nobody can need any more are forgotten: those of no use to anybody who is still to return, and those
    /// that are placed in every world.
    fn retire(&mut self) {
        let Some(first) = self.worlds.first() else {
            return;
        };
        let mut over: Vec<u32> = Vec::new();
        for &p in &self.pending {
            let op = &self.ops[p];
            if op.optional()
                && (op.of_use_until <= self.now
                    || (first.has(p) && self.worlds.iter().all(|world| world.has(p))))
            {
                over.push(p);
            }
        }
        if over.is_empty() {
            return;
        }
        self.pending.retain(|p| !over.contains(p));
        for world in &mut self.worlds {
            world.placed.retain(|p| !over.contains(p));
        }
        for p in over {
            self.ops.end(p);
        }
        let worlds = std::mem::take(&mut self.worlds);
        self.worlds = self.thin(worlds);
    }

    /// Without the worlds from which nothing can be reached that another one does not reach as well.
    fn thin(&mut self, mut worlds: Vec<World>) -> Vec<World> {
        if worlds.len() < 2 {
            return worlds;
        }
        worlds.sort_unstable_by(|a, b| {
            let full = |world: &World| (world.register.record.is_none(), world.placed.len());
            (full(a), a).cmp(&(full(b), b))
        });
        worlds.dedup();
        let mut kept: Vec<World> = Vec::with_capacity(worlds.len());
        for world in worlds {
            self.steps += kept.len() as u64 / 16;
            if !kept.iter().any(|other| self.outdoes(other, &world)) {
                kept.retain(|other| !self.outdoes(&world, other));
                kept.push(world);
            }
        }
        kept
    }

    /// Whether what is loose counts as placed in a world if it returns.
    fn covers(&self, world: &World, p: u32) -> bool {
        let op = &self.ops[p];
        op.loose && (world.register.record.is_none() || op.called < world.born)
    }

    /// Whether all that one world can come to, the other can. An empty register can be had from any; what is optional or
    /// covered need not be placed.
    fn outdoes(&self, world: &World, other: &World) -> bool {
        let register = other.register.record.is_none()
            || (world.register == other.register && world.born >= other.born);
        if !register
            || world.register.floor != other.register.floor
            || world.placed.len() > other.placed.len()
        {
            return false;
        }
        let mut placed = world.placed.iter().peekable();
        for &p in &other.placed {
            if placed.peek() == Some(&&p) {
                placed.next();
            } else if !(self.ops[p].optional() || self.covers(world, p)) {
                return false;
            }
        }
        placed.next().is_none()
    }

    /// All worlds in which this one is placed, and before it only what it, or others before it, had need of.
    fn explore(
        &self,
        worlds: Vec<World>,
        x: u32,
        out: &mut Vec<World>,
        steps: &mut u64,
        mut seen: Option<&mut BTreeSet<Record>>,
    ) {
        // Those with fewer placed come first, so that they are known when one is found that they outdo.
        let mut open: VecDeque<Open> = VecDeque::new();
        let mut known: HashMap<Register, Vec<(World, bool)>> = HashMap::new();
        for world in worlds {
            let needed = true;
            known
                .entry(world.register)
                .or_default()
                .push((world.clone(), needed));
            open.push_back(Open { world, needed });
        }
        let mut found = Vec::new();
        while let Some(Open { world, needed }) = open.pop_front() {
            *steps += 1;
            if *steps > self.budget {
                return;
            }
            if let (Some(seen), Some(record)) = (&mut seen, world.register.record) {
                seen.insert(record);
            }
            self.moves(&world, needed, x, &mut found);
            for (p, mut next) in found.drain(..) {
                let Some(looked) = self.settle(&mut next) else {
                    continue;
                };
                if next.has(x) {
                    out.push(next);
                    continue;
                }
                let op = &self.ops[p];
                let needed = looked || !(op.loose || op.optional());
                let like = known.entry(next.register).or_default();
                let is_known = like
                    .iter()
                    .any(|(world, had)| *had >= needed && self.outdoes(world, &next));
                if !is_known {
                    like.push((next.clone(), needed));
                    open.push_back(Open {
                        world: next,
                        needed,
                    });
                }
            }
        }
    }

    /// The worlds that one more event leads to.
    fn moves(&self, world: &World, needed: bool, x: u32, found: &mut Vec<(u32, World)>) {
        let register = world.register;
        let empty = register.emptied();
        let followers: Vec<u32> = {
            let pending = self.pending.iter().copied();
            pending
                .filter(|&p| self.ops[p].follows && !world.has(p))
                .collect()
        };
        for &p in &self.pending {
            let op = &self.ops[p];
            // Whether what is made may be made for nobody.
            let idle = op.optional() || op.loose;
            if world.has(p) || (p != x && idle && followers.is_empty()) {
                continue;
            }
            let is_idle = |next| p != x && idle && !self.is_of_use(&followers, p, next);
            let on_empty = empty.after(op.event);
            if register.record.is_some()
                && let Some(next) = register.after(op.event)
                && Some(next) != on_empty
                && (next != register || p == x || !(op.looks || op.optional()))
                && !is_idle(next)
                && !self.has_better(world, p, x, register, next)
            {
                found.push((p, world.with(p, next, world.born)));
            }
            // Behind another event that is possible on an empty register, what nobody sees is covered by rule 1, unless
            // it has a version: then it has to have its place.
            if let Some(next) = on_empty.filter(|_| needed || register.record.is_none())
                && !is_idle(next)
                && !self.has_better(world, p, x, empty, next)
            {
                found.push((p, world.with(p, next, self.now)));
            }
        }
        let value = |register: Register| register.record.map(|record| record.value);
        if let Some(lost) = value(register) {
            found.retain(|(_, next)| {
                let now = value(next.register);
                now == Some(lost) || !self.ops.is_missed(lost, now, &next.placed)
            });
        }
    }

    /// Places what can be placed at no price. Whether anybody has needed what is there; none if somebody under way has no place
    /// any more. Of all records that are the same to everybody there is one, and of all moments at which the register may have
    /// been empty and which cover the same the first is noted, so that worlds are equal where it makes no difference.
    fn settle(&self, world: &mut World) -> Option<bool> {
        if let Some(record) = world.register.record {
            world.register.record = self.ops.reduced(record, &world.placed);
        }
        let mut needed = false;
        let mut born = 0;
        for &p in &self.pending {
            let op = &self.ops[p];
            if op.optional() || world.has(p) {
                continue;
            }
            if op.loose && op.called < world.born {
                born = born.max(op.called + 1);
            }
            if self.is_free(world, p) {
                world.place(p);
                needed |= !op.loose;
            } else if op.too_late(world.register.floor) {
                return None;
            }
        }
        world.born = born;
        Some(needed)
    }

    /// Whether to place this answered event costs nothing: it only looks, and sees what is there; or it needs anything to be
    /// there, finds a record that stands for all which nobody names, and leaves another such, of a value of its own. Where it
    /// would have been placed later stays what was there, which is good for all that this value would have been good for.
    /// (What is added to a value is another thing: it may make one that is named of one that is not.)
    fn is_free(&self, world: &World, p: u32) -> bool {
        let op = &self.ops[p];
        let Some(after) = world.register.after(op.event) else {
            return false;
        };
        if op.looks {
            return after == world.register;
        }
        let nameless = self.ops.nameless;
        self.ops.plain
            && !op.loose
            && op.leaves.is_some()
            && world
                .register
                .record
                .is_some_and(|record| Some(record.value) == nameless)
            && after.record.is_some_and(|record| {
                self.ops.reduced(record, &world.placed) == world.register.record
            })
    }

    /// Whether another one is to be placed here in place of this one.
    fn has_better(&self, world: &World, p: u32, x: u32, from: Register, to: Register) -> bool {
        p != x && (self.is_shadowed(world, p) || self.is_doubled(world, p, from, to))
    }

    /// Whether another event would do the same and has less time, or knows less: then that one is tried.
    fn is_shadowed(&self, world: &World, p: u32) -> bool {
        let op = &self.ops[p];
        let nameless = self.is_nameless(p);
        if op.twins.is_none() && !nameless {
            return false;
        }
        self.pending.iter().any(|&q| {
            let other = &self.ops[q];
            let alike = (op.twins.is_some() && other.twins == op.twins)
                || (nameless && self.is_nameless(q) && self.are_alike(p, q));
            alike && (other.returned, q) < (op.returned, p) && !world.has(q)
        })
    }

    /// Whether an answered event under way would do the same here as this unknown one. It has to be placed some time, which
    /// the unknown one has not: so it goes first, and the unknown one can take its place later.
    fn is_doubled(&self, world: &World, p: u32, from: Register, to: Register) -> bool {
        let op = &self.ops[p];
        op.doubles.is_some()
            && op.event.outcome == Outcome::Unknown
            && self.pending.iter().any(|&q| {
                let other = &self.ops[q];
                other.doubles == op.doubles
                    && !other.optional()
                    && !world.has(q)
                    && from.after(other.event) == Some(to)
            })
    }

    /// Whether one of these, other than the one that made it, could make use of what is there, for somebody who was answered.
    fn is_of_use(&self, followers: &[u32], p: u32, register: Register) -> bool {
        let Some(record) = register.record else {
            return false;
        };
        let others = || {
            followers
                .iter()
                .map(|&q| (q, &self.ops[q]))
                .filter(|&(q, _)| q != p)
        };
        // What others who may be left out can make of it: how far it can be moved, and what can be put in its place. That
        // each does so once is not looked at: it may be of no use after all.
        let mut reach = Reach::default();
        let mut made = vec![record.value];
        for (_, op) in others() {
            if !op.optional() && register.after(op.event).is_some() {
                return true;
            }
            if let (true, Operation::Increment { by }) = (op.optional(), op.event.operation) {
                reach.add(by);
            }
        }
        let may_be = |made: &[i64], value: Option<i64>| {
            value.is_none_or(|to| made.iter().any(|&from| reach.has(from, to)))
        };
        let mut acting: Vec<u32> = Vec::new();
        loop {
            let count = acting.len();
            for (q, op) in others().filter(|(_, op)| op.optional()) {
                if let Leaves::Value(value) = Leaves::of(op.event)
                    && !acting.contains(&q)
                    && may_be(&made, named_by(op.event))
                {
                    acting.push(q);
                    made.push(value);
                }
            }
            if acting.len() == count {
                break;
            }
        }
        (!acting.is_empty() || reach != Reach::default())
            && others().any(|(_, op)| !op.optional() && may_be(&made, needs(op.event)))
    }
}

/// Of those that are alike as many are placed as were, and these are the first.
fn exchange(world: &mut World, alike: &[Vec<u32>]) {
    for group in alike {
        let count = group.iter().filter(|&&p| world.has(p)).count();
        if count > 0 {
            world.placed.retain(|p| !group.contains(p));
            world.placed.extend(&group[..count]);
            world.placed.sort_unstable();
        }
    }
}

/// How many moments, from the first, make these events a lie: the last of them is where it is told. A beginning is searched as
/// if nothing came after it, so that no look ahead tells of a lie before that. From where all events leave no world it goes on
/// in doubled strides, as what is missed is mostly missed soon. If the steps that each search has do not suffice it is where all
/// events leave no world, which is no later.
pub(crate) fn told_at(events: &[&Event], moments: &[Moment], budget: u64) -> usize {
    let search = |count: usize| {
        let mut search = Search::new(events, &moments[..count], budget);
        (search.run(), search.moments())
    };
    let (_, stuck) = search(moments.len());
    // What is before `low` holds; all up to `high` is a lie.
    let (mut low, mut high) = (stuck, moments.len());
    let mut stride = 1;
    while low < high {
        let middle = (low + stride - 1).min(low.midpoint(high));
        match search(middle).0 {
            End::Lies => (high, stride) = (middle, high),
            End::Holds => (low, stride) = (middle + 1, stride.saturating_mul(2)),
            End::Spent => return stuck,
        }
    }
    high
}

/// What the register can have held, beside nothing, when the last of these moments, a return, found no place for its event.
pub(crate) fn held_before(events: &[&Event], moments: &[Moment], budget: u64) -> BTreeSet<Record> {
    let mut seen = BTreeSet::new();
    let Some((&Moment::Return(x), before)) = moments.split_last() else {
        return seen;
    };
    let mut search = Search::new(events, before, budget);
    // Here it is asked what was there, and not what is as good.
    search.ops.nameless = None;
    search.run();
    let x = x as u32;
    search.ops.all[x as usize].returned = search.now;
    if !search.pending.contains(&x) {
        search.pending.push(x);
    }
    let worlds = std::mem::take(&mut search.worlds);
    search.explore(worlds, x, &mut Vec::new(), &mut 0, Some(&mut seen));
    seen
}
