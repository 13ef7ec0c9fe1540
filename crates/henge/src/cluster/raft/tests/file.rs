//! The file, as openraft's own suite, a reopening and golden texts have it.

use std::ops::Bound;
use std::sync::Arc;

use henge_cluster::agreed::Agreed;
use openraft::storage::RaftStateMachine;
use openraft::testing::{StoreBuilder, Suite};
use openraft::{
    BasicNode, CommittedLeaderId, EntryPayload, Membership, RaftSnapshotBuilder, StorageIOError,
    StoredMembership,
};

use super::super::file::{FileError, Kept, NAME, RaftFile};
use super::super::store::{self, Log, State};
use super::super::types::{Entry, LogId, SnapshotMeta, StorageError, Types, Vote};
use super::super::{Consensus, ConsensusError};
use super::*;

struct Stores;

impl StoreBuilder<Types, Log, State, Directory> for Stores {
    async fn build(&self) -> Result<(Directory, Log, State), StorageError> {
        let directory = Directory::new();
        let opened = store::open(directory.path(), 1).await;
        let (_, log, state, _) =
            opened.map_err(|error| StorageIOError::write(openraft::AnyError::new(&error)))?;
        Ok((directory, log, state))
    }
}

/// The Raft id that is in a directory.
fn instance_of(directory: &std::path::Path) -> Result<Option<u64>, ConsensusError> {
    let left = Consensus::left_in(directory)?;
    Ok(left.map(|left| left.instance))
}

#[test]
fn it_is_a_store_by_the_suite_of_openraft() {
    Suite::test_all(Stores).expect("it is one");
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 5), index)
}

fn entry(index: u64, command: Command) -> Entry {
    Entry {
        log_id: id(2, index),
        payload: EntryPayload::Normal(command),
    }
}

fn all(file: &RaftFile) -> Vec<u64> {
    let all = (Bound::Unbounded, Bound::Unbounded);
    let entries = file.entries(all, usize::MAX).expect("they are there");
    entries.iter().map(|entry| entry.log_id.index).collect()
}

fn open(directory: &Directory) -> RaftFile {
    RaftFile::open(directory.path(), 5).expect("it opens")
}

#[test]
fn what_was_written_is_there_after_a_start() {
    let directory = Directory::new();
    assert_eq!(instance_of(directory.path()), Ok(None));
    let file = open(&directory);
    assert_eq!((file.vote(), file.committed()), (Ok(None), Ok(None)));
    let entries: Vec<Entry> = (1..=9).map(|index| entry(index, set("k", "v"))).collect();
    file.append(&entries).expect("it has room");
    file.set_committed(Some(id(2, 6))).expect("it is noted");
    file.set_vote(&Vote::new(3, 5)).expect("it is noted");
    file.truncate(8).expect("they are there");
    file.purge(id(2, 3)).expect("they are there");
    let twice = RaftFile::open(directory.path(), 5).map(drop);
    assert_eq!(twice, Err(FileError::InUse(directory.path().join(NAME))));
    drop(file);
    let file = open(&directory);
    assert_eq!(all(&file), [4, 5, 6, 7]);
    let ends = file.ends().expect("it is there");
    assert_eq!((ends.purged, ends.last), (Some(id(2, 3)), Some(id(2, 7))));
    assert_eq!(file.vote(), Ok(Some(Vote::new(3, 5))));
    assert_eq!(file.committed(), Ok(Some(id(2, 6))));
    // As many as have so many bytes, and one in any case.
    let some = |bytes| file.entries((Bound::Included(5), Bound::Unbounded), bytes);
    assert_eq!(some(0).expect("they are there").len(), 1);
    assert_eq!(some(200).expect("they are there").len(), 1);
    assert_eq!(some(1_000).expect("they are there").len(), 3);
    let none = file.entries((Bound::Included(5), Bound::Excluded(5)), usize::MAX);
    assert_eq!(none, Ok(Vec::new()));
    file.purge(id(2, 7)).expect("they are there");
    let ends = file.ends().expect("it is there");
    assert_eq!(ends.last, Some(id(2, 7)));
    drop(file);
    assert_eq!(instance_of(directory.path()), Ok(Some(5)));
}

fn kept(index: u64) -> Kept {
    let membership = Membership::new(
        vec![[5].into()],
        std::collections::BTreeMap::from([(5, BasicNode::new("node5:8080"))]),
    );
    Kept {
        meta: SnapshotMeta {
            last_log_id: Some(id(2, index)),
            last_membership: StoredMembership::new(Some(id(1, 1)), membership),
            snapshot_id: index.to_string(),
        },
        agreed: Agreed::new(),
    }
}

#[test]
fn a_newer_snapshot_stays() {
    let directory = Directory::new();
    let file = open(&directory);
    assert_eq!(file.snapshot(), Ok(None));
    assert_eq!(file.set_snapshot(&kept(7)), Ok(None));
    assert_eq!(file.set_snapshot(&kept(6)), Ok(Some(kept(7))));
    drop(file);
    assert_eq!(open(&directory).snapshot(), Ok(Some(kept(7))));
}

#[test]
fn what_it_cannot_read_is_refused_in_words() {
    let directory = Directory::new();
    drop(open(&directory));
    let other = RaftFile::open(directory.path(), 6).map(drop);
    let path = directory.path().join(NAME);
    assert_eq!(other, Err(FileError::OtherInstance(path.clone())));
    let database = redb::Database::open(&path).expect("it is one");
    let write = database.begin_write().expect("it can be written");
    let state: redb::TableDefinition<&str, &[u8]> = redb::TableDefinition::new("state");
    write
        .open_table(state)
        .and_then(|mut table| Ok(table.insert("format", &b"2"[..]).map(drop)?))
        .expect("it has room");
    write.commit().expect("it has room");
    drop(database);
    let newer = RaftFile::open(directory.path(), 5).map(drop);
    let newer = newer.expect_err("it is newer");
    let text = "it has the format 2, and this program reads 1; a newer one wrote it";
    assert!(newer.to_string().ends_with(text), "{newer}");
    std::fs::write(&path, "no database").expect("it can be written");
    let damaged = RaftFile::open(directory.path(), 5).map(drop);
    println!("{}", damaged.expect_err("it is none"));
    let nowhere = instance_of(&directory.path().join("nowhere"));
    assert_eq!(nowhere, Ok(None));
}

#[test]
fn the_first_failure_is_the_last_work() {
    let directory = Directory::new();
    let mut file = open(&directory);
    let failed = FileError::Malformed("entry 1".to_owned(), "for a test".to_owned());
    let result: Result<(), FileError> = file.latched(|_| Err(failed.clone()));
    assert_eq!(result, Err(failed.clone()));
    assert_eq!(file.latched(RaftFile::vote), Err(failed));
}

#[tokio::test]
async fn who_asks_a_closed_file_is_told() {
    let directory = Directory::new();
    let (disk, mut log, mut state, seen) =
        store::open(directory.path(), 5).await.expect("it opens");
    state
        .apply([entry(1, form())])
        .await
        .expect("it is the next");
    assert!(seen.borrow().cluster().is_some());
    let built = state.get_snapshot_builder().await.build_snapshot().await;
    built.expect("it has room");
    disk.close().await;
    // What would be sent while the thread ends would wait for ever.
    assert!(disk.is_closed());
    disk.close().await;
    let vote = openraft::storage::RaftLogStorage::read_vote(&mut log).await;
    println!("{}", vote.expect_err("it is closed"));
    let (_disk, _log, mut state, seen) = store::open(directory.path(), 5).await.expect("it opens");
    assert!(seen.borrow().cluster().is_some());
    let applied = state.applied_state().await.expect("it is known").0;
    assert_eq!(applied, Some(id(2, 1)));
    let agreed: Arc<Agreed> = Arc::clone(&seen.borrow());
    assert_eq!(agreed.members().len(), 0);
}

/// What openraft makes of its own types is on disks, and must be read for ever. With `UPDATE_GOLDEN=1` in the environment it is
/// written anew, which is right only with a new number of the format.
#[test]
fn records_have_a_form_for_ever() {
    let membership = kept(7).meta.last_membership.membership().clone();
    let entries = [
        Entry {
            log_id: id(0, 0),
            payload: EntryPayload::Membership(membership),
        },
        Entry {
            log_id: id(1, 1),
            payload: EntryPayload::Blank,
        },
        entry(2, set("k", "v")),
    ];
    let vote = Vote::new_committed(3, u64::MAX);
    let json = |value: &dyn Fn() -> serde_json::Result<String>| value().expect("it has a form");
    let mut lines: Vec<String> = entries
        .iter()
        .map(|entry| json(&|| serde_json::to_string(entry)))
        .collect();
    lines.push(json(&|| serde_json::to_string(&vote)));
    lines.push(json(&|| serde_json::to_string(&Some(id(2, 2)))));
    lines.push(json(&|| serde_json::to_string(&kept(7).meta)));
    let written = lines.join("\n") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/raft-1.jsonl");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &written).expect("the folder of golden files can be written to");
    }
    let golden = std::fs::read_to_string(&path);
    let golden = golden.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(golden == written, "the format changed without a new number");
    let mut golden = golden.lines();
    for entry in &entries {
        let line = golden.next().expect("a line");
        let read: Entry = serde_json::from_str(line).expect("it is an entry");
        assert_eq!(&read, entry);
    }
    let line = golden.next().expect("a line");
    assert_eq!(serde_json::from_str::<Vote>(line).expect("a vote"), vote);
    let line = golden.next().expect("a line");
    let read: LogId = serde_json::from_str(line).expect("a place in the log");
    assert_eq!(read, id(2, 2));
    let line = golden.next().expect("a line");
    let read: SnapshotMeta = serde_json::from_str(line).expect("what a snapshot is of");
    assert_eq!(read, kept(7).meta);
}

#[tokio::test]
async fn a_question_of_another_version_is_refused() {
    #[derive(Clone)]
    struct Nobody;
    impl super::super::Ask for Nobody {
        async fn ask(
            &self,
            _: u64,
            _: String,
            _: Vec<u8>,
            _: std::time::Duration,
        ) -> Result<Vec<u8>, super::super::AskError> {
            unreachable!("it is alone")
        }
    }
    let directory = Directory::new();
    let node = Consensus::open(directory.path(), 5, Nobody)
        .await
        .expect("it opens");
    assert_eq!(node.answer(&[9, 1]).await, Err(ConsensusError::Version(9)));
    for question in [&[][..], &[1], &[1, 9], b"\x01\x01{}", b"\x01\x02nonsense"] {
        let answer = node.answer(question).await;
        let is_malformed = matches!(answer, Err(ConsensusError::Malformed(_)));
        assert!(is_malformed, "{question:?}: {answer:?}");
    }
    node.shutdown().await;
}
