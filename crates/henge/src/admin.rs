//! What may be asked of a running node beside its data: its figures, its configuration and changes of it, and its end. It
//! starts and stops nothing itself; whoever runs the node is told that a stop was asked for.

use std::fmt;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use henge_cluster::secret::Secrets;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::access::KeyFileError;
use crate::access::file::KeyFile;
use crate::access::hash::without_keys;
use crate::cluster::secret_file;
use crate::config::{ByteSize, CacheSize, Config, ConfigError, Reload};
use crate::http::cors::Cors;
use crate::memory;
use crate::metrics::Metrics;
use crate::shared::{Live, Shared};
use crate::tls::{self, Certified};

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) metrics: Arc<Metrics>,
    /// What is in force. Readers never wait for a change, which may evict for a while.
    config: ArcSwap<Config>,
    /// Held while the configuration is changed.
    changing: Mutex<()>,
    loader: OnceLock<Loader>,
    stop_asked: watch::Sender<bool>,
}

/// The program's part in a reload.
struct Loader {
    load: Box<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>,
    taken_over: Box<dyn Fn(&Config) + Send + Sync>,
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loader")
    }
}

/// Which of the files that a configuration names are read: what one says takes effect when it is read, and one that cannot be
/// read stops the change, so no other change should touch it.
#[derive(Clone, Copy, Debug)]
struct Reads {
    keys: bool,
    certificates: bool,
    secrets: bool,
}

impl Reads {
    const ALL: Self = Self {
        keys: true,
        certificates: true,
        secrets: true,
    };

    /// Those whose settings are others.
    fn between(running: &Config, wanted: &Config) -> Self {
        let secrets = |config: &Config| {
            let cluster = &config.cluster;
            [&cluster.secret_file, &cluster.accepted_secret_file].map(Option::clone)
        };
        Self {
            keys: running.security != wanted.security,
            certificates: running.tls != wanted.tls,
            secrets: secrets(running) != secrets(wanted),
        }
    }
}

/// What the file of a setting says.
enum Said<T> {
    /// It was not read.
    Unread,
    /// This, or nothing where the setting names no file.
    Read(Option<T>),
}

impl<T> Said<T> {
    fn read<E: fmt::Display>(
        is_read: bool,
        read: impl FnOnce() -> Result<Option<T>, E>,
    ) -> Result<Self, ConfigError> {
        if is_read {
            read().map(Self::Read).map_err(ConfigError::unusable)
        } else {
            Ok(Self::Unread)
        }
    }
}

/// What those files say that were read.
struct Files {
    keys: Said<KeyFile>,
    certificates: Said<Certified>,
    secrets: Said<Secrets>,
}

impl Files {
    /// Reads the files of a configuration, before any of it is put in force.
    fn read(config: &Config, reads: Reads) -> Result<Self, ConfigError> {
        // What waits for a restart and what is taken over now must also go together.
        config.validate()?;
        Ok(Self {
            keys: Said::read(reads.keys, || key_file(config))?,
            certificates: Said::read(reads.certificates, || tls::read(config))?,
            secrets: Said::read(reads.secrets, || secret_file::secrets(config))?,
        })
    }
}

/// Why an alteration was not made; nothing was changed.
#[derive(Debug)]
pub(crate) enum AlterError {
    /// The settings do not go together.
    Config(ConfigError),
    /// This setting waits for a restart.
    NeedsRestart(&'static str),
    /// Nobody could administer the node any more, and who asks could not take it back.
    LocksOut,
}

impl Admin {
    pub(crate) fn new(metrics: Arc<Metrics>, config: Config) -> Self {
        Self {
            metrics,
            config: ArcSwap::from_pointee(config),
            changing: Mutex::new(()),
            loader: OnceLock::new(),
            stop_asked: watch::Sender::new(false),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.metrics.shared
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Asks for the end of the node.
    pub(crate) fn ask_to_stop(&self) {
        self.stop_asked.send_replace(true);
    }

    /// Resolves when somebody has asked for the end.
    pub(crate) async fn stop_asked(&self) {
        let mut asked = self.stop_asked.subscribe();
        // It fails only when the sender is gone, which lives as long as `self`.
        let _ = asked.wait_for(|asked| *asked).await;
    }

    /// See `Node::reload_with`.
    pub(crate) fn reload_with(
        &self,
        load: Box<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>,
        taken_over: Box<dyn Fn(&Config) + Send + Sync>,
    ) {
        let _ = self.loader.set(Loader { load, taken_over });
    }

    pub(crate) fn reload(&self) -> Result<Reload, ConfigError> {
        let config = match self.loader.get() {
            Some(loader) => (loader.load)()?,
            None => Config::clone(&self.config()),
        };
        self.apply(&config)
    }

    /// Takes over what can change while running.
    pub(crate) fn apply(&self, loaded: &Config) -> Result<Reload, ConfigError> {
        let _changing = self.changing.lock();
        let reload = self.config.load().reload(loaded);
        let files = Files::read(&reload.config, Reads::ALL)?;
        self.put_in_force(&reload, files);
        tracing::info!(
            settings_changed = reload.changed.len(),
            "reloaded: the configuration, and the keys, certificates and secrets in the files that it names",
        );
        Ok(reload)
    }

    /// Changes settings one by one, all of them or none: a setting that waits for a restart is refused here. The changes
    /// hold until the configuration is read again.
    pub(crate) fn alter(&self, changes: impl FnOnce(&mut Config)) -> Result<(), AlterError> {
        let _changing = self.changing.lock();
        let running = self.config.load_full();
        let mut wanted = Config::clone(&running);
        changes(&mut wanted);
        let reload = running.reload(&wanted);
        if let Some(change) = reload.needs_restart.first() {
            return Err(AlterError::NeedsRestart(change.setting.name()));
        }
        let reads = Reads::between(&running, &reload.config);
        let files = Files::read(&reload.config, reads).map_err(AlterError::Config)?;
        if let Said::Read(file) = &files.keys {
            let protected_mode = reload.config.security.protected_mode;
            let access = &self.shared().access;
            if access.would_lock_out(protected_mode, file.as_ref()) {
                return Err(AlterError::LocksOut);
            }
        }
        self.put_in_force(&reload, files);
        Ok(())
    }

    fn put_in_force(&self, reload: &Reload, files: Files) {
        let running = self.config.load_full();
        let (config, shared) = (&reload.config, self.shared());
        if let Said::Read(secrets) = files.secrets {
            let said = secrets
                .as_ref()
                .map_or_else(|| "none".to_owned(), Secrets::to_string);
            if shared.cluster.identity.set_secrets(secrets) {
                tracing::info!(secrets = said, "the secrets of the cluster were replaced");
            }
        }
        if let Said::Read(certificates) = files.certificates {
            shared.tls.set(certificates);
        }
        if let Said::Read(keys) = files.keys {
            shared.access.set_file(config.security.protected_mode, keys);
        }
        // Whoever rotates logs may have taken the file away.
        shared.audit.reopen();
        shared.live.store(Arc::new(Live::of(config)));
        shared.cors.store(Arc::new(Cors::of(config)));
        if running.rate_limits != config.rate_limits {
            shared.rates.set(config);
        }
        let in_flight = config.limits.max_inflight_bytes.as_usize();
        shared.in_flight.set_limit(in_flight);
        let share = config.limits.max_inflight_bytes_per_address;
        shared
            .in_flight
            .set_share_limit(share.map(ByteSize::as_usize));
        let limits = |config: &Config| (config.cache.max_size_bytes, config.cache.max_items);
        if limits(&running) != limits(config) {
            // A machine that cannot say how much memory it has said so at the start.
            if let Ok(bytes) = size_of(config.cache.max_size_bytes) {
                shared.cache.set_limits(bytes, config.cache.max_items);
            }
        }
        if let Some(traces) = &shared.traces {
            traces.set_ratio(config.tracing.sample_ratio);
        }
        if running.insight != config.insight {
            shared.cache.remember_departures(config.insight.enabled);
            shared.insight.hot_keys.set(config.insight.enabled);
        }
        self.config.store(Arc::new(config.clone()));
        // Still under the lock, so that of two changes at once the same one is the last everywhere.
        if let Some(loader) = self.loader.get() {
            (loader.taken_over)(config);
        }
        for change in &reload.changed {
            let change = change.to_string();
            tracing::info!(change = &*without_keys(&change), "reloaded");
        }
        for change in &reload.needs_restart {
            let change = change.to_string();
            tracing::warn!(change = &*without_keys(&change), "this waits for a restart");
        }
    }
}

/// The key file that a configuration names, as it is now.
pub(crate) fn key_file(config: &Config) -> Result<Option<KeyFile>, KeyFileError> {
    let path = config.security.key_file.as_ref();
    path.map(|path| KeyFile::read(path.as_path())).transpose()
}

/// The memory that the cache may take: what was said, or a quarter of what there is.
pub(crate) fn size_of(size: CacheSize) -> std::io::Result<u64> {
    match size {
        CacheSize::Bytes(bytes) => Ok(bytes.as_u64()),
        CacheSize::Auto => Ok(memory::machine()?.smallest.total_bytes / 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_reads_the_files_of_its_own_settings_alone() {
        let table = [
            ("cache.max_items", "7", [false; 3]),
            ("security.protected_mode", "false", [true, false, false]),
            ("security.key_file", "/one", [true, false, false]),
            ("tls.certificate_file", "/one", [false, true, false]),
            ("cluster.secret_file", "/one", [false, false, true]),
            ("cluster.accepted_secret_file", "/one", [false, false, true]),
        ];
        let running = Config::default();
        for (name, value, expected) in table {
            let mut wanted = running.clone();
            wanted.set(name, value).expect("it is right");
            let reads = Reads::between(&running, &wanted);
            let found = [reads.keys, reads.certificates, reads.secrets];
            assert_eq!(found, expected, "{name}");
        }
    }
}
