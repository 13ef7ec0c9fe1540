//! Which fault comes when, to whom and for how long, all of it from a seed. It does nothing to anybody: `conduct` carries it out.

use std::fmt;
use std::time::Duration;

use crate::cli::bench::Random;

/// What can be done to nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The process is killed, and started again.
    Kill,
    /// It is told to end, and started again.
    Restart,
    /// It is killed, its directory is thrown away, and it is started again.
    Wipe,
    /// It is stopped, and goes on.
    Pause,
    /// What it and others send to each other is lost.
    Partition,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [
        Self::Kill,
        Self::Restart,
        Self::Wipe,
        Self::Pause,
        Self::Partition,
    ];

    /// The name of its option, and in reports.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Wipe => "wipe",
            Self::Pause => "pause",
            Self::Partition => "partition",
        }
    }

    /// How long it lasts, at least and at most, in milliseconds. From what nobody notices to what outlasts every deadline between nodes,
    /// which are 5 s at the most.
    const fn lasts_ms(self) -> (u64, u64) {
        match self {
            Self::Kill | Self::Wipe => (100, 6_000),
            // Who plans it starts it again soon.
            Self::Restart => (0, 2_000),
            Self::Pause => (100, 7_000),
            Self::Partition => (500, 8_000),
        }
    }
}

/// How nodes are cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// From all others, both ways.
    Off,
    /// What the others send to them is lost.
    Deaf,
    /// What they send to the others is lost.
    Mute,
    /// From one other node, both ways.
    Pair,
}

impl Cut {
    const ALL: [Self; 4] = [Self::Off, Self::Deaf, Self::Mute, Self::Pair];
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "cut off from all others",
            Self::Deaf => "hears nothing of the others",
            Self::Mute => "not heard by the others",
            Self::Pair => "cut off from one other",
        })
    }
}

/// Who it happens to first. Others follow in the order of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    /// Whoever leads what all agree on.
    Leader,
    /// The node with this number, from 0.
    Node(usize),
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// How long all is well before it.
    pub(super) calm: Duration,
    pub(super) kind: Kind,
    pub(super) victim: Victim,
    /// How many nodes it happens to.
    pub(super) count: usize,
    pub(super) lasts: Duration,
    /// How they are cut off, if they are.
    pub(super) cut: Cut,
}

/// Faults without an end, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    random: Random,
    kinds: Vec<Kind>,
    /// Those that have not had their turn, so that a short run has all kinds.
    left: Vec<Kind>,
    nodes: u64,
    at_once: u64,
}

/// The stream of random numbers of a seed that is for faults; the clients' are their numbers.
const STREAM: u64 = 1 << 32;

/// How long all is well between two faults, in milliseconds: enough that what one did is seen before the next, and little enough that an
/// hour has hundreds of them.
const CALM_MS: (u64, u64) = (800, 3_000);

impl Schedule {
    /// Of these kinds, for so many nodes, at most so many at once; none without kinds.
    pub(super) fn new(seed: u64, kinds: &[Kind], nodes: usize, at_once: usize) -> Option<Self> {
        (!kinds.is_empty() && nodes > 0 && at_once > 0).then(|| Self {
            random: Random::new(seed, STREAM),
            kinds: kinds.to_vec(),
            left: Vec::new(),
            nodes: nodes as u64,
            at_once: at_once as u64,
        })
    }

    fn between(&mut self, (least, most): (u64, u64)) -> Duration {
        Duration::from_millis(least + self.random.below(most - least + 1))
    }

    /// The next fault.
    pub(super) fn next(&mut self) -> Fault {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
        }
        let turn = self.random.below(self.left.len() as u64) as usize;
        let kind = self.left.swap_remove(turn);
        // The control leader more often than by chance, as it has the most to lose.
        let victim = if self.random.below(3) == 0 {
            Victim::Leader
        } else {
            Victim::Node(self.random.below(self.nodes) as usize)
        };
        Fault {
            calm: self.between(CALM_MS),
            kind,
            victim,
            count: 1 + self.random.below(self.at_once) as usize,
            lasts: self.between(kind.lasts_ms()),
            cut: Cut::ALL[self.random.below(Cut::ALL.len() as u64) as usize],
        }
    }
}

/// What became of a fault. Times are in microseconds of the run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Happened {
    pub(super) kind: Kind,
    /// The numbers of the nodes, from 0.
    pub(super) nodes: Vec<usize>,
    /// The one of them that led what all agree on.
    pub(super) leader: Option<usize>,
    /// What else is to be said of it.
    pub(super) how: String,
    pub(super) began: u64,
    /// When nothing more was done to the nodes.
    pub(super) ended: u64,
    /// When all nodes were members that reach each other again; none if they never were.
    pub(super) whole: Option<u64>,
}

impl Happened {
    /// Until when its consequences are its own.
    pub(super) fn until(&self) -> u64 {
        self.whole.unwrap_or(u64::MAX)
    }

    /// It in words.
    pub(super) fn what(&self) -> String {
        let nodes: Vec<String> = self
            .nodes
            .iter()
            .map(|n| {
                let leads = if self.leader == Some(*n) {
                    " (control leader)"
                } else {
                    ""
                };
                format!("node{}{leads}", n + 1)
            })
            .collect();
        let nodes = nodes.join(", ");
        let kind = self.kind.name();
        match &*self.how {
            "" => format!("{kind} {nodes}"),
            how => format!("{kind} {nodes}: {how}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_schedule() {
        let faults = |seed| {
            let schedule = Schedule::new(seed, &Kind::ALL, 5, 2);
            let mut schedule = schedule.expect("there are kinds");
            (0..1_000).map(|_| schedule.next()).collect::<Vec<Fault>>()
        };
        assert_eq!(faults(3), faults(3));
        assert_ne!(faults(3), faults(4));
        let faults = faults(3);
        for five in faults.chunks(5) {
            let mut kinds: Vec<Kind> = five.iter().map(|fault| fault.kind).collect();
            kinds.sort_unstable();
            assert_eq!(kinds, Kind::ALL, "each has its turn");
        }
        for fault in &faults {
            assert!((1..=2).contains(&fault.count));
            assert!(!matches!(fault.victim, Victim::Node(5..)));
            let (least, most) = fault.kind.lasts_ms();
            assert!((least..=most).contains(&(fault.lasts.as_millis() as u64)));
        }
        for victim in [Victim::Leader, Victim::Node(0), Victim::Node(4)] {
            assert!(faults.iter().any(|fault| fault.victim == victim));
        }
        for cut in Cut::ALL {
            assert!(faults.iter().any(|fault| fault.cut == cut));
        }
    }

    #[test]
    fn nothing_happens_where_nothing_is_asked_for() {
        assert!(Schedule::new(1, &[], 3, 1).is_none());
    }
}
