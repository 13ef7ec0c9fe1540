//! Whether a connection may run a command: whether it is one, who asks, what the command needs, and which keys it names.

use henge_wire::resp::request::{Arguments, Limits};
use henge_wire::resp::writer::Output;

use super::{Pipeline, Stop, check};
use crate::access::caller::{Caller, Denied};
use crate::access::permission::Permission;
use crate::audit::Outcome;
use crate::insight::slow;
use crate::resp::call::{ErrorReply, Flow};
use crate::resp::key_specs;
use crate::resp::table::{Entry, Keys, Spec, flag};

/// Who is not served has nothing to say but who it is: what it sends is not to cost memory before that is known. As in Redis.
pub(super) const OF_STRANGERS: Limits = Limits {
    max_bulk_bytes: 16 * 1024,
    max_arguments: 16,
    max_request_bytes: 64 * 1024,
};

impl Pipeline {
    /// The command that is meant, if it is one and may be run. What it cannot or may not be is its reply; the error is what follows
    /// that.
    #[inline]
    pub(super) fn admit(
        &mut self,
        words: Arguments<'_>,
        entry: Option<Entry>,
        now_ms: u64,
        out: &mut Output,
    ) -> Result<Entry, Option<Stop>> {
        let caller = &self.session.caller;
        match check(words, entry) {
            Ok(entry) if caller.is_free() || may_run(caller, entry.spec, words).is_ok() => {
                Ok(entry)
            }
            checked => self.refuse_or_run(words, checked, now_ms, out),
        }
    }

    /// What is no command, or may not be run, for all that was found out when the batch began.
    #[cold]
    fn refuse_or_run(
        &mut self,
        words: Arguments<'_>,
        checked: Result<Entry, (Option<Entry>, ErrorReply)>,
        now_ms: u64,
        out: &mut Output,
    ) -> Result<Entry, Option<Stop>> {
        // It may have been reset since then, and has to be looked at again.
        self.session.caller.look(&self.local.shared.access, now_ms);
        if !self.session.caller.is_free() {
            self.keep_out(words, checked.as_ref(), now_ms, out)?;
        }
        checked.map_err(|(entry, error)| self.reject(entry, &error, out))
    }

    fn keep_out(
        &mut self,
        words: Arguments<'_>,
        checked: Result<&Entry, &(Option<Entry>, ErrorReply)>,
        now_ms: u64,
        out: &mut Output,
    ) -> Result<(), Option<Stop>> {
        let caller = &self.session.caller;
        let found = checked.map_or_else(|(entry, _)| *entry, |entry| Some(*entry));
        let denied = match (caller.check(Permission::Connection), checked) {
            (Err(Denied::Unknown), _)
                if found.is_some_and(|entry| entry.spec.is(flag::NO_AUTH)) =>
            {
                return Ok(());
            }
            // Who is not known is not told either what is no command.
            (Err(denied), _) => denied,
            (Ok(()), Err(_)) => return Ok(()),
            (Ok(()), Ok(entry)) => match may_run(caller, entry.spec, words) {
                Ok(()) => return Ok(()),
                Err(denied) => denied,
            },
        };
        let name = found.map(|entry| entry.spec.name);
        let error = ErrorReply::denied(denied, caller, name);
        if self.local.shared.audit.is_on() && !self.session.is_forwarded {
            // What a stranger says besides may be anything.
            let name = name.unwrap_or("unknown");
            let audit = &self.local.shared.audit;
            audit.note(
                now_ms,
                &self
                    .session
                    .action(name, Outcome::Denied, Some(error.code())),
            );
        }
        let stop = self.reject(found, &error, out);
        // As in Redis: who is not served at all is not kept either.
        let is_over = denied == Denied::Protected;
        Err(if is_over { Some(Stop::Close) } else { stop })
    }
}

impl Pipeline {
    /// Notes down what came of a command that has run, if it administers the node, and if that is known already.
    pub(super) fn audit_run(
        &self,
        spec: &Spec,
        words: Arguments<'_>,
        flow: &Result<Flow, ErrorReply>,
    ) {
        let (outcome, error) = match flow {
            Ok(Flow::Later(_)) => return,
            Ok(Flow::Done | Flow::Close) => (Outcome::Done, None),
            Err(error) => (Outcome::Failed, Some(error)),
        };
        self.audit(spec, &slow::shortened(words), outcome, error);
    }

    /// The same of any that has run, or will.
    pub(in crate::resp) fn audit(
        &self,
        spec: &Spec,
        words: &[Vec<u8>],
        outcome: Outcome,
        error: Option<&ErrorReply>,
    ) {
        let shared = &self.local.shared;
        let is_noted = spec.permission == Permission::Admin && shared.audit.is_on();
        if !is_noted || self.session.is_forwarded {
            return;
        }
        let words = without_secrets(spec, words);
        let words = words.iter().map(|word| String::from_utf8_lossy(word));
        let words = words.collect::<Vec<_>>().join(" ");
        let action = self
            .session
            .action(&words, outcome, error.map(ErrorReply::code));
        shared.audit.note(shared.clock.now_ms(), &action);
    }
}

/// The words of a command but for values that may be secrets.
pub(super) fn without_secrets<'w>(spec: &Spec, words: &'w [Vec<u8>]) -> Vec<&'w [u8]> {
    // Passwords of other servers are set so; of ours, which have a section, none is one.
    let is_ours = |place: usize| words[place].contains(&b'.');
    let hides = |place: usize| {
        spec.is(flag::SECRET_VALUES) && place > 2 && place % 2 == 1 && !is_ours(place - 1)
    };
    let words = words.iter().enumerate();
    let words = words.map(|(place, word)| if hides(place) { b"(hidden)" } else { &word[..] });
    words.collect()
}

/// Whether who asks may run a command with these words.
#[inline]
fn may_run(caller: &Caller, spec: &Spec, words: Arguments<'_>) -> Result<(), Denied> {
    caller.check(needed(spec, words))?;
    match spec.keys {
        Keys::FIRST => caller.check_key(&words[1]),
        Keys::NONE => may_range(caller, spec, words),
        keys => {
            let mut places = key_specs::places(keys, words.len());
            places.try_for_each(|place| caller.check_key(&words[place]))
        }
    }
}

/// The same of what names no keys, but may be about many.
fn may_range(caller: &Caller, spec: &Spec, words: Arguments<'_>) -> Result<(), Denied> {
    match spec.permission {
        Permission::Read | Permission::Write | Permission::Update => {
            if spec.is(flag::OF_PATTERN) {
                caller.check_pattern(&words[1])
            } else if spec.is(flag::OF_MATCH) {
                caller.check_pattern(matched(words))
            } else {
                // It is about all keys, or about any of them.
                caller.check_prefix(b"")
            }
        }
        _ => Ok(()),
    }
}

/// What it needs, with these options.
#[inline]
fn needed(spec: &Spec, words: Arguments<'_>) -> Permission {
    let shows =
        |word: &[u8]| word.eq_ignore_ascii_case(b"GET") || word.eq_ignore_ascii_case(b"IFEQ");
    if spec.is(flag::SHOWS_WITH_OPTION) && words.len() > 3 && words.from(3).any(shows) {
        Permission::Update
    } else {
        spec.permission
    }
}

/// The pattern of the option MATCH, the last if there are several; that of all keys if there is none.
fn matched(words: Arguments<'_>) -> &[u8] {
    let mut pattern = &b"*"[..];
    let mut at = 2;
    while let (Some(option), Some(value)) = (words.get(at), words.get(at + 1)) {
        if option.eq_ignore_ascii_case(b"MATCH") {
            pattern = value;
        }
        at += 2;
    }
    pattern
}
