//! Replies that were written and may not be sent yet, as they wait for the log, for replicas, or for those of other nodes among
//! them: what each is of is kept, so that one that may not be told is asked for again, or replaced by a line that says why.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use henge_wire::resp::request::{Arguments, inline_arguments};
use henge_wire::resp::writer::Output;

use super::again::{Again, line};
use super::call::ErrorReply;
use super::forward::{Raw, Sent};
use super::session::Manner;
use crate::cluster::replicas::told::Bad;
use crate::disk::gate::{Owed, Place, Untold};
use crate::metrics::answers::Batch;
use crate::metrics::counters::add;
use crate::net::data_thread::Local;

/// So many bytes of requests are kept in case they have to be asked for again, whatever else the node holds: whole pipelines. Of who
/// sends more at once they are kept where the node has room for them; else it is told to try again.
pub(super) const MOST_REQUEST_BYTES: usize = 1 << 20;

/// What the replies of a run are of.
pub(super) struct Written {
    /// How they were asked for, all of them.
    pub(super) manner: Manner,
    /// How many there are.
    pub(super) count: usize,
    /// Where each ends in the output; none where nobody asked for that.
    pub(super) ends: Vec<usize>,
    /// Where the request of each is in the input.
    pub(super) requests: Vec<Range<usize>>,
    /// The input, if it is kept.
    pub(super) input: Bytes,
    /// Clients wait for these.
    pub(super) batch: Batch,
}

impl Written {
    /// One that came later; none where it is not wanted.
    pub(super) fn one(
        manner: Manner,
        bytes: usize,
        request: Bytes,
        is_wanted: bool,
        batch: Batch,
    ) -> Self {
        Self {
            manner,
            count: usize::from(is_wanted),
            ends: is_wanted.then_some(bytes).into_iter().collect(),
            requests: std::iter::once(0..request.len()).collect(),
            input: request,
            batch,
        }
    }
}

/// See the head of the file.
pub(super) struct Held {
    here: VecDeque<Bytes>,
    owed: Option<Owed>,
    place: Place,
    written: Written,
    mending: Option<Pin<Box<dyn Future<Output = Vec<Bytes>>>>>,
    sent: Option<Sent>,
    /// How long the replies are that were written here.
    written_bytes: usize,
}

impl Held {
    /// What a run has written.
    pub(super) fn new(
        out: &mut Output,
        owed: Option<Owed>,
        written: Written,
        sent: Option<Sent>,
    ) -> Self {
        Self {
            written_bytes: out.len(),
            here: out.take_pieces(0).into(),
            owed,
            place: Place::default(),
            written,
            mending: None,
            sent,
        }
    }

    /// Bytes that it holds.
    pub(super) fn size_bytes(&self) -> usize {
        let here: usize = self.here.iter().map(Bytes::len).sum();
        here + self.written.input.len()
    }

    /// How long the replies are that were written here, and those of others are not among.
    pub(super) fn written_bytes(&self) -> usize {
        self.written_bytes
    }

    /// All replies, in their order, once they may be sent.
    pub(super) fn poll(
        &mut self,
        local: &Local,
        again: impl FnOnce(Manner, Instant) -> Option<Again>,
        cx: &mut Context<'_>,
    ) -> Poll<VecDeque<Bytes>> {
        if let Some(sent) = &mut self.sent {
            let _ = sent.poll(cx);
        }
        if let Some(owed) = &mut self.owed {
            let told = ready!(local.gate.poll_owed(owed, &mut self.place, cx));
            let owed = self.owed.take().unwrap_or_default();
            if let Err(why) = told {
                // Where there is none the log has failed, and nothing is asked again.
                let deadline = owed.deadline().unwrap_or_else(Instant::now);
                let again = again(self.written.manner, deadline);
                self.mend((why, &owed), again, local);
            }
        }
        if let Some(mending) = &mut self.mending {
            let mended = ready!(mending.as_mut().poll(cx));
            self.mending = None;
            self.replace(mended);
        }
        let here = match &mut self.sent {
            None => std::mem::take(&mut self.here),
            Some(sent) => {
                ready!(sent.poll(cx));
                sent.gather(std::mem::take(&mut self.here))
            }
        };
        self.written.batch.told(&local.counters);
        Poll::Ready(here)
    }

    /// Finds another reply for each that may not be told.
    #[cold]
    fn mend(&mut self, (why, owed): (Untold, &Owed), again: Option<Again>, local: &Local) {
        let (count, protocol) = (self.written.count, self.written.manner.protocol);
        let note = |error: &ErrorReply| local.shared.resp.count_error(error.code());
        let untold = match why {
            Untold::NotKept => {
                (0..count).for_each(|_| note(&ErrorReply::UNKNOWN));
                self.replace(vec![line(&ErrorReply::UNKNOWN, protocol); count]);
                return;
            }
            Untold::Replies(untold) => untold,
        };
        let mut replies = self.split();
        let mut asked = Vec::new();
        for (number, bad) in untold {
            let at = number as usize;
            let Some(reply) = replies.get_mut(at) else {
                continue;
            };
            let request = || {
                let request = self.written.requests.get(at)?.clone();
                let is_kept = request.end <= self.written.input.len() && !request.is_empty();
                sent_on(is_kept.then(|| self.written.input.slice(request))?)
            };
            let error = match bad {
                Bad::NotDone => match (&again, request()) {
                    (Some(_), Some(request)) => {
                        asked.push((at, request));
                        continue;
                    }
                    _ => ErrorReply::NOT_OPEN,
                },
                Bad::Passed => ErrorReply::NOT_OPEN,
                Bad::Unknown => unknown(local, owed, number),
            };
            note(&error);
            *reply = line(&error, protocol);
        }
        add(&local.counters.forwarded, asked.len() as u64);
        self.mending = Some(Box::pin(async move {
            for (at, request) in asked {
                if let Some(again) = &again {
                    replies[at] = again.reply(request, ErrorReply::NOT_OPEN).await;
                }
            }
            replies
        }));
    }

    /// Each reply by itself.
    fn split(&self) -> Vec<Bytes> {
        let all: Vec<u8> = self.here.iter().flatten().copied().collect();
        let all = Bytes::from(all);
        let mut from = 0;
        let ends = self.written.ends.iter();
        ends.map(|&end| all.slice(std::mem::replace(&mut from, end)..end))
            .collect()
    }

    /// Other replies take the place of those that there are.
    fn replace(&mut self, replies: Vec<Bytes>) {
        let mut ends = Vec::with_capacity(replies.len());
        let mut end = 0;
        for reply in &replies {
            end += reply.len();
            ends.push(end);
        }
        if let Some(sent) = &mut self.sent {
            sent.move_ends(&self.written.ends, &ends);
        }
        self.written.ends = ends;
        self.here = replies.into();
    }
}

/// Of a reply of a batch nobody knows what becomes of what was written.
#[cold]
pub(super) fn unknown(local: &Local, owed: &Owed, reply: u32) -> ErrorReply {
    let stamped = owed.unknown(reply);
    let known = stamped.and_then(|stamped| local.shared.cache.replicas_with(&stamped));
    ErrorReply::unknown_at_replicas(known)
}

/// A request as it is sent on, which is a frame: what came as a line is made one.
fn sent_on(request: Bytes) -> Option<Bytes> {
    if request.starts_with(b"*") {
        return Some(request);
    }
    let (mut line, mut spans) = (Vec::new(), Vec::new());
    inline_arguments(&request, &mut line, &mut spans).ok()?;
    Some(Raw::Words(Arguments::new(&line, &spans)).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_sent_on_as_a_frame() {
        for (request, expected) in [
            ("*1\r\n$4\r\nPING\r\n", Some("*1\r\n$4\r\nPING\r\n")),
            ("GET \"a b\"\r\n", Some("*2\r\n$3\r\nGET\r\n$3\r\na b\r\n")),
            ("GET \"a\r\n", None),
        ] {
            let sent = sent_on(Bytes::from_static(request.as_bytes()));
            assert_eq!(sent.as_deref(), expected.map(str::as_bytes), "{request}");
        }
    }
}
