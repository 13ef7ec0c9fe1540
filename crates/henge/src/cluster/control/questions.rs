//! What nodes ask each other about their cluster, as JSON: who is there, to be taken in, changes that operators ask for, and that one
//! ends. Fields that a later version adds are left out.

use std::collections::BTreeSet;

use henge_cluster::agreed::{Command, Outcome, Rejected};
use henge_cluster::forming::{ClusterId, Hello, Who};
use serde::{Deserialize, Serialize};

/// What a node says of itself while a cluster is formed: question and answer alike.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Presence {
    who: Who,
    cluster: Option<ClusterId>,
    set: BTreeSet<Who>,
    is_whole: bool,
}

impl Presence {
    pub(super) fn of(hello: Hello) -> Self {
        let Hello {
            who,
            cluster,
            set,
            is_whole,
        } = hello;
        Self {
            who,
            cluster,
            set,
            is_whole,
        }
    }

    pub(super) fn hello(self) -> Hello {
        Hello {
            who: self.who,
            cluster: self.cluster,
            set: self.set,
            is_whole: self.is_whole,
        }
    }
}

/// A start of a node, to be registered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) who: Who,
    /// Where others reach it.
    pub(super) address: String,
    pub(super) incarnation: u64,
    pub(super) has_lost_memory: bool,
    /// The cluster that it means.
    pub(super) cluster: ClusterId,
    /// How often it was passed on already.
    #[serde(default)]
    pub(super) hops: u8,
}

/// What comes of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Started {
    /// It is registered.
    Yes,
    /// There was a later start of it already: this one.
    Later(u64),
    /// It cannot be, until an operator changes something.
    Refused(String),
    /// It cannot be now.
    NotNow(String),
}

/// A change that an operator asks for, of what all agree on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) command: Command,
    /// The cluster that it means.
    pub(super) cluster: ClusterId,
    /// How often it was passed on already.
    #[serde(default)]
    pub(super) hops: u8,
}

/// What comes of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Changed {
    /// It is agreed on.
    Done(Outcome),
    /// It cannot be agreed on, as things are.
    Rejected(Rejected),
    /// Nobody can have it agreed on now, and nothing was proposed.
    NotNow(String),
    /// It was proposed, and is agreed on, or will be, or not: why that is not known.
    Unknown(String),
}

/// A node says that this start of it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Leave {
    pub(super) incarnation: u64,
}

/// As bytes.
pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("numbers, texts and lists of them are JSON")
}

/// From bytes; what is wrong with them otherwise.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("it makes no sense: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes of other versions say and understand this.
    #[test]
    fn questions_have_these_bytes() {
        let who = |name: &str, instance| Who {
            name: name.to_owned(),
            instance,
        };
        let presence = Presence::of(Hello {
            who: who("a", 1),
            cluster: None,
            set: [who("a", 1), who("b", 2)].into(),
            is_whole: true,
        });
        let text = r#"{"who":{"name":"a","instance":1},"cluster":null,"set":[{"name":"a","instance":1},{"name":"b","instance":2}],"is_whole":true}"#;
        assert_eq!(encode(&presence), text.as_bytes());
        assert_eq!(decode(text.as_bytes()), Ok(presence));
        let start = Start {
            who: who("b", 2),
            address: "h:1".to_owned(),
            incarnation: 3,
            has_lost_memory: true,
            cluster: ClusterId(255),
            hops: 0,
        };
        let read: Result<Start, String> = decode(&encode(&start));
        assert_eq!(read.as_ref(), Ok(&start));
        for (started, text) in [
            (Started::Yes, r#""Yes""#),
            (Started::Later(4), r#"{"Later":4}"#),
            (Started::Refused("x".to_owned()), r#"{"Refused":"x"}"#),
            (Started::NotNow("y".to_owned()), r#"{"NotNow":"y"}"#),
        ] {
            assert_eq!(encode(&started), text.as_bytes());
            assert_eq!(decode(text.as_bytes()), Ok(started));
        }
        assert!(decode::<Start>(b"{}").is_err());
    }

    /// The same.
    #[test]
    fn changes_have_these_bytes() {
        let change = Change {
            command: Command::Set {
                name: "a".to_owned(),
                value: Some("b".to_owned()),
                expected: Some(3),
            },
            cluster: ClusterId(255),
            hops: 1,
        };
        let text = format!(
            r#"{{"command":{{"Set":{{"name":"a","value":"b","expected":3}}}},"cluster":{},"hops":1}}"#,
            String::from_utf8(encode(&ClusterId(255))).expect("it is text"),
        );
        assert_eq!(String::from_utf8(encode(&change)), Ok(text.clone()));
        assert_eq!(decode(text.as_bytes()), Ok(change));
        for (changed, text) in [
            (Changed::Done(Outcome::Set(4)), r#"{"Done":{"Set":4}}"#),
            (
                Changed::Rejected(Rejected::SettingVersion { present: 2 }),
                r#"{"Rejected":{"SettingVersion":{"present":2}}}"#,
            ),
            (Changed::NotNow("x".to_owned()), r#"{"NotNow":"x"}"#),
            (Changed::Unknown("y".to_owned()), r#"{"Unknown":"y"}"#),
        ] {
            assert_eq!(encode(&changed), text.as_bytes());
            assert_eq!(decode(text.as_bytes()), Ok(changed));
        }
        let leave = Leave { incarnation: 3 };
        assert_eq!(encode(&leave), br#"{"incarnation":3}"#);
        assert_eq!(decode(br#"{"incarnation":3}"#), Ok(leave));
        // A command that only a later version knows.
        let later = r#"{"command":{"Later":{}},"cluster":255}"#;
        assert!(decode::<Change>(later.as_bytes()).is_err());
    }
}
