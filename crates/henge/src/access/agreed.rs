//! Keys and roles that a whole cluster has agreed on: they travel as its settings do, under names of their own, and are
//! shown and changed by routes of their own. Here is their form there; nothing is proposed.

use std::collections::BTreeMap;

use henge_cluster::agreed::{MAX_SETTINGS, MAX_SETTINGS_BYTES, Setting};

use super::entry::{self, KeyEntry, KeyRule};
use super::permission::Permissions;

/// How the names of such settings begin.
const KEY: &str = "key.";
const ROLE: &str = "role.";
/// The value of a key that was revoked.
pub(crate) const REVOKED: &str = "revoked";

/// What a cluster says of the key of a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum AgreedKey {
    Held(KeyRule),
    /// No key of the name holds, whatever the file of a node says.
    Revoked,
}

/// The keys and roles of a cluster, as one node understands them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Agreed {
    pub(crate) keys: BTreeMap<String, AgreedKey>,
    pub(crate) roles: BTreeMap<String, Permissions>,
    /// Which change has made each of these settings what it is.
    pub(crate) versions: BTreeMap<String, u64>,
    /// Whether there is room for more of them.
    pub(crate) has_room: bool,
}

impl Default for Agreed {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            roles: BTreeMap::new(),
            versions: BTreeMap::new(),
            has_room: true,
        }
    }
}

/// The name of the setting that has a key.
pub(crate) fn key_setting(name: &str) -> String {
    format!("{KEY}{name}")
}

/// The name of the setting that has a role.
pub(crate) fn role_setting(name: &str) -> String {
    format!("{ROLE}{name}")
}

/// Whether a setting of the cluster is a key or a role, which are not shown among the others.
pub(crate) fn is_access(setting: &str) -> bool {
    setting.starts_with(KEY) || setting.starts_with(ROLE)
}

/// What a change of a setting that is a key or a role is told as; none of another. Neither its name nor what it is: who may only
/// read hears of it.
pub(crate) fn told(setting: &str, value: Option<&str>) -> Option<&'static str> {
    let is_key = setting.starts_with(KEY);
    if !is_key && !setting.starts_with(ROLE) {
        return None;
    }
    Some(match (is_key, value) {
        (true, Some(REVOKED)) => "an API key was revoked in the whole cluster",
        (true, Some(_)) => "an API key was made for the whole cluster",
        (true, None) => "the cluster has forgotten an API key",
        (false, Some(_)) => "a role was set in the whole cluster",
        (false, None) => "the cluster has forgotten a role",
    })
}

impl KeyEntry {
    /// As the value of a setting.
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("it is texts and lists of texts")
    }
}

impl Agreed {
    /// What a node makes of what is agreed on. A key of which it understands nothing, as a later version has made it, is as good as
    /// revoked here: it lets nobody in.
    pub(crate) fn of(settings: &BTreeMap<String, Setting>) -> Self {
        let bytes = settings
            .iter()
            .map(|(name, value)| name.len() + value.value.len());
        let mut agreed = Self {
            has_room: settings.len() < MAX_SETTINGS * 3 / 4
                && bytes.sum::<usize>() < MAX_SETTINGS_BYTES * 3 / 4,
            ..Self::default()
        };
        for (setting, value) in settings {
            if is_access(setting) {
                agreed.versions.insert(setting.clone(), value.version);
            }
            if let Some(name) = setting.strip_prefix(KEY) {
                let read = || -> Option<KeyRule> {
                    let entry: KeyEntry = serde_json::from_str(&value.value).ok()?;
                    entry.read().ok()
                };
                let key = read().map_or(AgreedKey::Revoked, AgreedKey::Held);
                agreed.keys.insert(name.to_owned(), key);
            } else if let Some(name) = setting.strip_prefix(ROLE) {
                let names = serde_json::from_str(&value.value).ok();
                let held = names.and_then(|names| entry::permissions(&names).ok());
                agreed
                    .roles
                    .insert(name.to_owned(), held.unwrap_or_default());
            }
        }
        agreed
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// What a cluster with these settings says.
    pub(in crate::access) fn agreed(settings: &[(&str, &str)]) -> Agreed {
        let settings = (1..).zip(settings).map(|(version, (name, value))| {
            let value = (*value).to_owned();
            ((*name).to_owned(), Setting { value, version })
        });
        Agreed::of(&settings.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::NewKey;
    use super::testing::agreed;
    use super::*;

    #[test]
    fn what_is_told_of_a_change() {
        let hash = NewKey::draw().hash.to_string();
        for (setting, value, expected) in [
            (
                "key.a",
                Some(&*hash),
                Some("an API key was made for the whole cluster"),
            ),
            (
                "key.a",
                Some(REVOKED),
                Some("an API key was revoked in the whole cluster"),
            ),
            ("key.a", None, Some("the cluster has forgotten an API key")),
            (
                "role.r",
                Some("[]"),
                Some("a role was set in the whole cluster"),
            ),
            ("role.r", None, Some("the cluster has forgotten a role")),
            ("cluster.redirect", Some("true"), None),
        ] {
            assert_eq!(told(setting, value), expected, "{setting}");
        }
    }

    #[test]
    fn what_is_not_understood_lets_nobody_in() {
        let entry = KeyEntry {
            hash: Some(NewKey::draw().hash.to_string()),
            permissions: ["read".to_owned()].into(),
            ..KeyEntry::default()
        };
        let text = entry.to_text();
        let later = text.replacen('{', "{\"later\":1,", 1);
        let found = agreed(&[
            ("key.a", &text),
            ("key.b", REVOKED),
            ("key.c", &later),
            ("key.d", ""),
            ("role.r", "[\"read\",\"write\"]"),
            ("role.s", "[\"later\"]"),
            ("cluster.redirect", "true"),
        ]);
        let rule = entry.read().expect("it is right");
        assert_eq!(found.keys["a"], AgreedKey::Held(rule));
        for name in ["b", "c", "d"] {
            assert_eq!(found.keys[name], AgreedKey::Revoked, "{name}");
        }
        assert_eq!(found.keys.len(), 4);
        assert_eq!(found.roles["r"].to_string(), "read, write");
        assert!(found.roles["s"].is_empty());
        assert!(is_access("key.a") && is_access("role.r") && !is_access("cluster.redirect"));
    }
}
