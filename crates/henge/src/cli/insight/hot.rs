//! Which keys are used most: what nodes have counted, added up, as a table or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cli::members::{NotHeard, names};
use crate::cli::simulate::grouped;
use crate::cli::table::{Key, columns};

/// What some nodes have counted together.
#[derive(Debug, PartialEq)]
pub(in crate::cli) struct Hot {
    /// The uses that they have seen.
    seen: u64,
    /// For how long, of the one that began last.
    since_seconds: f64,
    /// Of how many uses one was looked at, at the most.
    sampled_one_in: u64,
    nodes: Vec<String>,
    /// Those of them that count nothing.
    idle: Vec<String>,
    keys: Vec<Counted>,
}

#[derive(Debug, PartialEq)]
struct Counted {
    key: Key,
    count: u64,
    nodes: Vec<String>,
}

/// What pages of nodes say together, of so many keys at most; none if one of them is no such page.
pub(in crate::cli) fn of(pages: &[(String, Value)], most: usize) -> Option<Hot> {
    let mut counts: BTreeMap<Key, (u64, Vec<String>)> = BTreeMap::new();
    let mut hot = Hot {
        seen: 0,
        since_seconds: f64::INFINITY,
        sampled_one_in: 1,
        nodes: Vec::new(),
        idle: Vec::new(),
        keys: Vec::new(),
    };
    for (name, page) in pages {
        for entry in page["keys"].as_array()? {
            let (key, count) = (Key::of(entry)?, entry["count"].as_u64()?);
            let known = counts.entry(key).or_default();
            known.0 = known.0.saturating_add(count);
            known.1.push(name.clone());
        }
        hot.seen = hot.seen.saturating_add(page["seen"].as_u64()?);
        let since = page["since_seconds"].as_f64().unwrap_or(0.0);
        hot.since_seconds = hot.since_seconds.min(since);
        let one_in = page["sampled_one_in"].as_u64().unwrap_or(1);
        hot.sampled_one_in = hot.sampled_one_in.max(one_in);
        hot.nodes.push(name.clone());
        // A node of an older version does not say; it counts mostly.
        if page["is_counting"] == false {
            hot.idle.push(name.clone());
        }
    }
    let keys = counts.into_iter();
    hot.keys = keys
        .map(|(key, (count, nodes))| Counted { key, count, nodes })
        .collect();
    // Stable, so that keys that are used alike are in their own order.
    hot.keys
        .sort_by_key(|counted| std::cmp::Reverse(counted.count));
    hot.keys.truncate(most);
    Some(hot)
}

impl Hot {
    /// The keys with how often each was used and what part of all uses that is, most first.
    pub(in crate::cli) fn keys(&self) -> impl Iterator<Item = (&Key, u64, f64)> {
        let all = self.seen.max(1) as f64;
        let keys = self.keys.iter();
        keys.map(move |counted| (&counted.key, counted.count, counted.count as f64 / all))
    }

    /// Who counts nothing, and what to do about it; none if all count.
    pub(in crate::cli) fn idle(&self) -> Option<String> {
        let (count, counts) = match self.idle.len() {
            0 => return None,
            1 => ("counts", "it"),
            _ => ("count", "them"),
        };
        let names = names(&self.idle);
        Some(format!(
            "{names} {count} no keys: insight.enabled is false there, and true has {counts} count"
        ))
    }

    /// Whether nobody counts anything, so that no key is listed because none was counted.
    pub(in crate::cli) fn is_idle(&self) -> bool {
        !self.nodes.is_empty() && self.idle.len() == self.nodes.len()
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let idle = self.idle().map_or_else(String::new, |idle| idle + "\n");
        if self.is_idle() {
            return idle;
        }
        let mut rows = vec![["KEY", "COUNT", "SHARE", "SEEN BY"].map(str::to_owned)];
        for ((key, count, share), counted) in self.keys().zip(&self.keys) {
            rows.push([
                key.shown(),
                grouped(count),
                format!("{:.1} %", share * 100.0),
                names(&counted.nodes),
            ]);
        }
        let mut text = match self.nodes.len() {
            // Which node it was is said below.
            1 => {
                let narrow = |[key, count, share, _]: [String; 4]| [key, count, share];
                let rows: Vec<_> = rows.into_iter().map(narrow).collect();
                columns(&rows, &[1, 2])
            }
            _ => columns(&rows, &[1, 2]),
        };
        let sampled = match self.sampled_one_in {
            0 | 1 => String::new(),
            one_in => format!(", of which one in {} was looked at", grouped(one_in)),
        };
        let _ = writeln!(
            text,
            "\nof {} uses that {} saw in the last {:.0} s{sampled}; older ones count less",
            grouped(self.seen),
            names(&self.nodes),
            self.since_seconds,
        );
        text + &idle
    }

    /// For programs: what several nodes say together.
    pub(super) fn json(&self, not_heard: &[NotHeard]) -> Value {
        let keys = self
            .keys()
            .zip(&self.keys)
            .map(|((key, count, share), counted)| {
                let (name, key) = key.member();
                json!({name: key, "count": count, "share": share, "nodes": counted.nodes})
            });
        json!({
            "nodes": self.nodes,
            "not_counting": self.idle,
            "seen": self.seen,
            "sampled_one_in": self.sampled_one_in,
            "since_seconds": self.since_seconds,
            "keys": keys.collect::<Vec<_>>(),
            "not_heard": not_heard,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(node: &str, seen: u64, keys: &[(&str, u64)]) -> (String, Value) {
        let keys = keys
            .iter()
            .map(|(key, count)| json!({"key": key, "count": count, "share": 0.1}));
        let keys: Vec<Value> = keys.collect();
        let page = json!({"node": node, "seen": seen, "sampled_one_in": 16, "since_seconds": 61.2, "keys": keys});
        (node.to_owned(), page)
    }

    #[test]
    fn one_node_is_a_table() {
        let mut page = page("n1", 10_000, &[("user:1", 5_123), ("a\u{1b}[2J\nb", 12)]);
        page.1["keys"][1]["key"] = Value::Null;
        let bytes = json!({"key_base64": "/wA=", "count": 3});
        page.1["keys"].as_array_mut().expect("a list").push(bytes);
        page.1["keys"][1]["key"] = json!("a\u{1b}[2J\nb");
        let hot = of(&[page], 20).expect("it is one");
        let expected = "\
KEY            COUNT   SHARE
user:1         5,123  51.2 %
a\\u{1b}[2J\\nb     12   0.1 %
base64:/wA=        3   0.0 %

of 10,000 uses that n1 saw in the last 61 s, of which one in 16 was looked at; older ones count less
";
        assert_eq!(hot.table(), expected);
    }

    #[test]
    fn what_several_have_seen_is_added_up() {
        let pages = [
            page("n1", 100, &[("a", 50), ("b", 20), ("c", 1)]),
            page("n2", 300, &[("b", 70), ("d", 50)]),
        ];
        let hot = of(&pages, 3).expect("they are");
        let found: Vec<_> = hot
            .keys()
            .map(|(key, count, share)| (key.shown(), count, share))
            .collect();
        let expected = [("b", 90, 0.225), ("a", 50, 0.125), ("d", 50, 0.125)];
        assert_eq!(
            found,
            expected.map(|(key, count, share)| (key.to_owned(), count, share))
        );
        let expected = "\
KEY  COUNT   SHARE  SEEN BY
b       90  22.5 %  n1, n2
a       50  12.5 %  n1
d       50  12.5 %  n2

of 400 uses that n1, n2 saw in the last 61 s, of which one in 16 was looked at; older ones count less
";
        assert_eq!(hot.table(), expected);
        let said = hot.json(&[]);
        let expected = json!({"key": "b", "count": 90, "share": 0.225, "nodes": ["n1", "n2"]});
        assert_eq!((&said["keys"][0], &said["seen"]), (&expected, &json!(400)));
        assert_eq!(of(&[("n".to_owned(), json!({"keys": [{}]}))], 3), None);
    }

    /// An empty table would say that no key is used.
    #[test]
    fn who_counts_nothing_says_so() {
        let mut pages = [page("n1", 0, &[]), page("n2", 100, &[("a", 50)])];
        pages[0].1["is_counting"] = json!(false);
        pages[1].1["is_counting"] = json!(true);
        let off = "n1 counts no keys: insight.enabled is false there, and true has it count\n";
        let hot = of(&pages[..1], 3).expect("it is one");
        assert_eq!((hot.table().as_str(), hot.is_idle()), (off, true));
        let hot = of(&pages, 3).expect("they are");
        assert!(!hot.is_idle());
        let table = hot.table();
        assert!(
            table.contains("\na       50") && table.ends_with(off),
            "{table}"
        );
        assert_eq!(hot.json(&[])["not_counting"], json!(["n1"]));
        pages[1].1["is_counting"] = json!(false);
        let table = of(&pages, 3).expect("they are").table();
        let off = "n1, n2 count no keys: insight.enabled is false there, and true has them count\n";
        assert_eq!(table, off);
    }
}
