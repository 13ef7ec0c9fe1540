//! S3-FIFO, SIEVE and W-TinyLFU against models that keep keys in plain vectors and say in a few lines what the papers do.
//! Keys come back, so that ghosts and frequencies matter.

use super::super::ghost::Ghosts;
use super::super::sketch::{Sketch, USE};
use super::super::wtinylfu::MOST_WINS;
use super::*;
use std::collections::BTreeMap;

/// What an order does, by keys.
trait Model {
    fn insert(&mut self, key: u16);
    fn touch(&mut self, key: u16);
    /// A record left that was not evicted.
    fn remove(&mut self, key: u16);
    /// Chooses a victim, and removes it.
    fn evict(&mut self, may_drop: &dyn Fn(u16) -> bool) -> Option<u16>;
    /// Keys from the first of each queue on, to compare with.
    fn queues(&self) -> Vec<Vec<u16>>;
}

fn position(keys: &[(u16, u32)], key: u16) -> Option<usize> {
    keys.iter().position(|&(k, _)| k == key)
}

/// A key, and how often it was used or whether it is marked.
type Line = Vec<(u16, u32)>;

fn names(line: &Line) -> Vec<u16> {
    line.iter().map(|&(key, _)| key).collect()
}

#[derive(Default)]
struct SieveModel {
    line: Line,
    hand: usize,
}

impl Model for SieveModel {
    fn insert(&mut self, key: u16) {
        if self.hand == self.line.len() {
            // It had walked past the newest, which is to begin anew.
            self.hand = 0;
        }
        self.line.push((key, 0));
    }
    fn touch(&mut self, key: u16) {
        let at = position(&self.line, key).expect("it is there");
        self.line[at].1 = 1;
    }
    fn remove(&mut self, key: u16) {
        let at = position(&self.line, key).expect("it is there");
        self.line.remove(at);
        if at < self.hand {
            self.hand -= 1;
        }
        if self.hand == self.line.len() {
            self.hand = 0;
        }
    }
    fn evict(&mut self, may_drop: &dyn Fn(u16) -> bool) -> Option<u16> {
        for _ in 0..2 * self.line.len() {
            let (key, mark) = &mut self.line[self.hand];
            let key = *key;
            if *mark == 0 && may_drop(key) {
                self.remove(key);
                return Some(key);
            }
            *mark = 0;
            self.hand = (self.hand + 1) % self.line.len();
        }
        None
    }
    fn queues(&self) -> Vec<Vec<u16>> {
        vec![names(&self.line)]
    }
}

/// Its ghosts are a set of their own kind, which has its own tests: it may forget one early, and the model with it.
struct S3FifoModel {
    small: Line,
    main: Line,
    ghosts: Ghosts,
    unopposed: usize,
}

impl S3FifoModel {
    fn small_share(items: usize) -> usize {
        (items / 10).max(1)
    }

    fn evict_small(&mut self, may_drop: &dyn Fn(u16) -> bool) -> Option<u16> {
        let mut at = 0;
        while at < self.small.len() {
            let (key, uses) = self.small[at];
            if uses >= 2 {
                self.small.remove(at);
                self.main.push((key, 0));
            } else if may_drop(key) {
                let items = self.small.len() + self.main.len();
                let most = items - Self::small_share(items);
                self.ghosts.insert(remembered(key), most);
                self.small.remove(at);
                self.ghosts.fit(items - 1);
                return Some(key);
            } else {
                at += 1;
            }
        }
        None
    }

    fn evict_main(&mut self, may_drop: &dyn Fn(u16) -> bool) -> Option<u16> {
        let (mut at, mut steps) = (0, 0);
        while at < self.main.len() && steps < 768 {
            let (key, uses) = self.main[at];
            if uses > 0 && steps < SECOND_CHANCES {
                self.main.remove(at);
                self.main.push((key, uses - 1));
                // The last one queues behind itself, and the walk begins anew.
                at = if at + 1 == self.main.len() { 0 } else { at };
            } else if may_drop(key) {
                self.remove(key);
                return Some(key);
            } else {
                at += 1;
            }
            steps += 1;
        }
        None
    }
}

impl Model for S3FifoModel {
    fn insert(&mut self, key: u16) {
        let items = self.small.len() + self.main.len() + 1;
        let share = Self::small_share(items);
        self.ghosts.fit(items);
        if self.ghosts.take(remembered(key), items - share) {
            self.main.push((key, 0));
        } else {
            self.small.push((key, 0));
        }
        self.unopposed = self.unopposed.saturating_add(1);
        if self.small.len() > share && self.unopposed > share {
            let oldest = self.small.remove(0);
            self.main.push(oldest);
        }
    }
    fn touch(&mut self, key: u16) {
        for line in [&mut self.small, &mut self.main] {
            if let Some(at) = position(line, key) {
                line[at].1 = (line[at].1 + 1).min(3);
            }
        }
    }
    fn remove(&mut self, key: u16) {
        self.small.retain(|&(k, _)| k != key);
        self.main.retain(|&(k, _)| k != key);
        self.ghosts.fit(self.small.len() + self.main.len());
    }
    fn evict(&mut self, may_drop: &dyn Fn(u16) -> bool) -> Option<u16> {
        let items = self.small.len() + self.main.len();
        let crowded = self.main.len() > items.saturating_sub(Self::small_share(items));
        let victim = if crowded {
            self.evict_main(may_drop)
                .or_else(|| self.evict_small(may_drop))
        } else {
            self.evict_small(may_drop)
                .or_else(|| self.evict_main(may_drop))
        };
        if victim.is_some() {
            self.unopposed = 0;
        }
        victim
    }
    fn queues(&self) -> Vec<Vec<u16>> {
        vec![names(&self.small), names(&self.main)]
    }
}

/// Its frequencies come from a sketch of its own, which has its own tests: it may count too much, and the model with it.
struct WTinyLfuModel {
    /// The window, probation, the protected ones.
    lines: [Vec<u16>; 3],
    sketch: Sketch,
    wins: u32,
}

impl WTinyLfuModel {
    fn items(&self) -> usize {
        self.lines.iter().map(Vec::len).sum()
    }
    fn window(items: usize) -> usize {
        items - items * 99 / 100
    }
    fn protected(items: usize) -> usize {
        (items - Self::window(items)) * 80 / 100
    }
    fn trim(&mut self, line: usize, share: usize) {
        if self.lines[line].len() > share {
            let oldest = self.lines[line].remove(0);
            self.lines[1].push(oldest);
        }
    }
}

impl Model for WTinyLfuModel {
    fn insert(&mut self, key: u16) {
        let items = self.items() + 1;
        self.sketch.fit(items);
        self.sketch.add(sketched(key), items);
        self.lines[0].push(key);
        self.trim(0, Self::window(items));
    }
    fn touch(&mut self, key: u16) {
        let items = self.items();
        let line = (0..3).find(|&n| self.lines[n].contains(&key));
        let line = line.expect("it is there");
        self.lines[line].retain(|&k| k != key);
        if line == 0 {
            self.lines[0].push(key);
        } else {
            self.sketch.add(sketched(key), items);
            self.lines[2].push(key);
        }
        if line == 1 {
            self.trim(2, Self::protected(items));
        }
    }
    fn remove(&mut self, key: u16) {
        for line in &mut self.lines {
            line.retain(|&k| k != key);
        }
        self.sketch.fit(self.items());
    }
    fn evict(&mut self, may_drop: &dyn Fn(u16) -> bool) -> Option<u16> {
        let items = self.items();
        let mut candidate = None;
        if items > 0 && !self.lines[0].is_empty() && self.lines[0].len() >= Self::window(items) {
            let key = self.lines[0].remove(0);
            self.lines[1].push(key);
            candidate = Some(key);
        }
        self.trim(2, Self::protected(items));
        let [window, probation, protected] = &self.lines;
        let mut others = probation.iter().chain(protected).chain(window).copied();
        let victim = others.find(|&key| Some(key) != candidate && may_drop(key));
        let loser = match (candidate.filter(|&key| may_drop(key)), victim) {
            (Some(candidate), Some(victim)) => {
                let uses = |key| self.sketch.frequency(sketched(key));
                let wins = uses(candidate) >= uses(victim) + USE;
                self.wins = if wins { 0 } else { self.wins + 1 };
                if self.wins == MOST_WINS {
                    self.wins = 0;
                    let line = self.lines.iter_mut().find(|line| line.contains(&victim));
                    let line = line.expect("it is there");
                    line.retain(|&key| key != victim);
                    line.push(victim);
                }
                Some(if wins { victim } else { candidate })
            }
            (candidate, victim) => candidate.or(victim),
        };
        if let Some(key) = loser {
            self.remove(key);
        }
        loser
    }
    fn queues(&self) -> Vec<Vec<u16>> {
        self.lines.to_vec()
    }
}

/// A hash whose parts that ghosts tell apart are different for each key.
fn hash(key: u16) -> u64 {
    let scattered = u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 51;
    ((scattered << 16) | u64::from(key + 1)) << 35
}

/// The part of it that S3-FIFO keeps.
fn remembered(key: u16) -> u32 {
    (hash(key) >> 35) as u32
}

/// The part of it that W-TinyLFU keeps.
fn sketched(key: u16) -> u32 {
    (hash(key) >> 34) as u32
}

#[derive(Clone, Debug)]
enum Step {
    /// Uses a key: touches it if it is there, inserts it if not, after evicting while there are more than the limit.
    Use(u16),
    Remove(u16),
    Move(u16),
    /// Evicts, where a key that leaves this remainder by three may not be dropped.
    Evict(u16),
    Limit(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => (0u16..150).prop_map(Step::Use),
        60 => (0u16..20).prop_map(Step::Use),
        4 => (0u16..150).prop_map(Step::Remove),
        4 => (0u16..150).prop_map(Step::Move),
        6 => (0u16..4).prop_map(Step::Evict),
        1 => prop_oneof![Just(1), Just(2), Just(3), Just(10), Just(40), Just(100)]
            .prop_map(Step::Limit),
    ]
}

/// What the order's queues hold, by key.
fn queues(order: &Order, links: &PlainLinks, keys: &BTreeMap<Handle, u16>) -> Vec<Vec<u16>> {
    let name = |handles: Vec<Handle>| handles.iter().map(|handle| keys[handle]).collect();
    match order {
        Order::Sieve(order) => vec![name(order.queue.iter(links).collect())],
        Order::S3Fifo(order) => [&order.small, &order.main]
            .map(|queue| name(queue.iter(links).collect()))
            .into(),
        Order::WTinyLfu(order) => order
            .segments
            .iter()
            .map(|queue| name(queue.iter(links).collect()))
            .collect(),
        _ => unreachable!("the others have ranks"),
    }
}

fn agree(
    kind: PolicyKind,
    mut model: impl Model,
    first_limit: usize,
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let mut links = PlainLinks::new(2 * steps.len() + 2);
    let mut order = Order::new(kind, 42);
    let mut handles: BTreeMap<u16, Handle> = BTreeMap::new();
    let mut keys: BTreeMap<Handle, u16> = BTreeMap::new();
    let mut limit = first_limit;
    let mut fresh = 0;
    let mut fresh_handle = || {
        fresh += 1;
        Handle(fresh)
    };
    for step in steps {
        let mut evict = |handles: &mut BTreeMap<u16, Handle>,
                         keys: &mut BTreeMap<Handle, u16>,
                         links: &mut PlainLinks,
                         order: &mut Order,
                         remainder: u16|
         -> Result<bool, TestCaseError> {
            let victim = order.victim(links, |_, handle| keys[&handle] % 3 != remainder);
            let expected = model.evict(&|key| key % 3 != remainder);
            prop_assert_eq!(victim.map(|handle| keys[&handle]), expected);
            // Whenever something may be dropped, something is.
            prop_assert_eq!(
                victim.is_some(),
                handles.keys().any(|key| key % 3 != remainder)
            );
            if let Some(victim) = victim {
                order.evicted(links, victim);
                order.remove(links, victim, None);
                handles.remove(&keys[&victim]);
                keys.remove(&victim);
            }
            Ok(victim.is_some())
        };
        match step {
            Step::Limit(items) => limit = items,
            Step::Evict(remainder) => {
                evict(&mut handles, &mut keys, &mut links, &mut order, remainder)?;
            }
            Step::Use(key) => {
                if let Some(&handle) = handles.get(&key) {
                    order.touch(&mut links, handle, None);
                    model.touch(key);
                } else {
                    while handles.len() >= limit {
                        evict(&mut handles, &mut keys, &mut links, &mut order, 3)?;
                    }
                    let handle = fresh_handle();
                    handles.insert(key, handle);
                    keys.insert(handle, key);
                    order.insert(&mut links, handle, hash(key), None);
                    model.insert(key);
                }
            }
            Step::Remove(key) => {
                if let Some(handle) = handles.remove(&key) {
                    keys.remove(&handle);
                    order.remove(&mut links, handle, None);
                    model.remove(key);
                }
            }
            Step::Move(key) => {
                if let Some(handle) = handles.get_mut(&key) {
                    let new = fresh_handle();
                    links.copy(*handle, new);
                    order.moved(&mut links, *handle, new, None);
                    keys.remove(handle);
                    keys.insert(new, key);
                    *handle = new;
                }
            }
        }
        prop_assert_eq!(queues(&order, &links, &keys), model.queues());
    }
    Ok(())
}

proptest! {
    #[test]
    fn sieve_agrees_with_the_model(
        limit in 1usize..60, steps in prop::collection::vec(step(), 0..600)
    ) {
        agree(PolicyKind::Sieve, SieveModel::default(), limit, steps)?;
    }

    #[test]
    fn s3fifo_agrees_with_the_model(
        limit in 1usize..60, steps in prop::collection::vec(step(), 0..600)
    ) {
        let model = S3FifoModel {
            small: Vec::new(),
            main: Vec::new(),
            ghosts: Ghosts::new(),
            unopposed: usize::MAX,
        };
        agree(PolicyKind::S3Fifo, model, limit, steps)?;
    }

    #[test]
    fn wtinylfu_agrees_with_the_model(
        limit in 1usize..60, steps in prop::collection::vec(step(), 0..600)
    ) {
        let model = WTinyLfuModel {
            lines: [const { Vec::new() }; 3],
            sketch: Sketch::new(),
            wins: 0,
        };
        agree(PolicyKind::WTinyLfu, model, limit, steps)?;
    }
}

/// Where everything was used since the hand came by, one call does not walk past everything.
#[test]
fn a_walk_past_what_was_used_ends_with_a_victim() {
    for kind in [PolicyKind::S3Fifo, PolicyKind::Sieve] {
        let mut links = PlainLinks::new(100_000);
        let mut order = Order::new(kind, 7);
        for n in 0..100_000 {
            order.insert(&mut links, Handle(n), u64::from(n) << 35, None);
        }
        for _ in 0..3 {
            for n in 0..100_000 {
                order.touch(&mut links, Handle(n), None);
            }
        }
        for _ in 0..100 {
            let mut asked = 0;
            let victim = order.victim(&mut links, |_, _| {
                asked += 1;
                true
            });
            let victim = victim.expect("everything may be dropped");
            assert_eq!(asked, 1, "{kind}");
            order.evicted(&links, victim);
            order.remove(&mut links, victim, None);
        }
    }
}

/// What an order remembers beside the records is charged, and goes with them.
#[test]
fn memory_follows_the_items() {
    for (kind, bytes) in [
        (PolicyKind::Sieve, 0),
        (PolicyKind::S3Fifo, 8),
        (PolicyKind::WTinyLfu, 16),
    ] {
        let mut links = PlainLinks::new(100_000);
        let mut order = Order::new(kind, 7);
        assert_eq!(order.charged_bytes(), 0);
        let mut before = 0;
        for n in 0..100_000 {
            order.insert(&mut links, Handle(n), u64::from(n) << 35, None);
            let charged = order.charged_bytes();
            assert!(charged - before <= 4096, "{kind} grows in small steps");
            before = charged;
        }
        let most = 100_000 * bytes;
        assert!(
            (most..=most + most / 50).contains(&before),
            "{kind}: {before}"
        );
        for n in 0..100_000 {
            order.remove(&mut links, Handle(n), None);
        }
        assert!(order.charged_bytes() <= 8192, "{kind}");
    }
}

/// A victim that is taken for one used much would hold the main area for ever.
#[test]
fn no_victim_wins_for_ever() {
    let mut links = PlainLinks::new(10_000);
    let mut order = Order::new(PolicyKind::WTinyLfu, 7);
    for n in 0..100 {
        order.insert(&mut links, Handle(n), hash(n as u16), None);
    }
    // Used much while on probation and then, protected, pushed back there by all the others.
    for _ in 0..5 {
        for n in 0..100 {
            order.touch(&mut links, Handle(n), None);
        }
    }
    let Order::WTinyLfu(inner) = &order else {
        unreachable!("it was made so");
    };
    let head = inner.segments[1].head();
    for n in 100..100 + MOST_WINS {
        let victim = order
            .victim(&mut links, |_, _| true)
            .expect("there are some");
        order.remove(&mut links, victim, None);
        order.insert(&mut links, Handle(n), hash(n as u16), None);
    }
    let Order::WTinyLfu(inner) = &order else {
        unreachable!("it was made so");
    };
    assert_ne!(inner.segments[1].head(), head);
}
