//! What an operator may do when a majority of Raft's voters is lost for good: make a new cluster of one survivor, from its file,
//! while its node is stopped. Whatever its log has counts as agreed on, whether it was or not; nobody is left who could tell. It
//! does not know whether the others are lost, and asks nobody: if they are not, there are two clusters afterwards.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Bound;
use std::path::Path;

use henge_cluster::agreed::{Agreed, Command, Member, Rejected};
use henge_cluster::forming::ClusterId;
use henge_cluster::ring::NodeId;
use henge_wire::Partition;
use openraft::{CommittedLeaderId, EntryPayload};

use super::file::{FileError, Kept, RaftFile};
use super::store;
use super::types::{LogId, Membership, SnapshotMeta, Vote};

/// What a recovery makes of the cluster that was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Recovered {
    /// The survivor.
    pub(crate) survivor: NodeId,
    /// What it is called.
    pub(crate) name: String,
    /// How many partitions it had. The keys of all others are lost.
    pub(crate) partitions: usize,
    /// The cluster that was.
    pub(crate) before: ClusterId,
    /// Who was in it too, by name: they have to begin with an empty directory if they are to join.
    pub(crate) lost: Vec<Member>,
}

/// Why nothing has been done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum RecoverError {
    /// The file of the log cannot be used.
    File(FileError),
    /// The directory's node has never been in a cluster.
    NoCluster,
    /// The directory's node was in a cluster, and is no member any more.
    NoMember,
    /// What is agreed on does not allow it.
    Rejected(Rejected),
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::NoCluster => f.write_str("the node of this directory was in no cluster"),
            Self::NoMember => f.write_str("the node of this directory is no member of its cluster"),
            Self::Rejected(rejected) => rejected.fmt(f),
        }
    }
}

impl std::error::Error for RecoverError {}

impl From<FileError> for RecoverError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// A recovery that is found to be possible. Dropped, it has changed nothing.
pub(crate) struct Recovery {
    file: RaftFile,
    vote: Vote,
    kept: Kept,
    pub(crate) recovered: Recovered,
}

impl Recovery {
    /// Makes the new cluster. If it fails nothing has changed.
    pub(crate) fn carry_out(self) -> Result<Recovered, RecoverError> {
        self.file.begin_anew(&self.vote, &self.kept)?;
        Ok(self.recovered)
    }
}

/// All that a log has, as if all of it were agreed on.
#[derive(Default)]
pub(super) struct All {
    pub(super) agreed: Agreed,
    /// Up to where a snapshot has it.
    pub(super) applied: Option<LogId>,
    /// Who has ever voted, as far as that is still there.
    pub(super) voters: BTreeSet<u64>,
}

impl All {
    pub(super) fn of(file: &RaftFile) -> Result<Self, FileError> {
        let mut all = file.snapshot()?.map_or_else(Self::default, |kept| Self {
            agreed: kept.agreed,
            applied: kept.meta.last_log_id,
            voters: kept.meta.last_membership.voter_ids().collect(),
        });
        let behind = all
            .applied
            .map_or(Bound::Unbounded, |id| Bound::Excluded(id.index));
        for entry in file.entries((behind, Bound::Unbounded), usize::MAX)? {
            match entry.payload {
                EntryPayload::Normal(command) => {
                    // What was rejected would have been so in the cluster that was.
                    let _ = all.agreed.apply(&command);
                }
                EntryPayload::Membership(membership) => all.voters.extend(membership.voter_ids()),
                EntryPayload::Blank => {}
            }
        }
        Ok(all)
    }
}

/// Finds out what a new cluster of the node of a directory would be.
pub(crate) fn prepare(directory: &Path, cluster: ClusterId) -> Result<Recovery, RecoverError> {
    let (file, instance) = RaftFile::existing(directory)?.ok_or(RecoverError::NoCluster)?;
    let All {
        mut agreed,
        applied,
        ..
    } = All::of(&file)?;
    let before = agreed.cluster().ok_or(RecoverError::NoCluster)?;
    let found = agreed.of_instance(instance);
    let (survivor, member) = found.ok_or(RecoverError::NoMember)?;
    let (name, address) = (member.name.clone(), member.address.clone());
    let topology = agreed.topology();
    let is_its = |partition: &Partition| {
        let placement = topology.placement(*partition);
        let leader = placement.leader.map(|(leader, _)| leader);
        leader.or(placement.old.first().copied()) == Some(survivor)
    };
    let partitions = Partition::all().filter(is_its).count();
    let others = agreed.members().iter().filter(|(id, _)| **id != survivor);
    let mut lost: Vec<Member> = others.map(|(_, member)| member.clone()).collect();
    // The numbers say in which order they came, which differs from one forming to the next.
    lost.sort_by(|a, b| (&a.name, &a.address).cmp(&(&b.name, &b.address)));
    let command = Command::Recover { cluster, survivor };
    agreed.apply(&command).map_err(RecoverError::Rejected)?;
    // Above all that there was, so that no leader of before counts.
    let newest = file.ends()?.last.max(applied);
    let vote = file.vote()?.map_or(0, |vote| vote.leader_id().term);
    let term = newest.map_or(0, |id| id.leader_id.term).max(vote) + 1;
    let id = LogId::new(
        CommittedLeaderId::new(term, instance),
        newest.map_or(0, |id| id.index + 1),
    );
    let nodes = store::alone(instance, address);
    let meta = SnapshotMeta {
        last_log_id: Some(id),
        last_membership: Membership::new(Some(id), nodes.into()),
        snapshot_id: id.index.to_string(),
    };
    Ok(Recovery {
        file,
        vote: Vote::new(term, instance),
        kept: Kept { meta, agreed },
        recovered: Recovered {
            survivor,
            name,
            partitions,
            before,
            lost,
        },
    })
}
