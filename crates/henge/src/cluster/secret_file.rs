//! The files with the secrets of a cluster, `cluster.secret_file` and `cluster.accepted_secret_file`: read, and refused where
//! somebody else might have read them too, or might guess what is in them. What is made of a secret is not known here.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use henge_cluster::secret::{Secret, Secrets};

use crate::config::{Config, shown};
use crate::encryption::private::{self, FILE_BYTES_MAX, FileError};

/// As many as 256 bits have, if they are random; a word that somebody thought of is shorter.
const BYTES_MIN: usize = 32;

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

/// The secrets that a configuration names; none where it names none.
pub(crate) fn secrets(config: &Config) -> Result<Option<Secrets>, SecretError> {
    let Some(used) = &config.cluster.secret_file else {
        return Ok(None);
    };
    let used = read(used.as_path())?;
    let accepted = config.cluster.accepted_secret_file.as_ref();
    let accepted = accepted.map(|file| read(file.as_path())).transpose()?;
    Ok(Some(Secrets::new(used, accepted)))
}

/// Reads a file. White space at its end is none of the secret, as an editor or `echo` leaves some.
fn read(path: &Path) -> Result<Secret, SecretError> {
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
    Ok(Secret::of(secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use crate::config::FilePath;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    const OTHER: &[u8] = b"fedcba9876543210fedcba9876543210";

    fn write(path: &Path, mode: u32, bytes: &[u8]) {
        fs::write(path, bytes).expect("a file");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    #[test]
    fn a_file_is_for_its_owner_alone_and_long_enough() {
        let path = std::env::temp_dir().join(format!("henge-secret-{}", std::process::id()));
        let read = |mode, bytes: &[u8]| {
            write(&path, mode, bytes);
            let read = read(&path);
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
        let none = super::read(&path)
            .map(|_| ())
            .map_err(|error| error.to_string());
        let none = none.expect_err("there is no file");
        assert!(none.contains("cannot be read"), "{none}");
        let directory = super::read(&std::env::temp_dir()).expect_err("it is a directory");
        assert!(matches!(directory, SecretError::NoFile(_)), "{directory}");
    }

    /// Both files are looked at alike, and the same in both is as one.
    #[test]
    fn there_may_be_two() {
        let folder = std::env::temp_dir();
        let named = |what: &str| folder.join(format!("henge-secret-{what}-{}", std::process::id()));
        let (used, accepted) = (named("used"), named("accepted"));
        let ids = |files: [Option<&Path>; 2]| {
            let mut config = Config::default();
            let [used, accepted] = files.map(|file| file.map(FilePath::new));
            config.cluster.secret_file = used;
            config.cluster.accepted_secret_file = accepted;
            let secrets = secrets(&config).map_err(|error| error.to_string())?;
            Ok(secrets.map(|secrets| (secrets.used().id(), secrets.also_accepted())))
        };
        let [id, other] = [SECRET, OTHER].map(|secret| Secret::of(secret).id());
        write(&used, 0o600, SECRET);
        write(&accepted, 0o600, OTHER);
        let both = [Some(&*used), Some(&*accepted)];
        assert_eq!(ids([None, None]), Ok(None));
        assert_eq!(ids([Some(&used), None]), Ok(Some((id, None))));
        assert_eq!(ids(both), Ok(Some((id, Some(other)))));
        write(&accepted, 0o600, SECRET);
        assert_eq!(ids(both), Ok(Some((id, None))));
        write(&accepted, 0o644, OTHER);
        let error: String = ids(both).expect_err("others may read it");
        assert!(error.starts_with(&accepted.display().to_string()) && error.contains("mode 0644"));
        for path in [&used, &accepted] {
            fs::remove_file(path).expect("it is there");
        }
        let error: String = ids(both).expect_err("there is none");
        assert!(error.starts_with(&used.display().to_string()), "{error}");
    }
}
