//! Losses at ONE: which acknowledged writes of a round have surely not survived, by what is read at QUORUM when it is over, and whether
//! the nodes say so by `/cluster/losses`. A write that another one has replaced since says nothing either way, and is passed over.

use henge_checker::{Answer, Event, Found, Operation, Outcome};
use henge_wire::{Partition, Version};
use serde_json::Value;

use super::judge::{Loss, made_version, removals};

/// Writes that are kept to be held against what is reported: those of an hour are fewer.
pub(super) const MOST_KEPT: usize = 100_000;

/// Of a key's last word: what of its acknowledged writes is gone, and the version that is there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LastWord {
    pub(super) losses: Vec<Loss>,
    pub(super) survives: Option<u64>,
}

/// What the last read at QUORUM shows of a key; those are by clients with this number or a higher one.
pub(super) fn last_word(key: &[u8], events: &[Event], lookers_from: u64) -> LastWord {
    let is_look = |event: &&Event| {
        event.client >= lookers_from
            && event.operation == Operation::Read
            && matches!(event.outcome, Outcome::Answered(_))
    };
    let looks = events.iter().filter(is_look);
    let Some(look) = looks.max_by_key(|event| event.invoked) else {
        return LastWord::default();
    };
    let Outcome::Answered(Answer { found, .. }) = look.outcome else {
        unreachable!("it was looked at above");
    };
    let there = match found {
        Found::Something { version, .. } => match version {
            Some(bits) => Some(Version::from_bits(bits)),
            // It says that something is there, and not what.
            None => return LastWord::default(),
        },
        _ => None,
    };
    let removals = removals(events);
    let gone = events.iter().filter_map(|write| {
        let version = Version::from_bits(made_version(write)?);
        let is_gone = match there {
            // In one order the term grows with the seq, and a seq has one version.
            Some(there) => {
                let is_behind = version.seq() < there.seq() && version.term() <= there.term();
                version != there && !is_behind
            }
            None => !removals
                .iter()
                .any(|(from, to)| *to >= write.invoked && *from <= look.completed),
        };
        (write.completed < look.invoked && is_gone).then(|| Loss {
            key: key.escape_ascii().to_string(),
            partition: Partition::of(key).number(),
            what: write.operation.to_string(),
            version: Some(version.to_bits()),
            asked: write.invoked,
            acknowledged: write.completed,
            missed: look.completed,
            shown_by: look.to_string(),
        })
    });
    LastWord {
        losses: gone.collect(),
        survives: there.map(Version::to_bits),
    }
}

/// The first and the last version of some run.
type Run = (Version, Version);

/// What the nodes report, all of them together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reported {
    /// Partitions, and the first and the last version of what was lost in each.
    known: Vec<(u64, Version, Version)>,
    /// The same of what is not known: none for all partitions, or for all versions.
    unknown: Vec<(Option<u64>, Option<Run>)>,
    pub(super) lost_entries: u64,
    /// All members have said what they found.
    pub(super) is_complete: bool,
}

impl Reported {
    /// What a page of `/cluster/losses` says; none if it is none.
    pub(super) fn of(page: &Value) -> Option<Self> {
        let mut reported = Self {
            lost_entries: page["lost_entries"].as_u64()?,
            is_complete: page["is_complete"].as_bool()?,
            ..Self::default()
        };
        for entry in page["entries"].as_array()? {
            let version = |name: &str| entry[name].as_str().and_then(|text| text.parse().ok());
            let run: Option<Run> = version("first").zip(version("last"));
            let partition = entry["partition"].as_u64();
            match (entry["unknown"].as_bool()?, partition, run) {
                (true, partition, run) => reported.unknown.push((partition, run)),
                (false, Some(partition), Some((first, last))) => {
                    reported.known.push((partition, first, last));
                }
                (false, ..) => return None,
            }
        }
        Some(reported)
    }

    /// Whether a write of a partition is said to be lost.
    pub(super) fn has(&self, partition: u16, version: u64) -> bool {
        let version = Version::from_bits(version);
        self.known.iter().any(|(of, first, last)| {
            *of == u64::from(partition) && *first <= version && version <= *last
        })
    }

    /// Whether it may be lost by what they say.
    pub(super) fn may_have(&self, partition: u16, version: u64) -> bool {
        let seq = Version::from_bits(version).seq();
        let may = |(of, run): &(Option<u64>, Option<Run>)| {
            let is_there = |(first, last): &Run| first.seq() <= seq && seq <= last.seq();
            of.is_none_or(|of| of == u64::from(partition)) && run.as_ref().is_none_or(is_there)
        };
        self.has(partition, version) || self.unknown.iter().any(may)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_checker::Condition;
    use serde_json::json;

    fn event(client: u64, at: u64, operation: Operation, outcome: Outcome) -> Event {
        Event {
            client,
            key: b"k".to_vec(),
            invoked: at,
            completed: at + 1,
            operation,
            outcome,
        }
    }

    fn bits(text: &str) -> u64 {
        text.parse::<Version>().expect("a version").to_bits()
    }

    fn write(at: u64, version: &str) -> Event {
        let write = Operation::Write {
            value: 7,
            when: Condition::Always,
        };
        let done = Answer::done(Some(bits(version)));
        event(1, at, write, Outcome::Answered(done))
    }

    fn look(at: u64, version: Option<&str>) -> Event {
        let answer = match version {
            Some(version) => Answer::found(7, Some(bits(version))),
            None => Answer::MISSING,
        };
        event(9, at, Operation::Read, Outcome::Answered(answer))
    }

    #[test]
    fn what_is_surely_gone() {
        let delete = Operation::Delete {
            when: Condition::Always,
        };
        let delete = event(2, 5, delete, Outcome::Unknown);
        let table: [(&str, Vec<Event>, &[&str]); 8] = [
            ("nobody looked", vec![write(0, "3-5")], &[]),
            ("there", vec![write(0, "3-5"), look(9, Some("3-5"))], &[]),
            ("replaced", vec![write(0, "3-5"), look(9, Some("4-6"))], &[]),
            (
                "older",
                vec![write(0, "3-5"), look(9, Some("3-4"))],
                &["3-5"],
            ),
            (
                "another",
                vec![write(0, "3-5"), look(9, Some("4-5"))],
                &["3-5"],
            ),
            (
                "nothing",
                vec![write(0, "3-5"), write(2, "3-6"), look(9, None)],
                &["3-5", "3-6"],
            ),
            ("removed", vec![write(0, "3-5"), delete, look(9, None)], &[]),
            ("later", vec![write(12, "3-5"), look(9, None)], &[]),
        ];
        for (name, events, expected) in table {
            let lost = last_word(b"k", &events, 9).losses;
            let versions: Vec<u64> = lost.iter().filter_map(|loss| loss.version).collect();
            let expected: Vec<u64> = expected.iter().map(|text| bits(text)).collect();
            assert_eq!(versions, expected, "{name}");
        }
    }

    #[test]
    fn what_a_page_covers() {
        let page = json!({
            "lost_entries": 3,
            "is_complete": true,
            "entries": [
                {"partition": 7, "first": "3-5", "last": "3-7", "count": 3, "unknown": false},
                {"partition": 8, "first": "3-5", "last": "4-9", "count": null, "unknown": true},
                {"partition": 9, "first": null, "last": null, "count": null, "unknown": true},
            ],
        });
        let mut reported = Reported::of(&page).expect("it is one");
        for (partition, version, has, may) in [
            (7, "3-5", true, true),
            (7, "3-8", false, false),
            (7, "4-6", false, false),
            (8, "3-6", false, true),
            (8, "4-10", false, false),
            (9, "1-1", false, true),
            (10, "1-1", false, false),
        ] {
            assert_eq!(
                reported.has(partition, bits(version)),
                has,
                "{partition} {version}"
            );
            assert_eq!(
                reported.may_have(partition, bits(version)),
                may,
                "{partition} {version}"
            );
        }
        reported.unknown.push((None, None));
        assert!(reported.may_have(10, bits("1-1")) && !reported.has(10, bits("1-1")));
        assert_eq!(Reported::of(&json!({"status": 404})), None);
    }
}
