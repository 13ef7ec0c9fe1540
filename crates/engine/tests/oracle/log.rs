//! The oracle of the log: whatever is in a segment, it is read to some place or refused; what is read has one form, and a
//! second reading finds the same. Records are replayed, in a shard that has little room, without a panic.

use super::files::{Files, file};
use super::with_little_room;
use henge_engine::Commit;
use henge_engine::persistence::frame::{Content, FORMAT, Frame, HEADER_BYTES, Header, frame};
use henge_engine::persistence::journal::Journal;
use henge_engine::persistence::recovery::{Chunk, read_log};
use henge_engine::persistence::{Name, Position, wal};

/// Panics if something does not hold.
pub(crate) fn check(input: &[u8]) {
    let bytes = file(Content::Log, input);
    let files = Files::default();
    files.put(Name::segment(1), bytes.clone());
    let mut records = Vec::new();
    let read = read_log(&files, 1, Position::default(), &mut |chunk| {
        take(&chunk, &mut records);
        Ok(())
    });
    // Nothing is changed by reading, whether it is refused or not.
    assert_eq!(files.bytes(Name::segment(1)), Some(bytes));
    let Ok(log) = read else {
        return;
    };
    log.settle(&files).expect("nothing fails");
    assert_eq!(log.records, records.len() as u64);
    let mut again = Vec::new();
    let second = read_log(&files, 1, Position::default(), &mut |chunk| {
        take(&chunk, &mut again);
        Ok(())
    });
    let second = second.expect("what was cut is whole");
    assert_eq!(again, records, "a second reading finds the same");
    assert_eq!((second.end, second.cut), (log.end, None));
    for commit in [Commit::AtOnce, Commit::Told] {
        replay(&records, commit);
    }
    let mut effects = Vec::new();
    for body in &records {
        let Ok(record) = wal::decode(body, &mut effects) else {
            continue;
        };
        let mut journal = Journal::default();
        record.encode(&mut journal).expect("it was in a frame");
        let header = Header {
            content: Content::Log,
            format: FORMAT,
            number: 1,
            cipher: 0,
            key_id: 0,
            salt: [0; 16],
        };
        journal.seal(header.seed());
        let frames: Vec<u8> = journal.frames().iter().flatten().copied().collect();
        let Frame::Whole { body: written, .. } = frame(header.seed(), &frames) else {
            panic!("what was written is no frame");
        };
        // A gap is as long as what it stands for, with zeros.
        if !matches!(record, wal::Record::Gap { .. }) {
            assert_eq!(written, body, "there is one way to write a thing");
        }
    }
}

fn take(chunk: &Chunk, records: &mut Vec<Vec<u8>>) {
    for (offset, body) in chunk.bodies() {
        assert!(
            offset >= HEADER_BYTES as u64,
            "no record lies in the header"
        );
        records.push(body.to_vec());
    }
}

/// In a shard with room for little, which evicts and forgets.
fn replay(records: &[Vec<u8>], commit: Commit) {
    let (mut shard, turn) = with_little_room(commit);
    let mut effects = Vec::new();
    for body in records {
        let Ok(record) = wal::decode(body, &mut effects) else {
            return;
        };
        match shard.replay(&turn, &record) {
            Ok(outcome) => assert!(outcome.is_ok(), "without a fair share nothing is short"),
            // It does not follow.
            Err(_) => return,
        }
    }
    shard.finish_recovery();
}
