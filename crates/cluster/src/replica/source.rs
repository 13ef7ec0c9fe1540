//! Copies that others pull from a replica: a scan in parts, each sent when the one before has come, and with them the keys that
//! change meanwhile. It is told what changes; it keeps no records itself. A part that nobody's answers wait for goes when its carrier
//! says that it is its turn.

use super::message::{Body, CopyId, End};
use super::table::{Key, Progress, Table, Types};
use super::{BodyOf, Output, Replica, Role};
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
/// For each of those so many of the keys that have changed meanwhile go with a part. They go beside the scan and not before it, or it would
/// never end where as many change as are sent.
const TOUCHED_PER_RECORD: usize = 16;
/// A copy that was not asked to go on for so many ticks, a minute, is given up: whoever pulled it is gone, or a part of it is as large as a
/// value may be and needs longer than that. Until then what changes is noted for it.
pub(super) const PATIENCE_TICKS: u32 = 2_400;

/// A copy for which more of keys would have to be noted is given up, and begun anew when it is asked for: its puller has stopped, while
/// other keys change all the time. As much as some seconds of writes to one partition have.
const MOST_NOTED_BYTES: usize = 8 << 20;
/// What a key takes that is noted, beside its bytes.
const NOTED_KEY_BYTES: usize = 48;

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
    /// Bytes of those that were noted since the copy has begun, and are not sent.
    noted_bytes: usize,
    /// The part that comes next.
    number: u64,
    /// The part before it, in case that was lost.
    sent: Option<BodyOf<T>>,
    /// It was the last.
    pub(super) is_done: bool,
    /// Ticks since it has sent something, or was asked for something; none while the next part waits for its turn.
    silent: Option<u32>,
}

impl<T: Types> Source<T> {
    /// Whether the next part is asked for, and waits for its turn.
    fn waits(&self) -> bool {
        self.silent.is_none()
    }

    /// These keys have changed. Before its first part there is nothing that was looked at too soon. Says whether the copy can go on.
    fn touch(&mut self, keys: &[Key]) -> bool {
        if self.is_done || self.number == 0 {
            return true;
        }
        for key in keys {
            if self.touched.insert(key.clone()) {
                self.noted_bytes += key.len() + NOTED_KEY_BYTES;
            }
        }
        self.noted_bytes <= MOST_NOTED_BYTES
    }

    /// A key whose state is sent now.
    fn take_touched(&mut self) -> Option<Key> {
        let key = self.touched.pop_first()?;
        // Keys that the puller named were not counted.
        self.noted_bytes = self.noted_bytes.saturating_sub(key.len() + NOTED_KEY_BYTES);
        Some(key)
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
            // Where they share nothing there is nothing that a look at the horizon could add.
            is_full: common == 0,
            place: 0,
            is_scanned: false,
            touched: keys.into_iter().collect(),
            noted_bytes: 0,
            number: 0,
            sent: None,
            is_done: false,
            silent: Some(0),
        };
        self.sources.insert(from, source);
        if let Role::Leading(leading) = &mut self.role {
            leading.stream(from, false);
        }
        self.queue_part(table, from, term);
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
        source.silent = source.silent.map(|_| 0);
        if number + 1 == source.number {
            let again = source.sent.clone().expect("it was sent");
            self.send(from, term, again);
        } else if number == source.number && !source.is_done && !source.waits() {
            self.queue_part(table, from, term);
        }
    }

    /// The next part is sent, at once if others wait for it, or else when it is its turn.
    fn queue_part(&mut self, table: &mut dyn Table<T>, to: NodeId, term: Epoch) {
        if !self.may_wait(to) {
            self.send_part(table, to, term);
        } else if let Some(source) = self.sources.get_mut(&to) {
            source.silent = None;
            let has_begun = source.number > 0;
            self.ready.push_back(Output::Queued { to, has_begun });
        }
    }

    /// It is the turn of the copy to that node, if it waits for that.
    pub(super) fn take_turn(&mut self, table: &mut dyn Table<T>, to: NodeId) {
        if self.sources.get(&to).is_some_and(Source::waits) {
            self.send_part(table, to, self.state.adopted);
        }
    }

    /// Time has passed: who does not go on with a copy has no need of it, and one that could wait may be waited for now.
    pub(super) fn tick_sources(&mut self, table: &mut dyn Table<T>) {
        self.sources.retain(|_, source| {
            let Some(silent) = &mut source.silent else {
                return true;
            };
            *silent += 1;
            *silent <= PATIENCE_TICKS
        });
        let waiting = self.sources.iter().filter(|(_, source)| source.waits());
        let waiting: Vec<NodeId> = waiting.map(|(&node, _)| node).collect();
        for node in waiting {
            if !self.may_wait(node) {
                self.take_turn(table, node);
            }
        }
    }

    /// These keys have changed, which copies that are under way bring too.
    pub(super) fn touch_sources(&mut self, keys: &[Key]) {
        let mut ended = Vec::new();
        self.sources.retain(|&node, source| {
            let goes_on = source.touch(keys);
            if !goes_on {
                ended.push((node, source.id));
            }
            goes_on
        });
        let term = self.state.adopted;
        for (node, id) in ended {
            self.send(node, term, Body::Abort { id });
        }
    }

    /// Whether a copy to that node is under way.
    pub fn is_copying(&self, to: NodeId) -> bool {
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
            source.noted_bytes = 0;
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
        for _ in 0..(TOUCHED_PER_RECORD * part_records).min(source.touched.len()) {
            if bytes >= 2 * PART_BYTES {
                break;
            }
            let key = source.take_touched().expect("there are so many");
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
        source.silent = Some(0);
        source.sent = Some(body.clone());
        source.is_done = is_done;
        if is_done && let Role::Leading(leading) = &mut self.role {
            // What comes from here on is behind the end of the copy.
            leading.stream(to, true);
        }
        self.send(to, term, body);
    }
}
