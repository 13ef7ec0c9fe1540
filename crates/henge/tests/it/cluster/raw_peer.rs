//! Another node, as far as a test can be one with sockets of its own: it says who it is, with a proof or without, and reads what is
//! said to that. What it sends is bytes, so it may be anything.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use henge_cluster::secret::{Handshake, Role, Secret};
use henge_wire::peer::{
    self, Decoded, Head, Hello, Kind, MAX_BODY_BYTES, NONCE_BYTES, PREFACE, Purpose, Refusal,
};

use super::Ring;
use crate::client::DEADLINE;

/// A frame as it goes over a link.
pub(super) fn frame(kind: Kind, service: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let head = Head {
        kind,
        service,
        id: 7,
    };
    peer::encode(&mut out, head, &[body]);
    out
}

/// A secret made of a word, and its file, for its owner alone.
pub(super) fn secret(ring: &Ring, word: &str) -> (Secret, PathBuf) {
    fs::create_dir_all(&ring.data).expect("a directory");
    let path = ring.data.join(format!("secret-{word}"));
    let text = word.repeat(32);
    fs::write(&path, &text).expect("written");
    let owner = fs::Permissions::from_mode(0o600);
    fs::set_permissions(&path, owner).expect("it is ours");
    (Secret::of(text.as_bytes()), path)
}

/// The cluster that a node is in.
pub(super) fn cluster(ring: &Ring, n: usize) -> u128 {
    let status = ring.status(n);
    let id = status["cluster"].as_str().expect("it is in one");
    u128::from_str_radix(id, 16).expect("it is a number")
}

/// A node of a cluster that nobody has taken in.
pub(super) fn hello(cluster: u128) -> Hello {
    Hello {
        purpose: Purpose::Data,
        cluster: Some(cluster),
        instance: 77,
        incarnation: 1,
        nonce: [9; NONCE_BYTES],
        name: "raw".to_owned(),
        address: String::new(),
    }
}

/// A connection to the port of a node.
pub(super) struct RawPeer {
    stream: TcpStream,
    came: Vec<u8>,
    /// All that was sent.
    pub(super) sent: Vec<u8>,
}

impl RawPeer {
    pub(super) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the node listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        stream.set_nodelay(true).expect("an option");
        Self {
            stream,
            came: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// The same, with the preface and a hello said.
    pub(super) fn begun(address: SocketAddr, hello: &Hello) -> Self {
        let mut peer = Self::connect(address);
        peer.send(PREFACE);
        peer.send(&frame(Kind::Hello, 0, &hello.encode()));
        peer
    }

    /// Says all of what a node says that has this secret, and returns what it was told before it said its proof.
    pub(super) fn greeted(address: SocketAddr, hello: &Hello, secret: &Secret) -> Self {
        let mut peer = Self::begun(address, hello);
        let proof = peer.proof(hello, secret);
        peer.send(&frame(Kind::Proof, 0, &proof));
        peer
    }

    /// What the node has said of itself, and the proof that goes with it.
    pub(super) fn proof(&mut self, hello: &Hello, secret: &Secret) -> Vec<u8> {
        let (kind, theirs) = self.next().expect("it says who it is");
        assert_eq!(kind, Kind::Hello);
        let (kind, _) = self.next().expect("it proves it");
        assert_eq!(kind, Kind::Proof);
        let other = Hello::decode(&theirs).expect("it is one");
        let own = hello.encode();
        let handshake = Handshake {
            nonces: [&hello.nonce, &other.nonce],
            hellos: [&own, &theirs],
        };
        secret.prove(Role::Opener, &handshake).to_vec()
    }

    /// Sends bytes. A node that wants no more of them may have closed.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        let _ = self.stream.write_all(bytes);
    }

    /// Says that nothing more comes.
    pub(super) fn finish(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// The next frame; none when the node has closed the connection.
    pub(super) fn next(&mut self) -> Option<(Kind, Vec<u8>)> {
        loop {
            match peer::decode(&self.came, MAX_BODY_BYTES).expect("it speaks as a node") {
                Decoded::Frame { head, body } => {
                    let taken = self.came[body.clone()].to_vec();
                    self.came.drain(..body.end);
                    return Some((head.kind, taken));
                }
                Decoded::NotYet(_) => {
                    let mut bytes = [0; 4096];
                    match self.stream.read(&mut bytes) {
                        Ok(0) => return None,
                        Ok(count) => self.came.extend_from_slice(&bytes[..count]),
                        // What it has not read when it closes is a reset.
                        Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                        Err(error) => panic!("the node does not close the connection: {error}"),
                    }
                }
            }
        }
    }

    /// Why the node refuses this one; nothing where it closes without a word. What it says of itself before is passed over.
    pub(super) fn refusal(&mut self) -> Option<String> {
        while let Some((kind, body)) = self.next() {
            if kind == Kind::Refusal {
                let refusal = Refusal::decode(&body).expect("it has a reason");
                assert_eq!(self.next(), None, "and ends");
                return Some(refusal.text);
            }
            assert!(matches!(kind, Kind::Hello | Kind::Proof), "{kind:?}");
        }
        None
    }

    /// Whether the node answers questions of this one: it says that there is no such question.
    pub(super) fn is_served(&mut self) -> bool {
        self.send(&frame(Kind::Ask, 0xEE, b""));
        self.next().is_some_and(|(kind, body)| {
            kind == Kind::Answer && body == b"this node knows no such question"
        })
    }
}
