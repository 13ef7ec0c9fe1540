//! `henge cluster losses`: what did not survive of what was acknowledged at ONE, as all members have found it, and what nobody can
//! know.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Command;
use indicatif::HumanDuration;
use serde_json::Value;

use super::{client, columns, grouped, printable};

const HELP: &str = "\
Exit codes:
  0  shown, and all members have said what they found
  1  shown, and some members have not
  2  the command line cannot be understood
  3  it failed: no connection, an error, or no answer";

/// The grammar.
pub(super) fn command() -> Command {
    Command::new("losses")
        .about("Show what a cluster has lost of what was acknowledged at ONE, and what nobody can know")
        .args([
            client::url().help("A node: http://host:port or https://host:port"),
            client::timeout(),
            client::json().help("As JSON, for programs: what GET /cluster/losses says"),
        ])
        .after_help(HELP)
}

/// The columns of the table that are figures, and end at the right.
const FIGURES: [usize; 2] = [1, 4];

/// The losses for people, with times as they are seen from a time; none if they are none.
pub(super) fn table(page: &Value, now: SystemTime) -> Option<String> {
    let ago = |ms: u64| {
        let time = UNIX_EPOCH.checked_add(Duration::from_millis(ms));
        let passed = time.and_then(|time| now.duration_since(time).ok());
        format!("{} ago", HumanDuration(passed.unwrap_or_default()))
    };
    let (entries, members) = (page["entries"].as_array()?, page["members"].as_array()?);
    let (lost, unknown) = (page["lost_entries"].as_u64()?, page["unknown"].as_u64()?);
    let mut text = format!("{} entries were lost, ", grouped(lost));
    let _ = match unknown {
        0 => writeln!(
            text,
            "and no more, as far as the members know that have said so"
        ),
        unknown => writeln!(
            text,
            "and {} times nobody can know what was",
            grouped(unknown)
        ),
    };
    if !entries.is_empty() {
        let heads = [
            "WHEN",
            "PARTITION",
            "FIRST",
            "LAST",
            "COUNT",
            "FOUND BY",
            "WHY IT IS NOT KNOWN",
        ];
        let mut rows = vec![heads.map(str::to_owned)];
        for entry in entries {
            let word = |name: &str| entry[name].as_str().map_or("-".to_owned(), printable);
            let number = |name: &str| entry[name].as_u64().map_or("-".to_owned(), grouped);
            let names: BTreeSet<&str> = entry["nodes"]
                .as_array()?
                .iter()
                .filter_map(Value::as_str)
                .collect();
            let names: Vec<String> = names.into_iter().map(printable).collect();
            let count = if entry["unknown"].as_bool()? {
                "unknown".to_owned()
            } else {
                number("count")
            };
            rows.push([
                ago(entry["time_ms"].as_u64()?),
                number("partition"),
                word("first"),
                word("last"),
                count,
                names.join(", "),
                word("why"),
            ]);
        }
        text.push('\n');
        text += &columns(&rows, &FIGURES);
    }
    text.push('\n');
    for member in members {
        let name = member["name"].as_str().map_or("-".to_owned(), printable);
        if let Some(why) = member["not_heard"].as_str() {
            let why = printable(why);
            let _ = writeln!(text, "{name} has not said what it found: {why}");
            continue;
        }
        let since = ago(member["since_ms"].as_u64()?);
        let forgotten = match member["forgotten"].as_u64()? {
            0 => String::new(),
            count => format!(
                "; the oldest {} of its findings are left out",
                grouped(count)
            ),
        };
        let _ = writeln!(text, "{name} has counted since {since}{forgotten}");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn losses_are_a_table() {
        let page = json!({
            "lost_entries": 3,
            "unknown": 1,
            "is_complete": false,
            "entries": [
                {"partition": 17, "generation": 4, "first": "9-10", "last": "9-12", "count": 3, "unknown": false, "why": null, "time_ms": 1_000, "nodes": ["a", "b"]},
                {"partition": null, "generation": null, "first": null, "last": null, "count": null, "unknown": true, "why": "the node lost its memory: \u{1b}it was in memory", "time_ms": 61_000, "nodes": ["b"]},
            ],
            "members": [
                {"name": "a", "since_ms": 0, "lost_entries": 3, "unknown": 0, "forgotten": 0},
                {"name": "b", "since_ms": 0, "lost_entries": 3, "unknown": 1, "forgotten": 2},
                {"name": "c", "not_heard": "it is down"},
            ],
        });
        let shown = table(&page, UNIX_EPOCH + Duration::from_secs(121)).expect("it is one");
        let expected = "\
3 entries were lost, and 1 times nobody can know what was

WHEN            PARTITION  FIRST  LAST    COUNT  FOUND BY  WHY IT IS NOT KNOWN
2 minutes ago          17  9-10   9-12        3  a, b      -
60 seconds ago          -  -      -     unknown  b         the node lost its memory: ?it was in memory

a has counted since 2 minutes ago
b has counted since 2 minutes ago; the oldest 2 of its findings are left out
c has not said what it found: it is down
";
        assert_eq!(shown, expected, "{shown}");
        assert_eq!(table(&json!({"entries": []}), UNIX_EPOCH), None);
    }
}
