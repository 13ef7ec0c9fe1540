//! What must hold for any datagrams whose seal was right, whatever is in them: see docs/fuzzing.md.

use std::net::{Ipv4Addr, SocketAddr};

use henge_cluster::gossip::{
    DATAGRAM_BYTES_MAX, Datagram, DatagramError, Gossip, Health, Load, Output, Peer,
};

/// What a machine may send for one datagram, or in one moment: an answer, what it passes on, and calls to some it was told of.
const SENDS_MAX: usize = 16;
/// What it may send besides of each member, if that is suspected: it is asked, and some others are asked of it.
const SENDS_OF_SUSPECT_MAX: usize = 4;
/// What may be new of one member in one moment: that it is there, may be down, and is.
const NEWS_MAX: usize = 3;
/// Datagrams of one input.
const DATAGRAMS_MAX: usize = 64;

/// A member of the tests, by its number.
pub(crate) fn peer(instance: u64) -> Peer {
    Peer {
        instance,
        incarnation: 1,
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, instance as u16)),
    }
}

/// The members that a machine knows.
pub(crate) fn members(gossip: &Gossip) -> Vec<(Peer, Health, Option<Load>)> {
    let all = gossip.members();
    all.map(|(peer, health, load)| (*peer, health, load))
        .collect()
}

/// Takes all that a machine has to say.
pub(crate) fn drain(gossip: &mut Gossip) {
    let known = members(gossip);
    let is_suspect = |(_, health, _): &&(Peer, Health, Option<Load>)| *health == Health::Suspected;
    let suspects = known.iter().filter(is_suspect).count();
    let sends_max = SENDS_MAX + SENDS_OF_SUSPECT_MAX * suspects;
    let (mut sends, mut news) = (0, 0);
    while let Some(output) = gossip.poll() {
        if let Output::Send(_, payload) = output {
            sends += 1;
            assert!(
                sends <= sends_max,
                "one datagram is not many: {suspects} suspects of {}",
                known.len()
            );
            assert!(payload.len() <= DATAGRAM_BYTES_MAX);
            assert!(
                Datagram::parse(&payload).is_ok(),
                "what it says is understood"
            );
        } else {
            news += 1;
            assert!(news <= NEWS_MAX * known.len(), "what is new is of members");
        }
    }
}

/// Checks an input: datagrams, each behind three bytes, its length in two and how many steps of 64 ms pass behind it.
pub(crate) fn check(mut input: &[u8]) {
    let mut gossip = Gossip::new(peer(1), 1, 0);
    let mut now_ms = 0;
    for _ in 0..DATAGRAMS_MAX {
        let Some((&[high, low, steps], rest)) = input.split_first_chunk() else {
            return;
        };
        let length = u16::from_be_bytes([high, low]);
        let (datagram, rest) = rest.split_at(rest.len().min(length.into()));
        input = rest;
        take(&mut gossip, now_ms, datagram);
        for _ in 0..steps % 64 {
            now_ms += 64;
            gossip.handle_time(now_ms);
            drain(&mut gossip);
        }
    }
}

/// One that is none changes nothing. What is understood has one form, so it is written as the same bytes, and is nothing without its
/// last one.
fn take(gossip: &mut Gossip, now_ms: u64, datagram: &[u8]) {
    let parsed = Datagram::parse(datagram);
    if let Ok(parsed) = &parsed {
        assert_eq!(parsed.encode(), datagram, "it has one form");
        let cut = &datagram[..datagram.len() - 1];
        assert!(Datagram::parse(cut).is_err(), "it has one end");
    }
    // The machine takes none that is longer than what it sends, whatever is in it.
    let parsed = if datagram.len() > DATAGRAM_BYTES_MAX {
        Err(DatagramError::Malformed("end at which one ends"))
    } else {
        parsed
    };
    let (before, due) = (members(gossip), gossip.next_deadline_ms());
    let taken = gossip.handle_datagram(now_ms, datagram);
    match (parsed, taken) {
        (Ok(_), Ok(())) => {}
        // Found wrong by the machine, which looks at more than the form, and before the library does.
        (Ok(_), Err(error)) => {
            let known = DatagramError::Malformed("third one that it is about");
            assert_eq!(error, known);
            assert_eq!(members(gossip), before);
        }
        (Err(wrong), Err(error)) => {
            assert_eq!(error, wrong);
            assert_eq!(members(gossip), before);
            assert_eq!(gossip.next_deadline_ms(), due);
            assert!(gossip.poll().is_none(), "nobody is answered");
        }
        (Err(wrong), Ok(())) => panic!("it is none: {wrong}"),
    }
    drain(gossip);
    assert!(members(gossip).iter().all(|(peer, ..)| peer.instance != 1));
}
