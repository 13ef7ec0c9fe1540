//! What random schedules come to seldom: copies of many frames that a crash cuts off, scans with copies in between, and files that
//! say what cannot be.

use super::super::disk::RecoverError;
use super::*;

const NOW: u64 = 1_000;

fn partition() -> Partition {
    Partition::of(b"{p}")
}

fn state(term: u32, first: u64) -> State {
    State {
        adopted: term,
        generation: 1,
        history: History::from(&[(term, first)][..]),
    }
}

fn record(name: &str, version: Version, len: usize) -> Record<Value> {
    let value = henge_wire::Value::from_slice(&[b'v'; 1]);
    Record {
        key: format!("{{p}}{name}").into_bytes(),
        version,
        value: Some(Value {
            data_type: value.data_type,
            data: vec![b'v'; len].into(),
            encoding: value.encoding,
            raw_len: len as u32,
            json: false,
            content_type: None,
            expires_at_ms: None,
        }),
    }
}

fn progress(term: u32, last: u64, commit: u64, horizon: u64) -> Progress {
    Progress {
        last: Version::new(term, last),
        commit,
        horizon,
    }
}

fn install(
    settings: &ShardSettings,
    shard: &mut Shard,
    replace: Replace,
    records: Vec<Record<Value>>,
    progress: Progress,
) {
    let turn = settings.turn(NOW);
    let mut table = PartitionTable::new(shard, partition(), turn);
    let term = progress.last.term();
    table.install(replace, records, progress, &state(term, 1));
}

fn seqs(shard: &mut Shard, settings: &ShardSettings) -> Vec<(Key, u64)> {
    let table = PartitionTable::new(shard, partition(), settings.turn(NOW));
    let (mut found, mut place) = (Vec::new(), 0);
    loop {
        place = table.scan(place, 0, &mut |record| {
            found.push((record.key, record.version.seq()));
        });
        if place == 0 {
            found.sort();
            return found;
        }
    }
}

/// A copy that is longer than a frame: cut anywhere it has never been, and what comes behind it in a later life does not end it.
#[test]
fn a_copy_of_many_frames_is_there_in_whole_or_not_at_all() {
    let settings = settings(200, 1_000);
    let mut shard = settings.shard();
    let mut files = Files::default();
    let old = vec![record("old", Version::new(1, 1), 10)];
    install(
        &settings,
        &mut shard,
        Replace::All,
        old,
        progress(1, 1, 1, 0),
    );
    files.write(&mut shard);
    let before = files.log.len();
    // Parts have a megabyte, and a record.
    let many = (1..=12).map(|n| record(&n.to_string(), Version::new(2, n), 400_000));
    let many: Vec<_> = many.collect();
    install(
        &settings,
        &mut shard,
        Replace::All,
        many,
        progress(2, 12, 7, 0),
    );
    files.write(&mut shard);
    let after = files.log.len();
    let cuts = (before..after).step_by(300_007).chain([after - 1]);
    for cut in cuts {
        let mut files = files.clone();
        files.lose(cut);
        let mut found = files.recover(&settings, NOW);
        let replica = &found.replicas[&partition()];
        assert_eq!(replica.progress, progress(1, 1, 1, 0), "cut at {cut}");
        assert_eq!(replica.state, state(1, 1));
        assert_eq!(seqs(&mut found.shard, &settings).len(), 1);
        // The next life goes on, with the next of the order, or with a copy of nothing, or with another one.
        for records in [0, 1, 3] {
            let mut files = files.clone();
            let mut shard = files.recover(&settings, NOW).shard;
            let others = (1..=records).map(|n| record("other", Version::new(3, n), 1_100_000));
            let others = others.take(1).chain(
                (2..=records).map(|n| record(&format!("other {n}"), Version::new(3, n), 1_100_000)),
            );
            let last = progress(3, 5, 5, 0);
            install(&settings, &mut shard, Replace::All, others.collect(), last);
            files.write(&mut shard);
            let mut found = files.recover(&settings, NOW);
            assert_eq!(found.replicas[&partition()].progress, last);
            assert_eq!(seqs(&mut found.shard, &settings).len() as u64, records);
        }
    }
    let mut found = files.recover(&settings, NOW);
    assert_eq!(found.replicas[&partition()].progress, progress(2, 12, 7, 0));
    assert_eq!(seqs(&mut found.shard, &settings).len(), 12);
}

/// What a snapshot says of its order is of the order that it has, also when that has become another one meanwhile.
#[test]
fn a_scan_says_nothing_of_the_order_that_came_after() {
    let settings = settings(20, 1_000);
    // What is replaced, and the commit and the horizon that the snapshot may say: of what is above 3 nothing any more.
    for (replace, commit, horizon) in [
        (None, 6, 5),
        (Some(Replace::Above(3)), 3, 3),
        (Some(Replace::All), 2, 0),
    ] {
        let mut shard = settings.shard();
        let records = (1..=6).map(|n| record(&n.to_string(), Version::new(1, n), 10));
        install(
            &settings,
            &mut shard,
            Replace::All,
            records.collect(),
            progress(1, 6, 2, 0),
        );
        let scan = shard.begin_scan(partition(), 1);
        if let Some(replace) = replace {
            let others = (4..=9).map(|n| record(&format!("other {n}"), Version::new(2, n), 10));
            let (others, copy) = (others.collect(), progress(2, 9, 8, 5));
            install(&settings, &mut shard, replace, others, copy);
        } else {
            shard.commit(partition(), 6);
            let copy = progress(1, 6, 6, 5);
            install(&settings, &mut shard, Replace::Above(6), Vec::new(), copy);
        }
        let said = shard.end_scan(partition(), &scan);
        assert_eq!(
            (said.last, said.commit, said.horizon),
            (Version::new(1, 6), commit, horizon),
            "{replace:?}"
        );
    }
}

/// It comes back empty, says so, and stays so in its log.
#[test]
fn without_room_for_what_nobody_else_may_have_the_memory_is_lost() {
    let roomy = settings(20, 1_000);
    let mut little = settings(2, 1_000);
    for (commit, is_lost) in [(2, true), (3, false)] {
        let mut shard = roomy.shard();
        let mut files = Files::default();
        let records = vec![
            record("a", Version::new(1, 1), 10),
            record("large", Version::new(1, 3), 300_000),
        ];
        install(
            &roomy,
            &mut shard,
            Replace::All,
            records,
            progress(1, 3, commit, 0),
        );
        files.write(&mut shard);
        let mut found = files.recover(&little, NOW);
        let replica = found.replicas[&partition()].clone();
        assert_eq!(replica.has_lost_memory, is_lost);
        assert_eq!(replica.state.adopted, 1);
        let seqs_then = seqs(&mut found.shard, &little);
        if is_lost {
            assert_eq!(replica.progress, Progress::default());
            assert_eq!(seqs_then, []);
        } else {
            assert_eq!(replica.progress, progress(1, 3, 3, 3));
            assert_eq!(seqs_then, [(b"{p}a".to_vec(), 1)]);
        }
        // In the next life there is room again, and nothing comes back; nobody may have been told that it was lost.
        files.write(&mut found.shard);
        let mut again = files.recover(&roomy, NOW);
        let replica = again.replicas[&partition()].clone();
        assert_eq!(replica.has_lost_memory, is_lost);
        assert_eq!(seqs(&mut again.shard, &roomy).is_empty(), is_lost);
        if !is_lost {
            continue;
        }
        // Nor does a snapshot make it forget that.
        let mut with_snapshot = files.clone();
        with_snapshot.snapshot(&mut again.shard, |_| {});
        let found = with_snapshot.recover(&roomy, NOW);
        assert!(found.replicas[&partition()].has_lost_memory);
        // Not by what it follows or a new generation, of which it may have heard before, but by what it is aligned with.
        let turn = roomy.turn(NOW);
        let adopted = State {
            history: History::default(),
            ..state(2, 1)
        };
        let ways: [&dyn Fn(&mut PartitionTable<'_>); 4] = [
            &|table| table.log(&adopted),
            &|table| table.align(2, &state(2, 1)),
            &|table| {
                let records = vec![record("b", Version::new(2, 1), 10)];
                table.install(
                    Replace::Above(0),
                    records,
                    progress(2, 1, 1, 0),
                    &state(2, 1),
                );
            },
            &|table| table.wipe(&adopted),
        ];
        for (n, way) in ways.into_iter().enumerate() {
            let mut files = files.clone();
            let mut shard = files.recover(&roomy, NOW).shard;
            way(&mut PartitionTable::new(&mut shard, partition(), turn));
            files.write(&mut shard);
            let mut with_snapshot = files.clone();
            with_snapshot.snapshot(&mut shard, |_| {});
            let found = with_snapshot.recover(&roomy, NOW);
            let has_lost_memory = found.replicas[&partition()].has_lost_memory;
            let mut found = files.recover(&roomy, NOW);
            let replica = found.replicas[&partition()].clone();
            assert_eq!(replica.has_lost_memory, n == 0 || n == 3, "{n}");
            assert_eq!(has_lost_memory, replica.has_lost_memory);
            assert_eq!(replica.state.adopted, 2);
            let there = seqs(&mut found.shard, &roomy).len();
            assert_eq!(there, usize::from(n == 2));
        }
    }
    // A partition that has nothing to lose loses nothing.
    little.room = Room::default();
    let found = Files::default().recover(&little, NOW);
    assert!(found.replicas.is_empty());
}

/// A snapshot needs the log behind it; and what is before it in the log counts for nothing.
#[test]
fn what_is_before_a_snapshot_in_the_log_counts_for_nothing() {
    let settings = settings(20, 1_000);
    let mut shard = settings.shard();
    let mut files = Files::default();
    let first = vec![record("a", Version::new(1, 9), 10)];
    install(
        &settings,
        &mut shard,
        Replace::All,
        first,
        progress(1, 9, 9, 0),
    );
    // The order goes back: a seq does not tell what is in the snapshot.
    let turn = settings.turn(NOW);
    PartitionTable::new(&mut shard, partition(), turn).wipe(&State {
        history: History::default(),
        ..state(2, 1)
    });
    let second = vec![record("b", Version::new(2, 3), 10)];
    install(
        &settings,
        &mut shard,
        Replace::All,
        second,
        progress(2, 3, 3, 0),
    );
    files.write(&mut shard);
    let log = files.log.clone();
    files.snapshot(&mut shard, |_| {});
    files.log = [log, files.log].concat();
    let mut found = files.recover(&settings, NOW);
    assert_eq!(seqs(&mut found.shard, &settings), [(b"{p}b".to_vec(), 3)]);
    assert_eq!(found.replicas[&partition()].progress, progress(2, 3, 3, 0));
    // One of another number is not the one that was restored.
    let mut other = Snapshot::of(&mut found.shard, 77);
    files.write(&mut found.shard);
    files.recover(&settings, NOW);
    other.truncate(other.len() - 1);
    let refused = settings.recover(NOW, Some(&other), &files.log);
    assert!(matches!(refused, Err(RecoverError::Incomplete)));
}

/// What a node had by itself is all committed, and the beginning of what it has as a replica.
#[test]
fn the_log_of_a_lone_node_is_that_of_a_replica_without_a_history() {
    use henge_engine::persistence::frame::{Content, Header, REPLICA_FORMAT, append};
    let settings = settings(2, 1_000);
    let header = Header {
        content: Content::Log,
        format: REPLICA_FORMAT,
        number: 1,
        cipher: 0,
        key_id: 0,
        salt: [0; 16],
    };
    // A flush.
    let mut log = Vec::new();
    let version = Version::new(1, 1).to_bits().to_le_bytes();
    let body = [&[2, 7, 0][..], &version].concat();
    append(header.seed(), &body, &mut log).expect("it is short");
    let found = settings.recover(NOW, None, &log).expect("it is whole");
    let partition = Partition::new(7).expect("it is one");
    let replica = &found.replicas[&partition];
    let (progress, state) = (replica.progress, &replica.state);
    assert_eq!((progress.last, progress.commit), (Version::new(1, 1), 1));
    assert_eq!((state.adopted, replica.has_lost_memory), (1, false));
}

/// A replica's own state has to fit its order: no replica writes one that does not.
#[test]
fn a_state_that_does_not_fit_its_order_is_no_memory() {
    let settings = settings(20, 1_000);
    let mut shard = settings.shard();
    let mut files = Files::default();
    let turn = settings.turn(NOW);
    let mut table = PartitionTable::new(&mut shard, partition(), turn);
    let records = vec![record("a", Version::new(1, 1), 10)];
    table.install(Replace::All, records, progress(1, 3, 1, 0), &state(2, 1));
    files.write(&mut shard);
    let found = files.recover(&settings, NOW);
    assert!(found.replicas[&partition()].has_lost_memory);
}
