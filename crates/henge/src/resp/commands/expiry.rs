//! Commands on how long keys live. A deadline is a time of the wall in milliseconds; a command that says it in seconds, or
//! from now on, is made into one first.

use henge_wire::{Expiry, Match, Operation, Precondition, Refusal, Reply, Version};

use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::pipeline::shown;
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};
use crate::resp::update::Attempts;

pub(in crate::resp) const COMMANDS: &[Spec] = &[
    Spec {
        name: "expire",
        syntax: "key seconds [NX | XX | GT | LT]",
        since: "1.0.0",
        summary: "Has a key expire in so many seconds",
        run: Run::Handler(expire),
        ..SETS
    },
    Spec {
        name: "pexpire",
        syntax: "key milliseconds [NX | XX | GT | LT]",
        since: "2.6.0",
        summary: "Has a key expire in so many milliseconds",
        run: Run::Handler(pexpire),
        ..SETS
    },
    Spec {
        name: "expireat",
        syntax: "key unix-time-seconds [NX | XX | GT | LT]",
        since: "1.2.0",
        summary: "Has a key expire at a time in seconds",
        run: Run::Handler(expireat),
        ..SETS
    },
    Spec {
        name: "pexpireat",
        syntax: "key unix-time-milliseconds [NX | XX | GT | LT]",
        since: "2.6.0",
        summary: "Has a key expire at a time in milliseconds",
        run: Run::Handler(pexpireat),
        ..SETS
    },
    Spec {
        name: "persist",
        syntax: "key",
        arity: 2,
        since: "2.2.0",
        summary: "Has a key live until it is deleted or evicted",
        run: Run::Handler(persist),
        ..SETS
    },
    Spec {
        name: "ttl",
        since: "1.0.0",
        summary: "Says in how many seconds a key expires",
        run: Run::Handler(ttl),
        ..TELLS
    },
    Spec {
        name: "pttl",
        since: "2.6.0",
        summary: "Says in how many milliseconds a key expires",
        run: Run::Handler(pttl),
        ..TELLS
    },
    Spec {
        name: "expiretime",
        since: "7.0.0",
        summary: "Says at which time in seconds a key expires",
        run: Run::Handler(expiretime),
        ..TELLS
    },
    Spec {
        name: "pexpiretime",
        since: "7.0.0",
        summary: "Says at which time in milliseconds a key expires",
        run: Run::Handler(pexpiretime),
        ..TELLS
    },
];

/// What the commands that set a deadline have in common.
const SETS: Spec = Spec {
    name: "",
    syntax: "",
    arity: -3,
    flags: flag::WRITE | flag::FAST,
    keys: Keys::FIRST,
    permission: Permission::Write,
    group: Group::Generic,
    since: "",
    complexity: "O(1)",
    summary: "",
    run: Run::Handler(persist),
};

/// What the commands that tell one have in common.
const TELLS: Spec = Spec {
    syntax: "key",
    arity: 2,
    flags: flag::READONLY | flag::FAST,
    permission: Permission::Read,
    run: Run::Handler(ttl),
    ..SETS
};

const MS_PER_SECOND: i64 = 1_000;

fn expire(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let now_ms = call.now_ms;
    set_deadline(call, MS_PER_SECOND, now_ms)
}

fn pexpire(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let now_ms = call.now_ms;
    set_deadline(call, 1, now_ms)
}

fn expireat(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    set_deadline(call, MS_PER_SECOND, 0)
}

fn pexpireat(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    set_deadline(call, 1, 0)
}

/// Reads a time in a unit, counted from a time, and sets the deadline where the options allow it.
fn set_deadline(call: &mut Call<'_>, unit_ms: i64, from_ms: u64) -> Result<Flow, ErrorReply> {
    let options = Options::read(call)?;
    let time = call.integer(2)?;
    let deadline = i64::try_from(from_ms)
        .ok()
        .zip(time.checked_mul(unit_ms))
        .and_then(|(from, after)| from.checked_add(after))
        .ok_or_else(|| ErrorReply::invalid_expire(call.spec.name))?;
    // What expires before the epoch expires at it.
    let deadline = u64::try_from(deadline).unwrap_or(0);
    let is_set = if options == Options::default() {
        change(call, deadline, Precondition::NONE)? == Changed::Yes
    } else {
        let mut attempts = Attempts::default();
        loop {
            attempts.begin()?;
            let Some((version, current)) = peek(call) else {
                break false;
            };
            if !options.allow(current, deadline) {
                break false;
            }
            // It may have another deadline by now; then the options are asked again. A missing key is not.
            match change(call, deadline, in_version(&version))? {
                Changed::Yes => break true,
                Changed::Missing => break false,
                Changed::RaceLost => {}
            }
        }
    };
    call.out.integer(is_set.into());
    Ok(Flow::Done)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Changed {
    Yes,
    /// The key is absent.
    Missing,
    /// The precondition does not hold.
    RaceLost,
}

/// Gives a key a deadline; one that is not to come deletes it.
fn change(
    call: &Call<'_>,
    deadline_ms: u64,
    precondition: Precondition<'_>,
) -> Result<Changed, ErrorReply> {
    let operation = if deadline_ms <= call.now_ms {
        Operation::Delete { precondition }
    } else {
        Operation::Expire {
            expiry: Expiry::At(deadline_ms),
            precondition,
        }
    };
    run(call, operation)
}

fn run(call: &Call<'_>, operation: Operation<'_>) -> Result<Changed, ErrorReply> {
    call.on_key(1, operation, |reply| match reply {
        Reply::Missing => Ok(Changed::Missing),
        Reply::Refused(Refusal::PreconditionFailed(_)) => Ok(Changed::RaceLost),
        Reply::Refused(refusal) => Err(ErrorReply::of(refusal)),
        _ => Ok(Changed::Yes),
    })
}

/// The version of the call's key, and its deadline.
fn peek(call: &Call<'_>) -> Option<(Version, Option<u64>)> {
    call.on_key(1, Operation::Peek, |reply| match reply {
        Reply::Found(item) => Some((item.version, item.expires_at_ms)),
        _ => None,
    })
}

fn in_version(version: &Version) -> Precondition<'_> {
    Precondition {
        matches: Some(Match::OneOf(std::slice::from_ref(version))),
        none_matches: None,
    }
}

/// When a deadline is set, by the one that there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a word that may be given"
)]
struct Options {
    /// `NX`: only if there is none.
    none: bool,
    /// `XX`: only if there is one.
    some: bool,
    /// `GT`: only if it is later. A key without one never expires, so nothing is later.
    later: bool,
    /// `LT`: only if it is earlier.
    earlier: bool,
}

impl Options {
    fn read(call: &Call<'_>) -> Result<Self, ErrorReply> {
        let mut options = Self::default();
        for index in 3..call.words.len() {
            let option = [
                ("nx", &mut options.none),
                ("xx", &mut options.some),
                ("gt", &mut options.later),
                ("lt", &mut options.earlier),
            ]
            .into_iter()
            .find(|(word, _)| call.is(index, word));
            let Some((_, is_given)) = option else {
                let word = shown(call.word(index));
                return Err(ErrorReply::new(format!("ERR Unsupported option {word}")));
            };
            *is_given = true;
        }
        if options.none && (options.some || options.later || options.earlier) {
            return Err(ErrorReply::fixed(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if options.later && options.earlier {
            return Err(ErrorReply::fixed(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(options)
    }

    fn allow(self, current: Option<u64>, deadline: u64) -> bool {
        match current {
            None => !self.some && !self.later,
            Some(current) => {
                !self.none
                    && (!self.later || deadline > current)
                    && (!self.earlier || deadline < current)
            }
        }
    }
}

fn persist(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let mut attempts = Attempts::default();
    let had_deadline = loop {
        attempts.begin()?;
        let Some((version, Some(_))) = peek(call) else {
            break false;
        };
        let operation = Operation::Expire {
            expiry: Expiry::Never,
            precondition: in_version(&version),
        };
        match run(call, operation)? {
            Changed::Yes => break true,
            Changed::Missing => break false,
            Changed::RaceLost => {}
        }
    };
    call.out.integer(had_deadline.into());
    Ok(Flow::Done)
}

fn ttl(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    tell(call, |deadline, now_ms| {
        to_seconds(deadline.saturating_sub(now_ms))
    })
}

fn pttl(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    tell(call, u64::saturating_sub)
}

fn expiretime(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    tell(call, |deadline, _| to_seconds(deadline))
}

fn pexpiretime(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    tell(call, |deadline, _| deadline)
}

/// To the nearest.
fn to_seconds(ms: u64) -> u64 {
    ms.saturating_add(500) / 1_000
}

/// Answers what `show` makes of a key's deadline and the time, -1 for a key without one, -2 for none.
fn tell(call: &mut Call<'_>, show: impl FnOnce(u64, u64) -> u64) -> Result<Flow, ErrorReply> {
    let answer = match peek(call) {
        None => -2,
        Some((_, None)) => -1,
        Some((_, Some(deadline))) => i64::try_from(show(deadline, call.now_ms)).unwrap_or(i64::MAX),
    };
    call.out.integer(answer);
    Ok(Flow::Done)
}
