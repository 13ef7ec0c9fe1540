//! What a seed makes of a world before it begins: how many nodes, what disks, which faults when. Faults are drawn ahead and not
//! on the way, so that one can be left out and the others stay what they were; that is how a failure is made small.

use crate::network::Weather;
use henge_cluster::testing::random::Random;
use henge_cluster::topology::OnQuorumLoss;

/// Safety under faults lasts so long at least.
const SAFETY_MS: u64 = 1_600;
/// Where an outbox or a frame has little room it is up to so many bytes: some messages.
const FEW_BYTES: u64 = 2_000;
/// A seed that has seen too little goes on, up to here.
pub const LONGEST_SAFETY_MS: u64 = 30_000;

/// When a node has what it promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persistence {
    /// Synced.
    Always,
    /// Written to its file: the end of the machine may take it.
    Interval,
    /// Nothing outlives the process.
    Memory,
}

/// A story that is told with other faults than all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scenario {
    /// Everything.
    #[default]
    Any,
    /// All nodes are full and evict all the time, and are killed.
    FullCache,
}

/// What a fault does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The process of a node ends, and starts again at the end of the fault.
    Kill(usize),
    /// Its machine ends.
    PowerLoss(usize),
    /// It comes back with an empty disk.
    DiskLost(usize),
    /// It does nothing for a while.
    Pause(usize),
    /// No frame gets to it or from it.
    Isolate(usize),
    /// Nodes of this mask and the others do not hear each other.
    Split(u32),
    /// Nothing gets from one end to another; it does the other way.
    OneWay(usize, usize),
    /// Two nodes do not hear each other.
    Apart(usize, usize),
    /// A node hears another one, and nobody else; nor is it heard by others.
    Bridge(usize, usize),
    /// Frames are lost, repeated, overtaken.
    Storm(Weather),
    /// What is handed to its disk takes so many times as long.
    SlowDisk(usize, u64),
    /// Its disk takes nothing any more; it is started anew at the end.
    FullDisk(usize),
    /// Its clock jumps.
    Jump(usize, i64),
    /// Its clock gains so much, of a thousand.
    Drift(usize, i64),
    /// It is taken for dead.
    Suspected(usize),
    /// It forgets what it may, again and again.
    Evictions(usize),
    /// It hears of the topology late.
    Late(usize),
    /// Nobody proposes anything.
    Leaderless,
    /// All data of a partition is forgotten.
    Reset(usize),
    /// A node leaves.
    Leave(usize),
    /// A node joins.
    Join,
    /// What is proposed is wrong.
    WrongProposals,
}

/// The kinds of faults, in the order of [`Fault::kind`].
pub const FAULTS: [&str; 22] = [
    "kill",
    "power loss",
    "disk lost",
    "pause",
    "isolate",
    "split",
    "one way",
    "apart",
    "storm",
    "slow disk",
    "full disk",
    "clock jump",
    "clock drift",
    "false suspicion",
    "evictions",
    "late topology",
    "no control leader",
    "reset",
    "leave",
    "join",
    "wrong proposals",
    "bridge",
];

impl Fault {
    /// Its kind.
    pub fn kind(&self) -> usize {
        match self {
            Self::Kill(_) => 0,
            Self::PowerLoss(_) => 1,
            Self::DiskLost(_) => 2,
            Self::Pause(_) => 3,
            Self::Isolate(_) => 4,
            Self::Split(_) => 5,
            Self::OneWay(..) => 6,
            Self::Apart(..) => 7,
            Self::Storm(_) => 8,
            Self::SlowDisk(..) => 9,
            Self::FullDisk(_) => 10,
            Self::Jump(..) => 11,
            Self::Drift(..) => 12,
            Self::Suspected(_) => 13,
            Self::Evictions(_) => 14,
            Self::Late(_) => 15,
            Self::Leaderless => 16,
            Self::Reset(_) => 17,
            Self::Leave(_) => 18,
            Self::Join => 19,
            Self::WrongProposals => 20,
            Self::Bridge(..) => 21,
        }
    }

    fn draw(kind: usize, nodes: usize, partitions: usize, random: &mut Random) -> Self {
        let node = random.within(1, nodes as u64) as usize;
        let other = (node - 1 + random.within(1, nodes as u64 - 1) as usize) % nodes + 1;
        match kind {
            0 => Self::Kill(node),
            1 => Self::PowerLoss(node),
            2 => Self::DiskLost(node),
            3 => Self::Pause(node),
            4 => Self::Isolate(node),
            5 => Self::Split(random.below(1 << (nodes + 1)) as u32),
            6 if random.one_in(3) => Self::OneWay(node, 0),
            6 if random.one_in(3) => Self::OneWay(0, node),
            6 => Self::OneWay(node, other),
            // Who does not hear what is decided is a leader longer than it should be.
            7 if random.one_in(3) => Self::Apart(node, 0),
            7 => Self::Apart(node, other),
            8 => Self::Storm(Weather {
                lost: random.below(200),
                repeated: random.below(200),
                overtaken: random.below(500),
                slowest_ms: *random.of(&[5, 20, 60, 120, 400]),
            }),
            9 => Self::SlowDisk(node, random.within(5, 60)),
            10 => Self::FullDisk(node),
            11 => Self::Jump(node, random.within(0, 20_000) as i64 - 10_000),
            12 => Self::Drift(node, random.within(0, 600) as i64 - 300),
            13 => Self::Suspected(node),
            14 => Self::Evictions(node),
            15 => Self::Late(node),
            16 => Self::Leaderless,
            17 => Self::Reset(random.place(partitions)),
            18 => Self::Leave(node),
            19 => Self::Join,
            20 => Self::WrongProposals,
            // Who is led no more, and does not know it, may still be followed by one.
            _ => Self::Bridge(node, other),
        }
    }
}

/// A fault in its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// It begins.
    pub at_ms: u64,
    /// It ends so much later.
    pub for_ms: u64,
    /// What it is.
    pub fault: Fault,
}

/// See the head of the file.
#[derive(Clone, Debug)]
pub struct Plan {
    /// From which all follows.
    pub seed: u64,
    /// At the begin.
    pub nodes: usize,
    /// Replicas of a partition.
    pub replication: usize,
    /// Partitions that are looked at.
    pub partitions: usize,
    /// Keys of each.
    pub keys: usize,
    /// Records that a replica has room for, of each node.
    pub rooms: Vec<usize>,
    /// Records that are sent in a part of a copy.
    pub part_records: usize,
    /// Of each node.
    pub persistence: Vec<Persistence>,
    /// What becomes of a partition without a majority of voters.
    pub on_quorum_loss: OnQuorumLoss,
    /// A frame takes so long, from to.
    pub frame_ms: (u64, u64),
    /// What is stamped and waits to be sent to a node has so many bytes at most, and a frame so many.
    pub outbox_bytes: (usize, usize),
    /// A disk takes so long for a batch, from to.
    pub disk_ms: (u64, u64),
    /// Who is not heard of for so long is taken for dead.
    pub suspicion_ms: u64,
    /// Those who ask.
    pub clients: usize,
    /// Those of them who ask nothing, in a plan that was made smaller.
    pub silent: Vec<usize>,
    /// No more than so many operations are begun.
    pub operations: u64,
    /// They wait so long between two questions, at most.
    pub thinks_ms: u64,
    /// Faults, by their begins.
    pub faults: Vec<Event>,
    /// Safety under faults lasts so long, unless too little was seen.
    pub safety_ms: u64,
}

impl Plan {
    /// That of a seed.
    pub fn new(seed: u64, scenario: Scenario) -> Self {
        let mut random = Random::new(seed, 1);
        let r = &mut random;
        let nodes = r.within(3, 7) as usize;
        let replication = *r.of(&[1, 2, 2, 3, 3, 3, 3, 3, 4, 5]);
        let partitions = r.within(1, 4) as usize;
        let keys = *r.of(&[1, 2, 3, 3, 6, 12]) as usize;
        let is_full = scenario == Scenario::FullCache || r.one_in(3);
        // Where there is room for less than there is at others, it may be that a follower has none.
        let most = keys.div_ceil(2) as u64;
        let room = |r: &mut Random| if is_full { r.within(1, most) } else { 64 };
        let rooms = (0..16).map(|_| room(r) as usize).collect();
        let mixed = [
            Persistence::Always,
            Persistence::Interval,
            Persistence::Memory,
        ];
        let same = match r.below(10) {
            0..=4 => Some(Persistence::Always),
            5 | 6 => Some(Persistence::Interval),
            7 | 8 => Some(Persistence::Memory),
            _ => None,
        };
        let persistence = (0..16)
            .map(|_| same.unwrap_or_else(|| *r.of(&mixed)))
            .collect();
        let fastest = r.within(0, 3);
        // Of its own, so that the rest of the plan is what it was without.
        let mut carrier = Random::new(seed, 7);
        let mut outbox_bytes = || match carrier.below(4) {
            0 => carrier.within(1, FEW_BYTES) as usize,
            _ => 1 << 20,
        };
        let outbox_bytes = (outbox_bytes(), outbox_bytes());
        let mut plan = Self {
            seed,
            nodes,
            replication: (replication as usize).min(nodes),
            partitions,
            keys,
            rooms,
            part_records: *r.of(&[1, 2, 4, 64]) as usize,
            persistence,
            on_quorum_loss: if r.one_in(10) {
                OnQuorumLoss::Keep
            } else {
                OnQuorumLoss::Forget
            },
            frame_ms: (fastest, fastest + r.within(0, 8)),
            outbox_bytes,
            disk_ms: (r.within(0, 2), r.within(2, 8)),
            suspicion_ms: r.within(60, 200),
            clients: r.within(3, 8) as usize,
            silent: Vec::new(),
            operations: u64::MAX,
            thinks_ms: r.within(1, 12),
            faults: Vec::new(),
            safety_ms: SAFETY_MS,
        };
        plan.draw_faults(scenario);
        plan
    }

    /// Of some kinds, by chance: where all are there at once each hides what others would show.
    fn draw_faults(&mut self, scenario: Scenario) {
        let mut random = Random::new(self.seed, 2);
        let kinds: Vec<usize> = match scenario {
            Scenario::Any => {
                let all = 0..FAULTS.len();
                let few = random.within(4, FAULTS.len() as u64);
                let mut some: Vec<usize> = all
                    .filter(|_| random.below(FAULTS.len() as u64) < few)
                    .collect();
                while some.len() < 4 {
                    let kind = random.place(FAULTS.len());
                    if !some.contains(&kind) {
                        some.push(kind);
                    }
                }
                some
            }
            Scenario::FullCache => vec![0, 0, 0, 1, 3, 4, 8, 14, 14],
        };
        let mut at_ms = random.within(100, 250);
        let gap = random.within(40, 200);
        while at_ms < LONGEST_SAFETY_MS {
            let kind = *random.of(&kinds);
            let fault = Fault::draw(kind, self.nodes, self.partitions, &mut random);
            // Who is back at once is spoken to as the one that it was.
            let for_ms = if random.one_in(5) {
                random.within(1, 10)
            } else {
                random.within(20, 60) * random.within(1, 10)
            };
            self.faults.push(Event {
                at_ms,
                for_ms,
                fault,
            });
            // Whoever has seen too little by then needs time more than faults.
            let slower = 1 + (at_ms / 2_000).pow(2);
            at_ms += random.within(5, 2 * gap) * slower;
        }
    }
}
