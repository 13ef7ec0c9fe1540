//! `SLOWLOG`: the last commands that took longer than a threshold. Each entry is bounded, whatever the command was.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use henge_wire::resp::request::Arguments;
use parking_lot::Mutex;

use super::clients::Client;

/// An entry keeps so many words of its command, and so many bytes of each, as in Redis.
const MAX_WORDS: usize = 32;
const MAX_WORD_BYTES: usize = 128;
/// More entries than this nobody reads, and each may hold some kilobytes.
pub(crate) const MAX_ENTRIES: u64 = 100_000;

/// One slow command.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    /// Seconds since the Unix epoch.
    pub(crate) at_seconds: u64,
    pub(crate) took_us: u64,
    pub(crate) words: Vec<Vec<u8>>,
    pub(crate) client: String,
    pub(crate) client_name: Vec<u8>,
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct SlowLog {
    /// In microseconds; 0 logs all, negative none.
    threshold_us: AtomicI64,
    max_entries: AtomicU64,
    next_id: AtomicU64,
    /// The newest first.
    entries: Mutex<VecDeque<Entry>>,
}

impl Default for SlowLog {
    /// As Redis has it: from 10 ms, 128 entries.
    fn default() -> Self {
        Self {
            threshold_us: AtomicI64::new(10_000),
            max_entries: AtomicU64::new(128),
            next_id: AtomicU64::new(0),
            entries: Mutex::new(VecDeque::new()),
        }
    }
}

impl SlowLog {
    #[inline]
    pub(crate) fn threshold_us(&self) -> i64 {
        self.threshold_us.load(Ordering::Relaxed)
    }

    pub(crate) fn set_threshold_us(&self, threshold_us: i64) {
        self.threshold_us.store(threshold_us, Ordering::Relaxed);
    }

    pub(crate) fn max_entries(&self) -> u64 {
        self.max_entries.load(Ordering::Relaxed)
    }

    pub(crate) fn set_max_entries(&self, max_entries: u64) {
        self.max_entries.store(max_entries, Ordering::Relaxed);
        self.entries.lock().truncate(max_entries as usize);
    }

    /// Whether a command that took so long belongs here.
    #[inline]
    pub(crate) fn is_slow(&self, took_us: u64) -> bool {
        u64::try_from(self.threshold_us()).is_ok_and(|threshold| took_us >= threshold)
    }

    /// Adds a command, whose words are [`shortened`].
    pub(crate) fn add(&self, now_ms: u64, took_us: u64, words: Vec<Vec<u8>>, client: &Client) {
        let entry = Entry {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            at_seconds: now_ms / 1000,
            took_us,
            words,
            client: client.address.to_string(),
            client_name: shortened_word(&client.details.lock().name),
        };
        let mut entries = self.entries.lock();
        entries.push_front(entry);
        entries.truncate(self.max_entries() as usize);
    }

    /// The newest, up to `count` of them.
    pub(crate) fn newest(&self, count: usize) -> Vec<Entry> {
        self.entries.lock().iter().take(count).cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.lock().len()
    }

    pub(crate) fn clear(&self) {
        self.entries.lock().clear();
    }
}

/// The words of a command as an entry keeps them, in Redis's own form of shortening.
pub(super) fn shortened(words: Arguments<'_>) -> Vec<Vec<u8>> {
    let kept = if words.len() > MAX_WORDS {
        MAX_WORDS - 1
    } else {
        words.len()
    };
    let mut all: Vec<Vec<u8>> = words.from(0).take(kept).map(shortened_word).collect();
    if kept < words.len() {
        all.push(format!("... ({} more arguments)", words.len() - kept).into_bytes());
    }
    all
}

fn shortened_word(word: &[u8]) -> Vec<u8> {
    if word.len() <= MAX_WORD_BYTES {
        return word.to_vec();
    }
    let rest = word.len() - MAX_WORD_BYTES;
    [
        &word[..MAX_WORD_BYTES],
        format!("... ({rest} more bytes)").as_bytes(),
    ]
    .concat()
}
