//! The last events of a cluster, as a node has seen them, for who asks what happened. They are in the log as well.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::Serialize;

/// Events that are kept: days of a quiet cluster, and the whole of a bad hour.
const KEPT: usize = 512;

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Event {
    /// Counts all events of this start, from 1 on.
    pub(crate) number: u64,
    /// When this node saw it, in milliseconds since 1970.
    pub(crate) time_ms: u64,
    /// The epoch of the topology then.
    pub(crate) epoch: u32,
    /// What kind it is of.
    pub(crate) kind: &'static str,
    /// The member that it is about.
    pub(crate) member: Option<String>,
    /// The same for a person.
    pub(crate) text: String,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Events(Mutex<(u64, VecDeque<Event>)>);

impl Events {
    pub(crate) fn add(
        &self,
        time_ms: u64,
        epoch: u32,
        kind: &'static str,
        member: Option<&str>,
        text: String,
    ) {
        tracing::info!(kind, member, epoch, "{text}");
        let mut guard = self.0.lock();
        let (count, events) = &mut *guard;
        *count += 1;
        if events.len() == KEPT {
            events.pop_front();
        }
        events.push_back(Event {
            number: *count,
            time_ms,
            epoch,
            kind,
            member: member.map(str::to_owned),
            text,
        });
    }

    /// Those that are kept, the oldest first.
    pub(crate) fn all(&self) -> Vec<Event> {
        self.0.lock().1.iter().cloned().collect()
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept() {
        let events = Events::default();
        for n in 0..=KEPT {
            events.add(n as u64, 1, "up", Some("node1"), format!("event {n}"));
        }
        let all = events.all();
        assert_eq!((all.len(), events.count()), (KEPT, KEPT as u64 + 1));
        assert_eq!((all[0].number, &*all[0].text), (2, "event 1"));
    }
}
