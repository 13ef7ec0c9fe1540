//! What must hold for any row of datagrams at the port of a node, of who has the secret and of who has not: see docs/fuzzing.md.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use henge_cluster::gossip::{Gossip, Output};
use henge_cluster::seal::{Dropped, Seal, Sender};
use henge_cluster::secret::{Secret, Secrets};

use super::gossip::{drain, members, peer};

const CLUSTER: u128 = 77;
/// Steps of one input.
const STEPS_MAX: usize = 256;
/// How far behind the newest a datagram is taken, as the page on the cluster says.
const WINDOW: u64 = 1_024;

/// A datagram as somebody has sealed it, and what the model has to know of it.
#[derive(Clone)]
struct Sent {
    bytes: Vec<u8>,
    payload: Vec<u8>,
    /// The number of the secret; none for one in the clear.
    key_id: Option<u32>,
    is_foreign: bool,
    sender: Sender,
    count: u64,
}

/// Somebody who sends: by which secret, to which cluster, as which start.
struct Thrower {
    seal: Seal,
    key_id: Option<u32>,
    is_foreign: bool,
    sender: Sender,
    count: u64,
}

impl Thrower {
    fn new(secret: Option<&Secret>, cluster: u128, sender: Sender) -> Self {
        let secrets = secret.map(|secret| Arc::new(Secrets::new(secret.clone(), None)));
        Self {
            seal: Seal::new(secrets, cluster, sender),
            key_id: secret.map(Secret::id),
            is_foreign: cluster != CLUSTER,
            sender,
            count: 0,
        }
    }

    fn send(&mut self, payload: &[u8]) -> Sent {
        self.count += 1;
        Sent {
            bytes: self.seal.seal(payload),
            payload: payload.to_vec(),
            key_id: self.key_id,
            is_foreign: self.is_foreign,
            sender: self.sender,
            count: self.count,
        }
    }
}

/// What was received of each sender by each secret that is accepted, kept in full.
#[derive(Default)]
struct Model(BTreeMap<(u32, u64), (Sender, BTreeSet<u64>)>);

impl Model {
    fn expects(&self, sent: &Sent, secrets: &Secrets) -> Result<(), Dropped> {
        let id = sent.key_id.ok_or(Dropped::Open)?;
        secrets.accepted(id).ok_or(Dropped::OtherSecret)?;
        match self.0.get(&(id, sent.sender.instance)) {
            Some((known, counts)) if *known == sent.sender => {
                let newest = counts.last().copied().unwrap_or(0);
                if counts.contains(&sent.count) || newest.saturating_sub(sent.count) >= WINDOW {
                    return Err(Dropped::Replayed);
                }
            }
            Some((known, _)) if known.incarnation >= sent.sender.incarnation => {
                return Err(Dropped::Earlier);
            }
            _ => {}
        }
        if sent.is_foreign {
            return Err(Dropped::Forged);
        }
        Ok(())
    }

    fn note(&mut self, sent: &Sent) {
        let Some(id) = sent.key_id else {
            return;
        };
        let of = self.0.entry((id, sent.sender.instance));
        let known = of.or_insert_with(|| (sent.sender, BTreeSet::new()));
        if known.0 != sent.sender {
            *known = (sent.sender, BTreeSet::new());
        }
        known.1.insert(sent.count);
    }

    /// Other secrets are accepted: what another was good for is over.
    fn accept(&mut self, secrets: &Secrets) {
        self.0.retain(|(id, _), _| secrets.accepted(*id).is_some());
    }
}

fn start(instance: u64, incarnation: u64, session: u64) -> Sender {
    Sender {
        instance,
        incarnation,
        session,
    }
}

/// The node that is thrown at, and what it should have made of all that.
struct Target {
    secrets: Arc<Secrets>,
    seal: Seal,
    gossip: Gossip,
    model: Model,
    now_ms: u64,
}

impl Target {
    /// What nobody has sealed is dropped, and changes nothing.
    fn drops(&mut self, mut bytes: Vec<u8>) {
        let (before, senders) = (members(&self.gossip), self.seal.senders());
        let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(self.seal.open(from, &mut bytes).is_err());
        assert_eq!(self.seal.senders(), senders);
        assert_eq!(members(&self.gossip), before);
    }

    /// What somebody has sealed is taken or dropped as the model says.
    fn takes(&mut self, sent: &Sent) {
        let expected = self.model.expects(sent, &self.secrets);
        let from = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let mut bytes = sent.bytes.clone();
        let opened = self.seal.open(from, &mut bytes);
        let expected = expected.map(|()| &sent.payload[..]);
        assert_eq!(opened, expected);
        if let Ok(payload) = opened {
            self.now_ms += 1;
            // It may make no sense.
            let _ = self.gossip.handle_datagram(self.now_ms, payload);
            drain(&mut self.gossip);
            self.model.note(sent);
        }
        assert_eq!(self.seal.senders(), self.model.0.len());
    }
}

/// What another node says when it calls the one that is thrown at.
fn call(instance: u64) -> Vec<u8> {
    let mut gossip = Gossip::new(peer(instance), instance, 0);
    gossip.announce(peer(1).address);
    match gossip.poll() {
        Some(Output::Send(_, payload)) => payload,
        other => panic!("it calls: {other:?}"),
    }
}

/// Checks an input: steps of three bytes, who sends and what becomes of it, and two more for that.
pub(crate) fn check(mut input: &[u8]) {
    let [old, new, other] = [b"old", b"new", b"oth"].map(|word| Secret::of(&word.repeat(12)));
    let mut throwers = [
        Thrower::new(Some(&old), CLUSTER, start(2, 5, 1)),
        Thrower::new(Some(&new), CLUSTER, start(3, 5, 1)),
        Thrower::new(Some(&other), CLUSTER, start(2, 5, 1)),
        Thrower::new(Some(&old), CLUSTER ^ 1, start(2, 5, 1)),
        Thrower::new(Some(&old), CLUSTER, start(2, 4, 1)),
        Thrower::new(Some(&new), CLUSTER, start(2, 5, 2)),
        Thrower::new(None, CLUSTER, start(4, 5, 1)),
        Thrower::new(Some(&new), CLUSTER, start(2, 6, 1)),
    ];
    let calls = throwers
        .each_ref()
        .map(|thrower| call(thrower.sender.instance));
    let steps = [
        Secrets::new(old.clone(), None),
        Secrets::new(old.clone(), Some(new.clone())),
        Secrets::new(new.clone(), Some(old)),
        Secrets::new(new, None),
    ];
    let steps = steps.map(Arc::new);
    let mut target = Target {
        secrets: Arc::clone(&steps[1]),
        seal: Seal::new(Some(Arc::clone(&steps[1])), CLUSTER, start(1, 1, 1)),
        gossip: Gossip::new(peer(1), 1, 0),
        model: Model::default(),
        now_ms: 0,
    };
    let mut sent: Vec<Sent> = Vec::new();
    for _ in 0..STEPS_MAX {
        let Some((&[step, a, b], rest)) = input.split_first_chunk() else {
            return;
        };
        input = rest;
        let who = usize::from(step % 8);
        let mut throw = |payload: &[u8]| throwers[who].send(payload);
        match step / 8 % 8 {
            0 => {
                let right = throw(&calls[who]);
                target.takes(&right);
                sent.push(right);
            }
            // On its way for longer than what comes after it.
            1 => sent.push(throw(&calls[who])),
            2 => {
                if let Some(again) = sent.get(usize::from(a) % sent.len().max(1)) {
                    target.takes(again);
                }
            }
            3 => {
                let mut wrong = throw(&calls[who]).bytes;
                let place = usize::from(a) % wrong.len();
                wrong[place] ^= 1 << (b % 8);
                target.drops(wrong);
            }
            4 => {
                let mut cut = throw(&calls[who]).bytes;
                cut.truncate(usize::from(a) % cut.len());
                target.drops(cut);
            }
            5 => {
                let mut longer = throw(&calls[who]).bytes;
                longer.extend(std::iter::repeat_n(b, 1 + usize::from(a)));
                target.drops(longer);
            }
            6 => {
                target.secrets = Arc::clone(&steps[usize::from(a % 4)]);
                target.seal.set_secrets(Some(Arc::clone(&target.secrets)));
                target.model.accept(&target.secrets);
                assert_eq!(target.seal.senders(), target.model.0.len());
            }
            // Bytes of the input, as a datagram or as what somebody seals.
            _ => {
                let (bytes, rest) = input.split_at(input.len().min(a.into()));
                input = rest;
                if b % 2 == 0 {
                    target.drops(bytes.to_vec());
                } else {
                    let made = throw(bytes);
                    target.takes(&made);
                    sent.push(made);
                }
            }
        }
    }
}
