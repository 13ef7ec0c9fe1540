//! From the bytes of a connection to the replies of its commands: requests are decoded a batch at a time, the memory that
//! they will read is asked for, and they run one after the other. It reads and writes no socket.

mod admission;
mod limiting;
mod route;
mod stop;
mod timing;
mod traced;

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use henge_wire::MAX_KEY_BYTES;
use henge_wire::resp::request::{
    self, Arguments, Decoded, Limits, RequestError, Span, inline_arguments,
};
use henge_wire::resp::writer::{Output, Writer};

use super::call::{Call, ErrorReply, Flow};
use super::forward::{Forwards, MOST_REQUESTS, NOT_HERE, Raw};
use super::held::{MOST_REQUEST_BYTES, Written};
use super::key_specs;
use super::pause::Paused;
use super::session::{Manner, Replies, Session};
use super::table::{COMMANDS, Entry, Keys, Permission, Run, flag};
use crate::access::hash::without_keys;
use crate::audit::Outcome;
use crate::cache::{AHEAD, Location, LookAhead};
use crate::cluster::replicas::told;
use crate::cluster::routing::Routes;
use crate::config::ConsistencyLevel;
use crate::disk::gate::{Owed, journalled_bytes};
use crate::insight::slow;
use crate::metrics::answers::Batch;
use crate::metrics::counters::add;
use crate::net::data_thread::Local;
use crate::rate::meter::Meter;
use crate::shared::{self, Live, Shared};
use admission::{OF_STRANGERS, without_secrets};
use route::Routed;
pub(super) use stop::{Stop, Waiting};
use timing::Timing;

/// Requests that are decoded, and looked up ahead, together.
const BATCH: usize = AHEAD;

/// Replies are sent when they come to this much, before more are made. It bounds what a pipeline holds.
const OUTPUT_BYTES: usize = 64 * 1024;
/// The next command waits until the log has what those before it wrote, where that is as much: what a connection has in the
/// journals is no more than this and one value.
const JOURNAL_BYTES: usize = 1024 * 1024;

/// Up to so many requests at once, each is timed by itself. In a longer pipeline quick commands share the time that they
/// took together: reading the clock would be a tenth of each.
const TIMED_REQUESTS: usize = 4;

/// Requests of no words in a row. Redis takes them without end; nobody sends more than one by accident, and who sends a
/// million has us work for nothing.
const MAX_EMPTY_REQUESTS: u32 = 1_024;

/// What begins lines of HTTP and no command: a browser can be made to send a body of commands to any port by a page that
/// knows of it, and on a port that is not HTTP's its first lines would be errors, and its body be run. As in Redis.
const OF_HTTP: [&[u8]; 2] = [b"post", b"host:"];

/// The most words of a request, as in Redis.
const MAX_WORDS: usize = 1024 * 1024;

/// What a thread's connections use in turn.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Where sockets are read into.
    pub(super) input: Box<[u8]>,
    pub(super) out: Output,
    pub(super) buffers: Buffers,
}

/// What decoding and running needs beside input and output.
#[derive(Debug)]
pub(super) struct Buffers {
    /// The live settings, without the cost of sharing them for each request.
    live: arc_swap::Cache<Arc<ArcSwap<Live>>, Arc<Live>>,
    spans: Vec<Span>,
    batch: Vec<Prepared>,
    located: Vec<Location>,
    ahead: LookAhead,
    /// The words of an inline command, without their quotes.
    line: Vec<u8>,
    /// Commands that ran since the clock was read.
    untimed: Vec<u16>,
}

/// Places of words that are kept room for: those of a batch of any commands but those of very many words, a megabyte of which
/// would else stay for good.
const KEPT_SPANS: usize = 16 * 1024;

/// What is read from a socket at once: a pipeline of some hundred commands, and little enough to stay in the processor's
/// second cache.
const INPUT_BYTES: usize = 32 * 1024;

impl Scratch {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self {
            input: vec![0; INPUT_BYTES].into_boxed_slice(),
            out: Output::default(),
            buffers: Buffers {
                live: arc_swap::Cache::new(Arc::clone(&shared.live)),
                spans: Vec::new(),
                batch: Vec::new(),
                located: Vec::new(),
                ahead: LookAhead::default(),
                line: Vec::new(),
                untimed: Vec::new(),
            },
        }
    }
}

/// A request that was decoded.
#[derive(Debug)]
struct Prepared {
    /// Its place in the input.
    frame: Range<usize>,
    /// Where its words are, from the start of its frame on.
    spans: Range<usize>,
    entry: Option<Entry>,
    first_key: Option<Location>,
}

/// One connection's part in this.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) session: Session,
    /// How what the present run has run so far, or the last one has, was asked for.
    manner: Manner,
    local: Rc<Local>,
    /// Requests of no words since the last that had some.
    empty_requests: u32,
    /// Replies that the last run wrote, or will have from others.
    pub(super) replies: usize,
    /// What the last run is to send to others.
    pub(super) forwards: Forwards,
    /// The way to other nodes, for the last run; none where there are none.
    pub(super) routes: Option<Rc<Routes>>,
    /// How long each reply of the last run is, where somebody asks for that.
    pub(super) lengths: Vec<u32>,
    /// Where each of the replies that the last run wrote ends, and where its request is, in a cluster with others.
    ends: Vec<usize>,
    requests: Vec<Range<usize>>,
    /// What the last run has for clients to wait for, and since when they do.
    pub(super) batch: Batch,
    read_at: Instant,
    /// What the session's commands promised in the last run.
    level: ConsistencyLevel,
    /// What it may ask for yet.
    meter: Meter,
}

impl Pipeline {
    pub(super) fn new(session: Session, local: Rc<Local>) -> Self {
        Self {
            manner: session.manner(),
            meter: Meter::of_session(&session),
            session,
            local,
            empty_requests: 0,
            replies: 0,
            forwards: Forwards::default(),
            routes: None,
            lengths: Vec::new(),
            ends: Vec::new(),
            requests: Vec::new(),
            batch: Batch::default(),
            read_at: Instant::now(),
            level: ConsistencyLevel::Quorum,
        }
    }

    /// What the last run, over this input, has written.
    pub(super) fn take_written(&mut self, input: &[u8], owed: Option<&Owed>) -> Written {
        let is_kept = owed.is_some_and(Owed::has_tickets) && self.may_keep(input.len());
        let ends = std::mem::take(&mut self.ends);
        Written {
            manner: self.manner,
            count: if self.routes.is_some() {
                ends.len()
            } else {
                self.replies
            },
            ends,
            requests: std::mem::take(&mut self.requests),
            batch: std::mem::take(&mut self.batch),
            input: if is_kept {
                Bytes::copy_from_slice(input)
            } else {
                Bytes::new()
            },
        }
    }

    /// Whether requests of so many bytes may be kept in case they have to be asked for again: whoever keeps them holds them against
    /// the node's bound, of which they are to be a small part.
    fn may_keep(&self, bytes: usize) -> bool {
        bytes <= MOST_REQUEST_BYTES || bytes <= self.local.shared.in_flight.left() / 4
    }

    /// Replies from this node from here on are those of the next request.
    fn begin_reply(&self, entry: Option<Entry>, level: ConsistencyLevel) {
        if self.session.reads_any {
            let is_write = entry.is_some_and(|entry| entry.spec.is(flag::WRITE));
            told::set_level(if is_write {
                level
            } else {
                ConsistencyLevel::One
            });
        }
        if self.session.is_forwarded {
            told::set_reply(self.lengths.len());
        } else {
            told::set_reply(self.ends.len());
        }
    }

    /// The request at this place was answered by this node, if there is another reply and it was not sent on.
    fn end_reply(&mut self, request: Range<usize>, before: (usize, usize), end: usize) {
        if self.replies > before.0 && self.forwards.count() == before.1 {
            self.ends.push(end);
            self.requests.push(request);
        }
    }

    /// Answers the requests in `input`, the first of which was there at `read_at`. Says how many of its bytes are done with.
    pub(super) fn run(
        &mut self,
        input: &[u8],
        (read_at, now): (Instant, Instant),
        buffers: &mut Buffers,
        out: &mut Output,
    ) -> (usize, Stop) {
        self.replies = 0;
        self.manner = self.session.manner();
        self.ends.clear();
        self.requests.clear();
        self.routes = self.local.routing.routes();
        if self.routes.is_some() {
            self.read_at = read_at;
            self.batch = Batch::begin(read_at);
        }
        let live = buffers.live.load();
        self.level = self.session.level.unwrap_or(live.default_level);
        told::set_level(self.level);
        let full = request_limits(&live.limits);
        let mut clock = Timing::begin(now, live, &self.local, self.session.is_forwarded);
        let access = &self.local.shared.access;
        self.session.caller.look(access, clock.now_ms);
        let mut at = 0;
        let mut commands = 0;
        let stop = loop {
            buffers.batch.clear();
            buffers.spans.clear();
            let is_stranger = self.session.caller.is_stranger();
            let limits = if is_stranger { OF_STRANGERS } else { full };
            let end = self.prepare(input, at, &limits, buffers);
            let step = self.run_granted(input, &mut at, &mut clock, buffers, out, &mut commands);
            if let Some(stop) = step {
                // The empty requests after the one that stopped it will be counted again.
                self.empty_requests = 0;
                break stop;
            }
            match end {
                End::Full(end) => {
                    at = end;
                    clock.settle(&mut buffers.untimed, &self.local);
                    if clock.is_turn_over() {
                        break Stop::Output;
                    }
                }
                End::Input { at_least, end } => {
                    at = end;
                    break Stop::Input { at_least };
                }
                End::Inline { line } => {
                    let place = line.clone();
                    let step =
                        self.run_inline(input, place, &mut clock, buffers, out, &mut commands);
                    at = if is_not_run(step.as_ref()) {
                        line.start
                    } else {
                        line.end
                    };
                    if let Some(stop) = step {
                        break stop;
                    }
                    let is_another = self.session.manner() != self.manner;
                    let is_full = self.forwards.is_full() || told::has_enough_calls();
                    let is_over = clock.is_turn_over();
                    if out.len() >= OUTPUT_BYTES || is_full || is_another || is_over {
                        break Stop::Output;
                    }
                }
                // Who has logged in meanwhile may send what a stranger may not.
                End::Broken(_) if is_stranger && !self.session.caller.is_stranger() => {}
                End::Broken(error) => {
                    at = input.len();
                    break self.refuse(&error, out);
                }
            }
        };
        clock.settle(&mut buffers.untimed, &self.local);
        if buffers.spans.capacity() > KEPT_SPANS {
            buffers.spans = Vec::new();
        }
        let client = &self.session.client;
        add(&client.commands, commands);
        add(&self.local.counters.answered, commands);
        client.active_ms.store(clock.now_ms, Ordering::Relaxed);
        (at, stop)
    }

    /// Decodes a batch from `at` on.
    fn prepare(
        &mut self,
        input: &[u8],
        mut at: usize,
        limits: &Limits,
        buffers: &mut Buffers,
    ) -> End {
        let cache = &self.local.shared.cache;
        while buffers.batch.len() < BATCH {
            if at == input.len() {
                return End::Input {
                    at_least: 1,
                    end: at,
                };
            }
            let first = buffers.spans.len();
            match request::decode(&input[at..], limits, &mut buffers.spans) {
                Ok(Decoded::Request { len }) => {
                    let frame = at..at + len;
                    at += len;
                    let spans = first..buffers.spans.len();
                    if spans.is_empty() {
                        self.empty_requests += 1;
                        if self.empty_requests > MAX_EMPTY_REQUESTS {
                            return End::Broken(Broken::TooManyEmpty);
                        }
                        continue;
                    }
                    self.empty_requests = 0;
                    let words =
                        Arguments::new(&input[frame.clone()], &buffers.spans[spans.clone()]);
                    let entry = COMMANDS.find(&words[0]);
                    let has_key = entry.is_some_and(|entry| entry.spec.keys.first == 1);
                    let first_key = words
                        .get(1)
                        .filter(|_| has_key)
                        .map(|key| cache.locate(key));
                    buffers.batch.push(Prepared {
                        frame,
                        spans,
                        entry,
                        first_key,
                    });
                }
                Ok(Decoded::Inline { len }) => {
                    return End::Inline { line: at..at + len };
                }
                Ok(Decoded::Incomplete { at_least }) => {
                    return End::Input { at_least, end: at };
                }
                Err(error) => return End::Broken(Broken::Request(error)),
            }
        }
        End::Full(at)
    }

    /// Runs a part of what was prepared; `at` is left behind the last that ran.
    #[expect(clippy::too_many_arguments, reason = "it is the inside of a loop")]
    fn run_batch(
        &mut self,
        part: Range<usize>,
        input: &[u8],
        at: &mut usize,
        clock: &mut Timing,
        buffers: &mut Buffers,
        out: &mut Output,
        commands: &mut u64,
    ) -> Option<Stop> {
        let Buffers {
            spans,
            batch,
            located,
            ahead,
            untimed,
            ..
        } = buffers;
        let batch = &batch[part];
        // What one command needs, it finds soonest itself.
        let looks_ahead = batch.len() > 1;
        if looks_ahead {
            located.clear();
            located.extend(batch.iter().filter_map(|prepared| prepared.first_key));
            ahead.begin();
        }
        let mut keys = 0;
        let time_each = clock.times_each || batch.len() <= TIMED_REQUESTS;
        for prepared in batch {
            if looks_ahead && prepared.first_key.is_some() {
                ahead.before(keys, &self.local.shared.cache, located);
                keys += 1;
            }
            let frame = &input[prepared.frame.clone()];
            let words = Arguments::new(frame, &spans[prepared.spans.clone()]);
            let before = out.len();
            let in_ring = self.routes.is_some();
            let counts = (self.replies, self.forwards.count());
            if in_ring {
                self.begin_reply(prepared.entry, self.level);
            }
            let step = self.run_one(
                words,
                Raw::Frame(frame),
                prepared.entry,
                prepared.first_key,
                clock,
                time_each,
                untimed,
                out,
            );
            if in_ring {
                self.end_reply(prepared.frame.clone(), counts, out.len());
            }
            if is_not_run(step.as_ref()) {
                *at = prepared.frame.start;
                return step;
            }
            if self.session.is_forwarded && !matches!(step, Some(Stop::Later(_))) {
                self.note_length(out.len() - before);
            }
            *at = prepared.frame.end;
            *commands += 1;
            if step.is_some() {
                return step;
            }
            if out.len() >= OUTPUT_BYTES
                || clock.is_turn_over()
                || journalled_bytes() >= JOURNAL_BYTES
                || self.forwards.is_full()
                || self.lengths.len() >= MOST_REQUESTS
                || in_ring && (told::has_enough_calls() || self.session.manner() != self.manner)
            {
                // Replies of one run may be asked for again, all of them in one manner.
                return Some(Stop::Output);
            }
        }
        None
    }

    #[cold]
    fn run_inline(
        &mut self,
        input: &[u8],
        line: Range<usize>,
        clock: &mut Timing,
        buffers: &mut Buffers,
        out: &mut Output,
        commands: &mut u64,
    ) -> Option<Stop> {
        buffers.line.clear();
        buffers.spans.clear();
        if let Err(error) =
            inline_arguments(&input[line.clone()], &mut buffers.line, &mut buffers.spans)
        {
            return Some(self.refuse(&Broken::Request(error), out));
        }
        if buffers.spans.is_empty() {
            self.empty_requests += 1;
            return (self.empty_requests > MAX_EMPTY_REQUESTS)
                .then(|| self.refuse(&Broken::TooManyEmpty, out));
        }
        self.empty_requests = 0;
        let words = Arguments::new(&buffers.line, &buffers.spans);
        let entry = COMMANDS.find(&words[0]);
        if let Some(name) = OF_HTTP
            .iter()
            .find(|name| words[0].eq_ignore_ascii_case(name))
        {
            let client = self.session.client.address;
            let name = name.escape_ascii();
            if self.local.shared.cluster.is_request_to_be_told(client.ip()) {
                tracing::warn!(%client, %name, "a request of HTTP came over the Redis protocol, most likely from a web page of somebody else; the connection is closed");
            }
            add(&self.local.counters.protocol_errors, 1);
            return Some(Stop::Close);
        }
        let raw = Raw::Words(words);
        let untimed = &mut buffers.untimed;
        let counts = (self.replies, self.forwards.count());
        if let Some(exceeded) = self.exceeded(clock) {
            self.refuse_for_rate(entry, &exceeded, out);
            self.end_reply(line, counts, out.len());
            *commands += 1;
            return None;
        }
        let (bytes, written) = (line.len(), out.len());
        self.begin_reply(entry, self.level);
        let step = self.run_one(words, raw, entry, None, clock, true, untimed, out);
        self.end_reply(line, counts, out.len());
        if !is_not_run(step.as_ref()) {
            self.spend(1, bytes, out.len() - written);
            *commands += 1;
        }
        step
    }

    /// Runs one command, whether it is traced or not.
    #[expect(clippy::too_many_arguments, reason = "it is the inside of two loops")]
    #[inline]
    fn run_untraced(
        &mut self,
        words: Arguments<'_>,
        raw: Raw<'_>,
        entry: Option<Entry>,
        first_key: Option<Location>,
        clock: &mut Timing,
        time_each: bool,
        untimed: &mut Vec<u16>,
        out: &mut Output,
    ) -> Option<Stop> {
        let entry = match self.admit(words, entry, clock.now_ms, out) {
            Ok(entry) => entry,
            Err(stop) => return stop,
        };
        let spec = entry.spec;
        if !spec.is(flag::LOADING) && self.local.shared.persistence.is_loading() {
            return self.reject(Some(entry), &ErrorReply::LOADING, out);
        }
        let server = &self.local.shared.resp;
        if let Some((paused, until_ms)) = server.pause.now(clock.now_ms)
            && !self.session.is_forwarded
        {
            let waits = match paused {
                Paused::All => !spec.is(flag::UNPAUSED),
                Paused::Writes => spec.is(flag::WRITE),
            };
            if waits {
                return Some(Stop::Paused { until_ms });
            }
        }
        self.sample(spec.keys, words);
        if self.routes.is_some() {
            let first = first_key.map(Location::partition);
            match self.route(words, raw, entry, first, clock, untimed, out) {
                Routed::Here => {}
                Routed::Done => return None,
                Routed::Stop(stop) => return Some(stop),
            }
        }
        let time_it = time_each || !spec.is(flag::FAST | flag::BRIEF);
        if time_it {
            clock.settle(untimed, &self.local);
        }
        let (Run::Handler(handler) | Run::FamilyOr(handler, _)) = spec.run else {
            unreachable!("a family alone was rejected");
        };
        let mark = out.mark();
        if self.session.replies == Replies::SkipNext {
            self.session.replies = Replies::Skip;
        }
        let mut call = Call {
            spec,
            words,
            out: Writer::new(out, self.session.protocol),
            session: &mut self.session,
            local: &self.local,
            now_ms: clock.now_ms,
            compress_from: clock.compress_from,
            first_key,
        };
        let flow = handler(&mut call);
        if spec.permission == Permission::Admin {
            self.audit_run(spec, words, &flow);
        }
        let stop = match flow {
            Ok(Flow::Done) => None,
            Ok(Flow::Close) => Some(Stop::Close),
            Ok(Flow::Later(reply)) => {
                let client = &self.session.client;
                client.last_command.store(entry.number, Ordering::Relaxed);
                let is_wanted = self.is_wanted();
                // So that its time is not that of its neighbours.
                clock.settle(untimed, &self.local);
                let is_kept = self.local.shared.is_replicated() && self.may_keep(raw.size_bytes());
                return Some(Stop::Later(Waiting {
                    reply,
                    entry,
                    request: if is_kept { raw.copied() } else { Bytes::new() },
                    words: slow::shortened(words),
                    since: clock.mark,
                    is_wanted,
                }));
            }
            Err(error) => {
                out.rewind(mark);
                self.fail(entry, &error, out);
                None
            }
        };
        if out.is_over_budget() {
            out.rewind(mark);
            self.fail(entry, &ErrorReply::REPLY_TOO_LONG, out);
        }
        self.note_series(entry);
        if self.is_wanted() {
            self.replies += 1;
        } else {
            out.rewind(mark);
        }
        self.session
            .client
            .last_command
            .store(entry.number, Ordering::Relaxed);
        if time_it {
            let took = clock.lap();
            self.local.counters.command(entry.number).took(took);
            self.note_slow(words, entry, took, clock.now_ms);
        } else {
            untimed.push(entry.number);
        }
        stop
    }

    /// A reply of this length was written; where one is noted already, it is none.
    fn note_length(&mut self, length: usize) {
        if length > 0 || self.lengths.last() != Some(&NOT_HERE) {
            self.lengths.push(length as u32);
        }
    }

    /// Whether the client wants the reply of a command that does not run here.
    fn is_wanted_of_next(&mut self) -> bool {
        if self.session.replies == Replies::SkipNext {
            self.session.replies = Replies::Skip;
        }
        self.is_wanted()
    }

    /// Whether the client wants the reply of the command that just ran. `CLIENT REPLY SKIP` and `OFF` have none themselves, and
    /// `ON` has.
    fn is_wanted(&mut self) -> bool {
        match self.session.replies {
            Replies::All => true,
            Replies::None | Replies::SkipNext => false,
            Replies::Skip => {
                self.session.replies = Replies::All;
                false
            }
        }
    }

    /// A command that was run and answers an error.
    #[cold]
    pub(super) fn fail(&self, entry: Entry, error: &ErrorReply, out: &mut Output) {
        Writer::new(out, self.session.protocol).error(&error.0);
        add(&self.local.counters.command(entry.number).failed, 1);
        self.local.shared.resp.count_error(error.code());
    }

    /// A command that was not run.
    #[cold]
    fn reject(
        &mut self,
        entry: Option<Entry>,
        error: &ErrorReply,
        out: &mut Output,
    ) -> Option<Stop> {
        if let Some(entry) = entry {
            add(&self.local.counters.command(entry.number).rejected, 1);
        }
        self.local.shared.resp.count_error(error.code());
        if self.is_wanted_of_next() {
            Writer::new(out, self.session.protocol).error(&error.0);
            self.replies += 1;
        }
        None
    }

    /// What came is no request: it is said, and the connection ends.
    #[cold]
    fn refuse(&mut self, broken: &Broken, out: &mut Output) -> Stop {
        add(&self.local.counters.protocol_errors, 1);
        let line = match broken {
            Broken::Request(error) => format!("ERR {error}"),
            Broken::TooManyEmpty => "ERR Protocol error: too many empty requests".to_owned(),
        };
        tracing::debug!(client = %self.session.client.address, error = line, "closing a connection");
        self.local.shared.resp.count_error("ERR");
        Writer::new(out, self.session.protocol).error(&line);
        self.replies += 1;
        Stop::Close
    }

    /// Counts the keys of a command among those that are asked for, if it is a client's.
    #[inline]
    fn sample(&self, keys: Keys, words: Arguments<'_>) {
        let sampler = &self.local.sampler;
        if self.session.is_forwarded {
            // Who has sent it on has counted them.
        } else if keys == Keys::FIRST {
            sampler.one(&words[1]);
        } else if keys != Keys::NONE {
            let places = key_specs::places(keys, words.len());
            places.for_each(|place| sampler.one(&words[place]));
        }
    }

    /// Notes what was slow.
    #[inline]
    fn note_slow(&self, words: Arguments<'_>, entry: Entry, took: Duration, now_ms: u64) {
        self.note(|| slow::shortened(words), entry, took, now_ms);
    }

    /// A reply that came later is there.
    pub(super) fn waited(
        &self,
        words: Vec<Vec<u8>>,
        entry: Entry,
        since: Instant,
        error: Option<&ErrorReply>,
    ) {
        let outcome = error.map_or(Outcome::Done, |_| Outcome::Failed);
        self.audit(entry.spec, &words, outcome, error);
        let took = since.elapsed();
        self.local.counters.command(entry.number).took(took);
        // Who asked to wait was not slow.
        if !entry.spec.is(flag::BLOCKING) {
            self.note(|| words, entry, took, self.local.shared.clock.now_ms());
        }
    }

    fn note(
        &self,
        words: impl FnOnce() -> Vec<Vec<u8>>,
        entry: Entry,
        took: Duration,
        now_ms: u64,
    ) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let log = &self.local.shared.insight.slow_log;
        if log.is_slow(took_us) && !entry.spec.is(flag::SKIP_SLOWLOG) {
            let words = words();
            let words = without_secrets(entry.spec, &words);
            let words = words.into_iter().map(<[u8]>::to_vec).collect();
            let client = &self.session.client;
            let name = client.details.lock().name.clone();
            log.add(now_ms, took_us, words, client.address, &name);
        }
        let latency = &self.local.shared.resp.latency;
        if latency.is_slow(took_us) {
            latency.add(entry.spec.is(flag::FAST), now_ms / 1000, took_us / 1000);
        }
    }
}

/// Whether a command stopped a pipeline before it was run, and is to be looked at again.
fn is_not_run(step: Option<&Stop>) -> bool {
    matches!(step, Some(Stop::Paused { .. } | Stop::Before))
}

/// How the input ended, or the batch.
enum End {
    /// The batch is full; it ends here.
    Full(usize),
    Input {
        at_least: usize,
        end: usize,
    },
    Inline {
        line: Range<usize>,
    },
    Broken(Broken),
}

enum Broken {
    Request(RequestError),
    TooManyEmpty,
}

/// What a request may have.
pub(super) fn request_limits(limits: &shared::Limits) -> Limits {
    Limits {
        max_bulk_bytes: limits.max_value_bytes.max(MAX_KEY_BYTES),
        max_arguments: MAX_WORDS,
        max_request_bytes: limits
            .max_body_bytes
            .max(2 * limits.max_value_bytes)
            .min(u32::MAX as usize),
    }
}

/// Finds what runs, or why nothing does.
#[inline]
fn check(words: Arguments<'_>, entry: Option<Entry>) -> Result<Entry, (Option<Entry>, ErrorReply)> {
    let Some(mut entry) = entry else {
        return Err((None, unknown_command(words)));
    };
    if !matches!(entry.spec.run, Run::Handler(_)) {
        entry = subcommand(words, entry)?;
    }
    let spec = entry.spec;
    if !spec.takes(words.len()) {
        return Err((Some(entry), ErrorReply::wrong_arity(spec.name)));
    }
    let is_too_long = |place: usize| words[place].len() > MAX_KEY_BYTES;
    let too_long = match spec.keys {
        Keys::NONE => false,
        Keys::FIRST => is_too_long(1),
        keys => key_specs::places(keys, words.len()).any(is_too_long),
    };
    if too_long {
        return Err((Some(entry), ErrorReply::KEY_TOO_LONG));
    }
    Ok(entry)
}

#[cold]
fn subcommand(words: Arguments<'_>, family: Entry) -> Result<Entry, (Option<Entry>, ErrorReply)> {
    let name = family.spec.name;
    let Some(word) = words.get(1) else {
        if let Run::FamilyOr(..) = family.spec.run {
            return Ok(family);
        }
        return Err((Some(family), ErrorReply::wrong_arity(name)));
    };
    COMMANDS.subcommand(family, word).ok_or_else(|| {
        let error = format!(
            "ERR unknown subcommand '{}'. Try {} HELP.",
            shown(word),
            name.to_uppercase()
        );
        (Some(family), ErrorReply::new(error))
    })
}

/// As Redis says it, with the words that it shows.
#[cold]
fn unknown_command(words: Arguments<'_>) -> ErrorReply {
    let mut shown_words = String::new();
    for word in words.from(1) {
        if shown_words.len() >= SHOWN_BYTES {
            break;
        }
        let left = SHOWN_BYTES - shown_words.len();
        let word = shown(&word[..word.len().min(left)]);
        shown_words.extend(["'", &word, "' "]);
    }
    ErrorReply::new(format!(
        "ERR unknown command '{}', with args beginning with: {shown_words}",
        shown(&words[0])
    ))
}

/// How much of what a client sent an error shows.
const SHOWN_BYTES: usize = 128;

/// No API key is among it: who mistypes AUTH has it in its own log else.
pub(super) fn shown(word: &[u8]) -> String {
    let word = String::from_utf8_lossy(&word[..word.len().min(SHOWN_BYTES)]);
    without_keys(&word).into_owned()
}
