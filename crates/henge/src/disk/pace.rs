//! How a thread that nobody waits for gives way to the others: it lets them go first after each little piece of work, looks how
//! long it was ready and had no processor, and rests as long as others want it. Alone it rests never.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

/// How long it works between two looks, which cost some microseconds each.
const WORK: Duration = Duration::from_micros(500);
/// It was in others' way if it waited for more than this part of the time that it ran.
const WAITED_SHARE: u32 = 20;
/// How much longer than it worked it rests then: it takes a tenth of a processor.
const REST: u32 = 9;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Pace {
    /// What Linux says of this thread's time; none where it does not.
    figures: Option<File>,
    waited: Duration,
    looked_at: Instant,
}

impl Pace {
    /// For the thread that calls.
    pub(crate) fn new() -> Self {
        Self {
            figures: File::open("/proc/thread-self/schedstat").ok(),
            waited: Duration::ZERO,
            looked_at: Instant::now(),
        }
    }

    /// To be called after each little piece of work.
    pub(crate) fn worked(&mut self) {
        // Once it runs the system lets it run for some milliseconds, whoever else is woken meanwhile.
        thread::yield_now();
        let worked = self.looked_at.elapsed();
        if worked < WORK {
            return;
        }
        let waited = self.waited();
        let more = waited.saturating_sub(self.waited);
        self.waited = waited;
        if more * WAITED_SHARE > worked {
            // What it waited is no work of its own: on a machine that is used up it would rest for ever.
            thread::park_timeout(worked.saturating_sub(more) * REST);
        }
        self.looked_at = Instant::now();
    }

    /// How long the thread was ready and had no processor.
    fn waited(&self) -> Duration {
        let mut text = [0; 64];
        let read = self
            .figures
            .as_ref()
            .and_then(|file| file.read_at(&mut text, 0).ok())
            .unwrap_or(0);
        parse(&text[..read]).unwrap_or_default()
    }
}

/// The second of three numbers, in nanoseconds.
fn parse(text: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(text).ok()?;
    let waited = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(waited))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_says_is_read() {
        let expected = Some(Duration::from_nanos(4_096));
        assert_eq!(parse(b"123456 4096 17\n"), expected);
        for other in [&b""[..], b"1", b"a b c", b"\xff"] {
            assert_eq!(parse(other), None);
        }
        let mut pace = Pace::new();
        pace.worked();
        assert!(pace.waited() >= pace.waited);
    }
}
