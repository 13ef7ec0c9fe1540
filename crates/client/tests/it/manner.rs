//! Clones of a client that differ in how they ask: by their level, which no other call may inherit, and by their deadline; and
//! values with types.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use henge_client::{
    Cause, Client, ConsistencyLevel, EncryptionKeys, Error, SetOptions, TypedError,
};

use crate::server::{DEADLINE, Peer, SCHEMES, Server};

async fn connected(server: &Server) -> (Client, Peer) {
    let url = server.url();
    let (client, peer) = tokio::join!(Client::connect(&url), server.meet());
    (client.expect("it listens"), peer)
}

/// A command that the client sends by itself, and its answer.
async fn told(peer: &mut Peer, command: &str, answer: &str) {
    assert!(peer.request().await.is_some(), "{command}");
    let words = command.split(' ');
    let words: Vec<String> = words
        .map(|word| format!("${}\r\n{word}\r\n", word.len()))
        .collect();
    let expected = format!("*{}\r\n{}", words.len(), words.concat());
    assert_eq!(String::from_utf8_lossy(&peer.raw), expected);
    peer.send(answer.as_bytes()).await;
}

/// A read of `k`, with what the server is told before it.
async fn get(client: &Client, peer: &mut Peer, before: &[(&str, &str)]) -> String {
    let (found, ()) = tokio::join!(client.get("k"), async {
        for (command, answer) in before {
            told(peer, command, answer).await;
        }
        assert_eq!(peer.request().await.as_deref(), Some("GET k"));
        peer.answer_value("v").await;
    });
    assert_eq!(found.expect("answered").as_deref(), Some(&b"v"[..]));
    String::from_utf8_lossy(&peer.raw).to_ascii_lowercase()
}

#[tokio::test]
async fn no_call_has_the_level_of_another() {
    let server = Server::listen("redis").await;
    let (client, mut peer) = connected(&server).await;
    let all = client.at_level(ConsistencyLevel::All);
    let one = client.at_level(ConsistencyLevel::One);
    let (to_all, to_one) = (
        ("HENGE LEVEL ALL", "+OK\r\n"),
        ("HENGE LEVEL ONE", "+OK\r\n"),
    );
    let reset = ("RESET", "+RESET\r\n");
    let steps: [(&Client, &[(&str, &str)]); 8] = [
        (&client, &[]),
        (&all, &[to_all]),
        (&all, &[]),
        (&one, &[to_one]),
        (&all, &[to_all]),
        (&client, &[reset]),
        (&client, &[]),
        (&one, &[to_one]),
    ];
    for (client, before) in steps {
        get(client, &mut peer, before).await;
    }
    // A clone of a clone is of the last that was said.
    get(&one.at_level(ConsistencyLevel::All), &mut peer, &[to_all]).await;
}

#[tokio::test]
async fn each_request_over_http_says_its_level() {
    let server = Server::listen("http").await;
    let (client, mut peer) = connected(&server).await;
    let quorum = client.at_level(ConsistencyLevel::Quorum);
    for _ in 0..2 {
        let raw = get(&quorum, &mut peer, &[]).await;
        assert!(raw.contains("x-consistency-level: quorum\r\n"), "{raw}");
        let raw = get(&client, &mut peer, &[]).await;
        assert!(!raw.contains("x-consistency-level"), "{raw}");
    }
}

/// The server would do it at whatever level it likes.
#[tokio::test]
async fn a_server_without_levels_does_nothing() {
    let server = Server::listen("redis").await;
    let (client, mut peer) = connected(&server).await;
    let all = client.at_level(ConsistencyLevel::All);
    let (stored, ()) = tokio::join!(all.set("k", "v", SetOptions::new()), async {
        told(
            &mut peer,
            "HENGE LEVEL ALL",
            "-ERR unknown command 'HENGE'\r\n",
        )
        .await;
    });
    let refused = stored.expect_err("it is refused");
    assert!(matches!(refused, Error::Refused { .. }), "{refused:?}");
    get(&client, &mut peer, &[]).await;
}

/// Who resets a connection shows its key again.
#[tokio::test]
async fn a_key_outlives_a_level() {
    let server = Server::listen("redis").await;
    let url = server.url();
    let builder = Client::builder(&url).expect("a URL");
    let builder = builder.api_key("secret".parse().expect("a key"));
    let (client, mut peer) = tokio::join!(builder.connect(), async {
        let mut peer = server.accept().await;
        told(&mut peer, "AUTH secret", "+OK\r\n").await;
        let none = "-ERR This instance has cluster support disabled\r\n";
        told(&mut peer, "CLUSTER SHARDS", none).await;
        peer
    });
    let client = client.expect("it listens");
    let all = client.at_level(ConsistencyLevel::All);
    let to_all = ("HENGE LEVEL ALL", "+OK\r\n");
    get(&all, &mut peer, &[to_all]).await;
    let (reset, key) = (("RESET", "+RESET\r\n"), ("AUTH secret", "+OK\r\n"));
    get(&client, &mut peer, &[reset, key]).await;
    get(&all, &mut peer, &[to_all]).await;
    // One that is refused now is of no use to anybody.
    let (found, ()) = tokio::join!(client.set("k", "v", SetOptions::new()), async {
        told(&mut peer, "RESET", "+RESET\r\n").await;
        told(&mut peer, "AUTH secret", "-WRONGPASS no\r\n").await;
    });
    assert!(matches!(found, Err(Error::Unanswered(_))), "{found:?}");
    assert_eq!(peer.request().await, None);
}

/// Where there is a connection of each kind none of them is told anything.
#[tokio::test]
async fn connections_of_both_kinds_are_kept() {
    let server = Server::listen("redis").await;
    let (client, mut plain) = connected(&server).await;
    let all = client.at_level(ConsistencyLevel::All);
    let (first, second, mut at_all) = tokio::join!(client.get("k"), all.get("k"), async {
        assert_eq!(plain.request().await.as_deref(), Some("GET k"));
        let mut at_all = server.accept().await;
        told(&mut at_all, "HENGE LEVEL ALL", "+OK\r\n").await;
        assert_eq!(at_all.request().await.as_deref(), Some("GET k"));
        at_all.answer_value("v").await;
        plain.answer_value("v").await;
        at_all
    });
    assert!(first.is_ok() && second.is_ok());
    for _ in 0..3 {
        get(&client, &mut plain, &[]).await;
        get(&all, &mut at_all, &[]).await;
        get(&all, &mut at_all, &[]).await;
    }
}

#[tokio::test]
async fn a_deadline_is_of_its_clone() {
    for scheme in SCHEMES {
        let server = Server::listen(scheme).await;
        let (client, mut peer) = connected(&server).await;
        let late = client.with_deadline(Instant::now());
        for _ in 0..2 {
            let failed = late.set("k", "v", SetOptions::new()).await;
            let failed = failed.expect_err("it is over");
            assert!(
                matches!(failed, Error::Unanswered(Cause::TimedOut(_))),
                "{failed:?}"
            );
        }
        // Nothing of that was sent.
        get(&client, &mut peer, &[]).await;
        let began = Instant::now();
        let soon = client.with_deadline(began + Duration::from_secs(1));
        let (failed, ()) = tokio::join!(soon.set("k", "v", SetOptions::new()), async {
            assert_eq!(peer.request().await.as_deref(), Some("SET k"));
        });
        let failed = failed.expect_err("nobody answers");
        assert!(failed.is_unknown(), "{failed:?}");
        assert!(began.elapsed() < DEADLINE);
        // That which was given up is never used again.
        let (found, ()) = tokio::join!(client.get("k"), async {
            let mut peer = server.accept().await;
            assert_eq!(peer.request().await.as_deref(), Some("GET k"));
            peer.answer_value("v").await;
        });
        assert!(found.is_ok(), "{found:?}");
    }
}

#[tokio::test]
async fn values_with_types() {
    for scheme in SCHEMES {
        let server = Server::listen(scheme).await;
        let (client, mut peer) = connected(&server).await;
        let value = BTreeMap::from([("a".to_owned(), vec![1, 2]), ("b".to_owned(), vec![])]);
        let set = client.set_as("k", &value, SetOptions::new());
        let (stored, ()) = tokio::join!(set, async {
            assert_eq!(peer.request().await.as_deref(), Some("SET k"));
            peer.answer_stored().await;
        });
        assert!(stored.expect("answered"));
        let raw = String::from_utf8_lossy(&peer.raw).into_owned();
        assert!(raw.contains(r#"{"a":[1,2],"b":[]}"#), "{raw}");
        for (text, expected) in [
            (r#"{"a": [1, 2], "b": []}"#, Ok(value)),
            (
                "{\n\"a\": \"secret\"}",
                Err(TypedError::OtherType {
                    line: 2,
                    column: 13,
                }),
            ),
            ("secret", Err(TypedError::NoJson { line: 1, column: 1 })),
            ("", Err(TypedError::NoJson { line: 1, column: 0 })),
        ] {
            let (found, ()) = tokio::join!(client.get_as("k"), async {
                assert_eq!(peer.request().await.as_deref(), Some("GET k"));
                peer.answer_value(text).await;
            });
            match (found, expected) {
                (Ok(found), expected) => assert_eq!(Ok(found), expected.map(Some)),
                (Err(Error::Typed(error)), expected) => {
                    assert!(!format!("{error} {error:?}").contains("secret"));
                    assert_eq!(Err(error), expected);
                }
                (other, _) => panic!("{other:?}"),
            }
        }
        let no_form = BTreeMap::from([(vec![1], 1)]);
        let failed = client.set_as("k", &no_form, SetOptions::new()).await;
        assert!(
            matches!(failed, Err(Error::Typed(TypedError::NoForm))),
            "{failed:?}"
        );
    }
}

#[tokio::test]
async fn values_with_types_are_sealed() {
    let server = Server::listen("redis").await;
    let url = server.url();
    let keys = EncryptionKeys::new([(1, [7; 32])]).expect("a key");
    let builder = Client::builder(&url).expect("a URL").encryption(keys);
    let (client, mut peer) = tokio::join!(builder.connect(), server.meet());
    let client = client.expect("it listens");
    let (stored, sealed) = tokio::join!(
        client.set_as("k", "nobody else's", SetOptions::new()),
        async {
            assert_eq!(peer.request().await.as_deref(), Some("SET k"));
            peer.answer_stored().await;
            // The last word of the command, without its end of line.
            let at = peer.raw.windows(4).position(|four| four == b"\x89HSV");
            peer.raw[at.expect("a sealed value")..peer.raw.len() - 2].to_vec()
        }
    );
    assert!(stored.expect("answered"));
    assert!(!sealed.windows(6).any(|part| part == b"nobody"));
    let (found, ()) = tokio::join!(client.get_as::<String>("k"), async {
        assert_eq!(peer.request().await.as_deref(), Some("GET k"));
        peer.answer_value(&sealed).await;
    });
    assert_eq!(found.expect("it opens").as_deref(), Some("nobody else's"));
}
