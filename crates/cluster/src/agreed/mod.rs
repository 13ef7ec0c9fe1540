//! All that the nodes of a cluster agree on, as one machine over the commands that Raft orders: which cluster it is, who is who,
//! the topology, and the settings that hold for all. Whoever applies the same commands has the same. It decides nothing by
//! itself, and does not know how commands are ordered or kept; its form in text is what Raft's snapshots hold, and has a number.

mod error;
pub mod voters;

use crate::forming::{ClusterId, Who};
use crate::ring::{MAX_WEIGHT, NodeId};
use crate::topology::{self, Epoch, Incarnation, OnQuorumLoss, Topology};
pub use error::{Rejected, Text};
use henge_wire::peer::MAX_NAME_BYTES;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

/// The number of the form in text. One that is higher is not read.
pub const FORMAT: u32 = 1;
/// A cluster has no more members than partitions: one more could hold none.
pub const MAX_MEMBERS: usize = henge_wire::PARTITIONS as usize;
/// Names of nodes that are kept for ever, those of removed ones among them: a new one every ten minutes for a year.
pub const MAX_NAMES: usize = 65_536;
/// The highest number of a start: a million a second for nine years. A number comes from whoever starts, and the next one has
/// to be above it, so that one that is nobody's count would leave its name no more starts.
pub const MAX_INCARNATION: Incarnation = 1 << 48;
/// Settings are a few words for all; a cluster is no place to keep data in.
pub const MAX_SETTINGS: usize = 256;
/// Names and values of all settings together, in bytes: they are in every snapshot.
pub const MAX_SETTINGS_BYTES: usize = 64 << 10;

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Agreed {
    /// Comes first, so that a newer one is known as that before the rest makes no sense.
    format: Format,
    cluster: Option<ClusterId>,
    founders: BTreeSet<Who>,
    topology: Topology,
    members: BTreeMap<NodeId, Member>,
    /// Of every name that there ever was.
    names: BTreeMap<String, Named>,
    /// The last number that was given to a name.
    last_node: u64,
    settings: BTreeMap<String, Setting>,
    /// The last number that was given to a change of a setting: one that was removed and set again has no version of before.
    last_setting: u64,
}

/// A member, as others reach it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// What its operator calls it.
    pub name: String,
    /// Its Raft id, drawn with its data directory.
    pub instance: u64,
    /// Where others reach it.
    pub address: String,
}

/// What a name keeps for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Named {
    node: NodeId,
    /// The last that it had.
    instance: u64,
}

/// A setting of the whole cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Setting {
    /// Its value.
    pub value: String,
    /// The number of the change that made it, among all changes of settings; from 1.
    pub version: u64,
}

/// What Raft orders.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// The first of all: the cluster begins.
    Form {
        /// Its number.
        cluster: ClusterId,
        /// Who is to be in before partitions are placed.
        founders: BTreeSet<Who>,
        /// Replicas of a partition, at least 1.
        replication: usize,
    },
    /// A process has started, for the first time or again. Its name gets a [`NodeId`], and keeps it for ever.
    Start {
        /// Its name, and its Raft id. A name that had another Raft id before has lost its memory, whatever it says.
        who: Who,
        /// Where others reach it.
        address: String,
        /// Above [`Topology::newest_start`], and at most [`MAX_INCARNATION`].
        incarnation: Incarnation,
        /// It may lack what it has promised.
        has_lost_memory: bool,
        /// How much it should hold beside others, 1 to [`MAX_WEIGHT`].
        weight: u32,
        /// What fails together with others of the same number.
        zone: Option<u32>,
    },
    /// A change of the topology: any but [`topology::Command::Register`], which is a part of a start. Who is removed there is
    /// no member any more.
    Topology(topology::Command),
    /// A setting of the whole cluster.
    Set {
        /// Which.
        name: String,
        /// None removes it.
        value: Option<String>,
        /// The version that it must have for that; 0 means that there is none.
        expected: Option<u64>,
    },
    /// An operator has said that all others are lost for good: another cluster begins, of one member, which holds every partition
    /// in a new generation.
    Recover {
        /// The number of the new cluster.
        cluster: ClusterId,
        /// Who is left.
        survivor: NodeId,
    },
}

/// What a command did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// There is a cluster.
    Formed,
    /// The node has started, and is this one.
    Started(NodeId),
    /// The topology has changed, and this is its state.
    Epoch(Epoch),
    /// The setting has this version, 0 if it is removed.
    Set(u64),
}

impl Default for Agreed {
    fn default() -> Self {
        Self::new()
    }
}

impl Agreed {
    /// Before there is a cluster.
    pub fn new() -> Self {
        Self {
            format: Format,
            cluster: None,
            founders: BTreeSet::new(),
            topology: Topology::new(1, OnQuorumLoss::Forget),
            members: BTreeMap::new(),
            names: BTreeMap::new(),
            last_node: 0,
            settings: BTreeMap::new(),
            last_setting: 0,
        }
    }

    /// Which cluster it is; none before it is formed.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// With whom it was formed.
    pub fn founders(&self) -> &BTreeSet<Who> {
        &self.founders
    }

    /// Their states, and where partitions are.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The members.
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// The member of a name.
    pub fn named(&self, name: &str) -> Option<(NodeId, &Member)> {
        let node = self.names.get(name)?.node;
        Some((node, self.members.get(&node)?))
    }

    /// The member of a Raft id.
    pub fn of_instance(&self, instance: u64) -> Option<(NodeId, &Member)> {
        let found = self.members.iter().find(|(_, m)| m.instance == instance);
        found.map(|(&node, member)| (node, member))
    }

    /// The newest start of a name, removed or not, above which the incarnation of its next one has to be; 0 if there was none.
    pub fn newest_start(&self, name: &str) -> Incarnation {
        let named = self.names.get(name);
        named.map_or(0, |named| self.topology.newest_start(named.node))
    }

    /// The settings of the whole cluster.
    pub fn settings(&self) -> &BTreeMap<String, Setting> {
        &self.settings
    }

    /// Applies a command. If it is rejected nothing has changed.
    pub fn apply(&mut self, command: &Command) -> Result<Outcome, Rejected> {
        match command {
            Command::Form {
                cluster,
                founders,
                replication,
            } => self.form(*cluster, founders, *replication),
            _ if self.cluster.is_none() => Err(Rejected::NotFormed),
            Command::Start {
                who,
                address,
                incarnation,
                has_lost_memory,
                weight,
                zone,
            } => {
                let register = |node, is_another| topology::Command::Register {
                    node,
                    incarnation: *incarnation,
                    has_lost_memory: *has_lost_memory || is_another,
                    weight: *weight,
                    zone: *zone,
                };
                if !(1..=MAX_WEIGHT).contains(weight) {
                    return Err(Rejected::Weight(*weight));
                }
                if *incarnation > MAX_INCARNATION {
                    return Err(Rejected::Incarnation(*incarnation));
                }
                self.start(who, address, register)
            }
            Command::Topology(command) => self.change(command),
            Command::Set {
                name,
                value,
                expected,
            } => self.set(name, value.as_deref(), *expected),
            Command::Recover { cluster, survivor } => self.recover(*cluster, *survivor),
        }
    }

    fn form(
        &mut self,
        cluster: ClusterId,
        founders: &BTreeSet<Who>,
        replication: usize,
    ) -> Result<Outcome, Rejected> {
        if self.cluster.is_some() {
            return Err(Rejected::AlreadyFormed);
        }
        if replication == 0 {
            return Err(Rejected::NoReplicas);
        }
        if founders.len() > MAX_MEMBERS {
            return Err(Rejected::TooManyMembers);
        }
        for founder in founders {
            check(Text::NodeName, &founder.name)?;
        }
        self.cluster = Some(cluster);
        self.founders.clone_from(founders);
        self.topology = Topology::new(replication, OnQuorumLoss::Forget);
        Ok(Outcome::Formed)
    }

    fn start(
        &mut self,
        who: &Who,
        address: &str,
        register: impl Fn(NodeId, bool) -> topology::Command,
    ) -> Result<Outcome, Rejected> {
        check(Text::NodeName, &who.name)?;
        check(Text::Address, address)?;
        let other = self.of_instance(who.instance);
        if let Some((node, _)) = other.filter(|(_, member)| member.name != who.name) {
            return Err(Rejected::OtherName(node));
        }
        let known = self.names.get(&who.name).copied();
        if known.is_none() && self.names.len() >= MAX_NAMES {
            return Err(Rejected::TooManyNames);
        }
        let node = known.map_or(NodeId(self.last_node + 1), |known| known.node);
        if !self.members.contains_key(&node) && self.members.len() >= MAX_MEMBERS {
            return Err(Rejected::TooManyMembers);
        }
        let is_another = known.is_some_and(|known| known.instance != who.instance);
        let applied = self.topology.apply(&register(node, is_another));
        applied.map_err(Rejected::Topology)?;
        // A name that is known has a lower number.
        self.last_node = self.last_node.max(node.0);
        let instance = who.instance;
        self.names
            .insert(who.name.clone(), Named { node, instance });
        let member = Member {
            name: who.name.clone(),
            instance,
            address: address.to_owned(),
        };
        self.members.insert(node, member);
        Ok(Outcome::Started(node))
    }

    fn change(&mut self, command: &topology::Command) -> Result<Outcome, Rejected> {
        let partitions = match command {
            topology::Command::Register { .. } => return Err(Rejected::NotAStart),
            topology::Command::Weigh(_, weight) if !(1..=MAX_WEIGHT).contains(weight) => {
                return Err(Rejected::Weight(*weight));
            }
            topology::Command::Join(partitions)
            | topology::Command::Begin(partitions)
            | topology::Command::Undo(partitions)
            | topology::Command::Finish(partitions)
            | topology::Command::Reset(partitions) => partitions.len(),
            topology::Command::Opened(led) | topology::Command::Lead(led) => led.len(),
            _ => 0,
        };
        // Each once is all that there can be to say.
        if partitions > self.topology.partitions().count() {
            return Err(Rejected::TooManyPartitions);
        }
        let epoch = self.topology.apply(command).map_err(Rejected::Topology)?;
        if let topology::Command::Remove(node) = command {
            self.members.remove(node);
        }
        Ok(Outcome::Epoch(epoch))
    }

    fn set(
        &mut self,
        name: &str,
        value: Option<&str>,
        expected: Option<u64>,
    ) -> Result<Outcome, Rejected> {
        check(Text::SettingName, name)?;
        let known = self.settings.get(name);
        let present = known.map_or(0, |known| known.version);
        if expected.is_some_and(|expected| expected != present) {
            return Err(Rejected::SettingVersion { present });
        }
        let Some(value) = value else {
            self.settings.remove(name);
            return Ok(Outcome::Set(0));
        };
        let others = self.settings.iter().filter(|(other, _)| *other != name);
        let others = others.map(|(name, setting)| name.len() + setting.value.len());
        if others.clone().count() >= MAX_SETTINGS {
            return Err(Rejected::TooManySettings);
        }
        if others.sum::<usize>() + name.len() + value.len() > MAX_SETTINGS_BYTES {
            return Err(Rejected::TooLong(Text::SettingValue));
        }
        self.last_setting += 1;
        let setting = Setting {
            value: value.to_owned(),
            version: self.last_setting,
        };
        self.settings.insert(name.to_owned(), setting);
        Ok(Outcome::Set(self.last_setting))
    }

    fn recover(&mut self, cluster: ClusterId, survivor: NodeId) -> Result<Outcome, Rejected> {
        if self.cluster == Some(cluster) {
            return Err(Rejected::AlreadyFormed);
        }
        let epoch = self.topology.recover(survivor);
        let epoch = epoch.map_err(Rejected::Topology)?;
        self.cluster = Some(cluster);
        self.members.retain(|node, _| *node == survivor);
        self.founders = self.members.values().map(Member::who).collect();
        Ok(Outcome::Epoch(epoch))
    }
}

impl Member {
    /// Its name and its Raft id.
    pub fn who(&self) -> Who {
        Who {
            name: self.name.clone(),
            instance: self.instance,
        }
    }
}

/// What a name or an address may be.
fn check(text: Text, is: &str) -> Result<(), Rejected> {
    if is.is_empty() {
        return Err(Rejected::Empty(text));
    }
    if is.len() > MAX_NAME_BYTES {
        return Err(Rejected::TooLong(text));
    }
    Ok(())
}

/// The number of the form in text, which is [`FORMAT`] or is not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Format;

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        FORMAT.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let format = u32::deserialize(from)?;
        if format == FORMAT {
            return Ok(Self);
        }
        Err(serde::de::Error::custom(format_args!(
            "what the cluster agrees on has the format {format}, and this program reads {FORMAT}"
        )))
    }
}

#[cfg(test)]
mod tests;
