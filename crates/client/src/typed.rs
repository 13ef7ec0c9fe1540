//! Values of types of the program, as JSON by serde: the methods for them, and what goes wrong beside what does with bytes. It adds
//! no mark to a value, so that any other client can read and write it, and knows no versions of a type.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Client, Error, SetOptions};

/// A value that is no JSON of its type. Nothing of the value is in it, which serde would quote: values may be nobody's business who
/// reads a log. What serde says of it [`Client::get`] and `serde_json` tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TypedError {
    /// The value to store has no form in JSON, such as a map whose keys are no texts.
    NoForm,
    /// What the server has is no JSON: somebody else stored something else. Where that shows.
    NoJson {
        /// From 1 on.
        line: usize,
        /// In bytes, from 1 on.
        column: usize,
    },
    /// What the server has is JSON, and of another type. Where that shows.
    OtherType {
        /// From 1 on.
        line: usize,
        /// In bytes, from 1 on.
        column: usize,
    },
}

impl fmt::Display for TypedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoForm => f.write_str("the value has no form in JSON"),
            Self::NoJson { line, column } => write!(
                f,
                "the value is no JSON, which shows at line {line}, column {column}"
            ),
            Self::OtherType { line, column } => write!(
                f,
                "the value is JSON of another type than was expected, which shows at line {line}, column {column}"
            ),
        }
    }
}

impl std::error::Error for TypedError {}

impl TypedError {
    fn of_reading(error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        if error.is_data() {
            Self::OtherType { line, column }
        } else {
            Self::NoJson { line, column }
        }
    }
}

impl Client {
    /// The value of a key as what [`Client::set_as`] stored, or others as JSON; none if the key is not there. Values are opened
    /// before that, if the client has [keys](crate::Builder::encryption).
    ///
    /// # Errors
    /// Beside those of [`Client::get`], [`Error::Typed`] where the value is there and is no JSON of this type.
    ///
    /// ```no_run
    /// use henge_client::{Client, SetOptions};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Visitor {
    ///     name: String,
    ///     visits: u32,
    /// }
    ///
    /// # async fn example() -> Result<(), henge_client::Error> {
    /// let client = Client::connect("redis://localhost:8080").await?;
    /// let visitor = Visitor { name: "Ada".to_owned(), visits: 1 };
    /// client.set_as("visitor:1", &visitor, SetOptions::new()).await?;
    ///
    /// let found: Option<Visitor> = client.get_as("visitor:1").await?;
    /// assert_eq!(found.map(|visitor| visitor.visits), Some(1));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_as<T: DeserializeOwned>(
        &self,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key).await? else {
            return Ok(None);
        };
        let read = serde_json::from_slice(&value);
        read.map(Some)
            .map_err(|error| TypedError::of_reading(&error).into())
    }

    /// Stores a value as JSON; false if the condition of the options does not hold.
    ///
    /// # Errors
    /// Beside those of [`Client::set`], [`Error::Typed`] where it has no form in JSON; then nothing was sent.
    pub async fn set_as<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        options: SetOptions,
    ) -> Result<bool, Error> {
        let written = serde_json::to_vec(value).map_err(|_| TypedError::NoForm)?;
        self.set(key, written, options).await
    }
}
