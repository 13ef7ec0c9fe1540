//! What other nodes ask of this one about its keys: it runs the commands whose partitions are its own by its present view, and
//! says of the others that they are not here. Nothing is answered before the log has it. An answer is bounded; who asked keeps
//! what was not run, and asks again.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use henge_wire::peer::keys::{
    Answered, Commands, Question, Scan, encode_answered, encode_key, page_head, replies_head,
};
use henge_wire::{Command, Data, Item, Operation, Partition, Refusal, Reply as KeyReply};

use super::scan::{self, Sheet};
use crate::cache::ScanCursor;
use crate::cluster::link::answering::Reply;
use crate::cluster::view::Owner;
use crate::disk::gate::{Owed, Place, Untold, note_unkept};
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
        Ok(Question::Commands(commands)) => run(local, &commands, reply),
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
                    Err(_) => reply.fail("its write-ahead log failed"),
                }
            });
        }
        Ok(Question::Flush) => {
            let local = Rc::clone(local);
            tokio::task::spawn_local(async move {
                let flushed = kept(&local, flush(&local)).await;
                let answered = match flushed {
                    Err(_) | Ok(Err(FlushCut)) => Answered::Unknown,
                    Ok(Ok(Ok(()))) => Answered::Reply(KeyReply::Deleted),
                    Ok(Ok(Err(refusal))) => Answered::Reply(KeyReply::Refused(refusal)),
                };
                let mut out = replies_head(1).to_vec();
                encode_answered(&mut out, &answered);
                reply.send(&[&out]);
            });
        }
    }
}

fn run(local: &Rc<Local>, commands: &Commands<'_>, reply: Reply) {
    let routes = local.routing.routes();
    let is_here = |key: &[u8]| {
        routes
            .as_ref()
            .is_none_or(|routes| routes.view.owner(Partition::of(key)) == Owner::Here)
    };
    let now_ms = local.shared.clock.now_ms();
    let mut out = replies_head(0).to_vec();
    let mut count = 0;
    for command in commands.iter().take(MOST_COMMANDS) {
        if is_here(command.key) {
            run_one(local, command, now_ms, &mut out);
        } else {
            encode_answered(&mut out, &Answered::NotHere);
        }
        count += 1;
        if out.len() >= ENOUGH_BYTES {
            break;
        }
    }
    let head = replies_head(count);
    out[..head.len()].copy_from_slice(&head);
    let Some(mut owed) = local.gate.take_owed() else {
        return reply.send(&[&out]);
    };
    reply.keeps(out.len());
    let local = Rc::clone(local);
    tokio::task::spawn_local(async move {
        let mut place = Place::default();
        if poll_fn(|cx| local.gate.poll_owed(&mut owed, &mut place, cx))
            .await
            .is_err()
        {
            out.truncate(head.len());
            for _ in 0..count {
                encode_answered(&mut out, &Answered::Unknown);
            }
        }
        reply.send(&[&out]);
    });
}

fn run_one(local: &Local, mut command: Command<'_>, now_ms: u64, out: &mut Vec<u8>) {
    // What the cache is to keep as it is must not keep the whole question.
    if let Operation::Set { value, .. } = &mut command.operation
        && value.data.len() >= SHARED_BYTES
    {
        value.data = Data::Shared(value.data.to_bytes());
    }
    let cache = &local.shared.cache;
    let large = cache.execute(&command, now_ms, |reply| match reply {
        // It is not copied while its shard is locked.
        KeyReply::Found(item) if item.value.data.len() >= SHARED_BYTES => Some(Found::copy(&item)),
        reply => {
            encode_answered(out, &Answered::Reply(reply));
            None
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
}

/// What was to be forgotten may or may not have been: the node is stopping.
#[derive(Debug)]
pub(crate) struct FlushCut;

/// Has this node forget all that it has. Whoever answers for it has to wait for the log.
pub(crate) async fn flush(local: &Local) -> Result<Result<(), Refusal>, FlushCut> {
    let shared = Arc::clone(&local.shared);
    // Giving back gigabytes takes its time.
    let flushed = tokio::task::spawn_blocking(move || shared.flush());
    let flushed = flushed.await.map_err(|_| FlushCut)?;
    // It was done on another thread.
    note_unkept();
    Ok(flushed)
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
