//! Many requests over one connection before the first is answered.

use henge_client::{Answer, Cause, Connection, Error, Request, SetOptions, Settings};

use crate::server::{SCHEMES, Server};

async fn connected(scheme: &'static str) -> (Connection, crate::server::Peer) {
    let server = Server::listen(scheme).await;
    let target = server.url().parse().expect("a URL");
    let opening = Connection::open(&target, Settings::default());
    let (connection, peer) = tokio::join!(opening, server.accept());
    (connection.expect("it listens"), peer)
}

const GET: Request<'_> = Request::Get { key: b"k" };
const SET: Request<'_> = Request::Set {
    key: b"k",
    value: b"v",
    options: SetOptions::NONE,
};

#[tokio::test]
async fn each_request_has_its_answer() {
    for scheme in SCHEMES {
        let (mut connection, mut peer) = connected(scheme).await;
        let mut answers = Vec::new();
        let requests = [GET, SET, SET, GET];
        let (done, ()) = tokio::join!(
            connection.pipeline(&requests, |place, answer| {
                answers.push((place, answer.map_err(|error| error.to_string())));
            }),
            async {
                assert_eq!(peer.request().await.as_deref(), Some("GET k"));
                peer.answer_value("a").await;
                assert_eq!(peer.request().await.as_deref(), Some("SET k"));
                peer.answer_stored().await;
                assert_eq!(peer.request().await.as_deref(), Some("SET k"));
                peer.answer_refusal().await;
                assert_eq!(peer.request().await.as_deref(), Some("GET k"));
                peer.answer_value("b").await;
            }
        );
        assert!(done.is_ok(), "{scheme}: {done:?}");
        let expected = [
            (0, Ok(Answer::Value(Some("a".into())))),
            (1, Ok(Answer::Stored(true))),
            (2, Err("the server refused: ERR: not today".to_owned())),
            (3, Ok(Answer::Value(Some("b".into())))),
        ];
        assert_eq!(answers, expected, "{scheme}");
        assert!(connection.is_usable());
    }
}

#[tokio::test]
async fn of_writes_after_the_last_answer_the_outcome_is_unknown() {
    for (requests, answered, is_unknown) in [
        (&[GET, SET][..], 1, true),
        (&[SET, GET], 1, false),
        (&[SET, GET], 0, true),
        (&[GET, GET], 0, false),
    ] {
        let (mut connection, mut peer) = connected("redis").await;
        let mut count = 0;
        let (done, ()) = tokio::join!(
            connection.pipeline(requests, |_, answer| {
                assert!(answer.is_ok());
                count += 1;
            }),
            async {
                for (place, request) in requests.iter().enumerate() {
                    assert!(peer.request().await.is_some());
                    match request {
                        _ if place >= answered => {}
                        Request::Get { .. } => peer.answer_value("v").await,
                        _ => peer.answer_stored().await,
                    }
                }
                drop(peer);
            }
        );
        match done {
            Err(Error::Unknown(Cause::Closed)) => assert!(is_unknown),
            Err(Error::Unanswered(Cause::Closed)) => assert!(!is_unknown),
            other => panic!("{other:?}"),
        }
        assert_eq!(count, answered);
        assert!(!connection.is_usable());
    }
}

/// The server reads nothing more until its first answers are taken. Neither end's buffers hold all of it, so a client that
/// writes everything before it reads would wait for ever.
#[tokio::test]
async fn answers_are_read_while_requests_are_written() {
    let (mut connection, mut peer) = connected("redis").await;
    let value = vec![b'v'; 1 << 20];
    let set = Request::Set {
        key: b"k",
        value: &value,
        options: SetOptions::NONE,
    };
    let requests: Vec<Request<'_>> = [GET].into_iter().chain([set; 24]).collect();
    let mut count = 0;
    let (done, ()) = tokio::join!(connection.pipeline(&requests, |_, _| count += 1), async {
        assert_eq!(peer.request().await.as_deref(), Some("GET k"));
        // Larger than the buffers: sent only if the client reads.
        peer.answer_value(&"a".repeat(24 << 20)).await;
        for _ in 0..24 {
            assert_eq!(peer.request().await.as_deref(), Some("SET k"));
            peer.answer_stored().await;
        }
    });
    assert!(done.is_ok(), "{done:?}");
    assert_eq!(count, 25);
}

/// A server that has said all before it has heard all is not asked again: it may take the rest for something else.
#[tokio::test]
async fn a_connection_with_unsent_bytes_is_given_up() {
    let (mut connection, mut peer) = connected("redis").await;
    let value = vec![b'v'; 64 << 20];
    let set = Request::Set {
        key: b"k",
        value: &value,
        options: SetOptions::NONE,
    };
    let requests = [set];
    let mut refused = None;
    let (done, ()) = tokio::join!(
        connection.pipeline(&requests, |_, answer| refused = Some(answer)),
        peer.answer_refusal()
    );
    assert!(done.is_ok(), "{done:?}");
    assert!(matches!(refused, Some(Err(Error::Refused { .. }))));
    assert!(!connection.is_usable());
}

/// The answer to the first could be taken for one to the second.
#[tokio::test]
async fn a_connection_whose_request_was_given_up_takes_no_other() {
    for scheme in SCHEMES {
        let (mut connection, mut peer) = connected(scheme).await;
        tokio::select! {
            answer = connection.execute(&GET) => panic!("{answer:?}"),
            request = peer.request() => assert_eq!(request.as_deref(), Some("GET k")),
        }
        peer.answer_value("late").await;
        let answer = connection.execute(&GET).await;
        assert!(
            matches!(answer, Err(Error::Unanswered(Cause::Closed))),
            "{scheme}: {answer:?}"
        );
        assert!(!connection.is_usable(), "{scheme}");
    }
}
