//! A request that was not done where it was asked for, as its partition has another leader or is about to have one: it is asked
//! for again, wherever it belongs by then, until it is answered or its time is over: that began when it was asked for first. Only such are asked again of which it is sure
//! that nothing was changed, and those that change nothing.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use henge_wire::resp::request::{self, Arguments, Decoded};
use henge_wire::resp::writer::{Output, Protocol, Writer};

use super::call::{ErrorReply, Later};
use super::clients::Client;
use super::forward::{Answered, begin};
use super::forwarded;
use super::pipeline::request_limits;
use super::session::{Manner, Session};
use super::spread::{Asked, Place};
use super::table::{COMMANDS, Spec, flag};
use crate::cluster::keys::{Elsewhere, NO_ANSWER, Patience};
use crate::cluster::link::Service;
use crate::cluster::link::asking::AskError;
use crate::cluster::replicas::told;
use crate::cluster::routing::REQUEST_TIMEOUT;
use crate::config::ConsistencyLevel;
use crate::net::data_thread::Local;

/// Who asks again, for one client.
#[derive(Clone)]
pub(super) struct Again {
    local: Rc<Local>,
    client: Arc<Client>,
    protocol: Protocol,
    no_touch: bool,
    level: ConsistencyLevel,
    reads_any: bool,
    deadline: Instant,
}

impl Again {
    /// For what a client has asked for just now, in this manner; none where a partition that its leader has lost has no other.
    pub(super) fn of(client: &Arc<Client>, manner: Manner, local: &Rc<Local>) -> Option<Self> {
        Self::until(client, manner, local, Instant::now() + REQUEST_TIMEOUT)
    }

    /// For what has this deadline.
    pub(super) fn until(
        client: &Arc<Client>,
        manner: Manner,
        local: &Rc<Local>,
        deadline: Instant,
    ) -> Option<Self> {
        if !local.shared.is_replicated() {
            return None;
        }
        let own = || local.shared.live.load().default_level;
        Some(Self {
            local: Rc::clone(local),
            client: Arc::clone(client),
            protocol: manner.protocol,
            no_touch: manner.no_touch,
            level: manner.level.unwrap_or_else(own),
            reads_any: manner.reads_any,
            deadline,
        })
    }

    /// The reply to a request as it is sent on, or in the end a line that says why there is none: `error`, where there is no time to
    /// ask again.
    pub(super) fn reply(
        &self,
        request: Bytes,
        mut error: ErrorReply,
    ) -> Pin<Box<dyn Future<Output = Bytes>>> {
        let again = self.clone();
        Box::pin(async move {
            let mut patience = Patience::until(again.deadline, &again.local);
            let mut has_time = Instant::now() < again.deadline;
            while has_time {
                match again.ask_once(&request).await {
                    Ok(reply) => return reply,
                    Err(NotNow(why)) => error = why,
                }
                has_time = patience.waits().await;
            }
            line(&error, again.protocol)
        })
    }

    /// A reply that comes later, or that to the request as it is asked for again, where nothing was done of it.
    pub(super) fn until_done(self, reply: Later, request: Bytes) -> Later {
        Box::pin(async move {
            match reply.await {
                Err(error) if error.says_nothing_was_done() => {
                    let mut out = Output::default();
                    out.push(&self.reply(request, error).await);
                    Ok(out)
                }
                reply => reply,
            }
        })
    }

    async fn ask_once(&self, request: &Bytes) -> Result<Bytes, NotNow> {
        let limits = request_limits(&self.local.shared.limits());
        let mut spans = Vec::new();
        let strange = || {
            line(
                &ErrorReply::fixed("ERR the request is not whole"),
                self.protocol,
            )
        };
        let Ok(Decoded::Request { .. }) = request::decode(request, &limits, &mut spans) else {
            return Ok(strange());
        };
        let words = Arguments::new(request, &spans);
        let Some(entry) = words.get(0).and_then(|name| COMMANDS.find(name)) else {
            return Ok(strange());
        };
        let level = if self.reads_any && !entry.spec.is(flag::WRITE) {
            ConsistencyLevel::One
        } else {
            self.level
        };
        let mut session =
            Session::forwarded(Arc::clone(&self.client), self.protocol, self.no_touch);
        session.level = Some(level);
        told::set_level(level);
        let mut question = begin(&session).to_vec();
        question.extend_from_slice(request);
        let Some(routes) = self.local.routing.routes() else {
            return self.ask_here(question).await;
        };
        let asked = Asked {
            spec: entry.spec,
            words,
            session: &session,
            local: &self.local,
            routes: &routes,
            deadline: Some(self.deadline),
        };
        match asked.place(None) {
            Ok(Place::Here) => self.ask_here(question).await,
            Ok(Place::There(member, _)) => {
                let is_write = entry.spec.is(flag::WRITE);
                let asking = routes.ask_until(&member, Service::Resp, &question, self.deadline);
                let again = (!is_write).then_some(&question[..]);
                match routes.answer(&member, asking, again).await {
                    Ok(answer) => only(answer)
                        .ok_or_else(|| NotNow(Elsewhere::NotThere(Arc::clone(&member)).into())),
                    Err(error) => {
                        let is_unknown = error.may_be_done && is_write;
                        let error: ErrorReply =
                            Elsewhere::unanswered(&member, &error, is_write).into();
                        if is_unknown {
                            Ok(line(&error, self.protocol))
                        } else {
                            Err(NotNow(error))
                        }
                    }
                }
            }
            Ok(Place::Several(later)) => match later.await {
                Ok(out) => Ok(whole(out)),
                Err(error)
                    if is_of_all(entry.spec)
                        && error.says_nothing_was_done()
                        && routes.view.reaches_majority() =>
                {
                    Err(NotNow(error))
                }
                Err(error) => Ok(line(&error, self.protocol)),
            },
            Err(error) if error.code() == "CROSSSLOT" || !routes.view.reaches_majority() => {
                Ok(line(&error, self.protocol))
            }
            Err(error) => Err(NotNow(error)),
        }
    }

    async fn ask_here(&self, question: Vec<u8>) -> Result<Bytes, NotNow> {
        let question = question.into();
        let answer = forwarded::here(&self.local, &self.client, &question, self.deadline).await;
        let answer = answer.map_err(AskError::unsent);
        let answer =
            answer.map_err(|error| NotNow(ErrorReply::new(format!("TRYAGAIN {error}"))))?;
        only(answer).ok_or(NotNow(ErrorReply::NOT_OPEN))
    }
}

/// Whether a command is about all keys and changes none: it is asked again as a whole, as what one node has to say of its own
/// partitions nobody else can.
pub(super) fn is_of_all(spec: &Spec) -> bool {
    spec.keys.first == 0 && !spec.is(flag::WRITE)
}

/// Nothing was done, and why.
struct NotNow(ErrorReply);

/// The reply of an answer that has one; none if that is not here.
fn only(answer: Bytes) -> Option<Bytes> {
    let strange = || Bytes::from(format!("-UNKNOWN {NO_ANSWER}\r\n"));
    let Some(mut replies) = Answered::of(answer).filter(|replies| replies.len() == 1) else {
        return Some(strange());
    };
    replies.next().flatten()
}

fn whole(mut out: Output) -> Bytes {
    let pieces = out.take_pieces(0);
    match <[Bytes; 1]>::try_from(pieces) {
        Ok([piece]) => piece,
        Err(pieces) => pieces.concat().into(),
    }
}

/// An error as a reply.
pub(super) fn line(error: &ErrorReply, protocol: Protocol) -> Bytes {
    let mut out = Output::default();
    Writer::new(&mut out, protocol).error(&error.0);
    Bytes::copy_from_slice(out.as_bytes().unwrap_or_default())
}
