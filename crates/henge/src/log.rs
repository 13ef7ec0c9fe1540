//! Structured logs on standard error, as text for people or JSON for machines, with a level that can change while
//! running. A library must not take the program's log for itself, so this is the binary's to call.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{LogConfig, LogFormat, LogLevel};

/// Changes the level later.
#[derive(Clone, Debug)]
pub(crate) struct Handle(reload::Handle<LevelFilter, Registry>);

impl Handle {
    pub(crate) fn set_level(&self, level: LogLevel) {
        // Refused only when the subscriber is gone, and with it every log.
        let _ = self.0.modify(|filter| *filter = filter_of(level));
    }
}

/// Starts to log.
pub(crate) fn start(config: &LogConfig) -> Handle {
    let (filter, handle) = reload::Layer::new(filter_of(config.level));
    // Each question to a node that is down would be an error, several times a second; what of it matters this program says itself.
    let ours = filter_fn(|metadata| !metadata.target().starts_with("openraft"));
    let registry = tracing_subscriber::registry().with(filter).with(ours);
    let lines = fmt::layer().with_writer(io::stderr).with_target(false);
    // Fails when the program has a log already; then that one is used.
    let _ = match config.format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    Handle(handle)
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
