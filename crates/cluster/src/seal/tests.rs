//! That what is sealed is opened once, by those that it is for, and that all else is dropped.

use super::*;
use std::net::Ipv4Addr;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const CLUSTER: u128 = 77;
const PAYLOAD: &[u8] = b"a member says that it lives";

fn old() -> Secret {
    Secret::of(b"0123456789abcdef0123456789abcdef")
}

fn new() -> Secret {
    Secret::of(b"another secret of 32 bytes, or of more")
}

fn secret() -> Arc<Secrets> {
    only(old())
}

fn only(used: Secret) -> Arc<Secrets> {
    Arc::new(Secrets::new(used, None))
}

fn both(used: Secret, accepted: Secret) -> Arc<Secrets> {
    Arc::new(Secrets::new(used, Some(accepted)))
}

fn sender(instance: u64, incarnation: u64) -> Sender {
    Sender {
        instance,
        incarnation,
        session: instance ^ incarnation << 32,
    }
}

fn pair() -> (Seal, Seal) {
    let one = Seal::new(Some(secret()), CLUSTER, sender(1, 1));
    (one, Seal::new(Some(secret()), CLUSTER, sender(2, 1)))
}

fn opened(seal: &mut Seal, from: IpAddr, datagram: &[u8]) -> Result<Vec<u8>, Dropped> {
    let mut bytes = datagram.to_vec();
    seal.open(from, &mut bytes).map(<[u8]>::to_vec)
}

#[test]
fn what_is_sealed_is_opened_once() {
    let (mut one, mut other) = pair();
    let sealed = one.seal(PAYLOAD);
    assert_eq!(sealed.len(), PAYLOAD.len() + OVERHEAD_BYTES);
    let shows = sealed.windows(6).any(|part| part == &PAYLOAD[..6]);
    assert!(!shows);
    assert_eq!(opened(&mut other, THERE, &sealed), Ok(PAYLOAD.to_vec()));
    for _ in 0..3 {
        let again = opened(&mut other, THERE, &sealed);
        assert_eq!(again, Err(Dropped::Replayed));
    }
    assert_ne!(one.seal(PAYLOAD)[HEAD_BYTES..], sealed[HEAD_BYTES..]);
}

#[test]
fn what_was_changed_or_cut_is_dropped_and_changes_nothing() {
    let (mut one, mut other) = pair();
    let sealed = one.seal(PAYLOAD);
    for bit in 0..sealed.len() * 8 {
        let mut wrong = sealed.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert!(opened(&mut other, THERE, &wrong).is_err(), "bit {bit}");
    }
    for length in 0..sealed.len() {
        assert!(opened(&mut other, THERE, &sealed[..length]).is_err());
    }
    let longer = [&sealed[..], &[0]].concat();
    assert!(opened(&mut other, THERE, &longer).is_err());
    // Also that it holds no later start for the newest, which a changed head says.
    assert_eq!(opened(&mut other, THERE, &sealed), Ok(PAYLOAD.to_vec()));
}

#[test]
fn other_secrets_clusters_and_forms_are_dropped() {
    let another = only(new());
    let mut one = Seal::new(Some(secret()), CLUSTER, sender(1, 1));
    let mut plain = Seal::new(None, CLUSTER, sender(1, 1));
    let (sealed, open) = (one.seal(PAYLOAD), plain.seal(PAYLOAD));
    let table = [
        (Some(another), CLUSTER, &sealed, Err(Dropped::OtherSecret)),
        (Some(secret()), CLUSTER + 1, &sealed, Err(Dropped::Forged)),
        (None, CLUSTER, &sealed, Err(Dropped::NoSecret)),
        (Some(secret()), CLUSTER, &sealed, Ok(PAYLOAD.to_vec())),
        (Some(secret()), CLUSTER, &open, Err(Dropped::Open)),
        (None, CLUSTER + 1, &open, Err(Dropped::Forged)),
        (None, CLUSTER, &open, Ok(PAYLOAD.to_vec())),
    ];
    for (secret, cluster, datagram, expected) in table {
        let mut seal = Seal::new(secret, cluster, sender(2, 1));
        assert_eq!(opened(&mut seal, HERE, datagram), expected);
    }
    let mut later = sealed;
    later[0] = 2;
    assert_eq!(opened(&mut one, HERE, &later), Err(Dropped::Version(2)));
}

#[test]
fn without_a_secret_only_this_machine_is_heard() {
    let mut seal = Seal::new(None, CLUSTER, sender(1, 1));
    let open = seal.seal(PAYLOAD);
    let table = [
        ("127.0.0.1", Ok(PAYLOAD.to_vec())),
        ("127.8.9.1", Ok(PAYLOAD.to_vec())),
        ("::1", Ok(PAYLOAD.to_vec())),
        ("::ffff:127.0.0.1", Ok(PAYLOAD.to_vec())),
        ("10.0.0.1", Err(Dropped::Remote)),
        ("::ffff:10.0.0.1", Err(Dropped::Remote)),
        ("fe80::1", Err(Dropped::Remote)),
    ];
    for (from, expected) in table {
        let from = from.parse().expect("an address");
        assert_eq!(opened(&mut seal, from, &open), expected);
    }
    for bit in 0..open.len() * 8 {
        let mut wrong = open.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert!(opened(&mut seal, HERE, &wrong).is_err());
    }
}

#[test]
fn counts_may_overtake_each_other_in_a_window() {
    let (mut one, mut other) = pair();
    let sent: Vec<Vec<u8>> = (0..3_000).map(|_| one.seal(PAYLOAD)).collect();
    // A model: what was received, and the newest.
    let mut received = vec![false; sent.len()];
    let mut newest = None;
    let mut drawn: u64 = 1;
    for step in 0..20_000_usize {
        drawn = drawn
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let around = (step / 7).min(sent.len() - 1);
        let place = around + (drawn >> 33) as usize % 2_000;
        let place = place.saturating_sub(1_000).min(sent.len() - 1);
        let is_old = newest.is_some_and(|newest: usize| newest >= place + WINDOW as usize);
        let expected = if received[place] || is_old {
            Err(Dropped::Replayed)
        } else {
            Ok(PAYLOAD.to_vec())
        };
        assert_eq!(opened(&mut other, THERE, &sent[place]), expected);
        if expected.is_ok() {
            received[place] = true;
            newest = newest.max(Some(place));
        }
    }
    assert!(received.iter().filter(|&&received| received).count() > 2_000);
}

#[test]
fn earlier_starts_are_dropped() {
    let (mut first, mut other) = pair();
    let mut second = Seal::new(Some(secret()), CLUSTER, sender(1, 2));
    let before = first.seal(PAYLOAD);
    assert!(opened(&mut other, THERE, &before).is_ok());
    assert!(opened(&mut other, THERE, &second.seal(PAYLOAD)).is_ok());
    let late = first.seal(PAYLOAD);
    for datagram in [&before, &late] {
        assert_eq!(opened(&mut other, THERE, datagram), Err(Dropped::Earlier));
    }
    // As of a copy of its directory.
    let copy = Sender {
        session: 5,
        ..sender(1, 2)
    };
    let copied = Seal::new(Some(secret()), CLUSTER, copy).seal(PAYLOAD);
    assert_eq!(opened(&mut other, THERE, &copied), Err(Dropped::Earlier));
    assert!(opened(&mut other, THERE, &second.seal(PAYLOAD)).is_ok());
}

#[test]
fn senders_are_bounded() {
    let (_, mut other) = pair();
    let count = SENDERS_MAX as u64 + 10;
    for instance in 10..10 + count {
        let mut one = Seal::new(Some(secret()), CLUSTER, sender(instance, 1));
        assert!(opened(&mut other, THERE, &one.seal(PAYLOAD)).is_ok());
    }
    assert_eq!(other.senders(), SENDERS_MAX);
    let known = &other.received[&old().id()];
    assert!(!known.contains_key(&10));
    assert!(known.contains_key(&(9 + count)));
    // Who has one secret drives out nobody who is known by the other.
    other.set_secrets(Some(both(old(), new())));
    let mut one = Seal::new(Some(only(new())), CLUSTER, sender(10, 1));
    let by_new = one.seal(PAYLOAD);
    assert!(opened(&mut other, THERE, &by_new).is_ok());
    assert_eq!(other.senders(), SENDERS_MAX + 1);
    for instance in 10 + count..20 + count {
        let mut one = Seal::new(Some(secret()), CLUSTER, sender(instance, 1));
        assert!(opened(&mut other, THERE, &one.seal(PAYLOAD)).is_ok());
    }
    assert_eq!(other.senders(), SENDERS_MAX + 1);
    let again = opened(&mut other, THERE, &by_new);
    assert_eq!(again, Err(Dropped::Replayed));
}

/// All that two nodes may have: what one seals is opened by who accepts its secret.
#[test]
fn what_is_sealed_is_opened_by_who_accepts_its_secret() {
    let all = || {
        [
            only(old()),
            both(old(), new()),
            both(new(), old()),
            only(new()),
        ]
    };
    for (one, from) in all().into_iter().enumerate() {
        for (other, to) in all().into_iter().enumerate() {
            let mut seal = Seal::new(Some(Arc::clone(&from)), CLUSTER, sender(1, 1));
            let mut opener = Seal::new(Some(to), CLUSTER, sender(2, 1));
            let expected = match (one, other) {
                (0 | 1, 3) | (2 | 3, 0) => Err(Dropped::OtherSecret),
                _ => Ok(PAYLOAD.to_vec()),
            };
            let came = opened(&mut opener, THERE, &seal.seal(PAYLOAD));
            assert_eq!(came, expected, "{one} to {other}");
        }
    }
}

#[test]
fn a_secret_is_changed_between_two_datagrams() {
    let (mut one, mut other) = pair();
    let sealed = |seal: &mut Seal| seal.seal(PAYLOAD);
    let first = sealed(&mut one);
    let late = sealed(&mut one);
    assert!(opened(&mut other, THERE, &first).is_ok());
    other.set_secrets(Some(both(old(), new())));
    one.set_secrets(Some(both(new(), old())));
    let by_new = sealed(&mut one);
    assert!(opened(&mut other, THERE, &by_new).is_ok());
    // What was on its way meanwhile comes once, as what comes after it does.
    assert_eq!(opened(&mut other, THERE, &late), Ok(PAYLOAD.to_vec()));
    assert!(opened(&mut other, THERE, &sealed(&mut one)).is_ok());
    for again in [&first, &late, &by_new] {
        let again = opened(&mut other, THERE, again);
        assert_eq!(again, Err(Dropped::Replayed));
    }
    assert_eq!(other.senders(), 2);
    // And back, which uses no nonce twice.
    let counts = |datagram: &[u8]| datagram[HEAD_BYTES - 8..HEAD_BYTES].to_vec();
    one.set_secrets(Some(both(old(), new())));
    let back = sealed(&mut one);
    assert!(counts(&back) > counts(&by_new));
    assert!(opened(&mut other, THERE, &back).is_ok());
    one.set_secrets(None);
    assert_eq!(
        opened(&mut other, HERE, &sealed(&mut one)),
        Err(Dropped::Open)
    );
    one.set_secrets(Some(both(old(), new())));
    assert!(counts(&sealed(&mut one)) > counts(&back));
    // It is taken away: what it sealed is dropped, of whom it is known too, and nothing is forgotten of what the other did.
    let (unheard, heard) = (sealed(&mut one), by_new);
    other.set_secrets(Some(only(new())));
    assert_eq!(
        opened(&mut other, THERE, &unheard),
        Err(Dropped::OtherSecret)
    );
    assert_eq!(opened(&mut other, THERE, &heard), Err(Dropped::Replayed));
    assert_eq!(other.senders(), 1);
    one.set_secrets(Some(only(new())));
    assert!(opened(&mut other, THERE, &sealed(&mut one)).is_ok());
    // A head that says the other secret changes no key of a sender that is known.
    other.set_secrets(Some(both(new(), old())));
    let mut forged = sealed(&mut one);
    forged[2..6].copy_from_slice(&old().id().to_be_bytes());
    assert_eq!(opened(&mut other, THERE, &forged), Err(Dropped::Forged));
    assert!(opened(&mut other, THERE, &sealed(&mut one)).is_ok());
}

/// Who has only the old secret may say any count and any start by it. What is sealed by the new one is taken all the same, also
/// while the old one is accepted.
#[test]
fn who_has_the_old_secret_keeps_nobody_from_being_heard() {
    let (mut one, mut other) = pair();
    assert!(opened(&mut other, THERE, &one.seal(PAYLOAD)).is_ok());
    other.set_secrets(Some(both(new(), old())));
    one.set_secrets(Some(both(new(), old())));
    let by_new = one.seal(PAYLOAD);
    assert!(opened(&mut other, THERE, &by_new).is_ok());
    let mut far = Seal::new(Some(only(old())), CLUSTER, sender(1, 1));
    far.count = u64::MAX - 1;
    let mut later = Seal::new(Some(only(old())), CLUSTER, sender(1, u64::MAX));
    later.count = u64::MAX - 1;
    for thrower in [&mut far, &mut later] {
        assert!(opened(&mut other, THERE, &thrower.seal(PAYLOAD)).is_ok());
        assert!(opened(&mut other, THERE, &one.seal(PAYLOAD)).is_ok());
        assert_eq!(opened(&mut other, THERE, &by_new), Err(Dropped::Replayed));
    }
    other.set_secrets(Some(only(new())));
    one.set_secrets(Some(only(new())));
    assert_eq!(other.senders(), 1);
    assert!(opened(&mut other, THERE, &one.seal(PAYLOAD)).is_ok());
    // Where the old one comes back, nothing is left of what was said by it.
    other.set_secrets(Some(both(new(), old())));
    one.set_secrets(Some(both(old(), new())));
    assert!(opened(&mut other, THERE, &one.seal(PAYLOAD)).is_ok());
}
