//! What all nodes have found, as one list: what several have found is in it once. A run of entries is cut where two reports differ,
//! so that the sum of all counts is that of the entries that were lost.

use std::collections::{BTreeMap, BTreeSet};

use henge_wire::Version;
use serde_json::{Value, json};

use super::{Entry, Found};

/// What one member has said, or why it has not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Of {
    pub(crate) name: String,
    pub(crate) said: Result<Found, String>,
}

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Merged {
    runs: Vec<Run>,
    unknown: Vec<Unknown>,
    of: Vec<Of>,
}

/// Entries of one term that were lost.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Run {
    partition: u16,
    generation: u32,
    first: Version,
    last: Version,
    time_ms: u64,
    nodes: BTreeSet<String>,
}

/// What nobody knows.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Unknown {
    entry: Entry,
    nodes: BTreeSet<String>,
}

impl Merged {
    pub(crate) fn new(of: Vec<Of>) -> Self {
        let mut known: BTreeMap<(u16, u32, u32), Vec<Run>> = BTreeMap::new();
        let mut unknown: Vec<Unknown> = Vec::new();
        let mut places: BTreeMap<_, usize> = BTreeMap::new();
        for member in &of {
            let Ok(found) = &member.said else { continue };
            for entry in &found.entries {
                let (partition, generation) = (entry.partition, entry.generation);
                let run = entry.run().filter(|_| entry.unknown.is_none());
                if let (Some((first, last)), Some(partition), Some(generation)) =
                    (run, partition, generation)
                {
                    let runs = known.entry((partition, generation, first.term()));
                    runs.or_default().push(Run {
                        partition,
                        generation,
                        first,
                        last,
                        time_ms: entry.time_ms,
                        nodes: [member.name.clone()].into(),
                    });
                    continue;
                }
                // A reset that several have seen is one; what each has forgotten by itself is not.
                let what = (
                    partition,
                    generation,
                    entry.first,
                    entry.last,
                    &entry.unknown,
                );
                let place = places.get(&what).copied().filter(|_| partition.is_some());
                if let Some(same) = place.and_then(|place: usize| unknown.get_mut(place)) {
                    same.nodes.insert(member.name.clone());
                    same.entry.time_ms = same.entry.time_ms.min(entry.time_ms);
                } else {
                    places.insert(what, unknown.len());
                    let nodes = [member.name.clone()].into();
                    let entry = entry.clone();
                    unknown.push(Unknown { entry, nodes });
                }
            }
        }
        let runs: Vec<Run> = known.values().flat_map(|runs| joined(runs)).collect();
        // Of what one member does not know another may.
        unknown.retain(|unknown| {
            let Some((first, last)) = unknown.entry.run() else {
                return true;
            };
            let is_all = |run: &Run| {
                Some(run.partition) == unknown.entry.partition
                    && Some(run.generation) == unknown.entry.generation
                    && run.first.term() == first.term()
                    && run.last.term() == last.term()
                    && run.first <= first
                    && last <= run.last
            };
            !runs.iter().any(is_all)
        });
        Self { runs, unknown, of }
    }

    /// As it is told to clients.
    pub(crate) fn page(&self) -> Value {
        let mut entries: Vec<(u64, Value)> = Vec::new();
        for run in &self.runs {
            let page = json!({
                "partition": run.partition,
                "generation": run.generation,
                "first": run.first.to_string(),
                "last": run.last.to_string(),
                "count": run.count(),
                "unknown": false,
                "why": null,
                "time_ms": run.time_ms,
                "nodes": run.nodes,
            });
            entries.push((run.time_ms, page));
        }
        for Unknown { entry, nodes } in &self.unknown {
            let page = json!({
                "partition": entry.partition,
                "generation": entry.generation,
                "first": entry.first.map(|version| version.to_string()),
                "last": entry.last.map(|version| version.to_string()),
                "count": null,
                "unknown": true,
                "why": entry.unknown,
                "time_ms": entry.time_ms,
                "nodes": nodes,
            });
            entries.push((entry.time_ms, page));
        }
        entries.sort_by_key(|(time_ms, _)| *time_ms);
        let members: Vec<Value> = self.of.iter().map(member).collect();
        let lost: u64 = self.runs.iter().map(Run::count).sum();
        json!({
            "lost_entries": lost,
            "unknown": self.unknown.len(),
            "is_complete": self.of.iter().all(|of| of.said.is_ok()),
            "entries": entries.into_iter().map(|(_, page)| page).collect::<Vec<_>>(),
            "members": members,
        })
    }
}

impl Run {
    fn count(&self) -> u64 {
        self.last.seq() - self.first.seq() + 1
    }
}

/// What a member has said of itself.
fn member(of: &Of) -> Value {
    match &of.said {
        Ok(found) => json!({
            "name": of.name,
            "since_ms": found.since_ms,
            "lost_entries": found.lost_entries,
            "unknown": found.unknown,
            "forgotten": found.forgotten,
        }),
        Err(why) => json!({"name": of.name, "not_heard": why}),
    }
}

/// Runs of one term, none of which has an entry that another has: where reports overlap, who has found which part is said.
fn joined(runs: &[Run]) -> Vec<Run> {
    let mut cuts: BTreeSet<u64> = BTreeSet::new();
    for run in runs {
        cuts.extend([run.first.seq(), run.last.seq() + 1]);
    }
    let cuts: Vec<u64> = cuts.into_iter().collect();
    let mut joined: Vec<Run> = Vec::new();
    for pair in cuts.windows(2) {
        let (first, last) = (pair[0], pair[1] - 1);
        let its: Vec<&Run> = runs
            .iter()
            .filter(|run| run.first.seq() <= first && last <= run.last.seq())
            .collect();
        let Some(one) = its.first() else { continue };
        let term = one.first.term();
        let nodes: BTreeSet<String> = its
            .iter()
            .flat_map(|run| run.nodes.iter().cloned())
            .collect();
        let time_ms = its.iter().map(|run| run.time_ms).min().unwrap_or(0);
        match joined.last_mut() {
            Some(before) if before.last.seq() + 1 == first && before.nodes == nodes => {
                before.last = Version::new(term, last);
                before.time_ms = before.time_ms.min(time_ms);
            }
            _ => joined.push(Run {
                first: Version::new(term, first),
                last: Version::new(term, last),
                time_ms,
                nodes,
                ..(*one).clone()
            }),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::super::Entry;
    use super::*;

    fn entry(partition: u16, first: &str, last: &str, unknown: Option<&str>) -> Entry {
        Entry {
            partition: Some(partition),
            generation: Some(2),
            first: first.parse().ok(),
            last: last.parse().ok(),
            unknown: unknown.map(str::to_owned),
            time_ms: 9,
        }
    }

    fn of(name: &str, entries: Vec<Entry>) -> Of {
        let mut found = Found::new(1);
        for entry in entries {
            found.add(entry);
        }
        Of {
            name: name.to_owned(),
            said: Ok(found),
        }
    }

    #[test]
    fn what_several_have_found_is_lost_once() {
        let reset = |time_ms| Entry {
            partition: Some(7),
            generation: Some(3),
            first: None,
            last: None,
            unknown: Some("reset".to_owned()),
            time_ms,
        };
        let amnesia = Entry {
            partition: None,
            generation: None,
            ..reset(11)
        };
        let a = vec![
            entry(1, "4-10", "4-15", None),
            entry(2, "4-10", "4-12", Some("it ended")),
            reset(8),
            amnesia.clone(),
        ];
        let b = vec![
            entry(1, "4-10", "4-12", None),
            entry(1, "5-13", "5-13", None),
            entry(2, "4-9", "4-12", None),
            reset(7),
            amnesia,
        ];
        let silent = Of {
            name: "c".to_owned(),
            said: Err("it is down".to_owned()),
        };
        let page = Merged::new(vec![of("a", a), of("b", b), silent]).page();
        assert_eq!(page["lost_entries"], 6 + 1 + 4);
        assert_eq!(page["unknown"], 3, "{page:#}");
        assert_eq!(page["is_complete"], false);
        let shown = page["entries"].as_array().expect("a list");
        let runs: Vec<(u64, &str, &str, usize)> = shown
            .iter()
            .filter(|entry| entry["unknown"] == false)
            .map(|entry| {
                let text = |name: &str| entry[name].as_str().expect("a version");
                let nodes = entry["nodes"].as_array().expect("names").len();
                let partition = entry["partition"].as_u64().expect("a number");
                (partition, text("first"), text("last"), nodes)
            })
            .collect();
        let expected = [
            (1, "4-10", "4-12", 2),
            (1, "4-13", "4-15", 1),
            (1, "5-13", "5-13", 1),
            (2, "4-9", "4-12", 1),
        ];
        assert_eq!(runs, expected);
        let resets: Vec<_> = shown.iter().filter(|e| e["partition"] == 7).collect();
        assert_eq!(resets.len(), 1);
        assert_eq!(resets[0]["time_ms"], 7);
        assert_eq!(page["members"][2]["not_heard"], "it is down");
    }
}
