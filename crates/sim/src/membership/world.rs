//! Members, a network and a control leader in one thread, in milliseconds of their own: what is due next, and what was counted.

use super::control::Control;
use super::network::Network;
use henge_cluster::gossip::{Gossip, Health, Load, Output, Peer};
use henge_cluster::testing::random::Random;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What the seal adds to each datagram (`crates/henge/src/cluster/seal.rs`). The headers of UDP and IP are not counted.
const SEAL_BYTES: u64 = 54;
/// The control leader looks so often.
const CONTROL_MS: u64 = 100;
/// Loads change so often.
const LOAD_MS: u64 = 500;
const PORT: u16 = 8_080;

/// What was sent.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sent {
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes, those of the seal included.
    pub bytes: u64,
}

/// What a member was told of another.
pub struct News {
    /// When.
    pub at_ms: u64,
    /// By its number, who was told.
    pub to: usize,
    /// By its number, of whom.
    pub of: usize,
    /// What.
    pub health: Health,
}

struct Node {
    peer: Peer,
    gossip: Option<Gossip>,
    is_paused: bool,
    socket: Vec<Vec<u8>>,
    /// For when it is woken next.
    wakes_ms: Option<u64>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives(usize, Vec<u8>),
    Wakes(usize),
    Control,
    Loads,
}

/// See the head of the file.
pub struct World {
    now_ms: u64,
    random: Random,
    network: Network,
    nodes: Vec<Node>,
    control: Control,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    number: u64,
    sent: Sent,
    news: Vec<News>,
}

impl World {
    /// Of so many members, none of which runs.
    pub fn new(seed: u64, members: usize) -> Self {
        let nodes = (0..members).map(|number| Node {
            peer: Peer {
                instance: 1 + number as u64 * 0x9e37_79b9,
                incarnation: 0,
                address: address(number),
            },
            gossip: None,
            is_paused: false,
            socket: Vec::new(),
            wakes_ms: None,
        });
        let mut world = Self {
            now_ms: 0,
            random: Random::new(seed, 1),
            network: Network::new(Random::new(seed, 2)),
            nodes: nodes.collect(),
            control: Control::new(),
            events: BinaryHeap::new(),
            number: 0,
            sent: Sent::default(),
            news: Vec::new(),
        };
        world.at(CONTROL_MS, Event::Control);
        world.at(LOAD_MS, Event::Loads);
        world
    }

    /// The time.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Chance.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// What the members are on.
    pub fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// What the control leader made of it.
    pub fn control(&mut self) -> &mut Control {
        &mut self.control
    }

    /// The instance of a member.
    pub fn instance(&self, number: usize) -> u64 {
        self.nodes[number].peer.instance
    }

    /// What was sent since the last time that this was asked.
    pub fn take_sent(&mut self) -> Sent {
        std::mem::take(&mut self.sent)
    }

    /// What members were told of each other since the last time that this was asked.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// A member starts, for the first time or again, and is told of one other.
    pub fn start(&mut self, number: usize, told: usize) {
        let seed = self.random.next();
        let node = &mut self.nodes[number];
        node.peer.incarnation += 1;
        node.is_paused = false;
        node.socket.clear();
        let mut gossip = Gossip::new(node.peer, seed, self.now_ms);
        gossip.set_load(self.now_ms, Load::default());
        gossip.announce(address(told));
        node.gossip = Some(gossip);
        self.drain(number);
    }

    /// A member's process, or its machine, is gone.
    pub fn kill(&mut self, number: usize) {
        self.nodes[number].gossip = None;
    }

    /// A member does nothing any more, and what comes waits; or it goes on.
    pub fn pause(&mut self, number: usize, is_paused: bool) {
        self.nodes[number].is_paused = is_paused;
        if !is_paused {
            self.wake(number);
        }
    }

    /// Whether a member knows that exactly these are down, and all others are not.
    pub fn sees(&self, number: usize, down: &[usize]) -> bool {
        let node = &self.nodes[number];
        let Some(gossip) = &node.gossip else {
            return false;
        };
        let mut alive = 0;
        for (peer, health, _) in gossip.members() {
            let is_down = down.contains(&number_of(peer.address));
            match health {
                Health::Alive if !is_down => alive += 1,
                Health::Down if is_down => {}
                _ => return false,
            }
        }
        alive + 1 + down.len() == self.nodes.len()
    }

    /// Lets time pass, up to then.
    pub fn run_until(&mut self, until_ms: u64) {
        while let Some(Reverse((at_ms, _, _))) = self.events.peek()
            && *at_ms <= until_ms
        {
            let Some(Reverse((at_ms, _, event))) = self.events.pop() else {
                break;
            };
            self.now_ms = at_ms;
            match event {
                Event::Arrives(to, bytes) => {
                    let node = &mut self.nodes[to];
                    if node.gossip.is_some() {
                        node.socket.push(bytes);
                        self.wake(to);
                    }
                }
                Event::Wakes(number) => {
                    if self.nodes[number].wakes_ms == Some(at_ms) {
                        self.nodes[number].wakes_ms = None;
                        self.wake(number);
                    }
                }
                Event::Control => {
                    let mut runs = self.nodes.iter().filter(|node| !node.is_paused);
                    let found = runs.find_map(|node| Some((node.peer, node.gossip.as_ref()?)));
                    if let Some((peer, gossip)) = found {
                        self.control.hear(&peer, gossip);
                    }
                    self.at(self.now_ms + CONTROL_MS, Event::Control);
                }
                Event::Loads => {
                    for node in &mut self.nodes {
                        let load = Load {
                            operations_per_second: self.random.below(1_000_000) as u32,
                            memory_bytes: self.random.below(1 << 36),
                            queue_bytes: self.random.below(1 << 20),
                        };
                        if let Some(gossip) = node.gossip.as_mut().filter(|_| !node.is_paused) {
                            gossip.set_load(self.now_ms, load);
                        }
                    }
                    self.at(self.now_ms + LOAD_MS, Event::Loads);
                }
            }
        }
        self.now_ms = until_ms;
    }

    /// A member does what there is to do: in no order that would suit it, time comes before what waits in its socket.
    fn wake(&mut self, number: usize) {
        let now_ms = self.now_ms;
        let node = &mut self.nodes[number];
        let Some(gossip) = node.gossip.as_mut().filter(|_| !node.is_paused) else {
            return;
        };
        if gossip.next_deadline_ms().is_some_and(|ms| ms <= now_ms) {
            gossip.handle_time(now_ms);
        }
        for bytes in std::mem::take(&mut node.socket) {
            let handled = gossip.handle_datagram(now_ms, &bytes);
            handled.expect("members say what members understand");
        }
        self.drain(number);
    }

    fn drain(&mut self, number: usize) {
        let now_ms = self.now_ms;
        while let Some(output) = self.nodes[number].gossip.as_mut().and_then(Gossip::poll) {
            let mut tell = |peer: Peer, health| {
                self.news.push(News {
                    at_ms: now_ms,
                    to: number,
                    of: number_of(peer.address),
                    health,
                });
            };
            match output {
                Output::Send(to, bytes) => {
                    self.sent.datagrams += 1;
                    self.sent.bytes += bytes.len() as u64 + SEAL_BYTES;
                    let to = number_of(to);
                    if let Some(at_ms) = self.network.arrives(now_ms, number, to) {
                        self.at(at_ms, Event::Arrives(to, bytes));
                    }
                }
                Output::Alive(peer) => tell(peer, Health::Alive),
                Output::Suspected(peer) => tell(peer, Health::Suspected),
                Output::Down(peer) => tell(peer, Health::Down),
            }
        }
        let gossip = self.nodes[number].gossip.as_ref();
        let Some(deadline_ms) = gossip.and_then(Gossip::next_deadline_ms) else {
            return;
        };
        let deadline_ms = deadline_ms.max(now_ms);
        let wakes_ms = self.nodes[number].wakes_ms;
        if wakes_ms.is_none_or(|wakes_ms| deadline_ms < wakes_ms) {
            self.nodes[number].wakes_ms = Some(deadline_ms);
            self.at(deadline_ms, Event::Wakes(number));
        }
    }

    fn at(&mut self, at_ms: u64, event: Event) {
        self.number += 1;
        self.events.push(Reverse((at_ms, self.number, event)));
    }
}

fn address(number: usize) -> SocketAddr {
    let [.., high, low] = (number as u32).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, high, low)), PORT)
}

fn number_of(address: SocketAddr) -> usize {
    match address.ip() {
        IpAddr::V4(ip) => (u32::from(ip) & 0xffff) as usize,
        IpAddr::V6(_) => unreachable!("there are none in this world"),
    }
}
