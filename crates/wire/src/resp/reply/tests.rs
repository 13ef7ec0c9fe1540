//! Replies of every type and of none, whole and in pieces; and what a hostile server might send.

use super::*;
use proptest::prelude::*;

/// Every reply in the bytes, and the error if there is one, when the bytes come in the given pieces.
fn decode_pieces<'a>(
    limits: Limits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Reply>, Result<(), DecodeError>) {
    let mut decoder = Decoder::new(limits);
    let mut input = BytesMut::new();
    let mut replies = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.decode(&mut input), Err(error), "errors stay");
                    return (replies, Err(error));
                }
            }
        }
    }
    (replies, Ok(()))
}

fn decode_all(bytes: &[u8]) -> (Vec<Reply>, Result<(), DecodeError>) {
    decode_pieces(Limits::default(), [bytes])
}

fn bulk(text: &'static str) -> Reply {
    Reply::Bulk(Bytes::from_static(text.as_bytes()))
}

fn simple(text: &'static str) -> Reply {
    Reply::Simple(Bytes::from_static(text.as_bytes()))
}

#[test]
fn every_type() {
    let error = |text: &'static str| Reply::Error(Bytes::from_static(text.as_bytes()));
    let big = |text: &'static str| Reply::BigNumber(Bytes::from_static(text.as_bytes()));
    let one = || Reply::Integer(1);
    let table: Vec<(&[u8], Reply)> = vec![
        (b"+OK\r\n", simple("OK")),
        (b"+\r\n", simple("")),
        (b"-ERR no\r\n", error("ERR no")),
        (b":0\r\n", Reply::Integer(0)),
        (b":+7\r\n", Reply::Integer(7)),
        (b":-9223372036854775808\r\n", Reply::Integer(i64::MIN)),
        (b"$5\r\na\r\n\0b\r\n", bulk("a\r\n\0b")),
        (b"$0\r\n\r\n", bulk("")),
        (b"$-1\r\n", Reply::Null),
        (b"*-1\r\n", Reply::Null),
        (b"_\r\n", Reply::Null),
        (b"#t\r\n", Reply::Boolean(true)),
        (b"#f\r\n", Reply::Boolean(false)),
        (b",1.5\r\n", Reply::Double(1.5)),
        (b",-10\r\n", Reply::Double(-10.0)),
        (b",1e-3\r\n", Reply::Double(0.001)),
        (b",inf\r\n", Reply::Double(f64::INFINITY)),
        (b",-inf\r\n", Reply::Double(f64::NEG_INFINITY)),
        (
            b"(-3492890328409238509324850943850943825024385\r\n",
            big("-3492890328409238509324850943850943825024385"),
        ),
        (b"!9\r\nSYNTAX a\n\r\n", error("SYNTAX a\n")),
        (
            b"=8\r\ntxt:a\r\nb\r\n",
            Reply::Verbatim {
                format: *b"txt",
                text: Bytes::from_static(b"a\r\nb"),
            },
        ),
        (b"*0\r\n", Reply::Array(vec![])),
        (
            b"*3\r\n:1\r\n*1\r\n$1\r\na\r\n_\r\n",
            Reply::Array(vec![one(), Reply::Array(vec![bulk("a")]), Reply::Null]),
        ),
        (b"~2\r\n:1\r\n:1\r\n", Reply::Set(vec![one(), one()])),
        (b"%0\r\n", Reply::Map(vec![])),
        (
            b"%2\r\n+a\r\n:1\r\n*0\r\n+b\r\n",
            Reply::Map(vec![
                (simple("a"), one()),
                (Reply::Array(vec![]), simple("b")),
            ]),
        ),
        (
            b">2\r\n+invalidate\r\n*1\r\n+k\r\n",
            Reply::Push(vec![simple("invalidate"), Reply::Array(vec![simple("k")])]),
        ),
        (
            b"*1\r\n|1\r\n+ttl\r\n:1\r\n$1\r\nv\r\n",
            Reply::Array(vec![Reply::Attributed(Box::new(Attributed {
                attributes: vec![(simple("ttl"), one())],
                reply: bulk("v"),
            }))]),
        ),
    ];
    for (bytes, expected) in &table {
        let shown = bytes.escape_ascii();
        assert_eq!(
            decode_all(bytes),
            (vec![expected.clone()], Ok(())),
            "{shown}"
        );
        for cut in 0..bytes.len() {
            let (replies, result) = decode_all(&bytes[..cut]);
            assert_eq!((replies, result), (vec![], Ok(())), "{cut} of {shown}");
        }
    }
    let stream: Vec<u8> = table.iter().flat_map(|(bytes, _)| bytes.to_vec()).collect();
    let replies: Vec<Reply> = table.into_iter().map(|(_, reply)| reply).collect();
    assert_eq!(decode_all(&stream), (replies, Ok(())));
    let (replies, _) = decode_all(b",nan\r\n");
    assert!(matches!(replies[..], [Reply::Double(number)] if number.is_nan()));
}

#[test]
fn what_is_no_reply_is_refused() {
    let long = vec![b'+'; MAX_LINE_BYTES + 1];
    let table: &[(&[u8], DecodeError)] = &[
        (b"hello\r\n", DecodeError::UnknownType(b'h')),
        (b"\r\n", DecodeError::UnknownType(b'\r')),
        (b"+a\rb\r\n", DecodeError::LineEnd),
        (b"+a\nb\r\n", DecodeError::LineEnd),
        (b"\n", DecodeError::LineEnd),
        (b"$1\r\nab\r\n", DecodeError::LineEnd),
        (&long, DecodeError::LongLine),
        (b"$?\r\n", DecodeError::Streamed),
        (b"*?\r\n", DecodeError::Streamed),
        (b"%?\r\n", DecodeError::Streamed),
        (b";4\r\n", DecodeError::Streamed),
        (b".\r\n", DecodeError::Streamed),
        (b"$\r\n", DecodeError::Length),
        (b"$-2\r\n", DecodeError::Length),
        (b"$+1\r\n", DecodeError::Length),
        (b"$1x\r\n", DecodeError::Length),
        (b"*-2\r\n", DecodeError::Length),
        (b"%-1\r\n", DecodeError::Length),
        (b"=-1\r\n", DecodeError::Length),
        (b"$9223372036854775808\r\n", DecodeError::Length),
        (b"$9223372036854775807\r\n", DecodeError::TooManyBytes),
        (b"*9223372036854775807\r\n", DecodeError::TooManyElements),
        (b"%9223372036854775807\r\n", DecodeError::TooManyElements),
        (b"|9223372036854775807\r\n", DecodeError::TooManyElements),
        (b":\r\n", DecodeError::Malformed("an integer")),
        (b":1.5\r\n", DecodeError::Malformed("an integer")),
        (
            b":9223372036854775808\r\n",
            DecodeError::Malformed("an integer"),
        ),
        (b"_x\r\n", DecodeError::Malformed("null")),
        (b"#true\r\n", DecodeError::Malformed("a boolean")),
        (b",\r\n", DecodeError::Malformed("a double")),
        (b",infinity\r\n", DecodeError::Malformed("a double")),
        (b"(\r\n", DecodeError::Malformed("a big number")),
        (b"(1-\r\n", DecodeError::Malformed("a big number")),
        (
            b"=3\r\ntxt\r\n",
            DecodeError::Malformed("a verbatim string"),
        ),
        (
            b"=4\r\ntxt-\r\n",
            DecodeError::Malformed("a verbatim string"),
        ),
        (b"*1\r\n>0\r\n", DecodeError::NestedPush),
    ];
    for (bytes, error) in table {
        let shown = bytes[..bytes.len().min(40)].escape_ascii();
        assert_eq!(decode_all(bytes), (vec![], Err(*error)), "{shown}");
    }
    // A good reply before it is not lost.
    let (replies, result) = decode_all(b":1\r\n?\r\n");
    assert_eq!(replies, [Reply::Integer(1)]);
    assert_eq!(result, Err(DecodeError::UnknownType(b'?')));
}

#[test]
fn what_would_cost_too_much_is_refused_when_it_is_announced() {
    let nested = b"*1\r\n".repeat(100_000);
    let attributes = b"|0\r\n".repeat(100_000);
    let mut million = b"*1000000\r\n".to_vec();
    million.extend(b"*0\r\n".repeat(1_000_000));
    // None of these announces too much by itself.
    let mut thousands = b"*1000\r\n".to_vec();
    for _ in 0..1000 {
        thousands.extend_from_slice(b"*1000\r\n");
        thousands.extend(b"*0\r\n".repeat(1000));
    }
    let half = format!("${}\r\n", Limits::default().bytes / 2 + 1).into_bytes();
    let mut halves = [b"*2\r\n", &half[..]].concat();
    let table: &[(&[u8], usize, DecodeError)] = &[
        (&nested, 33 * 4, DecodeError::TooDeep),
        (&attributes, 33 * 4, DecodeError::TooDeep),
        (&million, 10, DecodeError::TooManyElements),
        (&thousands, 1_200_000, DecodeError::TooManyElements),
        (b"$9223372036854775807\r\n", 22, DecodeError::TooManyBytes),
    ];
    for (bytes, within, error) in table {
        let mut decoder = Decoder::new(Limits::default());
        let mut input = BytesMut::from(*bytes);
        assert_eq!(decoder.decode(&mut input), Err(*error));
        let taken = bytes.len() - input.len();
        assert!(taken <= *within, "{error}: {taken} bytes were taken");
        assert_eq!(decoder.open.capacity(), 0, "nothing is kept");
    }

    // Two halves that each would fit: the second is refused before it comes.
    let mut decoder = Decoder::new(Limits {
        bytes: 100,
        ..Limits::default()
    });
    halves.splice(4.., *b"$60\r\n");
    halves.extend([b'x'; 60]);
    halves.extend(b"\r\n$60\r\n");
    let mut input = BytesMut::from(&halves[..]);
    assert_eq!(decoder.decode(&mut input), Err(DecodeError::TooManyBytes));

    // What is announced and allowed costs nothing either until it comes.
    let mut decoder = Decoder::new(Limits::default());
    let announced = format!("*{}\r\n", Limits::default().elements);
    let mut input = BytesMut::from(announced.as_bytes());
    assert_eq!(decoder.decode(&mut input), Ok(None));
    assert_eq!(decoder.open[0].came.capacity(), 0);
}

#[test]
fn limits_are_those_of_one_reply() {
    let limits = Limits {
        depth: 2,
        elements: 2,
        bytes: 16,
    };
    let reply = b"*2\r\n*0\r\n$4\r\nabcd\r\n";
    let many = reply.repeat(100);
    let (replies, result) = decode_pieces(limits, [&many[..]]);
    assert_eq!((replies.len(), result), (100, Ok(())));
}

/// One byte at a time is where a decoder that begins again would look at everything again and again.
#[test]
fn no_byte_is_looked_at_twice() {
    let mut bytes = b"*2\r\n+".to_vec();
    bytes.extend(vec![b'a'; 50_000]);
    bytes.extend(b"\r\n*10000\r\n");
    bytes.extend(b"$7\r\n1234567\r\n".repeat(10_000));
    let mut decoder = Decoder::new(Limits::default());
    let mut input = BytesMut::new();
    let mut calls = 0;
    let mut replies = 0;
    for byte in &bytes {
        input.extend_from_slice(&[*byte]);
        calls += 1;
        replies += usize::from(decoder.decode(&mut input) != Ok(None));
    }
    assert_eq!(replies, 1);
    assert!(!decoder.is_within_reply());
    // Only a carriage return is looked at again, when the line feed comes.
    let most = bytes.len() + calls / 8;
    assert!(decoder.looked_at <= most, "{}", decoder.looked_at);
}

#[test]
fn payloads_are_not_copied() {
    let mut input = BytesMut::from("*1\r\n$5\r\nhello\r\n");
    let at = input.as_ptr().wrapping_add(8);
    let mut decoder = Decoder::new(Limits::default());
    let Ok(Some(Reply::Array(elements))) = decoder.decode(&mut input) else {
        panic!("an array comes");
    };
    let [Reply::Bulk(text)] = &elements[..] else {
        panic!("it holds a bulk string");
    };
    assert_eq!(text.as_ptr(), at);
}

/// The reply's bytes in RESP3.
fn encode(reply: &Reply, out: &mut Vec<u8>) {
    let all = |out: &mut Vec<u8>, kind: char, replies: &[Reply]| {
        out.extend(format!("{kind}{}\r\n", replies.len()).bytes());
        for reply in replies {
            encode(reply, out);
        }
    };
    let map = |out: &mut Vec<u8>, kind: char, replies: &[(Reply, Reply)]| {
        out.extend(format!("{kind}{}\r\n", replies.len()).bytes());
        for (key, value) in replies {
            encode(key, out);
            encode(value, out);
        }
    };
    let line = |out: &mut Vec<u8>, kind: u8, text: &[u8]| {
        out.extend([&[kind], text, b"\r\n"].concat());
    };
    match reply {
        Reply::Simple(text) => line(out, b'+', text),
        Reply::Error(text) => {
            out.extend(format!("!{}\r\n", text.len()).bytes());
            out.extend([text, &b"\r\n"[..]].concat());
        }
        Reply::Integer(number) => line(out, b':', number.to_string().as_bytes()),
        Reply::Bulk(text) => {
            out.extend(format!("${}\r\n", text.len()).bytes());
            out.extend([text, &b"\r\n"[..]].concat());
        }
        Reply::Array(replies) => all(out, '*', replies),
        Reply::Null => line(out, b'_', b""),
        Reply::Boolean(yes) => line(out, b'#', if *yes { b"t" } else { b"f" }),
        Reply::Double(number) => line(out, b',', number.to_string().as_bytes()),
        Reply::BigNumber(text) => line(out, b'(', text),
        Reply::Verbatim { format, text } => {
            out.extend(format!("={}\r\n", text.len() + 4).bytes());
            out.extend([format, &b":"[..], text, &b"\r\n"[..]].concat());
        }
        Reply::Map(replies) => map(out, '%', replies),
        Reply::Set(replies) => all(out, '~', replies),
        Reply::Push(replies) => all(out, '>', replies),
        Reply::Attributed(attributed) => {
            map(out, '|', &attributed.attributes);
            encode(&attributed.reply, out);
        }
    }
}

fn any_reply() -> impl Strategy<Value = Reply> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    let scalar = prop_oneof![
        "[ -~]{0,20}".prop_map(|text| Reply::Simple(text.into())),
        bytes().prop_map(Reply::Error),
        any::<i64>().prop_map(Reply::Integer),
        bytes().prop_map(Reply::Bulk),
        Just(Reply::Null),
        any::<bool>().prop_map(Reply::Boolean),
        (-1e9..1e9).prop_map(Reply::Double),
        "-?[0-9]{1,40}".prop_map(|text| Reply::BigNumber(text.into())),
        bytes().prop_map(|text| Reply::Verbatim {
            format: *b"mkd",
            text
        }),
    ];
    scalar.prop_recursive(5, 40, 6, |inner| {
        let list = proptest::collection::vec(inner.clone(), 0..6);
        let map = proptest::collection::vec((inner.clone(), inner.clone()), 0..4);
        prop_oneof![
            list.clone().prop_map(Reply::Array),
            list.prop_map(Reply::Set),
            map.clone().prop_map(Reply::Map),
            (map, inner).prop_map(|(attributes, reply)| {
                Reply::Attributed(Box::new(Attributed { attributes, reply }))
            }),
        ]
    })
}

fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|two| &bytes[two[0]..two[1]]).collect()
}

/// What replies are made of, and what comes close.
const PARTS: &[&[u8]] = &[
    b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"*2", b"%1", b"|1", b"$3", b"abc", b">1", b"+x", b":1",
    b"1", b"-", b"\r", b"\n", b"?", b"=5",
];

proptest! {
    #[test]
    fn replies_come_back_however_they_are_cut(
        replies in proptest::collection::vec(any_reply(), 0..5),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut bytes = Vec::new();
        for reply in &replies {
            encode(reply, &mut bytes);
        }
        let found = decode_pieces(Limits::default(), pieces(&bytes, &cuts));
        prop_assert_eq!(&found, &(replies, Ok(())));
    }

    /// Also what is wrong is found in the same place, and never by a panic.
    #[test]
    fn nonsense_is_the_same_nonsense_however_it_is_cut(
        bytes in proptest::collection::vec(
            proptest::sample::select(PARTS),
            0..40,
        ).prop_map(|parts| parts.concat()),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let limits = Limits { depth: 3, elements: 8, bytes: 100 };
        let whole = decode_pieces(limits, [&bytes[..]]);
        let cut = decode_pieces(limits, pieces(&bytes, &cuts));
        prop_assert_eq!(whole, cut);
    }
}
