//! The API key that a client shows. It is in no error, no log and no `Debug`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::Error;

/// The text of an API key, as `henge key new` printed it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(Arc<str>);

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl FromStr for ApiKey {
    type Err = Error;

    /// Takes what both protocols can carry: visible characters of ASCII. Blanks around it are not part of it, as files end in a
    /// newline.
    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Argument(
                "an API key is of visible characters of ASCII, without blanks",
            ));
        }
        Ok(Self(text.into()))
    }
}

impl ApiKey {
    /// The text itself, for who sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_a_key_and_that_it_is_not_shown() {
        let key: ApiKey = " henge_1_x\n".parse().expect("it is one");
        assert_eq!(key.reveal(), "henge_1_x");
        assert_eq!(format!("{key:?}"), "(hidden)");
        for wrong in ["", " ", "a b", "a\nb", "ä"] {
            assert!(wrong.parse::<ApiKey>().is_err(), "{wrong:?}");
        }
    }
}
