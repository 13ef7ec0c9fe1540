//! Copies that others pull from a replica: a scan in parts, each sent when the one before has come, and with them the keys that
//! change meanwhile. It is told what changes; it keeps no records itself.

use super::message::{Body, CopyId, End};
use super::table::{Key, Progress, Table, Types};
use super::{Replica, Role};
use crate::ring::NodeId;
use crate::topology::Epoch;
use henge_wire::Version;
use std::collections::BTreeSet;

/// About as many records are sent at once: a part is some kilobytes, unless values are large.
pub(super) const PART_RECORDS: usize = 64;

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Source {
    id: CopyId,
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
        from: NodeId,
        term: Epoch,
        id: CopyId,
        common: u64,
        wanted: Option<Version>,
        keys: Vec<Key>,
    ) {
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
        // A pull that comes twice must not begin its copy anew: the puller would go on with parts of the second scan behind
        // those of the first, and lack what changed between the two.
        let start = self.view.incarnations.get(&from).copied();
        let asked = (start.unwrap_or_default(), id);
        if self.asked.get(&from).is_some_and(|&before| before >= asked) {
            return;
        }
        self.asked.insert(from, asked);
        let source = Source {
            id,
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
        while states.len() < part_records
            && let Some(key) = source.touched.pop_first()
        {
            let record = table.record(&key);
            states.push((key, record));
        }
        let above = if source.is_full { 0 } else { source.common };
        while states.len() < part_records && !source.is_scanned {
            source.place = table.scan(source.place, above, &mut |record| {
                states.push((record.key.clone(), Some(record)));
            });
            source.is_scanned = source.place == 0;
        }
        let is_done = source.is_scanned && source.touched.is_empty();
        let end = is_done.then(|| End {
            at: last,
            history: self.state.history.clone(),
            commit,
            horizon,
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
