//! What is asked of nodes for a frame: who the members are, and the pages of the node at hand or of all. A node has one connection for all
//! its pages, and one that does not answer in time is told apart from those that do.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use henge_client::Target;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cli::asking::{Connection, InquiryError, granted};
use crate::cli::members::{self, Member};

/// A page, or why there is none.
pub(super) type Answer = Result<Value, String>;

/// What was heard at once.
#[derive(Clone, Debug)]
pub(super) struct Round {
    /// What `/cluster/status` says, or why nobody says it.
    pub(super) status: Answer,
    /// What the nodes said that were asked, by their names.
    pub(super) looks: Vec<(String, Result<Pages, String>)>,
}

/// What one node says of itself.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    /// `/metrics/json`
    pub(super) metrics: Value,
    /// `/metrics`
    pub(super) text: String,
    /// `/ready`, whether it is or not.
    pub(super) ready: Value,
    pub(super) hot: Answer,
    pub(super) slow: Answer,
}

#[cfg(test)]
impl Default for Pages {
    fn default() -> Self {
        let nothing = || Err("it was not asked".to_owned());
        Self {
            metrics: Value::Null,
            text: String::new(),
            ready: Value::Null,
            hot: nothing(),
            slow: nothing(),
        }
    }
}

/// Asks the first of some nodes that answers who the members are; and that one, or all, for their pages.
pub(super) async fn round(nodes: &[Target], is_cluster: bool, patience: Duration) -> Round {
    let mut why = None;
    for node in nodes {
        let asked = timeout(patience, page_of(node, "/cluster/status"));
        let answer = asked.await.unwrap_or(Err(InquiryError::TimedOut(patience)));
        match answer {
            // The first is the one that was asked for.
            Err(error) => {
                why.get_or_insert_with(|| error.to_string());
            }
            Ok(page) => {
                let looked_at = looked_at(&page, node, is_cluster);
                let looks = looks(&looked_at, patience).await;
                return Round {
                    status: Ok(page),
                    looks,
                };
            }
        }
    }
    Round {
        status: Err(why.unwrap_or_else(|| "there is no node to ask".to_owned())),
        looks: Vec::new(),
    }
}

/// Whose pages are asked for.
fn looked_at(status: &Value, node: &Target, is_cluster: bool) -> Vec<Member> {
    let mut members = members::of_status(status, node);
    if !is_cluster {
        members.retain(|member| member.target.as_ref() == Some(node));
        members.truncate(1);
    }
    if members.is_empty() {
        // One that waits for its cluster has no members yet.
        members.push(Member {
            name: node.server(),
            target: Some(node.clone()),
            is_down: false,
        });
    }
    members.retain(|member| !member.is_down);
    members
}

async fn looks(members: &[Member], patience: Duration) -> Vec<(String, Result<Pages, String>)> {
    let mut asked = JoinSet::new();
    for (nth, member) in members.iter().enumerate() {
        if let Some(target) = member.target.clone() {
            asked.spawn(async move {
                let look = timeout(patience, look(&target)).await;
                let look = look.unwrap_or(Err(InquiryError::TimedOut(patience)));
                (nth, look.map_err(|error| error.to_string()))
            });
        }
    }
    let mut looks: Vec<_> = members
        .iter()
        .map(|member| {
            let nobody = Err("its address is none that can be asked".to_owned());
            (member.name.clone(), nobody)
        })
        .collect();
    while let Some(done) = asked.join_next().await {
        if let Ok((nth, look)) = done {
            looks[nth].1 = look;
        }
    }
    looks
}

async fn page_of(target: &Target, path: &str) -> Result<Value, InquiryError> {
    let mut node = Connection::open(target).await?;
    page(&mut node, path).await
}

async fn page(node: &mut Connection, path: &str) -> Result<Value, InquiryError> {
    let (status, page) = answer(node, path).await?;
    read(&granted(status, page)?)
}

fn read(page: &[u8]) -> Result<Value, InquiryError> {
    serde_json::from_slice(page).map_err(|error| InquiryError::NoPage(error.to_string()))
}

async fn answer(
    node: &mut Connection,
    path: &str,
) -> Result<(StatusCode, bytes::Bytes), InquiryError> {
    let request = (Method::GET, path.to_owned(), String::new());
    node.send(request, &AtomicBool::new(false)).await
}

async fn look(target: &Target) -> Result<Pages, InquiryError> {
    let mut node = Connection::open(target).await?;
    let metrics = page(&mut node, "/metrics/json").await?;
    let (status, text) = answer(&mut node, "/metrics").await?;
    let text = String::from_utf8_lossy(&granted(status, text)?).into_owned();
    // It is a page whatever the status is, and that is what it says.
    let (_, ready) = answer(&mut node, "/ready").await?;
    let ready = read(&ready)?;
    // Not everybody may have these, and older nodes have none.
    let mut optional = async |path| match page(&mut node, path).await {
        Ok(page) => Ok(Ok(page)),
        Err(error @ InquiryError::Refused(..)) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    };
    let hot = optional("/hot?count=100").await?;
    let slow = optional("/slow?count=20").await?;
    Ok(Pages {
        metrics,
        text,
        ready,
        hot,
        slow,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::asking::canned;

    #[tokio::test]
    async fn a_node_without_members_is_looked_at_itself() {
        let address = canned::node(&[
            ("/cluster/status", r#"{"standing":"forming","members":[]}"#),
            ("/metrics/json", r#"{"hits":1}"#),
            ("/metrics", "x"),
            ("/ready", r#"{"status":"forming"}"#),
        ])
        .await;
        let node: Target = format!("http://{address}").parse().expect("a URL");
        for is_cluster in [false, true] {
            let round = round(
                std::slice::from_ref(&node),
                is_cluster,
                Duration::from_mins(1),
            )
            .await;
            assert!(round.status.is_ok());
            let [(name, Ok(pages))] = &round.looks[..] else {
                panic!("{:?}", round.looks);
            };
            assert_eq!(
                (name, &pages.metrics["hits"]),
                (&address.to_string(), &1.into())
            );
            let refused = Err("the node refused: 404 Not Found".to_owned());
            assert_eq!((&pages.hot, &pages.slow), (&refused, &refused));
        }
    }

    #[tokio::test]
    async fn where_one_is_gone_another_is_asked() {
        let status = r#"{"standing":"member","members":[{"name":"a","state":"up","is_me":true,"address":"x:1"}]}"#;
        let address = canned::node(Box::leak(Box::new([("/cluster/status", status)]))).await;
        let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let gone_at = gone.local_addr().expect("it has one");
        drop(gone);
        let nodes = [gone_at, address].map(|at| format!("http://{at}").parse().expect("a URL"));
        let heard = round(&nodes, true, Duration::from_mins(1)).await;
        assert!(heard.status.is_ok());
        assert_eq!(heard.looks[0].0, "a");
        let why = heard.looks[0].1.as_ref().expect_err("it has no such page");
        assert_eq!(why, "the node refused: 404 Not Found");
        let heard = round(&nodes[..1], true, Duration::from_mins(1)).await;
        let why = heard.status.expect_err("it is gone");
        assert!(why.starts_with("no connection to the node"), "{why}");
    }
}
