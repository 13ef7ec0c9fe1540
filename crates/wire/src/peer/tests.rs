//! Frames and hellos are what was sent or an error, wherever they are cut and whatever bit is turned.

use super::*;
use proptest::prelude::*;

fn hello() -> Hello {
    Hello {
        purpose: Purpose::Data,
        cluster: Some(0x0102_0304),
        instance: 0xA1,
        incarnation: 3,
        nonce: [0x5A; NONCE_BYTES],
        name: "node1".to_owned(),
        address: "10.0.0.1:8080".to_owned(),
    }
}

fn frame(head: Head, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, head, &[body]);
    out
}

/// Nodes of all later versions send and understand these bytes.
#[test]
fn a_hello_has_these_bytes_for_ever() {
    let head = Head {
        kind: Kind::Hello,
        service: 0,
        id: 0,
    };
    let bytes = frame(head, &hello().encode());
    let text: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = concat!(
        "5b000000",
        "2b71f61c",
        "01",
        "00",
        "0000",
        "00000000",
        "0100",
        "0100",
        "02",
        "04030201000000000000000000000000",
        "a100000000000000",
        "0300000000000000",
        "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
        "0500",
        "6e6f646531",
        "0d00",
        "31302e302e302e313a38303830",
    );
    assert_eq!(text.concat(), expected);
    // One for bulk.
    let mut bulk = hello();
    bulk.purpose = Purpose::Bulk;
    let expected = expected
        .replace("2b71f61c", "fc62bd10")
        .replace("0100010002", "0100010003");
    let bytes = frame(head, &bulk.encode());
    let text: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text.concat(), expected);
    let refusal = Refusal {
        why: Why::Cluster,
        text: "no".to_owned(),
    };
    assert_eq!(refusal.encode(), b"\x02\x00no");
}

#[test]
fn what_is_cut_is_not_taken() {
    let head = Head {
        kind: Kind::Ask,
        service: 7,
        id: 0x0102_0304,
    };
    let bytes = frame(head, b"a body");
    for length in 0..bytes.len() {
        let least = if length < HEAD_BYTES {
            HEAD_BYTES
        } else {
            bytes.len()
        };
        assert_eq!(decode(&bytes[..length], 100), Ok(Decoded::NotYet(least)));
    }
    let body = HEAD_BYTES..bytes.len();
    assert_eq!(decode(&bytes, 6), Ok(Decoded::Frame { head, body }));
    assert_eq!(decode(&bytes, 5), Err(FrameError::TooLong(6, 5)));
    let hello = hello().encode();
    for length in 0..hello.len() {
        let cut = Hello::decode(&hello[..length]);
        assert!(matches!(cut, Err(HelloError::Malformed(_))), "{cut:?}");
    }
}

#[test]
fn what_a_terminal_obeys_is_in_no_hello() {
    for wrong in ["a\u{1b}[2J", "a\nb", "\u{7f}", "\u{9b}2J", "\0"] {
        let name = Hello {
            name: wrong.to_owned(),
            ..hello()
        };
        let address = Hello {
            address: wrong.to_owned(),
            ..hello()
        };
        for (hello, part) in [(name, "name"), (address, "address")] {
            let decoded = Hello::decode(&hello.encode());
            assert_eq!(decoded, Err(HelloError::Malformed(part)), "{wrong:?}");
        }
    }
}

#[test]
fn no_turned_bit_goes_unseen() {
    let head = Head {
        kind: Kind::Tell,
        service: 1,
        id: 0,
    };
    let bytes = frame(head, b"a body");
    for bit in 0..bytes.len() * 8 {
        let mut turned = bytes.clone();
        turned[bit / 8] ^= 1 << (bit % 8);
        let decoded = decode(&turned, 100);
        // A length that is greater is waited for, and the frame's end is not where it says.
        let is_longer = matches!(decoded, Ok(Decoded::NotYet(_))) && bit < 32;
        assert!(is_longer || decoded.is_err(), "bit {bit}: {decoded:?}");
    }
}

#[test]
fn who_cannot_be_understood_is_told_why() {
    let mut later = hello().encode();
    later[..4].copy_from_slice(&[9, 0, 2, 0]);
    let error = Hello::decode(&later).expect_err("it speaks other versions");
    assert_eq!(
        error.to_string(),
        "it speaks the versions 2 to 9 of the peer protocol, and this node speaks 1"
    );
    // One that speaks this version too may say more.
    let mut newer = hello().encode();
    newer[..4].copy_from_slice(&[9, 0, 1, 0]);
    newer.extend_from_slice(b"more");
    assert_eq!(Hello::decode(&newer), Ok(hello()));
    let mut unknown = frame(
        Head {
            kind: Kind::Tell,
            service: 0,
            id: 0,
        },
        b"",
    );
    unknown[8] = 99;
    let sum = checksum(&unknown[..4], &unknown[8..]);
    unknown[4..8].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(decode(&unknown, 0), Err(FrameError::Kind(99)));
    assert_eq!(
        Refusal::decode(b"\x63\x00what").map(|refusal| refusal.why),
        Some(Why::Other(99))
    );
    assert_eq!(Refusal::decode(b"\x63"), None);
}

proptest! {
    #[test]
    fn what_is_sent_is_what_comes(
        bodies in prop::collection::vec((any::<u8>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..300)), 0..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = Vec::new();
        let head = |&(service, id, _): &(u8, u32, Vec<u8>)| Head { kind: Kind::Answer, service, id };
        for sent in &bodies {
            let (left, right) = sent.2.split_at(cut.index(sent.2.len() + 1));
            encode(&mut bytes, head(sent), &[left, right]);
        }
        let mut rest = &bytes[..];
        for sent in &bodies {
            let Ok(Decoded::Frame { head: came, body }) = decode(rest, 300) else {
                panic!("it is whole");
            };
            prop_assert_eq!(came, head(sent));
            prop_assert_eq!(&rest[body.clone()], &sent.2[..]);
            rest = &rest[body.end..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes, 1_000);
        let _ = Hello::decode(&bytes);
        let _ = Refusal::decode(&bytes);
    }
}
