//! What a file is called, how it opens, how long it is, and which files may hold `unsafe`.

use super::Finding;
use super::source::Source;

/// Beyond this a file mostly holds several ideas (STYLE 5 allows a large one where the idea is large: `LONG`).
const MAX_LINES: usize = 900;

/// Files of one idea that takes more lines, each with that idea.
const LONG: &[(&str, &str)] = &[];

/// Files that may hold `unsafe` behind a safe API, each with what it is for.
const UNSAFE: &[(&str, &str)] = &[
    (
        "crates/henge/src/main.rs",
        "jemalloc reads its settings from a symbol of a given name",
    ),
    (
        "crates/henge/src/allocator.rs",
        "the trait of allocators is unsafe to implement and to call",
    ),
    (
        "crates/henge/src/allocator/regions.rs",
        "nothing safe maps memory of 2 MiB and has it in a huge page",
    ),
    (
        "crates/engine/src/prefetch.rs",
        "stable Rust has no safe name for the processor's prefetch",
    ),
];

/// Names that tell a stranger nothing about what is inside.
const VAGUE: &[&str] = &["util", "utils", "helper", "helpers", "misc", "common"];

/// Everything this file is about, of one Rust file.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    if !source.is_rust() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    findings.extend(check_opening(source));
    findings.extend(check_length(source, LONG));
    findings.extend(check_unsafe(source, UNSAFE));
    findings.extend(check_names(source));
    findings
}

fn check_opening(source: &Source) -> Option<Finding> {
    let wrong = "does not open with `//!`; say in one paragraph what the file does and what it refuses to do";
    (!source.text.starts_with("//!")).then(|| Finding::new(source.path, 1, wrong))
}

fn check_length(source: &Source, long: &[(&str, &str)]) -> Option<Finding> {
    let lines = source.text.lines().count();
    let wrong = format!(
        "{lines} lines; move an idea of its own to a file of its own, or argue in `LONG` of xtask/src/tidy/shape.rs"
    );
    (lines > MAX_LINES && !is_listed(long, source.path))
        .then(|| Finding::new(source.path, MAX_LINES + 1, wrong))
}

fn check_unsafe(source: &Source, allowed: &[(&str, &str)]) -> Vec<Finding> {
    if is_listed(allowed, source.path) {
        return Vec::new();
    }
    let wrong = "`unsafe` outside the files that may; use a safe API, or argue in `UNSAFE` of xtask/src/tidy/shape.rs";
    let places = source.find_in_code("unsafe").into_iter();
    places
        .map(|(line, _)| Finding::new(source.path, line, wrong))
        .collect()
}

fn check_names(source: &Source) -> Vec<Finding> {
    let wrong =
        |name: &str| format!("`{name}` is no name for a module; name it after what is in it");
    let mut findings = Vec::new();
    for part in source.path.split('/') {
        let name = part.strip_suffix(".rs").unwrap_or(part);
        if VAGUE.contains(&name) {
            findings.push(Finding::new(source.path, 1, wrong(name)));
        }
    }
    for name in VAGUE {
        // With a brace the module is in this file. With a semicolon it is a file, which is found by its own name.
        for (line, _) in source.find_in_code(&format!("mod {name} {{")) {
            findings.push(Finding::new(source.path, line, wrong(name)));
        }
    }
    findings
}

fn is_listed(list: &[(&str, &str)], path: &str) -> bool {
    list.iter().any(|(listed, _)| *listed == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked() {
        let long = format!("//! A.\n{}", "\n".repeat(MAX_LINES));
        let full = format!("//! A.\n{}", "\n".repeat(MAX_LINES - 1));
        // (path, text, the lines that are found)
        let table: &[(&str, &str, &[usize])] = &[
            ("a.rs", "//! A.\n", &[]),
            ("a.rs", "// A.\n", &[1]),
            ("a.rs", "", &[1]),
            ("a.md", "# A\n", &[]),
            ("a.rs", &full, &[]),
            ("a.rs", &long, &[MAX_LINES + 1]),
            ("a.md", &long, &[]),
            ("a.rs", "//! A.\n\nunsafe { f() }\n", &[3]),
            (
                "a.rs",
                "//! A, not unsafe.\n#![deny(unsafe_code)]\nlet s = \"unsafe\";\n",
                &[],
            ),
            ("crates/a/src/utils.rs", "//! A.\n", &[1]),
            ("crates/a/tests/common/mod.rs", "//! A.\n", &[1]),
            ("crates/a/src/a.rs", "//! A.\n\nmod helpers {}\n", &[3]),
            (
                "crates/a/src/a.rs",
                "//! A.\n\nuse common_sense::utility;\n",
                &[],
            ),
        ];
        for (path, text, lines) in table {
            let found = check(&Source::new(path, text));
            let at: Vec<usize> = found.iter().map(|finding| finding.line).collect();
            assert_eq!(at, *lines, "{path}: {found:?}");
        }
    }

    #[test]
    fn an_exception_is_for_one_file() {
        let long = format!("//! A.\n{}", "\n".repeat(MAX_LINES));
        let listed = [("a.rs", "a reason")];
        assert_eq!(check_length(&Source::new("a.rs", &long), &listed), None);
        assert!(check_length(&Source::new("b.rs", &long), &listed).is_some());
        assert_eq!(check_unsafe(&Source::new("a.rs", "unsafe {}"), &listed), []);
        assert_eq!(
            check_unsafe(&Source::new("b.rs", "unsafe {}"), &listed).len(),
            1
        );
    }
}
