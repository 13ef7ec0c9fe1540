//! Which keys are largest: what nodes have found in what they hold, put together, as a table or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use indicatif::{HumanBytes, HumanDuration};
use serde_json::{Value, json};

use crate::cli::members::{NotHeard, names};
use crate::cli::simulate::grouped;
use crate::cli::table::{Key, columns};

/// What some nodes have found together.
#[derive(Debug, PartialEq)]
pub(super) struct Big {
    looked_at: u64,
    nodes: Vec<String>,
    keys: Vec<Found>,
}

#[derive(Debug, PartialEq)]
struct Found {
    key: Key,
    bytes: u64,
    value_bytes: u64,
    expires_in_ms: Option<u64>,
    nodes: Vec<String>,
}

/// What pages of nodes say together, of so many keys at most; none if one of them is no such page.
pub(super) fn of(pages: &[(String, Value)], most: usize) -> Option<Big> {
    let mut found: BTreeMap<Key, Found> = BTreeMap::new();
    let (mut looked_at, mut nodes) = (0_u64, Vec::new());
    for (name, page) in pages {
        for entry in page["keys"].as_array()? {
            let (key, bytes) = (Key::of(entry)?, entry["bytes"].as_u64()?);
            let known = found.entry(key.clone()).or_insert_with(|| Found {
                key,
                bytes: 0,
                value_bytes: 0,
                expires_in_ms: None,
                nodes: Vec::new(),
            });
            known.nodes.push(name.clone());
            if bytes > known.bytes {
                known.bytes = bytes;
                known.value_bytes = entry["value_bytes"].as_u64().unwrap_or(bytes);
                known.expires_in_ms = entry["expires_in_ms"].as_u64();
            }
        }
        looked_at = looked_at.saturating_add(page["looked_at"].as_u64()?);
        nodes.push(name.clone());
    }
    let mut keys: Vec<Found> = found.into_values().collect();
    keys.sort_by_key(|found| std::cmp::Reverse(found.bytes));
    keys.truncate(most);
    Some(Big {
        looked_at,
        nodes,
        keys,
    })
}

impl Big {
    /// For people.
    pub(super) fn table(&self) -> String {
        let mut rows = vec![["KEY", "SIZE", "VALUE", "EXPIRES IN", "HELD BY"].map(str::to_owned)];
        rows.extend(self.keys.iter().map(|found| {
            let left = found.expires_in_ms.map(Duration::from_millis);
            [
                found.key.shown(),
                HumanBytes(found.bytes).to_string(),
                HumanBytes(found.value_bytes).to_string(),
                left.map_or("-".to_owned(), |left| HumanDuration(left).to_string()),
                names(&found.nodes),
            ]
        }));
        let mut text = columns(&rows, &[1, 2]);
        let _ = writeln!(
            text,
            "\nof {} items that {} looked at",
            grouped(self.looked_at),
            names(&self.nodes)
        );
        text
    }

    /// For programs: what several nodes say together.
    pub(super) fn json(&self, not_heard: &[NotHeard]) -> Value {
        let keys = self.keys.iter().map(|found| {
            let (name, key) = found.key.member();
            json!({
                name: key,
                "bytes": found.bytes,
                "value_bytes": found.value_bytes,
                "expires_in_ms": found.expires_in_ms,
                "nodes": found.nodes,
            })
        });
        json!({
            "nodes": self.nodes,
            "looked_at": self.looked_at,
            "keys": keys.collect::<Vec<_>>(),
            "not_heard": not_heard,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_several_hold_is_shown_once() {
        let page = |node: &str, size: u64| {
            let keys = json!([
                {"key": "film", "bytes": size, "value_bytes": size - 40, "expires_in_ms": null},
                {"key": format!("own:{node}"), "bytes": 2048, "value_bytes": 2000, "expires_in_ms": 90_000},
            ]);
            (
                node.to_owned(),
                json!({"node": node, "looked_at": 1_000, "keys": keys}),
            )
        };
        let big = of(&[page("n1", 10 << 20), page("n2", 12 << 20)], 2).expect("they are");
        let expected = "\
KEY          SIZE      VALUE  EXPIRES IN  HELD BY
film    12.00 MiB  12.00 MiB  -           n1, n2
own:n1   2.00 KiB   1.95 KiB  2 minutes   n1

of 2,000 items that n1, n2 looked at
";
        assert_eq!(big.table(), expected);
        let said = big.json(&[]);
        let nodes = &said["keys"][0]["nodes"];
        assert_eq!(
            (nodes, &said["keys"][1]["expires_in_ms"]),
            (&json!(["n1", "n2"]), &json!(90_000))
        );
        assert_eq!(of(&[("n".to_owned(), json!({"keys": []}))], 3), None);
    }
}
