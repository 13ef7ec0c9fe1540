//! Faults begin and end, and at last all of them are over.

use crate::network::{CONTROL, ENDS};
use crate::plan::Fault;
use crate::store::Store;
use crate::world::{Moment, World, note};
use henge_cluster::ring::NodeId;
use henge_cluster::topology::Command;
use std::fmt::Write as _;

/// So many nodes there are at most, one end being none.
const MOST_NODES: usize = 9;

impl<S: Store> World<S> {
    fn can_run(&self, n: usize) -> bool {
        !self.nodes[n].is_gone && self.nodes[n].is_running
    }

    /// A fault begins, if it can.
    pub(crate) fn begin_fault(&mut self, number: usize) {
        if self.healed_ms.is_some() {
            return;
        }
        let event = self.plan.faults[number];
        let takes_place = self.strike(number, event.fault);
        if !takes_place {
            return;
        }
        note!(
            self,
            "fault {number} for {} ms: {:?}",
            event.for_ms,
            event.fault
        );
        self.coverage.fault(event.fault.kind());
        self.active.push(number);
        self.after(event.for_ms, Moment::End(number));
    }

    fn strike(&mut self, number: usize, fault: Fault) -> bool {
        let now_ms = self.now_ms;
        match fault {
            Fault::Kill(n) | Fault::PowerLoss(n) | Fault::DiskLost(n) => {
                if !self.can_run(n) {
                    return false;
                }
                self.crash(n, !matches!(fault, Fault::Kill(_)));
                if matches!(fault, Fault::DiskLost(_)) {
                    self.lose_disk(n);
                }
                self.nodes[n].down_by = Some(number);
            }
            Fault::Pause(n) => self.nodes[n].pauses += 1,
            Fault::Isolate(_)
            | Fault::Split(_)
            | Fault::OneWay(..)
            | Fault::Apart(..)
            | Fault::Bridge(..) => {
                self.cut(fault, true);
            }
            Fault::Storm(weather) => self.network.begin_storm(number, weather),
            Fault::SlowDisk(n, factor) => self.nodes[n].disk_factor *= factor,
            Fault::FullDisk(n) => {
                if !self.can_run(n) {
                    return false;
                }
                self.nodes[n].is_latched = true;
                self.nodes[n].is_writing = true;
            }
            Fault::Jump(n, by_ms) => self.nodes[n].clock.jump(now_ms, by_ms),
            Fault::Drift(n, gains) => self.nodes[n].clock.drift(now_ms, gains),
            Fault::Suspected(n) => self.control.suspected.push((number, NodeId(n as u64))),
            Fault::Evictions(n) => self.nodes[n].evicting += 1,
            Fault::Late(n) => self.nodes[n].late += 1,
            Fault::Leaderless => self.leaderless += 1,
            Fault::Reset(p) => {
                self.after(
                    2,
                    Moment::Commit(Command::Reset(vec![crate::world::partition(p)])),
                );
            }
            Fault::Leave(n) => {
                let staying = self
                    .topology
                    .nodes()
                    .iter()
                    .filter(|(_, node)| !node.is_leaving);
                if staying.count() <= 2 || self.nodes[n].is_gone {
                    return false;
                }
                self.after(2, Moment::Commit(Command::Leave(NodeId(n as u64))));
            }
            Fault::Join => {
                if self.nodes.len() > MOST_NODES {
                    return false;
                }
                self.add_node();
                self.start(self.nodes.len() - 1);
            }
            Fault::WrongProposals => self.control.wrong += 1,
        }
        true
    }

    /// It ends.
    pub(crate) fn end_fault(&mut self, number: usize) {
        let Some(place) = self.active.iter().position(|&active| active == number) else {
            return;
        };
        self.active.swap_remove(place);
        let fault = self.plan.faults[number].fault;
        note!(self, "fault {number} is over");
        match fault {
            Fault::Kill(n) | Fault::PowerLoss(n) | Fault::DiskLost(n) => {
                let is_down = self.nodes[n].down_by == Some(number);
                if is_down && !self.nodes[n].is_gone {
                    self.start(n);
                }
            }
            Fault::Pause(n) => self.wake(n),
            Fault::Isolate(_)
            | Fault::Split(_)
            | Fault::OneWay(..)
            | Fault::Apart(..)
            | Fault::Bridge(..) => {
                self.cut(fault, false);
            }
            Fault::Storm(_) => self.network.end_storm(number),
            Fault::SlowDisk(n, factor) => self.nodes[n].disk_factor /= factor,
            Fault::FullDisk(n) => {
                if self.can_run(n) && self.nodes[n].is_latched {
                    self.crash(n, false);
                    self.start(n);
                }
            }
            Fault::Drift(n, _) => self.nodes[n].clock.drift(self.now_ms, 0),
            Fault::Suspected(_) => self.control.suspected.retain(|&(by, _)| by != number),
            Fault::Evictions(n) => self.nodes[n].evicting -= 1,
            Fault::Late(n) => self.nodes[n].late -= 1,
            Fault::Leaderless => self.leaderless -= 1,
            Fault::WrongProposals => self.control.wrong -= 1,
            Fault::Jump(..) | Fault::Reset(_) | Fault::Leave(_) | Fault::Join => {}
        }
    }

    /// It does what it had to do meanwhile.
    fn wake(&mut self, n: usize) {
        self.nodes[n].pauses -= 1;
        if self.nodes[n].pauses == 0 {
            for work in std::mem::take(&mut self.nodes[n].backlog) {
                self.work(0, n, work);
            }
        }
    }

    fn cut(&mut self, fault: Fault, is_cut: bool) {
        let mut both = |a: usize, b: usize| {
            self.network.cut(a, b, is_cut);
            self.network.cut(b, a, is_cut);
        };
        match fault {
            Fault::Isolate(n) => (0..ENDS)
                .filter(|&end| end != n)
                .for_each(|end| both(n, end)),
            Fault::Apart(a, b) => both(a, b),
            Fault::Bridge(n, other) => (0..ENDS)
                .filter(|&end| end != n && end != other)
                .for_each(|end| both(n, end)),
            Fault::Split(mask) => {
                let side = |end: usize| mask >> end & 1;
                for a in CONTROL..ENDS {
                    for b in a + 1..ENDS {
                        if side(a) != side(b) {
                            both(a, b);
                        }
                    }
                }
            }
            Fault::OneWay(from, to) => self.network.cut(from, to, is_cut),
            _ => unreachable!("it cuts nothing"),
        }
    }

    /// Nothing fails any more, and whoever does not run is started.
    pub(crate) fn heal(&mut self) {
        note!(self, "all faults end");
        self.healed_ms = Some(self.now_ms);
        for number in std::mem::take(&mut self.active) {
            self.active.push(number);
            self.end_fault(number);
        }
        for n in 1..self.nodes.len() {
            if !self.nodes[n].is_running && !self.nodes[n].is_gone {
                self.start(n);
            }
        }
        self.control.has_operator = true;
    }
}
