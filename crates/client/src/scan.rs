//! A scan over the keys, page by page. It keeps nothing on the server, so it may be left at any page.

use bytes::Bytes;

use crate::{Answer, Client, Error, Request};

/// Keys of a page when nothing is said: few round trips, and no long answers.
const PAGE_KEYS: u16 = 500;

/// The cursor of the beginning and of the end.
const ENDS: &str = "0";

/// A scan that is under way.
#[derive(Debug)]
pub struct Scan<'a> {
    client: &'a Client,
    pattern: Vec<u8>,
    count: u16,
    /// None when all pages were answered.
    cursor: Option<String>,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(client: &'a Client, pattern: Vec<u8>) -> Self {
        Self {
            client,
            pattern,
            count: PAGE_KEYS,
            cursor: Some(ENDS.to_owned()),
        }
    }

    /// How many keys a page should have, about: 1 to 1000, and 500 if it is not said.
    #[must_use]
    pub fn page_keys(mut self, count: u16) -> Self {
        self.count = count;
        self
    }

    /// The next page, which may be empty although there are more; none at the end. After an error the same page is asked
    /// for again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Bytes>>, Error> {
        let Some(cursor) = &self.cursor else {
            return Ok(None);
        };
        let request = Request::Scan {
            cursor,
            pattern: &self.pattern,
            count: self.count,
        };
        let Answer::Page { cursor, keys } = self.client.execute(&request).await? else {
            unreachable!("a scan is answered by a page");
        };
        self.cursor = (cursor != ENDS).then_some(cursor);
        Ok(Some(keys))
    }
}
