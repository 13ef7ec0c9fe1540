//! A small HTTP client over a plain socket, so that tests say exactly what goes over the wire, and helpers to start a node
//! in this process or in one of its own.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use henge::Node;
use henge::config::{Config, DirectoryPath};

/// How long to wait for what must come. Generous: it is only ever reached when a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// A response, read whole.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The code of a problem.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// What bytes go over: a socket, or TLS on one.
pub(crate) trait Transport: Read + Write + Send {}

impl<T: Read + Write + Send> Transport for T {}

/// A connection.
pub(crate) struct Client {
    stream: BufReader<Box<dyn Transport>>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("the node listens")
    }

    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self::over(Box::new(stream)))
    }

    /// Over a connection that is there.
    pub(crate) fn over(stream: Box<dyn Transport>) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// Sends bytes as they are. What the node does not want to read any more may fail to be sent.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends a request, with a Content-Length if there is a body, and reads its response.
    pub(crate) fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n");
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        let is_typed = headers.iter().any(|(name, _)| *name == "content-type");
        if method == "POST" && !is_typed && !body.is_empty() {
            head += "content-type: application/json\r\n";
        }
        if !body.is_empty() {
            head.extend(["content-length: ", &body.len().to_string(), "\r\n"]);
        }
        head += "\r\n";
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes).expect("the request is sent");
        self.response(method != "HEAD")
    }

    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.request("GET", target, &[], b"")
    }

    pub(crate) fn post(&mut self, target: &str, body: &str) -> Response {
        self.request("POST", target, &[], body.as_bytes())
    }

    /// Reads a response.
    pub(crate) fn response(&mut self, with_body: bool) -> Response {
        self.try_response(with_body).expect("a response comes")
    }

    pub(crate) fn try_response(&mut self, with_body: bool) -> io::Result<Response> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let status_line = self.line()?;
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| bad(&status_line))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad(&line))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response {
            status,
            headers,
            body: Vec::new(),
        };
        if status == 100 {
            return self.try_response(with_body);
        }
        if with_body {
            let len = response.header("content-length").unwrap_or("0");
            response.body = vec![0; len.parse().map_err(|_| bad(len))?];
            self.stream.read_exact(&mut response.body)?;
        }
        Ok(response)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Reads exactly as many bytes.
    pub(crate) fn read_exact(&mut self, bytes: &mut [u8]) {
        self.stream.read_exact(bytes).expect("they come");
    }

    /// Waits until the node closes the connection; answers what it said before.
    pub(crate) fn until_closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest,
            // A reset is a close too; anything else is the deadline.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("the node did not close the connection: {error}"),
        }
    }
}

/// A node in this process, on a port of its own.
pub(crate) fn node(settings: &[(&str, &str)]) -> Node {
    let node = Node::start(config(settings)).expect("the node starts");
    node.wait_until_ready().expect("there is nothing to load");
    node
}

/// A folder for the data of one node, which nobody has had. Those of test runs that are over are removed by the next one: a
/// node that was killed leaves 32 MiB.
pub(crate) fn data_directory() -> PathBuf {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nodes");
        for folder in all.read_dir().into_iter().flatten().flatten() {
            let process = Path::new("/proc").join(folder.file_name());
            if !process.exists() {
                // Another run may be removing it as well.
                let _ = std::fs::remove_dir_all(folder.path());
            }
        }
        all.join(std::process::id().to_string())
    });
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    ROOT.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string())
}

/// What says where a node has its data, if no flag does.
pub(crate) const DATA_VARIABLE: &str = "HENGE_PERSISTENCE__DIR";

pub(crate) fn config(settings: &[(&str, &str)]) -> Config {
    let mut config = Config::default();
    config
        .set("server.listen", "127.0.0.1:0")
        .expect("a setting");
    config
        .set("cache.max_size_bytes", "256MiB")
        .expect("a setting");
    config.persistence.dir = DirectoryPath::new(data_directory());
    for (name, value) in settings {
        config.set(name, value).expect("a setting");
    }
    config
}

/// A node in a process of its own, killed when this is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    /// The first line that it printed.
    pub(crate) banner: String,
    /// Where its data are, if only it wants them.
    data: Option<PathBuf>,
    /// Keeps the pipe open: a node whose standard output is closed says nothing more, which is fine, but not the same.
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it with a command that ends in the program and its arguments, and waits until it listens.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the process starts");
        let stdout = child.stdout.take().expect("it is piped");
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).expect("the banner comes");
        let address = line
            .trim_end()
            .rsplit_once("http://")
            .and_then(|(_, address)| address.parse().ok());
        let Some(address) = address else {
            let output = child.wait_with_output().expect("it ends");
            panic!("{line:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let data = command
            .get_envs()
            .find_map(|(name, value)| value.filter(|_| name == DATA_VARIABLE));
        Self {
            child,
            address,
            banner: line.trim_end().to_owned(),
            data: data.map(PathBuf::from),
            _stdout: stdout,
        }
    }

    /// The binary, listening on a port of its own.
    pub(crate) fn command(arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_henge"));
        command
            .args(["--port=127.0.0.1:0", "--max-size=256MiB"])
            .env(DATA_VARIABLE, data_directory())
            .args(arguments);
        command
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its end; the exit code and what it logged.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        // Read to its end first: who waits for a process whose log nobody reads may wait for ever.
        let mut log = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            stderr.read_to_string(&mut log).expect("the log is text");
        }
        let status = self.child.wait().expect("it ends");
        (status.code(), log)
    }
}

/// Says that a test leaves something out because a tool is not there. Panics if the tool has to be there: what `.ci/run` has
/// installed it lists in `HENGE_TESTS_NEED`, so that no check of its passes by comparing nothing.
pub(crate) fn skipped(tool: &str, what: &str) {
    let needed = env::var("HENGE_TESTS_NEED").unwrap_or_default();
    assert!(
        !lists(&needed, tool),
        "{tool} is not there, and HENGE_TESTS_NEED lists it: {what}"
    );
    // Not by a macro, whose output nobody sees when a test passes.
    let _ = writeln!(
        std::io::stderr(),
        "skipped: {tool} is not installed, so {what}"
    );
}

fn lists(names: &str, name: &str) -> bool {
    names.split_whitespace().any(|other| other == name)
}

#[test]
fn a_tool_is_needed_by_its_whole_name() {
    for (names, name, expected) in [
        ("", "curl", false),
        ("redis-cli curl", "curl", true),
        (" curl\n", "curl", true),
        ("redis-benchmark", "redis", false),
    ] {
        assert_eq!(lists(names, name), expected, "{name} in {names:?}");
    }
}

/// The folder where `.ci/run` installs a tool, if it has.
pub(crate) fn installed(tool: &str) -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))?;
    let versions = cache.join("henge-ci").read_dir().ok()?;
    versions
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|folder| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            let version = name.strip_prefix(tool).and_then(|v| v.strip_prefix('-'));
            version.is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
        })
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(data) = &self.data {
            let _ = std::fs::remove_dir_all(data);
        }
    }
}
