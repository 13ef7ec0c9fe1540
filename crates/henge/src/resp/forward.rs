//! Commands whose keys another node has: they are sent there as they came, all of a pipeline's for one node together, and their
//! replies take their places among those of this node. What may be sent where is `spread`'s to say.
//!
//! ```text
//! question   u8 protocol | u8 flags | u8 level, 0 for none | u8 0 | requests
//! answer     u32 count | u32 length of each reply, or that it is none | replies
//! ```
//!
//! An answer may have fewer replies than there were requests: those that follow were not run, and are sent again.
//!
//! The commands of one client for one member keep their order: a run has one batch for it, what is left of a batch is sent when the
//! answer to its beginning is there, and a connection runs nothing before all batches are answered. Whoever breaks that has
//! one pass the other, as small and large questions go over two connections.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use henge_wire::resp::request::Arguments;
use henge_wire::resp::writer::Protocol;

use super::again::{Again, line};
use super::call::ErrorReply;
use super::session::Session;
use crate::cluster::keys::{Bundle, Elsewhere, NO_ANSWER};
use crate::cluster::link::Service;
use crate::cluster::link::asking::AskError;
use crate::cluster::replicas::told;
use crate::cluster::routing::{Asking, Routes};
use crate::cluster::view::Member;
use crate::config::ConsistencyLevel;
use crate::net::inflight::{Hold, InFlight};
use crate::traces::{self, Span};

/// Bytes before the requests of a question.
pub(super) const HEAD_BYTES: usize = 4;
/// The flag of a client that wants to leave no trace (`CLIENT NO-TOUCH`).
pub(super) const NO_TOUCH: u8 = 1;
/// In place of the length of a reply: the key is not there, and nothing was done.
pub(super) const NOT_HERE: u32 = u32::MAX;
/// Replies from this size on are passed on as they are; smaller ones are copied together, to be sent by one call.
const SHARED_BYTES: usize = 16 * 1024;

/// Requests that one run sends to others: more than a pipeline mostly has, and few enough that their replies are sent before the
/// next are asked for.
pub(super) const MOST_REQUESTS: usize = 512;

/// Begins a question, at the level of what this thread asks now.
pub(super) fn begin(session: &Session) -> [u8; HEAD_BYTES] {
    let flags = if session.no_touch { NO_TOUCH } else { 0 };
    let protocol = match session.protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    };
    [protocol, flags, 1 + told::level_number(), 0]
}

/// The level that a question says; none for that of the node.
pub(super) fn level_of(number: u8) -> Option<ConsistencyLevel> {
    told::numbered_level(number.checked_sub(1)?)
}

/// What one node is asked.
#[derive(Debug)]
struct Batch {
    /// None for what no node can be asked for now, which is asked for again until one can.
    member: Option<Arc<Member>>,
    head: [u8; HEAD_BYTES],
    /// Each with whether it is a write.
    requests: Bundle<bool, HEAD_BYTES>,
    /// Of its request, if that is traced; it is the only one then.
    span: Option<Box<Span>>,
}

/// What the replies of a pipeline are made of.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// Those of this node, up to this length of its output.
    Here(usize),
    /// The next of this batch; and whether the client wants it.
    There(usize, bool),
}

/// The commands of a pipeline that are sent to others.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    batches: Vec<Batch>,
    parts: Vec<Part>,
}

impl Forwards {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// How many requests are sent on.
    pub(super) fn count(&self) -> usize {
        self.parts.len()
    }

    /// Whether as much is to be sent as one run may.
    pub(super) fn is_full(&self) -> bool {
        self.parts.len() >= 2 * MOST_REQUESTS
    }

    /// Whether a request has to wait for those before it: the connection has said something else of itself meanwhile, so that it
    /// goes into no batch with them, and none may overtake another.
    pub(super) fn are_of_another(&self, member: Option<&Member>, session: &Session) -> bool {
        let mut batches = self.batches.iter();
        let batch = batches.find(|batch| batch.is_of(member));
        // One that is traced has a batch to itself, as a question is of one trace.
        let is_apart = |batch: &Batch| batch.span.is_some() || traces::is_traced();
        batch.is_some_and(|batch| batch.head != begin(session) || is_apart(batch))
    }

    /// Adds a request, after so many bytes of this node's replies.
    pub(super) fn push(
        &mut self,
        member: Option<&Arc<Member>>,
        request: Raw<'_>,
        is_write: bool,
        session: &Session,
        (written, is_wanted): (usize, bool),
    ) {
        let known = member.map(|member| &**member);
        debug_assert!(!self.are_of_another(known, session));
        let mut batches = self.batches.iter();
        let place = batches.position(|batch| batch.is_of(known));
        let place = place.unwrap_or_else(|| {
            self.batches.push(Batch {
                member: member.cloned(),
                head: begin(session),
                requests: Bundle::new(),
                span: None,
            });
            self.batches.len() - 1
        });
        let requests = &mut self.batches[place].requests;
        requests.push(is_write, |body| request.append_to(body));
        self.parts.push(Part::Here(written));
        self.parts.push(Part::There(place, is_wanted));
    }

    /// The request that was added last is traced.
    pub(super) fn trace(&mut self, span: Box<Span>) {
        if let Some(Part::There(batch, _)) = self.parts.last() {
            self.batches[*batch].span = Some(span);
        }
    }

    /// Asks.
    pub(super) fn send(
        self,
        routes: &Rc<Routes>,
        in_flight: &Arc<InFlight>,
        again: Option<Again>,
    ) -> Sent {
        let mut held = Held {
            hold: in_flight.hold_growing(),
            questions: self
                .batches
                .iter()
                .map(|batch| batch.requests.size_bytes())
                .sum(),
            replies: 0,
        };
        // Once here, and once where they wait to be sent.
        let has_room = held.hold.set(2 * held.questions);
        // Asked now, so that all of them leave together.
        let asked: Vec<_> = self
            .batches
            .into_iter()
            .map(|mut batch| {
                let span = batch.span.as_ref();
                let _entered = span.map(|span| traces::enter(span.scope()));
                let asking = has_room.then(|| batch.ask(routes));
                (batch, asking)
            })
            .collect();
        let routes = Rc::clone(routes);
        let replies = Box::pin(async move {
            let mut replies = Vec::with_capacity(asked.len());
            for (mut batch, asking) in asked {
                let span = batch.span.take();
                let came = match asking {
                    Some(asking) => {
                        let scope = span.as_ref().map(|span| span.scope().clone());
                        let came = batch.replies(asking, &routes, &mut held, again.as_ref());
                        traces::within(scope, came).await
                    }
                    None => batch.refused(&ErrorReply::IN_FLIGHT),
                };
                if let Some(mut span) = span
                    && came.iter().any(|reply| reply.starts_with(b"-"))
                {
                    span.fail();
                }
                replies.push(came);
            }
            replies
        });
        Sent {
            parts: self.parts,
            replies,
            came: None,
        }
    }
}

/// What was sent to others, and what they have answered.
pub(super) struct Sent {
    parts: Vec<Part>,
    replies: Pin<Box<dyn Future<Output = Vec<VecDeque<Bytes>>>>>,
    came: Option<Vec<VecDeque<Bytes>>>,
}

impl Sent {
    /// Ready when all have answered.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.came.is_none() {
            self.came = Some(ready!(self.replies.as_mut().poll(cx)));
        }
        Poll::Ready(())
    }

    /// All replies in their order, once all have answered; `here` is this node's.
    pub(super) fn gather(&mut self, here: VecDeque<Bytes>) -> VecDeque<Bytes> {
        let written = here.iter().map(Bytes::len).sum();
        self.parts.push(Part::Here(written));
        gather(&self.parts, here, self.came.take().unwrap_or_default())
    }

    /// This node's replies have ended there, and end here.
    pub(super) fn move_ends(&mut self, there: &[usize], here: &[usize]) {
        for part in &mut self.parts {
            if let Part::Here(until) = part {
                let count = there.partition_point(|end| *end <= *until);
                *until = count.checked_sub(1).map_or(0, |last| here[last]);
            }
        }
    }
}

/// A request as it is sent on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Raw<'a> {
    /// As it came.
    Frame(&'a [u8]),
    /// From its words.
    Words(Arguments<'a>),
}

impl Raw<'_> {
    /// How many bytes it has; of words, at the least.
    pub(super) fn size_bytes(self) -> usize {
        match self {
            Self::Frame(bytes) => bytes.len(),
            Self::Words(words) => words.from(0).map(<[u8]>::len).sum(),
        }
    }

    /// Its bytes.
    pub(super) fn copied(self) -> Bytes {
        let mut bytes = Vec::new();
        self.append_to(&mut bytes);
        bytes.into()
    }

    fn append_to(self, out: &mut Vec<u8>) {
        match self {
            Self::Frame(bytes) => out.extend_from_slice(bytes),
            Self::Words(words) => {
                let words: Vec<&[u8]> = words.from(0).collect();
                henge_wire::resp::encode::request(out, &words);
            }
        }
    }
}

/// What a run has of memory until it is answered.
struct Held {
    hold: Hold<'static>,
    questions: usize,
    replies: usize,
}

impl Held {
    /// Takes so many bytes of replies; false past the bound of what is in flight.
    fn take(&mut self, bytes: usize) -> bool {
        self.replies += bytes;
        self.hold.set(self.questions + self.replies)
    }
}

impl Batch {
    fn is_of(&self, member: Option<&Member>) -> bool {
        self.member.as_ref().map(|member| member.id) == member.map(|member| member.id)
    }

    fn protocol(&self) -> Protocol {
        match self.head {
            [3, ..] => Protocol::Resp3,
            _ => Protocol::Resp2,
        }
    }

    /// The replies where nothing was asked.
    fn refused(&self, error: &ErrorReply) -> VecDeque<Bytes> {
        let refused = line(error, self.protocol());
        std::iter::repeat_n(refused, self.requests.count()).collect()
    }

    /// Asks for what is not answered, or the first of that.
    fn ask(&mut self, routes: &Routes) -> Option<Asking> {
        let member = self.member.as_ref()?;
        let question = self.requests.ask(|_| self.head);
        Some(routes.ask(member, Service::Resp, question))
    }

    /// The replies, which are held as they come; past the bound of what is in flight the rest is not asked for.
    async fn replies(
        mut self,
        asking: Option<Asking>,
        routes: &Routes,
        held: &mut Held,
        again: Option<&Again>,
    ) -> VecDeque<Bytes> {
        let protocol = self.protocol();
        let count = self.requests.count();
        let mut replies = VecDeque::with_capacity(count);
        let (Some(member), Some(mut asking)) = (self.member.clone(), asking) else {
            self.ask_again(0, None, again, &mut replies).await;
            return replies;
        };
        loop {
            let harmless = self.requests.harmless(|is_write| is_write);
            let answer = routes.answer(&member, asking, harmless).await;
            let answered = answer.and_then(|answer| {
                let answered = Answered::of(answer);
                let strange = || AskError::lost(NO_ANSWER);
                let is_sense = |answered: &Answered| self.requests.answered(answered.len());
                answered.filter(is_sense).ok_or_else(strange)
            });
            let answered = match answered {
                Ok(answered) => answered,
                Err(error) => {
                    let from = replies.len();
                    self.ask_again(from, Some(&error), again, &mut replies)
                        .await;
                    return replies;
                }
            };
            let has_room = held.take(answered.replies.len());
            for reply in answered {
                let not_there = || Elsewhere::NotThere(Arc::clone(&member)).into();
                let reply = match (reply, again) {
                    (Some(reply), _) => reply,
                    (None, Some(again)) => {
                        let request = self.request(replies.len());
                        again.reply(request, not_there()).await
                    }
                    (None, None) => line(&not_there(), protocol),
                };
                replies.push_back(reply);
            }
            let left = count - replies.len();
            if left == 0 {
                return replies;
            }
            if !has_room {
                let refused = line(&ErrorReply::REPLY_TOO_LONG, protocol);
                replies.extend(std::iter::repeat_n(refused, left));
                return replies;
            }
            match self.ask(routes) {
                Some(more) => asking = more,
                None => unreachable!("the member was asked before"),
            }
        }
    }

    /// Replies from this one on where none came: of what may have been done one that says so, of the rest those of whoever has
    /// its keys by then.
    async fn ask_again(
        &self,
        from: usize,
        why: Option<&AskError>,
        again: Option<&Again>,
        replies: &mut VecDeque<Bytes>,
    ) {
        let asked = self.requests.asked();
        for at in from..self.requests.count() {
            let is_write = self.requests.get(at).unwrap_or(true);
            let may_be_done = is_write && asked.contains(&at);
            let is_unknown = may_be_done && why.is_some_and(|why| why.may_be_done);
            let error = match (&self.member, why) {
                (Some(member), Some(why)) => Elsewhere::unanswered(member, why, may_be_done).into(),
                _ => ErrorReply::NOT_OPEN,
            };
            let reply = match again {
                Some(again) if !is_unknown => again.reply(self.request(at), error).await,
                _ => line(&error, self.protocol()),
            };
            replies.push_back(reply);
        }
    }

    /// A request that is asked for, or will be.
    fn request(&self, at: usize) -> Bytes {
        Bytes::copy_from_slice(self.requests.bytes(at))
    }
}

/// The replies of an answer, one after the other; none for a key that is not there.
pub(super) struct Answered {
    lengths: Bytes,
    replies: Bytes,
}

impl Answered {
    /// None if it makes no sense.
    pub(super) fn of(mut answer: Bytes) -> Option<Self> {
        let count = answer.try_get_u32_le().ok()? as usize;
        let bytes = count
            .checked_mul(4)
            .filter(|&bytes| bytes <= answer.len())?;
        let lengths = answer.split_to(bytes);
        let all: u64 = (0..count)
            .map(|nth| length(&lengths, nth))
            .filter(|&length| length != NOT_HERE)
            .map(u64::from)
            .sum();
        (all == answer.len() as u64).then_some(Self {
            lengths,
            replies: answer,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.lengths.len() / 4
    }
}

fn length(lengths: &Bytes, nth: usize) -> u32 {
    lengths
        .get(4 * nth..4 * nth + 4)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

impl Iterator for Answered {
    type Item = Option<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = self.lengths.try_get_u32_le().ok()?;
        Some((length != NOT_HERE).then(|| self.replies.split_to(length as usize)))
    }
}

/// Puts replies in their order, small ones together.
fn gather(
    parts: &[Part],
    mut here: VecDeque<Bytes>,
    mut there: Vec<VecDeque<Bytes>>,
) -> VecDeque<Bytes> {
    let mut out = VecDeque::new();
    let mut small = BytesMut::new();
    let mut push = |bytes: Bytes| {
        if bytes.len() < SHARED_BYTES {
            small.extend_from_slice(&bytes);
        } else {
            if !small.is_empty() {
                out.push_back(small.split().freeze());
            }
            out.push_back(bytes);
        }
    };
    let mut taken = 0;
    for part in parts {
        match *part {
            Part::Here(until) => {
                while taken < until {
                    let Some(piece) = here.front_mut() else {
                        unreachable!("places are in the output that they were taken in");
                    };
                    let count = piece.len().min(until - taken);
                    push(piece.split_to(count));
                    taken += count;
                    if piece.is_empty() {
                        here.pop_front();
                    }
                }
            }
            Part::There(batch, is_wanted) => {
                let Some(reply) = there[batch].pop_front() else {
                    unreachable!("each request has its reply");
                };
                if is_wanted {
                    push(reply);
                }
            }
        }
    }
    if !small.is_empty() {
        out.push_back(small.freeze());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(lengths: &[u32], replies: &[u8]) -> Bytes {
        let mut bytes = (lengths.len() as u32).to_le_bytes().to_vec();
        for length in lengths {
            bytes.extend_from_slice(&length.to_le_bytes());
        }
        bytes.extend_from_slice(replies);
        bytes.into()
    }

    #[test]
    fn answers_are_taken_apart() {
        let replies = |bytes| Answered::of(bytes).map(Iterator::collect::<Vec<_>>);
        let all = replies(answer(&[3, NOT_HERE, 0, 2], b"abcde"));
        let text = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        assert_eq!(all, Some(vec![text("abc"), None, text(""), text("de")]));
        assert_eq!(replies(answer(&[], b"")), Some(vec![]));
        for broken in [
            answer(&[3], b"ab"),
            answer(&[1], b"ab"),
            answer(&[NOT_HERE], b"a"),
            Bytes::from_static(b"\x01\x00\x00"),
            Bytes::from_static(b"\xff\xff\xff\xff\x00\x00\x00\x00"),
        ] {
            assert_eq!(replies(broken), None);
        }
    }

    #[test]
    fn replies_are_put_in_order() {
        let large = Bytes::from(vec![b'L'; SHARED_BYTES]);
        let here = [
            Bytes::from_static(b"12"),
            large.clone(),
            Bytes::from_static(b"34"),
        ];
        let parts = [
            Part::Here(1),
            Part::There(0, true),
            Part::Here(1),
            Part::There(1, true),
            Part::Here(2 + SHARED_BYTES + 1),
            Part::There(0, false),
            Part::There(0, true),
            Part::Here(2 + SHARED_BYTES + 2),
        ];
        let there = |texts: &[&'static str]| -> VecDeque<Bytes> {
            texts
                .iter()
                .map(|text| Bytes::from_static(text.as_bytes()))
                .collect()
        };
        let out = gather(
            &parts,
            here.into(),
            vec![there(&["a", "unwanted", "c"]), there(&["b"])],
        );
        assert_eq!(out.len(), 3);
        assert_eq!((&out[0][..], &out[2][..]), (&b"1ab2"[..], &b"3c4"[..]));
        assert_eq!(out[1], large);
    }
}
