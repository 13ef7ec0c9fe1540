//! Connections between Rafts in one process, which a test cuts, and what it waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::super::types::Compaction;
use super::super::{Ask, AskError, Consensus};
use super::{Directory, address};

/// Nobody waits for so long unless something is wrong.
pub(super) const DEADLINE: Duration = Duration::from_mins(1);

#[derive(Default)]
struct Ends {
    open: BTreeMap<u64, Consensus>,
    /// Who hears nobody, and whom nobody hears.
    cut: BTreeSet<u64>,
    snapshots: usize,
}

#[derive(Clone, Default)]
pub(super) struct Wires(Arc<Mutex<Ends>>);

/// The wires, as one node has them.
#[derive(Clone)]
struct Own(u64, Wires);

impl Ask for Own {
    async fn ask(
        &self,
        to: u64,
        at: String,
        question: Vec<u8>,
        _: Duration,
    ) -> Result<Vec<u8>, AskError> {
        assert_eq!(at, address(to));
        let failed = |is_unreachable, text: &str| AskError {
            is_unreachable,
            text: text.to_owned(),
        };
        let is_cut = || {
            let ends = self.1.0.lock();
            [self.0, to].iter().any(|id| ends.cut.contains(id))
        };
        let open = self.1.0.lock().open.get(&to).cloned();
        let open = open.filter(|_| !is_cut());
        let open = open.ok_or_else(|| failed(true, "nobody is there"))?;
        self.1.0.lock().snapshots += usize::from(question[1] == 3);
        let answered = open.answer(&question).await;
        if is_cut() {
            return Err(failed(false, "the answer is lost"));
        }
        answered.map_err(|error| failed(false, &error.to_string()))
    }
}

/// Nodes by their Raft ids, each with its directory.
#[derive(Default)]
pub(super) struct Cluster {
    wires: Wires,
    directories: BTreeMap<u64, Directory>,
    pub(super) nodes: BTreeMap<u64, Consensus>,
    compaction: Compaction,
}

impl Cluster {
    pub(super) fn new(compaction: Compaction) -> Self {
        Self {
            compaction,
            ..Self::default()
        }
    }

    /// Starts a node, for the first time or again.
    pub(super) async fn start(&mut self, id: u64) -> Consensus {
        let directory = self.directories.entry(id).or_insert_with(Directory::new);
        let links = Own(id, self.wires.clone());
        let opened = Consensus::open_with(directory.path(), id, links, self.compaction);
        let node = opened.await.expect("it opens");
        node.set_may_lead(true).await;
        self.wires.0.lock().open.insert(id, node.clone());
        self.nodes.insert(id, node.clone());
        node
    }

    /// Stops a node.
    pub(super) async fn stop(&mut self, id: u64) {
        self.wires.0.lock().open.remove(&id);
        self.nodes.remove(&id).expect("it runs").shutdown().await;
    }

    pub(super) fn directory(&self, id: u64) -> &Directory {
        &self.directories[&id]
    }

    /// Cuts a node off from all others, or mends that.
    pub(super) fn cut(&self, id: u64, is_cut: bool) {
        let mut ends = self.wires.0.lock();
        if is_cut {
            ends.cut.insert(id);
        } else {
            ends.cut.remove(&id);
        }
    }

    /// How many snapshots were sent.
    pub(super) fn snapshots(&self) -> usize {
        self.wires.0.lock().snapshots
    }

    /// Waits until one of those that are not cut off leads, as all of them know.
    pub(super) async fn leader(&self) -> Consensus {
        let is_cut = |id| self.wires.0.lock().cut.contains(&id);
        let nodes: Vec<&Consensus> = self.nodes.values().collect();
        let nodes = nodes.into_iter().filter(|node| !is_cut(node.instance()));
        let nodes: Vec<&Consensus> = nodes.collect();
        let mut leaders: Vec<_> = nodes.iter().map(|node| node.leaders()).collect();
        let found = async {
            loop {
                let first = nodes[0].leader();
                let is_same = nodes.iter().all(|node| node.leader() == first);
                let leader = nodes.iter().find(|node| first == Some(node.instance()));
                if let Some(leader) = leader.filter(|_| is_same) {
                    return Consensus::clone(leader);
                }
                // One of them will know of another leader, or has not heard of it for a while.
                for leader in &mut leaders {
                    let changed = tokio::time::timeout(Duration::from_millis(50), leader.changed());
                    let _ = changed.await;
                }
            }
        };
        let found = tokio::time::timeout(DEADLINE, found).await;
        found.expect("somebody leads in time")
    }
}

/// Waits until what a node has agreed on is so.
pub(super) async fn until(
    node: &Consensus,
    mut is: impl FnMut(&henge_cluster::agreed::Agreed) -> bool,
) {
    let mut watch = node.watch();
    let reached = tokio::time::timeout(DEADLINE, watch.wait_for(|agreed| is(agreed))).await;
    reached
        .expect("it is so in time")
        .expect("the node is there");
}
