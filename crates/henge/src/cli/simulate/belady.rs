//! The best possible hits of a cache that keeps what it is given (Belady, 1966): the item goes whose next use is furthest
//! away. It looks at what is to come, so it is what the others are measured by, and no policy.

use std::collections::BTreeSet;

/// Of an access after which its key is not used again. No trace is so long.
const NEVER: u32 = u32::MAX;

/// How many of the accesses find their key, if the cache holds so many; in O(n log n). Keys are numbered from 0.
pub(super) fn hits(accesses: &[u32], capacity: u64) -> u64 {
    let next = next_uses(accesses);
    // By the next use of each key that is held.
    let mut held: BTreeSet<(u32, u32)> = BTreeSet::new();
    let mut hits = 0;
    for (now, (&key, &next)) in accesses.iter().zip(&next).enumerate() {
        if held.remove(&(now as u32, key)) {
            hits += 1;
        } else if held.len() as u64 >= capacity {
            held.pop_last();
        }
        held.insert((next, key));
    }
    hits
}

/// For each access, when its key is used next.
fn next_uses(accesses: &[u32]) -> Vec<u32> {
    let keys = accesses.iter().max().map_or(0, |&key| key as usize + 1);
    let mut upcoming = vec![NEVER; keys];
    let mut next = vec![NEVER; accesses.len()];
    for (now, &key) in accesses.iter().enumerate().rev() {
        next[now] = std::mem::replace(&mut upcoming[key as usize], now as u32);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As the paper says it: looks ahead for each key that is held.
    fn naive(accesses: &[u32], capacity: usize) -> u64 {
        let mut held: Vec<u32> = Vec::new();
        let mut hits = 0;
        for (now, &key) in accesses.iter().enumerate() {
            if held.contains(&key) {
                hits += 1;
                continue;
            }
            if held.len() == capacity {
                let distance = |key: &u32| {
                    let ahead = &accesses[now..];
                    ahead.iter().position(|next| next == key)
                };
                let furthest = (0..held.len())
                    .max_by_key(|&at| distance(&held[at]).unwrap_or(usize::MAX))
                    .expect("a capacity is at least 1");
                held.remove(furthest);
            }
            held.push(key);
        }
        hits
    }

    proptest! {
        #[test]
        fn it_is_what_the_naive_one_says(
            accesses in prop::collection::vec(0u32..40, 0..300), capacity in 1usize..45
        ) {
            prop_assert_eq!(hits(&accesses, capacity as u64), naive(&accesses, capacity));
        }
    }

    #[test]
    fn the_example_of_every_textbook() {
        let accesses = [1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5];
        assert_eq!(hits(&accesses, 3), 5);
        assert_eq!(hits(&accesses, 4), 6);
        assert_eq!(hits(&[], 4), 0);
    }
}
