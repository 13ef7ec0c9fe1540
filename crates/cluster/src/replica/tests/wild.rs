//! The world of the tests beside this, and in it nodes that leave and join again under another start, whole partitions that are
//! forgotten, tables without room, copies of many parts, and partitions of one replica.

use super::*;

impl World {
    /// A request is answered from then on by nothing that is older than the reset.
    fn is_flushed(&mut self, reset: Epoch) {
        for key in keys() {
            let floor = self.floors.entry(key).or_default();
            *floor = (*floor).max(Version::new(reset, 0));
        }
    }

    /// Nothing happens any more: who is a replica has what its leader has, and who is none has nothing.
    fn converge(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        let newest = self.views.len() as Epoch;
        for _ in 0..80 {
            for &id in &ids {
                let node = self.nodes.get_mut(&id).expect("it is one");
                if std::mem::replace(&mut node.epoch, newest) < newest {
                    let view = self.views[newest as usize - 1].clone();
                    self.give(id, Input::View(view));
                }
                self.give(id, Input::Tick);
                self.keep_of(id);
            }
            while !self.network.is_empty() {
                self.deliver(false);
            }
        }
        let placement = self.topology.placement(partition());
        let (leader, _) = placement.leader.expect("somebody leads");
        let led = &self.nodes[&leader].map.now;
        assert_eq!(led.progress.last.term(), placement.term);
        assert_eq!(led.progress.last.seq(), led.progress.commit);
        let seq = |of: &Durable, key: &Key| of.records.get(key).map(|(version, _)| version.seq());
        for (&id, node) in &self.nodes {
            let now = &node.map.now;
            if !placement.names(id) {
                assert_eq!(now.progress, Progress::default(), "{id:?}");
                continue;
            }
            assert_eq!(now.progress.last, led.progress.last, "{id:?}");
            for key in &keys() {
                match (seq(now, key), seq(led, key)) {
                    (Some(own), Some(other)) => assert_eq!(own, other),
                    (None, Some(seq)) => assert!(seq <= now.progress.horizon),
                    (Some(seq), None) => assert!(seq <= led.progress.horizon),
                    (None, None) => {}
                }
            }
        }
    }

    fn has_opened(&self, since: Epoch) -> bool {
        let is_it = |output: &Output<Map>| matches!(output, Output::Opened(term) if *term >= since);
        self.reports.iter().any(|(.., output)| is_it(output))
    }

    /// Something that is rare in that world.
    fn wonder(&mut self, flushed: &mut Option<Epoch>) {
        let id = self.pick();
        let known = self.topology.nodes()[&id];
        let may_leave = self.leaver() == NodeId(1);
        let is_named = self.topology.placement(partition()).names(id);
        match self.random.below(12) {
            0 | 1 if known.is_leaving && !is_named => {
                self.crash(id);
                self.command(&Command::Remove(id))
                    .expect("it holds nothing");
                let lost = self.random.one_in(3);
                self.start(id, lost);
            }
            2 if may_leave => {
                let _ = self.command(&Command::Leave(id));
            }
            3 if self.random.one_in(3) => {
                let reset = Command::Reset(vec![partition()]);
                *flushed = self.command(&reset).ok();
            }
            4 => {
                self.crash(id);
                let lost = self.random.one_in(6);
                self.start(id, lost);
            }
            5 => {
                let _ = self.command(&Command::Down(id, known.incarnation));
            }
            6 => {
                let _ = self.command(&Command::Up(id, known.incarnation));
            }
            7 => {
                let node = self.nodes.get_mut(&id).expect("it is one");
                node.map.is_tight = !node.map.is_tight;
            }
            8 | 9 => self.control(),
            _ => (0..self.random.below(30)).for_each(|_| self.see()),
        }
    }
}

fn run_wild(seed: u64) -> World {
    let _printed = Printed(seed);
    let (count, replication) = (3 + seed % 3, 1 + (seed / 3 % 3) as usize);
    let mut world = World::new(seed, count, replication, Bugs::default());
    let parts = 1 + world.random.below(2);
    let rare = [8, 25, 60][world.random.below(3)];
    let drops = [6, 1_000][world.random.below(2)];
    let mut flushed = None;
    for _ in 0..4_000 {
        for node in world.nodes.values_mut() {
            if let Some(replica) = &mut node.replica {
                replica.part_records = parts;
            }
        }
        world.step(true);
        if world.random.one_in(drops) {
            world.drop_one();
        }
        if let Some(reset) = flushed.filter(|&reset| world.has_opened(reset)) {
            // FLUSHALL is answered once a term of it, or after it, is open.
            world.is_flushed(reset);
            flushed = None;
        }
        if world.random.one_in(rare) {
            world.wonder(&mut flushed);
        }
    }
    for node in world.nodes.values_mut() {
        node.map.is_tight = false;
    }
    world.heal();
    world.converge();
    world
}

#[test]
fn no_answer_is_older_than_what_was_known_in_wild_worlds() {
    let shown: usize = (0..200).map(|seed| run_wild(seed).shown).sum();
    println!("{shown} answers show something");
    assert!(shown > 5_000, "{shown}");
}
