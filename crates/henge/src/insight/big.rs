//! Which items are the largest on this node: all of its partitions are looked through in steps, for one request after the other in the
//! order in which they came, and the largest kept. It is no use of a key, and what changes meanwhile may be missed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tokio::sync::Mutex;

use crate::cache::ScanCursor;
use crate::net::data_thread::Local;

/// The most keys that are shown.
pub(crate) const MOST_KEYS: usize = 100;
/// Items that are looked at before others of the thread have a turn: some 100 us.
const ITEMS_PER_STEP: usize = 512;

/// Held by who is looking. It is fair, so that nobody who asks again and again keeps others out.
#[derive(Debug, Default)]
pub(crate) struct Looking(Mutex<()>);

/// A large item.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Big {
    /// What it takes, its key and its part of the table included.
    pub(crate) bytes: u64,
    pub(crate) key: Vec<u8>,
    /// Its value as clients see it, before any compression.
    pub(crate) value_bytes: u64,
    pub(crate) expires_at_ms: Option<u64>,
}

/// The largest items.
#[derive(Debug)]
pub(crate) struct Biggest {
    /// The largest first.
    pub(crate) keys: Vec<Big>,
    pub(crate) looked_at: u64,
}

/// The largest items whose keys `shows` lets through, up to so many.
pub(crate) async fn biggest(local: &Local, count: usize, shows: impl Fn(&[u8]) -> bool) -> Biggest {
    let _turn = local.shared.insight.looking.0.lock().await;
    let mut largest: BinaryHeap<Reverse<Big>> = BinaryHeap::with_capacity(count + 1);
    let mut looked_at = 0;
    let mut cursor = ScanCursor::default();
    loop {
        let now_ms = local.shared.clock.now_ms();
        let cache = &local.shared.cache;
        cursor = cache.scan_sizes(cursor, ITEMS_PER_STEP, now_ms, &mut |key, size| {
            looked_at += 1;
            let is_larger = largest
                .peek()
                .is_none_or(|Reverse(least)| size.bytes > least.bytes);
            if (is_larger || largest.len() < count) && shows(key) {
                largest.push(Reverse(Big {
                    bytes: size.bytes,
                    key: key.to_vec(),
                    value_bytes: size.value_bytes,
                    expires_at_ms: size.expires_at_ms,
                }));
                if largest.len() > count {
                    largest.pop();
                }
            }
        });
        if cursor.is_end() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let keys = largest.into_sorted_vec().into_iter();
    Biggest {
        keys: keys.map(|Reverse(big)| big).collect(),
        looked_at,
    }
}
