//! The beginning of a connection between nodes: each says who it is, and either goes on or says why not. Who says what, and what is
//! right, is `henge_cluster::greeting`'s; here are the sockets and the clock. What is said later is not known here.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use henge_cluster::greeting::{Accepter, Failure, Met, Next, Opener, Own, Refused};
use henge_wire::peer::{Head, Hello, MAX_HELLO_BYTES, PREFACE, Purpose, Why};
use rustix::net::sockopt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::frames::{Incoming, ReadError};
use super::standing::Standing;
use crate::cluster::identity::Identity;

/// A node that runs says who it is within a round trip; one that was stopped for a moment takes that much longer.
pub(crate) const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection ends when what was sent over it was not received for so long. A machine that falls silent is known to be down
/// before that, by gossip; but gossip goes around a way that is cut between two that others hear, and by itself the system would
/// try for a quarter of an hour, and after a cut of a minute be silent for up to another one. It is less than a request waits.
const UNHEARD: Duration = Duration::from_secs(3);
/// A connection over which nothing was sent for so long is tried: who only answers would never find that its other side is gone,
/// and who asks would find it with the first question after the network has healed.
const IDLE: Duration = UNHEARD;

/// A connection whose two sides know each other.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) socket: TcpStream,
    pub(crate) incoming: Incoming,
    /// Who is on the other side.
    pub(crate) hello: Hello,
    /// By what they know each other.
    pub(crate) standing: Standing,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum GreetError {
    /// Nobody listens there: what the system said.
    Refused(io::Error),
    /// The machine cannot be reached, or the connection broke.
    Io(io::Error),
    /// It takes longer than [`GREETING_TIMEOUT`].
    Late,
    /// What came is no frame.
    Frame(ReadError),
    /// What was said ends it.
    Said(Failure),
}

impl GreetError {
    /// Whether nobody has answered.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Io(_) | Self::Late)
    }

    /// Whether it goes on until an operator changes something.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::Said(Failure::Hello(_) | Failure::Cluster(..) | Failure::Stranger(_)) => true,
            Self::Said(Failure::Unwanted(_, why, _)) => *why == Why::Stranger,
            _ => false,
        }
    }
}

impl fmt::Display for GreetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) | Self::Io(error) => error.fmt(f),
            Self::Late => write!(f, "no answer within {} ms", GREETING_TIMEOUT.as_millis()),
            Self::Frame(error) => write!(f, "what answers is no node of Henge: {error}"),
            Self::Said(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for GreetError {}

impl From<Failure> for GreetError {
    fn from(failure: Failure) -> Self {
        Self::Said(failure)
    }
}

/// Connects to a node, to the one of this instance if that is known.
pub(crate) async fn connect(
    address: &str,
    instance: Option<u64>,
    purpose: Purpose,
    me: &Identity,
) -> Result<Greeted, GreetError> {
    let (mut opener, begin) = Opener::new(own(me, purpose), instance);
    let greeting = async {
        let mut socket = TcpStream::connect(address).await.map_err(|error| {
            if error.kind() == io::ErrorKind::ConnectionRefused {
                GreetError::Refused(error)
            } else {
                GreetError::Io(error)
            }
        })?;
        set_options(&socket);
        // What was given up is not sent any more, also where the network was cut and heals later: a write whose client was told
        // that its outcome is unknown would come after those that followed it.
        let _ = socket.set_zero_linger();
        socket.write_all(&begin).await.map_err(GreetError::Io)?;
        let mut incoming = Incoming::default();
        loop {
            let (head, body) = match hear_frame(&mut socket, &mut incoming).await {
                Ok(frame) => frame,
                Err(error) => {
                    let known = opener.failure().cloned().map(GreetError::from);
                    return Err(known.unwrap_or(error));
                }
            };
            let (out, met) = match opener.hear(head.kind, &body)? {
                Next::Hear(out) => (out, None),
                Next::Done(out, met) => (out, Some(met)),
            };
            socket.write_all(&out).await.map_err(GreetError::Io)?;
            if let Some(met) = met {
                return know(socket, incoming, *met, me).map_err(|(_, error)| error);
            }
        }
    };
    let outcome = tokio::time::timeout(GREETING_TIMEOUT, greeting).await;
    outcome.unwrap_or_else(|_| {
        Err(match opener.unproved() {
            Some(name) => Failure::Stranger(name.to_owned()).into(),
            None => GreetError::Late,
        })
    })
}

/// Answers who has connected and said the preface; `first` is what came, that included. None if it does not go on: the other
/// side was told why, if it can be told.
pub(crate) async fn accept(
    mut socket: TcpStream,
    first: &[u8],
    me: &Identity,
) -> Result<Greeted, GreetError> {
    set_options(&socket);
    let greeting = async {
        let remote = socket.peer_addr().map_err(GreetError::Io)?;
        let mut incoming = Incoming::after(first.get(PREFACE.len()..).unwrap_or_default());
        // What it is for is what the other side says.
        let mut accepter = Accepter::new(own(me, Purpose::Control), remote);
        loop {
            let heard = match hear_frame(&mut socket, &mut incoming).await {
                Ok((head, body)) => accepter.hear(head.kind, &body),
                Err(error) => Err(accepter.gone().ok_or(error)?),
            };
            let (out, met) = match heard {
                Ok(Next::Hear(out)) => (out, None),
                Ok(Next::Done(out, met)) => (out, Some(met)),
                Err(Refused { failure, out }) => {
                    // Who does not read it is refused all the same.
                    let _ = socket.write_all(&out).await;
                    let _ = socket.shutdown().await;
                    return Err(failure.into());
                }
            };
            socket.write_all(&out).await.map_err(GreetError::Io)?;
            if let Some(met) = met {
                return Ok((incoming, met));
            }
        }
    };
    let outcome = tokio::time::timeout(GREETING_TIMEOUT, greeting).await;
    let (incoming, met) = outcome.unwrap_or(Err(GreetError::Late))?;
    match know(socket, incoming, *met, me) {
        Ok(greeted) => Ok(greeted),
        Err((mut socket, error)) => {
            let _ = socket.shutdown().await;
            Err(error)
        }
    }
}

/// What this node says of itself on a connection.
fn own(me: &Identity, purpose: Purpose) -> Own {
    Own {
        hello: me.hello(purpose),
        secrets: me.secrets(),
    }
}

/// The two know each other, unless the secret by which the other side has proved itself was taken away while it did: a greeting goes by
/// the secrets that there were when it began.
fn know(
    socket: TcpStream,
    incoming: Incoming,
    met: Met,
    me: &Identity,
) -> Result<Greeted, (TcpStream, GreetError)> {
    let Met {
        hello,
        ours,
        theirs,
    } = met;
    let standing = Standing::of(me, ours, theirs);
    if !standing.is_accepted_now() {
        return Err((socket, Failure::Stranger(hello.name).into()));
    }
    note_meeting(&socket, &hello, me);
    Ok(Greeted {
        socket,
        incoming,
        hello,
        standing,
    })
}

/// What a connection between nodes needs of the system, which has all of it.
fn set_options(socket: &TcpStream) {
    // Small frames are what is sent most; waiting to fill a segment only delays them.
    let _ = socket.set_nodelay(true);
    let _ = sockopt::set_tcp_user_timeout(socket, UNHEARD.as_millis() as u32);
    let _ = sockopt::set_tcp_keepidle(socket, IDLE);
    let _ = sockopt::set_tcp_keepintvl(socket, UNHEARD / 3);
    let _ = sockopt::set_socket_keepalive(socket, true);
}

/// Another node that belongs here is met over an address of this machine, by which others reach this node. To meet oneself
/// says nothing of that.
fn note_meeting(socket: &TcpStream, hello: &Hello, me: &Identity) {
    if hello.instance != me.instance
        && let Ok(local) = socket.local_addr()
    {
        me.met_over(local.ip());
    }
}

/// The next frame of a greeting.
async fn hear_frame(
    socket: &mut TcpStream,
    incoming: &mut Incoming,
) -> Result<(Head, Bytes), GreetError> {
    let broken = |error| match error {
        ReadError::Io(error) => GreetError::Io(error),
        other => GreetError::Frame(other),
    };
    loop {
        if let Some(frame) = incoming.next(MAX_HELLO_BYTES).map_err(broken)? {
            return Ok(frame);
        }
        poll_fn(|cx| incoming.poll_read(socket, cx))
            .await
            .map_err(broken)?;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use henge_cluster::forming::{ClusterId, Who};
    use henge_cluster::secret::{Secret, Secrets};
    use tokio::net::TcpListener;

    use super::*;

    fn node(name: &str, instance: u64, cluster: u128, secret: Option<&[u8]>) -> Identity {
        let secrets = secret.map(|secret| Secrets::new(Secret::of(secret), None));
        node_with(name, instance, cluster, secrets)
    }

    fn node_with(name: &str, instance: u64, cluster: u128, secrets: Option<Secrets>) -> Identity {
        let who = Who {
            name: name.to_owned(),
            instance,
        };
        let listens = SocketAddr::from(([127, 0, 0, 1], 7000));
        let identity = Identity::new(who, 1, listens, None, secrets);
        identity.enter(ClusterId(cluster));
        identity
    }

    /// What becomes of a connection on both sides: of who made it, and of who accepts it.
    async fn greet(from: &Identity, to: &Identity) -> [Result<Greeted, GreetError>; 2] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it has one").to_string();
        let theirs = async {
            let (mut socket, _) = listener.accept().await.expect("it comes");
            let mut first = [0; PREFACE.len()];
            let read = tokio::io::AsyncReadExt::read_exact(&mut socket, &mut first);
            read.await.expect("it says the preface");
            accept(socket, &first, to).await
        };
        let ours = connect(&address, None, Purpose::Control, from);
        let (ours, theirs) = tokio::join!(ours, theirs);
        [ours, theirs]
    }

    #[tokio::test]
    async fn both_sides_say_that_there_is_another_cluster() {
        for secret in [None, Some(&b"same"[..])] {
            let [from, to] = [node("a", 1, 7, secret), node("b", 2, 8, secret)];
            let [ours, theirs] = greet(&from, &to).await;
            let ours = ours.expect_err("it is refused");
            let theirs = theirs.expect_err("it is refused");
            assert!(
                matches!(&ours, GreetError::Said(Failure::Cluster(name, ClusterId(8))) if name == "b"),
                "{ours}"
            );
            assert!(
                matches!(&theirs, GreetError::Said(Failure::Cluster(name, ClusterId(7))) if name == "a"),
                "{theirs}"
            );
            let [ours, theirs] = greet(&from, &node("b", 2, 7, secret)).await;
            assert_eq!(ours.expect("they belong together").hello.name, "b");
            assert_eq!(theirs.expect("they belong together").hello.name, "a");
        }
    }

    #[tokio::test]
    async fn who_has_no_secret_is_a_stranger_to_who_has_one() {
        let from = node("a", 1, 7, Some(b"same"));
        let to = node("b", 2, 7, None);
        let [ours, _] = greet(&from, &to).await;
        let error = ours.expect_err("it proves nothing");
        assert!(
            matches!(&error, GreetError::Said(Failure::Stranger(name)) if name == "b"),
            "{error}"
        );
    }

    /// What it says of its cluster is nothing that anybody is told.
    #[tokio::test]
    async fn a_stranger_is_one_whatever_it_says() {
        let to = node("b", 2, 8, Some(b"same"));
        for (cluster, secret) in [(7, Some(&b"other"[..])), (7, None), (8, Some(b"other"))] {
            let from = node("a", 1, cluster, secret);
            let [ours, theirs] = greet(&from, &to).await;
            let theirs = theirs.expect_err("it is refused");
            assert!(
                matches!(&theirs, GreetError::Said(Failure::Stranger(name)) if name == "a"),
                "{theirs}"
            );
            let ours = ours.expect_err("it refuses");
            match secret {
                Some(_) => assert!(
                    matches!(&ours, GreetError::Said(Failure::Stranger(_))),
                    "{ours}"
                ),
                // Who has none can prove nothing, and asks for no proof.
                None => assert!(
                    matches!(&ours, GreetError::Said(Failure::Cluster(..))),
                    "{ours}"
                ),
            }
        }
    }

    /// A greeting that has begun before the secret of the other side was taken away, and ends after it.
    #[tokio::test]
    async fn who_proves_itself_by_a_secret_that_was_taken_away_meanwhile_is_a_stranger() {
        let [old, new] = [b"old", b"new"].map(|secret| Secret::of(secret));
        for is_taken_away in [false, true] {
            let both = Secrets::new(new.clone(), Some(old.clone()));
            let from = node_with(
                "a",
                1,
                7,
                Some(Secrets::new(old.clone(), Some(new.clone()))),
            );
            let to = node_with("b", 2, 7, Some(both));
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("it has one");
            let theirs = async {
                let (socket, _) = listener.accept().await.expect("it comes");
                accept(socket, PREFACE, &to).await
            };
            let ours = async {
                let mut socket = TcpStream::connect(address).await.expect("it listens");
                let (mut opener, begin) = Opener::new(own(&from, Purpose::Control), None);
                let hello = begin.strip_prefix(PREFACE).expect("it begins with it");
                let sent = socket.write_all(hello).await;
                sent.expect("it is taken");
                let mut incoming = Incoming::default();
                let mut is_first = true;
                loop {
                    let frame = hear_frame(&mut socket, &mut incoming).await;
                    let (head, body) = frame.expect("it answers");
                    // Its greeting has begun.
                    if std::mem::take(&mut is_first) && is_taken_away {
                        to.set_secrets(Some(Secrets::new(new.clone(), None)));
                    }
                    let (out, is_done) = match opener.hear(head.kind, &body) {
                        Ok(Next::Hear(out)) => (out, false),
                        Ok(Next::Done(out, _)) => (out, true),
                        Err(failure) => panic!("it accepts both: {failure:?}"),
                    };
                    let sent = socket.write_all(&out).await;
                    sent.expect("it is taken");
                    if is_done {
                        return socket;
                    }
                }
            };
            let (_socket, theirs) = tokio::join!(ours, theirs);
            match theirs {
                Ok(greeted) => assert!(!is_taken_away && greeted.hello.name == "a"),
                Err(GreetError::Said(Failure::Stranger(name))) => {
                    assert!(is_taken_away && name == "a");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// All that two nodes may have: they meet where each accepts what the other uses, and else are told as before.
    #[tokio::test]
    async fn two_meet_where_each_accepts_what_the_other_uses() {
        let secrets = |used: &[u8], accepted: Option<&[u8]>| {
            let accepted = accepted.map(Secret::of);
            Some(Secrets::new(Secret::of(used), accepted))
        };
        let [old, new]: [&[u8]; 2] = [b"old", b"new"];
        let all = [
            secrets(old, None),
            secrets(old, Some(new)),
            secrets(new, Some(old)),
            secrets(new, None),
        ];
        let accepts = [[true, false], [true, true], [true, true], [false, true]];
        for (opener, opens) in all.iter().enumerate() {
            for (accepter, accepted) in all.iter().enumerate() {
                let from = node_with("a", 1, 7, opens.clone());
                let to = node_with("b", 2, 7, accepted.clone());
                let [ours, theirs] = greet(&from, &to).await;
                let [opener_knows, accepter_knows] = [(opener, accepter), (accepter, opener)]
                    .map(|(one, other)| accepts[one][usize::from(other >= 2)]);
                if opener_knows && accepter_knows {
                    assert_eq!(ours.expect("each knows the other").hello.name, "b");
                    assert_eq!(theirs.expect("each knows the other").hello.name, "a");
                    continue;
                }
                let theirs = theirs.expect_err("it is refused");
                assert!(
                    matches!(&theirs, GreetError::Said(Failure::Stranger(name)) if name == "a"),
                    "{theirs}"
                );
                match ours {
                    Err(GreetError::Said(Failure::Stranger(name))) if !opener_knows => {
                        assert_eq!(name, "b");
                    }
                    // It has nothing against the other, and reads with the first answer that it is refused.
                    ours => assert!(opener_knows && ours.is_ok(), "{ours:?}"),
                }
            }
        }
    }
}
