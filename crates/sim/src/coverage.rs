//! What was seen how often: every kind of message, every rule of the protocol, every kind of fault. What no seed reaches the
//! simulator says nothing about.

use crate::plan::FAULTS;
use henge_cluster::replica::Body;
use std::fmt;

macro_rules! rules {
    ($($rule:ident = $name:literal,)*) => {
        /// What a rule of docs/replication.md does, where that can be told from outside.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[expect(missing_docs, reason = "each has its name beside it")]
        pub enum Rule { $($rule,)* }
        /// Their names, in the same order.
        pub const RULES: &[&str] = &[$($name,)*];
    };
}

rules! {
    StartedTerm = "1 a term is started",
    BasePulled = "3 the base is pulled",
    Opened = "3 a term is open",
    AlignedAsIs = "4 aligned without a copy",
    CopyBegan = "5 a copy begins",
    AlignedAgain = "4 an aligned replica is opened again",
    CopiedDifference = "5 a difference is installed",
    CopiedAll = "5 a full copy is installed",
    Filled = "5 a full copy has filled a table that had nothing",
    Emptied = "5 one that did not come to its end is gone",
    CopyInParts = "5 a copy has several parts",
    CopyBecameFull = "5 a difference becomes a full copy",
    CopyAgain = "5 a copy begins anew",
    CopyQueued = "5 a part of a copy waits for its turn",
    Gap = "6 a gap in the stream",
    NoRoomOnTheWay = "6 no room on the way to a follower",
    Committed = "7 committed by a quorum",
    CommittedInJoint = "7 committed by two quorums",
    Dropped = "8 dropped",
    DroppedForRoom = "8 dropped for room",
    NoRoomAtLeader = "8 no room, nothing may be dropped",
    NoRoomAtFollower = "8 no room at a follower",
    One = "9 answered at ONE",
    ReadAtOne = "9 read at ONE",
    Quorum = "9 answered at QUORUM",
    All = "9 answered at ALL",
    Refused = "9 who follows a later term refuses",
    ProbesTogether = "9 probes of several partitions together",
    EchoesUnnamed = "9 echoes of partitions that were not named",
    AcksTogether = "9 acks of several partitions together",
    Unknown = "10 unknown",
    NotStamped = "10 not stamped",
    Expired = "10 expired",
    Changing = "11 a change begins",
    Joint = "11 a change is joint",
    Final = "11 a change is final",
    Undone = "11 a change is given up",
    UndoneJoint = "11 a joint change is given up",
    Rested = "11 a leader rests for the next one",
    Vouched = "9 a read is shown as others vouch for it, and its machine is not told",
    Unvouched = "9 a read goes back to its machine, as too few vouch for it",
    WipedAsRemoved = "11 who was removed forgets",
    Forgot = "12 registered without memory",
    Remembers = "12 a voter again",
    Down = "12 Down",
    Up = "12 Up",
    ResetByLoss = "13 reset for lack of voters",
    WipedByReset = "13 wiped by a reset",
    SeedKept = "13 the seed keeps its table",
    Lost = "a loss is reported",
    LostUnknown = "a loss is reported as unknown",
    LostToReset = "a reset that nobody ordered is reported",
    LostAcknowledged = "a write that was acknowledged is reported as lost",
    Rejected = "the topology rejects a command",
    TornTail = "a crash loses what was not kept",
}

/// The kinds of messages, in the order of `message_kind`.
pub const MESSAGES: [&str; 13] = [
    "Fence",
    "Fenced",
    "Refused",
    "Open",
    "Aligned",
    "Pull",
    "Next",
    "Part",
    "Abort",
    "Append",
    "Beat",
    "Ack",
    "Probe and Echo",
];

/// Of which kind it is.
pub fn message_kind<E, V>(body: &Body<E, V>) -> usize {
    match body {
        Body::Fence { .. } => 0,
        Body::Fenced { .. } => 1,
        Body::Refused { .. } => 2,
        Body::Open { .. } => 3,
        Body::Aligned { .. } => 4,
        Body::Pull { .. } => 5,
        Body::Next { .. } => 6,
        Body::Part { .. } => 7,
        Body::Abort { .. } => 8,
        Body::Append { .. } => 9,
        Body::Beat { .. } => 10,
        Body::Ack { .. } => 11,
        Body::Probe { .. } | Body::Echo { .. } => 12,
    }
}

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Coverage {
    messages: [u64; MESSAGES.len()],
    rules: [u64; RULES.len()],
    faults: [u64; FAULTS.len()],
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            messages: [0; MESSAGES.len()],
            rules: [0; RULES.len()],
            faults: [0; FAULTS.len()],
        }
    }
}

impl Coverage {
    /// A message was received.
    pub fn message<E, V>(&mut self, body: &Body<E, V>) {
        self.messages[message_kind(body)] += 1;
    }

    /// A rule was followed.
    pub fn rule(&mut self, rule: Rule) {
        self.rules[rule as usize] += 1;
    }

    /// A fault of this kind took place.
    pub fn fault(&mut self, kind: usize) {
        self.faults[kind] += 1;
    }

    /// How many faults, and of how many kinds.
    pub fn faults(&self) -> (u64, usize) {
        let kinds = self.faults.iter().filter(|&&count| count > 0).count();
        (self.faults.iter().sum(), kinds)
    }

    /// Adds another one's.
    pub fn add(&mut self, other: &Self) {
        let add = |to: &mut [u64], from: &[u64]| {
            for (to, from) in to.iter_mut().zip(from) {
                *to += from;
            }
        };
        add(&mut self.messages, &other.messages);
        add(&mut self.rules, &other.rules);
        add(&mut self.faults, &other.faults);
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let of = |what, names: &'static [&'static str], counts: Vec<u64>| {
            let rows = names.iter().zip(counts);
            rows.map(move |(&name, count)| (what, name, count))
        };
        of("message", &MESSAGES, self.messages.to_vec())
            .chain(of("rule", RULES, self.rules.to_vec()))
            .chain(of("fault", &FAULTS, self.faults.to_vec()))
    }

    /// What was never seen.
    pub fn missing(&self) -> Vec<&'static str> {
        let never = self.rows().filter(|&(_, _, count)| count == 0);
        never.map(|(_, name, _)| name).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, name, count) in self.rows() {
            writeln!(f, "{what:8} {name:40} {count:12}")?;
        }
        Ok(())
    }
}
