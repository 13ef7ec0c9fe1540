//! What the calls of a data thread may tell, and when: a machine shows a reply as it runs a request, and says later whether that
//! may be told. Each batch of calls has a ticket, which is done when all of its calls have their verdicts. Verdicts come from
//! whatever thread has the shard then, by an inbox of the thread that made the call.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::task::Waker;
use std::time::{Duration, Instant};

use henge_cluster::replica::{Answer, Level, RequestId};
use henge_wire::Partition;
use parking_lot::Mutex;

use crate::config::ConsistencyLevel;

/// How long a call waits for replicas: a lost leader is replaced before that.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Calls of one ticket: their numbers have 16 bits of a name. A batch has fewer.
const MOST_CALLS: usize = 1 << 16;

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
    tickets: HashMap<u32, Open>,
    /// The ticket of the calls that are made now; none before the first.
    present: Option<u32>,
    newest: u32,
}

impl Calls {
    /// Another ticket.
    fn begin(&mut self) -> u32 {
        self.newest = self.newest.wrapping_add(1);
        let open = Open {
            calls: Vec::new(),
            left: 0,
            verdict: Verdict::Told,
            deadline: Instant::now() + REQUEST_TIMEOUT,
            waker: None,
            is_expired: false,
        };
        self.tickets.insert(self.newest, open);
        self.present = Some(self.newest);
        self.newest
    }
}

/// A ticket.
struct Open {
    calls: Vec<Call>,
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
    verdict: Option<Verdict>,
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
        if calls.thread == 0 {
            return 0;
        }
        let number = calls.present.unwrap_or_else(|| calls.begin());
        let thread = u64::from(calls.thread);
        let Some(open) = calls.tickets.get_mut(&number) else {
            return 0;
        };
        assert!(open.calls.len() < MOST_CALLS, "no batch has as many calls");
        open.calls.push(Call {
            partition,
            reply: REPLY.get(),
            is_write,
            verdict: None,
        });
        open.left += 1;
        thread << 48 | u64::from(number) << 16 | (open.calls.len() - 1) as u64
    });
    (id, level)
}

/// Calls that wait for their verdicts together. Dropped, nobody waits for them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u32);

impl Drop for Ticket {
    fn drop(&mut self) {
        // While the thread ends there may be none any more.
        let _ = CALLS.try_with(|calls| calls.borrow_mut().tickets.remove(&self.0));
    }
}

/// The ticket of the calls that this thread has made since the last time, if there were any.
pub(crate) fn take_ticket() -> Option<Ticket> {
    CALLS.with_borrow_mut(|calls| calls.present.take().map(Ticket))
}

impl Ticket {
    /// What became of all calls, the worst of it; none before all have their verdicts, and then who waits is woken.
    pub(crate) fn verdict(&self, waker: &Waker) -> Option<Verdict> {
        CALLS.with_borrow_mut(|calls| {
            let open = calls.tickets.get_mut(&self.0)?;
            if open.left == 0 {
                return Some(open.verdict);
            }
            open.waker = Some(waker.clone());
            None
        })
    }

    /// Adds what became of its calls to what did of their replies.
    pub(crate) fn sort(&self, sorted: &mut Sorted) {
        CALLS.with_borrow(|calls| {
            let Some(open) = calls.tickets.get(&self.0) else {
                return;
            };
            open.calls.iter().for_each(|call| sorted.add(call));
        });
    }
}

/// What became of the calls for each reply of a batch.
#[derive(Default, Debug)]
pub(crate) struct Sorted {
    replies: BTreeMap<u32, Came>,
    /// The last reply for which something was done, of each partition.
    done: BTreeMap<Partition, u32>,
}

#[derive(Default, Debug)]
struct Came {
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
    verdicts: Mutex<Vec<(RequestId, Verdict)>>,
    keeper: Mutex<Option<Waker>>,
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
        let thread = (id >> 48) as usize;
        let Some(inbox) = thread
            .checked_sub(1)
            .and_then(|index| self.of_threads.get(index))
        else {
            return;
        };
        let mut verdicts = inbox.verdicts.lock();
        let was_empty = verdicts.is_empty();
        verdicts.push((id, verdict));
        drop(verdicts);
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
        let mut came = std::mem::take(&mut *self.of_threads[index].verdicts.lock());
        if came.is_empty() {
            return;
        }
        let mut woken = Vec::new();
        CALLS.with_borrow_mut(|calls| {
            for (id, verdict) in came.drain(..) {
                let ticket = (id >> 16) as u32;
                let Some(open) = calls.tickets.get_mut(&ticket) else {
                    continue;
                };
                let call = open.calls.get_mut((id & 0xFFFF) as usize);
                let Some(call) = call.filter(|call| call.verdict.is_none()) else {
                    continue;
                };
                call.verdict = Some(verdict);
                open.left -= 1;
                open.verdict = open.verdict.max(verdict);
                if open.left == 0 {
                    woken.extend(open.waker.take());
                }
            }
        });
        woken.into_iter().for_each(Waker::wake);
        let mut verdicts = self.of_threads[index].verdicts.lock();
        if verdicts.capacity() == 0 {
            // For its memory.
            *verdicts = came;
        }
    }
}

/// The calls of this thread whose time is over: their machines are to be told that nobody waits.
pub(crate) fn expired() -> Vec<(Partition, RequestId)> {
    let now = Instant::now();
    CALLS.with_borrow_mut(|calls| {
        let thread = u64::from(calls.thread);
        let mut expired = Vec::new();
        for (&number, open) in &mut calls.tickets {
            if open.is_expired || open.deadline > now || open.left == 0 {
                continue;
            }
            open.is_expired = true;
            for (nth, call) in open.calls.iter().enumerate() {
                if call.verdict.is_none() {
                    let id = thread << 48 | u64::from(number) << 16 | nth as u64;
                    expired.push((call.partition, id));
                }
            }
        }
        expired
    })
}
