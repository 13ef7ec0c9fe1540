//! Whether the parts of a snapshot agree with each other: each partition ends once, behind its blocks, and says how many records
//! those have; the end says it of all, and nothing is behind it. It takes no look into blocks, so that it costs nothing
//! beside reading them. What is in a file that a node, a backup or a repair wrote always agrees; what does not was made by
//! somebody else, or is put together of two.

use super::frame::Damage;
use super::snapshot::Part;
use henge_wire::{PARTITIONS, Partition};

/// See the head of the file.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// By partition: the records in its blocks so far, and whether it has ended.
    partitions: Vec<(u64, bool)>,
    ended: u16,
    records: u64,
    is_complete: bool,
}

impl Default for Inventory {
    fn default() -> Self {
        Self {
            partitions: vec![(0, false); usize::from(PARTITIONS)],
            ended: 0,
            records: 0,
            is_complete: false,
        }
    }
}

impl Inventory {
    /// Takes the next part. An error if it does not agree with those before it.
    pub fn take(&mut self, part: &Part<'_>) -> Result<(), Damage> {
        if self.is_complete {
            return Err(Damage::Parts("it goes on behind its end"));
        }
        match *part {
            Part::Replica { partition, .. } => {
                let (records, has_ended) = self.of(partition);
                if *has_ended || *records > 0 {
                    return Err(Damage::Parts("a partition begins behind its records"));
                }
            }
            Part::Block(block) => {
                let (records, has_ended) = self.of(block.partition);
                if *has_ended {
                    return Err(Damage::Parts(
                        "records come behind the end of their partition",
                    ));
                }
                *records += u64::from(block.records);
                self.records += u64::from(block.records);
            }
            Part::Partition {
                partition, records, ..
            } => {
                let (found, has_ended) = self.of(partition);
                if std::mem::replace(has_ended, true) {
                    return Err(Damage::Parts("a partition ends twice"));
                }
                if *found != records {
                    return Err(Damage::Parts(
                        "a partition has not as many records as it says",
                    ));
                }
                self.ended += 1;
            }
            Part::Complete { records, .. } => {
                if self.ended != PARTITIONS {
                    return Err(Damage::Parts("it ends before all of its partitions do"));
                }
                if self.records != records {
                    return Err(Damage::Parts("it has not as many records as it says"));
                }
                self.is_complete = true;
            }
        }
        Ok(())
    }

    /// Whether the end was taken.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// The records of all blocks so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    fn of(&mut self, partition: Partition) -> (&mut u64, &mut bool) {
        let (records, has_ended) = &mut self.partitions[usize::from(partition.number())];
        (records, has_ended)
    }
}
