//! Each fenced block of the book in docs/ and of deploy/README.md is tried, as far as a machine can: examples of one node are run and
//! print what the page says, configurations are read, commands are understood, and what they name exists. A block that none of this
//! fits fails, so that whoever writes one thinks of how it is checked.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::access::write_private;
use crate::client::skipped;
use crate::cluster::dev::{Dev, free_ports};
use crate::readme::{ANYTHING, Bench, Block, all_blocks, examples, is_installed, prompted};
use crate::tls::Authority;

/// Pages that `readme.rs` runs, and those that are made of tables.
const ELSEWHERE: [&str; 4] = [
    "first-hour.md",
    "http-api.md",
    "commands.md",
    "ARCHITECTURE.md",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The pages, by their names from the root on.
fn pages() -> Vec<(String, String)> {
    let names = fs::read_dir(root().join("docs")).expect("there is a book");
    let names = names.map(|entry| entry.expect("a file").file_name());
    let names: BTreeSet<String> = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "md"))
        .filter(|name| !ELSEWHERE.contains(&&**name))
        .map(|name| format!("docs/{name}"))
        .chain(["deploy/README.md".to_owned()])
        .collect();
    let read = |name: String| {
        let text = fs::read_to_string(root().join(&name)).expect("it is text");
        (name, text)
    };
    names.into_iter().map(read).collect()
}

/// The commands of a block as a shell has them: without comments, prompts and what they print, and each in one line.
fn commands(block: &Block<'_>) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut goes_on = false;
    let has_prompts = block.lines.iter().any(|(_, line)| line.starts_with("$ "));
    for (_, line) in &block.lines {
        // Where there is a prompt, the rest is what is printed.
        let typed = prompted(line).ok().or((!has_prompts).then_some(*line));
        let Some(line) = typed else {
            continue;
        };
        let words = line.split(" # ").next().unwrap_or_default().trim();
        let ends = words.strip_suffix('\\');
        let part = ends.unwrap_or(words).trim();
        match commands.last_mut() {
            Some(last) if goes_on => last.extend([" ", part]),
            _ if is_command(part) => commands.push(part.to_owned()),
            _ => {}
        }
        goes_on = ends.is_some();
    }
    commands
}

/// Words by which a line is known for a command.
const PROGRAMS: [&str; 11] = [
    "henge",
    "cargo",
    "openssl",
    "docker",
    "systemctl",
    "kill",
    "mkdir",
    "cd",
    "umask",
    "editor",
    "target/release/henge",
];

fn is_command(line: &str) -> bool {
    let mut words = line.split(' ').skip_while(|word| is_variable(word));
    let first = words.next().unwrap_or_default();
    PROGRAMS.contains(&first)
        || line.starts_with("(umask ")
        || line.starts_with("export ")
        || line.starts_with("for ")
}

fn is_variable(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// Why a command cannot be what somebody should type; none where it can.
fn misunderstood(command: &str) -> Option<String> {
    let words: Vec<&str> = command
        .split(' ')
        .skip_while(|word| is_variable(word))
        .collect();
    let (program, arguments) = words.split_first()?;
    match *program {
        "henge" if arguments.iter().any(|word| word.starts_with("--port=")) => {
            let mut words = vec!["config", "check"];
            words.extend(arguments);
            fails(&words)
        }
        "henge" => {
            let mut words = arguments.to_vec();
            words.push("--help");
            fails(&words)
        }
        "cargo" => names_nothing(arguments),
        // What is run as a whole elsewhere, or touches the machine; the files that they name exist.
        _ => arguments
            .iter()
            .filter(|word| word.starts_with("deploy/"))
            .find(|path| !root().join(path).exists())
            .map(|path| format!("{path} does not exist")),
    }
}

/// Why `henge` does not take this.
fn fails(words: &[&str]) -> Option<String> {
    let mut henge = Command::new(env!("CARGO_BIN_EXE_henge"));
    let output = henge.args(words).output().expect("it starts");
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Why cargo could not do this: it is not run inside a test.
fn names_nothing(arguments: &[&str]) -> Option<String> {
    let after = |flags: &[&str]| {
        let at = arguments.iter().position(|word| flags.contains(word))?;
        arguments.get(at + 1).copied()
    };
    let package = match after(&["-p", "--package"]) {
        Some("xtask") => Some("xtask".to_owned()),
        Some(name) => Some(format!(
            "crates/{}",
            name.strip_prefix("henge-").unwrap_or(name)
        )),
        None => None,
    };
    let mut paths: Vec<String> = package
        .iter()
        .map(|path| format!("{path}/Cargo.toml"))
        .collect();
    paths.extend(after(&["--path", "--manifest-path"]).map(str::to_owned));
    if let (Some(package), Some(name)) = (&package, after(&["--bin"])) {
        paths.push(format!("{package}/src/bin/{name}.rs"));
    }
    if let Some(at) = arguments.iter().position(|word| *word == "fuzz") {
        let target = arguments.get(at + 2).unwrap_or(&"");
        paths.push(format!("fuzz/fuzz_targets/{target}.rs"));
    }
    let missing = paths.iter().find(|path| !root().join(path).exists());
    if let Some(path) = missing {
        return Some(format!("{path} does not exist"));
    }
    let [command, rest @ ..] = arguments else {
        return Some("it has no command".to_owned());
    };
    if *command != "xtask" {
        return None;
    }
    let ["bench", bench, ..] = rest else {
        return None;
    };
    let benches = fs::read_to_string(root().join("xtask/src/bench.rs")).expect("it is there");
    let is_there = benches.contains(&format!("name: \"{bench}\""));
    (!is_there).then(|| format!("there is no bench {bench}"))
}

/// Each block is one of these.
#[derive(PartialEq, Eq, Debug)]
enum Kind {
    /// Commands to be understood.
    Commands,
    /// A configuration of a node.
    Configuration,
    /// A part of a key file.
    KeyFile,
    /// Lines of JSON.
    Json,
    /// What something prints, or a drawing: there is nothing to try.
    Shown,
}

fn kind(block: &Block<'_>) -> Kind {
    let first = block.lines.first().map_or("", |(_, line)| line);
    match block.language {
        "toml" if first.starts_with("[keys.") => Kind::KeyFile,
        "toml" => Kind::Configuration,
        "json" => Kind::Json,
        "text" if first.starts_with('{') => Kind::Json,
        "sh" | "console" => Kind::Commands,
        "" | "text" if !commands(block).is_empty() => Kind::Commands,
        _ => Kind::Shown,
    }
}

/// What a page shows of a configuration, in a folder where the files are that it names.
fn misread(lines: &str, folder: &Path) -> Option<String> {
    let here = format!("{}/", folder.display());
    let path = folder.join("henge.toml");
    fs::write(&path, lines.replace("/etc/henge/", &here)).expect("it is written");
    let flag = format!("--config={}", path.display());
    fails(&["config", "check", &flag])
}

/// The files that configurations of the book name.
fn write_files(folder: &Path) {
    let authority = Authority::new();
    let (chain, key) = authority.issue(&["localhost"]);
    fs::write(folder.join("chain.pem"), chain).expect("it is written");
    fs::write(folder.join("ca.pem"), authority.pem()).expect("it is written");
    write_private(&folder.join("key.pem"), &key);
    let secret = format!("1 {}\n", "5a".repeat(32));
    write_private(&folder.join("keys"), &secret);
}

#[test]
fn each_block_is_understood() {
    let folder = std::env::temp_dir().join(format!("henge-book-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    write_files(&folder);
    let mut wrong = Vec::new();
    let mut seen = [0; 2];
    for (page, text) in pages() {
        for block in all_blocks(&text) {
            let kind = kind(&block);
            seen[usize::from(kind == Kind::Shown)] += 1;
            let lines: Vec<&str> = block.lines.iter().map(|(_, line)| *line).collect();
            let whole = lines.join("\n");
            let error = match kind {
                Kind::Commands => commands(&block).iter().find_map(|command| {
                    misunderstood(command).map(|why| format!("{command}: {why}"))
                }),
                Kind::Configuration => misread(&whole, &folder),
                Kind::KeyFile => whole.parse::<toml::Table>().err().map(|e| e.to_string()),
                Kind::Json => lines.iter().find_map(|line| {
                    let read: Result<serde_json::Value, _> = serde_json::from_str(line);
                    read.err().map(|error| error.to_string())
                }),
                Kind::Shown => None,
            };
            let at = block.lines.first().map_or(0, |(at, _)| *at);
            wrong.extend(error.map(|error| format!("{page}:{at}: {error}")));
        }
    }
    fs::remove_dir_all(&folder).expect("removed");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    let [tried, shown] = seen;
    assert!(
        tried > 30 && shown < tried,
        "{tried} are tried, {shown} are shown"
    );
}

/// A page, how one of its blocks begins, and what has to be put in for what the page leaves out.
type Walk = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

/// Blocks that are run as they stand, with a node at the port that they name.
const RUN: [Walk; 4] = [
    (
        "docs/client-encryption.md",
        "(umask 077",
        // The port that is meant where none is named.
        &[
            (
                "set greeting hello",
                "set greeting hello --url http://localhost:8080",
            ),
            ("get greeting", "get greeting --url http://localhost:8080"),
        ],
    ),
    ("docs/durability.md", "(umask 077", &[]),
    ("docs/security.md", "umask 077", &[]),
    (
        "docs/security.md",
        "henge key new --name boss",
        &[
            (
                "--permissions admin --url http://localhost:8080",
                "--permissions admin --url http://localhost:8080 | tee made",
            ),
            ("henge_…", "$(grep ^henge_ made)"),
        ],
    ),
];

#[test]
fn blocks_of_commands_do_what_they_say() {
    // It knows no `--version`.
    let openssl = Command::new("openssl").arg("version").output();
    if !openssl.is_ok_and(|output| output.status.success()) {
        return skipped("openssl", "no block of the book was run");
    }
    for (name, begin, puts) in RUN {
        let (_, page) = pages()
            .into_iter()
            .find(|(page, _)| page == name)
            .expect("a page");
        let blocks = all_blocks(&page);
        let is_it = |block: &&Block<'_>| block.lines[0].1.starts_with(begin);
        let block = blocks.iter().find(is_it).expect("it has that block");
        let lines: Vec<&str> = block.lines.iter().map(|(_, line)| *line).collect();
        let script = puts.iter().fold(lines.join("\n"), |script, (from, to)| {
            assert!(script.contains(from), "{name}: {from}");
            script.replacen(from, to, 1)
        });
        let Some(bench) = Bench::new(name) else {
            return;
        };
        let printed = bench.run(&format!(
            "set -euo pipefail; {script}\necho all of it is done"
        ));
        assert!(
            printed.ends_with("all of it is done\n"),
            "{name}: {printed}"
        );
        bench.check_all(&[]);
    }
}

/// The page for beginners, with the nodes that it starts.
#[test]
fn start_goes_as_it_says() {
    if !is_installed("redis-cli") {
        return skipped("redis-cli", "docs/start.md was not walked");
    }
    let (_, page) = pages()
        .into_iter()
        .find(|(page, _)| page == "docs/start.md")
        .expect("a page");
    let (one, three) = page
        .split_once("## Three nodes")
        .expect("it has both parts");
    let one = examples(one, "console", prompted);
    let three = examples(three, "console", prompted);
    assert!(one.len() >= 4 && three.len() >= 2, "they are found");
    let Some(bench) = Bench::new("docs/start.md") else {
        return;
    };
    bench.check_all(&one);
    let first = free_ports(2);
    let mut dev = Dev::start(first);
    dev.lines_to("Ctrl-C stops them.");
    let port = |n: u16| format!("-p {}", first + n);
    for example in three {
        let command = example
            .command
            .replace("-p 8080", &port(0))
            .replace("-p 8082", &port(2));
        let output = Command::new("bash")
            .args(["-c", &command])
            .output()
            .expect("it starts");
        let printed = String::from_utf8_lossy(&output.stdout);
        let expected = example.expected.join("\n");
        assert!(!expected.contains(ANYTHING));
        assert_eq!(printed.trim_end(), expected, "{command}");
    }
}
