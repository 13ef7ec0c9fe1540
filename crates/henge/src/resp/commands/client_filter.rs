//! The filters of `CLIENT LIST` and `CLIENT KILL`: each option names what a client must be, and with `NOT-` in front what it
//! must not be. A client passes if all that was given holds of it.

use std::collections::BTreeSet;
use std::mem::discriminant;

use henge_wire::resp::request::integer;

use crate::access::entry::DEFAULT_USER;
use crate::access::ring::Ring;
use crate::resp::call::{Call, ErrorReply};
use crate::resp::clients::Client;
use crate::resp::pipeline::shown;

/// The letters that Redis gives to the kinds and states of clients; few occur here.
const FLAGS: &[u8] = b"ABEIMNOPRSTUbcdeirtux";

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Filter {
    wanted: Vec<Condition>,
    unwanted: Vec<Condition>,
    ids: BTreeSet<u64>,
    not_ids: BTreeSet<u64>,
    min_age_seconds: u64,
    min_idle_seconds: u64,
    skips_caller: bool,
}

/// What may hold of a client.
#[derive(Debug)]
enum Condition {
    /// Any is a normal one, or none is.
    Type {
        is_normal: bool,
    },
    /// It has shown the API key of this name; `default` is who has shown none.
    User(Vec<u8>),
    /// Any is in the one database that there is.
    Database,
    Address(Vec<u8>),
    LocalAddress(Vec<u8>),
    Ip(Vec<u8>),
    Name(Vec<u8>),
    LibraryName(Vec<u8>),
    LibraryVersion(Vec<u8>),
    Flags(Vec<u8>),
    /// No client says that it has any capability.
    Capabilities {
        any: bool,
    },
}

impl Filter {
    /// Reads the options from a place on.
    pub(super) fn parse(
        call: &Call<'_>,
        mut at: usize,
        skips_caller: bool,
    ) -> Result<Self, ErrorReply> {
        let ring = call.local.shared.access.ring();
        let mut filter = Self {
            skips_caller,
            ..Self::default()
        };
        while let Some(word) = call.words.get(at) {
            let option = word.to_ascii_uppercase();
            let negated = option.strip_prefix(b"NOT-");
            let value = call.words.get(at + 1).ok_or(ErrorReply::SYNTAX)?;
            match (negated, negated.unwrap_or(&option)) {
                (_, b"ID") => {
                    let ids = if negated.is_some() {
                        &mut filter.not_ids
                    } else {
                        &mut filter.ids
                    };
                    let given: Vec<i64> = call.words.from(at + 1).map_while(integer).collect();
                    if given.is_empty() {
                        return Err(ErrorReply::SYNTAX);
                    }
                    at += 1 + given.len();
                    for id in given {
                        let id = u64::try_from(id).ok().filter(|&id| id > 0);
                        ids.insert(
                            id.ok_or(ErrorReply::fixed("ERR client-id should be greater than 0"))?,
                        );
                    }
                    continue;
                }
                (None, b"MAXAGE") => filter.min_age_seconds = positive(value, "maxage")?,
                (None, b"IDLE") => filter.min_idle_seconds = positive(value, "idle")?,
                (None, b"SKIPME") if value.eq_ignore_ascii_case(b"YES") => {
                    filter.skips_caller = true;
                }
                (None, b"SKIPME") if value.eq_ignore_ascii_case(b"NO") => {
                    filter.skips_caller = false;
                }
                (_, name) => {
                    let condition = Condition::parse(name, value, negated.is_some(), &ring)?;
                    let conditions = if negated.is_some() {
                        &mut filter.unwanted
                    } else {
                        &mut filter.wanted
                    };
                    // Of an option that is given twice the last counts, as in Redis.
                    conditions.retain(|other| discriminant(other) != discriminant(&condition));
                    conditions.push(condition);
                }
            }
            at += 2;
        }
        Ok(filter)
    }

    /// Whether a client passes; `caller` is the number of the one who asks.
    pub(super) fn passes(&self, client: &Client, caller: u64, now_ms: u64) -> bool {
        use std::sync::atomic::Ordering::Relaxed;
        let seconds_since = |then_ms: u64| now_ms.saturating_sub(then_ms) / 1000;
        !(self.skips_caller && client.id == caller)
            && (self.ids.is_empty() || self.ids.contains(&client.id))
            && !self.not_ids.contains(&client.id)
            && seconds_since(client.since_ms) >= self.min_age_seconds
            && seconds_since(client.active_ms.load(Relaxed)) >= self.min_idle_seconds
            && self.wanted.iter().all(|condition| condition.holds(client))
            && !self
                .unwanted
                .iter()
                .any(|condition| condition.holds(client))
    }
}

impl Condition {
    fn parse(
        option: &[u8],
        value: &[u8],
        is_negated: bool,
        ring: &Ring,
    ) -> Result<Self, ErrorReply> {
        let owned = || value.to_vec();
        let known = |all: &[u8]| value.iter().all(|letter| all.contains(letter));
        let place = |option: &str| {
            if is_negated {
                format!("NOT-{option}")
            } else {
                "provided".to_owned()
            }
        };
        Ok(match option {
            b"TYPE" => Self::Type {
                is_normal: is_normal(value)?,
            },
            b"USER" if is_user(ring, value) => Self::User(owned()),
            b"USER" => {
                let error = format!("ERR No such user '{}'", shown(value));
                return Err(ErrorReply::new(error));
            }
            b"DB" => {
                let option = if is_negated { "NOT-DB" } else { "DB" };
                match integer(value).and_then(|index| i32::try_from(index).ok()) {
                    Some(0) => Self::Database,
                    Some(_) => {
                        let error = format!("ERR {option} number should be between 0 and 0");
                        return Err(ErrorReply::new(error));
                    }
                    None => {
                        let error = format!("ERR {option} is not an integer or out of range");
                        return Err(ErrorReply::new(error));
                    }
                }
            }
            b"ADDR" => Self::Address(owned()),
            b"LADDR" => Self::LocalAddress(owned()),
            b"IP" => Self::Ip(owned()),
            b"NAME" => Self::Name(owned()),
            b"LIB-NAME" => Self::LibraryName(owned()),
            b"LIB-VER" => Self::LibraryVersion(owned()),
            b"FLAGS" if known(FLAGS) => Self::Flags(owned()),
            // The one capability that a client can have is `r`: that it follows redirections.
            b"CAPA" if known(b"r") => Self::Capabilities {
                any: !value.is_empty(),
            },
            b"FLAGS" | b"CAPA" => {
                let (name, option) = if option == b"FLAGS" {
                    ("flags", "FLAGS")
                } else {
                    ("capa", "CAPA")
                };
                return Err(ErrorReply::new(format!(
                    "ERR Unknown {name} found in the {} filter: {}",
                    place(option),
                    shown(value)
                )));
            }
            _ => return Err(ErrorReply::SYNTAX),
        })
    }

    fn holds(&self, client: &Client) -> bool {
        // Who has no name has none that could be asked for, not even the empty one.
        let named = |own: &[u8], asked: &[u8]| !own.is_empty() && own == asked;
        match self {
            Self::Type { is_normal } => *is_normal,
            Self::Database => true,
            Self::User(asked) => client.details.lock().user().as_bytes() == asked,
            Self::Address(asked) => client.address.to_string().as_bytes() == asked,
            Self::LocalAddress(asked) => client.local_address.to_string().as_bytes() == asked,
            Self::Ip(asked) => client.address.ip().to_string().as_bytes() == asked,
            Self::Name(asked) => named(&client.details.lock().name, asked),
            Self::LibraryName(asked) => named(&client.details.lock().lib_name, asked),
            Self::LibraryVersion(asked) => named(&client.details.lock().lib_version, asked),
            Self::Flags(asked) => {
                let own = client.flags();
                asked.iter().all(|flag| own.as_bytes().contains(flag))
            }
            Self::Capabilities { any } => !*any,
        }
    }
}

/// Whether there is a user of the name: an API key.
fn is_user(ring: &Ring, name: &[u8]) -> bool {
    // Those of a key that was revoked are still connected.
    let is_revoked = |name: &str| ring.revoked().any(|revoked| revoked == name);
    let is_key = |name| ring.named(name).is_some() || is_revoked(name);
    name == DEFAULT_USER.as_bytes() || str::from_utf8(name).is_ok_and(is_key)
}

/// Whether a type of clients is the one that there is: none is a replica, a leader or a subscriber.
fn is_normal(name: &[u8]) -> Result<bool, ErrorReply> {
    let others = ["slave", "replica", "master", "primary", "pubsub"];
    if name.eq_ignore_ascii_case(b"normal") {
        Ok(true)
    } else if others
        .iter()
        .any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
    {
        Ok(false)
    } else {
        let error = format!("ERR Unknown client type '{}'", shown(name));
        Err(ErrorReply::new(error))
    }
}

fn positive(value: &[u8], option: &str) -> Result<u64, ErrorReply> {
    let number = integer(value).ok_or_else(|| {
        ErrorReply::new(format!("ERR {option} is not an integer or out of range"))
    })?;
    u64::try_from(number)
        .ok()
        .filter(|&number| number > 0)
        .ok_or_else(|| ErrorReply::new(format!("ERR {option} should be greater than 0")))
}

/// What a client sent, as text.
pub(super) fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
