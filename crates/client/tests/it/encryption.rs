//! A client with encryption: what a server gets of a value, and what it may answer.

use henge_client::{
    Answer, Client, EncryptionError, EncryptionKeys, Error, Lifetime, Request, SetOptions,
};

use crate::server::{Peer, SCHEMES, Server};

const SECRET: &[u8] = b"nobody but us knows this";

fn keys(numbers: &[u8]) -> EncryptionKeys {
    let keys = numbers.iter().map(|&byte| (u32::from(byte), [byte; 32]));
    EncryptionKeys::new(keys).expect("keys")
}

async fn connected(scheme: &'static str, keys: EncryptionKeys) -> (Client, Peer) {
    let server = Server::listen(scheme).await;
    let builder = Client::builder(&server.url()).expect("a URL");
    let connecting = builder.encryption(keys).connect();
    let (client, peer) = tokio::join!(connecting, server.meet());
    (client.expect("it listens"), peer)
}

/// What a server gets for this value of `k`.
async fn stored(client: &Client, peer: &mut Peer, value: &[u8]) -> Vec<u8> {
    let set = client.set("k", value, SetOptions::new());
    let (stored, raw) = tokio::join!(set, async {
        assert_eq!(peer.request().await.as_deref(), Some("SET k"));
        peer.answer_stored().await;
        peer.raw.clone()
    });
    assert!(stored.expect("answered"));
    if !value.is_empty() {
        let mut windows = raw.windows(value.len());
        assert!(windows.all(|window| window != value), "it is there");
    }
    let mut windows = raw.windows(4);
    let at = windows.position(|window| window == b"\x89HSV");
    let at = at.expect("a sealed value");
    raw[at..at + 37 + value.len()].to_vec()
}

/// What the client makes of a server's value of `k`.
async fn read(client: &Client, peer: &mut Peer, value: &[u8]) -> Result<Vec<u8>, Error> {
    let (value, ()) = tokio::join!(client.get("k"), async {
        assert_eq!(peer.request().await.as_deref(), Some("GET k"));
        peer.answer_value(value).await;
    });
    value.map(|value| value.expect("it is there").to_vec())
}

#[tokio::test]
async fn a_server_has_ciphertext_only() {
    for scheme in SCHEMES {
        let (client, mut peer) = connected(scheme, keys(&[1])).await;
        for value in [SECRET, b""] {
            let first = stored(&client, &mut peer, value).await;
            let second = stored(&client, &mut peer, value).await;
            assert_ne!(first, second, "{scheme}: equal values do not look equal");
            for sealed in [first, second] {
                let found = read(&client, &mut peer, &sealed).await;
                assert_eq!(found.expect("it opens"), value, "{scheme}");
            }
        }
        assert!(!format!("{client:?}").contains("1, 1, 1"), "{client:?}");
    }
}

#[tokio::test]
async fn requests_by_themselves_are_sealed_and_opened_too() {
    let (client, mut peer) = connected("redis", keys(&[1])).await;
    let set = Request::Set {
        key: b"k",
        value: SECRET,
        options: SetOptions::NONE,
    };
    let (answer, sealed) = tokio::join!(client.execute(&set), async {
        assert!(peer.request().await.is_some());
        peer.answer_stored().await;
        peer.raw.clone()
    });
    assert_eq!(answer.expect("answered"), Answer::Stored(true));
    let sealed = sealed.strip_suffix(b"\r\n").expect("the end of a word");
    let sealed = &sealed[sealed.len() - 37 - SECRET.len()..];
    let get = Request::Get { key: b"k" };
    let (answer, ()) = tokio::join!(client.execute(&get), async {
        assert!(peer.request().await.is_some());
        peer.answer_value(sealed).await;
    });
    let expected = Answer::Value(Some(SECRET.into()));
    assert_eq!(answer.expect("answered"), expected);
    // What has no value passes, and so does that there is none.
    let (value, ()) = tokio::join!(client.get("k"), async {
        assert!(peer.request().await.is_some());
        peer.send(b"$-1\r\n").await;
    });
    assert_eq!(value.expect("answered"), None);
    let (lifetime, ()) = tokio::join!(client.ttl("k"), async {
        assert!(peer.request().await.is_some());
        peer.send(b":-1\r\n").await;
    });
    assert_eq!(lifetime.expect("answered"), Lifetime::Unlimited);
}

#[tokio::test]
async fn what_does_not_open_is_an_error_and_no_value() {
    for scheme in SCHEMES {
        let (client, mut peer) = connected(scheme, keys(&[1, 2])).await;
        let (old, number) = (keys(&[1]), 2);
        let by_old = old.seal(b"k", SECRET).expect("sealed");
        let found = read(&client, &mut peer, &by_old).await;
        assert_eq!(found.expect("the old key reads"), SECRET);

        let mut changed = stored(&client, &mut peer, SECRET).await;
        *changed.last_mut().expect("a byte") ^= 1;
        let moved = keys(&[2]).seal(b"other", SECRET).expect("sealed");
        let unknown = keys(&[3]).seal(b"k", SECRET).expect("sealed");
        let known = vec![1, 2];
        for (value, expected) in [
            (&b"plain"[..], EncryptionError::NotSealed { bytes: 5 }),
            (&changed, EncryptionError::NotOpened { number }),
            (&moved, EncryptionError::NotOpened { number }),
            (&unknown, EncryptionError::UnknownKey { number: 3, known }),
        ] {
            match read(&client, &mut peer, value).await {
                Err(Error::Encryption(found)) => assert_eq!(found, expected, "{scheme}"),
                other => panic!("{scheme}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn an_increment_is_refused_before_anything_is_sent() {
    for scheme in SCHEMES {
        let (client, mut peer) = connected(scheme, keys(&[1])).await;
        let sum = client.incr("k", 1).await;
        assert!(matches!(sum, Err(Error::Argument(_))), "{scheme}: {sum:?}");
        drop(client);
        assert_eq!(peer.request().await, None, "nothing was sent");
    }
}
