//! What other nodes ask of this one about its keys: it runs the commands whose partitions are its own by its present view, and
//! says of the others that they are not here. Nothing is answered before the log has it. An answer is bounded; who asked keeps
//! what was not run, and asks again.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use henge_cluster::agreed::Command as Change;
use henge_cluster::topology;
use henge_wire::peer::keys::{
    Answered, Commands, Question, Scan, encode_answered, encode_key, encode_replicas, page_head,
    replies_head,
};
use henge_wire::{Command, Data, Item, Operation, Partition, Refusal, Reply as KeyReply, Version};

use super::scan::{self, Sheet};
use crate::cache::ScanCursor;
use crate::cluster::control::Changed;
use crate::cluster::link::answering::Reply;
use crate::cluster::replicas::told::{self, Bad};
use crate::cluster::view::Owner;
use crate::config::ConsistencyLevel;
use crate::disk::gate::{Owed, Place, Untold, note_unkept};
use crate::insight::why;
use crate::net::data_thread::Local;
use crate::values::{Found, SHARED_BYTES};

/// Bytes of an answer from which on nothing more is run: other questions wait for the connection meanwhile.
const ENOUGH_BYTES: usize = 1 << 20;
/// Commands that are run before others of the thread have a turn: some 200 us.
const MOST_COMMANDS: usize = 512;
/// Keys of a page: as many as a client gets on one.
const MOST_KEYS: usize = 1000;

/// Answers a question of another node.
pub(crate) fn answer(local: &Rc<Local>, question: &Bytes, reply: Reply) {
    if local.shared.persistence.is_loading() {
        return reply.fail("it is loading what it has on its disk");
    }
    match Question::decode(question) {
        Err(malformed) => reply.fail(&format!("the question makes no sense: {malformed}")),
        Ok(Question::Commands(level, commands)) => run(local, level, &commands, reply),
        Ok(Question::Scan(asked)) => {
            let Scan {
                cursor,
                limit,
                prefix,
            } = asked;
            let (local, prefix) = (Rc::clone(local), prefix.to_vec());
            tokio::task::spawn_local(async move {
                let cursor = ScanCursor::from_u64(cursor);
                let limit = (limit as usize).clamp(1, MOST_KEYS);
                let mut page = Page::default();
                let scanned = scan::page(&local, cursor, &prefix, limit, &mut page);
                match kept(&local, scanned).await {
                    Ok(Ok(next)) => {
                        let head = page_head(next.to_u64(), page.count as u32);
                        reply.send(&[&head, &page.bytes]);
                    }
                    Ok(Err(scan::NoRoom)) => reply.fail("it has no room for more answers"),
                    Err(Untold::NotKept) => reply.fail("its write-ahead log failed"),
                    Err(Untold::Replies(_)) => {
                        reply.fail("the leader of one of its partitions is changing");
                    }
                }
            });
        }
        Ok(Question::Why(key)) => {
            let (local, key) = (Rc::clone(local), key.to_vec());
            tokio::task::spawn_local(async move {
                // Whether this node leads is the one thing that has to be sure.
                told::set_level(ConsistencyLevel::Quorum);
                match kept(&local, async { why::here(&local, &key) }).await {
                    Ok(Some(page)) => reply.send(&[&page]),
                    Ok(None) | Err(Untold::Replies(_)) => {
                        reply.fail("it does not lead the key's partition");
                    }
                    Err(Untold::NotKept) => reply.fail("its write-ahead log failed"),
                }
            });
        }
        Ok(Question::Flush) => {
            let local = Rc::clone(local);
            tokio::task::spawn_local(async move {
                let flushed = kept(&local, flush(&local)).await;
                let answered = match flushed {
                    Err(_) | Ok(Err(FlushFailure::Cut)) => Answered::Unknown,
                    Ok(Ok(())) => Answered::Reply(KeyReply::Deleted),
                    Ok(Err(FlushFailure::Refused(why))) => Answered::Reply(KeyReply::Refused(why)),
                    Ok(Err(FlushFailure::NotNow(_))) => {
                        Answered::Reply(KeyReply::Refused(Refusal::NotOpen))
                    }
                };
                let mut out = replies_head(1).to_vec();
                encode_answered(&mut out, &answered);
                reply.send(&[&out]);
            });
        }
    }
}

fn run(local: &Rc<Local>, level: Option<u8>, commands: &Commands<'_>, reply: Reply) {
    let mut running = Running::run(local, level, commands);
    if running.owed.is_none() {
        running.count_replicas(local);
        return reply.send(&[&running.out]);
    }
    reply.keeps(running.out.len());
    let local = Rc::clone(local);
    tokio::task::spawn_local(async move {
        let answer = running.finish(&local).await;
        reply.send(&[&answer]);
    });
}

/// Commands that were run, and whose replies wait until they may be told.
#[derive(Debug)]
pub(super) struct Running {
    /// The answer.
    out: Vec<u8>,
    /// Where each reply of it ends.
    ends: Vec<usize>,
    /// Where the answer is to say how many replicas have something, and what that is.
    shown: Vec<(usize, Partition, Version)>,
    owed: Option<Owed>,
}

impl Running {
    /// Runs commands of this node's own, as they would be sent to another.
    pub(super) fn begin(local: &Local, question: &[u8]) -> Self {
        match Question::decode(question) {
            Ok(Question::Commands(level, commands)) => Self::run(local, level, &commands),
            _ => unreachable!("it was made by this node"),
        }
    }

    fn run(local: &Local, level: Option<u8>, commands: &Commands<'_>) -> Self {
        let own = || local.shared.live.load().default_level;
        told::set_level(level.and_then(told::numbered_level).unwrap_or_else(own));
        let routes = local.routing.routes();
        let is_here = |key: &[u8]| {
            routes
                .as_ref()
                .is_none_or(|routes| routes.view.owner(Partition::of(key)) == Owner::Here)
        };
        let now_ms = local.shared.clock.now_ms();
        let mut out = replies_head(0).to_vec();
        let (mut ends, mut shown) = (Vec::new(), Vec::new());
        let is_replicated = local.shared.is_replicated();
        for command in commands.iter().take(MOST_COMMANDS) {
            told::set_reply(ends.len());
            if is_here(command.key) {
                let partition = Partition::of(command.key);
                let place = is_replicated.then(|| encode_replicas(&mut out));
                let version = run_one(local, command, now_ms, &mut out);
                if let Some(place) = place {
                    // Of what is gone nothing tells the version; it is not above the newest.
                    let version = version.or_else(|| local.shared.cache.stamped(partition));
                    shown.extend(version.map(|version| (place, partition, version)));
                }
            } else {
                encode_answered(&mut out, &Answered::NotHere);
            }
            ends.push(out.len());
            if out.len() >= ENOUGH_BYTES {
                break;
            }
        }
        let head = replies_head(ends.len() as u32);
        out[..head.len()].copy_from_slice(&head);
        Self {
            out,
            ends,
            shown,
            owed: local.gate.take_owed(),
        }
    }

    /// Replicas are not waited for longer than until this moment.
    pub(super) fn end_by(&self, deadline: Instant) {
        if let Some(owed) = &self.owed {
            owed.end_by(deadline);
        }
    }

    /// The answer, once it may be told.
    pub(super) async fn finish(mut self, local: &Local) -> Bytes {
        if let Some(mut owed) = self.owed.take() {
            let mut place = Place::default();
            let told = poll_fn(|cx| local.gate.poll_owed(&mut owed, &mut place, cx)).await;
            self.count_replicas(local);
            if let Err(why) = told {
                return self.mended(&why).into();
            }
        } else {
            self.count_replicas(local);
        }
        self.out.into()
    }

    /// Fills in how many replicas have what is shown, where this node leads.
    fn count_replicas(&mut self, local: &Local) {
        for &(place, partition, version) in &self.shown {
            let others = local.shared.cache.followers_with(partition, version);
            if let Some(others) = others.and_then(|others| u8::try_from(others).ok()) {
                self.out[place] = others.saturating_add(1);
            }
        }
    }

    /// The answer with other replies for those that may not be told.
    #[cold]
    fn mended(&self, why: &Untold) -> Vec<u8> {
        let mut out = replies_head(self.ends.len() as u32).to_vec();
        let mut from = out.len();
        for (number, &end) in self.ends.iter().enumerate() {
            let bad = match why {
                Untold::NotKept => Some(Bad::Unknown),
                Untold::Replies(replies) => {
                    let found = replies.iter().find(|(reply, _)| *reply as usize == number);
                    found.map(|(_, bad)| *bad)
                }
            };
            match bad {
                None => out.extend_from_slice(&self.out[from..end]),
                Some(Bad::NotDone) => encode_answered(&mut out, &Answered::NotHere),
                Some(Bad::Passed) => {
                    let refused = KeyReply::Refused(Refusal::NotOpen);
                    encode_answered(&mut out, &Answered::Reply(refused));
                }
                Some(Bad::Unknown) => {
                    let mut places = self.shown.iter().map(|(place, ..)| *place);
                    if let Some(place) = places.find(|place| (from..end).contains(place)) {
                        let own = encode_replicas(&mut out);
                        out[own] = self.out[place];
                    }
                    encode_answered(&mut out, &Answered::Unknown);
                }
            }
            from = end;
        }
        out
    }
}

/// Appends the reply, and gives the version of what it shows, if there is one.
fn run_one(
    local: &Local,
    mut command: Command<'_>,
    now_ms: u64,
    out: &mut Vec<u8>,
) -> Option<Version> {
    // What the cache is to keep as it is must not keep the whole question.
    if let Operation::Set { value, .. } = &mut command.operation
        && value.data.len() >= SHARED_BYTES
    {
        value.data = Data::Shared(value.data.to_bytes());
    }
    let cache = &local.shared.cache;
    let (version, large) = cache.execute(&command, now_ms, |reply| {
        let version = match &reply {
            KeyReply::Found(Item { version, .. })
            | KeyReply::Stored { version, .. }
            | KeyReply::Counted { version, .. } => Some(*version),
            _ => None,
        };
        match reply {
            // It is not copied while its shard is locked.
            KeyReply::Found(item) if item.value.data.len() >= SHARED_BYTES => {
                (version, Some(Found::copy(&item)))
            }
            reply => {
                encode_answered(out, &Answered::Reply(reply));
                (version, None)
            }
        }
    });
    if let Some(found) = large {
        let item = Item {
            value: found.stored(),
            version: found.version,
            expires_at_ms: found.expires_at_ms,
        };
        encode_answered(out, &Answered::Reply(KeyReply::Found(item)));
    }
    version
}

/// Why all was not forgotten.
#[derive(Debug)]
pub(crate) enum FlushFailure {
    /// Nothing was.
    Refused(Refusal),
    /// Nothing was, as the cluster cannot agree on that now: why.
    NotNow(String),
    /// It may or may not have been: the node is stopping, or the cluster did not say so in time.
    Cut,
}

/// Has this node forget all that it has, or its cluster, where that has replicas. Whoever answers for it has to wait for the log.
pub(crate) async fn flush(local: &Local) -> Result<(), FlushFailure> {
    if local.shared.is_replicated() {
        // All at once, so that no replica brings back what the others have forgotten.
        let reset = topology::Command::Reset(Partition::all().collect());
        let changed = local.shared.cluster.change(Change::Topology(reset)).await;
        return match changed {
            Changed::Done(_) => Ok(()),
            Changed::Rejected(why) => Err(FlushFailure::NotNow(why.to_string())),
            Changed::NotNow(why) => Err(FlushFailure::NotNow(why)),
            Changed::Unknown(_) => Err(FlushFailure::Cut),
        };
    }
    let shared = Arc::clone(&local.shared);
    // Giving back gigabytes takes its time. A client that goes away does not stop it.
    let flushed = tokio::task::spawn_blocking(move || shared.flush());
    let flushed = flushed.await.map_err(|_| FlushFailure::Cut)?;
    // It was done on another thread.
    note_unkept();
    flushed.map_err(FlushFailure::Refused)
}

/// Does some work, and waits until the log has what it showed or wrote.
async fn kept<T>(local: &Local, work: impl Future<Output = T>) -> Result<T, Untold> {
    let mut work = pin!(work);
    let mut owed = None;
    let done = poll_fn(|cx| {
        let polled = work.as_mut().poll(cx);
        // Of what it ran in this poll.
        Owed::add(&mut owed, local.gate.take_owed());
        polled
    })
    .await;
    if let Some(mut owed) = owed {
        let mut place = Place::default();
        poll_fn(|cx| local.gate.poll_owed(&mut owed, &mut place, cx)).await?;
    }
    Ok(done)
}

/// Keys as they are sent.
#[derive(Debug, Default)]
struct Page {
    bytes: Vec<u8>,
    count: usize,
}

impl Sheet for Page {
    type Mark = (usize, usize);

    fn push(&mut self, key: &[u8]) {
        encode_key(&mut self.bytes, key);
        self.count += 1;
    }

    fn count(&self) -> usize {
        self.count
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    fn mark(&self) -> (usize, usize) {
        (self.bytes.len(), self.count)
    }

    fn back_to(&mut self, (len, count): (usize, usize)) {
        self.bytes.truncate(len);
        self.count = count;
    }
}
