//! What the calls of a data thread may tell, and when: a machine shows a reply as it runs a request, and says later whether that
//! may be told. Each batch of calls has a ticket, which is done when all of its calls have their verdicts. Verdicts come from
//! whatever thread has the shard then, by an inbox of the thread that made the call.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::task::Waker;
use std::time::Instant;

use henge_cluster::carrier::Waiter;
use henge_cluster::replica::{Answer, Level, RequestId, Seen, Vouching};
use henge_cluster::ring::NodeId;
use henge_wire::{Partition, Version};
use parking_lot::Mutex;

use super::streams::STREAMS;
use crate::cluster::routing::REQUEST_TIMEOUT;
use crate::config::ConsistencyLevel;

/// The bits of a name that say which call of its ticket it is; before them are 32 of the ticket and 8 of the thread.
const NTH_BITS: u32 = 24;
/// Calls of one ticket. A command that looks at all partitions makes some thousand, and more where they are large.
const MOST_CALLS: usize = 1 << NTH_BITS;
/// From so many on a pipeline is answered as far as it is: each is kept until it is told.
const ENOUGH_CALLS: usize = 4 * 1024;
/// A ticket has room for so many calls at once: those of a usual pipeline.
const ROOM_CALLS: usize = 16;

/// What a machine says of a call in the end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Verdict {
    /// It may be told.
    Told,
    /// Nothing was changed, and what was shown is not to be told.
    NotDone,
    /// It was stamped, and nobody knows what becomes of it.
    Unknown,
}

impl Verdict {
    pub(crate) fn of(answer: &Answer<()>) -> Self {
        match answer {
            Answer::Reply(()) => Self::Told,
            Answer::NotStamped | Answer::NoRoom => Self::NotDone,
            Answer::Unknown => Self::Unknown,
        }
    }
}

thread_local! {
    static CALLS: RefCell<Calls> = RefCell::new(Calls::default());
    static LEVEL: Cell<Level> = const { Cell::new(Level::Quorum) };
    static REPLY: Cell<u32> = const { Cell::new(0) };
    static REPLICAS: Cell<Option<u8>> = const { Cell::new(None) };
}

/// The calls of this thread.
#[derive(Default)]
struct Calls {
    /// The number of the thread among those that have an inbox, from 1 on; 0 for one that has none.
    thread: u8,
    /// The ticket of the calls that are made now; none before the first. It is at hand, as each call asks for it.
    present: Option<(u32, Open)>,
    /// Those that were taken.
    taken: HashMap<u32, Open>,
    /// So many were made since a ticket was taken.
    made: usize,
    newest: u32,
    /// Reads that go back to their machines.
    unvouched: Vec<(Partition, Seen<()>)>,
    /// Calls for which nobody waits any more, of which their machines do not know that.
    abandoned: Vec<(Partition, RequestId)>,
}

impl Calls {
    /// The present ticket, another one if there is none.
    fn present(&mut self) -> &mut (u32, Open) {
        self.present.get_or_insert_with(|| {
            self.newest = self.newest.wrapping_add(1);
            let open = Open {
                calls: Vec::with_capacity(ROOM_CALLS),
                awaited: Vec::new(),
                left: 0,
                verdict: Verdict::Told,
                deadline: Instant::now() + REQUEST_TIMEOUT,
                waker: None,
                is_expired: false,
            };
            (self.newest, open)
        })
    }

    /// The ticket of a name, if it is there yet.
    fn open(&mut self, name: u64) -> Option<&mut Open> {
        let number = ticket_of(name);
        match &mut self.present {
            Some((present, open)) if *present == number => Some(open),
            _ => self.taken.get_mut(&number),
        }
    }

    /// Nobody waits for a ticket any more.
    fn abandon(&mut self, number: u32) {
        if let Some(open) = self.taken.remove(&number)
            && open.left > 0
            && !open.is_expired
        {
            self.abandoned.extend(open.waiting(self.thread, number));
        }
    }
}

/// A ticket.
struct Open {
    calls: Vec<Call>,
    /// Who is to vouch for some of them.
    awaited: Vec<Awaited>,
    left: usize,
    /// The worst of all.
    verdict: Verdict,
    deadline: Instant,
    waker: Option<Waker>,
    is_expired: bool,
}

struct Call {
    partition: Partition,
    /// Which reply of the batch it is for.
    reply: u32,
    is_write: bool,
    /// Of a write that all replicas are to have: what has it is in the order up to there.
    stamped: Option<Version>,
    verdict: Option<Verdict>,
}

/// What reads have seen, and who is to vouch for all of it, in which of the streams to each of them.
struct Awaited {
    stream: usize,
    vouching: Vouching,
    reads: Vec<(Partition, Seen<()>)>,
}

impl Open {
    fn told(&mut self, id: RequestId, verdict: Verdict) {
        let call = self.calls.get_mut((id & NTH) as usize);
        if let Some(call) = call.filter(|call| call.verdict.is_none()) {
            call.verdict = Some(verdict);
            self.left -= 1;
            self.verdict = self.verdict.max(verdict);
        }
    }

    /// Another node vouches for what its reads have seen in one of the streams to it, in answer to this question, or does not. Gives
    /// those for which too few do.
    fn heard(&mut self, heard: &Heard, unvouched: &mut Vec<(Partition, Seen<()>)>) {
        let stream = (heard.waiter & NTH) as usize;
        let mut nth = 0;
        while let Some(awaited) = self.awaited.get_mut(nth) {
            let Heard {
                from,
                number,
                vouches,
                ..
            } = *heard;
            let is_that = awaited.stream == stream;
            let vouched = is_that.then(|| awaited.vouching.hear(from, number, vouches));
            let Some(is_vouched) = vouched.flatten() else {
                nth += 1;
                continue;
            };
            let Awaited { reads, .. } = self.awaited.swap_remove(nth);
            if is_vouched {
                for (_, seen) in reads {
                    self.told(seen.id, Verdict::Told);
                }
            } else {
                unvouched.extend(reads);
            }
        }
    }

    /// The calls that wait for their machines.
    fn waiting(&self, thread: u8, number: u32) -> impl Iterator<Item = (Partition, RequestId)> {
        let ticket = name(thread, number);
        let calls = self.calls.iter().zip(0_u64..);
        let waiting = calls.filter(|(call, _)| call.verdict.is_none());
        waiting.map(move |(call, nth)| (call.partition, ticket | nth))
    }

    /// Wakes who waits, if all is told.
    fn woken(&mut self) -> Option<Waker> {
        if self.left > 0 {
            return None;
        }
        self.waker.take()
    }
}

/// From now on this is the data thread of this number.
pub(crate) fn begin_thread(index: usize) {
    CALLS.with_borrow_mut(|calls| calls.thread = u8::try_from(index + 1).unwrap_or(0));
}

/// How much the calls that this thread makes from now on are to promise.
#[inline]
pub(crate) fn set_level(level: ConsistencyLevel) {
    LEVEL.set(match level {
        ConsistencyLevel::One => Level::One,
        ConsistencyLevel::Quorum => Level::Quorum,
        ConsistencyLevel::All => Level::All,
    });
}

/// What the calls that this thread makes now are to promise.
#[inline]
pub(crate) fn level() -> Level {
    LEVEL.get()
}

/// The same as other nodes are told: 0 for one, 1 for quorum, 2 for all.
#[inline]
pub(crate) fn level_number() -> u8 {
    match LEVEL.get() {
        Level::One => 0,
        Level::Quorum => 1,
        Level::All => 2,
    }
}

/// The level of such a number.
pub(crate) fn numbered_level(number: u8) -> Option<ConsistencyLevel> {
    Some(match number {
        0 => ConsistencyLevel::One,
        1 => ConsistencyLevel::Quorum,
        2 => ConsistencyLevel::All,
        _ => return None,
    })
}

/// Which reply of a batch the calls that this thread makes from now on are for.
#[inline]
pub(crate) fn set_reply(number: usize) {
    REPLY.set(number as u32);
}

/// The same number.
pub(crate) fn reply() -> u32 {
    REPLY.get()
}

/// So many replicas are known to have what was shown in this turn; 0 where that is not known.
pub(crate) fn note_replicas(replicas: u8) {
    let fewest = REPLICAS.get().map_or(replicas, |known| known.min(replicas));
    REPLICAS.set(Some(fewest));
}

/// How many replicas are known to have all that was shown since the last time; none if nothing was said of that.
pub(crate) fn take_replicas() -> Option<u8> {
    REPLICAS.take()
}

/// The name of a call that this thread makes now, and how much it promises; 0 where nobody can be told.
pub(crate) fn begin_call(partition: Partition, is_write: bool) -> (RequestId, Level) {
    let level = LEVEL.get();
    let id = CALLS.with_borrow_mut(|calls| {
        let thread = calls.thread;
        if thread == 0 {
            return 0;
        }
        let (number, open) = calls.present();
        let ticket = name(thread, *number);
        if open.calls.len() == MOST_CALLS {
            // Nobody can be told of it, so nobody is told of the others either.
            let untold = if is_write {
                Verdict::Unknown
            } else {
                Verdict::NotDone
            };
            open.verdict = open.verdict.max(untold);
            return 0;
        }
        open.calls.push(Call {
            partition,
            reply: REPLY.get(),
            is_write,
            stamped: None,
            verdict: None,
        });
        open.left += 1;
        let nth = open.calls.len() as u64 - 1;
        calls.made += 1;
        ticket | nth
    });
    (id, level)
}

/// Whether this thread has made so many calls for one ticket that it is to be taken.
pub(crate) fn has_enough_calls() -> bool {
    CALLS.with_borrow(|calls| calls.made >= ENOUGH_CALLS)
}

/// Whether this thread has made calls whose ticket nobody has taken yet.
#[inline]
pub(crate) fn has_untaken_calls() -> bool {
    CALLS.with_borrow(|calls| calls.present.is_some())
}

/// The name of the first call of a ticket.
fn name(thread: u8, number: u32) -> u64 {
    (u64::from(thread) << 32 | u64::from(number)) << NTH_BITS
}

/// The ticket of a call.
fn ticket_of(name: u64) -> u32 {
    (name >> NTH_BITS) as u32
}

/// The thread of a call.
fn thread_of(name: u64) -> usize {
    (name >> (NTH_BITS + 32)) as usize
}

/// What a call of this thread has written at ALL is in the order up to this version.
pub(super) fn note_stamped(id: RequestId, version: Version) {
    CALLS.with_borrow_mut(|calls| {
        let open = calls.open(id);
        if let Some(call) = open.and_then(|open| open.calls.get_mut((id & NTH) as usize)) {
            call.stamped = Some(version);
        }
    });
}

/// The part of a name that says which call of its ticket it is; of who waits for others to vouch, which of the streams to them it is.
const NTH: u64 = MOST_CALLS as u64 - 1;

/// The name by which the ticket of a call of this thread waits to hear that others vouch for what its reads have seen.
pub(super) fn waiter(id: RequestId, stream: usize) -> u64 {
    id & !NTH | stream as u64
}

/// A call of this thread waits until others vouch for what it has seen. Says whether these are questions for which none of its ticket
/// has waited yet: then they are to be asked.
pub(super) fn wait(
    partition: Partition,
    seen: &Seen<()>,
    stream: usize,
    vouching: Vouching,
) -> bool {
    CALLS.with_borrow_mut(|calls| {
        let Some(open) = calls.open(seen.id) else {
            return true;
        };
        let read = (partition, seen.clone());
        // Most of a batch were asked for in the same questions as those before them.
        let mut newest = open.awaited.iter_mut().rev().take(STREAMS);
        let is_same = |other: &&mut Awaited| (other.stream, &other.vouching) == (stream, &vouching);
        if let Some(same) = newest.find(is_same) {
            same.reads.push(read);
            return false;
        }
        let mut reads = Vec::with_capacity(ROOM_CALLS);
        reads.push(read);
        open.awaited.push(Awaited {
            stream,
            vouching,
            reads,
        });
        true
    })
}

/// Reads of this thread for which too few vouch: their machines are to find out.
pub(super) fn take_unvouched() -> Vec<(Partition, Seen<()>)> {
    CALLS.with_borrow_mut(|calls| std::mem::take(&mut calls.unvouched))
}

/// Calls that wait for their verdicts together. Dropped, nobody waits for them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u32);

impl Drop for Ticket {
    fn drop(&mut self) {
        // While the thread ends there may be none any more.
        let _ = CALLS.try_with(|calls| calls.borrow_mut().abandon(self.0));
    }
}

/// The ticket of the calls that this thread has made since the last time, if there were any.
pub(crate) fn take_ticket() -> Option<Ticket> {
    CALLS.with_borrow_mut(|calls| {
        calls.made = 0;
        let (number, open) = calls.present.take()?;
        calls.taken.insert(number, open);
        Some(Ticket(number))
    })
}

impl Ticket {
    /// What became of all calls, the worst of it; none before all have their verdicts, and then who waits is woken.
    pub(crate) fn verdict(&self, waker: &Waker) -> Option<Verdict> {
        CALLS.with_borrow_mut(|calls| {
            let open = calls.taken.get_mut(&self.0)?;
            if open.left == 0 {
                return Some(open.verdict);
            }
            open.waker = Some(waker.clone());
            None
        })
    }

    /// Until when its calls are waited for; none where they are no more.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        CALLS.with_borrow(|calls| calls.taken.get(&self.0).map(|open| open.deadline))
    }

    /// Its calls are of a request that was asked before: they are not waited for longer than until this moment.
    pub(crate) fn end_by(&self, deadline: Instant) {
        CALLS.with_borrow_mut(|calls| {
            if let Some(open) = calls.taken.get_mut(&self.0) {
                open.deadline = open.deadline.min(deadline);
            }
        });
    }

    /// What its calls have written at ALL for a reply of the batch of which nobody knows what becomes; none where one of them does not
    /// know what it has stamped.
    pub(crate) fn unknown(&self, reply: u32) -> Option<Vec<(Partition, Version)>> {
        CALLS.with_borrow(|calls| {
            let calls = &calls.taken.get(&self.0)?.calls;
            let unknown = calls.iter().filter(|call| {
                let is_told = call.verdict == Some(Verdict::Told);
                call.reply == reply && call.is_write && !is_told
            });
            unknown
                .map(|call| Some((call.partition, call.stamped?)))
                .collect()
        })
    }

    /// Adds what became of its calls to what did of their replies.
    pub(crate) fn sort(&self, sorted: &mut Sorted) {
        CALLS.with_borrow(|calls| {
            let Some(open) = calls.taken.get(&self.0) else {
                return;
            };
            open.calls.iter().for_each(|call| sorted.add(call));
        });
    }
}

/// What became of the calls for each reply of a batch.
#[derive(Default, Debug)]
pub(crate) struct Sorted {
    replies: BTreeMap<u32, Sum>,
    /// The last reply for which something was done, of each partition.
    done: BTreeMap<Partition, u32>,
}

#[derive(Default, Debug)]
struct Sum {
    worst: Option<Verdict>,
    /// Something was written, or may have been.
    has_written: bool,
    /// Of these partitions something was not done.
    not_done: Vec<Partition>,
}

impl Sorted {
    fn add(&mut self, call: &Call) {
        let verdict = call.verdict.unwrap_or(Verdict::Unknown);
        let came = self.replies.entry(call.reply).or_default();
        came.worst = came.worst.max(Some(verdict));
        if verdict == Verdict::NotDone {
            came.not_done.push(call.partition);
        } else {
            came.has_written |= call.is_write;
            let last = self.done.entry(call.partition).or_default();
            *last = call.reply.max(*last);
        }
    }

    /// The replies that may not be told, in their order. One of which a part was written, and a part was not, is unknown.
    pub(crate) fn untold(&self) -> Vec<(u32, Bad)> {
        let untold = self.replies.iter().filter_map(|(&reply, came)| {
            let is_passed = |partition| self.done.get(partition).is_some_and(|&last| last > reply);
            let bad = match came.worst? {
                Verdict::Unknown => Bad::Unknown,
                _ if !came.not_done.is_empty() && came.has_written => Bad::Unknown,
                Verdict::NotDone if came.not_done.iter().any(is_passed) => Bad::Passed,
                Verdict::NotDone => Bad::NotDone,
                Verdict::Told => return None,
            };
            Some((reply, bad))
        });
        untold.collect()
    }
}

/// Why a reply may not be told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Bad {
    /// Nothing was changed by what it is of: it may be asked again.
    NotDone,
    /// The same, and what was asked after it of the same partition was done: it would be overtaken.
    Passed,
    /// Something was changed, and it is not known what becomes of it.
    Unknown,
}

/// Verdicts on their way to the threads that wait for them.
#[derive(Debug)]
pub(crate) struct Inboxes {
    of_threads: Box<[Inbox]>,
    are_used: AtomicBool,
}

#[derive(Debug, Default)]
struct Inbox {
    came: Mutex<Vec<Came>>,
    keeper: Mutex<Option<Waker>>,
}

/// What comes for those that wait.
#[derive(Debug)]
enum Came {
    Verdict(RequestId, Verdict),
    Heard(Heard),
}

/// What another node says to who waits, in answer to the question of this number.
#[derive(Debug)]
struct Heard {
    waiter: u64,
    from: NodeId,
    number: u64,
    vouches: bool,
}

impl Inboxes {
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            of_threads: (0..threads).map(|_| Inbox::default()).collect(),
            are_used: AtomicBool::new(false),
        }
    }

    /// Whether there are replicas that may say something.
    #[inline]
    pub(crate) fn are_used(&self) -> bool {
        self.are_used.load(Relaxed)
    }

    /// There are from now on.
    pub(super) fn begin(&self) {
        self.are_used.store(true, SeqCst);
    }

    /// A verdict, from whatever thread.
    pub(crate) fn put(&self, id: RequestId, verdict: Verdict) {
        self.extend(id, [Came::Verdict(id, verdict)]);
    }

    /// Another node vouches for what was seen by those who have waited for that, or does not.
    pub(super) fn hear(&self, from: NodeId, number: u64, waiters: &[Waiter], vouches: bool) {
        let thread = |waiter: &Waiter| thread_of(waiter.0);
        for waiters in waiters.chunk_by(|one, other| thread(one) == thread(other)) {
            let heard = waiters.iter().map(|&(waiter, asked)| {
                Came::Heard(Heard {
                    waiter,
                    from,
                    // One that waits for a later question does so no more.
                    number: number.max(asked),
                    vouches,
                })
            });
            self.extend(waiters[0].0, heard);
        }
    }

    /// For the thread that is named in there.
    fn extend(&self, name: u64, more: impl IntoIterator<Item = Came>) {
        let Some(inbox) = thread_of(name)
            .checked_sub(1)
            .and_then(|index| self.of_threads.get(index))
        else {
            return;
        };
        let mut came = inbox.came.lock();
        let was_empty = came.is_empty();
        came.extend(more);
        drop(came);
        if was_empty && let Some(keeper) = inbox.keeper.lock().take() {
            keeper.wake();
        }
    }

    /// Gives what has come to those that wait on this thread, and has the waker called when more comes.
    pub(crate) fn deliver(&self, index: usize, waker: &Waker) {
        let inbox = &self.of_threads[index];
        // Before the look: what comes from here on wakes.
        *inbox.keeper.lock() = Some(waker.clone());
        self.collect(index);
    }

    /// The same, where nobody is to be woken for what comes later.
    pub(crate) fn collect(&self, index: usize) {
        let mut came = std::mem::take(&mut *self.of_threads[index].came.lock());
        if came.is_empty() {
            return;
        }
        let mut woken = Vec::new();
        CALLS.with_borrow_mut(|calls| {
            let mut unvouched = std::mem::take(&mut calls.unvouched);
            for came in came.drain(..) {
                let (Came::Verdict(name, _) | Came::Heard(Heard { waiter: name, .. })) = came;
                let Some(open) = calls.open(name) else {
                    continue;
                };
                match came {
                    Came::Verdict(id, verdict) => open.told(id, verdict),
                    Came::Heard(heard) => open.heard(&heard, &mut unvouched),
                }
                woken.extend(open.woken());
            }
            calls.unvouched = unvouched;
        });
        woken.into_iter().for_each(Waker::wake);
        let mut inbox = self.of_threads[index].came.lock();
        if inbox.capacity() == 0 {
            // For its memory.
            *inbox = came;
        }
    }
}

/// The calls of this thread whose time is over, or whose clients are gone: their machines are to be told that nobody waits.
pub(crate) fn expired() -> Vec<(Partition, RequestId)> {
    let now = Instant::now();
    let mut woken = Vec::new();
    let expired = CALLS.with_borrow_mut(|calls| {
        let mut expired = std::mem::take(&mut calls.abandoned);
        let present = calls.present.iter_mut();
        let present = present.map(|(number, open)| (&*number, open));
        for (&number, open) in present.chain(&mut calls.taken) {
            if open.is_expired || open.deadline > now || open.left == 0 {
                continue;
            }
            open.is_expired = true;
            for (_, seen) in std::mem::take(&mut open.awaited)
                .into_iter()
                .flat_map(|awaited| awaited.reads)
            {
                open.told(seen.id, Verdict::NotDone);
            }
            expired.extend(open.waiting(calls.thread, number));
            woken.extend(open.woken());
        }
        expired
    });
    woken.into_iter().for_each(Waker::wake);
    expired
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> Partition {
        Partition::new(7).expect("it is one")
    }

    /// Its client is gone. Machines would keep what it asked for as long as nobody answers it.
    #[test]
    fn machines_hear_of_calls_for_which_nobody_waits() {
        begin_thread(0);
        let (told, _) = begin_call(partition(), true);
        let (waits, _) = begin_call(partition(), true);
        let ticket = take_ticket().expect("there were calls");
        let inboxes = Inboxes::new(1);
        inboxes.put(told, Verdict::Told);
        inboxes.collect(0);
        assert_eq!(expired(), []);
        drop(ticket);
        assert_eq!(expired(), [(partition(), waits)]);
        assert_eq!(expired(), []);
    }

    /// What is asked again has what is left of its time, and not as much again.
    #[test]
    fn a_ticket_ends_with_the_request_that_it_is_of() {
        begin_thread(0);
        let (asked_again, _) = begin_call(partition(), true);
        let again = take_ticket().expect("there was a call");
        let _ = begin_call(partition(), true);
        let first = take_ticket().expect("there was a call");
        assert_eq!(expired(), []);
        let now = Instant::now();
        again.end_by(now);
        first.end_by(now + 2 * REQUEST_TIMEOUT);
        assert_eq!(again.deadline(), Some(now));
        assert!(first.deadline() < Some(now + 2 * REQUEST_TIMEOUT));
        assert_eq!(expired(), [(partition(), asked_again)]);
    }

    /// Only an answer to a question that was asked after a read counts for it, and those of one stream do for none of another.
    #[test]
    fn reads_are_told_when_others_vouch_for_them() {
        begin_thread(0);
        let node = NodeId(2);
        let wait = |stream, question| {
            let (id, _) = begin_call(partition(), false);
            let seen = Seen {
                id,
                reply: (),
                seq: 5,
                term: 3,
            };
            let vouching = Vouching::by(1, [(node, question)]).expect("one is enough");
            (id, wait(partition(), &seen, stream, vouching))
        };
        let waits = [wait(0, 1), wait(0, 1), wait(0, 2), wait(1, 1)];
        let ids = waits.map(|(id, _)| id);
        // What is asked already is not asked again.
        assert_eq!(
            waits.map(|(_, is_asked)| is_asked),
            [true, false, true, true]
        );
        let ticket = take_ticket().expect("there were calls");
        let inboxes = Inboxes::new(1);
        let verdict = || ticket.verdict(Waker::noop());
        let hear = |stream, number, vouches| {
            inboxes.hear(node, number, &[(waiter(ids[0], stream), number)], vouches);
            inboxes.collect(0);
        };
        hear(0, 1, true);
        hear(1, 1, true);
        assert_eq!(verdict(), None);
        hear(0, 2, false);
        let unvouched = take_unvouched();
        assert_eq!(unvouched.len(), 1);
        assert_eq!(unvouched[0].1.id, ids[2]);
        // Its machine says what becomes of it.
        inboxes.put(ids[2], Verdict::Told);
        inboxes.collect(0);
        assert_eq!(verdict(), Some(Verdict::Told));
    }
}
