//! `ScanCursor`: where a scan goes on, as text or as a number that a client carries. The hash of keys is seeded for each
//! process, so a cursor carries its process's mark, and a foreign one begins its partition again.

use henge_wire::{PARTITIONS, Partition};
use std::fmt;
use std::str::FromStr;

/// In a cursor's number: partition, place, mark, from the lowest bit on. Sixty-two bits in all: some clients take it for a
/// signed number, and one more is for who hands it out.
const PARTITION_BITS: u32 = 10;
const PLACE_BITS: u32 = u32::BITS;
const MARK_BITS: u32 = 20;
const _: () = assert!(PARTITIONS as u64 == 1 << PARTITION_BITS);
const _: () = assert!(PARTITION_BITS + PLACE_BITS + MARK_BITS == ScanCursor::BITS);

/// Where a scan goes on; the default begins it, and is also its end. As text: `0`, or partition, place and mark. As a
/// number, as Redis clients want it: 0, or the same three packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScanCursor(Option<(Mark, Position)>);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Position {
    pub(super) partition: u16,
    pub(super) place: u32,
}

/// Tells the cursors of one process from those of another. Never 0, so that no cursor but the end has the number 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark(u32);

impl Mark {
    /// No process has this one; it stands for all that could be no process's.
    const FOREIGN: Self = Self((1 << MARK_BITS) - 1);

    /// The mark of a process, from the seed of its hash.
    pub(super) fn of_seed(seed: u64) -> Self {
        Self((seed >> 32) as u32 % (Self::FOREIGN.0 - 1) + 1)
    }

    fn given(mark: u64) -> Self {
        match u32::try_from(mark) {
            Ok(mark @ 1..) if mark < Self::FOREIGN.0 => Self(mark),
            _ => Self::FOREIGN,
        }
    }
}

impl ScanCursor {
    /// Bits of its number.
    pub(crate) const BITS: u32 = 62;

    pub(super) fn at(mark: Mark, position: Position) -> Self {
        Self((position.partition < PARTITIONS).then_some((mark, position)))
    }

    pub(super) fn position(self, mark: Mark) -> Position {
        match self.0 {
            None => Position::default(),
            Some((theirs, position)) if theirs == mark => position,
            Some((_, position)) => Position {
                place: 0,
                ..position
            },
        }
    }

    /// The partition that it is in; none at the begin and at the end.
    pub fn partition(self) -> Option<Partition> {
        self.0.and_then(|(_, at)| Partition::new(at.partition))
    }

    /// The begin of a partition, of any process.
    pub fn beginning_of(partition: Partition) -> Self {
        let partition = partition.number();
        Self(Some((
            Mark::FOREIGN,
            Position {
                partition,
                place: 0,
            },
        )))
    }

    /// The cursor as a number below 2^62; 0 for the default and for nothing else.
    pub fn to_u64(self) -> u64 {
        self.0.map_or(0, |(mark, at)| {
            u64::from(at.partition)
                | u64::from(at.place) << PARTITION_BITS
                | u64::from(mark.0) << (PARTITION_BITS + PLACE_BITS)
        })
    }

    /// The cursor that a number is. Every number is one, as Redis has it: what no `to_u64` gave has a foreign mark, and
    /// begins its partition again.
    pub fn from_u64(number: u64) -> Self {
        if number == 0 {
            return Self::default();
        }
        let partition = (number & ((1 << PARTITION_BITS) - 1)) as u16;
        let place = (number >> PARTITION_BITS) as u32;
        let mark = Mark::given(number >> (PARTITION_BITS + PLACE_BITS));
        Self::at(mark, Position { partition, place })
    }

    /// Whether the scan is over.
    pub fn is_end(self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Display for ScanCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("0"),
            Some((mark, at)) => write!(f, "{}-{:x}-{:x}", at.partition, at.place, mark.0),
        }
    }
}

/// The text is no cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseCursorError;

impl fmt::Display for ParseCursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cursor is \"0\", or what the page before gave")
    }
}

impl std::error::Error for ParseCursorError {}

impl FromStr for ScanCursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, ParseCursorError> {
        if text == "0" {
            return Ok(Self(None));
        }
        let mut parts = text.split('-');
        let mut part = |radix| {
            let text = parts
                .next()
                .filter(|t| !t.starts_with('+'))
                .ok_or(ParseCursorError)?;
            u32::from_str_radix(text, radix).map_err(|_| ParseCursorError)
        };
        let (partition, place, mark) = (part(10)?, part(16)?, part(16)?);
        let partition = u16::try_from(partition).map_err(|_| ParseCursorError)?;
        if parts.next().is_some() || partition >= PARTITIONS {
            return Err(ParseCursorError);
        }
        let mark = Mark::given(mark.into());
        Ok(Self::at(mark, Position { partition, place }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mark of every kind, a position of every kind.
    fn cursors() -> impl Iterator<Item = ScanCursor> {
        let marks = [1, 2, 0x12345, Mark::FOREIGN.0 - 1, Mark::FOREIGN.0].map(Mark);
        let places = [0, 1, 0x8000_0000, u32::MAX];
        let positions = [0, 1, 77, PARTITIONS - 1]
            .into_iter()
            .flat_map(move |partition| places.map(|place| Position { partition, place }));
        positions
            .flat_map(move |position| marks.map(|mark| ScanCursor::at(mark, position)))
            .chain([ScanCursor::default()])
    }

    #[test]
    fn numbers_go_there_and_back() {
        let mut numbers = std::collections::BTreeSet::new();
        for cursor in cursors() {
            let number = cursor.to_u64();
            assert!(number < 1 << ScanCursor::BITS, "{cursor} is {number}");
            assert_eq!(number == 0, cursor.is_end(), "{cursor} is {number}");
            assert_eq!(ScanCursor::from_u64(number), cursor);
            assert!(numbers.insert(number), "{cursor} is another's {number}");
        }
    }

    #[test]
    fn a_number_that_nobody_gave_begins_a_partition_again() {
        let mark = Mark::of_seed(0x1234_5678_9abc_def0);
        let given = ScanCursor::at(
            mark,
            Position {
                partition: 5,
                place: 77,
            },
        );
        let number = given.to_u64();
        for (number, partition) in [
            (1, 1),
            (1023, 1023),
            (1024, 0),
            (u64::MAX, 1023),
            (1 << 63, 0),
            (number | 1 << 62, 5),
            (number | 1 << 63, 5),
            (number ^ 1 << 42, 5),
            (number & ((1 << 42) - 1), 5),
        ] {
            let cursor = ScanCursor::from_u64(number);
            assert!(!cursor.is_end());
            let begun = Position {
                partition,
                place: 0,
            };
            assert_eq!(cursor.position(mark), begun, "{number}");
            assert_ne!(cursor.to_u64(), 0);
        }
        assert_eq!(ScanCursor::from_u64(number), given);
    }

    #[test]
    fn every_seed_has_a_mark_of_its_own_kind() {
        for high in [0, 1, 0xf_fffd, 0xf_fffe, 0xf_ffff, 0x10_0000, u32::MAX] {
            let mark = Mark::of_seed(u64::from(high) << 32 | 7);
            assert!(mark.0 > 0 && mark.0 < Mark::FOREIGN.0, "{high:x}: {mark:?}");
        }
        assert_ne!(Mark::of_seed(1 << 32), Mark::of_seed(2 << 32));
    }

    #[test]
    fn text_goes_there_and_back() {
        for cursor in cursors() {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        // Marks had more bits once; those begin their partition again.
        for text in ["5-4d-0", "5-4d-fffff", "5-4d-1fffff", "5-4d-ffffffff"] {
            let cursor: ScanCursor = text.parse().expect("a cursor");
            for mark in [Mark(1), Mark::of_seed(u64::MAX)] {
                let begun = Position {
                    partition: 5,
                    place: 0,
                };
                assert_eq!(cursor.position(mark), begun, "{text}");
            }
        }
        for text in [
            "",
            "00",
            "1",
            "1-2",
            "1-2-3-4",
            "1024-0-0",
            "-1-2-3",
            "+1-2-3",
            "1-2-100000000",
            "x-1-1",
        ] {
            assert_eq!(
                text.parse::<ScanCursor>(),
                Err(ParseCursorError),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_foreign_mark_begins_the_partition_again() {
        let position = Position {
            partition: 5,
            place: 77,
        };
        let cursor = ScanCursor::at(Mark(1), position);
        assert_eq!(cursor.position(Mark(1)), position);
        assert_eq!(
            cursor.position(Mark(2)),
            Position {
                partition: 5,
                place: 0
            }
        );
        assert!(
            ScanCursor::at(
                Mark(1),
                Position {
                    partition: PARTITIONS,
                    place: 0
                }
            )
            .is_end()
        );
    }
}
