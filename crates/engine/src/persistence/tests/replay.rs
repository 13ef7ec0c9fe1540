//! What a recovery makes of the records: deletes stay deletes, deadlines stay where they were, what a repair left out is
//! forgotten and not guessed, and where there is too little room keys are forgotten and never older than they were.

use super::super::frame::{HEAD_BYTES, HEADER_BYTES, Header, append};
use super::super::journal::Journal;
use super::super::recovery::RecoveryError;
use super::super::storage::{FileKind, Name};
use super::super::wal::Record;
use super::for_seeds;
use super::machine::{Machine, Syncs};
use super::recover::{Recovered, Settings, found_in, new_shards, partitions, recover, turn};
use crate::budget::{Room, Turn};
use crate::record::Body;
use crate::shard::{NotNext, RecordView, ReplayError, Replayed, Shard};
use henge_wire::{Effect, Expiry, Mutation, Partition, Value, Version};

const SMALL: Settings = Settings {
    segment_bytes: 1_024,
    ..Settings::DEFAULT
};

#[test]
fn what_was_deleted_does_not_come_back() {
    for tombstone_bytes in [0, 10_000] {
        for (has_snapshot, later) in [(false, false), (true, false), (true, true)] {
            let mut machine = Machine::new(
                1,
                Settings {
                    tombstone_bytes,
                    ..Settings::DEFAULT
                },
            );
            machine.start().expect("nothing fails");
            let (deleted, flushed, kept) = (machine.key(0), machine.key(1), machine.key(7));
            machine.set(&flushed, b"flushed", Expiry::Never);
            machine.clear();
            machine.set(&deleted, b"deleted", Expiry::Never);
            machine.set(&kept, b"kept", Expiry::Never);
            if later {
                machine.snapshot().expect("nothing fails");
            }
            machine.delete(&deleted);
            if has_snapshot && !later {
                machine.snapshot().expect("nothing fails");
            }
            machine.round(true).expect("nothing fails");
            machine.lose_power();
            machine.start().expect("nothing fails");
            let found = found_in(machine.shards());
            let keys: Vec<&Vec<u8>> = found.items.keys().collect();
            assert_eq!(keys, [&kept]);
            for key in [&deleted, &flushed, &kept] {
                machine.get(key);
            }
        }
    }
}

/// A deadline is a moment: it is where it was, however long the node was away, and a record that moves it finds the value also
/// when the old one is over by then.
#[test]
fn deadlines_are_where_they_were() {
    for has_snapshot in [false, true] {
        let mut machine = Machine::new(1, Settings::DEFAULT);
        machine.start().expect("nothing fails");
        let now_ms = machine.now_ms;
        let soon = Expiry::At(now_ms + 500);
        let late = Expiry::At(now_ms + 1_000_000);
        let [over, waits, prolonged, persisted, shortened] =
            [0, 1, 2, 6, 7].map(|n| machine.key(n));
        machine.set(&over, b"over", soon);
        machine.set(&waits, b"waits", late);
        machine.set(&prolonged, b"prolonged", soon);
        machine.set(&persisted, b"persisted", soon);
        machine.set(&shortened, b"shortened", late);
        if has_snapshot {
            machine.snapshot().expect("nothing fails");
        }
        machine.expire(&prolonged, late);
        machine.expire(&persisted, Expiry::Never);
        machine.expire(&shortened, soon);
        machine.round(true).expect("nothing fails");
        machine.lose_power();
        machine.start().expect("nothing fails");
        assert!(machine.now_ms > now_ms + 500);
        let items = found_in(machine.shards()).items;
        for (key, expiry) in [
            (&over, soon),
            (&waits, late),
            (&prolonged, late),
            (&persisted, Expiry::Never),
            (&shortened, soon),
        ] {
            let expected = match expiry {
                Expiry::At(at) => Some(at),
                _ => None,
            };
            assert_eq!(items[key].deadline, expected);
            machine.get(key);
        }
        let now_ms = machine.now_ms;
        let shards = machine.shards();
        let live = |key: &Vec<u8>| items[key].deadline.is_none_or(|at| at > now_ms);
        let counted: u64 = shards.iter().map(Shard::items).sum();
        assert_eq!(counted, 3, "the two that are over were read, and are gone");
        assert!(live(&waits) && live(&prolonged) && live(&persisted));
    }
}

/// What was stamped and lost is not stamped again, though nothing on the disk knows of it. The machine itself compares each
/// version.
#[test]
fn versions_that_were_lost_are_not_stamped_again() {
    let mut machine = Machine::new(1, Settings::DEFAULT);
    machine.start().expect("nothing fails");
    let key = machine.key(0);
    let partition = Partition::of(&key);
    let mut highest = Version::ZERO;
    for _ in 0..10 {
        for _ in 0..50 {
            machine.set(&key, b"lost", Expiry::Never);
            machine.round(false).expect("nothing fails");
        }
        let last = machine.model.now.last[&partition.number()];
        assert!(last > highest);
        highest = last;
        machine.lose_power();
        machine.start().expect("nothing fails");
        assert!(machine.model.now.last[&partition.number()] > highest);
    }
}

/// Two partitions of the first shard.
fn two() -> (Partition, Partition) {
    let all = partitions();
    let first = |partition: &&Partition| partition.number().is_multiple_of(2);
    let mut of_first = all.iter().filter(first);
    let mut next = || *of_first.next().expect("there are four");
    (next(), next())
}

fn key_of(partition: Partition, n: usize) -> Vec<u8> {
    let machine = Machine::new(0, Settings::DEFAULT);
    let mut keys = machine.keys.iter();
    let of = |key: &&Vec<u8>| Partition::of(key) == partition;
    keys.by_ref()
        .filter(of)
        .nth(n)
        .expect("there are five")
        .clone()
}

fn put(shard: &mut Shard, key: &[u8], seq: u64, data: &[u8]) -> Result<Replayed, ReplayError> {
    let effect = Effect::Put {
        value: Value::from_slice(data),
        expires_at_ms: None,
    };
    let record = Record::Mutation(Mutation {
        partition: Partition::of(key),
        version: Version::new(1, seq),
        effects: &[(key, effect)],
    });
    let replayed = shard.replay(&turn(1), &record)?;
    Ok(replayed.expect("a shard without a fair share is never short"))
}

fn replay(shard: &mut Shard, record: &Record<'_>) -> Result<Replayed, ReplayError> {
    let replayed = shard.replay(&turn(1), record)?;
    Ok(replayed.expect("a shard without a fair share is never short"))
}

/// The keys that a shard has, with the seqs that wrote them.
fn seqs(shard: &Shard) -> Vec<(Vec<u8>, u64)> {
    let mut seqs = Vec::new();
    for partition in [two().0, two().1] {
        let mut place = 0;
        loop {
            place = shard.scan_records(partition, 0, place, |record| {
                seqs.push((record.key.to_vec(), record.version.seq()));
            });
            if place == 0 {
                break;
            }
        }
    }
    seqs.sort();
    seqs
}

#[test]
fn a_record_that_is_not_the_next_is_refused() {
    let mut shard = new_shards(&Settings::DEFAULT).remove(0);
    let (partition, _) = two();
    let key = key_of(partition, 0);
    assert_eq!(put(&mut shard, &key, 1, b"1"), Ok(Replayed::Applied));
    assert_eq!(put(&mut shard, &key, 2, b"2"), Ok(Replayed::Applied));
    for seq in [1, 2] {
        assert_eq!(put(&mut shard, &key, seq, b"0"), Ok(Replayed::Covered));
    }
    let expected = ReplayError::NotNext(NotNext {
        partition,
        last: Version::new(1, 2),
        found: Version::new(1, 4),
    });
    assert_eq!(put(&mut shard, &key, 4, b"4"), Err(expected));
    let last = Version::new(1, 5);
    let flush = Record::Flush { partition, last };
    assert!(replay(&mut shard, &flush).is_err());
    assert_eq!(seqs(&shard), [(key, 2)]);
}

/// Records that are of all partitions, the seqs of puts behind them, and the seqs of what is left.
type GapRow<'a> = (&'a [Record<'a>], &'a [u64], [Option<u64>; 3]);

/// A part of the log is missing. Where the next record of a partition is the next of its order, nothing of the partition was
/// in it; where it is not, or there is none, what was there may have been changed, and is forgotten.
#[test]
fn what_a_gap_may_have_changed_is_forgotten() {
    let gap = Record::Gap { bytes: 100 };
    let started = |seq| Record::Started {
        incarnation: 2,
        first: Version::new(1, seq),
    };
    let (one, other) = two();
    let [old, new, apart] = [key_of(one, 0), key_of(one, 1), key_of(other, 0)];
    // Records behind the gap, and the seqs of what is left of `old`, `new` and `apart`.
    let table: [GapRow<'_>; 6] = [
        (&[], &[], [None, None, None]),
        (&[], &[2], [Some(1), Some(2), None]),
        (&[], &[3], [None, Some(3), None]),
        (&[], &[3, 4], [None, Some(4), None]),
        // Whoever goes on from here had come to nobody knows where; that the next record is the next of that says nothing.
        (&[started(10)], &[11], [None, Some(11), None]),
        (&[started(10)], &[], [None, None, None]),
    ];
    for (n, (records, puts, expected)) in table.into_iter().enumerate() {
        let mut shard = new_shards(&Settings::DEFAULT).remove(0);
        put(&mut shard, &old, 1, b"old").expect("it is the first");
        put(&mut shard, &apart, 1, b"apart").expect("it is the first");
        replay(&mut shard, &gap).expect("it is of all");
        for record in records {
            replay(&mut shard, record).expect("it is of all");
        }
        for &seq in puts {
            put(&mut shard, &new, seq, b"new").expect("a gap explains it");
        }
        let forgotten = shard.finish_recovery();
        shard.check();
        let found = seqs(&shard);
        let seq = |key: &Vec<u8>| {
            found
                .iter()
                .find(|(found, _)| found == key)
                .map(|found| found.1)
        };
        assert_eq!([&old, &new, &apart].map(seq), expected, "row {n}");
        // Two of the four partitions have nothing to be forgotten.
        assert_eq!(forgotten, if puts.is_empty() { 4 } else { 3 }, "row {n}");
        let progress = shard.progress(other);
        assert_eq!(progress.horizon, progress.last.seq(), "row {n}");
        if puts == [4] {
            // Once it is made up for, order counts again.
            assert!(put(&mut shard, &new, 6, b"new").is_err());
        }
    }
}

/// The bytes of frames that are there.
fn frames(file: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    let mut rest = &file[HEADER_BYTES..];
    while let Some(len) = rest.first_chunk().map(|len| u32::from_le_bytes(*len))
        && len > 0
    {
        let (frame, behind) = rest.split_at(HEAD_BYTES + len as usize + 1);
        frames.push(frame);
        rest = behind;
    }
    frames
}

/// Some records of the log are gone, and a gap is in their place: what is found is what was there, or is not there.
#[test]
fn a_repaired_log_lies_about_nothing() {
    let (mut some, mut less) = (0, 0);
    let all = for_seeds(300, |seed| {
        let mut machine = Machine::new(seed, SMALL);
        for _ in 0..2 {
            machine.start().expect("nothing fails");
            machine.run_rounds(5, Syncs::Always);
            machine.crash_process();
        }
        let segments: Vec<Name> = machine.disk.all();
        let name = *machine.random.pick(&segments);
        let file = machine.disk.bytes(name);
        let header = Header::decode(&file).expect("nothing is damaged yet");
        let frames = frames(&file);
        // The first says what it follows, and is never left out.
        let from = 1 + machine.random.below(frames.len());
        let to = frames.len().min(from + 1 + machine.random.below(5));
        let mut gap = Journal::default();
        let bytes = frames[from.min(to)..to].concat().len() as u64;
        Record::Gap { bytes }.encode(&mut gap).expect("it is short");
        gap.seal(header.seed());
        let mut repaired = file[..HEADER_BYTES].to_vec();
        repaired.extend(frames[..from.min(to)].concat());
        repaired.extend(gap.frames().iter().flatten());
        repaired.extend(frames[to..].concat());
        machine.disk.replace(name, repaired);
        let recovered = recover(&machine.disk, &SMALL, machine.now_ms);
        let recovered = recovered.unwrap_or_else(|error| panic!("{error}"));
        let found = found_in(&recovered.shards);
        let expected = &machine.model.now.items;
        for (key, item) in &found.items {
            assert_eq!(
                expected.get(key),
                Some(item),
                "{}",
                String::from_utf8_lossy(key)
            );
        }
        some += usize::from(!found.items.is_empty());
        less += usize::from(found.items.len() < expected.len());
    });
    assert!(!all || (some > 0 && less > 0));
}

/// There is less room than there was: what does not fit is forgotten, and what is there is as it should be.
#[test]
fn less_room_forgets_and_never_lies() {
    let (mut evicted, mut without_room) = (0, 0);
    let all = for_seeds(40, |seed| {
        let settings = Settings {
            tombstone_bytes: [0, 2_000][seed as usize % 2],
            ..Settings::DEFAULT
        };
        let mut machine = Machine::new(seed, settings);
        machine.start().expect("nothing fails");
        machine.live(20, Syncs::Sometimes).expect("nothing fails");
        machine.snapshot().expect("nothing fails");
        machine.live(20, Syncs::Sometimes).expect("nothing fails");
        for _ in 0..2 {
            machine.round(true).expect("nothing fails");
        }
        machine.crash_process();
        let model = &machine.model.now;
        let base = new_shards(&settings)[0].charged_bytes();
        for room in [
            (0, 0),
            (base, 1),
            (base + 60_000, u64::MAX),
            (base + 80_000, 3),
            (base + 90_000, u64::MAX),
            (base + 200_000, 2),
            (1 << 30, 5),
            (1 << 30, 0),
        ] {
            let (bytes, items) = room;
            let settings = Settings {
                room: Room { bytes, items },
                ..settings
            };
            let recovered = recover(&machine.disk.copy(), &settings, machine.now_ms);
            let Recovered {
                shards,
                without_room: forgotten,
                ..
            } = recovered.unwrap_or_else(|error| panic!("{room:?}: {error}"));
            let found = found_in(&shards);
            assert_eq!(found.last, model.last);
            for (key, item) in &found.items {
                assert_eq!(model.items.get(key), Some(item));
            }
            // Who asks for what came after a version is told of all that is gone, or that it cannot be told.
            machine.model.assert_told(&found);
            for shard in &shards {
                assert!(shard.items() <= items);
                let stats = shard.stats();
                evicted += stats.evictions.iter().sum::<u64>();
                assert!(stats.charged_bytes <= bytes.max(base));
            }
            without_room += forgotten;
        }
    });
    assert!(!all || (evicted > 0 && without_room > 0));
}

/// A node that keeps no tombstones restores the snapshot of one that did, and the other way round.
#[test]
fn what_is_gone_is_told_whoever_kept_tombstones() {
    for seed in 0..40 {
        for (before, after) in [(2_000, 0), (0, 2_000)] {
            let mut settings = Settings {
                tombstone_bytes: before,
                ..Settings::DEFAULT
            };
            let mut machine = Machine::new(seed, settings);
            machine.start().expect("nothing fails");
            machine.run_rounds(10, Syncs::Never);
            machine.snapshot().expect("nothing fails");
            machine.run_rounds(seed as usize % 3, Syncs::Always);
            machine.crash_process();
            settings.tombstone_bytes = after;
            let recovered = recover(&machine.disk, &settings, machine.now_ms);
            let recovered = recovered.unwrap_or_else(|error| panic!("{error}"));
            let found = found_in(&recovered.shards);
            assert!(after > 0 || found.tombstones.is_empty());
            let mut model = machine.model.clone();
            if let Err(wrong) = model.settle(&found, machine.now_ms) {
                panic!("{wrong}");
            }
        }
    }
}

/// More records than are shown at once, and their lengths.
#[test]
fn a_long_segment_is_read_in_its_order() {
    let mut machine = Machine::new(
        1,
        Settings {
            segment_bytes: 400_000,
            ..Settings::DEFAULT
        },
    );
    machine.start().expect("nothing fails");
    for n in 0..20_000_usize {
        let key = machine.key(n * 7);
        machine.set(&key, &n.to_le_bytes(), Expiry::Never);
        if n % 100 == 0 {
            machine.round(false).expect("nothing fails");
        }
    }
    machine.round(true).expect("nothing fails");
    let (names, disk) = (machine.disk.all(), machine.disk.copy());
    assert!(names.len() > 2);
    let writer = machine.writer();
    assert_eq!(writer.segments(), names.len());
    let (last, closed) = names.split_last().expect("there are some");
    let closed: u64 = closed
        .iter()
        .map(|name| disk.bytes(*name).len() as u64)
        .sum();
    assert_eq!(writer.bytes_from(0), closed + writer.end().offset);
    assert_eq!(writer.bytes_from(last.number), writer.end().offset);
    machine.lose_power();
    machine.start().expect("nothing fails");
}

/// However much a round has, and of one key, each segment has its length, and a journal at the most.
#[test]
fn a_long_round_is_of_many_segments() {
    const SEGMENT_BYTES: u64 = 400_000;
    const VALUE_BYTES: usize = 300_000;
    let mut machine = Machine::new(
        1,
        Settings {
            segment_bytes: SEGMENT_BYTES,
            ..Settings::DEFAULT
        },
    );
    machine.start().expect("nothing fails");
    let key = machine.key(0);
    for n in 0..20 {
        machine.set(&key, &vec![n; VALUE_BYTES], Expiry::Never);
    }
    machine.round(true).expect("nothing fails");
    let (names, disk) = (machine.disk.all(), machine.disk.copy());
    assert!(names.len() > 4, "{names:?}");
    for name in names {
        let len = disk.bytes(name).len() as u64;
        let most = SEGMENT_BYTES + (1 << 20) + VALUE_BYTES as u64 + 1_024;
        assert!(len <= most, "{name}: {len}");
    }
    machine.lose_power();
    machine.start().expect("nothing fails");
}

/// What a key was before a record that there is no room for is not what it is.
#[test]
fn without_room_an_older_value_does_not_stay() {
    for has_two in [false, true] {
        let mut settings = Settings::DEFAULT;
        settings.room.bytes = new_shards(&settings)[0].charged_bytes() + 150_000;
        let (partition, _) = two();
        let (key, second) = (key_of(partition, 0), key_of(partition, 1));
        // It is refused before anything is evicted for it.
        let turn = Turn {
            limit: settings.room,
            ..turn(1)
        };
        let large = vec![b'l'; 1 << 20];
        let value = |data| Body::Value(Value::from_slice(data));
        let mut shard = new_shards(&settings).remove(0);
        for (seq, data, expected) in [
            (1, &b"small"[..], Replayed::Applied),
            (2, &large, Replayed::Forgotten),
            (3, b"small", Replayed::Applied),
        ] {
            let effect = Effect::Put {
                value: Value::from_slice(data),
                expires_at_ms: None,
            };
            let effects = [(&key[..], effect.clone()), (&second[..], effect)];
            let record = Record::Mutation(Mutation {
                partition,
                version: Version::new(1, seq),
                effects: &effects[..=usize::from(has_two)],
            });
            assert_eq!(shard.replay(&turn, &record), Ok(Ok(expected)));
            let found = seqs(&shard);
            let all = [(key.clone(), seq), (second.clone(), seq)];
            let all = &all[..=usize::from(has_two)];
            match expected {
                Replayed::Forgotten => assert_eq!(found, []),
                _ => assert_eq!(found, all),
            }
            assert_eq!(shard.progress(partition).last, Version::new(1, seq));
            shard.check();
        }
        let mut shard = new_shards(&settings).remove(0);
        for (seq, data, expected) in [
            (1, &b"small"[..], Replayed::Applied),
            (5, &large, Replayed::Forgotten),
        ] {
            let record = RecordView {
                key: &key,
                version: Version::new(1, seq),
                expires_at_ms: None,
                body: value(data),
            };
            let restored = shard.restore(&turn, partition, &record);
            assert_eq!(restored, Ok(expected));
        }
        assert_eq!(seqs(&shard), []);
        assert_eq!(shard.progress(partition).horizon, 5);
    }
}

/// That a key is not there tells that something was in its place, if that has expired or was evicted before it was kept:
/// after a crash the value before may be there again. So the answer waits.
#[test]
fn what_is_gone_before_it_was_kept_is_waited_for() {
    let mut machine = Machine::new(1, Settings::DEFAULT);
    machine.start().expect("nothing fails");
    let key = machine.key(0);
    machine.set(&key, b"before", Expiry::Never);
    machine.round(false).expect("nothing fails");
    machine.set(&key, b"soon over", Expiry::At(machine.now_ms + 10));
    machine.now_ms += 10;
    // The first finds it, the second finds nothing.
    for _ in 0..2 {
        machine.get(&key);
        assert!(machine.shards()[0].is_unkept());
    }
    machine.round(false).expect("nothing fails");
    machine.get(&key);
    assert!(!machine.shards()[0].is_unkept());
}

/// A record whose checksum is right and whose content this version does not know is refused with its place.
#[test]
fn an_unknown_record_is_refused() {
    let mut machine = Machine::new(1, Settings::DEFAULT);
    machine.start().expect("nothing fails");
    machine.run_rounds(3, Syncs::Always);
    machine.crash_process();
    let name = *machine.disk.all().last().expect("there is a segment");
    assert_eq!(name.kind, FileKind::Segment);
    let file = machine.disk.bytes(name);
    let header = Header::decode(&file).expect("nothing is damaged");
    let frames = frames(&file);
    let mut longer = [&file[..HEADER_BYTES], &frames.concat()].concat();
    let place = longer.len();
    append(header.seed(), &[200, 1, 2], &mut longer).expect("it is short");
    append(header.seed(), &[3; 17], &mut longer).expect("it is short");
    machine.disk.replace(name, longer);
    match recover(&machine.disk, &Settings::DEFAULT, machine.now_ms) {
        Err(error @ RecoveryError::Damaged { .. }) => {
            let expected =
                format!("{name} is damaged at byte {place}: an unknown kind of record: 200");
            assert_eq!(error.to_string(), expected);
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was passed over"),
    }
}
