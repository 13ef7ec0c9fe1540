//! A server that a bench drives, in a process of its own. It is killed when its `Server` is dropped, on every way out of a
//! bench.

use super::{Arguments, BARE, ECHO, Result};
use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// The longest wait for something that a server says: some gigabytes to a slow disk.
const LINE_TIMEOUT: Duration = Duration::from_mins(10);

/// A running server.
pub(super) struct Server {
    child: Child,
    address: SocketAddr,
    /// What it has on the disk, to be removed with it.
    data: Option<PathBuf>,
    /// What it says from when it is ready; of Redis only.
    lines: Option<Receiver<String>>,
    /// Counts its syncs until it ends; of one that was started for that only.
    syncs: Option<JoinHandle<u64>>,
}

impl Server {
    /// Starts `henge` on a free port with these flags beside, and waits until it says that it listens. It keeps everything in
    /// memory, as what it is compared with, unless the flags say otherwise.
    pub(super) fn henge(binary: &Path, flags: &[String]) -> Result<Self> {
        Self::henge_in(Command::new(binary), flags, data_folder())
    }

    /// The same for [`syncs`](Self::syncs).
    pub(super) fn henge_counted(binary: &Path, flags: &[String]) -> Result<Self> {
        let mut server = Self::henge_in(counted(binary), flags, data_folder())?;
        server.count_syncs()?;
        Ok(server)
    }

    /// The same as one of several, at an address that the others know.
    pub(super) fn member(
        binary: &Path,
        name: &str,
        address: SocketAddr,
        flags: &[String],
    ) -> Result<Self> {
        let port = format!("--port={address}");
        let name = format!("--node-id={name}");
        Self::start(Command::new(binary), [&port, &name], flags, data_folder())
    }

    fn henge_in(command: Command, flags: &[String], data: PathBuf) -> Result<Self> {
        // One that is started again finds its data by its name, and not by its port.
        let own = ["--port=127.0.0.1:0", "--node-id=bench"];
        Self::start(command, own, flags, data)
    }

    fn start(
        mut command: Command,
        own: [&str; 2],
        flags: &[String],
        data: PathBuf,
    ) -> Result<Self> {
        let child = command
            .args(own)
            .arg("--log-level=error")
            .args(memory_only(flags))
            .args(flags)
            .env("HENGE_PERSISTENCE__DIR", &data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program(&command)))?;
        let mut server = Self::listening(child)?;
        server.data = Some(data);
        Ok(server)
    }

    /// Starts the bare server, which answers everything with this answer.
    pub(super) fn bare(answer: &[u8]) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args(["bench", BARE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        // Dropped at the end of the statement, which is how the server knows that it has all of the answer. If it
        // cannot be written the server sees the end as well, and ends.
        stdin
            .ok_or("the bare server has no input")?
            .write_all(answer)?;
        Self::listening(child)
    }

    /// Starts the echo loop.
    pub(super) fn echo() -> Result<Self> {
        let child = Command::new(env::current_exe()?)
            .args(["bench", ECHO])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        Self::listening(child)
    }

    /// Ends it as a crash does and starts it again with the same data; returns when that is loaded.
    pub(super) fn restart(&mut self, binary: &Path, flags: &[String]) -> Result<()> {
        let data = self.data.take().ok_or("the server has no data")?;
        self.child.kill()?;
        self.child.wait()?;
        *self = Self::henge_in(Command::new(binary), flags, data)?;
        Ok(())
    }

    /// Ends it as a crash does; it is reaped when it is started again, or dropped.
    pub(super) fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill()?)
    }

    /// Starts a member again, with the same data.
    pub(super) fn restart_member(
        &mut self,
        binary: &Path,
        name: &str,
        address: SocketAddr,
        flags: &[String],
    ) -> Result<()> {
        let data = self.data.take().ok_or("the server has no data")?;
        self.child.kill()?;
        self.child.wait()?;
        let port = format!("--port={address}");
        let name = format!("--node-id={name}");
        *self = Self::start(Command::new(binary), [&port, &name], flags, data)?;
        Ok(())
    }

    /// Ends Redis as a crash does and starts it again with the same data.
    pub(super) fn restart_redis(&mut self, binary: &Path, options: &[&str]) -> Result<()> {
        let data = self.data.take().ok_or("the server has no data")?;
        self.child.kill()?;
        self.child.wait()?;
        *self = Self::redis_in(Command::new(binary), options, data)?;
        Ok(())
    }

    /// Starts Redis, or what takes its options, without persistence, and waits until it says that it is ready.
    pub(super) fn redis(binary: &Path) -> Result<Self> {
        Self::redis_with(binary, &["--appendonly", "no"])
    }

    /// The same with these options, in a folder of its own.
    pub(super) fn redis_with(binary: &Path, options: &[&str]) -> Result<Self> {
        Self::redis_in(Command::new(binary), options, data_folder())
    }

    /// The same for [`syncs`](Self::syncs).
    pub(super) fn redis_counted(binary: &Path, options: &[&str]) -> Result<Self> {
        let mut server = Self::redis_in(counted(binary), options, data_folder())?;
        server.count_syncs()?;
        Ok(server)
    }

    fn redis_in(mut command: Command, options: &[&str], data: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&data)?;
        // Free now, and most likely still so in a moment; it cannot choose one by itself and say which.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut child = command
            .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--daemonize", "no", "--dir"])
            .arg(&data)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program(&command)))?;
        let stdout = child.stdout.take();
        let mut server = Self {
            child,
            address,
            data: Some(data),
            lines: None,
            syncs: None,
        };
        let mut lines = BufReader::new(stdout.ok_or("the server has no output")?).lines();
        while let Some(line) = lines.next().transpose()? {
            if line.contains("Ready to accept connections") {
                // It says little more; what it says is read so that it never waits for us.
                let (sender, receiver) = channel();
                std::thread::spawn(move || {
                    for line in lines.map_while(io::Result::ok) {
                        // Mostly nobody wants to know.
                        let _ = sender.send(line);
                    }
                });
                server.lines = Some(receiver);
                return Ok(server);
            }
        }
        Err(format!("{} ended before it was ready", program(&command)).into())
    }

    /// Starts a member of an etcd cluster with data of its own, at an address for clients. It says nothing: who wants to know
    /// whether it is ready asks it.
    pub(super) fn etcd(
        binary: &Path,
        name: &str,
        address: SocketAddr,
        flags: &[String],
    ) -> Result<Self> {
        let data = data_folder();
        let client = format!("http://{address}");
        let mut command = Command::new(binary);
        let child = command
            .args(["--name", name, "--logger", "zap", "--log-level", "error"])
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(flags)
            .arg("--data-dir")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", program(&command)))?;
        Ok(Self {
            child,
            address,
            data: Some(data),
            lines: None,
            syncs: None,
        })
    }

    /// Waits for a server's first line, whose last word is its address.
    fn listening(mut child: Child) -> Result<Self> {
        let stdout = child.stdout.take();
        // From here on it is killed on every way out; the address is not used before it is known.
        let mut server = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            data: None,
            lines: None,
            syncs: None,
        };
        let mut line = String::new();
        BufReader::new(stdout.ok_or("the server has no output")?).read_line(&mut line)?;
        let word = line.split_whitespace().next_back().unwrap_or_default();
        server.address = word
            .strip_prefix("http://")
            .unwrap_or(word)
            .parse()
            .map_err(|_| format!("the server said {line:?}, which ends in no address"))?;
        Ok(server)
    }

    /// Waits until Redis says something.
    pub(super) fn wait_for_line(&self, part: &str) -> Result<()> {
        let lines = self.lines.as_ref().ok_or("this server says nothing")?;
        while let Ok(line) = lines.recv_timeout(LINE_TIMEOUT) {
            if line.contains(part) {
                return Ok(());
            }
        }
        Err(format!("the server did not say {part:?}").into())
    }

    /// From here on its syncs are counted as they are told.
    fn count_syncs(&mut self) -> Result<()> {
        let lines = self.child.stderr.take().map(BufReader::new);
        let lines = lines.ok_or("the server has no output for errors")?.lines();
        self.syncs = Some(std::thread::spawn(move || {
            lines
                .map_while(io::Result::ok)
                // A call that another thread interrupts is told in two lines.
                .filter(|line| line.contains("sync(") || line.contains("sync resumed"))
                .filter(|line| !line.contains("unfinished"))
                .count() as u64
        }));
        Ok(())
    }

    /// Ends it; says how often it has synced a file.
    pub(super) fn syncs(mut self) -> Result<u64> {
        let counter = self.syncs.take().ok_or("nobody counts this one's syncs")?;
        self.child.kill()?;
        self.child.wait()?;
        // `strace` ends with it, and has told all then.
        counter.join().map_err(|_| "the counter panicked".into())
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
        if let Some(data) = &self.data {
            // What stays lies in the folder of temporary files.
            let _ = std::fs::remove_dir_all(data);
        }
    }
}

/// What starts a program so that `strace` tells on its output for errors of each sync, beside it and not above it. The kernel lets
/// all other calls go by: to be stopped at each of them would make a server many times as slow.
fn counted(binary: &Path) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["-D", "-f", "-qq", "--seccomp-bpf"])
        .args(["-e", "trace=fdatasync,fsync", "-e", "signal=none", "--"])
        .arg(binary)
        .stderr(Stdio::piped());
    command
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// A folder that no server has had.
fn data_folder() -> PathBuf {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    let started = STARTED.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!("henge-bench-{}-{started}", std::process::id()))
}

/// What keeps a node from writing to the disk, unless the flags speak of that.
fn memory_only(flags: &[String]) -> &'static [&'static str] {
    let is_said = |flag: &String| flag.starts_with("persistence.enabled=");
    if flags.iter().any(is_said) {
        &[]
    } else {
        &["--set", "persistence.enabled=false"]
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
