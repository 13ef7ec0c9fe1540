//! Requests of clients of other nodes, which those have sent here because the keys are here: they run as any others, and the
//! replies go back with their lengths. Whoever forwarded them keeps what was not run.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, Bytes};
use henge_wire::resp::writer::{Output, Protocol};

use super::again::line;
use super::call::ErrorReply;
use super::clients::Client;
use super::forward::{HEAD_BYTES, MOST_REQUESTS, NO_TOUCH, NOT_HERE, level_of};
use super::held::unknown;
use super::pipeline::{Pipeline, Scratch, Stop, Waiting};
use super::session::Session;
use crate::cluster::link::MAX_ANSWER_BYTES;
use crate::cluster::link::answering::Reply;
use crate::cluster::replicas::told::{self, Bad};
use crate::disk::gate::{Owed, Place, Untold};
use crate::net::data_thread::Local;
use crate::traces;

/// What the thread's output buffer keeps of its memory.
const KEPT_OUTPUT_BYTES: usize = 256 * 1024;

/// Bytes of replies that fit in an answer, beside how many there are and how long each is: as many as one run makes, and one
/// that comes later or says why the rest is none. A value of the largest size has room behind what a run makes before it stops,
/// so that only what reads several is ever too long.
const MOST_REPLY_BYTES: usize = MAX_ANSWER_BYTES - 4 * (MOST_REQUESTS + 3);

/// Answers a question of another node; `client` stands for that node.
pub(crate) fn answer(local: &Rc<Local>, client: &Arc<Client>, question: &Bytes, reply: Reply) {
    let ran = {
        let mut scratch = local.resp.borrow_mut();
        run(local, client, question, &mut scratch)
    };
    match ran {
        Err(why) => reply.fail(why),
        Ok(Ran {
            waiting: None,
            owed: None,
            lengths,
            ..
        }) => {
            let mut scratch = local.resp.borrow_mut();
            let out = &mut scratch.out;
            let head = head(&lengths);
            match out.as_bytes() {
                Some(bytes) => reply.send(&[&head, bytes]),
                None => send(&head, &out.take_pieces(0), reply),
            }
            out.clear(KEPT_OUTPUT_BYTES);
        }
        Ok(ran) => {
            let pieces = take_output(local);
            reply.keeps(pieces.iter().map(Bytes::len).sum());
            let local = Rc::clone(local);
            let answer = async move {
                let (lengths, pieces) = finish(&local, ran, pieces, None).await;
                send(&head(&lengths), &pieces, reply);
            };
            tokio::task::spawn_local(traces::within(traces::present(), answer));
        }
    }
}

/// Runs a question of this node's own, for its part of what is done on several, until the request's deadline: the replies, of as many
/// requests as were run.
pub(super) async fn here(
    local: &Rc<Local>,
    client: &Arc<Client>,
    question: &Bytes,
    deadline: Instant,
) -> Result<Bytes, &'static str> {
    let (ran, pieces) = {
        let ran = run(local, client, question, &mut local.resp.borrow_mut())?;
        (ran, take_output(local))
    };
    let (lengths, pieces) = finish(local, ran, pieces, Some(deadline)).await;
    let mut answer = head(&lengths);
    for piece in pieces {
        answer.extend_from_slice(&piece);
    }
    Ok(answer.into())
}

fn take_output(local: &Local) -> Vec<Bytes> {
    let mut scratch = local.resp.borrow_mut();
    let pieces = scratch.out.take_pieces(0);
    scratch.out.clear(KEPT_OUTPUT_BYTES);
    pieces
}

/// How far requests were run; the replies that are there are in the thread's output.
struct Ran {
    lengths: Vec<u32>,
    /// The reply of one more comes later.
    waiting: Option<(Waiting, Pipeline)>,
    /// What has to be there before what was shown or written until now may be told.
    owed: Option<Owed>,
    protocol: Protocol,
}

fn run(
    local: &Rc<Local>,
    client: &Arc<Client>,
    question: &Bytes,
    scratch: &mut Scratch,
) -> Result<Ran, &'static str> {
    let (&[protocol, flags, level, _], requests) = question
        .split_first_chunk::<HEAD_BYTES>()
        .ok_or("the question has no head")?;
    let protocol = if protocol == 3 {
        Protocol::Resp3
    } else {
        Protocol::Resp2
    };
    let mut session = Session::forwarded(Arc::clone(client), protocol, flags & NO_TOUCH != 0);
    session.level = level_of(level);
    let mut pipeline = Pipeline::new(session, Rc::clone(local));
    let Scratch { out, buffers, .. } = scratch;
    out.set_budget(local.shared.in_flight.left().min(MOST_REPLY_BYTES));
    let now = Instant::now();
    let (done, stop) = pipeline.run(requests, (now, now), buffers, out);
    let owed = local.gate.take_owed();
    let waiting = match stop {
        Stop::Input { .. } if done < requests.len() && pipeline.lengths.is_empty() => {
            out.clear(KEPT_OUTPUT_BYTES);
            return Err("a request is not whole");
        }
        // The next one is none that this node takes, which is its reply; those before it were run.
        Stop::Close => {
            let written: usize = pipeline
                .lengths
                .iter()
                .filter(|&&length| length != NOT_HERE)
                .map(|&length| length as usize)
                .sum();
            pipeline.lengths.push((out.len() - written) as u32);
            None
        }
        Stop::Later(waiting) => Some(waiting),
        Stop::Input { .. } | Stop::Output | Stop::Paused { .. } | Stop::Before => None,
    };
    let lengths = std::mem::take(&mut pipeline.lengths);
    Ok(Ran {
        lengths,
        waiting: waiting.map(|waiting| (waiting, pipeline)),
        owed,
        protocol,
    })
}

/// Waits for what has to be waited for, until a deadline where who asks has none of its own.
async fn finish(
    local: &Rc<Local>,
    ran: Ran,
    mut pieces: Vec<Bytes>,
    deadline: Option<Instant>,
) -> (Vec<u32>, Vec<Bytes>) {
    let Ran {
        mut lengths,
        waiting,
        mut owed,
        protocol,
    } = ran;
    if let Some((mut waiting, pipeline)) = waiting {
        let (number, level) = (lengths.len(), pipeline.session.level);
        let reply = poll_fn(|cx| {
            told::set_level(level.unwrap_or_else(|| local.shared.live.load().default_level));
            told::set_reply(number);
            let polled = waiting.reply.as_mut().poll(cx);
            // Of what it ran in this poll.
            Owed::add(&mut owed, local.gate.take_owed());
            polled
        })
        .await;
        pipeline.waited(waiting.words, waiting.entry, waiting.since, None);
        // No more than the budget of the run.
        let written: usize = pieces.iter().map(Bytes::len).sum();
        let mut out = Output::default();
        match reply {
            Ok(reply) if reply.len() <= MOST_REPLY_BYTES.saturating_sub(written) => out = reply,
            Ok(_) => pipeline.fail(waiting.entry, &ErrorReply::REPLY_TOO_LONG, &mut out),
            Err(error) => pipeline.fail(waiting.entry, &error, &mut out),
        }
        lengths.push(out.len() as u32);
        pieces.extend(out.take_pieces(0));
    }
    if let Some(mut owed) = owed {
        if let Some(deadline) = deadline {
            owed.end_by(deadline);
        }
        let mut place = Place::default();
        let told = poll_fn(|cx| local.gate.poll_owed(&mut owed, &mut place, cx)).await;
        if let Err(why) = told {
            return mend(local, (&why, &owed), &lengths, &pieces, protocol);
        }
    }
    (lengths, pieces)
}

/// Puts others in the place of replies that may not be told. Who asked asks again where nothing was done.
#[cold]
fn mend(
    local: &Local,
    (why, owed): (&Untold, &Owed),
    lengths: &[u32],
    pieces: &[Bytes],
    protocol: Protocol,
) -> (Vec<u32>, Vec<Bytes>) {
    let all = Bytes::from(pieces.concat());
    let (mut lengths, mut mended) = (lengths.to_vec(), Vec::new());
    let mut at = 0;
    for (number, length) in lengths.iter_mut().enumerate() {
        let bytes = if *length == NOT_HERE {
            0
        } else {
            *length as usize
        };
        let reply = all.slice(at..at + bytes);
        at += bytes;
        let bad = match why {
            Untold::NotKept => Some(ErrorReply::UNKNOWN),
            Untold::Replies(replies) => {
                let bad = replies.iter().find(|(reply, _)| *reply as usize == number);
                match bad.map(|(_, bad)| bad) {
                    None => None,
                    Some(Bad::NotDone) => {
                        *length = NOT_HERE;
                        continue;
                    }
                    Some(Bad::Passed) => Some(ErrorReply::NOT_OPEN),
                    Some(Bad::Unknown) => Some(unknown(local, owed, number as u32)),
                }
            }
        };
        let reply = match bad {
            Some(error) if *length != NOT_HERE => line(&error, protocol),
            _ => reply,
        };
        if *length != NOT_HERE {
            *length = reply.len() as u32;
        }
        mended.push(reply);
    }
    (lengths, mended)
}

fn head(lengths: &[u32]) -> Vec<u8> {
    let mut head = Vec::with_capacity(4 + 4 * lengths.len());
    head.put_u32_le(lengths.len() as u32);
    for &length in lengths {
        head.put_u32_le(length);
    }
    head
}

fn send(head: &[u8], pieces: &[Bytes], reply: Reply) {
    let mut body: Vec<&[u8]> = Vec::with_capacity(pieces.len() + 1);
    body.push(head);
    body.extend(pieces.iter().map(|piece| &piece[..]));
    reply.send(&body);
}
