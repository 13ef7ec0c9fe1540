//! What somebody without the secret can do at the ports of the nodes, with sockets of its own: on the port for connections, as
//! a node that is none, and on the one for datagrams. Whatever it sends, the node lives and serves, no member and no epoch changes,
//! memory does not grow with it, and what was dropped is counted.

use std::net::UdpSocket;
use std::time::Instant;

use henge_cluster::gossip::{Gossip, Output, Peer};
use henge_cluster::seal::{Seal, Sender};
use henge_cluster::secret::{Secret, Secrets};
use henge_wire::peer::{HEAD_BYTES, Hello, Kind, MAX_BODY_BYTES, MAX_HELLO_BYTES, PREFACE};

use super::Ring;
use super::moves::{all_are_up, all_is_settled};
use super::raw_peer::{RawPeer, cluster, frame, hello, secret};
use crate::client::DEADLINE;
use crate::random::Random;
use crate::resp_reply::Reply;

/// By how much a node may grow in a test: what threads, buffers and logs need that were not needed before.
const ROOM: u64 = 48 << 20;
/// Datagrams that fit into the buffer of a socket, with what the system needs for each.
const AT_A_TIME: usize = 64;
/// Connections of a flood: far more than a cluster's.
const FLOOD: usize = 400;
/// Datagrams of a flood.
const FLOOD_OF_DATAGRAMS: usize = 20_000;

/// Two nodes with a secret, and what must not change of them.
struct Target {
    ring: Ring,
    secret: Secret,
    cluster: u128,
    state: Vec<String>,
    memory: Vec<u64>,
}

impl Target {
    fn new() -> Self {
        let ring = Ring::new();
        let (secret, path) = secret(&ring, "same");
        let ring = ring.set(&format!("cluster.secret_file={}", path.display()));
        let ring = ring.formed(2);
        (1..=2).for_each(|n| all_are_up(&ring, n, 2));
        all_is_settled(&ring, 2);
        let mut target = Self {
            cluster: cluster(&ring, 1),
            ring,
            secret,
            state: Vec::new(),
            memory: Vec::new(),
        };
        target.state = target.now();
        target.memory = (1..=2).map(|n| target.ring.memory(n)).collect();
        target
    }

    /// The epoch and the members, as each has them.
    fn now(&self) -> Vec<String> {
        let of = |n| {
            let epoch = &self.ring.status(n)["epoch"];
            format!("{epoch} {:?}", self.ring.members(n))
        };
        (1..=2).map(of).collect()
    }

    fn assert_unharmed(&self, what: &str) {
        assert_eq!(self.now(), self.state, "{what}");
        for n in 1..=2 {
            // A key of each.
            for key in 0..8 {
                let set = self.ring.ask(n, &format!("SET k{key} v"));
                assert_eq!(set, Reply::Text("OK".to_owned()), "{what}");
            }
            let memory = self.ring.memory(n);
            let before = self.memory[n - 1];
            assert!(memory < before + ROOM, "{what}: {before} and now {memory}");
            assert!(!self.ring.log(n).contains("panicked"), "{what}");
        }
    }

    fn refused(&self) -> u64 {
        self.ring.figure(1, "henge_protocol_errors_total")
    }

    /// Waits until so many connections more than before were refused.
    fn until_refused(&self, what: &str, count: u64) {
        self.ring.until(what, || self.refused() >= count);
    }

    fn dropped(&self) -> u64 {
        self.ring.figure(1, "henge_dropped_datagrams_total")
    }
}

/// What the node says to something before it closes the connection.
#[derive(Debug)]
enum Says {
    Nothing,
    /// It refuses it, with these words.
    Why(&'static str),
}

/// What comes behind the preface of a connection that ends there, and what the node says to that.
fn beginnings(me: &Hello, random: &mut Random) -> Vec<(String, Vec<u8>, Says)> {
    let own = me.encode();
    let whole = frame(Kind::Hello, 0, &own);
    let mut table = Vec::new();
    let mut add = |what: &str, bytes: Vec<u8>, says| table.push((what.to_owned(), bytes, says));
    add("nothing", Vec::new(), Says::Nothing);
    for _ in 0..20 {
        let noise: Vec<u8> = (0..random.below(300))
            .map(|_| random.next() as u8)
            .collect();
        add("noise", noise, Says::Nothing);
    }
    for cut in (0..whole.len()).step_by(7) {
        add("a frame that is cut", whole[..cut].to_vec(), Says::Nothing);
    }
    for length in [MAX_HELLO_BYTES + 1, MAX_BODY_BYTES, u32::MAX as usize] {
        let mut long = whole.clone();
        long[..4].copy_from_slice(&(length as u32).to_le_bytes());
        add("a length that is not taken", long, Says::Nothing);
    }
    let longest = vec![b'x'; MAX_HELLO_BYTES + 1];
    let longest = frame(Kind::Hello, 0, &longest);
    add(
        "a frame that is too long, and whole",
        longest,
        Says::Nothing,
    );
    for place in [4, HEAD_BYTES, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        add("a frame with another checksum", damaged, Says::Nothing);
    }
    for kind in [Kind::Ask, Kind::Answer, Kind::Tell, Kind::Proof] {
        let says = Says::Nothing;
        add("another kind of frame first", frame(kind, 1, &own), says);
    }
    add(
        "a refusal",
        frame(Kind::Refusal, 0, b"\0\0no"),
        Says::Nothing,
    );
    for cut in (0..own.len()).step_by(3) {
        let says = match cut {
            0..4 => Says::Why("its hello has no version"),
            _ => Says::Why("its hello has no "),
        };
        add(
            "a hello that is cut",
            frame(Kind::Hello, 0, &own[..cut]),
            says,
        );
    }
    let mut later = own.clone();
    later[..4].copy_from_slice(&[9, 0, 8, 0]);
    let says = Says::Why("it speaks the versions 8 to 9 of the peer protocol");
    add("another version", frame(Kind::Hello, 0, &later), says);
    let mut purpose = own.clone();
    purpose[4] = 200;
    let says = Says::Why("its hello has no purpose that this node knows");
    add("another purpose", frame(Kind::Hello, 0, &purpose), says);
    let name = Hello {
        name: "a\r\nb".to_owned(),
        ..me.clone()
    };
    let says = Says::Why("its hello has no ");
    add(
        "a name with lines",
        frame(Kind::Hello, 0, &name.encode()),
        says,
    );
    table
}

/// Hellos that are right, with what follows in the place of a proof.
fn proofs(target: &Target, me: &Hello) -> Vec<(&'static str, RawPeer, Says)> {
    let at = target.ring.address(1);
    let stranger = || Says::Why("it does not have the secret of this node's cluster");
    let begun = |hello: &Hello, then: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let mut peer = RawPeer::begun(at, hello);
        let proof = peer.proof(hello, &target.secret);
        peer.send(&then(proof));
        peer
    };
    let proof = |bytes: &[u8]| frame(Kind::Proof, 0, bytes);
    let another = Hello {
        cluster: Some(target.cluster ^ 1),
        ..me.clone()
    };
    let none = Hello {
        cluster: None,
        ..me.clone()
    };
    let other_secret = Secret::of(b"another secret of 32 bytes, or of more");
    let recorded = RawPeer::greeted(at, me, &target.secret).sent;
    let mut replayed = RawPeer::connect(at);
    replayed.send(&recorded);
    let mut split = RawPeer::connect(at);
    for byte in &recorded {
        split.send(&[*byte]);
    }
    vec![
        ("an empty proof", begun(me, &|_| proof(b"")), stranger()),
        (
            "a short one",
            begun(me, &|right| proof(&right[1..])),
            stranger(),
        ),
        (
            "a long one",
            begun(me, &|right| proof(&[&right[..], b"x"].concat())),
            stranger(),
        ),
        (
            "one with a bit that is wrong",
            begun(me, &|mut right| {
                right[31] ^= 0x80;
                proof(&right)
            }),
            stranger(),
        ),
        (
            "another secret's",
            RawPeer::greeted(at, me, &other_secret),
            stranger(),
        ),
        (
            "another secret's, of another cluster",
            RawPeer::greeted(at, &another, &other_secret),
            stranger(),
        ),
        (
            "none, and a question",
            begun(me, &|_| frame(Kind::Ask, 1, b"*1\r\n$4\r\nPING\r\n")),
            stranger(),
        ),
        (
            "a hello once more",
            begun(me, &|_| frame(Kind::Hello, 0, &me.encode())),
            stranger(),
        ),
        (
            "a frame of 2 GiB",
            begun(me, &|right| {
                let mut long = proof(&right);
                long[..4].copy_from_slice(&(MAX_BODY_BYTES as u32).to_le_bytes());
                long
            }),
            stranger(),
        ),
        ("a handshake that was recorded", replayed, stranger()),
        ("the same, byte by byte", split, stranger()),
        (
            "of another cluster, by the right secret",
            begun(&another, &|right| proof(&right)),
            Says::Why("this node is in the cluster "),
        ),
        (
            "of no cluster, for data",
            begun(&none, &|right| proof(&right)),
            Says::Why("one of the two is in no cluster yet"),
        ),
    ]
}

#[test]
fn who_is_no_node_is_closed_out() {
    let (mut random, _) = Random::seeded("who_is_no_node_is_closed_out");
    let target = Target::new();
    let me = hello(target.cluster);
    let mut refused = target.refused();
    let mut closes = |what: &str, mut peer: RawPeer, says: Says| {
        let why = peer.refusal();
        match says {
            Says::Nothing => assert_eq!(why, None, "{what}"),
            Says::Why(text) => {
                let why = why.unwrap_or_else(|| panic!("{what}: it does not say why"));
                assert!(why.contains(text), "{what}: {why}");
            }
        }
        refused += 1;
        target.until_refused(what, refused);
    };
    for (what, bytes, says) in beginnings(&me, &mut random) {
        let mut peer = RawPeer::connect(target.ring.address(1));
        peer.send(PREFACE);
        peer.send(&bytes);
        // What is not whole would be waited for.
        peer.finish();
        closes(&what, peer, says);
        target.assert_unharmed(&what);
    }
    for (what, peer, says) in proofs(&target, &me) {
        closes(what, peer, says);
        target.assert_unharmed(what);
    }
    // One line for all of it: who tries all the time fills no log.
    let log = target.ring.log(1);
    assert_eq!(
        log.matches("a connection of another node was refused")
            .count(),
        1,
        "{log}"
    );
}

/// Connections that stop where the node waits for them are given up by it, all of them, and others are served meanwhile.
#[test]
fn a_flood_that_stops_in_the_middle_is_given_up() {
    let target = Target::new();
    let me = hello(target.cluster);
    let whole = frame(Kind::Hello, 0, &me.encode());
    let begun = target.refused();
    let beginnings: [&[u8]; 4] = [b"", &whole[..10], &whole[..whole.len() - 1], &whole];
    let mut flood: Vec<RawPeer> = (0..FLOOD)
        .map(|n| {
            let mut peer = RawPeer::connect(target.ring.address(1));
            peer.send(PREFACE);
            peer.send(beginnings[n % beginnings.len()]);
            peer
        })
        .collect();
    target.assert_unharmed("a flood is there");
    for peer in &mut flood {
        assert_eq!(
            peer.refusal(),
            None,
            "it has done nothing that could be refused"
        );
    }
    target.until_refused("all are given up", begun + FLOOD as u64);
    target.assert_unharmed("a flood was there");
}

/// Somebody who sends datagrams to the first node, and sees what becomes of them.
struct Thrower<'a> {
    target: &'a Target,
    socket: UdpSocket,
    dropped: u64,
}

impl<'a> Thrower<'a> {
    fn new(target: &'a Target) -> Self {
        Self {
            target,
            socket: UdpSocket::bind("127.0.0.1:0").expect("a socket"),
            dropped: target.dropped(),
        }
    }

    fn send(&self, datagram: &[u8]) {
        let to = self.target.ring.address(1);
        self.socket.send_to(datagram, to).expect("it is sent");
    }

    /// Sends datagrams, all of which the node drops.
    fn all_are_dropped(&mut self, what: &str, datagrams: &[Vec<u8>]) {
        for some in datagrams.chunks(AT_A_TIME) {
            for datagram in some {
                self.send(datagram);
            }
            self.dropped += some.len() as u64;
            self.target.ring.until(what, || {
                let dropped = self.target.dropped();
                assert!(dropped <= self.dropped, "{what}: others were dropped too");
                dropped == self.dropped
            });
        }
        self.target.assert_unharmed(what);
    }
}

fn sender(instance: u64, incarnation: u64) -> Sender {
    Sender {
        instance,
        incarnation,
        session: 1,
    }
}

fn seal(secret: &Secret, cluster: u128, sender: Sender) -> Seal {
    let secrets = Secrets::new(secret.clone(), None);
    Seal::new(Some(secrets.into()), cluster, sender)
}

/// What a node says that calls another, as it is before it is sealed.
fn call(target: &Target, from: &UdpSocket, instance: u64) -> Vec<u8> {
    let me = Peer {
        instance,
        incarnation: 5,
        address: from.local_addr().expect("it has one"),
    };
    let mut gossip = Gossip::new(me, 1, 0);
    gossip.announce(target.ring.address(1));
    match gossip.poll() {
        Some(Output::Send(_, payload)) => payload,
        other => panic!("it calls: {other:?}"),
    }
}

/// What came back to a call, one datagram after the other, as the node has sealed it.
fn heard(thrower: &Thrower<'_>, count: usize) -> Vec<Vec<u8>> {
    let socket = &thrower.socket;
    socket.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    let mut buffer = [0; 2048];
    let mut next = || {
        let (bytes, _) = socket.recv_from(&mut buffer).expect("it answers");
        buffer[..bytes].to_vec()
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn datagrams_of_strangers_are_dropped() {
    let (mut random, _) = Random::seeded("datagrams_of_strangers_are_dropped");
    let target = Target::new();
    let mut thrower = Thrower::new(&target);
    let payload = call(&target, &thrower.socket, 99);
    let right = || seal(&target.secret, target.cluster, sender(99, 5));
    let right_one = right().seal(&payload);

    let noise = |random: &mut Random, bytes: usize| -> Vec<u8> {
        (0..bytes).map(|_| random.next() as u8).collect()
    };
    let all: Vec<_> = (0..300).map(|n| noise(&mut random, n * 5)).collect();
    thrower.all_are_dropped("noise of every length", &all);
    let formed: Vec<_> = (0..200)
        .map(|n| [&[1, (n % 3) as u8][..], &noise(&mut random, n)].concat())
        .collect();
    thrower.all_are_dropped("noise in a form that there is", &formed);
    let cut: Vec<_> = (0..right_one.len())
        .map(|end| right_one[..end].to_vec())
        .collect();
    thrower.all_are_dropped("what is cut", &cut);
    let longer = [
        [&right_one[..], b"x"].concat(),
        [&right_one[..], &[0; 1400]].concat(),
    ];
    thrower.all_are_dropped("what goes on behind its end", &longer);
    let changed: Vec<_> = (0..right_one.len())
        .map(|place| {
            let mut wrong = right_one.clone();
            wrong[place] ^= 1 << random.below(8);
            wrong
        })
        .collect();
    thrower.all_are_dropped("what was changed", &changed);
    let other = Secret::of(b"another secret of 32 bytes, or of more");
    let mut other = seal(&other, target.cluster, sender(99, 5));
    let others: Vec<_> = (0..50).map(|_| other.seal(&payload)).collect();
    thrower.all_are_dropped("another secret's", &others);
    let mut foreign = seal(&target.secret, target.cluster ^ 1, sender(99, 5));
    let foreign: Vec<_> = (0..50).map(|_| foreign.seal(&payload)).collect();
    thrower.all_are_dropped("of another cluster", &foreign);
    let mut open = Seal::new(None, target.cluster, sender(99, 5));
    thrower.all_are_dropped("what is not sealed", &[open.seal(&payload)]);
    let mut of_sense = right();
    let nonsense: Vec<_> = (0..50)
        .map(|n| of_sense.seal(&noise(&mut random, n)))
        .collect();
    thrower.all_are_dropped("what is sealed and makes no sense", &nonsense);
    // It is told once, and not each time.
    let told = "datagrams of another node are dropped";
    assert_eq!(target.ring.log(1).matches(told).count(), 1);
}

#[test]
fn datagrams_are_taken_once() {
    let target = Target::new();
    let mut thrower = Thrower::new(&target);
    let payload = call(&target, &thrower.socket, 99);
    let mut own = seal(&target.secret, target.cluster, sender(99, 5));
    let own: Vec<_> = (0..3).map(|_| own.seal(&payload)).collect();
    // Who has the secret is heard, and answered.
    thrower.send(&own[0]);
    let theirs = heard(&thrower, 3);
    let again: Vec<_> = (0..200).map(|_| own[0].clone()).collect();
    thrower.all_are_dropped("what came before", &again);
    thrower.send(&own[2]);
    thrower.send(&own[1]);
    let again: Vec<_> = (0..200).map(|n| own[1 + n % 2].clone()).collect();
    thrower.all_are_dropped("what came before, in another order", &again);
    let mut earlier = seal(&target.secret, target.cluster, sender(99, 4));
    let mut twin = seal(
        &target.secret,
        target.cluster,
        Sender {
            session: 2,
            ..sender(99, 5)
        },
    );
    let stale: Vec<_> = (0..50)
        .flat_map(|_| [earlier.seal(&payload), twin.seal(&payload)])
        .collect();
    thrower.all_are_dropped("what is of an earlier start, or of a twin", &stale);
    // What a node has said to another comes back to it, and goes to a third one it was not for.
    for datagram in &theirs {
        for n in 1..=2 {
            let to = target.ring.address(n);
            for _ in 0..20 {
                thrower.socket.send_to(datagram, to).expect("it is sent");
            }
        }
    }
    let second = || target.ring.figure(2, "henge_dropped_datagrams_total");
    let fewest = theirs.len() as u64 * 19;
    target
        .ring
        .until("the second one drops all but the first", || {
            second() >= fewest
        });
    target.assert_unharmed("what was recorded is sent again");
}

#[test]
fn a_flood_of_datagrams_changes_nothing() {
    let (mut random, _) = Random::seeded("a_flood_of_datagrams_changes_nothing");
    let target = Target::new();
    let thrower = Thrower::new(&target);
    let payload = call(&target, &thrower.socket, 99);
    let other = Secret::of(b"another secret of 32 bytes, or of more");
    // Each says that it is of somebody else, which costs the node a key to find out.
    let begun = Instant::now();
    for n in 0..FLOOD_OF_DATAGRAMS {
        let instance = 1_000 + n as u64;
        let of = match n % 4 {
            0 => &other,
            _ => &target.secret,
        };
        let foreign = target.cluster ^ 1;
        let mut datagram = seal(of, foreign, sender(instance, 1)).seal(&payload);
        if n % 4 == 2 {
            datagram.truncate(random.below(datagram.len()));
        }
        thrower.send(&datagram);
    }
    println!("{FLOOD_OF_DATAGRAMS} datagrams in {:?}", begun.elapsed());
    // The system throws away what finds no room in the node's socket.
    let few = thrower.dropped + FLOOD_OF_DATAGRAMS as u64 / 20;
    target
        .ring
        .until("many were dropped", || target.dropped() >= few);
    target.assert_unharmed("a flood was there");
}

/// What a node tells of a trace may be anything: what is asked with it is answered, or it is said that there is no such question.
#[test]
fn what_makes_no_sense_of_a_trace_costs_nothing() {
    const TRACED: u8 = 13;
    let (listener, endpoint) = crate::tracing::silent();
    let ring = Ring::new().set(&format!("tracing.endpoint={endpoint}"));
    let (secret, path) = secret(&ring, "same");
    let ring = ring.set(&format!("cluster.secret_file={}", path.display()));
    let ring = ring.formed(2);
    // A GET of the Redis protocol, as nodes send it on.
    let get = b"\x02\0\0\0*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    let wrapped = |context: [u8; 25], length: u16, service: u8, question: &[u8]| {
        let length = length.to_le_bytes();
        [&context[..], &length, &[service], question].concat()
    };
    // One reply, or that the key is not there.
    let answered = 1_u32.to_le_bytes();
    let mut peer = RawPeer::greeted(ring.address(1), &hello(cluster(&ring, 1)), &secret);
    for (what, question, is_asked) in [
        ("no trace", wrapped([0; 25], 0, 1, get), true),
        ("a trace", wrapped([1; 25], 0, 1, get), true),
        ("none that is recorded", wrapped([2; 25], 0, 1, get), true),
        (
            "a state that is none",
            wrapped([1; 25], 2, b'=', &[&b"=\x01"[..], get].concat()),
            true,
        ),
        (
            "a state that is too long",
            wrapped([1; 25], u16::MAX, 1, get),
            false,
        ),
        (
            "a trace of a trace",
            wrapped([1; 25], 0, TRACED, get),
            false,
        ),
        ("what nobody knows", wrapped([1; 25], 0, 0xEE, get), false),
        ("what is for others", wrapped([1; 25], 0, 3, get), false),
        (
            "a part of it",
            wrapped([1; 25], 0, 1, get)[..27].to_vec(),
            false,
        ),
        ("nothing", Vec::new(), false),
    ] {
        peer.send(&frame(Kind::Ask, TRACED, &question));
        let (kind, body) = peer.next().expect("it is answered");
        assert_eq!(kind, Kind::Answer, "{what}");
        if is_asked {
            assert!(body.starts_with(&answered), "{what}: {body:?}");
        } else {
            assert_eq!(body, b"no such question is traced", "{what}");
        }
        assert!(peer.is_served(), "{what}");
    }
    drop(listener);
}
