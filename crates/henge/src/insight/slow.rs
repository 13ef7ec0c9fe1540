//! The last commands and requests that took longer than a threshold. Each entry is bounded, whatever was asked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use henge_wire::resp::request::Arguments;
use parking_lot::Mutex;

/// An entry keeps so many words of its command, and so many bytes of each, as in Redis.
const MAX_WORDS: usize = 32;
const MAX_WORD_BYTES: usize = 128;
/// More entries than this nobody reads. They are beside `cache.max_size_bytes`, and each may hold some 6 KiB.
pub(crate) const MAX_ENTRIES: u64 = 10_000;
/// Entries that are looked at under one hold of the lock, for which others' slow commands wait.
const ENTRIES_PER_STEP: usize = 256;

/// One that was slow.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    /// Milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
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
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    next_id: u64,
    /// The newest first, and so by descending id.
    kept: VecDeque<Arc<Entry>>,
}

impl Default for SlowLog {
    /// As Redis has it: from 10 ms, 128 entries.
    fn default() -> Self {
        Self {
            threshold_us: AtomicI64::new(10_000),
            max_entries: AtomicU64::new(128),
            entries: Mutex::new(Entries::default()),
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
        let mut entries = self.entries.lock();
        let len = entries.kept.len();
        let rest = entries.kept.split_off(len.min(max_entries as usize));
        // Freed where nobody waits for it.
        drop(entries);
        drop(rest);
    }

    /// Whether a command that took so long belongs here.
    #[inline]
    pub(crate) fn is_slow(&self, took_us: u64) -> bool {
        u64::try_from(self.threshold_us()).is_ok_and(|threshold| took_us >= threshold)
    }

    /// Adds a command, whose words are [`shortened`], of a client at this address, which may have a name.
    pub(crate) fn add(
        &self,
        now_ms: u64,
        took_us: u64,
        words: Vec<Vec<u8>>,
        client: SocketAddr,
        client_name: &[u8],
    ) {
        let client_name = shortened_word(client_name);
        let client = client.to_string();
        let mut entries = self.entries.lock();
        let entry = Entry {
            id: entries.next_id,
            at_ms: now_ms,
            took_us,
            words,
            client,
            client_name,
        };
        entries.next_id += 1;
        entries.kept.push_front(Arc::new(entry));
        entries.kept.truncate(self.max_entries() as usize);
    }

    /// The newest, up to `count` of them.
    pub(crate) fn newest(&self, count: usize) -> Vec<Arc<Entry>> {
        let mut found: Vec<Arc<Entry>> = Vec::new();
        while found.len() < count {
            let entries = self.entries.lock();
            // What came since the last step stands before what was found.
            let next = found.last().map_or(0, |last| {
                entries.kept.partition_point(|entry| entry.id >= last.id)
            });
            let step = ENTRIES_PER_STEP.min(count - found.len());
            let before = found.len();
            found.extend(entries.kept.iter().skip(next).take(step).cloned());
            if found.len() == before {
                break;
            }
        }
        found
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.lock().kept.len()
    }

    pub(crate) fn clear(&self) {
        let forgotten = std::mem::take(&mut self.entries.lock().kept);
        drop(forgotten);
    }
}

/// The words of a command as an entry keeps them, in Redis's own form of shortening.
pub(crate) fn shortened(words: Arguments<'_>) -> Vec<Vec<u8>> {
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

pub(crate) fn shortened_word(word: &[u8]) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_in_steps_is_whole_and_in_order() {
        let log = SlowLog::default();
        let address: SocketAddr = "127.0.0.1:1".parse().expect("an address");
        let all = 3 * ENTRIES_PER_STEP + 7;
        log.set_max_entries(all as u64);
        for _ in 0..all + 5 {
            log.add(0, 1, Vec::new(), address, b"");
        }
        for count in [
            0,
            1,
            ENTRIES_PER_STEP,
            ENTRIES_PER_STEP + 1,
            all,
            usize::MAX,
        ] {
            let ids: Vec<u64> = log.newest(count).iter().map(|entry| entry.id).collect();
            let newest = all as u64 + 4;
            let expected: Vec<u64> = (0..count.min(all) as u64).map(|n| newest - n).collect();
            assert_eq!(ids, expected);
        }
        log.set_max_entries(3);
        assert_eq!((log.len(), log.newest(9).len()), (3, 3));
        log.clear();
        assert_eq!((log.len(), log.newest(9).len()), (0, 0));
        log.add(0, 1, Vec::new(), address, b"");
        assert_eq!(log.newest(1)[0].id, all as u64 + 5, "ids go on");
    }
}
