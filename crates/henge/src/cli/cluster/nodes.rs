//! `henge cluster add`, `drain`, `remove`, `rebalance` and `set-weight`: changes of which nodes hold how much, by the routes of a node,
//! and how far the partitions are that move by them. They move whether this waits for them or not; what may be asked for is the node's to say.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use henge_cluster::ring::MAX_WEIGHT;
use http::Method;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior};

use super::settings::CHANGE_TIMEOUT;
use super::{About, Inquiry, InquiryError, ask, path_of};
use crate::cli::client;
use crate::cli::simulate::grouped;

/// How often the node is asked how far the partitions are: nobody sees more.
const LOOK: Duration = Duration::from_millis(200);

const MOVES_HELP: &str = "\
Any node of the cluster can be asked. Partitions move while clients are served, and go on moving when this command is ended;
`henge cluster status` shows how far they are.

Exit codes:
  0  done
  2  the command line cannot be understood
  3  it failed: no connection, or the node refused; or it is not known whether it was done. Standard error says which";

/// The grammar of the five.
pub(super) fn commands() -> [Command; 5] {
    let command = |word: &'static str, about: &'static str| {
        Command::new(word)
            .about(about)
            .args([
                client::url().help("The node that is asked: http://host:port or https://host:port"),
                client::timeout().default_value(CHANGE_TIMEOUT),
                Arg::new("no-wait")
                    .long("no-wait")
                    .action(ArgAction::SetTrue)
                    .help("Return when it is agreed on, and not when the partitions have moved"),
                client::json(),
            ])
            .after_help(MOVES_HELP)
    };
    let node = || {
        Arg::new("node")
            .value_name("NODE")
            .required(true)
            .help("The node id of a member, such as node4")
    };
    let weight = Arg::new("weight")
        .value_name("WEIGHT")
        .required(true)
        .value_parser(|text: &str| {
            let weight = text.parse().ok();
            let weight = weight.filter(|weight| (1..=MAX_WEIGHT).contains(weight));
            weight.ok_or_else(|| format!("expected an integer from 1 to {MAX_WEIGHT}"))
        })
        .help("1 to 1000; a node begins with 100, and one of 200 holds twice as much");
    [
        command("add", "Have a member take its share, also one that was to be drained")
            .long_about(
                "Have a member take its share, also one that was to be drained.\n\nA node joins by being started with --peers=http://host:port of any member, and takes its share by itself; this waits for that.",
            )
            .arg(node()),
        command("drain", "Move all that a member holds to others, so that it can be ended").arg(node()),
        command("remove", "Remove a member that holds nothing, or never comes back")
            .arg(node())
            .arg(
                Arg::new("force")
                    .long("force")
                    .action(ArgAction::SetTrue)
                    .help("It is down, and it and its data never come back: partitions of which a majority is lost begin anew"),
            ),
        command("rebalance", "Reckon anew which member should hold what, and move that there"),
        command("set-weight", "Say how much a member should hold beside others").args([node(), weight]),
    ]
}

/// A change of what nodes hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeChange {
    what: What,
    /// Until all partitions have moved.
    pub(super) waits: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Add(String),
    Drain(String),
    Remove { node: String, is_forced: bool },
    Rebalance,
    Weigh(String, u32),
}

impl NodeChange {
    /// Of a command of this module; none if the word is no such command.
    pub(super) fn understood(word: &str, matches: &ArgMatches) -> Option<Self> {
        let node = || matches.get_one::<String>("node").cloned();
        let what = match word {
            "add" => What::Add(node()?),
            "drain" => What::Drain(node()?),
            "remove" => What::Remove {
                node: node()?,
                is_forced: matches.get_flag("force"),
            },
            "rebalance" => What::Rebalance,
            "set-weight" => What::Weigh(node()?, *matches.get_one("weight")?),
            _ => return None,
        };
        let waits = !matches.get_flag("no-wait");
        Some(Self { what, waits })
    }

    /// What a node is asked for it.
    pub(super) fn request(&self) -> (Method, String, String) {
        let post = |path| (Method::POST, path, String::new());
        match &self.what {
            What::Add(node) => post(path_of("/cluster/add/", node.as_bytes())),
            What::Drain(node) => post(path_of("/cluster/drain/", node.as_bytes())),
            What::Remove { node, is_forced } => {
                let force = if *is_forced { "?force=true" } else { "" };
                post(path_of("/cluster/remove/", node.as_bytes()) + force)
            }
            What::Rebalance => post("/cluster/rebalance".to_owned()),
            What::Weigh(node, weight) => {
                let path = path_of("/cluster/weight/", node.as_bytes());
                (Method::PUT, path, weight.to_string())
            }
        }
    }

    /// What is so once it is agreed on, or once all has moved, for people.
    pub(super) fn done(&self) -> String {
        let is_over = self.waits;
        match &self.what {
            What::Add(node) if is_over => format!("{node} has its share\n"),
            What::Add(node) => format!("{node} takes its share\n"),
            What::Drain(node) if is_over => format!(
                "{node} holds nothing any more: its process can be ended, and it is no member then\n"
            ),
            What::Drain(node) => format!("{node} is being drained\n"),
            What::Remove { node, is_forced } if *is_forced && !is_over => {
                format!("{node} is lost for good: others take its place\n")
            }
            What::Remove { node, .. } => format!("{node} is no member any more\n"),
            What::Rebalance if is_over => "all partitions are where they should be\n".to_owned(),
            What::Rebalance => "partitions move where they should be\n".to_owned(),
            What::Weigh(node, weight) => format!("{node} weighs {weight}\n"),
        }
    }

    /// What has become of it, where somebody has asked for the contrary since.
    fn undone(&self, status: &Value) -> Option<String> {
        let state = |node: &str| {
            let mut members = status["members"].as_array()?.iter();
            let member = members.find(|member| member["name"] == node)?;
            member["state"].as_str()
        };
        match &self.what {
            What::Drain(node) if matches!(state(node), Some("up" | "aligning")) => {
                Some(format!("{node} is to take its share again"))
            }
            What::Add(node) if state(node) == Some("leaving") => {
                Some(format!("{node} is being drained"))
            }
            _ => None,
        }
    }

    /// Whether all has moved, by what a node says of its cluster; none if it says nothing of that.
    fn is_over(&self, status: &Value) -> Option<bool> {
        let moves = &status["moves"];
        let has_moved = moves["are_planned"].as_bool()? && moves["partitions_total"].as_u64()? == 0;
        let members = status["members"].as_array()?;
        let holds = |node: &str| {
            let mut all = members.iter();
            all.find(|member| member["name"] == node)
                .map(|member| member["holds_partitions"] != 0)
        };
        Some(match &self.what {
            What::Drain(node) => has_moved && holds(node) != Some(true),
            What::Remove { node, .. } => has_moved && holds(node).is_none(),
            _ => has_moved,
        })
    }
}

/// Shows how far the partitions are until all have moved, from an epoch on.
pub(super) async fn wait(
    inquiry: &Inquiry,
    change: &NodeChange,
    epoch: u64,
) -> Result<(), InquiryError> {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let bar = bar();
    let outcome = loop {
        looks.tick().await;
        let request = About::Status.request();
        let is_sent = AtomicBool::new(false);
        let asked = ask(&inquiry.target, request, &is_sent);
        let asked = tokio::time::timeout(inquiry.timeout, asked).await;
        let page = asked.unwrap_or(Err(InquiryError::TimedOut(inquiry.timeout)));
        let page = match page {
            Ok(page) => page,
            // It may be started anew meanwhile.
            Err(error) if heard.elapsed() > inquiry.timeout => {
                break Err(InquiryError::Unwatched(Box::new(error)));
            }
            Err(_) => continue,
        };
        heard = Instant::now();
        let no_page = |why: String| InquiryError::Unwatched(Box::new(InquiryError::NoPage(why)));
        let status: Value = match serde_json::from_slice(&page) {
            Ok(status) => status,
            Err(error) => break Err(no_page(error.to_string())),
        };
        // It may not have heard of the change.
        if status["epoch"].as_u64().is_none_or(|known| known < epoch) {
            continue;
        }
        if let Some(undone) = change.undone(&status) {
            break Err(InquiryError::Undone(undone));
        }
        match change.is_over(&status) {
            None => break Err(no_page("it has no moves".to_owned())),
            Some(true) => break Ok(()),
            Some(false) => show(&bar, &status["moves"]),
        }
    };
    bar.finish_and_clear();
    outcome
}

fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{bar:40} {pos}/{len} partitions {msg}";
    let style = ProgressStyle::with_template(style).expect("the template is right");
    ProgressBar::new(0).with_style(style)
}

fn show(bar: &ProgressBar, moves: &Value) {
    let number = |name: &str| moves[name].as_u64().unwrap_or(0);
    bar.set_length(number("partitions_total"));
    bar.set_position(number("partitions_done"));
}

/// How far the replicas of the node that was asked are, and what it sends to others that copy from it, as lines; nothing where nobody
/// copies.
pub(super) fn copying(copies: &Value) -> String {
    let number = |name: &str| copies[name].as_u64().unwrap_or(0);
    let (replicas, aligned) = (number("replicas"), number("replicas_aligned"));
    let mut text = String::new();
    if aligned < replicas {
        let _ = writeln!(
            text,
            "{} of {} replicas of the node that was asked are aligned",
            grouped(aligned),
            grouped(replicas)
        );
    }
    let waiting = number("waiting");
    let all = number("under_way") + waiting;
    if all > 0 {
        let _ = writeln!(
            text,
            "it sends {} a second to others that copy from it: {} copies, of which {} have not begun",
            HumanBytes(number("sent_bytes_per_second")),
            grouped(all),
            grouped(waiting)
        );
    }
    text
}

/// How far moves are, as a line; nothing where nothing moves.
pub(super) fn moving(moves: &Value) -> String {
    let number = |name: &str| moves[name].as_u64().unwrap_or(0);
    match number("partitions_total") {
        0 => String::new(),
        total => format!(
            "{} of {} partitions have moved, and {} are on their way\n",
            grouped(number("partitions_done")),
            grouped(total),
            grouped(number("partitions_moving")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// It would wait for ever for what nobody does any more.
    #[test]
    fn the_contrary_of_what_somebody_else_has_asked_for_is_not_waited_for() {
        let status = |state: &str| {
            json!({
                "moves": {"are_planned": true, "partitions_total": 3},
                "members": [{"name": "a", "state": state, "holds_partitions": 5}],
            })
        };
        let change = |what| NodeChange { what, waits: true };
        let (drain, add) = (
            change(What::Drain("a".to_owned())),
            change(What::Add("a".to_owned())),
        );
        for (change, state, is_undone) in [
            (&drain, "up", true),
            (&drain, "aligning", true),
            (&drain, "leaving", false),
            (&drain, "down", false),
            (&add, "leaving", true),
            (&add, "up", false),
        ] {
            let undone = change.undone(&status(state));
            assert_eq!(undone.is_some(), is_undone, "{change:?} and it is {state}");
            assert_eq!(change.is_over(&status(state)), Some(false));
        }
        // It has ended, and is no member any more.
        let gone = json!({"members": []});
        assert_eq!(drain.undone(&gone), None);
    }
}
