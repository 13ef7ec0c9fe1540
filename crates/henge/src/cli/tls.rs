//! Whom the commands of this program trust where they ask nodes over TLS: the authorities in the file that the environment names. It
//! shows no certificate: who asks has an API key, or asks where none is needed.

use std::fs;
use std::io;
use std::path::Path;

use henge_client::{Target, Tls};

use crate::config::shown;

/// The variable that has the path of the file.
const VARIABLE: &str = "HENGE_CA_FILE";

/// Those authorities, if this node is asked over TLS. The file is read each time, so that a command that runs for long learns of a
/// change.
///
/// # Errors
/// The variable names none, or the file cannot be read, or has no certificates.
pub(super) fn towards(node: &Target) -> io::Result<Option<Tls>> {
    if !node.scheme.is_secure() {
        return Ok(None);
    }
    // One that is empty is there for a program that cannot take it away.
    let path = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
    let Some(path) = path else {
        let line = format!(
            "{node} is asked over TLS, and {VARIABLE} names no file of the authorities that are trusted"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, line));
    };
    let path = Path::new(&path);
    let wrong = |kind, why: String| {
        let line = format!("{VARIABLE}, {}: {why}", shown(path));
        io::Error::new(kind, line)
    };
    let pem = fs::read(path).map_err(|error| wrong(error.kind(), error.to_string()))?;
    let tls = Tls::trusting(&pem);
    tls.map(Some)
        .map_err(|error| wrong(io::ErrorKind::InvalidData, error.to_string()))
}
