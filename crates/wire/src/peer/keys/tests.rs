//! Questions and answers are what was sent, in bytes that stay as they are, or an error wherever they are cut.

use super::*;
use proptest::prelude::*;

fn question(commands: &[Command<'_>]) -> Vec<u8> {
    let mut out = commands_head(None, commands.len() as u32).to_vec();
    for command in commands {
        encode_command(&mut out, command);
    }
    out
}

fn answer(replies: &[Answered<'_>]) -> Vec<u8> {
    let mut out = replies_head(replies.len() as u32).to_vec();
    for reply in replies {
        encode_answered(&mut out, reply);
    }
    out
}

fn encoded(page: &Page<'_>) -> Vec<u8> {
    let mut out = page_head(page.cursor, page.keys.len() as u32).to_vec();
    for key in &page.keys {
        encode_key(&mut out, key);
    }
    out
}

fn replies_of(bytes: &[u8]) -> Result<Vec<String>, Malformed> {
    let replies = Replies::decode(bytes)?;
    let mut rest = replies.bytes();
    (0..replies.count())
        .map(|_| decode_answered(&mut rest).map(|reply| format!("{reply:?}")))
        .collect()
}

/// Texts stand for what has no equality: two that print alike are alike.
fn commands_of(bytes: &[u8]) -> Result<Vec<String>, Malformed> {
    match Question::decode(bytes)? {
        Question::Commands(_, commands) => {
            assert_eq!(commands.count(), commands.iter().count());
            Ok(commands
                .iter()
                .map(|command| format!("{command:?}"))
                .collect())
        }
        other => panic!("{other:?} is no commands"),
    }
}

fn hex(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.concat()
}

fn gzip() -> Value<'static> {
    Value {
        encoding: Encoding::Gzip,
        raw_len: 258,
        json: true,
        content_type: Some("a/b"),
        ..Value::from_slice(b"xyz")
    }
}

fn all_commands() -> Vec<Command<'static>> {
    const VERSIONS: &[Version] = &[Version::new(1, 2), Version::new(0, 3)];
    let operations = [
        Operation::Get,
        Operation::Peek,
        Operation::Set {
            value: gzip(),
            expiry: Expiry::At(0x0102),
            precondition: Precondition {
                matches: Some(Match::OneOf(VERSIONS)),
                none_matches: Some(Match::Any),
            },
        },
        Operation::Set {
            value: Value::from_slice(b"v"),
            expiry: Expiry::Keep,
            precondition: Precondition::NONE,
        },
        Operation::Delete {
            precondition: Precondition {
                matches: None,
                none_matches: Some(Match::OneOf(&VERSIONS[..1])),
            },
        },
        Operation::Increment {
            by: -1,
            initial: 2,
            expiry: Expiry::Never,
        },
        Operation::Expire {
            expiry: Expiry::Never,
            precondition: Precondition {
                matches: Some(Match::Any),
                none_matches: Some(Match::OneOf(&[])),
            },
        },
    ];
    let command = |operation| Command {
        key: b"k",
        operation,
    };
    operations.map(command).into()
}

fn all_replies() -> Vec<Answered<'static>> {
    let version = Version::from_bits(7);
    let refusals = [
        Refusal::PreconditionFailed(None),
        Refusal::PreconditionFailed(Some(version)),
        Refusal::NotAnInteger,
        Refusal::Overflow,
        Refusal::MemoryFull,
        Refusal::TooLarge,
        Refusal::LogFailed,
        Refusal::LogBehind,
    ];
    let mut all = vec![Answered::NotHere, Answered::Unknown];
    let replies = [
        Reply::Found(Item {
            value: gzip(),
            version,
            expires_at_ms: Some(9),
        }),
        Reply::Missing,
        Reply::Stored {
            version,
            expires_at_ms: None,
        },
        Reply::Counted {
            value: -2,
            version,
            expires_at_ms: Some(1),
        },
        Reply::Deleted,
    ];
    all.extend(replies.map(Answered::Reply));
    all.extend(refusals.map(|refusal| Answered::Reply(Reply::Refused(refusal))));
    all
}

/// Nodes of all later versions that speak version 1 send and understand these bytes.
#[test]
fn commands_and_replies_have_these_bytes_for_ever() {
    let expected = concat!(
        "0107000000",
        "01010000006b",
        "02010000006b",
        "03010000006b",
        "000103",
        "03612f62",
        "0201000003000000",
        "78797a",
        "020201000000000000",
        "05",
        "02000000",
        "0200000000100000",
        "0300000000000000",
        "03010000006b",
        "000000",
        "0100000001000000",
        "76",
        "01",
        "00",
        "04010000006b",
        "06",
        "01000000",
        "0200000000100000",
        "05010000006b",
        "ffffffffffffffff",
        "0200000000000000",
        "00",
        "06010000006b",
        "00",
        "07",
        "00000000",
    );
    let bytes = question(&all_commands());
    assert_eq!(hex(&bytes), expected);
    let sent: Vec<String> = all_commands().iter().map(|c| format!("{c:?}")).collect();
    assert_eq!(commands_of(&bytes), Ok(sent));

    let expected = concat!(
        "0f000000",
        "00",
        "01",
        "02",
        "0700000000000000",
        "010900000000000000",
        "000103",
        "03612f62",
        "0201000003000000",
        "78797a",
        "03",
        "04",
        "0700000000000000",
        "00",
        "05",
        "feffffffffffffff",
        "0700000000000000",
        "010100000000000000",
        "06",
        "070100",
        "0701010700000000000000",
        "0702",
        "0703",
        "0704",
        "0705",
        "0706",
        "0707",
    );
    let bytes = answer(&all_replies());
    assert_eq!(hex(&bytes), expected);
    let sent: Vec<String> = all_replies().iter().map(|r| format!("{r:?}")).collect();
    assert_eq!(replies_of(&bytes), Ok(sent));

    let scan = Scan {
        cursor: 5,
        limit: 100,
        prefix: b"p",
    };
    assert_eq!(hex(&scan.encode()), "020500000000000000640000000100000070");
    assert!(matches!(Question::decode(&scan.encode()), Ok(Question::Scan(came)) if came == scan));
    let page = Page {
        cursor: 6,
        keys: vec![b"k", b""],
    };
    let bytes = encoded(&page);
    assert_eq!(hex(&bytes), "060000000000000002000000010000006b00000000");
    assert_eq!(Page::decode(&bytes), Ok(page));
    assert!(matches!(
        Question::decode(FLUSH_QUESTION),
        Ok(Question::Flush)
    ));
}

#[test]
fn what_is_cut_or_longer_is_an_error() {
    fn check<T>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, Malformed>) {
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length}");
        }
        assert!(decode(bytes).is_ok());
        assert!(decode(&[bytes, b"x"].concat()).is_err());
    }
    check(&question(&all_commands()), commands_of);
    check(&answer(&all_replies()), replies_of);
    let page = Page {
        cursor: 6,
        keys: vec![b"k", b""],
    };
    check(&encoded(&page), |bytes| Page::decode(bytes).map(|_| ()));
}

#[test]
fn what_makes_no_sense_is_an_error() {
    let long = vec![b'k'; MAX_KEY_BYTES + 1];
    let mut key = vec![COMMANDS, 1, 0, 0, 0, 1];
    key.extend_from_slice(&(long.len() as u32).to_le_bytes());
    key.extend_from_slice(&long);
    let get = |operation: u8| vec![COMMANDS, 1, 0, 0, 0, operation, 0, 0, 0, 0];
    let with = |operation, rest: &[u8]| [&get(operation), rest].concat();
    for (bytes, part) in [
        (vec![], "question"),
        (vec![9], "question that this node knows"),
        (vec![COMMANDS, 255, 255, 255, 255], "operation"),
        (key, "key"),
        (get(0), "operation that this node knows"),
        (get(7), "operation that this node knows"),
        (with(4, &[9]), "precondition that this node knows"),
        (with(4, &[2, 255, 255, 255, 255]), "precondition"),
        (with(6, &[3]), "expiry that this node knows"),
        (with(3, &[1]), "type that this node knows"),
        (with(3, &[0, 4]), "encoding that this node knows"),
        (with(3, &[0, 0, 4]), "flags that this node knows"),
        (with(3, &[0, 0, 2, 1, 0xFF]), "content type"),
        (
            with(3, &[0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, b'v']),
            "one length of its value",
        ),
    ] {
        let error = Question::decode(&bytes).expect_err("it makes no sense");
        assert_eq!(error, Malformed(part), "{bytes:?}");
    }
    for (reply, part) in [
        (&[9][..], "reply that this node knows"),
        (&[8], "replicas"),
        (&[8, 2], "reply"),
        (&[8, 2, 8, 2], "reply that this node knows"),
        (&[7, 0], "refusal that this node knows"),
        (&[7, 1, 2], "version"),
        (&[4, 0, 0, 0, 0, 0, 0, 0, 0, 2], "deadline"),
    ] {
        let bytes = [&replies_head(1)[..], reply].concat();
        assert_eq!(Replies::decode(&bytes).err(), Some(Malformed(part)));
    }
}

/// A set of versions that has what it borrows.
#[derive(Clone, Debug)]
enum List {
    Unsaid,
    Any,
    OneOf(Vec<Version>),
}

impl List {
    fn as_match(&self) -> Option<Match<'_>> {
        match self {
            Self::Unsaid => None,
            Self::Any => Some(Match::Any),
            Self::OneOf(versions) => Some(Match::OneOf(versions)),
        }
    }
}

fn list() -> impl Strategy<Value = List> {
    let version = any::<u64>().prop_map(Version::from_bits);
    prop_oneof![
        Just(List::Unsaid),
        Just(List::Any),
        prop::collection::vec(version, 0..4).prop_map(List::OneOf)
    ]
}

fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![
        Just(Expiry::Never),
        Just(Expiry::Keep),
        any::<u64>().prop_map(Expiry::At)
    ]
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

/// The parts that commands and replies are made of.
#[derive(Clone, Debug)]
struct Parts {
    which: u8,
    key: Vec<u8>,
    data: Vec<u8>,
    encoding: usize,
    raw_len: u32,
    json: bool,
    content_type: Option<String>,
    expiry: Expiry,
    lists: [List; 2],
    numbers: (i64, i64, u64, Option<u64>),
}

fn parts() -> impl Strategy<Value = Parts> {
    let value = (
        text(),
        0..Encoding::ALL.len(),
        any::<u32>(),
        any::<bool>(),
        prop::option::of("[a-z/]{0,9}"),
    );
    let numbers = (
        any::<i64>(),
        any::<i64>(),
        any::<u64>(),
        any::<Option<u64>>(),
    );
    let lists = [list(), list()];
    (any::<u8>(), text(), value, expiry(), lists, numbers).prop_map(
        |(which, key, (data, encoding, raw_len, json, content_type), expiry, lists, numbers)| {
            Parts {
                which,
                key,
                data,
                encoding,
                raw_len,
                json,
                content_type,
                expiry,
                lists,
                numbers,
            }
        },
    )
}

impl Parts {
    fn value(&self) -> Value<'_> {
        let raw = Value::from_slice(&self.data);
        let encoding = Encoding::ALL[self.encoding];
        Value {
            encoding,
            raw_len: if encoding == Encoding::Raw {
                raw.raw_len
            } else {
                self.raw_len
            },
            json: self.json,
            content_type: self.content_type.as_deref(),
            ..raw
        }
    }

    fn command(&self) -> Command<'_> {
        let [matches, none_matches] = &self.lists;
        let precondition = Precondition {
            matches: matches.as_match(),
            none_matches: none_matches.as_match(),
        };
        let (by, initial, ..) = self.numbers;
        let expiry = self.expiry;
        let operation = match self.which % 6 {
            0 => Operation::Get,
            1 => Operation::Peek,
            2 => Operation::Set {
                value: self.value(),
                expiry,
                precondition,
            },
            3 => Operation::Delete { precondition },
            4 => Operation::Increment {
                by,
                initial,
                expiry,
            },
            _ => Operation::Expire {
                expiry,
                precondition,
            },
        };
        Command {
            key: &self.key,
            operation,
        }
    }

    fn answered(&self) -> Answered<'_> {
        let (value, _, version, expires_at_ms) = self.numbers;
        let version = Version::from_bits(version);
        Answered::Reply(match self.which % 7 {
            0 => return Answered::NotHere,
            1 => return Answered::Unknown,
            2 => Reply::Found(Item {
                value: self.value(),
                version,
                expires_at_ms,
            }),
            3 => Reply::Stored {
                version,
                expires_at_ms,
            },
            4 => Reply::Counted {
                value,
                version,
                expires_at_ms,
            },
            5 => Reply::Refused(Refusal::PreconditionFailed(
                expires_at_ms.map(Version::from_bits),
            )),
            _ => Reply::Missing,
        })
    }
}

proptest! {
    #[test]
    fn what_is_sent_is_what_comes(all in prop::collection::vec(parts(), 0..8)) {
        let commands: Vec<Command<'_>> = all.iter().map(Parts::command).collect();
        let bytes = question(&commands);
        let sent: Vec<String> = commands.iter().map(|command| format!("{command:?}")).collect();
        prop_assert_eq!(commands_of(&bytes), Ok(sent));
        let replies: Vec<Answered<'_>> = all.iter().map(Parts::answered).collect();
        let bytes = answer(&replies);
        let sent: Vec<String> = replies.iter().map(|reply| format!("{reply:?}")).collect();
        prop_assert_eq!(replies_of(&bytes), Ok(sent));
    }

    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Question::decode(&bytes);
        let _ = Replies::decode(&bytes);
        let _ = Page::decode(&bytes);
    }
}
