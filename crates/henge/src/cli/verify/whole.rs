//! Whether nodes are one cluster, as each of them says it. A node that is not asked says nothing: what one says of itself is not taken
//! from another.

use serde_json::Value;

/// What all nodes say of the cluster: a page of each, or why there is none.
pub(super) type Pages = Vec<Result<Value, String>>;

/// What is missing for all nodes to be members that are up and reach each other, if anything is, by their `/cluster/status`.
pub(super) fn missing(pages: &Pages) -> Option<String> {
    pages
        .iter()
        .enumerate()
        .find_map(|(n, page)| Some(format!("node{} {}", n + 1, lack(page, pages.len())?)))
}

fn lack(page: &Result<Value, String>, count: usize) -> Option<String> {
    let page = match page {
        Ok(page) => page,
        Err(why) => return Some(why.clone()),
    };
    if page["standing"] != "member" {
        return Some(format!(
            "is no member: its standing is {}",
            page["standing"]
        ));
    }
    let members = page["members"].as_array().map_or(&[][..], Vec::as_slice);
    if members.len() < count {
        return Some(format!("knows of {} members", members.len()));
    }
    members.iter().find_map(|member| {
        let name = member["name"].as_str().unwrap_or("a member");
        if member["state"] != "up" {
            return Some(format!("says that {name} is {}", member["state"]));
        }
        (member["is_reachable"] != true).then(|| format!("does not reach {name}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing() {
        let member = |name: &str, state: &str, is_reachable: bool| json!({"name": name, "state": state, "is_reachable": is_reachable});
        let well = json!({"standing": "member", "members": [member("node1", "up", true), member("node2", "up", true)]});
        for (second, expected) in [
            (Ok(well.clone()), None),
            (
                Err("does not answer".to_owned()),
                Some("node2 does not answer"),
            ),
            (
                Ok(json!({"standing": "joining", "members": []})),
                Some("node2 is no member: its standing is \"joining\""),
            ),
            (
                Ok(json!({"standing": "member", "members": [member("node2", "up", true)]})),
                Some("node2 knows of 1 members"),
            ),
            (
                Ok(
                    json!({"standing": "member", "members": [member("node1", "down", false), member("node2", "up", true)]}),
                ),
                Some("node2 says that node1 is \"down\""),
            ),
            (
                Ok(
                    json!({"standing": "member", "members": [member("node1", "up", false), member("node2", "up", true)]}),
                ),
                Some("node2 does not reach node1"),
            ),
        ] {
            assert_eq!(
                missing(&vec![Ok(well.clone()), second]).as_deref(),
                expected
            );
        }
    }
}
