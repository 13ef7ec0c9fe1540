//! What a node is told: every setting, from defaults, a file, the environment and the command line.
//!
//! `settings` defines each setting once; `types` and `peers` say what their values are; `layers` stacks the sources and remembers
//! which one each value came from; `reload` tells what changed and what a running node may take over; `print` shows it
//! all. Nothing here starts, measures or resolves anything: `cache.max_size_bytes = "auto"` and a host's name stay what
//! they are until the node starts.

mod collector;
mod document;
mod layers;
mod literal;
#[cfg(test)]
mod page;
mod peers;
mod print;
mod reload;
mod settings;
mod suggest;
mod types;
mod web;

use std::fmt;

/// The types of two settings that are the engine's own.
pub use henge_engine::{PolicyKind, compress::Algorithm};

pub use collector::CollectorUrl;
pub(crate) use layers::shown;
pub use layers::{FlagSetting, Loaded, Origin, Sources};
pub use literal::Literal;
pub use peers::{PeerAddress, Peers};
pub use reload::{Change, Reload};
pub use settings::{
    AuditConfig, CacheConfig, ClusterConfig, CompressionConfig, Config, CorsConfig, InsightConfig,
    LimitsConfig, LogConfig, PersistenceConfig, RateLimitsConfig, SETTINGS, SecurityConfig,
    ServerConfig, Setting, SettingError, TlsConfig,
};
pub(crate) use suggest::nearest;
pub use types::{
    ByteSize, CacheSize, ConsistencyLevel, DirectoryPath, EncryptionCipher, FilePath, Interval,
    InvalidValue, ListenAddress, LogFormat, LogLevel, NodeId, SyncPolicy,
};
pub use web::{Origins, Tokens};

/// A configuration that cannot be used: all that is wrong with it, one line each.
///
/// Nothing was changed: a node that reloads keeps what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// At least one problem, in the order in which they were found.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Something that the configuration names cannot be used: what, and why.
    pub(crate) fn unusable(problem: impl fmt::Display) -> Self {
        Self {
            problems: vec![problem.to_string()],
        }
    }

    pub(crate) fn of(problems: Vec<String>) -> Result<(), Self> {
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Self { problems })
        }
    }
}

/// One line for one problem; a count and a list for several.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = &self.problems[..] {
            return f.write_str(only);
        }
        write!(f, "{} errors in the configuration:", self.problems.len())?;
        self.problems
            .iter()
            .try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for ConfigError {}

/// Two settings whose values do not go together.
pub(crate) struct Conflict {
    settings: [&'static str; 2],
    /// Each names both settings, says what the rule is, and ends with what it is for.
    rule: &'static str,
}

impl Conflict {
    /// The conflict in one line; `source` tells of a setting where its value came from.
    fn describe(&self, config: &Config, source: impl Fn(&Setting) -> Option<String>) -> String {
        let values: Vec<String> = self
            .settings
            .iter()
            .filter_map(|name| Setting::find(name))
            .map(|setting| {
                let value = setting.value(config).render();
                match source(setting) {
                    Some(source) => format!("{} = {value} ({source})", setting.name()),
                    None => format!("{} = {value}", setting.name()),
                }
            })
            .collect();
        format!("{} do not go together: {}", values.join(" and "), self.rule)
    }
}

impl Config {
    /// Sets a setting by its name, as a flag would: `config.set("cache.max_items", "3")`.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let setting = Setting::find(name).ok_or_else(|| SettingError::unknown(name))?;
        setting.assign(self, &Literal::Untyped(value.to_owned()))
    }

    /// Checks every bound, and every rule about two settings: for configurations that a program built itself.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut scratch = Self::default();
        let mut problems: Vec<String> = SETTINGS
            .iter()
            .filter_map(|setting| setting.assign(&mut scratch, &setting.value(self)).err())
            .map(|error| error.to_string())
            .collect();
        problems.extend(
            self.conflicts()
                .iter()
                .map(|conflict| conflict.describe(self, |_| None)),
        );
        ConfigError::of(problems)
    }

    /// The settings that are sound by themselves but not together. Both of a pair are reloadable or neither is, so that
    /// a reload cannot bring about a conflict that the file does not have.
    pub(crate) fn conflicts(&self) -> Vec<Conflict> {
        // What is past the bound of the node is said to be past that, and no more.
        let is_past_share = |bytes: ByteSize| {
            let share = self.limits.max_inflight_bytes_per_address;
            bytes <= self.limits.max_inflight_bytes && share.is_some_and(|share| bytes > share)
        };
        let rules = [
            (
                self.limits.max_value_bytes > self.limits.max_inflight_bytes,
                ["limits.max_value_bytes", "limits.max_inflight_bytes"],
                "the first must be at most the second, or the largest value could never be received",
            ),
            (
                self.limits.max_body_bytes > self.limits.max_inflight_bytes,
                ["limits.max_body_bytes", "limits.max_inflight_bytes"],
                "the first must be at most the second, or the largest body could never be received",
            ),
            (
                is_past_share(self.limits.max_value_bytes),
                [
                    "limits.max_value_bytes",
                    "limits.max_inflight_bytes_per_address",
                ],
                "the first must be at most the second, or the largest value could never be received",
            ),
            (
                is_past_share(self.limits.max_body_bytes),
                [
                    "limits.max_body_bytes",
                    "limits.max_inflight_bytes_per_address",
                ],
                "the first must be at most the second, or the largest body could never be received",
            ),
            (
                // libdeflater's levels end at 12.
                self.compression.algorithm == Some(Algorithm::Gzip) && self.compression.level > 12,
                ["compression.level", "compression.algorithm"],
                "gzip has levels 1 to 12",
            ),
            (
                self.cluster.accepted_secret_file.is_some() && self.cluster.secret_file.is_none(),
                ["cluster.accepted_secret_file", "cluster.secret_file"],
                "a node accepts another secret beside the one that it uses, and uses none",
            ),
            (
                self.tls.certificate_file.is_some() != self.tls.key_file.is_some(),
                ["tls.certificate_file", "tls.key_file"],
                "a certificate is of no use without its private key, nor a key without its certificate",
            ),
            (
                self.tls.client_ca_file.is_some() && self.tls.certificate_file.is_none(),
                ["tls.client_ca_file", "tls.certificate_file"],
                "clients are asked for a certificate over TLS only, for which the node needs one itself",
            ),
            (
                self.tls.required && self.tls.certificate_file.is_none(),
                ["tls.required", "tls.certificate_file"],
                "without a certificate nobody could be served",
            ),
            (
                self.cors.credentials && self.cors.origins == Origins::Any,
                ["cors.credentials", "cors.origins"],
                "with credentials a page acts as its visitor, which is for listed origins only",
            ),
        ];
        rules
            .into_iter()
            .filter(|(broken, ..)| *broken)
            .map(|(_, settings, rule)| Conflict { settings, rule })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_by_name() {
        let mut config = Config::default();
        assert_eq!(config.set("cache.max_items", "3"), Ok(()));
        assert_eq!(config.cache.max_items, Some(3));
        assert_eq!(
            config
                .set("cache.max_item", "3")
                .map_err(|error| error.to_string()),
            Err("unknown setting \"cache.max_item\"; did you mean \"cache.max_items\"?".to_owned())
        );
        assert_eq!(
            config.set("cache.max_items", "0").map_err(|error| error.to_string()),
            Err("cache.max_items: found \"0\", expected an integer from 1 to 9223372036854775807, or \"none\"".to_owned())
        );
    }

    /// What is set, and the two settings that the conflict names; none where all is well.
    type Case<'a> = (&'a [(&'a str, &'a str)], Option<[&'a str; 2]>);

    #[test]
    fn a_program_s_configuration_is_checked() {
        assert_eq!(Config::default().validate(), Ok(()));

        let mut config = Config::default();
        config.cache.cleanup_interval_ms = 0;
        let problems = config
            .validate()
            .expect_err("0 is out of bounds")
            .problems()
            .to_vec();
        assert_eq!(
            problems,
            ["cache.cleanup_interval_ms: found 0, expected an integer from 1 to 60000"]
        );

        let cases: &[Case<'_>] = &[
            (&[("limits.max_inflight_bytes", "128MiB")], None),
            (
                &[("limits.max_value_bytes", "600MiB")],
                Some([
                    "limits.max_value_bytes = \"600MiB\"",
                    "limits.max_inflight_bytes = \"512MiB\"",
                ]),
            ),
            (
                &[("limits.max_inflight_bytes", "100MiB")],
                Some([
                    "limits.max_body_bytes = \"128MiB\"",
                    "limits.max_inflight_bytes = \"100MiB\"",
                ]),
            ),
            (
                &[("cluster.accepted_secret_file", "/next")],
                Some([
                    "cluster.accepted_secret_file = \"/next\"",
                    "cluster.secret_file = \"none\"",
                ]),
            ),
            (
                &[("limits.max_inflight_bytes_per_address", "100MiB")],
                Some([
                    "limits.max_body_bytes = \"128MiB\"",
                    "limits.max_inflight_bytes_per_address = \"100MiB\"",
                ]),
            ),
            (
                &[("limits.max_value_bytes", "300MiB")],
                Some([
                    "limits.max_value_bytes = \"300MiB\"",
                    "limits.max_inflight_bytes_per_address = \"256MiB\"",
                ]),
            ),
            (
                &[
                    ("limits.max_value_bytes", "300MiB"),
                    ("limits.max_inflight_bytes_per_address", "none"),
                ],
                None,
            ),
            (&[("compression.level", "12")], None),
            (
                &[("compression.level", "13")],
                Some(["compression.level = 13", "compression.algorithm = \"gzip\""]),
            ),
            (
                &[
                    ("compression.level", "19"),
                    ("compression.algorithm", "zstd"),
                ],
                None,
            ),
        ];
        for (values, named) in cases {
            let mut config = Config::default();
            for (name, value) in *values {
                assert_eq!(config.set(name, value), Ok(()));
            }
            let problems = config
                .validate()
                .err()
                .map_or_else(Vec::new, |error| error.problems().to_vec());
            match named {
                None => assert_eq!(problems, Vec::<String>::new(), "{values:?}"),
                Some([first, second]) => {
                    assert_eq!(problems.len(), 1, "{problems:?}");
                    assert!(
                        problems[0]
                            .starts_with(&format!("{first} and {second} do not go together: ")),
                        "{problems:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_reload_cannot_split_a_pair() {
        let mut config = Config::default();
        config.limits.max_inflight_bytes = ByteSize::bytes(1);
        config.compression.level = 13;
        let conflicts = config.conflicts();
        assert_eq!(conflicts.len(), 3, "all the rules there are");
        for conflict in conflicts {
            let [first, second] = conflict
                .settings
                .map(|name| Setting::find(name).expect("rules name settings"));
            assert_eq!(first.is_reloadable(), second.is_reloadable());
        }
    }
}
