//! The secret that the nodes of a cluster share, as `cluster.secret_file` has it: what is made of it, and the proof on a link
//! that the other side has it too. Nothing is ever encrypted with the secret itself, and nobody is shown it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use ring::hmac;

use henge_wire::peer::NONCE_BYTES;

use crate::config::shown;
use crate::encryption::private::{self, FILE_BYTES_MAX, FileError};

/// As many as 256 bits have, if they are random; a word that somebody thought of is shorter.
const BYTES_MIN: usize = 32;
/// Bytes of a proof.
pub(crate) const PROOF_BYTES: usize = 32;

/// What keys are made for. One for each purpose, so that nothing that is said in one can be used in another.
const SALT: &[u8] = b"henge cluster secret 1";
const KEY_ID: &[u8] = b"id";
const LINKS: &[u8] = b"links";
const DATAGRAMS: &[u8] = b"datagrams";

/// See the head of the file.
#[derive(Clone)]
pub(crate) struct Secret {
    extracted: Prk,
    links: hmac::Key,
    id: u32,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Why there is no secret. What it is is not in it.
#[derive(Debug)]
pub(crate) enum SecretError {
    /// The file cannot be read.
    Read(PathBuf, io::Error),
    /// Others than its owner may read or change it: its mode.
    Mode(PathBuf, u32),
    /// It is a directory, a pipe or a device.
    NoFile(PathBuf),
    /// It is too long for a secret.
    Long(PathBuf),
    /// It is too short: its bytes.
    Short(PathBuf, usize),
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(
                f,
                "{}: the cluster's secret cannot be read: {error}",
                shown(path)
            ),
            Self::Mode(path, mode) => write!(
                f,
                "{}: others than its owner may use the cluster's secret (mode {mode:04o}); expected 0600 or 0400",
                shown(path)
            ),
            Self::NoFile(path) => write!(
                f,
                "{}: expected a file with the cluster's secret, and it is none",
                shown(path)
            ),
            Self::Long(path) => write!(
                f,
                "{}: the file is larger than {FILE_BYTES_MAX} bytes, which no secret is",
                shown(path)
            ),
            Self::Short(path, bytes) => write!(
                f,
                "{}: the cluster's secret has {bytes} bytes; expected {BYTES_MIN} or more, all of them random, as of `openssl rand -hex 32`",
                shown(path)
            ),
        }
    }
}

impl std::error::Error for SecretError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(_, error) => Some(error),
            _ => None,
        }
    }
}

/// Which side of a link somebody is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// It has opened the connection.
    Opener = 1,
    /// It has accepted it.
    Accepter = 2,
}

/// What both sides of a link have said, the opener's first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Handshake<'a> {
    /// Drawn by each for this link.
    pub(crate) nonces: [&'a [u8; NONCE_BYTES]; 2],
    /// Their hellos, as they came.
    pub(crate) hellos: [&'a [u8]; 2],
}

/// So many bytes of a derived key.
struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

impl Secret {
    /// Reads the file. White space at its end is none of the secret, as an editor or `echo` leaves some.
    pub(crate) fn read(path: &Path) -> Result<Self, SecretError> {
        let owned = path.to_owned();
        let bytes = match private::read(path) {
            Ok(bytes) => bytes,
            Err(FileError::Read(error)) => return Err(SecretError::Read(owned, error)),
            Err(FileError::Mode(mode)) => return Err(SecretError::Mode(owned, mode)),
            Err(FileError::NoFile) => return Err(SecretError::NoFile(owned)),
            Err(FileError::Long) => return Err(SecretError::Long(owned)),
        };
        let secret = bytes.trim_ascii_end();
        if secret.len() < BYTES_MIN {
            return Err(SecretError::Short(owned, secret.len()));
        }
        Ok(Self::of(secret))
    }

    pub(super) fn of(secret: &[u8]) -> Self {
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

    /// A number that tells one secret from another, and nothing else of either.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// The key of one start of one sender of datagrams, by all that tells it from others.
    pub(super) fn datagrams(&self, of: &[u8]) -> LessSafeKey {
        let said = [DATAGRAMS, of];
        let expanded = self.extracted.expand(&said, &AES_256_GCM);
        let key = expanded.expect("a key is shorter than what HKDF gives at most");
        LessSafeKey::new(UnboundKey::from(key))
    }

    /// That who has this role has the secret, and has said and heard what is in the handshake. It is worth nothing for the other
    /// role, or on another link.
    pub(crate) fn prove(&self, role: Role, handshake: &Handshake<'_>) -> [u8; PROOF_BYTES] {
        let tag = hmac::sign(&self.links, &said(role, handshake));
        let mut proof = [0; PROOF_BYTES];
        proof.copy_from_slice(tag.as_ref());
        proof
    }

    /// Whether a proof is that of who has this role. It takes the same time wherever it is wrong.
    pub(crate) fn verify(&self, role: Role, handshake: &Handshake<'_>, proof: &[u8]) -> bool {
        hmac::verify(&self.links, &said(role, handshake), proof).is_ok()
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
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    #[test]
    fn a_file_is_for_its_owner_alone_and_long_enough() {
        let path = std::env::temp_dir().join(format!("henge-secret-{}", std::process::id()));
        let read = |mode, bytes: &[u8]| {
            fs::write(&path, bytes).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
            let read = Secret::read(&path);
            fs::remove_file(&path).expect("it is there");
            let read = read.map(|secret| secret.id());
            read.map_err(|error| error.to_string())
        };
        let shown = path.display().to_string();
        let with = |text: &str| Err(format!("{shown}: {text}"));
        let id = Secret::of(SECRET).id();
        let lined = [SECRET, b"\r\n"].concat();
        let table: &[(u32, &[u8], Result<u32, String>)] = &[
            (0o600, SECRET, Ok(id)),
            (0o400, &lined, Ok(id)),
            (
                0o640,
                SECRET,
                with(
                    "others than its owner may use the cluster's secret (mode 0640); expected 0600 or 0400",
                ),
            ),
            (
                0o600,
                &SECRET[1..],
                with(
                    "the cluster's secret has 31 bytes; expected 32 or more, all of them random, as of `openssl rand -hex 32`",
                ),
            ),
            (
                0o600,
                &[b'\n'; 100],
                with(
                    "the cluster's secret has 0 bytes; expected 32 or more, all of them random, as of `openssl rand -hex 32`",
                ),
            ),
            (
                0o600,
                &vec![b'x'; 70_000],
                with("the file is larger than 65536 bytes, which no secret is"),
            ),
        ];
        for (mode, bytes, expected) in table {
            assert_eq!(read(*mode, bytes), *expected);
        }
        let none = Secret::read(&path)
            .map(|_| ())
            .map_err(|error| error.to_string());
        let none = none.expect_err("there is no file");
        assert!(none.contains("cannot be read"), "{none}");
        let directory = Secret::read(&std::env::temp_dir()).expect_err("it is a directory");
        assert!(matches!(directory, SecretError::NoFile(_)), "{directory}");
    }

    #[test]
    fn nobody_is_shown_it() {
        let secret = Secret::of(SECRET);
        assert_eq!(format!("{secret:?} {secret:#?}"), "(hidden) (hidden)");
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
            let another = Secret::of(b"another secret of 32 bytes, or of more");
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
}
