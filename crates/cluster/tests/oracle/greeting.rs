//! What must hold for any bytes between two nodes as a link between them begins: see docs/fuzzing.md.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use henge_cluster::greeting::{Accepter, Met, Next, Opener, Own};
use henge_cluster::secret::{Secret, Secrets};
use henge_wire::peer::{
    self, Decoded, Hello, Kind, MAX_HELLO_BYTES, NONCE_BYTES, PREFACE, Purpose, Refusal,
};

/// The most that one side says at once: two hellos with what surrounds them, or a hello and a refusal.
const SAID_MAX: usize = 4 * 1024;

/// One side of a link, of whichever kind.
enum Side {
    Opener(Opener),
    Accepter(Accepter),
}

/// What has become of a side.
#[derive(Default)]
struct Heard {
    /// What it has said.
    out: Vec<u8>,
    met: Option<Met>,
    /// It goes on to hear.
    is_open: bool,
}

impl Side {
    /// Hears a frame: whether it goes on, and who the other side is if it knows now.
    fn hear(&mut self, kind: Kind, body: &[u8], heard: &mut Heard) {
        let next = match self {
            Self::Opener(opener) => opener.hear(kind, body).map_err(|_| Vec::new()),
            Self::Accepter(accepter) => accepter.hear(kind, body).map_err(|refused| refused.out),
        };
        let said = match next {
            Ok(Next::Hear(said)) => said,
            Ok(Next::Done(said, met)) => {
                heard.met = Some(*met);
                heard.is_open = false;
                said
            }
            Err(said) => {
                heard.is_open = false;
                said
            }
        };
        assert!(said.len() <= SAID_MAX);
        are_frames(&said);
        heard.out.extend(said);
    }
}

/// What a side says is frames, the last of which may be a refusal.
fn are_frames(mut said: &[u8]) {
    while !said.is_empty() {
        let Ok(Decoded::Frame { head, body }) = peer::decode(said, MAX_HELLO_BYTES) else {
            panic!("it is no frame: {said:?}");
        };
        if head.kind == Kind::Refusal {
            let refusal = Refusal::decode(&said[body.clone()]).expect("it is one");
            assert!(!refusal.text.is_empty());
            assert_eq!(body.end, said.len(), "nothing follows");
        }
        said = &said[body.end..];
    }
}

/// The frames that bytes begin with: what they say, whatever else is in their heads.
fn frames(mut bytes: &[u8]) -> Vec<(Kind, &[u8])> {
    let mut all = Vec::new();
    while let Ok(Decoded::Frame { head, body }) = peer::decode(bytes, MAX_HELLO_BYTES) {
        all.push((head.kind, &bytes[body.clone()]));
        bytes = &bytes[body.end..];
    }
    all
}

/// Gives bytes to a side, frame for frame, until it wants no more or they are none.
fn feed(side: &mut Side, mut bytes: &[u8]) -> Heard {
    let mut heard = Heard {
        is_open: true,
        ..Heard::default()
    };
    while heard.is_open {
        let Ok(Decoded::Frame { head, body }) = peer::decode(bytes, MAX_HELLO_BYTES) else {
            break;
        };
        side.hear(head.kind, &bytes[body.clone()], &mut heard);
        bytes = &bytes[body.end..];
    }
    heard
}

/// What a node has: by two bits each, the step of a change of secrets, and whether it has any, and its cluster.
fn own(instance: u64, bits: u8, nonce: u8) -> Own {
    let [old, new] = [b"old", b"new"].map(|word| Secret::of(&word.repeat(12)));
    let secrets = match bits % 8 {
        0 => None,
        1 | 5 => Some(Secrets::new(old, None)),
        2 | 6 => Some(Secrets::new(old, Some(new))),
        3 | 7 => Some(Secrets::new(new, Some(old))),
        _ => Some(Secrets::new(new, None)),
    };
    let hello = Hello {
        purpose: Purpose::Data,
        cluster: [Some(7), Some(7), Some(8), None][usize::from(bits / 8 % 4)],
        instance,
        incarnation: 1,
        nonce: [nonce; NONCE_BYTES],
        name: format!("n{instance}"),
        address: "a:1".to_owned(),
    };
    let secrets = secrets.map(Arc::new);
    Own { hello, secrets }
}

/// One link, and all that is said on it, with somebody between who may change it.
struct Link {
    opener: Side,
    accepter: Side,
    /// What the opener says first, behind the preface.
    begin: Vec<u8>,
    owns: [Own; 2],
}

impl Link {
    fn new(opener: u8, accepter: u8, nonce: u8) -> Self {
        let owns = [own(1, opener, nonce), own(2, accepter, nonce + 1)];
        let (opener, begin) = Opener::new(owns[0].clone(), Some(2));
        assert!(begin.starts_with(PREFACE));
        let from = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 1));
        Self {
            opener: Side::Opener(opener),
            accepter: Side::Accepter(Accepter::new(owns[1].clone(), from)),
            begin: begin[PREFACE.len()..].to_vec(),
            owns,
        }
    }

    /// All three messages and what each side makes of them; `change` is what is between: what goes on in the place of the message
    /// of this number.
    fn run(
        mut self,
        mut change: impl FnMut(usize, &[u8]) -> Vec<u8>,
    ) -> ([Vec<u8>; 3], [Option<Met>; 2]) {
        let first = std::mem::take(&mut self.begin);
        let first_came = change(0, &first);
        let answer = feed(&mut self.accepter, &first_came);
        let second_came = change(1, &answer.out);
        let proof = feed(&mut self.opener, &second_came);
        let third_came = change(2, &proof.out);
        let mut accepted = answer.met.clone();
        if answer.is_open {
            accepted = feed(&mut self.accepter, &third_came).met;
        }
        let came = [&first_came, &second_came, &third_came];
        let sent = [first, answer.out, proof.out];
        let begun = |from: usize, to: usize| {
            (from..to).all(|n| frames(came[n]).starts_with(&frames(&sent[n])))
        };
        // Who proves nothing is not known, and what is proved was not changed.
        if self.owns[0].secrets.is_some() && proof.met.is_some() {
            assert!(begun(0, 2), "the opener takes what was not said");
        }
        if self.owns[1].secrets.is_some() && accepted.is_some() {
            assert!(begun(0, 3), "the accepter takes what was not said");
        }
        self.judge([proof.met.as_ref(), accepted.as_ref()]);
        (sent, [proof.met, accepted])
    }

    /// What each knows of the other is what that has said, and holds where each accepts what the other uses.
    fn judge(&self, met: [Option<&Met>; 2]) {
        let [first, second] = &self.owns;
        for (own, other, met) in [(first, second, met[0]), (second, first, met[1])] {
            let Some(met) = met else { continue };
            let Some(secrets) = &own.secrets else {
                assert_eq!((met.ours, met.theirs), (None, None));
                continue;
            };
            let used = other.secrets.as_ref().map(|secrets| secrets.used().id());
            assert_eq!((met.ours, met.theirs), (Some(secrets.used().id()), used));
            assert!(used.is_some_and(|used| secrets.accepted(used).is_some()));
            assert_eq!(met.hello.instance, other.hello.instance);
            let both = [own, other].map(|own| own.hello.cluster);
            assert!(!matches!(both, [Some(own), Some(other)] if own != other));
        }
    }
}

/// Checks an input: a byte for what each of the two has, one of what is to come, and the rest is that.
pub(crate) fn check(input: &[u8]) {
    let Some((&[opener, accepter, how], mut rest)) = input.split_first_chunk() else {
        return;
    };
    if how % 2 == 0 {
        // What somebody sends who is no node at all.
        for side in [
            Link::new(opener, accepter, 1).opener,
            Link::new(opener, accepter, 1).accepter,
        ] {
            let mut side = side;
            let has_secrets = [opener, accepter].map(|bits| bits % 8 != 0);
            let proves = match side {
                Side::Opener(_) => has_secrets[0],
                Side::Accepter(_) => has_secrets[1],
            };
            let heard = feed(&mut side, rest);
            assert!(!proves || heard.met.is_none(), "it has no secret");
        }
        return;
    }
    let (recorded, _) = Link::new(opener, accepter, 1).run(|_, message| message.to_vec());
    let link = Link::new(opener, accepter, 3);
    let [one, other] = [opener, accepter].map(|bits| own(1, bits, 1));
    let mut is_changed = false;
    let (_, met) = link.run(|number, message| {
        let came = changed(message, &recorded[number], &mut rest);
        is_changed |= came != message;
        came
    });
    // And what nobody has changed ends as it should.
    let clusters = (one.hello.cluster, other.hello.cluster);
    if let (false, Some(one), Some(other)) = (is_changed, one.secrets, other.secrets) {
        let knows = |one: &Secrets, other: &Secrets| one.accepted(other.used().id()).is_some();
        let belong = clusters.0.is_some() && clusters.0 == clusters.1;
        let both = belong && knows(&one, &other) && knows(&other, &one);
        assert_eq!(met.iter().all(Option::is_some), both);
    }
}

/// A message as it comes, by the next bytes of the input.
fn changed(message: &[u8], recorded: &[u8], input: &mut &[u8]) -> Vec<u8> {
    let Some((&[how, a, b], rest)) = input.split_first_chunk() else {
        return message.to_vec();
    };
    *input = rest;
    let mut came = message.to_vec();
    let place = usize::from(u16::from_le_bytes([a, b])) % came.len().max(1);
    match how % 8 {
        1 => {
            if let Some(byte) = came.get_mut(place) {
                *byte ^= 1 << (how / 8 % 8);
            }
        }
        2 => came.truncate(place),
        3 => came = recorded.to_vec(),
        // A body that was changed, in a frame that is right.
        4 => {
            if let Ok(Decoded::Frame { head, body }) = peer::decode(message, MAX_HELLO_BYTES) {
                let mut inside = message[body.clone()].to_vec();
                let place = place % inside.len().max(1);
                if let Some(byte) = inside.get_mut(place) {
                    *byte ^= 1 << (how / 8 % 8);
                }
                came.clear();
                peer::encode(&mut came, head, &[&inside]);
                came.extend_from_slice(&message[body.end..]);
            }
        }
        // Bytes of the input in its place, or before it.
        5 | 6 => {
            let (bytes, rest) = input.split_at(input.len().min(a.into()));
            *input = rest;
            if how % 8 == 5 {
                came.clear();
            }
            came.splice(0..0, bytes.iter().copied());
        }
        7 => came.clear(),
        _ => {}
    }
    came
}
