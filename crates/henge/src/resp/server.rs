//! What the clients of the Redis protocol share on a node: the list of them, the slow log, pauses, the counters of errors.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::clients::Clients;
use super::latency::Latency;
use super::pause::Pause;
use super::statistics::Statistics;

/// Codes of errors that are counted one by one. A client cannot make up codes, so there are few.
const MAX_ERROR_CODES: usize = 128;

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Server {
    pub(crate) clients: Clients,
    pub(crate) pause: Pause,
    pub(crate) latency: Latency,
    /// Where the statistics begin that `INFO` shows.
    pub(crate) since: Mutex<Statistics>,
    errors: Mutex<BTreeMap<String, u64>>,
}

impl Server {
    /// Counts an error reply by its code. Errors are rare, or their clients are slower than a lock.
    #[cold]
    pub(crate) fn count_error(&self, code: &str) {
        let mut errors = self.errors.lock();
        if let Some(count) = errors.get_mut(code) {
            *count += 1;
        } else if errors.len() < MAX_ERROR_CODES {
            errors.insert(code.to_owned(), 1);
        }
    }

    /// How often each code was answered.
    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().clone()
    }
}
