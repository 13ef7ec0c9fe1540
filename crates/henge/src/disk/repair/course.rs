//! How far each partition comes by a snapshot and the log after it, without its records: what a shard does at a start, by
//! the versions alone. It says which partitions would be forgotten, as a part of the log is missing.

use std::collections::BTreeSet;

use henge_engine::NotNext;
use henge_engine::persistence::wal::Record;
use henge_wire::{PARTITIONS, Partition, Version};

/// One partition.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    last: Version,
    /// It has come to have records, or had some.
    has_records: bool,
    /// A part of the log is missing, and mutations of it may have been in there.
    is_suspect: bool,
}

/// See the head of the file.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    partitions: Vec<State>,
    /// What was in these before the missing part is forgotten.
    pub(crate) forgotten: BTreeSet<u16>,
    /// The newest version of any.
    pub(crate) newest: Version,
}

impl Course {
    pub(super) fn new() -> Self {
        Self {
            partitions: vec![State::default(); usize::from(PARTITIONS)],
            forgotten: BTreeSet::new(),
            newest: Version::ZERO,
        }
    }

    /// A snapshot has a record of this version.
    pub(super) fn restored(&mut self, partition: Partition, version: Version) {
        self.partitions[usize::from(partition.number())].has_records = true;
        self.newest = self.newest.max(version);
    }

    /// A snapshot says that a partition goes on from here.
    pub(super) fn resumed(&mut self, partition: Partition, last: Version) {
        self.partitions[usize::from(partition.number())].last = last;
        self.newest = self.newest.max(last);
    }

    /// What a record of the log does.
    pub(super) fn replayed(&mut self, record: &Record<'_>) -> Result<(), NotNext> {
        match record {
            Record::Mutation(mutation) => self.follows(mutation.partition, mutation.version),
            Record::Flush { partition, last } => self.follows(*partition, *last),
            Record::Started { first, .. } => {
                for number in 0..PARTITIONS {
                    let state = &mut self.partitions[usize::from(number)];
                    if state.last < *first {
                        state.last = *first;
                        if state.is_suspect {
                            self.forget(number);
                        }
                    }
                }
                self.newest = self.newest.max(*first);
                Ok(())
            }
            Record::Gap { .. } => {
                for state in &mut self.partitions {
                    state.is_suspect = true;
                }
                Ok(())
            }
            // A node without a cluster has none.
            Record::Synced(_) | Record::Follows(_) | Record::Replica(_) => Ok(()),
        }
    }

    /// All was replayed.
    pub(super) fn finish(&mut self) {
        for number in 0..PARTITIONS {
            if self.partitions[usize::from(number)].is_suspect {
                self.forget(number);
            }
        }
    }

    fn follows(&mut self, partition: Partition, version: Version) -> Result<(), NotNext> {
        let number = partition.number();
        let State {
            last, is_suspect, ..
        } = self.partitions[usize::from(number)];
        self.newest = self.newest.max(version);
        if version.seq() <= last.seq() {
            return Ok(());
        }
        let follows = version.seq() == last.seq() + 1 && version.term() >= last.term();
        if !follows && !is_suspect {
            return Err(NotNext {
                partition,
                last,
                found: version,
            });
        }
        if !follows {
            self.forget(number);
        }
        self.partitions[usize::from(number)] = State {
            last: version,
            has_records: true,
            is_suspect: false,
        };
        Ok(())
    }

    fn forget(&mut self, number: u16) {
        let state = &mut self.partitions[usize::from(number)];
        state.is_suspect = false;
        if state.has_records {
            self.forgotten.insert(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_wire::Mutation;

    #[test]
    fn a_gap_forgets_what_may_have_changed_in_it() {
        let partition = |number| Partition::new(number).expect("one of them");
        let at = |seq| Version::new(1, seq);
        let mutation = |number, seq| {
            Record::Mutation(Mutation {
                partition: partition(number),
                version: at(seq),
                effects: &[],
            })
        };
        let gap = Record::Gap { bytes: 9 };
        let started = |seq| Record::Started {
            incarnation: 2,
            first: at(seq),
        };
        // Records in order, and the partitions that are forgotten; none where one does not follow.
        let table: &[(&[Record<'_>], Option<&[u16]>)] = &[
            (&[mutation(1, 1), mutation(1, 2)], Some(&[])),
            (&[mutation(1, 1), mutation(1, 3)], None),
            (&[mutation(1, 2)], None),
            (&[mutation(1, 1), mutation(1, 1)], Some(&[])),
            (&[mutation(1, 1), gap.clone()], Some(&[1])),
            (&[mutation(1, 1), gap.clone(), mutation(1, 2)], Some(&[])),
            (&[mutation(1, 1), gap.clone(), mutation(1, 3)], Some(&[1])),
            (
                &[mutation(1, 1), gap.clone(), mutation(1, 3), mutation(1, 5)],
                None,
            ),
            (
                &[mutation(1, 1), gap.clone(), started(9), mutation(1, 10)],
                Some(&[1]),
            ),
            (&[gap.clone(), started(9), mutation(1, 10)], Some(&[])),
            (&[started(9), mutation(1, 10)], Some(&[])),
        ];
        for (records, expected) in table {
            let mut course = Course::new();
            let replayed = records
                .iter()
                .try_for_each(|record| course.replayed(record));
            course.finish();
            let forgotten: Vec<u16> = course.forgotten.into_iter().collect();
            let found = replayed.is_ok().then_some(&forgotten[..]);
            assert_eq!(found, *expected, "{records:?}");
        }
    }
}
