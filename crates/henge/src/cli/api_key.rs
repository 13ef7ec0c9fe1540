//! The API key with which the commands of this program ask nodes. It is in the environment and in no flag: the command lines
//! of a machine are read by all who are on it.

use henge_client::{ApiKey, Error};
use http::HeaderValue;

/// The variable that has it.
const VARIABLE: &str = "HENGE_API_KEY";

/// The header that has it.
pub(super) const X_API_KEY: &str = "x-api-key";

/// For the help of the commands that ask a node.
pub(super) const HELP: &str = "\
Environment:
  HENGE_API_KEY  the API key that is shown to the node, where it asks for one
  HENGE_CA_FILE  the file, in PEM, of the authorities whose certificates are trusted, where the node is asked by https://";

/// The key, if there is one.
///
/// # Errors
/// What the variable has is no key; it is not shown.
pub(super) fn of_environment() -> Result<Option<ApiKey>, Error> {
    // One that is empty is there for a program that cannot take it away.
    let text = std::env::var_os(VARIABLE).filter(|text| !text.is_empty());
    let key = text.map(|text| text.to_str().unwrap_or_default().parse());
    key.transpose()
}

/// The same as the value of `X-API-Key`.
pub(super) fn header() -> Result<Option<HeaderValue>, Error> {
    let key = of_environment()?;
    Ok(key.map(|key| {
        let value = HeaderValue::try_from(key.reveal());
        let mut value = value.expect("visible characters can stand in a header");
        value.set_sensitive(true);
        value
    }))
}
