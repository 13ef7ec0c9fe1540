//! `COMMAND`: the table of commands as clients read it, and which words of a command are its keys. Everything follows from
//! the definitions.

use std::sync::LazyLock;

use henge_wire::resp::writer::{Output, Protocol, Writer};

use super::steps::{Pace, Words};
use crate::resp::call::{Call, ErrorReply, Flow, glob};
use crate::resp::syntax::{self, Argument, Kind};
use crate::resp::table::{COMMANDS as ALL, Entry, Group, Keys, Permission, Run, Spec, flag};
use crate::resp::{categories, help, key_specs};

pub(in crate::resp) const COMMANDS: &[Spec] = &[Spec {
    name: "command",
    syntax: "",
    arity: -1,
    flags: flag::LOADING | flag::STALE,
    keys: Keys::NONE,
    permission: Permission::Connection,
    group: Group::Server,
    since: "2.8.13",
    complexity: "O(N) where N is the number of commands",
    summary: "Describes all commands",
    run: Run::FamilyOr(info, FAMILY),
}];

const FAMILY: &[Spec] = &[
    Spec {
        name: "command|count",
        syntax: "",
        arity: 2,
        flags: flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Server,
        since: "2.8.13",
        complexity: "O(1)",
        summary: "Gives the number of commands",
        run: Run::Handler(count),
    },
    Spec {
        name: "command|info",
        syntax: "[command-name [command-name ...]]",
        arity: -2,
        flags: flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Server,
        since: "2.8.13",
        complexity: "O(N) where N is the number of commands",
        summary: "Describes commands: arity, flags, keys, categories",
        run: Run::Handler(info),
    },
    Spec {
        name: "command|docs",
        syntax: "[command-name [command-name ...]]",
        arity: -2,
        flags: flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Server,
        since: "7.0.0",
        complexity: "O(N) where N is the number of commands",
        summary: "Documents commands: what they do, since when, with which arguments",
        run: Run::Handler(docs),
    },
    Spec {
        name: "command|list",
        syntax: "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]",
        arity: -2,
        flags: flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Server,
        since: "7.0.0",
        complexity: "O(N) where N is the number of commands",
        summary: "Lists the names of commands",
        run: Run::Handler(list),
    },
    Spec {
        name: "command|getkeys",
        syntax: "command [arg ...]",
        arity: -3,
        flags: flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Server,
        since: "2.8.13",
        complexity: "O(N) where N is the number of words",
        summary: "Gives the keys of a command",
        run: Run::Handler(get_keys),
    },
    Spec {
        name: "command|getkeysandflags",
        syntax: "command [arg ...]",
        arity: -3,
        flags: flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Server,
        since: "7.0.0",
        complexity: "O(N) where N is the number of words",
        summary: "Gives the keys of a command, and what it does with each",
        run: Run::Handler(get_keys_and_flags),
    },
    help::definition("command|help", Group::Server, "5.0.0"),
];

/// A reply about all commands, in both protocols: it is large, and always the same.
struct Whole([Output; 2]);

impl Whole {
    fn new(write: impl Fn(&mut Writer<'_>)) -> Self {
        Self([Protocol::Resp2, Protocol::Resp3].map(|protocol| {
            let mut out = Output::default();
            write(&mut Writer::new(&mut out, protocol));
            out
        }))
    }

    fn answer(&self, call: &mut Call<'_>) {
        let Self([two, three]) = self;
        let out = match call.out.protocol() {
            Protocol::Resp2 => two,
            Protocol::Resp3 => three,
        };
        if let Some(bytes) = out.as_bytes() {
            call.out.output().push(bytes);
        }
    }
}

fn count(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    call.out.count(ALL.top_level().count());
    Ok(Flow::Done)
}

/// The command or subcommand of a name, the latter as `family|own`.
fn named(name: &[u8]) -> Option<Entry> {
    match name.iter().position(|&byte| byte == b'|') {
        None => ALL.find(name),
        Some(bar) => ALL.subcommand(ALL.find(&name[..bar])?, &name[bar + 1..]),
    }
}

fn info(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    static WHOLE: LazyLock<Whole> = LazyLock::new(|| {
        Whole::new(|out| {
            out.array(ALL.top_level().count());
            ALL.top_level().for_each(|spec| write_info(out, spec));
        })
    });
    if call.words.len() <= 2 {
        WHOLE.answer(call);
        return Ok(Flow::Done);
    }
    let names = Words::copy(call.words.from(2));
    call.eventually_with(names.size_bytes(), async move |out| {
        let mut pace = Pace::default();
        out.array(names.len());
        for name in names.iter() {
            match named(name) {
                Some(entry) => write_info(out, entry.spec),
                None => out.null(),
            }
            out.account()?;
            pace.key(ROW_BYTES).await;
        }
        Ok(())
    })
}

/// About what is written of a command: whoever asks for very many has others served between.
const ROW_BYTES: usize = 1_024;

fn write_info(out: &mut Writer<'_>, spec: &Spec) {
    out.array(10);
    out.bulk(spec.name.as_bytes());
    out.integer(i64::from(spec.arity));
    let flags = || flag::NAMES.iter().filter(|(flag, _)| spec.is(*flag));
    out.set(flags().count());
    flags().for_each(|(_, name)| out.simple(name));
    for place in [spec.keys.first, spec.keys.last, spec.keys.step] {
        out.integer(i64::from(place));
    }
    let categories = categories::of(spec);
    out.set(categories.len());
    for category in categories {
        out.simple(&format!("@{category}"));
    }
    // Hints for clients of clusters.
    out.set(0);
    let key_specs = key_specs::of(spec);
    out.set(key_specs.len());
    for key_spec in key_specs {
        let keys = key_spec.keys;
        out.map(3);
        out.bulk(b"flags");
        write_uses(out, key_spec.uses);
        out.bulk(b"begin_search");
        out.map(2);
        out.bulk(b"type");
        out.bulk(b"index");
        out.bulk(b"spec");
        out.map(1);
        out.bulk(b"index");
        out.integer(i64::from(keys.first));
        out.bulk(b"find_keys");
        out.map(2);
        out.bulk(b"type");
        out.bulk(b"range");
        out.bulk(b"spec");
        out.map(3);
        out.bulk(b"lastkey");
        // From the first on, or from the end.
        let last = if keys.last < 0 {
            keys.last
        } else {
            keys.last - keys.first
        };
        out.integer(i64::from(last));
        out.bulk(b"keystep");
        out.integer(i64::from(keys.step));
        out.bulk(b"limit");
        out.integer(0);
    }
    out.array(spec.subcommands().len());
    for subcommand in spec.subcommands() {
        write_info(out, subcommand);
    }
}

fn write_uses(out: &mut Writer<'_>, uses: &[&str]) {
    out.set(uses.len());
    for name in uses {
        out.simple(name);
    }
}

fn docs(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    static WHOLE: LazyLock<Whole> = LazyLock::new(|| {
        Whole::new(|out| {
            out.map(ALL.top_level().count());
            ALL.top_level().for_each(|spec| write_docs(out, spec));
        })
    });
    if call.words.len() == 2 {
        WHOLE.answer(call);
        return Ok(Flow::Done);
    }
    let names = Words::copy(call.words.from(2));
    call.eventually_with(names.size_bytes(), async move |out| {
        let mut pace = Pace::default();
        let mut found = 0;
        for name in names.iter() {
            found += usize::from(named(name).is_some());
            pace.key(0).await;
        }
        out.map(found);
        for entry in names.iter().filter_map(named) {
            write_docs(out, entry.spec);
            out.account()?;
            pace.key(ROW_BYTES).await;
        }
        Ok(())
    })
}

fn write_docs(out: &mut Writer<'_>, spec: &Spec) {
    let arguments = syntax::parse(spec.syntax).expect("a test reads every syntax");
    let subcommands = spec.subcommands();
    out.bulk(spec.name.as_bytes());
    out.map(4 + usize::from(!arguments.is_empty()) + usize::from(!subcommands.is_empty()));
    for (name, value) in [
        ("summary", spec.summary),
        ("since", spec.since),
        ("group", spec.group.name()),
        ("complexity", spec.complexity),
    ] {
        out.bulk(name.as_bytes());
        out.bulk(value.as_bytes());
    }
    if !arguments.is_empty() {
        out.bulk(b"arguments");
        write_arguments(out, spec, &arguments, &mut 0);
    }
    if !subcommands.is_empty() {
        out.bulk(b"subcommands");
        out.map(subcommands.len());
        for subcommand in subcommands {
            write_docs(out, subcommand);
        }
    }
}

/// `keys` counts the keys so far: each is of the next specification, and those past the last are of that.
fn write_arguments(out: &mut Writer<'_>, spec: &Spec, arguments: &[Argument], keys: &mut usize) {
    out.array(arguments.len());
    for argument in arguments {
        let is_key = argument.kind == Kind::Value("key") && spec.keys.first > 0;
        let parts = argument.kind.parts();
        let flags: Vec<&str> = [
            (argument.is_optional, "optional"),
            (argument.is_multiple, "multiple"),
        ]
        .into_iter()
        .filter_map(|(holds, name)| holds.then_some(name))
        .collect();
        let pairs = 2
            + usize::from(parts.is_empty())
            + usize::from(is_key)
            + usize::from(argument.token.is_some())
            + usize::from(!flags.is_empty())
            + usize::from(!parts.is_empty());
        out.map(pairs);
        out.bulk(b"name");
        out.bulk(argument.name.as_bytes());
        out.bulk(b"type");
        out.bulk(argument.kind.name().as_bytes());
        if parts.is_empty() {
            out.bulk(b"display_text");
            out.bulk(argument.name.as_bytes());
        }
        if is_key {
            let specs = key_specs::of(spec).len();
            out.bulk(b"key_spec_index");
            out.count((*keys).min(specs.saturating_sub(1)));
            *keys += 1;
        }
        if let Some(token) = argument.token {
            out.bulk(b"token");
            out.bulk(token.as_bytes());
        }
        if !flags.is_empty() {
            out.bulk(b"flags");
            write_uses(out, &flags);
        }
        if !parts.is_empty() {
            out.bulk(b"arguments");
            write_arguments(out, spec, parts, keys);
        }
    }
}

fn list(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let all = || ALL.entries().iter().map(|entry| entry.spec);
    let names: Vec<&str> = match call.words.len() {
        2 => all().map(|spec| spec.name).collect(),
        5 if call.is(2, "FILTERBY") => {
            let value = call.word(4).to_ascii_lowercase();
            if call.is(3, "MODULE") {
                Vec::new()
            } else if call.is(3, "ACLCAT") {
                all()
                    .filter(|spec| {
                        let categories = categories::of(spec);
                        categories.iter().any(|name| name.as_bytes() == value)
                    })
                    .map(|spec| spec.name)
                    .collect()
            } else if call.is(3, "PATTERN") {
                let glob = glob(&value)?;
                all()
                    .map(|spec| spec.name)
                    .filter(|name| glob.matches(name.as_bytes()))
                    .collect()
            } else {
                return Err(ErrorReply::SYNTAX);
            }
        }
        _ => return Err(ErrorReply::SYNTAX),
    };
    call.out.array(names.len());
    for name in names {
        call.out.bulk(name.as_bytes());
    }
    Ok(Flow::Done)
}

/// The command that the words from the second on are, and which of them are keys.
fn keys_of(call: &Call<'_>) -> Result<Vec<(usize, &'static [&'static str])>, ErrorReply> {
    let words = call.words.after(2);
    let spec = ALL
        .find(&words[0])
        .and_then(|entry| match words.get(1) {
            Some(own) if !entry.spec.subcommands().is_empty() => ALL.subcommand(entry, own),
            _ => Some(entry),
        })
        .map(|entry| entry.spec)
        .ok_or(ErrorReply::fixed("ERR Invalid command specified"))?;
    let key_specs = key_specs::of(spec);
    if key_specs.is_empty() {
        return Err(ErrorReply::fixed("ERR The command has no key arguments"));
    }
    if !spec.takes(words.len()) {
        return Err(ErrorReply::fixed(
            "ERR Invalid number of arguments specified for command",
        ));
    }
    let mut keys = Vec::new();
    for key_spec in &key_specs {
        let uses = key_specs::uses_in(spec, key_spec, &words);
        keys.extend(key_specs::places(key_spec.keys, words.len()).map(|place| (place, uses)));
    }
    Ok(keys)
}

fn get_keys(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let keys = keys_of(call)?;
    call.out.array(keys.len());
    for (place, _) in keys {
        call.out.bulk(call.word(2 + place));
    }
    Ok(Flow::Done)
}

fn get_keys_and_flags(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let keys = keys_of(call)?;
    call.out.array(keys.len());
    for (place, uses) in keys {
        call.out.array(2);
        call.out.bulk(call.word(2 + place));
        write_uses(&mut call.out, uses);
    }
    Ok(Flow::Done)
}
