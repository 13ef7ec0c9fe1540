//! Commands that touch several nodes: each is asked for its part, this one too, and one reply is made of theirs. What one
//! command does on several nodes is done on each by itself, and is atomic for each key.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use henge_cluster::replica::Level;
use henge_wire::Partition;
use henge_wire::resp::encode;
use henge_wire::resp::request::{Arguments, integer};
use henge_wire::resp::writer::{Output, Writer};

use super::again::Again;
use super::call::{ErrorReply, Later};
use super::clients::Client;
use super::commands::{self, cluster};
use super::forward::{Answered, HEAD_BYTES, begin};
use super::forwarded;
use super::key_specs;
use super::session::Session;
use super::sizes;
use super::table::{Spec, flag};
use crate::cache::ScanCursor;
use crate::cluster::keys::{Elsewhere, Extent, NO_ANSWER, Outcomes, scan};
use crate::cluster::link::Service;
use crate::cluster::link::asking::AskError;
use crate::cluster::replicas::told;
use crate::cluster::routing::{Asking, REQUEST_TIMEOUT, Routes};
use crate::cluster::view::{Member, Owner};
use crate::net::data_thread::Local;
use crate::net::inflight::{Hold, InFlight};

/// What a command's keys may be when they are on several nodes, or what one without keys is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Spread {
    /// Its keys are one another's business: they have to be in one place.
    Together,
    /// A reply of numbers, which are added.
    Sum,
    /// A reply of values, one for each key.
    Values,
    /// `OK`, if all say so.
    Ok,
}

/// What is done on all nodes, each for its own keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whole {
    Sum,
    Ok,
    /// Arrays, one after the other.
    Join,
    /// A key of any, as many as each has.
    Draw,
    /// One node after the other.
    Scan,
}

fn spread(spec: &Spec) -> Spread {
    match spec.name {
        "del" | "unlink" | "exists" | "touch" => Spread::Sum,
        "mget" => Spread::Values,
        "mset" => Spread::Ok,
        _ => Spread::Together,
    }
}

fn whole(spec: &Spec) -> Option<Whole> {
    Some(match spec.name {
        "dbsize" => Whole::Sum,
        "flushall" | "flushdb" => Whole::Ok,
        "keys" => Whole::Join,
        "randomkey" => Whole::Draw,
        "scan" => Whole::Scan,
        _ => return None,
    })
}

/// Where a command is to be run.
pub(super) enum Place {
    /// On this node.
    Here,
    /// On another, as it is.
    There(Arc<Member>, Partition),
    /// On several, of which one reply is made.
    Several(Later),
}

/// What a command needs to be placed.
pub(super) struct Asked<'a> {
    pub(super) spec: &'static Spec,
    pub(super) words: Arguments<'a>,
    pub(super) session: &'a Session,
    pub(super) local: &'a Rc<Local>,
    pub(super) routes: &'a Rc<Routes>,
    /// Of what was asked before; none for what is asked for just now.
    pub(super) deadline: Option<Instant>,
}

impl Asked<'_> {
    /// Finds the place of a command; `first` is the partition of its first key, if that is known.
    ///
    /// # Errors
    /// It can be run nowhere now.
    pub(super) fn place(&self, first: Option<Partition>) -> Result<Place, ErrorReply> {
        let keys = self.spec.keys;
        if keys.first == 0 {
            return self.place_whole();
        }
        let mut places = key_specs::places(keys, self.words.len());
        let Some(at) = places.next() else {
            return Ok(Place::Here);
        };
        let first = first.unwrap_or_else(|| Partition::of(self.word(at)));
        let view = &self.routes.view;
        if self.local.shared.is_replicated() {
            let is_at_one = told::level() == Level::One;
            if !is_at_one && view.is_cut_off() {
                return Err(Elsewhere::Minority.into());
            }
            let is_here = |at| view.has_replica(Partition::of(self.word(at)));
            let mut all = key_specs::places(keys, self.words.len());
            if is_at_one && !self.spec.is(flag::WRITE) && all.all(is_here) {
                return Ok(Place::Here);
            }
        }
        let owner = view.owner(first);
        if places.all(|at| view.owner(Partition::of(self.word(at))) == owner) {
            return match owner {
                Owner::Here => Ok(Place::Here),
                Owner::There(member) => {
                    reachable(member)?;
                    Ok(Place::There(Arc::clone(member), first))
                }
                Owner::Nowhere => Err(self.nowhere()),
            };
        }
        match spread(self.spec) {
            Spread::Together => Err(ErrorReply::CROSS_SLOT),
            spread => self.split(spread).map(Place::Several),
        }
    }

    fn word(&self, at: usize) -> &[u8] {
        self.words.get(at).unwrap_or_default()
    }

    fn in_flight(&self) -> Arc<InFlight> {
        Arc::clone(&self.local.shared.in_flight)
    }

    fn nowhere(&self) -> ErrorReply {
        Elsewhere::nowhere(&self.routes.view).into()
    }

    /// A command without keys.
    fn place_whole(&self) -> Result<Place, ErrorReply> {
        let Some(whole) = whole(self.spec) else {
            return self.place_slot();
        };
        let is_here = match whole {
            Whole::Scan => {
                let asks_for_all = self.session.asks_for_all();
                let cursor = commands::scan::cursor(self.word(1));
                !cursor.is_some_and(|cursor| commands::scan::is_of_all(cursor, asks_for_all))
            }
            // One asks the whole cluster.
            Whole::Ok if self.local.shared.is_replicated() => true,
            // Who knows the map asks each node for its own.
            _ => self.session.knows_map,
        };
        if is_here {
            return Ok(Place::Here);
        }
        let members = &self.routes.view.members;
        if members.is_empty() {
            return Err(self.nowhere());
        }
        let words: Vec<&[u8]> = self.words.from(0).collect();
        if whole == Whole::Scan {
            return self.scan(&words).map(Place::Several);
        }
        // Who is lost and leads nothing any more has nothing to say.
        let is_replicated = self.local.shared.is_replicated();
        let says = |member: &&Arc<Member>| {
            member.is_reachable() || !is_replicated || self.routes.view.has_some(member)
        };
        let members: Vec<Arc<Member>> = members.iter().filter(says).cloned().collect();
        for member in &members {
            reachable(member)?;
        }
        let each = |words: &[&[u8]]| -> Vec<Part> {
            let ask = |member| self.ask(member, words);
            members.iter().map(ask).collect()
        };
        let parts = each(match whole {
            Whole::Draw => &[b"DBSIZE"],
            // As leaders change a partition may have none, or two that know of each other not yet.
            Whole::Sum if is_replicated => &[b"HENGE", b"SIZE"],
            _ => &words,
        });
        let (name, in_flight) = (self.session.protocol, self.in_flight());
        if whole == Whole::Draw {
            return Ok(Place::Several(self.draw(members, parts)));
        }
        Ok(Place::Several(Box::pin(async move {
            let replies = all(parts, &in_flight).await?;
            let mut out = Output::default();
            let mut writer = Writer::new(&mut out, name);
            match whole {
                Whole::Sum if is_replicated => writer.integer(sizes::total(&replies.all)?),
                Whole::Sum => writer.integer(replies.sum()?),
                Whole::Join => join(&mut writer, &replies.all)?,
                Whole::Ok | Whole::Draw | Whole::Scan => {
                    replies.ok()?;
                    writer.ok();
                }
            }
            Ok(out)
        })))
    }

    /// A command that asks about a slot goes to who has it; any other without keys is about this node.
    fn place_slot(&self) -> Result<Place, ErrorReply> {
        let asks = matches!(
            self.spec.name,
            "cluster|countkeysinslot" | "cluster|getkeysinslot"
        );
        let asked = asks
            .then(|| cluster::partition_asked(self.word(2)))
            .flatten();
        match asked.map(|partition| (partition, self.routes.view.owner(partition))) {
            Some((partition, Owner::There(member))) if !self.session.knows_map => {
                reachable(member)?;
                Ok(Place::There(Arc::clone(member), partition))
            }
            _ => Ok(Place::Here),
        }
    }

    /// Until when it is asked for.
    fn deadline(&self) -> Instant {
        let from_now = || Instant::now() + REQUEST_TIMEOUT;
        self.deadline.unwrap_or_else(from_now)
    }

    /// A part for one member.
    fn ask(&self, member: &Arc<Member>, words: &[&[u8]]) -> Part {
        let mut question = begin(self.session).to_vec();
        encode::request(&mut question, words);
        let deadline = self.deadline();
        let from = if member.is_me {
            From::Here {
                local: Rc::clone(self.local),
                client: Arc::clone(&self.session.client),
                question: question.into(),
            }
        } else {
            From::There {
                routes: Rc::clone(self.routes),
                question,
            }
        };
        Part {
            member: Arc::clone(member),
            is_write: self.spec.is(flag::WRITE),
            has_several: key_specs::places(self.spec.keys, words.len()).count() > 1,
            from,
            deadline,
            // What each has to say for itself nobody else can.
            again: (self.spec.keys.first != 0)
                .then(|| {
                    let manner = self.session.manner();
                    Again::until(&self.session.client, manner, self.local, deadline)
                })
                .flatten(),
        }
    }

    /// Splits a command by the nodes of its keys.
    fn split(&self, spread: Spread) -> Result<Later, ErrorReply> {
        let view = &self.routes.view;
        let step = usize::from(self.spec.keys.step.unsigned_abs()).max(1);
        // What a node by itself finds out before it does anything.
        if !(self.words.len() - 1).is_multiple_of(step) {
            return Err(ErrorReply::wrong_arity(self.spec.name));
        }
        let most = self.local.shared.limits().max_value_bytes;
        if step > 1
            && self
                .words
                .from(2)
                .step_by(step)
                .any(|value| value.len() > most)
        {
            return Err(ErrorReply::VALUE_TOO_LONG);
        }
        let mut shares: Vec<Share<'_>> = Vec::new();
        let mut count = 0;
        for at in key_specs::places(self.spec.keys, self.words.len()) {
            let holder = view.holder(Partition::of(self.word(at)));
            let holder = holder.ok_or_else(|| self.nowhere())?;
            reachable(holder)?;
            let known = shares
                .iter()
                .position(|(member, ..)| member.id == holder.id);
            let place = known.unwrap_or_else(|| {
                shares.push((Arc::clone(holder), vec![self.word(0)], Vec::new()));
                shares.len() - 1
            });
            let (_, words, which) = &mut shares[place];
            words.extend((at..at + step).filter_map(|at| self.words.get(at)));
            which.push(count);
            count += 1;
        }
        let mut parts = Vec::with_capacity(shares.len());
        let mut whose = Vec::with_capacity(shares.len());
        for (member, words, which) in shares {
            parts.push(self.ask(&member, &words));
            whose.push(which);
        }
        let (protocol, in_flight) = (self.session.protocol, self.in_flight());
        Ok(Box::pin(async move {
            let replies = all(parts, &in_flight).await?;
            let mut out = Output::default();
            let mut writer = Writer::new(&mut out, protocol);
            match spread {
                Spread::Sum => writer.integer(replies.sum()?),
                Spread::Values => {
                    let mut values = vec![Bytes::new(); count];
                    for (reply, which) in replies.all.iter().zip(&whose) {
                        let elements = elements(reply)
                            .filter(|elements| elements.len() == which.len())
                            .ok_or_else(|| strange(false))?;
                        for (value, &at) in elements.into_iter().zip(which) {
                            values[at] = value;
                        }
                    }
                    writer.array(count);
                    for value in values {
                        writer.output().push(&value);
                    }
                }
                Spread::Ok | Spread::Together => {
                    replies.ok()?;
                    writer.ok();
                }
            }
            Ok(out)
        }))
    }

    /// A key of a member that is drawn by how many each has.
    fn draw(&self, members: Vec<Arc<Member>>, sizes: Vec<Part>) -> Later {
        let protocol = self.session.protocol;
        let further = Further::of(self);
        Box::pin(async move {
            let sizes = all(sizes, &further.local.shared.in_flight).await?.all;
            let sizes: Vec<u64> = sizes
                .iter()
                .map(|reply| number(reply).map(i64::unsigned_abs))
                .collect::<Option<_>>()
                .ok_or_else(|| strange(false))?;
            let every: u64 = sizes.iter().sum();
            let mut nth = match every {
                0 => 0,
                every => further.random() % every,
            };
            let drawn = sizes.iter().position(|&size| {
                let is_here = nth < size;
                nth = nth.wrapping_sub(if is_here { 0 } else { size });
                is_here
            });
            let mut out = Output::default();
            match drawn {
                None => Writer::new(&mut out, protocol).null(),
                Some(at) => {
                    let reply = further.ask(&members[at], &[b"RANDOMKEY"]).reply().await?;
                    out.push(&reply);
                }
            }
            Ok(out)
        })
    }

    /// Goes through the keys of one member after the other. A cursor is that of the member whose partition it is in.
    fn scan(&self, words: &[&[u8]]) -> Result<Later, ErrorReply> {
        let cursor = commands::scan::cursor(self.word(1)).unwrap_or(0);
        let cursor = ScanCursor::from_u64(cursor & !commands::scan::OF_ALL);
        let view = &self.routes.view;
        let (holder, cursor) = scan::turn(view, cursor).ok_or_else(|| self.nowhere())?;
        reachable(holder)?;
        let text = cursor.to_u64().to_string();
        let mut asked = words.to_vec();
        asked[1] = text.as_bytes();
        let part = self.ask(holder, &asked);
        let (view, holder) = (Arc::clone(view), Arc::clone(holder));
        Ok(Box::pin(async move {
            let reply = part.reply().await?;
            let (cursor, keys) = page(&reply).ok_or_else(|| strange(false))?;
            let cursor = ScanCursor::from_u64(cursor);
            let next = scan::next(&view, &holder, cursor);
            let next = commands::scan::number(next, true).to_string();
            let mut out = Output::default();
            out.push(format!("*2\r\n${}\r\n{next}\r\n", next.len()).as_bytes());
            out.push(&keys);
            Ok(out)
        }))
    }
}

/// A member, the words for it, and which of the keys those are of.
type Share<'a> = (Arc<Member>, Vec<&'a [u8]>, Vec<usize>);

fn reachable(member: &Arc<Member>) -> Result<(), ErrorReply> {
    if member.is_reachable() {
        Ok(())
    } else {
        Err(Elsewhere::Down(Arc::clone(member)).into())
    }
}

/// What is needed to ask another part, later.
pub(super) struct Further {
    session: Session,
    local: Rc<Local>,
    routes: Rc<Routes>,
    spec: &'static Spec,
    /// Until when; none where each part has its own time.
    deadline: Option<Instant>,
}

impl Further {
    /// For parts of a command that is asked for now.
    fn of(asked: &Asked<'_>) -> Self {
        Self {
            deadline: Some(asked.deadline()),
            ..Self::new(asked.session, asked.local, asked.routes, asked.spec)
        }
    }

    pub(super) fn new(
        session: &Session,
        local: &Rc<Local>,
        routes: &Rc<Routes>,
        spec: &'static Spec,
    ) -> Self {
        Self {
            session: Session::forwarded(
                Arc::clone(&session.client),
                session.protocol,
                session.no_touch,
            ),
            local: Rc::clone(local),
            routes: Rc::clone(routes),
            spec,
            deadline: None,
        }
    }

    /// Asks a member for a number; none if it gives none.
    pub(super) async fn number_of(&self, member: &Arc<Member>, words: &[&[u8]]) -> Option<i64> {
        let reply = self.ask(member, words).reply().await;
        reply.ok().as_ref().and_then(number)
    }

    fn random(&self) -> u64 {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(Rc::as_ptr(&self.local))
    }

    fn ask(&self, member: &Arc<Member>, words: &[&[u8]]) -> Part {
        let asked = Asked {
            spec: self.spec,
            words: Arguments::new(&[], &[]),
            session: &self.session,
            local: &self.local,
            routes: &self.routes,
            deadline: self.deadline,
        };
        asked.ask(member, words)
    }
}

/// One node's part.
struct Part {
    member: Arc<Member>,
    is_write: bool,
    /// It is of several keys: where it fails, it may have been done for some.
    has_several: bool,
    from: From,
    deadline: Instant,
    again: Option<Again>,
}

/// Why a part has no reply.
#[derive(Debug)]
struct Failed {
    error: ErrorReply,
    /// Of a write: it may be done, or done for some of its keys.
    may_be_done: bool,
}

impl Failed {
    fn of(error: ErrorReply) -> Self {
        let may_be_done = error.code() == ErrorReply::UNKNOWN_CODE;
        Self { error, may_be_done }
    }
}

enum From {
    Here {
        local: Rc<Local>,
        client: Arc<Client>,
        question: Bytes,
    },
    There {
        routes: Rc<Routes>,
        question: Vec<u8>,
    },
}

impl Part {
    fn question_bytes(&self) -> usize {
        match &self.from {
            From::Here { question, .. } => question.len(),
            From::There { question, .. } => question.len(),
        }
    }

    /// What it asks for, without the head.
    fn request(&self) -> Bytes {
        match &self.from {
            From::Here { question, .. } => question.slice(HEAD_BYTES..),
            From::There { question, .. } => Bytes::copy_from_slice(&question[HEAD_BYTES..]),
        }
    }

    /// Asks another node. Not before all parts are asked for: who finds out that it has to wait drops them.
    fn ask(&self) -> Option<Asking> {
        match &self.from {
            From::Here { .. } => None,
            From::There { routes, question } => {
                Some(routes.ask_until(&self.member, Service::Resp, question, self.deadline))
            }
        }
    }

    /// Its reply, by itself.
    async fn reply(self) -> Result<Bytes, ErrorReply> {
        self.reply_to(None).await.map_err(|failed| failed.error)
    }

    /// Its reply, to what another node was asked; an error reply is an error.
    async fn reply_to(&self, asking: Option<Asking>) -> Result<Bytes, Failed> {
        let answer = match &self.from {
            From::Here {
                local,
                client,
                question,
            } => forwarded::here(local, client, question, self.deadline)
                .await
                .map_err(AskError::unsent),
            From::There { routes, question } => {
                let ask = || routes.ask_until(&self.member, Service::Resp, question, self.deadline);
                let again = (!self.is_write).then_some(&question[..]);
                let asking = asking.unwrap_or_else(ask);
                routes.answer(&self.member, asking, again).await
            }
        };
        let unanswered = |error| Elsewhere::unanswered(&self.member, &error, self.is_write);
        let not_there = || Elsewhere::NotThere(Arc::clone(&self.member));
        let answered = match answer {
            Err(error) if error.may_be_done && self.is_write => {
                return Err(Failed::of(unanswered(error).into()));
            }
            Err(error) => Err(unanswered(error)),
            Ok(answer) => Answered::of(answer)
                .filter(|replies| replies.len() == 1)
                .ok_or_else(|| Failed::of(unanswered(AskError::lost(NO_ANSWER)).into()))?
                .next()
                .flatten()
                .ok_or_else(not_there),
        };
        let reply = match (answered, &self.again) {
            (Ok(reply), _) => reply,
            (Err(why), Some(again)) => again.reply(self.request(), why.into()).await,
            (Err(why), None) => return Err(Failed::of(why.into())),
        };
        match reply.strip_prefix(b"-") {
            None => Ok(reply),
            Some(error) => Err(self.refused(error)),
        }
    }

    /// What an error reply says. One about a single key, or about all that the node has, says of itself where it is not known
    /// what was done; of several keys some may have been written before the one that could not be.
    fn refused(&self, line: &[u8]) -> Failed {
        let line = String::from_utf8_lossy(line);
        let mut failed = Failed::of(ErrorReply::new(line.trim_end().to_owned()));
        failed.may_be_done |= self.has_several && !failed.error.says_nothing_was_done();
        failed
    }
}

/// The replies of all.
struct Replies {
    all: Vec<Bytes>,
    is_write: bool,
    /// On them, and on the one reply that is made of them.
    _hold: Hold<'static>,
}

/// The replies of all, or an error once all have answered. A write's says that nothing was done only where that is so of all. They
/// are held as they come, each twice, as the one reply that is made of them is a copy; past the bound of what is in flight there
/// is none.
async fn all(parts: Vec<Part>, in_flight: &Arc<InFlight>) -> Result<Replies, ErrorReply> {
    let mut hold = in_flight.hold_growing();
    let questions: usize = parts.iter().map(Part::question_bytes).sum();
    // Once here, and once where they wait to be sent.
    if !hold.set(2 * questions) {
        return Err(ErrorReply::IN_FLIGHT);
    }
    let is_write = parts.iter().any(|part| part.is_write);
    let asked = parts.iter().map(Part::ask).collect::<Vec<_>>();
    let mut bytes = 2 * questions;
    let mut replies = Vec::with_capacity(parts.len());
    let mut outcomes = Outcomes::default();
    let mut first: Option<ErrorReply> = None;
    for (part, asking) in parts.into_iter().zip(asked) {
        let reply = part.reply_to(asking).await.and_then(|reply| {
            bytes += 2 * reply.len();
            // What a write answers is short, and it is done.
            if is_write {
                hold.set_anyway(bytes);
            } else if !hold.set(bytes) {
                return Err(Failed::of(ErrorReply::REPLY_TOO_LONG));
            }
            Ok(reply)
        });
        match reply {
            Ok(reply) => {
                outcomes.note_done(&part.member);
                replies.push(reply);
            }
            Err(Failed { error, may_be_done }) => {
                let note = if may_be_done {
                    Outcomes::note_unknown
                } else {
                    Outcomes::note_not
                };
                note(&mut outcomes, &part.member, &error.0);
                first.get_or_insert(error);
            }
        }
    }
    match first {
        None => Ok(Replies {
            all: replies,
            is_write,
            _hold: hold,
        }),
        Some(error) if !is_write || outcomes.extent() == Extent::Nothing => Err(error),
        Some(_) => Err(ErrorReply::new(format!(
            "{} {}",
            ErrorReply::UNKNOWN_CODE,
            outcomes.told("done")
        ))),
    }
}

/// A reply that is of no kind that was expected. What was to be written may be written.
fn strange(is_write: bool) -> ErrorReply {
    ErrorReply::fixed(if is_write {
        "UNKNOWN another node's reply is none to what was asked; it may or may not have been done"
    } else {
        "ERR another node's reply is none to what was asked"
    })
}

impl Replies {
    /// The sum of numbers.
    fn sum(&self) -> Result<i64, ErrorReply> {
        sum(&self.all).ok_or_else(|| strange(self.is_write))
    }

    /// Whether all say so.
    fn ok(&self) -> Result<(), ErrorReply> {
        let are_ok = self.all.iter().all(|reply| &reply[..] == b"+OK\r\n");
        are_ok.then_some(()).ok_or_else(|| strange(self.is_write))
    }
}

fn number(reply: &Bytes) -> Option<i64> {
    let digits = reply
        .strip_prefix(b":")
        .and_then(|rest| rest.strip_suffix(b"\r\n"));
    digits.and_then(integer)
}

fn sum(replies: &[Bytes]) -> Option<i64> {
    replies
        .iter()
        .try_fold(0_i64, |sum, reply| Some(sum.saturating_add(number(reply)?)))
}

/// The number on the line that begins a reply of this kind, and what follows the line.
fn head(reply: &Bytes, kind: u8) -> Option<(i64, Bytes)> {
    let end = reply.iter().position(|&byte| byte == b'\n')?;
    let line = reply[..end].strip_suffix(b"\r")?;
    let (&first, digits) = line.split_first()?;
    let number = if first == kind {
        integer(digits)?
    } else {
        return None;
    };
    Some((number, reply.slice(end + 1..)))
}

/// The replies that an array is made of: strings, or nothing.
fn elements(reply: &Bytes) -> Option<Vec<Bytes>> {
    let (count, mut rest) = head(reply, b'*')?;
    let mut elements = Vec::new();
    for _ in 0..count {
        let len = if rest.starts_with(b"_\r\n") {
            3
        } else {
            let (len, after) = head(&rest, b'$')?;
            let line = rest.len() - after.len();
            match usize::try_from(len) {
                Ok(len) => line + len + 2,
                Err(_) => line,
            }
        };
        if len > rest.len() {
            return None;
        }
        elements.push(rest.split_to(len));
    }
    rest.is_empty().then_some(elements)
}

/// One array of several.
fn join(writer: &mut Writer<'_>, replies: &[Bytes]) -> Result<(), ErrorReply> {
    let parts: Option<Vec<(i64, Bytes)>> = replies.iter().map(|reply| head(reply, b'*')).collect();
    let parts = parts.ok_or_else(|| strange(false))?;
    let count: i64 = parts.iter().map(|(count, _)| *count).sum();
    writer.array(usize::try_from(count).map_err(|_| strange(false))?);
    for (_, elements) in parts {
        writer.output().push(&elements);
    }
    Ok(())
}

/// The cursor of a page of a scan, and its keys as they are.
fn page(reply: &Bytes) -> Option<(u64, Bytes)> {
    let (2, rest) = head(reply, b'*')? else {
        return None;
    };
    let (len, mut rest) = head(&rest, b'$')?;
    let len = usize::try_from(len).ok()?;
    if rest.len() < len + 2 {
        return None;
    }
    let digits = rest.split_to(len);
    let keys = rest.slice(2..);
    Some((std::str::from_utf8(&digits).ok()?.parse().ok()?, keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_wire::resp::writer::Protocol;

    #[test]
    fn replies_are_taken_apart() {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(
            elements(&bytes("*4\r\n$1\r\na\r\n$-1\r\n_\r\n$0\r\n\r\n")),
            Some(vec![
                bytes("$1\r\na\r\n"),
                bytes("$-1\r\n"),
                bytes("_\r\n"),
                bytes("$0\r\n\r\n")
            ])
        );
        for broken in [
            "*2\r\n$1\r\na\r\n",
            "*1\r\n$5\r\na\r\n",
            ":1\r\n",
            "*1\r\n:1\r\n",
            "",
        ] {
            assert_eq!(elements(&bytes(broken)), None, "{broken:?}");
        }
        assert_eq!(
            page(&bytes("*2\r\n$2\r\n17\r\n*1\r\n$1\r\na\r\n")),
            Some((17, bytes("*1\r\n$1\r\na\r\n")))
        );
        assert_eq!(sum(&[bytes(":3\r\n"), bytes(":-1\r\n")]), Some(2));
        let mut out = Output::default();
        let mut writer = Writer::new(&mut out, Protocol::Resp2);
        let parts = [
            bytes("*1\r\n$1\r\na\r\n"),
            bytes("*0\r\n"),
            bytes("*1\r\n$1\r\nb\r\n"),
        ];
        assert_eq!(join(&mut writer, &parts), Ok(()));
        assert_eq!(out.as_bytes(), Some(&b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"[..]));
    }
}
