//! What tells a command to stop that runs until it is told to: Ctrl-C, a `kill`, or a terminal that is closed.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// See the head of the file.
pub(super) struct StopSignals([Signal; 3]);

impl StopSignals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    pub(super) async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
