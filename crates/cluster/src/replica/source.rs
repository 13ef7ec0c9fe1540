//! Copies that others pull from a replica: a scan in parts, each sent when the one before has come, and with them the keys that
//! change meanwhile. It is told what changes; it keeps no records itself.

use super::message::{Body, CopyId, End};
use super::table::{Key, Progress, Table, Types};
use super::{Replica, Role};
use crate::ring::NodeId;
use crate::topology::{Epoch, Incarnation};
use henge_wire::Version;
use std::collections::BTreeSet;

/// About as many records are sent at once: a part is some kilobytes, unless values are large.
pub(super) const PART_RECORDS: usize = 64;

/// Behind a scan so many times as much is sent at once of what has changed: a copy has to end though there are writes.
const LAST_RECORDS: usize = 16;

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Source {
    id: CopyId,
    /// Where this replica was at the begin of the copy.
    began: Version,
    /// What both have.
    common: u64,
    /// What this replica has to have, as long as the copy goes on.
    wanted: Option<Version>,
    is_full: bool,
    place: u32,
    is_scanned: bool,
    /// Keys whose state is to be sent, whatever the scan shows.
    touched: BTreeSet<Key>,
    /// The part that comes next.
    number: u64,
}

impl Source {
    /// These keys have changed.
    pub(super) fn touch(&mut self, keys: &[Key]) {
        self.touched.extend(keys.iter().cloned());
    }
}

impl<T: Types> Replica<T> {
    /// Rule 5: a node asks for a copy.
    #[expect(clippy::too_many_arguments, reason = "they are those of a message")]
    pub(super) fn pull(
        &mut self,
        table: &mut dyn Table<T>,
        (from, incarnation): (NodeId, Incarnation),
        term: Epoch,
        id: CopyId,
        common: u64,
        wanted: Option<Version>,
        keys: Vec<Key>,
    ) {
        let newest = self.pulled.entry(from).or_insert((incarnation, 0));
        if *newest >= (incarnation, id) {
            // One that comes twice would begin a second copy under the same name, and parts of both would be taken for one.
            return;
        }
        *newest = (incarnation, id);
        if term != self.state.adopted {
            let adopted = self.state.adopted;
            let body = if term < adopted {
                Body::Refused { adopted }
            } else {
                Body::Abort { id }
            };
            self.send(from, term, body);
            return;
        }
        let may = match wanted {
            Some(wanted) => table.progress().last == wanted,
            None => matches!(&self.role, Role::Leading(leading) if leading.has_base()),
        };
        if !may {
            self.send(from, term, Body::Abort { id });
            return;
        }
        let source = Source {
            id,
            began: table.progress().last,
            common,
            wanted,
            is_full: false,
            place: 0,
            is_scanned: false,
            touched: keys.into_iter().collect(),
            number: 0,
        };
        self.sources.insert(from, source);
        if let Role::Leading(leading) = &mut self.role {
            leading.stream(from, false);
        }
        self.send_part(table, from, term);
    }

    /// A part has come.
    pub(super) fn next_part(
        &mut self,
        table: &mut dyn Table<T>,
        from: NodeId,
        term: Epoch,
        id: CopyId,
        number: u64,
    ) {
        let source = self.sources.get(&from);
        let is_next = source.is_some_and(|source| source.id == id && source.number == number);
        if term == self.state.adopted && is_next {
            self.send_part(table, from, term);
        }
    }

    fn send_part(&mut self, table: &mut dyn Table<T>, to: NodeId, term: Epoch) {
        let Progress {
            last,
            commit,
            horizon,
        } = table.progress();
        let ignores_horizon = (self.has_bug(1), self.has_bug(3));
        let part_records = self.part_records();
        let claims_begin = self.has_bug(5);
        let Some(source) = self.sources.get_mut(&to) else {
            return;
        };
        if source.wanted.is_some_and(|wanted| wanted != last) {
            let id = source.id;
            self.sources.remove(&to);
            self.send(to, term, Body::Abort { id });
            return;
        }
        let is_first = source.number == 0;
        let looks = !ignores_horizon.0 && (is_first || !ignores_horizon.1);
        if looks && horizon > source.common && !source.is_full {
            // What was dropped the puller may have in an older version: it has to forget all.
            source.is_full = true;
            source.place = 0;
            source.is_scanned = false;
            source.touched.clear();
        }
        let mut states: Vec<_> = Vec::new();
        let most_touched = if source.is_scanned {
            LAST_RECORDS * part_records
        } else {
            part_records
        };
        while states.len() < most_touched
            && let Some(key) = source.touched.pop_first()
        {
            let record = table.record(&key);
            states.push((key, record));
        }
        let above = if source.is_full { 0 } else { source.common };
        // Beside what was touched: however much is written meanwhile, the scan goes on.
        let most = states.len() + part_records;
        while states.len() < most && !source.is_scanned {
            source.place = table.scan(source.place, above, &mut |record| {
                states.push((record.key.clone(), Some(record)));
            });
            source.is_scanned = source.place == 0;
        }
        let is_done = source.is_scanned && source.touched.is_empty();
        let at = if claims_begin { source.began } else { last };
        let end = is_done.then(|| End {
            at,
            history: self.state.history.clone(),
            commit: commit.min(at.seq()),
            horizon: horizon.min(at.seq()),
        });
        let body = Body::Part {
            id: source.id,
            number: source.number,
            is_full: source.is_full,
            states,
            end,
        };
        source.number += 1;
        if is_done {
            self.sources.remove(&to);
            if let Role::Leading(leading) = &mut self.role {
                // What comes from here on is behind the end of the copy.
                leading.stream(to, true);
            }
        }
        self.send(to, term, body);
    }
}
