//! What goes wrong, and what the client says about it: above all whether a write may have happened.

use std::time::Duration;

use henge_client::{Cause, Client, Error, SetOptions};
use tokio::time::{advance, pause, resume};

use crate::server::{SCHEMES, Server};

/// Longer than any test takes; where a time-out is tested, it is advanced by hand.
const TIMEOUT: Duration = Duration::from_mins(10);

/// A client, the server's listener, and the server's end of the first connection.
async fn connected(scheme: &'static str) -> (Client, Server, crate::server::Peer) {
    let server = Server::listen(scheme).await;
    let url = server.url();
    let builder = Client::builder(&url).expect("a URL");
    let connecting = builder.request_timeout(TIMEOUT).connect();
    let (client, peer) = tokio::join!(connecting, server.meet());
    (client.expect("it listens"), server, peer)
}

#[tokio::test]
async fn a_read_on_a_broken_connection_is_sent_once_more_on_a_fresh_one() {
    for scheme in SCHEMES {
        let (client, server, mut peer) = connected(scheme).await;
        let (value, mut peer) = tokio::join!(client.get("k"), async {
            assert_eq!(peer.request().await.as_deref(), Some("GET k"));
            drop(peer);
            let mut fresh = server.accept().await;
            assert_eq!(fresh.request().await.as_deref(), Some("GET k"));
            fresh.answer_value("v").await;
            fresh
        });
        assert_eq!(
            value.expect("answered").as_deref(),
            Some(&b"v"[..]),
            "{scheme}"
        );

        // Once, and not for ever.
        let (value, ()) = tokio::join!(client.get("k"), async {
            assert_eq!(peer.request().await.as_deref(), Some("GET k"));
            drop(peer);
            let mut fresh = server.accept().await;
            assert_eq!(fresh.request().await.as_deref(), Some("GET k"));
        });
        assert!(
            matches!(value, Err(Error::Unanswered(Cause::Closed))),
            "{scheme}: {value:?}"
        );
    }
}

#[tokio::test]
async fn a_write_that_was_sent_and_not_answered_is_unknown_and_not_sent_again() {
    for scheme in SCHEMES {
        let (client, server, mut peer) = connected(scheme).await;
        let (stored, ()) = tokio::join!(client.set("k", "v", SetOptions::new()), async {
            assert_eq!(peer.request().await.as_deref(), Some("SET k"));
            drop(peer);
        });
        assert!(
            matches!(stored, Err(Error::Unknown(Cause::Closed))),
            "{scheme}: {stored:?}"
        );
        // What comes next is the next request, on a connection of its own.
        let (value, ()) = tokio::join!(client.get("k"), async {
            let mut peer = server.accept().await;
            assert_eq!(peer.request().await.as_deref(), Some("GET k"));
            peer.answer_value("v").await;
        });
        assert!(value.is_ok(), "{scheme}: {value:?}");
    }
}

#[tokio::test]
async fn after_its_time_a_write_is_unknown_and_a_read_unanswered() {
    for scheme in SCHEMES {
        for is_write in [true, false] {
            let (client, server, mut peer) = connected(scheme).await;
            let request = async {
                if is_write {
                    client.set("k", "v", SetOptions::new()).await.map(drop)
                } else {
                    client.get("k").await.map(drop)
                }
            };
            let (result, ()) = tokio::join!(request, async {
                assert!(peer.request().await.is_some());
                pause();
                advance(TIMEOUT).await;
                resume();
            });
            match result {
                Err(Error::Unknown(Cause::TimedOut(_))) => assert!(is_write),
                Err(Error::Unanswered(Cause::TimedOut(_))) => assert!(!is_write),
                other => panic!("{scheme}: {other:?}"),
            }
            // The late answer would be taken for the next one's; so the connection is gone.
            assert_eq!(peer.request().await, None);
            let (value, ()) = tokio::join!(client.get("other"), async {
                let mut fresh = server.accept().await;
                assert_eq!(fresh.request().await.as_deref(), Some("GET other"));
                fresh.answer_value("v").await;
            });
            assert!(value.is_ok(), "{scheme}: {value:?}");
        }
    }
}

#[tokio::test]
async fn a_write_that_did_not_arrive_as_a_whole_did_not_happen() {
    let (client, _server, mut peer) = connected("redis").await;
    // More than the system buffers, so that a part of it is never sent.
    let value = vec![b'v'; 64 << 20];
    let (stored, ()) = tokio::join!(client.set("k", &value, SetOptions::new()), async {
        let mut some = [0; 10];
        tokio::io::AsyncReadExt::read_exact(&mut peer.stream, &mut some)
            .await
            .expect("it begins");
        drop(peer);
    });
    assert!(
        matches!(stored, Err(Error::Unanswered(Cause::Closed))),
        "{stored:?}"
    );
}

#[tokio::test]
async fn a_request_that_is_given_up_takes_its_connection_with_it() {
    for scheme in SCHEMES {
        let (client, server, mut peer) = connected(scheme).await;
        tokio::select! {
            value = client.get("k") => panic!("{value:?}"),
            request = peer.request() => assert_eq!(request.as_deref(), Some("GET k")),
        }
        assert_eq!(peer.request().await, None, "it is closed");
        let (value, ()) = tokio::join!(client.get("other"), async {
            let mut fresh = server.accept().await;
            assert_eq!(fresh.request().await.as_deref(), Some("GET other"));
            fresh.answer_value("v").await;
        });
        assert!(value.is_ok(), "{scheme}: {value:?}");
    }
}

#[tokio::test]
async fn what_the_server_refuses_leaves_the_connection_as_good_as_before() {
    for scheme in SCHEMES {
        let (client, _server, mut peer) = connected(scheme).await;
        let ((), ()) = tokio::join!(
            async {
                let refused = client.set("k", "v", SetOptions::new()).await;
                let Err(Error::Refused { code, message }) = refused else {
                    panic!("{refused:?}");
                };
                assert_eq!((code.as_str(), message.as_str()), ("ERR", "not today"));
                assert!(client.get("k").await.is_ok());
            },
            async {
                assert_eq!(peer.request().await.as_deref(), Some("SET k"));
                peer.answer_refusal().await;
                assert_eq!(peer.request().await.as_deref(), Some("GET k"));
                peer.answer_value("v").await;
            }
        );
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_not_asked_for_again() {
    for (scheme, nonsense) in [
        ("redis", "HTTP/1.1 400 Bad Request\r\n\r\n"),
        ("redis", "*400000\r\n"),
        ("redis", ":1\r\n"),
        ("http", "-ERR unknown command\r\n\r\n"),
    ] {
        let (client, _server, mut peer) = connected(scheme).await;
        let (value, ()) = tokio::join!(client.get("k"), async {
            assert!(peer.request().await.is_some());
            peer.send(nonsense.as_bytes()).await;
        });
        assert!(
            matches!(value, Err(Error::Unanswered(Cause::Protocol(_)))),
            "{nonsense:?}: {value:?}"
        );
        assert_eq!(peer.request().await, None, "the connection is given up");
    }
}

#[tokio::test]
async fn answers_are_bounded() {
    for (scheme, head) in [
        ("redis", "$2000\r\n"),
        ("http", "HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n"),
    ] {
        let server = Server::listen(scheme).await;
        let builder = Client::builder(&server.url()).expect("a URL");
        let connecting = builder.max_answer_bytes(1000).connect();
        let (client, mut peer) = tokio::join!(connecting, server.meet());
        let client = client.expect("it listens");
        let (value, ()) = tokio::join!(client.get("k"), async {
            assert!(peer.request().await.is_some());
            let body = [head.as_bytes(), &[b'x'; 2000]].concat();
            peer.send(&body).await;
        });
        assert!(
            matches!(value, Err(Error::Unanswered(Cause::Protocol(_)))),
            "{scheme}: {value:?}"
        );
    }
}

#[tokio::test]
async fn where_nobody_listens_there_is_no_client() {
    for scheme in SCHEMES {
        let url = Server::listen(scheme).await.url();
        let refused = Client::connect(&url).await;
        let Err(Error::Connect { server, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert!(url.ends_with(&server));
    }
}

#[tokio::test]
async fn what_no_server_could_take_is_not_sent() {
    for scheme in SCHEMES {
        let (client, _server, mut peer) = connected(scheme).await;
        let zero = client.expire("k", Duration::ZERO).await;
        assert!(matches!(zero, Err(Error::Argument(_))), "{zero:?}");
        let page = client.scan("*").page_keys(0).next_page().await;
        assert!(matches!(page, Err(Error::Argument(_))), "{page:?}");
        drop(client);
        assert_eq!(peer.request().await, None, "{scheme}: nothing came");
    }
}
