//! The map of a cluster, and where a refusal sends a request instead, as servers tell them: `CLUSTER SHARDS` and `CLUSTER SLOTS` of
//! the Redis protocol, `/cluster/status` of Henge, `MOVED` and `ASK`. Only what is told; whom to believe, and what to do with
//! it, is decided elsewhere. What is not understood is no map.

use henge_wire::SLOTS;
use henge_wire::resp::reply::Reply;
use serde::Deserialize;

use crate::{Error, Target};

/// The most members of a map: several times what a cluster is made for.
pub(crate) const MAX_MEMBERS: usize = 1_024;

/// Stands in for a place where nobody owns a slot.
pub(crate) const NOBODY: u16 = u16::MAX;

/// Who is in the cluster, and who owns which slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Map {
    pub(crate) members: Vec<Target>,
    /// For each slot the place of its owner among the members, or [`NOBODY`].
    pub(crate) owners: Box<[u16]>,
}

/// What a server says when it is asked for the map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    Map(Map),
    /// That it knows of no cluster.
    Alone,
    /// That it cannot tell at the moment.
    NotYet,
}

impl Told {
    pub(crate) fn of(map: Option<Map>) -> Self {
        match map {
            None => Self::Alone,
            // It has met nobody, not even itself.
            Some(map) if map.members.is_empty() => Self::NotYet,
            Some(map) => Self::Map(map),
        }
    }
}

impl Map {
    fn empty() -> Self {
        Self {
            members: Vec::new(),
            owners: vec![NOBODY; usize::from(SLOTS)].into(),
        }
    }

    /// From the reply to `CLUSTER SHARDS` of a server.
    pub(crate) fn of_shards(reply: &Reply, asked: &Target) -> Option<Self> {
        let mut map = Self::empty();
        for shard in list(reply)? {
            let mut owner = None;
            for node in list(field(shard, b"nodes")?)? {
                // Redis speaks TLS on a port of its own, which may be the only one; a node of Henge on the one that it has.
                let plain = || field(node, b"port").and_then(integer);
                let secure = || field(node, b"tls-port").and_then(integer);
                let port = if asked.scheme.is_secure() {
                    secure().or_else(plain)
                } else {
                    plain()
                };
                let Some(port) = port else {
                    continue;
                };
                let host = match field(node, b"endpoint") {
                    Some(Reply::Null) => "",
                    Some(endpoint) => match text(endpoint)? {
                        "" | "?" => field(node, b"ip").and_then(text)?,
                        endpoint => endpoint,
                    },
                    None => field(node, b"ip").and_then(text)?,
                };
                let place = map.place(target(asked, host, port)?)?;
                let is_master = field(node, b"role").and_then(text) == Some("master");
                let health = field(node, b"health").and_then(text);
                if is_master && health.is_none_or(|health| health == "online") {
                    owner = owner.or(Some(place));
                }
            }
            let bounds = list(field(shard, b"slots")?)?;
            for range in bounds.chunks(2) {
                let [first, last] = range else {
                    return None;
                };
                map.give(integer(first)?, integer(last)?, owner)?;
            }
        }
        Some(map)
    }

    /// From the reply to `CLUSTER SLOTS` of a server.
    pub(crate) fn of_slots(reply: &Reply, asked: &Target) -> Option<Self> {
        let mut map = Self::empty();
        for range in list(reply)? {
            let [first, last, nodes @ ..] = list(range)? else {
                return None;
            };
            // The master is the first.
            let mut owner = None;
            for node in nodes {
                let [host, port, ..] = list(node)? else {
                    return None;
                };
                let host = match host {
                    Reply::Null => "",
                    host => text(host)?,
                };
                let host = if host == "?" { "" } else { host };
                let place = map.place(target(asked, host, integer(port)?)?)?;
                owner = owner.or(Some(place));
            }
            map.give(integer(first)?, integer(last)?, owner)?;
        }
        Some(map)
    }

    /// From the body of `/cluster/status` of a server.
    pub(crate) fn of_status(body: &[u8], asked: &Target) -> Option<Self> {
        let status: Status = serde_json::from_slice(body).ok()?;
        let count = status.partitions.count;
        if count == 0 || !SLOTS.is_multiple_of(count) {
            return None;
        }
        let width = i64::from(SLOTS / count);
        let mut map = Self::empty();
        // By their ids; none for who is down.
        let mut places = std::collections::BTreeMap::new();
        for member in &status.members {
            let url = format!("{}://{}", asked.scheme, member.address);
            // Where nobody can be reached is told of by nobody who forms a cluster.
            let place = map.place(url.parse().ok()?)?;
            let is_down = member.state.eq_ignore_ascii_case("down");
            places.insert(member.id, (!is_down).then_some(place));
        }
        for (first, last, id) in &status.partitions.owners {
            let owner = places.get(id).copied().flatten();
            let first = i64::from(*first) * width;
            let last = (i64::from(*last) + 1) * width - 1;
            map.give(first, last, owner)?;
        }
        Some(map)
    }

    /// The place of a member, which is put at the end if it is new. None if there are too many.
    fn place(&mut self, target: Target) -> Option<u16> {
        let known = self.members.iter().position(|member| *member == target);
        let place = known.unwrap_or(self.members.len());
        if place == MAX_MEMBERS {
            return None;
        }
        if known.is_none() {
            self.members.push(target);
        }
        u16::try_from(place).ok()
    }

    fn give(&mut self, first: i64, last: i64, owner: Option<u16>) -> Option<()> {
        let (first, last) = (usize::try_from(first).ok()?, usize::try_from(last).ok()?);
        self.owners
            .get_mut(first..=last)?
            .fill(owner.unwrap_or(NOBODY));
        Some(())
    }
}

#[derive(Deserialize)]
struct Status {
    members: Vec<Member>,
    partitions: Partitions,
}

#[derive(Deserialize)]
struct Member {
    id: u64,
    address: String,
    state: String,
}

#[derive(Deserialize)]
struct Partitions {
    count: u16,
    /// The first and the last partition of a range, and the member that owns it.
    owners: Vec<(u16, u16, u64)>,
}

/// Where else a request belongs. It was not carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Redirect {
    /// From now on.
    Moved {
        /// The slot that has another owner.
        slot: u16,
        /// The owner.
        to: Target,
    },
    /// This once, and after telling so: the slot is about to move.
    Ask(Target),
}

impl Redirect {
    /// What a refusal by a server says, if it is one that sends elsewhere.
    pub(crate) fn of(error: &Error, asked: &Target) -> Option<Self> {
        let Error::Refused { code, message } = error else {
            return None;
        };
        if asked.scheme.is_http() {
            return None;
        }
        let (slot, address) = message.split_once(' ')?;
        let slot = slot.parse().ok().filter(|slot| *slot < SLOTS)?;
        let (host, port) = address.rsplit_once(':')?;
        let host = if host == "?" { "" } else { host };
        let to = target(asked, host, port.parse().ok()?)?;
        match code.as_str() {
            "MOVED" => Some(Self::Moved { slot, to }),
            "ASK" => Some(Self::Ask(to)),
            _ => None,
        }
    }
}

/// A server that another one names. An empty host is the one that was asked: a server may not know its own address.
fn target(asked: &Target, host: &str, port: i64) -> Option<Target> {
    let host = if host.is_empty() { &asked.host } else { host };
    let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
    let is_good = host.bytes().all(|byte| byte.is_ascii_graphic());
    is_good.then(|| Target {
        scheme: asked.scheme,
        host: host.to_owned(),
        port,
    })
}

fn list(reply: &Reply) -> Option<&[Reply]> {
    match reply {
        Reply::Array(replies) => Some(replies),
        _ => None,
    }
}

fn integer(reply: &Reply) -> Option<i64> {
    match reply {
        Reply::Integer(number) => Some(*number),
        _ => None,
    }
}

fn text(reply: &Reply) -> Option<&str> {
    match reply {
        Reply::Bulk(text) | Reply::Simple(text) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}

/// What stands behind a name: in RESP2, which the client speaks, maps are lists.
fn field<'a>(reply: &'a Reply, name: &[u8]) -> Option<&'a Reply> {
    let mut fields = list(reply)?.chunks_exact(2);
    fields
        .find(|field| text(&field[0]).is_some_and(|key| key.as_bytes() == name))
        .map(|field| &field[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use henge_wire::resp::reply::{Decoder, Limits};
    use std::fmt::Write as _;

    /// Who was asked in all tests.
    const ASKED: &str = "redis://asked:7000";

    fn asked() -> Target {
        ASKED.parse().expect("a URL")
    }

    /// A reply, by a line of words: `[` and `]` around a list, `_` for null, `''` for nothing, digits for an integer.
    fn reply(line: &str) -> Reply {
        let mut bytes = Vec::new();
        let words: Vec<&str> = line.split_whitespace().collect();
        for (place, word) in words.iter().enumerate() {
            let part = match *word {
                "[" => {
                    let mut depth = 0;
                    let mut count = 0;
                    for word in &words[place + 1..] {
                        if depth == 0 && *word == "]" {
                            break;
                        }
                        count += usize::from(depth == 0);
                        depth += i32::from(*word == "[") - i32::from(*word == "]");
                    }
                    format!("*{count}\r\n")
                }
                "]" => continue,
                "_" => "$-1\r\n".to_owned(),
                "''" => "$0\r\n\r\n".to_owned(),
                word if word.parse::<i64>().is_ok() => format!(":{word}\r\n"),
                word => format!("${}\r\n{word}\r\n", word.len()),
            };
            bytes.extend_from_slice(part.as_bytes());
        }
        let mut bytes = BytesMut::from(&bytes[..]);
        let decoded = Decoder::new(Limits::default()).decode(&mut bytes);
        let reply = decoded.expect("RESP").expect("a whole reply");
        assert!(bytes.is_empty(), "{line}");
        reply
    }

    /// The members, and the ranges that one of them owns.
    fn shown(map: &Map) -> String {
        let members: Vec<String> = map.members.iter().map(Target::server).collect();
        let mut text = members.join(" ");
        for range in map.owners.chunk_by(|a, b| a == b).scan(0, |at, range| {
            let first = *at;
            *at += range.len();
            Some((first, *at - 1, range[0]))
        }) {
            let (first, last, place) = range;
            if place != NOBODY {
                let _ = write!(text, ", {first}-{last} {place}");
            }
        }
        text
    }

    #[test]
    fn members_are_reached_by_the_scheme_of_who_told_of_them() {
        let line = "[ [ slots [ 0 1 ] nodes [ [ port 1 tls-port 2 ip h role master ] ] ]
             [ slots [ 2 3 ] nodes [ [ port 3 ip h role master ] ] ]
             [ slots [ 4 5 ] nodes [ [ tls-port 4 ip h role master ] ] ] ]";
        for (scheme, expected) in [
            ("redis", "redis://h:1 redis://h:3"),
            ("rediss", "rediss://h:2 rediss://h:3 rediss://h:4"),
        ] {
            let asked = format!("{scheme}://asked:7000").parse().expect("a URL");
            let map = Map::of_shards(&reply(line), &asked).expect("a map");
            let members: Vec<String> = map.members.iter().map(Target::to_string).collect();
            assert_eq!(members.join(" "), expected);
        }
    }

    #[test]
    fn maps_of_the_redis_protocol() {
        type Parse = fn(&Reply, &Target) -> Option<Map>;
        let (shards, slots): (Parse, Parse) = (Map::of_shards, Map::of_slots);
        let table: &[(Parse, &str, Option<&str>)] = &[
            (
                shards,
                "[ [ slots [ 0 99 200 16383 ] nodes [
                   [ id x port 1 ip 10.0.0.1 endpoint 10.0.0.1 role replica replication-offset 3 health online ]
                   [ id y port 2 ip 10.0.0.1 endpoint 10.0.0.1 role master replication-offset 3 health online ] ] ]
                   [ slots [ 100 199 ] nodes [
                   [ id z port 3 ip 10.0.0.2 endpoint node.site hostname node.site role master health online ] ] ] ]",
                Some("10.0.0.1:1 10.0.0.1:2 node.site:3, 0-99 1, 100-199 2, 200-16383 1"),
            ),
            // Who has failed owns nothing, also where another has not taken over yet.
            (
                shards,
                "[ [ slots [ 0 9 ] nodes [ [ port 1 ip h role master health failed ] [ port 2 ip h role replica health online ] ] ]
                   [ slots [ 10 19 ] nodes [ [ port 3 ip h role master health failed ] [ port 4 ip h role master health online ] ] ] ]",
                Some("h:1 h:2 h:3 h:4, 10-19 3"),
            ),
            // A server that does not know its address, or is told not to say it, is where it was found.
            (
                shards,
                "[ [ slots [ 0 1 ] nodes [ [ port 1 ip '' endpoint '' role master health online ] ] ]
                   [ slots [ 2 3 ] nodes [ [ port 2 ip 10.0.0.1 endpoint _ role master health online ] ] ]
                   [ slots [ ] nodes [ [ port 3 ip 10.0.0.1 endpoint ? role master health online ] ] ]
                   [ slots [ 4 4 ] nodes [ [ tls-port 4 ip 10.0.0.1 role master health online ] ] ] ]",
                Some("asked:1 asked:2 10.0.0.1:3, 0-1 0, 2-3 1"),
            ),
            (shards, "[ ]", Some("")),
            (shards, "x", None),
            (shards, "[ [ slots [ 0 ] nodes [ ] ] ]", None),
            (shards, "[ [ slots [ 0 16384 ] nodes [ ] ] ]", None),
            (shards, "[ [ slots [ -1 3 ] nodes [ ] ] ]", None),
            (shards, "[ [ slots [ 9 3 ] nodes [ ] ] ]", None),
            (shards, "[ [ nodes [ ] ] ]", None),
            (
                shards,
                "[ [ slots [ ] nodes [ [ port 0 ip h role master ] ] ] ]",
                None,
            ),
            (
                slots,
                "[ [ 0 5460 [ 10.0.0.1 1 id [ hostname h ] ] [ 10.0.0.2 2 id [ ] ] ] [ 5461 16383 [ 10.0.0.2 2 id ] ] ]",
                Some("10.0.0.1:1 10.0.0.2:2, 0-5460 0, 5461-16383 1"),
            ),
            (
                slots,
                "[ [ 0 1 [ '' 1 id ] ] [ 2 3 [ _ 2 id ] ] [ 4 5 [ ? 3 id ] ] ]",
                Some("asked:1 asked:2 asked:3, 0-1 0, 2-3 1, 4-5 2"),
            ),
            (slots, "[ [ 0 ] ]", None),
            (slots, "[ [ 0 1 [ h ] ] ]", None),
            (slots, "[ [ 0 1 [ h 65536 id ] ] ]", None),
        ];
        for (parse, line, expected) in table {
            let map = parse(&reply(line), &asked());
            assert_eq!(map.as_ref().map(shown).as_deref(), *expected, "{line}");
        }
    }

    #[test]
    fn maps_of_http() {
        let members = r#"{"id":7,"name":"a","address":"10.0.0.1:1","state":"up"},
            {"id":9,"name":"b","address":"[::1]:2","state":"Down","more":[]}"#;
        let status = |members: &str, count: u32, owners: &str| {
            format!(
                r#"{{"epoch":3,"members":[{members}],"partitions":{{"count":{count},"owners":{owners}}}}}"#
            )
        };
        let table = [
            (
                status(members, 1024, "[[0,1,7],[2,2,9],[1023,1023,7]]"),
                Some("10.0.0.1:1 [::1]:2, 0-31 0, 16368-16383 0"),
            ),
            (
                status(members, 16, "[[0,15,7]]"),
                Some("10.0.0.1:1 [::1]:2, 0-16383 0"),
            ),
            (
                status(members, 1024, "[[0,1,8]]"),
                Some("10.0.0.1:1 [::1]:2"),
            ),
            (status("", 1024, "[]"), Some("")),
            (status(members, 1024, "[[0,1024,7]]"), None),
            (status(members, 1000, "[[0,1,7]]"), None),
            (status(members, 0, "[]"), None),
            (
                status(r#"{"id":1,"address":"x/y","state":"up"}"#, 1024, "[]"),
                None,
            ),
            // Of a node by itself, as versions before the cluster had it.
            (
                r#"{"epoch":1,"partitions":1024,"nodes":[{"id":"a","state":"Up"}]}"#.to_owned(),
                None,
            ),
            ("not found".to_owned(), None),
        ];
        let asked: Target = "http://asked:1".parse().expect("a URL");
        for (body, expected) in table {
            let map = Map::of_status(body.as_bytes(), &asked);
            assert_eq!(map.as_ref().map(shown).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn more_members_than_a_cluster_has_are_no_map() {
        let shard = |port| format!("[ slots [ ] nodes [ [ port {port} ip h role master ] ] ]");
        for (count, good) in [(MAX_MEMBERS, true), (MAX_MEMBERS + 1, false)] {
            let shards: Vec<String> = (1..=count).map(shard).collect();
            let line = format!("[ {} ]", shards.join(" "));
            assert_eq!(Map::of_shards(&reply(&line), &asked()).is_some(), good);
        }
    }

    #[test]
    fn redirections() {
        let table = [
            ("MOVED", "3999 10.0.0.1:6381", "moved 3999 10.0.0.1:6381"),
            ("MOVED", "0 :6381", "moved 0 asked:6381"),
            ("MOVED", "0 ?:6381", "moved 0 asked:6381"),
            ("MOVED", "0 ::1:6381", "moved 0 [::1]:6381"),
            ("ASK", "16383 h:1", "ask h:1"),
            ("MOVED", "16384 h:1", "none"),
            ("MOVED", "1 h:0", "none"),
            ("MOVED", "1 h", "none"),
            ("MOVED", "1", "none"),
            ("MOVED", "x h:1", "none"),
            ("ERR", "3999 h:1", "none"),
        ];
        for (code, message, expected) in table {
            let error = Error::Refused {
                code: code.to_owned(),
                message: message.to_owned(),
            };
            let found = match Redirect::of(&error, &asked()) {
                Some(Redirect::Moved { slot, to }) => format!("moved {slot} {}", to.server()),
                Some(Redirect::Ask(to)) => format!("ask {}", to.server()),
                None => "none".to_owned(),
            };
            assert_eq!(found, expected, "{code} {message}");
            let http: Target = "http://asked:1".parse().expect("a URL");
            assert_eq!(Redirect::of(&error, &http), None);
        }
        assert_eq!(Redirect::of(&Error::Argument("x"), &asked()), None);
    }
}
