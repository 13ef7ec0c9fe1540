//! What replicas say to those of other nodes: a few streams to each, in each of which the order of a partition is kept. A stream
//! has an outbox, which is filled while a shard is locked, and a task on one data thread that empties it into a connection of its
//! own. What was sent and lost is not sent again here: the machines find out.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, Ordering::SeqCst};
use std::task::{self, Poll, Waker};
use std::time::{Duration, Instant};

use henge_cluster::carrier::{Context, Frame, FrameOf, Outbox};
use henge_cluster::replica::{Body, Message, MessageOf, Seen, Vouch, Vouching};
use henge_cluster::ring::NodeId;
use henge_cluster::store::Served;
use henge_cluster::topology::Incarnation;
use henge_engine::persistence::journal::Pieces;
use henge_wire::peer::{Head, Kind, Purpose};
use henge_wire::{Partition, Version};
use parking_lot::{Mutex, MutexGuard, RwLock};
use rustix::net::sockopt;
use smallvec::SmallVec;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::cache::{AHEAD, Cache, Location, LookAhead};
use crate::cluster::link::frames::{Incoming, Outgoing, ReadError};
use crate::cluster::link::greet::{self, GREETING_TIMEOUT, Greeted};
use crate::cluster::replicas::told::{self, Inboxes};
use crate::cluster::view::View;
use crate::net::data_thread::Local;
use crate::traces::{self, Span};

/// Streams to each other node. Both sides reckon by it which stream a partition is of, so it is as it is for ever.
pub(super) const STREAMS: usize = 2;
/// What was stamped and waits for one node in one stream: some tenth of a second of a fast network. Who is slower copies.
const MOST_APPEND_BYTES: usize = 32 << 20;
/// Bytes of messages in a frame: what a reader works on before it looks at another connection.
const FRAME_BYTES: usize = 256 << 10;
/// What is kept to encode frames in: memory that is given back with each has to be had again for the next, page by page.
const FRAME_ROOM_BYTES: usize = 2 * FRAME_BYTES;
/// Bytes that wait for the system from which on nothing more is taken out of an outbox, where it is still ordered and bounded.
const MOST_UNSENT_BYTES: usize = 1 << 20;
/// The longest frame that is taken: one of [`FRAME_BYTES`], or one message, which has an item at the most, or a part of a copy.
const MOST_FRAME_BYTES: usize = (1 << 30) + (2 << 20);
/// How long after a connection could not be had the next is tried.
const PAUSE: Duration = Duration::from_millis(100);
/// Who could not be connected to for so long is away: what waits for it would not be of use for much longer either, and is memory beside
/// `cache.max_size_bytes`. A node that has just begun listens within this, and a network that stumbles is over it.
const AWAY_AFTER: Duration = Duration::from_secs(1);
/// How often machines are told that time has passed: some round trips, and little beside a failover.
pub(crate) const TICK: Duration = Duration::from_millis(25);

/// See the head of the file.
#[derive(Default)]
pub(crate) struct Streams {
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
}

/// Another node.
pub(crate) struct Peer {
    instance: u64,
    address: String,
    streams: [Stream; STREAMS],
    is_gone: AtomicBool,
    /// Is told when it is gone.
    gone: Notify,
}

struct Stream {
    /// Which of the streams to its node it is.
    number: usize,
    outbox: Mutex<Outbox<Served>>,
    sender: Mutex<Option<Waker>>,
}

impl Stream {
    fn new(number: usize) -> Self {
        Self {
            number,
            outbox: Mutex::new(Outbox::new(MOST_APPEND_BYTES)),
            sender: Mutex::default(),
        }
    }

    /// The task that is polled now is woken when there is more to send.
    fn await_more(&self, cx: &task::Context<'_>) {
        *self.sender.lock() = Some(cx.waker().clone());
    }

    fn wake(&self) {
        if let Some(sender) = self.sender.lock().take() {
            sender.wake();
        }
    }
}

fn stream_of(partition: Partition) -> usize {
    usize::from(partition.number()) % STREAMS
}

impl Streams {
    /// A replica says something to one of another node.
    pub(crate) fn put(
        &self,
        partition: Partition,
        (to, incarnation): (NodeId, Incarnation),
        message: MessageOf<Served>,
        context: Option<Context>,
    ) {
        let peers = self.peers.read();
        if let Some(peer) = peers.get(&to) {
            let stream = &peer.streams[stream_of(partition)];
            let mut outbox = stream.outbox.lock();
            outbox.put_traced(partition, incarnation, message, context);
            drop(outbox);
            stream.wake();
        }
    }

    /// A call of this thread waits until others vouch for what it has seen. It is given back if too few can without being asked by name.
    pub(super) fn wait(&self, partition: Partition, vouch: Vouch<()>) -> Option<Seen<()>> {
        let Vouch {
            seen,
            others,
            needed,
        } = vouch;
        let number = stream_of(partition);
        let waiter = told::waiter(seen.id, number);
        let peers = self.peers.read();
        let asked = others.iter().filter_map(|&(node, incarnation)| {
            let stream = &peers.get(&node)?.streams[number];
            let mut outbox = stream.outbox.lock();
            let question = outbox.wait(incarnation, partition, seen.term, waiter)?;
            Some((node, question))
        });
        // In place for five replicas, as those that may be asked are.
        let asked: SmallVec<[_; 4]> = asked.take(needed).collect();
        let (is_new, unvouched) = match Vouching::by(needed, asked.iter().copied()) {
            Some(vouching) => (told::wait(partition, &seen, number, vouching), None),
            None => (true, Some(seen)),
        };
        if is_new {
            for peer in asked.iter().filter_map(|(node, _)| peers.get(node)) {
                peer.streams[number].wake();
            }
        }
        unvouched
    }

    /// Who waits for a node that does not answer is told so.
    pub(super) fn give_up(&self, inboxes: &Inboxes, now_ms: u64) {
        for (&node, peer) in &*self.peers.read() {
            for stream in &peer.streams {
                let waiters = stream.outbox.lock().given_up(now_ms);
                inboxes.hear(node, 0, &waiters, false);
            }
        }
    }

    /// The other members, as the newest view has them. Who waits for one that is none any more is told that it does not vouch.
    fn renew(&self, newest: impl FnOnce() -> Arc<View>, inboxes: &Inboxes) {
        let mut peers = self.peers.write();
        // Within the lock: what a thread has loaded before may be older than what another has made of it.
        let view = newest();
        let others = || view.members.iter().filter(|member| !member.is_me);
        peers.retain(|id, peer| {
            let is_there = others().any(|member| {
                member.id == *id
                    && member.instance == peer.instance
                    && member.address == peer.address
            });
            if !is_there {
                peer.is_gone.store(true, Ordering::Relaxed);
                peer.gone.notify_waiters();
                for stream in &peer.streams {
                    // Nobody begins to wait for it meanwhile: whoever does that reads the list.
                    let waiters = stream.outbox.lock().close();
                    inboxes.hear(*id, 0, &waiters, false);
                    stream.wake();
                }
            }
            is_there
        });
        for member in others() {
            peers.entry(member.id).or_insert_with(|| {
                Arc::new(Peer {
                    instance: member.instance,
                    address: member.address.clone(),
                    streams: std::array::from_fn(Stream::new),
                    is_gone: AtomicBool::new(false),
                    gone: Notify::new(),
                })
            });
        }
    }

    /// What waits to be sent to each node, in bytes.
    pub(crate) fn queued_bytes(&self) -> BTreeMap<NodeId, usize> {
        let peers = self.peers.read();
        let queued = |peer: &Peer| {
            let streams = peer.streams.iter();
            streams.map(|stream| stream.outbox.lock().bytes()).sum()
        };
        peers.iter().map(|(&id, peer)| (id, queued(peer))).collect()
    }

    /// Probes that were lost are asked again, and machines say again what was not answered.
    pub(crate) fn wake_all(&self) {
        for peer in self.peers.read().values() {
            for stream in &peer.streams {
                if stream.outbox.lock().has_probes() {
                    stream.wake();
                }
            }
        }
    }
}

/// What a data thread does for the streams that are its own.
pub(crate) struct Speakers {
    index: usize,
    threads: usize,
    spoken_to: Vec<(NodeId, Arc<Peer>)>,
}

impl Speakers {
    pub(crate) fn new(index: usize, threads: usize) -> Self {
        Self {
            index,
            threads,
            spoken_to: Vec::new(),
        }
    }

    /// Another view: whoever is new in it is spoken to.
    pub(crate) fn renew(&mut self, local: &Rc<Local>) {
        let replicas = &local.shared.replicas;
        replicas
            .streams
            .renew(|| local.shared.cluster.view.load_full(), &replicas.inboxes);
        self.spoken_to
            .retain(|(_, peer)| !peer.is_gone.load(Ordering::Relaxed));
        for (id, peer) in &*replicas.streams.peers.read() {
            if self
                .spoken_to
                .iter()
                .any(|(_, known)| Arc::ptr_eq(known, peer))
            {
                continue;
            }
            self.spoken_to.push((*id, Arc::clone(peer)));
            let own = (0..STREAMS).filter(|number| number % self.threads == self.index);
            let own: Vec<usize> = own.collect();
            if !own.is_empty() {
                let (peer, local) = (Arc::clone(peer), Rc::clone(local));
                tokio::task::spawn_local(async move { speak(&peer, &own, &local).await });
            }
        }
    }
}

/// Empties a thread's outboxes into one connection after the other, until the node is gone. They share it: what is said in all of
/// them in a turn of the thread is one write.
async fn speak(peer: &Peer, numbers: &[usize], local: &Local) {
    let streams: Vec<&Stream> = numbers.iter().map(|&n| &peer.streams[n]).collect();
    let is_gone = || peer.is_gone.load(Ordering::Relaxed);
    let mut tried_since: Option<Instant> = None;
    while !is_gone() {
        // Nobody is connected to for nothing.
        poll_fn(|cx| {
            let is_empty = |stream: &&Stream| {
                stream.await_more(cx);
                stream.outbox.lock().is_empty()
            };
            if is_gone() || !streams.iter().all(is_empty) {
                return Poll::Ready(());
            }
            // Nothing was tried meanwhile.
            tried_since = None;
            Poll::Pending
        })
        .await;
        let me = &local.shared.cluster.identity;
        let since = *tried_since.get_or_insert_with(Instant::now);
        let connected = greet::connect(&peer.address, Some(peer.instance), Purpose::Stream, me);
        match connected.await {
            Ok(greeted) => {
                tried_since = None;
                for stream in &streams {
                    stream.outbox.lock().reconnected();
                }
                let why = poll_streams(&streams, greeted, local, &is_gone).await;
                tracing::debug!(peer = peer.address, why, "a stream of replicas has ended");
            }
            Err(error) => {
                tracing::debug!(peer = peer.address, %error, "no stream for replicas");
                if since.elapsed() >= AWAY_AFTER {
                    for stream in &streams {
                        forget(stream).await;
                    }
                }
                if matches!(error, greet::GreetError::Refused(_)) {
                    local.shared.cluster.was_refused(peer.instance);
                }
                let _ = tokio::time::timeout(PAUSE, peer.gone.notified()).await;
            }
        }
    }
}

/// Drops what waits for a node that is away, and lets others run in between.
async fn forget(stream: &Stream) {
    let step = || {
        let mut outbox = stream.outbox.lock();
        let has_more = outbox.disconnected();
        MutexGuard::unlock_fair(outbox);
        has_more
    };
    while step() {
        tokio::task::yield_now().await;
    }
}

async fn poll_streams(
    streams: &[&Stream],
    greeted: Greeted,
    local: &Local,
    is_gone: &impl Fn() -> bool,
) -> String {
    let Greeted {
        mut socket,
        mut incoming,
        standing,
        ..
    } = greeted;
    let mut outdated = pin!(standing.is_outdated());
    let mut is_outdated = false;
    let (outgoing, mut encoded) = (Outgoing::default(), Pieces::default());
    let end = poll_fn(|cx| {
        if is_gone() {
            return Poll::Ready("it is no member any more".to_owned());
        }
        is_outdated = is_outdated || outdated.as_mut().poll(cx).is_ready();
        for stream in streams {
            stream.await_more(cx);
        }
        loop {
            let now_ms = local.shared.clock.now_ms();
            let mut has_taken = false;
            for stream in streams {
                // What is not said any more is said over the next connection, after all that was said over this one.
                if is_outdated || outgoing.len() >= MOST_UNSENT_BYTES {
                    break;
                }
                let Some(mut frame) = stream.outbox.lock().take(now_ms, FRAME_BYTES) else {
                    continue;
                };
                has_taken = true;
                if let Some((number, _)) = &mut frame.probes {
                    *number = numbered(stream.number, *number);
                }
                if let Err(why) = push(&outgoing, &frame, &mut encoded) {
                    return Poll::Ready(why);
                }
            }
            if let Poll::Ready(error) = outgoing.poll_send(&mut socket, cx) {
                return Poll::Ready(error.to_string());
            }
            if !has_taken {
                break;
            }
        }
        if is_outdated && outgoing.len() == 0 {
            return Poll::Ready("the secrets have changed".to_owned());
        }
        read_nothing(&mut incoming, &mut socket, cx)
    });
    let why = end.await;
    if is_outdated {
        take_leave(&mut socket, &mut incoming).await;
    }
    why
}

/// Ends a connection when the other side has read all of it, unless that takes too long: what it has not read by then is said again, as
/// after a connection that broke.
async fn take_leave(socket: &mut TcpStream, incoming: &mut Incoming) {
    // Else the system throws away what it has not read.
    let _ = sockopt::set_socket_linger(&*socket, None);
    let leave = async {
        if socket.shutdown().await.is_ok() {
            poll_fn(|cx| read_nothing(incoming, socket, cx)).await;
        }
    };
    if tokio::time::timeout(GREETING_TIMEOUT, leave).await.is_err() {
        // What it has not read is thrown away after all: it would come after what is said again over the next connection.
        let _ = socket.set_zero_linger();
    }
}

fn push(outgoing: &Outgoing, frame: &FrameOf<Served>, encoded: &mut Pieces) -> Result<(), String> {
    frame.encode(encoded).map_err(|error| error.to_string())?;
    let pieces: Vec<&[u8]> = encoded.iter().collect();
    let head = Head {
        kind: Kind::Tell,
        service: 0,
        id: 0,
    };
    outgoing.push(head, &pieces);
    // Large values in it are the cache's, which may be done with them.
    encoded.clear(FRAME_ROOM_BYTES);
    Ok(())
}

/// The other side says nothing but that it ends.
fn read_nothing(
    incoming: &mut Incoming,
    socket: &mut TcpStream,
    cx: &mut task::Context<'_>,
) -> Poll<String> {
    loop {
        match incoming.poll_read(socket, cx) {
            Poll::Ready(Ok(())) => match incoming.next(henge_wire::peer::MAX_HELLO_BYTES) {
                Ok(_) => {}
                Err(error) => return Poll::Ready(error.to_string()),
            },
            Poll::Ready(Err(error)) => return Poll::Ready(error.to_string()),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Gives what comes in a stream of another node to the replicas that it is for, until the connection ends.
pub(crate) async fn listen(greeted: Greeted, local: &Rc<Local>) -> Option<ReadError> {
    let Greeted {
        mut socket,
        mut incoming,
        hello,
        standing,
    } = greeted;
    let mut is_over = pin!(standing.is_over());
    let (instance, start) = (hello.instance, hello.incarnation);
    poll_fn(|cx| {
        if is_over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(ReadError::Over));
        }
        // A burst has others wait for one frame at the most; then they have their turn.
        let mut is_busy = false;
        loop {
            match incoming.next(MOST_FRAME_BYTES) {
                Ok(Some((head, body))) => {
                    if head.kind != Kind::Tell {
                        continue;
                    }
                    match Frame::decode(&body) {
                        Ok(frame) => {
                            take(local, (instance, start), frame);
                            local.shared.replicas.heard.notify_waiters();
                            local.gate.ask_for_replicas();
                        }
                        Err(error) => {
                            tracing::warn!(peer = hello.name, %error, "what a node says of replicas makes no sense");
                            return Poll::Ready(None);
                        }
                    }
                    is_busy = true;
                    continue;
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(error)),
            }
            if is_busy {
                cx.waker().wake_by_ref();
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

/// What a replica is about to hear is looked up so many messages ahead: some have to be on their way at a time, and more than a core
/// can wait for are for nothing.
const AHEAD_BY: usize = 2;

/// Where the key of an entry lies; anything at all where it is not known at a glance.
fn key_of(cache: &Cache, (_, message): &(Partition, MessageOf<Served>)) -> Option<Location> {
    match &message.body {
        Body::Append { entry, .. } => {
            Some(cache.locate(entry.effects.first_key().unwrap_or_default()))
        }
        _ => None,
    }
}

/// What a frame says of traces.
struct Traced {
    contexts: std::vec::IntoIter<(u32, Context)>,
    /// The place of the next message.
    place: u32,
}

/// An entry that is being applied, of a trace.
struct Applied {
    span: Box<Span>,
    version: Version,
}

impl Traced {
    fn of(contexts: Vec<(u32, Context)>) -> Self {
        Self {
            contexts: contexts.into_iter(),
            place: 0,
        }
    }

    /// The next message is about to be heard. A context that makes no sense is as good as none.
    #[inline]
    fn begin(
        &mut self,
        local: &Local,
        partition: Partition,
        message: &MessageOf<Served>,
    ) -> Option<Applied> {
        let &(place, context) = self.contexts.as_slice().first()?;
        let is_this = place == self.place;
        self.place += 1;
        if !is_this {
            return None;
        }
        self.contexts.next();
        let Body::Append { entry, .. } = &message.body else {
            return None;
        };
        let (tracer, parent) = (local.tracer.as_ref()?, traces::Context::decode(&context)?);
        let mut span = tracer.begin_of(&parent, "apply", traces::Kind::Internal);
        span.note_call(traces::Called::One(partition, Some(entry.version)));
        Some(Applied {
            span,
            version: entry.version,
        })
    }
}

impl Applied {
    /// It was applied, if it was the next in the order.
    fn end(self, cache: &Cache, partition: Partition) {
        if cache.newest(partition) < self.version {
            self.span.discard();
        }
    }
}

fn take(local: &Local, (instance, start): (u64, Incarnation), frame: FrameOf<Served>) {
    let shared = &local.shared;
    let view = shared.cluster.view.load();
    let replicas = &shared.replicas;
    let member = view
        .members
        .iter()
        .find(|member| member.instance == instance);
    let Some(from) = member.map(|member| member.id) else {
        // Who it is will be known soon, and says it again.
        return;
    };
    if frame.incarnation != shared.cluster.identity.incarnation() {
        return;
    }
    let (cache, now_ms) = (&shared.cache, shared.clock.now_ms());
    let from = (from, start);
    let keys: Vec<Location> = frame
        .messages
        .iter()
        .filter_map(|said| key_of(cache, said))
        .collect();
    let (mut ahead, mut nth) = (LookAhead::default(), 0);
    let mut traced = Traced::of(frame.contexts);
    let mut messages = frame.messages.into_iter();
    while let Some((partition, message)) = messages.next() {
        if let Some((later, _)) = messages.as_slice().get(AHEAD_BY) {
            cache.look_ahead_for_replica(*later);
        }
        if matches!(message.body, Body::Append { .. }) {
            if nth % AHEAD == 0 {
                ahead.begin();
            }
            let from = nth - nth % AHEAD;
            ahead.before(nth % AHEAD, cache, keys.get(from..).unwrap_or_default());
            nth += 1;
        }
        let applied = traced.begin(local, partition, &message);
        cache.hear(partition, from, message, now_ms);
        if let Some(applied) = applied {
            applied.end(cache, partition);
        }
    }
    let message = |term, body| Message { term, body };
    for (nth, &(partition, term, applied)) in frame.acks.iter().enumerate() {
        if let Some((later, ..)) = frame.acks.get(nth + AHEAD_BY) {
            cache.look_ahead_for_replica(*later);
        }
        cache.hear(
            partition,
            from,
            message(term, Body::Ack { applied }),
            now_ms,
        );
    }
    let peer = replicas.streams.peers.read().get(&from.0).map(Arc::clone);
    if let (Some(mut echoes), Some(peer)) = (frame.echoes, &peer) {
        let (stream, number) = question_of(echoes.number);
        echoes.number = number;
        let stream = &peer.streams[stream];
        let answered = stream.outbox.lock().answered(&echoes);
        stream.wake();
        let inboxes = &replicas.inboxes;
        inboxes.hear(from.0, number, &answered.waiters, answered.vouches);
        for (partition, term, number) in echoes.marks.into_iter().chain(answered.unnamed) {
            cache.hear(
                partition,
                from,
                message(term, Body::Echo { number }),
                now_ms,
            );
        }
    }
    if let (Some((number, marks)), Some(peer)) = (frame.probes, &peer) {
        let stream = &peer.streams[question_of(number).0];
        // Before the marks are looked at: what is adopted from here on the next answer says.
        let adoptions = replicas.adoptions.load(SeqCst);
        stream.outbox.lock().begin_answer(start, number, adoptions);
        for (partition, term, number) in marks {
            cache.hear(
                partition,
                from,
                message(term, Body::Probe { number }),
                now_ms,
            );
        }
        stream.outbox.lock().end_answer();
        stream.wake();
    }
}

/// The number of a question among those of all streams, as it travels.
fn numbered(stream: usize, number: u64) -> u64 {
    number * STREAMS as u64 + stream as u64
}

/// Which stream it is of, and its number there.
fn question_of(number: u64) -> (usize, u64) {
    let streams = STREAMS as u64;
    ((number % streams) as usize, number / streams)
}

#[cfg(test)]
mod tests {
    use henge_cluster::carrier::Echoes;
    use henge_cluster::forming::ClusterId;

    use super::*;
    use crate::cluster::view::{Member, MemberState};

    const TERM: u32 = 7;

    fn view(members: &[u64]) -> Arc<View> {
        let member = |&id: &u64| {
            Arc::new(Member {
                id: NodeId(id),
                name: format!("node{id}"),
                instance: id * 100,
                incarnation: 1,
                address: format!("[::1]:{}", 8080 + id),
                state: MemberState::Up,
                is_silent: false,
                has_left: false,
                is_me: id == 1,
            })
        };
        let members = members.iter().map(member).collect();
        Arc::new(View::of(ClusterId(7), 3, members, |_| Some(NodeId(1))))
    }

    /// It would wait for as long as a request has, for somebody who is never asked.
    #[test]
    fn a_read_goes_back_to_its_machine_when_who_was_to_vouch_is_no_member() {
        let partition = Partition::new(7).expect("it is one");
        let (streams, inboxes) = (Streams::default(), Inboxes::new(1));
        streams.renew(|| view(&[1, 2]), &inboxes);
        let probe = Message {
            term: TERM,
            body: Body::Probe { number: 1 },
        };
        streams.put(partition, (NodeId(2), 1), probe, None);
        let peer = Arc::clone(&streams.peers.read()[&NodeId(2)]);
        let mut outbox = peer.streams[stream_of(partition)].outbox.lock();
        assert!(outbox.take(0, FRAME_BYTES).is_some());
        outbox.answered(&Echoes {
            number: 1,
            adoptions: 0,
            marks: vec![(partition, TERM, 1)],
        });
        drop(outbox);
        told::begin_thread(0);
        let (id, _) = told::begin_call(partition, false);
        let _ticket = told::take_ticket().expect("there was a call");
        let seen = Seen {
            id,
            reply: (),
            seq: 5,
            term: TERM,
        };
        let vouch = Vouch {
            seen,
            others: std::iter::once((NodeId(2), 1)).collect(),
            needed: 1,
        };
        assert_eq!(streams.wait(partition, vouch), None);
        streams.renew(|| view(&[1, 2]), &inboxes);
        inboxes.collect(0);
        assert_eq!(told::take_unvouched(), []);
        streams.renew(|| view(&[1]), &inboxes);
        inboxes.collect(0);
        let unvouched = told::take_unvouched();
        assert_eq!(unvouched.len(), 1);
        assert_eq!(unvouched[0].1.id, id);
    }
}
