//! The page of documentation of all commands, `docs/commands.md`, made of the table.

use std::fmt::Write as _;

use super::table::{COMMANDS, Group, Spec};
use crate::docs_page;

const GROUPS: [Group; 6] = [
    Group::String,
    Group::Bitmap,
    Group::Generic,
    Group::Connection,
    Group::Server,
    Group::Cluster,
];

const HEAD: &str = "\
# Commands

What the Redis protocol understands, on the port that speaks HTTP as well. This page is made of the table of commands; to
write it anew: `UPDATE_DOCS=1 cargo test -p henge --lib docs_page`. The same is answered by `COMMAND DOCS`, and by `HELP` as
the second word of a family. What differs from Redis is told in [redis.md](redis.md).

In the syntax capital words stand as they are, `[ ]` may be left out, `< >` only holds together, `|` separates what one is
chosen of, and `...` repeats. The permission is what an API key has to hold, where the node asks for one: `connection` is any
key, `read` and `write` are about keys of the cache, both where the reply shows what was there before it was changed, `observe`
is `read` or `admin`, for figures of the node, and `admin` is for who may change the node or all of its data. SET with GET or IFEQ
needs both as well. AUTH, HELLO, QUIT and RESET need nothing.
";

fn title(group: Group) -> &'static str {
    match group {
        Group::String => "Strings",
        Group::Bitmap => "Bits of strings",
        Group::Generic => "Keys",
        Group::Connection => "Connections",
        Group::Server => "The node",
        Group::Cluster => "The cluster",
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for group in GROUPS {
        let _ = write!(page, "\n## {}\n", title(group));
        let mut commands: Vec<&Spec> = COMMANDS
            .entries()
            .iter()
            .map(|entry| entry.spec)
            .filter(|spec| spec.group == group && !is_a_family_only(spec))
            .collect();
        commands.sort_by_key(|spec| spec.name);
        for spec in commands {
            let call = format!(
                "{} {}",
                spec.name.to_uppercase().replace('|', " "),
                spec.syntax
            );
            let _ = write!(
                page,
                "\n### {}\n\n```text\n{}\n```\n\n{}.\n\n- complexity: {}\n- permission: {}\n- since: {}\n",
                spec.name.to_uppercase().replace('|', " "),
                wrapped(call.trim_end()),
                spec.summary,
                spec.complexity,
                spec.permission.name(),
                spec.since,
            );
        }
    }
    page
}

/// A call, broken between its arguments into lines of a width that a page can show.
fn wrapped(call: &str) -> String {
    const WIDTH: usize = 100;
    let mut arguments: Vec<String> = Vec::new();
    let mut depth = 0_usize;
    for word in call.split(' ') {
        match arguments.last_mut() {
            Some(argument) if depth > 0 => {
                argument.push(' ');
                argument.push_str(word);
            }
            _ => arguments.push(word.to_owned()),
        }
        depth += word.matches(['[', '<']).count();
        depth = depth.saturating_sub(word.matches([']', '>']).count());
    }
    let (mut text, mut width) = (String::new(), 0);
    for argument in arguments {
        if width > 0 && width + 1 + argument.len() > WIDTH {
            text.push_str("\n    ");
            width = 4;
        } else if width > 0 {
            text.push(' ');
            width += 1;
        }
        width += argument.len();
        text.push_str(&argument);
    }
    text
}

#[test]
fn long_calls_are_broken_between_their_arguments() {
    assert_eq!(wrapped("GET key"), "GET key");
    let long = format!("X [A {0}] [B <{0} | {0}>] c", "a".repeat(60));
    let expected = long.replace(" [B", "\n    [B").replace("> c", ">\n    c");
    assert_eq!(wrapped(&long), expected.replace("] c", "]\n    c"));
}

/// Whether a name alone is no command.
fn is_a_family_only(spec: &Spec) -> bool {
    matches!(spec.run, super::table::Run::Family(_))
}

#[test]
fn docs_page_is_what_the_table_gives() {
    docs_page::check("commands.md", &page());
}
