//! `henge cluster status`, `losses`, and the commands of `settings` and `nodes`: what a node knows of its cluster, as a table or as the JSON
//! that it gives, and changes that it is asked for. It asks one node: once, or until what it asked for has come to its end.

mod losses;
mod nodes;
mod settings;

use std::cell::Cell;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use clap::{Arg, ArgAction, ArgMatches, Command};
use henge_client::{Socket, Target};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use indicatif::HumanBytes;
use serde_json::Value;

use self::nodes::NodeChange;
use self::settings::Change;
pub(super) use self::settings::path as path_of;
use super::simulate::grouped;
use super::{api_key, client, tls, tools};

/// The exit code where the node is in no cluster.
const EXIT_OUTSIDE: u8 = 1;
/// The exit code where nothing could be found out. 2 is that of a wrong command line.
const EXIT_FAILED: u8 = 3;

/// The longest page that is taken: hundreds of members, each with a partition of its own here and there, are a few hundred KiB.
const MAX_PAGE_BYTES: usize = 16 << 20;

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
}

/// What it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum About {
    /// The members; as JSON or for people.
    Status { json: bool },
    /// What was lost.
    Losses { json: bool },
    /// The settings of the whole cluster.
    Settings { json: bool },
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
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("As JSON, for programs: what GET /cluster/status says"),
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
        "status" => About::Status {
            json: matches.get_flag("json"),
        },
        "losses" => About::Losses {
            json: matches.get_flag("json"),
        },
        "settings" => About::Settings {
            json: matches.get_flag("json"),
        },
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
    let target: &Target = matches.get_one("url")?;
    if !target.scheme.is_http() {
        let wrong =
            format!("flag --url: found {target}, expected http://host:port or https://host:port");
        return Some(Err(wrong));
    }
    Some(Ok(Inquiry {
        target: target.clone(),
        timeout: *matches.get_one("timeout")?,
        about,
    }))
}

impl About {
    /// The method, the path and the body.
    fn request(&self) -> (Method, String, String) {
        let get = |path: &str| (Method::GET, path.to_owned(), String::new());
        match self {
            Self::Status { .. } => get("/cluster/status"),
            Self::Losses { .. } => get("/cluster/losses"),
            Self::Settings { .. } => get("/cluster/settings"),
            Self::Change(change) => change.request(),
            Self::Node(change) => change.request(),
        }
    }

    /// What an answer says, and whether that is a cluster.
    fn shown(&self, page: &[u8]) -> Result<(String, bool), InquiryError> {
        let page: Value = match page {
            [] => Value::Null,
            page => serde_json::from_slice(page)
                .map_err(|error| InquiryError::NoPage(error.to_string()))?,
        };
        let missing = |what: &str| InquiryError::NoPage(format!("it has no {what}"));
        match self {
            Self::Status { json } => {
                let text = match json {
                    true => format!("{page:#}\n"),
                    false => table(&page).ok_or_else(|| missing("members"))?,
                };
                Ok((text, page["standing"] == "member"))
            }
            Self::Losses { json } => {
                let text = match json {
                    true => format!("{page:#}\n"),
                    false => {
                        losses::table(&page, SystemTime::now()).ok_or_else(|| missing("losses"))?
                    }
                };
                Ok((text, page["is_complete"] == true))
            }
            Self::Settings { json: true } => Ok((format!("{page:#}\n"), true)),
            Self::Settings { json: false } => {
                let text = settings::table(&page).ok_or_else(|| missing("settings"))?;
                Ok((text, true))
            }
            Self::Change(change) => Ok((change.done(&page), true)),
            Self::Node(change) => Ok((change.done(), true)),
        }
    }

    /// The same with what it means for what was asked for; that may be done if it was sent.
    fn failure(&self, error: InquiryError, is_sent: bool) -> InquiryError {
        match (self, error) {
            // The node has said what it has done.
            (_, error @ InquiryError::Refused(..))
            | (Self::Status { .. } | Self::Losses { .. } | Self::Settings { .. }, error) => error,
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

/// Why nothing was found out.
#[derive(Debug)]
pub(super) enum InquiryError {
    /// There is no connection.
    Connect(io::Error),
    /// The connection failed, or what came over it.
    Http(String),
    /// Nothing came for so long.
    TimedOut(Duration),
    /// It failed after a change was asked for, which may be done: what may be so.
    Unknown(Box<Self>, &'static str),
    /// A change was made, and what comes of it was not seen to its end.
    Unwatched(Box<Self>),
    /// A change was made, and somebody else has undone it since: how it is now.
    Undone(String),
    /// It failed before a change was asked for.
    Unchanged(Box<Self>),
    /// The node says no, and perhaps why.
    Refused(StatusCode, Option<String>),
    /// What came is not what a node says.
    NoPage(String),
    System(io::Error),
}

impl fmt::Display for InquiryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "no connection to the node: {error}"),
            Self::Http(error) => write!(f, "the connection to the node failed: {error}"),
            Self::TimedOut(after) => write!(f, "the node did not answer within {after:?}"),
            Self::Unknown(error, may_be) => write!(f, "{error}; {may_be}"),
            Self::Unwatched(error) => write!(
                f,
                "{error}; it is agreed on, and partitions move without being watched"
            ),
            Self::Undone(now) => write!(f, "it was undone by somebody else meanwhile: {now}"),
            Self::Unchanged(error) => write!(f, "{error}; nothing was changed"),
            Self::Refused(StatusCode::UNAUTHORIZED, None) => f.write_str(
                "the node refused: it wants an API key that holds; expected one in HENGE_API_KEY",
            ),
            Self::Refused(status, None) => write!(f, "the node refused: {status}"),
            Self::Refused(status, Some(why)) => write!(f, "the node refused: {status}: {why}"),
            Self::NoPage(why) => write!(
                f,
                "what came is nothing that a node says of a cluster: {why}"
            ),
            Self::System(error) => error.fmt(f),
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
    let is_sent = Cell::new(false);
    let asked = ask(&inquiry.target, inquiry.about.request(), &is_sent);
    let asked = tokio::time::timeout(inquiry.timeout, asked).await;
    let page = asked.unwrap_or(Err(InquiryError::TimedOut(inquiry.timeout)));
    let found = page.and_then(|page| Ok((inquiry.about.shown(&page)?, page)));
    let found = found.map_err(|error| inquiry.about.failure(error, is_sent.get()));
    let (shown, page) = found?;
    if let About::Node(change) = &inquiry.about
        && change.waits
    {
        let page: Value = serde_json::from_slice(&page).unwrap_or_default();
        nodes::wait(inquiry, change, page["epoch"].as_u64().unwrap_or(0)).await?;
    }
    Ok(shown)
}

/// Asks for a method, a path and a body, and notes when something may have left.
pub(super) async fn ask(
    target: &Target,
    (method, path, body): (Method, String, String),
    is_sent: &Cell<bool>,
) -> Result<Bytes, InquiryError> {
    let tls = tls::towards(target).map_err(InquiryError::Connect)?;
    let connected = Socket::open(target, tls.as_ref()).await;
    let socket = connected.map_err(InquiryError::Connect)?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(socket))
        .await
        .map_err(|error| http(&error))?;
    // It ends with the connection, and what went wrong there the request is told.
    tokio::spawn(driver);
    let key = api_key::header().map_err(|error| InquiryError::Http(error.to_string()))?;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, target.server());
    if let Some(key) = key {
        request = request.header(api_key::X_API_KEY, key);
    }
    if body.starts_with(['{', '[']) {
        request = request.header(http::header::CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(Bytes::from(body)));
    let request = request.map_err(|error| InquiryError::Http(error.to_string()))?;
    is_sent.set(true);
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| http(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_PAGE_BYTES);
    let whole = body.collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            InquiryError::NoPage(format!("it is longer than {MAX_PAGE_BYTES} bytes"))
        } else {
            InquiryError::Http(error.to_string())
        }
    })?;
    let page = whole.to_bytes();
    if status.is_success() {
        return Ok(page);
    }
    let problem: Option<Value> = serde_json::from_slice(&page).ok();
    let why = problem.and_then(|problem| problem["detail"].as_str().map(printable));
    Err(InquiryError::Refused(status, why))
}

fn http(error: impl Error) -> InquiryError {
    let source = error.source().map(|source| format!(": {source}"));
    InquiryError::Http(format!("{error}{}", source.unwrap_or_default()))
}

/// The columns of the table that are figures, and end at the right.
const FIGURES: [usize; 5] = [3, 4, 5, 6, 7];

/// The status for people; none if it is none.
fn table(status: &Value) -> Option<String> {
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
            let _ = writeln!(text, "in no cluster: {}", printable(why));
        }
        _ => {
            text.push_str("in no cluster yet\n");
            for wait in status["waits"].as_array().into_iter().flatten() {
                let wait = wait.as_str().unwrap_or_default();
                let _ = writeln!(text, "  waits: {}", printable(wait));
            }
        }
    }
    let leader = status["leader"].as_str();
    let mut are_silent = false;
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
    text += &columns(&rows, &FIGURES);
    text.push_str("\n* the node that was asked  L the control leader");
    if are_silent {
        text.push_str("  ? does not answer that node");
    }
    text.push('\n');
    text += &nodes::moving(&status["moves"]);
    text += &nodes::copying(&status["copies"]);
    Some(text)
}

/// Rows under each other; the columns that are figures end at the right.
pub(super) fn columns<const N: usize>(rows: &[[String; N]], figures: &[usize]) -> String {
    let width = |column: usize| {
        let lengths = rows.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let gap = " ".repeat(width - cell.chars().count());
            let (before, after) = if figures.contains(&column) {
                (&*gap, "")
            } else {
                ("", &*gap)
            };
            let _ = write!(line, "{before}{cell}{after}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What another machine says, without what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::control::SLOWEST_CHANGE;
    use serde_json::json;
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
            table(&status).as_deref(),
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
        let text = table(&moves(1_000)).expect("it is a status");
        let line = "12 of 1,000 partitions have moved, and 64 are on their way\n";
        assert!(text.ends_with(line), "{text}");
        let text = table(&moves(0)).expect("it is a status");
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
            table(&status).expect("it is a status")
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
        let text = table(&status).expect("it is a status");
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
        let text = table(&waits).expect("it is a status");
        assert!(
            text.starts_with("in no cluster yet\n  waits: node2 at b:1?[2J does not answer\n"),
            "{text}"
        );
        let refused = json!({"standing": "refused", "why": "two of a name", "members": []});
        let text = table(&refused).expect("it is a status");
        assert!(text.starts_with("in no cluster: two of a name\n"), "{text}");
        assert_eq!(table(&json!({"status": "ok"})), None);
    }

    #[test]
    fn inquiries() {
        let inquiry = asked("cluster status --url http://h:1 --json").expect("understood");
        assert_eq!(
            (inquiry.target.to_string(), inquiry.about),
            ("http://h:1".to_owned(), About::Status { json: true })
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
