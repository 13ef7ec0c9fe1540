//! Notes down from time to time how far the node's clock has come, so that the next life of the node starts no earlier than that,
//! wherever the machine's clock is by then. It ends when it is dropped.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::directory::Ledger;
use crate::clock::Clock;

/// How often: a file is written and synced each time, and what is newer is not known after a crash.
pub(crate) const INTERVAL: Duration = Duration::from_mins(1);

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct TimeKeeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TimeKeeper {
    /// Starts the thread.
    pub(crate) fn start(ledger: Ledger, clock: Clock, interval: Duration) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = thread::Builder::new()
            .name("henge-time".to_owned())
            .spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(interval) {
                    if let Err(error) = ledger.change(|state| state.seen_ms = clock.now_ms()) {
                        // The next one may be written; and who needs it is a machine whose clock goes back.
                        tracing::warn!(%error, "it was not noted down what time it is");
                    }
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for TimeKeeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It notes down, and no more.
            let _ = thread.join();
        }
    }
}
