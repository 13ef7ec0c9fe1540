//! `henge hot`, `big` and `why`: which keys are used most and which are largest, as a node or all members of its cluster have seen it, and
//! why a key is not there. What they answer is the nodes' to find out; here it is asked for, put together and shown.

mod big;
pub(super) mod hot;
mod why;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use henge_client::Target;
use serde_json::{Value, json};

use super::asking::{InquiryError, page, page_for};
use super::members::{self, Heard};
use super::{api_key, client, failed, print};

/// The exit code where some members did not answer. 2 is that of a wrong command line.
const EXIT_PARTLY: u8 = 1;
/// The exit code where nothing could be found out.
const EXIT_FAILED: u8 = 3;

/// The most keys that a node lists.
const MOST_KEYS: u16 = 100;

/// Of those that may ask all members.
const LISTING_EXIT_CODES: &str = "\
Exit codes:
  0  shown
  1  shown, and with --cluster some members did not answer
  2  the command line cannot be understood
  3  it failed: no connection, an error, or no answer";

const EXIT_CODES: &str = "\
Exit codes:
  0  shown
  2  the command line cannot be understood
  3  it failed: no connection, an error, or no answer";

const HOT_HELP: &str = "\
Counts are estimates of the uses that a node has seen, of which older ones count less. With --cluster the counts of all members are
added up; a request that one member passes to another is counted where its client asked. A node whose insight.enabled is false counts none.";

const BIG_HELP: &str = "\
A node shows what is in the partitions that it leads. With --cluster all members are asked.";

const WHY_HELP: &str = "\
Any node can be asked: the one that leads the key's partition answers. A cause that is not certain is the likeliest one.";

/// What is asked, as the command line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insight {
    target: Target,
    timeout: Duration,
    json: bool,
    about: About,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum About {
    Hot { count: u16, is_cluster: bool },
    Big { count: u16, is_cluster: bool },
    Why { key: Vec<u8> },
}

/// The grammar.
pub(super) fn commands() -> [Command; 3] {
    let command = |name: &'static str, about: &'static str, (help, exit_codes): (&str, &str)| {
        Command::new(name)
            .about(about)
            .args([
                client::url().help("The node: http://host:port or https://host:port"),
                client::timeout(),
                client::json(),
            ])
            .after_help(format!("{help}\n\n{}\n\n{exit_codes}", api_key::HELP))
    };
    let listing = || {
        [
            Arg::new("count")
                .long("count")
                .value_name("COUNT")
                .default_value("20")
                .value_parser(value_parser!(u16).range(1..=i64::from(MOST_KEYS)))
                .help("How many keys, at most 100"),
            Arg::new("cluster")
                .long("cluster")
                .action(ArgAction::SetTrue)
                .help("Ask all members of the node's cluster"),
        ]
    };
    [
        command(
            "hot",
            "Show which keys are used most",
            (HOT_HELP, LISTING_EXIT_CODES),
        )
        .args(listing()),
        command(
            "big",
            "Show which keys are largest",
            (BIG_HELP, LISTING_EXIT_CODES),
        )
        .args(listing()),
        command("why", "Say why a key is not there", (WHY_HELP, EXIT_CODES)).arg(
            Arg::new("key")
                .value_name("KEY")
                .required(true)
                .value_parser(ValueParser::os_string())
                .help("The key: any bytes, at most 64 KiB"),
        ),
    ]
}

/// What a command of this module asks; none if the word is no such command.
///
/// # Errors
/// The node cannot be asked by this URL.
pub(super) fn understood(word: &str, matches: &ArgMatches) -> Option<Result<Insight, String>> {
    let count = || matches.get_one("count").copied();
    let about = match word {
        "hot" => About::Hot {
            count: count()?,
            is_cluster: matches.get_flag("cluster"),
        },
        "big" => About::Big {
            count: count()?,
            is_cluster: matches.get_flag("cluster"),
        },
        "why" => About::Why {
            key: matches.get_one::<OsString>("key")?.clone().into_vec(),
        },
        _ => return None,
    };
    let timeout = *matches.get_one("timeout")?;
    let target = client::over_http(matches.get_one("url")?);
    Some(target.map(|target| Insight {
        target,
        timeout,
        json: matches.get_flag("json"),
        about,
    }))
}

/// Asks, and shows what comes.
pub(super) fn run(insight: &Insight) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let found = runtime
        .map_err(InquiryError::System)
        .and_then(|runtime| runtime.block_on(insight.found()));
    match found {
        Err(error) => failed(&error, EXIT_FAILED),
        Ok((text, is_whole)) => match print(&text) {
            ExitCode::SUCCESS if !is_whole => ExitCode::from(EXIT_PARTLY),
            code => code,
        },
    }
}

impl Insight {
    /// What there is to show, and whether all have answered that were asked.
    async fn found(&self) -> Result<(String, bool), InquiryError> {
        let missing = |what: &str| InquiryError::NoPage(format!("it has no {what}"));
        let (path, count, is_cluster) = match &self.about {
            About::Why { key } => {
                let page = page_for(&self.target, "/why", &named(key), self.timeout).await?;
                let text = why::text(&page).ok_or_else(|| missing("key"))?;
                return Ok((self.shown(text, &page), true));
            }
            About::Hot { count, is_cluster } => ("/hot", *count, *is_cluster),
            About::Big { count, is_cluster } => ("/big", *count, *is_cluster),
        };
        let Heard { pages, not_heard } = self.heard(path, count, is_cluster).await?;
        let merged = if matches!(self.about, About::Hot { .. }) {
            hot::of(&pages, count.into()).map(|hot| (hot.table(), hot.json(&not_heard)))
        } else {
            big::of(&pages, count.into()).map(|big| (big.table(), big.json(&not_heard)))
        };
        let (table, merged) = merged.ok_or_else(|| missing("keys"))?;
        let page = match pages.first() {
            // What one says is shown as it is.
            Some((_, page)) if !is_cluster => page,
            _ => &merged,
        };
        let text = table + &members::not_heard(&not_heard);
        Ok((self.shown(text, page), not_heard.is_empty()))
    }

    /// The text, or the page.
    fn shown(&self, text: String, page: &Value) -> String {
        if self.json {
            format!("{page:#}\n")
        } else {
            text
        }
    }

    /// What the node says, or all members do. Of them each is asked for as much as it gives: what is little used on each may be used most
    /// on all.
    async fn heard(&self, path: &str, count: u16, is_cluster: bool) -> Result<Heard, InquiryError> {
        let count = if is_cluster { MOST_KEYS } else { count };
        let path = format!("{path}?count={count}");
        if is_cluster {
            return members::ask_all(&self.target, &path, self.timeout).await;
        }
        let page = page(&self.target, &path, self.timeout).await?;
        let name = page["node"].as_str().unwrap_or("the node").to_owned();
        Ok(Heard {
            pages: vec![(name, page)],
            not_heard: Vec::new(),
        })
    }
}

/// A body that names a key: in a path there is no room for the longest ones.
fn named(key: &[u8]) -> Value {
    match std::str::from_utf8(key) {
        Ok(text) => json!({"key": text}),
        Err(_) => json!({"key_base64": STANDARD.encode(key)}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::asking::canned;

    fn asked(line: &str) -> Result<Insight, String> {
        let (word, _) = line.split_once(' ').unwrap_or((line, ""));
        let mut commands = commands().into_iter();
        let command = commands.find(|command| command.get_name() == word);
        let matches = command
            .ok_or("no word")?
            .try_get_matches_from(line.split(' '));
        let matches = matches.map_err(|error| error.to_string())?;
        understood(word, &matches).ok_or("no such word")?
    }

    #[test]
    fn what_is_understood() {
        let hot = |count, is_cluster| About::Hot { count, is_cluster };
        for (line, about) in [
            ("hot", hot(20, false)),
            ("hot --cluster --count 100", hot(100, true)),
            (
                "hot --count=1 --url https://h:1 --timeout 1s --json",
                hot(1, false),
            ),
            (
                "big --count 3",
                About::Big {
                    count: 3,
                    is_cluster: false,
                },
            ),
            (
                "big --cluster",
                About::Big {
                    count: 20,
                    is_cluster: true,
                },
            ),
            ("why k", About::Why { key: b"k".to_vec() }),
        ] {
            assert_eq!(
                asked(line).map(|insight| insight.about),
                Ok(about),
                "{line}"
            );
        }
        for line in [
            "hot k",
            "hot --count 0",
            "hot --count 101",
            "hot --url redis://h:1",
            "why",
            "why a b",
            "why k --cluster",
        ] {
            assert!(asked(line).is_err(), "{line}");
        }
    }

    /// `why` asks one node, so its help is silent of what comes of asking all.
    #[test]
    fn help_is_of_what_a_command_takes() {
        for mut command in commands() {
            let takes = |name: &str| command.get_arguments().any(|arg| arg.get_id() == name);
            let is_of_all = takes("cluster");
            let help = command.render_long_help().to_string();
            assert_eq!(help.contains("--cluster"), is_of_all, "{help}");
        }
    }

    #[test]
    fn keys_are_bytes() {
        assert_eq!(named(b"a/b &c"), json!({"key": "a/b &c"}));
        assert_eq!(named("ö".as_bytes()), json!({"key": "ö"}));
        assert_eq!(named(b"\xff\x00"), json!({"key_base64": "/wA="}));
    }

    async fn found(
        line: &str,
        pages: &'static [(&'static str, &'static str)],
    ) -> Result<(String, bool), String> {
        let address = canned::node(pages).await;
        let insight = asked(&format!("{line} --url http://{address}")).expect("understood");
        insight.found().await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_node_is_asked() {
        const HOT: &str = r#"{"node":"n1","seen":100,"sampled_one_in":16,"since_seconds":61.2,"keys":[{"key":"k","count":50,"share":0.5}]}"#;
        let (text, is_whole) = found("hot --count 3", &[("/hot?count=3", HOT)])
            .await
            .expect("a page");
        assert!(
            is_whole && text.starts_with("KEY  COUNT   SHARE\nk       50  50.0 %"),
            "{text}"
        );
        let (text, _) = found("hot --json", &[("/hot?count=20", HOT)])
            .await
            .expect("a page");
        let (said, expected): (Value, Value) = (
            serde_json::from_str(&text).expect("JSON"),
            serde_json::from_str(HOT).expect("JSON"),
        );
        assert_eq!(said, expected);
        let error = found("hot", &[]).await.expect_err("there is no such page");
        assert!(error.starts_with("the node refused: 404"), "{error}");
        let error = found("big", &[("/big?count=20", "{}")])
            .await
            .expect_err("there are no keys");
        assert!(error.ends_with("it has no keys"), "{error}");
        let error = found("big", &[("/big?count=20", "what")])
            .await
            .expect_err("it is no JSON");
        assert!(
            error.starts_with("what came is nothing that a node says"),
            "{error}"
        );
    }
}
