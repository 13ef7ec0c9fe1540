//! The asking side of a connection to another node: questions go out together, one write for a turn of the thread, and answers
//! come in whatever order. All of it is on one thread. A question has a deadline, and what is out at one time is bounded: one
//! more waits for room, behind those that waited before it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use henge_wire::peer::{Head, Kind, MAX_BODY_BYTES, Refusal};

use super::frames::{Incoming, Outgoing, ReadError};
use super::greet::Greeted;
use super::{FAILED, MAX_ANSWER_BYTES, PARKED, Service, UNTOLD};
use crate::metrics::counters::LinkCounters;

/// Bytes of questions that are not answered, or not even sent, on one connection: as much as a node takes in by default for a
/// single value, and a peer that is slower than this is of no use to more. One that is longer goes by itself.
pub(super) const MAX_OUT_BYTES: usize = 64 << 20;
/// How late a deadline may be noticed: short beside any.
const DEADLINE_STEP: Duration = Duration::from_millis(100);

/// Why a question has no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AskError {
    /// What was asked may have been done.
    pub(crate) may_be_done: bool,
    /// The connection broke before the answer came, and nobody knew until then that anything was wrong with the node: over another
    /// connection it may well answer.
    pub(crate) link_broke: bool,
    /// What happened, for a person.
    pub(crate) text: Rc<str>,
}

impl AskError {
    pub(crate) fn unsent(text: impl Into<Rc<str>>) -> Self {
        Self {
            may_be_done: false,
            link_broke: false,
            text: text.into(),
        }
    }

    pub(crate) fn lost(text: impl Into<Rc<str>>) -> Self {
        Self {
            may_be_done: true,
            link_broke: false,
            text: text.into(),
        }
    }
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for AskError {}

/// What came for a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Came {
    /// The answer.
    Whole(Bytes),
    /// It is large, and is to be had over a connection for bulk, under this number.
    Parked(u64),
}

impl Came {
    /// The answer, of whom nothing is asked that has a large one.
    pub(crate) fn whole(self) -> Result<Bytes, AskError> {
        match self {
            Self::Whole(bytes) => Ok(bytes),
            Self::Parked(_) => Err(AskError::lost("its answer is not to be had here")),
        }
    }
}

/// A connection to another node. It ends when all who have it are gone.
#[derive(Clone, Debug)]
pub(crate) struct Link(Rc<State>);

/// The same, for who does not keep it.
#[derive(Clone, Debug)]
pub(super) struct WeakLink(Weak<State>);

impl WeakLink {
    /// Whether it is this one.
    pub(super) fn is(&self, link: &Link) -> bool {
        std::ptr::eq(self.0.as_ptr(), Rc::as_ptr(&link.0))
    }

    /// Whether both are the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Weak::ptr_eq(&self.0, &other.0)
    }

    /// The connection, if anybody has it still.
    pub(super) fn upgrade(&self) -> Option<Link> {
        self.0.upgrade().map(Link)
    }

    /// See [`Link::end`].
    pub(super) fn end(&self, why: &str) {
        if let Some(link) = self.upgrade() {
            link.end(why);
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// The start of the other side.
    incarnation: u64,
    counters: Arc<LinkCounters>,
    outgoing: Outgoing,
    asked: RefCell<HashMap<u32, Asked>>,
    next_id: Cell<u32>,
    /// Bytes of questions that were sent, or are about to be, and that nobody has answered.
    out_bytes: Cell<usize>,
    /// Those that wait for room, in their order. One that is over stays until it is its turn.
    waiting: RefCell<VecDeque<u32>>,
    /// The other side has answered something: it serves this one.
    has_answered: Cell<bool>,
    /// Why it has ended.
    ended: RefCell<Option<Rc<str>>>,
    /// Somebody ends it from this side.
    ending: RefCell<Option<Rc<str>>>,
}

#[derive(Debug)]
struct Asked {
    since: Instant,
    deadline: Instant,
    bytes: usize,
    /// The question, where it waits for room.
    unsent: Option<(Service, Box<[u8]>)>,
    /// It has its outcome, whether that was taken or not.
    is_done: bool,
    outcome: Option<Result<Came, AskError>>,
    waker: Option<Waker>,
}

impl Link {
    /// Over a connection whose sides know each other. Everything happens in the future, which ends with the connection and says
    /// why.
    pub(crate) fn over(
        greeted: Greeted,
        counters: Arc<LinkCounters>,
    ) -> (Self, impl Future<Output = Ended> + 'static) {
        let state = Rc::new(State {
            incarnation: greeted.hello.incarnation,
            counters,
            ..State::default()
        });
        let name = greeted.hello.name.clone();
        let run = run(greeted, Rc::clone(&state), name);
        (Self(state), run)
    }

    /// Asks, and answers later. The question leaves when the thread has done what else it has to do, or when there is room for it.
    pub(crate) fn ask(
        &self,
        service: Service,
        body: &[&[u8]],
        timeout: Duration,
    ) -> Result<Answer, AskError> {
        self.ask_until(service, body, Instant::now() + timeout)
    }

    /// The same, by a deadline.
    pub(crate) fn ask_until(
        &self,
        service: Service,
        body: &[&[u8]],
        deadline: Instant,
    ) -> Result<Answer, AskError> {
        let state = &self.0;
        if let Some(why) = &*state.ended.borrow() {
            return Err(AskError::unsent(Rc::clone(why)));
        }
        let bytes: usize = body.iter().map(|piece| piece.len()).sum();
        if bytes > MAX_BODY_BYTES {
            return Err(AskError::unsent(format!(
                "the question has {bytes} bytes, and one has at most {MAX_BODY_BYTES}"
            )));
        }
        let id = state.next_id.get();
        // Four billion questions later the one of this number is long over.
        state.next_id.set(id.wrapping_add(1));
        let may_leave = state.waiting.borrow().is_empty() && state.has_room(bytes);
        let unsent = if may_leave {
            state.send(id, service, body, bytes);
            None
        } else {
            state.waiting.borrow_mut().push_back(id);
            Some((service, body.concat().into()))
        };
        state.asked.borrow_mut().insert(
            id,
            Asked {
                since: Instant::now(),
                deadline,
                bytes,
                unsent,
                is_done: false,
                outcome: None,
                waker: None,
            },
        );
        Ok(Answer {
            state: Rc::clone(state),
            id,
        })
    }

    /// The start of the node that it was made to.
    pub(crate) fn incarnation(&self) -> u64 {
        self.0.incarnation
    }

    /// Whether it has ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.0.ended.borrow().is_some()
    }

    pub(super) fn weak(&self) -> WeakLink {
        WeakLink(Rc::downgrade(&self.0))
    }

    /// Ends it: what was asked has no answer any more.
    pub(crate) fn end(&self, why: &str) {
        *self.0.ending.borrow_mut() = Some(why.into());
        self.0.fail_all(&End::asked(why.into()));
        self.0.outgoing.wake();
    }
}

impl State {
    /// Whether a question of so many bytes may be sent now. What was given up and waits to be sent all the same needs room too.
    fn has_room(&self, bytes: usize) -> bool {
        let out = self.out_bytes.get().max(self.outgoing.len());
        out == 0 || out.saturating_add(bytes) <= MAX_OUT_BYTES
    }

    fn send(&self, id: u32, service: Service, body: &[&[u8]], bytes: usize) {
        self.out_bytes.set(self.out_bytes.get() + bytes);
        let head = Head {
            kind: Kind::Ask,
            service: service as u8,
            id,
        };
        self.outgoing.push(head, body);
    }

    /// Sends those that wait for room, in their order, as far as there is any.
    fn admit(&self) {
        let mut waiting = self.waiting.borrow_mut();
        let mut all = self.asked.borrow_mut();
        while let Some(&id) = waiting.front() {
            if let Some(asked) = all.get_mut(&id)
                && asked.unsent.is_some()
            {
                if !self.has_room(asked.bytes) {
                    return;
                }
                if let Some((service, body)) = asked.unsent.take() {
                    self.send(id, service, &[&body], asked.bytes);
                }
            }
            waiting.pop_front();
        }
    }

    /// A question has its outcome: what the other side has said, if that is so, which may be that it did not do it.
    fn end_question(&self, id: u32, outcome: Result<Came, AskError>, is_answered: bool) {
        if let Some(asked) = self.asked.borrow_mut().get_mut(&id)
            && !asked.is_done
        {
            self.give_back(asked);
            asked.is_done = true;
            self.counters.count(is_answered, asked.since.elapsed());
            asked.outcome = Some(outcome);
            if let Some(waker) = asked.waker.take() {
                waker.wake();
            }
        }
    }

    /// A question is over: its bytes are room for others.
    fn give_back(&self, asked: &mut Asked) {
        if asked.unsent.take().is_none() {
            self.out_bytes.set(self.out_bytes.get() - asked.bytes);
        }
    }

    fn fail_all(&self, end: &End) {
        let text = &end.why;
        *self.ended.borrow_mut() = Some(Rc::clone(text));
        let asked = self.asked.borrow();
        let waiting: Vec<(u32, bool)> = asked
            .iter()
            .map(|(&id, asked)| (id, asked.unsent.is_none() && !end.was_refused))
            .collect();
        drop(asked);
        for (id, may_be_done) in waiting {
            let error = AskError {
                may_be_done,
                link_broke: end.link_broke,
                text: Rc::clone(text),
            };
            self.end_question(id, Err(error), false);
        }
    }

    /// Those whose time is over fail. Whether others wait still.
    fn fail_late(&self, now: Instant) -> bool {
        let mut waits = false;
        let mut late = Vec::new();
        for (&id, asked) in &*self.asked.borrow() {
            if !asked.is_done {
                if asked.deadline <= now {
                    late.push((id, asked.unsent.is_some()));
                } else {
                    waits = true;
                }
            }
        }
        for (id, is_unsent) in late {
            let error = if is_unsent {
                AskError::unsent(format!(
                    "{MAX_OUT_BYTES} bytes of questions wait for its answers already, and none came in time"
                ))
            } else {
                AskError::lost("it has not answered in time")
            };
            self.end_question(id, Err(error), false);
        }
        waits
    }
}

/// The answer to a question. Who drops it wants none.
#[derive(Debug)]
pub(crate) struct Answer {
    state: Rc<State>,
    id: u32,
}

impl Future for Answer {
    type Output = Result<Came, AskError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut all = self.state.asked.borrow_mut();
        let Some(asked) = all.get_mut(&self.id) else {
            unreachable!("it is there for as long as its answer is awaited");
        };
        if let Some(outcome) = asked.outcome.take() {
            // It is polled no more.
            return Poll::Ready(outcome);
        }
        asked.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let state = &self.state;
        if let Some(mut asked) = state.asked.borrow_mut().remove(&self.id)
            && !asked.is_done
        {
            state.give_back(&mut asked);
            if !state.waiting.borrow().is_empty() {
                state.outgoing.wake();
            }
        }
        // The last who has it but for who runs it, which is to end with it.
        if Rc::strong_count(state) == 2 {
            state.outgoing.wake();
        }
    }
}

/// How a connection has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) why: Rc<str>,
    /// Anything was ever answered over it.
    pub(crate) has_answered: bool,
}

/// The same, for what was asked over it.
struct End {
    why: Rc<str>,
    link_broke: bool,
    /// The other side wants nothing to do with this one: it says so before it reads a question, and so it has read none.
    was_refused: bool,
}

impl End {
    fn asked(why: Rc<str>) -> Self {
        Self {
            why,
            link_broke: false,
            was_refused: false,
        }
    }
}

/// Sends and receives until either side ends it.
async fn run(greeted: Greeted, state: Rc<State>, name: String) -> Ended {
    let Greeted {
        mut socket,
        mut incoming,
        ..
    } = greeted;
    let next_step = || tokio::time::Instant::now() + DEADLINE_STEP;
    // One for all deadlines of the connection, where one for each question would cost as much as the question.
    let mut timer = pin!(tokio::time::sleep_until(next_step()));
    let mut is_timed = false;
    let end = poll_fn(|cx| {
        if let Some(why) = state.ending.borrow_mut().take() {
            return Poll::Ready(End::asked(why));
        }
        let broke = |error: &dyn fmt::Display| End {
            link_broke: true,
            ..End::asked(format!("the connection to {name} broke: {error}").into())
        };
        if let Poll::Ready(error) = state.outgoing.poll_send(&mut socket, cx) {
            return Poll::Ready(broke(&error));
        }
        loop {
            if let Err(error) = take_in(&mut incoming, &state) {
                return Poll::Ready(End {
                    was_refused: matches!(error, ReadError::Refused(_)),
                    ..End::asked(format!("{name}: {error}").into())
                });
            }
            match incoming.poll_read(&mut socket, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(broke(&error)),
                Poll::Pending => break,
            }
        }
        // Who has gone is asked nothing more.
        if Rc::strong_count(&state) == 1 {
            return Poll::Ready(End::asked("it is of no use any more".into()));
        }
        // Where nobody waits the timer rests. Who comes while bytes are stuck waits for room, and wakes nobody.
        let is_stuck = || state.outgoing.len() > 0;
        if !is_timed && (is_stuck() || !state.asked.borrow().is_empty()) {
            is_timed = true;
            timer.as_mut().reset(next_step());
        }
        while is_timed && timer.as_mut().poll(cx).is_ready() {
            is_timed = state.fail_late(Instant::now()) || is_stuck();
            timer.as_mut().reset(next_step());
        }
        // Answers, and those that came too late, have made room.
        state.admit();
        Poll::Pending
    })
    .await;
    state.fail_all(&end);
    Ended {
        why: end.why,
        has_answered: state.has_answered.get(),
    }
}

fn take_in(incoming: &mut Incoming, state: &State) -> Result<(), ReadError> {
    while let Some((head, body)) = incoming.next(MAX_ANSWER_BYTES)? {
        if head.kind == Kind::Refusal {
            let refusal = Refusal::decode(&body);
            return Err(ReadError::Refused(
                refusal.map_or_else(String::new, |r| r.text),
            ));
        }
        if head.kind != Kind::Answer {
            // One that a later version knows, and that wants no answer.
            continue;
        }
        let outcome = match head.service {
            // It says so where it has done nothing.
            FAILED => Err(AskError::unsent(String::from_utf8_lossy(&body))),
            UNTOLD => Err(AskError::lost(String::from_utf8_lossy(&body))),
            PARKED => match body.first_chunk() {
                Some(number) => Ok(Came::Parked(u64::from_le_bytes(*number))),
                None => Err(AskError::lost("its answer is parked nowhere")),
            },
            _ => Ok(Came::Whole(body)),
        };
        state.has_answered.set(true);
        state.end_question(head.id, outcome, true);
    }
    Ok(())
}
