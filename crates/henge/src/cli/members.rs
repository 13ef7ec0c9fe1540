//! All members of a cluster, asked the same at once: who they are is what the node at hand says, and each is asked at the address that the
//! others reach it by. Who does not answer is told apart, and holds up nobody.

use std::fmt::Write as _;
use std::time::Duration;

use henge_client::Target;
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;

use super::asking::{InquiryError, page};
use super::table::printable;

/// What was heard.
#[derive(Debug)]
pub(super) struct Heard {
    /// The names of those that have answered, and what they said.
    pub(super) pages: Vec<(String, Value)>,
    pub(super) not_heard: Vec<NotHeard>,
}

/// A member that has not answered, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct NotHeard {
    pub(super) name: String,
    pub(super) why: String,
}

/// A member, and where it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    /// None of one whose address cannot be read.
    pub(super) target: Option<Target>,
    /// Whether the cluster takes it for lost.
    pub(super) is_down: bool,
}

/// Asks the node who the members are, and all of them for a page.
///
/// # Errors
/// The node does not say who they are, or is in no cluster.
pub(super) async fn ask_all(
    target: &Target,
    path: &str,
    timeout: Duration,
) -> Result<Heard, InquiryError> {
    let status = page(target, "/cluster/status", timeout).await?;
    let members = of_status(&status, target);
    if members.is_empty() {
        return Err(InquiryError::NoPage("it has no members".to_owned()));
    }
    Ok(heard(&members, path, timeout).await)
}

/// The members of a status, as they are asked in the way that the node was that has said it.
pub(super) fn of_status(status: &Value, asked: &Target) -> Vec<Member> {
    let members = status["members"].as_array().into_iter().flatten();
    members
        .filter_map(|member| {
            let address = member["address"].as_str()?;
            let target = if member["is_me"] == true {
                // By which it can be reached from here.
                Some(asked.clone())
            } else {
                let scheme = if asked.scheme.is_secure() {
                    "https"
                } else {
                    "http"
                };
                format!("{scheme}://{address}").parse().ok()
            };
            Some(Member {
                name: member["name"].as_str()?.to_owned(),
                target,
                is_down: member["state"] == "down",
            })
        })
        .collect()
}

/// Asks them for a page, all at once.
pub(super) async fn heard(members: &[Member], path: &str, timeout: Duration) -> Heard {
    let mut asked = JoinSet::new();
    for (nth, member) in members.iter().enumerate() {
        let Some(target) = member.target.clone().filter(|_| !member.is_down) else {
            continue;
        };
        let path = path.to_owned();
        asked.spawn(async move { (nth, page(&target, &path, timeout).await) });
    }
    let mut answers: Vec<Option<Result<Value, InquiryError>>> = Vec::new();
    answers.resize_with(members.len(), || None);
    while let Some(answer) = asked.join_next().await {
        // A task that was not carried out has no answer.
        if let Ok((nth, answer)) = answer {
            answers[nth] = Some(answer);
        }
    }
    let mut heard = Heard {
        pages: Vec::new(),
        not_heard: Vec::new(),
    };
    for (member, answer) in members.iter().zip(answers) {
        let name = member.name.clone();
        let why = match answer {
            Some(Ok(page)) => {
                heard.pages.push((name, page));
                continue;
            }
            Some(Err(error)) => error.to_string(),
            None if member.is_down => "it is down".to_owned(),
            None => "its address is none that can be asked".to_owned(),
        };
        heard.not_heard.push(NotHeard { name, why });
    }
    heard
}

/// Who was not heard, a line each.
pub(super) fn not_heard(not_heard: &[NotHeard]) -> String {
    let mut text = String::new();
    for NotHeard { name, why } in not_heard {
        let _ = writeln!(
            text,
            "{} was not heard: {}",
            printable(name),
            printable(why)
        );
    }
    text
}

/// Names in a row.
pub(super) fn names(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| printable(name)).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::asking::canned;
    use serde_json::json;

    #[tokio::test]
    async fn who_does_not_answer_is_told_apart() {
        let first = canned::node(&[("/hot", r#"{"a":1}"#)]).await;
        let second = canned::node(&[("/hot", r#"{"a":2}"#)]).await;
        let third = canned::node(&[]).await;
        let member = |name: &str, address: &str, state: &str| json!({"name": name, "address": address, "state": state, "is_me": name == "a"});
        let status = json!({"members": [
            member("a", "nowhere.invalid:1", "up"),
            member("b", &second.to_string(), "up"),
            member("c", &third.to_string(), "up"),
            member("d", &second.to_string(), "down"),
            member("e", "no address", "up"),
        ]});
        let asked: Target = format!("http://{first}").parse().expect("a URL");
        let members = of_status(&status, &asked);
        let heard = heard(&members, "/hot", Duration::from_mins(1)).await;
        let expected = [
            ("a".to_owned(), json!({"a": 1})),
            ("b".to_owned(), json!({"a": 2})),
        ];
        assert_eq!(heard.pages, expected);
        let told = not_heard(&heard.not_heard);
        let expected = "\
c was not heard: the node refused: 404 Not Found
d was not heard: it is down
e was not heard: its address is none that can be asked
";
        assert_eq!(told, expected);
    }
}
