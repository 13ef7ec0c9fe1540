//! The beginning of a connection between nodes: each says who it is, and either goes on or says why not. What is said later is
//! not known here.
//!
//! ```text
//! who connects   preface, hello ──▶
//!                               ◀── hello, proof               who accepts
//!                         proof ──▶
//! ```
//!
//! Each looks at the other's proof and then at its hello, and closes if it does not belong here; who accepts says why, in a refusal.
//! There are proofs where the cluster has a secret: each proves itself by the one that it uses, and takes the other's by any that it
//! accepts.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use henge_cluster::forming::ClusterId;
use henge_cluster::secret::{Handshake, Role};
use henge_wire::peer::{
    self, Head, Hello, HelloError, Kind, MAX_HELLO_BYTES, NONCE_BYTES, PREFACE, Purpose, Refusal,
    Why,
};
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

const HELLO: Head = Head {
    kind: Kind::Hello,
    service: 0,
    id: 0,
};
const PROOF: Head = Head {
    kind: Kind::Proof,
    service: 0,
    id: 0,
};
const REFUSAL: Head = Head {
    kind: Kind::Refusal,
    service: 0,
    id: 0,
};

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
    /// What answers is no node.
    NoNode(String),
    /// What answers is another node than was asked for: its name.
    Another(String),
    /// It cannot be understood.
    Hello(HelloError),
    /// It is in another cluster: its name, and which.
    Cluster(String, ClusterId),
    /// It does not prove that it has the secret of the cluster: its name.
    Stranger(String),
    /// This node refuses it: its name, and why.
    Unwanted(String, Why, String),
    /// It refuses this node, and says why.
    Refusal(Refusal),
}

impl GreetError {
    /// Whether nobody has answered.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Io(_) | Self::Late)
    }

    /// Whether it goes on until an operator changes something.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::Hello(_) | Self::Cluster(..) | Self::Stranger(_) => true,
            Self::Unwanted(_, why, _) => *why == Why::Stranger,
            _ => false,
        }
    }
}

impl fmt::Display for GreetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) | Self::Io(error) => error.fmt(f),
            Self::Late => write!(f, "no answer within {} ms", GREETING_TIMEOUT.as_millis()),
            Self::NoNode(why) => write!(f, "what answers is no node of Henge: {why}"),
            Self::Another(name) => write!(f, "another node answers there, {name}"),
            Self::Hello(error) => error.fmt(f),
            Self::Cluster(name, cluster) => {
                write!(f, "{name} is in another cluster, {cluster}")
            }
            Self::Stranger(name) => write!(
                f,
                "{name} does not have the secret of the cluster; all nodes need the same cluster.secret_file"
            ),
            Self::Unwanted(name, _, why) => write!(f, "{name} is refused: {why}"),
            Self::Refusal(refusal) => write!(f, "it refuses this node: {}", refusal.text),
        }
    }
}

impl std::error::Error for GreetError {}

/// Connects to a node, to the one of this instance if that is known.
pub(crate) async fn connect(
    address: &str,
    instance: Option<u64>,
    purpose: Purpose,
    me: &Identity,
) -> Result<Greeted, GreetError> {
    // Who has said who it is, and proves nothing.
    let unproved = Cell::new(None);
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
        let own = Said::of(&me.hello(purpose));
        let mut out = PREFACE.to_vec();
        peer::encode(&mut out, HELLO, &[&own.bytes]);
        socket.write_all(&out).await.map_err(GreetError::Io)?;
        let mut incoming = Incoming::default();
        let (hello, theirs) = hear(&mut socket, &mut incoming).await?;
        let secrets = me.secrets();
        let (mut used, mut theirs_by) = (None, None);
        // What it says of itself is believed, and told to people, when it is proved.
        if let Some(secrets) = &secrets {
            let handshake = handshake(&own, &theirs);
            // One without a secret does not know that it is waited for.
            unproved.set(Some(hello.name.clone()));
            let proof = hear_proof(&mut socket, &mut incoming).await?;
            unproved.set(None);
            theirs_by = secrets.verify(Role::Accepter, &handshake, &proof);
            if theirs_by.is_none() {
                return Err(GreetError::Stranger(hello.name));
            }
            used = Some(secrets.used().id());
            let mut out = Vec::new();
            let proof = secrets.used().prove(Role::Opener, &handshake);
            peer::encode(&mut out, PROOF, &[&proof]);
            socket.write_all(&out).await.map_err(GreetError::Io)?;
        }
        let cluster = hello.cluster.map(ClusterId);
        if let (Some(theirs), Some(ours)) = (cluster, me.cluster())
            && theirs != ours
        {
            if secrets.is_some() {
                // The other side tells its own operator of this node when it has read the proof, and then refuses; to close before
                // that takes back what was sent.
                let _ = hear_frame(&mut socket, &mut incoming).await;
            }
            return Err(GreetError::Cluster(hello.name, theirs));
        }
        if instance.is_some_and(|instance| instance != hello.instance) {
            return Err(GreetError::Another(hello.name));
        }
        note_meeting(&socket, &hello, me);
        Ok(Greeted {
            socket,
            incoming,
            hello,
            standing: Standing::of(me, used, theirs_by),
        })
    };
    let outcome = tokio::time::timeout(GREETING_TIMEOUT, greeting).await;
    outcome.unwrap_or_else(|_| {
        Err(match unproved.take() {
            Some(name) => GreetError::Stranger(name),
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
        let (hello, theirs) = match hear(&mut socket, &mut incoming).await {
            Ok(said) => said,
            Err(GreetError::Hello(error)) => {
                refuse(&mut socket, Why::Version, error.to_string()).await;
                return Err(GreetError::Hello(error));
            }
            Err(error) => return Err(error),
        };
        let own = Said::of(&me.hello(hello.purpose));
        let handshake = handshake(&theirs, &own);
        let mut out = Vec::new();
        peer::encode(&mut out, HELLO, &[&own.bytes]);
        let secrets = me.secrets();
        let (mut used, mut theirs_by) = (None, None);
        if let Some(secrets) = &secrets {
            used = Some(secrets.used().id());
            let proof = secrets.used().prove(Role::Accepter, &handshake);
            peer::encode(&mut out, PROOF, &[&proof]);
        }
        socket.write_all(&out).await.map_err(GreetError::Io)?;
        // Before anything that it says of itself is looked at: an operator is told of another cluster, by name.
        if let Some(secrets) = &secrets {
            let proof = hear_proof(&mut socket, &mut incoming).await.ok();
            theirs_by = proof.and_then(|proof| secrets.verify(Role::Opener, &handshake, &proof));
            if theirs_by.is_none() {
                let text = "it does not have the secret of this node's cluster; give it the same cluster.secret_file";
                refuse(&mut socket, Why::Stranger, text.to_owned()).await;
                return Err(GreetError::Stranger(hello.name));
            }
        }
        if let Err((why, text)) = check(&hello, remote, me, secrets.is_some()) {
            refuse(&mut socket, why, text.clone()).await;
            return Err(match hello.cluster {
                Some(theirs) if why == Why::Cluster && me.cluster().is_some() => {
                    GreetError::Cluster(hello.name, ClusterId(theirs))
                }
                _ => GreetError::Unwanted(hello.name, why, text),
            });
        }
        note_meeting(&socket, &hello, me);
        Ok((incoming, hello, Standing::of(me, used, theirs_by)))
    };
    let outcome = tokio::time::timeout(GREETING_TIMEOUT, greeting).await;
    let (incoming, hello, standing) = outcome.unwrap_or(Err(GreetError::Late))?;
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

/// Whether who has connected belongs here; whether it has proved that it has a secret.
fn check(
    hello: &Hello,
    remote: SocketAddr,
    me: &Identity,
    is_proved: bool,
) -> Result<(), (Why, String)> {
    if !is_proved && !remote.ip().to_canonical().is_loopback() {
        let text = format!(
            "a node without cluster.secret_file takes only nodes of its own machine, and this connection comes from {remote}; give all nodes the same cluster.secret_file"
        );
        return Err((Why::Stranger, text));
    }
    let (theirs, ours) = (hello.cluster.map(ClusterId), me.cluster());
    if let (Some(theirs), Some(ours)) = (theirs, ours)
        && theirs != ours
    {
        let text = format!("this node is in the cluster {ours}, and not in {theirs}");
        return Err((Why::Cluster, text));
    }
    // Who is in no cluster may only ask to be.
    if hello.purpose != Purpose::Control && (theirs.is_none() || ours.is_none()) {
        return Err((
            Why::Cluster,
            "one of the two is in no cluster yet".to_owned(),
        ));
    }
    Ok(())
}

async fn refuse(socket: &mut TcpStream, why: Why, text: String) {
    let mut out = Vec::new();
    peer::encode(&mut out, REFUSAL, &[&Refusal { why, text }.encode()]);
    // Who does not read it is refused all the same.
    let _ = socket.write_all(&out).await;
    let _ = socket.shutdown().await;
}

/// A hello as it was sent, for what is proved of it.
struct Said {
    nonce: [u8; NONCE_BYTES],
    bytes: Vec<u8>,
}

impl Said {
    fn of(hello: &Hello) -> Self {
        Self {
            nonce: hello.nonce,
            bytes: hello.encode(),
        }
    }
}

fn handshake<'a>(opener: &'a Said, accepter: &'a Said) -> Handshake<'a> {
    Handshake {
        nonces: [&opener.nonce, &accepter.nonce],
        hellos: [&opener.bytes, &accepter.bytes],
    }
}

/// Who is on the other side, and what it said for that.
async fn hear(
    socket: &mut TcpStream,
    incoming: &mut Incoming,
) -> Result<(Hello, Said), GreetError> {
    let (head, body) = hear_frame(socket, incoming).await?;
    if head.kind != Kind::Hello {
        return Err(GreetError::NoNode("it does not say who it is".to_owned()));
    }
    let hello = Hello::decode(&body).map_err(GreetError::Hello)?;
    let said = Said {
        nonce: hello.nonce,
        bytes: body.to_vec(),
    };
    Ok((hello, said))
}

async fn hear_proof(socket: &mut TcpStream, incoming: &mut Incoming) -> Result<Bytes, GreetError> {
    let (head, body) = hear_frame(socket, incoming).await?;
    if head.kind == Kind::Proof {
        Ok(body)
    } else {
        Err(GreetError::NoNode("it proves nothing".to_owned()))
    }
}

/// The next frame of a greeting, unless it is a refusal.
async fn hear_frame(
    socket: &mut TcpStream,
    incoming: &mut Incoming,
) -> Result<(Head, Bytes), GreetError> {
    let broken = |error| match error {
        ReadError::Io(error) => GreetError::Io(error),
        other => GreetError::NoNode(other.to_string()),
    };
    loop {
        if let Some((head, body)) = incoming.next(MAX_HELLO_BYTES).map_err(broken)? {
            if head.kind != Kind::Refusal {
                return Ok((head, body));
            }
            return Err(match Refusal::decode(&body) {
                Some(refusal) => GreetError::Refusal(refusal),
                None => GreetError::NoNode("its refusal has no reason".to_owned()),
            });
        }
        poll_fn(|cx| incoming.poll_read(socket, cx))
            .await
            .map_err(broken)?;
    }
}

#[cfg(test)]
mod tests {
    use henge_cluster::forming::Who;
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
                matches!(&ours, GreetError::Cluster(name, ClusterId(8)) if name == "b"),
                "{ours}"
            );
            assert!(
                matches!(&theirs, GreetError::Cluster(name, ClusterId(7)) if name == "a"),
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
            matches!(&error, GreetError::Stranger(name) if name == "b"),
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
                matches!(&theirs, GreetError::Stranger(name) if name == "a"),
                "{theirs}"
            );
            let ours = ours.expect_err("it refuses");
            match secret {
                Some(_) => assert!(matches!(&ours, GreetError::Stranger(_)), "{ours}"),
                // Who has none can prove nothing, and asks for no proof.
                None => assert!(matches!(&ours, GreetError::Cluster(..)), "{ours}"),
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
                    matches!(&theirs, GreetError::Stranger(name) if name == "a"),
                    "{theirs}"
                );
                match ours {
                    Err(GreetError::Stranger(name)) if !opener_knows => assert_eq!(name, "b"),
                    // It has nothing against the other, and reads with the first answer that it is refused.
                    ours => assert!(opener_knows && ours.is_ok(), "{ours:?}"),
                }
            }
        }
    }
}
