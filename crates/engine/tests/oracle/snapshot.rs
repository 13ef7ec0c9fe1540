//! The oracle of snapshots: whatever is in a file, it is read to its end or refused, takes no more memory than it says, and
//! its records can be restored.

use super::files::{Files, file};
use super::with_little_room;
use henge_engine::Commit;
use henge_engine::persistence::Name;
use henge_engine::persistence::frame::Content;
use henge_engine::persistence::snapshot::Part;
use henge_engine::persistence::snapshot_file::SnapshotReader;
use henge_wire::Partition;

/// Panics if something does not hold.
pub(crate) fn check(input: &[u8]) {
    for commit in [Commit::AtOnce, Commit::Told] {
        restore(input, commit);
    }
}

fn restore(input: &[u8], commit: Commit) {
    let files = Files::default();
    let name = Name::snapshot(1);
    files.put(name, file(Content::Snapshot, input));
    let Ok(reader) = SnapshotReader::open(&files, name) else {
        return;
    };
    let (mut shard, turn) = with_little_room(commit);
    let mut scratch = Vec::new();
    let mut place = 0;
    let read = reader.read_all(|offset, part| {
        assert!(offset > place, "parts come in their order");
        place = offset;
        match part {
            Part::Replica {
                partition,
                commit,
                state,
            } => {
                shard.begin_restore(partition, 1, commit, state);
                Ok(())
            }
            Part::Block(block) => {
                let mut count = 0;
                let shown = block.records(&mut scratch, |record| {
                    count += 1;
                    // A file may say that a key is of another partition than it is, which who loads it refuses.
                    if Partition::of(record.key) == block.partition {
                        let restored = shard.restore(&turn, block.partition, &record);
                        assert!(restored.is_ok(), "without a fair share nothing is short");
                    }
                });
                assert!(count <= block.records);
                if shown.is_ok() {
                    assert_eq!(count, block.records);
                }
                shown
            }
            Part::Partition {
                partition,
                progress,
                ..
            } => {
                shard.resume(partition, progress);
                Ok(())
            }
            Part::Complete { .. } => Ok(()),
        }
    });
    if read.is_ok() {
        shard.finish_recovery();
    }
}
