//! `ScanCursor`: where a scan goes on, as text that a client carries. The hash of keys is seeded for each process, so a
//! cursor carries its process's mark, and a foreign one begins its partition again.

use henge_wire::PARTITIONS;
use std::fmt;
use std::str::FromStr;

/// Where a scan goes on; the default begins it, and is also its end. As text: `0`, or partition, place and mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScanCursor(Option<(u32, Position)>);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Position {
    pub(super) partition: u16,
    pub(super) place: u32,
}

impl ScanCursor {
    pub(super) fn at(mark: u32, position: Position) -> Self {
        Self((position.partition < PARTITIONS).then_some((mark, position)))
    }

    pub(super) fn position(self, mark: u32) -> Position {
        match self.0 {
            None => Position::default(),
            Some((theirs, position)) if theirs == mark => position,
            Some((_, position)) => Position {
                place: 0,
                ..position
            },
        }
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
            Some((mark, at)) => write!(f, "{}-{:x}-{:x}", at.partition, at.place, mark),
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
        Ok(Self::at(mark, Position { partition, place }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_there_and_back() {
        for cursor in [
            ScanCursor::default(),
            ScanCursor::at(
                0,
                Position {
                    partition: 0,
                    place: 0,
                },
            ),
            ScanCursor::at(
                u32::MAX,
                Position {
                    partition: 1023,
                    place: u32::MAX,
                },
            ),
        ] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
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
        let cursor = ScanCursor::at(1, position);
        assert_eq!(cursor.position(1), position);
        assert_eq!(
            cursor.position(2),
            Position {
                partition: 5,
                place: 0
            }
        );
        assert!(
            ScanCursor::at(
                1,
                Position {
                    partition: PARTITIONS,
                    place: 0
                }
            )
            .is_end()
        );
    }
}
