//! That datagrams are read as they were written, for ever, and that nothing else is one.

use super::*;
use proptest::prelude::*;

fn identity(instance: u64) -> Identity {
    let address = match instance % 2 {
        0 => "[2001:db8::7]:8080".parse(),
        _ => "10.1.2.3:65535".parse(),
    };
    Identity {
        peer: Peer {
            instance,
            incarnation: instance << 5,
            address: address.expect("an address"),
        },
        returns: 300,
    }
}

fn all_kinds() -> Vec<Message<Identity>> {
    let (other, probe_number) = (identity(9), 200);
    vec![
        Message::Ping(1),
        Message::Ack(255),
        Message::PingReq {
            target: other,
            probe_number,
        },
        Message::IndirectPing {
            origin: other,
            probe_number,
        },
        Message::IndirectAck {
            target: other,
            probe_number,
        },
        Message::ForwardedAck {
            origin: other,
            probe_number,
        },
        Message::Announce,
        Message::Feed,
        Message::Gossip,
        Message::TurnUndead,
    ]
}

fn datagram(message: Message<Identity>) -> Datagram {
    let has_tail = has_tail(&message);
    let header = Header {
        src: identity(1),
        src_incarnation: 513,
        dst: identity(2),
        message,
    };
    let told = Told {
        instance: 5,
        stamp: (3, 70_000),
        load: Load {
            operations_per_second: 1_000_000,
            memory_bytes: u64::MAX,
            queue_bytes: 0,
        },
    };
    let updates = [State::Alive, State::Suspect, State::Down];
    let updates = (4..).zip(updates);
    let updates = updates.map(|(instance, state)| Member::new(identity(instance), 1, state));
    Datagram {
        header,
        updates: updates.filter(|_| has_tail).collect(),
        loads: if has_tail { vec![told] } else { vec![] },
    }
}

#[test]
fn what_is_written_is_read() {
    for message in all_kinds() {
        let datagram = datagram(message);
        assert_eq!(Datagram::parse(&datagram.encode()), Ok(datagram));
    }
}

/// These bytes are what nodes of this version say, for ever.
#[test]
fn version_1() {
    let written = datagram(Message::PingReq {
        target: identity(9),
        probe_number: 200,
    });
    let expected = "01000000000000000120ac02040a010203ffff0201000000000000000240ac020620010db8\
        0000000000000000000000071f9003c80000000000000009a002ac02040a010203ffff\
        000300000000000000048001ac020620010db80000000000000000000000071f90000100\
        0000000000000005a001ac02040a010203ffff000101\
        0000000000000006c001ac020620010db80000000000000000000000071f90000102\
        001a000000000000000503f0a204c0843dffffffffffffffffff0100";
    let digits: Vec<char> = expected.chars().collect();
    let digits = digits.chunks(2).map(String::from_iter);
    let expected: Result<Vec<u8>, _> = digits.map(|byte| u8::from_str_radix(&byte, 16)).collect();
    assert_eq!(Ok(written.encode()), expected);
}

#[test]
fn what_is_cut_or_goes_on_is_none() {
    for message in all_kinds() {
        let bytes = datagram(message).encode();
        for length in 0..bytes.len() {
            // Behind the members it is whole without loads.
            if let Ok(read) = Datagram::parse(&bytes[..length]) {
                assert!(read.loads.is_empty() && length + 28 == bytes.len());
            }
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(Datagram::parse(&longer).is_err());
    }
    assert_eq!(Datagram::parse(&[2, 0]), Err(DatagramError::Version(2)));
    let nobody = Datagram {
        header: Header {
            src: Identity::at(identity(1).peer.address),
            ..datagram(Message::Announce).header
        },
        ..datagram(Message::Announce)
    };
    let expected = Err(DatagramError::Malformed("instance"));
    assert_eq!(Datagram::parse(&nobody.encode()), expected);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(Datagram::parse(&bytes));
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        drop(Datagram::parse(&bytes));
    }

    #[test]
    fn what_is_read_is_written_the_same(place in 0_usize..150, bits in 1_u8..) {
        for message in all_kinds() {
            let mut bytes = datagram(message).encode();
            let Some(byte) = bytes.get_mut(place) else {
                continue;
            };
            *byte ^= bits;
            if let Ok(read) = Datagram::parse(&bytes) {
                prop_assert_eq!(read.encode(), bytes);
            }
        }
    }
}
