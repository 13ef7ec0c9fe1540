//! Small caches are exact: of three items, each order drops the one that it has to.

use super::*;

const NOW: u64 = 1_800_000_000_000;

/// What is done before a fourth key comes, as text: `a` sets, `a!` sets with that many seconds to live, `a?` gets.
fn survivors(policy: PolicyKind, script: &str) -> String {
    let mut shard = shard(policy, u64::MAX, 3);
    for word in script.split(' ') {
        let key = &word.as_bytes()[..1];
        match &word[1..] {
            "?" => drop(get(&mut shard, NOW, key)),
            "-" => drop(run(&mut shard, NOW, key, delete())),
            "" => drop(run(&mut shard, NOW, key, set(b"v", Expiry::Never))),
            ttl => {
                let at = NOW + 1000 * ttl.parse::<u64>().expect("seconds");
                drop(run(&mut shard, NOW, key, set(b"v", Expiry::At(at))));
            }
        }
        assert!(shard.stats().items <= 3);
    }
    shard.check();
    let keys = keys(&shard, NOW).concat();
    String::from_utf8(keys).expect("letters")
}

#[test]
fn each_order_drops_the_right_one() {
    for (policy, script, left) in [
        (PolicyKind::Lru, "a b c d", "bcd"),
        (PolicyKind::Lru, "a b c a? d", "acd"),
        (PolicyKind::Lru, "a b c a d", "acd"),
        (PolicyKind::Lru, "a b c a? b? d e", "bde"),
        (PolicyKind::Lru, "a b c b- d e", "cde"),
        (PolicyKind::Lru, "a9 b5 c d", "bcd"),
        (PolicyKind::Lfu, "a b c a? b? d", "abd"),
        (PolicyKind::Lfu, "a b c a? a? b? c? d", "acd"),
        (PolicyKind::Lfu, "a b c c? b? a? d e", "abe"),
        (PolicyKind::Lfu, "a a a b c d e", "ade"),
        // Counts end with their record.
        (PolicyKind::Lfu, "a a a a- b b c c a d", "bcd"),
        (PolicyKind::Ttl, "a9 b5 c7 d8", "acd"),
        (PolicyKind::Ttl, "a9 b5 c b? d", "acd"),
        (PolicyKind::Ttl, "a b9 c d", "acd"),
        (PolicyKind::Ttl, "a b c a? d", "acd"),
        (PolicyKind::Ttl, "a9 b5 c7 b d8", "abd"),
        (PolicyKind::Ttl, "a5 b5 c5 a? d", "acd"),
        // The small queue holds one, and the first two have gone on to the main one.
        (PolicyKind::S3Fifo, "a b c d", "abd"),
        (PolicyKind::S3Fifo, "a b c c? c? d", "bcd"),
        (PolicyKind::S3Fifo, "a b c c? c? a? d e", "ace"),
        // A ghost that comes back is in the main queue.
        (PolicyKind::S3Fifo, "a b c d c e", "bce"),
        (PolicyKind::Sieve, "a b c d", "bcd"),
        (PolicyKind::Sieve, "a b c a? d", "acd"),
        (PolicyKind::Sieve, "a b c a? b? d e", "bde"),
        (PolicyKind::Sieve, "a b c b- d e", "cde"),
        // The window holds one; what leaves it has to have been used more than what is on probation.
        (PolicyKind::WTinyLfu, "a b c d", "abd"),
        (PolicyKind::WTinyLfu, "a b c a? d c e c f", "acf"),
    ] {
        assert_eq!(survivors(policy, script), left, "{policy}: {script}");
    }
}

#[test]
fn random_drops_a_key_that_was_there() {
    let mut shard = shard(PolicyKind::Random, u64::MAX, 3);
    let mut gone = std::collections::BTreeSet::new();
    for n in 0..200u32 {
        let before = keys(&shard, NOW);
        run(&mut shard, NOW, &n.to_be_bytes(), set(b"v", Expiry::Never));
        let after = keys(&shard, NOW);
        assert!(
            after.contains(&n.to_be_bytes().to_vec()),
            "the new one stays"
        );
        let dropped: Vec<usize> = (0..before.len())
            .filter(|&i| !after.contains(&before[i]))
            .collect();
        assert_eq!(dropped.len(), usize::from(n >= 3));
        gone.extend(dropped);
    }
    assert_eq!(
        gone.len(),
        3,
        "the oldest, the newest and the one between were dropped"
    );
    shard.check();
}

/// However small the cache, whatever is set can be read until the next is set, and the limit holds.
#[test]
fn a_cache_of_few_items_takes_every_write() {
    for policy in PolicyKind::ALL {
        for items in [1, 2, 3, 10] {
            let mut shard = shard(policy, u64::MAX, items);
            for n in 0..2_000u32 {
                // Some keys come often, most once.
                let number = if n % 3 == 0 { n % 7 } else { n };
                let key = number.to_be_bytes();
                run(&mut shard, NOW, &key, set(b"v", Expiry::Never));
                assert_eq!(get(&mut shard, NOW, &key), Some(b"v".to_vec()), "{policy}");
                if n % 5 == 0 {
                    get(&mut shard, NOW, &(n % 4).to_be_bytes());
                }
                assert!(shard.stats().items <= items, "{policy}");
            }
            assert_eq!(shard.stats().items, items, "{policy}");
            shard.check();
        }
    }
}
