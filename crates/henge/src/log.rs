//! Structured logs on standard error, as text for people or JSON for machines, with a level that can change while
//! running. A library must not take the program's log for itself, so this is the binary's to call.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{LogConfig, LogFormat, LogLevel};

/// Changes the level later.
#[derive(Clone, Debug)]
pub(crate) struct Handle(reload::Handle<Targets, Registry>);

impl Handle {
    pub(crate) fn set_level(&self, level: LogLevel) {
        // Refused only when the subscriber is gone, and with it every log.
        let _ = self.0.modify(|filter| *filter = filter_of(level));
    }
}

/// Starts to log.
pub(crate) fn start(config: &LogConfig) -> Handle {
    let (filter, handle) = reload::Layer::new(filter_of(config.level));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(io::stderr).with_target(false);
    // Fails when the program has a log already; then that one is used.
    let _ = match config.format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    Handle(handle)
}

/// Where Raft's own events come from.
const RAFT: &str = "openraft";

fn filter_of(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // It has a line for each of its steps, and errors for what is in order: what concerns an operator is told by us.
    let of_raft = if level == LevelFilter::TRACE {
        level
    } else {
        LevelFilter::OFF
    };
    Targets::new()
        .with_default(level)
        .with_target(RAFT, of_raft)
}
