//! A full copy that fills a partition: whatever ends it, and wherever a snapshot begins and ends, it comes back in whole or not at all.

use super::*;
use henge_engine::Cause;

const NOW: u64 = 1_000;
/// So many that the table's scan has several places.
const RECORDS: u64 = 90;

fn partition() -> Partition {
    Partition::of(b"{p}")
}

fn state() -> State {
    State {
        adopted: 2,
        generation: 1,
        history: History::from(&[(2, 1)][..]),
    }
}

fn key(n: u64) -> Key {
    format!("{{p}}{n}").into_bytes()
}

fn record(n: u64, seq: u64) -> (Key, Option<Record<Value>>) {
    let data = vec![b'v'; 3_000];
    let record = Record {
        key: key(n),
        version: Version::new(2, seq),
        value: Some(Value {
            data_type: henge_wire::Value::from_slice(b"").data_type,
            encoding: henge_wire::Encoding::Raw,
            raw_len: data.len() as u32,
            data: data.into(),
            json: false,
            content_type: None,
            expires_at_ms: None,
        }),
    };
    (record.key.clone(), Some(record))
}

const END: Progress = Progress {
    last: Version::new(2, 200),
    commit: 150,
    horizon: 120,
};

/// What becomes of the partition, one after the other.
enum Step {
    Fill(Vec<(Key, Option<Record<Value>>)>),
    Empty,
    Complete,
}

fn steps() -> Vec<Step> {
    let part = |from, to| Step::Fill((from..to).map(|n| record(n, n + 1)).collect());
    vec![
        // One that does not come to its end.
        part(0, 40),
        part(60, 70),
        Step::Empty,
        part(0, 30),
        part(30, 31),
        // Some have changed meanwhile, and of some nothing is left.
        Step::Fill(vec![record(3, 100), (key(4), None), (key(999), None)]),
        part(31, RECORDS),
        Step::Fill(Vec::new()),
        Step::Complete,
    ]
}

fn expected() -> Vec<(Key, u64)> {
    let others = (0..RECORDS).filter(|&n| n != 4);
    let mut all: Vec<_> = others
        .map(|n| (key(n), if n == 3 { 100 } else { n + 1 }))
        .collect();
    all.sort();
    all
}

fn take(shard: &mut Shard, settings: &ShardSettings, step: Step) {
    let mut table = PartitionTable::new(shard, partition(), settings.turn(NOW));
    match step {
        Step::Fill(states) => table.fill(states),
        Step::Empty => table.empty(),
        Step::Complete => table.complete(END, &state()),
    }
}

fn seqs(shard: &Shard) -> Vec<(Key, u64)> {
    let (mut found, mut place) = (Vec::new(), 0);
    loop {
        place = shard.scan_records(partition(), 0, place, |record| {
            found.push((record.key.to_vec(), record.version.seq()));
        });
        if place == 0 {
            found.sort();
            return found;
        }
    }
}

/// A replica that is aligned with nothing.
fn begun(settings: &ShardSettings) -> Shard {
    let mut shard = settings.shard();
    PartitionTable::new(&mut shard, partition(), settings.turn(NOW)).align(2, &state());
    shard
}

fn comes_back(files: &Files, settings: &ShardSettings, is_whole: bool, when: &str) {
    let found = files.clone().recover(settings, NOW);
    let replica = &found.replicas[&partition()];
    assert!(!replica.has_lost_memory, "{when}");
    assert_eq!(replica.state, state(), "{when}");
    let nothing = Progress {
        last: Version::new(2, 0),
        ..Progress::default()
    };
    let (progress, records) = if is_whole {
        (END, expected())
    } else {
        (nothing, Vec::new())
    };
    assert_eq!(replica.progress, progress, "{when}");
    assert_eq!(seqs(&found.shard), records, "{when}");
    assert_eq!(
        found.shard.stats().items,
        records.len() as u64,
        "nothing else is left, {when}"
    );
}

#[test]
fn it_comes_back_in_whole_or_not_at_all() {
    let settings = settings(20, 1_000);
    let mut shard = begun(&settings);
    let mut files = Files::default();
    let count = steps().len();
    for (n, step) in steps().into_iter().enumerate() {
        take(&mut shard, &settings, step);
        files.write(&mut shard);
        comes_back(&files, &settings, n + 1 == count, &format!("after {n}"));
    }
    assert_eq!(seqs(&shard), expected());
    let whole = files.log.len();
    for cut in (0..whole).rev().step_by(10_007).skip(1) {
        let mut files = files.clone();
        files.lose(cut);
        if cut > 100 {
            comes_back(&files, &settings, false, &format!("cut at {cut}"));
        }
    }
}

/// The log before a snapshot goes, and what has come of the copy by then with it.
#[test]
fn a_snapshot_may_begin_and_end_anywhere_in_it() {
    let settings = settings(20, 1_000);
    let count = steps().len();
    for begin in 0..=count {
        for end in begin..=count {
            // All of the scan at its end, or some of it after each step, so that it is under way while the table changes.
            for scans in [0, 1] {
                let when = format!("from {begin} to {end}, {scans} a step");
                let mut shard = begun(&settings);
                let mut files = Files::default();
                let mut snapshot = None;
                let mut is_done = false;
                let mut steps = steps().into_iter();
                for n in 0..=count {
                    if n == begin {
                        // The log from here on is what stays.
                        take_log(&mut shard);
                        snapshot = Some(Snapshot::begin(1));
                    }
                    if let Some(open) = &mut snapshot {
                        let scans = if n == end { usize::MAX } else { scans };
                        for _ in 0..scans {
                            is_done = is_done || open.step(&mut shard);
                            if is_done {
                                break;
                            }
                        }
                    }
                    files.write(&mut shard);
                    if n == end {
                        files.snapshot = snapshot.take().map(Snapshot::finish);
                    }
                    if n >= end {
                        comes_back(&files, &settings, n == count, &format!("{when}, after {n}"));
                    }
                    if let Some(step) = steps.next() {
                        take(&mut shard, &settings, step);
                    }
                }
            }
        }
    }
}

/// What is filled is not committed, whatever room is needed; and nothing of it is shown in scans.
#[test]
fn nothing_of_it_is_dropped_before_it_is_whole() {
    let settings = settings(2, 40);
    let mut shard = begun(&settings);
    let mut steps = steps();
    let end = steps.pop().expect("there are some");
    for step in steps {
        take(&mut shard, &settings, step);
        assert_eq!(seqs(&shard), [], "it counts for nothing");
        shard.shed(0, Cause::Size, 1_000);
    }
    let all = expected().len() as u64;
    assert_eq!(shard.stats().items, all, "more than there is room for");
    take(&mut shard, &settings, end);
    assert_eq!(seqs(&shard), expected());
    shard.vacate(
        Room {
            bytes: 0,
            items: all - 40,
        },
        Cause::Items,
        1_000,
    );
    assert_eq!(shard.stats().items, 40, "what is committed may go");
    assert_eq!(shard.progress(partition()).last, END.last);
}

/// What a later part has taken back is owed by nobody, however little room there is where the log is read again.
#[test]
fn what_was_taken_back_is_not_missed() {
    let (roomy, little) = (settings(20, 1_000), settings(2, 1_000));
    for takes_back in [false, true] {
        let mut shard = begun(&roomy);
        let mut files = Files::default();
        let (large, promised) = record(1, 160);
        let promised = promised.map(|mut record| {
            let data = vec![b'v'; 300_000];
            let value = record.value.as_mut().expect("it has one");
            value.raw_len = data.len() as u32;
            value.data = data.into();
            record
        });
        take(
            &mut shard,
            &roomy,
            Step::Fill(vec![(large.clone(), promised), record(2, 100)]),
        );
        let again = if takes_back {
            vec![(large, None)]
        } else {
            Vec::new()
        };
        take(&mut shard, &roomy, Step::Fill(again));
        take(&mut shard, &roomy, Step::Complete);
        files.write(&mut shard);
        let found = files.recover(&little, NOW);
        let replica = &found.replicas[&partition()];
        assert_eq!(replica.has_lost_memory, !takes_back);
        let there = if takes_back {
            vec![(key(2), 100)]
        } else {
            Vec::new()
        };
        assert_eq!(seqs(&found.shard), there);
    }
}
