//! `henge dev`: a cluster of several nodes on this machine, for trying things out. Each node is a process of its own, so that one
//! can be killed and the others looked at; their data lie in a temporary directory, and go with the command.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, builder::ValueParser, value_parser};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Child;

use super::stop_signals::StopSignals;
use super::{EXIT_FAILURE, failed};
use crate::encryption::random_number;

/// More nodes than this on one machine say nothing that fewer don't.
const MOST_NODES: u16 = 16;
/// How often it is looked whether nodes are ready, or have ended.
const LOOK: Duration = Duration::from_millis(50);
/// How long nodes have to become one cluster: a hundred times what it takes.
const FORMING_TIMEOUT: Duration = Duration::from_mins(1);

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dev {
    nodes: u16,
    /// The port of the first node; the others have those behind it.
    port: u16,
    /// Settings of all nodes, as `--set` takes them.
    settings: Vec<String>,
}

pub(super) fn command() -> Command {
    Command::new("dev")
        .about("Start a cluster of several nodes on this machine, to try things out")
        .args([
            Arg::new("nodes")
                .long("nodes")
                .value_name("COUNT")
                .default_value("3")
                .value_parser(value_parser!(u16).range(1..=i64::from(MOST_NODES)))
                .help("How many nodes"),
            Arg::new("port")
                .long("port")
                .value_name("PORT")
                .default_value("8080")
                .value_parser(value_parser!(u16).range(1..))
                .help("The port of the first node; the others have the next ones"),
            Arg::new("set")
                .long("set")
                .value_name("SECTION.KEY=VALUE")
                .action(ArgAction::Append)
                .value_parser(ValueParser::string())
                .help("A setting of all nodes; may be repeated"),
        ])
        .after_help("Each node is a process of its own, and its data lie in a temporary directory that goes with the command.")
}

/// What the words after `dev` ask for.
pub(super) fn understood(given: &ArgMatches) -> Result<Dev, String> {
    let number = |name| given.get_one::<u16>(name).copied().unwrap_or_default();
    let dev = Dev {
        nodes: number("nodes"),
        port: number("port"),
        settings: given
            .get_many::<String>("set")
            .into_iter()
            .flatten()
            .cloned()
            .collect(),
    };
    if dev.port.checked_add(dev.nodes - 1).is_none() {
        return Err(format!(
            "--port is {}, and {} nodes need as many ports from there on",
            dev.port, dev.nodes
        ));
    }
    Ok(dev)
}

/// Starts the nodes, and stops them when it is told to stop.
pub(super) fn run(dev: &Dev) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(dev.run()),
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => failed(&why, EXIT_FAILURE),
    }
}

/// A directory that goes when this does.
struct Data(PathBuf);

impl Data {
    /// A new one, for its owner only: others can write beside it.
    fn make() -> Result<Self, String> {
        let name = format!(
            "henge-dev-{}-{:08x}",
            std::process::id(),
            random_number() as u32
        );
        let path = std::env::temp_dir().join(name);
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| format!("{} cannot be made: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            let _ = writeln!(
                io::stderr(),
                "henge: {} was not removed: {error}",
                self.0.display()
            );
        }
    }
}

/// One node.
struct Running {
    name: String,
    address: SocketAddr,
    child: Child,
    /// It has ended, and this was told.
    is_over: bool,
}

impl Dev {
    fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        (0..self.nodes).map(|nth| SocketAddr::from((Ipv4Addr::LOCALHOST, self.port + nth)))
    }

    async fn run(&self) -> Result<(), String> {
        let mut stop_signals = StopSignals::new().map_err(|error| error.to_string())?;
        for address in self.addresses() {
            // A node would find this out too, and the others would wait for it.
            TcpListener::bind(address).map_err(|error| {
                format!(
                    "no node can listen on {address}: {error}; --port takes the first of {} ports",
                    self.nodes
                )
            })?;
        }
        let data = Data::make()?;
        let mut nodes = Vec::new();
        let mut outcome = tokio::select! {
            outcome = self.form(&data, &mut nodes) => outcome.map(|()| true),
            () = stop_signals.next() => Ok(false),
        };
        if let Ok(true) = outcome {
            self.explain(&data, &nodes);
            tokio::select! {
                () = stop_signals.next() => {}
                () = tell_ends(&mut nodes) => outcome = Err("all nodes have ended".to_owned()),
            }
        }
        stop(&mut nodes).await;
        outcome.map(|_| ())
    }

    /// Starts all nodes, and waits until they are a cluster.
    async fn form(&self, data: &Data, nodes: &mut Vec<Running>) -> Result<(), String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let all: Vec<String> = self.addresses().map(|at| format!("http://{at}")).collect();
        for (nth, address) in self.addresses().enumerate() {
            let name = format!("node{}", nth + 1);
            let mut command = tokio::process::Command::new(&program);
            command
                .args(["serve", "--port", &address.to_string(), "--node-id", &name])
                .args(["--peers", &all.join(","), "--log-level", "warn"])
                .arg("--data-dir")
                .arg(&data.0)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                // Ctrl-C is for this process, which tells them once: a second signal would have them stop at once.
                .process_group(0);
            for setting in &self.settings {
                command.args(["--set", setting]);
            }
            let child = command
                .spawn()
                .map_err(|error| format!("{name} cannot be started: {error}"))?;
            nodes.push(Running {
                name,
                address,
                child,
                is_over: false,
            });
        }
        let deadline = tokio::time::Instant::now() + FORMING_TIMEOUT;
        let (mut ready, mut looks) = (0, tokio::time::interval(LOOK));
        while let Some(next) = nodes.get(ready) {
            let (name, address) = (next.name.clone(), next.address);
            // Any of them, as each waits for all.
            for node in nodes.iter_mut() {
                if let Ok(Some(status)) = node.child.try_wait() {
                    node.is_over = true;
                    return Err(format!("{} has ended: {status}", node.name));
                }
            }
            if is_ready(address).await {
                ready += 1;
            } else if tokio::time::Instant::now() > deadline {
                return Err(format!("{name} is not ready after a minute"));
            } else {
                looks.tick().await;
            }
        }
        Ok(())
    }

    /// Says where the nodes are, and what to try.
    fn explain(&self, data: &Data, nodes: &[Running]) {
        let mut text = format!(
            "a cluster of {}, on this machine; its data in {} go when this ends\n\n",
            self.nodes,
            data.0.display()
        );
        for node in nodes {
            let process = node.child.id().unwrap_or_default();
            let Running { name, address, .. } = node;
            let _ = writeln!(text, "  {name}  http://{address}  process {process}");
        }
        let (first, last) = (&nodes[0], &nodes[nodes.len() - 1]);
        let _ = write!(
            text,
            "\nTry:\n\
             \x20 curl --json '{{\"key\":\"greeting\",\"value\":\"hello\"}}' http://{0}/set\n\
             \x20 curl 'http://{1}/get?key=greeting'\n\
             \x20 redis-cli -p {2} get greeting\n\
             \x20 henge cluster status --url http://{0}\n\
             \x20 kill {3}   # and look at the status again\n\
             \n\
             Ctrl-C stops them.\n",
            first.address,
            last.address,
            last.address.port(),
            last.child.id().unwrap_or_default()
        );
        // Whoever closed standard output does not want to read it.
        let mut stdout = io::stdout().lock();
        let _ = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
    }
}

/// Tells of nodes that end; ends when all have.
async fn tell_ends(nodes: &mut [Running]) {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        for node in nodes.iter_mut().filter(|node| !node.is_over) {
            if let Ok(Some(status)) = node.child.try_wait() {
                node.is_over = true;
                let _ = writeln!(io::stdout(), "{} has ended: {status}", node.name);
            }
        }
        if nodes.iter().all(|node| node.is_over) {
            return;
        }
    }
}

/// Tells all to stop, and waits until they have.
async fn stop(nodes: &mut [Running]) {
    for node in nodes.iter() {
        let id = node.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(process) = id.and_then(Pid::from_raw) {
            // One that has ended meanwhile is not waited for yet, so its number is still its own.
            let _ = kill_process(process, Signal::TERM);
        }
    }
    for node in nodes {
        let _ = node.child.wait().await;
    }
}

/// Whether a node serves.
async fn is_ready(address: SocketAddr) -> bool {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n").await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        io::Result::Ok(answer.ends_with(b" 200"))
    };
    matches!(tokio::time::timeout(TIMEOUT, ask).await, Ok(Ok(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let asked = |line: &str| {
            let given = command().try_get_matches_from(line.split(' '));
            understood(&given.map_err(|error| error.to_string())?)
        };
        let dev = |nodes, port, settings: &[&str]| Dev {
            nodes,
            port,
            settings: settings.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(asked("dev"), Ok(dev(3, 8080, &[])));
        assert_eq!(
            asked("dev --nodes 5 --port 9000 --set cache.max_items=3"),
            Ok(dev(5, 9000, &["cache.max_items=3"]))
        );
        assert!(asked("dev --nodes 0").is_err());
        assert!(asked("dev --nodes 17").is_err());
        assert_eq!(
            asked("dev --port 65534"),
            Err("--port is 65534, and 3 nodes need as many ports from there on".to_owned())
        );
    }
}
