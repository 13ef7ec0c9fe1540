//! A hierarchical timing wheel (Varghese and Lauck, 1987) over links that lie in the records: a deadline is set, changed
//! and met in O(1), and a sweep costs what has expired, not what is there. It drops nothing by itself, and is coarse: what
//! it says to be due may have been due for a tick.

use crate::arena::Handle;

/// Milliseconds in a tick. Records that have expired cost memory until swept and are never shown, so a coarse tick is
/// enough; six levels of 64 slots then reach 139 years.
const TICK_MS: u64 = 64;
const LEVELS: usize = 6;
const SLOTS: usize = 64;
const SLOT_BITS: u32 = 6;
/// Ticks ahead that the slots can tell apart. Counted from 1970 that ends in 2109; a deadline after that waits in the last
/// slot, and the wheel is not made to turn over.
const MAX_AHEAD: u64 = (1 << (SLOT_BITS * LEVELS as u32)) - 1;
/// Marks a link that names a slot in place of a record. Handles leave this bit alone.
const SLOT_MARK: u32 = 1 << 31;

/// Where a record's deadline and its links in the wheel lie.
pub(crate) trait DeadlineLinks {
    /// In milliseconds since the Unix epoch.
    fn deadline(&self, handle: Handle) -> u64;
    /// The neighbour towards the slot; a slot where the first record is asked.
    fn previous(&self, handle: Handle) -> Handle;
    /// Sets the neighbour towards the slot.
    fn set_previous(&mut self, handle: Handle, previous: Handle);
    /// The neighbour away from the slot.
    fn next(&self, handle: Handle) -> Handle;
    /// Sets the neighbour away from the slot.
    fn set_next(&mut self, handle: Handle, next: Handle);
}

/// The records of a shard that have a deadline.
pub(crate) struct Wheel {
    heads: Box<[[u32; SLOTS]; LEVELS]>,
    /// A bit for each slot that holds something.
    occupied: [u64; LEVELS],
    /// All slots before this tick are empty.
    tick: u64,
    /// How many records it holds.
    len: u64,
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Self {
            heads: Box::new([[Handle::NONE.0; SLOTS]; LEVELS]),
            occupied: [0; LEVELS],
            tick: 0,
            len: 0,
        }
    }

    /// How many records it holds.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Adds a record that has a deadline.
    pub(crate) fn insert(&mut self, links: &mut impl DeadlineLinks, handle: Handle) {
        let due = links.deadline(handle) / TICK_MS;
        self.place(links, handle, due);
    }

    /// Takes a record out.
    pub(crate) fn remove(&mut self, links: &mut impl DeadlineLinks, handle: Handle) {
        self.len -= 1;
        let (previous, next) = (links.previous(handle), links.next(handle));
        if previous.0 & SLOT_MARK == 0 {
            links.set_next(previous, next);
        } else {
            self.set_head(previous.0 & !SLOT_MARK, next);
        }
        if next != Handle::NONE {
            links.set_previous(next, previous);
        }
    }

    /// A record was copied, links included, to a new handle.
    pub(crate) fn moved(&mut self, links: &mut impl DeadlineLinks, new: Handle) {
        let (previous, next) = (links.previous(new), links.next(new));
        if previous.0 & SLOT_MARK == 0 {
            links.set_next(previous, new);
        } else {
            self.set_head(previous.0 & !SLOT_MARK, new);
        }
        if next != Handle::NONE {
            links.set_previous(next, new);
        }
    }

    /// Takes out a record whose deadline has passed, if there is one. Looks at no more than `steps` records that are not
    /// due, and counts them down; once it is 0, more may be due.
    pub(crate) fn pop(
        &mut self,
        links: &mut impl DeadlineLinks,
        now_ms: u64,
        steps: &mut usize,
    ) -> Option<Handle> {
        let now = now_ms / TICK_MS;
        loop {
            let Some((level, slot, start)) = self.next_slot() else {
                self.tick = self.tick.max(now);
                return None;
            };
            // A slot of the lowest level is due when its tick is over.
            if start > now || (level == 0 && start == now) {
                self.tick = self.tick.max(now);
                return None;
            }
            self.tick = start;
            let handle = Handle(self.heads[level][slot]);
            if level == 0 {
                self.remove(links, handle);
                return Some(handle);
            }
            // Its records belong to lower levels by now.
            if *steps == 0 {
                return None;
            }
            *steps -= 1;
            self.remove(links, handle);
            self.insert(links, handle);
        }
    }

    /// Puts a record back that was popped but may not be dropped yet, to be due again in the next tick.
    pub(crate) fn postpone(&mut self, links: &mut impl DeadlineLinks, handle: Handle, now_ms: u64) {
        self.place(links, handle, now_ms / TICK_MS + 1);
    }

    /// The slot to be met next: its level, its place and its first tick.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let here = |level: usize| (self.tick >> (SLOT_BITS * level as u32)) & (SLOTS as u64 - 1);
        // A higher slot that the tick has reached goes first: some of its records may be due before those below.
        for level in (1..LEVELS).rev() {
            if self.occupied[level] & (1 << here(level)) != 0 {
                return Some((level, here(level) as usize, self.tick));
            }
        }
        for level in 0..LEVELS {
            let shift = SLOT_BITS * level as u32;
            let here = here(level);
            let ahead = self.occupied[level] & (u64::MAX << here);
            if ahead != 0 {
                let slot = u64::from(ahead.trailing_zeros());
                let round = self.tick >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
                return Some((
                    level,
                    slot as usize,
                    (round | (slot << shift)).max(self.tick),
                ));
            }
        }
        None
    }

    fn place(&mut self, links: &mut impl DeadlineLinks, handle: Handle, due: u64) {
        self.len += 1;
        let due = due.clamp(self.tick, self.tick | MAX_AHEAD);
        let differ = due ^ self.tick;
        let level = (differ | 1).ilog2() / SLOT_BITS;
        let slot = (due >> (SLOT_BITS * level)) & (SLOTS as u64 - 1);
        let index = level * SLOTS as u32 + slot as u32;
        let head = Handle(self.heads[level as usize][slot as usize]);
        links.set_previous(handle, Handle(SLOT_MARK | index));
        links.set_next(handle, head);
        if head != Handle::NONE {
            links.set_previous(head, handle);
        }
        self.set_head(index, handle);
    }

    fn set_head(&mut self, index: u32, head: Handle) {
        let (level, slot) = ((index as usize) / SLOTS, (index as usize) % SLOTS);
        self.heads[level][slot] = head.0;
        if head == Handle::NONE {
            self.occupied[level] &= !(1 << slot);
        } else {
            self.occupied[level] |= 1 << slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct PlainLinks(BTreeMap<u32, (u64, Handle, Handle)>);

    impl PlainLinks {
        fn with(&mut self, handle: Handle, deadline: u64) -> Handle {
            self.0.insert(handle.0, (deadline, Handle(5), Handle(5)));
            handle
        }
    }

    impl DeadlineLinks for PlainLinks {
        fn deadline(&self, handle: Handle) -> u64 {
            self.0[&handle.0].0
        }
        fn previous(&self, handle: Handle) -> Handle {
            self.0[&handle.0].1
        }
        fn set_previous(&mut self, handle: Handle, previous: Handle) {
            self.0.get_mut(&handle.0).expect("known").1 = previous;
        }
        fn next(&self, handle: Handle) -> Handle {
            self.0[&handle.0].2
        }
        fn set_next(&mut self, handle: Handle, next: Handle) {
            self.0.get_mut(&handle.0).expect("known").2 = next;
        }
    }

    /// Spans of all sizes, from a fraction of a tick to beyond the last level.
    fn span() -> impl Strategy<Value = u64> {
        (0u32..64, any::<u64>()).prop_map(|(bits, number)| number >> (63 - bits))
    }

    proptest! {
        #[test]
        fn what_is_due_comes_out_and_nothing_else(
            steps in prop::collection::vec((0u8..5, span(), any::<prop::sample::Index>()), 1..200),
            start in 0u64..2_000_000_000_000,
        ) {
            let (mut wheel, mut links) = (Wheel::new(), PlainLinks::default());
            // The deadline, and the time by which a sweep has to find it: a deadline set in the past is met a tick later.
            let mut model: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
            let (mut now, mut latest) = (start, start);
            for (n, (what, span, pick)) in steps.into_iter().enumerate() {
                let handle = Handle(n as u32);
                let known: Vec<u32> = model.keys().copied().collect();
                match what {
                    0 | 1 => {
                        let deadline = now.saturating_add(span).saturating_sub(100);
                        model.insert(handle.0, (deadline, deadline.max(latest)));
                        let handle = links.with(handle, deadline);
                        wheel.insert(&mut links, handle);
                    }
                    2 if !known.is_empty() => {
                        let old = Handle(*pick.get(&known));
                        wheel.remove(&mut links, old);
                        model.remove(&old.0);
                    }
                    3 if !known.is_empty() => {
                        let old = Handle(*pick.get(&known));
                        let copied = links.0[&old.0];
                        links.0.insert(handle.0, copied);
                        wheel.moved(&mut links, handle);
                        let deadline = model.remove(&old.0).expect("known");
                        model.insert(handle.0, deadline);
                    }
                    _ => {
                        // Time may also stand still or, where a clock was wrong, seem to go back.
                        now = if n % 7 == 0 { now.saturating_sub(1000) } else { now.saturating_add(span).min((1 << 42) - 1) };
                        latest = latest.max(now);
                        let mut steps = usize::MAX;
                        while let Some(due) = wheel.pop(&mut links, now, &mut steps) {
                            let (deadline, _) = model.remove(&due.0).expect("comes out once");
                            prop_assert!(deadline / TICK_MS < now / TICK_MS);
                        }
                        prop_assert!(model.values().all(|&(_, by)| by.saturating_add(TICK_MS) >= now));
                    }
                }
            }
        }
    }

    #[test]
    fn a_postponed_record_comes_again() {
        let (mut wheel, mut links) = (Wheel::new(), PlainLinks::default());
        let handle = links.with(Handle(1), 1000);
        wheel.insert(&mut links, handle);
        let mut steps = 100;
        assert_eq!(wheel.pop(&mut links, 1000, &mut steps), None);
        assert_eq!(wheel.pop(&mut links, 2000, &mut steps), Some(handle));
        wheel.postpone(&mut links, handle, 2000);
        assert_eq!(wheel.pop(&mut links, 2000, &mut steps), None);
        assert_eq!(
            wheel.pop(&mut links, 2000 + 2 * TICK_MS, &mut steps),
            Some(handle)
        );
        assert_eq!(wheel.pop(&mut links, 1 << 41, &mut steps), None);
    }

    #[test]
    fn the_steps_bound_a_cascade() {
        let (mut wheel, mut links) = (Wheel::new(), PlainLinks::default());
        for n in 0..1000 {
            let handle = links.with(Handle(n), TICK_MS * 64 * 10 + 1);
            wheel.insert(&mut links, handle);
        }
        let now = TICK_MS * 64 * 10;
        let mut steps = 300;
        assert_eq!(wheel.pop(&mut links, now, &mut steps), None);
        assert_eq!(steps, 0);
        let mut steps = 10_000;
        assert_eq!(wheel.pop(&mut links, now, &mut steps), None);
        assert_eq!(steps, 10_000 - 700);
        assert!(
            wheel
                .pop(&mut links, now + 2 * TICK_MS, &mut steps)
                .is_some()
        );
    }
}
