//! What is written for people: marks of unfinished work, paths of somebody's machine, links that lead nowhere.

use super::source::{Source, ending, find_words, line_at};
use super::{Finding, Tree};

/// Words that promise work. Whole, and in capitals as one writes them.
const PROMISES: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];

/// Folders at the root of the machines that Henge is written on. A path into one holds on no other machine.
const MACHINE_FOLDERS: &[&str] = &["work", "farm", "tmp", "root", "home"];

/// Files that may name a path of a machine, each with why it holds elsewhere too.
const MACHINE_PATHS: &[(&str, &str)] = &[];

/// The marks and the paths of one file.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = check_promises(source);
    findings.extend(check_machine_paths(source));
    findings
}

/// A promise without a number is one that nobody keeps.
fn check_promises(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for word in PROMISES {
        for at in find_words(&source.comments, word) {
            if !has_issue_number(&source.comments[at + word.len()..]) {
                let wrong = format!(
                    "{word} without an issue; write {word}(#12): with its number, or do it now"
                );
                findings.push(Finding::new(
                    source.path,
                    line_at(&source.comments, at),
                    wrong,
                ));
            }
        }
    }
    findings
}

/// Whether `rest` begins with `(#12)`.
fn has_issue_number(rest: &str) -> bool {
    let number = rest
        .strip_prefix("(#")
        .and_then(|rest| rest.split_once(')'))
        .map(|(number, _)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Lock files and drawings are written by tools; what looks like a path there is none.
fn check_machine_paths(source: &Source) -> Vec<Finding> {
    let is_drawing = source.path.starts_with("docs/") && ending(source.path) == "svg";
    if is_drawing
        || ending(source.path) == "lock"
        || MACHINE_PATHS.iter().any(|(path, _)| *path == source.path)
    {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for folder in MACHINE_FOLDERS {
        for (at, found) in source.text.match_indices(&format!("/{folder}/")) {
            // The bare folder in quotes is its name, as in a default or a message: no path of anybody's machine.
            let named = ["tmp", "root"].contains(folder)
                && source.text[at + found.len()..].starts_with(['"', '`', ')']);
            if !named {
                let wrong = format!(
                    "a path under /{folder} of one machine; make it relative to the project, or an argument"
                );
                findings.push(Finding::new(source.path, line_at(source.text, at), wrong));
            }
        }
    }
    findings
}

/// Every relative link in a page leads to a file or a folder of the project.
pub(super) fn check_links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.iter().filter(|(path, _)| ending(path) == "md") {
        for (line, target) in links(text) {
            let place = target.split(['#', '?']).next().unwrap_or_default();
            if !place.is_empty() && !resolve(path, place).is_some_and(|to| exists(tree, &to)) {
                let wrong =
                    format!("the link to `{target}` leads nowhere; mend it, relative to this page");
                findings.push(Finding::new(path, line, wrong));
            }
        }
    }
    findings
}

/// The targets of `[text](target)` and `[text]: target` that stay within the project, with their lines.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_fence = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
            continue;
        }
        if in_fence {
            continue;
        }
        let defined = line
            .strip_prefix('[')
            .and_then(|line| line.split_once("]: "))
            .map(|(_, target)| target);
        // What stands between backticks is code; links begin in the runs outside.
        let prose = line.split('`').step_by(2);
        let inline = prose.flat_map(|run| {
            run.split("](")
                .skip(1)
                .filter_map(|rest| rest.split([')', ' ']).next())
        });
        for target in defined.into_iter().chain(inline) {
            let target = target.trim().trim_start_matches('<').trim_end_matches('>');
            if !target.contains("://") && !target.starts_with("mailto:") {
                found.push((number, target));
            }
        }
    }
    found
}

/// The path from the root of what `place` means in the page at `page`; `None` if that is outside the project.
fn resolve(page: &str, place: &str) -> Option<String> {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in place.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

fn exists(tree: &Tree, path: &str) -> bool {
    path.is_empty()
        || tree.contains_key(path)
        || tree
            .keys()
            .any(|file| file.starts_with(&format!("{path}/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_want_an_issue() {
        // The marks are put together here, as this file is checked too.
        let [todo, fixme, xxx, hack] = PROMISES else {
            panic!("four marks")
        };
        let table: &[(&str, String, &[usize])] = &[
            ("a.rs", format!("x();\n// {todo}: later"), &[2]),
            ("a.rs", format!("// {todo}(#12): later"), &[]),
            ("a.rs", format!("// {todo}(#): later"), &[1]),
            ("a.rs", format!("// {todo}(me): later"), &[1]),
            ("a.rs", format!("/* {fixme} */"), &[1]),
            ("a.rs", format!("let s = \"{fixme}\";"), &[]),
            ("a.md", format!("# A\n\n{hack} {xxx}"), &[3, 3]),
            (".ci/run", format!("# {xxx}{xxx}"), &[]),
        ];
        for (path, text, lines) in table {
            let mut at: Vec<usize> = check(&Source::new(path, text))
                .iter()
                .map(|finding| finding.line)
                .collect();
            at.sort_unstable();
            assert_eq!(at, *lines, "{path} {text:?}");
        }
    }

    #[test]
    fn paths_of_a_machine_are_found() {
        for folder in MACHINE_FOLDERS {
            let text = format!("a\nb /{folder}/c");
            for (path, lines) in [
                ("a.rs", vec![2]),
                ("b.md", vec![2]),
                ("Cargo.lock", vec![]),
                ("docs/a.svg", vec![]),
            ] {
                let found = check(&Source::new(path, &text));
                assert_eq!(
                    found.iter().map(|finding| finding.line).collect::<Vec<_>>(),
                    lines,
                    "{path} {text:?}"
                );
            }
        }
        let named = format!("default = \"/{}/\"", "tmp");
        assert_eq!(check(&Source::new("a.rs", &named)), []);
        assert_eq!(
            check(&Source::new("a.rs", "a homework/b, workshop/tmpfile")),
            []
        );
    }

    #[test]
    fn links_lead_somewhere() {
        let page = "docs/a.md";
        let table: &[(&str, &[usize])] = &[
            ("[b](b.md)", &[]),
            ("[b](./b.md#part)", &[]),
            ("[r](../README.md) and\n[no](no.md)", &[2]),
            ("[folder](../docs/)", &[]),
            ("[root](..)", &[]),
            ("[out](../../b.md)", &[1]),
            ("[here](#part)", &[]),
            (
                "[web](https://example.org/no.md), [mail](mailto:a@example.org)",
                &[],
            ),
            ("[b](b.md \"title\") ![no](no.png)", &[1]),
            ("[b]: b.md\n[no]: no.md", &[2]),
            ("`[no](no.md)` [no](no.md)", &[1]),
            ("```\n[no](no.md)\n```\n[no](no.md)", &[4]),
        ];
        for (text, lines) in table {
            let tree: Tree = [(page, *text), ("docs/b.md", ""), ("README.md", "")]
                .map(|(path, text)| (path.to_owned(), text.to_owned()))
                .into();
            let at: Vec<usize> = check_links(&tree)
                .iter()
                .map(|finding| finding.line)
                .collect();
            assert_eq!(at, *lines, "{text:?}");
        }
    }
}
