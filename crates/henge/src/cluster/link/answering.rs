//! The answering side of a connection between nodes: reads questions, hands each to whom it is for, and sends the answers as they
//! come. It does not know what is asked.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use henge_wire::peer::{Head, Kind, MAX_BODY_BYTES};

use super::frames::{Outgoing, ReadError};
use super::greet::Greeted;
use super::{FAILED, Service};

/// Answers that wait to be sent, in bytes, from which on nothing more is read: the other side is slower than this one.
const MAX_UNSENT_BYTES: usize = 4 << 20;
/// Questions that are worked on at one time: a thread's connections ask one each.
const MAX_OPEN: usize = 16 * 1024;

/// Who answers what is asked over a connection.
pub(crate) trait Answers {
    /// Answers a question, at once or later.
    fn answer(&self, service: Service, question: Bytes, reply: Reply);
}

/// Where an answer goes. Dropped without one, it says that nothing was done.
#[derive(Debug)]
pub(crate) struct Reply {
    out: Rc<Out>,
    id: u32,
    is_answered: bool,
}

#[derive(Debug, Default)]
struct Out {
    outgoing: Outgoing,
    open: Cell<usize>,
}

impl Reply {
    pub(crate) fn send(mut self, body: &[&[u8]]) {
        self.is_answered = true;
        let head = Head {
            kind: Kind::Answer,
            service: 0,
            id: self.id,
        };
        self.out.outgoing.push(head, body);
    }

    /// Nothing was done, and why.
    pub(crate) fn fail(mut self, why: &str) {
        self.is_answered = true;
        self.failed(why);
    }

    fn failed(&self, why: &str) {
        let head = Head {
            kind: Kind::Answer,
            service: FAILED,
            id: self.id,
        };
        self.out.outgoing.push(head, &[why.as_bytes()]);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.is_answered {
            self.failed("the question was dropped");
        }
        self.out.open.set(self.out.open.get() - 1);
        self.out.outgoing.wake();
    }
}

/// Answers until the connection ends, and says why it did. None if the other side closed it in order.
pub(crate) async fn answer_all(greeted: Greeted, answers: &impl Answers) -> Option<ReadError> {
    let Greeted {
        mut socket,
        mut incoming,
        ..
    } = greeted;
    let out = Rc::new(Out::default());
    poll_fn(|cx| {
        loop {
            while out.outgoing.len() < MAX_UNSENT_BYTES && out.open.get() < MAX_OPEN {
                let (head, body) = match incoming.next(MAX_BODY_BYTES) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(error) => return Poll::Ready(Some(error)),
                };
                if head.kind != Kind::Ask {
                    // One that a later version knows, and that wants no answer.
                    continue;
                }
                out.open.set(out.open.get() + 1);
                let reply = Reply {
                    out: Rc::clone(&out),
                    id: head.id,
                    is_answered: false,
                };
                match Service::of(head.service) {
                    Some(service) => answers.answer(service, body, reply),
                    None => reply.fail("this node knows no such question"),
                }
            }
            if let Poll::Ready(error) = out.outgoing.poll_send(&mut socket, cx) {
                return Poll::Ready(Some(ReadError::Io(error)));
            }
            if out.outgoing.len() >= MAX_UNSENT_BYTES || out.open.get() >= MAX_OPEN {
                return Poll::Pending;
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
