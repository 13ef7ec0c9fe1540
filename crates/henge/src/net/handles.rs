//! File handles: how many the process may have, whether that is enough to start, and what to say when it is not. It opens
//! none that stay open.

use std::io;
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Lets the process open as many files as it is allowed to: shells start it with a soft limit of 1024, which is there for
/// programs that use `select`. Answers the limit that holds now, if there is one.
pub(crate) fn raise_limit() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let soft = limit.current;
        limit.current = limit.maximum;
        // Refused only by a sandbox; then the soft limit stays, and the acceptor copes with running out.
        if setrlimit(Resource::Nofile, limit).is_err() {
            return soft;
        }
    }
    limit.maximum
}

/// How many files the process may have open, if there is a limit.
pub(crate) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Whether a node with as many data threads as there are cores can start, for now: tokio panics where it cannot have the
/// pair of sockets that signals come through, so this must be known before.
pub(crate) fn enough_to_start() -> io::Result<()> {
    /// Of a runtime: two for its poller, one to wake it, one for signals.
    const PER_RUNTIME: usize = 4;
    /// The pairs for signals and for the stop, the port, a file that is read in passing, and a client or two.
    const BESIDE: usize = 8;
    /// Beside the data threads' runtimes: that of the process, and the control runtime.
    const RUNTIMES: usize = 2;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let needed = (threads + RUNTIMES) * PER_RUNTIME + BESIDE;
    let pairs: io::Result<Vec<_>> = (0..needed.div_ceil(2))
        .map(|_| UnixStream::pair())
        .collect();
    pairs.map(drop)
}

/// What to say of an error that is for want of file handles.
pub(crate) fn explained(error: &io::Error) -> Option<String> {
    match Errno::from_io_error(error)? {
        Errno::MFILE => {
            let allowed = match getrlimit(Resource::Nofile).current {
                Some(limit) => format!("{limit} are allowed"),
                None => "the system has no more".to_owned(),
            };
            Some(format!(
                "too few file handles: {allowed}, and the node needs more; raise the limit (ulimit -n, LimitNOFILE)"
            ))
        }
        Errno::NFILE => Some(
            "too few file handles: all that the machine has are in use; raise fs.file-max (ulimit -n does not help)"
                .to_owned(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_for_want_of_handles_say_what_to_raise() {
        for (errno, part) in [
            (Errno::MFILE, Some("ulimit -n")),
            (Errno::NFILE, Some("fs.file-max")),
            (Errno::ACCESS, None),
        ] {
            let said = explained(&errno.into());
            assert_eq!(said.is_some(), part.is_some(), "{errno}");
            let said = said.unwrap_or_default();
            assert!(said.contains(part.unwrap_or_default()), "{said}");
        }
        assert_eq!(explained(&io::Error::other("a thread ended")), None);
    }
}
