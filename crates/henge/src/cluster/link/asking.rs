//! The asking side of a connection to another node: questions go out together, one write for a turn of the thread, and answers
//! come in whatever order. All of it is on one thread. A question has a deadline, and what is out at one time is bounded.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use henge_wire::peer::{Head, Kind, Refusal};

use super::frames::{Incoming, Outgoing, ReadError};
use super::greet::Greeted;
use super::{FAILED, Service};

/// Bytes of questions that are not answered, on one connection: as much as a node takes in by default for a single value, and a
/// peer that is slower than this is of no use to more.
const MAX_OUT_BYTES: usize = 64 << 20;
/// How late a deadline may be noticed: short beside any.
const DEADLINE_STEP: Duration = Duration::from_millis(100);
/// An answer holds values: those that may be configured, and what a batch adds to them.
const MAX_ANSWER_BYTES: usize = (1 << 30) + (1 << 20);

/// Why a question has no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AskError {
    /// What was asked may have been done.
    pub(crate) may_be_done: bool,
    /// What happened, for a person.
    pub(crate) text: Rc<str>,
}

impl AskError {
    pub(crate) fn unsent(text: impl Into<Rc<str>>) -> Self {
        Self {
            may_be_done: false,
            text: text.into(),
        }
    }

    pub(crate) fn lost(text: impl Into<Rc<str>>) -> Self {
        Self {
            may_be_done: true,
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

/// A connection to another node. It ends when all who have it are gone.
#[derive(Clone, Debug)]
pub(crate) struct Link(Rc<State>);

#[derive(Debug, Default)]
struct State {
    outgoing: Outgoing,
    asked: RefCell<HashMap<u32, Asked>>,
    next_id: Cell<u32>,
    out_bytes: Cell<usize>,
    /// The other side has answered something: it serves this one.
    has_answered: Cell<bool>,
    /// Why it has ended.
    ended: RefCell<Option<Rc<str>>>,
    /// Somebody ends it from this side.
    ending: RefCell<Option<Rc<str>>>,
}

#[derive(Debug)]
struct Asked {
    deadline: Instant,
    bytes: usize,
    /// It has its outcome, whether that was taken or not.
    is_done: bool,
    outcome: Option<Result<Bytes, AskError>>,
    waker: Option<Waker>,
}

impl Link {
    /// Over a connection whose sides know each other. Everything happens in the future, which ends with the connection and says
    /// why.
    pub(crate) fn over(greeted: Greeted) -> (Self, impl Future<Output = Rc<str>> + 'static) {
        let state = Rc::new(State::default());
        let name = greeted.hello.name.clone();
        let run = run(greeted, Rc::clone(&state), name);
        (Self(state), run)
    }

    /// Asks, and answers later. The question leaves when the thread has done what else it has to do.
    pub(crate) fn ask(
        &self,
        service: Service,
        body: &[&[u8]],
        timeout: Duration,
    ) -> Result<Answer, AskError> {
        let state = &self.0;
        if let Some(why) = &*state.ended.borrow() {
            return Err(AskError::unsent(Rc::clone(why)));
        }
        let bytes: usize = body.iter().map(|piece| piece.len()).sum();
        let out = state.out_bytes.get();
        if out > 0 && out + bytes > MAX_OUT_BYTES {
            return Err(AskError::unsent(format!(
                "{out} bytes of questions wait for its answers already"
            )));
        }
        state.out_bytes.set(out + bytes);
        let id = state.next_id.get();
        // Four billion questions later the one of this number is long over.
        state.next_id.set(id.wrapping_add(1));
        state.asked.borrow_mut().insert(
            id,
            Asked {
                deadline: Instant::now() + timeout,
                bytes,
                is_done: false,
                outcome: None,
                waker: None,
            },
        );
        let head = Head {
            kind: Kind::Ask,
            service: service as u8,
            id,
        };
        state.outgoing.push(head, body);
        Ok(Answer {
            state: Rc::clone(state),
            id,
        })
    }

    /// Whether anything was ever answered over it.
    pub(crate) fn has_answered(&self) -> bool {
        self.0.has_answered.get()
    }

    /// Whether it has ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.0.ended.borrow().is_some()
    }

    /// Ends it: what was asked has no answer any more.
    pub(crate) fn end(&self, why: &str) {
        *self.0.ending.borrow_mut() = Some(why.into());
        self.0.fail_all(why);
        self.0.outgoing.wake();
    }
}

impl State {
    fn answered(&self, id: u32, outcome: Result<Bytes, AskError>) {
        if let Some(asked) = self.asked.borrow_mut().get_mut(&id)
            && !asked.is_done
        {
            self.out_bytes.set(self.out_bytes.get() - asked.bytes);
            asked.is_done = true;
            asked.outcome = Some(outcome);
            if let Some(waker) = asked.waker.take() {
                waker.wake();
            }
        }
    }

    fn fail_all(&self, why: &str) {
        let text: Rc<str> = why.into();
        *self.ended.borrow_mut() = Some(Rc::clone(&text));
        let waiting: Vec<u32> = self.asked.borrow().keys().copied().collect();
        for id in waiting {
            self.answered(id, Err(AskError::lost(Rc::clone(&text))));
        }
    }

    /// Those whose time is over fail. Whether others wait still.
    fn fail_late(&self, now: Instant) -> bool {
        let mut waits = false;
        let mut late = Vec::new();
        for (&id, asked) in &*self.asked.borrow() {
            if !asked.is_done {
                if asked.deadline <= now {
                    late.push(id);
                } else {
                    waits = true;
                }
            }
        }
        for id in late {
            self.answered(id, Err(AskError::lost("it has not answered in time")));
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
    type Output = Result<Bytes, AskError>;

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
        if let Some(asked) = self.state.asked.borrow_mut().remove(&self.id)
            && !asked.is_done
        {
            let out = &self.state.out_bytes;
            out.set(out.get() - asked.bytes);
        }
    }
}

/// Sends and receives until either side ends it.
async fn run(greeted: Greeted, state: Rc<State>, name: String) -> Rc<str> {
    let Greeted {
        mut socket,
        mut incoming,
        ..
    } = greeted;
    let next_step = || tokio::time::Instant::now() + DEADLINE_STEP;
    // One for all deadlines of the connection, where one for each question would cost as much as the question.
    let mut timer = pin!(tokio::time::sleep_until(next_step()));
    let mut is_timed = false;
    let why = poll_fn(|cx| {
        if let Some(why) = state.ending.borrow_mut().take() {
            return Poll::Ready(why);
        }
        if let Poll::Ready(error) = state.outgoing.poll_send(&mut socket, cx) {
            return Poll::Ready(format!("the connection to {name} broke: {error}").into());
        }
        loop {
            match take_in(&mut incoming, &state) {
                Ok(()) => {}
                Err(error) => return Poll::Ready(format!("{name}: {error}").into()),
            }
            match incoming.poll_read(&mut socket, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(format!("the connection to {name} broke: {error}").into());
                }
                Poll::Pending => break,
            }
        }
        // Who has gone is asked nothing more.
        if Rc::strong_count(&state) == 1 {
            return Poll::Ready("it is of no use any more".into());
        }
        // Where nobody waits the timer rests.
        if !is_timed && !state.asked.borrow().is_empty() {
            is_timed = true;
            timer.as_mut().reset(next_step());
        }
        while is_timed && timer.as_mut().poll(cx).is_ready() {
            is_timed = state.fail_late(Instant::now());
            timer.as_mut().reset(next_step());
        }
        Poll::Pending
    })
    .await;
    state.fail_all(&why);
    why
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
        let outcome = if head.service == FAILED {
            // It says so where it has done nothing.
            Err(AskError::unsent(String::from_utf8_lossy(&body)))
        } else {
            Ok(body)
        };
        state.has_answered.set(true);
        state.answered(head.id, outcome);
    }
    Ok(())
}
