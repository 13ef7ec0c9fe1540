//! What a new configuration means for a running node: what it takes over at once, and what waits for a restart.
//!
//! Pure: it compares two configurations. Reading the sources again is [`Sources::load`](super::Sources::load); acting on
//! the changes is the node's part.

use super::literal::Literal;
use super::settings::{Config, SETTINGS, Setting};

/// One setting that has another value now.
#[derive(Debug)]
pub struct Change {
    /// The setting.
    pub setting: &'static Setting,
    /// Its value in the running node.
    pub before: Literal,
    /// Its value in the new configuration.
    pub after: Literal,
}

/// One line for a log: `cache.max_items: 3 -> 4`.
impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {} -> {}",
            self.setting.name(),
            self.before.render(),
            self.after.render()
        )
    }
}

/// The outcome of a reload.
#[derive(Debug)]
pub struct Reload {
    /// What is in force from now on: the new values of what is reloadable, the running ones of the rest.
    pub config: Config,
    /// The reloadable settings that changed.
    pub changed: Vec<Change>,
    /// The settings whose new value waits for a restart. They differ anew at each reload until then.
    pub needs_restart: Vec<Change>,
}

impl Config {
    /// What becomes of this running configuration when `loaded` is put beside it.
    pub fn reload(&self, loaded: &Self) -> Reload {
        let mut reload = Reload {
            config: self.clone(),
            changed: Vec::new(),
            needs_restart: Vec::new(),
        };
        for setting in SETTINGS {
            let (before, after) = (setting.value(self), setting.value(loaded));
            if before == after {
                continue;
            }
            let change = Change {
                setting,
                before,
                after,
            };
            if setting.is_reloadable() {
                setting.copy(loaded, &mut reload.config);
                reload.changed.push(change);
            } else {
                reload.needs_restart.push(change);
            }
        }
        reload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reloadable() {
        let waiting: Vec<_> = SETTINGS
            .iter()
            .filter(|setting| !setting.is_reloadable())
            .map(Setting::name)
            .collect();
        assert_eq!(
            waiting,
            [
                "server.listen",
                "server.resp_listen",
                "cluster.node_id",
                "cluster.peers",
                "cluster.advertise",
                "cluster.replication_factor",
                "cache.policy",
                "persistence.enabled",
                "persistence.dir",
                "persistence.sync",
                "persistence.encryption",
                "persistence.key_file",
                "audit.file",
                "audit.max_size_bytes",
                "audit.keep_files",
                "tracing.endpoint",
                "log.format"
            ]
        );
    }

    #[test]
    fn takes_over_what_it_can_and_names_the_rest() {
        // What differs from the defaults, and the two lists.
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], &'a [&'a str]);
        let cases: &[Case<'_>] = &[
            (&[], &[], &[]),
            (
                &[
                    ("cache.max_size_bytes", "auto"),
                    ("limits.max_batch_items", "10000"),
                ],
                &[],
                &[],
            ),
            (
                &[("cache.max_items", "4")],
                &["cache.max_items: \"none\" -> 4"],
                &[],
            ),
            (
                &[("cache.policy", "lfu")],
                &[],
                &["cache.policy: \"lru\" -> \"lfu\""],
            ),
            (
                &[
                    ("log.level", "debug"),
                    ("server.listen", ":9"),
                    ("cache.memory_trigger", "1"),
                ],
                &[
                    "cache.memory_trigger: 0.9 -> 1.0",
                    "log.level: \"info\" -> \"debug\"",
                ],
                &["server.listen: \":8080\" -> \":9\""],
            ),
        ];
        for (values, changed, needs_restart) in cases {
            let running = Config::default();
            let mut loaded = running.clone();
            for (name, value) in *values {
                assert_eq!(loaded.set(name, value), Ok(()));
            }
            let reload = running.reload(&loaded);
            let lines =
                |changes: &[Change]| changes.iter().map(ToString::to_string).collect::<Vec<_>>();
            assert_eq!(lines(&reload.changed), *changed);
            assert_eq!(lines(&reload.needs_restart), *needs_restart);

            let again = reload.config.reload(&loaded);
            assert_eq!(
                lines(&again.changed),
                Vec::<String>::new(),
                "what could change has"
            );
            assert_eq!(lines(&again.needs_restart), *needs_restart);
        }
    }
}
