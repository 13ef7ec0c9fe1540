//! Copies: as a delta and in full, in one step, over again, and with too little room.

use super::*;
use crate::partition::ReplicaState;

const NOW: u64 = 1_800_000_000_000;
const ROOMY: u64 = u64::MAX / 4;

fn p() -> Partition {
    Partition::of(b"{p}")
}

fn kept(name: &str, term: u32, seq: u64, data: Option<&[u8]>) -> Kept {
    Kept {
        key: format!("{{p}}{name}").into_bytes(),
        version: Version::new(term, seq),
        deadline: None,
        data: data.map(<[u8]>::to_vec),
    }
}

fn progress(term: u32, last: u64, commit: u64, horizon: u64) -> Progress {
    Progress {
        last: Version::new(term, last),
        commit,
        horizon,
    }
}

fn install(shard: &mut Shard, replace: Replace, copy: &[Kept], progress: Progress) -> Room {
    let views: Vec<RecordView<'_>> = copy.iter().map(Kept::view).collect();
    let state = ReplicaState::default();
    shard.install(&turn(NOW), p(), replace, &views, progress, &state)
}

/// A replica with a to e at 1 to 5 and a tombstone of f at 6, of term 1; 3 are committed.
fn replica(bytes: u64) -> Shard {
    let mut shard = told(PolicyKind::Lru, bytes, ROOMY, usize::MAX);
    for name in ["a", "b", "c", "d", "e"] {
        let key = format!("{{p}}{name}");
        run(&mut shard, NOW, key.as_bytes(), set(b"old", Expiry::Never));
    }
    run(&mut shard, NOW, b"{p}f", delete());
    shard.commit(p(), 3);
    shard
}

#[test]
fn a_delta_replaces_what_diverged_and_may_be_repeated() {
    let mut shard = replica(ROOMY);
    let deadline = Some(NOW + 5000);
    // The other history shares 4. It deleted a, wrote d again and g; of the keys above 4 here, e and f, it holds an older
    // f and no e.
    let mut copy = [
        kept("a", 2, 5, None),
        kept("d", 2, 6, Some(b"new")),
        kept("g", 2, 7, Some(&vec![7; 20_000])),
        kept("f", 1, 2, Some(b"older")),
    ];
    copy[1].deadline = deadline;
    let untouched = [kept("b", 1, 2, Some(b"old")), kept("c", 1, 3, Some(b"old"))];
    let mut expected = [&copy[..], &untouched].concat();
    expected.sort();
    for _ in 0..2 {
        let progress = progress(2, 8, 5, 2);
        let overdrawn = install(&mut shard, Replace::Above(4), &copy, progress);
        assert_eq!(overdrawn, Room::default());
        assert_eq!(records(&shard, p(), 0), expected);
        assert_eq!(shard.progress(p()), progress);
        assert_eq!((shard.stats().items, shard.stats().tombstones), (5, 1));
        shard.check();
    }
    while shard.sweep(NOW + 10_000, 100) {}
    assert_eq!(
        records(&shard, p(), 0).len(),
        6,
        "d expired above the commit"
    );
    assert_eq!(get(&mut shard, NOW + 10_000, b"{p}d"), None);
}

#[test]
fn a_full_copy_replaces_all_and_may_be_repeated() {
    let mut shard = replica(ROOMY);
    let mut copy = vec![kept("b", 2, 7, Some(b"new")), kept("z", 1, 2, None)];
    copy.extend((0..500).map(|n| kept(&n.to_string(), 2, 8 + n, Some(b"v"))));
    copy.sort();
    for _ in 0..2 {
        let progress = progress(2, 600, 550, 520);
        let overdrawn = install(&mut shard, Replace::All, &copy, progress);
        assert_eq!(overdrawn, Room::default());
        assert_eq!(records(&shard, p(), 0), copy);
        assert_eq!(shard.progress(p()), progress);
        shard.check();
    }
}

#[test]
fn a_copy_of_what_has_changed_never_lowers_the_commit_or_the_horizon() {
    let mut shard = replica(ROOMY);
    assert!(shard.evict(Cause::Size) && shard.evict(Cause::Size));
    assert_eq!(shard.progress(p()), progress(1, 6, 3, 2));
    install(&mut shard, Replace::Above(6), &[], progress(2, 6, 1, 0));
    assert_eq!(shard.progress(p()), progress(2, 6, 3, 2));
}

#[test]
#[should_panic(expected = "in order")]
fn a_copy_that_ends_before_what_is_committed_here_is_not_installed() {
    let mut shard = replica(ROOMY);
    let _ = install(&mut shard, Replace::Above(2), &[], progress(2, 2, 2, 2));
}

/// Of its own nothing is left, so nothing of its own progress is either.
#[test]
fn a_copy_of_all_brings_its_progress() {
    let mut shard = replica(ROOMY);
    assert!(shard.evict(Cause::Size) && shard.evict(Cause::Size));
    install(&mut shard, Replace::All, &[], progress(2, 2, 1, 0));
    assert_eq!(shard.progress(p()), progress(2, 2, 1, 0));
}

/// The rest of the shard is another partition's, and nothing of it is committed.
fn crowd(shard: &mut Shard) {
    for n in 0.. {
        let (key, data) = (format!("{{q}}{n}"), [1; 2000]);
        let reply = run(shard, NOW, key.as_bytes(), set(&data, Expiry::Never));
        if let Reply::Refused(Refusal::MemoryFull) = reply {
            break;
        }
    }
}

#[test]
fn without_room_what_is_committed_is_dropped() {
    let mut shard = replica(500_000);
    crowd(&mut shard);
    let others = records(&shard, Partition::of(b"{q}"), 0).len();
    assert!(others > 100);
    // a is here at 1, and must not outlive its newer version that finds no room.
    let copy = [
        kept("a", 2, 7, Some(&vec![7; 60_000])),
        kept("b", 2, 8, Some(&vec![8; 60_000])),
    ];
    let overdrawn = install(&mut shard, Replace::Above(6), &copy, progress(2, 9, 8, 3));
    assert_eq!(overdrawn, Room::default(), "both may be dropped");
    let now = shard.progress(p());
    assert_eq!(now, progress(2, 9, 8, 8));
    for name in ["a", "b"] {
        let key = format!("{{p}}{name}");
        assert_eq!(get(&mut shard, NOW, key.as_bytes()), None);
    }
    assert_eq!(records(&shard, Partition::of(b"{q}"), 0).len(), others);
    shard.check();
}

/// A record may be larger than this node allows. Nothing is evicted for it then.
#[test]
fn what_is_too_large_here_takes_its_older_version_with_it() {
    let mut shard = replica(ROOMY);
    let copy = [kept("a", 2, 7, Some(&vec![7; 600_000]))];
    let views: Vec<RecordView<'_>> = copy.iter().map(Kept::view).collect();
    let turn = Turn {
        cause: Cause::Size,
        limit: Room {
            bytes: 500_000,
            items: ROOMY,
        },
        ..turn(NOW)
    };
    let (progress_then, state) = (progress(2, 7, 7, 0), ReplicaState::default());
    let overdrawn = shard.install(&turn, p(), Replace::Above(6), &views, progress_then, &state);
    assert_eq!(overdrawn, Room::default(), "it may be dropped");
    assert_eq!(get(&mut shard, NOW, b"{p}a"), None);
    assert_eq!(shard.progress(p()), progress(2, 7, 7, 7));
    shard.check();
}

/// It was promised by others, and nothing that is here may be dropped for it.
#[test]
fn for_what_is_not_committed_the_shard_grants_itself_room() {
    let mut shard = replica(500_000);
    crowd(&mut shard);
    let others = records(&shard, Partition::of(b"{q}"), 0);
    let granted = shard.granted();
    let copy = [
        kept("a", 2, 8, Some(&vec![7; 60_000])),
        kept("g", 2, 7, Some(b"v")),
    ];
    let overdrawn = install(&mut shard, Replace::Above(6), &copy, progress(2, 8, 7, 0));
    assert!(
        (1..200_000).contains(&overdrawn.bytes),
        "{}",
        overdrawn.bytes
    );
    assert_eq!(shard.granted().bytes, granted.bytes + overdrawn.bytes);
    assert!(records(&shard, p(), 6).contains(&copy[0]));
    assert_eq!(shard.progress(p()).last, Version::new(2, 8));
    assert_eq!(records(&shard, Partition::of(b"{q}"), 0), others);
    shard.check();
}

#[test]
fn a_wiped_partition_has_never_been() {
    let mut shard = replica(ROOMY);
    run(&mut shard, NOW, b"{q}", set(b"v", Expiry::Never));
    shard.wipe(p());
    assert_eq!(records(&shard, p(), 0), []);
    assert_eq!(shard.progress(p()), progress(0, 0, 0, 0));
    assert_eq!((shard.stats().items, shard.stats().tombstones), (1, 0));
    assert_eq!(get(&mut shard, NOW, b"{q}"), Some(b"v".to_vec()));
    run(&mut shard, NOW, b"{p}a", set(b"v", Expiry::Never));
    assert_eq!(shard.progress(p()), progress(0, 1, 0, 0));
    shard.check();
}
