//! Running nodes: whether each is ready, which version it runs, and how far its clock is before this machine's. Nodes say the time only by the
//! dates of their answers, which are whole seconds; several answers, each at another part of a second, narrow that down to about a tenth of one.

use std::fmt::Write as _;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use henge_client::Target;
use http::{Method, header};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::facts::{ClockBounds, Known};
use super::judge::{self, Check};
use crate::calendar;
use crate::cli::asking::{Connection, InquiryError, granted, page};
use crate::cli::members::{self, Member};
use crate::cli::table::printable;

/// How many answers the clock is narrowed down by.
const DATES: u32 = 11;
/// How long it is between them: no part of a second that comes again before all are asked for.
const BETWEEN: Duration = Duration::from_millis(97);

/// What one node says.
struct Said {
    is_ready: bool,
    words: String,
    version: Option<String>,
    clock: Known<ClockBounds>,
}

/// What is to be said of a node and the members of its cluster.
pub(super) async fn checks(target: &Target, patience: Duration) -> Vec<Check> {
    let status = match page(target, "/cluster/status", patience).await {
        Ok(status) => status,
        Err(error) => return vec![judge::readiness(&target.server(), &Err(error.to_string()))],
    };
    let mut all = members::of_status(&status, target);
    if all.is_empty() {
        // One that waits for its cluster has no members yet.
        all.push(Member {
            name: target.server(),
            target: Some(target.clone()),
            is_down: false,
        });
    }
    let mut asked = JoinSet::new();
    for (nth, member) in all.iter().enumerate() {
        if let Some(target) = member.target.clone() {
            asked.spawn(async move { (nth, said(&target, patience).await) });
        }
    }
    let mut answers: Vec<_> = all
        .iter()
        .map(|_| Err("its address is none that can be asked".to_owned()))
        .collect();
    while let Some(done) = asked.join_next().await {
        if let Ok((nth, answer)) = done {
            answers[nth] = answer.map_err(|error| error.to_string());
        }
    }
    let (mut checks, mut versions, mut clocks) = (Vec::new(), Vec::new(), Vec::new());
    for (member, answer) in all.iter().zip(answers) {
        let name = printable(&member.name);
        let word = answer
            .as_ref()
            .map(|said| (said.is_ready, said.words.clone()));
        checks.push(judge::readiness(&name, &word.map_err(Clone::clone)));
        if let Ok(said) = answer {
            versions.extend(said.version.map(|version| (name.clone(), version)));
            clocks.push((name, said.clock));
        }
    }
    checks.extend(judge::versions(&versions));
    checks.extend(judge::clocks(&clocks));
    checks
}

async fn said(target: &Target, patience: Duration) -> Result<Said, InquiryError> {
    let late = |_| InquiryError::TimedOut(patience);
    let mut node = timeout(patience, Connection::open(target))
        .await
        .map_err(late)??;
    let request = |path: &str| (Method::GET, path.to_owned(), String::new());
    let is_sent = AtomicBool::new(false);
    let ready = timeout(patience, node.send(request("/ready"), &is_sent)).await;
    let (status, ready) = ready.map_err(late)??;
    let ready: Value = serde_json::from_slice(&ready).unwrap_or_default();
    let health = timeout(patience, node.send(request("/health"), &is_sent)).await;
    let (health_status, health) = health.map_err(late)??;
    let health = granted(health_status, health)?;
    let health: Value = serde_json::from_slice(&health).unwrap_or_default();
    // Whatever goes wrong now is about the clock only.
    let clock = match timeout(patience + BETWEEN * DATES, clock(&mut node)).await {
        Ok(clock) => clock,
        Err(_) => Err("it did not answer in time".to_owned()),
    };
    Ok(Said {
        is_ready: status.is_success(),
        words: words_of(&ready),
        version: health["version"].as_str().map(printable),
        clock,
    })
}

/// How ready it is, and which checks say otherwise.
fn words_of(ready: &Value) -> String {
    let mut words = ready["status"]
        .as_str()
        .map_or("it does not say how it is".to_owned(), printable);
    let checks = ready["checks"].as_array().into_iter().flatten();
    for check in checks.filter(|check| check["ok"] == false) {
        let text = |name: &str| check[name].as_str().map(printable).unwrap_or_default();
        let name = text("name").replace('_', " ");
        let _ = write!(words, "; {name}: {}", text("why"));
    }
    words
}

async fn clock(node: &mut Connection) -> Known<ClockBounds> {
    let mut dates = Vec::new();
    let mut ticks = interval(BETWEEN);
    for _ in 0..DATES {
        ticks.tick().await;
        let request = (Method::GET, "/health".to_owned(), String::new());
        let sent = now_ms();
        let answer = node.exchange(request, &AtomicBool::new(false)).await;
        let received = now_ms();
        let answer = answer.map_err(|error| error.to_string())?;
        let date = answer
            .headers()
            .get(header::DATE)
            .and_then(|date| date.to_str().ok());
        let date = date.and_then(date_ms).ok_or("its answers have no date")?;
        dates.push((date, sent, received));
    }
    narrowed(&dates).ok_or_else(|| "one of the clocks was set while it was measured".to_owned())
}

fn now_ms() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64() * 1e3
}

/// What dates say together, each with when it was asked for and when it had come: at some moment between, the clock of the other was in the
/// second that it says. None where they contradict each other.
fn narrowed(dates: &[(f64, f64, f64)]) -> Option<ClockBounds> {
    let mut bounds = ClockBounds {
        least_ms: f64::NEG_INFINITY,
        most_ms: f64::INFINITY,
    };
    for (date, sent, received) in dates {
        bounds.least_ms = bounds.least_ms.max(date - received);
        bounds.most_ms = bounds.most_ms.min(date + 1_000.0 - sent);
    }
    (bounds.least_ms <= bounds.most_ms && bounds.least_ms.is_finite()).then_some(bounds)
}

/// A date as HTTP has it: `Sat, 28 Nov 2026 12:29:37 GMT`.
fn date_ms(date: &str) -> Option<f64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let words: Vec<&str> = date.split(' ').collect();
    let [_, day, month, year, time, "GMT"] = words[..] else {
        return None;
    };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let at_ms = calendar::parse(&format!("{year}-{month:02}-{day}T{time}Z")).ok()?;
    Some(at_ms as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::asking::canned;

    #[test]
    fn dates_narrow_down() {
        assert_eq!(date_ms("Thu, 01 Jan 1970 00:00:01 GMT"), Some(1_000.0));
        assert_eq!(
            date_ms("Sat, 28 Nov 2026 12:29:37 GMT"),
            Some(1_795_868_977_000.0)
        );
        for wrong in [
            "",
            "Sat, 28 Foo 2026 12:29:37 GMT",
            "Sat, 28 Nov 2026 12:29:37 CET",
            "28 Nov 2026",
        ] {
            assert_eq!(date_ms(wrong), None, "{wrong}");
        }
        // A clock that is 300 ms before ours, asked each tenth of a second over a network of 10 ms.
        let dates: Vec<_> = (0..11)
            .map(|nth| {
                let sent = 5_000.0 + f64::from(nth) * 97.0;
                let there = sent + 5.0 + 300.0;
                ((there / 1_000.0).floor() * 1_000.0, sent, sent + 10.0)
            })
            .collect();
        let bounds = narrowed(&dates).expect("they agree");
        assert!(
            bounds.least_ms <= 300.0 && bounds.most_ms >= 300.0,
            "{bounds:?}"
        );
        assert!(bounds.middle().1 < 60.0, "{bounds:?}");
        assert_eq!(narrowed(&[(0.0, 0.0, 1.0), (9_000.0, 2.0, 3.0)]), None);
        assert_eq!(narrowed(&[]), None);
    }

    #[test]
    fn what_is_not_ready_says_why() {
        let ready = serde_json::json!({"status": "forming", "checks": [
            {"name": "recovered", "ok": true, "why": "all is loaded"},
            {"name": "in_cluster", "ok": false, "why": "node2\u{1b} does not answer"},
        ]});
        assert_eq!(
            words_of(&ready),
            "forming; in cluster: node2? does not answer"
        );
    }

    #[tokio::test]
    async fn a_node_without_dates_is_asked_all_the_same() {
        let address = canned::node(&[
            ("/cluster/status", r#"{"members":[]}"#),
            ("/ready", r#"{"status":"ready"}"#),
            ("/health", r#"{"version":"0.1.0"}"#),
        ])
        .await;
        let target = format!("http://{address}").parse().expect("a URL");
        let checks = checks(&target, Duration::from_mins(1)).await;
        let found: Vec<_> = checks
            .iter()
            .map(|check| (&*check.name, check.verdict.word(), &*check.found))
            .collect();
        let node = format!("node {address}");
        let clock = format!("{address}: its answers have no date");
        let expected = [
            (&*node, "ok", "ready"),
            ("versions", "ok", "0.1.0"),
            ("clocks", "unknown", &clock),
        ];
        assert_eq!(found, expected);
    }
}
