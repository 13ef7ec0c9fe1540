//! Every order against a naive model, after every step. Those whose order is a rank stand here; those that remember more
//! have models of their own in `modern`.

mod modern;

use super::*;
use proptest::prelude::*;

/// Links in plain arrays; a handle is an index.
struct PlainLinks {
    previous: Vec<Handle>,
    next: Vec<Handle>,
    word: Vec<u32>,
}

impl PlainLinks {
    fn new(handles: usize) -> Self {
        Self {
            previous: vec![Handle(77); handles],
            next: vec![Handle(77); handles],
            word: vec![77; handles],
        }
    }

    fn copy(&mut self, from: Handle, to: Handle) {
        let (from, to) = (from.0 as usize, to.0 as usize);
        self.previous[to] = self.previous[from];
        self.next[to] = self.next[from];
        self.word[to] = self.word[from];
    }
}

impl Links for PlainLinks {
    fn previous(&self, handle: Handle) -> Handle {
        self.previous[handle.0 as usize]
    }
    fn set_previous(&mut self, handle: Handle, previous: Handle) {
        self.previous[handle.0 as usize] = previous;
    }
    fn next(&self, handle: Handle) -> Handle {
        self.next[handle.0 as usize]
    }
    fn set_next(&mut self, handle: Handle, next: Handle) {
        self.next[handle.0 as usize] = next;
    }
    fn word(&self, handle: Handle) -> u32 {
        self.word[handle.0 as usize]
    }
    fn set_word(&mut self, handle: Handle, word: u32) {
        self.word[handle.0 as usize] = word;
    }
}

/// What the model knows of a record.
#[derive(Clone, Debug)]
struct Entry {
    handle: Handle,
    used_at: u64,
    uses: u64,
    deadline: Option<u64>,
}

impl Entry {
    /// Smaller goes first; None where any may go.
    fn rank(&self, kind: PolicyKind) -> (u64, u64) {
        match kind {
            PolicyKind::Lru => (0, self.used_at),
            PolicyKind::Lfu => (self.uses, self.used_at),
            PolicyKind::Ttl => (self.deadline.unwrap_or(u64::MAX), self.used_at),
            PolicyKind::Random => (0, 0),
            other => unreachable!("{other} has a model of its own"),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Option<u64>),
    Touch(prop::sample::Index),
    Remove(prop::sample::Index),
    Move(prop::sample::Index),
    Retime(prop::sample::Index, Option<u64>),
    /// Evict, where a handle that leaves this remainder by three may not be dropped.
    Evict(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let deadline = || prop::option::of(1u64..6);
    prop_oneof![
        4 => deadline().prop_map(Step::Insert),
        4 => any::<prop::sample::Index>().prop_map(Step::Touch),
        1 => any::<prop::sample::Index>().prop_map(Step::Remove),
        1 => any::<prop::sample::Index>().prop_map(Step::Move),
        1 => (any::<prop::sample::Index>(), deadline()).prop_map(|(i, d)| Step::Retime(i, d)),
        2 => (0u32..4).prop_map(Step::Evict),
    ]
}

fn run(kind: PolicyKind, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut links = PlainLinks::new(2 * steps.len() + 2);
    let mut order = Order::new(kind, 42);
    let mut model: Vec<Entry> = Vec::new();
    let mut fresh = 0;
    let mut fresh_handle = || {
        fresh += 1;
        Handle(fresh)
    };
    for (now, step) in steps.into_iter().enumerate() {
        let now = now as u64;
        match step {
            Step::Insert(deadline) => {
                let handle = fresh_handle();
                order.insert(&mut links, handle, 0, deadline);
                model.push(Entry {
                    handle,
                    used_at: now,
                    uses: 1,
                    deadline,
                });
            }
            Step::Evict(remainder) => {
                let may_drop = |handle: Handle| handle.0 % 3 != remainder;
                let victim = order.victim(&mut links, |_, handle| may_drop(handle));
                let least = model
                    .iter()
                    .filter(|e| may_drop(e.handle))
                    .map(|e| e.rank(kind))
                    .min();
                let chosen = victim.map(|v| {
                    model
                        .iter()
                        .position(|e| e.handle == v)
                        .expect("the victim is in the order")
                });
                prop_assert_eq!(chosen.map(|i| model[i].rank(kind)), least);
                if let Some(index) = chosen {
                    prop_assert!(may_drop(model[index].handle));
                    let entry = model.swap_remove(index);
                    order.remove(&mut links, entry.handle, entry.deadline);
                }
            }
            _ if model.is_empty() => {}
            Step::Touch(index) => {
                let entry = index.get_mut(&mut model);
                order.touch(&mut links, entry.handle, entry.deadline);
                entry.used_at = now;
                entry.uses += 1;
            }
            Step::Remove(index) => {
                let entry = model.swap_remove(index.index(model.len()));
                order.remove(&mut links, entry.handle, entry.deadline);
            }
            Step::Move(index) => {
                let entry = index.get_mut(&mut model);
                let new = fresh_handle();
                links.copy(entry.handle, new);
                order.moved(&mut links, entry.handle, new, entry.deadline);
                entry.handle = new;
            }
            Step::Retime(index, deadline) => {
                let entry = index.get_mut(&mut model);
                order.retimed(&mut links, entry.handle, entry.deadline, deadline);
                entry.deadline = deadline;
                if kind == PolicyKind::Ttl {
                    // A new deadline is a use: it puts the record last among its equals.
                    entry.used_at = now;
                }
            }
        }
    }
    // Whatever is left comes out in the model's order.
    while let Some(victim) = order.victim(&mut links, |_, _| true) {
        let index = model
            .iter()
            .position(|e| e.handle == victim)
            .expect("the victim is in the order");
        let least = model
            .iter()
            .map(|e| e.rank(kind))
            .min()
            .expect("the model holds the victim");
        prop_assert_eq!(model[index].rank(kind), least);
        let entry = model.swap_remove(index);
        order.remove(&mut links, victim, entry.deadline);
    }
    prop_assert!(model.is_empty());
    Ok(())
}

proptest! {
    #[test]
    fn lru_agrees_with_the_model(steps in prop::collection::vec(step(), 0..300)) {
        run(PolicyKind::Lru, steps)?;
    }

    #[test]
    fn lfu_agrees_with_the_model(steps in prop::collection::vec(step(), 0..300)) {
        run(PolicyKind::Lfu, steps)?;
    }

    #[test]
    fn ttl_agrees_with_the_model(steps in prop::collection::vec(step(), 0..300)) {
        run(PolicyKind::Ttl, steps)?;
    }

    #[test]
    fn random_agrees_with_the_model(steps in prop::collection::vec(step(), 0..300)) {
        run(PolicyKind::Random, steps)?;
    }
}

#[test]
fn random_chooses_each_with_the_same_chance() {
    let mut links = PlainLinks::new(10);
    let mut order = Order::new(PolicyKind::Random, 7);
    for n in 0..10 {
        order.insert(&mut links, Handle(n), u64::from(n) << 35, None);
    }
    let mut chosen = [0u32; 10];
    for _ in 0..10_000 {
        let victim = order
            .victim(&mut links, |_, _| true)
            .expect("there are ten");
        chosen[victim.0 as usize] += 1;
    }
    // Ten standard deviations of a binomial around 1,000.
    assert!(
        chosen.iter().all(|&count| (700..1300).contains(&count)),
        "{chosen:?}"
    );
}

#[test]
fn the_walk_past_what_may_not_be_dropped_ends() {
    let mut links = PlainLinks::new(5000);
    for kind in PolicyKind::ALL {
        let mut order = Order::new(kind, 7);
        for n in 0..5000 {
            order.insert(&mut links, Handle(n), u64::from(n) << 35, None);
        }
        let mut asked = 0;
        let victim = order.victim(&mut links, |_, _| {
            asked += 1;
            false
        });
        assert_eq!(victim, None, "{kind}");
        // W-TinyLFU asks about its candidate apart from the walk.
        assert!(
            (MAX_CANDIDATES - 1..=MAX_CANDIDATES).contains(&asked),
            "{kind}: {asked}"
        );
    }
}
