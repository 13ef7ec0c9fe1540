//! How a member finds out that another one is silent, and makes sure of it: it watches the next one, asks a suspected one itself
//! and by way of others, and holds it for down when nobody got through.

use foca::{Header, Member, Message, State};

use super::format::Datagram;
use super::identity::Identity;
use super::{Event, Gossip, Health, Output, tuning};

/// A suspicion that this member has itself.
pub(super) struct Suspicion {
    identity: Identity,
    refutations: u16,
    pub(super) began_ms: u64,
    pub(super) ends_ms: u64,
    is_extended: bool,
}

impl Gossip {
    /// Looks into a suspicion that others had, and of which nothing more was heard: the word of its end was lost.
    pub(super) fn doubt(&mut self, instance: u64) {
        let member = self.member(instance);
        if let Some(member) = member.filter(|member| member.state() == State::Suspect) {
            let (identity, refutations) = (*member.id(), member.incarnation());
            if !self.suspicions.contains_key(&instance) {
                self.look_into(identity, refutations, tuning::SUSPICION_MS);
            }
        }
    }

    /// Begins to look into a suspicion, or shortens the time of one.
    pub(super) fn look_into(&mut self, identity: Identity, refutations: u16, lasts_ms: u64) {
        let now_ms = self.carrier.now_ms;
        let instance = identity.peer.instance;
        let ends_ms = now_ms + lasts_ms;
        if let Some(suspicion) = self.suspicions.get_mut(&instance)
            && suspicion.identity == identity
            && suspicion.refutations == refutations
        {
            suspicion.ends_ms = suspicion.ends_ms.min(ends_ms);
            return;
        }
        let suspicion = Suspicion {
            identity,
            refutations,
            began_ms: now_ms,
            ends_ms,
            is_extended: false,
        };
        self.suspicions.insert(instance, suspicion);
        let events = &mut self.carrier.events;
        events.retain(|_, event| *event != Event::Check(instance));
        self.carrier.after(0, Event::Check(instance));
    }

    pub(super) fn check(&mut self, instance: u64) {
        let Some(suspicion) = self.suspicions.get(&instance) else {
            return;
        };
        let suspected = Member::new(suspicion.identity, suspicion.refutations, State::Suspect);
        let is_held = self
            .foca
            .iter_membership_state()
            .any(|member| *member == suspected);
        if !is_held {
            self.suspicions.remove(&instance);
            return;
        }
        let now_ms = self.carrier.now_ms;
        if suspicion.ends_ms <= now_ms {
            if suspicion.is_extended || self.hears_somebody(instance, suspicion.began_ms) {
                let down = Member::new(suspicion.identity, suspicion.refutations, State::Down);
                self.suspicions.remove(&instance);
                self.tell(down);
                return;
            }
            let suspicion = self.suspicions.get_mut(&instance);
            let suspicion = suspicion.expect("it was just looked at");
            suspicion.is_extended = true;
            suspicion.ends_ms = now_ms + tuning::SUSPICION_MS;
        }
        self.ask(*suspected.id(), &[suspected]);
        let ends_ms = self.suspicions[&instance].ends_ms;
        let wait_ms = tuning::CHECK_MS.min(ends_ms - now_ms);
        self.carrier.after(wait_ms, Event::Check(instance));
    }

    /// Whether this one has heard anybody but the suspected one since a time; or there is nobody else.
    fn hears_somebody(&self, suspected: u64, since_ms: u64) -> bool {
        let others = self.members.iter().filter(|(instance, known)| {
            **instance != suspected && known.health != Health::Down && known.unheard.is_none()
        });
        let mut others = others
            .map(|(_, known)| known.heard_ms >= since_ms)
            .peekable();
        others.peek().is_none() || others.any(|is_heard| is_heard)
    }

    /// A turn of watching, two to a probe. In the first a member is asked, in the second it is asked again, also by way of
    /// others, and when it has not answered by then it is suspected.
    pub(super) fn watch(&mut self) {
        let now_ms = self.carrier.now_ms;
        if self.foca.num_members() > 0 {
            self.carrier.after(tuning::PROBE_MS / 2, Event::Watch);
        }
        if let Some((member, since_ms)) = self.watched.take()
            && let Some(known) = self.members.get(&member.id().peer.instance)
            && known.identity == *member.id()
            && known.health == Health::Alive
            && known.heard_ms < since_ms
        {
            if now_ms - since_ms < tuning::PROBE_MS {
                self.ask(*member.id(), &[]);
                self.watched = Some((member, since_ms));
                return;
            }
            let (identity, refutations) = (*member.id(), member.incarnation());
            self.tell(Member::new(identity, refutations, State::Suspect));
            self.look_into(identity, refutations, tuning::SUSPICION_MS);
        }
        let me = self.foca.identity().peer.instance;
        let instance = |member: &Member<Identity>| member.id().peer.instance;
        let alive = self.foca.iter_members();
        let alive = alive.filter(|member| member.state() == State::Alive);
        // After the largest instance comes the smallest.
        let next = alive.min_by_key(|member| instance(member).wrapping_sub(me));
        if let Some(next) = next.cloned() {
            self.send(*next.id(), Message::Ping(0), &[]);
            self.watched = Some((next, now_ms));
        }
    }

    pub(super) fn watches(&self, identity: &Identity) -> bool {
        let watched = self.watched.as_ref();
        watched.is_some_and(|(member, _)| member.id() == identity)
    }

    /// Asks a member to answer, itself and by way of others, and says what it is suspected of, so that its answer refutes that.
    fn ask(&mut self, target: Identity, updates: &[Member<Identity>]) {
        self.send(target, Message::Ping(0), updates);
        let others = self.foca.iter_members().map(|member| *member.id());
        let others = others.filter(|other| *other != target).collect();
        for helper in self.random.some_of(others, tuning::HELPERS) {
            let message = Message::PingReq {
                target,
                probe_number: 0,
            };
            self.send(helper, message, updates);
        }
    }

    fn send(&mut self, dst: Identity, message: Message<Identity>, updates: &[Member<Identity>]) {
        let header = Header {
            src: *self.foca.identity(),
            // No news of this one, whatever others think of it.
            src_incarnation: 0,
            dst,
            message,
        };
        let datagram = Datagram {
            header,
            updates: updates.to_vec(),
            loads: Vec::new(),
        };
        let output = Output::Send(dst.peer.address, datagram.encode());
        self.carrier.outputs.push_back(output);
    }
}
