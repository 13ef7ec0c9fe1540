//! The crates depend on each other as the architecture page draws it, and the pure ones on nothing that acts.
//!
//! The drawing is the code block under `## The house`: a line for each crate with its folder first, and last, after
//! `->`, the crates that it depends on, or `nothing`. The truth is in the manifests. Dependencies of tests are free.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{ARCHITECTURE, Finding, Tree};

/// Crates that know no clock, socket, thread, lock or ambient randomness.
const PURE: &[&str] = &["crates/wire", "crates/engine", "crates/cluster"];

/// What a pure crate must not depend on, by why. Not every such crate there is: the ones that one would reach for.
const IMPURE: &[(&str, &[&str])] = &[
    (
        "a runtime",
        &[
            "tokio",
            "tokio-util",
            "async-std",
            "smol",
            "futures",
            "rayon",
        ],
    ),
    (
        "a socket",
        &["hyper", "axum", "mio", "socket2", "reqwest", "tower"],
    ),
    (
        "the operating system",
        &["libc", "rustix", "nix", "memmap2", "tempfile"],
    ),
    (
        "a lock or another thread",
        &[
            "parking_lot",
            "crossbeam",
            "crossbeam-channel",
            "arc-swap",
            "dashmap",
        ],
    ),
    (
        "ambient randomness",
        &["rand", "getrandom", "fastrand", "uuid", "ahash"],
    ),
    ("a clock", &["chrono", "time", "jiff", "quanta"]),
    (
        "a global",
        &["tracing", "log", "prometheus-client", "tikv-jemallocator"],
    ),
    ("a format of the surface", &["serde_json", "toml", "utoipa"]),
];

/// A member of the workspace by its manifest.
struct Member<'a> {
    /// Its folder from the root.
    folder: &'a str,
    path: &'a str,
    text: &'a str,
    name: String,
    dependencies: Vec<String>,
}

/// Everything this file is about, of the whole project.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut members = Vec::new();
    for (path, text) in tree {
        let Some(folder) = path.strip_suffix("/Cargo.toml") else {
            continue;
        };
        match text.parse::<Table>() {
            Ok(manifest) => members.extend(member(folder, path, text, &manifest)),
            Err(error) => {
                let wrong = format!("no TOML ({}); mend it", error.message());
                findings.push(Finding::new(path, 1, wrong));
            }
        }
    }
    for member in &members {
        findings.extend(check_purity(member));
    }
    let page = tree.get(ARCHITECTURE).map_or("", String::as_str);
    findings.extend(check_drawing(&drawing(page), &members));
    findings
}

fn member<'a>(
    folder: &'a str,
    path: &'a str,
    text: &'a str,
    manifest: &Table,
) -> Option<Member<'a>> {
    let name = manifest.get("package")?.get("name")?.as_str()?.to_owned();
    let mut dependencies = dependencies(manifest);
    for target in manifest
        .get("target")
        .and_then(Value::as_table)
        .into_iter()
        .flat_map(Table::values)
    {
        dependencies.extend(
            target
                .as_table()
                .map(self::dependencies)
                .unwrap_or_default(),
        );
    }
    Some(Member {
        folder,
        path,
        text,
        name,
        dependencies,
    })
}

/// The packages that a manifest, or one target of it, depends on. A renamed one counts by its own name.
fn dependencies(manifest: &Table) -> Vec<String> {
    let sections = ["dependencies", "build-dependencies"];
    let entries = sections
        .iter()
        .filter_map(|section| manifest.get(*section)?.as_table())
        .flatten();
    entries
        .map(|(key, value)| {
            value
                .get("package")
                .and_then(Value::as_str)
                .unwrap_or(key)
                .to_owned()
        })
        .collect()
}

fn check_purity(member: &Member) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !PURE.contains(&member.folder) {
        return findings;
    }
    for (what, names) in IMPURE {
        for name in member
            .dependencies
            .iter()
            .filter(|name| names.contains(&name.as_str()))
        {
            let wrong = format!(
                "depends on `{name}`: {what}; pass what it gives as an argument, or do it in crates/henge"
            );
            findings.push(Finding::new(member.path, line_of(member, name), wrong));
        }
    }
    findings
}

/// The line of a crate in the drawing, and the crates that its arrow points at.
type Drawing<'a> = BTreeMap<&'a str, (usize, Vec<&'a str>)>;

/// Reads the first code block under `## The house`.
fn drawing(page: &str) -> Drawing<'_> {
    let lines = (1..).zip(page.lines());
    let house = lines.skip_while(|(_, line)| *line != "## The house");
    let block = house
        .skip_while(|(_, line)| !line.starts_with("```"))
        .skip(1);
    let block = block.take_while(|(_, line)| !line.starts_with("```"));
    block
        .filter_map(|(number, line)| {
            let folder = line.split_whitespace().next()?;
            let (_, arrow) = line.rsplit_once("-> ")?;
            let to = arrow
                .split(", ")
                .map(str::trim)
                .filter(|name| *name != "nothing")
                .collect();
            Some((folder, (number, to)))
        })
        .collect()
}

/// Both ways in which the drawing and the manifests may differ.
fn check_drawing(drawing: &Drawing, members: &[Member]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (folder, (line, _)) in drawing {
        if !members.iter().any(|member| member.folder == *folder) {
            let wrong = format!("draws `{folder}`, which is no crate; take the line out");
            findings.push(Finding::new(ARCHITECTURE, *line, wrong));
        }
    }
    for member in members {
        let Some((line, drawn)) = drawing.get(member.folder) else {
            let wrong = format!(
                "`{}` is not drawn; give it a line under `The house` in {ARCHITECTURE}",
                member.folder
            );
            findings.push(Finding::new(member.path, 1, wrong));
            continue;
        };
        for other in members {
            let short = other.folder.rsplit('/').next().unwrap_or(other.folder);
            let is_drawn = drawn.contains(&short);
            let is_true = member.dependencies.contains(&other.name);
            if is_true && !is_drawn {
                let wrong = format!(
                    "depends on `{}` with no arrow to `{short}`; do without it, or draw it in {ARCHITECTURE}",
                    other.name
                );
                findings.push(Finding::new(
                    member.path,
                    line_of(member, &other.name),
                    wrong,
                ));
            } else if is_drawn && !is_true {
                let wrong = format!(
                    "draws `{}` -> {short}, which is no dependency; take the arrow out",
                    member.folder
                );
                findings.push(Finding::new(ARCHITECTURE, *line, wrong));
            }
        }
    }
    findings
}

/// The line of a manifest that names `dependency`, for the reader: the first, if there are several.
fn line_of(member: &Member, dependency: &str) -> usize {
    let is_it = |line: &str| {
        line.strip_prefix(dependency)
            .is_some_and(|rest| rest.starts_with([' ', '.', '=']))
    };
    member
        .text
        .lines()
        .position(is_it)
        .map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A\n\n## The house\n\n```\ncrates/wire    what travels    -> nothing\n\
        crates/engine  what is kept    -> wire\ncrates/henge   the node        -> wire, engine\n```\n";
    const WIRE: &str = "[package]\nname = \"henge-wire\"\n";
    const ENGINE: &str =
        "[package]\nname = \"henge-engine\"\n[dependencies]\nhenge-wire.workspace = true\n";
    const HENGE: &str = "[package]\nname = \"henge\"\n[dependencies]\nhenge-wire.workspace = true\n\
        henge-engine = { path = \"x\" }\ntokio = \"1\"\n";

    /// What is found when the file at `path` is replaced by `text`, or taken away.
    fn check_with(path: &str, text: Option<&str>) -> Vec<(String, usize)> {
        let mut tree: Tree = [
            (ARCHITECTURE, PAGE),
            ("Cargo.toml", "[workspace]\n"),
            ("crates/wire/Cargo.toml", WIRE),
            ("crates/engine/Cargo.toml", ENGINE),
            ("crates/henge/Cargo.toml", HENGE),
        ]
        .map(|(path, text)| (path.to_owned(), text.to_owned()))
        .into();
        match text {
            Some(text) => tree.insert(path.to_owned(), text.to_owned()),
            None => tree.remove(path),
        };
        check(&tree)
            .into_iter()
            .map(|finding| (finding.path, finding.line))
            .collect()
    }

    #[test]
    fn the_drawing_and_the_manifests_agree() {
        type Case<'a> = (&'a str, String, &'a [(&'a str, usize)]);
        let wire = "crates/wire/Cargo.toml";
        let engine = "crates/engine/Cargo.toml";
        // (a file, what it is replaced by, where something is found)
        let table: &[Case] = &[
            ("README.md", String::new(), &[]),
            (
                wire,
                format!("{WIRE}[dependencies]\nhenge-engine.workspace = true\n"),
                &[(wire, 4)],
            ),
            (
                wire,
                format!("{WIRE}[dependencies]\ne = {{ package = \"henge-engine\" }}\n"),
                &[(wire, 1)],
            ),
            (
                wire,
                format!("{WIRE}[dev-dependencies]\nhenge-engine.workspace = true\n"),
                &[],
            ),
            (
                wire,
                format!("{WIRE}[build-dependencies]\nhenge = \"1\"\n"),
                &[(wire, 4)],
            ),
            (
                wire,
                format!("{WIRE}[target.'cfg(unix)'.dependencies]\nlibc = \"1\"\n"),
                &[(wire, 4)],
            ),
            (
                wire,
                "[package\n".to_owned(),
                &[(wire, 1), (ARCHITECTURE, 6)],
            ),
            (
                engine,
                format!("{ENGINE}parking_lot.workspace = true\n"),
                &[(engine, 5)],
            ),
            (
                engine,
                format!("{ENGINE}rand = \"1\"\ntokio = \"1\"\n"),
                &[(engine, 6), (engine, 5)],
            ),
            (
                engine,
                "[package]\nname = \"henge-engine\"\n".to_owned(),
                &[(ARCHITECTURE, 7)],
            ),
            (
                "crates/new/Cargo.toml",
                "[package]\nname = \"new\"\n".to_owned(),
                &[("crates/new/Cargo.toml", 1)],
            ),
            (
                ARCHITECTURE,
                PAGE.replace("-> wire, engine", "-> engine"),
                &[("crates/henge/Cargo.toml", 4)],
            ),
            (
                ARCHITECTURE,
                String::new(),
                &[(engine, 1), ("crates/henge/Cargo.toml", 1), (wire, 1)],
            ),
        ];
        for (path, text, expected) in table {
            let found = check_with(path, Some(text));
            let expected: Vec<_> = expected
                .iter()
                .map(|(path, line)| ((*path).to_owned(), *line))
                .collect();
            assert_eq!(found, expected, "{path} with {text:?}");
        }
        assert_eq!(
            check_with("crates/henge/Cargo.toml", None),
            [(ARCHITECTURE.to_owned(), 8)]
        );
    }
}
