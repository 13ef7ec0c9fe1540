//! The beginning of a connection between nodes, as two machines, one for each side: each takes the frames that come, says what to
//! send, and ends with who the other side is or why it is none. It knows no socket and no clock: how long somebody may take, and
//! how long a frame may be, is for who reads.
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

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use henge_wire::peer::{
    self, Head, Hello, HelloError, Kind, NONCE_BYTES, PREFACE, Purpose, Refusal, Why,
};

use crate::forming::ClusterId;
use crate::secret::{Handshake, Role, Secrets};

/// What a node says of itself, and by what it knows others.
#[derive(Clone, Debug)]
pub struct Own {
    /// Its nonce is of this connection alone.
    pub hello: Hello,
    /// None for a node that has none.
    pub secrets: Option<Arc<Secrets>>,
}

/// The two sides know each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Met {
    /// Who is on the other side.
    pub hello: Hello,
    /// The number of the secret by which this side has proved itself; none where it has none.
    pub ours: Option<u32>,
    /// The same of the other side.
    pub theirs: Option<u32>,
}

/// What follows on a frame.
#[derive(PartialEq, Eq, Debug)]
pub enum Next {
    /// Another one, once this is sent.
    Hear(Vec<u8>),
    /// Nothing, once this is sent.
    Done(Vec<u8>, Box<Met>),
}

/// Why there is no connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// What is there is no node.
    NoNode(&'static str),
    /// It is another node than was asked for: its name.
    Another(String),
    /// It cannot be understood.
    Hello(HelloError),
    /// It is in another cluster: its name, and which.
    Cluster(String, ClusterId),
    /// It does not prove that it has a secret that is accepted: its name.
    Stranger(String),
    /// This node refuses it: its name, and why.
    Unwanted(String, Why, String),
    /// It refuses this node, and says why.
    Refusal(Refusal),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
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

impl std::error::Error for Failure {}

/// The side that has connected.
#[derive(Debug)]
pub struct Opener {
    own: Own,
    /// The instance that is looked for, if it is known.
    wanted: Option<u64>,
    said: Vec<u8>,
    state: Opening,
}

#[derive(Debug)]
enum Opening {
    /// Its hello is waited for.
    Hello,
    /// It has said who it is, and its proof is waited for.
    Proof(Theirs),
    /// It is in another cluster, and reads the proof of that it hears from one that has the secret. Then it refuses; to close before
    /// that would take back what was sent.
    Leaving(Failure),
    Over,
}

/// The side that has accepted.
#[derive(Debug)]
pub struct Accepter {
    own: Own,
    /// Where the other side is.
    remote: SocketAddr,
    state: Accepting,
}

#[derive(Debug)]
enum Accepting {
    Hello,
    /// It has said who it is, and was told who this one is: its proof is waited for.
    Proof(Theirs, Vec<u8>),
    Over,
}

/// What the other side has said of itself.
#[derive(Debug)]
struct Theirs {
    hello: Hello,
    bytes: Vec<u8>,
}

impl Own {
    fn cluster(&self) -> Option<ClusterId> {
        self.hello.cluster.map(ClusterId)
    }

    fn used(&self) -> Option<u32> {
        self.secrets.as_ref().map(|secrets| secrets.used().id())
    }
}

impl Theirs {
    fn of(kind: Kind, body: &[u8]) -> Result<Self, Failure> {
        if kind != Kind::Hello {
            return Err(Failure::NoNode("it does not say who it is"));
        }
        let hello = Hello::decode(body).map_err(Failure::Hello)?;
        let bytes = body.to_vec();
        Ok(Self { hello, bytes })
    }
}

impl Opener {
    /// Begins; `wanted` is the instance that should be there, if that is known. The bytes are sent first.
    pub fn new(own: Own, wanted: Option<u64>) -> (Self, Vec<u8>) {
        let said = own.hello.encode();
        let mut out = PREFACE.to_vec();
        push(&mut out, Kind::Hello, &said);
        let state = Opening::Hello;
        let opener = Self {
            own,
            wanted,
            said,
            state,
        };
        (opener, out)
    }

    /// Who has said who it is, and proves nothing. One without a secret does not know that it is waited for.
    pub fn unproved(&self) -> Option<&str> {
        match &self.state {
            Opening::Proof(theirs) => Some(&theirs.hello.name),
            _ => None,
        }
    }

    /// Why nothing comes of it, whatever it is that comes, or that nothing does.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.state {
            Opening::Leaving(failure) => Some(failure),
            _ => None,
        }
    }

    /// A frame has come.
    ///
    /// # Errors
    /// Nothing comes of it.
    pub fn hear(&mut self, kind: Kind, body: &[u8]) -> Result<Next, Failure> {
        let state = std::mem::replace(&mut self.state, Opening::Over);
        if let Opening::Leaving(failure) = state {
            return Err(failure);
        }
        if kind == Kind::Refusal {
            return Err(refusal(body));
        }
        match state {
            Opening::Hello => {
                let theirs = Theirs::of(kind, body)?;
                if self.own.secrets.is_none() {
                    return self.look_at(theirs.hello, None, Vec::new());
                }
                self.state = Opening::Proof(theirs);
                Ok(Next::Hear(Vec::new()))
            }
            Opening::Proof(theirs) => self.hear_proof(theirs, kind, body),
            Opening::Leaving(_) | Opening::Over => {
                Err(Failure::NoNode("it says more than it was asked"))
            }
        }
    }

    fn hear_proof(&mut self, theirs: Theirs, kind: Kind, body: &[u8]) -> Result<Next, Failure> {
        if kind != Kind::Proof {
            return Err(Failure::NoNode("it proves nothing"));
        }
        let Theirs { hello, bytes } = theirs;
        let handshake = Handshake {
            nonces: [&self.own.hello.nonce, &hello.nonce],
            hellos: [&self.said, &bytes],
        };
        let secrets = self.own.secrets.as_ref();
        let proved = secrets.and_then(|secrets| {
            let id = secrets.verify(Role::Accepter, &handshake, body)?;
            Some((id, secrets.used().prove(Role::Opener, &handshake)))
        });
        let Some((theirs, proof)) = proved else {
            return Err(Failure::Stranger(hello.name));
        };
        let mut out = Vec::new();
        push(&mut out, Kind::Proof, &proof);
        self.look_at(hello, Some(theirs), out)
    }

    /// What it says of itself is believed, and told to people, when it is proved.
    fn look_at(
        &mut self,
        hello: Hello,
        theirs: Option<u32>,
        out: Vec<u8>,
    ) -> Result<Next, Failure> {
        if let (Some(other), Some(own)) = (hello.cluster.map(ClusterId), self.own.cluster())
            && other != own
        {
            let failure = Failure::Cluster(hello.name, other);
            if theirs.is_none() {
                return Err(failure);
            }
            // The other side tells its own operator of this node when it has read the proof.
            self.state = Opening::Leaving(failure);
            return Ok(Next::Hear(out));
        }
        if self.wanted.is_some_and(|wanted| wanted != hello.instance) {
            return Err(Failure::Another(hello.name));
        }
        let ours = self.own.used();
        Ok(Next::Done(
            out,
            Box::new(Met {
                hello,
                ours,
                theirs,
            }),
        ))
    }
}

/// Who has connected is none of this node's, and is told why where that can be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Why there is no connection.
    pub failure: Failure,
    /// What is sent before the connection is closed.
    pub out: Vec<u8>,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        let out = Vec::new();
        Self { failure, out }
    }
}

impl Refused {
    fn saying(failure: Failure, why: Why, text: String) -> Self {
        let mut out = Vec::new();
        push(&mut out, Kind::Refusal, &Refusal { why, text }.encode());
        Self { failure, out }
    }
}

impl Accepter {
    /// Of a connection whose preface was read, and where it comes from. What it is for is said by who connects.
    pub fn new(own: Own, remote: SocketAddr) -> Self {
        let state = Accepting::Hello;
        Self { own, remote, state }
    }

    /// A frame has come.
    ///
    /// # Errors
    /// The connection is to be closed, once the other side was told why.
    pub fn hear(&mut self, kind: Kind, body: &[u8]) -> Result<Next, Refused> {
        match std::mem::replace(&mut self.state, Accepting::Over) {
            Accepting::Hello if kind == Kind::Refusal => Err(refusal(body).into()),
            Accepting::Hello => self.hear_hello(kind, body),
            Accepting::Proof(theirs, said) => self.hear_proof(theirs, &said, kind, body),
            Accepting::Over => Err(Failure::NoNode("it says more than it was asked").into()),
        }
    }

    /// What was waited for does not come.
    pub fn gone(&mut self) -> Option<Refused> {
        match std::mem::replace(&mut self.state, Accepting::Over) {
            Accepting::Proof(theirs, _) => Some(stranger(theirs.hello.name)),
            _ => None,
        }
    }

    fn hear_hello(&mut self, kind: Kind, body: &[u8]) -> Result<Next, Refused> {
        let theirs = match Theirs::of(kind, body) {
            Err(Failure::Hello(error)) => {
                let text = error.to_string();
                return Err(Refused::saying(Failure::Hello(error), Why::Version, text));
            }
            theirs => theirs?,
        };
        self.own.hello.purpose = theirs.hello.purpose;
        let said = self.own.hello.encode();
        let mut out = Vec::new();
        push(&mut out, Kind::Hello, &said);
        let Some(secrets) = &self.own.secrets else {
            return self.look_at(theirs.hello, None, out);
        };
        let proof = secrets
            .used()
            .prove(Role::Accepter, &self.handshake(&theirs, &said));
        push(&mut out, Kind::Proof, &proof);
        self.state = Accepting::Proof(theirs, said);
        Ok(Next::Hear(out))
    }

    /// Before anything that it says of itself is looked at: an operator is told of another cluster, by name.
    fn hear_proof(
        &mut self,
        theirs: Theirs,
        said: &[u8],
        kind: Kind,
        body: &[u8],
    ) -> Result<Next, Refused> {
        let handshake = self.handshake(&theirs, said);
        let secrets = self.own.secrets.as_ref().filter(|_| kind == Kind::Proof);
        let proved = secrets.and_then(|secrets| secrets.verify(Role::Opener, &handshake, body));
        if proved.is_none() {
            return Err(stranger(theirs.hello.name));
        }
        self.look_at(theirs.hello, proved, Vec::new())
    }

    fn handshake<'a>(&'a self, theirs: &'a Theirs, said: &'a [u8]) -> Handshake<'a> {
        let nonces: [&[u8; NONCE_BYTES]; 2] = [&theirs.hello.nonce, &self.own.hello.nonce];
        Handshake {
            nonces,
            hellos: [&theirs.bytes, said],
        }
    }

    /// Whether who has connected belongs here.
    fn look_at(&self, hello: Hello, theirs: Option<u32>, out: Vec<u8>) -> Result<Next, Refused> {
        let (other, own) = (hello.cluster.map(ClusterId), self.own.cluster());
        let refused = |failure, why, text| {
            let mut refused = Refused::saying(failure, why, text);
            refused.out.splice(0..0, out.iter().copied());
            Err(refused)
        };
        let unwanted = |why, text: &str| {
            let failure = Failure::Unwanted(hello.name.clone(), why, text.to_owned());
            refused(failure, why, text.to_owned())
        };
        let remote = self.remote;
        if theirs.is_none() && !remote.ip().to_canonical().is_loopback() {
            let text = format!(
                "a node without cluster.secret_file takes only nodes of its own machine, and this connection comes from {remote}; give all nodes the same cluster.secret_file"
            );
            return unwanted(Why::Stranger, &text);
        }
        if let (Some(other), Some(own)) = (other, own)
            && other != own
        {
            let text = format!("this node is in the cluster {own}, and not in {other}");
            return refused(
                Failure::Cluster(hello.name.clone(), other),
                Why::Cluster,
                text,
            );
        }
        // Who is in no cluster may only ask to be.
        if hello.purpose != Purpose::Control && (other.is_none() || own.is_none()) {
            return unwanted(Why::Cluster, "one of the two is in no cluster yet");
        }
        let ours = self.own.used();
        Ok(Next::Done(
            out,
            Box::new(Met {
                hello,
                ours,
                theirs,
            }),
        ))
    }
}

fn stranger(name: String) -> Refused {
    let text =
        "it does not have the secret of this node's cluster; give it the same cluster.secret_file";
    Refused::saying(Failure::Stranger(name), Why::Stranger, text.to_owned())
}

fn refusal(body: &[u8]) -> Failure {
    match Refusal::decode(body) {
        Some(refusal) => Failure::Refusal(refusal),
        None => Failure::NoNode("its refusal has no reason"),
    }
}

fn push(out: &mut Vec<u8>, kind: Kind, body: &[u8]) {
    let head = Head {
        kind,
        service: 0,
        id: 0,
    };
    peer::encode(out, head, &[body]);
}
