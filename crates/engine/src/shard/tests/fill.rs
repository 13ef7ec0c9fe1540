//! A partition that is being filled, and what else is in its shard.

use super::*;
use crate::partition::ReplicaState;

const NOW: u64 = 1_800_000_000_000;
const ROOMY: u64 = u64::MAX / 4;
/// More than an order looks at.
const FILLED: u64 = 3_000;

/// Where nothing of a copy may be dropped others may be, whatever the order.
#[test]
fn what_fills_a_partition_keeps_nothing_else_from_being_dropped() {
    let (filled, other) = (Partition::of(b"{p}"), Partition::of(b"{q}"));
    for policy in PolicyKind::ALL {
        let mut shard = told(policy, ROOMY, FILLED + 50, usize::MAX);
        for n in 0..50 {
            let key = format!("{{q}}{n}");
            run(
                &mut shard,
                NOW,
                key.as_bytes(),
                set(b"v", Expiry::At(NOW + 90_000)),
            );
        }
        let last = shard.progress(other).last.seq();
        shard.commit(other, last);
        // They are used, and what comes is not, nor does it live as long: it is first in most orders.
        for n in (0..50).chain(0..50) {
            let key = format!("{{q}}{n}");
            assert!(get(&mut shard, NOW, key.as_bytes()).is_some());
        }
        let keys: Vec<Vec<u8>> = (0..FILLED)
            .map(|n| format!("{{p}}{n}").into_bytes())
            .collect();
        let records = keys.iter().zip(1..).map(|(key, seq)| Kept {
            key: key.clone(),
            version: Version::new(1, seq),
            deadline: Some(NOW + 1_000),
            data: Some(b"v".to_vec()),
        });
        let records: Vec<Kept> = records.collect();
        let views: Vec<RecordView<'_>> = records.iter().map(Kept::view).collect();
        for part in views.chunks(64) {
            let _ = shard.fill(&turn(NOW), filled, part);
        }
        let before = shard.stats();
        for n in 50..80 {
            let key = format!("{{q}}{n}");
            let reply = run(&mut shard, NOW, key.as_bytes(), set(b"v", Expiry::Never));
            assert!(
                matches!(reply, Reply::Stored { .. }),
                "{policy:?}: {reply:?}"
            );
            let last = shard.progress(other).last.seq();
            shard.commit(other, last);
        }
        assert_eq!(shard.stats().items, before.items, "{policy:?}");
        let progress = Progress {
            last: Version::new(1, FILLED),
            commit: FILLED,
            horizon: 0,
        };
        shard.complete(filled, progress, &ReplicaState::default());
        assert_eq!(shard.items_of(filled), FILLED, "{policy:?}");
        shard.check();
    }
}
