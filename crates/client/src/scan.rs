//! A scan over the keys, page by page. A member of Redis Cluster shows its own keys: one is asked after the other, and a cursor belongs
//! to the member that gave it. A node of Henge shows those of all, and any node goes on from there. A scan keeps nothing on the
//! servers, so it may be left at any page.

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
    course: Course,
    cursor: String,
}

/// Whose keys are on the pages.
#[derive(Debug)]
enum Course {
    /// That is to be found out with the first page.
    Unknown,
    /// Those of all members, whoever is asked.
    All,
    /// Those of who is asked. These have not told all of theirs; the last one is asked.
    Each(Vec<Arc<Member>>),
}

impl<'a> Scan<'a> {
    pub(crate) fn new(client: &'a Client, pattern: Vec<u8>) -> Self {
        Self {
            client,
            pattern,
            count: PAGE_KEYS,
            course: Course::Unknown,
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
        let request = Request::Scan {
            cursor: &self.cursor,
            pattern: &self.pattern,
            count: self.count,
        };
        let mut answer = None;
        if matches!(self.course, Course::Unknown) {
            answer = self.client.first_page_of_all(&request).await?;
            self.course = match answer {
                Some(_) => Course::All,
                None => Course::Each(self.client.owners()),
            };
        }
        let answer = match (answer, &self.course) {
            (Some(answer), _) => answer,
            (None, Course::Each(members)) => match members.last() {
                Some(member) => self.client.execute_at(member, &request).await?,
                None => return Ok(None),
            },
            (None, _) => self.client.execute(&request).await?,
        };
        let Answer::Page { cursor, keys } = answer else {
            unreachable!("a scan is answered by a page");
        };
        if cursor == ENDS {
            match &mut self.course {
                Course::Each(members) => drop(members.pop()),
                // Nobody has more.
                course => *course = Course::Each(Vec::new()),
            }
        }
        self.cursor = cursor;
        Ok(Some(keys))
    }
}
