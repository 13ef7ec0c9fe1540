//! What is told of a command that another node was to run and that has no reply: the sentences, which are the same in each
//! protocol, and whether it is sure that nothing was done. And what became of one of which several members had a part each.

use std::fmt;
use std::sync::Arc;

use crate::cluster::link::asking::AskError;
use crate::cluster::view::{Member, Standing, View};

/// Why a command was not run, or is not known to have been.
#[derive(Debug)]
pub(crate) enum Elsewhere {
    /// The node is in no cluster: why.
    Outside(String),
    /// No member leads the key's partition: it is not placed yet, or who led it is lost and nobody could follow in time.
    Nowhere,
    /// This member has the key, and is down, or silent.
    Down(Arc<Member>),
    /// The same, and it cannot be asked, or has not answered what changes nothing.
    Unreachable(Arc<Member>, AskError),
    /// This member was asked, and does not have the key, or not any more.
    NotThere(Arc<Member>),
    /// This member was asked to write, and why it is not known whether it has.
    Unknown(Arc<Member>, String),
    /// This node hears from too few others.
    Minority,
    /// This node leads the key's partition, or is about to, and does not serve it now.
    NotOpen,
    /// This node was to write, and whether it has is not known: replicas did not say so in time, or the log failed. So many are known
    /// to have it; 0 where that is not known.
    UnknownHere(u8),
    /// Requests and answers hold all that they may.
    NoRoom,
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |member: &Member| format!("{} at {}", member.name, member.address);
        match self {
            Self::Outside(why) => write!(f, "{why}; nothing was done"),
            Self::Nowhere => {
                f.write_str("nobody leads this key's partition now; nothing was done")
            }
            Self::Down(member) => write!(
                f,
                "{}, which has this key, {}; nothing was done",
                at(member),
                member.why_unreachable()
            ),
            Self::Unreachable(member, error) => write!(
                f,
                "{}, which has this key, cannot be asked: {error}; nothing was done",
                at(member)
            ),
            Self::NotThere(member) => write!(
                f,
                "{} does not have this key any more, or not yet; nothing was done",
                at(member)
            ),
            Self::Unknown(member, why) => write!(
                f,
                "{}, which has this key: {why}; it may or may not have been done",
                at(member)
            ),
            Self::Minority => f.write_str(
                "this node hears from no majority of its cluster, and answers at level ONE alone, of what it has or leads; nothing was done",
            ),
            Self::NotOpen => f.write_str(
                "the leader of this key's partition is changing; nothing was done",
            ),
            Self::UnknownHere(0) => f.write_str(
                "replicas have not said in time that they have it, or the log failed; it may or may not have been done",
            ),
            Self::UnknownHere(replicas) => write!(
                f,
                "replicas have not said in time that they have it, or the log failed, and {replicas} are known to have it; it may or may not have been done"
            ),
            Self::NoRoom => {
                f.write_str("requests and answers hold limits.max_inflight_bytes; nothing was done")
            }
        }
    }
}

impl Elsewhere {
    /// Of a partition that is nowhere.
    pub(crate) fn nowhere(view: &View) -> Self {
        match view.standing {
            Standing::Inside => Self::Nowhere,
            _ => Self::Outside(view.why_nowhere().to_string()),
        }
    }

    /// No answer came to what was asked, or none that makes sense.
    pub(crate) fn unanswered(member: &Arc<Member>, error: &AskError, is_write: bool) -> Self {
        let member = Arc::clone(member);
        if error.may_be_done && is_write {
            Self::Unknown(member, format!("it did not answer: {error}"))
        } else {
            Self::Unreachable(member, error.clone())
        }
    }
}

/// How much was done of what several members were to do each a part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Extent {
    All,
    /// Surely nothing.
    Nothing,
    /// Of each part it is known whether it was done, and some were not.
    Some,
    /// Of some part it is not known.
    Unknown,
}

/// What became of the parts of something that several members were to do, by their names, with why it is not done.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    done: Vec<String>,
    not: Vec<String>,
    unknown: Vec<String>,
}

impl Outcomes {
    /// This member has done its part.
    pub(crate) fn note_done(&mut self, member: &Member) {
        self.done.push(member.name.clone());
    }

    /// It surely has done nothing.
    pub(crate) fn note_not(&mut self, member: &Member, why: impl fmt::Display) {
        self.not.push(because(member, why));
    }

    /// It may have done all, or some, or nothing.
    pub(crate) fn note_unknown(&mut self, member: &Member, why: impl fmt::Display) {
        self.unknown.push(because(member, why));
    }

    pub(crate) fn extent(&self) -> Extent {
        match (&self.done[..], &self.not[..], &self.unknown[..]) {
            (_, [], []) => Extent::All,
            ([], _, []) => Extent::Nothing,
            (_, _, []) => Extent::Some,
            _ => Extent::Unknown,
        }
    }

    /// Says who has, and who has not, and of whom that is not known; `done` is what.
    pub(crate) fn told(&self, done: &str) -> String {
        let mut lists = Vec::new();
        match &self.done[..] {
            [] if self.unknown.is_empty() => lists.push(format!("{done} by none")),
            [] => {}
            names => lists.push(format!("{done} by {}", names.join(", "))),
        }
        for (list, what) in [(&self.not, "not by"), (&self.unknown, "not known of")] {
            if !list.is_empty() {
                lists.push(format!("{what} {}", list.join("; ")));
            }
        }
        lists.join("; ")
    }
}

fn because(member: &Member, why: impl fmt::Display) -> String {
    format!("{} at {}: {why}", member.name, member.address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::MemberState;
    use henge_cluster::ring::NodeId;

    #[test]
    fn nothing_was_done_is_said_of_all_parts_or_not_at_all() {
        let member = |name: &str| Member {
            is_silent: false,
            has_left: false,
            id: NodeId(1),
            name: name.to_owned(),
            instance: 1,
            incarnation: 1,
            address: format!("{name}:1"),
            state: MemberState::Up,
            is_me: false,
        };
        let table = [
            ("", Extent::All, "done by none"),
            ("++", Extent::All, "done by a, b"),
            ("-", Extent::Nothing, "done by none; not by a at a:1: why"),
            ("-+", Extent::Some, "done by b; not by a at a:1: why"),
            ("?", Extent::Unknown, "not known of a at a:1: why"),
            (
                "-?",
                Extent::Unknown,
                "not by a at a:1: why; not known of b at b:1: why",
            ),
            (
                "?-+",
                Extent::Unknown,
                "done by c; not by b at b:1: why; not known of a at a:1: why",
            ),
        ];
        for (kinds, extent, told) in table {
            let mut outcomes = Outcomes::default();
            for (kind, name) in kinds.chars().zip(["a", "b", "c"]) {
                match kind {
                    '+' => outcomes.note_done(&member(name)),
                    '-' => outcomes.note_not(&member(name), "why"),
                    _ => outcomes.note_unknown(&member(name), "why"),
                }
            }
            assert_eq!(outcomes.extent(), extent, "{kinds}");
            assert_eq!(outcomes.told("done"), told, "{kinds}");
        }
    }
}
