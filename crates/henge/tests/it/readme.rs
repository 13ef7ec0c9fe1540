//! The commands of README.md and docs/http-api.md, pasted one by one, print what the pages say. Each page gets a node of its
//! own, on a port of its own: that the commands name the default port is the only thing that is changed about them.
//! docs/first-hour.md is run as it stands, all of it in one shell, with nodes that it starts itself.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{DEADLINE, Process, skipped};

const README: &str = include_str!("../../../../README.md");
const HTTP_API: &str = include_str!("../../../../docs/http-api.md");
const FIRST_HOUR: &str = include_str!("../../../../docs/first-hour.md");

pub(crate) fn is_installed(program: &str) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}

/// Stands for anything, on one line.
pub(crate) const ANYTHING: char = '…';

/// A command of a page, and the lines that it prints.
pub(crate) struct Example<'a> {
    /// Where the command stands.
    line: usize,
    pub(crate) command: &'a str,
    pub(crate) expected: Vec<&'a str>,
}

/// A fenced block of a page.
pub(crate) struct Block<'a> {
    /// None is named where this is empty.
    pub(crate) language: &'a str,
    /// The lines, with their numbers.
    pub(crate) lines: Vec<(usize, &'a str)>,
}

pub(crate) fn all_blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut lines = (1..).zip(page.lines());
    while let Some(language) = lines.find_map(|(_, line)| line.strip_prefix("```")) {
        let lines = lines.by_ref().take_while(|(_, line)| *line != "```");
        blocks.push(Block {
            language,
            lines: lines.collect(),
        });
    }
    blocks
}

/// The lines of each fenced block of a language, with their numbers.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<Vec<(usize, &'a str)>> {
    let blocks = all_blocks(page).into_iter();
    let those = blocks.filter(|block| block.language == language);
    those.map(|block| block.lines).collect()
}

/// Commands stand behind a prompt.
pub(crate) fn prompted(line: &str) -> Result<&str, &str> {
    line.strip_prefix("$ ").ok_or(line)
}

/// The examples in blocks of a language. `sort` says of a line whether it is a command or expected, without its mark.
pub(crate) fn examples<'a>(
    page: &'a str,
    language: &str,
    sort: impl Fn(&'a str) -> Result<&'a str, &'a str>,
) -> Vec<Example<'a>> {
    let mut examples: Vec<Example<'a>> = Vec::new();
    for (line, text) in blocks(page, language).concat() {
        match sort(text) {
            Ok(command) => examples.push(Example {
                line,
                command,
                expected: Vec::new(),
            }),
            Err(expected) => examples
                .last_mut()
                .unwrap_or_else(|| panic!("line {line} comes before any command"))
                .expected
                .push(expected),
        }
    }
    examples
}

/// Whether a line is what was expected.
fn matches(expected: &str, found: &str) -> bool {
    let mut parts = expected.split(ANYTHING);
    let Some(mut rest) = found.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Where programs are found, the `henge` of this build before any other.
fn path_with_henge() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = Path::new(env!("CARGO_BIN_EXE_henge")).parent();
    let all = own.map(Path::to_path_buf).into_iter();
    std::env::join_paths(all.chain(std::env::split_paths(&path))).expect("a path of paths")
}

/// A node whose output is on its way, and a folder to run commands in.
pub(crate) struct Bench {
    page: &'static str,
    node: Process,
    folder: PathBuf,
}

impl Bench {
    /// None, and a line that says so, where there is no curl: README.md promises that a machine needs none for its tests.
    /// `.ci/run` installs it.
    pub(crate) fn new(page: &'static str) -> Option<Self> {
        if !is_installed("curl") {
            skipped("curl", &format!("the commands of {page} were not run"));
            return None;
        }
        let name = format!(
            "henge-{}-{}",
            page.replace(['/', '.'], "-"),
            std::process::id()
        );
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a directory");
        fs::write(folder.join("logo.png"), [0x89, b'P', b'N', b'G', 0, 255]).expect("written");
        // All interfaces, as without any flag.
        let mut command = Command::new(env!("CARGO_BIN_EXE_henge"));
        command.args(["--port=:0", "--max-size=256MiB"]);
        command.env("HENGE_PERSISTENCE__DIR", folder.join("data"));
        Some(Self {
            page,
            node: Process::start(command),
            folder,
        })
    }

    /// What a shell prints for a command, the streams mingled as on a terminal.
    pub(crate) fn run(&self, command: &str) -> String {
        let here = format!("localhost:{}", self.node.address.port());
        let port = format!("-p {}", self.node.address.port());
        let command = command
            .replace("localhost:8080", &here)
            .replace("-p 8080", &port);
        let child = Command::new("bash")
            // On a terminal curl shows no progress; on a pipe it would.
            .args([
                "-c",
                "exec 2>&1; curl() { command curl --no-progress-meter \"$@\"; }; eval \"$1\"",
                "bash",
            ])
            .arg(&command)
            .current_dir(&self.folder)
            // No settings, proxies or .curlrc of whoever runs the tests.
            .env_clear()
            .env("PATH", path_with_henge())
            .env("HOME", &self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash starts");
        let pid = Pid::from_child(&child);
        let (done, output) = mpsc::channel();
        thread::spawn(move || done.send(child.wait_with_output()));
        let Ok(output) = output.recv_timeout(DEADLINE) else {
            let _ = kill_process(pid, Signal::KILL);
            panic!("{}: `{command}` does not end", self.page);
        };
        let output = output.expect("its output can be read");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs an example; what is wrong with it, for a person.
    fn check(&self, example: &Example<'_>) -> Option<String> {
        let printed = self.run(example.command);
        let found: Vec<&str> = printed.trim_end().lines().map(str::trim_end).collect();
        let same = found.len() == example.expected.len()
            && found
                .iter()
                .zip(&example.expected)
                .all(|(found, expected)| matches(expected, found));
        (!same).then(|| {
            format!(
                "{}:{}: $ {}\n  the page says:\n{}\n  it prints:\n{}",
                self.page,
                example.line,
                example.command,
                example.expected.join("\n"),
                found.join("\n")
            )
        })
    }

    /// Runs examples in their order; those of redis-cli where there is one.
    pub(crate) fn check_all(self, examples: &[Example<'_>]) {
        let is_of_redis = |example: &&Example<'_>| example.command.starts_with("redis-cli ");
        let has_redis = is_installed("redis-cli");
        if !has_redis && examples.iter().any(|example| is_of_redis(&example)) {
            let what = format!("its commands in {} were not run", self.page);
            skipped("redis-cli", &what);
        }
        let wrong: Vec<String> = examples
            .iter()
            .filter(|example| has_redis || !is_of_redis(example))
            .filter_map(|example| self.check(example))
            .collect();
        fs::remove_dir_all(&self.folder).expect("removed");
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    }
}

#[test]
fn the_commands_of_the_readme_print_what_it_says() {
    let examples = examples(README, "console", prompted);
    assert!(examples.len() > 10, "they are found");
    let Some(bench) = Bench::new("README.md") else {
        return;
    };
    let [banner] = &blocks(README, "text")[..] else {
        panic!("one banner is shown");
    };
    let found = [&bench.node.banner];
    let port = bench.node.address.port().to_string();
    for ((line, expected), found) in banner.iter().zip(found) {
        let expected = expected.replace("8080", &port);
        // A machine without IPv6 has no [::].
        let other = expected.replace("[::]", "0.0.0.0");
        assert!(
            *found == expected || *found == other,
            "README.md:{line}: {expected} is {found}"
        );
    }
    bench.check_all(&examples);
}

#[test]
fn the_examples_of_the_http_api_answer_what_it_says() {
    let sort = |line: &'static str| line.strip_prefix("# ").map_or(Ok(line), Err);
    let examples = examples(HTTP_API, "sh", sort);
    assert!(examples.len() > 10, "they are found");
    if let Some(bench) = Bench::new("docs/http-api.md") {
        bench.check_all(&examples);
    }
}

/// Rows as `GET /health`, the answer or a word about it, and the command.
#[test]
fn the_table_of_the_http_api_names_commands_that_succeed() {
    let Some(bench) = Bench::new("docs/http-api.md, the table") else {
        return;
    };
    let mut rows = 0;
    for row in HTTP_API.lines().filter(|line| line.starts_with("| `")) {
        let codes: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        let Some(command) = codes.iter().find(|code| code.starts_with("curl ")) else {
            continue;
        };
        rows += 1;
        let printed = bench.run(&command.replacen("curl", "curl --fail --show-error", 1));
        assert!(!printed.starts_with("curl: "), "{command}: {printed}");
        if let Some(answer) = codes.iter().find(|code| code.starts_with('{')) {
            assert!(matches(answer, printed.trim_end()), "{command}: {printed}");
        }
    }
    assert!(rows > 5, "they are found");
    bench.check_all(&[]);
}

/// Three ports in a row that nobody has now.
fn three_ports() -> u16 {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
    // Below those that the system gives away by itself.
    let first = 20_000 + (std::process::id() % 1000) as u16 * 10;
    let mut ports = (first..32_000).step_by(3);
    ports
        .find(|port| (*port..port + 3).all(is_free))
        .expect("few ports are in use")
}

#[test]
fn the_first_hour_goes_as_it_says() {
    for program in ["curl", "redis-cli"] {
        if !is_installed(program) {
            return skipped(program, "docs/first-hour.md was not walked");
        }
    }
    let folder = std::env::temp_dir().join(format!("henge-first-hour-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a directory");
    let (mut script, mut expected) = (String::new(), Vec::new());
    for (_, line) in blocks(FIRST_HOUR, "sh").concat() {
        match line.strip_prefix("# ") {
            Some(output) => expected.push(output),
            None => script.extend([line, "\n"]),
        }
    }
    assert!(expected.len() > 20, "they are found");
    let child = Command::new("bash")
        .args(["-euo", "pipefail", "-c"])
        .arg(format!("exec 2>&1\n{script}"))
        .current_dir(&folder)
        .env_clear()
        .env("PATH", path_with_henge())
        .env("HOME", &folder)
        .env("PORT", three_ports().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash starts");
    // Each wait of the walk has a bound; whoever ends it here would leave its nodes behind.
    let output = child.wait_with_output().expect("its output can be read");
    let printed = String::from_utf8_lossy(&output.stdout);
    let found: Vec<&str> = printed.lines().collect();
    let differs = (0..found.len().max(expected.len())).find(|&n| {
        let pair = expected.get(n).zip(found.get(n));
        !pair.is_some_and(|(expected, found)| matches(expected, found))
    });
    if let Some(n) = differs {
        panic!(
            "line {n} of what is printed is {:?}, not {:?}:\n{printed}",
            found.get(n),
            expected.get(n)
        );
    }
    assert!(output.status.success(), "{}:\n{printed}", output.status);
    fs::remove_dir_all(&folder).expect("removed");
}

/// Cargo is not run inside a test, but what the commands name is there.
#[test]
fn the_cargo_commands_of_the_readme_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| fs::read_to_string(root.join(path)).expect(path);
    let manifest: toml::Table = read("Cargo.toml").parse().expect("a manifest");
    let workspace = &manifest["workspace"];
    let aliases: toml::Table = read(".cargo/config.toml").parse().expect("a configuration");
    for (line, command) in blocks(README, "sh").concat() {
        match command {
            // The one default member has one binary, so that it needs no name.
            "cargo run --release" => {
                let default = workspace["default-members"].as_array().expect("a list");
                assert_eq!(default[..], ["crates/henge".into()]);
                assert!(root.join("crates/henge/src/main.rs").exists());
                assert!(!root.join("crates/henge/src/bin").exists());
            }
            "cargo test --workspace" => {
                for member in workspace["members"].as_array().expect("a list") {
                    let folder = root.join(member.as_str().expect("a path"));
                    assert!(folder.join("Cargo.toml").exists(), "{member:?}");
                }
            }
            line_of_a_node if line_of_a_node.starts_with("henge --port=") => {
                // Tests of clusters start such; here it is that the line is understood.
                let arguments = line_of_a_node.split(' ').skip(1);
                let mut check = Command::new(env!("CARGO_BIN_EXE_henge"));
                let output = check.args(["config", "check"]).args(arguments).output();
                let output = output.expect("it starts");
                assert!(output.status.success(), "README.md:{line}: {output:?}");
            }
            own if ["henge verify ", "henge key new "]
                .iter()
                .any(|begin| own.starts_with(begin)) =>
            {
                // Their own tests run them; with this it is said only whether the line is understood.
                let arguments = own.split(' ').skip(1).chain(["--help"]);
                let mut check = Command::new(env!("CARGO_BIN_EXE_henge"));
                let output = check.args(arguments).output().expect("it starts");
                assert!(output.status.success(), "README.md:{line}: {output:?}");
            }
            // A test of clusters runs it, at ports that are free; those of such clusters ask and drain as these do.
            "henge dev --nodes 3" | "redis-cli -p 8082 GET greeting" => {}
            // What API keys do has tests of its own, for clients of other machines too.
            with_key if with_key.starts_with("HENGE_API_KEY=henge_… henge get ") => {}
            "redis-cli -h node1.example -p 8080 --askpass GET greeting" => {}
            request if request.starts_with("curl -i -H 'X-Consistency-Level: ALL' ") => {}
            line_of_cluster if line_of_cluster.starts_with("henge cluster ") => {
                let arguments = line_of_cluster.split(' ').skip(1).chain(["--help"]);
                let mut check = Command::new(env!("CARGO_BIN_EXE_henge"));
                let output = check.args(arguments).output().expect("it starts");
                assert!(output.status.success(), "README.md:{line}: {output:?}");
            }
            other => panic!("README.md:{line}: `{other}` is not checked; do so here"),
        }
    }
    assert!(README.contains("`cargo xtask "));
    assert!(aliases["alias"].get("xtask").is_some());
}

#[test]
fn anything_is_anything_on_one_line() {
    for (expected, found, same) in [
        ("", "", true),
        ("", "a", false),
        ("abc", "abc", true),
        ("abc", "abcd", false),
        ("a…", "a", true),
        ("a…", "ab", true),
        ("a…", "za", false),
        ("…c", "abc", true),
        ("…c", "abcd", false),
        ("a…c", "abc", true),
        ("ab…bc", "abc", false),
        ("a…b…c", "axbxc", true),
        ("a…b…c", "axc", false),
        ("…b…", "abc", true),
    ] {
        assert_eq!(matches(expected, found), same, "{expected:?} {found:?}");
    }
}
