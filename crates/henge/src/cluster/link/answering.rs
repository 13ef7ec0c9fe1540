//! The answering side of a connection between nodes: reads questions, hands each to whom it is for, and sends the answers as they
//! come. A large one is parked where small ones follow, and only its number sent. It does not know what is asked.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use henge_wire::peer::{Head, Kind, MAX_BODY_BYTES};

use super::frames::{Outgoing, ReadError};
use super::greet::Greeted;
use super::parking::Parks;
use super::{BULK_BYTES, FAILED, MAX_ANSWER_BYTES, PARKED, Service, UNTOLD};
use crate::cluster::replicas::told;
use crate::traces::Span;

/// Answers that wait to be sent, in bytes, from which on nothing more is read: the other side is slower than this one.
const MAX_UNSENT_BYTES: usize = 4 << 20;
/// Questions that are worked on at one time: a thread's connections ask one each.
const MAX_OPEN: usize = 16 * 1024;
/// What they, and answers that wait for the log, may have together from which on nothing more is read. Who asks sends no more than
/// as much itself.
const MAX_OPEN_BYTES: usize = 64 << 20;

/// Who answers what is asked over a connection.
pub(crate) trait Answers {
    /// Answers a question, at once or later.
    fn answer(&self, service: Service, question: Bytes, reply: Reply);
}

/// Where an answer goes. Dropped without one, it says that nobody knows what was done: work may have ended in its midst.
#[derive(Debug)]
pub(crate) struct Reply {
    out: Rc<Out>,
    id: u32,
    /// Of the question, and of what is kept for the answer.
    bytes: Cell<usize>,
    is_answered: bool,
    /// Of the question, if its request is traced: it ends with the answer.
    span: Option<Box<Span>>,
}

#[derive(Debug, Default)]
struct Out {
    outgoing: Outgoing,
    open: Cell<usize>,
    open_bytes: Cell<usize>,
    /// Where large answers wait; none on a connection for bulk.
    parks: Option<Parks>,
}

impl Out {
    /// Whether no more is to be read for now.
    fn is_full(&self) -> bool {
        self.outgoing.len() >= MAX_UNSENT_BYTES
            || self.open.get() >= MAX_OPEN
            || self.open_bytes.get() >= MAX_OPEN_BYTES
    }
}

impl Reply {
    fn to(out: &Rc<Out>, id: u32, question: &Bytes) -> Self {
        out.open.set(out.open.get() + 1);
        let reply = Self {
            out: Rc::clone(out),
            id,
            bytes: Cell::new(0),
            is_answered: false,
            span: None,
        };
        reply.keeps(question.len());
        reply
    }

    /// It is of a request that is traced.
    pub(crate) fn traced(mut self, span: Box<Span>) -> Self {
        self.span = Some(span);
        self
    }

    /// So many bytes more are kept until it is answered.
    pub(crate) fn keeps(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
        self.out.open_bytes.set(self.out.open_bytes.get() + bytes);
    }

    pub(crate) fn send(mut self, body: &[&[u8]]) {
        self.is_answered = true;
        let bytes: usize = body.iter().map(|piece| piece.len()).sum();
        if bytes > MAX_ANSWER_BYTES {
            // Who answers stops before that; a node must not end if one does not.
            let text =
                format!("its answer has {bytes} bytes, and one has at most {MAX_ANSWER_BYTES}");
            return self.push(UNTOLD, &[text.as_bytes()]);
        }
        if bytes >= BULK_BYTES
            && let Some(parks) = &self.out.parks
            && let Some(number) = parks.park(body)
        {
            return self.push(PARKED, &[&number.to_le_bytes()]);
        }
        self.push(0, body);
    }

    /// Nothing was done, and why.
    pub(crate) fn fail(mut self, why: &str) {
        self.is_answered = true;
        self.span.iter_mut().for_each(|span| span.fail());
        self.push(FAILED, &[why.as_bytes()]);
    }

    fn push(&self, service: u8, body: &[&[u8]]) {
        let head = Head {
            kind: Kind::Answer,
            service,
            id: self.id,
        };
        self.out.outgoing.push(head, body);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.is_answered {
            self.span.iter_mut().for_each(|span| span.fail());
            self.push(UNTOLD, &[b"it gave up on the question"]);
        }
        let out = &self.out;
        out.open.set(out.open.get() - 1);
        out.open_bytes.set(out.open_bytes.get() - self.bytes.get());
        self.out.outgoing.wake();
    }
}

/// Answers until the connection ends, and says why it did. None if the other side closed it in order.
pub(crate) async fn answer_all(
    greeted: Greeted,
    answers: &impl Answers,
    parks: Option<Parks>,
) -> Option<ReadError> {
    let Greeted {
        mut socket,
        mut incoming,
        standing,
        ..
    } = greeted;
    let mut is_over = pin!(standing.is_over());
    let out = Rc::new(Out {
        parks,
        ..Out::default()
    });
    poll_fn(|cx| {
        if is_over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(ReadError::Over));
        }
        loop {
            // What came and is not taken is woken for by nobody.
            let mut is_all_taken = false;
            while !out.is_full() {
                let (head, body) = match incoming.next(MAX_BODY_BYTES) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => {
                        is_all_taken = true;
                        break;
                    }
                    Err(error) => return Poll::Ready(Some(error)),
                };
                if head.kind != Kind::Ask {
                    // One that a later version knows, and that wants no answer.
                    continue;
                }
                let reply = Reply::to(&out, head.id, &body);
                match Service::of(head.service) {
                    Some(service) => answers.answer(service, body, reply),
                    None => reply.fail("this node knows no such question"),
                }
                // The next one would be told what became of them: that it was not done, perhaps, though it was.
                assert!(
                    !told::has_untaken_calls(),
                    "a question of service {} was answered, and nobody took what its calls owe",
                    head.service
                );
            }
            if let Poll::Ready(error) = out.outgoing.poll_send(&mut socket, cx) {
                return Poll::Ready(Some(ReadError::Io(error)));
            }
            if out.is_full() {
                return Poll::Pending;
            }
            if !is_all_taken {
                continue;
            }
            match incoming.poll_read(&mut socket, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(ReadError::Closed)) => return Poll::Ready(None),
                Poll::Ready(Err(error)) => return Poll::Ready(Some(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}
