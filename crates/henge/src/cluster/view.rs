//! What a node knows of its cluster at one moment, made for requests: who has each partition, and how that node is reached. It
//! is made anew with each change, and read without a lock.

use std::fmt;
use std::sync::Arc;

use henge_cluster::forming::ClusterId;
use henge_cluster::ring::NodeId;
use henge_cluster::topology::Epoch;
use henge_wire::{PARTITIONS, Partition, SLOTS};

use super::placing::Placing;
use super::settings::Settings;

/// A partition of this node.
const HERE: u16 = u16::MAX;
/// A partition that is nowhere yet.
const NOWHERE: u16 = u16::MAX - 1;

/// Slots of a partition.
pub(crate) const SLOTS_EACH: u16 = SLOTS / PARTITIONS;

/// How a node stands to its cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// It is in none, and waits for these things.
    Outside(Vec<String>),
    /// It is in one, and serves.
    Inside,
    /// It can be in none, until its operator changes something: what.
    Refused(String),
}

/// A member, as requests need it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) instance: u64,
    pub(crate) incarnation: u64,
    pub(crate) address: String,
    pub(crate) state: MemberState,
    /// This node gets no answer from it, whatever is agreed on.
    pub(crate) is_silent: bool,
    /// It has said that it ends: nothing more is asked of it, and what was is answered.
    pub(crate) has_left: bool,
    /// It is this node.
    pub(crate) is_me: bool,
}

/// How a member is, as the topology has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MemberState {
    Up,
    /// It runs, and is not known to be up to date.
    Aligning,
    Down,
    Leaving,
}

impl MemberState {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Up, Self::Aligning, Self::Down, Self::Leaving];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Aligning => "aligning",
            Self::Down => "down",
            Self::Leaving => "leaving",
        }
    }
}

impl Member {
    /// Whether it can be asked.
    pub(crate) fn is_reachable(&self) -> bool {
        self.state != MemberState::Down && !self.is_silent
    }

    /// Why it cannot be asked, if that is so: what follows its name.
    pub(crate) fn why_unreachable(&self) -> &'static str {
        match self.state {
            MemberState::Down => "is down",
            // It may be this node that is cut off: all others may hear it.
            _ => "does not answer this node",
        }
    }

    /// The name of a member as Redis has them: 40 hexadecimal digits, the same for as long as its data are.
    pub(crate) fn redis_id(&self) -> String {
        format!("{:024x}{:016x}", self.id.0, self.instance)
    }

    /// Its host and its port.
    pub(crate) fn host_and_port(&self) -> (&str, u16) {
        let (host, port) = self.address.rsplit_once(':').unwrap_or((&self.address, ""));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (host, port.parse().unwrap_or(0))
    }
}

/// Where a partition is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner<'a> {
    Here,
    There(&'a Arc<Member>),
    Nowhere,
}

/// See the head of the file.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) epoch: u32,
    pub(crate) standing: Standing,
    /// All members, this node included if it is one, by their numbers.
    pub(crate) members: Vec<Arc<Member>>,
    /// For each partition its member's place in the list, or one of the two above.
    owners: Box<[u16]>,
    /// Of which partitions this node has what some replica has acknowledged, whoever leads them; empty if of none.
    replicas: Box<[bool]>,
    /// The term of each partition; empty where none is known.
    terms: Box<[Epoch]>,
    /// The settings that hold for the whole cluster.
    pub(crate) settings: Arc<Settings>,
    /// How many replicas a partition has, where there are as many nodes; 0 where that is not known yet.
    pub(crate) replication: usize,
    pub(crate) placing: Arc<Placing>,
    /// All is here, and nobody else is asked.
    pub(crate) is_alone: bool,
}

impl View {
    /// A node that is a cluster by itself, or is about to be one.
    pub(crate) fn alone(cluster: Option<ClusterId>, replication: usize) -> Self {
        Self {
            cluster,
            epoch: 0,
            standing: Standing::Inside,
            members: Vec::new(),
            owners: vec![HERE; usize::from(PARTITIONS)].into(),
            replicas: Box::default(),
            terms: Box::default(),
            settings: Arc::default(),
            replication,
            placing: Arc::default(),
            is_alone: true,
        }
    }

    /// A node that is in no cluster, or does not know yet what is where.
    pub(crate) fn outside(standing: Standing) -> Self {
        Self {
            cluster: None,
            epoch: 0,
            standing,
            members: Vec::new(),
            owners: vec![NOWHERE; usize::from(PARTITIONS)].into(),
            replicas: Box::default(),
            terms: Box::default(),
            settings: Arc::default(),
            replication: 0,
            placing: Arc::default(),
            is_alone: false,
        }
    }

    /// Of a cluster; `owner` names the member that has a partition.
    pub(crate) fn of(
        cluster: ClusterId,
        epoch: u32,
        members: Vec<Arc<Member>>,
        owner: impl Fn(Partition) -> Option<NodeId>,
    ) -> Self {
        let place = |id: NodeId| members.binary_search_by_key(&id, |member| member.id).ok();
        let owners = Partition::all().map(|partition| match owner(partition).and_then(place) {
            Some(at) if members[at].is_me => HERE,
            Some(at) => at as u16,
            None => NOWHERE,
        });
        let owners: Box<[u16]> = owners.collect();
        let is_alone = members.len() == 1 && owners.iter().all(|&owner| owner == HERE);
        Self {
            cluster: Some(cluster),
            epoch,
            standing: Standing::Inside,
            members,
            owners,
            replicas: Box::default(),
            terms: Box::default(),
            settings: Arc::default(),
            replication: 0,
            placing: Arc::default(),
            is_alone,
        }
    }

    /// The same with the settings of its cluster.
    #[must_use]
    pub(crate) fn with(self, settings: Arc<Settings>) -> Self {
        Self { settings, ..self }
    }

    /// The same with how much its members hold.
    #[must_use]
    pub(crate) fn with_placing(self, placing: Placing) -> Self {
        let placing = Arc::new(placing);
        Self { placing, ..self }
    }

    /// The same with the terms of its partitions.
    #[must_use]
    pub(crate) fn with_terms(self, term: impl Fn(Partition) -> Epoch) -> Self {
        let terms = Partition::all().map(term).collect();
        Self { terms, ..self }
    }

    /// The term of a partition; 0 where none is known.
    pub(crate) fn term(&self, partition: Partition) -> Epoch {
        let place = usize::from(partition.number());
        self.terms.get(place).copied().unwrap_or(0)
    }

    /// The same with how many replicas a partition has, and of which this node has one.
    #[must_use]
    pub(crate) fn with_replicas(self, replication: usize, has: impl Fn(Partition) -> bool) -> Self {
        let replicas = Partition::all().map(has).collect();
        Self {
            replicas,
            replication,
            ..self
        }
    }

    /// Whether this node has a replica of a partition.
    #[inline]
    pub(crate) fn has_replica(&self, partition: Partition) -> bool {
        let place = usize::from(partition.number());
        self.replicas.get(place).is_some_and(|has| *has)
    }

    /// Who has a partition.
    #[inline]
    pub(crate) fn owner(&self, partition: Partition) -> Owner<'_> {
        match self.owners[usize::from(partition.number())] {
            HERE => Owner::Here,
            NOWHERE => Owner::Nowhere,
            at => Owner::There(&self.members[usize::from(at)]),
        }
    }

    /// This node, if it is a member.
    pub(crate) fn me(&self) -> Option<&Arc<Member>> {
        self.members.iter().find(|member| member.is_me)
    }

    /// The member that has a partition, this node included.
    pub(crate) fn holder(&self, partition: Partition) -> Option<&Arc<Member>> {
        match self.owner(partition) {
            Owner::Here => self.me(),
            Owner::There(member) => Some(member),
            Owner::Nowhere => None,
        }
    }

    /// Whether a member has any partition.
    pub(crate) fn has_some(&self, member: &Member) -> bool {
        let holds = |partition| {
            self.holder(partition)
                .is_some_and(|one| one.id == member.id)
        };
        (0..PARTITIONS).filter_map(Partition::new).any(holds)
    }

    /// Whether this node hears from so many that a quorum may be among them. Without that no partition is led that it knows of.
    pub(crate) fn reaches_majority(&self) -> bool {
        let heard = self.members.iter();
        let heard = heard.filter(|member| member.is_me || member.is_reachable());
        2 * heard.count() > self.members.len()
    }

    /// Whether another node leads a partition when its leader is lost. Else there is nobody to wait for, and nobody else who could have
    /// taken over from a node that hears from none.
    pub(crate) fn fails_over(&self) -> bool {
        self.replication.min(self.members.len()) > 1
    }

    /// Whether this node hears from too few for another to take over a partition, as far as it would hear of that.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.fails_over() && !self.reaches_majority()
    }

    /// Runs of partitions with one holder: the first, the last, and who it is.
    pub(crate) fn runs(&self) -> Vec<(Partition, Partition, &Arc<Member>)> {
        let mut runs: Vec<(Partition, Partition, &Arc<Member>)> = Vec::new();
        for partition in Partition::all() {
            let Some(member) = self.holder(partition) else {
                continue;
            };
            match runs.last_mut() {
                Some((_, last, before))
                    if before.id == member.id && last.number() + 1 == partition.number() =>
                {
                    *last = partition;
                }
                _ => runs.push((partition, partition, member)),
            }
        }
        runs
    }

    /// Why a key cannot be served that is nowhere.
    pub(crate) fn why_nowhere(&self) -> Nowhere<'_> {
        Nowhere(&self.standing)
    }
}

/// Says why a node serves no key, or not this one.
pub(crate) struct Nowhere<'a>(&'a Standing);

impl fmt::Display for Nowhere<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Standing::Inside => f.write_str("nobody leads this key's partition now"),
            Standing::Refused(why) => write!(f, "this node is in no cluster: {why}"),
            Standing::Outside(waits) if waits.is_empty() => {
                f.write_str("this node is not in its cluster yet")
            }
            Standing::Outside(waits) => write!(
                f,
                "this node is not in its cluster yet: {}",
                waits.join("; ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, is_me: bool) -> Arc<Member> {
        Arc::new(Member {
            id: NodeId(id),
            name: format!("node{id}"),
            instance: id * 100,
            incarnation: 1,
            address: format!("[::1]:{}", 8080 + id),
            state: MemberState::Up,
            is_silent: false,
            has_left: false,
            is_me,
        })
    }

    #[test]
    fn partitions_have_their_owners() {
        let members = vec![member(1, false), member(4, true)];
        let view = View::of(ClusterId(7), 3, members, |partition| {
            match partition.number() {
                0..100 => Some(NodeId(1)),
                100..1000 => Some(NodeId(4)),
                // One that was removed, and none.
                1000 => Some(NodeId(9)),
                _ => None,
            }
        });
        let at = |number| Partition::new(number).expect("there is such a partition");
        assert!(!view.is_alone);
        assert!(matches!(view.owner(at(99)), Owner::There(member) if member.id == NodeId(1)));
        assert_eq!(view.owner(at(100)), Owner::Here);
        assert_eq!(view.owner(at(1000)), Owner::Nowhere);
        assert_eq!(view.owner(at(1023)), Owner::Nowhere);
        let runs: Vec<_> = view
            .runs()
            .iter()
            .map(|(first, last, member)| (first.number(), last.number(), member.id.0))
            .collect();
        assert_eq!(runs, [(0, 99, 1), (100, 999, 4)]);
        assert_eq!(view.members[0].host_and_port(), ("::1", 8081));
        assert_eq!(view.members[0].redis_id().len(), 40);
    }

    #[test]
    fn a_node_by_itself_has_all() {
        let view = View::of(ClusterId(7), 3, vec![member(2, true)], |_| Some(NodeId(2)));
        assert!(view.is_alone && View::alone(None, 1).is_alone);
        let outside = View::outside(Standing::Outside(vec!["nobody answers".to_owned()]));
        assert!(Partition::all().all(|partition| outside.owner(partition) == Owner::Nowhere));
        assert_eq!(
            outside.why_nowhere().to_string(),
            "this node is not in its cluster yet: nobody answers"
        );
    }
}
