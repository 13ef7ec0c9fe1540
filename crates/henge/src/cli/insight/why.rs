//! Why a key is not there, as the node says that leads its partition, for people.

use std::fmt::Write as _;
use std::time::Duration;

use indicatif::HumanDuration;
use serde_json::Value;

use crate::cli::simulate::grouped;
use crate::cli::table::{Key, printable};

/// The sentence, and below it what is known; none if the page is none.
pub(super) fn text(page: &Value) -> Option<String> {
    let key = Key::of(page)?;
    let is_there = page["is_there"].as_bool()?;
    let word = |name: &str| page[name].as_str().map(printable);
    let mut text = match (word("text"), is_there) {
        (Some(sentence), _) => format!("{sentence}\n"),
        (None, true) => "it is there\n".to_owned(),
        (None, false) => "it is not there\n".to_owned(),
    };
    text.push('\n');
    let ago = |name: &str| {
        let passed = Duration::from_millis(page[name].as_u64()?);
        // Below a minute seconds with fractions tell more than whole ones.
        Some(if passed < Duration::from_mins(1) {
            format!("{:.1} s", passed.as_secs_f64())
        } else {
            HumanDuration(passed).to_string()
        })
    };
    let certain = match page["is_certain"].as_bool() {
        Some(false) => " (the likeliest, and not certain)",
        _ => "",
    };
    let cause = word("cause").map(|cause| format!("{}{certain}", cause.replace('_', " ")));
    let evicted = word("policy").map(|policy| match word("evicted_for") {
        Some(reason) => format!("by {policy}, for {reason}"),
        None => format!("by {policy}"),
    });
    let partition = page["partition"].as_u64().map(grouped);
    for (name, value) in [
        ("key", Some(key.shown())),
        ("cause", cause),
        ("evicted", evicted),
        ("left", ago("left_ago_ms").map(|ago| format!("{ago} ago"))),
        ("its age", ago("age_ms")),
        ("partition", partition),
        ("asked", word("node")),
    ] {
        if let Some(value) = value {
            let _ = writeln!(text, "  {name:<9}  {value}");
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_known_is_said() {
        let page = json!({
            "key": "k\u{1b}", "node": "n2", "partition": 1017, "is_there": false, "cause": "evicted", "policy": "lru",
            "evicted_for": "size", "left_ago_ms": 1234, "age_ms": 300_000, "is_certain": true, "text": "It was evicted.\u{7}",
        });
        let expected = "\
It was evicted.?

  key        k\\u{1b}
  cause      evicted
  evicted    by lru, for size
  left       1.2 s ago
  its age    5 minutes
  partition  1,017
  asked      n2
";
        assert_eq!(text(&page).as_deref(), Some(expected));
        let page = json!({
            "key_base64": "/w==", "node": "n2", "partition": 7, "is_there": false, "cause": "never_set", "policy": null,
            "evicted_for": null, "left_ago_ms": null, "age_ms": null, "is_certain": false, "text": "Nobody has set it.",
        });
        let expected = "\
Nobody has set it.

  key        base64:/w==
  cause      never set (the likeliest, and not certain)
  partition  7
  asked      n2
";
        assert_eq!(text(&page).as_deref(), Some(expected));
        let page = json!({"key": "k", "node": "n2", "partition": 7, "is_there": true, "cause": null, "text": "It is there."});
        let shown = text(&page).expect("it is one");
        assert_eq!(
            shown,
            "It is there.\n\n  key        k\n  partition  7\n  asked      n2\n"
        );
        assert_eq!(text(&json!({"key": "k"})), None);
    }
}
