//! `henge key new`, `list` and `revoke`: API keys. One is made here, for the key file of nodes, or by a node for its whole cluster;
//! either way it is shown once.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Arg, ArgAction, ArgMatches, Command};
use henge_client::Target;
use http::Method;
use serde_json::{Value, json};

use super::asking::{InquiryError, ask, path_of};
use super::table::{columns, printable};
use super::{api_key, client, duration};
use crate::access::entry::{self, KeyEntry};
use crate::access::hash::NewKey;
use crate::calendar;

/// The exit code where it was not done. 2 is that of a wrong command line.
const EXIT_FAILED: u8 = 3;

const NEW_HELP: &str = "\
Without --url the key is made here, and what a key file has of it is printed as well: put that into the file that
security.key_file names, which has to be its owner's alone, and reload the node. With --url the node makes it, and it holds in
the whole cluster at once.";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  2  the command line cannot be understood
  3  it failed: no connection, or the node refused; or it is not known whether it was done. Standard error says which";

/// What is asked for, as the command line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOrder {
    errand: Errand,
    json: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Errand {
    New {
        name: String,
        entry: KeyEntry,
        node: Option<Node>,
    },
    List(Node),
    Revoke {
        name: String,
        forget: bool,
        node: Node,
    },
}

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    target: Target,
    timeout: Duration,
}

/// The grammar.
pub(super) fn command() -> Command {
    let node = || {
        [
            client::url().help("The node: http://host:port or https://host:port"),
            client::timeout().default_value("15s"),
        ]
    };
    let [url, timeout] = node();
    let list = |name: &'static str, short: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(short)
            .action(ArgAction::Append)
            .help(help)
    };
    let new = Command::new("new")
        .about("Make an API key")
        .args([
            Arg::new("name")
                .long("name")
                .value_name("NAME")
                .required(true)
                .help("What it is called"),
            list("permissions", "LIST", "What it may do: read, write, admin").value_delimiter(','),
            list("roles", "LIST", "Roles, whose permissions it has as well").value_delimiter(','),
            Arg::new("certificate")
                .long("certificate")
                .value_name("DNS-NAME")
                .help("A name in the certificate of whose it is, who needs no text then"),
            list("prefix", "PREFIX", "Keys of the cache that it may touch begin so; may be repeated [default: all]"),
            Arg::new("expires")
                .long("expires")
                .value_name("WHEN")
                .value_parser(expires)
                .help("After this time, such as 90d, or at one, such as 2027-01-31 or 2027-01-31T12:00:00Z [default: never]"),
            url.required(false)
                .default_value(None)
                .help("The node that makes it, for its whole cluster: http://host:port or https://host:port [default: made here]"),
            timeout,
            client::json(),
        ])
        .after_help(format!("{NEW_HELP}\n\n{}\n\n{EXIT_CODES}", api_key::HELP));
    let after = format!("{}\n\n{EXIT_CODES}", api_key::HELP);
    let listing = Command::new("list")
        .about("Show the API keys and roles that hold on a node")
        .args(node())
        .arg(client::json())
        .after_help(after.clone());
    let revoke = Command::new("revoke")
        .about("Have an API key hold no longer, on no node of the cluster")
        .args(node())
        .args([
            Arg::new("name").value_name("NAME").required(true).help("What it is called"),
            Arg::new("forget")
                .long("forget")
                .action(ArgAction::SetTrue)
                .help("Forget that it was revoked: its name is free, and a key of the name in a node's key file holds again"),
            client::json(),
        ])
        .after_help(after);
    Command::new("key")
        .about("Make, show and revoke API keys")
        .subcommand_required(true)
        .subcommands([new, listing, revoke])
}

/// A time, or how long until then.
fn expires(text: &str) -> Result<String, String> {
    if let Ok(at_ms) = calendar::parse(text) {
        return Ok(calendar::text(at_ms));
    }
    let left = duration::parse_positive(text)
        .map_err(|_| "expected a duration such as 90d, or a time such as 2027-01-31".to_owned())?;
    let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    let text = calendar::text(now_ms().saturating_add(left_ms));
    calendar::parse(&text).map_err(|_| "that is after the year 9999".to_owned())?;
    Ok(text)
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// The order of a command of this module.
///
/// # Errors
/// What was given is no key.
pub(super) fn understood(word: &str, matches: &ArgMatches) -> Option<Result<KeyOrder, String>> {
    let node = || -> Option<Node> {
        Some(Node {
            target: matches.get_one::<Target>("url")?.clone(),
            timeout: *matches.get_one("timeout")?,
        })
    };
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let texts = |name: &str| -> BTreeSet<String> {
        let values = matches.get_many::<String>(name).unwrap_or_default();
        values.cloned().collect()
    };
    let errand = match word {
        "new" => Errand::New {
            name: text("name")?,
            entry: KeyEntry {
                hash: None,
                certificate: text("certificate"),
                permissions: texts("permissions"),
                roles: texts("roles"),
                prefixes: texts("prefix"),
                expires: text("expires"),
            },
            node: node(),
        },
        "list" => Errand::List(node()?),
        "revoke" => Errand::Revoke {
            name: text("name")?,
            forget: matches.get_flag("forget"),
            node: node()?,
        },
        _ => return None,
    };
    let json = matches.get_flag("json");
    Some(checked(errand).map(|errand| KeyOrder { errand, json }))
}

fn checked(errand: Errand) -> Result<Errand, String> {
    let node = match &errand {
        Errand::New { name, entry, node } => {
            entry::check_name(name).map_err(|why| format!("flag --name: {why}"))?;
            let entry = KeyEntry {
                hash: Some(NewKey::draw().hash.to_string()),
                ..entry.clone()
            };
            let rule = entry.read().map_err(|why| format!("{name}: {why}"))?;
            // The clock of a node may be another, and it looks itself.
            if node.is_none() && rule.expires_at_ms.is_some_and(|until| until <= now_ms()) {
                return Err(format!("{name}: it would have expired already"));
            }
            node.as_ref()
        }
        Errand::List(node) | Errand::Revoke { node, .. } => Some(node),
    };
    match node {
        Some(node) if !node.target.scheme.is_http() => Err(format!(
            "flag --url: found {}, expected http://host:port or https://host:port",
            node.target
        )),
        _ => Ok(errand),
    }
}

/// Does it.
pub(super) fn run(order: &KeyOrder) -> ExitCode {
    match order.done() {
        Ok(text) => super::print(&text),
        Err(error) => super::failed(&error, EXIT_FAILED),
    }
}

impl KeyOrder {
    fn done(&self) -> Result<String, InquiryError> {
        match &self.errand {
            Errand::New {
                name,
                entry,
                node: None,
            } => Ok(self.made(name, entry)),
            Errand::New {
                name,
                entry,
                node: Some(node),
            } => {
                let mut body = json!(entry);
                body["name"] = json!(name);
                body.as_object_mut().map(|body| body.remove("hash"));
                let request = (Method::POST, "/admin/keys".to_owned(), body.to_string());
                let page = node.ask(request, true)?;
                if self.json {
                    return Ok(format!("{page:#}\n"));
                }
                Ok(match page["key"].as_str() {
                    None => format!("{name} holds in the whole cluster\n"),
                    Some(key) => format!(
                        "{name} holds in the whole cluster. This is the key, which nobody is shown again:\n\n{key}\n"
                    ),
                })
            }
            Errand::List(node) => {
                let page = node.ask(get("/admin/keys"), false)?;
                if self.json {
                    return Ok(format!("{page:#}\n"));
                }
                table(&page).ok_or_else(|| InquiryError::NoPage("it has no keys".to_owned()))
            }
            Errand::Revoke { name, forget, node } => {
                let path = path_of("/admin/keys/", name.as_bytes());
                let query = if *forget { "?forget=true" } else { "" };
                let request = (Method::DELETE, format!("{path}{query}"), String::new());
                node.ask(request, true)?;
                if self.json {
                    let state = if *forget { "forgotten" } else { "revoked" };
                    return Ok(format!("{:#}\n", json!({"name": name, "state": state})));
                }
                Ok(if *forget {
                    format!(
                        "{name} is forgotten: a key in a node's key file may have that name again\n"
                    )
                } else {
                    format!("{name} is revoked in the whole cluster\n")
                })
            }
        }
    }

    /// A key that is made here, and what a key file has of it.
    fn made(&self, name: &str, entry: &KeyEntry) -> String {
        // Who has a certificate needs no text.
        let new = entry.certificate.is_none().then(NewKey::draw);
        let entry = KeyEntry {
            hash: new.as_ref().map(|new| new.hash.to_string()),
            ..entry.clone()
        };
        if self.json {
            let mut page = json!(entry);
            page["name"] = json!(name);
            if let Some(new) = &new {
                page["key"] = json!(new.text);
            }
            return format!("{page:#}\n");
        }
        let mut text = String::new();
        if let Some(new) = &new {
            let _ = writeln!(
                text,
                "This is the key, which nobody is shown again:\n\n{}\n",
                new.text
            );
        }
        let _ = writeln!(
            text,
            "This is for the file that security.key_file names:\n\n[keys.{}]",
            quoted(name)
        );
        for (member, value) in [("hash", &entry.hash), ("certificate", &entry.certificate)] {
            if let Some(value) = value {
                let _ = writeln!(text, "{member} = {}", quoted(value));
            }
        }
        for (member, values) in [
            ("permissions", &entry.permissions),
            ("roles", &entry.roles),
            ("prefixes", &entry.prefixes),
        ] {
            if !values.is_empty() {
                let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
                let _ = writeln!(text, "{member} = [{}]", values.join(", "));
            }
        }
        if let Some(expires) = &entry.expires {
            let _ = writeln!(text, "expires = {}", quoted(expires));
        }
        text
    }
}

/// A text as TOML has it: as JSON does, but for a byte that may not stand there as it is.
fn quoted(text: &str) -> String {
    json!(text).to_string().replace('\u{7f}', "\\u007F")
}

fn get(path: &str) -> (Method, String, String) {
    (Method::GET, path.to_owned(), String::new())
}

impl Node {
    /// Asks, and says of a change of which no answer came that it may have been made.
    fn ask(
        &self,
        request: (Method, String, String),
        is_change: bool,
    ) -> Result<Value, InquiryError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(InquiryError::System)?;
        let is_sent = AtomicBool::new(false);
        let asked = runtime.block_on(async {
            let asked = ask(&self.target, request, &is_sent);
            let asked = tokio::time::timeout(self.timeout, asked).await;
            asked.unwrap_or(Err(InquiryError::TimedOut(self.timeout)))
        });
        match asked {
            Ok(page) if page.is_empty() => Ok(Value::Null),
            Ok(page) => serde_json::from_slice(&page)
                .map_err(|error| InquiryError::NoPage(error.to_string())),
            Err(error @ InquiryError::Refused(..)) => Err(error),
            Err(error) if is_change && is_sent.load(Ordering::Relaxed) => Err(
                InquiryError::Unknown(Box::new(error), "it may have been done, or be done later"),
            ),
            Err(error) => Err(error),
        }
    }
}

/// The keys and roles of a page, for people.
fn table(page: &Value) -> Option<String> {
    let texts = |value: &Value| -> String {
        let values = value.as_array().into_iter().flatten();
        let values: Vec<String> = values.filter_map(Value::as_str).map(printable).collect();
        values.join(", ")
    };
    let text = |value: &Value| value.as_str().map_or("-".to_owned(), printable);
    let or_dash = |text: String| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text
        }
    };
    let titles = [
        "NAME",
        "STATE",
        "PERMISSIONS",
        "ROLES",
        "CERTIFICATE",
        "PREFIXES",
        "EXPIRES",
        "SOURCE",
    ];
    let mut rows = vec![titles.map(str::to_owned)];
    for key in page["keys"].as_array()? {
        let is_revoked = key["state"] == "revoked";
        rows.push([
            text(&key["name"]),
            text(&key["state"]),
            or_dash(texts(&key["permissions"])),
            or_dash(texts(&key["roles"])),
            text(&key["certificate"]),
            match texts(&key["prefixes"]) {
                // One that holds and names none has all.
                none if none.is_empty() && !is_revoked => "(all)".to_owned(),
                some => or_dash(some),
            },
            text(&key["expires"]),
            text(&key["source"]),
        ]);
    }
    let mut shown = match rows.len() {
        1 => "There is no key: clients of the same machine may do anything, and others what security.protected_mode says.\n".to_owned(),
        _ => columns(&rows, &[]),
    };
    let roles = page["roles"].as_array().filter(|roles| !roles.is_empty());
    if let Some(roles) = roles {
        let titles = ["ROLE", "PERMISSIONS", "SOURCE"];
        let mut rows = vec![titles.map(str::to_owned)];
        for role in roles {
            rows.push([
                text(&role["name"]),
                texts(&role["permissions"]),
                text(&role["source"]),
            ]);
        }
        let _ = write!(shown, "\n{}", columns(&rows, &[]));
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(line: &str) -> Result<KeyOrder, String> {
        let words = ["key"].into_iter().chain(line.split(' '));
        let matches = command()
            .try_get_matches_from(words)
            .map_err(|error| error.to_string())?;
        let (word, matches) = matches.subcommand().ok_or("no word")?;
        understood(word, matches).ok_or("no such word")?
    }

    #[test]
    fn what_people_are_shown() {
        let page = json!({
            "keys": [
                {"name": "web", "state": "active", "permissions": ["read"], "roles": ["reader"],
                 "certificate": "web.example", "prefixes": ["a:", "b:"], "expires": "2027-01-31T00:00:00Z", "source": "cluster"},
                {"name": "old", "state": "revoked", "source": "cluster"},
            ],
            "roles": [],
        });
        let expected = "\
NAME  STATE    PERMISSIONS  ROLES   CERTIFICATE  PREFIXES  EXPIRES               SOURCE
web   active   read         reader  web.example  a:, b:    2027-01-31T00:00:00Z  cluster
old   revoked  -            -       -            -         -                     cluster
";
        assert_eq!(table(&page).as_deref(), Some(expected));
    }

    #[test]
    fn what_is_understood() {
        let made = order(
            "new --name web --permissions read,write --prefix a: --prefix b: --expires 2027-01-31",
        )
        .expect("it is right");
        let Errand::New { name, entry, node } = &made.errand else {
            panic!("{made:?}");
        };
        assert_eq!((name.as_str(), node), ("web", &None));
        assert_eq!(entry.expires.as_deref(), Some("2027-01-31T00:00:00Z"));
        assert_eq!((entry.permissions.len(), entry.prefixes.len()), (2, 2));
        for line in [
            "list",
            "list --json --url http://h:1",
            "revoke web",
            "revoke web --forget --timeout 1s",
            "revoke web --json",
            "new --name web --roles reader --url http://h:1",
            "new --name web --permissions admin --expires 90d",
        ] {
            assert!(order(line).is_ok(), "{line}");
        }
        for (line, expected) in [
            ("new", "--name"),
            ("new --name web", "web: it has no permission"),
            (
                "new --name default --permissions read",
                "flag --name: \"default\" is no name",
            ),
            (
                "new --name web --permissions reed",
                "web: \"reed\" is no permission",
            ),
            (
                "new --name web --permissions admin --prefix a",
                "web: who may administer",
            ),
            (
                "new --name web --permissions read --expires soon",
                "expected a duration",
            ),
            (
                "new --name web --permissions read --expires 2020-01-31",
                "web: it would have expired already",
            ),
            ("list --url redis://h:1", "flag --url: found redis://h:1"),
            ("revoke", "<NAME>"),
        ] {
            let error = order(line).expect_err(line);
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn what_is_made_here_is_what_a_key_file_takes() {
        let order = order("new --name web.1 --permissions read --prefix a\"\u{7f}b --expires 9d")
            .expect("it is right");
        let text = order.done().expect("no node is asked");
        let (key, entry) = text
            .split_once("\n\nThis is for the file")
            .expect("both are shown");
        let key = key.lines().last().expect("it is the last line");
        let entry = &entry[entry.find('[').expect("a table")..];
        let file: toml::Value = toml::from_str(entry).expect("it is TOML");
        let entry: KeyEntry = file["keys"]["web.1"].clone().try_into().expect("an entry");
        let rule = entry.read().expect("it is right");
        assert!(rule.hash.expect("a hash").is_of(key.as_bytes()));
        assert_eq!(rule.prefixes, [b"a\"\x7fb".to_vec()]);
    }
}
