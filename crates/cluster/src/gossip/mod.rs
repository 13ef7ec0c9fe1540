//! Who lives, as the members tell each other: a machine over SWIM (Das, Gupta, Motivala, 2002, by the crate `foca`), with what
//! that leaves open. Datagrams and times go in, datagrams and news come out; it has no socket and no clock, and it decides
//! nothing: that a member counts as down for all is for the control leader to say, in the topology.
//!
//! ```text
//!              a probe fails, or a connection is refused             nobody got through until the suspicion ends
//!   Alive ───────────────────────────────────────▶ Suspected ───────────────────────────────────────▶ Down
//!     ▲ ▲                                              │                                                │
//!     │ └── it says that it lives, with a new number ──┘                                                │
//!     └── it hears of that, or starts anew, and comes back as a later one of the same instance ─────────┘
//! ```
//!
//! What is done here and not in the library:
//! - **A suspicion is looked into** by whoever has it, itself and by way of others, until it is refuted or ends. So it can be
//!   short, in a cluster of any size, and a lost datagram or a way that is cut is not somebody's end.
//! - **Each member also watches the next one**, by the order of instances, so that nobody waits for its turn by chance: of 20
//!   that fall silent at once some would wait for 3 s.
//! - **Who was declared down begins anew.** What it believed while it was cut off (that all others are down, say) it tells to
//!   nobody, and asks again.
//! - **Who is not there is called**, also by one that has nobody left.
//! - **Who was paused itself** waits for what may lie in its socket before it holds anything against others: its clock stands still while
//!   it is paused.
//! - **Who hears nobody** while it suspects somebody waits twice as long, as it may be the one that is cut off.

mod chance;
mod format;
mod identity;
mod suspicion;
mod tuning;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use foca::{Foca, Invalidates, Member, Message, Notification, Runtime, State, Timer};

use chance::Chance;
pub use format::{Datagram, DatagramError};
use format::{Format, Told};
use identity::{ANYONE, Identity};
use suspicion::Suspicion;

/// No datagram is longer, before it is sealed.
pub const DATAGRAM_BYTES_MAX: usize = tuning::DATAGRAM_BYTES_MAX;

/// A start of a node, and where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Drawn with its data directory; not 0. It is the same member as long as this is the same.
    pub instance: u64,
    /// The number of its present start.
    pub incarnation: u64,
    /// Where others reach it.
    pub address: SocketAddr,
}

/// How much a node has to do.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Load {
    /// Requests that it answers a second.
    pub operations_per_second: u32,
    /// Memory that it uses.
    pub memory_bytes: u64,
    /// What waits in it: requests, their answers, what is not in its log yet.
    pub queue_bytes: u64,
}

/// What is thought of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It answers.
    Alive,
    /// Somebody got no answer from it. It should be asked for nothing that another one can do.
    Suspected,
    /// Nobody did for the time of a suspicion, or it has left.
    Down,
}

/// What is to be done, or is new.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// A datagram is to be sent there.
    Send(SocketAddr, Vec<u8>),
    /// A member is there: a new one, a new start of one, one that is elsewhere now, or one that was thought ill of.
    Alive(Peer),
    /// A member may be down.
    Suspected(Peer),
    /// A member is down.
    Down(Peer),
}

/// See the head of the file. After each call, [`Gossip::poll`] has to be called until it gives nothing.
pub struct Gossip {
    foca: Foca<Identity, Format, Chance, Loads>,
    carrier: Carrier,
    random: Chance,
    /// All others that were heard of, by their instances.
    members: BTreeMap<u64, Known>,
    suspicions: BTreeMap<u64, Suspicion>,
    /// The member that is watched, and since when an answer is awaited.
    watched: Option<(Member<Identity>, u64)>,
    /// Addresses that were named, and how often they are tried yet.
    addresses: BTreeMap<SocketAddr, u32>,
    load: Option<Load>,
    loads_told: u64,
    /// Until when it asks for members, and until when it goes on with that if it hears of new ones.
    young_until_ms: u64,
    growing_until_ms: u64,
    returned_ms: Option<u64>,
    /// How long this process was paused, in all: its own clock does not go on meanwhile.
    paused_ms: u64,
    /// Since it was paused nothing that was due was done yet.
    is_reading: bool,
    /// Turns of calling.
    turns: u64,
    /// Where the last turn stopped.
    called: u64,
    has_left: bool,
}

/// What is known of another member.
struct Known {
    identity: Identity,
    health: Health,
    heard_ms: u64,
    down_since_ms: u64,
    /// When it refused a connection last.
    refused_ms: Option<u64>,
    /// Since this one came back itself it has not heard of it; until when that is waited for, and how often it was called.
    unheard: Option<(u64, u8)>,
    load: Option<((u64, u64), Load)>,
}

/// What is due at a time.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Event {
    Foca(Timer<Identity>),
    /// Who is not there is called.
    Call,
    Load,
    /// A suspicion is looked into.
    Check(u64),
    /// A suspicion that others have should have ended.
    Doubt(u64),
    /// The member that is watched should have answered, or is asked again.
    Watch,
    /// Having been declared down, it begins anew.
    Return,
}

/// What the library has the machine carry out.
struct Carrier {
    me: u64,
    now_ms: u64,
    /// By the time, and the order in which they came.
    events: BTreeMap<(u64, u64), Event>,
    event_number: u64,
    outputs: VecDeque<Output>,
    /// Probes that failed.
    failed: Vec<(Identity, u16)>,
    is_defunct: bool,
}

impl Carrier {
    fn after(&mut self, ms: u64, event: Event) {
        self.event_number += 1;
        self.events
            .insert((self.now_ms + ms, self.event_number), event);
    }

    fn expects(&self, event: &Event) -> bool {
        self.events.values().any(|expected| expected == event)
    }
}

impl Runtime<Identity> for &mut Carrier {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        // All else shows in the members.
        if notification == Notification::Defunct {
            self.is_defunct = true;
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        if to.peer.instance != self.me {
            let output = Output::Send(to.peer.address, data.to_vec());
            self.outputs.push_back(output);
        }
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        if let Timer::ChangeSuspectToDown {
            member_id,
            incarnation,
            ..
        } = event
        {
            self.failed.push((member_id, incarnation));
        } else {
            let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX / 2);
            self.after(ms, Event::Foca(event));
        }
    }
}

/// Loads go on to others as they come: what is not new was taken out of the datagram before.
struct Loads;

/// Whose load it is.
#[derive(PartialEq)]
struct LoadOf(u64);

impl Invalidates for LoadOf {
    fn invalidates(&self, other: &Self) -> bool {
        self == other
    }
}

impl foca::BroadcastHandler<Identity> for Loads {
    type Key = LoadOf;
    type Error = DatagramError;

    fn receive_item(
        &mut self,
        data: &[u8],
        _: Option<&Identity>,
    ) -> Result<Option<LoadOf>, DatagramError> {
        Told::parse(data).map(|told| Some(LoadOf(told.instance)))
    }
}

fn machine(me: Identity, random: &mut Chance) -> Foca<Identity, Format, Chance, Loads> {
    let random = Chance::new(random.draw());
    Foca::with_custom_broadcast(me, tuning::config(1), random, Format, Loads)
}

impl Gossip {
    /// Of a node that knows nobody yet.
    ///
    /// # Panics
    /// If its instance is 0.
    pub fn new(me: Peer, seed: u64, now_ms: u64) -> Self {
        assert_ne!(me.instance, ANYONE, "a node has an instance");
        let mut random = Chance::new(seed);
        let identity = Identity {
            peer: me,
            returns: 0,
        };
        Self {
            foca: machine(identity, &mut random),
            carrier: Carrier {
                me: me.instance,
                now_ms,
                events: BTreeMap::new(),
                event_number: 0,
                outputs: VecDeque::new(),
                failed: Vec::new(),
                is_defunct: false,
            },
            random,
            members: BTreeMap::new(),
            suspicions: BTreeMap::new(),
            watched: None,
            addresses: BTreeMap::new(),
            load: None,
            loads_told: 0,
            young_until_ms: now_ms + tuning::YOUNG_MS,
            growing_until_ms: now_ms + tuning::GROWING_MS,
            returned_ms: None,
            paused_ms: 0,
            is_reading: false,
            turns: 0,
            called: 0,
            has_left: false,
        }
    }

    /// Calls whoever is at an address, for a minute or until it answers. Of addresses past a bound the later ones are left out.
    pub fn announce(&mut self, to: SocketAddr) {
        let is_known = self.addresses.contains_key(&to);
        let is_me = to == self.foca.identity().peer.address;
        let has_room = is_known || self.addresses.len() < tuning::ADDRESSES_MAX;
        if self.has_left || is_me || !has_room {
            return;
        }
        self.addresses.insert(to, tuning::TRIES);
        if !is_known {
            self.call(Identity::at(to));
        }
        self.expect_calls();
    }

    /// A datagram has come.
    ///
    /// # Errors
    /// It is none, and has changed nothing.
    pub fn handle_datagram(&mut self, now_ms: u64, bytes: &[u8]) -> Result<(), DatagramError> {
        self.advance(now_ms);
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(DatagramError::Malformed("end at which one ends"));
        }
        let mut datagram = Datagram::parse(bytes)?;
        let me = *self.foca.identity();
        let about = match datagram.header.message {
            Message::PingReq { target, .. } | Message::IndirectAck { target, .. } => Some(target),
            Message::IndirectPing { origin, .. } | Message::ForwardedAck { origin, .. } => {
                Some(origin)
            }
            _ => None,
        };
        if about == Some(me) {
            return Err(DatagramError::Malformed("third one that it is about"));
        }
        let header = &mut datagram.header;
        let src = header.src;
        if self.has_left || src.peer.instance == me.peer.instance {
            return Ok(());
        }
        if header.message == Message::Announce && header.dst.peer.instance == ANYONE {
            header.dst = me;
        }
        if header.dst != me && header.message != Message::Announce {
            // It is for an earlier start, or for who was there before. Who thinks so hears better.
            if header.dst.peer.instance == me.peer.instance && header.dst.is_older_than(&me) {
                self.call(src);
            }
            return Ok(());
        }
        let message = header.message.clone();
        self.leave_out(&mut datagram);
        let datagram = datagram.encode();
        let handled = self.foca.handle_data(&datagram, &mut self.carrier);
        let by_way = match message {
            Message::ForwardedAck { origin, .. } => Some(origin),
            _ => None,
        };
        for heard in by_way.into_iter().chain([src]) {
            if let Some(known) = self.members.get_mut(&heard.peer.instance)
                && known.identity == heard
            {
                known.heard_ms = self.carrier.now_ms;
            }
        }
        self.settle();
        // All that the library finds wrong was looked for above.
        handled.map_err(|_| DatagramError::Malformed("meaning"))
    }

    /// Takes out what the library should not see: loads that are not new, members past the bound, and all that is said of other
    /// starts of this node. They lose against it everywhere, so there is nothing to do about them.
    fn leave_out(&mut self, datagram: &mut Datagram) {
        let me = *self.foca.identity();
        let is_full = self.members.len() >= tuning::MEMBERS_MAX;
        datagram.updates.retain(|update| {
            let instance = update.id().peer.instance;
            if instance == me.peer.instance {
                return *update.id() == me;
            }
            !is_full || self.members.contains_key(&instance)
        });
        datagram.loads.retain(|told| {
            let Some(known) = self.members.get_mut(&told.instance) else {
                return false;
            };
            let is_new = known.load.is_none_or(|(stamp, _)| stamp < told.stamp);
            if is_new {
                known.load = Some((told.stamp, told.load));
            }
            is_new
        });
        // The answer to a check, by way of another one. The library would take it for that to its own probe, of somebody else,
        // if the two had the same number.
        if let Message::ForwardedAck { origin, .. } = datagram.header.message
            && (self.suspicions.contains_key(&origin.peer.instance) || self.watches(&origin))
        {
            datagram.header.message = Message::Gossip;
        }
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now_ms: u64) {
        self.advance(now_ms);
        let now_ms = self.carrier.now_ms;
        while let Some(first) = self.carrier.events.first_entry()
            && first.key().0 <= now_ms
        {
            self.is_reading = false;
            match first.remove() {
                // It says when what it expected did not happen; it goes on by itself.
                Event::Foca(timer) => drop(self.foca.handle_timer(timer, &mut self.carrier)),
                Event::Call => self.call_those_missing(),
                Event::Load => self.tell_load(),
                Event::Check(instance) => self.check(instance),
                Event::Doubt(instance) => self.doubt(instance),
                Event::Watch => self.watch(),
                Event::Return => self.begin_anew(),
            }
            self.settle();
        }
    }

    /// It is so late. A pause of this process does not count: its own clock stands still then, so that all that it waits for has as much
    /// time as before, and a little more for what lies in its socket. In a process that is late each time something is done each time.
    fn advance(&mut self, now_ms: u64) {
        let before_ms = self.carrier.now_ms;
        let now_ms = now_ms.saturating_sub(self.paused_ms).max(before_ms);
        self.carrier.now_ms = now_ms;
        let Some(((due_ms, _), _)) = self.carrier.events.first_key_value() else {
            return;
        };
        if now_ms.saturating_sub(*due_ms) >= tuning::LATE_MS {
            let reading_ms = if self.is_reading {
                0
            } else {
                tuning::READING_MS
            };
            self.is_reading = true;
            let own_ms = due_ms.saturating_sub(reading_ms).max(before_ms);
            self.paused_ms += now_ms - own_ms;
            self.carrier.now_ms = own_ms;
        }
    }

    /// When [`Gossip::handle_time`] has something to do.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let first = self.carrier.events.first_key_value();
        first.map(|((due_ms, _), _)| *due_ms + self.paused_ms)
    }

    /// What others are to know of this node's load. They hear of it about every 2 s in a small cluster, and of all that were
    /// set in the meantime only the last.
    pub fn set_load(&mut self, now_ms: u64, load: Load) {
        self.advance(now_ms);
        self.load = Some(load);
        if !self.has_left && !self.carrier.expects(&Event::Load) {
            self.carrier.after(0, Event::Load);
        }
    }

    /// What to do next, or what is new.
    pub fn poll(&mut self) -> Option<Output> {
        self.carrier.outputs.pop_front()
    }

    /// All others that this one has heard of, by their instances. One that is not here was not heard of since this one started:
    /// whoever knows of it from elsewhere should give it the time of a suspicion or two, and take it for down then.
    pub fn members(&self) -> impl Iterator<Item = (&Peer, Health, Option<Load>)> {
        self.members.values().map(|known| {
            let load = known.load.filter(|_| known.health != Health::Down);
            let load = load.filter(|((start, _), _)| *start == known.identity.peer.incarnation);
            let load = load.map(|(_, load)| load);
            (&known.identity.peer, known.health, load)
        })
    }

    /// A member's system has refused a connection, so no process of it runs there: it is down within a second unless it says
    /// otherwise. What comes soon after the last time is not looked into again.
    pub fn suspect(&mut self, now_ms: u64, instance: u64) {
        self.advance(now_ms);
        self.suspect_now(instance);
    }

    fn suspect_now(&mut self, instance: u64) {
        let Some(member) = self.member(instance) else {
            return;
        };
        let (identity, refutations) = (*member.id(), member.incarnation());
        if self.has_left || member.state() == State::Down {
            return;
        }
        let now_ms = self.carrier.now_ms;
        if let Some(known) = self.members.get_mut(&instance) {
            let again_ms = known
                .refused_ms
                .map_or(0, |ms| ms + tuning::REFUSED_AGAIN_MS);
            if now_ms < again_ms {
                return;
            }
            known.refused_ms = Some(now_ms);
        }
        let suspected = Member::new(identity, refutations, State::Suspect);
        self.tell(suspected);
        self.look_into(identity, refutations, tuning::REFUSED_MS);
        self.settle();
    }

    /// Forgets a member that is down, and is no member of the cluster any more. It is called no longer.
    pub fn forget(&mut self, instance: u64) {
        let known = self.members.get(&instance);
        if let Some(known) = known.filter(|known| known.health == Health::Down) {
            let timer = Timer::RemoveDown(known.identity);
            drop(self.foca.handle_timer(timer, &mut self.carrier));
            self.members.remove(&instance);
        }
    }

    /// Says to others that this node is down from now on, and does nothing any more.
    pub fn leave(&mut self) {
        if self.has_left {
            return;
        }
        self.has_left = true;
        // The second round is for those that the first did not reach. Nothing in either can fail.
        drop(self.foca.leave_cluster(&mut self.carrier));
        drop(self.foca.gossip(&mut self.carrier));
        self.carrier.events.clear();
        self.suspicions.clear();
    }

    fn member(&self, instance: u64) -> Option<&Member<Identity>> {
        let mut all = self.foca.iter_membership_state();
        all.find(|member| member.id().peer.instance == instance)
    }

    /// Has the library take something over and tell it to others. It can only fail where there is no room for one member.
    fn tell(&mut self, member: Member<Identity>) {
        let members = std::iter::once(member);
        drop(self.foca.apply_many(members, true, &mut self.carrier));
    }

    fn call(&mut self, whom: Identity) {
        drop(self.foca.announce(whom, &mut self.carrier));
    }

    /// Draws the consequences of what the library has done.
    fn settle(&mut self) {
        for (identity, refutations) in std::mem::take(&mut self.carrier.failed) {
            self.look_into(identity, refutations, tuning::SUSPICION_MS);
        }
        self.compare();
        let size = self.foca.num_members() + 1;
        // Neither the times nor what is done at all differ by the size, which is what it would refuse.
        drop(self.foca.set_config(tuning::config(size)));
        if self.carrier.is_defunct {
            self.carrier.is_defunct = false;
            if !self.has_left && !self.carrier.expects(&Event::Return) {
                let at_ms = self.returned_ms.map_or(0, |ms| ms + tuning::RETURN_MS);
                let wait_ms = at_ms.saturating_sub(self.carrier.now_ms);
                self.carrier.after(wait_ms, Event::Return);
            }
        }
        if self.has_calls() {
            self.expect_calls();
        }
        if size > 1 && !self.has_left && !self.carrier.expects(&Event::Watch) {
            self.carrier.after(tuning::PROBE_MS / 2, Event::Watch);
        }
    }

    /// Compares what the library thinks of the members with what was said of them, and says what is new.
    fn compare(&mut self) {
        let now_ms = self.carrier.now_ms;
        let (mut arrived, mut doubted) = (Vec::new(), Vec::new());
        for member in self.foca.iter_membership_state() {
            let identity = *member.id();
            let health = match member.state() {
                State::Alive => Health::Alive,
                State::Suspect => Health::Suspected,
                State::Down => Health::Down,
            };
            let known = self.members.get_mut(&identity.peer.instance);
            let is_new = match known {
                None => {
                    let known = Known {
                        identity,
                        health,
                        heard_ms: now_ms,
                        down_since_ms: now_ms,
                        refused_ms: None,
                        unheard: None,
                        load: None,
                    };
                    self.members.insert(identity.peer.instance, known);
                    if now_ms < self.growing_until_ms {
                        let more_ms = now_ms + tuning::YOUNG_MS / 2;
                        self.young_until_ms = self.young_until_ms.max(more_ms);
                    }
                    true
                }
                // Somebody told of an earlier start.
                Some(known) if identity.is_older_than(&known.identity) => continue,
                Some(known) => {
                    let is_new = known.health != health || known.identity.peer != identity.peer;
                    known.identity = identity;
                    known.health = health;
                    known.unheard = None;
                    if is_new {
                        known.down_since_ms = now_ms;
                    }
                    is_new
                }
            };
            if is_new {
                match health {
                    Health::Alive => arrived.push(identity.peer),
                    Health::Suspected => doubted.push(identity.peer.instance),
                    Health::Down => {}
                }
                self.carrier.outputs.push_back(news(identity.peer, health));
            }
        }
        for instance in doubted {
            let event = Event::Doubt(instance);
            if !self.carrier.expects(&event) {
                self.carrier.after(tuning::LASTING_MS, event);
            }
        }
        for peer in arrived {
            self.doubt_predecessors(peer);
        }
    }

    /// Who answers at an address has taken the place of all that were there.
    fn doubt_predecessors(&mut self, arrived: Peer) {
        self.addresses.remove(&arrived.address);
        let others = self.members.iter().filter(|(instance, known)| {
            **instance != arrived.instance
                && known.identity.peer.address == arrived.address
                && known.health == Health::Alive
        });
        let others: Vec<u64> = others.map(|(&instance, _)| instance).collect();
        for instance in others {
            self.suspect_now(instance);
        }
    }

    fn tell_load(&mut self) {
        let Some(load) = self.load else {
            return;
        };
        self.loads_told += 1;
        let me = self.foca.identity().peer;
        let told = Told {
            instance: me.instance,
            stamp: (me.incarnation, self.loads_told),
            load,
        };
        // It is short, and of the form that is expected.
        drop(self.foca.add_broadcast(&told.encode()));
        // Members that were started together should not all say theirs together.
        let mean_ms = tuning::load_ms(self.foca.num_members() + 1);
        let wait_ms = mean_ms / 2 + self.random.below(mean_ms);
        self.carrier.after(wait_ms, Event::Load);
    }

    /// Having been declared down, this member comes back as a later one, which has heard of nobody.
    fn begin_anew(&mut self) {
        let now_ms = self.carrier.now_ms;
        let mut me = *self.foca.identity();
        me.returns = me.returns.saturating_add(1);
        self.foca = machine(me, &mut self.random);
        self.suspicions.clear();
        self.watched = None;
        self.carrier.failed.clear();
        let events = &mut self.carrier.events;
        let is_of_before =
            |event: &Event| matches!(event, Event::Foca(_) | Event::Check(_) | Event::Doubt(_));
        events.retain(|_, event| !is_of_before(event));
        for known in self.members.values_mut() {
            known.unheard = Some((now_ms + tuning::UNHEARD_MS, 0));
        }
        self.returned_ms = Some(now_ms);
        self.young_until_ms = now_ms + tuning::YOUNG_MS;
        self.growing_until_ms = now_ms + tuning::GROWING_MS;
        self.call_those_missing();
    }

    fn has_calls(&self) -> bool {
        let is_missing = |known: &Known| known.health == Health::Down || known.unheard.is_some();
        let is_young = self.carrier.now_ms < self.young_until_ms && !self.members.is_empty();
        is_young || !self.addresses.is_empty() || self.members.values().any(is_missing)
    }

    fn expect_calls(&mut self) {
        if !self.has_left && !self.carrier.expects(&Event::Call) {
            self.carrier.after(tuning::CALL_MS, Event::Call);
        }
    }

    /// A turn of calling: addresses, who was not heard of since this one came back, who is down; and who is new asks for members.
    fn call_those_missing(&mut self) {
        let now_ms = self.carrier.now_ms;
        self.turns += 1;
        let is_slow = self.turns.is_multiple_of(tuning::SLOW_TURNS);
        let mut calls = Vec::new();
        if is_slow {
            self.addresses.retain(|address, tries| {
                calls.push(Identity::at(*address));
                *tries -= 1;
                *tries > 0
            });
        }
        let mut gone = Vec::new();
        for (&instance, known) in &mut self.members {
            let is_over = known
                .unheard
                .is_some_and(|(until_ms, _)| until_ms <= now_ms);
            if is_over && known.health != Health::Down {
                known.health = Health::Down;
                known.down_since_ms = now_ms;
                let output = news(known.identity.peer, Health::Down);
                self.carrier.outputs.push_back(output);
            }
            let down_ms = now_ms.saturating_sub(known.down_since_ms);
            if known.health == Health::Down && down_ms >= tuning::FORGET_MS {
                gone.push(instance);
            }
        }
        for instance in gone {
            self.forget(instance);
        }
        calls.extend(self.choose_missing(is_slow));
        if now_ms < self.young_until_ms {
            let members = self.foca.iter_members().map(|member| *member.id());
            let count = self.foca.num_members().div_ceil(tuning::LIST_MEMBERS);
            let count = count.min(tuning::LISTS_AT_ONCE);
            calls.extend(self.random.some_of(members.collect(), count));
        }
        for whom in calls {
            self.call(whom);
        }
        if self.has_calls() {
            self.expect_calls();
        }
    }

    /// Whom to call of those who are not there: each in its turn, after the last that was called.
    fn choose_missing(&mut self, is_slow: bool) -> Vec<Identity> {
        let mut chosen = Vec::new();
        let mut has_called_slowly = !is_slow;
        let mut after: Vec<u64> = self.members.keys().copied().collect();
        let place = after.partition_point(|&instance| instance <= self.called);
        after.rotate_left(place);
        for instance in after {
            if chosen.len() >= tuning::CALLS_AT_ONCE {
                break;
            }
            let Some(known) = self.members.get_mut(&instance) else {
                continue;
            };
            match &mut known.unheard {
                Some((_, calls)) if *calls < tuning::QUICK_CALLS => *calls += 1,
                None if known.health != Health::Down => continue,
                _ if has_called_slowly => continue,
                _ => has_called_slowly = true,
            }
            chosen.push(known.identity);
            self.called = instance;
        }
        chosen
    }
}

fn news(peer: Peer, health: Health) -> Output {
    match health {
        Health::Alive => Output::Alive(peer),
        Health::Suspected => Output::Suspected(peer),
        Health::Down => Output::Down(peer),
    }
}

#[cfg(test)]
mod tests;
