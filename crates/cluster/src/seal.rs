//! Datagrams between the nodes of a cluster, sealed by AES-256-GCM under the cluster's secret, so that who has not got it can
//! neither read nor make one; without a secret in the clear, with a checksum, and then only from and to this machine.
//!
//! ```text
//! sealed   u8 version | u8 1 | u32 key id | u64 instance | u64 incarnation | u64 session | u64 count | ciphertext | 16 bytes tag
//! open     u8 version | u8 0 | u32 CRC-32C of the cluster id and what follows | payload
//! ```
//!
//! **Keys and nonces.** Each start of a sender has a key of its own, made by HKDF of the secret, the cluster id, the instance, the
//! incarnation, and a session of 64 random bits; the nonce is the count of its datagrams. So no nonce comes twice with a key: not in a
//! process, as it counts, and not in two, as their sessions differ, also where a directory was copied or brought back from an older
//! copy. A node that comes to use another secret has another key, and counts on. Random nonces under one key for all would have had a bound: after 2^32 datagrams, ten days of 200 nodes, two would be the
//! same with a probability of 2^-33, and more with each year.
//!
//! **What is dropped**: what has another secret or cluster id, what was changed anywhere, what was cut; what was received before, by
//! a window of counts for each sender and secret; what is older than that window; what is of an earlier start of its sender, or of
//! another session of the same, than was heard by the same secret.
//!
//! **Windows are of one secret**, and go with it. A secret is changed because others may have it: who has only the old one can
//! say any count and any start by it, for any sender, and would have all that its sender says later be dropped, if what one secret
//! has sealed counted for the other. A datagram is of one secret, so none is taken twice for that.
//!
//! **What is not defended**: a datagram that was held back comes late, as long as its sender has not sent 1,024 others; a node
//! that has started anew does not know what it received before, and takes what is of the newest start of its sender that it hears
//! of. Gossip bears both: what it says is ordered by incarnations and counts of its own. Who has the secret is believed in all
//! it says. Lengths, times and addresses are seen by all.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ::ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};

use crate::secret::{Secret, Secrets};

/// The version of both forms.
const VERSION: u8 = 1;
const OPEN: u8 = 0;
const SEALED: u8 = 1;
/// Of the open form.
const OPEN_HEAD_BYTES: usize = 6;
/// Of the sealed form, in front of the ciphertext.
const HEAD_BYTES: usize = 38;
const TAG_BYTES: usize = 16;
/// What a seal adds to a datagram, at most.
pub const OVERHEAD_BYTES: usize = HEAD_BYTES + TAG_BYTES;
/// Counts that are told apart behind the newest. A node sends some 30 datagrams a second, to all others together, so this is
/// half a minute; a burst to a thousand others may be out of order.
const WINDOW: u64 = 1_024;
/// Senders whose windows are kept for each secret, some 3 MB of them at most: as many as members that gossip keeps. The one that was
/// heard longest ago goes first, so who has one secret drives out nobody of the other.
const SENDERS_MAX: usize = 4_096;

/// One start of a node, as others tell it from all others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sender {
    /// Drawn with its data directory.
    pub instance: u64,
    /// The number of its start.
    pub incarnation: u64,
    /// Drawn at random with each start.
    pub session: u64,
}

/// Why a datagram was dropped. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dropped {
    /// It is too short, or of no form that there is.
    Malformed,
    /// It is of another version.
    Version(u8),
    /// It is not sealed, and this node has a secret.
    Open,
    /// It is not sealed, and is not from this machine.
    Remote,
    /// It is sealed, and this node has no secret.
    NoSecret,
    /// It is sealed with another secret.
    OtherSecret,
    /// It was changed on its way, or is of another cluster.
    Forged,
    /// It came before, or is so old that it may have.
    Replayed,
    /// It is of an earlier start of its sender, or of another one with the same number.
    Earlier,
}

impl Dropped {
    /// Whether it goes on until an operator changes something: its sender has another secret, or is in another cluster.
    pub fn is_lasting(self) -> bool {
        match self {
            Self::Malformed | Self::Replayed | Self::Earlier => false,
            Self::Version(_)
            | Self::Open
            | Self::Remote
            | Self::NoSecret
            | Self::OtherSecret
            | Self::Forged => true,
        }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("it is no datagram of a node"),
            Self::Version(version) => write!(
                f,
                "it is of version {version}, and this node speaks {VERSION}"
            ),
            Self::Open => f.write_str("it is not sealed; its sender needs cluster.secret_file"),
            Self::Remote => f.write_str(
                "it is not sealed and comes from another machine; both nodes need cluster.secret_file",
            ),
            Self::NoSecret => {
                f.write_str("it is sealed; this node needs cluster.secret_file")
            }
            Self::OtherSecret => {
                f.write_str("it is sealed with another secret than this node's cluster.secret_file")
            }
            Self::Forged => f.write_str("it was changed on its way, or is of another cluster"),
            Self::Replayed => f.write_str("it came before"),
            Self::Earlier => f.write_str("it is of an earlier start of its sender"),
        }
    }
}

impl std::error::Error for Dropped {}

/// See the head of the file.
pub struct Seal {
    cluster: u128,
    me: Sender,
    /// What is used, and this node's own key of it.
    secrets: Option<(Arc<Secrets>, LessSafeKey)>,
    /// Of the datagrams that were sealed, by whichever secret: it never goes back, so no nonce does.
    count: u64,
    /// What was received by each secret that is accepted, by its number; of each sender by its instance.
    received: BTreeMap<u32, BTreeMap<u64, Window>>,
    /// Grows by one with each datagram, to tell who was heard longest ago.
    heard: u64,
}

/// What was received of a sender by one secret: its newest count, and which of those before, each a bit. Some 700 bytes, its key of
/// that secret among them.
struct Window {
    sender: Sender,
    key: LessSafeKey,
    newest: u64,
    seen: [u64; (WINDOW / 64) as usize],
    heard: u64,
}

/// The head of a sealed datagram.
struct Head {
    key_id: u32,
    sender: Sender,
    count: u64,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal")
            .field("cluster", &self.cluster)
            .field("me", &self.me)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl Seal {
    /// Of a start of a node in a cluster.
    pub fn new(secrets: Option<Arc<Secrets>>, cluster: u128, me: Sender) -> Self {
        let mut seal = Self {
            cluster,
            me,
            secrets: None,
            count: 0,
            received: BTreeMap::new(),
            heard: 0,
        };
        seal.set_secrets(secrets);
        seal
    }

    /// Uses another secret from now on, or accepts another. What was received by one that is still accepted stays so, and nothing
    /// is left of what was by another.
    pub fn set_secrets(&mut self, secrets: Option<Arc<Secrets>>) {
        let is_accepted = |id: u32| {
            let secrets = secrets.as_deref();
            secrets.is_some_and(|secrets| secrets.accepted(id).is_some())
        };
        self.received.retain(|&id, _| is_accepted(id));
        self.secrets = secrets.map(|secrets| {
            let key = key_of(secrets.used(), self.cluster, self.me);
            (secrets, key)
        });
    }

    /// How many senders are known, each for every secret by which it was heard.
    pub fn senders(&self) -> usize {
        self.received.values().map(BTreeMap::len).sum()
    }

    /// A datagram as it is sent.
    pub fn seal(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(payload.len() + OVERHEAD_BYTES);
        let Some((secrets, key)) = &self.secrets else {
            out.extend([VERSION, OPEN]);
            out.extend(checksum(self.cluster, payload).to_be_bytes());
            out.extend(payload);
            return out;
        };
        self.count += 1;
        let head = Head {
            key_id: secrets.used().id(),
            sender: self.me,
            count: self.count,
        };
        let head = head.encode();
        out.extend(head);
        out.extend(payload);
        let (_, body) = out.split_at_mut(HEAD_BYTES);
        let tag = key.seal_in_place_separate_tag(nonce(self.count), Aad::from(head), body);
        let tag = tag.expect("a datagram is shorter than what the cipher takes at most");
        out.extend(tag.as_ref());
        out
    }

    /// What is in a datagram that came from an address.
    ///
    /// # Errors
    /// It is to be dropped.
    pub fn open<'a>(&mut self, from: IpAddr, datagram: &'a mut [u8]) -> Result<&'a [u8], Dropped> {
        let [version, form, ..] = *datagram else {
            return Err(Dropped::Malformed);
        };
        if version != VERSION {
            return Err(Dropped::Version(version));
        }
        match (form, &self.secrets) {
            (OPEN, Some(_)) => Err(Dropped::Open),
            (OPEN, None) => open_in_clear(self.cluster, from, datagram),
            (SEALED, None) => Err(Dropped::NoSecret),
            (SEALED, Some((secrets, _))) => {
                let secrets = Arc::clone(secrets);
                self.open_sealed(&secrets, datagram)
            }
            _ => Err(Dropped::Malformed),
        }
    }

    fn open_sealed<'a>(
        &mut self,
        secrets: &Secrets,
        datagram: &'a mut [u8],
    ) -> Result<&'a [u8], Dropped> {
        let parts = datagram.split_at_mut_checked(HEAD_BYTES);
        let (bytes, body) = parts.ok_or(Dropped::Malformed)?;
        let mut said = [0; HEAD_BYTES];
        said.copy_from_slice(bytes);
        let head = Head::decode(&said);
        let Head { sender, count, .. } = head;
        let secret = secrets.accepted(head.key_id).ok_or(Dropped::OtherSecret)?;
        let of_secret = self.received.get(&head.key_id);
        let known = match of_secret.and_then(|senders| senders.get(&sender.instance)) {
            Some(known) if known.sender == sender => Some(known),
            Some(known) if known.sender.incarnation >= sender.incarnation => {
                return Err(Dropped::Earlier);
            }
            _ => None,
        };
        if known.is_some_and(|known| known.has_seen(count)) {
            return Err(Dropped::Replayed);
        }
        // Nothing is kept of one that nobody who has the secret has made.
        let fresh = match known {
            Some(_) => None,
            None => Some(key_of(secret, self.cluster, sender)),
        };
        let key = known.map(|known| &known.key).or(fresh.as_ref());
        let key = key.expect("it is one or the other");
        let opened = key.open_in_place(nonce(count), Aad::from(said), body);
        let payload = opened.map_err(|_| Dropped::Forged)?;
        self.note(&head, fresh);
        Ok(payload)
    }

    /// A datagram was opened, and by which key if that is of a start that was not known by its secret.
    fn note(&mut self, head: &Head, fresh: Option<LessSafeKey>) {
        let &Head {
            key_id,
            sender,
            count,
        } = head;
        self.heard += 1;
        let senders = self.received.entry(key_id).or_default();
        if let Some(key) = fresh {
            if !senders.contains_key(&sender.instance) && senders.len() >= SENDERS_MAX {
                let oldest = senders.iter().min_by_key(|(_, window)| window.heard);
                if let Some((&oldest, _)) = oldest {
                    senders.remove(&oldest);
                }
            }
            let window = Window {
                sender,
                key,
                newest: count,
                seen: [0; (WINDOW / 64) as usize],
                heard: 0,
            };
            senders.insert(sender.instance, window);
        }
        if let Some(window) = senders.get_mut(&sender.instance) {
            window.heard = self.heard;
            window.note(count);
        }
    }
}

fn open_in_clear(cluster: u128, from: IpAddr, datagram: &[u8]) -> Result<&[u8], Dropped> {
    // A machine's own addresses of version 4 may come in the clothes of version 6.
    if !from.to_canonical().is_loopback() {
        return Err(Dropped::Remote);
    }
    let parts = datagram.split_at_checked(OPEN_HEAD_BYTES);
    let (head, payload) = parts.ok_or(Dropped::Malformed)?;
    if head[2..] != checksum(cluster, payload).to_be_bytes() {
        return Err(Dropped::Forged);
    }
    Ok(payload)
}

fn checksum(cluster: u128, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&cluster.to_be_bytes()), payload)
}

impl Window {
    fn has_seen(&self, count: u64) -> bool {
        count <= self.newest && (self.newest - count >= WINDOW || self.seen_bit(count))
    }

    fn place(count: u64) -> (usize, u64) {
        let place = count % WINDOW;
        ((place / 64) as usize, 1 << (place % 64))
    }

    fn seen_bit(&self, count: u64) -> bool {
        let (word, bit) = Self::place(count);
        self.seen[word] & bit != 0
    }

    fn note(&mut self, count: u64) {
        if count > self.newest {
            // What comes into the window was seen by nobody, whatever was there before.
            let first = (self.newest + 1).max(count.saturating_sub(WINDOW - 1));
            for passed in first..=count {
                let (word, bit) = Self::place(passed);
                self.seen[word] &= !bit;
            }
            self.newest = count;
        }
        let (word, bit) = Self::place(count);
        self.seen[word] |= bit;
    }
}

impl Head {
    fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..2].copy_from_slice(&[VERSION, SEALED]);
        bytes[2..6].copy_from_slice(&self.key_id.to_be_bytes());
        let Sender {
            instance,
            incarnation,
            session,
        } = self.sender;
        let numbers = [instance, incarnation, session, self.count];
        for (place, number) in bytes[6..].chunks_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8; HEAD_BYTES]) -> Self {
        let mut key_id = [0; 4];
        key_id.copy_from_slice(&bytes[2..6]);
        let number = |place: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[6 + 8 * place..][..8]);
            u64::from_be_bytes(number)
        };
        Self {
            key_id: u32::from_be_bytes(key_id),
            sender: Sender {
                instance: number(0),
                incarnation: number(1),
                session: number(2),
            },
            count: number(3),
        }
    }
}

fn key_of(secret: &Secret, cluster: u128, sender: Sender) -> LessSafeKey {
    let mut of = [0; 40];
    of[..16].copy_from_slice(&cluster.to_be_bytes());
    let numbers = [sender.instance, sender.incarnation, sender.session];
    for (place, number) in of[16..].chunks_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_be_bytes());
    }
    secret.datagrams(&of)
}

fn nonce(count: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 8..].copy_from_slice(&count.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests;
