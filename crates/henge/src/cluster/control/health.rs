//! Who lives, as this node hears it: the machine of gossip, its datagrams over the node's port, and a clock. It marks nobody down
//! in the topology; that is the control leader's, who looks here.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use henge_cluster::gossip::{DATAGRAM_BYTES_MAX, Gossip, Health, Load, Output, Peer};
use henge_cluster::seal::{OVERHEAD_BYTES, Seal, Sender};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::Control;
use super::leading::UNHEARD;
use super::names::{self, Found, Names, Pauses, System, Until};
use crate::cluster;
use crate::encryption::random_number;

/// How often this node's own load is looked at, and those of others are shown.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);
/// Datagrams that are taken in before anything else is looked at: a burst of a large cluster.
const BURST: usize = 64;

/// What one member is like, for who decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Heard {
    /// Of which start that is.
    pub(super) incarnation: u64,
    pub(super) health: Health,
}

/// Says how much the node has to do.
pub(crate) type OwnLoad = Box<dyn Fn() -> Load + Send>;

impl Control {
    /// Gossips, once the node is in a cluster.
    pub(super) async fn gossip(
        self: &Rc<Self>,
        socket: std::net::UdpSocket,
        own_load: OwnLoad,
        mut refused: mpsc::Receiver<u64>,
    ) {
        // Nothing is said under a number that may not be this start's.
        self.registered.notified().await;
        let socket = match UdpSocket::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(%error, "no datagrams can be sent, so nobody is known to live");
                return;
            }
        };
        let mut secrets = self.cluster.identity.watch_secrets();
        let (mut gossiping, mut found) = self.begin_to_gossip(socket).await;
        let mut watch = self.watch();
        let mut loads = tokio::time::interval(LOAD_INTERVAL);
        loads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.introduce(&mut gossiping);
        loop {
            gossiping.carry_out(self);
            let due = gossiping.due(self);
            tokio::select! {
                read = gossiping.socket.readable() => {
                    if read.is_ok() {
                        gossiping.receive(self);
                    }
                }
                // The machine's own clock: what it asked to be told at this time.
                () = tokio::time::sleep_until(Instant::now() + due) => gossiping.gossip.handle_time(self.now_ms()),
                Some(instance) = refused.recv() => {
                    gossiping.gossip.suspect(self.now_ms(), instance);
                    self.lose_leader(instance).await;
                }
                changed = watch.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    watch.mark_unchanged();
                    self.introduce(&mut gossiping);
                }
                Ok(()) = secrets.changed() => {
                    let secrets = secrets.borrow_and_update().clone();
                    gossiping.seal.set_secrets(secrets);
                }
                () = self.leaving.notified() => {
                    gossiping.gossip.leave();
                    gossiping.carry_out(self);
                    self.has_gossiped.notify_one();
                    return;
                }
                // Of those who look names up there is always one.
                Some(Found { instance, at }) = found.recv() => gossiping.call(instance, at),
                _ = loads.tick() => {
                    gossiping.gossip.set_load(self.now_ms(), own_load());
                    self.show_loads(&gossiping.gossip);
                    self.miss();
                }
            }
        }
    }

    /// Milliseconds since this part began: gossip wants a clock that does not jump.
    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// Waits until it is known where this node is.
    async fn begin_to_gossip(&self, socket: UdpSocket) -> (Gossiping, mpsc::Receiver<Found>) {
        let identity = &self.cluster.identity;
        let address = identity.address_or_loopback();
        let is_v6 = socket.local_addr().is_ok_and(|local| local.is_ipv6());
        let address = names::found(&System, &address, is_v6, Pauses::USUAL).await;
        let cluster = identity.cluster();
        let cluster = cluster.expect("a start is registered in a cluster");
        let (names, found) = Names::new(System, is_v6, Pauses::USUAL);
        let (instance, incarnation) = (identity.instance, identity.incarnation());
        let me = Peer {
            instance,
            incarnation,
            address,
        };
        let sender = Sender {
            instance,
            incarnation,
            session: random_number(),
        };
        let gossiping = Gossiping {
            gossip: Gossip::new(me, random_number(), self.now_ms()),
            seal: Seal::new(identity.secrets(), cluster.0, sender),
            socket,
            is_v6,
            known: BTreeMap::new(),
            names,
            buffer: vec![0; DATAGRAM_BYTES_MAX + OVERHEAD_BYTES + 1],
        };
        (gossiping, found)
    }

    /// Calls members that are new, or elsewhere now, and forgets those that are none any more.
    fn introduce(&self, gossiping: &mut Gossiping) {
        let agreed = self.agreed();
        let own = self.cluster.identity.instance;
        let members: BTreeMap<u64, String> = agreed
            .members()
            .values()
            .filter(|member| member.instance != own)
            .map(|member| (member.instance, member.address.clone()))
            .collect();
        for (instance, address) in &members {
            if gossiping.known.get(instance) == Some(address) {
                continue;
            }
            match address.parse() {
                Ok(at) => {
                    gossiping.names.forget(*instance);
                    gossiping.gossip.announce(at);
                }
                Err(_) => gossiping.names.find(*instance, address, Until::Found),
            }
        }
        for instance in gossiping.known.keys() {
            if !members.contains_key(instance) {
                gossiping.gossip.forget(*instance);
                gossiping.names.forget(*instance);
                self.heard.borrow_mut().remove(instance);
                self.links.forget(*instance, "it is no member any more");
            }
        }
        gossiping.known = members;
    }

    fn show_loads(&self, gossip: &Gossip) {
        for (peer, _, load) in gossip.members() {
            if let Some(load) = load {
                self.cluster.set_load(
                    peer.instance,
                    cluster::Load {
                        operations_per_second: load.operations_per_second.into(),
                        memory_bytes: load.memory_bytes,
                        queue_bytes: load.queue_bytes,
                    },
                );
            }
        }
    }

    /// Has the view say so where a member was not heard of at all for long enough.
    fn miss(&self) {
        let just = UNHEARD..UNHEARD + 3 * LOAD_INTERVAL;
        let is_missed = self
            .awaited
            .borrow()
            .values()
            .any(|since| just.contains(&since.elapsed()));
        if is_missed {
            self.make_view();
        }
    }

    /// Something was heard of a member.
    fn hear(&self, peer: Peer, health: Health) {
        tracing::debug!(instance = peer.instance, ?health, "a member was heard of");
        let heard = Heard {
            incarnation: peer.incarnation,
            health,
        };
        // Who has said that it ends may be asked by others still, and may answer.
        if health != Health::Down && self.has_left(peer.instance, peer.incarnation) {
            return;
        }
        self.note(peer.instance, heard);
    }

    /// A member is like this from now on.
    pub(super) fn note(&self, instance: u64, heard: Heard) {
        let before = self.heard.borrow_mut().insert(instance, heard);
        if before == Some(heard) {
            return;
        }
        if heard.health == Health::Alive {
            self.links.forget_failure(instance);
        }
        self.news.notify_one();
        // A request is not sent to who does not answer, whatever is agreed on by then.
        self.make_view();
    }

    /// A port that is closed is a process that is gone: if it led, another leader need not be waited for.
    async fn lose_leader(&self, instance: u64) {
        if self.consensus.leader() == Some(instance) {
            self.consensus.campaign().await;
        }
    }
}

struct Gossiping {
    gossip: Gossip,
    seal: Seal,
    socket: UdpSocket,
    is_v6: bool,
    /// Members that were called, and where.
    known: BTreeMap<u64, String>,
    names: Names<System>,
    buffer: Vec<u8>,
}

impl Gossiping {
    /// Sends what is to be sent, and tells what is new.
    fn carry_out(&mut self, control: &Control) {
        while let Some(output) = self.gossip.poll() {
            match output {
                Output::Send(to, payload) => {
                    let datagram = self.seal.seal(&payload);
                    // One that does not leave is as one that is lost.
                    let _ = self.socket.try_send_to(&datagram, self.reachable(to));
                }
                Output::Alive(peer) => self.hear(control, peer, Health::Alive),
                Output::Suspected(peer) => self.hear(control, peer, Health::Suspected),
                Output::Down(peer) => self.hear(control, peer, Health::Down),
            }
        }
    }

    /// Something was heard of a member. One that does not answer may be elsewhere by now, if its address is a name.
    fn hear(&mut self, control: &Control, peer: Peer, health: Health) {
        let name = self.known.get(&peer.instance);
        let name = name.filter(|address| address.parse::<SocketAddr>().is_err());
        match (name, health) {
            (_, Health::Alive) => self.names.forget(peer.instance),
            (Some(name), _) => self.names.find(peer.instance, name, Until::Forgotten),
            (None, _) => {}
        }
        control.hear(peer, health);
    }

    /// Calls a member whose name was found, unless it is called there anyway.
    fn call(&mut self, instance: u64, at: SocketAddr) {
        let mut members = self.gossip.members();
        let is_known = members.any(|(peer, ..)| (peer.instance, peer.address) == (instance, at));
        drop(members);
        if !is_known && self.known.contains_key(&instance) {
            self.gossip.announce(at);
        }
    }

    /// An address as the socket takes it.
    fn reachable(&self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(ip) if self.is_v6 => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            _ => to,
        }
    }

    fn receive(&mut self, control: &Control) {
        for _ in 0..BURST {
            match self.socket.try_recv_from(&mut self.buffer) {
                Ok((bytes, from)) => {
                    let opened = self.seal.open(from.ip(), &mut self.buffer[..bytes]);
                    if let Err(dropped) = opened
                        && dropped.is_lasting()
                    {
                        let now_ms = control.shared.clock.now_ms();
                        let machine = from.ip().to_canonical();
                        let why = dropped.to_string();
                        control.cluster.tell_of_datagrams(now_ms, machine, &why);
                    }
                    let taken = opened
                        .map_err(|dropped| dropped.to_string())
                        .and_then(|payload| {
                            let taken = self.gossip.handle_datagram(control.now_ms(), payload);
                            taken.map_err(|error| error.to_string())
                        });
                    if let Err(why) = taken {
                        let dropped = &control.cluster.dropped_datagrams;
                        dropped.fetch_add(1, Ordering::Relaxed);
                        tracing::debug!(%from, why, "a datagram was dropped");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // One to a port that is closed comes back as an error of the next call.
                Err(_) => {}
            }
        }
    }

    /// How long until something is due.
    fn due(&self, control: &Control) -> Duration {
        let due = self.gossip.next_deadline_ms();
        due.map_or(LOAD_INTERVAL, |due| {
            Duration::from_millis(due.saturating_sub(control.now_ms()))
        })
    }
}

/// The socket of a node's port, for datagrams.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// As who decides finds it.
pub(super) type AllHeard = BTreeMap<u64, Heard>;

/// Whether a member lives, of those of whom something was heard; `incarnation` is the start that is agreed on.
pub(super) fn is_down(heard: &AllHeard, instance: u64, incarnation: u64) -> Option<bool> {
    let heard = heard.get(&instance)?;
    // What was heard of an earlier start says nothing of this one.
    (heard.incarnation >= incarnation).then_some(heard.health == Health::Down)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_present_start_is_judged() {
        let heard = |incarnation, health| {
            BTreeMap::from([(
                7,
                Heard {
                    incarnation,
                    health,
                },
            )])
        };
        for (all, expected) in [
            (heard(2, Health::Alive), Some(false)),
            (heard(2, Health::Suspected), Some(false)),
            (heard(2, Health::Down), Some(true)),
            (heard(1, Health::Down), None),
            (heard(3, Health::Alive), Some(false)),
        ] {
            assert_eq!(is_down(&all, 7, 2), expected, "{all:?}");
        }
        assert_eq!(is_down(&BTreeMap::new(), 7, 2), None);
    }
}
