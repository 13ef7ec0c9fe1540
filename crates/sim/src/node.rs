//! A node as the simulator keeps it: replicas with their tables, a carrier, a clock and a disk, and what it has been told of the
//! topology.

use crate::carrier::Carrier;
use crate::clients::Operation;
use crate::ghost::Watched;
use crate::plan::Persistence;
use crate::store::Store;
use henge_cluster::replica::{Loss, Replica, RequestId, View, Written};
use henge_cluster::ring::NodeId;
use henge_cluster::topology::{Epoch, Incarnation};
use std::collections::BTreeSet;
use std::rc::Rc;

/// What a node does at some time, in one of its starts.
pub enum Work<S: Store> {
    /// A frame has come, from a node in a start of it.
    Frame(NodeId, Incarnation, FrameOf<S>),
    /// What replicas have said is sent.
    Flush,
    /// Time has passed.
    Tick,
    /// It is the turn of a partition's copy to a node.
    Turn(usize, NodeId),
    /// What tables have written is handed to the disk.
    Hand,
    /// A batch is on the disk.
    OnDisk(Vec<Batch>),
    /// What is written is synced, later than it had to be.
    Sync,
    /// It reports about itself.
    Report,
    /// The topology has come to this epoch.
    See(Epoch),
    /// A client asks.
    Request(usize, Box<Operation>),
    /// Nobody waits for this request any more.
    Expire(RequestId),
}

/// A frame of a table's types.
pub type FrameOf<S> = henge_cluster::carrier::FrameOf<<S as Store>::Kind>;

/// What a partition has handed to the disk.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// The partition.
    pub partition: usize,
    /// Its number.
    pub number: u64,
    /// How far it is written with that.
    pub written: Written,
}

/// A replica and its table.
pub struct Slot<S: Store> {
    /// None while the node does not run.
    pub replica: Option<Replica<S::Kind>>,
    /// It.
    pub table: Watched<S>,
    /// What it was told last.
    pub view: Rc<View>,
    /// The starts of others that it was told of in this term.
    pub starts: BTreeSet<(NodeId, Incarnation)>,
    /// How far was handed to the disk.
    pub handed: Written,
    /// How far is kept, as it was told.
    pub kept: Written,
    /// The copy that it has asked for.
    pub pull: Option<u64>,
    /// What it has given up, and may yet have survived.
    pub unsettled: Vec<Loss>,
    /// Copies that it sends: to whom, and whether the last part was of a full one.
    pub parts: Vec<(NodeId, u64, bool)>,
}

/// A clock that is not right.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    base_ms: u64,
    since_ms: u64,
    gains: i64,
}

impl Clock {
    /// One that shows a time now.
    pub fn new(now_ms: u64, shows_ms: u64) -> Self {
        Self {
            base_ms: shows_ms,
            since_ms: now_ms,
            gains: 0,
        }
    }

    /// What it shows.
    pub fn read(&self, now_ms: u64) -> u64 {
        let passed = (now_ms - self.since_ms) as i64;
        (self.base_ms as i64 + passed * (1_000 + self.gains) / 1_000).max(0) as u64
    }

    /// What it gains, of a thousand.
    pub fn gains(&self) -> i64 {
        self.gains
    }

    /// It jumps.
    pub fn jump(&mut self, now_ms: u64, by_ms: i64) {
        let shows = self.read(now_ms) as i64 + by_ms;
        self.base_ms = shows.max(0) as u64;
        self.since_ms = now_ms;
    }

    /// It gains so much of a thousand from now on.
    pub fn drift(&mut self, now_ms: u64, gains: i64) {
        self.jump(now_ms, 0);
        self.gains = gains;
    }
}

/// See the head of the file.
pub struct Node<S: Store> {
    /// Its name.
    pub id: NodeId,
    /// Its present or last start.
    pub incarnation: Incarnation,
    /// It runs.
    pub is_running: bool,
    /// It never comes back.
    pub is_gone: bool,
    /// Its memory was lost before this start.
    pub has_lost_memory: bool,
    /// It has seen that it is registered, with its loss if there was one. One that is not told yet must not be forgotten by the
    /// next start, so it is on its disk.
    pub is_registered: bool,
    /// By partitions.
    pub slots: Vec<Slot<S>>,
    /// What is to be sent.
    pub carrier: Carrier<S>,
    /// It.
    pub clock: Clock,
    /// The epoch of the topology that it knows.
    pub epoch: Epoch,
    /// What it promises rests on this.
    pub persistence: Persistence,
    /// So many pauses are on it; what is to be done waits.
    pub pauses: u32,
    /// What waits.
    pub backlog: Vec<Work<S>>,
    /// The fault that it is down by.
    pub down_by: Option<usize>,
    /// Its disk takes so many times as long.
    pub disk_factor: u64,
    /// Its disk has refused something: nothing is kept any more in this start.
    pub is_latched: bool,
    /// A batch is under way.
    pub is_writing: bool,
    /// A flush is on its way.
    pub is_flushing: bool,
    /// Faults that keep the topology from it.
    pub late: u32,
    /// Faults that have it forget.
    pub evicting: u32,
    /// What it reports: terms in which it is aligned, and that it opened.
    pub aligned: Vec<Epoch>,
    /// See there.
    pub opened: Vec<Epoch>,
    /// And in which it has come to rest.
    pub rested: Vec<Epoch>,
}

impl<S: Store> Node<S> {
    /// One that has never run.
    pub fn new(id: usize, persistence: Persistence, slots: Vec<Slot<S>>) -> Self {
        let partitions = slots.len();
        Self {
            id: NodeId(id as u64),
            incarnation: 0,
            is_running: false,
            is_gone: false,
            has_lost_memory: false,
            is_registered: false,
            slots,
            carrier: Carrier::new(0, 0),
            clock: Clock::default(),
            epoch: 0,
            persistence,
            pauses: 0,
            backlog: Vec::new(),
            down_by: None,
            disk_factor: 1,
            is_latched: false,
            is_writing: false,
            is_flushing: false,
            late: 0,
            evicting: 0,
            aligned: vec![0; partitions],
            opened: vec![0; partitions],
            rested: vec![0; partitions],
        }
    }
}
