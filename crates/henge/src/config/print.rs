//! A configuration as text: what is in force, and where each value came from.
//!
//! The TOML form is a configuration file that gives the same configuration again; the JSON form is for programs, and
//! says of each setting what a file has no place for.

use super::layers::Loaded;
use super::settings::SETTINGS;

impl Loaded {
    /// Every setting as `name = value  # where it came from`, under its section.
    pub fn to_toml(&self) -> String {
        let mut lines = Vec::new();
        let mut section = "";
        for setting in SETTINGS {
            if setting.section() != section {
                if !section.is_empty() {
                    lines.push(String::new());
                }
                section = setting.section();
                lines.push(format!("[{section}]"));
            }
            let key = setting.key();
            // What does nothing would be refused if it were read back.
            if let Some(reason) = setting.idle_reason(&self.config) {
                lines.push(format!("# {key}: {reason}"));
            } else {
                let value = setting.value(&self.config).render();
                lines.push(format!("{key} = {value}  # {}", self.origin(setting)));
            }
        }
        lines.join("\n") + "\n"
    }

    /// One object, by full name: `{"cache.max_items":{"value":3,"origin":"flag --max-items","reloadable":true},…}`.
    /// What does nothing is left out.
    pub fn to_json(&self) -> String {
        let settings: Vec<String> = SETTINGS
            .iter()
            .filter(|setting| setting.idle_reason(&self.config).is_none())
            .map(|setting| {
                let value = setting.value(&self.config).render();
                let origin = serde_json::Value::from(self.origin(setting).to_string());
                let reloadable = setting.is_reloadable();
                format!("  \"{}\": {{\"value\": {value}, \"origin\": {origin}, \"reloadable\": {reloadable}}}", setting.name())
            })
            .collect();
        format!("{{\n{}\n}}\n", settings.join(",\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, FlagSetting, Sources};

    fn loaded(flags: &[(&str, &str)]) -> Loaded {
        let flags = flags.iter().map(|(name, value)| FlagSetting {
            flag: "--set".to_owned(),
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        });
        Sources::new(None, [], flags.collect())
            .load()
            .expect("tests set what is valid")
    }

    /// Values that between them take every form a value is printed in.
    const SETS: &[&[(&str, &str)]] = &[
        &[],
        &[
            ("server.listen", "[::1]:0"),
            ("server.resp_listen", ":6379"),
            ("cluster.node_id", "node-1.a_b"),
            ("cache.max_size_bytes", "1.5GiB"),
            ("cache.max_items", "9223372036854775807"),
            ("cache.memory_trigger", "1"),
            ("limits.max_value_bytes", "1234567"),
            ("compression.threshold_bytes", "0"),
        ],
        &[("compression.algorithm", "lz4"), ("log.format", "JSON")],
        &[
            ("compression.algorithm", "none"),
            ("compression.level", "19"),
        ],
    ];

    #[test]
    fn toml_reads_back_as_the_same_configuration() {
        for (number, flags) in SETS.iter().enumerate() {
            let printed = loaded(flags);
            let path = std::env::temp_dir()
                .join(format!("henge-{}-print-{number}.toml", std::process::id()));
            std::fs::write(&path, printed.to_toml()).expect("the temporary directory takes a file");
            let read = Sources::new(Some(path.clone()), [], Vec::new()).load();
            std::fs::remove_file(&path).expect("it was written above");
            assert_eq!(read.map(|read| read.config), Ok(printed.config));
        }
    }

    #[test]
    fn json_gives_value_and_origin_of_each() {
        for flags in SETS {
            let printed = loaded(flags);
            let json: serde_json::Value =
                serde_json::from_str(&printed.to_json()).expect("it is JSON");
            let settings = json.as_object().expect("it is an object");
            let mut config = Config::default();
            for (name, entry) in settings {
                let value = entry["value"]
                    .as_str()
                    .map_or_else(|| entry["value"].to_string(), str::to_owned);
                assert_eq!(config.set(name, &value), Ok(()));
                let is_flag = flags.iter().any(|(flag, _)| flag == name);
                assert_eq!(
                    entry["origin"],
                    if is_flag { "flag --set" } else { "default" }
                );
            }
            assert_eq!(config, printed.config);
        }
    }

    #[test]
    fn the_form_of_both() {
        let printed = loaded(&[("compression.algorithm", "lz4"), ("cache.max_items", "3")]);
        let toml = printed.to_toml();
        assert!(toml.starts_with("[server]\nlisten = \":8080\"  # default\nresp_listen = \"none\"  # default\nshutdown_timeout_ms = 10000  # default\n\n[cluster]\n"), "{toml}");
        assert!(toml.contains("\nmax_items = 3  # flag --set\n"), "{toml}");
        assert!(toml.contains("\n# level: lz4 has no levels\n"), "{toml}");
        let json = printed.to_json();
        let line = "\"cache.max_items\": {\"value\": 3, \"origin\": \"flag --set\", \"reloadable\": true},\n";
        assert!(json.contains(line), "{json}");
        assert!(!json.contains("compression.level"), "{json}");
    }
}
