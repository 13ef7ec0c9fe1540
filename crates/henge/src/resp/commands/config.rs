//! `CONFIG`: the settings, under their own names and under those that Redis has for the same things. What Redis can be set to
//! and Henge always is can be read; to set it to what it is changes nothing, and to anything else is refused.

use std::ops::RangeInclusive;
use std::sync::Arc;

use henge_wire::Glob;
use henge_wire::resp::request::integer;

use super::aside::aside;
use crate::admin::{Admin, AlterError};
use crate::config::{Config, Literal, SETTINGS, Setting, SyncPolicy};
use crate::insight::slow;
use crate::resp::call::{Call, ErrorReply, Flow, check_pattern};
use crate::resp::connection::KEEPALIVE;
use crate::resp::pipeline::{request_limits, shown};
use crate::resp::statistics::Statistics;
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};
use crate::resp::{Server, help};
use crate::shared::Shared;

pub(in crate::resp) const COMMANDS: &[Spec] = &[Spec {
    name: "config",
    syntax: "",
    arity: -2,
    flags: 0,
    keys: Keys::NONE,
    permission: Permission::Observe,
    group: Group::Server,
    since: "2.0.0",
    complexity: "Depends on the subcommand",
    summary: "Reads and changes settings",
    run: Run::Family(FAMILY),
}];

const FAMILY: &[Spec] = &[
    Spec {
        name: "config|get",
        syntax: "parameter [parameter ...]",
        arity: -3,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Server,
        since: "2.0.0",
        complexity: "O(N) where N is the number of settings times that of patterns",
        summary: "Gives the settings that patterns match",
        run: Run::Handler(get),
    },
    Spec {
        name: "config|set",
        syntax: "parameter value [parameter value ...]",
        arity: -4,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::SECRET_VALUES,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Server,
        since: "2.0.0",
        complexity: "O(N) where N is the number of settings, and what evicting takes if a limit is lowered",
        summary: "Changes settings until the next restart or reload: all that are named, or none",
        run: Run::Handler(set),
    },
    Spec {
        name: "config|resetstat",
        syntax: "",
        arity: 2,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Server,
        since: "2.0.0",
        complexity: "O(N) where N is the number of commands",
        summary: "Has the counts of INFO begin again",
        run: Run::Handler(reset_statistics),
    },
    Spec {
        name: "config|rewrite",
        syntax: "",
        arity: 2,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Server,
        since: "2.8.0",
        complexity: "O(1)",
        summary: "Is refused, as the configuration file is never written",
        run: Run::Handler(rewrite),
    },
    help::definition("config|help", Group::Server, "5.0.0"),
];

/// Patterns that are looked for at once; more are not for the data thread.
const PATTERNS_AT_ONCE: usize = 16;

/// A setting under a name of Redis's.
struct Parameter {
    name: &'static str,
    read: fn(&Config, &Admin) -> String,
    write: Write,
}

/// How a parameter is changed.
#[derive(Clone, Copy)]
enum Write {
    /// It changes a setting.
    Setting(&'static str, Form),
    /// It changes what is no setting, in these bounds.
    State(fn() -> RangeInclusive<i64>, fn(&Shared, i64)),
    /// It does not change.
    Never,
}

/// How the values of a parameter are written.
#[derive(Clone, Copy)]
enum Form {
    Memory,
    Integer,
    /// Seconds, where the setting has milliseconds.
    Seconds,
    /// Words, and the setting's own for them.
    Words(&'static [(&'static str, &'static str)]),
}

fn yes_or_no(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

const POLICIES: &[(&str, &str)] = &[
    ("volatile-ttl", "ttl"),
    ("allkeys-lru", "lru"),
    ("allkeys-lfu", "lfu"),
    ("allkeys-random", "random"),
];

/// From the most to the least that is logged; Redis and we have five each.
const LOG_LEVELS: &[(&str, &str)] = &[
    ("debug", "trace"),
    ("verbose", "debug"),
    ("notice", "info"),
    ("warning", "warn"),
    ("nothing", "error"),
];

const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "appendfsync",
        read: |config, _| {
            let word = match config.persistence.sync {
                SyncPolicy::Always => "always",
                SyncPolicy::Interval => "everysec",
                SyncPolicy::Never => "no",
            };
            word.to_owned()
        },
        write: Write::Never,
    },
    Parameter {
        name: "appendonly",
        read: |config, _| yes_or_no(config.persistence.enabled),
        write: Write::Never,
    },
    Parameter {
        name: "bind",
        read: |config, _| bind(config),
        write: Write::Never,
    },
    Parameter {
        name: "client-output-buffer-limit",
        read: |config, _| output_buffer_limit(config),
        write: Write::Never,
    },
    Parameter {
        name: "client-query-buffer-limit",
        read: |_, admin| {
            let limits = admin.shared().limits();
            request_limits(&limits).max_request_bytes.to_string()
        },
        write: Write::Never,
    },
    Parameter {
        name: "cluster-enabled",
        read: no,
        write: Write::Never,
    },
    Parameter {
        name: "commandlog-execution-slower-than",
        read: slow_log_threshold,
        write: SLOW_LOG_THRESHOLD,
    },
    Parameter {
        name: "commandlog-slow-execution-max-len",
        read: slow_log_length,
        write: SLOW_LOG_LENGTH,
    },
    Parameter {
        name: "daemonize",
        read: no,
        write: Write::Never,
    },
    Parameter {
        name: "databases",
        read: |_, _| "1".to_owned(),
        write: Write::Never,
    },
    Parameter {
        name: "io-threads",
        read: |_, admin| admin.metrics.counters.threads().to_string(),
        write: Write::Never,
    },
    Parameter {
        name: "latency-monitor-threshold",
        read: |_, admin| server(admin).latency.threshold_ms().to_string(),
        write: Write::State(
            || 0..=i64::MAX,
            |shared, value| {
                let latency = &shared.resp.latency;
                latency.set_threshold_ms(value.unsigned_abs());
            },
        ),
    },
    Parameter {
        name: "latency-tracking",
        read: |_, _| "yes".to_owned(),
        write: Write::Never,
    },
    Parameter {
        name: "latency-tracking-info-percentiles",
        read: |_, _| "50 99 99.9".to_owned(),
        write: Write::Never,
    },
    Parameter {
        name: "loglevel",
        read: |config, _| word(LOG_LEVELS, config.log.level.name()),
        write: Write::Setting("log.level", Form::Words(LOG_LEVELS)),
    },
    Parameter {
        name: "maxclients",
        read: |config, _| config.limits.max_connections.to_string(),
        write: Write::Setting("limits.max_connections", Form::Integer),
    },
    Parameter {
        name: "maxmemory",
        read: |_, admin| admin.shared().cache.limit_bytes().to_string(),
        write: Write::Setting("cache.max_size_bytes", Form::Memory),
    },
    Parameter {
        name: "maxmemory-policy",
        read: |config, _| policy(config),
        write: Write::Setting("cache.policy", Form::Words(POLICIES)),
    },
    Parameter {
        name: "notify-keyspace-events",
        read: nothing,
        write: Write::Never,
    },
    Parameter {
        name: "port",
        read: |_, admin| port(admin),
        write: Write::Never,
    },
    Parameter {
        name: "proto-max-bulk-len",
        read: |config, _| config.limits.max_value_bytes.as_u64().to_string(),
        write: Write::Setting("limits.max_value_bytes", Form::Memory),
    },
    Parameter {
        name: "protected-mode",
        read: |config, _| yes_or_no(config.security.protected_mode),
        write: Write::Never,
    },
    Parameter {
        name: "replicaof",
        read: nothing,
        write: Write::Never,
    },
    Parameter {
        name: "requirepass",
        read: nothing,
        write: Write::Never,
    },
    Parameter {
        name: "save",
        // As often whether much or little was written: the log tells of that.
        read: |config, _| match config.persistence.snapshot_interval {
            Some(interval) if config.persistence.enabled => {
                format!("{} 1", interval.as_duration().as_secs())
            }
            _ => String::new(),
        },
        write: Write::Never,
    },
    Parameter {
        name: "shutdown-timeout",
        read: |config, _| config.server.shutdown_timeout_ms.div_ceil(1000).to_string(),
        write: Write::Setting("server.shutdown_timeout_ms", Form::Seconds),
    },
    Parameter {
        name: "slowlog-log-slower-than",
        read: slow_log_threshold,
        write: SLOW_LOG_THRESHOLD,
    },
    Parameter {
        name: "slowlog-max-len",
        read: slow_log_length,
        write: SLOW_LOG_LENGTH,
    },
    Parameter {
        name: "tcp-keepalive",
        read: |_, _| KEEPALIVE.as_secs().to_string(),
        write: Write::Never,
    },
    Parameter {
        name: "timeout",
        read: |_, _| "0".to_owned(),
        write: Write::Never,
    },
    Parameter {
        name: "tls-port",
        read: |_, _| "0".to_owned(),
        write: Write::Never,
    },
    Parameter {
        name: "unixsocket",
        read: nothing,
        write: Write::Never,
    },
];

fn nothing(_: &Config, _: &Admin) -> String {
    String::new()
}

/// What clients of one address have together is what one has at the most. There are no clients of the other kinds.
fn output_buffer_limit(config: &Config) -> String {
    let limits = &config.limits;
    let share = limits.max_inflight_bytes_per_address;
    let most = share.map_or(limits.max_inflight_bytes, |share| {
        share.min(limits.max_inflight_bytes)
    });
    format!("normal {} 0 0 slave 0 0 0 pubsub 0 0 0", most.as_u64())
}

fn no(_: &Config, _: &Admin) -> String {
    "no".to_owned()
}

fn slow_log_length(_: &Config, admin: &Admin) -> String {
    admin.shared().insight.slow_log.max_entries().to_string()
}

fn slow_log_threshold(_: &Config, admin: &Admin) -> String {
    admin.shared().insight.slow_log.threshold_us().to_string()
}

const SLOW_LOG_LENGTH: Write = Write::State(slow_log_lengths, |shared, value| {
    shared
        .insight
        .slow_log
        .set_max_entries(value.unsigned_abs());
});

const SLOW_LOG_THRESHOLD: Write = Write::State(
    || -1..=i64::MAX,
    |shared, value| shared.insight.slow_log.set_threshold_us(value),
);

fn server(admin: &Admin) -> &Server {
    &admin.shared().resp
}

fn slow_log_lengths() -> RangeInclusive<i64> {
    0..=slow::MAX_ENTRIES.cast_signed()
}

fn bind(config: &Config) -> String {
    config
        .server
        .listen
        .host
        .clone()
        .unwrap_or("* -::*".to_owned())
}

/// The port in use, which the setting may have left open.
fn port(admin: &Admin) -> String {
    let address = &admin.metrics.address;
    address.rsplit(':').next().unwrap_or_default().to_owned()
}

/// The eviction policy as Redis calls it.
pub(super) fn policy(config: &Config) -> String {
    word(POLICIES, config.cache.policy.name())
}

/// Redis's word for one of ours; ours where it has none.
fn word(words: &[(&str, &str)], own: &str) -> String {
    words
        .iter()
        .find(|(_, known)| *known == own)
        .map_or(own, |(word, _)| word)
        .to_owned()
}

/// The value of one of our settings.
fn value(setting: &Setting, config: &Config) -> String {
    let value = setting.value(config);
    match value.text() {
        Some(text) => text.to_owned(),
        None => value.render(),
    }
}

fn get(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    // They are parsed where they are looked for, as many are not for the data thread.
    call.words.from(2).try_for_each(check_pattern)?;
    let patterns: Vec<Vec<u8>> = call.words.from(2).map(<[u8]>::to_vec).collect();
    let admin = Arc::clone(&call.local.admin);
    let few = patterns.len() <= PATTERNS_AT_ONCE;
    let find = move || found(&admin, &patterns);
    call.eventually(async move |out| {
        let found = if few { find() } else { aside(find).await? };
        out.map(found.len());
        for (name, value) in found {
            out.bulk(&name);
            out.bulk(value.as_bytes());
        }
        Ok(())
    })
}

/// The settings that patterns match, each once. One that is named outright is called as the client called it.
fn found(admin: &Admin, patterns: &[Vec<u8>]) -> Vec<(Vec<u8>, String)> {
    let config = admin.config();
    let names = || {
        let redis = PARAMETERS.iter().map(|parameter| parameter.name);
        redis.chain(SETTINGS.iter().map(Setting::name))
    };
    // By the place of the name; the first pattern that matches says how it is called.
    let mut found: Vec<Option<Vec<u8>>> = names().map(|_| None).collect();
    for pattern in patterns {
        let lower = pattern.to_ascii_lowercase();
        let is_glob = lower.iter().any(|byte| b"*?[\\".contains(byte));
        let glob = Glob::new(&lower);
        for (name, called) in names().zip(&mut found) {
            if called.is_none() && glob.matches(name.as_bytes()) {
                *called = Some(if is_glob {
                    name.as_bytes().to_vec()
                } else {
                    pattern.clone()
                });
            }
        }
    }
    let values = PARAMETERS
        .iter()
        .map(|parameter| (parameter.read)(&config, admin))
        .chain(SETTINGS.iter().map(|setting| value(setting, &config)));
    found
        .into_iter()
        .zip(values)
        .filter_map(|(called, value)| Some((called?, value)))
        .collect()
}

/// A change that was understood.
enum Change {
    Setting(&'static Setting, Literal),
    State(fn(&Shared, i64), i64),
}

fn set(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    if call.words.len() % 2 == 1 {
        return Err(ErrorReply::SYNTAX);
    }
    let admin = &call.local.admin;
    let config = admin.config();
    let mut targets: Vec<(&str, &str, Target)> = Vec::new();
    for at in (2..call.words.len()).step_by(2) {
        let (Ok(given), Ok(value)) = (
            std::str::from_utf8(call.word(at)),
            std::str::from_utf8(call.word(at + 1)),
        ) else {
            return Err(ErrorReply::SYNTAX);
        };
        let Some(target) = Target::find(given) else {
            return Err(ErrorReply::new(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{}'",
                shown(given.as_bytes())
            )));
        };
        // There are some sixty names, so what is longer repeats one.
        if targets
            .iter()
            .any(|(_, _, other)| other.name() == target.name())
        {
            return Err(failed(given, "duplicate parameter"));
        }
        if let Target::Parameter(Parameter {
            write: Write::Never,
            read,
            ..
        }) = target
            && read(&config, admin) != value
        {
            return Err(failed(given, "can't set immutable config"));
        }
        targets.push((given, value, target));
    }
    let mut changes = Vec::new();
    for (given, value, target) in targets {
        if let Some(change) = target.change(value).map_err(|why| failed(given, &why))? {
            changes.push((given.to_owned(), change));
        }
    }
    let admin = Arc::clone(admin);
    call.eventually(async move |out| {
        aside(move || alter(&admin, &changes)).await??;
        out.ok();
        Ok(())
    })
}

/// The most that is said of why a value is none, as that may repeat the value.
const WHY_BYTES: usize = 1_024;

fn failed(given: &str, why: &str) -> ErrorReply {
    let given = shown(given.as_bytes());
    let why = &why[..why.floor_char_boundary(WHY_BYTES)];
    ErrorReply::new(format!(
        "ERR CONFIG SET failed (possibly related to argument '{given}') - {why}"
    ))
}

/// Makes all the changes, or none.
fn alter(admin: &Admin, changes: &[(String, Change)]) -> Result<(), ErrorReply> {
    let first = changes.first().map_or("", |(given, _)| given);
    admin
        .alter(|config| {
            for (_, change) in changes {
                if let Change::Setting(setting, literal) = change {
                    // It was tried before, on a configuration of the same form.
                    let _ = setting.assign(config, literal);
                }
            }
        })
        .map_err(|error| match error {
            AlterError::Config(error) => failed(first, &error.to_string()),
            AlterError::LocksOut => failed(
                first,
                "no key that does not expire would have the permission admin then, and nobody could set it back",
            ),
            AlterError::NeedsRestart(name) => {
                let given = changes.iter().find(|(_, change)| {
                    matches!(change, Change::Setting(setting, _) if setting.name() == name)
                });
                let why = format!("can't set immutable config: {name} changes at a restart only");
                failed(given.map_or(first, |(given, _)| given), &why)
            }
        })?;
    for (_, change) in changes {
        if let Change::State(write, value) = change {
            write(admin.shared(), *value);
        }
    }
    Ok(())
}

/// What a name of a parameter stands for.
#[derive(Clone, Copy)]
enum Target {
    Parameter(&'static Parameter),
    Setting(&'static Setting),
}

impl Target {
    fn find(given: &str) -> Option<Self> {
        let parameter = PARAMETERS
            .iter()
            .find(|parameter| parameter.name.eq_ignore_ascii_case(given));
        let setting = || {
            SETTINGS
                .iter()
                .find(|setting| setting.name().eq_ignore_ascii_case(given))
        };
        parameter
            .map(Self::Parameter)
            .or_else(|| setting().map(Self::Setting))
    }

    /// What it changes: two names of one thing are the same.
    fn name(self) -> &'static str {
        match self {
            Self::Setting(setting) => setting.name(),
            Self::Parameter(parameter) => match parameter.write {
                Write::Setting(name, _) => name,
                _ => parameter.name,
            },
        }
    }

    /// The change that a value asks for, if it asks for any, or why it cannot be.
    fn change(self, value: &str) -> Result<Option<Change>, String> {
        let (setting, literal) = match self {
            Self::Setting(setting) => (setting, value.to_owned()),
            Self::Parameter(parameter) => match parameter.write {
                Write::Never => return Ok(None),
                Write::State(bounds, write) => {
                    let number = parse_integer(value)?;
                    let bounds = bounds();
                    if !bounds.contains(&number) {
                        return Err(format!(
                            "argument must be between {} and {} inclusive",
                            bounds.start(),
                            bounds.end()
                        ));
                    }
                    return Ok(Some(Change::State(write, number)));
                }
                Write::Setting(name, form) => {
                    let setting = Setting::find(name).ok_or("there is no such setting")?;
                    (setting, form.literal(value)?)
                }
            },
        };
        let literal = Literal::Untyped(literal);
        setting
            .assign(&mut Config::default(), &literal)
            .map_err(|error| error.to_string())?;
        Ok(Some(Change::Setting(setting, literal)))
    }
}

impl Form {
    /// The value as the setting takes it.
    fn literal(self, value: &str) -> Result<String, String> {
        match self {
            Self::Integer => Ok(parse_integer(value)?.to_string()),
            Self::Seconds => Ok(parse_integer(value)?.saturating_mul(1000).to_string()),
            Self::Memory => memory(value)
                .map(|bytes| bytes.to_string())
                .ok_or_else(|| "argument must be a memory value".to_owned()),
            Self::Words(words) => words
                .iter()
                .find(|(word, own)| {
                    word.eq_ignore_ascii_case(value) || own.eq_ignore_ascii_case(value)
                })
                .map(|(_, own)| (*own).to_owned())
                .ok_or_else(|| {
                    let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                    format!(
                        "argument(s) must be one of the following: {}",
                        all.join(", ")
                    )
                }),
        }
    }
}

fn parse_integer(value: &str) -> Result<i64, String> {
    integer(value.as_bytes())
        .ok_or_else(|| "argument couldn't be parsed into an integer".to_owned())
}

/// A size as Redis writes it: `k` is 1000, `kb` is 1024.
fn memory(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match &*unit.to_ascii_lowercase() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    // Nothing is nothing.
    let number: u64 = if text.is_empty() {
        0
    } else {
        number.parse().ok()?
    };
    number.checked_mul(unit)
}

fn reset_statistics(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let admin = Arc::clone(&call.local.admin);
    call.eventually(async move |out| {
        aside(move || {
            let ever = Statistics::ever(&admin.metrics);
            *server(&admin).since.lock() = ever;
        })
        .await?;
        out.ok();
        Ok(())
    })
}

fn rewrite(_: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    Err(ErrorReply::fixed(
        "ERR Rewriting config file: Henge never writes its configuration file; change that and reload",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_redis() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("", Some(0)),
            ("100", Some(100)),
            ("1k", Some(1000)),
            ("1KB", Some(1024)),
            ("3mb", Some(3 << 20)),
            ("2g", Some(2_000_000_000)),
            ("2Gb", Some(2 << 30)),
            ("1.5gb", None),
            ("-1", None),
            ("10%", None),
            ("kb", None),
            ("18446744073709551615gb", None),
        ] {
            assert_eq!(memory(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn every_parameter_names_a_setting_or_none() {
        for parameter in PARAMETERS {
            assert!(
                Setting::find(parameter.name).is_none(),
                "{}",
                parameter.name
            );
            if let Write::Setting(name, form) = parameter.write {
                let setting = Setting::find(name).expect(name);
                if let Form::Words(words) = form {
                    for (word, _) in words {
                        let target = Target::find(parameter.name).expect("it is there");
                        assert!(target.change(word).is_ok(), "{} {word}", setting.name());
                    }
                }
            }
        }
    }
}
