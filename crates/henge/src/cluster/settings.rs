//! The settings that may hold for a whole cluster: which there are, what they may be, and what a node makes of those that are
//! agreed on. Each is one of the node's own configuration, whose name, values and meaning it has; where the cluster has a value,
//! that goes before the node's. Nothing is proposed here.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use henge_cluster::agreed::Setting as Agreed;
use serde::Serialize;

use crate::access::agreed::is_access;
use crate::access::hash::quoted;
use crate::config::{ByteSize, Config, Interval, Literal, Setting, SettingError, nearest};
use crate::shared::Live;

/// A setting that may hold for a whole cluster.
struct Wide {
    /// Its name in the configuration, which has its values and what it means.
    name: &'static str,
    /// Has what the cluster says in force.
    take: fn(&mut InForce, &Config),
    /// What holds on a node where the cluster says nothing.
    own: fn(&Live) -> String,
}

/// All of them.
static ALL: [Wide; 3] = [
    Wide {
        name: "cluster.redirect",
        take: |to, config| to.redirect = Some(config.cluster.redirect),
        own: |live| live.redirect.to_string(),
    },
    Wide {
        name: "cluster.down_timeout",
        take: |to, config| {
            let timeout = config.cluster.down_timeout;
            to.down_timeout = Some(Bound(timeout.map(Interval::as_duration)));
        },
        own: |live| {
            or_none(
                live.down_timeout
                    .map(|time| Interval::seconds(time.as_secs())),
            )
        },
    },
    Wide {
        name: "cluster.move_rate",
        take: |to, config| {
            let rate = config.cluster.move_rate;
            to.move_rate = Some(Bound(rate.map(|rate| rate.as_usize() as u64)));
        },
        own: |live| or_none(live.move_rate.map(ByteSize::bytes)),
    },
];

/// As a configuration says it.
fn or_none(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

/// What the cluster says, as requests need it; none where a node goes by its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct InForce {
    redirect: Option<bool>,
    down_timeout: Option<Bound<Duration>>,
    move_rate: Option<Bound<u64>>,
}

/// What may be without a bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Bound<T>(Option<T>);

/// The settings of a cluster, as one node understands them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Settings {
    agreed: BTreeMap<String, Agreed>,
    in_force: InForce,
    /// Those that this node can do nothing with, and why.
    ignored: BTreeMap<String, String>,
}

/// A setting, as it is shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Shown {
    pub(crate) name: String,
    /// What holds on this node; none of one that it does not know.
    pub(crate) value: Option<String>,
    /// Where that is from.
    pub(crate) source: Source,
    /// What the cluster says, if anything.
    pub(crate) cluster_value: Option<String>,
    /// The number of the change that made it so.
    pub(crate) version: Option<u64>,
    /// What it means, or why it is ignored.
    pub(crate) about: String,
}

/// Where the value of a setting is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// All agree on it.
    Cluster,
    /// The node's own configuration.
    Node,
    /// The cluster has one, of which this node understands nothing.
    Ignored,
}

/// Why a setting cannot be set. Nothing was proposed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unfit {
    /// There is none of the name.
    Unknown(String),
    /// It cannot have the value.
    Invalid(SettingError),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(error) => error.fmt(f),
            Self::Unknown(name) => {
                // What came is shown, but not all of a long one.
                let shown = quoted(name);
                write!(f, "no setting {shown} can hold for a whole cluster")?;
                if let Some(near) = nearest(name, names()) {
                    write!(f, "; did you mean {near:?}?")?;
                }
                let names: Vec<&str> = names().collect();
                write!(f, "; there is {}", names.join(", "))
            }
        }
    }
}

impl std::error::Error for Unfit {}

/// The names of all of them.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|wide| wide.name)
}

/// A value of a setting, as it is agreed on.
pub(crate) fn checked(name: &str, value: &str) -> Result<String, Unfit> {
    let (setting, config) = read(name, value)?;
    Ok(match setting.value(&config) {
        Literal::Text(text) | Literal::Untyped(text) => text,
        other => other.render(),
    })
}

/// Whether a setting may hold for a whole cluster.
pub(crate) fn is_known(name: &str) -> bool {
    wide(name).is_some()
}

fn wide(name: &str) -> Option<&'static Wide> {
    ALL.iter().find(|wide| wide.name == name)
}

/// A configuration with one setting in it.
fn read(name: &str, value: &str) -> Result<(&'static Setting, Config), Unfit> {
    let found = wide(name).and_then(|wide| Setting::find(wide.name));
    let setting = found.ok_or_else(|| Unfit::Unknown(name.to_owned()))?;
    let mut config = Config::default();
    let literal = Literal::Untyped(value.to_owned());
    let assigned = setting.assign(&mut config, &literal);
    assigned.map_err(Unfit::Invalid)?;
    Ok((setting, config))
}

impl Settings {
    /// What a node makes of what is agreed on. What it does not know, as a later version has set it, it leaves alone.
    pub(crate) fn of(agreed: &BTreeMap<String, Agreed>) -> Self {
        let mut settings = Self {
            agreed: agreed.clone(),
            ..Self::default()
        };
        // Keys and roles are read by others.
        for (name, setting) in agreed.iter().filter(|(name, _)| !is_access(name)) {
            match (wide(name), read(name, &setting.value)) {
                (Some(wide), Ok((_, config))) => (wide.take)(&mut settings.in_force, &config),
                (_, Err(why)) => {
                    settings.ignored.insert(name.clone(), why.to_string());
                }
                (None, Ok(_)) => unreachable!("what is read is known"),
            }
        }
        settings
    }

    /// What all agree on.
    pub(crate) fn agreed(&self) -> &BTreeMap<String, Agreed> {
        &self.agreed
    }

    /// Those that this node ignores, and why, which it did not ignore as they were before.
    pub(crate) fn newly_ignored<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let is_new = |name: &str| before.agreed.get(name) != self.agreed.get(name);
        let new = self.ignored.iter().filter(move |(name, _)| is_new(name));
        new.map(|(name, why)| (name.as_str(), why.as_str()))
    }

    /// Whether who knows the map of the cluster is told where else a key is; none where each node says so itself.
    pub(crate) fn redirect(&self) -> Option<bool> {
        self.in_force.redirect
    }

    /// After how long others take the place of a node that is down.
    pub(crate) fn down_timeout(&self, live: &Live) -> Option<Duration> {
        let agreed = self.in_force.down_timeout;
        agreed.map_or(live.down_timeout, |Bound(timeout)| timeout)
    }

    /// How many bytes a second this node sends for moves.
    pub(crate) fn move_rate(&self, live: &Live) -> Option<u64> {
        let agreed = self.in_force.move_rate;
        agreed.map_or(live.move_rate, |Bound(rate)| rate)
    }

    /// All settings, those that the cluster has no value of among them.
    pub(crate) fn shown(&self, live: &Live) -> Vec<Shown> {
        let known = ALL.iter().map(|wide| {
            let agreed = self.agreed.get(wide.name);
            let is_ignored = self.ignored.contains_key(wide.name);
            let held = agreed.filter(|_| !is_ignored);
            let about = Setting::find(wide.name).map(Setting::doc);
            Shown {
                name: wide.name.to_owned(),
                value: Some(held.map_or_else(|| (wide.own)(live), |agreed| agreed.value.clone())),
                source: if held.is_some() {
                    Source::Cluster
                } else {
                    Source::Node
                },
                cluster_value: agreed.map(|agreed| agreed.value.clone()),
                version: agreed.map(|agreed| agreed.version),
                about: match self.ignored.get(wide.name) {
                    Some(why) => why.clone(),
                    None => about.unwrap_or_default().to_owned(),
                },
            }
        });
        let unknown = self.ignored.iter().filter(|(name, _)| !is_known(name));
        let unknown = unknown.filter_map(|(name, why)| {
            let agreed = self.agreed.get(name)?;
            Some(Shown {
                name: name.clone(),
                value: None,
                source: Source::Ignored,
                cluster_value: Some(agreed.value.clone()),
                version: Some(agreed.version),
                about: why.clone(),
            })
        });
        known.chain(unknown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(settings: &[(&str, &str, u64)]) -> BTreeMap<String, Agreed> {
        let all = settings.iter().map(|&(name, value, version)| {
            let value = value.to_owned();
            (name.to_owned(), Agreed { value, version })
        });
        all.collect()
    }

    #[test]
    fn each_is_a_setting_of_the_configuration_that_can_change() {
        for wide in &ALL {
            let setting = Setting::find(wide.name).expect("it is in the configuration");
            assert!(setting.is_reloadable(), "{}", wide.name);
            let own = (wide.own)(&Live::of(&Config::default()));
            assert_eq!(checked(wide.name, &own), Ok(own));
        }
    }

    #[test]
    fn what_can_be_set() {
        for (name, value, expected) in [
            ("cluster.redirect", "false", Ok("false")),
            (
                "cluster.redirect",
                "maybe",
                Err("cluster.redirect: found \"maybe\", expected true or false"),
            ),
            (
                "cluster.redirects",
                "true",
                Err(
                    "no setting \"cluster.redirects\" can hold for a whole cluster; did you mean \"cluster.redirect\"?; there is cluster.redirect, cluster.down_timeout, cluster.move_rate",
                ),
            ),
            ("cluster.down_timeout", "300s", Ok("5m")),
            ("cluster.down_timeout", "none", Ok("none")),
            ("cluster.move_rate", "1MiB", Ok("1MiB")),
            (
                "cache.policy",
                "lfu",
                Err(
                    "no setting \"cache.policy\" can hold for a whole cluster; there is cluster.redirect, cluster.down_timeout, cluster.move_rate",
                ),
            ),
        ] {
            let found = checked(name, value).map_err(|unfit| unfit.to_string());
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_cluster_goes_before_the_node() {
        let mut config = Config::default();
        config.cluster.redirect = true;
        let live = Live::of(&config);
        let none = Settings::default();
        let own = &none.shown(&live)[0];
        assert_eq!(none.redirect(), None);
        assert_eq!(
            (own.value.as_deref(), own.source, own.version),
            (Some("true"), Source::Node, None)
        );
        let set = Settings::of(&agreed(&[("cluster.redirect", "false", 3)]));
        let held = &set.shown(&live)[0];
        assert_eq!(set.redirect(), Some(false));
        assert_eq!(
            (held.value.as_deref(), held.source, held.version),
            (Some("false"), Source::Cluster, Some(3))
        );
    }

    /// None of both is a value as well.
    #[test]
    fn what_has_no_bound_in_the_cluster_has_none_on_a_node() {
        let live = Live::of(&Config::default());
        let none = Settings::default();
        let five_minutes = Duration::from_mins(5);
        assert_eq!(none.down_timeout(&live), Some(five_minutes));
        assert_eq!(none.move_rate(&live), Some(16 << 20));
        let set = [
            ("cluster.down_timeout", "none", 3),
            ("cluster.move_rate", "1MiB", 4),
        ];
        let set = Settings::of(&agreed(&set));
        assert_eq!(set.down_timeout(&live), None);
        assert_eq!(set.move_rate(&live), Some(1 << 20));
    }

    #[test]
    fn what_a_later_version_has_set_is_kept_and_told_once() {
        let live = Live::of(&Config::default());
        let before = Settings::default();
        let all = agreed(&[("cluster.redirect", "maybe", 4), ("later.one", "7", 5)]);
        let settings = Settings::of(&all);
        let told = |before: &Settings| -> Vec<String> {
            let ignored = settings.newly_ignored(before);
            ignored.map(|(name, _)| name.to_owned()).collect()
        };
        assert_eq!(told(&before), ["cluster.redirect", "later.one"]);
        assert_eq!(told(&settings), [""; 0]);
        assert_eq!(settings.agreed(), &all);
        assert_eq!(settings.redirect(), None);
        let shown = settings.shown(&live);
        assert_eq!(shown.len(), ALL.len() + 1);
        let (redirect, later) = (&shown[0], &shown[ALL.len()]);
        assert_eq!(
            (redirect.source, redirect.value.as_deref()),
            (Source::Node, Some("true"))
        );
        assert_eq!(redirect.cluster_value.as_deref(), Some("maybe"));
        assert_eq!((later.source, &later.value), (Source::Ignored, &None));
        assert_eq!(later.version, Some(5));
    }
}
