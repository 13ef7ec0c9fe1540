//! How nodes that were told some addresses become one cluster, each started when it likes: a machine that hears who answers
//! where and what it says, and says what its node is to do next. It asks nobody itself, and does not know how a cluster is
//! begun or joined.
//!
//! A node knows its *set*: itself, and who answers at the addresses that it was given. The set is whole when all have answered.
//! A cluster is begun by the node of the lowest name of a set that all of it say, and say to be whole. A set names processes by
//! numbers that are drawn with their data, so a node that was replaced meanwhile is in no set that was said before.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// The number of a cluster, drawn when it is begun.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterId(pub u128);

/// A text that is no cluster's number in 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoClusterId;

impl fmt::Display for NoClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the id of a cluster is 32 hexadecimal digits")
    }
}

impl std::error::Error for NoClusterId {}

impl FromStr for ClusterId {
    type Err = NoClusterId;

    fn from_str(text: &str) -> Result<Self, NoClusterId> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_hex.then(|| u128::from_str_radix(text, 16).ok());
        number.flatten().map(Self).ok_or(NoClusterId)
    }
}

impl TryFrom<String> for ClusterId {
    type Error = NoClusterId;

    fn try_from(text: String) -> Result<Self, NoClusterId> {
        text.parse()
    }
}

impl From<ClusterId> for String {
    fn from(cluster: ClusterId) -> Self {
        cluster.to_string()
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A node that may be in no cluster yet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Who {
    /// What its operator calls it.
    pub name: String,
    /// Drawn at random with its data directory.
    pub instance: u64,
}

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Itself.
    pub who: Who,
    /// The cluster that it is in.
    pub cluster: Option<ClusterId>,
    /// Its set, itself included.
    pub set: BTreeSet<Who>,
    /// Whether all that it was told of have answered.
    pub is_whole: bool,
}

/// See the head of the file.
#[derive(Clone, Debug)]
pub struct Forming {
    me: Who,
    /// By the address, what was said there last.
    entries: BTreeMap<String, Option<Hello>>,
    /// Addresses that were not asked yet: two clusters are to be told from one before the node goes into either.
    untried: BTreeSet<String>,
}

/// What the node is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing but to ask again.
    Wait(Vec<Wait>),
    /// To begin a cluster of these.
    Begin(BTreeSet<Who>),
    /// To ask who answers at this address to be taken in.
    Join(String, ClusterId),
}

/// What a node waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Nobody has answered there.
    Silent(String),
    /// Who answers there waits for others itself.
    Incomplete(String, Who),
    /// Who answers there was told of others than this node was: of those in the first list, and not of those in the second.
    Differs(String, Who, Vec<Who>, Vec<Who>),
    /// Who answers there is to begin the cluster.
    Begins(String, Who),
}

/// Why a node can be in no cluster with who answers. Its operator has to change something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Two nodes have this name; the addresses at which each answers, none for the node itself.
    SameName(String, [Option<String>; 2]),
    /// There is one cluster at one address, and another at another.
    TwoClusters([(String, ClusterId); 2]),
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |of: &[Who]| {
            let names: Vec<_> = of.iter().map(|who| who.name.as_str()).collect();
            names.join(", ")
        };
        match self {
            Self::Silent(entry) => write!(f, "nobody answers at {entry}"),
            Self::Incomplete(entry, who) => {
                write!(f, "{} at {entry} waits for its peers", who.name)
            }
            Self::Differs(entry, who, more, fewer) => {
                write!(f, "{} at {entry} has other peers:", who.name)?;
                if !more.is_empty() {
                    write!(f, " {} too", names(more))?;
                }
                if !fewer.is_empty() {
                    let and = if more.is_empty() { "" } else { ", and" };
                    write!(f, "{and} not {}", names(fewer))?;
                }
                Ok(())
            }
            Self::Begins(entry, who) => {
                write!(f, "{} at {entry} is to form the cluster", who.name)
            }
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |entry: &Option<String>| match entry {
            Some(entry) => format!("the one at {entry}"),
            None => "this one".to_owned(),
        };
        match self {
            Self::SameName(name, [one, other]) => write!(
                f,
                "two nodes are called {name}: {} and {}; each needs a cluster.node_id of its own",
                place(one),
                place(other)
            ),
            Self::TwoClusters([(one, first), (other, second)]) => write!(
                f,
                "{one} is in the cluster {first} and {other} in the cluster {second}; the peers of a node must be in one"
            ),
        }
    }
}

impl std::error::Error for Refused {}

impl Forming {
    /// Of a node that is in no cluster yet, and the addresses that it was given.
    pub fn new(me: Who, entries: impl IntoIterator<Item = String>) -> Self {
        let untried: BTreeSet<String> = entries.into_iter().collect();
        let entries = untried.iter().map(|entry| (entry.clone(), None));
        Self {
            me,
            entries: entries.collect(),
            untried,
        }
    }

    /// What this node says of itself.
    pub fn hello(&self) -> Hello {
        let others = self.entries.values().flatten().map(|hello| &hello.who);
        Hello {
            who: self.me.clone(),
            cluster: None,
            set: others.chain([&self.me]).cloned().collect(),
            is_whole: self.entries.values().all(Option::is_some),
        }
    }

    /// Somebody answers at an address, or nobody does any more. An address that the node was not given says nothing.
    pub fn heard(&mut self, entry: &str, hello: Option<Hello>) {
        if let Some(last) = self.entries.get_mut(entry) {
            *last = hello;
            self.untried.remove(entry);
        }
    }

    /// What is to be done.
    ///
    /// # Errors
    /// The node cannot be in a cluster with who answers.
    pub fn step(&self) -> Result<Step, Refused> {
        self.check_names()?;
        if let Some((entry, cluster)) = self.cluster()?
            && self.untried.is_empty()
        {
            return Ok(Step::Join(entry.to_owned(), cluster));
        }
        let own = self.hello();
        let mut waits = Vec::new();
        for (entry, hello) in &self.entries {
            let Some(hello) = hello else {
                waits.push(Wait::Silent(entry.clone()));
                continue;
            };
            if hello.who == self.me {
                continue;
            }
            let who = || hello.who.clone();
            if !hello.is_whole {
                waits.push(Wait::Incomplete(entry.clone(), who()));
            } else if own.is_whole && hello.set != own.set {
                let without = |of: &BTreeSet<Who>, other| of.difference(other).cloned().collect();
                let more = without(&hello.set, &own.set);
                let fewer = without(&own.set, &hello.set);
                waits.push(Wait::Differs(entry.clone(), who(), more, fewer));
            }
        }
        if !waits.is_empty() {
            return Ok(Step::Wait(waits));
        }
        let first = own.set.first().expect("the node itself is in it");
        if *first == self.me {
            return Ok(Step::Begin(own.set));
        }
        let begins = self.entries.iter().find_map(|(entry, hello)| {
            let hello = hello.as_ref()?;
            (hello.who == *first).then(|| Wait::Begins(entry.clone(), first.clone()))
        });
        Ok(Step::Wait(begins.into_iter().collect()))
    }

    fn answered(&self) -> impl Iterator<Item = (&str, &Hello)> {
        let entries = self.entries.iter();
        entries.filter_map(|(entry, hello)| Some((entry.as_str(), hello.as_ref()?)))
    }

    fn check_names(&self) -> Result<(), Refused> {
        let mut seen = BTreeMap::from([(&self.me.name, (self.me.instance, None))]);
        for (entry, hello) in self.answered() {
            let own = (hello.who.instance, Some(entry));
            let (instance, before) = *seen.entry(&hello.who.name).or_insert(own);
            if instance != hello.who.instance {
                let places = [before, Some(entry)].map(|place| place.map(str::to_owned));
                return Err(Refused::SameName(hello.who.name.clone(), places));
            }
        }
        Ok(())
    }

    /// The cluster that somebody is in, and at which address.
    fn cluster(&self) -> Result<Option<(&str, ClusterId)>, Refused> {
        let mut of_all = self
            .answered()
            .filter_map(|(entry, hello)| Some((entry, hello.cluster?)));
        let Some((entry, cluster)) = of_all.next() else {
            return Ok(None);
        };
        match of_all.find(|(_, other)| *other != cluster) {
            None => Ok(Some((entry, cluster))),
            Some((other, another)) => Err(Refused::TwoClusters([
                (entry.to_owned(), cluster),
                (other.to_owned(), another),
            ])),
        }
    }
}

#[cfg(test)]
mod tests;
