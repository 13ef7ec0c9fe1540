//! `henge ping`: whether a node lives, or takes requests, by an exit code: for the health checks of containers, which have no curl.

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use henge_client::Target;
use http::Method;
use serde_json::Value;

use super::asking::{Connection, InquiryError};
use super::table::printable;
use super::{client, failed, print};

/// The exit code of a node that answers, and is not ready.
const EXIT_NOT_READY: u8 = 1;
/// The exit code where no node answers.
const EXIT_FAILED: u8 = 3;

const HELP: &str = "\
It asks GET /health, or GET /ready with --ready, which need no API key.

Exit codes:
  0  the node lives; with --ready, it takes requests
  1  it lives and is not ready
  2  the command line cannot be understood
  3  nothing answers, or what does is no node";

/// What is asked, as the command line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    target: Target,
    timeout: Duration,
    is_ready: bool,
    json: bool,
}

/// The grammar.
pub(super) fn command() -> Command {
    Command::new("ping")
        .about("Ask a node whether it lives")
        .args([
            client::url().help("The node: http://host:port or https://host:port"),
            client::timeout(),
            client::json(),
            Arg::new("ready")
                .long("ready")
                .action(ArgAction::SetTrue)
                .help("Ask whether it takes requests"),
        ])
        .after_help(HELP)
}

/// What the command asks.
///
/// # Errors
/// The node cannot be asked by this URL.
pub(super) fn understood(matches: &ArgMatches) -> Option<Result<Ping, String>> {
    let timeout = *matches.get_one("timeout")?;
    let target = client::over_http(matches.get_one("url")?);
    Some(target.map(|target| Ping {
        target,
        timeout,
        is_ready: matches.get_flag("ready"),
        json: matches.get_flag("json"),
    }))
}

/// Asks, and shows what comes.
pub(super) fn run(ping: &Ping) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let asked = runtime
        .map_err(InquiryError::System)
        .and_then(|runtime| runtime.block_on(ask(ping)));
    match asked {
        Ok((is_so, page)) => {
            let text = if ping.json {
                page.to_string()
            } else {
                printable(page["status"].as_str().unwrap_or("unknown"))
            };
            print(&format!("{text}\n"));
            ExitCode::from(if is_so { 0 } else { EXIT_NOT_READY })
        }
        Err(error) => failed(&error, EXIT_FAILED),
    }
}

/// Whether it is so, and the page that says it.
async fn ask(ping: &Ping) -> Result<(bool, Value), InquiryError> {
    let path = if ping.is_ready { "/ready" } else { "/health" };
    let request = (Method::GET, path.to_owned(), String::new());
    let asked = async {
        let mut node = Connection::open(&ping.target).await?;
        node.send(request, &AtomicBool::new(false)).await
    };
    let asked = tokio::time::timeout(ping.timeout, asked).await;
    let (status, page) = asked.unwrap_or(Err(InquiryError::TimedOut(ping.timeout)))?;
    let page: Value =
        serde_json::from_slice(&page).map_err(|error| InquiryError::NoPage(error.to_string()))?;
    if page["status"].is_string() && (status.is_success() || page.get("code").is_none()) {
        return Ok((status.is_success(), page));
    }
    Err(InquiryError::Refused(status, None))
}
