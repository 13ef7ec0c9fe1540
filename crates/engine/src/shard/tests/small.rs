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
