//! A scan over the keys, page by page, of one member after the other: a cursor belongs to the member that gave it. It keeps nothing
//! on the servers, so it may be left at any page.

use std::sync::Arc;

use bytes::Bytes;

use crate::cluster::Member;
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
    /// Who has not told all its keys; the last one is asked.
    members: Vec<Arc<Member>>,
    cursor: String,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(client: &'a Client, pattern: Vec<u8>) -> Self {
        Self {
            client,
            pattern,
            count: PAGE_KEYS,
            members: client.owners(),
            cursor: ENDS.to_owned(),
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
        let Some(member) = self.members.last() else {
            return Ok(None);
        };
        let request = Request::Scan {
            cursor: &self.cursor,
            pattern: &self.pattern,
            count: self.count,
        };
        let Answer::Page { cursor, keys } = self.client.execute_at(member, &request).await? else {
            unreachable!("a scan is answered by a page");
        };
        if cursor == ENDS {
            self.members.pop();
        }
        self.cursor = cursor;
        Ok(Some(keys))
    }
}
