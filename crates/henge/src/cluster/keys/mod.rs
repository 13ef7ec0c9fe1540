//! Commands on keys, run where the keys are: here at once, with nothing allocated and nothing awaited, or by the node that has
//! them. Several for one node go in one question. It knows no protocol of clients; what is told of a command that has no reply
//! is `outcome`'s, and what other nodes ask of this one is answered in `owner`.

mod bundle;
mod outcome;
mod owner;
mod patience;
pub(crate) mod scan;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use henge_cluster::replica::Level;
use henge_wire::peer::keys::{
    Answered, COMMANDS_HEAD_BYTES, FLUSH_QUESTION, Replies, commands_head, decode_answered,
    decode_replicas, encode_command,
};
use henge_wire::{Command, Operation, Partition, Refusal, Reply};

use super::link::Service;
use super::link::asking::AskError;
use super::replicas::told;
use super::routing::{Asking, REQUEST_TIMEOUT, Routes};
use super::view::{Member, Owner, Standing};
use crate::metrics::counters::add;
use crate::net::data_thread::Local;
use crate::net::inflight::Hold;

pub(crate) use bundle::Bundle;
pub(crate) use outcome::{Elsewhere, Extent, Outcomes};
use owner::Running;
pub(crate) use owner::{FlushFailure, answer, flush};
pub(crate) use patience::Patience;

/// Commands that are gathered before they are sent: some 200 us of the time of a node that has all of their keys.
const MOST_COMMANDS: usize = 512;
/// Bytes of commands from which on they are sent: little beside what one node may have out to another, and enough that a
/// round trip is nothing beside it.
const ENOUGH_BYTES: usize = 1 << 20;

/// Where a key is, by the view of the moment.
#[derive(Debug)]
pub(crate) enum Way {
    /// On this node alone, where nothing is waited for.
    Here,
    There(To),
}

/// Who is asked.
#[derive(Clone, Debug)]
pub(crate) enum To {
    Member(Rc<Routes>, Arc<Member>),
    /// This node, which waits for replicas on others.
    Here,
    /// Nobody now, and whoever leads the partition soon.
    Nobody,
}

impl Way {
    /// # Errors
    /// The key can be had nowhere now.
    #[inline]
    pub(crate) fn to(local: &Local, key: &[u8]) -> Result<Self, Elsewhere> {
        match local.routing.routes() {
            None => Ok(Self::Here),
            Some(routes) => Self::by(local, routes, Partition::of(key)),
        }
    }

    fn by(local: &Local, routes: Rc<Routes>, partition: Partition) -> Result<Self, Elsewhere> {
        if told::level() != Level::One && routes.view.is_cut_off() {
            return Err(Elsewhere::Minority);
        }
        Ok(match routes.view.owner(partition) {
            Owner::Here if local.shared.cache.asks_others(partition) => Self::There(To::Here),
            Owner::Here => Self::Here,
            Owner::There(member) if member.is_reachable() => {
                let member = Arc::clone(member);
                Self::There(To::Member(routes, member))
            }
            _ if routes.view.fails_over() && routes.view.standing == Standing::Inside => {
                Self::There(To::Nobody)
            }
            Owner::Nowhere => return Err(Elsewhere::nowhere(&routes.view)),
            Owner::There(member) => return Err(Elsewhere::Down(Arc::clone(member))),
        })
    }

    /// Runs a command on this key. On this node alone it never waits; `answer` sees the reply while the key's shard is locked, as
    /// in [`crate::cache::Cache::execute`].
    pub(crate) async fn perform<R>(
        self,
        local: &Local,
        command: &Command<'_>,
        now_ms: u64,
        answer: impl FnOnce(Reply<'_>) -> R,
    ) -> Result<R, Elsewhere> {
        match self {
            Self::Here => run_here(local, command, now_ms, answer),
            Self::There(_) if has_own(local, command) => run_here(local, command, now_ms, answer),
            Self::There(To::Nobody) if is_cut_off(local) => Err(Elsewhere::Minority),
            Self::There(to) => {
                let mut share = Share::new(local, to);
                share.push(command);
                share.send().map_err(|NoRoom| Elsewhere::NoRoom)?;
                share.next(answer).await
            }
        }
    }
}

/// Whether nobody is to be waited for, as no other node could take over.
fn is_cut_off(local: &Local) -> bool {
    let routes = local.routing.routes();
    routes.is_some_and(|routes| routes.view.is_cut_off())
}

/// Runs a command on this node, of which it may have had the key alone a moment ago and not any more.
fn run_here<R>(
    local: &Local,
    command: &Command<'_>,
    now_ms: u64,
    answer: impl FnOnce(Reply<'_>) -> R,
) -> Result<R, Elsewhere> {
    let cache = &local.shared.cache;
    cache.execute(command, now_ms, |reply| match reply {
        Reply::Refused(Refusal::NotOpen) => Err(Elsewhere::NotOpen),
        reply => Ok(answer(reply)),
    })
}

/// Whether this node may answer a command at ONE of a replica of its own.
fn has_own(local: &Local, command: &Command<'_>) -> bool {
    told::level() == Level::One
        && !command.operation.is_write()
        && local.routing.routes().is_some_and(|routes| {
            let partition = Partition::of(command.key);
            routes.view.has_replica(partition)
        })
}

/// Runs a command where its key is.
pub(crate) async fn perform<R>(
    local: &Local,
    command: &Command<'_>,
    now_ms: u64,
    answer: impl FnOnce(Reply<'_>) -> R,
) -> Result<R, Elsewhere> {
    let way = Way::to(local, command.key)?;
    way.perform(local, command, now_ms, answer).await
}

/// Where a command of several is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Here,
    /// With the others of this number.
    There(usize),
}

/// Commands for several nodes: they are pushed, then sent, then each is performed in its order.
#[derive(Debug)]
pub(crate) struct Scatter<'a> {
    local: &'a Local,
    routes: Option<Rc<Routes>>,
    shares: Vec<Share<'a>>,
    count: usize,
    bytes: usize,
}

impl<'a> Scatter<'a> {
    pub(crate) fn begin(local: &'a Local) -> Self {
        Self {
            local,
            routes: local.routing.routes(),
            shares: Vec::new(),
            count: 0,
            bytes: 0,
        }
    }

    /// Whether it is time to send.
    pub(crate) fn is_full(&self) -> bool {
        self.count >= MOST_COMMANDS || self.bytes >= ENOUGH_BYTES
    }

    /// Takes a command, if another node is to run it.
    ///
    /// # Errors
    /// It can be run nowhere now.
    pub(crate) fn push(&mut self, command: &Command<'_>) -> Result<Place, Elsewhere> {
        self.count += 1;
        let Some(routes) = &self.routes else {
            return Ok(Place::Here);
        };
        let partition = Partition::of(command.key);
        let to = match Way::by(self.local, Rc::clone(routes), partition)? {
            Way::There(_) if has_own(self.local, command) => return Ok(Place::Here),
            // It may be another's before it is this command's turn, and is asked for again then.
            Way::Here => To::Here,
            Way::There(To::Nobody) if is_cut_off(self.local) => return Err(Elsewhere::Minority),
            Way::There(to) => to,
        };
        let mut shares = self.shares.iter();
        let place = shares.position(|share| share.to.is_same(&to));
        let place = place.unwrap_or_else(|| {
            self.shares.push(Share::new(self.local, to));
            self.shares.len() - 1
        });
        self.bytes += self.shares[place].push(command);
        Ok(Place::There(place))
    }

    /// Asks all nodes at once.
    pub(crate) fn send(&mut self) {
        for share in &mut self.shares {
            if let Err(NoRoom) = share.send() {
                share.failed = Some(AskError::unsent(NO_ROOM));
            }
        }
    }

    /// Runs a command that has its place here, or takes its reply from there.
    pub(crate) async fn perform<R>(
        &mut self,
        place: Place,
        command: &Command<'_>,
        now_ms: u64,
        answer: impl FnOnce(Reply<'_>) -> R,
    ) -> Result<R, Elsewhere> {
        match place {
            Place::Here => run_here(self.local, command, now_ms, answer),
            Place::There(share) => self.next(share, answer).await,
        }
    }

    /// The next reply of these, in the order in which their commands were pushed.
    pub(crate) async fn next<R>(
        &mut self,
        share: usize,
        answer: impl FnOnce(Reply<'_>) -> R,
    ) -> Result<R, Elsewhere> {
        self.shares[share].next(answer).await
    }
}

/// Requests and answers hold all that they may.
#[derive(Debug)]
struct NoRoom;

const NO_ROOM: &str = "this node's requests and answers hold limits.max_inflight_bytes";

/// What is said of an answer that makes no sense.
pub(crate) const NO_ANSWER: &str = "its answer is none to what was asked";

/// A kind of operation, by how it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Read,
    Set,
    Delete,
    Increment,
    Expire,
}

impl Kind {
    const fn of(operation: &Operation<'_>) -> Self {
        match operation {
            Operation::Get | Operation::Peek => Self::Read,
            Operation::Set { .. } => Self::Set,
            Operation::Delete { .. } => Self::Delete,
            Operation::Increment { .. } => Self::Increment,
            Operation::Expire { .. } => Self::Expire,
        }
    }

    const fn is_write(self) -> bool {
        !matches!(self, Self::Read)
    }

    /// Whether the engine answers so: a node that does not is not believed.
    const fn is_answered_by(self, reply: &Reply<'_>) -> bool {
        match reply {
            Reply::Found(_) => matches!(self, Self::Read),
            Reply::Missing => matches!(self, Self::Read | Self::Delete | Self::Expire),
            Reply::Stored { .. } => matches!(self, Self::Set | Self::Expire),
            Reply::Counted { .. } => matches!(self, Self::Increment),
            Reply::Deleted => matches!(self, Self::Delete),
            Reply::Refused(Refusal::NotOpen) => true,
            Reply::Refused(_) => self.is_write(),
        }
    }
}

impl To {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Member(_, one), Self::Member(_, other)) => one.id == other.id,
            (Self::Here, Self::Here) | (Self::Nobody, Self::Nobody) => true,
            _ => false,
        }
    }
}

/// What one node is asked, and what it has answered of that.
#[derive(Debug)]
struct Share<'a> {
    local: &'a Local,
    to: To,
    commands: Bundle<(Kind, Partition), COMMANDS_HEAD_BYTES>,
    level: u8,
    /// Until when what nobody has done is asked for again.
    deadline: Instant,
    /// Of them, so many are done with.
    done: usize,
    asking: Option<Asked>,
    answer: Option<Answer>,
    failed: Option<AskError>,
    hold: Option<Hold<'a>>,
}

#[derive(Debug)]
enum Asked {
    There(Asking),
    Here(Running),
}

/// Replies that came together.
#[derive(Debug)]
struct Answer {
    bytes: Bytes,
    /// Where the next one begins, and how many there are from there on.
    at: usize,
    left: usize,
}

impl Answer {
    /// Takes the next reply.
    fn next<R>(&mut self, answer: impl FnOnce(u8, Answered<'_>) -> R) -> R {
        let mut rest = &self.bytes[self.at..];
        let Ok((replicas, answered)) = decode_replicas(&mut rest) else {
            unreachable!("all of them were read before");
        };
        self.at = self.bytes.len() - rest.len();
        self.left -= 1;
        answer(replicas, answered)
    }
}

impl<'a> Share<'a> {
    fn new(local: &'a Local, to: To) -> Self {
        Self {
            local,
            to,
            commands: Bundle::new(),
            level: told::level_number(),
            deadline: Instant::now() + REQUEST_TIMEOUT,
            done: 0,
            asking: None,
            answer: None,
            failed: None,
            hold: None,
        }
    }

    /// Takes a command, of so many bytes.
    fn push(&mut self, command: &Command<'_>) -> usize {
        let kind = Kind::of(&command.operation);
        let partition = Partition::of(command.key);
        self.commands
            .push((kind, partition), |body| encode_command(body, command))
    }

    fn send(&mut self) -> Result<(), NoRoom> {
        let mut hold = self.local.shared.in_flight.hold();
        // Once here, and once where it waits to be sent.
        if !hold.set(2 * self.commands.size_bytes()) {
            return Err(NoRoom);
        }
        self.hold = Some(hold);
        if !matches!(self.to, To::Here) {
            add(&self.local.counters.forwarded, self.commands.count() as u64);
        }
        self.ask();
        Ok(())
    }

    /// Asks for what is not done, or the first of that.
    fn ask(&mut self) {
        let level = Some(self.level);
        let question = self
            .commands
            .ask(|count| commands_head(level, count as u32));
        self.asking = match &self.to {
            To::Member(routes, member) => Some(Asked::There(routes.ask(
                member,
                Service::Commands,
                question,
            ))),
            To::Here => Some(Asked::Here(Running::begin(self.local, question))),
            To::Nobody => None,
        };
    }

    /// The reply to the next command.
    async fn next<R>(&mut self, answer: impl FnOnce(Reply<'_>) -> R) -> Result<R, Elsewhere> {
        while self.failed.is_none() && self.answer.as_ref().is_none_or(|answer| answer.left == 0) {
            let Some(asking) = self.asking.take() else {
                if matches!(self.to, To::Nobody) {
                    break;
                }
                self.ask();
                continue;
            };
            let again = self.commands.harmless(|(kind, _)| kind.is_write());
            let answered = match (asking, &self.to) {
                (Asked::There(asking), To::Member(routes, member)) => {
                    routes.answer(member, asking, again).await
                }
                (Asked::Here(running), _) => Ok(running.finish(self.local).await),
                (Asked::There(_), _) => unreachable!("a member was asked"),
            };
            match answered {
                Ok(bytes) => self.take(bytes),
                Err(error) => self.failed = Some(error),
            }
        }
        let at = self.done;
        let Some((kind, _)) = self.commands.get(at) else {
            unreachable!("no more replies are taken than commands were pushed");
        };
        self.done += 1;
        if let Some(came) = self.answer.as_mut().filter(|answer| answer.left > 0) {
            let mut bytes = None;
            let answered = came.next(|replicas, answered| match answered {
                Answered::NotHere | Answered::Reply(Reply::Refused(Refusal::NotOpen)) => {
                    bytes = Some(answer);
                    Err(Failed::NotDone)
                }
                Answered::Reply(reply) if kind.is_answered_by(&reply) => {
                    told::note_replicas(replicas);
                    Ok(answer(reply))
                }
                Answered::Reply(_) => Err(Failed::Error(AskError::lost(NO_ANSWER))),
                Answered::Unknown => Err(Failed::Unknown(replicas)),
            });
            return match (answered, bytes) {
                (Err(Failed::NotDone), Some(answer)) => {
                    self.again(at, self.to.not_there(), answer).await
                }
                (Ok(made), _) => Ok(made),
                (Err(failed), _) => Err(failed.told(&self.to, kind)),
            };
        }
        let was_asked = self.commands.asked().contains(&at);
        let lost = || AskError::lost("it did not answer");
        let mut error = self.failed.clone().unwrap_or_else(lost);
        error.may_be_done &= was_asked && !matches!(self.to, To::Nobody);
        let why = Failed::Error(error).told(&self.to, kind);
        if matches!(why, Elsewhere::Unknown(..)) {
            return Err(why);
        }
        self.again(at, why, answer).await
    }

    /// Asks for a command again of which nothing was done, of whoever has its partition by then; `why` is what is told where that
    /// is nobody's to say.
    async fn again<R>(
        &self,
        at: usize,
        mut why: Elsewhere,
        answer: impl FnOnce(Reply<'_>) -> R,
    ) -> Result<R, Elsewhere> {
        let local = self.local;
        let Some((kind, partition)) = self.commands.get(at) else {
            unreachable!("it was pushed");
        };
        if !local.shared.is_replicated() {
            return Err(why);
        }
        let mut question = commands_head(Some(self.level), 1).to_vec();
        question.extend_from_slice(self.commands.bytes(at));
        let mut patience = Patience::until(self.deadline, local);
        while patience.waits().await {
            if let Some(level) = told::numbered_level(self.level) {
                told::set_level(level);
            }
            let to = match local.routing.routes() {
                None => To::Here,
                Some(routes) => match Way::by(local, routes, partition) {
                    Ok(Way::There(to)) => to,
                    Ok(Way::Here) => To::Here,
                    Err(elsewhere) => return Err(elsewhere),
                },
            };
            let harmless = (!kind.is_write()).then_some(&question[..]);
            let answered = match &to {
                To::Nobody if is_cut_off(local) => return Err(Elsewhere::Minority),
                To::Nobody => {
                    why = Elsewhere::Nowhere;
                    continue;
                }
                To::Here => {
                    let running = Running::begin(local, &question);
                    running.end_by(self.deadline);
                    Ok(running.finish(local).await)
                }
                To::Member(routes, member) => {
                    let (service, until) = (Service::Commands, self.deadline);
                    let asking = routes.ask_until(member, service, &question, until);
                    routes.answer(member, asking, harmless).await
                }
            };
            let failed = match &answered {
                Err(error) => Failed::Error(error.clone()),
                Ok(bytes) => match only(bytes) {
                    Some((
                        _,
                        Answered::Reply(Reply::Refused(Refusal::NotOpen)) | Answered::NotHere,
                    )) => Failed::NotDone,
                    Some((replicas, Answered::Reply(reply))) if kind.is_answered_by(&reply) => {
                        told::note_replicas(replicas);
                        return Ok(answer(reply));
                    }
                    Some((replicas, Answered::Unknown)) => Failed::Unknown(replicas),
                    _ => Failed::Error(AskError::lost(NO_ANSWER)),
                },
            };
            why = failed.told(&to, kind);
            if matches!(why, Elsewhere::Unknown(..) | Elsewhere::UnknownHere(_)) {
                return Err(why);
            }
        }
        Err(why)
    }

    fn take(&mut self, bytes: Bytes) {
        let replies = Replies::decode(&bytes);
        let found = replies.map(|replies| (replies.count(), bytes.len() - replies.bytes().len()));
        match found {
            Ok((left, at)) if self.commands.answered(left) => {
                if let Some(hold) = &mut self.hold {
                    hold.set_anyway(self.commands.size_bytes() + bytes.len());
                }
                self.answer = Some(Answer { bytes, at, left });
            }
            _ => {
                self.failed = Some(AskError::lost(NO_ANSWER));
            }
        }
    }
}

/// The one reply of an answer that has one.
fn only(bytes: &Bytes) -> Option<(u8, Answered<'_>)> {
    let replies = Replies::decode(bytes).ok()?;
    let mut rest = replies.bytes();
    (replies.count() == 1).then(|| decode_replicas(&mut rest).ok())?
}

/// Why a command has no reply.
enum Failed {
    /// Nothing was done.
    NotDone,
    /// It is not known whether it was, by who was asked, who knows of so many replicas that have it; 0 where it knows of none.
    Unknown(u8),
    Error(AskError),
}

impl Failed {
    fn told(self, to: &To, kind: Kind) -> Elsewhere {
        match (self, to) {
            (Self::NotDone, to) => to.not_there(),
            (Self::Unknown(replicas), To::Member(_, member)) => {
                let known = match replicas {
                    0 => String::new(),
                    some => format!(", and {some} are known to have it"),
                };
                let why = format!(
                    "its write-ahead log failed meanwhile, or its replicas did not answer in time{known}"
                );
                Elsewhere::Unknown(Arc::clone(member), why)
            }
            (Self::Error(error), To::Member(_, member)) => {
                Elsewhere::unanswered(member, &error, kind.is_write())
            }
            (Self::Unknown(replicas), To::Here) => Elsewhere::UnknownHere(replicas),
            (Self::Error(_), To::Here) => Elsewhere::UnknownHere(0),
            (Self::Unknown(_) | Self::Error(_), To::Nobody) => Elsewhere::Nowhere,
        }
    }
}

impl To {
    /// It does not have the key now.
    fn not_there(&self) -> Elsewhere {
        match self {
            Self::Member(_, member) => Elsewhere::NotThere(Arc::clone(member)),
            Self::Here => Elsewhere::NotOpen,
            Self::Nobody => Elsewhere::Nowhere,
        }
    }
}

/// Has each of several members forget all that it has; this node forgets by `here`.
///
/// # Errors
/// Some have not, or are not known to have: a line that says which have, which have not, and of which that is not known, and
/// why. Where one is known to be down nothing is asked of any.
pub(crate) async fn flush_all(
    local: &Local,
    routes: &Rc<Routes>,
    here: impl Future<Output = Result<(), NotFlushed>>,
) -> Result<(), FlushError> {
    let members = &routes.view.members;
    if members.is_empty() {
        return Err(FlushError::Elsewhere(Elsewhere::nowhere(&routes.view)));
    }
    if let Some(down) = members.iter().find(|member| !member.is_reachable()) {
        return Err(FlushError::Elsewhere(Elsewhere::Down(Arc::clone(down))));
    }
    let others = members.iter().filter(|member| !member.is_me);
    let asked: Vec<(&Arc<Member>, Asking)> = others
        .map(|member| {
            add(&local.counters.forwarded, 1);
            let asking = routes.ask(member, Service::Commands, FLUSH_QUESTION);
            (member, asking)
        })
        .collect();
    let mut outcomes = Outcomes::default();
    let mut note = |member: &Member, outcome: Result<(), NotFlushed>| match outcome {
        Ok(()) => outcomes.note_done(member),
        Err(NotFlushed::Refused(why)) => outcomes.note_not(member, why),
        Err(NotFlushed::Unknown(why)) => outcomes.note_unknown(member, why),
    };
    if let Some(me) = routes.view.me() {
        note(me, here.await);
    }
    for (member, asking) in asked {
        let outcome = match routes.answer(member, asking, None).await {
            Ok(bytes) => flushed(&bytes),
            Err(error) if error.may_be_done => Err(NotFlushed::Unknown(error.to_string())),
            Err(error) => Err(NotFlushed::Refused(error.to_string())),
        };
        note(member, outcome);
    }
    let told = || outcomes.told("forgotten");
    match outcomes.extent() {
        Extent::All => Ok(()),
        Extent::Nothing | Extent::Some => Err(FlushError::Partly(told())),
        Extent::Unknown => Err(FlushError::Unknown(told())),
    }
}

/// Why a flush is none, or only a part of one.
#[derive(Debug)]
pub(crate) enum FlushError {
    /// Nothing was asked of any member.
    Elsewhere(Elsewhere),
    /// What was done and what was not: all of it is known.
    Partly(String),
    /// The same where of some members it is not known.
    Unknown(String),
}

/// Why one member has not forgotten its keys, or may not have.
#[derive(Debug)]
pub(crate) enum NotFlushed {
    /// It has not.
    Refused(String),
    /// It may have, or not, or a part of them.
    Unknown(String),
}

fn flushed(answer: &Bytes) -> Result<(), NotFlushed> {
    let replies = Replies::decode(answer).map(|replies| replies.bytes());
    match replies.and_then(|mut replies| decode_answered(&mut replies)) {
        Ok(Answered::Reply(Reply::Deleted)) => Ok(()),
        Ok(Answered::Reply(Reply::Refused(_))) => {
            Err(NotFlushed::Refused("its log cannot be written".to_owned()))
        }
        Ok(Answered::Unknown) => Err(NotFlushed::Unknown(
            "its write-ahead log failed meanwhile, or it was cut off".to_owned(),
        )),
        _ => Err(NotFlushed::Unknown(NO_ANSWER.to_owned())),
    }
}

#[cfg(test)]
mod tests;
