//! Why a key is not there, as the node that has its partition remembers it: as a page, and in a sentence. Any node is asked; it asks
//! the one that knows.

use bytes::Bytes;
use henge_engine::{Absence, MissCause, Unexplained};
use henge_wire::Partition;
use henge_wire::peer::keys::why_question;
use serde_json::{Value, json};

use crate::cluster::keys::Elsewhere;
use crate::cluster::link::Service;
use crate::cluster::view::Owner;
use crate::http::json::put_bytes;
use crate::metrics::counters::add;
use crate::net::data_thread::Local;

/// What this node knows of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Known {
    /// It is there.
    Alive,
    /// It is not.
    Absent(Absence),
    /// It is not, and `insight.enabled` is false.
    Off,
}

/// The page of a key, of whichever node has its partition.
///
/// # Errors
/// That node cannot be asked.
pub(crate) async fn page(local: &Local, key: &[u8]) -> Result<Bytes, Elsewhere> {
    if let Some(routes) = local.routing.routes() {
        match routes.view.owner(Partition::of(key)) {
            Owner::Here => {}
            Owner::Nowhere => return Err(Elsewhere::nowhere(&routes.view)),
            Owner::There(member) if !member.is_reachable() => {
                return Err(Elsewhere::Down(std::sync::Arc::clone(member)));
            }
            Owner::There(member) => {
                add(&local.counters.forwarded, 1);
                let question = why_question(key);
                let asking = routes.ask(member, Service::Commands, &question);
                let answer = routes.answer(member, asking, Some(&question)).await;
                return answer.map_err(|error| Elsewhere::unanswered(member, &error, false));
            }
        }
    }
    here(local, key).ok_or(Elsewhere::NotOpen)
}

/// The page of a key of this node; none if its partition is another's.
pub(crate) fn here(local: &Local, key: &[u8]) -> Option<Bytes> {
    let known = known(local, key)?;
    let policy = local.shared.cache.policy().name();
    let node = &local.admin.metrics.node_id;
    let mut page = members(known, policy, node, Partition::of(key));
    put_bytes(&mut page, "key", key);
    Some(page.to_string().into())
}

/// What this node knows of a key; none if its partition is another's.
pub(crate) fn known(local: &Local, key: &[u8]) -> Option<Known> {
    let now_ms = local.shared.clock.now_ms();
    let known = local.shared.cache.why(key, now_ms)?;
    Some(match known {
        Ok(absence) => Known::Absent(absence),
        Err(Unexplained::Alive) => Known::Alive,
        Err(Unexplained::NothingRemembered) => Known::Off,
    })
}

fn members(known: Known, policy: &str, node: &str, partition: Partition) -> Value {
    let absence = match known {
        Known::Absent(absence) => Some(absence),
        _ => None,
    };
    let is_evicted = absence.is_some_and(|absence| absence.cause == MissCause::Evicted);
    let ms = |seconds: Option<u64>| seconds.map(|seconds| seconds.saturating_mul(1000));
    json!({
        "node": node,
        "partition": partition.number(),
        "is_there": known == Known::Alive,
        "cause": absence.map(|absence| absence.cause.name()),
        "policy": is_evicted.then_some(policy),
        "evicted_for": absence.and_then(|a| a.evicted_for).map(henge_engine::Cause::name),
        "left_ago_ms": ms(absence.and_then(|absence| absence.left_ago_s)),
        "age_ms": ms(absence.and_then(|absence| absence.age_s)),
        "remembered_ms": ms(absence.map(|absence| absence.remembered_s)),
        "is_certain": absence.is_none_or(|absence| absence.is_certain) && known != Known::Off,
        "text": sentence(known, policy),
    })
}

/// The same for people.
pub(crate) fn sentence(known: Known, policy: &str) -> String {
    let absence = match known {
        Known::Alive => return "It is there.".to_owned(),
        Known::Off => {
            return "It is not there, and insight.enabled is false: nobody remembers why."
                .to_owned();
        }
        Known::Absent(absence) => absence,
    };
    let Absence {
        cause,
        evicted_for,
        left_ago_s,
        age_s,
        is_certain,
        remembered_s,
    } = absence;
    let ago = left_ago_s.map_or_else(
        || "some time ago".to_owned(),
        |s| format!("{} ago", span(s)),
    );
    let age = age_s.map_or_else(String::new, |s| {
        format!(", {} after it was last written", span(s))
    });
    let reach = span(remembered_s);
    match cause {
        MissCause::NeverSet => format!(
            "It was never set here, or it left more than {reach} ago: nothing older is remembered, and nothing of before the node's start."
        ),
        MissCause::Expired => format!("It expired {ago}{age}."),
        MissCause::Evicted => {
            let room = match evicted_for {
                Some(henge_engine::Cause::Items) => "cache.max_items was reached",
                Some(henge_engine::Cause::Pressure) => "the machine ran short of memory",
                _ => "cache.max_size_bytes was reached",
            };
            format!("The policy {policy} evicted it {ago}{age}, as {room}.")
        }
        MissCause::Deleted => format!("A client deleted it {ago}."),
        MissCause::Flushed => {
            format!("Everything was flushed {ago}; it was not set since, if it ever was.")
        }
        MissCause::Moved => format!(
            "Its partition moved {ago}; nothing is remembered here of what left before that."
        ),
        MissCause::Lost if is_certain => format!(
            "It was lost {ago}{age}: it was in an order of writes that did not survive a failover."
        ),
        MissCause::Lost => format!(
            "Its partition was lost {ago}, as too few of its replicas remembered it; it was not set since, if it ever was."
        ),
    }
}

/// A span of time for people.
fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absence(cause: MissCause) -> Absence {
        Absence {
            cause,
            evicted_for: None,
            left_ago_s: Some(5),
            age_s: Some(130),
            is_certain: true,
            remembered_s: 7200,
        }
    }

    #[test]
    fn each_cause_is_told_in_a_sentence() {
        for (known, expected) in [
            (Known::Alive, "It is there."),
            (
                Known::Absent(absence(MissCause::Expired)),
                "It expired 5 s ago, 2 min after it was last written.",
            ),
            (
                Known::Absent(absence(MissCause::NeverSet)),
                "It was never set here, or it left more than 2 h ago: nothing older is remembered, and nothing of before the node's start.",
            ),
            (
                Known::Absent(absence(MissCause::Evicted)),
                "The policy lru evicted it 5 s ago, 2 min after it was last written, as cache.max_size_bytes was reached.",
            ),
        ] {
            assert_eq!(sentence(known, "lru"), expected);
        }
        for cause in MissCause::ALL {
            let text = sentence(Known::Absent(absence(cause)), "lru");
            assert!(text.ends_with('.') && !text.contains("  "), "{text}");
        }
    }
}
