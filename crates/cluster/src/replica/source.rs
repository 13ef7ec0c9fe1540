//! Copies that others pull from a replica: a scan in parts, each sent when the one before has come, and with them the keys that
//! change meanwhile. It is told what changes; it keeps no records itself.

use super::follow::MOVE_PATIENCE_TICKS;
use super::message::{Body, CopyId, End};
use super::table::{Key, Progress, Table, Types};
use super::{BodyOf, Replica, Role};
use crate::ring::NodeId;
use crate::topology::{Epoch, Incarnation};
use henge_wire::Version;
use std::collections::BTreeSet;

/// About as many records of the scan are sent at once.
pub(super) const PART_RECORDS: usize = 64;
/// No more bytes of them than this and one record: a part is a message.
const PART_BYTES: usize = 256 << 10;
/// Places of the scan that are looked at for a part: of what has changed there may be little in a large table.
const PART_PLACES: usize = 1_024;
/// So many of the keys that have changed meanwhile go with a part. They go beside the scan and not before it, or it would
/// never end where as many change as are sent.
const PART_TOUCHED: usize = 16 * PART_RECORDS;
/// A copy that was not asked to go on for so many ticks is given up: whoever pulled it is gone, or begins anew. Until then what
/// changes is noted for it.
const PATIENCE_TICKS: u32 = 64;

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Source<T: Types> {
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
    /// The part before it, in case that was lost.
    sent: Option<BodyOf<T>>,
    /// It was the last.
    pub(super) is_done: bool,
    /// Ticks since it was asked for something.
    silent: u32,
}

impl<T: Types> Source<T> {
    /// These keys have changed.
    pub(super) fn touch(&mut self, keys: &[Key]) {
        if !self.is_done {
            self.touched.extend(keys.iter().cloned());
        }
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
            sent: None,
            is_done: false,
            silent: 0,
        };
        self.sources.insert(from, source);
        if let Role::Leading(leading) = &mut self.role {
            leading.stream(from, false);
        }
        self.send_part(table, from, term);
    }

    /// A part has come, or the one behind it is waited for in vain.
    pub(super) fn next_part(
        &mut self,
        table: &mut dyn Table<T>,
        from: NodeId,
        term: Epoch,
        id: CopyId,
        number: u64,
    ) {
        if term != self.state.adopted {
            return;
        }
        let source = self.sources.get_mut(&from);
        let Some(source) = source.filter(|source| source.id == id) else {
            self.send(from, term, Body::Abort { id });
            return;
        };
        source.silent = 0;
        if number + 1 == source.number {
            let again = source.sent.clone().expect("it was sent");
            self.send(from, term, again);
        } else if number == source.number && !source.is_done {
            self.send_part(table, from, term);
        }
    }

    /// Time has passed: who does not go on with a copy has no need of it.
    pub(super) fn forget_sources(&mut self) {
        let placement = &self.view.placement;
        self.sources.retain(|node, source| {
            source.silent += 1;
            // What is sent because the partition moves may be held up here.
            let patience = if placement.is_new(*node) {
                MOVE_PATIENCE_TICKS
            } else {
                PATIENCE_TICKS
            };
            source.silent <= patience
        });
    }

    /// Whether a copy to that node is under way.
    pub(super) fn is_copying(&self, to: NodeId) -> bool {
        self.sources.get(&to).is_some_and(|source| !source.is_done)
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
        let (mut states, mut bytes, mut places) = (Vec::new(), 0, 0);
        let above = if source.is_full { 0 } else { source.common };
        while states.len() < part_records
            && bytes < PART_BYTES
            && places < PART_PLACES
            && !source.is_scanned
        {
            source.place = table.scan(source.place, above, &mut |record| {
                bytes += T::bytes(&record);
                states.push((record.key.clone(), Some(record)));
            });
            source.is_scanned = source.place == 0;
            places += 1;
        }
        for _ in 0..PART_TOUCHED.min(source.touched.len()) {
            if bytes >= 2 * PART_BYTES {
                break;
            }
            let key = source.touched.pop_first().expect("there are so many");
            let record = table.record(&key);
            bytes += record.as_ref().map_or(key.len(), T::bytes);
            states.push((key, record));
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
        source.sent = Some(body.clone());
        source.is_done = is_done;
        if is_done && let Role::Leading(leading) = &mut self.role {
            // What comes from here on is behind the end of the copy.
            leading.stream(to, true);
        }
        self.send(to, term, body);
    }
}
