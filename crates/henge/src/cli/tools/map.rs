//! Who leads which partition, as a node says it in `/cluster/status`.

use henge_client::Target;
use henge_wire::{PARTITIONS, Partition};
use serde_json::Value;

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Map {
    nodes: Vec<Target>,
    /// By partitions, places among the nodes.
    leaders: Vec<Option<usize>>,
}

impl Map {
    /// What the page says that this node has given.
    pub(super) fn of(page: &[u8], asked: &Target) -> Result<Self, String> {
        let unfit = || "the node does not say who is in its cluster".to_owned();
        let page: Value = serde_json::from_slice(page).map_err(|_| unfit())?;
        if page["standing"] != "member" {
            return Err(
                "the node is in no cluster now, and so has nothing that is known to be the latest"
                    .to_owned(),
            );
        }
        let members = page["members"].as_array().ok_or_else(unfit)?;
        let mut nodes = Vec::new();
        let mut ids = Vec::new();
        for member in members {
            let address = member["address"].as_str().ok_or_else(unfit)?;
            nodes.push(if member["is_me"] == true {
                // It may be reached here by another way than others reach it.
                asked.clone()
            } else {
                let url = format!("{}://{address}", asked.scheme).parse();
                url.map_err(|error| format!("the address of a node: {error}"))?
            });
            ids.push(member["id"].as_u64().ok_or_else(unfit)?);
        }
        let mut leaders = vec![None; usize::from(PARTITIONS)];
        for run in page["partitions"]["owners"].as_array().ok_or_else(unfit)? {
            let number = |at: usize| run[at].as_u64().ok_or_else(unfit);
            let (first, last, id) = (number(0)?, number(1)?, number(2)?);
            let node = ids.iter().position(|known| *known == id);
            let its = usize::try_from(first).ok().zip(usize::try_from(last).ok());
            let its = its.and_then(|(first, last)| leaders.get_mut(first..=last));
            its.ok_or_else(unfit)?.fill(node);
        }
        Ok(Self { nodes, leaders })
    }

    pub(super) fn leader(&self, partition: Partition) -> Option<&Target> {
        let leader = self.leaders.get(usize::from(partition.number()))?;
        self.nodes.get((*leader)?)
    }

    /// All but this one.
    pub(super) fn others(&self, than: &Target) -> Vec<Target> {
        let others = self.nodes.iter().filter(|node| *node != than);
        others.cloned().collect()
    }

    /// There is one node.
    pub(super) fn is_one(&self) -> bool {
        self.nodes.len() == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(page: &Value) -> Result<Map, String> {
        let asked = "http://here:1".parse().expect("a URL");
        Map::of(page.to_string().as_bytes(), &asked)
    }

    #[test]
    fn who_leads_what() {
        let members = json!([
            {"id": 4, "address": "10.0.0.1:80", "is_me": true},
            {"id": 7, "address": "10.0.0.2:80", "is_me": false},
        ]);
        let page = |owners: Value| json!({"standing": "member", "members": members, "partitions": {"owners": owners}});
        let found = map(&page(json!([[0, 9, 4], [11, 1023, 7]]))).expect("a map");
        for (number, expected) in [
            (0, Some("http://here:1")),
            (9, Some("http://here:1")),
            (10, None),
            (1023, Some("http://10.0.0.2:80")),
        ] {
            let partition = Partition::new(number).expect("it is one");
            let leader = found.leader(partition).map(ToString::to_string);
            assert_eq!(leader.as_deref(), expected, "{number}");
        }
        assert!(!found.is_one());
        for wrong in [
            json!({"standing": "forming"}),
            json!({"standing": "member"}),
            page(json!([[0, 1024, 4]])),
            page(json!([[9, 3, 4]])),
            page(json!([[1, "2", 4]])),
        ] {
            assert!(map(&wrong).is_err(), "{wrong}");
        }
    }
}
