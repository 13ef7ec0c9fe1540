//! `cargo xtask tidy`: the rules of the house that neither the compiler nor clippy checks.
//!
//! Reads every file that git tracks or would track, and hands its text to the rules. A rule is a pure function from
//! paths and texts to findings and lives in a file beside its tests; this file only gathers and prints. It mends
//! nothing by itself. Each exception stands in an allow list in the file of its rule, with its reason.

mod banned;
mod edges;
mod map;
mod prose;
mod shape;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{fs, io};

use source::Source;

/// Where the code map and the crate edges are drawn.
const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";

/// Something that is not as the house has it: where, what, and what to do instead, in one line.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// From 1. A finding about a file as a whole is at its first line.
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        let message = message.into();
        assert!(
            message.contains("; "),
            "a finding says what is wrong; and what to do: {message}"
        );
        Self {
            path: path.to_owned(),
            line,
            message,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Every text file of the project, by its path from the root with `/` between its parts.
type Tree = BTreeMap<String, String>;

/// The chore: prints the findings, and fails if there are any.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    if let Some(unknown) = arguments.first() {
        eprintln!("xtask tidy: takes no argument, but was given {unknown:?}");
        return ExitCode::from(crate::EXIT_USAGE);
    }
    let tree = match gather(&root()) {
        Ok(tree) => tree,
        Err(error) => {
            eprintln!("xtask tidy: cannot read the project: {error}");
            return ExitCode::FAILURE;
        }
    };
    let findings = check(&tree);
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: {} files, nothing found", tree.len());
        return ExitCode::SUCCESS;
    }
    println!("tidy: {} files, {} findings", tree.len(), findings.len());
    ExitCode::FAILURE
}

/// Applies every rule, and sorts what they find by place.
fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree {
        let source = Source::new(path, text);
        findings.extend(banned::check(&source));
        findings.extend(prose::check(&source));
        findings.extend(shape::check(&source));
    }
    findings.extend(prose::check_links(tree));
    findings.extend(edges::check(tree));
    findings.extend(map::check(tree));
    findings.sort();
    findings
}

/// The root of the workspace that this program was built in.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Reads what git tracks, and what it would track if it were added now; so a new file is checked before its commit.
fn gather(root: &Path) -> io::Result<Tree> {
    let listing = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()?;
    if !listing.status.success() {
        let said = String::from_utf8_lossy(&listing.stderr);
        return Err(io::Error::other(format!("git ls-files: {}", said.trim())));
    }
    let listing = String::from_utf8(listing.stdout).map_err(io::Error::other)?;
    let mut tree = Tree::new();
    for path in listing.split_terminator('\0') {
        match fs::read(root.join(path)) {
            // What is not text is nobody's to check here, but a link may lead to it.
            Ok(bytes) => tree.insert(
                path.to_owned(),
                String::from_utf8(bytes).unwrap_or_default(),
            ),
            // Deleted here, and still in git's index.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io::Error::other(format!("{path}: {error}"))),
        };
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let findings = check(&gather(&root()).expect("the project can be read"));
        let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert!(
            lines.is_empty(),
            "{} findings:\n{}",
            lines.len(),
            lines.join("\n")
        );
    }
}
