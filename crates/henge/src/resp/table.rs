//! The form of a command's definition, and the one table of them. Dispatch, arity, the keys of a command, `COMMAND` and
//! `COMMAND DOCS`, the classes of permission, the counters and the page of documentation all follow from it; a command that
//! is not here does not exist.

use std::sync::LazyLock;

use super::call::{Call, ErrorReply, Flow};
use super::commands;
pub(crate) use crate::access::permission::Permission;

/// What a command belongs to, as `COMMAND DOCS` and the page of documentation sort them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Group {
    String,
    Bitmap,
    Generic,
    Connection,
    Server,
    Cluster,
}

impl Group {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Bitmap => "bitmap",
            Self::Generic => "generic",
            Self::Connection => "connection",
            Self::Server => "server",
            Self::Cluster => "cluster",
        }
    }
}

/// Which arguments of a command are keys, as `COMMAND` says it: the first, the last (counted from the end if negative), and
/// how far they are apart. All 0 for a command without keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Keys {
    pub(crate) first: i8,
    pub(crate) last: i8,
    pub(crate) step: i8,
}

impl Keys {
    pub(crate) const NONE: Self = Self::new(0, 0, 0);
    pub(crate) const FIRST: Self = Self::new(1, 1, 1);
    pub(crate) const ALL: Self = Self::new(1, -1, 1);
    pub(crate) const FIRST_TWO: Self = Self::new(1, 2, 1);
    /// Keys and values in turn.
    pub(crate) const PAIRS: Self = Self::new(1, -1, 2);

    pub(crate) const fn new(first: i8, last: i8, step: i8) -> Self {
        Self { first, last, step }
    }
}

/// What `COMMAND` says of how a command behaves.
pub(crate) mod flag {
    /// It changes no key.
    pub(crate) const READONLY: u32 = 1;
    /// It may change keys.
    pub(crate) const WRITE: u32 = 1 << 1;
    /// It may need memory, and is refused if there is none.
    pub(crate) const DENYOOM: u32 = 1 << 2;
    /// It is for operators.
    pub(crate) const ADMIN: u32 = 1 << 3;
    /// It is not for scripts, of which there are none.
    pub(crate) const NOSCRIPT: u32 = 1 << 4;
    /// It is answered while data is loaded.
    pub(crate) const LOADING: u32 = 1 << 5;
    /// It is answered by a replica without its leader.
    pub(crate) const STALE: u32 = 1 << 6;
    /// It needs no authentication.
    pub(crate) const NO_AUTH: u32 = 1 << 7;
    /// It takes about as long whatever there is.
    pub(crate) const FAST: u32 = 1 << 8;
    /// It is not for transactions, of which there are none.
    pub(crate) const NO_MULTI: u32 = 1 << 9;
    /// It may be sent while transactions are built, of which there are none.
    pub(crate) const ALLOW_BUSY: u32 = 1 << 10;
    /// It is run also while clients are paused.
    pub(crate) const UNPAUSED: u32 = 1 << 11;
    /// It is kept out of the slow log, as it may carry secrets.
    pub(crate) const SKIP_SLOWLOG: u32 = 1 << 12;
    /// It may make its client wait.
    pub(crate) const BLOCKING: u32 = 1 << 14;
    /// It is not answered while a replica loads what its leader sent.
    pub(crate) const NO_ASYNC_LOADING: u32 = 1 << 15;

    /// It takes a microsecond or so, whatever there is, though clients do not count it among the fast ones: its time need
    /// not be taken by itself.
    pub(crate) const BRIEF: u32 = 1 << 13;

    /// With the word GET or IFEQ among its options it shows what was there, or whether it was that, which is more than to write: it
    /// needs [`Update`](super::Permission::Update) then.
    pub(crate) const SHOWS_WITH_OPTION: u32 = 1 << 16;
    /// It is about the keys that fit its first argument.
    pub(crate) const OF_PATTERN: u32 = 1 << 17;
    /// It is about the keys that fit what follows the option MATCH, and without it about all.
    pub(crate) const OF_MATCH: u32 = 1 << 18;
    /// What follows the name of this subcommand are names and values in turn, and a value may be a secret.
    pub(crate) const SECRET_VALUES: u32 = 1 << 19;

    /// The names that clients know, in the order in which they are shown.
    pub(crate) const NAMES: [(u32, &str); 13] = [
        (WRITE, "write"),
        (READONLY, "readonly"),
        (DENYOOM, "denyoom"),
        (ADMIN, "admin"),
        (NOSCRIPT, "noscript"),
        (BLOCKING, "blocking"),
        (LOADING, "loading"),
        (NO_ASYNC_LOADING, "no_async_loading"),
        (STALE, "stale"),
        (FAST, "fast"),
        (NO_AUTH, "no_auth"),
        (NO_MULTI, "no_multi"),
        (ALLOW_BUSY, "allow_busy"),
    ];
}

/// What runs a command.
pub(crate) type Handler = fn(&mut Call<'_>) -> Result<Flow, ErrorReply>;

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Run {
    /// A command.
    Handler(Handler),
    /// A family of commands, told apart by the second word.
    Family(&'static [Spec]),
    /// A family whose name alone is a command too.
    FamilyOr(Handler, &'static [Spec]),
}

/// One command: a row of the table.
#[derive(Debug)]
pub(crate) struct Spec {
    /// Its name in lower case. A subcommand's is that of its family, `|`, and its own.
    pub(crate) name: &'static str,
    /// Its arguments in the notation of the documentation: `[ ]` may be left out, `|` is one of, `< >` holds together, `...` is
    /// repeated, capital words stand as they are. See `syntax`.
    pub(crate) syntax: &'static str,
    /// How many words it has, its name included; the least number if negative.
    pub(crate) arity: i8,
    /// What of [`flag`] holds.
    pub(crate) flags: u32,
    /// Its keys.
    pub(crate) keys: Keys,
    /// Who may call it.
    pub(crate) permission: Permission,
    /// What it belongs to.
    pub(crate) group: Group,
    /// The version of Redis or Valkey that first had it; Henge's for its own.
    pub(crate) since: &'static str,
    /// What it costs.
    pub(crate) complexity: &'static str,
    /// What it does, in a sentence.
    pub(crate) summary: &'static str,
    /// What runs it.
    pub(crate) run: Run,
}

impl Spec {
    /// Whether a flag is set.
    #[inline]
    pub(crate) const fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether it may be called with so many words.
    #[inline]
    pub(crate) fn takes(&self, words: usize) -> bool {
        let least = usize::from(self.arity.unsigned_abs());
        if self.arity >= 0 {
            words == least
        } else {
            words >= least
        }
    }

    /// The subcommands of a family; none of a command.
    pub(crate) fn subcommands(&self) -> &'static [Self] {
        match self.run {
            Run::Handler(_) => &[],
            Run::Family(subcommands) | Run::FamilyOr(_, subcommands) => subcommands,
        }
    }

    /// The last part of its name.
    pub(crate) fn own_name(&self) -> &'static str {
        self.name.rsplit('|').next().unwrap_or(self.name)
    }
}

/// A command and its number among all, subcommands included, under which it is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) spec: &'static Spec,
    pub(crate) number: u16,
}

/// All commands.
#[derive(Debug)]
pub(crate) struct Table {
    /// Every command and subcommand; a family stands before its own.
    entries: Vec<Entry>,
    /// The top-level ones by name, in open addressing.
    slots: Box<[Option<(u128, Entry)>; SLOTS]>,
}

/// Some four times as many as there are commands, so that most are found at once.
const SLOTS: usize = 512;
/// Odd, and its upper half is the golden ratio's: names differ in few bits, and these spread them.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The table, made of what each file of commands defines.
pub(crate) static COMMANDS: LazyLock<Table> = LazyLock::new(|| Table::new(commands::ALL));

impl Table {
    fn new(parts: &[&'static [Spec]]) -> Self {
        let mut table = Self {
            entries: Vec::new(),
            slots: Box::new([None; SLOTS]),
        };
        for spec in parts.iter().copied().flatten() {
            let entry = table.push(spec);
            let name = packed(spec.name.as_bytes()).expect("no command has a longer name");
            let mut slot = slot(name);
            while let Some((taken, _)) = table.slots[slot] {
                assert_ne!(taken, name, "{} is defined twice", spec.name);
                slot = (slot + 1) % SLOTS;
            }
            table.slots[slot] = Some((name, entry));
            for subcommand in spec.subcommands() {
                table.push(subcommand);
            }
        }
        assert!(table.entries.len() < SLOTS / 2);
        table
    }

    fn push(&mut self, spec: &'static Spec) -> Entry {
        let number = self.entries.len() as u16;
        let entry = Entry { spec, number };
        self.entries.push(entry);
        entry
    }

    /// Every command and subcommand, in the order of their numbers.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The commands that are no subcommands.
    pub(crate) fn top_level(&self) -> impl Iterator<Item = &'static Spec> + Clone {
        self.entries
            .iter()
            .map(|entry| entry.spec)
            .filter(|spec| !spec.name.contains('|'))
    }

    /// The command of a name in any case; a family for its name.
    #[inline]
    pub(crate) fn find(&self, name: &[u8]) -> Option<Entry> {
        let name = packed(name)?;
        let mut slot = slot(name);
        loop {
            match self.slots[slot] {
                Some((found, entry)) if found == name => return Some(entry),
                Some(_) => slot = (slot + 1) % SLOTS,
                None => return None,
            }
        }
    }

    /// The number of a command or subcommand of the table.
    pub(crate) fn number_of(&self, spec: &'static Spec) -> Option<u16> {
        self.entries
            .iter()
            .find(|entry| std::ptr::eq(entry.spec, spec))
            .map(|entry| entry.number)
    }

    /// A subcommand's own entry.
    pub(crate) fn subcommand(&self, family: Entry, name: &[u8]) -> Option<Entry> {
        let place = family
            .spec
            .subcommands()
            .iter()
            .position(|spec| spec.own_name().as_bytes().eq_ignore_ascii_case(name))?;
        Some(self.entries[usize::from(family.number) + 1 + place])
    }
}

/// A name of up to 15 bytes in lower case, and its length, as one number.
#[inline]
fn packed(name: &[u8]) -> Option<u128> {
    const MOST: usize = 15;
    if name.len() > MOST {
        return None;
    }
    // By reads of fixed lengths that may overlap: copying a few bytes costs a call.
    let low = match name {
        [first @ .., _, _, _, _] if first.len() >= 4 => eight(&name[..8]),
        [first @ .., a, b, c, d] => {
            let last = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
            let four = &name[..4];
            u64::from(u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
                | last << (8 * first.len())
        }
        short => short
            .iter()
            .rev()
            .fold(0, |packed, &byte| packed << 8 | u64::from(byte)),
    };
    let high = match name.len() {
        ..=8 => 0,
        len => eight(&name[len - 8..]) >> (8 * (16 - len)),
    };
    let high = lower_case(high) | (name.len() as u64) << (8 * (MOST - 8));
    Some(u128::from(high) << 64 | u128::from(lower_case(low)))
}

/// Eight bytes of ASCII at once: those that are upper-case letters get the bit that makes them lower-case ones.
#[inline]
fn lower_case(bytes: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    // A sum reaches the top bit of its byte from that letter on.
    let low_bits = bytes & (EACH * 0x7f);
    let from_a = low_bits + EACH * (0x80 - u64::from(b'A'));
    let past_z = low_bits + EACH * (0x7f - u64::from(b'Z'));
    let upper = from_a & !past_z & !bytes & (EACH * 0x80);
    bytes | upper >> 2
}

#[inline]
fn eight(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

#[inline]
fn slot(name: u128) -> usize {
    let folded = name as u64 ^ ((name >> 64) as u64).rotate_left(29);
    (folded.wrapping_mul(MULTIPLIER) >> (64 - SLOTS.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_letters_change_their_case() {
        for byte in 0..=u8::MAX {
            for place in 0..8 {
                let mut bytes = [b'Z' + 1; 8];
                bytes[place] = byte;
                let mut expected = bytes;
                expected.make_ascii_lowercase();
                let lower = super::lower_case(u64::from_le_bytes(bytes));
                assert_eq!(lower.to_le_bytes(), expected, "{byte} at {place}");
            }
        }
    }

    use super::*;
    use crate::resp::key_specs::{self, KeySpec};
    use std::collections::HashSet;

    #[test]
    fn each_command_is_found_in_any_case() {
        for entry in COMMANDS.entries() {
            let spec = entry.spec;
            if let Some((family, own)) = spec.name.split_once('|') {
                let family = COMMANDS.find(family.as_bytes()).expect("its family");
                let found = COMMANDS.subcommand(family, own.to_uppercase().as_bytes());
                assert_eq!(found.map(|found| found.number), Some(entry.number));
            } else {
                let found = COMMANDS.find(spec.name.to_uppercase().as_bytes());
                assert_eq!(found.map(|found| found.number), Some(entry.number));
            }
        }
        for len in 0..=15 {
            let name: Vec<u8> = (b'A'..).take(len).collect();
            let mut packed_name = packed(&name).expect("it is short").to_le_bytes();
            assert_eq!(packed_name[15], len as u8);
            packed_name[15] = 0;
            assert_eq!(packed_name[..len], *name.to_ascii_lowercase());
            assert!(packed_name[len..].iter().all(|&byte| byte == 0));
        }
        for name in ["", "ge", "gett", "get ", "get\0", "a-name-of-17-bytes"] {
            assert!(COMMANDS.find(name.as_bytes()).is_none(), "{name:?}");
        }
    }

    /// What follows from a definition can only be right if its parts agree.
    #[test]
    fn definitions_agree_with_themselves() {
        let mut names = HashSet::new();
        for entry in COMMANDS.entries() {
            let Spec {
                name,
                syntax,
                arity,
                keys,
                permission,
                summary,
                complexity,
                since,
                ..
            } = entry.spec;
            assert!(names.insert(name), "{name}");
            assert_eq!(*name, name.to_lowercase());
            assert!(*arity != 0, "{name}: its own name is a word");
            assert!(!summary.is_empty() && !summary.ends_with('.'), "{name}");
            assert!(!complexity.is_empty() && !since.is_empty(), "{name}");
            let is = |flag| entry.spec.is(flag);
            assert!(!(is(flag::READONLY) && is(flag::WRITE)), "{name}");
            assert_eq!(
                is(flag::WRITE),
                matches!(permission, Permission::Write | Permission::Update)
                    || is(flag::WRITE) && *permission == Permission::Admin,
                "{name}"
            );
            // Whose reply shows what was there is not for who may only write.
            let shows = |spec: &KeySpec| spec.uses.contains(&"access");
            let shows = key_specs::of(entry.spec).iter().any(shows);
            if is(flag::WRITE) && !is(flag::SHOWS_WITH_OPTION) {
                assert_eq!(shows, *permission == Permission::Update, "{name}");
            }
            if is(flag::OF_PATTERN) {
                assert!(arity.unsigned_abs() > 1, "{name}: the pattern");
            }
            if is(flag::SECRET_VALUES) {
                assert!(name.contains('|'), "{name}: what follows a subcommand");
            }
            if is(flag::OF_PATTERN) || is(flag::OF_MATCH) {
                assert_eq!(*keys, Keys::NONE, "{name}");
            }
            if keys.first > 0 {
                assert!(is(flag::READONLY) || is(flag::WRITE), "{name}");
                assert!(
                    i16::from(arity.unsigned_abs()) > keys.first.into(),
                    "{name}"
                );
            }
            let optional = syntax.starts_with('[') || syntax.is_empty();
            if *arity == -1 {
                assert!(optional, "{name}: {syntax}");
            }
        }
    }
}
