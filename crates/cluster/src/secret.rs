//! The secrets that the nodes of a cluster share: what is made of one, and the proof on a link that the other side has it too.
//! Nothing is ever encrypted with a secret itself, and nobody is shown it. Where it comes from is not known here.
//!
//! **Two of them.** A node uses one, and accepts another where it is told so. That is how a cluster changes its secret while all
//! nodes are up: first all accept the new one, then each uses it and accepts the old one, then the old one is taken away. At each
//! moment any two understand each other, as long as each uses one that the other accepts:
//!
//! ```text
//!            before      1: all accept    2: each uses       3: taken away
//! uses       old         old              new                new
//! accepts    old         old, new         new, old           new
//! ```

use std::fmt;

use ::ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ::ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use ::ring::hmac;

use henge_wire::peer::NONCE_BYTES;

/// Bytes of a proof.
pub const PROOF_BYTES: usize = 32;

/// What keys are made for. One for each purpose, so that nothing that is said in one can be used in another.
const SALT: &[u8] = b"henge cluster secret 1";
const KEY_ID: &[u8] = b"id";
const LINKS: &[u8] = b"links";
const DATAGRAMS: &[u8] = b"datagrams";

/// One secret.
#[derive(Clone)]
pub struct Secret {
    extracted: Prk,
    links: hmac::Key,
    id: u32,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Which side of a link somebody is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It has opened the connection.
    Opener = 1,
    /// It has accepted it.
    Accepter = 2,
}

/// What both sides of a link have said, the opener's first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handshake<'a> {
    /// Drawn by each for this link.
    pub nonces: [&'a [u8; NONCE_BYTES]; 2],
    /// Their hellos, as they came.
    pub hellos: [&'a [u8]; 2],
}

/// So many bytes of a derived key.
struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

impl Secret {
    /// Of its bytes, which nobody else knows.
    pub fn of(secret: &[u8]) -> Self {
        let extracted = Salt::new(HKDF_SHA256, SALT).extract(secret);
        let mut id = [0; 4];
        expand(&extracted, &[KEY_ID], &mut id);
        let mut links = [0; PROOF_BYTES];
        expand(&extracted, &[LINKS], &mut links);
        Self {
            extracted,
            links: hmac::Key::new(hmac::HMAC_SHA256, &links),
            id: u32::from_be_bytes(id),
        }
    }

    /// A number that tells one secret from another, and nothing else of either. Of four billion pairs one has the same: then a
    /// change from one to the other needs a third between them.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The key of one start of one sender of datagrams, by all that tells it from others.
    pub(crate) fn datagrams(&self, of: &[u8]) -> LessSafeKey {
        let said = [DATAGRAMS, of];
        let expanded = self.extracted.expand(&said, &AES_256_GCM);
        let key = expanded.expect("a key is shorter than what HKDF gives at most");
        LessSafeKey::new(UnboundKey::from(key))
    }

    /// That who has this role has the secret, and has said and heard what is in the handshake. It is worth nothing for the other
    /// role, or on another link.
    pub fn prove(&self, role: Role, handshake: &Handshake<'_>) -> [u8; PROOF_BYTES] {
        let tag = hmac::sign(&self.links, &said(role, handshake));
        let mut proof = [0; PROOF_BYTES];
        proof.copy_from_slice(tag.as_ref());
        proof
    }

    /// Whether a proof is that of who has this role. It takes the same time wherever it is wrong.
    pub fn verify(&self, role: Role, handshake: &Handshake<'_>, proof: &[u8]) -> bool {
        hmac::verify(&self.links, &said(role, handshake), proof).is_ok()
    }
}

/// Those of a node: the one that it uses, and another that it accepts as well, if there is one.
#[derive(Clone, Debug)]
pub struct Secrets {
    used: Secret,
    accepted: Option<Secret>,
}

/// By their numbers, which tell an operator whether two nodes have the same.
impl fmt::Display for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.used.id)?;
        match &self.accepted {
            Some(accepted) => write!(f, ", and {:08x} is accepted", accepted.id),
            None => Ok(()),
        }
    }
}

impl Secrets {
    /// To accept what is used anyway is no more than to use it.
    pub fn new(used: Secret, accepted: Option<Secret>) -> Self {
        let accepted = accepted.filter(|accepted| accepted.id != used.id);
        Self { used, accepted }
    }

    /// What this node proves itself by, and seals with.
    pub fn used(&self) -> &Secret {
        &self.used
    }

    /// The number of the other one.
    pub fn also_accepted(&self) -> Option<u32> {
        self.accepted.as_ref().map(Secret::id)
    }

    /// The one of this number, if it is accepted.
    pub fn accepted(&self, id: u32) -> Option<&Secret> {
        self.both().find(|secret| secret.id == id)
    }

    /// The number of the secret of which a proof is, if it is that of who has this role, of one that is accepted.
    pub fn verify(&self, role: Role, handshake: &Handshake<'_>, proof: &[u8]) -> Option<u32> {
        let mut both = self.both();
        let proved = both.find(|secret| secret.verify(role, handshake, proof));
        proved.map(Secret::id)
    }

    fn both(&self) -> impl Iterator<Item = &Secret> {
        std::iter::once(&self.used).chain(&self.accepted)
    }
}

fn expand(extracted: &Prk, said: &[&[u8]], out: &mut [u8]) {
    let expanded = extracted.expand(said, Bytes(out.len()));
    let filled = expanded.and_then(|expanded| expanded.fill(out));
    filled.expect("a key is shorter than what HKDF gives at most");
}

/// All of a handshake, each part by its length: what is in one cannot be taken for another.
fn said(role: Role, handshake: &Handshake<'_>) -> Vec<u8> {
    let mut bytes = vec![role as u8];
    bytes.extend(handshake.nonces.into_iter().flatten());
    for hello in handshake.hellos {
        bytes.extend((hello.len() as u64).to_be_bytes());
        bytes.extend(hello);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    const OTHER: &[u8] = b"another secret of 32 bytes, or of more";

    #[test]
    fn nobody_is_shown_it() {
        let secret = Secret::of(SECRET);
        assert_eq!(format!("{secret:?} {secret:#?}"), "(hidden) (hidden)");
        let both = format!("{:?}", Secrets::new(secret, Some(Secret::of(OTHER))));
        assert_eq!(both, "Secrets { used: (hidden), accepted: Some((hidden)) }");
        let shown = Secrets::new(Secret::of(SECRET), Some(Secret::of(OTHER))).to_string();
        let [used, accepted] = [SECRET, OTHER].map(|secret| Secret::of(secret).id());
        assert_eq!(shown, format!("{used:08x}, and {accepted:08x} is accepted"));
    }

    #[test]
    fn a_proof_is_of_one_role_on_one_link() {
        let secret = Secret::of(SECRET);
        let (one, other) = ([1; NONCE_BYTES], [2; NONCE_BYTES]);
        let link = Handshake {
            nonces: [&one, &other],
            hellos: [b"opener", b"accepter"],
        };
        for role in [Role::Opener, Role::Accepter] {
            let proof = secret.prove(role, &link);
            assert!(secret.verify(role, &link, &proof));
            assert!(!secret.verify(role, &link, &proof[1..]));
            assert!(!secret.verify(role, &link, &[]));
            for place in 0..PROOF_BYTES * 8 {
                let mut wrong = proof;
                wrong[place / 8] ^= 1 << (place % 8);
                assert!(!secret.verify(role, &link, &wrong));
            }
            let another = Secret::of(OTHER);
            assert!(!another.verify(role, &link, &proof));
            let reflected = match role {
                Role::Opener => Role::Accepter,
                Role::Accepter => Role::Opener,
            };
            assert!(!secret.verify(reflected, &link, &proof));
            let nonces = [&other, &one];
            let hellos: [&[u8]; 2] = [b"openera", b"ccepter"];
            for changed in [Handshake { nonces, ..link }, Handshake { hellos, ..link }] {
                assert!(!secret.verify(role, &changed, &proof));
            }
        }
    }
    /// All that two nodes may have, and whether one takes the proof of the other: where it accepts what that one uses.
    #[test]
    fn a_proof_is_taken_by_who_accepts_its_secret() {
        let [old, new] = [SECRET, OTHER].map(Secret::of);
        let all = [
            Secrets::new(old.clone(), None),
            Secrets::new(old.clone(), Some(new.clone())),
            Secrets::new(new.clone(), Some(old.clone())),
            Secrets::new(new.clone(), None),
        ];
        let (one, other) = ([1; NONCE_BYTES], [2; NONCE_BYTES]);
        let link = Handshake {
            nonces: [&one, &other],
            hellos: [b"opener", b"accepter"],
        };
        // By who proves: whether each of them takes it.
        let taken = [
            [true, true, true, false],
            [true, true, true, false],
            [false, true, true, true],
            [false, true, true, true],
        ];
        for (prover, taken) in all.iter().zip(taken) {
            for (verifier, is_taken) in all.iter().zip(taken) {
                for role in [Role::Opener, Role::Accepter] {
                    let proof = prover.used().prove(role, &link);
                    let id = is_taken.then_some(prover.used().id());
                    assert_eq!(verifier.verify(role, &link, &proof), id);
                    let known = verifier.accepted(prover.used().id());
                    assert_eq!(known.map(Secret::id), id);
                }
            }
        }
        // In each step of a change any two that are at most a step apart take each other's.
        for (before, after) in all.iter().zip(&all[1..]) {
            for (one, other) in [(before, after), (after, before)] {
                assert!(one.accepted(other.used().id()).is_some());
            }
        }
        let same = Secrets::new(old.clone(), Some(old));
        assert_eq!(same.also_accepted(), None);
    }
}
