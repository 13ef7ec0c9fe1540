//! The topology of the world: what nodes report to who proposes changes of it, what is committed, and when each node sees it.

use super::*;
use henge_cluster::topology::Placement;

impl<S: Store> World<S> {
    pub(super) fn report(&mut self, n: usize) {
        let node = &self.nodes[n];
        let report = Report {
            node: node.id,
            incarnation: node.incarnation,
            has_lost_memory: node.has_lost_memory,
            epoch: node.epoch,
            aligned: node.aligned.clone(),
            opened: node.opened.clone(),
            rested: node.rested.clone(),
        };
        if let [Some(at), _] = self.network.send(self.now_ms, n, CONTROL) {
            self.after(at - self.now_ms, Moment::Report(report));
        }
    }

    /// A proposal comes to the topology.
    pub(super) fn commit(&mut self, command: &Command) {
        if let Command::Register { node, .. } = command
            && self.nodes[node.0 as usize].is_gone
        {
            return;
        }
        let before = self.topology.clone();
        let Ok(epoch) = self.topology.apply(command) else {
            self.coverage.rule(Rule::Rejected);
            return;
        };
        note!(self, "epoch {epoch}: {command:?}");
        self.count_command(command, &before);
        let nodes = self.topology.nodes();
        let incarnations: BTreeMap<NodeId, Incarnation> = nodes
            .iter()
            .map(|(&id, node)| (id, node.incarnation))
            .collect();
        let up = nodes.iter().filter(|(_, node)| node.state == State::Up);
        let up: Vec<NodeId> = up.map(|(&id, _)| id).collect();
        let mut views = Vec::new();
        for p in 0..self.plan.partitions {
            let placement = self.topology.placement(partition(p));
            note!(self, "  {p}: {placement:?}");
            let last = self.views.last().map(|views| &views[p]);
            views.push(match last {
                Some(last)
                    if last.placement == *placement
                        && last.incarnations == incarnations
                        && last.up == up =>
                {
                    Rc::clone(last)
                }
                _ => Rc::new(View {
                    placement: placement.clone(),
                    incarnations: incarnations.clone(),
                    up: up.clone(),
                }),
            });
        }
        self.views.push(views);
        assert_eq!(
            self.views.len(),
            epoch as usize,
            "every epoch has its views"
        );
        for node in 1..self.nodes.len() {
            if let Command::Remove(removed) = command
                && removed.0 as usize == node
            {
                self.remove_node(node);
            }
            self.show_topology(node);
        }
    }

    pub(super) fn remove_node(&mut self, n: usize) {
        if self.nodes[n].is_running {
            self.crash(n, false);
        }
        self.nodes[n].is_gone = true;
        for ledger in &self.ledgers {
            ledger.borrow_mut().forgets(NodeId(n as u64));
        }
        self.control.forget(NodeId(n as u64));
    }

    pub(super) fn count_command(&mut self, command: &Command, before: &Topology) {
        for p in 0..self.plan.partitions {
            let (old, new) = (
                before.placement(partition(p)),
                self.topology.placement(partition(p)),
            );
            let joint =
                |placement: &Placement| placement.change.as_ref().map(|change| change.is_joint);
            let is_undone = old.old == new.old;
            match (joint(old), joint(new)) {
                (None, Some(_)) => self.coverage.rule(Rule::Changing),
                (Some(false), Some(true)) => {
                    self.joined[p] = self.topology.epoch();
                    self.coverage.rule(Rule::Joint);
                }
                (Some(true), None) if !is_undone => {
                    self.coverage.rule(Rule::Final);
                    let (since, until) = (self.joined[p], self.topology.epoch());
                    assert!(
                        self.ledgers[p].borrow().has_opened(since, until),
                        "a term of the joint change was open before it is final"
                    );
                }
                (Some(is_joint), None | Some(false)) if is_undone && old.change != new.change => {
                    self.coverage.rule(Rule::Undone);
                    if is_joint {
                        self.coverage.rule(Rule::UndoneJoint);
                    }
                }
                _ => {}
            }
            if let Some(seed) = new.seed {
                self.ledgers[p].borrow_mut().seed(new.generation, seed);
            }
            self.check_memory(p, command, old);
            if new.generation > old.generation
                && old.generation > 0
                && !matches!(command, Command::Reset(_))
            {
                self.coverage.rule(Rule::ResetByLoss);
            }
        }
        match command {
            Command::Remembers(..) => self.coverage.rule(Rule::Remembers),
            Command::Down(..) => self.coverage.rule(Rule::Down),
            Command::Up(..) => self.coverage.rule(Rule::Up),
            _ => {}
        }
    }

    /// Whoever has lost its memory owes what was committed while it counted, as long as it is a replica; when it is said to remember,
    /// it has that.
    fn check_memory(&self, p: usize, command: &Command, before: &Placement) {
        let mut ledger = self.ledgers[p].borrow_mut();
        match *command {
            Command::Register {
                node,
                has_lost_memory: true,
                ..
            } if before.voters.contains(&node) => ledger.register(node, before.generation),
            Command::Remembers(node, start) => {
                let its = &self.nodes[node.0 as usize];
                let table = &its.slots[p].table;
                // Where that start is over, what the next one has says nothing about it.
                let has = (its.is_running && its.incarnation == start)
                    .then(|| (table.state().generation, table.progress().last.seq()));
                ledger.remembers(node, has);
            }
            _ => {}
        }
        let placement = self.topology.placement(partition(p));
        let joining = placement.new_list().unwrap_or_default();
        ledger.forgive(|node| placement.old.contains(&node) || joining.contains(&node));
    }

    /// The newest state is on its way to a node.
    pub(super) fn show_topology(&mut self, n: usize) {
        if !self.nodes[n].is_running {
            return;
        }
        let epoch = self.topology.epoch();
        if let [Some(at), _] = self.network.send(self.now_ms, CONTROL, n) {
            let late = if self.nodes[n].late > 0 {
                self.random.below(400)
            } else {
                0
            };
            self.work(at - self.now_ms + late, n, Work::See(epoch));
        }
    }

    /// A node hears of all states up to one, or of that only.
    pub(super) fn see(&mut self, n: usize, epoch: Epoch) {
        if self.network.is_cut(CONTROL, n) || epoch <= self.nodes[n].epoch {
            return;
        }
        let mut next = self.nodes[n].epoch + 1;
        let is_first = self.nodes[n].epoch == 0;
        if self.random.one_in(if is_first { 2 } else { 4 }) {
            next = epoch;
        }
        for epoch in next..=epoch {
            let node = &mut self.nodes[n];
            node.epoch = epoch;
            let known = self.views[epoch as usize - 1][0].incarnations.get(&node.id);
            node.is_registered |= known == Some(&node.incarnation);
            for p in 0..self.plan.partitions {
                let view = &self.views[epoch as usize - 1][p];
                let slot = &mut self.nodes[n].slots[p];
                if !Rc::ptr_eq(view, &slot.view) {
                    if view.placement.term != slot.view.placement.term {
                        slot.starts.clear();
                    }
                    slot.starts
                        .extend(view.incarnations.iter().map(|(&id, &start)| (id, start)));
                    slot.view = Rc::clone(view);
                    let view = View::clone(view);
                    self.give(n, p, Input::View(view));
                }
            }
        }
    }
}
