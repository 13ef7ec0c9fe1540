//! Where the commands of a pipeline are run: here, or on other nodes, to which they are sent together. What may be sent where is
//! `spread`'s to say.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use henge_wire::resp::request::Arguments;
use henge_wire::resp::writer::Output;
use henge_wire::{Partition, Slot};

use super::{Pipeline, Stop, Timing, Waiting};
use crate::cluster::view::Member;
use crate::config::ConsistencyLevel;
use crate::insight::slow;
use crate::metrics::answers::{Batch, Series};
use crate::metrics::counters::add;
use crate::resp::again::{Again, is_of_all};
use crate::resp::call::ErrorReply;
use crate::resp::forward::{NOT_HERE, Raw};
use crate::resp::key_specs;
use crate::resp::spread::{Asked, Place};
use crate::resp::table::{Entry, flag};

/// What became of a command that may be another node's.
pub(super) enum Routed {
    /// It is this node's, and is to be run.
    Here,
    /// It was sent on, or refused.
    Done,
    Stop(Stop),
}

impl Pipeline {
    /// Finds out where a command is to be run, and sends it there.
    #[expect(clippy::too_many_arguments, reason = "it is the inside of two loops")]
    #[inline(never)]
    pub(super) fn route(
        &mut self,
        words: Arguments<'_>,
        raw: Raw<'_>,
        entry: Entry,
        mut first: Option<Partition>,
        clock: &mut Timing,
        untimed: &mut Vec<u16>,
        out: &mut Output,
    ) -> Routed {
        let Some(routes) = &self.routes else {
            return Routed::Here;
        };
        let spec = entry.spec;
        if spec.keys.first == 0 && self.session.is_forwarded {
            // Each node is asked for its own.
            return Routed::Here;
        }
        let asked = Asked {
            spec,
            words,
            session: &self.session,
            local: &self.local,
            routes,
            deadline: None,
        };
        let place = asked.place(first);
        if spec.is(flag::WRITE) && spec.keys.first != 0 && !self.session.is_forwarded {
            for at in key_specs::places(spec.keys, words.len()) {
                let partition = match first.take() {
                    Some(first) => first,
                    None => Partition::of(words.get(at).unwrap_or_default()),
                };
                let term = routes.view.term(partition);
                self.session.writes.note(partition, self.level, term);
            }
        }
        let is_replicated = self.local.shared.is_replicated();
        match place {
            Ok(Place::Here) => Routed::Here,
            Ok(_) if self.session.is_forwarded => {
                self.lengths.push(NOT_HERE);
                Routed::Done
            }
            Ok(Place::There(member, partition)) => {
                let own = || self.local.shared.live.load().redirect;
                let settings = &routes.view.settings;
                if self.session.knows_map && settings.redirect().unwrap_or_else(own) {
                    let at = spec.keys.first.unsigned_abs();
                    let key = words.get(usize::from(at)).unwrap_or_default();
                    debug_assert_eq!(Partition::of(key), partition);
                    let (slot, address) = (Slot::of(key).number(), &member.address);
                    let moved = ErrorReply::new(format!("MOVED {slot} {address}"));
                    self.reject(Some(entry), &moved, out);
                    return Routed::Done;
                }
                self.send_on(Some(&member), raw, entry, out)
            }
            Err(_) if self.session.is_forwarded && is_replicated => {
                self.lengths.push(NOT_HERE);
                Routed::Done
            }
            Err(error)
                if routes.view.fails_over()
                    && error.code() == "CLUSTERDOWN"
                    && routes.view.reaches_majority() =>
            {
                // Another leads it soon.
                self.send_on(None, raw, entry, out)
            }
            // What this one does comes after what was sent before it.
            Ok(Place::Several(_)) if !self.forwards.is_empty() => Routed::Stop(Stop::Before),
            Ok(Place::Several(reply)) => {
                add(&self.local.counters.forwarded, 1);
                let again = (is_replicated && is_of_all(spec))
                    .then(|| Again::of(&self.session.client, self.session.manner(), &self.local))
                    .flatten();
                let reply = match again {
                    Some(again) => again.until_done(reply, raw.copied()),
                    None => reply,
                };
                let is_wanted = self.is_wanted_of_next();
                let client = &self.session.client;
                client.last_command.store(entry.number, Ordering::Relaxed);
                clock.settle(untimed, &self.local);
                Routed::Stop(Stop::Later(Waiting {
                    reply,
                    entry,
                    request: Bytes::new(),
                    words: slow::shortened(words),
                    since: clock.mark,
                    is_wanted,
                }))
            }
            Err(error) => {
                self.reject(Some(entry), &error, out);
                Routed::Done
            }
        }
    }

    /// A command is answered with what else this run answers.
    #[inline]
    pub(super) fn note_series(&mut self, entry: Entry) {
        if self.routes.is_some()
            && let Some(series) = self.series(entry)
        {
            self.batch.add(series);
        }
    }

    /// Which answers a command's is one of, if it is a client's about keys.
    fn series(&self, entry: Entry) -> Option<Series> {
        let spec = entry.spec;
        let is_a_clients = !self.session.is_forwarded && spec.keys.first != 0;
        let is_counted = is_a_clients && !spec.is(flag::BLOCKING);
        is_counted.then(|| {
            let is_of_any = self.session.reads_any && !spec.is(flag::WRITE);
            let level = if is_of_any {
                ConsistencyLevel::One
            } else {
                self.level
            };
            Series::of_command(entry.number, level)
        })
    }

    /// The same of a command whose reply came later, as a batch of its own.
    pub(in crate::resp) fn batch_of(&self, waiting: &Waiting) -> Batch {
        let series = self.series(waiting.entry);
        let series = series.filter(|_| self.routes.is_some());
        series.map_or_else(Batch::default, |series| {
            let mut batch = Batch::begin(self.read_at);
            batch.add(series);
            batch
        })
    }

    /// Has a command run by another node, or by whoever has its keys soon.
    fn send_on(
        &mut self,
        member: Option<&Arc<Member>>,
        raw: Raw<'_>,
        entry: Entry,
        out: &Output,
    ) -> Routed {
        let known = member.map(|member| &**member);
        if self.forwards.are_of_another(known, &self.session) {
            return Routed::Stop(Stop::Before);
        }
        let is_wanted = self.is_wanted_of_next();
        self.replies += usize::from(is_wanted);
        let written = (out.len(), is_wanted);
        let is_write = entry.spec.is(flag::WRITE);
        add(&self.local.counters.forwarded, 1);
        self.forwards
            .push(member, raw, is_write, &self.session, written);
        self.note_series(entry);
        let client = &self.session.client;
        client.last_command.store(entry.number, Ordering::Relaxed);
        Routed::Done
    }
}
