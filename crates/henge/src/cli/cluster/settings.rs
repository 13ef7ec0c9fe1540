//! `henge cluster settings`, `set` and `unset`: the settings of a whole cluster as a node goes by them, and changes of them, by the
//! routes of the node. What a setting may be is the node's to say.

use clap::{Arg, Command};
use http::Method;
use serde_json::Value;

use super::{columns, path_of, printable};
use crate::cli::client;

const SETTINGS_HELP: &str = "\
Where the source is \"cluster\" all nodes go by the value, whatever their own configuration says; \"node\" is that of the node at
URL; \"ignored\" is one that a later version of Henge has set.

Exit codes:
  0  shown
  2  the command line cannot be understood
  3  it failed: no connection, an error, or no answer";

const CHANGE_HELP: &str = "\
Any node of the cluster can be asked. It takes effect on all of them at once, and lasts.

Exit codes:
  0  done
  2  the command line cannot be understood
  3  it failed: no connection, or the node refused; or it is not known whether it was done. Standard error says which";

/// How long is waited for a change: somewhat longer than a node itself takes where the control leader is lost, so that it says what
/// came of it.
pub(super) const CHANGE_TIMEOUT: &str = "15s";

/// The grammar of the three.
pub(super) fn commands() -> [Command; 3] {
    let node = || {
        [
            client::url().help("The node: http://host:port or https://host:port"),
            client::timeout(),
        ]
    };
    let changing = || {
        let [url, timeout] = node();
        [url, timeout.default_value(CHANGE_TIMEOUT)]
    };
    let name = || {
        Arg::new("name")
            .value_name("NAME")
            .required(true)
            .help("The setting, such as cluster.redirect")
    };
    let value = Arg::new("value")
        .value_name("VALUE")
        .required(true)
        .help("What it is to be, as in a configuration");
    [
        Command::new("settings")
            .about("Show the settings that may hold for the whole cluster")
            .args(node())
            .arg(client::json().help("As JSON, for programs: what GET /cluster/settings says"))
            .after_help(SETTINGS_HELP),
        Command::new("set")
            .about("Set a setting of the whole cluster")
            .args(changing())
            .args([name(), value, client::json()])
            .after_help(CHANGE_HELP),
        Command::new("unset")
            .about("Leave a setting to each node's configuration again")
            .args(changing())
            .args([name(), client::json()])
            .after_help(CHANGE_HELP),
    ]
}

/// A change of a setting; without a value it is left to each node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) name: String,
    pub(super) value: Option<String>,
}

impl Change {
    /// What a node is asked for it.
    pub(super) fn request(&self) -> (Method, String, String) {
        let path = path_of("/cluster/settings/", self.name.as_bytes());
        match &self.value {
            Some(value) => (Method::PUT, path, value.clone()),
            None => (Method::DELETE, path, String::new()),
        }
    }

    /// What was done, for people.
    pub(super) fn done(&self, answer: &Value) -> String {
        match &self.value {
            None => format!("{} is each node's own\n", self.name),
            Some(value) => {
                let is = answer["value"].as_str().unwrap_or(value);
                let version = &answer["version"];
                let is = printable(is);
                format!(
                    "{} is {is} in the whole cluster (version {version})\n",
                    self.name
                )
            }
        }
    }
}

/// The settings for people; none if what came has none.
pub(super) fn table(page: &Value) -> Option<String> {
    let mut rows = vec![["NAME", "VALUE", "SOURCE", "VERSION"].map(str::to_owned)];
    for setting in page["settings"].as_array()? {
        let word = |name: &str| setting[name].as_str().map(printable);
        let value = word("value").or_else(|| word("cluster_value"));
        let version = setting["version"].as_u64();
        rows.push([
            word("name")?,
            value.unwrap_or_else(|| "-".to_owned()),
            word("source")?,
            version.map_or("-".to_owned(), |version| version.to_string()),
        ]);
    }
    Some(columns(&rows, &[3]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_are_rows() {
        let page = json!({"settings": [
            {"name": "cluster.redirect", "value": "true", "source": "node", "cluster_value": null, "version": null},
            {"name": "later", "value": null, "source": "ignored", "cluster_value": "7", "version": 12},
        ]});
        let expected = "\
NAME              VALUE  SOURCE   VERSION
cluster.redirect  true   node           -
later             7      ignored       12
";
        assert_eq!(table(&page).as_deref(), Some(expected));
        assert_eq!(table(&json!({})), None);
    }

    #[test]
    fn changes_are_requests() {
        let change = |value: Option<&str>| Change {
            name: "a.b/c".to_owned(),
            value: value.map(str::to_owned),
        };
        let (method, path, body) = change(Some("true")).request();
        assert_eq!(
            (method, &*path, &*body),
            (Method::PUT, "/cluster/settings/a.b%2Fc", "true")
        );
        let (method, ..) = change(None).request();
        assert_eq!(method, Method::DELETE);
        assert_eq!(
            change(Some("x")).done(&json!({"value": "y", "version": 4})),
            "a.b/c is y in the whole cluster (version 4)\n"
        );
    }
}
