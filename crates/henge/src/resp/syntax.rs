//! The syntax of a command, as its definition writes it, taken apart into the tree of arguments that `COMMAND DOCS` shows,
//! from which clients make their hints. The notation is that of the table:
//!
//! ```text
//! key value [NX | XX] [EX seconds | KEEPTTL] [key value ...] <ON | OFF>
//! ```
//!
//! A capital word stands as it is, and what follows it belongs to it; any other names what is to be put there. `[ ]` may be
//! left out, `< >` only holds together, `|` separates all that is around it, and `...` repeats the group that it ends. The
//! types follow from the names, so a name means the same everywhere.

/// One argument.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Argument {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// The word that stands before it.
    pub(crate) token: Option<&'static str>,
    pub(crate) is_optional: bool,
    pub(crate) is_multiple: bool,
}

/// What an argument is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A value of the client's, of this type.
    Value(&'static str),
    /// A word that stands as it is.
    Token,
    /// One of some.
    OneOf(Vec<Argument>),
    /// Some, one after the other.
    Block(Vec<Argument>),
}

impl Kind {
    /// The name that clients know.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Value(name) => name,
            Self::Token => "pure-token",
            Self::OneOf(_) => "oneof",
            Self::Block(_) => "block",
        }
    }

    /// What it consists of.
    pub(crate) fn parts(&self) -> &[Argument] {
        match self {
            Self::OneOf(parts) | Self::Block(parts) => parts,
            _ => &[],
        }
    }
}

/// Takes a syntax apart. It is ours, so one that cannot be read is a mistake that a test finds.
pub(crate) fn parse(syntax: &'static str) -> Result<Vec<Argument>, String> {
    let mut parser = Parser {
        words: words(syntax),
        at: 0,
    };
    let parts = parser.choice()?;
    if parser.at < parser.words.len() {
        return Err(format!("{syntax}: too many brackets are closed"));
    }
    Ok(match parts {
        Choice::One(sequence) => sequence,
        Choice::Several(one_of) => vec![one_of],
    })
}

fn words(syntax: &'static str) -> Vec<&'static str> {
    const MARKS: [char; 5] = ['[', ']', '<', '>', '|'];
    let mut words = Vec::new();
    for mut word in syntax.split_whitespace() {
        while let Some(at) = word.find(MARKS) {
            words.extend((at > 0).then_some(&word[..at]));
            words.push(&word[at..=at]);
            word = &word[at + 1..];
        }
        words.extend((!word.is_empty()).then_some(word));
    }
    words
}

struct Parser {
    words: Vec<&'static str>,
    at: usize,
}

/// What stands between two brackets.
enum Choice {
    One(Vec<Argument>),
    Several(Argument),
}

impl Parser {
    fn choice(&mut self) -> Result<Choice, String> {
        let mut branches = vec![self.sequence()?];
        while self.words.get(self.at) == Some(&"|") {
            self.at += 1;
            branches.push(self.sequence()?);
        }
        if branches.len() == 1 {
            return Ok(Choice::One(branches.remove(0)));
        }
        let branches: Vec<Argument> = branches.into_iter().map(together).collect();
        Ok(Choice::Several(plain(
            names(&branches).join("-or-"),
            Kind::OneOf(branches),
        )))
    }

    fn sequence(&mut self) -> Result<Vec<Argument>, String> {
        let mut sequence: Vec<Argument> = Vec::new();
        // A token that waits for what belongs to it.
        let mut token: Option<&'static str> = None;
        while let Some(&word) = self.words.get(self.at) {
            let next = match word {
                "]" | ">" | "|" => break,
                "..." => {
                    return Err("`...` ends an optional group".to_owned());
                }
                "[" => {
                    self.at += 1;
                    let (inner, is_repeated) = self.group("]")?;
                    if is_repeated && repeats(&mut sequence, &inner) {
                        continue;
                    }
                    if let Some(word) = token.take() {
                        sequence.push(pure(word));
                    }
                    let mut argument = together(inner);
                    argument.is_optional = true;
                    argument.is_multiple |= is_repeated;
                    sequence.push(argument);
                    continue;
                }
                "<" => {
                    self.at += 1;
                    together(self.group(">")?.0)
                }
                word if is_token(word) => {
                    self.at += 1;
                    if let Some(before) = token.replace(word) {
                        sequence.push(pure(before));
                    }
                    continue;
                }
                word => {
                    self.at += 1;
                    plain(word.to_owned(), Kind::Value(type_of(word)))
                }
            };
            sequence.push(with_token(token.take(), next));
        }
        if let Some(word) = token {
            sequence.push(pure(word));
        }
        Ok(sequence)
    }

    /// What stands up to a closing bracket, and whether it ends in `...`.
    fn group(&mut self, end: &'static str) -> Result<(Vec<Argument>, bool), String> {
        let close = self.close(end)?;
        let is_repeated = close > self.at && self.words[close - 1] == "...";
        if is_repeated {
            self.words.remove(close - 1);
        }
        let inner = match self.choice()? {
            Choice::One(sequence) => sequence,
            Choice::Several(one_of) => vec![one_of],
        };
        if self.words.get(self.at) != Some(&end) {
            return Err(format!("`{end}` is missing"));
        }
        self.at += 1;
        Ok((inner, is_repeated))
    }

    /// Where the bracket that was just opened is closed.
    fn close(&self, end: &'static str) -> Result<usize, String> {
        let open = if end == "]" { "[" } else { "<" };
        let mut depth = 0;
        for (place, word) in self.words.iter().enumerate().skip(self.at) {
            if *word == open {
                depth += 1;
            } else if *word == end {
                if depth == 0 {
                    return Ok(place);
                }
                depth -= 1;
            }
        }
        Err(format!("`{end}` is missing"))
    }
}

/// Whether what was repeated is what stands just before it, as in `key [key ...]`; then that is what is multiple.
fn repeats(sequence: &mut Vec<Argument>, repeated: &[Argument]) -> bool {
    let Some(from) = sequence.len().checked_sub(repeated.len()) else {
        return false;
    };
    let same = sequence[from..].iter().zip(repeated).all(|(one, other)| {
        let without_token = Argument {
            token: None,
            ..one.clone()
        };
        without_token == *other
    });
    if !same || repeated.is_empty() {
        return false;
    }
    let tail = sequence.split_off(from);
    let mut argument = together(tail);
    argument.is_multiple = true;
    sequence.push(argument);
    true
}

/// Several arguments as one.
fn together(mut sequence: Vec<Argument>) -> Argument {
    if sequence.len() == 1 {
        return sequence.remove(0);
    }
    // A token that begins a group is that of the group: `AUTH username password`.
    let mut token = None;
    if let Some(first) = sequence.first_mut()
        && first.kind != Kind::Token
    {
        token = first.token.take();
    }
    let name = match token {
        Some(token) => token.to_lowercase(),
        None => names(&sequence).join("-"),
    };
    Argument {
        token,
        ..plain(name, Kind::Block(sequence))
    }
}

fn names(arguments: &[Argument]) -> Vec<&str> {
    arguments
        .iter()
        .map(|argument| argument.name.as_str())
        .collect()
}

fn with_token(token: Option<&'static str>, mut argument: Argument) -> Argument {
    match (token, argument.token) {
        (None, _) => argument,
        (Some(token), None) => {
            argument.token = Some(token);
            if matches!(argument.kind, Kind::OneOf(_)) {
                argument.name = token.to_lowercase();
            }
            argument
        }
        (Some(token), Some(_)) => Argument {
            token: Some(token),
            ..plain(token.to_lowercase(), Kind::Block(vec![argument]))
        },
    }
}

fn plain(name: String, kind: Kind) -> Argument {
    Argument {
        name,
        kind,
        token: None,
        is_optional: false,
        is_multiple: false,
    }
}

fn pure(word: &'static str) -> Argument {
    Argument {
        token: Some(word),
        ..plain(word.to_lowercase(), Kind::Token)
    }
}

fn is_token(word: &str) -> bool {
    word == "*" || word.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// The type of a value, by what it is called.
fn type_of(name: &str) -> &'static str {
    match name {
        "pattern" => "pattern",
        "float-increment" => "double",
        name if KEYS.contains(&name) => "key",
        name if UNIX_TIMES.contains(&name) => "unix-time",
        name if INTEGERS.contains(&name) => "integer",
        _ => "string",
    }
}

const KEYS: &[&str] = &["key", "newkey", "destkey", "source", "destination"];
const UNIX_TIMES: &[&str] = &["unix-time-seconds", "unix-time-milliseconds"];
const INTEGERS: &[&str] = &[
    "bit",
    "client-id",
    "count",
    "cursor",
    "database",
    "decrement",
    "destination-db",
    "end",
    "increment",
    "index",
    "milliseconds",
    "numreplicas",
    "offset",
    "protover",
    "seconds",
    "start",
    "timeout",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::table::COMMANDS;
    use std::collections::BTreeSet;

    /// A tree in one line: `name:type`, `=TOKEN`, `?` for optional, `+` for multiple, parts in parentheses.
    fn shown(arguments: &[Argument]) -> String {
        let one = |argument: &Argument| {
            let mut text = format!("{}:{}", argument.name, argument.kind.name());
            if let Some(token) = argument.token {
                text = text + "=" + token;
            }
            if argument.is_optional {
                text.push('?');
            }
            if argument.is_multiple {
                text.push('+');
            }
            if !argument.kind.parts().is_empty() {
                text = text + "(" + &shown(argument.kind.parts()) + ")";
            }
            text
        };
        arguments.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// Names that a syntax had once are not kept.
    #[test]
    fn each_name_with_a_type_occurs() {
        fn collect(arguments: &[Argument], names: &mut BTreeSet<String>) {
            for argument in arguments {
                names.insert(argument.name.clone());
                collect(argument.kind.parts(), names);
            }
        }
        let mut names = BTreeSet::new();
        for entry in COMMANDS.entries() {
            collect(
                &parse(entry.spec.syntax).expect(entry.spec.name),
                &mut names,
            );
        }
        let typed = ["pattern", "float-increment"];
        let dead: Vec<_> = [KEYS, UNIX_TIMES, INTEGERS, &typed]
            .concat()
            .into_iter()
            .filter(|name| !names.contains(*name))
            .collect();
        assert_eq!(dead, [""; 0]);
    }

    #[test]
    fn trees() {
        for (syntax, tree) in [
            ("", ""),
            ("key", "key:key"),
            ("[message]", "message:string?"),
            ("key [key ...]", "key:key+"),
            (
                "key value [key value ...]",
                "key-value:block+(key:key value:string)",
            ),
            ("[username] password", "username:string? password:string"),
            (
                "ON | OFF",
                "on-or-off:oneof(on:pure-token=ON off:pure-token=OFF)",
            ),
            (
                "<AND | OR> destkey key [key ...]",
                "and-or-or:oneof(and:pure-token=AND or:pure-token=OR) destkey:key key:key+",
            ),
            (
                "key [NX | EX seconds] [GET]",
                "key:key nx-or-seconds:oneof?(nx:pure-token=NX seconds:integer=EX) get:pure-token=GET?",
            ),
            (
                "[protover [AUTH username password] [SETNAME clientname]]",
                "protover-auth-clientname:block?(protover:integer \
                 auth:block=AUTH?(username:string password:string) clientname:string=SETNAME?)",
            ),
            (
                "[ID client-id [client-id ...]] [TYPE <NORMAL | PUBSUB>]",
                "client-id:integer=ID?+ type:oneof=TYPE?(normal:pure-token=NORMAL pubsub:pure-token=PUBSUB)",
            ),
            ("[command-name [command-name ...]]", "command-name:string?+"),
            ("[pattern ...]", "pattern:pattern?+"),
            (
                "[GET encoding offset | SET encoding offset value] [BYTE | BIT]",
                "get-or-set:oneof?(get:block=GET(encoding:string offset:integer) \
                 set:block=SET(encoding:string offset:integer value:string)) \
                 byte-or-bit:oneof?(byte:pure-token=BYTE bit:pure-token=BIT)",
            ),
        ] {
            let parsed = parse(syntax).expect(syntax);
            assert_eq!(shown(&parsed), tree, "{syntax}");
        }
        for broken in ["[a", "a]", "<a", "a ...", "[a>"] {
            assert!(parse(broken).is_err(), "{broken}");
        }
    }

    /// What must be there of them; a group counts its own.
    fn least(arguments: &[Argument]) -> usize {
        arguments
            .iter()
            .filter(|argument| !argument.is_optional)
            .map(|argument| {
                let own = usize::from(argument.token.is_some() && argument.kind != Kind::Token);
                own + match &argument.kind {
                    Kind::Value(_) | Kind::Token => 1,
                    Kind::Block(parts) => least(parts),
                    Kind::OneOf(parts) => parts
                        .iter()
                        .map(|part| least(std::slice::from_ref(part)))
                        .min()
                        .unwrap_or(0),
                }
            })
            .sum()
    }

    #[test]
    fn every_command_has_a_syntax_that_can_be_read() {
        for entry in COMMANDS.entries() {
            let spec = entry.spec;
            let parsed = parse(spec.syntax);
            let arguments = parsed.unwrap_or_else(|error| panic!("{}: {error}", spec.name));
            // What must be there is what the arity asks for.
            if spec.subcommands().is_empty() {
                let name = spec.name.split('|').count();
                assert_eq!(
                    usize::from(spec.arity.unsigned_abs()),
                    name + least(&arguments),
                    "{}: {}",
                    spec.name,
                    spec.syntax
                );
            }
        }
    }
}
