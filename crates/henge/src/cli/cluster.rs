//! `henge cluster status`, `losses`, and the commands of `settings` and `nodes`: what a node knows of its cluster, as a table or as the JSON
//! that it gives, and changes that it is asked for. It asks one node: once, or until what it asked for has come to its end.

mod losses;
mod nodes;
mod settings;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use clap::{ArgMatches, Command};
use henge_client::Target;
use http::Method;
use indicatif::HumanBytes;
use serde_json::{Value, json};

use self::nodes::NodeChange;
use self::settings::Change;
use super::asking::{InquiryError, ask, path_of};
use super::colour::{self, Painter, Tone, When};
use super::simulate::grouped;
use super::table::{columns, painted, printable};
use super::{client, tools};

/// The exit code where the node is in no cluster.
const EXIT_OUTSIDE: u8 = 1;
/// The exit code where nothing could be found out. 2 is that of a wrong command line.
const EXIT_FAILED: u8 = 3;

const HELP: &str = "\
It shows the cluster as the node at URL sees it. What other members say of themselves (operations a second, memory) is a dash
before they have said it.

Exit codes:
  0  shown
  1  shown, and the node is in no cluster: it says what it waits for
  2  the command line cannot be understood
  3  it failed: no connection, an error, or no answer";

/// What is asked, as the command line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inquiry {
    target: Target,
    timeout: Duration,
    about: About,
    json: bool,
    colour: When,
}

/// What it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum About {
    /// The members.
    Status,
    /// What was lost.
    Losses,
    /// The settings of the whole cluster.
    Settings,
    /// One of them is to be another.
    Change(Change),
    /// Nodes are to hold more, less or nothing.
    Node(NodeChange),
}

/// The grammar.
pub(super) fn command() -> Command {
    let status = Command::new("status")
        .about("Show the members of a node's cluster, and how they are")
        .args([
            client::url().help("The node: http://host:port or https://host:port"),
            client::timeout(),
            client::json().help("As JSON, for programs: what GET /cluster/status says"),
            colour::flag(),
        ])
        .after_help(HELP);
    Command::new("cluster")
        .about("Show a cluster, change its nodes or its settings, or make one of a survivor")
        .subcommand_required(true)
        .subcommand(status)
        .subcommand(losses::command())
        .subcommands(nodes::commands())
        .subcommands(settings::commands())
        .subcommand(tools::recovery())
}

/// The inquiry of a command of this module; none if the word is no such command.
///
/// # Errors
/// The node cannot be asked by this URL.
pub(super) fn understood(word: &str, matches: &ArgMatches) -> Option<Result<Inquiry, String>> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let about = match word {
        "status" => About::Status,
        "losses" => About::Losses,
        "settings" => About::Settings,
        "set" => About::Change(Change {
            name: text("name")?,
            value: Some(text("value")?),
        }),
        "unset" => About::Change(Change {
            name: text("name")?,
            value: None,
        }),
        _ => About::Node(NodeChange::understood(word, matches)?),
    };
    let target = match client::over_http(matches.get_one("url")?) {
        Ok(target) => target,
        Err(wrong) => return Some(Err(wrong)),
    };
    Some(Ok(Inquiry {
        target,
        timeout: *matches.get_one("timeout")?,
        colour: match about {
            About::Status => When::given(matches),
            // These have no such flag.
            _ => When::Never,
        },
        about,
        json: matches.get_flag("json"),
    }))
}

impl About {
    /// The method, the path and the body.
    fn request(&self) -> (Method, String, String) {
        let get = |path: &str| (Method::GET, path.to_owned(), String::new());
        match self {
            Self::Status => get("/cluster/status"),
            Self::Losses => get("/cluster/losses"),
            Self::Settings => get("/cluster/settings"),
            Self::Change(change) => change.request(),
            Self::Node(change) => change.request(),
        }
    }

    /// What an answer says, and whether that is a cluster.
    fn shown(
        &self,
        page: &[u8],
        json: bool,
        painter: Painter,
    ) -> Result<(String, bool), InquiryError> {
        let page: Value = match page {
            [] => Value::Null,
            page => serde_json::from_slice(page)
                .map_err(|error| InquiryError::NoPage(error.to_string()))?,
        };
        let missing = |what: &str| InquiryError::NoPage(format!("it has no {what}"));
        let is_whole = match self {
            Self::Status => page["standing"] == "member",
            Self::Losses => page["is_complete"] == true,
            Self::Settings | Self::Change(_) | Self::Node(_) => true,
        };
        let text = match self {
            // A setting that is left to each node is answered without a page.
            Self::Change(change) if json && page.is_null() => {
                format!("{:#}\n", json!({"name": change.name, "value": null}))
            }
            _ if json => format!("{page:#}\n"),
            Self::Status => table(&page, painter).ok_or_else(|| missing("members"))?,
            Self::Losses => {
                losses::table(&page, SystemTime::now()).ok_or_else(|| missing("losses"))?
            }
            Self::Settings => settings::table(&page).ok_or_else(|| missing("settings"))?,
            Self::Change(change) => change.done(&page),
            Self::Node(change) => change.done(),
        };
        Ok((text, is_whole))
    }

    /// The same with what it means for what was asked for; that may be done if it was sent.
    fn failure(&self, error: InquiryError, is_sent: bool) -> InquiryError {
        match (self, error) {
            // The node has said what it has done.
            (_, error @ InquiryError::Refused(..))
            | (Self::Status | Self::Losses | Self::Settings, error) => error,
            (Self::Change(_), error) if is_sent => InquiryError::Unknown(
                Box::new(error),
                "the setting may have been changed, or be changed later",
            ),
            (Self::Node(_), error) if is_sent => InquiryError::Unknown(
                Box::new(error),
                "it may be agreed on, or be agreed on later",
            ),
            (Self::Change(_) | Self::Node(_), error) => InquiryError::Unchanged(Box::new(error)),
        }
    }
}

/// Asks, and shows what comes.
pub(super) fn run(inquiry: &Inquiry) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let found = runtime
        .map_err(InquiryError::System)
        .and_then(|runtime| runtime.block_on(find(inquiry)));
    let (text, is_member) = match found {
        Ok(shown) => shown,
        Err(error) => {
            let _ = writeln!(io::stderr(), "henge: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Who has read enough leaves early.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(
                io::stderr(),
                "henge: standard output cannot be written: {error}"
            );
            ExitCode::from(EXIT_FAILED)
        }
        _ if is_member => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_OUTSIDE),
    }
}

/// What there is to show, and whether that is a cluster.
async fn find(inquiry: &Inquiry) -> Result<(String, bool), InquiryError> {
    let is_sent = AtomicBool::new(false);
    let asked = ask(&inquiry.target, inquiry.about.request(), &is_sent);
    let asked = tokio::time::timeout(inquiry.timeout, asked).await;
    let page = asked.unwrap_or(Err(InquiryError::TimedOut(inquiry.timeout)));
    let painter = inquiry.colour.painter();
    let shown = |page: &[u8]| inquiry.about.shown(page, inquiry.json, painter);
    let found = page.and_then(|page| Ok((shown(&page)?, page)));
    let found = found.map_err(|error| {
        inquiry
            .about
            .failure(error, is_sent.load(Ordering::Relaxed))
    });
    let (shown, page) = found?;
    if let About::Node(change) = &inquiry.about
        && change.waits
    {
        let page: Value = serde_json::from_slice(&page).unwrap_or_default();
        nodes::wait(inquiry, change, page["epoch"].as_u64().unwrap_or(0)).await?;
    }
    Ok(shown)
}

/// The columns of the table that are figures, and end at the right.
const FIGURES: [usize; 5] = [3, 4, 5, 6, 7];

/// The column that has the state.
const STATE: usize = 2;

/// What the state of a member means. Whoever does not answer is somewhere on the way to be down.
pub(super) fn tone_of(state: &str, is_silent: bool) -> Tone {
    match state {
        "down" => Tone::Bad,
        "up" if !is_silent => Tone::Good,
        _ => Tone::Doubtful,
    }
}

/// The status for people; none if it is none.
fn table(status: &Value, painter: Painter) -> Option<String> {
    let members = status["members"].as_array()?;
    let mut text = String::new();
    match status["standing"].as_str()? {
        "member" => {
            let cluster = status["cluster"].as_str();
            let _ = writeln!(
                text,
                "cluster {}, epoch {}, control leader {}",
                cluster.map_or("of one node".into(), printable),
                status["epoch"].as_u64()?,
                status["leader"]
                    .as_str()
                    .map_or("not known".into(), printable),
            );
        }
        "refused" => {
            let why = status["why"].as_str().unwrap_or("it does not say why");
            let head = painter.paint("in no cluster", Tone::Bad);
            let _ = writeln!(text, "{head}: {}", printable(why));
        }
        _ => {
            let _ = writeln!(
                text,
                "{}",
                painter.paint("in no cluster yet", Tone::Doubtful)
            );
            for wait in status["waits"].as_array().into_iter().flatten() {
                let wait = wait.as_str().unwrap_or_default();
                let _ = writeln!(text, "  waits: {}", printable(wait));
            }
        }
    }
    let leader = status["leader"].as_str();
    let mut are_silent = false;
    let mut tones = vec![Tone::Plain];
    let mut rows = vec![
        [
            "", "NAME", "STATE", "WEIGHT", "LEADS", "HOLDS", "OPS/S", "MEMORY", "ADDRESS",
        ]
        .map(str::to_owned),
    ];
    for member in members {
        let word = |name: &str| member[name].as_str().map_or("-".to_owned(), printable);
        let number = |name: &str, shown: fn(u64) -> String| {
            member[name].as_u64().map_or("-".to_owned(), shown)
        };
        let name = word("name");
        // That of one that is down is said by its state.
        let is_silent = member["is_reachable"] == false && member["state"] != "down";
        are_silent |= is_silent;
        tones.push(tone_of(
            member["state"].as_str().unwrap_or_default(),
            is_silent,
        ));
        let marks = [
            (member["is_me"] == true, '*'),
            (leader == member["name"].as_str(), 'L'),
            (is_silent, '?'),
        ];
        rows.push([
            marks
                .iter()
                .filter(|mark| mark.0)
                .map(|mark| mark.1)
                .collect(),
            name,
            word("state"),
            number("weight", grouped),
            number("partitions", grouped),
            number("holds_partitions", grouped),
            number("operations_per_second", grouped),
            number("memory_bytes", |bytes| HumanBytes(bytes).to_string()),
            word("address"),
        ]);
    }
    text += &painted(&rows, &FIGURES, painter, |row, column| match column {
        _ if row == 0 => Tone::Head,
        STATE => tones[row],
        _ => Tone::Plain,
    });
    text.push_str("\n* the node that was asked  L the control leader");
    if are_silent {
        text.push_str("  ? does not answer that node");
    }
    text.push('\n');
    text += &nodes::moving(&status["moves"]);
    text += &nodes::copying(&status["copies"]);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::control::SLOWEST_CHANGE;
    use http::StatusCode;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    fn asked(line: &str) -> Result<Inquiry, String> {
        let matches = command().try_get_matches_from(line.split(' '));
        let matches = matches.map_err(|error| error.kind().to_string())?;
        let (word, own) = matches.subcommand().expect("one is required");
        understood(word, own).expect("it has its defaults")
    }

    fn member(name: &str, is_me: bool, load: Option<u64>) -> Value {
        json!({
            "id": 1, "name": name, "address": format!("{name}.example:8080"), "state": "up",
            "is_me": is_me, "partitions": 512, "holds_partitions": 1024, "weight": 100,
            "operations_per_second": load,
            "memory_bytes": load.map(|load| load * 1024),
        })
    }

    #[test]
    fn members_are_rows() {
        let status = json!({
            "standing": "member", "cluster": "00ff", "epoch": 7, "leader": "second",
            "members": [member("nöde1", true, Some(12_345)), member("second", false, None)],
        });
        assert_eq!(
            table(&status, Painter::default()).as_deref(),
            Some(
                "\
cluster 00ff, epoch 7, control leader second
   NAME    STATE  WEIGHT  LEADS  HOLDS   OPS/S     MEMORY  ADDRESS
*  nöde1   up        100    512  1,024  12,345  12.06 MiB  nöde1.example:8080
L  second  up        100    512  1,024       -          -  second.example:8080

* the node that was asked  L the control leader
"
            )
        );
    }

    #[test]
    fn moves_are_a_line() {
        let moves = |total: u64| {
            json!({
                "standing": "member", "cluster": "00ff", "epoch": 7, "leader": null, "members": [],
                "moves": {"are_planned": true, "partitions_total": total, "partitions_done": 12, "partitions_moving": 64},
            })
        };
        let text = table(&moves(1_000), Painter::default()).expect("it is a status");
        let line = "12 of 1,000 partitions have moved, and 64 are on their way\n";
        assert!(text.ends_with(line), "{text}");
        let text = table(&moves(0), Painter::default()).expect("it is a status");
        assert!(!text.contains("moved"), "{text}");
    }

    #[test]
    fn copies_are_lines() {
        let copies = |aligned: u64, waiting: u64| {
            let status = json!({
                "standing": "member", "cluster": "00ff", "epoch": 7, "leader": null, "members": [],
                "copies": {
                    "replicas": 1024, "replicas_aligned": aligned, "under_way": 16,
                    "waiting": waiting, "sent_bytes": 7, "sent_bytes_per_second": 1 << 20,
                },
            });
            table(&status, Painter::default()).expect("it is a status")
        };
        let text = copies(12, 300);
        let lines = "\
12 of 1,024 replicas of the node that was asked are aligned
it sends 1.00 MiB a second to others that copy from it: 316 copies, of which 300 have not begun
";
        assert!(text.ends_with(lines), "{text}");
        assert!(!copies(1_024, 0).contains("aligned"));
    }

    #[test]
    fn who_does_not_answer_is_marked() {
        let mut silent = member("second", false, None);
        silent["is_reachable"] = json!(false);
        let mut down = silent.clone();
        down["state"] = json!("down");
        let status = json!({
            "standing": "member", "cluster": "00ff", "epoch": 7, "leader": null,
            "members": [member("first", true, None), silent, down],
        });
        let text = table(&status, Painter::default()).expect("it is a status");
        let marks: Vec<&str> = text
            .lines()
            .skip(2)
            .map(|line| &line[..line.len().min(3)])
            .collect();
        assert_eq!(marks, ["*  ", "?  ", "   ", "", "* t"], "{text}");
        assert!(
            text.ends_with("L the control leader  ? does not answer that node\n"),
            "{text}"
        );
    }

    #[test]
    fn who_is_in_no_cluster_says_why() {
        let waits = json!({
            "standing": "forming", "waits": ["node2 at b:1\u{1b}[2J does not answer"],
            "epoch": 0, "leader": null, "members": [],
        });
        let text = table(&waits, Painter::default()).expect("it is a status");
        assert!(
            text.starts_with("in no cluster yet\n  waits: node2 at b:1?[2J does not answer\n"),
            "{text}"
        );
        let refused = json!({"standing": "refused", "why": "two of a name", "members": []});
        let text = table(&refused, Painter::default()).expect("it is a status");
        assert!(text.starts_with("in no cluster: two of a name\n"), "{text}");
        assert_eq!(table(&json!({"status": "ok"}), Painter::default()), None);
    }

    #[test]
    fn states_are_coloured() {
        let mut members = ["up", "up", "aligning", "leaving", "down"].map(|state| {
            let mut member = member("a", false, None);
            member["state"] = json!(state);
            member
        });
        members[1]["is_reachable"] = json!(false);
        let status = json!({"standing": "member", "cluster": "00ff", "epoch": 7, "leader": null, "members": members});
        let text = table(&status, Painter { is_on: true }).expect("it is a status");
        let found: Vec<&str> = text
            .lines()
            .skip(2)
            .filter_map(|line| line.split_once("\x1b[")?.1.split_once("\x1b[0m"))
            .map(|(state, _)| state)
            .collect();
        let expected = ["32mup", "33mup", "33maligning", "33mleaving", "31mdown"];
        assert_eq!(found, expected, "{text:?}");
    }

    /// What is done is said in JSON as well, also where the node says nothing.
    #[test]
    fn changes_are_pages() {
        let shown = |line: &str, page: &[u8]| {
            let inquiry = asked(line).expect("understood");
            let shown = inquiry.about.shown(page, inquiry.json, Painter::default());
            let (text, _) = shown.expect("it is a page");
            serde_json::from_str::<Value>(&text).expect("it is JSON")
        };
        let page = br#"{"epoch":8,"node":"a"}"#;
        let expected = json!({"epoch": 8, "node": "a"});
        assert_eq!(shown("cluster drain a --json", page), expected);
        let expected = json!({"name": "cluster.redirect", "value": null});
        assert_eq!(
            shown("cluster unset cluster.redirect --json", b""),
            expected
        );
    }

    #[test]
    fn inquiries() {
        let inquiry = asked("cluster status --url http://h:1 --json").expect("understood");
        assert_eq!(
            (inquiry.target.to_string(), inquiry.about, inquiry.json),
            ("http://h:1".to_owned(), About::Status, true)
        );
        let inquiry = asked("cluster set cluster.redirect false").expect("understood");
        let (method, path, body) = inquiry.about.request();
        assert_eq!(
            (method, &*path, &*body),
            (Method::PUT, "/cluster/settings/cluster.redirect", "false")
        );
        for (line, asked_for) in [
            ("drain a/b", "POST /cluster/drain/a%2Fb "),
            ("add a --no-wait", "POST /cluster/add/a "),
            ("remove a", "POST /cluster/remove/a "),
            ("remove a --force", "POST /cluster/remove/a?force=true "),
            ("rebalance", "POST /cluster/rebalance "),
            ("set-weight a 7", "PUT /cluster/weight/a 7"),
            ("set-weight a 7 --json", "PUT /cluster/weight/a 7"),
        ] {
            let inquiry = asked(&format!("cluster {line}")).expect("understood");
            let (method, path, body) = inquiry.about.request();
            assert_eq!(format!("{method} {path} {body}"), asked_for);
        }
        for line in [
            "cluster",
            "cluster drain",
            "cluster drain a b",
            "cluster drain a --force",
            "cluster rebalance a",
            "cluster set-weight a",
            "cluster set-weight a 0",
            "cluster set-weight a 1001",
            "cluster status --url redis://h:1",
            "cluster status x",
            "cluster set cluster.redirect",
            "cluster unset",
            "cluster unset a b",
            "cluster settings x",
        ] {
            assert!(asked(line).is_err(), "{line}");
        }
    }

    /// Asks a port that takes the beginning of a request and closes, and says what comes of that.
    async fn cut_off(words: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it has one");
        let inquiry = asked(&format!("{words} --url http://{address}")).expect("understood");
        let closes = async {
            let (mut socket, _) = listener.accept().await.expect("it comes");
            let _ = socket.read(&mut [0; 16]).await;
        };
        let (found, ()) = tokio::join!(find(&inquiry), closes);
        found.expect_err("nobody answers").to_string()
    }

    #[tokio::test]
    async fn a_change_that_was_sent_may_be_done() {
        let may_be = "; the setting may have been changed, or be changed later";
        for words in ["cluster set a b", "cluster unset a"] {
            let error = cut_off(words).await;
            assert!(
                error.starts_with("the connection to the node failed"),
                "{error}"
            );
            assert!(error.ends_with(may_be), "{error}");
        }
        for words in ["cluster status", "cluster settings"] {
            let error = cut_off(words).await;
            assert!(!error.contains("changed"), "{error}");
        }
        let late = || InquiryError::TimedOut(Duration::from_secs(15));
        let about = asked("cluster unset a").expect("understood").about;
        let error = about.failure(late(), true).to_string();
        assert_eq!(error, format!("the node did not answer within 15s{may_be}"));
        let error = about.failure(late(), false).to_string();
        assert!(error.ends_with("; nothing was changed"), "{error}");
        let refused = InquiryError::Refused(StatusCode::CONFLICT, None);
        let error = about.failure(refused, true).to_string();
        assert_eq!(error, "the node refused: 409 Conflict");
    }

    #[tokio::test]
    async fn a_change_that_nobody_heard_of_is_not_done() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it has one");
        drop(listener);
        let line = format!("cluster unset a --url http://{address}");
        let inquiry = asked(&line).expect("understood");
        let error = find(&inquiry).await.expect_err("nobody listens");
        let error = error.to_string();
        assert!(error.starts_with("no connection to the node"), "{error}");
        assert!(error.ends_with("; nothing was changed"), "{error}");
    }

    #[test]
    fn a_change_is_waited_for_as_long_as_a_node_takes() {
        for words in ["cluster set a b", "cluster unset a", "cluster drain a"] {
            let inquiry = asked(words).expect("understood");
            assert!(inquiry.timeout > SLOWEST_CHANGE, "{words}");
        }
    }
}
