//! `henge serve`: a node in a process of its own. Signals, the banner, the log and the exit code are here; what a node is
//! and does is not.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::allocator;
use crate::config::{Config, Sources};
use crate::encryption::Keys;
use crate::log;
use crate::net::handles;
use crate::node::{Node, StartError};

/// The exit code of a node that could not start, or was told to stop at once. One that cut requests off at the time-out of
/// its drain did what it was told to, and ends with 0.
const EXIT_FAILURE: u8 = 1;

/// Starts a node and waits for the signal to stop it.
pub fn serve(config: Config, sources: Sources, keys: Option<Keys>) -> ExitCode {
    let log = log::start(&config.log);
    let failed = |line: &dyn std::fmt::Display| {
        // With standard error closed there is nobody to tell, and the exit code still tells.
        let _ = writeln!(io::stderr(), "henge: {line}");
        ExitCode::from(EXIT_FAILURE)
    };
    if let Err(error) = allocator::keep_spare() {
        return failed(&StartError::System(error));
    }
    // Before tokio, which panics where it finds out by itself.
    handles::raise_limit();
    if let Err(error) = handles::enough_to_start() {
        return failed(&StartError::System(error));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&StartError::System(error)),
    };
    // Before the port is open, so that no signal finds the default action in place.
    let signals = {
        let _entered = runtime.enter();
        Signals::new()
    };
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(error) => return failed(&StartError::System(error)),
    };
    let node = match Node::start_with_keys(config, keys) {
        Ok(node) => node,
        Err(error) => return failed(&error),
    };
    node.reload_with(
        move || Ok(sources.load()?.config),
        move |config| log.set_level(config.log.level),
    );
    match runtime.block_on(wait_until_ready(&node, &mut signals)) {
        Ok(true) => {}
        Ok(false) => {
            node.shutdown();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            // It ends first: its line is the last one.
            node.shutdown();
            return failed(&error);
        }
    }
    banner(&node);
    tell_supervisor(NotifyState::Ready);
    tracing::info!(address = %node.local_addr(), "listening");
    runtime.block_on(async {
        loop {
            let signal = tokio::select! {
                signal = signals.next() => signal,
                () = node.stop_asked() => {
                    tracing::info!("a client asked for the end: draining");
                    break;
                }
            };
            match signal {
                Signal::Stop(name) => {
                    tracing::info!(signal = name, "draining");
                    break;
                }
                Signal::Reload => reload(&node),
            }
        }
    });
    tell_supervisor(NotifyState::Stopping);
    let drained = std::thread::spawn(move || node.shutdown());
    runtime.block_on(async {
        // A second signal means now.
        let stopped = tokio::task::spawn_blocking(move || drained.join().unwrap_or(false));
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                drained = &mut stopped => {
                    if !drained.unwrap_or(false) {
                        tracing::warn!("some requests were cut off at server.shutdown_timeout_ms");
                    }
                    tracing::info!("stopped");
                    return ExitCode::SUCCESS;
                }
                signal = signals.next() => if let Signal::Stop(name) = signal {
                    tracing::warn!(signal = name, "stopping at once");
                    // Returning would wait for the drain; the process owns nothing that must be put in order.
                    std::process::exit(i32::from(EXIT_FAILURE));
                }
            }
        }
    })
}

/// Tells systemd how far the node is, where it has started it so that it wants to know (`Type=notify`).
fn tell_supervisor(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd could not be told how far the node is");
    }
}

fn reload(node: &Node) {
    if let Err(error) = node.reload() {
        tracing::error!(%error, "the configuration was not reloaded");
    }
}

/// Shows how far the node is with loading: a bar on a terminal, lines of the log elsewhere. False if a signal ended it.
async fn wait_until_ready(node: &Node, signals: &mut Signals) -> Result<bool, StartError> {
    /// How often the bar moves.
    const LOOK: Duration = Duration::from_millis(50);
    /// How often the log says where it is.
    const LINE: Duration = Duration::from_secs(5);
    let begun = Instant::now();
    let mut bar = None;
    let mut lines = 0;
    loop {
        if let Some(outcome) = node.wait_a_while(LOOK) {
            return outcome.map(|()| true);
        }
        // A look at the signals, and not a wait for one.
        tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Signal::Stop(name) => {
                    tracing::info!(signal = name, "stopping before all was loaded");
                    return Ok(false);
                }
                Signal::Reload => reload(node),
            },
            () = tokio::task::yield_now() => {}
        }
        let Some(loading) = node.loading() else {
            continue;
        };
        let bar = bar.get_or_insert_with(loading_bar);
        #[expect(clippy::cast_sign_loss, reason = "a share is not below zero")]
        bar.set_position((loading.share * BAR_STEPS as f64) as u64);
        bar.set_message(format!("{} records", loading.records));
        let due = u32::try_from(begun.elapsed().as_secs() / LINE.as_secs()).unwrap_or(u32::MAX);
        if bar.is_hidden() && due > lines {
            lines = due;
            let percent = format!("{:.0}%", loading.share * 100.0);
            tracing::info!(percent, records = loading.records, "loading");
        }
    }
}

/// What the bar of loading counts to.
const BAR_STEPS: u64 = 1000;

/// Hidden where standard error is no terminal.
fn loading_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("loading [{bar:40}] {percent}% {msg}, {eta} left");
    let bar = ProgressBar::new(BAR_STEPS);
    match style {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

enum Signal {
    Stop(&'static str),
    Reload,
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    /// Nobody waits for it: that it is caught has a write beyond a limit fail, as one to a full disk does, in place of ending the
    /// process.
    _file_size: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

/// Says where the node is and what to try next, once, on standard output.
fn banner(node: &Node) {
    let address = node.local_addr();
    let (version, port) = (env!("CARGO_PKG_VERSION"), address.port());
    let host = if address.ip().is_unspecified() {
        format!("localhost:{port}")
    } else {
        address.to_string()
    };
    // As it is reached: where TLS is required, and where an API key is.
    let scheme = if node.requires_tls() { "https" } else { "http" };
    let curl = if node.requires_keys() {
        "curl -H \"X-API-Key: $HENGE_API_KEY\""
    } else {
        "curl"
    };
    let text = format!(
        "henge {version} listens on {scheme}://{address}\n\
         \n\
         Try:\n\
         \x20 {curl} --json '{{\"key\":\"greeting\",\"value\":\"hello\",\"ttl\":60}}' {scheme}://{host}/set\n\
         \x20 {curl} '{scheme}://{host}/get?key=greeting'\n\
         \x20 {curl} {scheme}://{host}/stats\n\
         \n\
         Ctrl-C stops it.\n"
    );
    // Whoever closed standard output does not want to read it.
    let mut stdout = io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}
