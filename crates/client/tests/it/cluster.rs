//! Several servers that tell a map: who is asked, where a request is sent again, and where it never is.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use henge_client::{Cause, Client, Error, SetOptions};
use tokio::time::{advance, pause, resume};

use crate::server::{Peer, SCHEMES, Server};

/// Longer than any test takes.
const TIMEOUT: Duration = Duration::from_mins(10);

/// A key of the first half of the slots, and one of the second.
const FIRST: &str = "bar";
const SECOND: &str = "foo";

/// A map by which each server owns as many slots as the others, the first server the first ones.
fn map(servers: &[&Server]) -> String {
    let width = 16384 / servers.len();
    if servers[0].scheme() == "redis" {
        let mut text = format!("*{}\r\n", servers.len());
        for (place, server) in servers.iter().enumerate() {
            let (first, last) = (place * width, (place + 1) * width - 1);
            let port = server.port();
            let _ = write!(
                text,
                "*4\r\n$5\r\nslots\r\n*2\r\n:{first}\r\n:{last}\r\n$5\r\nnodes\r\n*1\r\n*8\r\n\
                 $4\r\nport\r\n:{port}\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n\
                 $4\r\nrole\r\n$6\r\nmaster\r\n$6\r\nhealth\r\n$6\r\nonline\r\n"
            );
        }
        return text;
    }
    let mut members = Vec::new();
    let mut owners = Vec::new();
    for (place, server) in servers.iter().enumerate() {
        let (first, last) = (place * width / 16, (place + 1) * width / 16 - 1);
        let port = server.port();
        members.push(format!(
            r#"{{"id":{place},"name":"n","address":"127.0.0.1:{port}","state":"up"}}"#
        ));
        owners.push(format!("[{first},{last},{place}]"));
    }
    let (members, owners) = (members.join(","), owners.join(","));
    let body = format!(
        r#"{{"members":[{members}],"partitions":{{"count":1024,"owners":[{owners}]}},"epoch":1}}"#
    );
    let len = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\n\r\n{body}")
}

/// Two servers that share the slots, a client, and its first connection, which is to the first server.
async fn two(scheme: &'static str) -> (Client, [Server; 2], Peer) {
    let servers = [Server::listen(scheme).await, Server::listen(scheme).await];
    let builder = Client::builder(&servers[0].url()).expect("a URL");
    let connecting = builder.request_timeout(TIMEOUT).connect();
    let map = map(&[&servers[0], &servers[1]]);
    let (client, peer) = tokio::join!(connecting, servers[0].meet_with(&map));
    (client.expect("it listens"), servers, peer)
}

async fn get(client: &Client, key: &str) -> Option<String> {
    let value = client.get(key).await.expect("it is answered")?;
    Some(String::from_utf8(value.to_vec()).expect("a text"))
}

async fn set(client: &Client, key: &str) -> Result<bool, Error> {
    client.set(key, "v", SetOptions::new()).await
}

async fn expect(peer: &mut Peer, request: &str) {
    assert_eq!(peer.request().await.as_deref(), Some(request));
}

#[tokio::test]
async fn a_key_goes_to_its_owner() {
    for scheme in SCHEMES {
        let (client, [_first, second], mut to_first) = two(scheme).await;
        let (value, mut to_second) = tokio::join!(get(&client, SECOND), async {
            let mut peer = second.accept().await;
            expect(&mut peer, "GET foo").await;
            peer.answer_value("2").await;
            peer
        });
        assert_eq!(value.as_deref(), Some("2"), "{scheme}");
        let (value, ()) = tokio::join!(get(&client, FIRST), async {
            expect(&mut to_first, "GET bar").await;
            to_first.answer_value("1").await;
        });
        assert_eq!(value.as_deref(), Some("1"), "{scheme}");
        let (stored, ()) = tokio::join!(set(&client, SECOND), async {
            expect(&mut to_second, "SET foo").await;
            to_second.answer_stored().await;
        });
        assert!(stored.expect("answered"), "{scheme}");
    }
}

/// Each member has a pool, so one that is slow holds up nobody else's requests.
#[tokio::test]
async fn each_member_has_a_pool_of_its_own() {
    let servers = [Server::listen("redis").await, Server::listen("redis").await];
    let builder = Client::builder(&servers[0].url()).expect("a URL");
    let connecting = builder.pool_size(1).request_timeout(TIMEOUT).connect();
    let map = map(&[&servers[0], &servers[1]]);
    let (client, mut to_first) = tokio::join!(connecting, servers[0].meet_with(&map));
    let client = client.expect("it listens");
    let mut held = std::pin::pin!(get(&client, FIRST));
    tokio::select! {
        value = &mut held => panic!("{value:?}"),
        () = expect(&mut to_first, "GET bar") => {}
    }
    let (value, ()) = tokio::join!(get(&client, SECOND), async {
        let mut peer = servers[1].accept().await;
        expect(&mut peer, "GET foo").await;
        peer.answer_value("2").await;
    });
    assert_eq!(value.as_deref(), Some("2"));
}

#[tokio::test]
async fn who_is_sent_elsewhere_goes_there_and_remembers() {
    let (client, [_first, second], mut to_first) = two("redis").await;
    // A write too: it was not carried out.
    let (stored, mut to_second) = tokio::join!(set(&client, FIRST), async {
        expect(&mut to_first, "SET bar").await;
        let moved = format!("-MOVED 5061 127.0.0.1:{}\r\n", second.port());
        to_first.send(moved.as_bytes()).await;
        let mut peer = second.accept().await;
        expect(&mut peer, "SET bar").await;
        peer.answer_stored().await;
        peer
    });
    assert!(stored.expect("answered"));
    let (value, ()) = tokio::join!(get(&client, FIRST), async {
        expect(&mut to_second, "GET bar").await;
        to_second.answer_value("v").await;
    });
    assert_eq!(value.as_deref(), Some("v"));
    // Of other slots nothing was said.
    let (value, ()) = tokio::join!(get(&client, "{user1000}.following"), async {
        expect(&mut to_first, "GET {user1000}.following").await;
        to_first.answer_value("w").await;
    });
    assert_eq!(value.as_deref(), Some("w"));
}

/// After a redirection the map is asked for, beside a request, by one request at a time and not at once again.
#[tokio::test]
async fn the_map_is_asked_for_again_but_not_often() {
    let (client, [first, second], mut to_first) = two("redis").await;
    let (value, to_second) = tokio::join!(get(&client, FIRST), async {
        expect(&mut to_first, "GET bar").await;
        let moved = format!("-MOVED 5061 127.0.0.1:{}\r\n", second.port());
        to_first.send(moved.as_bytes()).await;
        let mut peer = second.accept().await;
        expect(&mut peer, "GET bar").await;
        peer.answer_value("v").await;
        peer
    });
    assert_eq!(value.as_deref(), Some("v"));
    pause();
    advance(Duration::from_secs(2)).await;
    resume();
    // One of two requests asks, whomever it may be; the other is not held up.
    let new_map = map(&[&second, &first]);
    let servers = [&first, &second];
    let mut connections = vec![(0, to_first), (1, to_second)];
    let mut asked = 0;
    let (one, other, ()) = tokio::join!(get(&client, FIRST), get(&client, FIRST), async {
        for _ in 0..3 {
            let (request, (_, peer)) = next(&mut connections, servers).await;
            match request.as_str() {
                "CLUSTER SHARDS" => {
                    asked += 1;
                    peer.send(new_map.as_bytes()).await;
                }
                "GET bar" => peer.answer_value("v").await,
                other => panic!("{other}"),
            }
        }
    });
    assert_eq!((one.as_deref(), other.as_deref()), (Some("v"), Some("v")));
    assert_eq!(asked, 1);
    // By the new map the two have changed places.
    for (key, owner) in [(FIRST, 1), ("{user1000}.following", 1), (SECOND, 0)] {
        let (value, ()) = tokio::join!(get(&client, key), async {
            let (request, (server, peer)) = next(&mut connections, servers).await;
            assert_eq!((request, *server), (format!("GET {key}"), owner));
            peer.answer_value("w").await;
        });
        assert_eq!(value.as_deref(), Some("w"));
    }
}

/// A node that forwards what is not its own need not say so, so a map grows old unnoticed.
#[tokio::test]
async fn an_old_map_is_asked_for_again() {
    for scheme in SCHEMES {
        for is_silent in [false, true] {
            let (client, [first, second], to_first) = two(scheme).await;
            pause();
            advance(Duration::from_secs(61)).await;
            resume();
            let servers = [&first, &second];
            let new_map = map(&[&second, &first]);
            let mut connections = vec![(0, to_first)];
            let (value, ()) = tokio::join!(get(&client, FIRST), async {
                for _ in 0..2 {
                    let (request, (_, peer)) = next(&mut connections, servers).await;
                    match request.as_str() {
                        "GET bar" => peer.answer_value("v").await,
                        "CLUSTER SHARDS" | "GET /cluster/status" if is_silent => {}
                        "CLUSTER SHARDS" | "GET /cluster/status" => {
                            peer.send(new_map.as_bytes()).await;
                        }
                        other => panic!("{other}"),
                    }
                }
                if is_silent {
                    // The request waits for it only so long.
                    pause();
                    advance(Duration::from_secs(1)).await;
                    resume();
                }
            });
            assert_eq!(value.as_deref(), Some("v"), "{scheme}");
            if is_silent {
                continue;
            }
            let (value, ()) = tokio::join!(get(&client, FIRST), async {
                let (request, (server, peer)) = next(&mut connections, servers).await;
                assert_eq!((request.as_str(), *server), ("GET bar", 1), "{scheme}");
                peer.answer_value("w").await;
            });
            assert_eq!(value.as_deref(), Some("w"), "{scheme}");
        }
    }
}

/// The next request on any of these connections, or on a new one of these servers; and which connection that is, behind its
/// server's place.
async fn next<'a>(
    connections: &'a mut Vec<(usize, Peer)>,
    servers: [&Server; 2],
) -> (String, &'a mut (usize, Peer)) {
    let requests = connections
        .iter_mut()
        .map(|(_, peer)| Box::pin(peer.request()));
    let mut requests: Vec<_> = requests.collect();
    let any = poll_fn(|context| {
        for (place, request) in requests.iter_mut().enumerate() {
            if let Poll::Ready(request) = request.as_mut().poll(context) {
                return Poll::Ready((request, place));
            }
        }
        Poll::Pending
    });
    let (fresh, server) = tokio::select! {
        (request, place) = any => {
            drop(requests);
            return (request.expect("it is open"), &mut connections[place]);
        }
        peer = servers[0].accept() => (peer, 0),
        peer = servers[1].accept() => (peer, 1),
    };
    drop(requests);
    connections.push((server, fresh));
    let last = connections.last_mut().expect("it was pushed");
    let request = last.1.request().await.expect("a fresh one has a request");
    (request, last)
}

#[tokio::test]
async fn servers_that_name_each_other_are_found_out() {
    let (client, [first, second], mut to_first) = two("redis").await;
    let (stored, ()) = tokio::join!(set(&client, FIRST), async {
        let mut to_second = None;
        for _ in 0..4 {
            expect(&mut to_first, "SET bar").await;
            let moved = format!("-MOVED 5061 127.0.0.1:{}\r\n", second.port());
            to_first.send(moved.as_bytes()).await;
            if to_second.is_none() {
                to_second = Some(second.accept().await);
            }
            let peer = to_second.as_mut().expect("it was accepted");
            expect(peer, "SET bar").await;
            let moved = format!("-MOVED 5061 127.0.0.1:{}\r\n", first.port());
            peer.send(moved.as_bytes()).await;
        }
    });
    let Err(Error::Refused { code, .. }) = stored else {
        panic!("{stored:?}");
    };
    assert_eq!(code, "MOVED");
}

#[tokio::test]
async fn who_is_told_to_ask_does_so_once() {
    let (client, [_first, second], mut to_first) = two("redis").await;
    let ask = format!("-ASK 5061 127.0.0.1:{}\r\n", second.port());
    let (stored, mut to_second) = tokio::join!(set(&client, FIRST), async {
        expect(&mut to_first, "SET bar").await;
        to_first.send(ask.as_bytes()).await;
        let mut peer = second.accept().await;
        expect(&mut peer, "ASKING").await;
        expect(&mut peer, "SET bar").await;
        peer.send(b"+OK\r\n+OK\r\n").await;
        peer
    });
    assert!(stored.expect("answered"));
    // The owner is who it was, and who asks is not sent on for ever.
    let (stored, ()) = tokio::join!(set(&client, FIRST), async {
        expect(&mut to_first, "SET bar").await;
        to_first.send(ask.as_bytes()).await;
        expect(&mut to_second, "ASKING").await;
        expect(&mut to_second, "SET bar").await;
        to_second.send(b"+OK\r\n").await;
        to_second.send(ask.as_bytes()).await;
    });
    assert!(matches!(stored, Err(Error::Refused { .. })), "{stored:?}");
    // A write that was sent behind ASKING is as unknown as any.
    let (stored, ()) = tokio::join!(set(&client, FIRST), async {
        expect(&mut to_first, "SET bar").await;
        to_first.send(ask.as_bytes()).await;
        expect(&mut to_second, "ASKING").await;
        expect(&mut to_second, "SET bar").await;
        to_second.send(b"+OK\r\n").await;
        drop(to_second);
    });
    assert!(
        matches!(stored, Err(Error::Unknown(Cause::Closed))),
        "{stored:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_sent_to_the_owner_is_sent_to_another() {
    for scheme in SCHEMES {
        let (client, [first, second], mut to_first) = two(scheme).await;
        drop(second);
        // Nobody listens there, so not even a write was sent.
        let (stored, ()) = tokio::join!(set(&client, SECOND), async {
            expect(&mut to_first, "SET foo").await;
            to_first.answer_stored().await;
        });
        assert!(stored.expect("answered"), "{scheme}");
        drop(first);
        drop(to_first);
        let value = client.get(SECOND).await;
        assert!(
            matches!(value, Err(Error::Connect { .. })),
            "{scheme}: {value:?}"
        );
    }
}

#[tokio::test]
async fn a_write_that_was_sent_and_not_answered_goes_nowhere_else() {
    for scheme in SCHEMES {
        let (client, [first, second], to_first) = two(scheme).await;
        let (stored, ()) = tokio::join!(set(&client, SECOND), async {
            let mut peer = second.accept().await;
            expect(&mut peer, "SET foo").await;
        });
        assert!(
            matches!(stored, Err(Error::Unknown(Cause::Closed))),
            "{scheme}: {stored:?}"
        );
        // What comes next is the next request, by way of whoever it may be.
        let (value, ()) = tokio::join!(client.get(SECOND), async {
            let mut connections = vec![(0, to_first)];
            let (request, (_, peer)) = next(&mut connections, [&first, &second]).await;
            assert_eq!(request, "GET foo");
            peer.answer_value("v").await;
        });
        assert!(value.is_ok(), "{scheme}: {value:?}");
    }
}

#[tokio::test]
async fn an_owner_that_failed_is_passed_over_for_a_while() {
    let (client, [_first, second], mut to_first) = two("redis").await;
    // Each time for longer; in the end for five seconds, and the rest of the test takes less.
    for _ in 0..7 {
        let (stored, ()) = tokio::join!(set(&client, SECOND), async {
            let mut peer = second.accept().await;
            expect(&mut peer, "SET foo").await;
        });
        assert!(matches!(stored, Err(Error::Unknown(_))), "{stored:?}");
        pause();
        advance(Duration::from_secs(6)).await;
        resume();
    }
    let (stored, ()) = tokio::join!(set(&client, SECOND), async {
        let mut peer = second.accept().await;
        expect(&mut peer, "SET foo").await;
    });
    assert!(matches!(stored, Err(Error::Unknown(_))), "{stored:?}");
    let (stored, ()) = tokio::join!(set(&client, SECOND), async {
        expect(&mut to_first, "SET foo").await;
        to_first.answer_stored().await;
    });
    assert!(stored.expect("answered"));
    pause();
    advance(Duration::from_secs(6)).await;
    resume();
    // Then it is tried, and after an answer it is as good as ever.
    let (stored, ()) = tokio::join!(
        async { (set(&client, SECOND).await, set(&client, SECOND).await) },
        async {
            let mut peer = second.accept().await;
            for _ in 0..2 {
                expect(&mut peer, "SET foo").await;
                peer.answer_stored().await;
            }
        }
    );
    assert!(stored.0.is_ok() && stored.1.is_ok(), "{stored:?}");
}

#[tokio::test]
async fn a_refusal_that_passes_is_waited_for() {
    for refusal in [
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Later",
        "LOADING It loads",
    ] {
        let (client, [_first, second], mut to_first) = two("redis").await;
        let (stored, ()) = tokio::join!(set(&client, FIRST), async {
            expect(&mut to_first, "SET bar").await;
            to_first.send(format!("-{refusal}\r\n").as_bytes()).await;
            let mut to_second;
            // One that loads is passed over, as others can forward.
            let peer = if refusal.starts_with("LOADING") {
                to_second = second.accept().await;
                &mut to_second
            } else {
                &mut to_first
            };
            expect(peer, "SET bar").await;
            peer.answer_stored().await;
        });
        assert!(stored.expect("answered"), "{refusal}");
    }
    // Not for ever.
    let (client, _servers, mut to_first) = two("redis").await;
    let (stored, ()) = tokio::join!(set(&client, FIRST), async {
        for _ in 0..8 {
            expect(&mut to_first, "SET bar").await;
            to_first
                .send(b"-CLUSTERDOWN Hash slot not served\r\n")
                .await;
        }
    });
    let Err(Error::Refused { code, .. }) = stored else {
        panic!("{stored:?}");
    };
    assert_eq!(code, "CLUSTERDOWN");
}

/// One server by itself has nobody else that could do better, and says at once what is the matter.
#[tokio::test]
async fn a_server_by_itself_is_asked_once() {
    let server = Server::listen("redis").await;
    let url = server.url();
    let (client, mut peer) = tokio::join!(Client::connect(&url), server.meet());
    let client = client.expect("it listens");
    let (stored, ()) = tokio::join!(set(&client, FIRST), async {
        expect(&mut peer, "SET bar").await;
        peer.send(b"-LOADING It loads\r\n").await;
    });
    assert!(matches!(stored, Err(Error::Refused { .. })), "{stored:?}");
    // Nor is it asked for a map again.
    pause();
    advance(TIMEOUT).await;
    resume();
    let (value, ()) = tokio::join!(get(&client, FIRST), async {
        expect(&mut peer, "GET bar").await;
        peer.answer_value("v").await;
    });
    assert_eq!(value.as_deref(), Some("v"));
}

#[tokio::test]
async fn older_forms_of_the_map_are_understood() {
    let [first, second] = [Server::listen("redis").await, Server::listen("redis").await];
    let url = first.url();
    let (client, mut to_first) = tokio::join!(Client::connect(&url), async {
        let mut peer = first
            .meet_with("-ERR Unknown subcommand or wrong number of arguments for 'SHARDS'.\r\n")
            .await;
        expect(&mut peer, "CLUSTER SLOTS").await;
        let range = |first: u16, last: u16, port: u16| {
            format!("*3\r\n:{first}\r\n:{last}\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n")
        };
        let ranges = [
            range(0, 8191, first.port()),
            range(8192, 16383, second.port()),
        ];
        peer.send(format!("*2\r\n{}", ranges.concat()).as_bytes())
            .await;
        peer
    });
    let client = client.expect("it listens");
    let (value, ()) = tokio::join!(get(&client, SECOND), async {
        let mut peer = second.accept().await;
        expect(&mut peer, "GET foo").await;
        peer.answer_value("2").await;
    });
    assert_eq!(value.as_deref(), Some("2"));
    let (value, ()) = tokio::join!(get(&client, FIRST), async {
        expect(&mut to_first, "GET bar").await;
        to_first.answer_value("1").await;
    });
    assert_eq!(value.as_deref(), Some("1"));
}

#[tokio::test]
async fn one_of_several_has_to_be_there() {
    for scheme in SCHEMES {
        let gone = Server::listen(scheme).await.url();
        let there = Server::listen(scheme).await;
        let urls = format!("{gone},{}", there.url());
        let (client, _peer) = tokio::join!(Client::connect(&urls), there.meet());
        assert!(client.is_ok(), "{client:?}");

        drop(there);
        let refused = Client::connect(&urls).await;
        let Err(Error::Connect { server, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert!(gone.ends_with(&server), "the first is named");
    }
}

/// One that takes the connection and says nothing leaves time for the others.
#[tokio::test]
async fn a_silent_one_is_left_for_another() {
    let silent = Server::listen("redis").await;
    let there = Server::listen("redis").await;
    let urls = format!("{},{}", silent.url(), there.url());
    let builder = Client::builder(&urls).expect("URLs");
    let connecting = builder.connect_timeout(TIMEOUT).connect();
    let (client, _) = tokio::join!(connecting, async {
        let mut peer = silent.accept().await;
        expect(&mut peer, "CLUSTER SHARDS").await;
        pause();
        advance(TIMEOUT / 2).await;
        resume();
        there.meet().await
    });
    assert!(client.is_ok(), "{client:?}");
}

#[test]
fn what_are_no_members_of_a_cluster() {
    for urls in [
        "",
        "redis://a,",
        "redis://a,http://a",
        "redis://a, redis://b",
    ] {
        assert!(Client::builder(urls).is_err(), "{urls:?}");
    }
    assert!(Client::builder("redis://a,redis://b:7").is_ok());
}

/// A page of a scan by the Redis protocol.
fn page(cursor: &str, key: &str) -> String {
    let (cursor_len, len) = (cursor.len(), key.len());
    format!("*2\r\n${cursor_len}\r\n{cursor}\r\n*1\r\n${len}\r\n{key}\r\n")
}

/// All keys that a client finds.
async fn scanned(client: &Client) -> Vec<Bytes> {
    let mut scan = client.scan("*");
    let mut found = Vec::new();
    while let Some(keys) = scan.next_page().await.expect("answered") {
        found.extend(keys);
    }
    found
}

/// The server, of two, that a new connection came to, and the connection.
async fn accept_any(servers: &[Server; 2]) -> Peer {
    tokio::select! {
        peer = servers[0].accept() => peer,
        peer = servers[1].accept() => peer,
    }
}

#[tokio::test]
async fn a_scan_asks_each_member() {
    for hello in [
        "*2\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n",
        "-ERR unknown command 'HELLO'\r\n",
    ] {
        let (client, servers, mut to_first) = two("redis").await;
        let (found, ()) = tokio::join!(scanned(&client), async {
            let mut fresh = accept_any(&servers).await;
            expect(&mut fresh, "HELLO").await;
            fresh.send(hello.as_bytes()).await;
            let mut to_second = servers[1].accept().await;
            expect(&mut to_second, "SCAN 0").await;
            to_second.send(page("17", "a").as_bytes()).await;
            expect(&mut to_second, "SCAN 17").await;
            to_second.send(page("0", "b").as_bytes()).await;
            expect(&mut to_first, "SCAN 0").await;
            to_first.send(page("0", "c").as_bytes()).await;
        });
        assert_eq!(found, ["a", "b", "c"]);
    }
}

#[tokio::test]
async fn a_node_of_henge_shows_the_keys_of_all() {
    let (client, servers, mut to_first) = two("redis").await;
    let (found, ()) = tokio::join!(scanned(&client), async {
        // The connection of the pool has asked for the map.
        let mut fresh = accept_any(&servers).await;
        expect(&mut fresh, "HELLO").await;
        let hello = "*4\r\n$6\r\nserver\r\n$5\r\nhenge\r\n$5\r\nproto\r\n:2\r\n";
        fresh.send(hello.as_bytes()).await;
        expect(&mut fresh, "SCAN 0").await;
        fresh.send(page("17", "a").as_bytes()).await;
        // From there on any connection to any node will do.
        let mut next = tokio::select! {
            peer = servers[1].accept() => peer,
            request = to_first.request() => {
                assert_eq!(request.as_deref(), Some("SCAN 17"));
                to_first.send(page("0", "b").as_bytes()).await;
                return;
            }
        };
        expect(&mut next, "SCAN 17").await;
        next.send(page("0", "b").as_bytes()).await;
    });
    assert_eq!(found, ["a", "b"]);
}
