//! A server that a bench drives, in a process of its own. It is killed when its `Server` is dropped, on every way out of a
//! bench.

use super::{Arguments, BARE, Result};
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a node may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A running server.
pub(super) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts `henge` on a free port with these flags beside, and waits until it accepts connections.
    pub(super) fn henge(binary: &Path, flags: &[String]) -> Result<Self> {
        // Free a moment ago. Somebody may take it in between, and then the node says so and exits.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new(binary)
            .arg(format!("--port={address}"))
            .arg("--log-level=error")
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let mut server = Self { child, address };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("{} ended: {status}", binary.display()).into());
            }
            if started.elapsed() > START_LIMIT {
                return Err(format!("{} does not listen on {address}", binary.display()).into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// Starts the bare server, which answers everything with this answer.
    pub(super) fn bare(answer: &[u8]) -> Result<Self> {
        let child = Command::new(env::current_exe()?)
            .args(["bench", BARE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut server = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let (stdin, stdout) = (server.child.stdin.take(), server.child.stdout.take());
        // Dropped at the end of the statement, which is how the server knows that it has all of the answer.
        stdin
            .ok_or("the bare server has no input")?
            .write_all(answer)?;
        let mut line = String::new();
        BufReader::new(stdout.ok_or("the bare server has no output")?).read_line(&mut line)?;
        server.address = line
            .trim()
            .parse()
            .map_err(|_| format!("the bare server said {line:?}, not its address"))?;
        Ok(server)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is all that these could complain about.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The option of every bench that starts a node.
pub(super) const HENGE_OPTION: (&str, &str) = (
    "henge",
    "the binary to run (default: built now, in release)",
);

/// The `henge` binary: the one that was asked for, or the one of this workspace, built now.
pub(super) fn henge_binary(arguments: &Arguments) -> Result<PathBuf> {
    if let Some(path) = arguments.text("henge") {
        return Ok(PathBuf::from(path));
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--release",
            "--package=henge",
            "--bin=henge",
        ])
        .stdout(Stdio::null())
        .status()?;
    if !status.success() {
        return Err("henge does not build".into());
    }
    // This binary lies in the same target directory, whichever that is.
    let own = env::current_exe()?;
    let target = own
        .ancestors()
        .nth(2)
        .ok_or("xtask lies in no target directory")?;
    Ok(target.join("release").join("henge"))
}
