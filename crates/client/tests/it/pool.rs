//! The pool: bounded, used again, cleared of what is broken, and gone when the client is.

use std::pin::pin;
use std::time::Duration;

use henge_client::{Client, Error, SetOptions};
use tokio::time::{advance, pause, resume};

use crate::server::{SCHEMES, Server};

#[tokio::test]
async fn connections_are_used_again() {
    for scheme in SCHEMES {
        let server = Server::listen(scheme).await;
        let url = server.url();
        let ((), mut peer) = tokio::join!(
            async {
                let client = Client::connect(&url).await.expect("it listens");
                for _ in 0..3 {
                    assert!(client.get("k").await.is_ok());
                    assert!(client.set("k", "v", SetOptions::new()).await.is_ok());
                }
            },
            async {
                let mut peer = server.meet().await;
                for _ in 0..3 {
                    assert_eq!(peer.request().await.as_deref(), Some("GET k"));
                    peer.answer_value("v").await;
                    assert_eq!(peer.request().await.as_deref(), Some("SET k"));
                    peer.answer_stored().await;
                }
                peer
            }
        );
        // With the client its connections went, and it started no task that could still run.
        assert_eq!(peer.request().await, None, "{scheme}");
        let tasks = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        assert_eq!(tasks, 0, "{scheme}");
    }
}

#[tokio::test]
async fn there_are_no_more_connections_than_allowed() {
    for scheme in SCHEMES {
        let server = Server::listen(scheme).await;
        let timeout = Duration::from_mins(10);
        let builder = Client::builder(&server.url()).expect("a URL");
        let connecting = builder.pool_size(1).request_timeout(timeout).connect();
        let (client, mut peer) = tokio::join!(connecting, server.meet());
        let client = client.expect("it listens");

        // Two at once take turns on the one connection.
        let (first, second, ()) = tokio::join!(client.get("a"), client.get("b"), async {
            for key in ["a", "b"] {
                assert_eq!(peer.request().await, Some(format!("GET {key}")));
                peer.answer_value(key).await;
            }
        });
        assert_eq!(first.expect("answered").as_deref(), Some(&b"a"[..]));
        assert_eq!(second.expect("answered").as_deref(), Some(&b"b"[..]));

        // Who waits longer than a request may take is told that nothing was sent.
        let mut held = pin!(client.get("a"));
        tokio::select! {
            value = &mut held => panic!("{value:?}"),
            request = peer.request() => assert_eq!(request.as_deref(), Some("GET a")),
        }
        let (late, ()) = tokio::join!(client.set("b", "v", SetOptions::new()), async {
            pause();
            advance(timeout).await;
            resume();
        });
        assert!(matches!(late, Err(Error::Busy(_))), "{scheme}: {late:?}");
        let held = held.await;
        assert!(matches!(held, Err(Error::Unanswered(_))), "{held:?}");
        assert_eq!(peer.request().await, None, "the set was never sent");
    }
}

#[tokio::test]
async fn a_connection_that_closed_while_it_was_idle_is_not_used_for_a_write() {
    let server = Server::listen("redis").await;
    let url = server.url();
    let (client, peer) = tokio::join!(Client::connect(&url), server.meet());
    let client = client.expect("it listens");
    drop(peer);
    let (stored, ()) = tokio::join!(client.set("k", "v", SetOptions::new()), async {
        let mut fresh = server.accept().await;
        assert_eq!(fresh.request().await.as_deref(), Some("SET k"));
        fresh.answer_stored().await;
    });
    assert!(stored.expect("it went over a fresh one"));
}
